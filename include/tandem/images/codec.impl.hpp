// Definitions of images/codec.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/files/file_kind.hpp>
#include <tandem/images/codec.hpp>
#include <tandem/images/jpeg_reader.hpp>
#include <tandem/images/orientation.hpp>
#include <tandem/images/png_reader.hpp>

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE DecodeFunction& webp_decoder() {
    static DecodeFunction decoder = nullptr;
    return decoder;
}

/// decode_image without its orientation.
TANDEM_INLINE Image decode_stored(std::span<const std::byte> bytes, std::string_view name,
                                  [[maybe_unused]] const DecodeOptions& options) {
    if (starts_with(bytes, "\xff\xd8\xff")) {
#if __has_include(<jpeglib.h>) && __has_include(<jconfig.h>)
        return JpegReader(bytes, name).read(options);
#else
        throw Error(name, "is a JPEG, and the headers of libjpeg were missing when this program was compiled");
#endif
    }
    if (starts_with(bytes, "\x89PNG\r\n\x1a\n")) {
#if __has_include(<png.h>)
        return PngReader(bytes, name).read(options);
#else
        throw Error(name, "is a PNG, and the headers of libpng were missing when this program was compiled");
#endif
    }
    const std::string_view kind = file_kind(bytes).name;
    const DecodeFunction decode_webp_data = webp_decoder();
    if (kind == "WebP data" && decode_webp_data != nullptr) return decode_webp_data(bytes, name, options);
    throw Error(name, decode_webp_data == nullptr ? "a JPEG or PNG image" : "a JPEG, PNG or WebP image",
                kind.empty()          ? "an unknown format"
                : kind == "WebP data" ? "WebP data, which a program reads that includes tandem/images/webp.hpp"
                                      : kind);
}

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE Image decode_image(std::span<const std::byte> bytes, std::string_view name, DecodeOptions options) {
    Image image = detail::decode_stored(bytes, name, options);
    if (options.orientation == Orientation::exif) detail::turn(image, detail::exif_orientation(bytes));
    return image;
}

TANDEM_INLINE Image read_image(const std::filesystem::path& path, DecodeOptions options) {
    const std::string name = path.string();
    std::error_code failure;
    if (!std::filesystem::is_regular_file(path, failure)) throw Error(name, "is not a file that can be read");
    const std::uintmax_t size = std::filesystem::file_size(path, failure);
    // 8 bytes are the most a stored pixel takes (16-bit RGBA); the rest is room for profiles and texts.
    constexpr std::uintmax_t metadata = std::uintmax_t{1} << 26;
    if (failure || (size > metadata && (size - metadata) / 8 > options.pixel_limit)) {
        throw OversizedImage(name,
                             "is larger than an image of " + std::to_string(options.pixel_limit) + " pixels can be");
    }
    std::vector<std::byte> bytes(static_cast<std::size_t>(size));
    std::ifstream file(path, std::ios::binary);
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!file) throw Error(name, "cannot be read");
    return decode_image(bytes, name, options);
}

#if __has_include(<png.h>)

TANDEM_INLINE std::vector<std::byte> encode_png(const Image& image) {
    detail::check_image(image, "encode_png");
    return detail::write_png(image);
}

#endif

}  // namespace tandem::inline TANDEM_ABI

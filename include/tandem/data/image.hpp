// RGB images in memory; JPEG and PNG files decoded to them, PNG files encoded from them.
#pragma once

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

// A cross compiler on Debian finds jpeglib.h, but not jconfig.h, the part that is kept for every architecture apart.
#if __has_include(<jpeglib.h>) && __has_include(<jconfig.h>)
#include <jpeglib.h>
// (jerror.h needs the types of jpeglib.h.)
#include <jerror.h>
#endif
#if __has_include(<png.h>)
#include <png.h>
#endif

#include <tandem/core/error.hpp>
#include <tandem/data/file_kind.hpp>

namespace tandem::inline TANDEM_ABI {

/// 8 bits a channel, as sRGB files store them.
struct Colour {
    std::uint8_t red = 0;
    std::uint8_t green = 0;
    std::uint8_t blue = 0;

    bool operator==(const Colour&) const = default;
};

inline constexpr Colour black{0, 0, 0};
inline constexpr Colour white{255, 255, 255};

/// An RGB picture: `pixels` is [height][width][3], row by row from the top, and holds 3 * width * height bytes.
struct Image {
    int width = 0;
    int height = 0;
    std::vector<std::uint8_t> pixels;

    bool operator==(const Image&) const = default;
};

struct DecodeOptions {
    /// An image of more pixels is refused from its header, before memory for it is asked for.
    std::size_t pixel_limit = std::size_t{1} << 26;

    /// What transparent PNG pixels lie on: (colour * alpha + background * (255 - alpha)) / 255, rounded, as Pillow's
    /// paste with a mask. Empty: alpha is dropped and the stored colours are used, as Pillow's convert("RGB").
    std::optional<Colour> background = std::nullopt;
};

/// The Error of an image with more pixels than the limit, so that a caller can count these apart.
class OversizedImage : public Error {
public:
    using Error::Error;
};

namespace detail {

/// The bytes of a width x height image; refuses sizes above `limit` pixels and those memory cannot hold.
inline std::vector<std::uint8_t> allocate_pixels(std::size_t width, std::size_t height, std::size_t channels,
                                                 std::string_view name) {
    try {
        return std::vector<std::uint8_t>(width * height * channels);
    } catch (const std::exception&) {
        throw Error(name, "no memory for " + std::to_string(width) + " x " + std::to_string(height) + " pixels");
    }
}

/// Throws where a header claims no pixels, or more than `limit`.
inline void check_pixel_count(std::size_t width, std::size_t height, std::size_t limit, std::string_view name) {
    // 2^31 a side keeps every later product of 64 bits from wrapping.
    const bool fits = width < (std::size_t{1} << 31) && height < (std::size_t{1} << 31) && width * height <= limit;
    if (width > 0 && height > 0 && fits) return;
    throw OversizedImage(name, "an image of 1 to " + std::to_string(limit) + " pixels",
                         std::to_string(width) + " x " + std::to_string(height) + " pixels in the header");
}

/// Throws unless the image has pixels, and as many as its sides say.
inline void check_image(const Image& image, std::string_view where) {
    if (image.width > 0 && image.height > 0 &&
        image.pixels.size() ==
            std::size_t{3} * static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height)) {
        return;
    }
    throw Error(where, "3 * width * height bytes of pixels",
                std::to_string(image.pixels.size()) + " bytes for " + std::to_string(image.width) + " x " +
                    std::to_string(image.height));
}

/// Where a C library's error callback leaves its message and jumps to.
struct JumpTarget {
    std::jmp_buf jump;
    std::array<char, 256> message;

    void set(const char* text) noexcept { std::snprintf(message.data(), message.size(), "%s", text); }
};

/// Calls body; false where a callback jumped out of it. The jump runs no destructors, so body calls the library and
/// owns nothing meanwhile. Compilers never inline a function that calls setjmp: the caller's locals outlive the jump.
template <class Body>
bool survives_jump(JumpTarget& target, const Body& body) {
    if (setjmp(target.jump) != 0) return false;
    body();
    return true;
}

/// colour * alpha over background, divided by 255 and rounded, in Pillow's integers (libImaging/Paste.c, BLEND).
inline std::uint8_t blend(unsigned colour, unsigned background, unsigned alpha) {
    const unsigned sum = colour * alpha + background * (255U - alpha) + 128U;
    return static_cast<std::uint8_t>(((sum >> 8) + sum) >> 8);
}

inline void compose_row(const std::uint8_t* rgba, std::size_t width, Colour background, std::uint8_t* rgb) {
    for (std::size_t x = 0; x < width; ++x, rgba += 4, rgb += 3) {
        rgb[0] = blend(rgba[0], background.red, rgba[3]);
        rgb[1] = blend(rgba[1], background.green, rgba[3]);
        rgb[2] = blend(rgba[2], background.blue, rgba[3]);
    }
}

#if __has_include(<png.h>)

[[noreturn]] inline void png_failed(png_structp png, png_const_charp message) {
    auto& target = *static_cast<JumpTarget*>(png_get_error_ptr(png));
    target.set(message);
    std::longjmp(target.jump, 1);
}

inline void png_warned(png_structp, png_const_charp) {}

/// One PNG file in memory being decoded.
class PngReader {
public:
    PngReader(std::span<const std::byte> bytes, std::string_view name) : bytes_(bytes), name_(name) {
        png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &error_, png_failed, png_warned);
        if (png_ == nullptr) throw Error(name_, "libpng could not be started");
    }
    PngReader(const PngReader&) = delete;
    PngReader& operator=(const PngReader&) = delete;
    ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }

    Image read(const DecodeOptions& options) {
        constexpr std::size_t header_end = 24;  // signature, length, "IHDR", width, height
        if (bytes_.size() < header_end) throw Error(name_, "damaged PNG: the file ends inside its header");
        const std::size_t width = big_endian(16);
        const std::size_t height = big_endian(20);
        check_pixel_count(width, height, options.pixel_limit, name_);

        const bool compose = options.background.has_value();
        guarded([&] { begin(compose); });
        const bool alpha = channels_ == 4;
        const bool buffered = alpha && passes_ > 1;
        Image image{static_cast<int>(width), static_cast<int>(height), allocate_pixels(width, height, 3, name_)};
        std::vector<std::uint8_t> rgba;
        if (alpha) rgba = allocate_pixels(width, buffered ? height : 1, 4, name_);

        guarded([&] {
            for (int pass = 0; pass < passes_; ++pass) {
                for (std::size_t y = 0; y < height; ++y) {
                    std::uint8_t* row = image.pixels.data() + y * width * 3;
                    std::uint8_t* target = alpha ? rgba.data() + (buffered ? y * width * 4 : 0) : row;
                    png_read_row(png_, target, nullptr);
                    if (alpha && pass + 1 == passes_) compose_row(target, width, *options.background, row);
                }
            }
            png_read_end(png_, nullptr);
        });
        return image;
    }

private:
    template <class Body>
    void guarded(const Body& body) {
        if (!survives_jump(error_, body)) throw Error(name_, "damaged PNG: " + std::string(error_.message.data()));
    }

    void begin(bool compose) {
        info_ = png_create_info_struct(png_);
        if (info_ == nullptr) png_error(png_, "no memory");
        png_set_read_fn(png_, this, [](png_structp png, png_bytep out, std::size_t count) {
            auto& self = *static_cast<PngReader*>(png_get_io_ptr(png));
            if (count > self.bytes_.size() - self.position_) png_error(png, "the file ends too early");
            std::memcpy(out, self.bytes_.data() + self.position_, count);
            self.position_ += count;
        });
        png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
        // Every checksum counts, and what colours do not need (profiles, texts) is not decompressed.
        png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
        png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
        png_read_info(png_, info_);
        png_set_expand(png_);  // palettes to RGB, 1, 2 and 4 bits to 8, tRNS to alpha
        png_set_strip_16(png_);
        png_set_gray_to_rgb(png_);
        if (!compose) png_set_strip_alpha(png_);
        passes_ = png_set_interlace_handling(png_);
        png_read_update_info(png_, info_);
        channels_ = png_get_channels(png_, info_);
    }

    std::size_t big_endian(std::size_t at) const {
        std::size_t value = 0;
        for (std::size_t i = 0; i < 4; ++i) value = value << 8 | std::to_integer<std::size_t>(bytes_[at + i]);
        return value;
    }

    std::span<const std::byte> bytes_;
    std::string_view name_;
    std::size_t position_ = 0;
    JumpTarget error_;
    png_structp png_ = nullptr;
    png_infop info_ = nullptr;
    int passes_ = 1;
    int channels_ = 3;
};

#endif

#if __has_include(<jpeglib.h>) && __has_include(<jconfig.h>)

[[noreturn]] inline void jpeg_failed(j_common_ptr info) {
    auto& target = *static_cast<JumpTarget*>(info->client_data);
    std::array<char, JMSG_LENGTH_MAX> message;
    info->err->format_message(info, message.data());
    target.set(message.data());
    std::longjmp(target.jump, 1);
}

/// libjpeg only warns of damage and goes on with grey blocks. Warnings about stray bytes between segments and about odd
/// header fields stay silent, since every pixel is still there.
inline void jpeg_warned(j_common_ptr info, int level) {
    const int code = info->err->msg_code;
    const bool harmless = code == JWRN_EXTRANEOUS_DATA || code == JWRN_JFIF_MAJOR || code == JWRN_ADOBE_XFORM;
    if (level < 0 && !harmless) jpeg_failed(info);
}

/// Encoders write about ten scans; a small hostile file can ask for thousands, each a pass over the whole image.
inline void jpeg_progressed(j_common_ptr info) {
    constexpr int scan_limit = 100;
    if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= scan_limit) return;
    auto& target = *static_cast<JumpTarget*>(info->client_data);
    target.set("more than 100 scans");
    std::longjmp(target.jump, 1);
}

/// One JPEG file in memory being decoded with libjpeg's defaults: accurate integer DCT, smooth chroma upsampling.
class JpegReader {
public:
    JpegReader(std::span<const std::byte> bytes, std::string_view name) : bytes_(bytes), name_(name) {
        info_.err = jpeg_std_error(&manager_);
        manager_.error_exit = jpeg_failed;
        manager_.emit_message = jpeg_warned;
        progress_.progress_monitor = jpeg_progressed;
        info_.client_data = &error_;
    }
    JpegReader(const JpegReader&) = delete;
    JpegReader& operator=(const JpegReader&) = delete;
    ~JpegReader() { jpeg_destroy_decompress(&info_); }

    Image read(const DecodeOptions& options) {
        guarded([&] {
            jpeg_create_decompress(&info_);  // (keeps err and client_data, clears the rest)
            info_.progress = &progress_;
            jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes_.data()), bytes_.size());
            jpeg_read_header(&info_, TRUE);
        });
        const std::size_t width = info_.image_width;
        const std::size_t height = info_.image_height;
        check_pixel_count(width, height, options.pixel_limit, name_);
        const bool cmyk = info_.num_components == 4;
        Image image{static_cast<int>(width), static_cast<int>(height), allocate_pixels(width, height, 3, name_)};
        std::vector<std::uint8_t> row;
        if (cmyk) row = allocate_pixels(width, 1, 4, name_);

        guarded([&] {
            info_.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
            jpeg_start_decompress(&info_);
            while (info_.output_scanline < info_.output_height) {
                std::uint8_t* rgb = image.pixels.data() + info_.output_scanline * width * 3;
                std::uint8_t* target = cmyk ? row.data() : rgb;
                jpeg_read_scanlines(&info_, &target, 1);
                if (cmyk) convert_cmyk(row.data(), width, rgb);
            }
            jpeg_finish_decompress(&info_);
        });
        return image;
    }

private:
    template <class Body>
    void guarded(const Body& body) {
        if (!survives_jump(error_, body)) throw Error(name_, "damaged JPEG: " + std::string(error_.message.data()));
    }

    /// Files store inverted inks, as Adobe writes them: black - black * ink / 255, each clamped by Pillow's integers
    /// (Pillow JpegImagePlugin.py "CMYK;I", libImaging/Convert.c cmyk2rgb).
    static void convert_cmyk(const std::uint8_t* cmyk, std::size_t width, std::uint8_t* rgb) {
        for (std::size_t x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
            for (std::size_t c = 0; c < 3; ++c) {
                rgb[c] = static_cast<std::uint8_t>(cmyk[3] - blend(255U - cmyk[c], 0, cmyk[3]));
            }
        }
    }

    std::span<const std::byte> bytes_;
    std::string_view name_;
    JumpTarget error_;
    jpeg_error_mgr manager_{};
    jpeg_progress_mgr progress_{};
    jpeg_decompress_struct info_{};
};

#endif

}  // namespace detail

/// Decodes a JPEG (baseline or progressive; grey, RGB, YCbCr, CMYK, YCCK) or a PNG (every colour type and depth,
/// interlaced or not), told apart by their first bytes, to RGB. `name` is what errors call the data.
///
/// PNG pixels equal Pillow's open(...).convert("RGB"), with one exception: 16-bit grey is reduced by its high byte, as
/// 16-bit RGB is (Pillow clamps it to 255 instead, which leaves nearly all of it white). JPEG pixels equal Pillow's up
/// to the version of libjpeg-turbo (one or two levels). EXIF orientation and colour profiles are ignored, as Pillow's.
/// Throws Error for another format, a size above options.pixel_limit, and truncated or damaged data, which Pillow lets
/// pass in some cases (a wrong Huffman code, a missing end marker).
inline Image decode_image(std::span<const std::byte> bytes, std::string_view name,
                          [[maybe_unused]] DecodeOptions options = {}) {
    if (detail::starts_with(bytes, "\xff\xd8\xff")) {
#if __has_include(<jpeglib.h>) && __has_include(<jconfig.h>)
        return detail::JpegReader(bytes, name).read(options);
#else
        throw Error(name, "is a JPEG, and the headers of libjpeg were missing when this program was compiled");
#endif
    }
    if (detail::starts_with(bytes, "\x89PNG\r\n\x1a\n")) {
#if __has_include(<png.h>)
        return detail::PngReader(bytes, name).read(options);
#else
        throw Error(name, "is a PNG, and the headers of libpng were missing when this program was compiled");
#endif
    }
    const std::string_view kind = detail::file_kind(bytes).name;
    throw Error(name, "a JPEG or PNG image", kind.empty() ? "an unknown format" : kind);
}

/// Reads and decodes a file; see decode_image. Throws Error naming the path.
inline Image read_image(const std::filesystem::path& path, DecodeOptions options = {}) {
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

/// The image as an 8-bit RGB PNG file. Throws Error for an image whose pixels do not fit its sides.
inline std::vector<std::byte> encode_png(const Image& image) {
    detail::check_image(image, "encode_png");
    struct Writer {
        detail::JumpTarget error;
        std::vector<std::byte> bytes;
        png_structp png = nullptr;
        png_infop info = nullptr;

        Writer() = default;
        Writer(const Writer&) = delete;
        Writer& operator=(const Writer&) = delete;
        ~Writer() { png_destroy_write_struct(&png, &info); }

        static bool append(Writer& self, const std::byte* data, std::size_t count) noexcept try {
            self.bytes.insert(self.bytes.end(), data, data + count);
            return true;
        } catch (const std::exception&) {
            return false;
        }
        static void write(png_structp png, png_bytep data, std::size_t count) {
            auto& self = *static_cast<Writer*>(png_get_io_ptr(png));
            if (!append(self, reinterpret_cast<const std::byte*>(data), count)) png_error(png, "no memory");
        }
    };
    Writer writer;
    writer.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &writer.error, detail::png_failed, detail::png_warned);
    if (writer.png == nullptr) throw Error("encode_png", "libpng could not be started");
    const bool written = detail::survives_jump(writer.error, [&] {
        writer.info = png_create_info_struct(writer.png);
        if (writer.info == nullptr) png_error(writer.png, "no memory");
        png_set_write_fn(writer.png, &writer, Writer::write, nullptr);
        png_set_user_limits(writer.png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
        png_set_IHDR(writer.png, writer.info, static_cast<png_uint_32>(image.width),
                     static_cast<png_uint_32>(image.height), 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                     PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
        png_write_info(writer.png, writer.info);
        const std::size_t row = image.pixels.size() / static_cast<std::size_t>(image.height);
        for (std::size_t at = 0; at < image.pixels.size(); at += row) {
            png_write_row(writer.png, image.pixels.data() + at);
        }
        png_write_end(writer.png, writer.info);
    });
    if (!written) throw Error("encode_png", writer.error.message.data());
    return std::move(writer.bytes);
}

#endif

}  // namespace tandem::inline TANDEM_ABI

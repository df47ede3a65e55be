// JPEG and PNG files decoded to images, PNG files encoded from them.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include <tandem/core/platform.hpp>
#include <tandem/images/image.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// What decodes another format.
using DecodeFunction = Image (*)(std::span<const std::byte> bytes, std::string_view name, const DecodeOptions& options);

/// That of WebP: null but in a program that includes images/webp.hpp.
DecodeFunction& webp_decoder();

}  // namespace detail

/// Decodes a JPEG (baseline or progressive; grey, RGB, YCbCr, CMYK, YCCK) or a PNG (every colour type and depth,
/// interlaced or not), told apart by their first bytes, to RGB; with images/webp.hpp included, also a WebP. `name` is
/// what errors call the data.
///
/// PNG pixels equal Pillow's open(...).convert("RGB"), with one exception: 16-bit grey is reduced by its high byte, as
/// 16-bit RGB is (Pillow clamps it to 255 instead, which leaves nearly all of it white). JPEG pixels equal Pillow's up
/// to the version of libjpeg-turbo (one or two levels). Colour profiles are ignored, as Pillow's, and so is
/// EXIF's orientation unless options ask for it.
/// Image::storage and samples tell how the file holds them; with options.background they are plain RGB.
/// Throws Error for another format, a size above options.pixel_limit, and truncated or damaged data. A PNG is read, as
/// by Pillow, where damage costs no pixel: its end is cut off behind them, or checksums of its pixels' chunks are wrong
/// and zlib's is right. Of what Pillow lets pass, pictures that lack pixels are refused (a wrong Huffman code, rows
/// that zlib's data lacks), and PNGs with a critical chunk that the standard does not know.
Image decode_image(std::span<const std::byte> bytes, std::string_view name, DecodeOptions options = {});

/// Reads and decodes a file; see decode_image. Throws Error naming the path.
Image read_image(const std::filesystem::path& path, DecodeOptions options = {});

#if defined(TANDEM_COMPILED) || __has_include(<png.h>)

/// The image as an 8-bit RGB PNG file. Throws Error for an image whose pixels do not fit its sides.
std::vector<std::byte> encode_png(const Image& image);

#endif

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/images/codec.impl.hpp>
#endif

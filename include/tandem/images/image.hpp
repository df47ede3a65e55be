// RGB images in memory; JPEG and PNG files decoded to them, PNG files encoded from them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <tandem/core/error.hpp>

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

/// How a file holds a picture: Pillow resizes it like that, and makes RGB of the result. Beside the RGB pixels,
/// Image::samples holds what they do not tell.
enum class Storage : std::uint8_t {
    rgb,      ///< RGB or grey of 8 bits a channel, opaque: no samples
    nearest,  ///< indices or bits, of which no mean can be taken; samples: the colours, [count <= 256][3]
    alpha,    ///< RGB or grey under an alpha that is not 255 everywhere; samples: [height][width] alphas
    ink,      ///< CMYK; samples: [height][width][4] inks, 255 is full
    grey16,   ///< grey of 16 bits; samples: [height][width][2], low bytes first
};

/// An RGB picture: `pixels` is [height][width][3], row by row from the top, and holds 3 * width * height bytes. A
/// decoded one also has its file's storage; only fit_image, preprocess and RandomResizedCrop look at it, and every
/// other operation is one of the RGB pixels and gives Storage::rgb.
struct Image {
    int width = 0;
    int height = 0;
    std::vector<std::uint8_t> pixels;
    Storage storage = Storage::rgb;
    std::vector<std::uint8_t> samples{};

    bool operator==(const Image&) const = default;
};

struct DecodeOptions {
    /// An image of more pixels is refused from its header, before memory for it is asked for. Pillow refuses the same
    /// (Image.py, _decompression_bomb_check: twice MAX_IMAGE_PIXELS).
    std::size_t pixel_limit = 178'956'970;

    /// What transparent PNG pixels lie on: (colour * alpha + background * (255 - alpha)) / 255, rounded, as Pillow's
    /// paste with a mask; the picture is RGB from then on. Empty: alpha is dropped from the pixels, which have the
    /// stored colours, as Pillow's convert("RGB"), and is kept in Image::samples.
    std::optional<Colour> background = std::nullopt;
};

/// The Error of an image with more pixels than the limit, so that a caller can count these apart.
class OversizedImage : public Error {
public:
    using Error::Error;
};

namespace detail {

/// Pillow's RGB of a colour of CMYK (libImaging/Convert.c, cmyk2rgb): of each ink the light that it and black let
/// through.
std::uint8_t ink_level(unsigned ink, unsigned black_ink);

/// Throws unless the image has pixels, and as many as its sides say.
void check_image(const Image& image, std::string_view where);

/// colour * alpha over background, divided by 255 and rounded, in Pillow's integers (libImaging/Paste.c, BLEND).
std::uint8_t blend(unsigned colour, unsigned background, unsigned alpha);

}  // namespace detail

/// Decodes a JPEG (baseline or progressive; grey, RGB, YCbCr, CMYK, YCCK) or a PNG (every colour type and depth,
/// interlaced or not), told apart by their first bytes, to RGB. `name` is what errors call the data.
///
/// PNG pixels equal Pillow's open(...).convert("RGB"), with one exception: 16-bit grey is reduced by its high byte, as
/// 16-bit RGB is (Pillow clamps it to 255 instead, which leaves nearly all of it white). JPEG pixels equal Pillow's up
/// to the version of libjpeg-turbo (one or two levels). EXIF orientation and colour profiles are ignored, as Pillow's.
/// Image::storage and samples tell how the file holds them; with options.background they are plain RGB.
/// Throws Error for another format, a size above options.pixel_limit, and truncated or damaged data. A PNG is read, as
/// by Pillow, where damage costs no pixel: its end is cut off behind them, or checksums of its pixels' chunks are wrong
/// and zlib's is right. Of what Pillow lets pass, pictures that lack pixels are refused (a wrong Huffman code, rows
/// that zlib's data lacks), and PNGs with a critical chunk that the standard does not know.
Image decode_image(std::span<const std::byte> bytes, std::string_view name,
                   [[maybe_unused]] DecodeOptions options = {});

/// Reads and decodes a file; see decode_image. Throws Error naming the path.
Image read_image(const std::filesystem::path& path, DecodeOptions options = {});

#if defined(TANDEM_COMPILED) || __has_include(<png.h>)

/// The image as an 8-bit RGB PNG file. Throws Error for an image whose pixels do not fit its sides.
std::vector<std::byte> encode_png(const Image& image);

#endif

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/images/image.impl.hpp>
#endif

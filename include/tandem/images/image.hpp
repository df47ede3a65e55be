// RGB images in memory, and how files are decoded to them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
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

/// The usual backgrounds and paddings.
inline constexpr Colour black{0, 0, 0};
inline constexpr Colour white{255, 255, 255};  ///< see black

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

/// Which way up a picture is given: as its pixels are stored, as open_clip and transformers take it, or as its EXIF
/// data say that it is to be looked at (Pillow's ImageOps.exif_transpose).
enum class Orientation : std::uint8_t { stored, exif };

/// How a file becomes an Image.
struct DecodeOptions {
    /// An image of more pixels is refused from its header, before memory for it is asked for. Pillow refuses the same
    /// (Image.py, _decompression_bomb_check: twice MAX_IMAGE_PIXELS).
    std::size_t pixel_limit = 178'956'970;

    /// What transparent PNG pixels lie on: (colour * alpha + background * (255 - alpha)) / 255, rounded, as Pillow's
    /// paste with a mask; the picture is RGB from then on. Empty: alpha is dropped from the pixels, which have the
    /// stored colours, as Pillow's convert("RGB"), and is kept in Image::samples.
    std::optional<Colour> background = std::nullopt;

    Orientation orientation = Orientation::stored;
};

/// The Error of an image with more pixels than the limit, so that a caller can count these apart.
class OversizedImage : public Error {
public:
    using Error::Error;
};

namespace detail {

/// colour * alpha over background, divided by 255 and rounded, in Pillow's integers (libImaging/Paste.c, BLEND).
constexpr std::uint8_t blend(unsigned colour, unsigned background, unsigned alpha) {
    const unsigned sum = colour * alpha + background * (255U - alpha) + 128U;
    return static_cast<std::uint8_t>(((sum >> 8) + sum) >> 8);
}

/// Pillow's RGB of a colour of CMYK (libImaging/Convert.c, cmyk2rgb): of each ink the light that it and black let
/// through.
constexpr std::uint8_t ink_level(unsigned ink, unsigned black_ink) {
    const unsigned light = 255U - black_ink;
    return static_cast<std::uint8_t>(light - blend(ink, 0, light));
}

/// Throws unless the image has pixels, and as many as its sides say.
void check_image(const Image& image, std::string_view where);

}  // namespace detail

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/images/image.impl.hpp>
#endif

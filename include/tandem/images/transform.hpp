// From pictures to a tower's input: crops, padding, flips, normalisation, and whole preprocessing recipes.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>

#include <tandem/core/image_size.hpp>
#include <tandem/core/random.hpp>
#include <tandem/images/image.hpp>
#include <tandem/images/resize.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// Copies source into a canvas of one colour at (left, top), both of which may be negative.
Image place(const ImageView& source, int width, int height, int left, int top, Colour colour);

}  // namespace detail

/// The pixels of a region. Throws Error for a region that is empty or leaves the image.
Image crop(const Image& image, const Region& region);

/// The shorter side becomes `size`, the longer one int(size * longer / shorter): torchvision's Resize(size).
Image resize_shortest(const Image& image, int size, Filter filter, Resampling resampling = Resampling::pillow_13);

/// The middle pixels, with torchvision's rounding (a half offset to the even pixel); sides that are shorter
/// are padded with black, the odd pixel at the right and below (torchvision 0.20, functional.py, center_crop).
Image center_crop(const Image& image, const ImageSize& size);

/// The image in the middle of a square of its longer side; an odd pixel is added at the right or below.
Image pad_to_square(const Image& image, Colour colour);

/// The picture mirrored: left and right swapped.
Image flip_horizontal(const Image& image);

/// What a picture that is not stored as RGB is resized as.
enum class ResizeAs {
    stored,  ///< as its Image::storage says, and made RGB afterwards: open_clip and OpenAI's CLIP
    rgb,     ///< as its RGB pixels: transformers
};

/// A random part of the image, resized: torchvision 0.20, transforms.py, RandomResizedCrop. The defaults of
/// scale are open_clip's training recipe (transform.py, AugmentationCfg); torchvision's own is 0.08 to 1.
struct RandomResizedCrop {
    double scale_low = 0.9;  ///< of the image's area
    double scale_high = 1.0;
    double ratio_low = 3.0 / 4.0;  ///< width / height
    double ratio_high = 4.0 / 3.0;

    /// Ten tries of an area (uniform) and a ratio (log-uniform) that fit; then the largest centred part of the image
    /// whose ratio lies within the bounds. Throws Error for bounds that are not positive and ordered.
    Region sample(int width, int height, Random& random) const;

    /// The sampled part resized to `size`, in RGB. Pixels outside it do not bleed in: cropped first, as torchvision.
    Image operator()(const Image& image, const ImageSize& size, Filter filter, Random& random,
                     ResizeAs resize_as = ResizeAs::stored) const;
};

/// How a picture of any shape becomes one of `size`.
enum class Fit {
    shortest_then_crop,  ///< until it covers the size, centre crop (OpenAI, open_clip "shortest")
    squash,  ///< both sides to size (SigLIP, open_clip "squash"), centre crop where `resize` is larger (ALIGN)
    pad,     ///< until it fits into the size, the rest filled (open_clip "longest")
};

/// A model's image preprocessing; mean and deviation are of channels in [0, 1].
struct Preprocess {
    ImageSize size = 224;  ///< {height, width}, or the side of a square
    Fit fit = Fit::shortest_then_crop;
    Filter filter = Filter::bicubic;
    std::array<float, 3> mean{0, 0, 0};
    std::array<float, 3> deviation{1, 1, 1};
    Colour padding = black;  ///< of Fit::pad; see fit_image
    Resampling resampling = Resampling::pillow_13;
    std::optional<Colour>
        background{};         ///< what transparent pixels lie on: for DecodeOptions, when the picture is read
    int resize = 0;           ///< the side, or shorter side, it is resized to before it is cropped to size; 0: to size
    bool floor_crop = false;  ///< a crop that cannot be centred begins half a pixel before, as transformers' does
    ResizeAs resize_as = ResizeAs::stored;  ///< how pictures with a palette, alpha, CMYK or 16 bits of grey are resized

    /// Floats of one picture: 3 * height * width.
    constexpr std::size_t count() const { return 3 * size.area(); }
};

/// OpenAI's CLIP and most of open_clip (CLIP/clip.py, _transform).
constexpr Preprocess openai_preprocess(ImageSize size) {
    return {.size = size,
            .fit = Fit::shortest_then_crop,
            .filter = Filter::bicubic,
            .mean = {0.48145466F, 0.4578275F, 0.40821073F},
            .deviation = {0.26862954F, 0.26130258F, 0.27577711F}};
}

/// SigLIP and SigLIP 2 as open_clip runs them (pretrained.py, _slpcfg).
constexpr Preprocess siglip_preprocess(ImageSize size) {
    return {.size = size,
            .fit = Fit::squash,
            .filter = Filter::bicubic,
            .mean = {0.5F, 0.5F, 0.5F},
            .deviation = {0.5F, 0.5F, 0.5F}};
}

/// The picture in the recipe's size, in RGB of 8 bits: with Resampling::pillow_13 and ResizeAs::stored, to the bit what
/// open_clip's or OpenAI's transform gives to ToTensor, whatever the file's storage. Colours weigh by their alpha and
/// transparent areas become black, palettes and bits are sampled at nearest neighbours, CMYK is resized as inks, 16-bit
/// grey is clamped to 255 after it, and a grey padding is a value of samples: an index of a palette, an amount of every
/// ink. (A side that Fit::pad reduces to nothing has one pixel; open_clip fails.)
Image fit_image(const Image& image, const Preprocess& recipe);

/// Writes three planes, red, green, blue, each [height][width]: (value / 255 - mean) / deviation in float, as
/// torchvision's ToTensor and Normalize. Throws Error unless out has 3 * width * height floats.
void normalise(const Image& image, const std::array<float, 3>& mean, const std::array<float, 3>& deviation,
               std::span<float> out);

/// Fits the picture and normalises it into out, [3][height][width]. Throws Error unless out has recipe.count() floats.
void preprocess(const Image& image, const Preprocess& recipe, std::span<float> out);

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/images/transform.impl.hpp>
#endif

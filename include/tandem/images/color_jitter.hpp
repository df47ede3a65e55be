// Colours changed at random: what training sees of a picture beside its part. To the bit torchvision's, of Pillow's images.
#pragma once

#include <array>
#include <cstddef>

#include <tandem/core/random.hpp>
#include <tandem/images/image.hpp>

namespace tandem::inline TANDEM_ABI {

/// Towards black (0), the picture itself (1), or brighter (Pillow's ImageEnhance.Brightness). Throws Error for a factor that is
/// negative or no number; so do the next two.
Image adjust_brightness(const Image& image, double factor);

/// Towards its mean grey, or away from it (ImageEnhance.Contrast).
Image adjust_contrast(const Image& image, double factor);

/// Towards its own greys, or away from them (ImageEnhance.Color).
Image adjust_saturation(const Image& image, double factor);

/// Colours turned by a share of the circle, from -0.5 to 0.5: in Pillow's HSV of 8 bits each (torchvision 0.29,
/// _functional_pil.py, adjust_hue). Throws Error for another share.
Image adjust_hue(const Image& image, double share);

/// The picture's greys, in three equal channels (ITU-R 601-2, as Pillow's convert("L")).
Image grayscale(const Image& image);

/// torchvision 0.29, transforms.py, ColorJitter: factors from [max(0, 1 - x), 1 + x], the hue's from [-x, x], in random order.
struct ColorJitter {
    double brightness = 0, contrast = 0, saturation = 0, hue = 0;

    /// What one picture is given; `order` names brightness, contrast, saturation and hue as 0 to 3.
    struct Draw {
        std::array<std::size_t, 4> order{0, 1, 2, 3};
        double brightness = 1, contrast = 1, saturation = 1, hue = 0;
    };

    /// Throws Error for an amount that is negative or above a million, or a hue above 0.5.
    Draw sample(Random& random) const;

    /// What is not changed at all (an amount of 0) is left out.
    Image apply(const Image& image, const Draw& draw) const;

    Image operator()(const Image& image, Random& random) const { return apply(image, sample(random)); }
};

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/images/color_jitter.impl.hpp>
#endif

// What a model trains on of a picture: a random part, mirrored perhaps, as its preprocessing has it.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>

#include <tandem/core/random.hpp>
#include <tandem/images/color_jitter.hpp>
#include <tandem/images/image.hpp>
#include <tandem/images/transform.hpp>

namespace tandem::inline TANDEM_ABI {

/// How a picture becomes a sample.
struct ViewOptions {
    Preprocess preprocess{};
    std::optional<RandomResizedCrop> crop{};  ///< a random part of the picture; none: all of it
    double flip = 0.0;                        ///< the probability of a mirrored image
    ColorJitter jitter{};                     ///< of its colours, as open_clip's color_jitter
    double jitter_share = 0.0;                ///< the probability that they are changed
    double grayscale_share = 0.0;             ///< and that it has none afterwards: open_clip's gray_scale_prob
    DecodeOptions decode{};
};

namespace detail {

/// The picture, cropped, mirrored and recoloured at random where the options say so and normalised: [3, height, width].
void write_view(const Image& whole, const ViewOptions& options, Random& random, std::span<float> image);

/// What becomes of pictures, by name and in words.
std::map<std::string, std::string> describe_view(const ViewOptions& options);

}  // namespace detail

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/data/view.impl.hpp>
#endif

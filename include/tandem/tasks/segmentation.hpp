// Where in a picture phrases are, without any training for it: patches compared with phrases.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <tandem/core/image_size.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/images/image.hpp>
#include <tandem/images/transform.hpp>

namespace tandem::inline TANDEM_ABI {

/// How much every place of a picture is like every phrase: values [phrases][grid.height][grid.width].
struct PhraseMaps {
    std::size_t phrases = 0;
    ImageSize grid{0};
    std::vector<float> values;

    std::span<const float> of(std::size_t phrase) const {
        return std::span(values).subspan(phrase * grid.area(), grid.area());
    }
};

/// From preprocessed pixels [N, 3, height, width] to the embeddings of their patches [N, patches, width], of length 1: what
/// AnyClip::patch_embeddings gives, or Clip's. PatchFeatures are its choice.
using EmbedPatches = std::function<std::vector<float>(std::span<const float> pixels)>;

/// Cosines of a picture's patches with phrases [phrases, width], of length 1. The picture is resized so that `windows` of the
/// model's inputs stand along its shorter side, half a window apart (1: one), as many as are needed along the longer one;
/// a patch that several windows see gets the mean of its cosines (as SCLIP's sliding windows, which take the mean of pixels).
/// recipe is the model's preprocessing, but for how a picture is fitted. `patch` is the side of the
/// model's patches. Throws Error for phrases that are no whole rows, patches larger than the model's image, windows of 0,
/// pictures of no pixels, and those that thousands of windows would cover.
PhraseMaps phrase_maps(const Image& picture, const Preprocess& recipe, std::size_t patch, const EmbedPatches& embed,
                       std::span<const float> phrases, std::size_t count, std::size_t windows = 1);

/// A map enlarged by linear interpolation between the centres of its places: torch.nn.functional.interpolate(mode =
/// "bilinear", align_corners = False). Throws Error unless the map has grid.height · grid.width values and both sizes are at least 1.
std::vector<float> enlarge(std::span<const float> map, const ImageSize& grid, const ImageSize& size);

/// How maps become labels.
struct SegmentOptions {
    std::size_t background = 0;  ///< how many of the last phrases stand for everything else
    double scale = 40;           ///< of cosines before the softmax (SCLIP's)
    double handicap = 0;         ///< added to what background phrases have, in cosines
    double least = 0;            ///< a place where no phrase is as probable is background
};

/// Which phrase every pixel of a picture shows.
struct Segmentation {
    static constexpr std::uint16_t background = 0xFFFF;

    ImageSize size{0};
    std::vector<std::uint16_t> labels;  ///< [height][width], a phrase or background
    std::vector<float> probabilities;   ///< of the best phrase that is not background

    /// The share of the pixels that a phrase has.
    double share(std::uint16_t label) const;
};

/// Enlarges the maps to `size`, and gives every pixel the phrase of the largest softmax(scale · value). Throws Error for no
/// phrase beside the background, and more than 65,534 phrases.
Segmentation segment(const PhraseMaps& maps, const ImageSize& size, const SegmentOptions& options = {});

/// Intersections and unions of labels over any number of pictures.
class Overlap {
public:
    /// Labels below `classes` are counted, and background where `with_background`.
    Overlap(std::size_t classes, bool with_background) : both_(classes + 1), found_(classes + 1), true_(classes + 1), with_background_(with_background) {}

    /// Throws Error for sizes that differ, and a label that is neither below `classes` nor background.
    void add(std::span<const std::uint16_t> found, std::span<const std::uint16_t> truth);

    /// The mean over the classes that occur of intersection / union.
    double mean_iou() const;
    /// The share of pixels that are right.
    double accuracy() const;

private:
    std::vector<std::size_t> both_, found_, true_;
    bool with_background_;
};

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/tasks/segmentation.impl.hpp>
#endif

// Definitions of data/view.hpp.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>

#include <tandem/core/random.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/data/view.hpp>
#include <tandem/images/color_jitter.hpp>
#include <tandem/images/image.hpp>
#include <tandem/images/transform.hpp>

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE void write_view(const Image& whole, const ViewOptions& options, Random& random, std::span<float> image) {
    const Preprocess& recipe = options.preprocess;
    Image seen = options.crop ? (*options.crop)(whole, recipe.size, recipe.filter, random, recipe.resize_as) : fit_image(whole, recipe);
    const auto is_drawn = [&](double share) { return share > 0 && random.uniform() < share; };
    if (is_drawn(options.flip)) seen = flip_horizontal(seen);
    if (is_drawn(options.jitter_share)) seen = options.jitter(seen, random);
    if (is_drawn(options.grayscale_share)) seen = grayscale(seen);
    normalise(seen, recipe.mean, recipe.deviation, image);
}

[[gnu::cold]] TANDEM_INLINE std::map<std::string, std::string> describe_view(const ViewOptions& options) {
    const Preprocess& recipe = options.preprocess;
    std::string numbers = to_string(recipe.size);
    const auto add = [&](const char* name, const auto&... values) {
        numbers += std::string(", ") + name;
        ((numbers += ' ' + to_text(static_cast<double>(values))), ...);
    };
    const auto colour = [&](const char* name, const std::optional<Colour>& value) {
        if (value) add(name, value->red, value->green, value->blue);
    };
    add("fit", recipe.fit);
    add("filter", recipe.filter);
    add("mean", recipe.mean[0], recipe.mean[1], recipe.mean[2]);
    add("deviation", recipe.deviation[0], recipe.deviation[1], recipe.deviation[2]);
    add("resampling", recipe.resampling);
    add("resize", recipe.resize);
    add("resize_as", recipe.resize_as);
    add("orientation", options.decode.orientation);
    add("floor_crop", recipe.floor_crop);
    colour("padding", recipe.padding);
    colour("background", options.decode.background);
    std::string crop = "none";
    if (const auto& part = options.crop) {
        crop = to_text(part->scale_low) + " to " + to_text(part->scale_high) + " of the area, " + to_text(part->ratio_low) + " to " +
               to_text(part->ratio_high) + " as wide";
    }
    std::map<std::string, std::string> all{{"preprocess", numbers}, {"crop", crop}, {"flip", to_text(options.flip)}};
    if (options.jitter_share > 0) {
        const ColorJitter& jitter = options.jitter;
        all["jitter"] = to_text(options.jitter_share) + " by " + to_text(jitter.brightness) + ", " + to_text(jitter.contrast) + ", " +
                        to_text(jitter.saturation) + ", " + to_text(jitter.hue);
    }
    if (options.grayscale_share > 0) all["grayscale"] = to_text(options.grayscale_share);
    return all;
}

}  // namespace tandem::inline TANDEM_ABI::detail

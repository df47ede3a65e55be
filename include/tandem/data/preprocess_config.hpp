// A model's preprocessing as the files beside its weights tell it.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/data/model_folder.hpp>
#include <tandem/data/transform.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// Three numbers, or one for all channels.
[[gnu::cold]] inline void read_channels(const ConfigReader& config, const std::string& path, const std::string& where,
                                        std::array<float, 3>& channels) {
    const std::vector<std::string> found = config.all(path);
    if (found.empty()) return;
    if (found.size() != 1 && found.size() != 3)
        throw Error(where, path + " of 1 or 3 numbers", std::to_string(found.size()));
    for (std::size_t i = 0; i < 3; ++i) {
        const std::string& text = found[found.size() == 1 ? 0 : i];
        char* end = nullptr;
        channels[i] = std::strtof(text.c_str(), &end);
        if (text.empty() || *end != 0) throw Error(where, path + " of numbers", text);
    }
}

[[gnu::cold]] inline int read_pixels(const std::string& number, const std::string& path, const std::string& where) {
    const long pixels = std::strtol(number.c_str(), nullptr, 10);
    if (pixels < 1 || pixels > 1 << 14) throw Error(where, path + " of 1 to 16384 pixels", number);
    return static_cast<int>(pixels);
}

/// A number, [height, width], or an object of both; none, where the file says nothing.
[[gnu::cold]] inline std::optional<ImageSize> read_size(const ConfigReader& config, const std::string& path,
                                                        const std::string& where) {
    std::vector<std::string> sides = config.all(path);
    const auto height = config.find(path + ".height"), width = config.find(path + ".width");
    if (height.has_value() != width.has_value())
        throw Error(where, path + " with height and width", height ? "height alone" : "width alone");
    if (height) sides = {*height, *width};
    if (sides.empty()) return std::nullopt;
    if (sides.size() > 2) throw Error(where, path + " of 1 or 2 numbers", std::to_string(sides.size()));
    return ImageSize(read_pixels(sides.front(), path, where), read_pixels(sides.back(), path, where));
}

[[gnu::cold]] inline void require_deviation(const Preprocess& recipe, const char* path, const std::string& where) {
    for (const float deviation : recipe.deviation) {
        if (!(deviation > 0)) throw Error(where, std::string(path) + " above 0", std::to_string(deviation));
    }
}

/// open_clip's preprocess_cfg (open_clip/transform.py, PreprocessCfg; its defaults are OpenAI's preprocessing).
[[gnu::cold]] inline Preprocess open_clip_preprocess(const ConfigReader& config, const std::string& where,
                                                     Preprocess recipe) {
    const std::string at = "preprocess_cfg.";
    read_channels(config, at + "mean", where, recipe.mean);
    read_channels(config, at + "std", where, recipe.deviation);
    require_deviation(recipe, "preprocess_cfg.std", where);
    const std::string filter = config.find(at + "interpolation").value_or("bicubic");
    if (filter != "bicubic" && filter != "bilinear")
        throw Error(where, "preprocess_cfg.interpolation of bicubic or bilinear", filter);
    recipe.filter = filter == "bicubic" ? Filter::bicubic : Filter::bilinear;
    const std::string mode = config.find(at + "resize_mode").value_or("shortest");
    if (mode == "shortest") {
        recipe.fit = Fit::shortest_then_crop;
    } else if (mode == "squash") {
        recipe.fit = Fit::squash;
    } else if (mode == "longest") {
        recipe.fit = Fit::pad;
    } else {
        throw Error(where, "preprocess_cfg.resize_mode of shortest, squash or longest", mode);
    }
    // open_clip/transform.py hands the interpolation to every other resize.
    if (recipe.fit == Fit::shortest_then_crop && !recipe.size.is_square()) recipe.filter = Filter::bicubic;
    return recipe;
}

/// preprocessor_config.json of transformers' CLIPImageProcessor, SiglipImageProcessor and EfficientNetImageProcessor
/// (of ALIGN). `recipe` has the defaults of the first or the second.
[[gnu::cold]] inline Preprocess transformers_preprocess(const ConfigReader& config, const std::string& where,
                                                        Preprocess recipe) {
    const auto is = [&](const char* name, bool otherwise) {
        return config.find(name).value_or(otherwise ? "true" : "false") == "true";
    };
    recipe.floor_crop = true;
    recipe.resampling = Resampling::torchvision;
    read_channels(config, "image_mean", where, recipe.mean);
    read_channels(config, "image_std", where, recipe.deviation);
    require_deviation(recipe, "image_std", where);
    recipe.background = white;  // transformers/image_transforms.py, convert_to_rgb
    const std::string filter = config.find("resample").value_or("3");  // PIL.Image.Resampling
    if (filter != "2" && filter != "3") throw Error(where, "resample 2 (bilinear) or 3 (bicubic)", filter);
    recipe.filter = filter == "3" ? Filter::bicubic : Filter::bilinear;
    for (const char* const name : {"size.longest_edge", "size.max_height", "size.max_width", "pad_size.height"}) {
        if (const auto found = config.find(name))
            throw Error(where, "a size of shortest_edge, or of height and width", std::string(name) + " = " + *found);
    }
    const auto shortest = config.find("size.shortest_edge");
    if (config.find("size.height")) recipe.fit = Fit::squash;
    if (shortest) recipe.fit = Fit::shortest_then_crop;
    const auto resized = shortest ? ImageSize(read_pixels(*shortest, "size", where)) : read_size(config, "size", where);
    if (!is("do_resize", true)) throw Error(where, "do_resize true: every picture is resized", "false");
    if (is("do_center_crop", recipe.fit == Fit::shortest_then_crop)) {
        recipe.size = read_size(config, "crop_size", where).value_or(recipe.size);
        if (resized && !resized->is_square())
            throw Error(where, "a size of equal height and width, of which a part is cropped", to_string(*resized));
        if (resized && *resized != recipe.size) recipe.resize = static_cast<int>(resized->height);
    } else if (recipe.fit == Fit::shortest_then_crop) {
        throw Error(where, "do_center_crop true, for a size that is the shortest edge's", "false");
    } else {
        recipe.size = resized.value_or(recipe.size);
    }
    if (const auto largest = std::max(recipe.size.height, recipe.size.width);
        recipe.resize != 0 && static_cast<std::size_t>(recipe.resize) < largest)
        throw Error(where, "a size of the crop_size, " + std::to_string(largest) + ", or more",
                    std::to_string(recipe.resize));
    // x · factor (− 1), normalised, and once more by the deviation alone, as one mean and deviation of x / 255.
    const bool normalizes = is("do_normalize", true);
    const float factor =
        is("do_rescale", true)
            ? 255 * std::strtof(config.find("rescale_factor").value_or("0.00392156862745098").c_str(), nullptr)
            : 255;
    const float offset = is("rescale_offset", false) ? 1.0F : 0.0F;
    for (std::size_t i = 0; i < 3; ++i) {
        const float deviation = normalizes ? recipe.deviation[i] : 1.0F, mean = normalizes ? recipe.mean[i] : 0.0F;
        const float again = is("include_top", false) ? recipe.deviation[i] : 1.0F;
        // Exactly the numbers of the file where it does the usual.
        if (offset == 0 && std::abs(factor - 1) < 1e-6F && again == 1) {
            recipe.mean[i] = mean;
            recipe.deviation[i] = deviation;
        } else {
            recipe.mean[i] = (mean + offset) / factor;
            recipe.deviation[i] = deviation * again / factor;
        }
    }
    return recipe;
}

}  // namespace detail

/// The preprocessing that the files of a checkpoint ask for: open_clip_config.json, or transformers'
/// preprocessor_config.json or processor_config.json, in the folder `path` or beside the file. For the latter it
/// resizes as transformers 5 does where torchvision is installed; its processors without torchvision, and most of
/// version 4, which leave the same files, have Pillow's pixels: set .resampling. Without either, `otherwise`: what the
/// model was trained with, if the caller knows. Throws Error that names the file for what it asks for and is not here.
[[gnu::cold]] inline Preprocess load_preprocess(const std::filesystem::path& path, const Preprocess& otherwise) {
    const std::filesystem::path folder = std::filesystem::is_directory(path) ? path : path.parent_path();
    if (const auto file = folder / "open_clip_config.json"; std::filesystem::exists(file)) {
        const detail::ConfigReader config(file);
        if (config.has_below("preprocess_cfg.")) {
            Preprocess recipe = openai_preprocess(otherwise.size);
            recipe.size =
                detail::read_size(config, "model_cfg.vision_cfg.image_size", file.string()).value_or(recipe.size);
            return detail::open_clip_preprocess(config, file.string(), recipe);
        }
    }
    // transformers 5 keeps it in processor_config.json, below image_processor; what the older file says is the same.
    for (const char* const name : {"preprocessor_config.json", "processor_config.json"}) {
        const std::filesystem::path file = folder / name;
        if (!std::filesystem::exists(file)) continue;
        detail::ConfigReader config(file);
        if (config.has_below("image_processor.")) {
            config.enter("image_processor.");
        } else if (file.filename() == "processor_config.json") {
            continue;
        }
        const std::string type =
            config.find("image_processor_type").value_or(config.find("feature_extractor_type").value_or(""));
        const bool squashes = type.starts_with("Siglip") || type.starts_with("EfficientNet");
        return detail::transformers_preprocess(
            config, file.string(), squashes ? siglip_preprocess(otherwise.size) : openai_preprocess(otherwise.size));
    }
    return otherwise;
}

}  // namespace tandem::inline TANDEM_ABI

// Definitions of images/preprocess_config.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/files/config_reader.hpp>
#include <tandem/images/preprocess_config.hpp>
#include <tandem/images/transform.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// Three numbers, or one for all channels.
[[gnu::cold]] TANDEM_INLINE void read_channels(const ConfigReader& config, const std::string& path,
                                               std::array<float, 3>& channels) {
    const std::vector<double> found = config.numbers(path);
    if (found.empty()) return;
    if (found.size() != 1 && found.size() != 3) config.refuse(path, "1 or 3 numbers");
    for (std::size_t i = 0; i < 3; ++i) channels[i] = static_cast<float>(found[found.size() == 1 ? 0 : i]);
}

[[gnu::cold]] TANDEM_INLINE int read_pixels(const ConfigReader& config, const std::string& path) {
    const std::size_t pixels = config.count(path).value_or(0);
    if (pixels < 1 || pixels > 1U << 14U) config.refuse(path, "1 to 16384 pixels");
    return static_cast<int>(pixels);
}

/// A number, [height, width], or an object of both; none, where the file says nothing.
[[gnu::cold]] TANDEM_INLINE std::optional<ImageSize> read_size(const ConfigReader& config, const std::string& path) {
    const bool has_height = config.find(path + ".height").has_value(),
               has_width = config.find(path + ".width").has_value();
    if (has_height != has_width)
        config.refuse(path + (has_height ? ".width" : ".height"), "a number beside the other side");
    if (has_height) {
        const int height = read_pixels(config, path + ".height");
        return ImageSize(static_cast<std::size_t>(height),
                         static_cast<std::size_t>(read_pixels(config, path + ".width")));
    }
    const std::vector<double> sides = config.numbers(path);
    if (sides.empty()) return std::nullopt;
    const auto fits = [](double side) { return side >= 1 && side <= 1 << 14 && side == std::floor(side); };
    if (sides.size() > 2 || !std::ranges::all_of(sides, fits))
        config.refuse(path, "1 or 2 numbers of 1 to 16384 pixels");
    return ImageSize(static_cast<std::size_t>(sides.front()), static_cast<std::size_t>(sides.back()));
}

[[gnu::cold]] TANDEM_INLINE void require_deviation(const ConfigReader& config, const Preprocess& recipe,
                                                   const char* path) {
    for (const float deviation : recipe.deviation) {
        if (!(deviation > 0)) config.refuse(path, "numbers above 0");
    }
}

/// open_clip's preprocess_cfg (open_clip/transform.py, PreprocessCfg; its defaults are OpenAI's preprocessing).
[[gnu::cold]] TANDEM_INLINE Preprocess open_clip_preprocess(const ConfigReader& config, Preprocess recipe) {
    const std::string at = "preprocess_cfg.";
    recipe.size = read_size(config, "model_cfg.vision_cfg.image_size").value_or(recipe.size);
    // open_clip/transform.py, image_transform: `mean or OPENAI_DATASET_MEAN`, so that 0 is none.
    for (const auto& [key, channels] : {std::pair("mean", &recipe.mean), std::pair("std", &recipe.deviation)}) {
        if (const auto found = config.numbers(at + key); found.size() != 1 || found[0] != 0)
            read_channels(config, at + key, *channels);
    }
    require_deviation(config, recipe, "preprocess_cfg.std");
    const std::string filter = config.one_of(at + "interpolation", "bicubic", {"bicubic", "bilinear"});
    recipe.filter = filter == "bicubic" ? Filter::bicubic : Filter::bilinear;
    const std::string mode = config.one_of(at + "resize_mode", "shortest", {"shortest", "squash", "longest"});
    recipe.fit = mode == "shortest" ? Fit::shortest_then_crop : mode == "squash" ? Fit::squash : Fit::pad;
    const std::size_t fill = config.count(at + "fill_color").value_or(0);
    if (fill > 255) config.refuse(at + "fill_color", "0 to 255");
    const auto grey = static_cast<std::uint8_t>(fill);
    recipe.padding = {grey, grey, grey};
    // open_clip/transform.py hands the interpolation to every other resize.
    if (recipe.fit == Fit::shortest_then_crop && !recipe.size.is_square()) recipe.filter = Filter::bicubic;
    config.require(at + "mode", "RGB");
    config.ignore({{"size", "open_clip takes the model's (factory.py, create_model)"}}, at);
    config.refuse_unread(at);
    return recipe;
}

/// What an image processor of transformers does where its file says nothing
/// (transformers/models/*/image_processing_*.py, 5.23; their slow and fast forms of version 4 likewise).
struct ProcessorDefaults {
    std::string_view type;  ///< without ImageProcessor and what follows it
    Fit fit;
    int size, crop;  ///< pixels; crop 0: none
    Filter filter;
    bool is_imagenet;        ///< mean and deviation 0.5; else OpenAI's
    bool default_to_square;  ///< what a size that is one number means
    bool include_top = false;
};

[[gnu::cold]] TANDEM_INLINE const ProcessorDefaults& processor_defaults(const ConfigReader& config,
                                                                        std::string_view family) {
    static constexpr std::array known{
        ProcessorDefaults{"CLIP", Fit::shortest_then_crop, 224, 224, Filter::bicubic, false, false},
        ProcessorDefaults{"Siglip", Fit::squash, 224, 0, Filter::bicubic, true, false},
        ProcessorDefaults{"EfficientNet", Fit::squash, 346, 0, Filter::bicubic, true, true, true},
        ProcessorDefaults{"ViT", Fit::squash, 224, 0, Filter::bilinear, true, true},
        ProcessorDefaults{"Blip", Fit::squash, 384, 0, Filter::bicubic, false, true}};
    const char* const key = config.find("image_processor_type") ? "image_processor_type" : "feature_extractor_type";
    std::string type = config.find(key).value_or("");
    config.ignore({{"feature_extractor_type", "image_processor_type, which counts, in older words"}});
    if (type.empty()) type = family == "siglip" ? "Siglip" : family == "align" ? "EfficientNet" : "CLIP";
    for (const std::string_view ending : {"Fast", "Pil", "ImageProcessor", "FeatureExtractor"}) {
        if (type.ends_with(ending)) type.resize(type.size() - ending.size());
    }
    const auto found = std::ranges::find(known, type, &ProcessorDefaults::type);
    if (found == known.end())
        config.refuse(key,
                      "CLIPImageProcessor, SiglipImageProcessor, EfficientNetImageProcessor, ViTImageProcessor or "
                      "BlipImageProcessor");
    return *found;
}

/// preprocessor_config.json of transformers' image processors. `family` is that of the model where the file does not
/// say whose processor it is: clip, siglip or align.
[[gnu::cold]] TANDEM_INLINE Preprocess transformers_preprocess(const ConfigReader& config, std::string_view family) {
    const ProcessorDefaults& usual = processor_defaults(config, family);
    // null turns off what the class does by default, or is an error there.
    for (const char* const name :
         {"do_resize", "do_normalize", "do_rescale", "size", "image_mean", "image_std", "resample", "rescale_factor"}) {
        if (config.is_null(name)) config.refuse(name, "a value, or silence, which means the default");
    }
    for (const char* const name : {"do_center_crop", "crop_size"}) {
        if (usual.crop > 0 && config.is_null(name)) config.refuse(name, "a value, or silence, which means the default");
    }
    const auto is = [&](const char* name, bool otherwise) { return config.flag(name).value_or(otherwise); };
    Preprocess recipe = usual.is_imagenet ? siglip_preprocess(usual.size) : openai_preprocess(usual.size);
    recipe.floor_crop = true;
    recipe.resampling = Resampling::torchvision;
    recipe.resize_as = ResizeAs::rgb;  // converted before it is resized
    recipe.fit = usual.fit;
    read_channels(config, "image_mean", recipe.mean);
    read_channels(config, "image_std", recipe.deviation);
    require_deviation(config, recipe, "image_std");
    recipe.background = white;  // transformers/image_transforms.py, convert_to_rgb
    const std::size_t filter = config.count("resample").value_or(usual.filter == Filter::bicubic ? 3 : 2);
    if (filter != 2 && filter != 3) config.refuse("resample", "2 (bilinear) or 3 (bicubic)");
    recipe.filter = filter == 3 ? Filter::bicubic : Filter::bilinear;
    if (!is("do_resize", true)) config.refuse("do_resize", "true: every picture is resized");

    // image_processing_utils.py, get_size_dict: two numbers or an object of sides squash; one number is the shorter
    // side, but where default_to_square is true.
    for (const char* const name : {"size.longest_edge", "size.max_height", "size.max_width"}) {
        if (config.find(name)) config.refuse(name, "nothing: a size has a shortest_edge, or height and width");
    }
    const bool to_square = is("default_to_square", usual.default_to_square);
    ImageSize resized(static_cast<std::size_t>(usual.size));
    if (config.find("size.shortest_edge")) {
        resized = read_pixels(config, "size.shortest_edge");
        recipe.fit = Fit::shortest_then_crop;
        if (config.has_below("size.height")) config.refuse("size.height", "nothing beside shortest_edge");
    } else if (const auto size = read_size(config, "size")) {
        resized = *size;
        const bool is_one = !config.has_below("size.") && config.all("size").size() == 1;
        recipe.fit = is_one && !to_square ? Fit::shortest_then_crop : Fit::squash;
    }
    // For KOSMOS-2 (image_processing_clip.py): whatever size says, it is the class's own.
    if (usual.type == "CLIP" && is("use_square_size", false)) {
        resized = usual.size;
        recipe.fit = Fit::squash;
    }
    const bool crops = is("do_center_crop", usual.crop > 0);
    const auto crop = read_size(config, "crop_size");
    if (crops) {
        recipe.size = crop.value_or(ImageSize(static_cast<std::size_t>(usual.crop > 0 ? usual.crop : 289)));
        if (!resized.is_square()) config.refuse("size", "equal height and width, of which a part is cropped");
        const auto largest = std::max(recipe.size.height, recipe.size.width);
        if (resized.height < largest)
            config.refuse(config.find("size.shortest_edge") ? "size.shortest_edge" : "size",
                          "the crop_size, " + std::to_string(largest) + ", or more");
        if (resized != recipe.size) recipe.resize = static_cast<int>(resized.height);
    } else if (recipe.fit == Fit::shortest_then_crop) {
        config.refuse("do_center_crop", "true, for a size that is the shortest edge's");
    } else {
        recipe.size = resized;
    }
    config.ignore({{"crop_size", "nothing is cropped"}});
    if (is("do_pad", false)) config.refuse("do_pad", "false: every picture has one size");
    config.ignore({{"pad_size", "nothing is padded"},
                   {"do_convert_rgb", "a picture is RGB once it is read"},
                   {"processor_class", "a name"},
                   {"_processor_class", "a name"},
                   {"_valid_processor_keys", "names of the others"},
                   {"use_fast", "which code computes it; see Preprocess::resampling"},
                   {"backend", "which code computes it; see Preprocess::resampling"},
                   {"use_square_size", "of CLIP's alone"},
                   {"data_format", "how results are handed over"},
                   {"input_data_format", "how pictures are handed in"},
                   {"device", "where it is computed"},
                   {"return_tensors", "how results are handed over"},
                   {"disable_grouping", "how it is computed"},
                   {"image_seq_length", "of language models"},
                   {"transformers_version", "a name"}});

    // x · factor (− 1), normalised, and once more by the deviation alone, as one mean and deviation of x / 255.
    const bool normalizes = is("do_normalize", true), rescales = is("do_rescale", true);
    const double stored_factor = config.number("rescale_factor").value_or(0.00392156862745098);
    if (!(stored_factor > 0 && stored_factor < 1e6)) config.refuse("rescale_factor", "a number above 0");
    const float factor = rescales ? 255 * static_cast<float>(stored_factor) : 255;
    const bool is_efficient = usual.type == "EfficientNet";
    const float offset = is("rescale_offset", false) && is_efficient && rescales ? 1.0F : 0.0F;
    const bool tops = is("include_top", usual.include_top) && is_efficient;
    for (std::size_t i = 0; i < 3; ++i) {
        const float deviation = normalizes ? recipe.deviation[i] : 1.0F, mean = normalizes ? recipe.mean[i] : 0.0F;
        const float again = tops ? recipe.deviation[i] : 1.0F;
        // Exactly the numbers of the file where it does the usual.
        if (offset == 0 && std::abs(factor - 1) < 1e-6F && again == 1) {
            recipe.mean[i] = mean;
            recipe.deviation[i] = deviation;
        } else {
            recipe.mean[i] = (mean + offset) / factor;
            recipe.deviation[i] = deviation * again / factor;
        }
    }
    config.refuse_unread();
    return recipe;
}

/// Whose model a folder has, where its config.json says so: clip, siglip or align.
[[gnu::cold]] TANDEM_INLINE std::string model_family(const std::filesystem::path& folder, const char* otherwise) {
    const std::filesystem::path file = folder / "config.json";
    if (!std::filesystem::exists(file)) return otherwise;
    const std::string type = ConfigReader(file).find("model_type").value_or("clip");
    return type.substr(0, type.find('_'));
}

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

[[gnu::cold]] TANDEM_INLINE Preprocess load_preprocess(const std::filesystem::path& path, const Preprocess& otherwise) {
    const std::filesystem::path folder = std::filesystem::is_directory(path) ? path : path.parent_path();
    if (const auto file = folder / "open_clip_config.json"; std::filesystem::exists(file)) {
        const detail::ConfigReader config(file);
        if (config.has_below("preprocess_cfg.") || config.has_below("model_cfg."))
            return detail::open_clip_preprocess(config, openai_preprocess(otherwise.size));
    }
    // transformers 5 keeps it in processor_config.json, below image_processor, which counts where both are there.
    for (const char* const name : {"processor_config.json", "preprocessor_config.json"}) {
        const std::filesystem::path file = folder / name;
        if (!std::filesystem::exists(file)) continue;
        detail::ConfigReader config(file);
        if (config.has_below("image_processor.")) {
            config.ignore({{"processor_class", "a name"}, {"tokenizer", "the tokenizer's own files say it"}});
            config.enter("image_processor.");
        } else if (file.filename() == "processor_config.json") {
            continue;
        }
        return detail::transformers_preprocess(
            config, detail::model_family(folder, otherwise.fit == Fit::squash ? "siglip" : "clip"));
    }
    return otherwise;
}

}  // namespace tandem::inline TANDEM_ABI

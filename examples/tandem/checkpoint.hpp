// Any checkpoint of the zoo, opened as a command line says, with all that embeds pictures and captions as its own
// library does. The zoo is compiled once, in examples/zoo.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tandem/images/codec.hpp>
#include <tandem/images/preprocess_config.hpp>
#include <tandem/images/webp.hpp>
#include <tandem/models/open.hpp>
#include <tandem/tasks/zero_shot.hpp>
#include <tandem/texts/any_tokenizer.hpp>

#include "../zoo/zoo.hpp"
#include "command.hpp"

namespace program {

/// What open() reads.
inline const std::vector<Option> checkpoint_options{
    {"--weights", "PATH",
     "a checkpoint: a file, the index of a sharded one, or a folder with its config (default: the folder quickstart, which "
     "examples/quickstart.sh makes)"},
    {"--precision", "f32|bf16|int8", "of the matrices (default f32)"},
    {"--cache", "DIR",
     "keeps a copy of the weights there as this CPU reads them: the next run maps it, begins at once and shares its memory with "
     "others"},
    {"--verify-cache", "", "holds that copy against its checksums first, and makes a damaged one anew"},
    {"--activation", "NAME", "gelu, quick_gelu or gelu_pytorch_tanh, for weights without a config"},
    {"--prefix", "NAME", "which of several models in a file: what stands before its tensors' names (ema., say)"},
    {"--tokenizer", "PATH", "where it does not lie beside the weights"},
    {"--resampling", "pillow|torchvision",
     "whose pixels a resize gives (default: torchvision for the configs of transformers)"},
    {"--resize-as", "stored|rgb",
     "whether a picture becomes RGB before it is resized (default: as the config's library: open_clip's does not)"},
    {"--orientation", "exif|stored",
     "whether a picture is turned as its EXIF data say (the default), or taken as it is stored, as open_clip and "
     "transformers do"},
    {"--pixel-limit", "N", "pixels of a picture, beyond which it is left out (default 178956970, as Pillow's)"}};

/// Options of a command, and those of the checkpoint behind them.
inline std::vector<Option> with_checkpoint_options(std::vector<Option> options) {
    options.insert(options.end(), checkpoint_options.begin(), checkpoint_options.end());
    return options;
}

/// A checkpoint with all that is needed to embed pictures and captions as its own library does.
struct Opened {
    td::AnyClip clip;
    td::Preprocess preprocess;
    std::optional<td::AnyTokenizer> tokenizer;
    td::DecodeOptions decode;  ///< with the background that the checkpoint's library gives pictures
};

/// The checkpoint that the options name, or the quickstart's. Throws Error if neither is there.
inline std::filesystem::path weights_of(const Arguments& arguments) {
    const std::filesystem::path trained = "quickstart";
    if (arguments.has("--weights") || !std::filesystem::exists(trained / "model.safetensors")) return arguments.require("--weights");
    return trained;
}

/// Where the tokenizer of a checkpoint is looked for: in its folder's own folder tokenizer, or beside it.
inline std::filesystem::path tokenizer_beside(const std::filesystem::path& weights) {
    const std::filesystem::path folder = std::filesystem::is_directory(weights) ? weights : weights.parent_path();
    return std::filesystem::is_directory(folder / "tokenizer") ? folder / "tokenizer" : weights;
}
inline std::filesystem::path tokenizer_of(const Arguments& arguments) {
    return arguments.has("--tokenizer") ? std::filesystem::path(arguments.get("--tokenizer")) : tokenizer_beside(weights_of(arguments));
}

/// How a checkpoint's pictures are prepared.
inline td::Preprocess preprocess_of(const td::AnyClip& clip, const std::filesystem::path& path) {
    const td::ImageSize size = clip.sizes().image;
    if (clip.sizes().architecture.ends_with("quickstart")) return quickstart::preprocess_of(size);
    const td::Preprocess recipe = td::load_preprocess(path, clip.logit_bias() ? td::siglip_preprocess(size) : td::openai_preprocess(size));
    if (recipe.size != size) throw td::Error(path.string(), "preprocessing to the model's " + to_string(size) + " pixels", to_string(recipe.size));
    return recipe;
}

/// Opens what checkpoint_options say.
inline Opened open(const Arguments& arguments, td::Towers towers = td::Towers::both) {
    const std::filesystem::path path = weights_of(arguments);
    if (arguments.has("--cache") && arguments.get("--cache").empty()) throw td::Error("--cache", "a folder", "no name");
    if (arguments.has("--verify-cache") && !arguments.has("--cache")) throw td::Error("--verify-cache", "it beside --cache, which it is about", "it alone");
    const td::OpenOptions options{
        .towers = towers,
        .check_finite = true,
        .activation = arguments.choose("--activation", "", {"gelu", "quick_gelu", "gelu_pytorch_tanh"}),
        .prefix = arguments.get("--prefix"),
        .log = &std::cerr,
        .cache = arguments.get("--cache"),
        .verify_cache = arguments.has("--verify-cache")};
    const std::string precision = arguments.choose("--precision", "f32", {"f32", "bf16", "int8"});
    const std::string resampling = arguments.choose("--resampling", "", {"pillow", "torchvision"});
    const std::string resize_as = arguments.choose("--resize-as", "", {"stored", "rgb"});
    td::DecodeOptions decode;
    decode.pixel_limit = arguments.number("--pixel-limit", decode.pixel_limit, std::size_t{1} << 40);
    decode.orientation = arguments.choose("--orientation", "exif", {"exif", "stored"}) == "exif"
                             ? td::Orientation::exif
                             : td::Orientation::stored;
    if (towers == td::Towers::image && arguments.has("--tokenizer"))
        throw td::Error("--tokenizer", "captions, which it is for", "none");
    for (const char* const name : {"--resampling", "--resize-as", "--orientation", "--pixel-limit"}) {
        if (towers == td::Towers::text && arguments.has(name))
            throw td::Error(name, "pictures, which it is for", "none");
    }
    td::AnyClip clip = precision == "f32"    ? zoo::open<float>(path, options)
                       : precision == "bf16" ? zoo::open<td::bf16>(path, options)
                                             : zoo::open<td::int8>(path, options);
    td::Preprocess recipe;
    if (clip.parts().image) {
        recipe = preprocess_of(clip, path);
        if (!resampling.empty())
            recipe.resampling = resampling == "pillow" ? td::Resampling::pillow_13 : td::Resampling::torchvision;
        if (!resize_as.empty()) recipe.resize_as = resize_as == "rgb" ? td::ResizeAs::rgb : td::ResizeAs::stored;
    }
    std::optional<td::AnyTokenizer> tokenizer;
    if (towers != td::Towers::image && clip.parts().text) {
        tokenizer =
            td::open_tokenizer(tokenizer_of(arguments), std::filesystem::is_directory(path) ? path : path.parent_path());
    }
    decode.background = recipe.background;
    return {std::move(clip), recipe, std::move(tokenizer), decode};
}

/// A picture as the options say.
inline td::Image read_picture(const Opened& opened, const std::filesystem::path& path) {
    return td::read_image(path, opened.decode);
}

inline bool is_finite(std::span<const float> values) {
    return std::ranges::all_of(values, [](float value) { return std::isfinite(value); });
}

/// Says on standard error which of the texts that somebody asks for the model does not read to their end.
inline void report_long_texts(const td::Tokenizer auto& tokenizer, std::size_t context, std::span<const std::string> texts) {
    // With one more token to come, a text that ends within the context has the same ones as before.
    const std::vector<td::Id> ids = tokenizer.encode_batch(texts, context), more = tokenizer.encode_batch(texts, context + 1);
    for (std::size_t i = 0; i < texts.size(); ++i) {
        const auto row = ids.begin() + static_cast<std::ptrdiff_t>(i * context);
        if (!std::equal(row, row + static_cast<std::ptrdiff_t>(context), more.begin() + static_cast<std::ptrdiff_t>(i * (context + 1))))
            std::fprintf(stderr, "longer than the %zu tokens that the model reads, its end is left out: %s\n", context, texts[i].c_str());
    }
}
inline void report_long_texts(const Opened& opened, std::span<const std::string> texts) {
    report_long_texts(*opened.tokenizer, opened.clip.sizes().context, texts);
}

/// The embeddings of texts, [N, embedding].
inline std::vector<float> embed_texts(const Opened& opened, std::span<const std::string> texts) {
    const auto found = td::embed_texts(opened.clip, *opened.tokenizer, texts);
    return {found.data(), found.data() + found.size()};
}

/// Throws Error unless the model has both towers, for what is to be compared ("pictures and texts").
inline void require_both(const Opened& opened, const Arguments& arguments, const std::string& compared) {
    if (!opened.clip.parts().image || !opened.clip.parts().text)
        throw td::Error(weights_of(arguments).string(), "both towers of a model, to compare " + compared, opened.clip.sizes().architecture);
}

/// A picture as the model's input. Throws Error that names it.
inline void to_pixels(const Opened& opened, const td::Image& picture, const std::string& name, std::span<float> pixels) {
    try {
        td::preprocess(picture, opened.preprocess, pixels);
    } catch (const td::Error& error) {
        throw td::Error(name, error.what());
    }
}
inline void read_pixels(const Opened& opened, const std::filesystem::path& path, std::span<float> pixels) {
    to_pixels(opened, read_picture(opened, path), path.string(), pixels);
}

/// The embedding of a picture. Throws Error that names it, also for numbers that are not finite.
inline std::vector<float> embed_picture(const Opened& opened, const td::Image& picture, const std::string& name) {
    std::vector<float> pixels(opened.preprocess.count());
    to_pixels(opened, picture, name, pixels);
    const auto row = opened.clip.encode_image(pixels);
    std::vector<float> embedding(row.data(), row.data() + row.size());
    if (!is_finite(embedding)) throw td::Error(name, "finite numbers from the model", "infinities or NaN");
    return embedding;
}

}  // namespace program

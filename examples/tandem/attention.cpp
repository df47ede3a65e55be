// Where an image tower looks, or where in a picture a caption is, as an overlay, by any checkpoint of the zoo.
#include <algorithm>
#include <cmath>

#include <tandem/tandem.hpp>

#include "checkpoint.hpp"
#include "command.hpp"
#include "heat_map.hpp"
#include "inputs.hpp"

namespace program {

namespace {

/// What the class token, or the mean token where there is none, has of every patch, over all heads: flow(head, query, key).
template <class Flow>
std::vector<float> patches_of(const td::ModelSizes& sizes, std::size_t heads, const Flow& flow) {
    const std::size_t prefix = sizes.image_prefix, tokens = sizes.image_tokens;
    std::vector<float> map(tokens - prefix);
    for (std::size_t head = 0; head < heads; ++head) {
        for (std::size_t query = 0; query < (prefix > 0 ? 1 : tokens); ++query) {
            for (std::size_t patch = 0; patch < map.size(); ++patch) map[patch] += flow(head, query, prefix + patch);
        }
    }
    return map;
}

std::vector<float> attention_map(const Opened& opened, std::span<const float> pixels, int layer) {
    const td::ModelSizes& sizes = opened.clip.sizes();
    const auto weights = opened.clip.image_attention(pixels, layer);
    return patches_of(sizes, sizes.image_heads, [&](std::size_t head, std::size_t query, std::size_t key) { return weights(0, head, query, key); });
}

/// The same of all layers at once.
std::vector<float> rollout_map(const Opened& opened, std::span<const float> pixels) {
    const td::ModelSizes& sizes = opened.clip.sizes();
    const auto flow = td::attention_rollout(opened.clip, pixels, sizes.image_layers);
    return patches_of(sizes, 1, [&](std::size_t, std::size_t query, std::size_t key) { return flow(0, query, key); });
}

int run(const Arguments& options) {
    const bool has_text = options.has("--text");
    const bool rolls_out = options.has("--rollout");
    if (rolls_out && (has_text || options.has("--layer")))
        throw UsageError("--rollout", "neither --text nor --layer beside it: it maps the attention of all layers", "one of them");
    if (!options.require("--out").ends_with(".png"))
        throw td::Error("--out", "a name that ends in .png", options.get("--out"));
    if (has_text && options.has("--layer"))
        throw td::Error("--layer", "it without --text, which maps no layer's attention", "both");
    const int layer = options.layer("--layer", -1);
    require_place(options.get("--out"));
    require_other("--out", options.get("--out"), options.require("--image"));
    const Opened opened = open(options, has_text ? td::Towers::both : td::Towers::image);
    if (has_text && !opened.clip.parts().text)
        throw td::Error(weights_of(options).string(), "both towers of a model, to compare a picture and a caption",
                        opened.clip.sizes().architecture);
    const int most = static_cast<int>(opened.clip.sizes().image_layers);
    if (most > 0 && (layer >= most || layer < -most))
        throw td::Error("--layer", "a layer from " + std::to_string(-most) + " to " + std::to_string(most - 1),
                        std::to_string(layer));
    const td::Image picture = read_picture(opened, options.require("--image"));
    std::vector<float> pixels(opened.preprocess.count());
    read_pixels(opened, options.get("--image"), pixels);

    std::vector<float> map;
    if (has_text) {
        const std::vector<std::string> captions{options.get("--text")};
        report_long_texts(opened, captions);
        const auto text = td::embed_texts(opened.clip, *opened.tokenizer, captions);
        map = patch_cosines(opened, pixels, text.elements());
        const auto [lowest, highest] = std::ranges::minmax(map);
        std::printf("cosines of the patches with \"%s\": %.3f to %.3f; of the whole image: %.3f\n", captions[0].c_str(),
                    static_cast<double>(lowest), static_cast<double>(highest),
                    static_cast<double>(td::similarity(opened.clip.encode_image(pixels), text)(0, 0)));
    } else {
        map = rolls_out ? rollout_map(opened, pixels) : attention_map(opened, pixels, layer);
    }
    if (!is_finite(map))
        throw td::Error(options.get("--image"), "finite numbers from the model", "infinities or NaN");
    write_png(options.require("--out"), overlay(opened, picture, map));
    const std::size_t side = map_side(map);
    std::printf("%s: %s, %zu x %zu patches\n", options.get("--out").c_str(), opened.clip.sizes().architecture.c_str(),
                side, side);
    return 0;
}

}  // namespace

Command attention_command() {
    return {.name = "attention",
            .purpose = "a map of what a model attends to in a picture",
            .operand = "",
            .synopsis = "--weights PATH --image FILE --out FILE.png [--text CAPTION | --layer N | --rollout]",
            .description =
                "Writes the picture as the model sees it, with the map over it: what the class token attends to in a "
                "layer or through all of them, or the cosines of the picture's patches with a caption.",
            .options = with_checkpoint_options(
                {{"--image", "FILE", "a picture"},
                 {"--out", "FILE.png", "the picture as the model sees it, and the map over it"},
                 {"--text", "CAPTION", "maps the patches' cosines with it, instead of attention"},
                 {"--layer", "N", "whose attention is mapped, from 0, or from the back (default -1)"},
                 {"--rollout", "", "maps what reaches the class token through the attention of all layers"}}),
            .run = run};
}

}  // namespace program

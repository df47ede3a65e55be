// Where an image tower looks, or where in a picture a caption is, as an overlay, by any checkpoint of the zoo.
#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include <tandem/tandem.hpp>

#include "checkpoint.hpp"
#include "command.hpp"
#include "inputs.hpp"

namespace program {

namespace {

/// Dark blue over green to yellow.
td::Colour heat(float share) {
    static constexpr std::array<std::array<float, 3>, 5> stops{
        {{48, 18, 99}, {40, 90, 190}, {30, 170, 140}, {180, 215, 60}, {255, 240, 90}}};
    const float place = std::clamp(share, 0.0F, 1.0F) * (stops.size() - 1);
    const std::size_t below = std::min(static_cast<std::size_t>(place), stops.size() - 2);
    const auto channel = [&](std::size_t c) {
        const float mixed =
            stops[below][c] + (place - static_cast<float>(below)) * (stops[below + 1][c] - stops[below][c]);
        return static_cast<std::uint8_t>(std::lround(mixed));
    };
    return {channel(0), channel(1), channel(2)};
}

/// A map [side, side] between its lowest and highest value, over the picture, as bilinear as screens are.
td::Image overlay(const td::Image& picture, std::span<const float> map, std::size_t side) {
    const auto [lowest, highest] = std::ranges::minmax(map);
    const float range = std::max(highest - lowest, 1e-12F);
    td::Image out = picture;
    const auto at = [&](std::size_t y, std::size_t x) { return (map[y * side + x] - lowest) / range; };
    for (int y = 0; y < picture.height; ++y) {
        for (int x = 0; x < picture.width; ++x) {
            const auto place = [&](int pixel, int pixels) {
                const float centre =
                    (static_cast<float>(pixel) + 0.5F) * static_cast<float>(side) / static_cast<float>(pixels) - 0.5F;
                return std::clamp(centre, 0.0F, static_cast<float>(side - 1));
            };
            const float v = place(y, picture.height), u = place(x, picture.width);
            const auto top = static_cast<std::size_t>(v), left = static_cast<std::size_t>(u);
            const std::size_t bottom = std::min(top + 1, side - 1), right = std::min(left + 1, side - 1);
            const float down = v - static_cast<float>(top), across = u - static_cast<float>(left);
            const float share = (at(top, left) * (1 - across) + at(top, right) * across) * (1 - down) +
                                (at(bottom, left) * (1 - across) + at(bottom, right) * across) * down;
            const td::Colour colour = heat(share);
            std::uint8_t* const pixel =
                out.pixels.data() + 3 * (static_cast<std::size_t>(y) * static_cast<std::size_t>(picture.width) +
                                         static_cast<std::size_t>(x));
            const std::array<std::uint8_t, 3> over{colour.red, colour.green, colour.blue};
            for (std::size_t c = 0; c < 3; ++c)
                pixel[c] = static_cast<std::uint8_t>((9 * pixel[c] + 11 * over[c]) / 20);
        }
    }
    return out;
}

/// What the class token, or the mean token where there is none, attends to, over all heads.
std::vector<float> attention_map(const Opened& opened, std::span<const float> pixels, int layer) {
    const td::ModelSizes& sizes = opened.clip.sizes();
    const auto weights = opened.clip.image_attention(pixels, layer);
    const std::size_t prefix = sizes.image_prefix, tokens = sizes.image_tokens;
    std::vector<float> map(tokens - prefix);
    for (std::size_t head = 0; head < sizes.image_heads; ++head) {
        for (std::size_t query = 0; query < (prefix > 0 ? 1 : tokens); ++query) {
            for (std::size_t patch = 0; patch < map.size(); ++patch)
                map[patch] += weights(0, head, query, prefix + patch);
        }
    }
    return map;
}

int run(const Arguments& options) {
    const bool has_text = options.has("--text");
    if (!options.require("--out").ends_with(".png"))
        throw td::Error("--out", "a name that ends in .png", options.get("--out"));
    if (has_text && options.has("--layer"))
        throw td::Error("--layer", "it without --text, which maps no layer's attention", "both");
    const int layer = options.layer("--layer", -1);
    require_place(options.get("--out"));
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
        const auto text = td::embed_texts(opened.clip, *opened.tokenizer, captions);
        const auto patches = opened.clip.patch_embeddings(pixels);
        const std::size_t width = opened.clip.sizes().embedding;
        for (std::size_t patch = 0; patch < patches.extent(1); ++patch) {
            const float* const row = patches.data() + patch * width;
            map.push_back(std::inner_product(row, row + width, text.data(), 0.0F));
        }
        const auto [lowest, highest] = std::ranges::minmax(map);
        std::printf("cosines of the patches with \"%s\": %.3f to %.3f; of the whole image: %.3f\n", captions[0].c_str(),
                    static_cast<double>(lowest), static_cast<double>(highest),
                    static_cast<double>(td::similarity(opened.clip.encode_image(pixels), text)(0, 0)));
    } else {
        map = attention_map(opened, pixels, layer);
    }
    if (std::ranges::any_of(map, [](float value) { return !std::isfinite(value); }))
        throw td::Error(options.get("--image"), "finite numbers from the model", "infinities or NaN");
    const auto side = static_cast<std::size_t>(std::lround(std::sqrt(static_cast<double>(map.size()))));
    const int large = std::max(448, static_cast<int>(opened.preprocess.size.height));
    const td::Image seen = td::resize(td::fit_image(picture, opened.preprocess), large, large, td::Filter::bicubic);
    const std::vector<std::byte> png = td::encode_png(overlay(seen, map, side));
    const std::span<const std::byte> bytes(png);
    td::write_file_atomically(options.require("--out"), std::span(&bytes, 1));
    std::printf("%s: %s, %zu x %zu patches\n", options.get("--out").c_str(), opened.clip.sizes().architecture.c_str(),
                side, side);
    return 0;
}

}  // namespace

Command attention_command() {
    return {.name = "attention",
            .purpose = "a map of what a model attends to in a picture",
            .operand = "",
            .synopsis = "--weights PATH --image FILE --out FILE.png [--text CAPTION | --layer N]",
            .description =
                "Writes the picture as the model sees it, with the map over it: what the class token attends to in a "
                "layer, or the cosines of the picture's patches with a caption.",
            .options = with_checkpoint_options(
                {{"--image", "FILE", "a picture"},
                 {"--out", "FILE.png", "the picture as the model sees it, and the map over it"},
                 {"--text", "CAPTION", "maps the patches' cosines with it, instead of attention"},
                 {"--layer", "N", "whose attention is mapped, from 0, or from the back (default -1)"}}),
            .run = run};
}

}  // namespace program

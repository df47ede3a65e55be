#include "heat_map.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>

#include <tandem/images/filter.hpp>
#include <tandem/images/resize.hpp>
#include <tandem/images/transform.hpp>
#include <tandem/tasks/segmentation.hpp>

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

/// A map between its lowest and highest value, over the picture, as bilinear as screens are.
td::Image laid_over(const td::Image& picture, std::span<const float> map, std::size_t side) {
    const auto [lowest, highest] = std::ranges::minmax(map);
    const float range = std::max(highest - lowest, 1e-12F);
    const std::vector<float> large = td::enlarge(map, side, td::ImageSize(picture.height, picture.width));
    td::Image out = picture;
    for (std::size_t i = 0; i < large.size(); ++i) blend(out, i, heat((large[i] - lowest) / range), 11);
    return out;
}

}  // namespace

void blend(td::Image& picture, std::size_t pixel, const td::Colour& colour, unsigned of_20) {
    const std::array<std::uint8_t, 3> over{colour.red, colour.green, colour.blue};
    for (std::size_t c = 0; c < 3; ++c) {
        std::uint8_t& level = picture.pixels[3 * pixel + c];
        level = static_cast<std::uint8_t>(((20 - of_20) * level + of_20 * over[c]) / 20);
    }
}

std::vector<float> patch_cosines(const Opened& opened, std::span<const float> pixels, std::span<const float> text) {
    const auto patches = opened.clip.patch_embeddings(pixels);
    std::vector<float> map;
    for (std::size_t patch = 0; patch < patches.extent(1); ++patch) {
        const float* const row = patches.data() + patch * text.size();
        map.push_back(std::inner_product(row, row + text.size(), text.data(), 0.0F));
    }
    return map;
}

std::size_t map_side(std::span<const float> map) {
    const auto side = static_cast<std::size_t>(std::lround(std::sqrt(static_cast<double>(map.size()))));
    if (side * side != map.size() || side == 0)
        throw td::Error("a map of patches", "a square of them", std::to_string(map.size()));
    return side;
}

td::Image overlay(const Opened& opened, const td::Image& picture, std::span<const float> map) {
    const int large = std::max(448, static_cast<int>(opened.preprocess.size.height));
    const td::Image seen = td::resize(td::fit_image(picture, opened.preprocess), large, large, td::Filter::bicubic);
    return laid_over(seen, map, map_side(map));
}

}  // namespace program

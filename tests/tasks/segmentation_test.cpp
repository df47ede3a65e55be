// Maps of phrases over pictures: where windows stand, how maps are enlarged, and what the labels say.
#include <catch2/catch.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include <tandem/models/clip.hpp>
#include <tandem/tasks/attention_rollout.hpp>
#include <tandem/tasks/segmentation.hpp>

namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

constexpr std::size_t patch = 4, side = 16;

td::Preprocess recipe() {
    td::Preprocess plain{.size = side, .filter = td::Filter::bilinear};
    return plain;
}

/// A model of which a patch's embedding is the mean of its red, green and blue, at length 1.
std::vector<float> colours(std::span<const float> pixels) {
    constexpr std::size_t grid = side / patch;
    std::vector<float> rows;
    for (std::size_t image = 0; image < pixels.size() / (3 * side * side); ++image) {
        for (std::size_t i = 0; i < grid * grid; ++i) {
            std::array<float, 3> mean{};
            for (std::size_t c = 0; c < 3; ++c) {
                for (std::size_t y = 0; y < patch; ++y) {
                    for (std::size_t x = 0; x < patch; ++x)
                        mean[c] += pixels[((image * 3 + c) * side + i / grid * patch + y) * side + i % grid * patch + x];
                }
            }
            const float length = std::sqrt(mean[0] * mean[0] + mean[1] * mean[1] + mean[2] * mean[2]);
            for (const float value : mean) rows.push_back(length > 0 ? value / length : 0);
        }
    }
    return rows;
}

constexpr std::array<float, 9> phrases{1, 0, 0, 0, 1, 0, 0, 0, 1};

/// Red at the left, green in the middle, blue at the right.
td::Image thirds(int width, int height) {
    td::Image image{.width = width, .height = height, .pixels = std::vector<std::uint8_t>(static_cast<std::size_t>(3 * width * height))};
    for (int i = 0; i < width * height; ++i) image.pixels[static_cast<std::size_t>(3 * i + 3 * (i % width) / width)] = 255;
    return image;
}

inline constexpr td::ClipConfig small{.vision = td::VitConfig{.image = 16, .patch = 8, .width = 16, .layers = 3, .heads = 2},
                                      .text = td::TextConfig{.vocabulary = 40, .context = 8, .width = 16, .layers = 1, .heads = 2},
                                      .embedding = 8};

}  // namespace

TEST_CASE("a map has every patch where it stands in the picture, whatever the windows") {
    for (const std::size_t windows : {1, 2, 3}) {
        // Three times as wide as high: the longer side takes more windows.
        const td::PhraseMaps maps = td::phrase_maps(thirds(144, 48), recipe(), patch, colours, phrases, 3, windows);
        const std::size_t high = 4 + 2 * (windows - 1);
        CHECK(maps.grid == td::ImageSize(high, 3 * high));
        for (std::size_t phrase = 0; phrase < 3; ++phrase) {
            for (std::size_t i = 0; i < maps.grid.area(); ++i) {
                const std::size_t x = i % maps.grid.width;
                const bool is_border = x % high == 0 || x % high == high - 1;  // resizing mixes two thirds there
                if (!is_border) CHECK(maps.of(phrase)[i] == Approx(x / high == phrase ? 1 : 0).margin(1e-4));
            }
        }
        const td::Segmentation found = td::segment(maps, td::ImageSize(48, 144));
        for (const std::size_t x : {0, 24, 40, 60, 90, 104, 120, 143}) CHECK(found.labels[30 * 144 + x] == x / 48);
        CHECK(found.share(0) == Approx(1.0 / 3).margin(0.02));
    }
}

TEST_CASE("maps are enlarged as PyTorch enlarges them") {
    // torch.nn.functional.interpolate(tensor.view(1, 1, 2, 3), size=(3, 5), mode="bilinear"), PyTorch 2.14.1.
    const std::vector<float> map{0, 1, 4, 9, -2, 3};
    const std::vector<float> expected{0, 0.4F, 1, 2.8F, 4, 4.5F, 2.5F, -0.5F, 1.900001F, 3.5F, 9, 4.6F, -2, 1.000001F, 3};
    const std::vector<float> found = td::enlarge(map, td::ImageSize(2, 3), td::ImageSize(3, 5));
    REQUIRE(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) CHECK(found[i] == Approx(expected[i]).margin(1e-6));
    CHECK_THROWS_WITH(td::enlarge(map, td::ImageSize(2, 2), 4), "enlarge: expected a map of 2 values, and a size of 1 or more, found 6 values, and 4");
}

TEST_CASE("a pixel is background where a background phrase is best, or no phrase is probable enough") {
    // Three phrases over four places; the last is background.
    const td::PhraseMaps maps{.phrases = 3, .grid = td::ImageSize(1, 4), .values = {0.9F, 0.1F, 0.2F, 0.5F, 0.1F, 0.8F, 0.1F, 0.5F, 0.0F, 0.0F, 0.7F, 0.0F}};
    const td::Segmentation all = td::segment(maps, td::ImageSize(1, 4), {.background = 1, .scale = 10});
    CHECK(all.labels == std::vector<std::uint16_t>{0, 1, td::Segmentation::background, 0});
    CHECK(all.probabilities[3] == Approx(std::exp(5) / (2 * std::exp(5) + 1)));
    const td::Segmentation sure = td::segment(maps, td::ImageSize(1, 4), {.background = 1, .scale = 10, .least = 0.6});
    CHECK(sure.labels[3] == td::Segmentation::background);
    CHECK(all.share(0) == 0.5);
    const td::Segmentation held = td::segment(maps, td::ImageSize(1, 4), {.background = 1, .scale = 10, .handicap = -0.55});
    CHECK(held.labels == std::vector<std::uint16_t>{0, 1, 0, 0});
    CHECK_THROWS_WITH(td::segment(maps, 4, {.background = 3}), Contains("one or more beside the background, found 3, 3 of them background"));
}

TEST_CASE("intersection over union, by hand") {
    constexpr std::uint16_t none = td::Segmentation::background;
    td::Overlap with(3, true), without(3, false);
    const std::vector<std::uint16_t> found{0, 0, 1, none, none, 1}, truth{0, 1, 1, none, 0, 1};
    with.add(found, truth);
    without.add(found, truth);
    // 0: 1 of 3; 1: 2 of 3; background: 1 of 2; class 2 does not occur.
    CHECK(with.mean_iou() == Approx((1.0 / 3 + 2.0 / 3 + 0.5) / 3));
    CHECK(without.mean_iou() == Approx(0.5));
    CHECK(with.accuracy() == Approx(4.0 / 6));
    CHECK_THROWS_WITH(with.add(found, std::vector<std::uint16_t>(6, 3)), "Overlap::add: expected a label below 3, or background, found 3");
}

TEST_CASE("what phrase_maps cannot use is named") {
    const td::Image image = thirds(12, 4);
    CHECK_THROWS_WITH(td::phrase_maps(image, recipe(), patch, colours, std::span(phrases).first(8), 3), Contains("rows of phrases, all of one width"));
    CHECK_THROWS_WITH(td::phrase_maps(image, recipe(), 17, colours, phrases, 3), Contains("expected patches of 1 to 16 pixels, found 17"));
    CHECK_THROWS_WITH(td::phrase_maps(image, recipe(), patch, colours, phrases, 3, 0), Contains("expected 1 window or more, found 0"));
    CHECK_THROWS_WITH(td::phrase_maps({}, recipe(), patch, colours, phrases, 3), Contains("phrase_maps"));
    CHECK_THROWS_WITH(td::phrase_maps(image, recipe(), 8, colours, phrases, 3), Contains("expected 4 patches of width 3"));
    const td::Image thread{.width = 20'000, .height = 1, .pixels = std::vector<std::uint8_t>(60'000)};
    CHECK_THROWS_WITH(td::phrase_maps(thread, recipe(), patch, colours, phrases, 3), Contains("fewer than 4096 windows cover, found 20000 x 1 pixels"));
}

TEST_CASE("rollout is the product of the layers' halves") {
    const td::Clip<small> model{td::Seed{1}};
    td::Tensor<float, td::Shape<td::dynamic, 3, 16, 16>> images(2);
    td::Random random{td::Seed{2}};
    td::fill_normal(images, random, 1.0);
    const auto found = td::attention_rollout(model, images, 3);
    std::vector<std::vector<double>> halves;  // of the second image
    for (int layer = 0; layer < 3; ++layer) {
        const auto weights = model.image_attention(images, layer);
        auto& half = halves.emplace_back(25);
        for (std::size_t i = 0; i < 25; ++i)
            half[i] = 0.25 * static_cast<double>(weights(1, 0, i / 5, i % 5) + weights(1, 1, i / 5, i % 5)) + (i / 5 == i % 5 ? 0.5 : 0);
    }
    for (std::size_t row = 0; row < 5; ++row) {
        double whole = 0;
        for (std::size_t column = 0; column < 5; ++column) {
            double sum = 0;
            for (std::size_t j = 0; j < 5; ++j) {
                for (std::size_t k = 0; k < 5; ++k) sum += halves[2][row * 5 + j] * halves[1][j * 5 + k] * halves[0][k * 5 + column];
            }
            CHECK(found(1, row, column) == Approx(sum).margin(1e-6));
            whole += static_cast<double>(found(1, row, column));
        }
        CHECK(whole == Approx(1).margin(1e-5));
    }
}

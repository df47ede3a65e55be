#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include <tandem/data/transform.hpp>

#include "image_fixtures.hpp"

using namespace tandem;
using Catch::Matchers::Contains;

namespace {

constexpr Colour fill{9, 99, 199};

Image transformed(const std::string& name, const Image& image, const ImageSize& size) {
    const Filter filter = name.ends_with("bicubic") ? Filter::bicubic : Filter::bilinear;
    const auto fitted = [&](Fit fit) {
        return fit_image(image, {.size = size, .fit = fit, .filter = filter, .padding = fill});
    };
    if (name == "center_crop") return center_crop(image, size);
    if (name == "pad_to_square") return pad_to_square(image, fill);
    if (name == "flip") return flip_horizontal(image);
    if (name.starts_with("shortest_crop_")) return fitted(Fit::shortest_then_crop);
    if (name.starts_with("shortest_")) return resize_shortest(image, static_cast<int>(size.height), filter);
    if (name.starts_with("squash_")) return fitted(Fit::squash);
    if (name.starts_with("longest_")) return fitted(Fit::pad);
    Random random(Seed{5});
    REQUIRE(name == "strip_crop");
    return RandomResizedCrop{}(image, size, Filter::bicubic, random);
}

void check_floats(const std::string& file, const Preprocess& recipe) {
    const std::vector<std::byte> bytes = image_fixtures::read(file);
    std::vector<float> expected(recipe.count());
    REQUIRE(bytes.size() == expected.size() * sizeof(float));
    std::memcpy(expected.data(), bytes.data(), bytes.size());
    std::vector<float> found(recipe.count());
    preprocess(read_image(image_fixtures::path("photo.png")), recipe, found);
    float worst = 0;
    for (std::size_t i = 0; i < found.size(); ++i) worst = std::max(worst, std::abs(found[i] - expected[i]));
    CHECK(worst <= 1e-6F);
}

}  // namespace

TEST_CASE("crops, padding, flips and fits equal torchvision's on Pillow", "[transform]") {
    auto lines = image_fixtures::table("transform.txt");
    REQUIRE(lines.size() > 200);
    for (auto& line : lines) {
        std::string name, file, hash;
        ImageSize size;
        line >> name >> file >> size.height >> size.width >> hash;
        CAPTURE(name, file, to_string(size));
        CHECK(image_fixtures::hash(transformed(name, read_image(image_fixtures::path(file)), size)) == hash);
    }
}

TEST_CASE("preprocessing equals ToTensor and Normalize", "[transform]") {
    check_floats("openai_32.f32", openai_preprocess(32));
    check_floats("siglip_32.f32", siglip_preprocess(32));
    static_assert(openai_preprocess(224).count() == 3 * 224 * 224);
}

TEST_CASE("normalising writes planes", "[transform]") {
    const Image image{2, 1, {0, 51, 255, 102, 204, 153}};
    std::vector<float> out(6);
    normalise(image, {0, 0.5F, 1}, {1, 0.5F, 2}, out);
    const std::vector<float> expected{0, 0.4F, (0.2F - 0.5F) / 0.5F, (0.8F - 0.5F) / 0.5F, 0, (0.6F - 1) / 2};
    for (std::size_t i = 0; i < 6; ++i) CHECK(out[i] == Approx(expected[i]).margin(1e-7));
    CHECK_THROWS_WITH(normalise(image, {}, {1, 1, 1}, std::span(out).first(5)), Contains("6 floats") && Contains("5"));
}

TEST_CASE("a random crop keeps its bounds and reaches every corner", "[transform]") {
    Random random(Seed{1});
    const RandomResizedCrop usual{.scale_low = 0.2, .scale_high = 0.7};
    double area_sum = 0;
    int left_edge = 0, right_edge = 0, top_edge = 0, bottom_edge = 0;
    constexpr int rounds = 4000;
    for (int i = 0; i < rounds; ++i) {
        const Region region = usual.sample(120, 90, random);
        REQUIRE(region.left >= 0);
        REQUIRE(region.top >= 0);
        REQUIRE(region.left + region.width <= 120);
        REQUIRE(region.top + region.height <= 90);
        const double area = region.width * region.height / (120.0 * 90.0);
        const double ratio = static_cast<double>(region.width) / region.height;
        REQUIRE(area == Approx(0.45).margin(0.265));
        REQUIRE(ratio > 0.73);
        REQUIRE(ratio < 1.37);
        area_sum += area;
        left_edge += region.left == 0 ? 1 : 0;
        right_edge += region.left + region.width == 120 ? 1 : 0;
        top_edge += region.top == 0 ? 1 : 0;
        bottom_edge += region.top + region.height == 90 ? 1 : 0;
    }
    // Wide or tall tries of large area do not fit and are drawn again, which lowers the mean of 0.45 slightly.
    CHECK(area_sum / rounds == Approx(0.44).margin(0.02));
    for (const int edge : {left_edge, right_edge, top_edge, bottom_edge}) CHECK(edge > 20);
}

TEST_CASE("a random crop is its region, cropped and then resized", "[transform]") {
    const Image image = read_image(image_fixtures::path("photo.png"));
    const RandomResizedCrop augment{.scale_low = 0.3};
    for (std::uint64_t stream = 0; stream < 50; ++stream) {
        Random random(Seed{2}, stream);
        Random again = random;
        const Image result = augment(image, 24, Filter::bicubic, random);
        const Region region = augment.sample(image.width, image.height, again);
        CHECK(result == resize(crop(image, region), 24, 24, Filter::bicubic));
        CHECK(random.state() == again.state());
    }
}

TEST_CASE("a long strip is cropped without its full-size resize", "[transform]") {
    Image strip{100000, 10, std::vector<std::uint8_t>(std::size_t{3} * 100000 * 10)};
    for (std::size_t i = 0; i < strip.pixels.size(); ++i) strip.pixels[i] = static_cast<std::uint8_t>(i * 7 % 251);
    const Image square = fit_image(strip, openai_preprocess(64));
    // Far from the ends, the middle of the whole equals the middle of a part around the same centre.
    const Image part = crop(strip, {50000 - 100, 0, 200, 10});
    CHECK(square == fit_image(part, openai_preprocess(64)));
    CHECK_THROWS_WITH(resize_shortest(strip, 224, Filter::bicubic), Contains("100000 x 10") || Contains("2^20"));
}

TEST_CASE("transforms refuse what cannot be", "[transform]") {
    const Image image{4, 3, std::vector<std::uint8_t>(36)};
    Random random(Seed{0});
    CHECK_THROWS_WITH(crop(image, {1, 0, 4, 3}), Contains("4 x 3 at (1, 0)"));
    CHECK_THROWS_AS(crop(image, {0, 0, 0, 3}), Error);
    CHECK_THROWS_AS(crop(image, {-1, 0, 2, 2}), Error);
    CHECK_THROWS_WITH(center_crop(image, 0), Contains("center_crop") && Contains("found 0"));
    CHECK_THROWS_AS(center_crop(image, 1 << 30), Error);
    CHECK_THROWS_AS(resize_shortest(Image{}, 8, Filter::bicubic), Error);
    CHECK_THROWS_AS(flip_horizontal(Image{}), Error);
    CHECK_THROWS_WITH(pad_to_square(Image{30000, 1, std::vector<std::uint8_t>(90000)}, white),
                      Contains("30000 x 30000"));
    CHECK_THROWS_AS((RandomResizedCrop{.scale_low = 1, .scale_high = 0.5}(image, 8, Filter::bicubic, random)), Error);
    CHECK_THROWS_AS((RandomResizedCrop{.ratio_low = 0}(image, 8, Filter::bicubic, random)), Error);
    std::vector<float> out(10);
    CHECK_THROWS_WITH(preprocess(image, siglip_preprocess(8), out), Contains("192 floats") && Contains("10"));
}

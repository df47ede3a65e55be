#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <span>
#include <utility>

#include <tandem/images/codec.hpp>
#include <tandem/images/transform.hpp>

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

/// A file of stored.txt; ":inks" takes the four samples of its pixels for cyan, magenta, yellow and black.
Image stored_picture(const std::string& name) {
    const std::size_t colon = name.find(':');
    Image image = read_image(image_fixtures::path(name.substr(0, colon)));
    if (colon == name.npos) return image;
    std::vector<std::uint8_t> inks;
    for (std::size_t i = 0; i < image.samples.size(); ++i) {
        inks.insert(inks.end(), &image.pixels[3 * i], &image.pixels[3 * i] + 3);
        inks.push_back(image.samples[i]);
        for (std::size_t c = 0; c < 3; ++c)
            image.pixels[3 * i + c] = detail::ink_level(inks[4 * i + c], inks[4 * i + 3]);
    }
    image.storage = Storage::ink;
    image.samples = inks;
    return image;
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

TEST_CASE("pictures that are not RGB are resized as open_clip resizes them, to the last bit of a float",
          "[transform]") {
    auto lines = image_fixtures::table("stored.txt");
    REQUIRE(lines.size() > 500);
    for (auto& line : lines) {
        std::string name, file, hash;
        ImageSize size;
        unsigned value = 0;
        line >> name >> file >> size.height >> size.width >> value >> hash;
        CAPTURE(name, file, to_string(size));
        const Image image = stored_picture(file);
        Preprocess recipe = openai_preprocess(size);
        recipe.filter = name.ends_with("bicubic") ? Filter::bicubic : Filter::bilinear;
        if (name.starts_with("squash")) recipe.fit = Fit::squash;
        if (name.starts_with("longest")) recipe.fit = Fit::pad;
        const auto level = static_cast<std::uint8_t>(value);
        recipe.padding = {level, level, level};
        std::vector<float> found(recipe.count());
        if (name.starts_with("crop")) {
            Random random(Seed{5});
            const RandomResizedCrop square{.scale_low = 1, .scale_high = 1, .ratio_low = 1, .ratio_high = 1};
            normalise(square(image, size, recipe.filter, random), recipe.mean, recipe.deviation, found);
        } else {
            preprocess(image, recipe, found);
        }
        CHECK(image_fixtures::hash(std::as_bytes(std::span(found))) == hash);
    }
}

TEST_CASE("RGB first is a choice, and what every other operation does", "[transform]") {
    for (const std::string name :
         {"transparent_white.png", "indexed.png", "bits.png", "dark16.png", "rgba8.png:inks"}) {
        CAPTURE(name);
        const Image image = stored_picture(name);
        REQUIRE(image.storage != Storage::rgb);
        const Image plain{image.width, image.height, image.pixels};
        for (const Fit fit : {Fit::shortest_then_crop, Fit::squash, Fit::pad}) {
            const Preprocess recipe{.size = 16, .fit = fit, .resize_as = ResizeAs::rgb};
            CHECK(fit_image(image, recipe) == fit_image(plain, recipe));
            Preprocess stored = recipe;
            stored.resize_as = ResizeAs::stored;
            CHECK(fit_image(image, stored) != fit_image(plain, stored));
        }
        Random random(Seed{5});
        Random again = random, third = random;
        const Image seen = RandomResizedCrop{}(plain, 16, Filter::bicubic, again);
        CHECK(RandomResizedCrop{}(image, 16, Filter::bicubic, random, ResizeAs::rgb) == seen);
        CHECK(RandomResizedCrop{}(image, 16, Filter::bicubic, third) != seen);
        CHECK(crop(image, {1, 2, 9, 8}) == crop(plain, {1, 2, 9, 8}));
        CHECK(flip_horizontal(image) == flip_horizontal(plain));
        CHECK(center_crop(image, 64) == center_crop(plain, 64));
        CHECK(pad_to_square(image, fill) == pad_to_square(plain, fill));
        CHECK(resize(image, 9, 9, Filter::bilinear) == resize(plain, 9, 9, Filter::bilinear));
        CHECK(resize(image, image.width, image.height, Filter::bilinear) == plain);
    }
    // A padding that is not grey is a colour in every storage.
    const Image seen = fit_image(stored_picture("indexed.png"), {.size = 50, .fit = Fit::pad, .padding = fill});
    CHECK(Colour{seen.pixels[0], seen.pixels[1], seen.pixels[2]} == fill);
}

TEST_CASE("samples that do not fit the pixels are refused", "[transform]") {
    for (const auto& [storage, count] : std::vector<std::pair<Storage, std::size_t>>{
             {Storage::alpha, 11}, {Storage::ink, 12}, {Storage::grey16, 25}}) {
        const Image image{4, 3, std::vector<std::uint8_t>(36), storage, std::vector<std::uint8_t>(count)};
        CHECK_THROWS_WITH(fit_image(image, openai_preprocess(2)),
                          Contains("samples") && Contains(std::to_string(count)));
        CHECK(fit_image(image, {.size = 2, .resize_as = ResizeAs::rgb}).width == 2);
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
    // 224 x 1,120,000 pixels, of which only the middle is made.
    Image thin{1, 5000, std::vector<std::uint8_t>(std::size_t{3} * 5000, 7)};
    CHECK(fit_image(thin, openai_preprocess(224)).pixels == std::vector<std::uint8_t>(std::size_t{3} * 224 * 224, 7));
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

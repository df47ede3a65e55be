#include <catch2/catch.hpp>

#include <cmath>
#include <limits>
#include <map>
#include <span>

#include <tandem/images/codec.hpp>
#include <tandem/images/resize.hpp>

#include "../guarded.hpp"
#include "image_fixtures.hpp"

using namespace tandem;
using Catch::Matchers::Contains;

TEST_CASE("resizing equals Pillow's, bit for bit", "[resize]") {
    auto lines = image_fixtures::table("resize.txt");
    REQUIRE(lines.size() > 200);
    std::map<std::string, Image> images;
    for (auto& line : lines) {
        std::string file, kind, hash, hash_across_first;
        int width = 0, height = 0;
        float x0 = 0, y0 = 0, x1 = 0, y1 = 0;
        line >> file >> kind >> width >> height >> x0 >> y0 >> x1 >> y1 >> hash >> hash_across_first;
        if (!images.contains(file)) images[file] = read_image(image_fixtures::path(file));
        const Image& image = images[file];
        const Filter filter = kind == "bicubic" ? Filter::bicubic : Filter::bilinear;
        CAPTURE(file, kind, width, height, x0, y0, x1, y1);
        const Image result = resize_region(image, x0, y0, x1, y1, width, height, filter);
        CHECK(result.width == width);
        CHECK(result.height == height);
        CHECK(image_fixtures::hash(result) == hash);
        const Image earlier = resize_region(image, x0, y0, x1, y1, width, height, filter, Resampling::pillow_12);
        CHECK(image_fixtures::hash(earlier) == hash_across_first);
        if (x0 == 0 && y0 == 0 && x1 == static_cast<float>(image.width) && y1 == static_cast<float>(image.height)) {
            CHECK(resize(image, width, height, filter) == result);
        }
    }
}

TEST_CASE("resizing equals PyTorch's, bit for bit", "[resize]") {
    auto lines = image_fixtures::table("resize_torchvision.txt");
    REQUIRE(lines.size() > 50);
    for (auto& line : lines) {
        std::string file, kind, hash;
        int width = 0, height = 0;
        line >> file >> kind >> width >> height >> hash;
        CAPTURE(file, kind, width, height);
        const Image image = read_image(image_fixtures::path(file));
        const Filter filter = kind == "bicubic" ? Filter::bicubic : Filter::bilinear;
        CHECK(image_fixtures::hash(resize(image, width, height, filter, Resampling::torchvision)) == hash);
    }
}

TEST_CASE("every instruction set resizes to the same bytes, and touches nothing beside the picture", "[resize]") {
    Random random(Seed{1});
    const Guarded<std::uint8_t> guarded(3 * 65 * 65);
    const auto resized = [](const detail::ImageView& source, int width, int height, detail::ResizeMethod method,
                            kernels::Isa isa) {
        return detail::resize_window(source,
                                     {0, 0, static_cast<float>(source.width), static_cast<float>(source.height)}, width,
                                     height, {0, 0, width, height}, method, kernels::resize_kernels(isa));
    };
    for (int width = 1; width <= 65; ++width) {
        for (int height = 1; height <= 65; ++height) {
            const std::span<std::uint8_t> pixels = guarded.span(static_cast<std::size_t>(3 * width * height));
            for (std::uint8_t& byte : pixels) byte = static_cast<std::uint8_t>(random.below(256));
            const detail::ImageView source{pixels.data(), static_cast<std::size_t>(3 * width), width, height};
            const int new_width = 1 + static_cast<int>(random.below(70));
            const int new_height = 1 + static_cast<int>(random.below(70));
            const detail::ResizeMethod method{
                random.below(2) == 0 ? Filter::bicubic : Filter::bilinear,
                std::array{Resampling::pillow_13, Resampling::pillow_12, Resampling::torchvision}[random.below(3)]};
            const Image expected = resized(source, new_width, new_height, method, kernels::Isa::scalar);
            for (const kernels::Isa isa : {kernels::Isa::avx2, kernels::Isa::avx512}) {
                if (!kernels::has(kernels::cpu_features(), isa)) continue;
                CAPTURE(kernels::name_of(isa), width, height, new_width, new_height);
                REQUIRE(resized(source, new_width, new_height, method, isa) == expected);
            }
        }
    }
}

TEST_CASE("a constant image stays constant at any size", "[resize]") {
    for (const std::uint8_t value : std::vector<std::uint8_t>{0, 1, 127, 254, 255}) {
        const Image image{37, 23, std::vector<std::uint8_t>(37 * 23 * 3, value)};
        for (const int size : {1, 5, 23, 40, 111}) {
            const Image result = resize(image, size, size + 1, Filter::bicubic);
            CHECK(result.pixels == std::vector<std::uint8_t>(result.pixels.size(), value));
        }
    }
}

TEST_CASE("sizes and boxes that cannot be are refused", "[resize]") {
    const Image image{4, 3, std::vector<std::uint8_t>(36)};
    CHECK_THROWS_WITH(resize(image, 0, 5, Filter::bicubic), Contains("0 x 5"));
    CHECK_THROWS_WITH(resize(image, 5, -1, Filter::bicubic), Contains("5 x -1"));
    CHECK_THROWS_WITH(resize(image, 1 << 20, 1 << 20, Filter::bicubic), Contains("2^28"));
    CHECK_THROWS_AS(resize(image, std::numeric_limits<int>::max(), 1, Filter::bicubic), Error);
    CHECK_THROWS_WITH(resize(Image{}, 2, 2, Filter::bicubic), Contains("0 x 0"));
    CHECK_THROWS_WITH(resize(Image{4, 3, {1, 2, 3}}, 2, 2, Filter::bicubic), Contains("3 bytes for 4 x 3"));
    const Image strip{(1 << 20) + 1, 1, std::vector<std::uint8_t>(3 * ((1 << 20) + 1))};
    CHECK_THROWS_WITH(resize(strip, 2, 2, Filter::bicubic), Contains("2^20"));

    const float nan = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS_WITH(resize_region(image, 0, 0, 4.5F, 3, 2, 2, Filter::bicubic), Contains("4 x 3"));
    CHECK_THROWS_AS(resize_region(image, -0.5F, 0, 4, 3, 2, 2, Filter::bicubic), Error);
    CHECK_THROWS_AS(resize_region(image, 2, 0, 2, 3, 2, 2, Filter::bicubic), Error);
    CHECK_THROWS_AS(resize_region(image, 0, 3, 4, 1, 2, 2, Filter::bicubic), Error);
    CHECK_THROWS_AS(resize_region(image, 0, nan, 4, 3, 2, 2, Filter::bicubic), Error);
    CHECK_THROWS_AS(resize_region(image, 0, 0, nan, 3, 2, 2, Filter::bicubic), Error);
}

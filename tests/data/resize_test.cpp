#include <catch2/catch.hpp>

#include <cmath>
#include <limits>
#include <map>

#include <tandem/data/resize.hpp>

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
        const Image earlier = resize_region(image, x0, y0, x1, y1, width, height, filter, PassOrder::across_first);
        CHECK(image_fixtures::hash(earlier) == hash_across_first);
        if (x0 == 0 && y0 == 0 && x1 == static_cast<float>(image.width) && y1 == static_cast<float>(image.height)) {
            CHECK(resize(image, width, height, filter) == result);
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

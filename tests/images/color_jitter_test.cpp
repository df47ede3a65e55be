// Colours against torchvision's, of every third value of each channel.
#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <set>
#include <sstream>
#include <string>

#include <tandem/images/color_jitter.hpp>

#include "image_fixtures.hpp"

using namespace tandem;
using Catch::Matchers::Contains;

namespace {

/// Pixel (x, y) is (3 (x % 86), 3 (x / 86), 3 y).
Image colours() {
    constexpr int side = 86;
    Image image{side * side, side, {}};
    for (int y = 0; y < side; ++y) {
        for (int x = 0; x < side * side; ++x) {
            for (const int value : {x % side, x / side, y}) image.pixels.push_back(static_cast<std::uint8_t>(3 * value));
        }
    }
    return image;
}

}  // namespace

TEST_CASE("colours are changed as torchvision changes Pillow's", "[data]") {
    const Image image = colours();
    std::size_t count = 0;
    for (std::istringstream& words : image_fixtures::table("colors.txt")) {
        CAPTURE(words.str());
        std::string operation, hash;
        words >> operation;
        Image found;
        if (operation == "jitter") {
            std::string order;
            ColorJitter::Draw draw;
            words >> order >> draw.brightness >> draw.contrast >> draw.saturation >> draw.hue;
            for (std::size_t i = 0; i < 4; ++i) draw.order[i] = static_cast<std::size_t>(order.at(i) - '0');
            found = ColorJitter{.brightness = 1, .contrast = 1, .saturation = 1, .hue = 0.5}.apply(image, draw);
        } else {
            double factor = 0;
            words >> factor;
            found = operation == "brightness"   ? adjust_brightness(image, factor)
                    : operation == "contrast"   ? adjust_contrast(image, factor)
                    : operation == "saturation" ? adjust_saturation(image, factor)
                    : operation == "hue"        ? adjust_hue(image, factor)
                                                : grayscale(image);
        }
        words >> hash;
        CHECK(image_fixtures::hash(found) == hash);
        ++count;
    }
    CHECK(count == 53);
}

TEST_CASE("a jitter draws factors of its range, and every order", "[data]") {
    const ColorJitter jitter{.brightness = 0.4, .contrast = 2, .saturation = 0, .hue = 0.1};
    Random random{Seed{3}};
    std::set<std::array<std::size_t, 4>> orders;
    double least = 9, most = 0;
    for (int i = 0; i < 2000; ++i) {
        const ColorJitter::Draw draw = jitter.sample(random);
        orders.insert(draw.order);
        least = std::min(least, draw.brightness);
        most = std::max(most, draw.brightness);
        CHECK((draw.brightness >= 0.6 && draw.brightness <= 1.4 && draw.contrast >= 0 && draw.contrast <= 3));
        CHECK((draw.saturation == 1 && draw.hue >= -0.1 && draw.hue <= 0.1));
    }
    CHECK(orders.size() == 24);
    CHECK((least < 0.61 && most > 1.39));
    const Image image = colours();
    CHECK(ColorJitter{}(image, random) == image);
}

TEST_CASE("amounts that mean nothing are refused", "[data]") {
    const Image image{1, 1, {1, 2, 3}};
    Random random{Seed{}};
    CHECK_THROWS_WITH(adjust_contrast(image, -0.1), Contains("adjust_contrast: expected a factor of 0 or above, found -0.1"));
    CHECK_THROWS_WITH(adjust_saturation(image, 1e300), Contains("adjust_saturation: expected a factor of 0 or above"));
    CHECK_THROWS_WITH(adjust_hue(image, 0.6), Contains("adjust_hue: expected a share of the circle from -0.5 to 0.5, found 0.6"));
    CHECK_THROWS_WITH(ColorJitter{.hue = 0.7}(image, random), Contains("ColorJitter.hue: expected a number from 0 to 0.5, found 0.7"));
    CHECK_THROWS_WITH(ColorJitter{.contrast = -1}.sample(random), Contains("ColorJitter.contrast: expected a number from 0 to a million, found -1"));
    CHECK_THROWS_WITH(grayscale(Image{2, 1, {1, 2, 3}}), Contains("grayscale"));
}

// WebP pictures and EXIF's orientation, held against Pillow (make_webp_goldens.py).
#include <catch2/catch.hpp>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include <tandem/core/random.hpp>
#include <tandem/images/codec.hpp>
#include <tandem/images/orientation.hpp>
#include <tandem/images/webp.hpp>

#include "image_fixtures.hpp"

using namespace tandem;
using Catch::Matchers::Contains;

namespace {

std::vector<std::byte> fixture(const std::string& file) {
    return image_fixtures::read("../webp/" + file);
}

}  // namespace

TEST_CASE("WebP and turned pictures equal Pillow's", "[webp]") {
    auto lines = image_fixtures::table("../webp/pixels.txt");
    REQUIRE(lines.size() == 168);
    for (auto& line : lines) {
        std::string file, orientation, background, hash;
        int width = 0, height = 0;
        line >> file >> orientation >> background >> width >> height >> hash;
        CAPTURE(file, orientation, background);
        DecodeOptions options;
        options.orientation = orientation == "exif" ? Orientation::exif : Orientation::stored;
        if (background != "none") {
            const auto rgb = std::stoul(background, nullptr, 16);
            options.background = Colour{static_cast<std::uint8_t>(rgb >> 16), static_cast<std::uint8_t>(rgb >> 8 & 255),
                                        static_cast<std::uint8_t>(rgb & 255)};
        }
        const Image image = decode_image(fixture(file), file, options);
        CHECK(image.width == width);
        CHECK(image.height == height);
        CHECK(image_fixtures::hash(image) == hash);
    }
}

TEST_CASE("JPEGs are turned as EXIF says, where it is asked for", "[webp]") {
    for (const char* const file : {"turned_3.jpg", "turned_6.jpg", "turned_8.jpg"}) {
        CAPTURE(file);
        const Image image = decode_image(fixture(file), file, {.orientation = Orientation::exif});
        const Image expected = decode_image(fixture(std::string(file) + ".png"), file);
        REQUIRE(image.width == expected.width);
        REQUIRE(image.height == expected.height);
        int worst = 0;
        for (std::size_t i = 0; i < image.pixels.size(); ++i)
            worst = std::max(worst, std::abs(image.pixels[i] - expected.pixels[i]));
        CHECK(worst <= 2);
        CHECK(decode_image(fixture(file), file).width == 37);
    }
}

TEST_CASE("what a file stores beside its RGB is turned with it", "[webp]") {
    const std::vector<std::byte> bytes = fixture("turned_grey16.png");
    const Image stored = decode_image(bytes, "grey"),
                turned = decode_image(bytes, "grey", {.orientation = Orientation::exif});
    REQUIRE(stored.storage == Storage::grey16);
    REQUIRE((turned.width == stored.height && turned.height == stored.width));
    // 7: rows and columns change places, from the other ends.
    for (int y = 0; y < stored.height; ++y) {
        for (int x = 0; x < stored.width; ++x) {
            const auto from = static_cast<std::size_t>(y * stored.width + x) * 2;
            const auto to = static_cast<std::size_t>((stored.width - 1 - x) * turned.width + stored.height - 1 - y) * 2;
            CHECK(stored.samples[from] == turned.samples[to]);
            CHECK(stored.samples[from + 1] == turned.samples[to + 1]);
        }
    }
    const Image clear = decode_image(fixture("turned_6.webp"), "clear", {.orientation = Orientation::exif});
    CHECK(clear.storage == Storage::alpha);
    CHECK(clear.samples.size() * 3 == clear.pixels.size());
    CHECK(decode_image(fixture("opaque_alpha.webp"), "opaque").storage == Storage::rgb);
}

TEST_CASE("damaged WebP is an Error, at every length and with any byte wrong", "[webp]") {
    Random random(Seed{16});
    for (const char* const file :
         {"lossy.webp", "lossless.webp", "alpha_lossy.webp", "animated.webp", "turned_6.webp"}) {
        const std::vector<std::byte> whole = fixture(file);
        for (std::size_t length = 12; length + 1 < whole.size(); length += 1 + whole.size() / 300) {
            CAPTURE(file, length);
            // (EXIF data stand behind the pixels, which may be whole already.)
            if (std::string_view(file) == "turned_6.webp") continue;
            CHECK_THROWS_WITH(decode_image(std::span(whole).first(length), "cut"), Contains("cut: damaged WebP"));
        }
        for (int i = 0; i < 400; ++i) {
            std::vector<std::byte> damaged = whole;
            damaged[random.below(damaged.size())] ^= std::byte{static_cast<unsigned char>(1 + random.below(255))};
            try {
                const Image image =
                    decode_image(damaged, "damaged", {.pixel_limit = 100'000, .orientation = Orientation::exif});
                CHECK(image.pixels.size() == std::size_t{3} * static_cast<std::size_t>(image.width * image.height));
            } catch (const Error&) {
            }
        }
    }
    CHECK_THROWS_AS(decode_image(fixture("lossy.webp"), "large", {.pixel_limit = 37 * 26 - 1}), OversizedImage);
}

TEST_CASE("EXIF data that lead nowhere turn nothing", "[webp]") {
    Random random(Seed{17});
    for (const char* const file : {"turned_6.png", "turned_6.webp", "turned_6.jpg"}) {
        const std::vector<std::byte> whole = fixture(file);
        REQUIRE(detail::exif_orientation(whole) == 6);
        for (std::size_t length = 0; length < whole.size(); ++length) {
            const int found = detail::exif_orientation(std::span(whole).first(length));
            CHECK((found == 1 || found == 6));
        }
        for (int i = 0; i < 20000; ++i) {
            std::vector<std::byte> damaged = whole;
            for (int k = 0; k < 3; ++k)
                damaged[random.below(damaged.size())] = std::byte{static_cast<unsigned char>(random.below(256))};
            const int found = detail::exif_orientation(damaged);
            CHECK((found >= 1 && found <= 8));
        }
    }
}

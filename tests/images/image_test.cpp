#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <tuple>
#include <utility>

#include <jpeglib.h>
#include <unistd.h>

#include <tandem/core/random.hpp>
#include <tandem/images/codec.hpp>
#include <tandem/images/image.hpp>
#include <tandem/images/resize.hpp>

#include "image_fixtures.hpp"

using namespace tandem;
using Catch::Matchers::Contains;

namespace {

std::vector<std::byte> bytes_of(std::string_view text) {
    const auto* begin = reinterpret_cast<const std::byte*>(text.data());
    return {begin, begin + text.size()};
}

std::string error_of(std::span<const std::byte> bytes, DecodeOptions options = {}) {
    try {
        decode_image(bytes, "picture", options);
    } catch (const Error& error) {
        CHECK(error.where() == "picture");
        return error.what();
    }
    return {};
}

/// A pixel image, or an Error; anything else fails the test.
bool decodes(std::span<const std::byte> bytes, DecodeOptions options) {
    try {
        const Image image = decode_image(bytes, "picture", options);
        REQUIRE(image.width > 0);
        REQUIRE(image.height > 0);
        REQUIRE(image.pixels.size() == std::size_t{3} * static_cast<std::size_t>(image.width * image.height));
        return true;
    } catch (const Error&) {
        return false;
    }
}

void put_big_endian(std::vector<std::byte>& bytes, std::size_t at, std::uint32_t value, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) bytes[at + i] = std::byte(value >> 8 * (count - 1 - i));
}

/// Where the two bytes of the height stand in a JPEG; the width follows.
std::size_t jpeg_height_at(const std::vector<std::byte>& bytes) {
    for (std::size_t i = 0; i + 9 < bytes.size(); ++i) {
        const bool frame = bytes[i + 1] == std::byte{0xc0} || bytes[i + 1] == std::byte{0xc2};
        if (bytes[i] == std::byte{0xff} && frame) return i + 5;
    }
    FAIL("no frame header");
    return 0;
}

/// What this process writes to stderr while body runs, C libraries included.
template <class Body>
std::string stderr_of(const Body& body) {
    std::FILE* capture = std::tmpfile();
    std::fflush(stderr);
    const int saved = dup(2);
    dup2(fileno(capture), 2);
    body();
    std::fflush(stderr);
    dup2(saved, 2);
    close(saved);
    std::string text(static_cast<std::size_t>(std::ftell(capture)), '\0');
    std::rewind(capture);
    text.resize(std::fread(text.data(), 1, text.size(), capture));
    std::fclose(capture);
    return text;
}

/// A grey-ramp baseline JPEG whose three components lie in three scans, which libjpeg decodes by way of a buffer.
std::vector<std::byte> one_scan_per_component() {
    jpeg_compress_struct info{};
    jpeg_error_mgr manager{};
    info.err = jpeg_std_error(&manager);
    jpeg_create_compress(&info);
    unsigned char* data = nullptr;
    unsigned long size = 0;
    jpeg_mem_dest(&info, &data, &size);
    info.image_width = info.image_height = 16;
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info);
    std::array<jpeg_scan_info, 3> scans{};
    for (int c = 0; c < 3; ++c) scans[static_cast<std::size_t>(c)] = {1, {c}, 0, 63, 0, 0};
    info.scan_info = scans.data();
    info.num_scans = 3;
    jpeg_start_compress(&info, TRUE);
    for (int y = 0; y < 16; ++y) {
        std::vector<unsigned char> row(48, static_cast<unsigned char>(16 * y));
        unsigned char* start = row.data();
        jpeg_write_scanlines(&info, &start, 1);
    }
    jpeg_finish_compress(&info);
    const auto* begin = reinterpret_cast<const std::byte*>(data);
    std::vector<std::byte> bytes(begin, begin + size);
    jpeg_destroy_compress(&info);
    std::free(data);
    return bytes;
}

/// A folder of its own for one test.
struct Folder {
    std::filesystem::path path = std::filesystem::temp_directory_path() / ("tandem_image_" + std::to_string(getpid()));
    Folder() { std::filesystem::create_directories(path); }
    ~Folder() { std::filesystem::remove_all(path); }
};

const std::vector<std::string> jpegs{"baseline420",      "baseline422", "baseline444", "progressive",       "restarts",
                                     "keep_rgb",         "oriented",    "small",       "small_progressive", "grey",
                                     "grey_progressive", "cmyk",        "ycck"};

}  // namespace

TEST_CASE("PNG pixels equal Pillow's, for every colour type, depth and background", "[image]") {
    auto lines = image_fixtures::table("pixels.txt");
    REQUIRE(lines.size() > 100);
    for (auto& line : lines) {
        std::string file, background, hash;
        int width = 0, height = 0;
        line >> file >> background >> width >> height >> hash;
        CAPTURE(file, background);
        DecodeOptions options;
        if (background != "none") {
            const auto rgb = std::stoul(background, nullptr, 16);
            options.background = Colour{static_cast<std::uint8_t>(rgb >> 16), static_cast<std::uint8_t>(rgb >> 8 & 255),
                                        static_cast<std::uint8_t>(rgb & 255)};
        }
        const Image image = decode_image(image_fixtures::read(file), file, options);
        CHECK(image.width == width);
        CHECK(image.height == height);
        CHECK(image_fixtures::hash(image) == hash);
    }
}

TEST_CASE("a 16-bit colour key is compared in 16 bits", "[image]") {
    const std::vector<std::byte> bytes = image_fixtures::read("rgb16_trns.png");
    const Image dropped = decode_image(bytes, "keyed");
    Image composed = decode_image(bytes, "keyed", {.background = white});
    // The golden script keys the pixel at (6, 5).
    const std::size_t at = (5 * 21 + 6) * 3;
    CHECK(std::all_of(composed.pixels.begin() + at, composed.pixels.begin() + at + 3, [](int v) { return v == 255; }));
    CHECK(composed != dropped);
    std::copy_n(dropped.pixels.begin() + at, 3, composed.pixels.begin() + at);
    CHECK(composed == dropped);
}

TEST_CASE("JPEG pixels equal Pillow's up to the library's version", "[image]") {
    for (const std::string& name : jpegs) {
        CAPTURE(name);
        const Image image = read_image(image_fixtures::path(name + ".jpg"));
        const Image expected = read_image(image_fixtures::path(name + ".jpg.png"));
        REQUIRE(image.width == expected.width);
        REQUIRE(image.height == expected.height);
        int worst = 0;
        for (std::size_t i = 0; i < image.pixels.size(); ++i) {
            worst = std::max(worst, std::abs(image.pixels[i] - expected.pixels[i]));
        }
        CHECK(worst <= 2);
    }
}

TEST_CASE("a PNG that was encoded decodes to the same image", "[image]") {
    Random random(Seed{3});
    for (const auto& [width, height] : std::vector<std::array<int, 2>>{{1, 1}, {7, 1}, {1, 9}, {64, 33}}) {
        Image image{width, height, std::vector<std::uint8_t>(static_cast<std::size_t>(3 * width * height))};
        for (auto& value : image.pixels) value = static_cast<std::uint8_t>(random.below(256));
        CHECK(decode_image(encode_png(image), "encoded") == image);
    }
    CHECK_THROWS_WITH(encode_png({4, 4, std::vector<std::uint8_t>(47)}), Contains("47 bytes for 4 x 4"));
    CHECK_THROWS_AS(encode_png({}), Error);
}

TEST_CASE("other formats are named, and what is supported is said", "[image]") {
    const std::vector<std::pair<std::string, std::string>> cases{
        {"GIF89a........", "GIF"},
        {std::string("RIFF\x24\0\0\0WEBPVP8 ", 16), "WebP"},
        {"BM......", "BMP"},
        {std::string("II*\0....", 8), "TIFF"},
        {std::string("\0\0\0\x20"
                     "ftypavif",
                     12),
         "AVIF"},
        {"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"},
        {"<?xml version='1.0'?><svg/>", "SVG"},
        {"<!DOCTYPE html><html>not found</html>", "HTML"},
        {"", "an empty file"},
        {"hello", "an unknown format"},
        {"\xff\xd8", "an unknown format"},
        {"\x89PNG", "an unknown format"},
    };
    // Of these tests' program another file includes images/webp.hpp; most programs do not.
    detail::DecodeFunction& webp = detail::webp_decoder();
    for (const detail::DecodeFunction decoder : {detail::DecodeFunction{nullptr}, webp}) {
        const detail::DecodeFunction before = std::exchange(webp, decoder);
        for (const auto& [text, name] : cases) {
            CAPTURE(text, decoder != nullptr);
            const std::string message = error_of(bytes_of(text));
            if (decoder != nullptr && name == "WebP") {
                CHECK(message == "picture: damaged WebP: its header cannot be read");
            } else {
                CHECK_THAT(message, Contains(decoder == nullptr ? "JPEG or PNG" : "JPEG, PNG or WebP") && Contains(name));
            }
        }
        webp = before;
    }
}

TEST_CASE("files are read, and what is no readable file is named", "[image]") {
    const Folder folder;
    CHECK_THROWS_WITH(read_image(folder.path / "missing.png"), Contains("missing.png") && Contains("not a file"));
    CHECK_THROWS_WITH(read_image(folder.path), Contains(folder.path.string()) && Contains("not a file"));
    CHECK_THROWS_WITH(read_image("/dev/zero"), Contains("/dev/zero") && Contains("not a file"));
    const std::filesystem::path huge = folder.path / "huge.png";
    std::ofstream(huge) << "x";
    std::filesystem::resize_file(huge, std::uintmax_t{1} << 40);  // (sparse)
    CHECK_THROWS_WITH(read_image(huge), Contains("huge.png") && Contains("larger than"));
}

TEST_CASE("an image above the pixel limit is refused from its header", "[image]") {
    std::vector<std::byte> png = image_fixtures::read("rgb8.png");
    put_big_endian(png, 16, 60000, 4);
    put_big_endian(png, 20, 60000, 4);
    CHECK_THAT(error_of(png), Contains("60000 x 60000"));
    // Sides whose rows, or whose product, would wrap in 32 or 64 bits.
    for (const std::uint32_t side : {0x7fffffffU, 0xffffffffU, 0x80000000U, 0x55555556U}) {
        put_big_endian(png, 16, side, 4);
        put_big_endian(png, 20, side, 4);
        CHECK_THAT(error_of(png), Contains(std::to_string(side) + " x"));
        CHECK_FALSE(error_of(png, {.pixel_limit = std::numeric_limits<std::size_t>::max()}).empty());
    }
    put_big_endian(png, 16, 0, 4);
    CHECK_THAT(error_of(png), Contains("0 x"));

    std::vector<std::byte> jpeg = image_fixtures::read("baseline420.jpg");
    const std::size_t at = jpeg_height_at(jpeg);
    put_big_endian(jpeg, at, 60000, 2);
    put_big_endian(jpeg, at + 2, 60000, 2);
    CHECK_THAT(error_of(jpeg), Contains("60000 x 60000"));
    put_big_endian(jpeg, at, 0, 2);
    CHECK_FALSE(error_of(jpeg).empty());

    const std::vector<std::byte> good = image_fixtures::read("rgb8.png");
    CHECK(error_of(good, {.pixel_limit = 21 * 13}).empty());
    CHECK_THAT(error_of(good, {.pixel_limit = 21 * 13 - 1}), Contains("21 x 13"));
}

TEST_CASE("every truncation of a file that costs a pixel is an error, and every one of a JPEG", "[image]") {
    const std::vector<std::string> files{"grey1.png",
                                         "palette4_trns.png",
                                         "rgba16_interlaced.png",
                                         "grey16.png",
                                         "rgb8_3_interlaced.png",
                                         "greyalpha8.png",
                                         "rgb8_many_idat.png",
                                         "small.jpg",
                                         "small_progressive.jpg",
                                         "grey.jpg",
                                         "cmyk.jpg",
                                         "oriented.jpg"};
    for (const std::string& file : files) {
        const std::vector<std::byte> bytes = image_fixtures::read(file);
        for (const std::optional<Colour> background : {std::optional<Colour>{}, std::optional{white}}) {
            const DecodeOptions options{.background = background};
            const Image whole = decode_image(bytes, file, options);
            // Of the last chunk of pixels these come behind them: the end of zlib's data and checksums; then IEND.
            const std::size_t spare = 12 + 4 + 4, pixels = file.ends_with(".jpg") ? bytes.size() : bytes.size() - spare;
            for (std::size_t size = 0; size < bytes.size(); ++size) {
                // A copy of its own, so that a read beyond its end is seen.
                const std::vector<std::byte> part(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
                CAPTURE(file, size, bytes.size());
                if (size >= pixels) {
                    REQUIRE(decode_image(part, file, options) == whole);
                } else if (size + 2 < pixels) {
                    REQUIRE_FALSE(decodes(part, options));
                }
            }
        }
    }
}

TEST_CASE("a changed byte of a PNG is an error, or costs no pixel", "[image]") {
    for (const std::string file : {"palette8_trns.png", "rgb8_3_interlaced.png", "greyalpha8.png", "grey16.png"}) {
        const std::vector<std::byte> bytes = image_fixtures::read(file);
        const Image whole = decode_image(bytes, file);
        const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        const std::size_t pixels = text.find("IDAT") + 4, end = text.find("IEND") - 8;
        for (std::size_t at = 0; at < bytes.size(); ++at) {
            for (const int bit : {0, 5, 7}) {
                std::vector<std::byte> changed = bytes;
                changed[at] ^= std::byte{1} << bit;
                CAPTURE(file, at, bit, pixels, end);
                if (decodes(changed, {})) {
                    REQUIRE(decode_image(changed, file) == whole);
                    REQUIRE(at + 8 >= pixels);
                } else {
                    REQUIRE(at < end);
                }
            }
        }
    }
}

TEST_CASE("of a PNG's two checksums of pixels one has to be right", "[image]") {
    // Where the sum of zlib's data, the last bytes of the last chunk, is read with the pixels, it has to be right.
    const auto changed = [](std::vector<std::byte> bytes, std::initializer_list<std::size_t> from_end) {
        for (const std::size_t at : from_end) bytes[bytes.size() - at] ^= std::byte{1};
        return bytes;
    };
    constexpr std::size_t chunk_sum = 12 + 4, zlib_sum = chunk_sum + 4;
    const std::vector<std::byte> together = image_fixtures::read("rgb8.png");
    CHECK(decode_image(changed(together, {chunk_sum}), "picture") == decode_image(together, "picture"));
    CHECK_THAT(error_of(changed(together, {zlib_sum})), Contains("picture: damaged PNG: IDAT: incorrect data check"));

    // In a chunk of its own it comes too late for that: the chunk's sum decides.
    const Image whole = decode_image(image_fixtures::read("rgb8_many_idat.png"), "picture");
    const std::vector<std::byte> apart = image_fixtures::read("rgb8_end_apart.png");
    const std::vector<std::byte> wrong = image_fixtures::read("rgb8_wrong_end.png");
    const std::vector<std::byte> none = image_fixtures::read("rgb8_no_end.png");
    for (const auto& bytes : {apart, wrong, none}) CHECK(decode_image(bytes, "picture") == whole);
    CHECK(decode_image(changed(apart, {chunk_sum}), "picture") == whole);
    CHECK(decode_image(changed(apart, {chunk_sum + 16}), "picture") == whole);  // the sum of the chunk before
    CHECK_THAT(error_of(changed(apart, {zlib_sum})), Contains("picture: damaged PNG: IDAT"));
    CHECK_THAT(error_of(changed(wrong, {chunk_sum})), Contains("picture: damaged PNG: IDAT"));
    CHECK_THAT(error_of(changed(none, {chunk_sum})), Contains("picture: damaged PNG"));
}

TEST_CASE("a decoded picture tells how its file holds it", "[image]") {
    const std::vector<std::tuple<std::string, Storage, std::size_t>> cases{
        {"rgb8_trns.png", Storage::rgb, 0},
        {"grey8_trns.png", Storage::rgb, 0},
        {"grey2.png", Storage::rgb, 0},
        {"rgb16.png", Storage::rgb, 0},
        {"opaque.png", Storage::rgb, 0},
        {"small.jpg", Storage::rgb, 0},
        {"grey.jpg", Storage::rgb, 0},
        {"grey1_trns.png", Storage::nearest, 768},
        {"palette2.png", Storage::nearest, 12},
        {"palette8_trns_interlaced.png", Storage::nearest, 600},
        {"greyalpha8.png", Storage::alpha, 21 * 13},
        {"greyalpha16_interlaced.png", Storage::alpha, 21 * 13},
        {"rgba8.png", Storage::alpha, 21 * 13},
        {"rgba16_interlaced.png", Storage::alpha, 21 * 13},
        {"grey16.png", Storage::grey16, 2 * 21 * 13},
        {"grey16_trns_interlaced.png", Storage::grey16, 2 * 21 * 13},
        {"cmyk.jpg", Storage::ink, 4 * 35 * 26},
        {"ycck.jpg", Storage::ink, 4 * 35 * 26}};
    for (const auto& [file, storage, count] : cases) {
        CAPTURE(file);
        const Image image = read_image(image_fixtures::path(file));
        CHECK(image.storage == storage);
        CHECK(image.samples.size() == count);
        const Image composed = read_image(image_fixtures::path(file), {.background = white});
        CHECK(composed.storage == Storage::rgb);
        CHECK(composed.samples.empty());
    }
    const Image inks = read_image(image_fixtures::path("cmyk.jpg"));
    for (std::size_t i = 0; i < inks.pixels.size(); ++i) {
        const std::uint8_t* ink = &inks.samples[i / 3 * 4];
        REQUIRE(inks.pixels[i] == detail::ink_level(ink[i % 3], ink[3]));
    }
}

TEST_CASE("the default limit is Pillow's", "[image]") {
    CHECK(DecodeOptions{}.pixel_limit == std::size_t{2} * (1024 * 1024 * 1024 / 4 / 3));
    CHECK(DecodeOptions{}.pixel_limit < detail::resize_pixel_limit);
}

TEST_CASE("a baseline scan that names no coefficients is read, as by libjpeg", "[image]") {
    std::vector<std::byte> bytes = image_fixtures::read("small.jpg");
    const Image whole = decode_image(bytes, "picture");
    std::size_t scan = 0;
    while (bytes[scan] != std::byte{0xff} || bytes[scan + 1] != std::byte{0xda}) ++scan;
    REQUIRE(bytes[scan + 12] == std::byte{63});  // the last coefficient, before it the first, behind it the bits
    bytes[scan + 12] = std::byte{0};
    CHECK(decode_image(bytes, "picture") == whole);
}

TEST_CASE("a JPEG of a kind that is not decoded is not called damaged", "[image]") {
    std::vector<std::byte> bytes = image_fixtures::read("small.jpg");
    const std::size_t precision = jpeg_height_at(bytes) - 1;
    bytes[precision] = std::byte{12};
    CHECK(error_of(bytes) == "picture: expected a JPEG of 8 bits a sample, found 12 bits");
    bytes[precision] = std::byte{8};
    bytes[precision - 3] = std::byte{0xc5};  // hierarchical
    CHECK_THAT(error_of(bytes), Contains("Unsupported JPEG process") && !Contains("damaged"));
}

TEST_CASE("random damage gives an image or an error", "[image]") {
    Random random(Seed{11});
    const std::vector<std::string> files{
        "small.jpg", "small_progressive.jpg",       "restarts.jpg", "grey_progressive.jpg", "cmyk.jpg", "ycck.jpg",
        "rgba8.png", "palette2_trns_interlaced.png"};
    int decoded = 0;
    constexpr int rounds = 4000;
    for (int round = 0; round < rounds; ++round) {
        std::vector<std::byte> bytes = image_fixtures::read(files[random.below(files.size())]);
        const std::size_t count = 1 + random.below(4);
        for (std::size_t i = 0; i < count; ++i) {
            bytes[random.below(bytes.size())] = std::byte(random.below(256));
        }
        // A low limit: sides are bytes too, and a sane picture of 2^26 pixels is slow under a sanitizer.
        decoded += decodes(bytes, {.pixel_limit = 1 << 16, .background = white}) ? 1 : 0;
    }
    CHECK(decoded > 0);
    CHECK(decoded < rounds);
}

TEST_CASE("a JPEG of endless scans is refused", "[image]") {
    const std::vector<std::byte> bytes = one_scan_per_component();
    const Image expected = decode_image(bytes, "picture");
    std::size_t last = 0;  // where the last scan begins
    for (std::size_t i = 0; i + 1 < bytes.size(); ++i) {
        if (bytes[i] == std::byte{0xff} && bytes[i + 1] == std::byte{0xda}) last = i;
    }
    const auto repeated = [&](int times) {
        std::vector<std::byte> many(bytes.begin(), bytes.end() - 2);
        for (int i = 0; i < times; ++i) {
            many.insert(many.end(), bytes.begin() + static_cast<std::ptrdiff_t>(last), bytes.end() - 2);
        }
        many.insert(many.end(), bytes.end() - 2, bytes.end());
        return many;
    };
    CHECK(decode_image(repeated(90), "picture").width == expected.width);
    CHECK_THAT(error_of(repeated(120)), Contains("picture: damaged JPEG: more than 100 scans"));
}

TEST_CASE("stray bytes that cost no pixel are tolerated, and nothing is printed", "[image]") {
    const std::string printed = stderr_of([] {
        std::vector<std::byte> jpeg = image_fixtures::read("small.jpg");
        const Image expected = decode_image(jpeg, "picture");
        jpeg.insert(jpeg.end() - 2, 7, std::byte{0});   // padding before the end marker
        jpeg.insert(jpeg.end(), 100, std::byte{0x41});  // and after it
        CHECK(decode_image(jpeg, "picture") == expected);

        std::vector<std::byte> damaged = image_fixtures::read("small.jpg");
        damaged.resize(damaged.size() - 60);
        CHECK_THAT(error_of(damaged), Contains("picture: damaged JPEG: Premature end of JPEG file"));

        std::vector<std::byte> png = image_fixtures::read("palette_short.png");
        const Image dots = decode_image(png, "picture");
        decode_image(image_fixtures::read("grey8_excess.png"), "picture");  // (libpng warns of too much data)
        png.insert(png.end(), 100, std::byte{0x41});
        CHECK(decode_image(png, "picture") == dots);
        png.resize(png.size() - 130);
        CHECK_THAT(error_of(png), Contains("picture: damaged PNG: the file ends too early"));
        png = image_fixtures::read("rgb8.png");
        png[60] ^= std::byte{1};  // of a text before the pixels
        CHECK_THAT(error_of(png), Contains("CRC error"));
    });
    CHECK(printed.empty());
}

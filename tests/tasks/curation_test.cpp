// Copies, likenesses and outliers, on pictures and rows made by hand.
#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/images/resize.hpp>
#include <tandem/images/transform.hpp>
#include <tandem/tasks/curation.hpp>

namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

/// Some discs of many colours on white.
td::Image discs(std::uint64_t seed, int width = 300, int height = 220) {
    td::Random random{td::Seed{seed}};
    td::Image image{.width = width, .height = height, .pixels = std::vector<std::uint8_t>(static_cast<std::size_t>(3 * width * height), 255)};
    for (int disc = 0; disc < 9; ++disc) {
        const double x = random.uniform(0, width), y = random.uniform(0, height), radius = random.uniform(15, 60);
        const std::uint8_t colour[3] = {static_cast<std::uint8_t>(random.below(256)), static_cast<std::uint8_t>(random.below(256)), static_cast<std::uint8_t>(random.below(256))};
        for (int i = 0; i < width * height; ++i) {
            const double across = i % width - x, down = i / width - y;
            if (across * across + down * down < radius * radius) std::copy_n(colour, 3, image.pixels.begin() + 3 * i);
        }
    }
    return image;
}

double alike(const td::Image& a, const td::Image& b) { return td::same_picture(td::signature_of(a), td::signature_of(b)); }

std::vector<float> circle(const std::vector<double>& degrees) {
    std::vector<float> rows;
    for (const double angle : degrees) {
        rows.push_back(static_cast<float>(std::cos(angle * std::numbers::pi / 180)));
        rows.push_back(static_cast<float>(std::sin(angle * std::numbers::pi / 180)));
    }
    return rows;
}

/// What each row is like, or −1.
std::vector<int> of(const std::vector<std::optional<td::Likeness>>& found) {
    std::vector<int> places;
    for (const auto& one : found) places.push_back(one ? static_cast<int>(one->like) : -1);
    return places;
}

}  // namespace

TEST_CASE("a copy in another size, or with its edges cut off, is the same picture") {
    for (std::uint64_t seed = 0; seed < 12; ++seed) {
        const td::Image picture = discs(seed);
        CHECK(alike(picture, picture) == Approx(1).margin(1e-6));
        CHECK(alike(picture, td::resize(picture, 150, 110, td::Filter::bicubic)) >= td::same_picture_score);
        CHECK(alike(picture, td::resize(picture, 400, 400, td::Filter::bicubic)) >= td::same_picture_score);
        const td::Image part = td::crop(picture, {18, 11, 264, 198});
        CHECK(alike(picture, part) >= td::same_picture_score);
        CHECK(alike(part, picture) == alike(picture, part));
        CHECK(alike(td::crop(picture, {0, 0, 270, 220}), td::crop(picture, {30, 0, 270, 220})) < 1);
    }
}

TEST_CASE("another picture, another colour and a half are none") {
    for (std::uint64_t seed = 0; seed < 12; ++seed) {
        const td::Image picture = discs(seed);
        CHECK(alike(picture, discs(seed + 100)) < td::same_picture_score);
        CHECK(alike(picture, td::flip_horizontal(picture)) < td::same_picture_score);
        CHECK(alike(picture, td::crop(picture, {0, 0, 150, 220})) < td::same_picture_score);
        td::Image changed = picture;
        for (std::size_t i = 0; i < changed.pixels.size(); i += 3) std::swap(changed.pixels[i], changed.pixels[i + 2]);
        CHECK(alike(picture, changed) < td::same_picture_score);
    }
    // One disc more in an otherwise equal picture.
    td::Image more = discs(3);
    for (int i = 0; i < more.width * more.height; ++i) {
        const double across = i % more.width - 150, down = i / more.width - 110;
        if (across * across + down * down < 900) std::fill_n(more.pixels.begin() + 3 * i, 3, std::uint8_t{0});
    }
    CHECK(alike(discs(3), more) < td::same_picture_score);
    // A disc of another colour that is as light.
    const auto with_disc = [](const std::array<std::uint8_t, 3>& colour) {
        td::Image image = discs(5);
        for (int i = 0; i < image.width * image.height; ++i) {
            const double across = i % image.width - 150, down = i / image.width - 110;
            if (across * across + down * down < 1600) std::ranges::copy(colour, image.pixels.begin() + 3 * i);
        }
        return image;
    };
    CHECK(alike(with_disc({128, 128, 128}), with_disc({128, 128, 128})) == Approx(1).margin(1e-6));
    CHECK(alike(with_disc({128, 128, 128}), with_disc({200, 108, 40})) == 0);
    const td::Image white{.width = 4, .height = 3, .pixels = std::vector<std::uint8_t>(36, 255)};
    CHECK(alike(white, td::resize(white, 90, 80, td::Filter::bilinear)) == 1);
    CHECK_THROWS_WITH(td::signature_of({}), Contains("signature_of"));
}

TEST_CASE("groups stand around a representative, and do not chain") {
    const std::vector<float> rows = circle({0, 10, 20, 30, 200});
    const auto least = static_cast<float>(std::cos(12 * std::numbers::pi / 180));
    CHECK(of(td::group_alike(rows, 2, std::vector<std::size_t>{0, 1, 2, 3, 4}, least)) == std::vector<int>{-1, 0, -1, 2, -1});
    CHECK(of(td::group_alike(rows, 2, std::vector<std::size_t>{4, 1, 0, 2, 3}, least)) == std::vector<int>{1, -1, 1, -1, -1});
    CHECK_THROWS_WITH(td::group_alike(rows, 2, std::vector<std::size_t>{0, 1, 2, 3, 3}, least), Contains("every row once in the order, found row 3 twice"));
    CHECK_THROWS_WITH(td::group_alike(rows, 2, std::vector<std::size_t>{0}, least), Contains("expected 5 rows in the order, found 1"));
    CHECK_THROWS_WITH(td::group_alike(rows, 3, std::vector<std::size_t>{0}, least), Contains("rows of width 3"));
    // More rows than are compared at once: every tenth is the first of its kind.
    std::vector<double> many;
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < 300; ++i) many.push_back(static_cast<double>(i % 10) * 36), order.push_back(i);
    const std::vector<int> groups = of(td::group_alike(circle(many), 2, order, 0.99F));
    for (std::size_t i = 0; i < 300; ++i) CHECK(groups[i] == (i < 10 ? -1 : static_cast<int>(i % 10)));
}

TEST_CASE("k-means finds what lies together") {
    const std::vector<float> rows = circle({1, 2, 3, 121, 122, 123, 241, 242, 243});
    const td::Clusters found = td::spherical_k_means(rows, 2, 3, td::Seed{1});
    for (std::size_t i = 0; i < 9; ++i) {
        CHECK(found.of[i] == found.of[i / 3 * 3]);
        const double cosine = static_cast<double>(found.centres[2 * found.of[i]] * rows[2 * (i / 3 * 3 + 1)] + found.centres[2 * found.of[i] + 1] * rows[2 * (i / 3 * 3 + 1) + 1]);
        CHECK(cosine == Approx(1).margin(1e-5));
    }
    CHECK(found.sizes() == std::vector<std::size_t>{3, 3, 3});
    CHECK(td::spherical_k_means(rows, 2, 3, td::Seed{1}).of == found.of);
    CHECK(td::spherical_k_means(rows, 2, 9, td::Seed{1}).sizes() == std::vector<std::size_t>(9, 1));
    CHECK_THROWS_WITH(td::spherical_k_means(rows, 2, 10, td::Seed{1}), Contains("expected 1 to 9 clusters, found 10"));
}

TEST_CASE("of near duplicates in a cluster the farthest from its centre stays") {
    const std::vector<float> rows = circle({0, 2, 4, 30, 180});
    td::Clusters clusters{.centres = circle({-10, 180}), .of = {0, 0, 0, 0, 1}};
    // From the centre at −10: 30, then 4, 2, 0. Within 3 degrees: 2 goes for 4, 0 for 2.
    const double epsilon = 1 - std::cos(3 * std::numbers::pi / 180);
    CHECK(of(td::semantic_duplicates(rows, 2, clusters, epsilon)) == std::vector<int>{1, 2, -1, -1, -1});
    clusters.of = {0, 1, 0, 0, 1};
    CHECK(of(td::semantic_duplicates(rows, 2, clusters, epsilon)) == std::vector<int>{-1, -1, -1, -1, -1});
    CHECK_THROWS_WITH(td::semantic_duplicates(rows, 2, {.centres = {1, 0}, .of = {0}}, 0.1), Contains("clusters of 5 rows, found 1"));
}

TEST_CASE("what is far from all others is told by its neighbours") {
    const std::vector<float> rows = circle({0, 1, 2, 3, 4, 5, 120});
    const std::vector<double> near = td::nearness(rows, 2, 2);
    const auto cosine = [](double degrees) { return std::cos(degrees * std::numbers::pi / 180); };
    CHECK(near[0] == Approx((cosine(1) + cosine(2)) / 2));
    CHECK(near[6] == Approx((cosine(115) + cosine(116)) / 2).margin(1e-6));
    CHECK(td::robust_scores(near)[6] < -100);
    CHECK(td::robust_scores(std::vector<double>{1, 2, 3, 4, 100})[4] == Approx((100 - 3) / 1.4826));
    CHECK(td::robust_scores(std::vector<double>{5, 5, 5}) == std::vector<double>{0, 0, 0});
    CHECK(td::robust_scores({}).empty());
    CHECK_THROWS_WITH(td::nearness(circle({0}), 2), Contains("2 rows or more"));
}

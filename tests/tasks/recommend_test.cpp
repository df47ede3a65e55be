// Recommendations by hand, in two dimensions and a few more.
#include <catch2/catch.hpp>

#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/tasks/recommend.hpp>

namespace td = tandem;

namespace {

/// Rows on a circle, by degrees.
td::Index circle(const std::vector<double>& degrees) {
    td::Index index(2);
    for (const double angle : degrees) {
        const double at = angle * std::numbers::pi / 180;
        index.add(std::vector<float>{static_cast<float>(std::cos(at)), static_cast<float>(std::sin(at))});
    }
    return index;
}

std::vector<std::size_t> places(const std::vector<td::Match>& matches) {
    std::vector<std::size_t> found;
    for (const td::Match& match : matches) found.push_back(match.position);
    return found;
}

}  // namespace

TEST_CASE("the nearest come first, without the history and what is the same") {
    const td::Index index = circle({0, 1, 30, 31, 60, 90, 180});
    const std::vector<std::size_t> liked{0};
    // Row 1 is the same as what was liked, of rows 2 and 3 one is enough.
    CHECK(places(td::recommend(index, liked, {}, {.count = 3, .diversity = 0})) == std::vector<std::size_t>{2, 4, 5});
    CHECK(places(td::recommend(index, liked, {}, {.count = 9, .diversity = 0, .same = 2})) == std::vector<std::size_t>{1, 2, 3, 4, 5, 6});
    const std::vector<std::uint64_t> allowed{0b1110000};
    CHECK(places(td::recommend(index, liked, {}, {.count = 2, .diversity = 0, .allowed = allowed})) == std::vector<std::size_t>{4, 5});
}

TEST_CASE("a history weighs what came last most, and takes away what was disliked") {
    const td::Index index = circle({0, 90, 20, 70, -45});
    const std::vector<std::size_t> liked{0, 1}, disliked{1};
    const td::RecommendOptions nearest{.count = 1, .diversity = 0};
    td::RecommendOptions recent = nearest;
    recent.half_life = 0.5;
    CHECK(places(td::recommend(index, liked, {}, recent)) == std::vector<std::size_t>{3});
    const std::vector<std::size_t> other_way{1, 0};
    CHECK(places(td::recommend(index, other_way, {}, recent)) == std::vector<std::size_t>{2});
    const std::vector<std::size_t> first{0};
    CHECK(places(td::recommend(index, first, {}, nearest)) == std::vector<std::size_t>{2});
    // Away from row 1, at 90 degrees: the mean is at -14.
    const auto away = td::recommend(index, first, disliked, {.count = 2, .diversity = 0});
    CHECK(away[0].position == 4);
    CHECK(away[0].score == Approx(std::cos((45 - 14.0362) * std::numbers::pi / 180)));
}

TEST_CASE("diversity takes the other side") {
    const td::Index index = circle({0, 20, 35, -40, 180});
    const std::vector<td::Match> matches{{1, 0.94F}, {2, 0.82F}, {3, 0.77F}, {4, -1.0F}};
    CHECK(places(td::diversify(index, matches, 3, 0, 2)) == std::vector<std::size_t>{1, 2, 3});
    CHECK(places(td::diversify(index, matches, 2, 0.5, 2)) == std::vector<std::size_t>{1, 3});
    CHECK(places(td::diversify(index, matches, 9, 0.5, 2)).size() == 4);
    CHECK(td::diversify(index, {}, 3, 0.5, 2).empty());
    const std::vector<td::Match> opposite{{0, 1}, {4, 1}};
    CHECK(td::diversity_of(index, opposite) == Approx(2));
    CHECK(td::diversity_of(index, std::span(opposite).first(1)) == 0);
    CHECK(td::diversity_of(index, {}) == 0);
}

TEST_CASE("what cannot be recommended for is refused") {
    const td::Index index = circle({0, 180});
    const std::vector<std::size_t> both{0, 1}, beyond{2};
    CHECK_THROWS_WITH(td::recommend(index, {}), "recommend: expected something that was liked, found nothing");
    CHECK_THROWS_WITH(td::recommend(index, beyond), "Index::row: expected a position below 2, found 2");
    CHECK_THROWS_WITH(td::recommend(index, both), Catch::Contains("terms that cancel each other"));
}

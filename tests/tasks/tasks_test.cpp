// Scores by hand: zero-shot with unequal classes, recall with ties.
#include <catch2/catch.hpp>

#include <limits>

#include <tandem/tasks/retrieval.hpp>
#include <tandem/tasks/zero_shot.hpp>

namespace td = tandem;
using Matrix = td::Tensor<float, td::Shape<td::dynamic, td::dynamic>>;

TEST_CASE("zero-shot: top-1 counts images, macro counts classes that have any") {
    Matrix cosines(4, 3);
    cosines(0, 0) = 1, cosines(1, 0) = 1, cosines(2, 1) = 1, cosines(3, 1) = 1;
    const std::vector<std::size_t> labels{0, 0, 0, 1};
    const td::ZeroShotScore score = td::score_zero_shot(cosines, labels);
    CHECK(score.top1 == Approx(0.75));
    CHECK(score.macro == Approx((2.0 / 3 + 1) / 2));
    CHECK(score.predicted == std::vector<std::size_t>{0, 0, 1, 1});
    CHECK_THROWS_WITH(td::score_zero_shot(cosines, std::vector<std::size_t>{0}), "score_zero_shot: expected 4 labels, found 1");
}

TEST_CASE("recall: the match must be among the k best, ties are broken at random") {
    Matrix scores(3, 3);
    scores(0, 0) = 3, scores(0, 1) = 2;
    scores(1, 0) = 3, scores(1, 1) = 2, scores(1, 2) = 1;
    scores(2, 0) = 3, scores(2, 1) = 1, scores(2, 2) = 1;
    CHECK(td::recall_at(scores, 1) == Approx(1.0 / 3));
    CHECK(td::recall_at(scores, 2) == Approx((1 + 1 + 0.5) / 3));
    CHECK(td::recall_at(scores, 3) == Approx(1.0));
    const Matrix same(10, 10);
    CHECK(td::recall_at(same, 5) == Approx(0.5));
    CHECK(td::recall_at(same, 10) == Approx(1.0));
    Matrix broken(2, 2);
    broken.fill(std::numeric_limits<float>::quiet_NaN());
    CHECK(td::recall_at(broken, 0) == 0.0);
    // Several matches: any will do; of four equal items two are right, so the first place is right in half of the cases, two places in 5 of 6.
    const std::vector<std::size_t> first{0, 2}, ends{0, 3};
    const auto any = [](const std::vector<std::size_t>& matches) { return [&](std::size_t) { return td::Matches(matches); }; };
    td::Tensor<float, td::Shape<td::dynamic, td::dynamic>> row(1, 4);
    row.fill(1);
    CHECK(td::recall_at_any(row, 1, any(ends)) == Approx(0.5));
    CHECK(td::recall_at_any(row, 2, any(ends)) == Approx(5.0 / 6));
    CHECK(td::recall_at_any(row, 3, any(ends)) == 1.0);
    row(0, 0) = 0, row(0, 1) = 3, row(0, 2) = 2;
    CHECK(td::recall_at_any(row, 1, any(first)) == 0.0);
    CHECK(td::recall_at_any(row, 2, any(first)) == 1.0);
    CHECK_THROWS_WITH(td::recall_at_any(row, 2, any({})), "recall_at_any: expected a match for every query, found none for query 0");
}

TEST_CASE("best matches come best first") {
    const std::vector<float> scores{1, 4, 4, 2};
    CHECK(td::best_matches<float>(scores, 3) == std::vector<std::size_t>{1, 2, 3});
    CHECK(td::best_matches<float>(scores, 9).size() == 4);
}

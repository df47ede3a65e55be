// Curves that are known beforehand are found again; scores by hand.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/random.hpp>
#include <tandem/tasks/relevance.hpp>

namespace td = tandem;

namespace {

struct Labelled {
    std::vector<double> scores;
    std::vector<std::uint8_t> positive;
};

/// Labels drawn with the probabilities that a curve gives.
Labelled drawn(std::size_t count, std::uint64_t seed, const auto& curve) {
    td::Random random(td::Seed{seed});
    Labelled labelled;
    for (std::size_t i = 0; i < count; ++i) {
        labelled.scores.push_back(2 * random.normal());
        labelled.positive.push_back(random.uniform(0, 1) < curve(labelled.scores.back()) ? 1 : 0);
    }
    return labelled;
}

std::vector<double> promised(const Labelled& labelled, const auto& curve) {
    std::vector<double> probabilities;
    for (const double score : labelled.scores) probabilities.push_back(curve(score));
    return probabilities;
}

}  // namespace

TEST_CASE("a query's products have mean 0 and deviation 1 over its background") {
    const std::vector<float> query{1, 2}, background{1, 0, 0, 1, 2, 0, 3, -1};  // products 1, 2, 2, 1
    const td::Standard standard = td::standardise(query, background);
    CHECK(standard.mean == Approx(1.5));
    CHECK(standard.deviation == Approx(0.5));
    CHECK(standard(2.5) == Approx(2));
    CHECK(td::standardise(query, std::vector<float>{1, 1}).deviation == 1);
    CHECK_THROWS_WITH(td::standardise(query, {}), "standardise: expected rows of the query's width 2, found 0 elements");
    CHECK_THROWS_AS(td::standardise(query, std::vector<float>(3)), td::Error);
}

TEST_CASE("Platt's fit finds the curve that drew the labels, whatever the scores' unit") {
    const td::Logistic truth{{1.5}, -2};
    const Labelled labelled = drawn(200'000, 1, truth);
    const td::Logistic curve = td::fit_logistic(labelled.scores, labelled.positive);
    REQUIRE(curve.slopes.size() == 1);
    CHECK(curve.slopes[0] == Approx(1.5).epsilon(0.02));
    CHECK(curve.offset == Approx(-2).epsilon(0.02));
    std::vector<double> shifted;
    for (const double score : labelled.scores) shifted.push_back(0.2 + 0.01 * score);
    const td::Logistic other = td::fit_logistic(shifted, labelled.positive);
    CHECK(other(0.2 + 0.01) == Approx(curve(1)).epsilon(1e-6));
    const std::vector<double> few{0, 1};
    const std::vector<std::uint8_t> both{0, 1}, one{1, 1};
    const td::Logistic apart = td::fit_logistic(few, both);  // separable: the smoothed targets keep it finite
    CHECK(apart(0) == Approx(1.0 / 3));
    CHECK(apart(1) == Approx(2.0 / 3));
    CHECK_THROWS_WITH(td::fit_logistic(few, one),
                      "fit_logistic: expected positives and negatives to tell apart, found 2 positives of 2");
    CHECK_THROWS_WITH(td::fit_logistic(few, std::vector<std::uint8_t>{1, 0, 1}),
                      "fit_logistic: expected as many features for each of 3 labels, found 2 numbers");
    CHECK_THROWS_WITH(td::Logistic{}(few), "Logistic: expected 1 features, found 2");
    CHECK(td::Logistic{}(-1e6) == 0);
    CHECK(td::Logistic{}(1e6) == 1);
}

TEST_CASE("a logistic regression finds the features that count") {
    td::Random random(td::Seed{4});
    constexpr std::size_t count = 50'000;
    std::vector<double> features;
    std::vector<std::uint8_t> positive;
    const td::Logistic truth{{2, -1, 0, 0}, 0.5};
    for (std::size_t i = 0; i < count; ++i) {
        const std::vector<double> row{random.normal(), 3 * random.normal(), random.normal(), 7};
        positive.push_back(random.uniform(0, 1) < truth(row) ? 1 : 0);
        features.insert(features.end(), row.begin(), row.end());
    }
    const td::Logistic found = td::fit_logistic(features, positive);
    REQUIRE(found.slopes.size() == 4);
    CHECK(found.slopes[0] == Approx(2).epsilon(0.05));
    CHECK(found.slopes[1] == Approx(-1).epsilon(0.05));
    CHECK(std::abs(found.slopes[2]) < 0.05);
    CHECK(found.slopes[3] == 0);  // a feature that never changes tells nothing
    CHECK(found.offset == Approx(0.5).margin(0.05));
    CHECK(std::abs(td::fit_logistic(features, positive, 10).slopes[0]) < 0.1);
}

TEST_CASE("isotonic steps rise, and are the means of what they pool") {
    const td::Isotonic curve(std::vector<double>{1, 2, 3, 4, 5, 5}, std::vector<std::uint8_t>{0, 1, 0, 1, 1, 0});
    CHECK(curve(0) == 0);
    CHECK(curve(1) == 0);
    CHECK(curve(1.5) == Approx(0.25));
    CHECK(curve(2) == Approx(0.5));
    CHECK(curve(3) == Approx(0.5));
    CHECK(curve(5) == Approx(2.0 / 3));
    CHECK(curve(9) == Approx(2.0 / 3));
    double before = -1;
    for (double score = 0; score < 6; score += 0.01) {
        CHECK(curve(score) >= before);
        before = curve(score);
    }
}

TEST_CASE("the calibration error is that of the promise, and a fit brings it down") {
    const std::vector<double> sure{0.0, 0.0, 1.0, 1.0};
    CHECK(td::expected_calibration_error(sure, std::vector<std::uint8_t>{0, 0, 1, 1}) == 0);
    CHECK(td::expected_calibration_error(sure, std::vector<std::uint8_t>{1, 1, 0, 0}) == 1);
    CHECK(td::expected_calibration_error(std::vector<double>(4, 0.5), std::vector<std::uint8_t>{0, 1, 0, 1}, 2) == 0);
    const auto bent = [](double score) { return std::clamp(0.3 + 0.2 * std::floor(score), 0.0, 1.0); };
    const Labelled first = drawn(20'000, 2, bent), second = drawn(20'000, 3, bent);
    const auto error = [&](const auto& curve) {
        return td::expected_calibration_error(promised(second, curve), second.positive);
    };
    const td::Logistic wrong{}, platt = td::fit_logistic(first.scores, first.positive);
    const td::Isotonic steps(first.scores, first.positive);
    CHECK(error(platt) < error(wrong) / 2);
    CHECK(error(steps) < error(platt));
    CHECK(error(steps) < 0.02);
}

TEST_CASE("F1 by hand") {
    CHECK(td::f1_score(0, 5, 5) == 0);
    CHECK(td::f1_score(2, 4, 2) == Approx(2.0 / 3));
    CHECK(td::f1_score(3, 3, 3) == 1);
}

// Linear probes: the optimum is PyTorch's, slopes are central differences, the sweep finds what was best.
#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include <tbb/global_control.h>

#include <tandem/core/random.hpp>
#include <tandem/tasks/linear_probe.hpp>

namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

/// The rows of make_probe_goldens.py.
struct Problem {
    static constexpr std::size_t count = 90, width = 7, classes = 5;
    std::vector<float> rows;
    std::vector<std::size_t> labels;

    Problem() {
        for (std::size_t i = 0; i < count; ++i) {
            for (std::size_t j = 0; j < width; ++j) rows.push_back(static_cast<float>(static_cast<double>((i * 7919 + j * 104729 + i * j * 31) % 2003) / 1001.5 - 1));
            labels.push_back(i * 7919 % 101 % classes);
        }
    }
    td::LabelledRows known() const { return {rows, labels, width, classes}; }
};

struct Golden {
    double strength, objective;
    std::array<double, 5> shares;  ///< of row 17
};

constexpr std::array goldens{
    Golden{0.01, 144.572851462, {0.2026897, 0.2027855, 0.2071642, 0.1956901, 0.1916705}},
    Golden{1.0, 141.183127808, {0.2477867, 0.2249372, 0.1613792, 0.1383847, 0.2275121}},
    Golden{100.0, 140.447379841, {0.2612255, 0.2243694, 0.1533507, 0.1288903, 0.2321641}},
};

}  // namespace

TEST_CASE("a probe's optimum is PyTorch's") {
    const Problem problem;
    for (const Golden& golden : goldens) {
        INFO(golden.strength);
        const td::LinearProbe probe = td::LinearProbe::fit(problem.known(), golden.strength);
        CHECK(probe.objective(problem.known()) == Approx(golden.objective).epsilon(1e-8));
        const auto scores = probe.scores(problem.rows);
        double sum = 0;
        for (std::size_t c = 0; c < 5; ++c) sum += std::exp(static_cast<double>(scores(17, c)));
        for (std::size_t c = 0; c < 5; ++c) CHECK(std::exp(static_cast<double>(scores(17, c))) / sum == Approx(golden.shares[c]).margin(2e-5));
        // From there, and on other threads, it stays where it is.
        const tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
        CHECK(td::LinearProbe::fit(problem.known(), golden.strength).scores(problem.rows)(17, 3) == scores(17, 3));
        CHECK(td::LinearProbe::fit(problem.known(), golden.strength, &probe).objective(problem.known()) == Approx(golden.objective).epsilon(1e-8));
    }
}

TEST_CASE("a probe's slopes are those of what it minimises, and vanish at its optimum") {
    const Problem problem;
    constexpr double strength = 0.7;
    const td::LinearProbe fitted = td::LinearProbe::fit(problem.known(), strength);
    std::vector<double> slopes((Problem::width + 1) * Problem::classes);
    fitted.objective(problem.known(), slopes);
    for (const double slope : slopes) CHECK(std::abs(slope) < 1e-3);
    // Of a part of the rows they do not vanish; what the objective loses along them is their square.
    const td::LabelledRows part{std::span(problem.rows).first(40 * Problem::width), std::span(problem.labels).first(40), Problem::width, Problem::classes};
    const double value = fitted.objective(part, slopes);
    const auto at = [&](std::size_t parameter, double step) {
        std::vector<double> weights(fitted.weights().begin(), fitted.weights().end());
        weights[parameter] += step;
        return td::LinearProbe(Problem::width, Problem::classes, strength, weights).objective(part);
    };
    CHECK(std::isfinite(value));
    for (std::size_t i = 0; i < slopes.size(); ++i) CHECK((at(i, 1e-5) - at(i, -1e-5)) / 2e-5 == Approx(slopes[i]).epsilon(1e-6).margin(1e-7));
}

TEST_CASE("more rows than are in memory at a time") {
    constexpr std::size_t width = 3, count = 8192 * 2 + 5;
    td::Random random(td::Seed{3});
    std::vector<float> rows;
    std::vector<std::size_t> labels;
    for (std::size_t i = 0; i < count; ++i) {
        labels.push_back(i % 3);
        for (std::size_t j = 0; j < width; ++j) rows.push_back(static_cast<float>(random.normal() * 0.3 + (j == i % 3 ? 1 : 0)));
    }
    const td::LabelledRows known{rows, labels, width, 3};
    const td::LinearProbe probe = td::LinearProbe::fit(known, 1);
    CHECK(td::score_zero_shot(probe.scores(rows), std::span<const std::size_t>(labels)).top1 > 0.95);
    const td::LinearProbe first = td::LinearProbe::fit({std::span(rows).first(3 * width), std::span(labels).first(3), width, 3}, 1);
    CHECK(first.scores(rows)(count - 1, 0) == first.scores(std::span(rows).last(width))(0, 0));
}

TEST_CASE("the sweep tries seven strengths and the middles beside the best, and gives the best first") {
    const Problem problem;
    const td::LabelledRows half{std::span(problem.rows).first(60 * Problem::width), std::span(problem.labels).first(60), Problem::width, Problem::classes};
    const td::LabelledRows rest{std::span(problem.rows).subspan(60 * Problem::width), std::span(problem.labels).subspan(60), Problem::width, Problem::classes};
    const auto tried = td::sweep_strength(half, rest);
    CHECK(tried.size() >= 7 + 4);
    CHECK(tried.size() <= 7 + 8);
    for (const td::StrengthTried& one : tried) {
        CHECK(one.accuracy <= tried[0].accuracy);
        CHECK(one.strength >= 0.99e-6);
        CHECK(one.strength <= 1.01e6);
        CHECK(td::score_zero_shot(td::LinearProbe::fit(half, one.strength).scores(rest.rows), rest.labels).top1 == Approx(one.accuracy).margin(0.04));
    }
}

TEST_CASE("what no probe can be fitted to is refused") {
    const Problem problem;
    std::vector<std::size_t> labels = problem.labels;
    labels[3] = 5;
    CHECK_THROWS_WITH(td::LinearProbe::fit({problem.rows, labels, 7, 5}, 1), "LinearProbe::fit: expected labels below 5, found 5");
    CHECK_THROWS_WITH(td::LinearProbe::fit({problem.rows, problem.labels, 6, 5}, 1), Contains("a label for every row of 6"));
    CHECK_THROWS_WITH(td::LinearProbe::fit(problem.known(), 0), Contains("a strength above 0"));
    CHECK_THROWS_WITH(td::LinearProbe::fit({{}, {}, 7, 5}, 1), Contains("rows of two classes or more"));
    std::vector<float> rows = problem.rows;
    rows[9] = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS_WITH(td::LinearProbe::fit({rows, problem.labels, 7, 5}, 1), Contains("finite rows"));
    CHECK_THROWS_WITH(td::LinearProbe(7, 5, 1, std::vector<double>(3)), "LinearProbe: expected 40 weights, found 3");
    CHECK_THROWS_WITH(td::LinearProbe::fit(problem.known(), 1).scores(std::vector<float>(8)), Contains("whole rows of 7"));
}

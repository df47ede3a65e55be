// Schedules: open_clip's rates at every step, and the nearest to them in runs that time bounds.
#include <catch2/catch.hpp>

#include <cmath>
#include <fstream>
#include <sstream>
#include <string>

#include <tandem/train/schedule.hpp>

namespace td = tandem;

TEST_CASE("the rates of a run bound in steps are open_clip's at every step") {
    std::ifstream file(TANDEM_TEST_DATA "/train/fixtures/cosine_lr.txt");
    std::size_t runs = 0, compared = 0;
    for (std::string line; std::getline(file, line); ++runs) {
        std::istringstream numbers(line);
        std::size_t steps = 0, warmup = 0;
        numbers >> steps >> warmup;
        const td::WarmupCosine schedule{.warmup = static_cast<double>(warmup) / static_cast<double>(steps)};
        for (std::size_t step = 0; step < steps; ++step, ++compared) {
            double expected = -1;
            numbers >> expected;
            const double begin = static_cast<double>(step) / static_cast<double>(steps);
            INFO(steps << " steps, warm-up " << warmup << ", step " << step);
            // The same operations: only the last bit of a C library's cosine may differ, beside which 1 is added.
            CHECK(std::abs(schedule.at({.step = step, .steps = steps, .begin = begin}) - expected) <= 0x1.0p-53);
        }
    }
    CHECK(runs == 11);
    CHECK(compared == 374);
}

TEST_CASE("constant rates, with and without a cooldown, are open_clip's at every step") {
    std::ifstream file(TANDEM_TEST_DATA "/train/fixtures/const_lr.txt");
    std::size_t runs = 0, compared = 0;
    for (std::string line; std::getline(file, line); ++runs) {
        std::istringstream numbers(line);
        std::size_t steps = 0;
        double warmup = 0, cooldown = 0, power = 0, end = 0;
        numbers >> steps >> warmup >> cooldown >> power >> end;
        const double all = static_cast<double>(steps);
        const td::WarmupConstant schedule{.warmup = warmup / all, .cooldown = cooldown / all, .floor = end, .power = power};
        for (std::size_t step = 0; step < steps; ++step, ++compared) {
            double expected = -1;
            numbers >> expected;
            INFO(line.substr(0, 20) << ", step " << step);
            // Only the last bit of a C library's power may differ.
            CHECK(std::abs(schedule.at({.step = step, .steps = steps, .begin = static_cast<double>(step) / all}) - expected) <= 0x1.0p-52);
        }
    }
    CHECK(runs == 10);
    CHECK(compared == 191);
    const td::WarmupConstant curve{.warmup = 0.2, .cooldown = 0.4, .floor = 0.1};
    CHECK(curve(0.1) == Approx(0.5));
    CHECK(curve(0.5) == 1.0);
    CHECK(curve(0.8) == Approx(0.55));
    CHECK(curve(1.5) == Approx(0.1));
    CHECK(curve.at({.begin = 0, .end = 0.002}) == Approx(0.01));
    CHECK(curve.at({.begin = 0.8, .end = 0.81}) == Approx(0.55));
    CHECK_THROWS_WITH((td::WarmupConstant{.cooldown = 1.1}.check()), Catch::Contains("WarmupConstant.cooldown"));
    CHECK_THROWS_WITH((td::WarmupConstant{.power = 0}.check()), Catch::Contains("above 0"));
}

TEST_CASE("a run bound by time warms up by the time that has passed, and its first rate is not 0") {
    const td::WarmupCosine schedule{.warmup = 0.1, .floor = 0.2};
    CHECK(schedule.at({.begin = 0, .end = 0.001}) == Approx(0.01));
    CHECK(schedule.at({.step = 5, .begin = 0.05, .end = 0.06}) == Approx(0.6));
    CHECK(schedule.at({.step = 9, .begin = 0.099, .end = 0.2}) == 1.0);
    CHECK(schedule.at({.step = 10, .begin = 0.55, .end = 0.56}) == Approx(0.6));
    CHECK(schedule.at({.step = 10, .begin = 1.0, .end = 1.0}) == Approx(0.2));
}

TEST_CASE("the continuous curve: warm-up is linear, the cosine ends at its floor") {
    const td::WarmupCosine schedule{.warmup = 0.2, .floor = 0.1};
    CHECK(schedule(0.0) == 0.0);
    CHECK(schedule(0.1) == Approx(0.5));
    CHECK(schedule(0.2) == Approx(1.0));
    CHECK(schedule(0.6) == Approx(0.55));
    CHECK(schedule(1.0) == Approx(0.1));
    CHECK(schedule(1.5) == Approx(0.1));
}

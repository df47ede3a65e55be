#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <set>
#include <vector>

#include <tandem/core/random.hpp>

using tandem::Random;
using tandem::Seed;

TEST_CASE("a seed and a stream name one sequence for ever", "[core]") {
    // Computed from the definition of SplitMix64 by another program: a change would change every trained model.
    Random zero(Seed{0}), one(Seed{1}), stream(Seed{0}, 1);
    CHECK(zero.next() == 0x9c8cb388e19b65a9);
    CHECK(zero.next() == 0x048b0b3c0e65e1c9);
    CHECK(zero.next() == 0x94d9f504fcd2e244);
    CHECK(one.next() == 0x108c40ea43b9a2d8);
    CHECK(stream.next() == 0xa20d2ac2c41c51ea);
    Random seven(Seed{7});
    const std::array<std::size_t, 8> expected{2, 7, 1, 8, 1, 5, 0, 9};
    for (const std::size_t value : expected) CHECK(seven.below(10) == value);
    Random uniform(Seed{7});
    CHECK(uniform.uniform() == 0.24850628130764296);
    CHECK(uniform.uniform() == 0.7850955265566467);
    std::array<int, 8> order{0, 1, 2, 3, 4, 5, 6, 7};
    Random shuffler(Seed{7});
    shuffle(order, shuffler);
    CHECK(order == std::array<int, 8>{2, 3, 6, 0, 4, 7, 5, 1});
    static_assert(Random(Seed{0}).next() == 0x9c8cb388e19b65a9);
}

TEST_CASE("neighbouring seeds and streams start apart", "[core]") {
    std::set<std::uint64_t> first;
    for (std::uint64_t seed = 0; seed < 100; ++seed) {
        for (std::uint64_t stream = 0; stream < 100; ++stream) first.insert(Random(Seed{seed}, stream).next());
    }
    CHECK(first.size() == 10'000);
}

TEST_CASE("a sequence goes on from its state", "[core]") {
    Random random(Seed{3});
    for (int i = 0; i < 10; ++i) random.next();
    Random resumed(Seed{99});
    resumed.set_state(random.state());
    for (int i = 0; i < 10; ++i) CHECK(resumed.next() == random.next());
}

TEST_CASE("uniform numbers fill their range evenly", "[core]") {
    Random random(Seed{4});
    constexpr int count = 100'000;
    std::array<int, 10> bins{};
    for (int i = 0; i < count; ++i) {
        const double value = random.uniform();
        REQUIRE((value >= 0 && value < 1));
        ++bins[static_cast<std::size_t>(value * 10)];
    }
    // A bin's count has standard deviation 95; five of them is one failure in a million seeds, and the seed is fixed.
    for (const int bin : bins) CHECK(std::abs(bin - count / 10) < 475);
    for (int i = 0; i < 1000; ++i) {
        const double value = random.uniform(-3, 5);
        REQUIRE((value >= -3 && value < 5));
    }
}

TEST_CASE("below() gives every number of its range", "[core]") {
    Random random(Seed{5});
    for (const std::size_t count : {std::size_t{1}, std::size_t{2}, std::size_t{7}}) {
        std::vector<int> bins(count);
        for (int i = 0; i < 7000; ++i) {
            const std::size_t value = random.below(count);
            REQUIRE(value < count);
            ++bins[value];
        }
        const int expected = 7000 / static_cast<int>(count);
        for (const int bin : bins) CHECK(std::abs(bin - expected) < 250);
    }
    const std::size_t most = static_cast<std::size_t>(-1);
    CHECK(random.below(most) < most);
}

TEST_CASE("normal numbers have mean 0, deviation 1 and the tails of a normal distribution", "[core]") {
    Random random(Seed{6});
    constexpr int count = 100'000;
    double sum = 0, squares = 0;
    int beyond_two = 0;
    for (int i = 0; i < count; ++i) {
        const double value = random.normal();
        REQUIRE(std::isfinite(value));
        sum += value;
        squares += value * value;
        beyond_two += std::abs(value) > 2;
    }
    CHECK(std::abs(sum / count) < 0.02);
    CHECK(std::abs(squares / count - 1) < 0.03);
    CHECK(beyond_two / static_cast<double>(count) == Approx(0.0455).margin(0.004));
}

TEST_CASE("a shuffle keeps every element and depends on the seed", "[core]") {
    std::vector<int> order(100);
    std::iota(order.begin(), order.end(), 0);
    const std::vector<int> sorted = order;
    Random random(Seed{8});
    shuffle(order, random);
    CHECK(order != sorted);
    const std::vector<int> first = order;
    shuffle(order, random);
    CHECK(order != first);
    std::sort(order.begin(), order.end());
    CHECK(order == sorted);
    std::vector<int> none, single{5};
    shuffle(none, random);
    shuffle(single, random);
    CHECK(single[0] == 5);
}

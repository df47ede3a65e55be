#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <stdexcept>
#include <thread>
#include <vector>

#include <tandem/core/parallel.hpp>

TEST_CASE("a parallel loop does every item once", "[core]") {
    for (const std::size_t count : {0U, 1U, 2U, 7U, 64U, 1000U, 12345U}) {
        for (const std::size_t grain : {0U, 1U, 3U, 64U, 5000U}) {
            CAPTURE(count, grain);
            std::vector<std::atomic<int>> done(count);
            std::atomic<bool> in_range = true;
            tandem::parallel_for(count, grain, [&](std::size_t begin, std::size_t end) {
                if (begin >= end || end > count) in_range = false;
                for (std::size_t i = begin; i < std::min(end, count); ++i) ++done[i];
            });
            CHECK(in_range);
            CHECK(std::all_of(done.begin(), done.end(), [](const auto& times) { return times == 1; }));
        }
    }
}

TEST_CASE("a loop of no more than a grain runs in one piece on the calling thread", "[core]") {
    int calls = 0;
    tandem::parallel_for(50, 50, [&, caller = std::this_thread::get_id()](std::size_t begin, std::size_t end) {
        ++calls;
        CHECK(std::this_thread::get_id() == caller);
        CHECK(begin == 0);
        CHECK(end == 50);
    });
    CHECK(calls == 1);
}

TEST_CASE("an exception in a piece reaches the caller, and the next loop runs", "[core]") {
    const auto fail = [](std::size_t begin, std::size_t end) {
        if (begin <= 500 && 500 < end) throw std::runtime_error("item 500");
    };
    CHECK_THROWS_WITH(tandem::parallel_for(1000, 1, fail), "item 500");
    CHECK_THROWS_WITH(tandem::parallel_for(1000, 1000, fail), "item 500");
    std::atomic<std::size_t> sum = 0;
    tandem::parallel_for(1000, 1, [&](std::size_t begin, std::size_t end) { sum += end - begin; });
    CHECK(sum == 1000);
}

TEST_CASE("parallel loops nest", "[core]") {
    std::atomic<std::size_t> sum = 0;
    tandem::parallel_for(20, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            tandem::parallel_for(100, 10, [&](std::size_t first, std::size_t last) { sum += last - first; });
        }
    });
    CHECK(sum == 2000);
}

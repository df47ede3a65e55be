// The index against scoring every row, on every instruction set.
#include <catch2/catch.hpp>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <tbb/global_control.h>

#include <tandem/core/error.hpp>
#include <tandem/core/random.hpp>
#include <tandem/files/safetensors.hpp>
#include <tandem/tasks/index.hpp>

#include "../kernels/isas.hpp"

namespace td = tandem;

namespace {

using Rows = std::vector<float>;

/// Rows of length 1; a share of them close to one of a few centres.
Rows random_rows(std::size_t count, std::size_t width, std::uint64_t seed, double clustered = 0) {
    td::Random random(td::Seed{seed});
    Rows centres(8 * width), rows(count * width);
    for (float& value : centres) value = static_cast<float>(random.normal());
    for (std::size_t i = 0; i < count; ++i) {
        const bool near = random.uniform(0, 1) < clustered;
        const auto centre = static_cast<std::size_t>(random.uniform(0, 8));
        double squares = 0;
        for (std::size_t j = 0; j < width; ++j) {
            const double own = random.normal();
            const double value = near ? static_cast<double>(centres[centre * width + j]) + 0.003 * own : own;
            rows[i * width + j] = static_cast<float>(value);
            squares += value * value;
        }
        for (std::size_t j = 0; j < width; ++j) rows[i * width + j] /= static_cast<float>(std::sqrt(squares));
    }
    return rows;
}

bool is_set(std::span<const std::uint64_t> words, std::size_t i) {
    return i / 64 < words.size() && (words[i / 64] >> (i % 64) & 1U) != 0;
}

/// All rows scored in double, rounded to float, sorted.
std::vector<td::Match> brute_force(const Rows& rows, std::size_t width, std::span<const float> query, std::size_t k,
                                   const auto& allowed) {
    std::vector<td::Match> all;
    for (std::size_t i = 0; i < rows.size() / width; ++i) {
        if (!allowed(i)) continue;
        double sum = 0;
        for (std::size_t j = 0; j < width; ++j)
            sum += static_cast<double>(rows[i * width + j]) * static_cast<double>(query[j]);
        all.push_back({i, static_cast<float>(sum)});
    }
    std::ranges::sort(all, {}, [](const td::Match& match) { return std::pair(-match.score, match.position); });
    all.resize(std::min(k, all.size()));
    return all;
}

/// Whether two answers are the same but for sums in another order, which may round a score the other way.
bool is_same(const std::vector<td::Match>& found, const std::vector<td::Match>& expected) {
    return std::ranges::equal(found, expected, [](const td::Match& a, const td::Match& b) {
        return std::abs(a.score - b.score) <= std::abs(b.score) * std::numeric_limits<float>::epsilon() &&
               (a.position == b.position || a.score == std::nextafter(b.score, a.score) || a.score == b.score);
    });
}

void check_against_brute_force(const td::Index& index, const Rows& rows, const Rows& queries, std::size_t k,
                               std::span<const std::uint64_t> allowed = {},
                               std::span<const std::uint64_t> removed = {}) {
    const std::size_t width = index.width();
    const td::SearchResult result = index.search(queries, k, {.allowed = allowed});
    REQUIRE(result.matches.size() == queries.size() / width);
    std::size_t wrong = 0;
    for (std::size_t q = 0; q < result.matches.size(); ++q) {
        const auto may = [&](std::size_t i) { return (allowed.empty() || is_set(allowed, i)) && !is_set(removed, i); };
        const auto expected = brute_force(rows, width, std::span(queries).subspan(q * width, width), k, may);
        wrong += is_same(result.matches[q], expected) ? 0 : 1;
    }
    CHECK(wrong == 0);
    CHECK(result.rescored <= result.scanned);
}

}  // namespace

TEST_CASE("the answer is brute force's, at every width and size") {
    for (std::size_t width = 1; width <= 65; ++width) {
        const std::size_t count = 3 * width + 1;
        const Rows rows = random_rows(count, width, width), queries = random_rows(5, width, 1000 + width);
        td::Index index(width);
        CHECK(index.add(rows) == 0);
        for (const std::size_t k : {std::size_t{1}, std::size_t{10}, count, count + 5})
            check_against_brute_force(index, rows, queries, k);
    }
}

TEST_CASE("near and equal rows are told apart") {
    constexpr std::size_t width = 192;
    Rows rows = random_rows(5000, width, 1, 0.8);
    // Equal rows, and one of zeros.
    std::copy_n(rows.begin(), width, rows.begin() + 700 * width);
    std::copy_n(rows.begin(), width, rows.begin() + 4321 * width);
    std::fill_n(rows.begin() + 17 * width, width, 0.0F);
    td::Index index(width);
    index.add(rows);
    Rows queries = random_rows(70, width, 2, 0.5);  // more than one batch
    std::copy_n(rows.begin(), width, queries.begin());
    std::fill_n(queries.begin() + width, width, 0.0F);
    check_against_brute_force(index, rows, queries, 25);
    const auto found = index.search(std::span(rows).first(width), 3).matches[0];
    CHECK(found[0].position == 0);
    CHECK(found[1].position == 700);
    CHECK(found[2].position == 4321);
    // All scores of a query of zeros are equal: positions decide.
    const auto none = index.search(std::span(queries).subspan(width, width), 4).matches[0];
    for (std::size_t i = 0; i < none.size(); ++i) CHECK(none[i] == td::Match{i, 0.0F});
}

TEST_CASE("rows of any length are found by their product") {
    constexpr std::size_t width = 40;
    Rows rows = random_rows(900, width, 3);
    for (std::size_t i = 0; i < 900; ++i) {
        for (std::size_t j = 0; j < width; ++j) rows[i * width + j] *= std::ldexp(1.0F, static_cast<int>(i % 40) - 20);
    }
    td::Index index(width);
    index.add(rows);
    check_against_brute_force(index, rows, random_rows(8, width, 4), 12);
}

TEST_CASE("few rows are scored again") {
    constexpr std::size_t width = 512, count = 20000;
    const Rows rows = random_rows(count, width, 5), queries = random_rows(16, width, 6);
    td::Index index(width);
    index.add(rows);
    check_against_brute_force(index, rows, queries, 10);
    const td::SearchResult exact = index.search(queries, 10);
    CHECK(exact.scanned == 16 * count);
    CHECK(exact.rescored < exact.scanned / 100);
    const td::SearchResult fast = index.search(queries, 10, {.exact = false});
    std::size_t same = 0;
    for (std::size_t q = 0; q < 16; ++q) {
        for (const td::Match& match : fast.matches[q]) same += std::ranges::count(exact.matches[q], match);
    }
    CHECK(same >= 159);
}

TEST_CASE("a filter and removals leave rows out, whatever stands around them") {
    constexpr std::size_t width = 24, count = 3000;
    const Rows rows = random_rows(count, width, 7), queries = random_rows(6, width, 8);
    td::Index index(width);
    // In parts, so that blocks begin within words.
    for (std::size_t begin = 0, part = 1; begin < count; begin += part, part = part % 97 + 13) {
        const std::size_t end = std::min(begin + part, count);
        CHECK(index.add(std::span(rows).subspan(begin * width, (end - begin) * width)) == begin);
    }
    REQUIRE(index.size() == count);
    check_against_brute_force(index, rows, queries, 9);
    td::Random random(td::Seed{9});
    for (const double share : {0.0, 0.001, 0.5, 1.0}) {
        std::vector<std::uint64_t> allowed(count / 64);  // shorter than the rows: those behind it may not be found
        for (std::uint64_t& word : allowed) {
            for (int bit = 0; bit < 64; ++bit) word = word << 1 | (random.uniform(0, 1) < share ? 1U : 0U);
        }
        check_against_brute_force(index, rows, queries, 9, allowed);
    }
    std::vector<std::size_t> gone;
    std::vector<std::uint64_t> removed(count / 64 + 1);
    for (std::size_t i = 0; i < count; i += 1 + i % 5) {
        gone.push_back(i);
        removed[i / 64] |= std::uint64_t{1} << (i % 64);
    }
    gone.push_back(0);  // twice is once
    index.remove(gone);
    CHECK(index.count() == count - gone.size() + 1);
    CHECK(index.size() == count);
    check_against_brute_force(index, rows, queries, 9, {}, removed);
    CHECK(index.row(gone[1]) == Rows(rows.begin() + gone[1] * width, rows.begin() + (gone[1] + 1) * width));
}

TEST_CASE("the answer does not depend on the threads") {
    constexpr std::size_t width = 128;
    const Rows rows = random_rows(9000, width, 10, 0.5), queries = random_rows(3, width, 11);
    td::Index index(width);
    index.add(rows);
    const td::SearchResult all = index.search(queries, 50);
    for (const std::size_t threads : {1, 2, 5}) {
        const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, threads);
        const td::SearchResult some = index.search(queries, 50);
        CHECK(some.matches == all.matches);
        CHECK(some.rescored == all.rescored);
    }
}

TEST_CASE("adding, removing and searching at the same time show whole steps") {
    constexpr std::size_t width = 16, each = 7, steps = 900;
    td::Index index(width);
    Rows query(width);
    query[0] = 1;
    std::atomic<bool> done = false;
    std::thread writer([&] {
        for (std::size_t step = 0; step < steps; ++step) {
            Rows rows(each * width);
            for (std::size_t i = 0; i < each; ++i) rows[i * width] = 1;
            const std::size_t first = index.add(rows);
            if (step % 3 != 2) continue;
            std::vector<std::size_t> gone;
            for (std::size_t i = 0; i < each; ++i) gone.push_back(first + i);
            index.remove(gone);
        }
        done = true;
    });
    std::size_t torn = 0, seen = 0;
    while (!done || seen == 0) {
        const auto found = index.search(query, each * steps).matches[0];
        torn += found.size() % each == 0 && found.size() >= seen - std::min(seen, each) ? 0 : 1;
        seen = std::max(seen, found.size());
    }
    writer.join();
    CHECK(torn == 0);
    CHECK(index.count() == each * steps / 3 * 2);
}

TEST_CASE("an index comes back from its file") {
    constexpr std::size_t width = 33;
    const Rows rows = random_rows(200, width, 12), queries = random_rows(4, width, 13);
    const auto path = std::filesystem::temp_directory_path() / "tandem_index_test.safetensors";
    {
        td::Index index(width, "model a");
        index.add(rows);
        index.remove(std::vector<std::size_t>{3, 199});
        index.save(path);
    }
    td::Index index = td::Index::load(path);
    CHECK(index.count() == 198);
    std::vector<std::uint64_t> removed(4);
    removed[0] = 1U << 3;
    removed[3] = std::uint64_t{1} << (199 - 192);
    check_against_brute_force(index, rows, queries, 10, {}, removed);
    CHECK_NOTHROW(index.require("model a"));
    CHECK_THROWS_WITH(index.require("model b"), Catch::Contains("\"model b\", found \"model a\"") && Catch::Contains("embed anew"));
    td::save_safetensors(path, {}, {{"format", "another"}});
    CHECK_THROWS_WITH(td::Index::load(path), Catch::Contains(path.string()) && Catch::Contains("found format \"another\""));
    const std::vector<std::int64_t> wrong{200};
    td::save_safetensors(path,
                         std::vector{td::stored_tensor<float>("rows", {200, width}, std::span<const float>(rows)),
                                     td::stored_tensor<std::int64_t>("removed", {1}, std::span<const std::int64_t>(wrong))},
                         {{"format", "tandem index 1"}, {"fingerprint", ""}});
    CHECK_THROWS_WITH(td::Index::load(path), Catch::Contains(path.string()) && Catch::Contains("a position below 200, found 200"));
    std::filesystem::remove(path);
}

TEST_CASE("what is no row is refused") {
    CHECK_THROWS_WITH(td::Index(0), "Index: expected rows of at least one element, found width 0");
    td::Index index(3);
    CHECK_THROWS_WITH(index.add(Rows(4)), "Index::add: expected whole rows of 3, found 4 elements");
    CHECK_THROWS_WITH(index.search(Rows(2), 1), "Index::search: expected whole rows of 3, found 2 elements");
    Rows rows(6, 1.0F);
    for (const float odd : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e30F}) {
        rows[4] = odd;
        CHECK_THROWS_WITH(index.add(rows), Catch::Contains("finite rows of a length between") && Catch::Contains("in row 1"));
        CHECK_THROWS_WITH(index.search(rows, 1), Catch::Contains("in row 1"));
    }
    CHECK(index.size() == 0);
    CHECK(index.search(Rows(3, 1.0F), 5).matches == std::vector<std::vector<td::Match>>(1));
    CHECK(index.search(Rows(), 5).matches.empty());
    index.add(Rows(6, 1.0F));
    CHECK(index.search(Rows(3, 1.0F), 0).matches[0].empty());
    CHECK_THROWS_WITH(index.remove(std::vector<std::size_t>{1, 2}), "Index::remove: expected a position below 2, found 2");
    CHECK(index.count() == 2);
    CHECK_THROWS_WITH(index.row(2), "Index::row: expected a position below 2, found 2");
}

TEST_CASE("every instruction set gives the same answers") {
    for (const td::kernels::Isa isa : available_isas()) {
        const std::string name(td::kernels::name_of(isa));
        INFO(name);
        CHECK(run_with_isa(name, "[#index_test]~*instruction set*") == 0);
    }
}

// Approximate search against the exact index: what it finds, what it must never find, and files that are not what they seem.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <tbb/global_control.h>

#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/core/random.hpp>
#include <tandem/tasks/approximate_index.hpp>

#include "../temporary_folder.hpp"

namespace td = tandem;

namespace {

constexpr std::size_t width = 24;

/// Rows of length 1 about some centres, or queries: rows of their own kind about the same centres, further out.
std::vector<float> rows_about_centres(std::size_t count, std::uint64_t seed, double spread) {
    td::Random centre_draws(td::Seed{99}), random(td::Seed{seed});
    std::vector<float> centres(50 * width), rows(count * width);
    for (float& value : centres) value = static_cast<float>(centre_draws.normal());
    for (std::size_t i = 0; i < count; ++i) {
        const auto centre = static_cast<std::size_t>(random.uniform(0, 50));
        double squares = 0;
        for (std::size_t j = 0; j < width; ++j) {
            const double value = static_cast<double>(centres[centre * width + j]) + spread * random.normal();
            rows[i * width + j] = static_cast<float>(value);
            squares += value * value;
        }
        for (std::size_t j = 0; j < width; ++j) rows[i * width + j] /= static_cast<float>(std::sqrt(squares));
    }
    return rows;
}

// Small enough for graphs, large enough that they are not asked in vain: see costs_more_than_all.
constexpr std::size_t row_count = 12000;
constexpr td::GraphOptions small_graphs{.links = 12, .breadth = 60, .rows = 7000};

std::string bytes_of(const td::ApproximateIndex& graphs, const std::filesystem::path& path) {
    graphs.save(path);
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("graphs find nearly all of the nearest rows, with the scores of the exact index", "[tasks][approximate]") {
    td::Index index(width, "a model");
    const auto rows = rows_about_centres(row_count, 1, 0.4), queries = rows_about_centres(64, 2, 0.9);
    index.add(rows);
    td::ApproximateIndex graphs(index, small_graphs);
    CHECK(graphs.last_update().added == row_count);
    CHECK(graphs.count() == row_count);

    const td::SearchResult found = graphs.search(queries, 10, {.breadth = 32});
    CHECK(found.scanned == 0);  // the graphs were asked
    CHECK(found.rescored <= 64 * 2 * 32);
    for (std::size_t i = 0; i < 64; ++i) {
        const auto query = std::span(queries).subspan(i * width, width);
        REQUIRE(found.matches[i].size() == 10);
        std::vector<std::size_t> positions;
        for (const td::Match& match : found.matches[i]) positions.push_back(match.position);
        const std::vector<float> scores = index.scores(query, positions);
        for (std::size_t j = 0; j < 10; ++j) CHECK(found.matches[i][j].score == scores[j]);
        CHECK(std::ranges::is_sorted(found.matches[i], {}, [](const td::Match& match) { return std::pair(-match.score, match.position); }));
    }
    const double narrow = graphs.recall(queries, 10, 10), wide = graphs.recall(queries, 10, 80);
    CAPTURE(narrow, wide);
    CHECK(narrow < wide);
    CHECK(wide > 0.98);

    // The breadth that is chosen finds what was asked for, and half of it does not.
    const double chosen = graphs.choose_breadth(queries, 10, 0.95);
    CHECK(chosen >= 0.95);
    CHECK(graphs.recall(queries, 10) == chosen);
    if (graphs.breadth() > 16) CHECK(graphs.recall(queries, 10, graphs.breadth() / 2) < 0.95);

    // Where a look at every row is cheaper, it is taken.
    const td::SearchResult all = graphs.search(queries, 10, {.breadth = 1000});
    CHECK(all.scanned == 64 * row_count);
    CHECK(all.matches == index.search(queries, 10).matches);
}

TEST_CASE("graphs do not depend on the number of threads", "[tasks][approximate]") {
    td::Index index(width);
    index.add(rows_about_centres(6000, 3, 0.4));
    const td::GraphOptions options{.links = 8, .breadth = 30, .rows = 2000};
    const TemporaryFolder folder;
    const std::string parallel = bytes_of(td::ApproximateIndex(index, options), folder / "parallel");
    const tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
    CHECK(parallel == bytes_of(td::ApproximateIndex(index, options), folder / "one"));
}

TEST_CASE("an update links what came and never finds what went", "[tasks][approximate]") {
    td::Index index(width);
    const auto rows = rows_about_centres(row_count, 4, 0.4), queries = rows_about_centres(32, 5, 0.9);
    index.add(std::span(rows).first(8000 * width));
    td::ApproximateIndex graphs(index, small_graphs);
    CHECK(graphs.update().kept == 8000);
    CHECK(graphs.last_update().added == 0);

    index.add(std::span(rows).subspan(8000 * width));
    std::vector<std::size_t> gone;
    for (std::size_t i = 0; i < row_count; i += 10) gone.push_back(i);
    index.remove(gone);
    std::size_t reported = 0, all = 0;
    const td::GraphUpdate update = graphs.update([&](std::size_t done, std::size_t of) { reported = done, all = of; });
    CHECK(update.kept == 7200);
    CHECK(update.added == 3600);
    CHECK(update.gone == 800);
    CHECK((reported == 3600 && all == 3600));
    CHECK(graphs.count() == 10800);
    CHECK(graphs.recall(queries, 10, 50) > 0.95);
    for (const auto& matches : graphs.search(queries, 10, {.breadth = 50}).matches) {
        for (const td::Match& match : matches) CHECK(match.position % 10 != 0);
    }
    // A row that came finds itself.
    std::size_t themselves = 0;
    for (std::size_t i = 11001; i < 11100; ++i) {
        const auto found = graphs.search(std::span(rows).subspan(i * width, width), 1, {.breadth = 50});
        CHECK(found.scanned == 0);
        if (i % 10 != 0) themselves += found.matches[0][0].position == i ? 1U : 0U;
    }
    CHECK(themselves >= 87);  // of 90

    // What comes again takes its old place; a graph of which most went is made anew.
    index.add(std::span(rows).first(width));
    CHECK(graphs.update().kept == 10801);
    std::vector<std::size_t> most;
    for (std::size_t i = 0; i < row_count; ++i) {
        if (i % 10 != 0 && i % 3 != 0) most.push_back(i);
    }
    index.remove(most);
    CHECK(graphs.update().added > 0);
    CHECK(graphs.last_update().kept + graphs.last_update().added == graphs.count());
    CHECK(graphs.recall(queries, 10, 12) > 0.7);
}

TEST_CASE("a filter and rows that hold the same", "[tasks][approximate]") {
    td::Index index(width);
    const auto rows = rows_about_centres(row_count, 6, 0.4), queries = rows_about_centres(16, 7, 0.9);
    index.add(rows);
    const td::ApproximateIndex graphs(index, small_graphs);
    // Every second row, and hardly any.
    std::vector<std::uint64_t> half(row_count / 64 + 1, 0x5555555555555555), few(row_count / 64 + 1);
    few[3] = 0xff;
    const td::SearchResult found = graphs.search(queries, 10, {.allowed = half, .breadth = 16});
    std::size_t right = 0;
    const td::SearchResult exact = index.search(queries, 10, {.allowed = half});
    for (std::size_t i = 0; i < 16; ++i) {
        REQUIRE(found.matches[i].size() == 10);
        for (const td::Match& match : found.matches[i]) {
            CHECK(match.position % 2 == 0);
            right += std::ranges::count(exact.matches[i], match) != 0 ? 1U : 0U;
        }
    }
    CHECK(right > 140);
    CHECK(found.scanned < 16 * row_count);
    CHECK(graphs.search(queries, 10, {.allowed = few}).matches == index.search(queries, 10, {.allowed = few}).matches);
    std::vector<std::uint64_t> none(2);
    CHECK(graphs.search(queries, 10, {.allowed = none}).matches[0].empty());

    // Equal rows are found as many as there are.
    td::Index copies(width);
    for (int i = 0; i < 5; ++i) copies.add(std::span(rows).first(2 * width));
    td::ApproximateIndex of_copies(copies, {.links = 2, .breadth = 4});
    copies.remove(std::vector<std::size_t>{4});
    CHECK(of_copies.update().kept == 9);
    CHECK(of_copies.last_update().gone == 0);
    CHECK(of_copies.search(std::span(rows).first(width), 4).matches[0] == copies.search(std::span(rows).first(width), 4).matches[0]);
}

TEST_CASE("copies do not get in the way of others") {
    td::Index index(width);
    const auto rows = rows_about_centres(row_count, 12, 0.4), queries = rows_about_centres(64, 13, 0.9);
    index.add(rows);
    std::vector<float> copies;
    for (std::size_t i = 0; i < row_count; ++i) copies.insert(copies.end(), rows.begin() + 7 * width, rows.begin() + 8 * width);
    index.add(copies);
    td::ApproximateIndex graphs(index, small_graphs);
    CHECK(graphs.last_update().added == 2 * row_count);
    CHECK(graphs.count() == 2 * row_count);
    CHECK(graphs.recall(queries, 10, 64) > 0.97);
    for (std::size_t i = 0; i < 100; ++i) {
        const auto found = graphs.search(std::span(rows).subspan(i * width, width), 3, {.breadth = 64});
        CHECK(found.scanned == 0);
        CHECK(found.matches[0][0].position == i);
        if (i == 7) CHECK((found.matches[0][1].position == row_count && found.matches[0][2].position == row_count + 1));
    }
    // One of them alone may be found.
    std::vector<std::uint64_t> allowed(2 * row_count / 64 + 1);
    for (std::size_t i = 0; i < row_count; ++i) allowed[i / 64] |= std::uint64_t{1} << (i % 64);
    allowed[(row_count + 5) / 64] |= std::uint64_t{1} << ((row_count + 5) % 64);
    const auto found = graphs.search(std::span(rows).subspan(7 * width, width), 2, {.allowed = allowed, .breadth = 64});
    CHECK((found.matches[0][0].position == 7 && found.matches[0][1].position == row_count + 5));
}

TEST_CASE("rows that were removed since, and updates that fail") {
    td::Index index(width);
    index.add(rows_about_centres(row_count, 14, 0.4));
    const auto queries = rows_about_centres(8, 15, 0.9);
    td::ApproximateIndex graphs(index, small_graphs);
    std::vector<std::size_t> gone;
    for (std::size_t i = 5; i < row_count; ++i) gone.push_back(i);
    index.remove(gone);
    CHECK(graphs.recall(queries, 10) <= 1);
    index.remove(std::vector<std::size_t>{0, 1, 2, 3, 4});
    CHECK(graphs.recall(queries, 10) == 1);
    CHECK(graphs.update().gone == row_count);
    CHECK(graphs.search(queries, 10).matches[0].empty());
    // What stops half way is known to be half: every row is looked at until an update comes to its end.
    index.add(rows_about_centres(row_count, 16, 0.4));
    CHECK_THROWS_AS(graphs.update([](std::size_t done, std::size_t) { if (done > 3000) throw std::length_error("stop"); }), std::length_error);
    CHECK(graphs.search(queries, 10, {.breadth = 16}).matches == index.search(queries, 10).matches);
    graphs.update();
    CHECK(graphs.search(queries, 10, {.breadth = 16}).scanned == 0);
    CHECK(graphs.recall(queries, 10, 64) > 0.97);
}

TEST_CASE("saved graphs answer as before, for rows that stand elsewhere now", "[tasks][approximate]") {
    const TemporaryFolder folder;
    const auto path = folder / "graphs";
    const auto rows = rows_about_centres(row_count, 8, 0.4), queries = rows_about_centres(16, 9, 0.9);
    td::Index index(width, "a model");
    index.add(rows);
    td::ApproximateIndex graphs(index, small_graphs);
    graphs.choose_breadth(queries, 10, 0.9);
    graphs.save(path);
    const td::ApproximateIndex same = td::ApproximateIndex::load(path, index);
    CHECK(same.last_update().kept == row_count);
    CHECK(same.breadth() == graphs.breadth());
    CHECK(same.search(queries, 10, {.breadth = 20}).matches == graphs.search(queries, 10, {.breadth = 20}).matches);

    // The rows the other way round, but for the first ten, and ten that are new.
    td::Index turned(width, "a model");
    for (std::size_t i = row_count; i-- > 10;) turned.add(std::span(rows).subspan(i * width, width));
    turned.add(rows_about_centres(10, 10, 0.4));
    const td::ApproximateIndex known = td::ApproximateIndex::load(path, turned);
    CHECK(known.last_update().kept == row_count - 10);
    CHECK(known.last_update().added == 10);
    CHECK(known.last_update().gone == 0);  // they were never found by this one
    CHECK(known.recall(queries, 10, 20) > 0.9);

    td::Index other(width, "another model");
    CHECK_THROWS_WITH(td::ApproximateIndex::load(path, other), Catch::Contains("\"a model\"") && Catch::Contains("\"another model\"") && Catch::Contains("graphs"));
}

TEST_CASE("files that hold no graphs are refused, whatever of them is damaged", "[tasks][approximate]") {
    const TemporaryFolder folder;
    const auto path = folder / "graphs";
    td::Index index(width, "m");
    index.add(rows_about_centres(60, 11, 0.4));
    const std::string good = bytes_of(td::ApproximateIndex(index, {.links = 3, .breadth = 8, .rows = 40}), path);
    td::Random random(td::Seed{1});
    std::size_t refused = 0;
    for (int trial = 0; trial < 3000; ++trial) {
        std::string bad = good;
        for (int i = 0; i <= trial % 3; ++i)
            bad[static_cast<std::size_t>(random.uniform(0, static_cast<double>(bad.size())))] = static_cast<char>(random.uniform(0, 256));
        if (trial % 10 == 0) bad.resize(static_cast<std::size_t>(random.uniform(0, static_cast<double>(bad.size()))));
        std::ofstream(path, std::ios::binary) << bad;
        try {
            // Another number of equal worth may pass; what is loaded answers.
            const td::ApproximateIndex graphs = td::ApproximateIndex::load(path, index);
            CHECK(graphs.search(index.row(0), 3, {.breadth = 1}).matches[0].size() == 3);
        } catch (const td::Error& error) {
            ++refused;
            CHECK(std::string(error.what()).find("graphs") != std::string::npos);
        }
    }
    CHECK(refused > 1000);
    index.save(path);
    CHECK_THROWS_WITH(td::ApproximateIndex::load(path, index), Catch::Contains("tandem approximate index 1") && Catch::Contains("tandem index 1"));
}

TEST_CASE("what approximate search refuses", "[tasks][approximate]") {
    td::Index index(width);
    CHECK_THROWS_WITH(td::ApproximateIndex(index, {.links = 1}), Catch::Contains("2 to 256") && Catch::Contains("1"));
    CHECK_THROWS_WITH(td::ApproximateIndex(index, {.links = 16, .breadth = 8}), Catch::Contains("links (16)"));
    CHECK_THROWS_WITH(td::ApproximateIndex(index, {.rows = 0}), Catch::Contains("1 to 2^30"));
    td::ApproximateIndex empty(index);
    CHECK(empty.search(std::vector<float>(width, 1), 5).matches[0].empty());
    CHECK_THROWS_WITH(empty.search(std::vector<float>(width - 1, 1), 5), Catch::Contains("whole rows"));
    std::vector<float> query(width, 1);
    query[3] = NAN;
    CHECK_THROWS_WITH(empty.search(query, 5), Catch::Contains("finite"));
    CHECK_THROWS_WITH(empty.choose_breadth(query, 5, 2), Catch::Contains("a share"));
    CHECK_THROWS_WITH(index.scores(std::vector<float>(width, 1), std::vector<std::size_t>{0}), Catch::Contains("below 0"));
}

// Trees, thresholds and precision by hand; probabilities of pictures made up for their labels.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/random.hpp>
#include <tandem/tasks/tagging.hpp>

namespace td = tandem;

TEST_CASE("a taxonomy is read by its indents") {
    const td::Taxonomy tree = td::Taxonomy::parse("animal\n  dog\n    beagle\n  cat\r\n\nplant\n\ttree\n", "labels");
    CHECK(tree.labels == std::vector<std::string>{"animal", "dog", "beagle", "cat", "plant", "tree"});
    CHECK(tree.parents == std::vector<std::size_t>{td::Taxonomy::root, 0, 1, 0, td::Taxonomy::root, 4});
    CHECK(tree.path(2) == std::vector<std::size_t>{0, 1, 2});
    CHECK(td::Taxonomy::parse("\xEF\xBB\xBF" "a", "x").labels[0] == "a");
    CHECK(td::Taxonomy::parse("", "x").size() == 0);
    CHECK_THROWS_WITH(td::Taxonomy::parse("a\n    b\n", "labels"),
                      "labels line 2: expected a label at most one step further in than the one before, found 2 steps");
    CHECK_THROWS_WITH(td::Taxonomy::parse("a\nb\n  a\n", "labels"),
                      "labels line 3: expected every label once, found \"a\", which stands in line 1");
}

TEST_CASE("WordNet's nouns become a tree") {
    const std::string text =
        "  1 This software and database is being provided to you\n"
        "00000100 03 n 01 entity 0 001 ~ 00000200 n 0000 | what is\n"
        "00000300 05 n 02 golden_retriever 0 retriever 1 002 @ 00000200 n 0000 #m 00000100 n 0000 | a dog\n"
        "00000200 05 n 01 dog 0 001 @ 00000100 n 0000 | a member\n"
        "00000400 05 n 01 dog 1 001 @ 00000100 n 0000 | another meaning\n"
        "00000500 05 n 01 pug 0 001 @i 00000400 n 0000 | below the other meaning\n";
    const td::Taxonomy tree = td::Taxonomy::parse_wordnet(text, "data.noun");
    CHECK(tree.labels == std::vector<std::string>{"entity", "dog", "golden retriever", "pug"});
    CHECK(tree.parents == std::vector<std::size_t>{td::Taxonomy::root, 0, 1, 0});
    CHECK_THROWS_WITH(td::Taxonomy::parse_wordnet("dog\ncat\n", "data.noun"),
                      "data.noun line 1: expected a synset of WordNet's data.noun, found dog");
    CHECK_THROWS_AS(td::Taxonomy::parse_wordnet("00000100 03 n 01 a 0 001 @ 00000100 n 0000 | itself\n", "x"), td::Error);
    CHECK_THROWS_AS(td::Taxonomy::parse_wordnet("00000100 03 n ff a 0 001\n", "x"), td::Error);
    CHECK_THROWS_AS(td::Taxonomy::parse_wordnet("", "x"), td::Error);
}

namespace {

constexpr std::size_t width = 32, labels = 6;

std::vector<float> unit(std::vector<float> row) {
    double squares = 0;
    for (const float value : row) squares += static_cast<double>(value) * static_cast<double>(value);
    for (float& value : row) value /= static_cast<float>(std::sqrt(squares));
    return row;
}

/// Pictures near the rows of the labels that they have, the first label's positives twice as near.
td::LabelledPictures made_up(std::size_t count, std::uint64_t seed, const std::vector<float>& rows) {
    td::Random random(td::Seed{seed});
    td::LabelledPictures made;
    for (std::size_t i = 0; i < count; ++i) {
        std::vector<float> row(width);
        for (float& value : row) value = static_cast<float>(random.normal());
        for (std::size_t label = 0; label < labels; ++label) {
            const bool has = random.uniform(0, 1) < 0.15;
            made.has.push_back(has ? 1 : 0);
            for (std::size_t j = 0; has && j < width; ++j) row[j] += (label == 0 ? 5.0F : 2.5F) * rows[label * width + j];
        }
        row = unit(std::move(row));
        made.rows.insert(made.rows.end(), row.begin(), row.end());
    }
    return made;
}

std::vector<float> random_rows(std::size_t count, std::uint64_t seed) {
    td::Random random(td::Seed{seed});
    std::vector<float> rows;
    for (std::size_t i = 0; i < count; ++i) {
        std::vector<float> row(width);
        for (float& value : row) value = static_cast<float>(random.normal());
        row = unit(std::move(row));
        rows.insert(rows.end(), row.begin(), row.end());
    }
    return rows;
}

}  // namespace

TEST_CASE("calibrated probabilities keep their promise on other pictures") {
    const std::vector<float> rows = random_rows(labels, 1), neutral = random_rows(8, 2);
    const td::Taxonomy flat = td::Taxonomy::parse("a\nb\nc\nd\ne\nf\n", "labels");
    td::Tagger tagger(flat, rows, neutral);
    const td::LabelledPictures training = made_up(3000, 3, rows), test = made_up(3000, 4, rows);
    const auto promised = [&] {
        std::vector<double> all;
        for (std::size_t i = 0; i < 3000; ++i) {
            const auto some = tagger.probabilities(std::span(test.rows).subspan(i * width, width));
            all.insert(all.end(), some.begin(), some.end());
        }
        return all;
    };
    const double before = td::expected_calibration_error(promised(), test.has);
    tagger.calibrate(training);
    const std::vector<double> after = promised();
    CHECK(td::expected_calibration_error(after, test.has) < 0.02);
    CHECK(td::expected_calibration_error(after, test.has) < before / 2);
    CHECK(*td::average_precision(after, test.has) > 0.6);
    const double threshold = *td::threshold_for_precision(after, test.has, 0.9);
    std::size_t hits = 0, found = 0;
    for (std::size_t i = 0; i < after.size(); ++i) {
        if (after[i] < threshold) continue;
        ++found;
        hits += test.has[i];
    }
    CHECK(static_cast<double>(hits) >= 0.9 * static_cast<double>(found));
    CHECK(found > 300);
    CHECK_THROWS_WITH(tagger.calibrate({training.rows, {1, 0}}), "Tagger::calibrate: expected 6 labels for each of 3000 pictures, found 2");
    CHECK_THROWS_AS(td::Tagger(flat, random_rows(5, 1), neutral), td::Error);
    CHECK_THROWS_AS(td::Tagger(flat, rows, {}), td::Error);
}

TEST_CASE("a label is at least as probable as what is below it") {
    const td::Taxonomy tree = td::Taxonomy::parse("animal\n  dog\n    beagle\n  cat\nplant\n", "labels");
    std::vector<double> probabilities{0.1, 0.2, 0.7, 0.3, 0.4};
    td::raise_parents(tree, probabilities);
    CHECK(probabilities == std::vector<double>{0.7, 0.7, 0.7, 0.3, 0.4});
}

TEST_CASE("average precision and thresholds by hand") {
    const std::vector<double> scores{0.9, 0.8, 0.7, 0.6, 0.6};
    const std::vector<std::uint8_t> positive{1, 0, 1, 1, 0};
    // Of the two equal scores the negative comes first: ranks 1, 3, 5.
    CHECK(*td::average_precision(scores, positive) == Approx((1 + 2.0 / 3 + 3.0 / 5) / 3));
    CHECK_FALSE(td::average_precision(scores, std::vector<std::uint8_t>(5)));
    CHECK(*td::threshold_for_precision(scores, positive, 1) == 0.9);
    CHECK(*td::threshold_for_precision(scores, positive, 0.6) == 0.6);
    CHECK(*td::threshold_for_precision(scores, positive, 0.65) == 0.7);
    CHECK(*td::threshold_for_precision(scores, positive, 0.65, 2) == 0.7);
    CHECK_FALSE(td::threshold_for_precision(scores, positive, 0.65, 3));
    CHECK_FALSE(td::threshold_for_precision(scores, std::vector<std::uint8_t>(5), 0.1));
    CHECK(*td::threshold_for_recall(scores, positive, 0.3) == 0.9);
    CHECK(*td::threshold_for_recall(scores, positive, 0.5) == 0.7);
    CHECK(*td::threshold_for_recall(scores, positive, 1) == 0.6);
    CHECK_FALSE(td::threshold_for_recall(scores, std::vector<std::uint8_t>(5), 0.5));
    CHECK_THROWS_AS(td::average_precision(scores, {}), td::Error);
}

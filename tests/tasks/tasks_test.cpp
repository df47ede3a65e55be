// Scores by hand: zero-shot with unequal classes, recall with ties; and as open_clip scores the same embeddings.
#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

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

namespace {

/// The rows of make_evaluation_goldens.py.
using Rows = td::Tensor<float, td::Shape<td::dynamic, 8>>;
Rows rows(std::size_t count, std::size_t step) {
    Rows made(count);
    for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t j = 0; j < 8; ++j) made(i, j) = static_cast<float>(static_cast<double>((i * 7919 * step + j * 104729 + i * j * 31) % 2003) / 1001.5 - 1);
    }
    return made;
}
Rows normalized(const Rows& rows) { return td::evaluate(td::normalize(td::as_expression(rows))); }

/// A model and a tokenizer of prompts "c.k", whose embeddings are rows 2 c + k.
struct Prompts {
    using Embeddings = Rows;
    struct Text {
        static constexpr std::size_t context = 1;
        using Input = td::View<const td::Id, td::Shape<td::dynamic, 1>>;
    };
    static constexpr std::size_t classes = 12;

    Rows encode_text(Text::Input ids) const {
        const Rows all = normalized(rows(2 * classes, 5));
        Rows found(ids.extent(0));
        for (std::size_t i = 0; i < ids.extent(0); ++i) std::copy_n(all[static_cast<std::size_t>(ids(i, 0))].data(), 8, found[i].data());
        return found;
    }
    static void encode(std::string_view text, std::span<td::Id> out) {
        const std::size_t dot = text.find('.');
        out[0] = static_cast<td::Id>(2 * std::stoi(std::string(text.substr(0, dot))) + std::stoi(std::string(text.substr(dot + 1))));
    }
    static std::vector<td::Id> encode_batch(std::span<const std::string> texts, std::size_t) {
        std::vector<td::Id> ids(texts.size());
        for (std::size_t i = 0; i < texts.size(); ++i) encode(texts[i], std::span(ids).subspan(i, 1));
        return ids;
    }
};

}  // namespace

TEST_CASE("recalls and zero-shot accuracies are those of open_clip's own evaluation") {
    constexpr std::size_t pairs = 211;
    // Printed by make_evaluation_goldens.py, with open_clip 3.3.0.
    constexpr double recalls[2][3]{{0.08056872037914692, 0.32701421800947866, 0.5639810426540285}, {0.11374407582938388, 0.45023696682464454, 0.5829383886255924}};
    constexpr double accuracies[2]{0.10426540284360189, 0.4312796208530806};
    Rows images = rows(pairs, 1), texts(images);
    const Rows noise = rows(pairs, 3);
    for (std::size_t i = 0; i < images.size(); ++i) texts.data()[i] += 0.9F * noise.data()[i];
    images = normalized(images);
    texts = normalized(texts);
    const auto to_texts = td::similarity(images, texts), to_images = td::similarity(texts, images);
    for (std::size_t i = 0; i < 3; ++i) {
        const std::size_t k = std::array<std::size_t, 3>{1, 5, 10}[i];
        CHECK(td::recall_at(to_texts, k) == Approx(recalls[0][i]).epsilon(1e-12));
        CHECK(td::recall_at(to_images, k) == Approx(recalls[1][i]).epsilon(1e-12));
    }
    std::vector<std::string> classes;
    for (std::size_t c = 0; c < Prompts::classes; ++c) classes.push_back(std::to_string(c));
    std::vector<std::size_t> labels;
    for (std::size_t i = 0; i < pairs; ++i) labels.push_back(i * 7919 % 101 % Prompts::classes);
    const std::vector<std::string> templates{"{}.0", "{}.1"};
    const td::ZeroShotScore score = td::score_zero_shot(td::similarity(images, td::zero_shot_classifier(Prompts{}, Prompts{}, classes, templates)), labels);
    CHECK(score.top1 == Approx(accuracies[0]).epsilon(1e-12));
    CHECK(score.top5 == Approx(accuracies[1]).epsilon(1e-12));
}

TEST_CASE("best matches come best first") {
    const std::vector<float> scores{1, 4, 4, 2};
    CHECK(td::best_matches<float>(scores, 3) == std::vector<std::size_t>{1, 2, 3});
    CHECK(td::best_matches<float>(scores, 9).size() == 4);
}

// Losses that see a batch beside its embeddings: captions that repeat, a teacher; against open_clip's and PyTorch's values, and plain loops.
#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <span>
#include <string>
#include <tuple>
#include <utility>

#include <tandem/losses/captions.hpp>
#include <tandem/losses/contrastive.hpp>
#include <tandem/losses/distillation.hpp>
#include <tandem/losses/matryoshka.hpp>
#include <tandem/losses/rules.hpp>
#include <tandem/tensor/gradient.hpp>

#include "../central_differences.hpp"

namespace td = tandem;

namespace {

constexpr std::size_t pairs = 6, width = 7;
template <std::size_t Width>
using Rows = td::Tensor<double, td::Shape<td::dynamic, Width>>;

/// As make_loss_goldens.py makes them.
template <std::size_t Width>
Rows<Width> rows(double first) {
    Rows<Width> rows(pairs);
    for (std::size_t i = 0; i < pairs; ++i) {
        for (std::size_t j = 0; j < Width; ++j) {
            const double x = static_cast<double>(i), y = static_cast<double>(j);
            rows(i, j) = std::sin(first + 1.3 * x + 0.9 * x * y + 0.4 * y);
        }
    }
    return td::evaluate(td::normalize(rows));
}

const Rows<width> image = rows<width>(1), text = rows<width>(2);
const td::Tensor<double, td::Shape<>> scale{9}, bias{-2};

/// A batch of numbers of pairs, with captions of two ids: 0, 2 and 5 are the same, and 1 and 4.
struct Batch {
    td::Tensor<double, td::Shape<td::dynamic, 1>> images{pairs};
    td::Tensor<td::Id, td::Shape<td::dynamic, 2>> ids{pairs};

    Batch() {
        constexpr std::array<td::Id, pairs> captions{0, 1, 0, 2, 1, 0};
        for (std::size_t i = 0; i < pairs; ++i) images(i, 0) = static_cast<double>(i), ids(i, 0) = 3, ids(i, 1) = captions[i];
    }

    /// In parts of four pairs, the last one first.
    void show(auto& loss) const {
        td::detail::for_each_seeing(loss, [&](auto& seeing) {
            for (const std::size_t first : {4, 0}) {
                const std::size_t last = std::min<std::size_t>(first + 4, pairs);
                seeing.see(first, pairs, std::as_const(images).view().slice(first, last), std::as_const(ids).view().slice(first, last));
            }
            seeing.seen(nullptr);
        });
    }
};

/// Gives a batch's numbers of pairs the embeddings of make_loss_goldens.py, as an AnyClip would.
struct Teacher {
    Rows<5> images = rows<5>(3), texts = rows<5>(4);
    mutable std::size_t first_text = 4;  // it is shown pairs from 4 on before the others

    double logit_scale() const { return std::log(14.0); }
    Rows<5> encode_image(std::span<const double> input) const {
        Rows<5> found(input.size());
        for (std::size_t i = 0; i < input.size(); ++i) std::copy_n(images[static_cast<std::size_t>(input[i])].data(), 5, found[i].data());
        return found;
    }
    Rows<5> encode_text(std::span<const td::Id> input) const {
        Rows<5> found(input.size() / 2);
        std::copy_n(texts[first_text].data(), found.size(), found.data());
        first_text = first_text == 4 ? 0 : 4;
        return found;
    }
};

/// visit(tensors...) with what a loss is a function of.
template <class L>
auto with_arguments(const auto& visit) {
    if constexpr (td::detail::LossCall<L, double, width, true>::takes_bias) {
        return visit(image, text, scale, bias);
    } else {
        return visit(image, text, scale);
    }
}

/// The value of a loss, and its derivatives.
template <class L>
auto computed(const L& loss) {
    return with_arguments<L>([&](const auto&... tensors) { return td::value_and_gradient(loss(td::as_expression(tensors)...), tensors...); });
}

template <class L>
void check_golden(const std::string& name, const L& loss) {
    INFO(name);
    std::ifstream file(TANDEM_TEST_DATA "/losses/fixtures/losses.txt");
    std::string word;
    double value = 0, of_image = 0, of_scale = 0;
    while (file >> word >> value >> of_image >> of_scale && word != name) {
    }
    REQUIRE(word == name);
    const auto result = computed(loss);
    CHECK(result.value == Approx(value).epsilon(1e-12));
    CHECK(std::get<0>(result.gradients)(0, 0) == Approx(of_image).epsilon(1e-11));
    CHECK(std::get<2>(result.gradients).item() == Approx(of_scale).epsilon(1e-11));
}

template <class L>
void check_gradients(const L& loss) {
    with_arguments<L>([&](const auto&... arguments) { check_gradient([&](const auto&... tensors) { return loss(td::as_expression(tensors)...); }, arguments...); });
}

/// In tiles of any size the loss and its gradients are those of the whole.
template <class L>
void check_tiles(const L& loss) {
    const auto whole = computed(loss);
    for (const std::size_t rows : {1, 2, 4, 5, 6, 9}) {
        CAPTURE(rows);
        const auto tiled = computed(td::tiled(loss, rows));
        CHECK(tiled.value == Approx(whole.value).epsilon(1e-13));
        for (std::size_t i = 0; i < image.size(); ++i) {
            CHECK(std::get<0>(tiled.gradients).data()[i] == Approx(std::get<0>(whole.gradients).data()[i]).epsilon(1e-11).margin(1e-14));
            CHECK(std::get<1>(tiled.gradients).data()[i] == Approx(std::get<1>(whole.gradients).data()[i]).epsilon(1e-11).margin(1e-14));
        }
        CHECK(std::get<2>(tiled.gradients).item() == Approx(std::get<2>(whole.gradients).item()).epsilon(1e-11));
    }
}

double logit(std::size_t i, std::size_t j) {
    double dot = 0;
    for (std::size_t c = 0; c < width; ++c) dot += image(i, c) * text(j, c);
    return scale.item() * dot;
}

bool are_same(std::size_t i, std::size_t j) { return Batch().ids(i, 1) == Batch().ids(j, 1); }

}  // namespace

TEST_CASE("smoothed labels are those of PyTorch's cross-entropy", "[losses]") {
    const auto loss = td::InfoNce{} + 0.1 * td::LabelSmoothing{};
    check_golden("smoothed", loss);
}

TEST_CASE("a teacher's similarities are followed as in open_clip", "[losses]") {
    const Teacher teacher;
    auto loss = td::InfoNce{} + td::Distillation{teacher};
    Batch().show(loss);
    check_golden("clip_and_distillation", loss);
    check_golden("distillation", loss.b);
    check_gradients(loss);
}

TEST_CASE("images of one caption are all its matches", "[losses]") {
    td::InfoNceByCaption<double> loss;
    Batch().show(loss);
    check_golden("positives", loss);
    check_gradients(loss);
}

TEST_CASE("repeated captions that are ignored tell nothing apart", "[losses]") {
    td::InfoNceByCaption<double> loss(td::Repeats::ignored);
    Batch().show(loss);
    double expected = 0;
    for (std::size_t i = 0; i < pairs; ++i) {
        double row = 0, column = 0;
        for (std::size_t j = 0; j < pairs; ++j) {
            if (j != i && are_same(i, j)) continue;
            row += std::exp(logit(i, j)), column += std::exp(logit(j, i));
        }
        expected += (0.5 * (std::log(row) + std::log(column)) - logit(i, i)) / pairs;
    }
    CHECK(computed(loss).value == Approx(expected).epsilon(1e-12));
    check_gradients(loss);
}

TEST_CASE("losses that see batches are computed in tiles", "[losses]") {
    for (const td::Repeats repeats : {td::Repeats::positives, td::Repeats::ignored}) {
        const Teacher teacher;
        auto loss = td::InfoNceByCaption<double>{repeats} + 0.1 * td::LabelSmoothing{} + td::Distillation{teacher};
        Batch().show(loss);
        check_tiles(loss);
    }
}

TEST_CASE("hard negatives count the more the closer they are", "[losses]") {
    for (const auto& choice : {std::pair(0.0, 1.0), std::pair(0.25, 1.0), std::pair(0.5, 0.3)}) {
        const double beta = choice.first, alpha = choice.second;
        td::HardNegativeInfoNce<double> loss(beta, alpha);
        Batch().show(loss);
        const auto of = [&](const auto& logit_of, std::size_t i) {
            double weights = 0, hard = 0, count = 0;
            for (std::size_t j = 0; j < pairs; ++j) {
                if (are_same(i, j)) continue;
                ++count;
                weights += std::exp(beta * logit_of(j));
                hard += std::exp((1 + beta) * logit_of(j));
            }
            const double match = std::exp(logit_of(i));
            return -std::log(match / (alpha * match + count * hard / weights));
        };
        double expected = 0;
        for (std::size_t i = 0; i < pairs; ++i) {
            expected += (of([&](std::size_t j) { return logit(i, j); }, i) + of([&](std::size_t j) { return logit(j, i); }, i)) / (2 * pairs);
        }
        CHECK(computed(loss).value == Approx(expected).epsilon(1e-12));
        check_gradients(loss);
    }
    CHECK_THROWS_WITH(td::HardNegativeInfoNce<double>(-1), "HardNegativeInfoNce: expected a beta of 0 or above, found -1");
    CHECK_THROWS_WITH(td::HardNegativeInfoNce<double>(0.5, 0), "HardNegativeInfoNce: expected an alpha above 0, at most 1, found 0");
}

TEST_CASE("the sigmoid loss has several matches of a caption, or leaves them out", "[losses]") {
    for (const td::Repeats repeats : {td::Repeats::positives, td::Repeats::ignored}) {
        td::SigmoidLossByCaption<double> loss(repeats);
        Batch().show(loss);
        double expected = 0;
        for (std::size_t i = 0; i < pairs; ++i) {
            for (std::size_t j = 0; j < pairs; ++j) {
                const bool is_match = repeats == td::Repeats::positives ? are_same(i, j) : i == j;
                if (!is_match && are_same(i, j)) continue;
                expected += std::log1p(std::exp((is_match ? -1 : 1) * (logit(i, j) + bias.item()))) / pairs;
            }
        }
        CHECK(computed(loss).value == Approx(expected).epsilon(1e-12));
        check_gradients(loss);
        check_tiles(loss);
    }
}

TEST_CASE("where no caption repeats, losses by caption are those of pairs", "[losses]") {
    Batch batch;
    for (std::size_t i = 0; i < pairs; ++i) batch.ids(i, 0) = static_cast<td::Id>(i);
    for (const td::Repeats repeats : {td::Repeats::negatives, td::Repeats::positives, td::Repeats::ignored}) {
        td::InfoNceByCaption<double> info_nce(repeats);
        td::SigmoidLossByCaption<double> sigmoid(repeats);
        td::HardNegativeInfoNce<double> hard(0);
        batch.show(info_nce), batch.show(sigmoid), batch.show(hard);
        CHECK(computed(hard).value == Approx(computed(td::InfoNce{}).value).epsilon(1e-13));
        CHECK(computed(info_nce).value == Approx(computed(td::InfoNce{}).value).epsilon(1e-13));
        CHECK(computed(sigmoid).value == Approx(computed(td::SigmoidLoss{}).value).epsilon(1e-13));
    }
}

TEST_CASE("repeated captions that are negatives are as any others", "[losses]") {
    td::InfoNceByCaption<double> loss(td::Repeats::negatives);
    Batch().show(loss);
    CHECK(computed(loss).value == Approx(computed(td::InfoNce{}).value).epsilon(1e-13));
}

TEST_CASE("a loss that sees batches does so wherever it stands", "[losses]") {
    const Teacher teacher;
    auto loss = td::tiled(2.0 * td::matryoshka<3, width>(td::InfoNceByCaption<double>{}) + td::Distillation{teacher});
    static_assert(td::sees_batch<decltype(loss)> && !td::sees_batch<decltype(td::tiled(td::InfoNce{}))>);
    static_assert(td::least_pairs<decltype(loss)> == 2);
    Batch().show(loss);
    CHECK(std::isfinite(computed(loss).value));
}

TEST_CASE("a batch that was not seen is an error", "[losses]") {
    const Teacher teacher;
    CHECK_THROWS_WITH(computed(td::InfoNceByCaption<double>{}), "InfoNceByCaption: expected a batch whose captions it has seen, 6 pairs, found 0");
    CHECK_THROWS_WITH(computed(td::HardNegativeInfoNce<double>{}), "HardNegativeInfoNce: expected a batch whose captions it has seen, 6 pairs, found 0");
    CHECK_THROWS_WITH(computed(td::SigmoidLossByCaption<double>{}), "SigmoidLossByCaption: expected a batch whose captions it has seen, 6 pairs, found 0");
    auto loss = td::Distillation{teacher};
    const td::Tensor<double, td::Shape<td::dynamic, 2>> larger(pairs);
    CHECK_THROWS_WITH(loss.see(0, pairs, larger.view(), Batch().ids),
                      "Distillation: expected a teacher of the student's image size, which embeds 6 at a time, found one that finds 12");
    CHECK_THROWS_WITH(computed(loss), "Distillation: expected a batch that its teacher has seen, 6 pairs, found 0");
}

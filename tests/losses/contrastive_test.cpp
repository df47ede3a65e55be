#include <catch2/catch.hpp>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <utility>

#include <tandem/losses/contrastive.hpp>
#include <tandem/losses/matryoshka.hpp>
#include <tandem/tensor/gradient.hpp>

#include "../central_differences.hpp"

namespace {

using tandem::dynamic;
using tandem::evaluate;
using tandem::InfoNce;
using tandem::Loss;
using tandem::Shape;
using tandem::SigmoidLoss;
using tandem::Tensor;

constexpr std::size_t pairs = 5, width = 7;
using Embeddings = Tensor<double, Shape<dynamic, width>>;

const Embeddings image = random_tensor<Shape<dynamic, width>>(1, -1, 1, pairs);
const Embeddings text = random_tensor<Shape<dynamic, width>>(2, -1, 1, pairs);
const Tensor<double, Shape<>> scale = random_tensor<Shape<>>(3, 2, 3);
const Tensor<double, Shape<>> bias = random_tensor<Shape<>>(4, -2, -1);

double logit(std::size_t i, std::size_t j) {
    double dot = 0;
    for (std::size_t c = 0; c < width; ++c) dot += image(i, c) * text(j, c);
    return scale.item() * dot;
}

/// −log softmax of the matching pair, over rows and over columns, averaged (Radford et al. 2021, fig. 3).
double plain_info_nce() {
    double total = 0;
    for (std::size_t i = 0; i < pairs; ++i) {
        double row = 0, column = 0;
        for (std::size_t j = 0; j < pairs; ++j) {
            row += std::exp(logit(i, j));
            column += std::exp(logit(j, i));
        }
        total -= 0.5 * (std::log(std::exp(logit(i, i)) / row) + std::log(std::exp(logit(i, i)) / column));
    }
    return total / pairs;
}

/// −1/N Σ log σ(z (logit + bias)) (Zhai et al. 2023, alg. 1).
double plain_sigmoid() {
    double total = 0;
    for (std::size_t i = 0; i < pairs; ++i) {
        for (std::size_t j = 0; j < pairs; ++j) {
            const double label = i == j ? 1 : -1;
            total -= std::log(1 / (1 + std::exp(-label * (logit(i, j) + bias.item()))));
        }
    }
    return total / pairs;
}

/// The mean squared distance of the pairs, written by a user.
constexpr auto distance = [](const auto& x, const auto& y, const auto&) { return mean(square(x - y)); };

double plain_distance() {
    double total = 0;
    for (std::size_t i = 0; i < image.size(); ++i) total += std::pow(image.elements()[i] - text.elements()[i], 2);
    return total / static_cast<double>(image.size());
}

/// The value of a loss, called as a model calls it.
template <class L>
double value(const L& loss) {
    return evaluate(call_loss(loss, tandem::as_expression(image), tandem::as_expression(text),
                              tandem::as_expression(scale), tandem::as_expression(bias)))
        .item();
}

template <class L>
void check_loss_gradient(const L& loss) {
    check_gradient([&](const auto&... tensors) { return call_loss(loss, tandem::as_expression(tensors)...); }, image,
                   text, scale, bias);
}

int calls = 0;

/// The identity, which counts how often it is computed.
struct Counted {
    template <class V>
    V operator()(const V& a) const {
        ++calls;
        return a;
    }
};

}  // namespace

TEST_CASE("InfoNCE is the symmetric cross-entropy of the scaled similarities", "[losses]") {
    CHECK(value(InfoNce{}) == Approx(plain_info_nce()).epsilon(1e-12));
    check_gradient([](const auto& x, const auto& y, const auto& s) { return InfoNce{}(x, y, s); }, image, text, scale);
}

TEST_CASE("InfoNCE of identical pairs far apart is near zero, of equal embeddings log N", "[losses]") {
    Tensor<double, Shape<4, 4>> one_hot;
    for (std::size_t i = 0; i < 4; ++i) one_hot(i, i) = 1;
    const Tensor<double, Shape<>> sharp{100};
    CHECK(evaluate(InfoNce{}(one_hot, one_hot, sharp)).item() == Approx(0).margin(1e-12));
    Tensor<double, Shape<4, 4>> same;
    same.fill(0.5);
    CHECK(evaluate(InfoNce{}(same, same, sharp)).item() == Approx(std::log(4.0)));
}

TEST_CASE("the sigmoid loss is the sum over all pairs", "[losses]") {
    CHECK(value(SigmoidLoss{}) == Approx(plain_sigmoid()).epsilon(1e-12));
    check_loss_gradient(SigmoidLoss{});
}

TEST_CASE("the losses stay finite in float at the largest scale", "[losses]") {
    Tensor<float, Shape<dynamic, 2>> x(2), y(2);
    x(0, 0) = y(1, 0) = 1;
    x(1, 0) = y(0, 0) = -1;  // every pair as wrong as can be
    const Tensor<float, Shape<>> largest{100}, offset{-10};
    CHECK(evaluate(InfoNce{}(x, y, largest)).item() == Approx(200));
    CHECK(evaluate(SigmoidLoss{}(x, y, largest, offset)).item() == Approx(110 + 90));
    const auto gradients = tandem::gradient(SigmoidLoss{}(x, y, largest, offset) + InfoNce{}(x, y, largest), x, y);
    for (const float g : std::get<0>(gradients).elements()) CHECK(std::isfinite(g));
}

TEST_CASE("losses are weighted, added and mixed with a user's own", "[losses]") {
    const auto mixed = InfoNce{} + 0.1 * SigmoidLoss{} + 2 * Loss{distance};
    CHECK(value(mixed) == Approx(plain_info_nce() + 0.1 * plain_sigmoid() + 2 * plain_distance()).epsilon(1e-12));
    check_loss_gradient(mixed);
    CHECK(value(0.5f * (InfoNce{} + InfoNce{})) == Approx(plain_info_nce()).epsilon(1e-12));
}

TEST_CASE("a composed loss takes a bias if one of its parts does", "[losses]") {
    using Matrix = decltype(tandem::as_expression(image));
    using Scalar = decltype(tandem::as_expression(scale));
    const auto takes_bias = []<class L>(const L&) { return std::invocable<const L&, Matrix, Matrix, Scalar, Scalar>; };
    const auto takes_none = []<class L>(const L&) { return std::invocable<const L&, Matrix, Matrix, Scalar>; };
    const auto plain = InfoNce{} + 2 * Loss{distance};
    CHECK(takes_none(plain));
    CHECK_FALSE(takes_bias(plain));
    CHECK(evaluate(plain(image, text, scale)).item() == Approx(plain_info_nce() + 2 * plain_distance()).epsilon(1e-12));
    const auto biased = 0.5 * (0.1 * SigmoidLoss{} + InfoNce{});
    CHECK(takes_bias(biased));
    CHECK_FALSE(takes_none(biased));
}

TEST_CASE("a lambda alone is a loss, with or without a bias", "[losses]") {
    CHECK(value(distance) == Approx(plain_distance()).epsilon(1e-12));
    const auto biased = [](const auto& x, const auto& y, const auto& s, const auto& b) { return mean(x * y) * s + b; };
    CHECK(value(Loss{biased}) == Approx(value(biased)).epsilon(1e-15));
    CHECK(value(3 * Loss{biased} + Loss{distance}) == Approx(3 * value(biased) + plain_distance()).epsilon(1e-12));
}

TEST_CASE("InfoNCE computes its similarities once", "[losses]") {
    // Both directions read one matrix product: the fewer, the faster a step. Seen by counting what the product reads.
    calls = 0;
    evaluate(InfoNce{}(tandem::apply<Counted>(image), text, scale));
    const int once = calls;
    calls = 0;
    evaluate(sum(matmul(tandem::apply<Counted>(image), transpose(text))));
    CHECK(once == calls);
}

TEST_CASE("matryoshka sums the loss of normalised prefixes", "[losses]") {
    const auto prefix_loss = [](std::size_t length) {
        Tensor<double, Shape<dynamic, dynamic>> a(pairs, length), b(pairs, length);
        for (std::size_t i = 0; i < pairs; ++i) {
            double aa = 0, bb = 0;
            for (std::size_t j = 0; j < length; ++j) {
                aa += image(i, j) * image(i, j);
                bb += text(i, j) * text(i, j);
            }
            for (std::size_t j = 0; j < length; ++j) {
                a(i, j) = image(i, j) / std::sqrt(aa);
                b(i, j) = text(i, j) / std::sqrt(bb);
            }
        }
        return evaluate(InfoNce{}(tandem::as_expression(a), tandem::as_expression(b), tandem::as_expression(scale))).item();
    };
    const auto expression = tandem::matryoshka<2, 5, 7>(InfoNce{})(
        tandem::as_expression(image), tandem::as_expression(text), tandem::as_expression(scale));
    CHECK(evaluate(expression).item() == Approx(prefix_loss(2) + prefix_loss(5) + prefix_loss(7)));
    const auto short_image = tandem::truncated<2>(image);
    CHECK(short_image.extent(1) == 2);
    CHECK(short_image(3, 0) * short_image(3, 0) + short_image(3, 1) * short_image(3, 1) == Approx(1.0));
    check_gradient(
        [](const auto& a, const auto& b, const auto& s, const auto& c) {
            return (tandem::matryoshka<3, 7>(SigmoidLoss{}) + 0.5 * tandem::matryoshka<4>(InfoNce{}))(a, b, s, c);
        },
        image, text, scale, bias);
}

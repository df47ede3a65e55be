#include <catch2/catch.hpp>

#include <tandem/tensor/gradient.hpp>
#include <tandem/tensor/pick.hpp>

#include "../central_differences.hpp"

namespace {

using tandem::diagonal;
using tandem::dynamic;
using tandem::Id;
using tandem::matmul;
using tandem::Shape;
using tandem::sum;
using tandem::Tensor;
using tandem::transpose;

const auto weights = random_tensor<Shape<3, 4>>(99, -1, 1);

}  // namespace

TEST_CASE("gradients of transposes, diagonals and gathered elements", "[tensor]") {
    check_gradient([](const auto& x) { return sum(square(transpose(x)) * weights); },
                   random_tensor<Shape<4, 3>>(1, -1, 1));
    check_gradient([](const auto& x) { return sum(exp(diagonal(x * 2)) * diagonal(x)); },
                   random_tensor<Shape<dynamic, dynamic>>(2, -1, 1, 4, 4));
    const Tensor<Id, Shape<3>> ids{3, 0, 3};
    check_gradient([&](const auto& x) { return sum(square(gather(x, ids)) + gather(exp(x), ids)); },
                   random_tensor<Shape<3, 4>>(3, -1, 1));
}

TEST_CASE("gradients of cross-entropy", "[tensor]") {
    check_gradient([](const auto& x) { return cross_entropy(3 * x, diagonal); }, random_tensor<Shape<4, 4>>(1, -1, 1));
    check_gradient([](const auto& x) { return cross_entropy(transpose(x), diagonal) + cross_entropy(x, diagonal); },
                   random_tensor<Shape<dynamic, dynamic>>(2, -1, 1, 4, 4));
    const Tensor<Id, Shape<dynamic>> ids{2, 0, 1};
    check_gradient([&](const auto& x) { return cross_entropy(x, ids); }, random_tensor<Shape<dynamic, 4>>(3, -1, 1, 3));
}

TEST_CASE("gradients of a network of everything", "[tensor]") {
    const Tensor<Id, Shape<3>> ids{1, 0, 3};
    check_gradient(
        [&](const auto& x, const auto& w, const auto& bias, const auto& gain) {
            const auto centred = x - tandem::mean<1, true>(x);
            const auto normed = centred / sqrt(tandem::mean<1, true>(square(centred)) + 1e-5) * gain;
            const auto hidden = matmul(normed, transpose(w)) + bias;
            const auto gates = hidden * sigmoid(1.702 * hidden);
            return cross_entropy(matmul(gates, w), ids) + 0.1 * mean(max(gates, 0.1)) + 0.01 * sum(normalize(w) * w);
        },
        random_tensor<Shape<3, 5>>(1, -1, 1), random_tensor<Shape<4, 5>>(2, -1, 1), random_tensor<Shape<4>>(3, -1, 1),
        random_tensor<Shape<5>>(4, 0.5, 1.5));
}

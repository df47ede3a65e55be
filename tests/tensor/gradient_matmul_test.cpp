#include <catch2/catch.hpp>

#include <tandem/tensor/gradient.hpp>

#include "../central_differences.hpp"

namespace {

using tandem::matmul;
using tandem::Shape;
using tandem::sum;
using tandem::transpose;

const auto weights = random_tensor<Shape<3, 4>>(99, -1, 1);

}  // namespace

TEST_CASE("gradients of products of matrices and their transposes", "[tensor]") {
    const auto a = random_tensor<Shape<3, 6>>(1, -1, 1);
    const auto at = random_tensor<Shape<6, 3>>(2, -1, 1);
    const auto b = random_tensor<Shape<6, 4>>(3, -1, 1);
    const auto bt = random_tensor<Shape<4, 6>>(4, -1, 1);
    const auto loss = [](const auto& product) { return sum(square(product) * weights); };
    check_gradient([&](const auto& x, const auto& y) { return loss(matmul(x, y)); }, a, b);
    check_gradient([&](const auto& x, const auto& y) { return loss(matmul(transpose(x), y)); }, at, b);
    check_gradient([&](const auto& x, const auto& y) { return loss(matmul(x, transpose(y))); }, a, bt);
    check_gradient([&](const auto& x, const auto& y) { return loss(matmul(transpose(x), transpose(y))); }, at, bt);
}

TEST_CASE("gradients of products of a matrix with itself and of expressions", "[tensor]") {
    check_gradient([](const auto& x) { return sum(exp(matmul(x, transpose(x)))); },
                   random_tensor<Shape<3, 4>>(1, -1, 1));
    check_gradient([](const auto& x) { return sum(square(matmul(x, matmul(x, x)))); },
                   random_tensor<Shape<3, 3>>(2, -1, 1));
    check_gradient([](const auto& x, const auto& y,
                      const auto& scale) { return sum(tanh(scale * matmul(tanh(x) + 1, y * y) - weights) * weights); },
                   random_tensor<Shape<3, 5>>(3, -1, 1), random_tensor<Shape<5, 4>>(4, -1, 1),
                   random_tensor<Shape<>>(5, 0.5, 1));
}

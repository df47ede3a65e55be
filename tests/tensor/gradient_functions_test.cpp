#include <catch2/catch.hpp>

#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/gradient.hpp>

#include "../central_differences.hpp"

namespace {

using tandem::Shape;
using tandem::sum;

/// Weights of the elements of a result, so that a gradient that is transposed or shifted shows.
const auto weights = random_tensor<Shape<3, 5>>(99, -1, 1);

/// The gradient of Σ w · function(x) for x <3, 5>.
template <class Function>
void check_unary(const Function& function, double low, double high) {
    check_gradient([&](const auto& x) { return sum(function(x) * weights); }, random_tensor<Shape<3, 5>>(1, low, high));
}

/// The same for function(x, y) with y of x's shape.
template <class Function>
void check_binary(const Function& function) {
    check_gradient([&](const auto& x, const auto& y) { return sum(function(x, y) * weights); },
                   random_tensor<Shape<3, 5>>(1, 0.5, 2), random_tensor<Shape<3, 5>>(2, 0.5, 2));
}

}  // namespace

TEST_CASE("gradients of functions", "[tensor]") {
    check_unary([](const auto& x) { return -exp(x); }, -2, 2);
    check_unary([](const auto& x) { return log(x); }, 0.5, 3);
    check_unary([](const auto& x) { return sqrt(x); }, 0.5, 3);
    check_unary([](const auto& x) { return tanh(x); }, -2, 2);
    check_unary([](const auto& x) { return erf(x); }, -2, 2);
    check_unary([](const auto& x) { return sigmoid(x); }, -4, 4);
    check_unary([](const auto& x) { return softplus(x); }, -4, 4);
    check_unary([](const auto& x) { return square(x); }, -2, 2);
    // Kinks at 0, which no random number hits within the step.
    check_unary([](const auto& x) { return abs(x); }, -2, 2);
    check_unary([](const auto& x) { return relu(x); }, -2, 2);
}

TEST_CASE("gradients of operators", "[tensor]") {
    check_binary([](const auto& x, const auto& y) { return x + 2 * y; });
    check_binary([](const auto& x, const auto& y) { return x * y - 1; });
    check_binary([](const auto& x, const auto& y) { return x / y; });
    check_binary([](const auto& x, const auto& y) { return max(x, y) * y - min(x, y); });
}

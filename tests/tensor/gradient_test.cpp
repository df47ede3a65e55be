#include <algorithm>
#include <catch2/catch.hpp>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include <tbb/global_control.h>

#include <tandem/tensor/gradient.hpp>

#include "../central_differences.hpp"

namespace {

using tandem::dynamic;
using tandem::gradient;
using tandem::Shape;
using tandem::sum;
using tandem::Tensor;

}  // namespace

TEST_CASE("gradients of a tensor that occurs often", "[tensor]") {
    const auto make = [](const auto& x) {
        return sum(x * x * x - x / (1 + x) + max(x, 0.3) * 2) + sum(exp(x)) * sum(x);
    };
    check_gradient(make, random_tensor<Shape<7>>(1, 0.5, 1.5));
    const auto x = random_tensor<Shape<7>>(1, 0.5, 1.5);
    const auto [value, gradients] = tandem::value_and_gradient(make(x), x);
    CHECK(value == Approx(tandem::evaluate(make(x)).item()).epsilon(1e-15));
    static_assert(std::is_same_v<std::remove_cvref_t<decltype(gradients)>, std::tuple<Tensor<double, Shape<7>>>>);
}

TEST_CASE("where two are equal the gradient goes to the first, or is shared", "[tensor]") {
    const Tensor<double, Shape<2>> a{1, 2}, b{1, 3};
    const auto [to_a, to_b] = gradient(sum(max(a, b)), a, b);
    CHECK(to_a(0) == 1);
    CHECK(to_b(0) == 0);
    CHECK(to_a(1) == 0);
    CHECK(to_b(1) == 1);
    const Tensor<double, Shape<2, 4>> tied{1, 5, 5, 2, 3, 3, 3, 3};
    const auto shared = gradient(sum(tandem::max<1>(tied)), tied);
    const double expected[] = {0, 0.5, 0.5, 0, 0.25, 0.25, 0.25, 0.25};
    CHECK(std::equal(shared.elements().begin(), shared.elements().end(), expected));
}

TEST_CASE("a gradient in float, through bfloat16 weights and views", "[tensor]") {
    Tensor<float, Shape<dynamic, 3>> x(2);
    for (std::size_t i = 0; i < 6; ++i) x.elements()[i] = static_cast<float>(i) / 2;
    const Tensor<tandem::bf16, Shape<3>> scale{1.f, 2.f, 4.f};
    const auto g = gradient(sum(x * x * scale), x);
    for (std::size_t i = 0; i < 2; ++i) {
        for (std::size_t j = 0; j < 3; ++j) CHECK(g(i, j) == 2 * x(i, j) * static_cast<float>(scale(j)));
    }
    const auto second = x.view().slice(1, 2);
    const auto of_slice = gradient(sum(square(second)) * 3, second);
    CHECK(of_slice.extent(0) == 1);
    CHECK(of_slice(0, 2) == 6 * x(1, 2));
}

TEST_CASE("a gradient with respect to what does not occur is an error", "[tensor]") {
    const Tensor<double, Shape<2>> a{1, 2}, b{3, 4}, c{5, 6};
    CHECK_THROWS_WITH(gradient(sum(a * b), c),
                      "gradient: expected tensor 0 to occur in the expression, found none of its memory");
    CHECK_THROWS_WITH(gradient(sum(a * b), a, c),
                      "gradient: expected tensor 1 to occur in the expression, found none of its memory");
    CHECK_NOTHROW(gradient(sum(a * b), a, b));
}

TEST_CASE("the gradient of an elementwise expression is an elementwise expression", "[tensor]") {
    const auto x = random_tensor<Shape<dynamic>>(1, -2, 2, 37), g = random_tensor<Shape<dynamic>>(2, -1, 1, 37);
    const tandem::Variable<double, Shape<dynamic>> variable(x.view());
    const auto function = [](const auto& at) { return at * sigmoid(1.7 * at) + 3 - tanh(at) / 2; };
    const auto fused = tandem::evaluate(elementwise_gradient(function(variable), tandem::as_expression(g)));
    const auto taped = gradient(sum(function(x) * g), x);
    for (std::size_t i = 0; i < x.size(); ++i) CHECK(fused(i) == Approx(taped(i)).epsilon(1e-13));
}

TEST_CASE("gradients have the same bits on any number of threads", "[tensor]") {
    const auto x = random_tensor<Shape<dynamic, dynamic>>(1, -1, 1, 400, 130);
    const auto row = random_tensor<Shape<1, dynamic>>(2, -1, 1, 130);
    const auto make = [&] { return mean(softplus(x * row) * x) + sum(tandem::log_sum_exp<0>(x + row)); };
    const auto [dx, drow] = gradient(make(), x, row);
    for (const std::size_t threads : {1U, 2U, 5U}) {
        const tbb::global_control control(tbb::global_control::max_allowed_parallelism, threads);
        const auto [dx_again, drow_again] = gradient(make(), x, row);
        CHECK(std::equal(dx.elements().begin(), dx.elements().end(), dx_again.elements().begin()));
        CHECK(std::equal(drow.elements().begin(), drow.elements().end(), drow_again.elements().begin()));
    }
}

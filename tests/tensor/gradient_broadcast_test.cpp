#include <catch2/catch.hpp>

#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/gradient.hpp>

#include "../central_differences.hpp"

namespace {

using tandem::dynamic;
using tandem::gradient;
using tandem::Shape;
using tandem::sum;

/// Weights of the elements of a result, so that a gradient that is transposed or shifted shows.
const auto weights = random_tensor<Shape<3, 5>>(99, -1, 1);

}  // namespace

TEST_CASE("gradients of rows and columns that are broadcast", "[tensor]") {
    const auto make = [&](const auto& x, const auto& y) { return sum((x * y - y / x + y) * weights); };
    const auto x = random_tensor<Shape<3, 5>>(1, 0.5, 2);
    check_gradient(make, x, random_tensor<Shape<3, 1>>(4, 0.5, 2));
    check_gradient(make, random_tensor<Shape<5>>(3, 0.5, 2), x);
    check_gradient(make, random_tensor<Shape<5>>(3, 0.5, 2), random_tensor<Shape<3, 1>>(4, 0.5, 2));
}

TEST_CASE("gradients of lines, scalars and numbers", "[tensor]") {
    check_gradient(
        [](const auto& line, const auto& scalar) { return sum((line * weights - scalar) / (3 - scalar) * weights); },
        random_tensor<Shape<1, 5>>(1, 0.5, 2), random_tensor<Shape<>>(2, 0.5, 2));
    check_gradient([](const auto& scalar) { return exp(scalar) * 2 / scalar; }, random_tensor<Shape<>>(3, 0.5, 2));
    check_gradient([](const auto& one, const auto& many) { return sum(square(one * many)); },
                   random_tensor<Shape<2, 1, 3>>(4, 0.5, 2), random_tensor<Shape<dynamic, 1>>(5, 0.5, 2, 4));
    // Greater is a step: no gradient, but the tensor counts as met.
    const auto x = random_tensor<Shape<3, 5>>(6, -1, 1);
    const auto none = gradient(sum(greater(x, 0.0) * weights), x);
    for (const double value : none.elements()) CHECK(value == 0);
}

#include <catch2/catch.hpp>

#include <tandem/tensor/gradient.hpp>

#include "../central_differences.hpp"

namespace {

using tandem::dynamic;
using tandem::Shape;
using tandem::sum;

const auto weights = random_tensor<Shape<3, 5>>(99, -1, 1);
const auto row_weights = random_tensor<Shape<3>>(98, -1, 1);
const auto column_weights = random_tensor<Shape<5>>(97, -1, 1);

template <class Make>
void check_matrix(const Make& make, double low = -2, double high = 2) {
    check_gradient(make, random_tensor<Shape<3, 5>>(1, low, high));
}

}  // namespace

TEST_CASE("gradients of sums and means", "[tensor]") {
    check_matrix([](const auto& x) { return sum(square(sum<1>(x * weights)) * row_weights); });
    check_matrix([](const auto& x) { return sum(square(tandem::mean<0>(x * x)) * column_weights); });
    check_matrix([](const auto& x) { return sum(x / sum<1, true>(x) * weights); }, 0.5, 2);
    check_matrix([](const auto& x) { return mean(square(x - tandem::mean<0, true>(x)) * weights); });
}

TEST_CASE("gradients of maxima", "[tensor]") {
    check_matrix([](const auto& x) { return sum(square(tandem::max<1>(x)) * row_weights); });
    check_matrix([](const auto& x) { return sum(exp(x - tandem::max<0, true>(x)) * weights); });
}

TEST_CASE("gradients of reductions of three axes", "[tensor]") {
    check_gradient(
        [](const auto& x, const auto& y) {
            return sum(square(sum<1>(x * y))) + sum(tandem::log_sum_exp<0>(x) * tandem::max<0>(y));
        },
        random_tensor<Shape<dynamic, 3, 4>>(1, -1, 1, 2), random_tensor<Shape<dynamic, 1, 4>>(2, -1, 1, 2));
}

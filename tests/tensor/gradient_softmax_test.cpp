#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>

#include <tandem/tensor/gradient.hpp>

#include "../central_differences.hpp"

namespace {

using tandem::gradient;
using tandem::Shape;
using tandem::sum;
using tandem::Tensor;

const auto weights = random_tensor<Shape<3, 5>>(99, -1, 1);
const auto row_weights = random_tensor<Shape<3>>(98, -1, 1);
const auto column_weights = random_tensor<Shape<5>>(97, -1, 1);

template <class Make>
void check_matrix(const Make& make, double low = -2, double high = 2) {
    check_gradient(make, random_tensor<Shape<3, 5>>(1, low, high));
}

}  // namespace

TEST_CASE("gradients of log-sum-exp", "[tensor]") {
    check_matrix([](const auto& x) { return sum(square(log_sum_exp(x * 2)) * row_weights); });
    check_matrix([](const auto& x) { return sum(tandem::log_sum_exp<0>(x * weights) * column_weights); });
    check_matrix([](const auto& x) { return sum((x - tandem::log_sum_exp<0, true>(x)) * weights); });
}

TEST_CASE("gradients of softmax and normalize", "[tensor]") {
    check_matrix([](const auto& x) { return sum(softmax(x) * weights); });
    check_matrix([](const auto& x) { return sum(tandem::softmax<0>(x) * weights); });
    check_matrix([](const auto& x) { return sum(normalize(x) * weights); });
    check_matrix([](const auto& x) { return sum(tandem::normalize<0>(x) * weights); });
}

TEST_CASE("the norm of a row of zeros has a gradient of zero", "[tensor]") {
    // As torch.linalg.norm: any subgradient would do, NaN would not. A normalised zero row is x / 1e-12.
    Tensor<double, Shape<2, 3>> x{0, 0, 0, 3, 0, 4};
    const auto of_norm = gradient(sum(norm(x)), x);
    const double expected[] = {0, 0, 0, 0.6, 0, 0.8};
    for (std::size_t i = 0; i < 6; ++i) CHECK(of_norm.elements()[i] == Approx(expected[i]));
    const auto of_normalised = gradient(sum(normalize(x)), x);
    for (std::size_t j = 0; j < 3; ++j) {
        CHECK(of_normalised(0, j) == Approx(1e12));
        CHECK(std::isfinite(of_normalised(1, j)));
    }
}

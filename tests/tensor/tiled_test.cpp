// Scalars computed a tile at a time against the direct form, values and gradients.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>
#include <tuple>
#include <vector>

#include <tbb/global_control.h>

#include <tandem/core/random.hpp>
#include <tandem/tensor/gradient.hpp>
#include <tandem/tensor/matmul.hpp>
#include <tandem/tensor/pick.hpp>
#include <tandem/tensor/reduce.hpp>
#include <tandem/tensor/tiled.hpp>

#include "../central_differences.hpp"

namespace td = tandem;

namespace {

using sizes = std::initializer_list<std::size_t>;

constexpr std::size_t width = 5;
using Matrix = td::Tensor<double, td::Shape<td::dynamic, width>>;
using Scalar = td::Tensor<double, td::Shape<>>;

struct Inputs {
    Matrix x, y;
    Scalar scale, bias;

    explicit Inputs(std::size_t rows, std::size_t columns) : x(rows), y(columns) {
        td::Random random(td::Seed{rows * 100 + columns});
        for (auto* matrix : {&x, &y}) {
            for (double& value : matrix->elements()) value = random.uniform(-1, 1);
        }
        scale.fill(1.7), bias.fill(-0.3);
    }
};

double largest_difference(const auto& a, const auto& b) {
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(static_cast<double>(a.data()[i]) - static_cast<double>(b.data()[i])));
    return most;
}

/// Whether a scalar of x, y, scale and bias and its gradients are the same in tiles of so many rows.
template <class F>
void check(const F& scalar, std::size_t rows, std::size_t columns, std::size_t tile) {
    CAPTURE(rows, columns, tile);
    const Inputs in(rows, columns);
    const auto e = scalar(td::as_expression(in.x), td::as_expression(in.y), td::as_expression(in.scale), td::as_expression(in.bias));
    const auto direct = td::value_and_gradient(e, in.x, in.y, in.scale, in.bias);
    const auto tiled = td::value_and_gradient(td::tiled(e, tile), in.x, in.y, in.scale, in.bias);
    // Sums of a few hundred terms in another order.
    const double tolerance = 1e-12 * std::max(1.0, std::abs(direct.value));
    CHECK(std::abs(direct.value - tiled.value) < tolerance);
    CHECK(std::abs(td::evaluate(td::tiled(e, tile)).item() - direct.value) < tolerance);
    CHECK(largest_difference(std::get<0>(direct.gradients), std::get<0>(tiled.gradients)) < tolerance);
    CHECK(largest_difference(std::get<1>(direct.gradients), std::get<1>(tiled.gradients)) < tolerance);
    CHECK(largest_difference(std::get<2>(direct.gradients), std::get<2>(tiled.gradients)) < tolerance);
    CHECK(largest_difference(std::get<3>(direct.gradients), std::get<3>(tiled.gradients)) < tolerance);
}

const auto logits_of = [](const auto& x, const auto& y, const auto& scale, const auto& bias) {
    return td::matmul(scale * x, td::transpose(y)) + bias;
};

}  // namespace

TEST_CASE("sums over pairs are the same in tiles of any size") {
    const auto info_nce = [](auto x, auto y, auto scale, auto bias) {
        const auto logits = logits_of(x, y, scale, bias);
        return td::mean(0.5 * (td::log_sum_exp<1>(logits) + td::log_sum_exp<0>(logits)) - td::diagonal(logits));
    };
    const auto sigmoid = [](auto x, auto y, auto scale, auto bias) {
        const auto logits = logits_of(x, y, scale, bias);
        return (td::sum(softplus(logits)) - td::sum(td::diagonal(logits))) / 3.0;
    };
    // As a user writes it: logits are scaled afterwards, and one direction is that of the transpose.
    const auto cross_entropies = [](auto x, auto y, auto scale, auto bias) {
        const auto logits = scale * td::matmul(x, td::transpose(y));
        return 0.5 * (td::cross_entropy(logits, td::diagonal) + td::cross_entropy(td::transpose(logits), td::diagonal)) + 0.1 * square(bias);
    };
    const auto of_normalised = [](auto x, auto y, auto scale, auto bias) {
        const auto logits = logits_of(td::normalize(td::first_columns<3>(x)), td::normalize(td::first_columns<3>(y)), scale, bias);
        return -(td::sum(square(logits)) * 0.2) + td::mean(td::log_sum_exp<0>(td::transpose(logits)));
    };
    for (const std::size_t count : sizes{1, 2, 7, 16, 33}) {
        for (const std::size_t tile : sizes{1, 2, 5, 16, 100}) {
            check(info_nce, count, count, tile);
            check(sigmoid, count, count, tile);
            check(cross_entropies, count, count, tile);
            check(of_normalised, count, count, tile);
        }
    }
    // More columns than rows, which have no diagonal.
    const auto rectangular = [](auto x, auto y, auto scale, auto bias) {
        const auto logits = logits_of(x, y, scale, bias);
        return td::mean(td::log_sum_exp<1>(logits)) + td::mean(td::log_sum_exp<0>(logits)) - td::sum(td::sum<0>(td::tanh(logits)));
    };
    for (const std::size_t tile : sizes{3, 8}) check(rectangular, 6, 19, tile);
}

TEST_CASE("operands of extent one are a part of every row and column, and extents may be fixed") {
    const td::Tensor<double, td::Shape<1>> shift{1.5};
    const auto shifted = [&](auto x, auto y, auto scale, auto bias) {
        const auto logits = logits_of(x, y, scale, bias) + shift;
        return td::sum(td::diagonal(logits) + shift) + td::mean(shift - td::log_sum_exp<1>(logits));
    };
    for (const std::size_t tile : sizes{1, 2, 9}) check(shifted, 5, 5, tile);
    const auto of_fixed = [](const auto& x, const auto& y) {
        const auto logits = td::matmul(x, td::transpose(y));
        const auto e = td::mean(0.5 * (td::log_sum_exp<1>(logits) + td::log_sum_exp<0>(logits)) - td::diagonal(logits));
        const auto direct = td::value_and_gradient(e, x, y), tiled = td::value_and_gradient(td::tiled(e, 2), x, y);
        CHECK(tiled.value == Approx(direct.value).margin(1e-12));
        CHECK(largest_difference(std::get<0>(direct.gradients), std::get<0>(tiled.gradients)) < 1e-12);
        CHECK(largest_difference(std::get<1>(direct.gradients), std::get<1>(tiled.gradients)) < 1e-12);
    };
    of_fixed(random_tensor<td::Shape<5, 4>>(1, -1, 1), random_tensor<td::Shape<5, 4>>(2, -1, 1));
    of_fixed(random_tensor<td::Shape<1, 4>>(3, -1, 1), random_tensor<td::Shape<1, 4>>(4, -1, 1));
    // One tensor as both factors.
    const auto x = random_tensor<td::Shape<td::dynamic, 4>>(5, -1, 1, 7);
    const auto e = td::sum(td::log_sum_exp<0>(td::matmul(x, td::transpose(x))));
    CHECK(largest_difference(td::gradient(e, x), td::gradient(td::tiled(e, 3), x)) < 1e-12);
    CHECK(largest_difference(td::gradient(e, x), td::gradient(td::tiled(e, std::size_t{1} << 40), x)) < 1e-12);
}

TEST_CASE("functions of whole rows are computed some rows at a time") {
    const td::Tensor<td::Id, td::Shape<td::dynamic>> ids{3, 0, 0, 8, 1, 2, 5, 5, 6};
    const auto hardest = [](auto x, auto y, auto scale, auto bias) {
        const auto logits = logits_of(x, y, scale, bias);
        return td::mean(square(td::max<1>(logits) - 0.5 * td::diagonal(logits)) + td::log_sum_exp<1>(logits) * td::sum<1>(x * x));
    };
    const auto picked = [&](auto x, auto y, auto scale, auto bias) { return td::cross_entropy(logits_of(x, y, scale, bias), ids); };
    const auto of_softmax = [](auto x, auto y, auto scale, auto bias) {
        const auto logits = logits_of(x, y, scale, bias);
        return td::sum(td::softmax(logits) * logits);
    };
    for (const std::size_t tile : sizes{1, 2, 4, 9, 50}) {
        check(hardest, 9, 9, tile);
        check(picked, 9, 9, tile);
        check(of_softmax, 9, 9, tile);
    }
}

TEST_CASE("the gradient of a tiled scalar against central differences, weighted and beside others") {
    const Inputs in(6, 6);
    const auto loss = [](const auto& x, const auto& y, const auto& scale, const auto& bias) {
        const auto logits = logits_of(td::as_expression(x), td::as_expression(y), td::as_expression(scale), td::as_expression(bias));
        const auto e = td::mean(td::log_sum_exp<1>(logits) + td::log_sum_exp<0>(logits)) - td::sum(td::diagonal(logits));
        return 0.3 * td::tiled(e, 4) + td::tiled(e, 4) * td::as_expression(scale) + td::mean(square(td::as_expression(x)));
    };
    check_gradient(loss, in.x, in.y, in.scale, in.bias);
}

TEST_CASE("tiles with large logits, with infinite ones, and on any number of threads") {
    const std::size_t count = 40;
    td::Tensor<float, td::Shape<td::dynamic, width>> x(count), y(count);
    td::Random random(td::Seed{2});
    for (auto* matrix : {&x, &y}) {
        for (float& value : matrix->elements()) value = static_cast<float>(random.uniform(-20, 20));
    }
    const auto e = [&] {
        const auto logits = td::matmul(td::as_expression(x), td::transpose(td::as_expression(y)));
        return td::mean(td::log_sum_exp<1>(logits) + td::log_sum_exp<0>(logits));
    };
    const auto direct = td::value_and_gradient(e(), x, y), tiled = td::value_and_gradient(td::tiled(e(), 7), x, y);
    CHECK(tiled.value == Approx(direct.value).epsilon(1e-6));
    CHECK(largest_difference(std::get<0>(direct.gradients), std::get<0>(tiled.gradients)) < 1e-5);  // of up to 2
    {
        const tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
        const auto again = td::value_and_gradient(td::tiled(e(), 7), x, y);
        CHECK(again.value == tiled.value);
        CHECK(largest_difference(std::get<0>(again.gradients), std::get<0>(tiled.gradients)) == 0);
        CHECK(largest_difference(std::get<1>(again.gradients), std::get<1>(tiled.gradients)) == 0);
    }
    x(3, 0) = std::numeric_limits<float>::infinity();
    CHECK(!std::isfinite(td::evaluate(td::tiled(e(), 7)).item()));
    CHECK_THROWS_WITH(td::tiled(e(), 0), Catch::Contains("at least one row"));
}

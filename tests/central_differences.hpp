// Gradients of expressions against central differences.
#pragma once

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>

#include <tandem/core/random.hpp>
#include <tandem/tensor/gradient.hpp>

/// A tensor of uniform numbers.
template <class S, class... Extents>
tandem::Tensor<double, S> random_tensor(std::uint64_t seed, double low, double high, Extents... extents) {
    tandem::Tensor<double, S> tensor(tandem::detail::extents_of<S>(extents...));
    tandem::Random random{tandem::Seed{seed}};
    for (double& value : tensor.elements()) value = random.uniform(low, high);
    return tensor;
}

/// Checks the gradients of make(tensors...), a scalar expression over double tensors, with respect to every element of
/// every tensor. With the step 1e-5 the difference is off by step² / 6 times the third derivative, about 2e-11 of it,
/// and by rounding, about epsilon / step = 2e-11 times the value: 1e-7 leaves room for values and third derivatives of
/// a thousand, which no expression tested here has, and is far below any wrong term.
template <class Make, class... Shapes>
void check_gradient(const Make& make, tandem::Tensor<double, Shapes>... tensors) {
    const auto differentiate = [&] { return tandem::value_and_gradient(make(std::as_const(tensors)...), tensors...); };
    const auto found = differentiate();
    const auto check = [&](auto& tensor, const auto& gradient) {
        REQUIRE(gradient.extents() == tensor.extents());
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < tensor.size(); ++i) {
            double& element = tensor.elements()[i];
            const double held = element, step = 1e-5;
            element = held + step;
            const double above = differentiate().value;
            element = held - step;
            const double below = differentiate().value;
            element = held;
            const double expected = (above - below) / (2 * step), derived = gradient.elements()[i];
            if (std::abs(derived - expected) <= 1e-7 * std::max(1.0, std::abs(expected))) continue;
            ++wrong;
            UNSCOPED_INFO("element " << i << ": " << derived << ", difference " << expected);
        }
        CHECK(wrong == 0);
    };
    [&]<std::size_t... I>(std::index_sequence<I...>) {
        (check(tensors, std::get<I>(found.gradients)), ...);
    }
    (std::index_sequence_for<Shapes...>{});
}

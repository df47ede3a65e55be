// Definitions of train/optimizer.hpp.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <limits>

#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/reduce.hpp>
#include <tandem/train/optimizer.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

template <Real T>
bool all_finite(const Flat<const T>& vector) {
    // 0 times another number is NaN, which no sum loses.
    return evaluate(sum(0.0 * vector)).item() == 0;
}

template <Real T>
double sum_of_squares(const Flat<const T>& vector) {
    return static_cast<double>(evaluate(sum(square(vector))).item());
}

template <Real T>
bool adamw_update(const Flat<T>& parameter, const Flat<const T>& slope, const Flat<T>& first, const Flat<T>& second,
                  double keep, const AdamWFactors& factors) {
    // A block at a time, so that the moments come from memory once.
    constexpr std::size_t block = 4096;
    std::atomic<bool> are_finite = true;
    parallel_for(parameter.size(), block, [&](std::size_t from, std::size_t to) {
        for (; from < to; from += block) {
            const std::size_t end = std::min(from + block, to);
            const auto scaled = factors.gradient_scale * slope.slice(from, end);
            const auto m = first.slice(from, end), v = second.slice(from, end), p = parameter.slice(from, end);
            assign(m, factors.beta1 * m + (1.0 - factors.beta1) * scaled);
            assign(v, factors.beta2 * v + (1.0 - factors.beta2) * (scaled * scaled));
            assign(p, keep * p - factors.step * m / (factors.second_scale * sqrt(v) + factors.eps));
            if (!all_finite<T>(p)) are_finite = false;
        }
    });
    return are_finite;
}

template <Real T>
bool move_mean(const Flat<T>& mean, const Flat<const T>& slope, double momentum) {
    assign(mean, mean - momentum * slope);
    return all_finite<T>(mean);
}

[[gnu::cold]] TANDEM_INLINE void check_option(bool holds, const char* option, const char* expected, double value) {
    if (!holds) throw Error(option, expected, to_text(value));
}

#if defined(TANDEM_COMPILED)
template bool all_finite<float>(const Flat<const float>&);
template double sum_of_squares<float>(const Flat<const float>&);
template bool adamw_update<float>(const Flat<float>&, const Flat<const float>&, const Flat<float>&, const Flat<float>&,
                                  double, const AdamWFactors&);
template bool move_mean<float>(const Flat<float>&, const Flat<const float>&, double);
template bool all_finite<double>(const Flat<const double>&);
template double sum_of_squares<double>(const Flat<const double>&);
template bool adamw_update<double>(const Flat<double>&, const Flat<const double>&, const Flat<double>&,
                                   const Flat<double>&, double, const AdamWFactors&);
template bool move_mean<double>(const Flat<double>&, const Flat<const double>&, double);
#endif

}  // namespace detail

[[gnu::cold]] TANDEM_INLINE void AdamW::check() const {
    const auto is_decay = [](double beta) { return beta >= 0 && beta < 1; };
    const auto is_finite = [](double value) { return std::isfinite(value); };
    detail::check_option(rate > 0 && is_finite(rate), "AdamW.rate", "a finite number above 0", rate);
    detail::check_option(is_decay(beta1), "AdamW.beta1", "a number from 0 to below 1", beta1);
    detail::check_option(is_decay(beta2), "AdamW.beta2", "a number from 0 to below 1", beta2);
    detail::check_option(eps >= std::numeric_limits<float>::min() && is_finite(eps), "AdamW.eps",
                         "a finite number, 1.2e-38 or above", eps);
    detail::check_option(weight_decay >= 0 && is_finite(weight_decay), "AdamW.weight_decay",
                         "a finite number, 0 or above", weight_decay);
}

}  // namespace tandem::inline TANDEM_ABI

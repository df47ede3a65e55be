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

/// update(from, to) on parts of a parameter, which says whether the part's weights are finite.
template <class Update>
bool update_in_parts(std::size_t size, const Update& update) {
    // A block at a time, so that the moments come from memory once.
    constexpr std::size_t block = 4096;
    std::atomic<bool> are_finite = true;
    parallel_for(size, block, [&](std::size_t from, std::size_t to) {
        for (; from < to; from += block) {
            if (!update(from, std::min(from + block, to))) are_finite = false;
        }
    });
    return are_finite;
}

template <Real T>
bool adamw_update(const Flat<T>& parameter, const Flat<const T>& slope, const Flat<T>& first, const Flat<T>& second,
                  double decay, const AdamWFactors& factors) {
    double step = factors.step, keep = 1.0 - decay;
    if (factors.clip_update) {
        const auto scaled = factors.gradient_scale * slope;
        const double scale = factors.second_scale * factors.second_scale, floor = factors.eps * factors.eps;
        const auto squares = square(scaled) / max(scale * (factors.beta2 * second + (1.0 - factors.beta2) * square(scaled)), floor);
        const double excess = std::sqrt(static_cast<double>(evaluate(sum(squares)).item()) / static_cast<double>(parameter.size()));
        step /= std::max(1.0, excess);
        keep = 1.0 - decay / std::max(1.0, excess);
    }
    return update_in_parts(parameter.size(), [&](std::size_t from, std::size_t end) {
        const auto scaled = factors.gradient_scale * slope.slice(from, end);
        const auto m = first.slice(from, end), v = second.slice(from, end), p = parameter.slice(from, end);
        assign(m, factors.beta1 * m + (1.0 - factors.beta1) * scaled);
        assign(v, factors.beta2 * v + (1.0 - factors.beta2) * (scaled * scaled));
        assign(p, keep * p - step * m / (factors.second_scale * sqrt(v) + factors.eps));
        return all_finite<T>(p);
    });
}

template <Real T>
bool lion_update(const Flat<T>& parameter, const Flat<const T>& slope, const Flat<T>& momentum, double keep, const LionFactors& factors) {
    return update_in_parts(parameter.size(), [&](std::size_t from, std::size_t end) {
        const auto scaled = factors.gradient_scale * slope.slice(from, end);
        const auto m = momentum.slice(from, end), p = parameter.slice(from, end);
        const auto direction = factors.beta1 * m + (1.0 - factors.beta1) * scaled;
        assign(p, keep * p - factors.step * (greater(direction, 0.0) - greater(0.0, direction)));
        assign(m, factors.beta2 * m + (1.0 - factors.beta2) * scaled);
        return all_finite<T>(p);
    });
}

template <Real T>
bool sgd_update(const Flat<T>& parameter, const Flat<const T>& slope, const Flat<T>& momentum, const SgdFactors& factors) {
    return update_in_parts(parameter.size(), [&](std::size_t from, std::size_t end) {
        const auto m = momentum.slice(from, end), p = parameter.slice(from, end);
        const auto whole = factors.gradient_scale * slope.slice(from, end) + factors.decay * p;
        assign(m, factors.momentum * m + whole);
        if (factors.nesterov) {
            assign(p, p - factors.step * (whole + factors.momentum * m));
        } else {
            assign(p, p - factors.step * m);
        }
        return all_finite<T>(p);
    });
}

template <Real T>
void move_average(const Flat<T>& average, const Flat<const T>& parameter, double decay) {
    assign(average, decay * average + (1.0 - decay) * parameter);
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
template bool lion_update<float>(const Flat<float>&, const Flat<const float>&, const Flat<float>&, double, const LionFactors&);
template bool sgd_update<float>(const Flat<float>&, const Flat<const float>&, const Flat<float>&, const SgdFactors&);
template void move_average<float>(const Flat<float>&, const Flat<const float>&, double);
template bool move_mean<float>(const Flat<float>&, const Flat<const float>&, double);
template bool all_finite<double>(const Flat<const double>&);
template double sum_of_squares<double>(const Flat<const double>&);
template bool adamw_update<double>(const Flat<double>&, const Flat<const double>&, const Flat<double>&,
                                   const Flat<double>&, double, const AdamWFactors&);
template bool lion_update<double>(const Flat<double>&, const Flat<const double>&, const Flat<double>&, double, const LionFactors&);
template bool sgd_update<double>(const Flat<double>&, const Flat<const double>&, const Flat<double>&, const SgdFactors&);
template void move_average<double>(const Flat<double>&, const Flat<const double>&, double);
template bool move_mean<double>(const Flat<double>&, const Flat<const double>&, double);
#endif

}  // namespace detail

namespace detail {

/// Of a number that a mean keeps of the past.
[[gnu::cold]] TANDEM_INLINE void check_decay(const char* option, double value) {
    check_option(value >= 0 && value < 1, option, "a number from 0 to below 1", value);
}

[[gnu::cold]] TANDEM_INLINE void check_rate(const char* option, double value) {
    check_option(value > 0 && std::isfinite(value), option, "a finite number above 0", value);
}

[[gnu::cold]] TANDEM_INLINE void check_weight_decay(const char* option, double value) {
    check_option(value >= 0 && std::isfinite(value), option, "a finite number, 0 or above", value);
}

}  // namespace detail

[[gnu::cold]] TANDEM_INLINE void AdamW::check() const {
    detail::check_rate("AdamW.rate", rate);
    detail::check_decay("AdamW.beta1", beta1);
    detail::check_decay("AdamW.beta2", beta2);
    detail::check_option(eps >= std::numeric_limits<float>::min() && std::isfinite(eps), "AdamW.eps", "a finite number, 1.2e-38 or above", eps);
    detail::check_weight_decay("AdamW.weight_decay", weight_decay);
}

[[gnu::cold]] TANDEM_INLINE void Lion::check() const {
    detail::check_rate("Lion.rate", rate);
    detail::check_decay("Lion.beta1", beta1);
    detail::check_decay("Lion.beta2", beta2);
    detail::check_weight_decay("Lion.weight_decay", weight_decay);
}

[[gnu::cold]] TANDEM_INLINE void Sgd::check() const {
    detail::check_rate("Sgd.rate", rate);
    detail::check_decay("Sgd.momentum", momentum);
    detail::check_weight_decay("Sgd.weight_decay", weight_decay);
}

}  // namespace tandem::inline TANDEM_ABI

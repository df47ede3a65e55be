// Definitions of train/optimizer.hpp.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <functional>
#include <limits>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/packed.hpp>
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
using Matrix = Tensor<T, Shape<dynamic, dynamic>>;

/// A matrix with the same singular vectors, whose singular values are about 1 (between 0.7 and 1.2): five steps of an odd polynomial of degree 5,
/// X (a + b XᵀX + c (XᵀX)²), whose coefficients are Jordan's, as torch.optim.Muon has them. `x` has no fewer rows than columns. Products are A's.
template <Arithmetic A>
Matrix<Compute<A>> orthogonalized(Matrix<Compute<A>> x) {
    constexpr double a = 3.4445, b = -4.775, c = 2.0315, least_norm = 1e-7;
    const std::size_t rows = x.extent(0), columns = x.extent(1);
    assign(x, x * (1.0 / std::max(std::sqrt(static_cast<double>(evaluate(sum(square(x))).item())), least_norm)));
    Matrix<Compute<A>> gram(columns, columns), polynomial(columns, columns), next(rows, columns);
    PackedWeight<A> packed_gram(columns, columns), packed_polynomial(columns, columns);
    for (int i = 0; i < 5; ++i) {
        // As the gradient of a layer whose inputs are its outputs' gradients.
        packed_gram.fill(0);
        packed_polynomial.product_backward(rows, {x.data(), columns}, {x.data(), columns}, {nullptr, columns}, packed_gram, 0, columns);
        packed_gram.unpack(gram.data());
        packed_gram.product(columns, {gram.data(), columns}, {polynomial.data(), columns}, {});
        assign(polynomial, b * gram + c * polynomial);
        for (std::size_t j = 0; j < columns; ++j) polynomial(j, j) += static_cast<Compute<A>>(a);
        packed_polynomial.pack(polynomial.data());
        packed_polynomial.product(rows, {x.data(), columns}, {next.data(), columns}, {});
        std::swap(x, next);
    }
    return x;
}

template <Real T>
bool muon_update(const Flat<T>& parameter, const Flat<const T>& slope, const Flat<T>& momentum, const MatrixOrder& order, const MuonFactors& factors) {
    const auto scaled = factors.gradient_scale * slope;
    assign(momentum, momentum + (1.0 - factors.momentum) * (scaled - momentum));
    // Row by row; of panels, what is no element stays out.
    const bool is_tall = order.rows > order.columns;
    Matrix<T> direction(std::max(order.rows, order.columns), std::min(order.rows, order.columns));
    const auto for_each_element = [&](const auto& visit) {
        parallel_for(order.rows, 16, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i)
                order.for_each_column(i, [&](std::size_t j, std::size_t at) { visit(at, is_tall ? direction(i, j) : direction(j, i)); });
        });
    };
    const auto share = static_cast<T>(factors.momentum), scale = static_cast<T>(factors.gradient_scale);
    for_each_element([&](std::size_t k, T& to) {
        const T mean = momentum(k), here = scale * slope(k);
        to = factors.nesterov ? here + share * (mean - here) : mean;
    });
    if constexpr (std::same_as<T, float>) {
        direction = order.is_reduced ? orthogonalized<amp_bf16>(std::move(direction)) : orthogonalized<float>(std::move(direction));
    } else {
        direction = orthogonalized<T>(std::move(direction));
    }
    const auto keep = static_cast<T>(factors.keep), step = static_cast<T>(0.2 * std::sqrt(static_cast<double>(direction.extent(0))) * factors.step);
    for_each_element([&](std::size_t k, const T& by) { parameter(k) = keep * parameter(k) - step * by; });
    return all_finite<T>(parameter);
}

TANDEM_INLINE bool all_true(const std::vector<std::function<bool()>>& tasks) {
    std::atomic<bool> are_true = true;
    parallel_for(tasks.size(), 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            if (!tasks[i]()) are_true = false;
        }
    });
    return are_true;
}

TANDEM_INLINE bool is_of_block(std::string_view name) {
    std::string_view before;
    while (!name.empty()) {
        const std::size_t end = std::min(name.find('.'), name.size());
        const std::string_view part = name.substr(0, end);
        if (!part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos) return before.find("proj") == std::string_view::npos;
        before = part;
        name.remove_prefix(std::min(end + 1, name.size()));
    }
    return false;
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
template bool muon_update<float>(const Flat<float>&, const Flat<const float>&, const Flat<float>&, const MatrixOrder&, const MuonFactors&);
template void move_average<float>(const Flat<float>&, const Flat<const float>&, double);
template bool move_mean<float>(const Flat<float>&, const Flat<const float>&, double);
template bool all_finite<double>(const Flat<const double>&);
template double sum_of_squares<double>(const Flat<const double>&);
template bool adamw_update<double>(const Flat<double>&, const Flat<const double>&, const Flat<double>&,
                                   const Flat<double>&, double, const AdamWFactors&);
template bool lion_update<double>(const Flat<double>&, const Flat<const double>&, const Flat<double>&, double, const LionFactors&);
template bool sgd_update<double>(const Flat<double>&, const Flat<const double>&, const Flat<double>&, const SgdFactors&);
template bool muon_update<double>(const Flat<double>&, const Flat<const double>&, const Flat<double>&, const MatrixOrder&, const MuonFactors&);
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

[[gnu::cold]] TANDEM_INLINE void check_eps(const char* option, double value) {
    check_option(value >= std::numeric_limits<float>::min() && std::isfinite(value), option, "a finite number, 1.2e-38 or above", value);
}

[[gnu::cold]] TANDEM_INLINE void check_weight_decay(const char* option, double value) {
    check_option(value >= 0 && std::isfinite(value), option, "a finite number, 0 or above", value);
}

}  // namespace detail

[[gnu::cold]] TANDEM_INLINE void AdamW::check() const {
    detail::check_rate("AdamW.rate", rate);
    detail::check_decay("AdamW.beta1", beta1);
    detail::check_decay("AdamW.beta2", beta2);
    detail::check_eps("AdamW.eps", eps);
    detail::check_weight_decay("AdamW.weight_decay", weight_decay);
}

TANDEM_INLINE detail::AdamWFactors AdamW::factors(std::size_t updates, double step_rate, double gradient_scale) const {
    const double count = static_cast<double>(updates);
    return {beta1, beta2, eps, step_rate / (1.0 - std::pow(beta1, count)), 1.0 / std::sqrt(1.0 - std::pow(beta2, count)), gradient_scale, clip_update};
}

[[gnu::cold]] TANDEM_INLINE void Lion::check() const {
    detail::check_rate("Lion.rate", rate);
    detail::check_decay("Lion.beta1", beta1);
    detail::check_decay("Lion.beta2", beta2);
    detail::check_weight_decay("Lion.weight_decay", weight_decay);
}

[[gnu::cold]] TANDEM_INLINE void Muon::check() const {
    detail::check_rate("Muon.rate", rate);
    detail::check_decay("Muon.momentum", momentum);
    detail::check_decay("Muon.beta1", beta1);
    detail::check_decay("Muon.beta2", beta2);
    detail::check_eps("Muon.eps", eps);
    detail::check_weight_decay("Muon.weight_decay", weight_decay);
}

[[gnu::cold]] TANDEM_INLINE void Sgd::check() const {
    detail::check_rate("Sgd.rate", rate);
    detail::check_decay("Sgd.momentum", momentum);
    detail::check_weight_decay("Sgd.weight_decay", weight_decay);
}

}  // namespace tandem::inline TANDEM_ABI

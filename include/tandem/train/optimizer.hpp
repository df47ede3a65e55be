// AdamW, and the norm of a gradient.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>

#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/reduce.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// A parameter as a plain vector: one instantiation of an update serves parameters of every shape.
template <class Tensor>
auto flat(Tensor& tensor) {
    const auto elements = tensor.elements();
    return View<typename decltype(elements)::element_type, Shape<dynamic>>(elements.data(), {{elements.size()}});
}

/// Whether every element is a finite number: 0 times another is NaN, which no sum loses.
template <class Vector>
bool all_finite(const Vector& vector) {
    return evaluate(sum(0.0 * vector)).item() == 0;
}

/// Throws Error, which names the option, unless it holds.
[[gnu::cold]] inline void check_option(bool holds, const char* option, const char* expected, double value) {
    if (!holds) throw Error(option, expected, to_text(value));
}

}  // namespace detail

/// The L2 norm over all parameters of a gradient; not finite if any element is not, running means' included.
template <class Model>
double gradient_norm(const Model& gradient) {
    double squares = 0;
    for_each_parameter(
        [&](const ParameterName&, const auto& tensor) {
            const auto elements = detail::flat(tensor);
            if constexpr (is_running_mean<decltype(tensor)>) {
                if (!detail::all_finite(elements)) squares = std::numeric_limits<double>::quiet_NaN();
            } else {
                squares += static_cast<double>(evaluate(sum(square(elements))).item());
            }
        },
        gradient);
    return std::sqrt(squares);
}

/// AdamW (Loshchilov, Hutter 2019, alg. 2) with torch.optim.AdamW's arithmetic. Matrices decay; vectors and scalars
/// (biases, gains, the class token, the logit scale) do not, as in open_clip (open_clip_train/main.py, exclude), where
/// the class token of timm's towers, which has three dimensions, does.
struct AdamW {
    double rate = 5e-4;
    double beta1 = 0.9;
    double beta2 = 0.98;
    double eps = 1e-6;
    double weight_decay = 0.2;

    /// Elements that are updated together.
    static constexpr std::size_t block = 4096;

    /// The first and second moments are models themselves.
    template <class Model>
    struct State {
        Model first, second;
        std::size_t updates = 0;

        State() { reset(); }

        /// As before the first update.
        void reset() {
            zero_parameters(first);
            zero_parameters(second);
            updates = 0;
        }
    };

    /// Throws Error, which names the member, where one is out of range. An eps below float's smallest normal number
    /// would be 0 beside weights in float, and an update of 0 / 0.
    [[gnu::cold]] void check() const {
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

    /// One update of `model` at learning rate `step_rate`, the gradient multiplied by `gradient_scale` first. Returns
    /// whether all weights are finite after it: at an absurd rate they are not, and the old ones are gone.
    template <class Model>
    bool update(Model& model, const Model& gradient, State<Model>& state, double step_rate,
                double gradient_scale = 1.0) const {
        ++state.updates;
        const double count = static_cast<double>(state.updates);
        const double step = step_rate / (1.0 - std::pow(beta1, count));
        const double second_scale = 1.0 / std::sqrt(1.0 - std::pow(beta2, count));
        std::atomic<bool> are_finite = true;
        for_each_parameter(
            [&]<class Parameter>(const ParameterName&, Parameter& parameter, const Parameter& slope, Parameter& first,
                                 Parameter& second) {
                if constexpr (is_running_mean<Parameter>) {
                    const auto mean = detail::flat(parameter);
                    assign(mean, mean - Parameter::momentum * detail::flat(slope));
                    if (!detail::all_finite(mean)) are_finite = false;
                    return;
                }
                const double keep = Parameter::shape::rank >= 2 ? 1.0 - step_rate * weight_decay : 1.0;
                const auto p = detail::flat(parameter), m = detail::flat(first), v = detail::flat(second);
                const auto g = detail::flat(slope);
                // A block at a time, so that the moments come from memory once.
                parallel_for(p.size(), block, [&](std::size_t from, std::size_t to) {
                    for (; from < to; from += block) {
                        const std::size_t end = std::min(from + block, to);
                        const auto scaled = gradient_scale * g.slice(from, end);
                        const auto m_part = m.slice(from, end), v_part = v.slice(from, end),
                                   p_part = p.slice(from, end);
                        assign(m_part, beta1 * m_part + (1.0 - beta1) * scaled);
                        assign(v_part, beta2 * v_part + (1.0 - beta2) * (scaled * scaled));
                        assign(p_part, keep * p_part - step * m_part / (second_scale * sqrt(v_part) + eps));
                        if (!detail::all_finite(p_part)) are_finite = false;
                    }
                });
            },
            model, gradient, state.first, state.second);
        return are_finite;
    }
};

}  // namespace tandem::inline TANDEM_ABI

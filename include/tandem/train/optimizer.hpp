// AdamW, and the norm of a gradient.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include <tandem/core/parallel.hpp>
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

}  // namespace detail

/// The L2 norm over all parameters of a gradient; not finite if any element is not.
template <class Model>
double gradient_norm(const Model& gradient) {
    double squares = 0;
    for_each_parameter(
        [&](const ParameterName&, const auto& tensor) {
            if constexpr (!is_running_mean<decltype(tensor)>)
                squares += static_cast<double>(evaluate(sum(square(detail::flat(tensor)))).item());
        },
        gradient);
    return std::sqrt(squares);
}

/// AdamW (Loshchilov, Hutter 2019, alg. 2) with torch.optim.AdamW's arithmetic. Matrices decay; vectors and scalars
/// (biases, gains, the logit scale) do not, as in open_clip.
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

        State() {
            zero_parameters(first);
            zero_parameters(second);
        }
    };

    /// One update of `model` at learning rate `step_rate`, the gradient multiplied by `gradient_scale` first.
    template <class Model>
    void update(Model& model, const Model& gradient, State<Model>& state, double step_rate,
                double gradient_scale = 1.0) const {
        ++state.updates;
        const double count = static_cast<double>(state.updates);
        const double step = step_rate / (1.0 - std::pow(beta1, count));
        const double second_scale = 1.0 / std::sqrt(1.0 - std::pow(beta2, count));
        for_each_parameter(
            [&]<class Parameter>(const ParameterName&, Parameter& parameter, const Parameter& slope, Parameter& first,
                                 Parameter& second) {
                if constexpr (is_running_mean<Parameter>) {
                    const auto mean = detail::flat(parameter);
                    return assign(mean, mean - Parameter::momentum * detail::flat(slope));
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
                    }
                });
            },
            model, gradient, state.first, state.second);
    }
};

}  // namespace tandem::inline TANDEM_ABI

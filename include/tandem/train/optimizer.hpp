// AdamW, and the norm of a gradient.
#pragma once

#include <cmath>
#include <cstddef>
#include <string>

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
        [&](const std::string&, const auto& tensor) {
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
            [&]<class Parameter>(const std::string&, Parameter& parameter, const Parameter& slope, Parameter& first,
                                 Parameter& second) {
                const double keep = Parameter::shape::rank >= 2 ? 1.0 - step_rate * weight_decay : 1.0;
                const auto p = detail::flat(parameter), m = detail::flat(first), v = detail::flat(second);
                const auto g = gradient_scale * detail::flat(slope);
                assign(m, beta1 * m + (1.0 - beta1) * g);
                assign(v, beta2 * v + (1.0 - beta2) * (g * g));
                assign(p, keep * p - step * m / (second_scale * sqrt(v) + eps));
            },
            model, gradient, state.first, state.second);
    }
};

}  // namespace tandem::inline TANDEM_ABI

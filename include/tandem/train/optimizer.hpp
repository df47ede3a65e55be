// AdamW, and the norm of a gradient.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>

#include <tandem/nn/parameter.hpp>
#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// A parameter as a plain vector: one instantiation of an update serves parameters of every shape.
template <class Tensor>
auto flat(Tensor& tensor) {
    const auto elements = tensor.elements();
    return View<typename decltype(elements)::element_type, Shape<dynamic>>(elements.data(), {{elements.size()}});
}

template <class T>
using Flat = View<T, Shape<dynamic>>;

/// Whether every element is a finite number.
template <Real T>
bool all_finite(const Flat<const T>& vector);

/// Σ x²; not finite if an element is not.
template <Real T>
double sum_of_squares(const Flat<const T>& vector);

/// What an update of AdamW multiplies by.
struct AdamWFactors {
    double beta1, beta2, eps, step, second_scale, gradient_scale;
};

/// One parameter's update, its moments likewise; `keep` is what weight decay leaves. Returns whether all weights are
/// finite.
template <Real T>
bool adamw_update(const Flat<T>& parameter, const Flat<const T>& slope, const Flat<T>& first, const Flat<T>& second,
                  double keep, const AdamWFactors& factors);

/// parameter -= momentum · slope; whether all are finite.
template <Real T>
bool move_mean(const Flat<T>& mean, const Flat<const T>& slope, double momentum);

/// Throws Error, which names the option, unless it holds.
void check_option(bool holds, const char* option, const char* expected, double value);

}  // namespace detail

/// The L2 norm over all parameters of a gradient; not finite if any element is not, running means' included.
template <class Model>
double gradient_norm(const Model& gradient) {
    double squares = 0;
    for_each_parameter(
        [&](const ParameterName&, const auto& tensor) {
            using T = typename std::remove_cvref_t<decltype(tensor)>::element;
            const auto elements = detail::flat(tensor);
            if constexpr (is_running_mean<decltype(tensor)>) {
                if (!detail::all_finite<T>(elements)) squares = std::numeric_limits<double>::quiet_NaN();
            } else {
                squares += detail::sum_of_squares<T>(elements);
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
    void check() const;

    /// One update of `model` at learning rate `step_rate`, the gradient multiplied by `gradient_scale` first. Returns
    /// whether all weights are finite after it: at an absurd rate they are not, and the old ones are gone.
    template <class Model>
    bool update(Model& model, const Model& gradient, State<Model>& state, double step_rate,
                double gradient_scale = 1.0) const {
        ++state.updates;
        const double count = static_cast<double>(state.updates);
        const double step = step_rate / (1.0 - std::pow(beta1, count));
        const double second_scale = 1.0 / std::sqrt(1.0 - std::pow(beta2, count));
        const detail::AdamWFactors factors{beta1, beta2, eps, step, second_scale, gradient_scale};
        bool are_finite = true;
        for_each_parameter(
            [&]<class Parameter>(const ParameterName&, Parameter& parameter, const Parameter& slope, Parameter& first,
                                 Parameter& second) {
                using T = typename Parameter::element;
                bool is_finite = false;
                if constexpr (is_running_mean<Parameter>) {
                    is_finite = detail::move_mean<T>(detail::flat(parameter), detail::flat(slope), Parameter::momentum);
                } else {
                    const double keep = Parameter::shape::rank >= 2 ? 1.0 - step_rate * weight_decay : 1.0;
                    is_finite = detail::adamw_update<T>(detail::flat(parameter), detail::flat(slope),
                                                        detail::flat(first), detail::flat(second), keep, factors);
                }
                are_finite = are_finite && is_finite;
            },
            model, gradient, state.first, state.second);
        return are_finite;
    }
};

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/train/optimizer.impl.hpp>
#endif

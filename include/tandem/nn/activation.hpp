// Activations: functions over expressions, named in a config by value.
#pragma once

#include <concepts>
#include <cstddef>
#include <numbers>
#include <type_traits>

#include <tandem/core/parallel.hpp>
#include <tandem/kernels/dispatch.hpp>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/gradient.hpp>

namespace tandem::inline TANDEM_ABI {

/// x · Φ(x), Φ the normal distribution function (Hendrycks, Gimpel 2016): torch.nn.GELU().
struct Gelu {
    auto operator()(auto x) const { return 0.5 * x * (1.0 + erf(x * (1.0 / std::numbers::sqrt2))); }
};

/// x · σ(1.702 x): the weights OpenAI published expect it (CLIP/clip/model.py:166-168).
struct QuickGelu {
    auto operator()(auto x) const { return x * sigmoid(1.702 * x); }
};

/// The tanh approximation of GELU: torch.nn.GELU(approximate="tanh").
struct TanhGelu {
    auto operator()(auto x) const {
        constexpr double root = std::numbers::sqrt2 * std::numbers::inv_sqrtpi;
        return 0.5 * x * (1.0 + tanh(root * (x + 0.044715 * (x * x * x))));
    }
};

/// The one of the three above that a model was told when it was made: for programs that open any checkpoint, where
/// every form of every architecture would be compiled. As Gelu until open() tells it.
struct AnyGelu {};

/// x · σ(x): torch.nn.SiLU(), Swish.
struct Silu {
    auto operator()(auto x) const { return x * sigmoid(x); }
};

/// max(0, x).
struct Relu {
    auto operator()(auto x) const { return relu(x); }
};

/// max(0, x)² (So et al. 2021, Primer).
struct SquaredRelu {
    auto operator()(auto x) const { return square(relu(x)); }
};

namespace nn {

/// The kernels' name of an activation that they know; any other is evaluated as an expression.
template <class Activation>
inline constexpr kernels::Activation kernel_activation = kernels::Activation::none;
template <>
inline constexpr kernels::Activation kernel_activation<Gelu> = kernels::Activation::gelu;
template <>
inline constexpr kernels::Activation kernel_activation<QuickGelu> = kernels::Activation::quick_gelu;
template <>
inline constexpr kernels::Activation kernel_activation<TanhGelu> = kernels::Activation::tanh_gelu;
template <>
inline constexpr kernels::Activation kernel_activation<Silu> = kernels::Activation::silu;
template <>
inline constexpr kernels::Activation kernel_activation<Relu> = kernels::Activation::relu;
template <>
inline constexpr kernels::Activation kernel_activation<SquaredRelu> = kernels::Activation::squared_relu;

/// Whether the kernels know an activation of this type, and under which name.
template <class Activation>
inline constexpr bool has_kernel =
    kernel_activation<Activation> != kernels::Activation::none || std::is_same_v<Activation, kernels::Activation>;
/// The kernels' name of an activation, which has_kernel says there is.
template <class Activation>
constexpr kernels::Activation kernel_of(const Activation& activation) {
    if constexpr (std::is_same_v<Activation, kernels::Activation>) {
        return activation;
    } else {
        return kernel_activation<Activation>;
    }
}

namespace detail {

/// Elements a task of an activation has at least.
inline constexpr std::size_t activation_grain = 16384;

template <Real T>
using ActivationInput = Variable<T, Shape<dynamic>>;

/// Whether a callable makes an elementwise expression of one.
template <class Activation, Real T>
constexpr bool is_activation() {
    if constexpr (has_kernel<Activation>) {
        return true;
    } else if constexpr (std::invocable<const Activation&, const ActivationInput<T>&>) {
        return tandem::detail::is_elementwise<
            std::remove_cvref_t<std::invoke_result_t<const Activation&, const ActivationInput<T>&>>>;
    } else {
        return true;  // such as AnyGelu: the part that knows it calls it
    }
}

/// As a class of a plain value: compilers spell out whatever an error stands in.
template <bool is_elementwise>
struct ActivationRules {
    static_assert(is_elementwise,
                  "tandem: an activation must be elementwise: reductions, products and transposes cannot stand in it");
};

template <class Activation, Real T>
auto activated(const Activation& activation, const ActivationInput<T>& input) {
    static_assert(sizeof(ActivationRules<is_activation<Activation, T>()>) > 0);
    if constexpr (is_activation<Activation, T>()) {
        return activation(input);
    } else {
        return input;
    }
}

}  // namespace detail

/// y = activation(x) for `size` elements, in one pass. An activation is any callable that takes an expression and
/// returns an elementwise one, such as a captureless lambda [](auto x) { return x * sigmoid(x); }.
template <class Activation, Real T>
void activate(const Activation& activation, const T* x, T* y, std::size_t size) {
    if constexpr (has_kernel<Activation>) {
        parallel_for(size, detail::activation_grain, [&](std::size_t begin, std::size_t end) {
            kernels::active<T>().activate(kernel_of(activation), x + begin, y + begin, end - begin);
        });
    } else {
        const detail::ActivationInput<T> input(View<const T, Shape<dynamic>>(x, {{size}}));
        tandem::detail::write(View<T, Shape<dynamic>>(y, {{size}}), detail::activated(activation, input));
    }
}

/// In place g = g · activation'(x); the derivative comes from the expression.
template <class Activation, Real T>
void activate_backward(const Activation& activation, const T* x, T* g, std::size_t size) {
    if constexpr (has_kernel<Activation>) {
        parallel_for(size, detail::activation_grain, [&](std::size_t begin, std::size_t end) {
            kernels::active_gradients<T>().activate_backward(kernel_of(activation), x + begin, g + begin, end - begin);
        });
    } else {
        const detail::ActivationInput<T> input(View<const T, Shape<dynamic>>(x, {{size}}));
        const Leaf<T, Shape<dynamic>> upstream(View<const T, Shape<dynamic>>(g, {{size}}));
        tandem::detail::write(View<T, Shape<dynamic>>(g, {{size}}),
                              elementwise_gradient(detail::activated(activation, input), upstream));
    }
}

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI

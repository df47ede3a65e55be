// Reverse-mode gradients of a scalar expression, derived from its type.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/matmul.hpp>
#include <tandem/tensor/reduce.hpp>

namespace tandem::inline TANDEM_ABI {

/// What value_and_gradient returns: the value, and a tensor of every named tensor's own shape.
template <class T, class... Tensors>
struct ValueAndGradient {
    T value;
    std::tuple<Tensors...> gradients;
};

namespace detail {

template <Expression E, TensorOperand... Xs>
auto differentiate(const E& e, const Xs&... tensors) {
    using T = typename E::element;
    std::tuple<Adjoint<typename Xs::element, typename Xs::shape>...> adjoints(tensors.extents()...);
    Tape tape;
    std::apply(
        [&](auto&... adjoint) { (tape.want(View<const typename Xs::element, typename Xs::shape>(tensors), adjoint), ...); },
        adjoints);
    const auto root = prepare(e, tape);
    if (const std::ptrdiff_t unmet = tape.first_unmet(); unmet >= 0) {
        throw Error("gradient", "tensor " + std::to_string(unmet) + " to occur in the expression", "none of its memory");
    }
    Tensor<T, Shape<>> value;
    detail::write(value.view(), root);
    propagate(root, Constant(1.0));
    tape.backward();
    return std::apply(
        [&](auto&... adjoint) {
            return ValueAndGradient<T, std::remove_reference_t<decltype(adjoint.value)>...>{
                value.item(), {std::move(adjoint.value)...}};
        },
        adjoints);
}

}  // namespace detail

/// The value of the scalar expression e and its gradients with respect to `tensors` (tensors or views that occur in e,
/// told apart by the memory they stand in). What both the value and a gradient need is computed once. Throws Error if a
/// tensor does not occur in e.
template <Expression E, TensorOperand... Xs>
auto value_and_gradient(const E& e, const Xs&... tensors) {
    constexpr bool is_scalar = E::shape::rank == 0;
    constexpr bool are_real = (Real<typename Xs::element> && ...);
    static_assert(is_scalar, "tandem: only a scalar expression has a gradient; reduce it with sum or mean");
    static_assert(are_real, "tandem: gradients are taken with respect to float or double tensors");
    if constexpr (is_scalar && are_real) {
        return detail::differentiate(e, tensors...);
    } else {
        return ValueAndGradient<typename E::element, Xs...>{};
    }
}

/// The gradients alone: one tensor, or a tuple where several are asked for.
template <Expression E, TensorOperand... Xs>
auto gradient(const E& e, const Xs&... tensors) {
    auto result = value_and_gradient(e, tensors...);
    if constexpr (sizeof...(Xs) == 1) {
        return std::get<0>(std::move(result.gradients));
    } else {
        return std::move(result.gradients);
    }
}

namespace detail {

/// Whether an expression is a chain of elementwise functions of what stands in memory.
template <class E>
inline constexpr bool is_elementwise = requires(const E& e) { e.cursor(WholeTensor{}); };
template <class F, class... Operands>
inline constexpr bool is_elementwise<Apply<F, Operands...>> = (is_elementwise<Operands> && ...);

/// No gradient flows here.
struct Nothing {};

template <class A, class B>
auto add_parts(const A& a, const B& b) {
    if constexpr (std::same_as<A, Nothing>) {
        return b;
    } else if constexpr (std::same_as<B, Nothing>) {
        return a;
    } else {
        return a + b;
    }
}

}  // namespace detail

/// The gradient with respect to the Variable in the elementwise expression `e`, as an expression, given the gradient g of
/// e: one fused pass computes it.
template <class E, Expression G>
auto elementwise_gradient(const E& e, const G& g) {
    if constexpr (requires { e.operands; }) {
        return [&]<class F, class... Operands, std::size_t... I>(const Apply<F, Operands...>& node,
                                                                std::index_sequence<I...>) {
            const auto part = [&]<std::size_t J>(std::integral_constant<std::size_t, J>) {
                const auto& operand = std::get<J>(node.operands);
                if constexpr (std::same_as<decltype(elementwise_gradient(operand, g)), detail::Nothing>) {
                    return detail::Nothing{};
                } else {
                    return elementwise_gradient(
                        operand,
                        std::apply([&](const auto&... all) { return F::template backward<J>(g, all...); }, node.operands));
                }
            };
            if constexpr (sizeof...(I) == 1) {
                return part(std::integral_constant<std::size_t, 0>{});
            } else {
                static_assert(sizeof...(I) == 2);
                return detail::add_parts(part(std::integral_constant<std::size_t, 0>{}),
                                         part(std::integral_constant<std::size_t, 1>{}));
            }
        }(e, std::make_index_sequence<std::tuple_size_v<decltype(e.operands)>>{});
    } else {
        static_assert(detail::is_elementwise<E>, "tandem: reductions, products and transposes have no elementwise gradient");
        if constexpr (requires { typename E::is_variable; }) {
            return g;
        } else {
            return detail::Nothing{};
        }
    }
}

}  // namespace tandem::inline TANDEM_ABI

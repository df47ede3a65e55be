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

/// The value of the scalar expression e and its gradients with respect to `tensors` (tensors or views that occur in e,
/// told apart by the memory they stand in). What both the value and a gradient need is computed once. Throws Error if a
/// tensor does not occur in e.
template <Expression E, TensorOperand... Xs>
auto value_and_gradient(const E& e, const Xs&... tensors) {
    static_assert(E::shape::rank == 0, "tandem: only a scalar expression has a gradient; reduce it with sum or mean");
    static_assert((Real<typename Xs::element> && ...), "tandem: gradients are taken with respect to float or double tensors");
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

}  // namespace tandem::inline TANDEM_ABI

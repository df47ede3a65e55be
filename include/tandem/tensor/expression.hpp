// Expressions: what to compute, as a type. Nodes hold their operands by value and compute nothing until evaluated.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

#include <tandem/core/dtype.hpp>
#include <tandem/core/memory.hpp>
#include <tandem/core/shape.hpp>
#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI {

/// Every node derives from this. A node has: `element`, the type it computes in; `shape`; extents(); and write_key(),
/// which lists what distinguishes it from other nodes of its type.
struct ExpressionNode {};

/// What to compute, as a type: anything derived from ExpressionNode.
template <class E>
concept Expression = std::derived_from<std::remove_cvref_t<E>, ExpressionNode>;

namespace detail {

template <class T>
inline constexpr bool is_tensor = false;
template <class T, class S>
inline constexpr bool is_tensor<Tensor<T, S>> = true;
template <class T>
inline constexpr bool is_view = false;
template <class T, class S>
inline constexpr bool is_view<View<T, S>> = true;

/// The element of a constant: it takes the type of what it meets.
struct Neutral {};

template <class A, class B>
struct CommonElementOf {
    static_assert(std::is_same_v<A, B>,
                  "tandem: the tensors of an expression must have one element type (bfloat16 counts as float)");
    using type = A;
};
template <class A>
struct CommonElementOf<A, Neutral> {
    using type = A;
};
template <class B>
struct CommonElementOf<Neutral, B> {
    using type = B;
};
template <>
struct CommonElementOf<Neutral, Neutral> {
    using type = Neutral;
};

template <class... Elements>
struct CommonElementFold {
    using type = Neutral;
};
template <class First, class... Rest>
struct CommonElementFold<First, Rest...> {
    using type = typename CommonElementOf<First, typename CommonElementFold<Rest...>::type>::type;
};

template <class Element, class Common>
inline constexpr bool is_element_of = std::is_same_v<Element, Common> || std::is_same_v<Element, Neutral>;

template <class... Shapes>
struct BroadcastFold {
    using type = Shape<>;
};
template <class First, class... Rest>
struct BroadcastFold<First, Rest...> {
    using rest = typename BroadcastFold<Rest...>::type;
    static_assert(can_broadcast<First, rest>,
                  "tandem: the shapes of an elementwise operation do not fit: aligned at the last axis, each pair of "
                  "extents must be equal or 1");
    using type = Broadcast<First, rest>;
};

/// The run-time extents of the operands broadcast together.
inline Extents<0> broadcast_all() { return {}; }

template <class First, class... Rest>
auto broadcast_all(const First& first, const Rest&... rest) {
    return broadcast_extents<typename First::shape, typename BroadcastFold<typename Rest::shape...>::type>(
        first.extents(), broadcast_all(rest...));
}

using Key = RecyclingVector<std::uintptr_t>;

}  // namespace detail

/// What a user may write as an operand: a tensor, a view, an expression, or (beside one of them) a number.
template <class X>
concept TensorOperand = Expression<X> || detail::is_tensor<std::remove_cvref_t<X>> ||
                        detail::is_view<std::remove_cvref_t<X>>;
/// A TensorOperand or a number.
template <class X>
concept AnyOperand = TensorOperand<X> || std::is_arithmetic_v<std::remove_cvref_t<X>>;

/// The gradient of a tensor while it is being collected.
template <Real T, class S>
struct Adjoint : Recycled {
    Tensor<T, S> value;
    bool touched = false;

    explicit Adjoint(const Extents<S::rank>& extents) : value(extents) {}

    /// The sum so far, zero before the first contribution.
    Tensor<T, S>& dense() {
        touched = true;
        return value;
    }
};

/// In place of an index: all axes are walked as one row, which every leaf but scalars has in full.
struct WholeTensor {};

/// Reads a row of contiguous elements. `access` decides what a read is: a vector, a partial vector, or one element.
template <class T>
struct PointerCursor {
    const T* row;

    template <class Access>
    TANDEM_DEVICE auto get(const Access& access) const {
        return access.load(row);
    }
};

/// Repeats one value along a row.
template <class T>
struct SplatCursor {
    T value;

    template <class Access>
    TANDEM_DEVICE auto get(const Access& access) const {
        return access.splat(value);
    }
};

/// Applies an elementwise function to what the cursors of its operands read.
template <class F, class... Cursors>
struct ApplyCursor {
    std::tuple<Cursors...> cursors;

    template <class Access>
    TANDEM_DEVICE auto get(const Access& access) const {
        return get_from(access, std::index_sequence_for<Cursors...>{});
    }

private:
    template <class Access, std::size_t... I>
    TANDEM_DEVICE auto get_from(const Access& access, std::index_sequence<I...>) const {
        return F{}(std::get<I>(cursors).get(access)...);
    }
};

/// A tensor read where it stands. Where a gradient is wanted with respect to it, `adjoint` is where it goes.
template <Element T, class S>
struct Leaf : ExpressionNode {
    using element = Compute<T>;
    using shape = S;
    using AdjointPointer = std::conditional_t<Real<element>, Adjoint<std::conditional_t<Real<element>, element, float>, S>*,
                                              std::nullptr_t>;

    View<const T, S> view;
    AdjointPointer adjoint = nullptr;

    TANDEM_DEVICE explicit Leaf(const View<const T, S>& source, AdjointPointer gradient = nullptr)
        : view(source), adjoint(gradient) {}

    TANDEM_DEVICE const Extents<S::rank>& extents() const { return view.extents(); }
    void write_key(detail::Key& key) const {
        key.push_back(reinterpret_cast<std::uintptr_t>(view.data()));
        for (std::size_t axis = 0; axis < S::rank; ++axis) key.push_back(view.extent(axis));
    }

    /// The row that starts at `index` of a result of any rank this shape broadcasts to; the last index is ignored.
    template <std::size_t Rank>
    TANDEM_DEVICE auto cursor(const Extents<Rank>& index) const {
        // A copy: device code cannot refer to a static member of the host.
        constexpr Extents<S::rank> fixed = S::extents;
        const T* row = view.data();
        std::size_t stride = 1;
        for (std::size_t axis = S::rank; axis-- > 0;) {
            if (axis + 1 < S::rank && fixed[axis] != 1) row += index[axis + Rank - S::rank] * stride;
            stride *= view.extent(axis);
        }
        if constexpr (S::rank == 0 || last_extent_is_one()) {
            return SplatCursor<element>{static_cast<element>(*row)};
        } else {
            return PointerCursor<T>{row};
        }
    }

    TANDEM_DEVICE auto cursor(WholeTensor) const {
        if constexpr (S::rank == 0) {
            return SplatCursor<element>{static_cast<element>(*view.data())};
        } else {
            return PointerCursor<T>{view.data()};
        }
    }

private:
    static constexpr bool last_extent_is_one() { return S::rank > 0 && S::extents[S::rank == 0 ? 0 : S::rank - 1] == 1; }
};

/// A leaf whose type marks it as the one an elementwise expression is differentiated by.
template <Element T, class S>
struct Variable : Leaf<T, S> {
    using is_variable = void;
    using Leaf<T, S>::Leaf;
};

/// A temporary tensor that the expression keeps alive.
template <Element T, class S, class Owner = Tensor<T, S>>
struct Held : ExpressionNode {
    using element = Compute<T>;
    using shape = S;

    std::shared_ptr<const Owner> tensor;

    explicit Held(Owner&& source) : tensor(std::allocate_shared<const Owner>(RecyclingAllocator<Owner>(), std::move(source))) {}

    const Extents<S::rank>& extents() const { return tensor->extents(); }
    void write_key(detail::Key& key) const { key.push_back(reinterpret_cast<std::uintptr_t>(tensor.get())); }
};

/// A number.
struct Constant : ExpressionNode {
    using element = detail::Neutral;
    using shape = Shape<>;

    double value;

    TANDEM_DEVICE constexpr explicit Constant(double number) : value(number) {}

    TANDEM_DEVICE constexpr Extents<0> extents() const { return {}; }
    void write_key(detail::Key& key) const { key.push_back(std::bit_cast<std::uintptr_t>(value)); }

    template <class Index>
    TANDEM_DEVICE auto cursor(const Index&) const {
        return SplatCursor<double>{value};
    }
};

/// An elementwise function of its operands, which are broadcast against one another. F is an empty type with operator()
/// on scalars and SIMD vectors alike, and, to be differentiated, F::template backward<I>(g, operands...), the gradient
/// with respect to operand I given the gradient g of the result.
template <class F, Expression... Operands>
struct Apply : ExpressionNode {
    static_assert(std::is_empty_v<F>, "tandem: an elementwise function must be an empty type; pass numbers as operands");
    using element = typename detail::CommonElementFold<typename Operands::element...>::type;
    using shape = typename detail::BroadcastFold<typename Operands::shape...>::type;

    std::tuple<Operands...> operands;

    explicit Apply(Operands... parts)
        : operands(std::move(parts)...),
          extents_(std::apply([](const auto&... operand) { return detail::broadcast_all(operand...); }, operands)) {}

    TANDEM_DEVICE const Extents<shape::rank>& extents() const { return extents_; }
    void write_key(detail::Key& key) const {
        std::apply([&](const auto&... operand) { (operand.write_key(key), ...); }, operands);
    }

    template <class Index>
    TANDEM_DEVICE auto cursor(const Index& index) const {
        return cursor_from(index, std::index_sequence_for<Operands...>{});
    }

private:
    template <class Index, std::size_t... I>
    TANDEM_DEVICE auto cursor_from(const Index& index, std::index_sequence<I...>) const {
        return ApplyCursor<F, decltype(std::get<I>(operands).cursor(index))...>{{std::get<I>(operands).cursor(index)...}};
    }

    Extents<shape::rank> extents_;
};

/// An expression repeated to a larger shape.
template <class S, Expression E>
struct Expand : ExpressionNode {
    using element = typename E::element;
    using shape = S;

    E operand;

    Expand(E source, const Extents<S::rank>& extents) : operand(std::move(source)), extents_(extents) {
        static_assert(can_broadcast<S, typename E::shape>);
    }

    TANDEM_DEVICE const Extents<S::rank>& extents() const { return extents_; }

    template <class Index>
    TANDEM_DEVICE auto cursor(const Index& index) const {
        return operand.cursor(index);
    }

private:
    Extents<S::rank> extents_;
};

/// The node a user's operand stands for.
template <AnyOperand X>
auto as_expression(X&& x) {
    using Plain = std::remove_cvref_t<X>;
    if constexpr (Expression<Plain>) {
        return Plain(std::forward<X>(x));
    } else if constexpr (std::is_arithmetic_v<Plain>) {
        return Constant(static_cast<double>(x));
    } else if constexpr (detail::is_tensor<Plain> && !std::is_lvalue_reference_v<X>) {
        return Held<typename Plain::element, typename Plain::shape, Plain>(std::move(x));
    } else {
        return Leaf<typename Plain::element, typename Plain::shape>(x);
    }
}

/// The type of as_expression's result.
template <AnyOperand X>
using AsExpression = decltype(as_expression(std::declval<X>()));

/// The elementwise function F of the operands, broadcast against one another; see Apply. For functions of a user's own.
template <class F, AnyOperand... Xs>
auto apply(Xs&&... xs) {
    // What does not fit together has been refused in a sentence, and is no expression that would be refused again.
    using Common = typename detail::CommonElementFold<typename AsExpression<Xs>::element...>::type;
    if constexpr ((detail::is_element_of<typename AsExpression<Xs>::element, Common> && ...)) {
        return Apply<F, AsExpression<Xs>...>(as_expression(std::forward<Xs>(xs))...);
    } else {
        return std::get<0>(std::tuple(as_expression(std::forward<Xs>(xs))...));
    }
}

}  // namespace tandem::inline TANDEM_ABI

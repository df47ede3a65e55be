// Reductions along an axis, and how a gradient flows into an elementwise expression. They share a file because each is
// the other's transpose: the gradient of a broadcast is a sum, that of a sum a broadcast.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>

#include <tandem/core/parallel.hpp>
#include <tandem/kernels/native.hpp>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/expression.hpp>
#include <tandem/tensor/functions.hpp>

namespace tandem::inline TANDEM_ABI {

/// An operand reduced along one axis by Op; the axis vanishes, or is kept as 1.
template <class Op, std::size_t Axis, bool Keep, Expression E>
struct Reduction : ExpressionNode {
    static_assert(Axis < E::shape::rank, "tandem: a reduction's axis must be one of its operand's");
    using has_rule = void;
    using element = typename E::element;
    using shape = WithoutAxis<typename E::shape, Axis < E::shape::rank ? Axis : 0, Keep>;

    E operand;

    explicit Reduction(E source) : operand(std::move(source)) {}

    auto extents() const { return without_axis<Axis, Keep>(operand.extents()); }
    void write_key(detail::Key& key) const { operand.write_key(key); }
};

namespace functions {

// A reduction's accumulator over vectors or scalars V, fed one value at a time; two passes where it needs the maximum.
struct Sum {
    static constexpr bool needs_maximum = false;
    template <class V>
    TANDEM_DEVICE static V combine(const V& sum, const V& x, const V&) {
        return sum + x;
    }
    template <class T>
    TANDEM_DEVICE static T finish(T sum, T) {
        return sum;
    }
    template <class X, class Value, class G>
    static auto backward(const X&, const Value&, const G& g) {
        return g;
    }
};

struct LogSumExp {
    static constexpr bool needs_maximum = true;
    template <class V>
    TANDEM_DEVICE static V combine(const V& sum, const V& x, const V& maximum) {
        return sum + Exp{}(x - maximum);
    }
    template <class T>
    TANDEM_DEVICE static T finish(T sum, T maximum) {
        using std::log;
        return maximum + log(sum);
    }
    template <class X, class Value, class G>
    static auto backward(const X& x, const Value& value, const G& g) {
        return g * exp(x - value);
    }
};

struct Max {
    static constexpr bool needs_maximum = true;
    template <class V>
    TANDEM_DEVICE static V combine(const V& sum, const V&, const V&) {
        return sum;
    }
    template <class T>
    TANDEM_DEVICE static T finish(T, T maximum) {
        return maximum;
    }
    /// The gradient is shared evenly among equal elements, as torch.amax does; Rule<Reduction> counts them.
    static constexpr bool shares_gradient = true;
};

}  // namespace functions

namespace detail {

template <Real T>
inline constexpr T lowest = -std::numeric_limits<T>::infinity();

/// Folds the vectors of a row with combine(accumulator, vector), lanes in a fixed order, the tail one by one.
template <Real T, class Cursor, class Combine, class Finish>
T fold_row(const Cursor& cursor, std::size_t width, T first, const Combine& combine, const Finish& finish) {
    using V = kernels::Batch<T>;
    V vectors(first);
    std::size_t j = 0;
    for (; j + kernels::lanes<T> <= width; j += kernels::lanes<T>) {
        vectors = combine(vectors, cursor.get(VectorAccess<T>{j}));
    }
    T result = j > 0 ? finish(vectors) : first;
    if (j < width) {
        std::array<T, kernels::lanes<T>> tail;
        kernels::store(tail.data(), cursor.get(PartialAccess<T>{j, width - j}));
        for (std::size_t i = 0; i < width - j; ++i) result = combine(result, tail[i]);
    }
    return result;
}

template <class Op, Real T, class Cursor>
T reduce_row(const Cursor& cursor, std::size_t width) {
    using V = kernels::Batch<T>;
    T maximum{0};
    if constexpr (Op::needs_maximum) {
        maximum = fold_row<T>(
            cursor, width, lowest<T>, [](const auto& a, const auto& b) { return functions::Maximum{}(a, b); },
            [](const V& v) { return kernels::reduce_max(v); });
        if (std::isinf(maximum)) return maximum;
    }
    const T sum = fold_row<T>(
        cursor, width, T{0},
        [&](const auto& a, const auto& b) { return Op::combine(a, b, std::remove_cvref_t<decltype(a)>(maximum)); },
        [](const V& v) { return kernels::reduce_sum(v); });
    return Op::finish(sum, maximum);
}

/// Reduces `count` rows, row k's cursor being cursor_of(k), at the columns that `access` reads.
template <class Op, Real T, class Access, class CursorOf>
auto reduce_columns(const Access& access, std::size_t count, const CursorOf& cursor_of) {
    using V = kernels::Batch<T>;
    V maximum(T{0});
    if constexpr (Op::needs_maximum) {
        maximum = V(lowest<T>);
        for (std::size_t k = 0; k < count; ++k) {
            maximum = functions::Maximum{}(maximum, V(cursor_of(k).get(access)));
        }
    }
    V sum(T{0});
    for (std::size_t k = 0; k < count; ++k) sum = Op::combine(sum, V(cursor_of(k).get(access)), maximum);
    std::array<T, kernels::lanes<T>> sums, maxima;
    kernels::store(sums.data(), sum);
    kernels::store(maxima.data(), maximum);
    for (std::size_t i = 0; i < kernels::lanes<T>; ++i) {
        sums[i] = Op::needs_maximum && std::isinf(maxima[i]) ? maxima[i] : Op::finish(sums[i], maxima[i]);
    }
    return kernels::load(sums.data());
}

/// out = Op over `Axis` of the elementwise expression e.
template <class Op, std::size_t Axis, Real T, class E>
void reduce(const E& e, T* out) {
    using S = typename E::shape;
    constexpr std::size_t rank = S::rank;
    const auto extents = e.extents();
    const auto kept = without_axis<Axis, true>(extents);
    if constexpr (Axis + 1 == rank) {
        const std::size_t width = extents[Axis];
        parallel_for(kept.count(), std::max<std::size_t>(1, elements_a_task / std::max<std::size_t>(width, 1)),
                     [&](std::size_t first, std::size_t last) {
                         for (std::size_t row = first; row < last; ++row) {
                             out[row] = reduce_row<Op, T>(e.cursor(row_index(extents, row)), width);
                         }
                     });
    } else {
        const std::size_t width = extents[rank - 1];
        const std::size_t count = extents[Axis];
        const std::size_t vectors = (width + kernels::lanes<T> - 1) / kernels::lanes<T>;
        if (width == 0) return;
        const std::size_t grain = std::max<std::size_t>(1, elements_a_task / (kernels::lanes<T> * std::max<std::size_t>(count, 1)));
        parallel_for(kept.count() / width * vectors, grain, [&](std::size_t first, std::size_t last) {
            for (std::size_t task = first; task < last; ++task) {
                const std::size_t row = task / vectors, j = task % vectors * kernels::lanes<T>;
                auto index = row_index(kept, row);
                const auto cursor_of = [&](std::size_t k) {
                    index[Axis] = k;
                    return e.cursor(index);
                };
                T* const to = out + row * width + j;
                if (j + kernels::lanes<T> <= width) {
                    kernels::store(to, reduce_columns<Op, T>(VectorAccess<T>{j}, count, cursor_of));
                } else {
                    const PartialAccess<T> access{j, width - j};
                    kernels::store_partial(to, reduce_columns<Op, T>(access, count, cursor_of), width - j);
                }
            }
        });
    }
}

template <int Axis, class S>
inline constexpr std::size_t axis_of = Axis < 0 ? S::rank - static_cast<std::size_t>(-Axis)
                                                : static_cast<std::size_t>(Axis);

template <class Op, int Axis, bool Keep, TensorOperand X>
auto make_reduction(X&& x) {
    using E = AsExpression<X>;
    return Reduction<Op, axis_of<Axis, typename E::shape>, Keep, E>(as_expression(std::forward<X>(x)));
}

}  // namespace detail

/// Σ along an axis (the last one unless named; negative axes count from the end). sum<0, true>(x) keeps the axis as 1.
template <int Axis, bool Keep = false, TensorOperand X>
auto sum(X&& x) {
    return detail::make_reduction<functions::Sum, Axis, Keep>(std::forward<X>(x));
}

/// Σ over all elements: a scalar.
template <TensorOperand X>
auto sum(X&& x) {
    if constexpr (AsExpression<X>::shape::rank == 0) {
        return as_expression(std::forward<X>(x));
    } else {
        return sum(sum<-1>(std::forward<X>(x)));
    }
}

template <int Axis, bool Keep = false, TensorOperand X>
auto mean(X&& x) {
    auto e = as_expression(std::forward<X>(x));
    const std::size_t count = e.extents()[detail::axis_of<Axis, typename decltype(e)::shape>];
    return sum<Axis, Keep>(std::move(e)) * (1.0 / static_cast<double>(count));
}

/// The mean of all elements: a scalar.
template <TensorOperand X>
auto mean(X&& x) {
    auto e = as_expression(std::forward<X>(x));
    const double count = static_cast<double>(e.extents().count());
    return sum(std::move(e)) * (1.0 / count);
}

/// The largest element along an axis; its gradient is shared evenly among equal ones.
template <int Axis = -1, bool Keep = false, TensorOperand X>
auto max(X&& x) {
    return detail::make_reduction<functions::Max, Axis, Keep>(std::forward<X>(x));
}

/// log Σ exp(x) along an axis, shifted by the maximum so that it does not overflow.
template <int Axis = -1, bool Keep = false, TensorOperand X>
auto log_sum_exp(X&& x) {
    return detail::make_reduction<functions::LogSumExp, Axis, Keep>(std::forward<X>(x));
}

/// sqrt(Σ x²) along an axis.
template <int Axis = -1, bool Keep = false, TensorOperand X>
auto norm(X&& x) {
    return apply<functions::Norm>(sum<Axis, Keep>(square(std::forward<X>(x))));
}

/// exp(x) / Σ exp(x) along an axis.
template <int Axis = -1, TensorOperand X>
auto softmax(X&& x) {
    const auto e = as_expression(std::forward<X>(x));
    return exp(e - log_sum_exp<Axis, true>(e));
}

/// x / max(‖x‖, 1e-12) along an axis, as torch.nn.functional.normalize.
template <int Axis = -1, TensorOperand X>
auto normalize(X&& x) {
    const auto e = as_expression(std::forward<X>(x));
    return e / max(norm<Axis, true>(e), 1e-12);
}

/// Whether any leaf below wants a gradient.
template <Element T, class S>
bool wants_gradient(const Leaf<T, S>& leaf) {
    return leaf.adjoint != nullptr;
}
inline bool wants_gradient(const Constant&) { return false; }
template <class F, class... Operands>
bool wants_gradient(const Apply<F, Operands...>& node) {
    return std::apply([](const auto&... operand) { return (wants_gradient(operand) || ...); }, node.operands);
}

namespace detail {

/// The first axis of `From` that was broadcast from S; From's rank if none.
template <class S, class From>
constexpr std::size_t broadcast_axis() {
    if (From::rank > S::rank) return 0;
    for (std::size_t axis = 0; axis < From::rank; ++axis) {
        if (S::extents[axis] == 1 && From::extents[axis] != 1) return axis;
    }
    return From::rank;
}

/// adjoint += g, summed over the axes along which the tensor was repeated.
template <Real T, class S, class G>
void accumulate(Adjoint<T, S>& adjoint, const G& g) {
    using From = typename G::shape;
    constexpr std::size_t axis = broadcast_axis<S, From>();
    if constexpr (From::rank >= S::rank && axis < From::rank) {
        constexpr bool keep = From::rank == S::rank;
        const auto extents = without_axis<axis, keep>(g.extents());
        Tensor<T, WithoutAxis<From, axis, keep>> partial(extents);
        reduce<functions::Sum, axis>(g, partial.data());
        accumulate(adjoint, Leaf<T, WithoutAxis<From, axis, keep>>(std::as_const(partial).view()));
    } else {
        const auto target = adjoint.value.view();
        if (adjoint.touched) {
            write(target, apply<functions::Add>(Leaf<T, S>(target), g));
        } else {
            write(target, Expand<S, G>(g, target.extents()));
        }
        adjoint.touched = true;
    }
}

}  // namespace detail

/// propagate(node, g): adds the gradient g of a prepared expression's value to every leaf below that wants one.
template <Element T, class S, class G>
void propagate(const Leaf<T, S>& leaf, const G& g) {
    if constexpr (Real<typename Leaf<T, S>::element>) {
        if (leaf.adjoint != nullptr) detail::accumulate(*leaf.adjoint, g);
    }
}

template <class G>
void propagate(const Constant&, const G&) {}

namespace detail {

template <class F, class... Operands, class G, std::size_t... I>
void propagate_to_operands(const Apply<F, Operands...>& node, const G& g, std::index_sequence<I...>) {
    const auto to = [&]<std::size_t J>(std::integral_constant<std::size_t, J>) {
        const auto& operand = std::get<J>(node.operands);
        if constexpr (!std::same_as<std::remove_cvref_t<decltype(operand)>, Constant>) {
            if (!wants_gradient(operand)) return;
            auto part = std::apply([&](const auto&... all) { return F::template backward<J>(g, all...); }, node.operands);
            propagate(operand, part);
        }
    };
    (to(std::integral_constant<std::size_t, I>{}), ...);
}

}  // namespace detail

template <class F, class... Operands, class G>
void propagate(const Apply<F, Operands...>& node, const G& g) {
    detail::propagate_to_operands(node, g, std::index_sequence_for<Operands...>{});
}

template <class Op, std::size_t Axis, bool Keep, class E>
struct Rule<Reduction<Op, Axis, Keep, E>> {
    using T = typename E::element;
    using S = typename E::shape;
    using Kept = WithoutAxis<S, Axis, true>;
    using Prepared = decltype(prepare(std::declval<const E&>(), std::declval<ValueTape&>()));

    Prepared operand;

    template <bool Gradients>
    Rule(const Reduction<Op, Axis, Keep, E>& node, BasicTape<Gradients>& tape) : operand(prepare(node.operand, tape)) {}

    bool wants_gradient() const { return tandem::wants_gradient(operand); }

    template <class Out>
    void forward(Out& out) const {
        detail::reduce<Op, Axis>(operand, out.data());
    }

    template <class Value>
    void backward(const Value& value, const Value& gradient) const {
        const auto kept = without_axis<Axis, true>(operand.extents());
        const Leaf<T, Kept> g(View<const T, Kept>(gradient.data(), kept));
        const Leaf<T, Kept> y(View<const T, Kept>(value.data(), kept));
        if constexpr (requires { Op::shares_gradient; }) {
            const auto hits = apply<functions::Equal>(operand, y);
            Tensor<T, Kept> count(kept);
            detail::reduce<functions::Sum, Axis>(hits, count.data());
            propagate(operand, g * hits / Leaf<T, Kept>(std::as_const(count).view()));
        } else {
            const auto part = Op::backward(operand, y, g);
            propagate(operand, Expand<S, std::remove_const_t<decltype(part)>>(part, operand.extents()));
        }
    }
};

}  // namespace tandem::inline TANDEM_ABI

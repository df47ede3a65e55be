// Evaluation: elementwise chains as one SIMD pass, rows in parallel; everything else through a tape of results.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

#include <tandem/core/memory.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/kernels/native.hpp>
#include <tandem/tensor/expression.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// Reads a whole vector at column j.
template <Real T>
struct VectorAccess {
    std::size_t j;

    template <class From>
    auto load(const From* row) const {
        return kernels::load(row + j);
    }
    auto splat(double value) const { return kernels::Batch<T>(static_cast<T>(value)); }
};

/// Reads the last, partial vector of a row: the arithmetic is that of a whole one, so an element's bits do not depend
/// on where in a row it stands.
template <Real T>
struct PartialAccess {
    std::size_t j, count;

    template <class From>
    auto load(const From* row) const {
        return kernels::load_partial(row + j, count);
    }
    auto splat(double value) const { return kernels::Batch<T>(static_cast<T>(value)); }
};

template <Real T, class Cursor, class Out>
void write_row(const Cursor& cursor, Out* out, std::size_t first, std::size_t last) {
    std::size_t j = first;
    for (; j + kernels::lanes<T> <= last; j += kernels::lanes<T>) kernels::store(out + j, cursor.get(VectorAccess<T>{j}));
    if (j < last) kernels::store_partial(out + j, cursor.get(PartialAccess<T>{j, last - j}), last - j);
}

/// Whether every leaf is a scalar or has the result's own shape, so that all axes can be walked as one.
template <class S, class E>
constexpr bool is_flat() {
    if constexpr (requires(const E& e) { e.operands; }) {
        return []<class F, class... Ops>(std::type_identity<Apply<F, Ops...>>) {
            return (is_flat<S, Ops>() && ...);
        }(std::type_identity<E>{});
    } else if constexpr (requires(const E& e) { e.operand; }) {
        return is_flat<S, std::remove_cvref_t<decltype(std::declval<E>().operand)>>();
    } else {
        if (E::shape::rank == 0) return true;
        if (E::shape::rank != S::rank) return false;
        for (std::size_t axis = 0; axis < std::min(S::rank, E::shape::rank); ++axis) {
            if (E::shape::extents[axis] == 1 && S::extents[axis] != 1) return false;
        }
        return true;
    }
}

template <std::size_t Rank>
Extents<Rank> row_index(const Extents<Rank>& extents, std::size_t row) {
    Extents<Rank> index{};
    for (std::size_t axis = Rank - (Rank > 0 ? 1 : 0); axis-- > 0;) {
        index[axis] = row % extents[axis];
        row /= extents[axis];
    }
    return index;
}

inline constexpr std::size_t elements_a_task = 16384;

/// out = e for an expression of elementwise nodes and leaves only.
template <class T, class S, class E>
void write(const View<T, S>& out, const E& e) {
    using C = Compute<T>;
    const std::size_t size = out.size();
    if (size == 0) return;
    if constexpr (S::rank == 0 || is_flat<S, E>()) {
        const auto cursor = e.cursor(WholeTensor{});
        parallel_for(size, elements_a_task,
                     [&](std::size_t first, std::size_t last) { write_row<C>(cursor, out.data(), first, last); });
    } else {
        const std::size_t width = out.extent(S::rank - 1);
        parallel_for(size / width, std::max<std::size_t>(1, elements_a_task / width),
                     [&](std::size_t first, std::size_t last) {
                         for (std::size_t row = first; row < last; ++row) {
                             const auto cursor = e.cursor(row_index(out.extents(), row));
                             write_row<C>(cursor, out.data() + row * width, 0, width);
                         }
                     });
    }
}

template <class T>
inline constexpr char type_mark = 0;

/// How many matrix products an elementwise chain reads directly, and whether they have shape S.
template <class S, class E>
inline constexpr std::size_t products_of_shape = 0;
template <class S, class F, class... Operands>
inline constexpr std::size_t products_of_shape<S, Apply<F, Operands...>> = (products_of_shape<S, Operands> + ... + 0);

}  // namespace detail

/// The results of the nodes that an elementwise pass cannot compute (reductions, products, permutations), each computed
/// once however often it occurs, in an order in which operands come first. With Gradients, walked backwards; a tape
/// without them keeps programs that only evaluate from compiling any derivative.
template <bool Gradients>
class BasicTape {
public:
    struct Entry : Recycled {
        virtual ~Entry() = default;
        /// Adds this result's share to the gradients of its operands.
        virtual void backward() {}
    };

    BasicTape() = default;
    /// An empty tape that wants the gradients that another one wants.
    explicit BasicTape(const BasicTape& wants) requires Gradients : targets_(wants.targets_) {}

    /// Names a tensor a gradient is wanted for.
    template <Real T, class S>
    void want(const View<const T, S>& tensor, Adjoint<T, S>& adjoint)
        requires Gradients
    {
        targets_.push_back({tensor.data(), &detail::type_mark<Adjoint<T, S>>, &adjoint, false});
    }

    /// Where the gradient of this tensor goes; nullptr if none is wanted.
    template <Real T, class S>
    Adjoint<T, S>* target(const T* data) {
        for (Target& target : targets_) {
            if (target.data == data && target.type == &detail::type_mark<Adjoint<T, S>>) {
                target.met = true;
                return static_cast<Adjoint<T, S>*>(target.adjoint);
            }
        }
        return nullptr;
    }

    /// The position of the first wanted tensor that no expression contained, or -1.
    std::ptrdiff_t first_unmet() const {
        for (std::size_t i = 0; i < targets_.size(); ++i) {
            if (!targets_[i].met) return static_cast<std::ptrdiff_t>(i);
        }
        return -1;
    }

    /// The leaf that holds the result of `node`.
    template <class Node>
    auto result(const Node& node);

    void keep(std::shared_ptr<const void> owner) { owners_.push_back(std::move(owner)); }

    void backward() {
        for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) entry->entry->backward();
    }

private:
    struct Target {
        const void* data;
        const void* type;
        void* adjoint;
        bool met;
    };
    struct Slot {
        const void* type;
        detail::Key key;
        std::unique_ptr<Entry> entry;
    };

    RecyclingVector<Target> targets_;
    RecyclingVector<Slot> entries_;
    RecyclingVector<std::shared_ptr<const void>> owners_;
};

/// A tape that can be walked backwards.
using Tape = BasicTape<true>;
/// A tape that only evaluates.
using ValueTape = BasicTape<false>;

/// prepare(node, tape): the same expression with elementwise nodes and leaves only.
template <Element T, class S, bool Gradients>
auto prepare(const Leaf<T, S>& leaf, BasicTape<Gradients>& tape) {
    if constexpr (Real<T> && Gradients) {
        return Leaf<T, S>(leaf.view, leaf.adjoint != nullptr ? leaf.adjoint : tape.template target<T, S>(leaf.view.data()));
    } else {
        return leaf;
    }
}

template <Element T, class S, bool Gradients>
auto prepare(const Held<T, S>& held, BasicTape<Gradients>& tape) {
    tape.keep(held.tensor);
    return Leaf<T, S>(held.tensor->view());
}

template <bool Gradients>
auto prepare(const Constant& constant, BasicTape<Gradients>&) { return constant; }

template <class F, class... Operands, bool Gradients>
auto prepare(const Apply<F, Operands...>& node, BasicTape<Gradients>& tape) {
    return std::apply([&](const auto&... operand) { return apply<F>(prepare(operand, tape)...); }, node.operands);
}

template <class S, class E, bool Gradients>
auto prepare(const Expand<S, E>& node, BasicTape<Gradients>& tape) {
    auto operand = prepare(node.operand, tape);
    return Expand<S, decltype(operand)>(std::move(operand), node.extents());
}

/// Every other node has a Rule<Node>: Rule(node, tape) prepares its operands, forward(out) computes it, and
/// backward(value, gradient) passes the gradient on.
template <class Node>
struct Rule;

template <Expression Node, bool Gradients>
    requires requires { typename Node::has_rule; }
auto prepare(const Node& node, BasicTape<Gradients>& tape) {
    return tape.result(node);
}

namespace detail {

template <class Node, bool Gradients>
struct NodeEntry : BasicTape<Gradients>::Entry {
    using T = typename Node::element;
    using S = typename Node::shape;

    Rule<Node> rule;
    Tensor<T, S> value;
    std::unique_ptr<Adjoint<T, S>> adjoint;

    NodeEntry(const Node& node, BasicTape<Gradients>& tape) : rule(node, tape), value(node.extents()) {
        rule.forward(value);
        if constexpr (Gradients) {
            if (rule.wants_gradient()) adjoint = std::make_unique<Adjoint<T, S>>(node.extents());
        }
    }

    void backward() override {
        if constexpr (Gradients) {
            if (adjoint != nullptr && adjoint->touched) rule.backward(value, adjoint->value);
        }
    }
};

}  // namespace detail

template <bool Gradients>
template <class Node>
auto BasicTape<Gradients>::result(const Node& node) {
    using Result = detail::NodeEntry<Node, Gradients>;
    detail::Key key;
    node.write_key(key);
    Result* result = nullptr;
    for (const Slot& slot : entries_) {
        if (slot.type == &detail::type_mark<Node> && slot.key == key) result = static_cast<Result*>(slot.entry.get());
    }
    if (result == nullptr) {
        auto made = std::make_unique<Result>(node, *this);
        result = made.get();
        entries_.push_back({&detail::type_mark<Node>, std::move(key), std::move(made)});
    }
    return Leaf<typename Node::element, typename Node::shape>(std::as_const(result->value).view(), result->adjoint.get());
}

namespace detail {

template <class From, class To>
inline constexpr bool fits_into = can_broadcast<To, From> && To::rank >= From::rank;

}  // namespace detail

/// out = e, computed at once. An elementwise chain may read what it overwrites; any other overlap of out with a tensor
/// in e is only allowed below a reduction or a product, which have been computed before out is written.
template <class T, class S, TensorOperand X>
    requires(!std::is_const_v<T>)
void assign(const View<T, S>& out, X&& x) {
    const auto e = as_expression(std::forward<X>(x));
    using E = std::remove_const_t<decltype(e)>;
    constexpr bool shape_fits = detail::fits_into<typename E::shape, S>;
    constexpr bool element_fits = std::is_same_v<typename E::element, Compute<T>> ||
                                  std::is_same_v<typename E::element, detail::Neutral>;
    static_assert(detail::fits_into<typename E::shape, S>, "tandem: the expression's shape does not fit the tensor it is assigned to");
    static_assert(element_fits || std::is_same_v<typename E::element, Compute<T>>, "tandem: the expression computes in another element type than the tensor it is assigned to");
    if constexpr (shape_fits && element_fits) {
        const auto extents = broadcast_extents<S, typename E::shape>(out.extents(), e.extents());
        if (extents != out.extents()) detail::throw_extents("assign", out.extents(), e.extents());
        if constexpr (Real<T> && detail::products_of_shape<S, E> == 1) {
            assign_through_product(out, e);
        } else {
            ValueTape tape;
            detail::write(out, prepare(e, tape));
        }
    }
}

template <Element T, class S, TensorOperand X>
void assign(Tensor<T, S>& out, X&& x) {
    assign(out.view(), std::forward<X>(x));
}

/// The value of an expression as a tensor that owns its elements.
template <TensorOperand X>
auto evaluate(X&& x) {
    const auto e = as_expression(std::forward<X>(x));
    using E = std::remove_const_t<decltype(e)>;
    Tensor<typename E::element, typename E::shape> result(e.extents());
    assign(result, e);
    return result;
}

}  // namespace tandem::inline TANDEM_ABI

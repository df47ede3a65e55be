// Single elements, rows and columns of a matrix, picked by index.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/expression.hpp>
#include <tandem/tensor/matmul.hpp>
#include <tandem/tensor/reduce.hpp>

namespace tandem::inline TANDEM_ABI {

/// x[i, i] for the square matrix x.
template <Expression E>
struct Diagonal : ExpressionNode {
    static_assert(E::shape::rank == 2 && (E::shape::extents[0] == E::shape::extents[1] ||
                                          E::shape::extents[0] == dynamic || E::shape::extents[1] == dynamic),
                  "tandem: diagonal takes a square matrix");
    using has_rule = void;
    using element = typename E::element;
    using shape = Shape<E::shape::extents[0] == dynamic ? E::shape::extents[1] : E::shape::extents[0]>;

    E operand;

    explicit Diagonal(E source) : operand(std::move(source)) {
        if (operand.extents()[0] != operand.extents()[1]) {
            throw Error("diagonal", "a square matrix", to_string(operand.extents()));
        }
    }

    Extents<1> extents() const { return {{operand.extents()[0]}}; }
    void write_key(detail::Key& key) const { operand.write_key(key); }
};

/// x[i, ids[i]] for the matrix x and one id a row.
template <Expression E, class Ids>
struct Gathered : ExpressionNode {
    static_assert(E::shape::rank == 2 && Ids::rank == 1,
                  "tandem: gather takes a matrix and one id for each of its rows");
    static_assert(extents_broadcast(E::shape::extents[0], Ids::extents[0]) && Ids::extents[0] != 1,
                  "tandem: gather takes a matrix and one id for each of its rows");
    using has_rule = void;
    using element = typename E::element;
    using shape = Ids;

    E operand;
    View<const Id, Ids> ids;

    Gathered(E source, View<const Id, Ids> positions) : operand(std::move(source)), ids(positions) {
        if (ids.size() != operand.extents()[0]) {
            throw Error("gather", std::to_string(operand.extents()[0]) + " ids", std::to_string(ids.size()));
        }
        check_ids("gather", ids.elements(), operand.extents()[1]);
    }

    static void check_ids(const char* where, std::span<const Id> ids, std::size_t limit) {
        for (const Id id : ids) {
            if (id < 0 || static_cast<std::size_t>(id) >= limit) {
                throw Error(where, "ids below " + std::to_string(limit), std::to_string(id));
            }
        }
    }

    Extents<1> extents() const { return {{ids.size()}}; }
    void write_key(detail::Key& key) const {
        operand.write_key(key);
        key.push_back(reinterpret_cast<std::uintptr_t>(ids.data()));
    }
};

namespace detail {

// A class of plain values: compilers spell out whatever an error stands in.
template <std::size_t count, std::size_t columns>
struct ColumnRules {
    static_assert(count <= columns,
                  "tandem: at most as many columns as the matrix has can be taken, of an embedding as many elements");
};

}  // namespace detail

/// The first Count columns of a matrix.
template <Expression E, std::size_t Count>
struct FirstColumns : ExpressionNode {
    static_assert(E::shape::rank == 2 && Count > 0, "tandem: first_columns takes a matrix");
    using has_rule = void;
    using element = typename E::element;
    using shape = Shape<detail::matrix_extent<typename E::shape, 0>, Count>;

    E operand;

    explicit FirstColumns(E source) : operand(std::move(source)) {
        if (operand.extents()[1] < Count) {
            throw Error("first_columns", "at least " + std::to_string(Count) + " columns",
                        to_string(operand.extents()));
        }
    }

    Extents<2> extents() const { return {{operand.extents()[0], Count}}; }
    void write_key(detail::Key& key) const { operand.write_key(key); }
};

/// x[:, 0 .. Count) of the matrix x <M, N>: <M, Count>.
template <std::size_t Count, TensorOperand X>
auto first_columns(X&& x) {
    constexpr std::size_t columns = detail::matrix_extent<typename AsExpression<X>::shape, 1>;
    static_assert(sizeof(detail::ColumnRules<Count, columns>) > 0);
    return FirstColumns<AsExpression<X>, std::min(Count, columns)>(as_expression(std::forward<X>(x)));
}

namespace functions {

struct TakeDiagonal {
    template <TensorOperand X>
    auto operator()(X&& x) const {
        return Diagonal<AsExpression<X>>(as_expression(std::forward<X>(x)));
    }
};

}  // namespace functions

/// diagonal(x) is the `<N>` diagonal of a square matrix; as the target of cross_entropy, `diagonal` says that row i's
/// class is i.
inline constexpr functions::TakeDiagonal diagonal{};

/// x[i, ids[i]]: one element of each row, `<N>`.
template <TensorOperand X, class I>
requires std::convertible_to<const I&, View<const Id, typename I::shape>>
auto gather(X&& x, const I& ids) {
    return Gathered<AsExpression<X>, typename I::shape>(as_expression(std::forward<X>(x)),
                                                        View<const Id, typename I::shape>(ids));
}

template <class E>
struct Rule<Diagonal<E>> : InMemoryRule<E> {
    template <bool Gradients>
    Rule(const Diagonal<E>& node, BasicTape<Gradients>& tape) : InMemoryRule<E>(node.operand, tape) {}

    template <class Out>
    void forward(Out& out) const {
        for (std::size_t i = 0; i < out.size(); ++i) out(i) = this->operand.view(i, i);
    }

    template <class Value>
    void backward(const Value&, const Value& gradient) const {
        auto& target = this->operand.adjoint->dense();
        for (std::size_t i = 0; i < gradient.size(); ++i) target(i, i) += gradient(i);
    }
};

template <class E, std::size_t Count>
struct Rule<FirstColumns<E, Count>> : InMemoryRule<E> {
    template <bool Gradients>
    Rule(const FirstColumns<E, Count>& node, BasicTape<Gradients>& tape) : InMemoryRule<E>(node.operand, tape) {}

    template <class Out>
    void forward(Out& out) const {
        for (std::size_t i = 0; i < out.extent(0); ++i) {
            for (std::size_t j = 0; j < Count; ++j) out(i, j) = this->operand.view(i, j);
        }
    }

    template <class Value>
    void backward(const Value&, const Value& gradient) const {
        auto& target = this->operand.adjoint->dense();
        for (std::size_t i = 0; i < gradient.extent(0); ++i) {
            for (std::size_t j = 0; j < Count; ++j) target(i, j) += gradient(i, j);
        }
    }
};

template <class E, class Ids>
struct Rule<Gathered<E, Ids>> : InMemoryRule<E> {
    View<const Id, Ids> ids;

    template <bool Gradients>
    Rule(const Gathered<E, Ids>& node, BasicTape<Gradients>& tape)
        : InMemoryRule<E>(node.operand, tape), ids(node.ids) {}

    template <class Out>
    void forward(Out& out) const {
        for (std::size_t i = 0; i < out.size(); ++i) out(i) = this->operand.view(i, ids(i));
    }

    template <class Value>
    void backward(const Value&, const Value& gradient) const {
        auto& target = this->operand.adjoint->dense();
        for (std::size_t i = 0; i < gradient.size(); ++i) target(i, ids(i)) += gradient(i);
    }
};

/// The mean over rows of −log softmax(logits)[target], for logits <N, C>. The target is `diagonal` (row i's class is i)
/// or a tensor of ids `<N>`.
template <TensorOperand X>
auto cross_entropy(X&& logits, functions::TakeDiagonal) {
    const auto e = as_expression(std::forward<X>(logits));
    return mean(log_sum_exp<1>(e) - diagonal(e));
}
template <TensorOperand X, class I>
requires std::convertible_to<const I&, View<const Id, typename I::shape>>
auto cross_entropy(X&& logits, const I& targets) {
    const auto e = as_expression(std::forward<X>(logits));
    return mean(log_sum_exp<1>(e) - gather(e, targets));
}

}  // namespace tandem::inline TANDEM_ABI

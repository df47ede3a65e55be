// Expressions cut into rows, and into tiles of the pairs of a matrix product's factors.
#pragma once

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/expression.hpp>
#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/matmul.hpp>
#include <tandem/tensor/pick.hpp>
#include <tandem/tensor/reduce.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// Items [first, last) of an axis.
struct Range {
    std::size_t first, last;
};

/// A shape whose leading extent may be any.
template <class S>
struct OpenRows;
template <std::size_t First, std::size_t... Rest>
struct OpenRows<Shape<First, Rest...>> {
    using type = Shape<dynamic, Rest...>;
};

// What of an expression can be computed from some rows of its factors: rows of it, pairs (a tile of a matrix, from rows of the
// left factor and of the transposed right one), its diagonal. An operand of a lower rank is the same for all.

template <class E>
inline constexpr bool is_same_for_all = E::shape::rank == 0 || (E::shape::rank == 1 && E::shape::extents[0] == 1);
/// A number for every row of pairs, or for every column.
template <class E>
concept NumbersOfRows = E::shape::rank == 2 && E::shape::extents[1] == 1;
template <class E>
concept NumbersOfColumns = E::shape::rank == 1;
template <class E>
inline constexpr bool has_rows = false;
template <class E>
inline constexpr bool has_pairs = false;
template <class E>
inline constexpr bool has_diagonal = false;
template <class E>
inline constexpr bool has_columns = false;

template <Element T, class S>
inline constexpr bool has_rows<Leaf<T, S>> = S::rank > 0;
template <Element T, class S, class Owner>
inline constexpr bool has_rows<Held<T, S, Owner>> = S::rank > 0;
template <class E, std::size_t Count>
inline constexpr bool has_rows<FirstColumns<E, Count>> = has_rows<E>;
template <class E, class Ids>
inline constexpr bool has_rows<Gathered<E, Ids>> = has_rows<E>;
template <class A, class B>
inline constexpr bool has_rows<Product<A, B>> = has_rows<A>;
template <class Op, std::size_t Axis, bool Keep, class E>
inline constexpr bool has_rows<Reduction<Op, Axis, Keep, E>> = Axis > 0 && has_rows<E>;
template <class E>
inline constexpr bool has_rows<Diagonal<E>> = has_diagonal<E>;
template <class F, class... Operands>
inline constexpr bool has_rows<Apply<F, Operands...>> =
    ((Operands::shape::rank < Apply<F, Operands...>::shape::rank ||
      (Operands::shape::extents[0] == 1 && Apply<F, Operands...>::shape::extents[0] != 1) || has_rows<Operands>) && ...);

template <class E>
inline constexpr bool has_columns<Transposed<E>> = has_rows<E>;
template <class A, class B>
inline constexpr bool has_pairs<Product<A, B>> = has_rows<A> && has_columns<B>;
template <class F, class... Operands>
inline constexpr bool has_pairs<Apply<F, Operands...>> =
    ((is_same_for_all<Operands> || ((NumbersOfRows<Operands> || NumbersOfColumns<Operands>) && has_rows<Operands>) || has_pairs<Operands>) && ...);

template <class A, class B>
inline constexpr bool has_diagonal<Product<A, Transposed<B>>> = has_rows<A> && has_rows<B>;
template <class F, class... Operands>
inline constexpr bool has_diagonal<Apply<F, Operands...>> = ((is_same_for_all<Operands> || has_diagonal<Operands>) && ...);

/// The gradient of some rows of a tensor, on its way into the whole one.
struct Part : Recycled {
    virtual ~Part() = default;
    virtual void flush() = 0;
};

template <Real T, class S>
struct PartOf final : Part {
    using Open = typename OpenRows<S>::type;

    Adjoint<T, S>& whole;
    Range range;
    Adjoint<T, Open> own;

    PartOf(Adjoint<T, S>& of, Range rows, const Extents<S::rank>& extents) : whole(of), range(rows), own(extents) {}

    void flush() override {
        if (!own.touched) return;
        const View<T, Open> all(whole.dense().data(), whole.value.extents());
        const auto rows = all.slice(range.first, range.last);
        write(rows, apply<functions::Add>(Leaf<T, Open>(rows), Leaf<T, Open>(std::as_const(own.value).view())));
    }
};

/// Cuts expressions into rows and tiles. Where gradients are wanted, those of the rows go into parts of the whole ones, which
/// `tape` knows.
template <bool Gradients>
class Cutter {
public:
    explicit Cutter(BasicTape<Gradients>& tape) : tape_(&tape) {}

    /// Adds the parts to the gradients that they are parts of.
    void flush() {
        for (const Known& known : known_) known.part->flush();
        known_.clear();
    }

    template <Element T, class S>
    auto rows(const Leaf<T, S>& leaf, Range range) {
        using Open = typename OpenRows<S>::type;
        const auto view = View<const T, Open>(leaf.view.data(), leaf.view.extents()).slice(range.first, range.last);
        if constexpr (Real<T> && Gradients) {
            Adjoint<T, S>* const whole = tape_->template target<T, S>(leaf.view.data());
            if (whole == nullptr) return Leaf<T, Open>(view);
            for (const Known& known : known_) {
                if (known.whole == whole && known.range.first == range.first && known.range.last == range.last)
                    return Leaf<T, Open>(view, &static_cast<PartOf<T, S>*>(known.part.get())->own);
            }
            auto part = std::make_unique<PartOf<T, S>>(*whole, range, view.extents());
            const Leaf<T, Open> leaf_of_part(view, &part->own);
            known_.push_back({whole, range, std::move(part)});
            return leaf_of_part;
        } else {
            return Leaf<T, Open>(view);
        }
    }
    template <Element T, class S, class Owner>
    auto rows(const Held<T, S, Owner>& held, Range range) {
        using Open = typename OpenRows<S>::type;
        return Leaf<T, Open>(View<const T, Open>(held.tensor->data(), held.tensor->extents()).slice(range.first, range.last));
    }
    template <class E, std::size_t Count>
    auto rows(const FirstColumns<E, Count>& node, Range range) {
        return first_columns<Count>(rows(node.operand, range));
    }
    template <class E, class Ids>
    auto rows(const Gathered<E, Ids>& node, Range range) {
        using Open = typename OpenRows<Ids>::type;
        return Gathered<decltype(rows(node.operand, range)), Open>(
            rows(node.operand, range), View<const Id, Open>(node.ids.data(), node.ids.extents()).slice(range.first, range.last));
    }
    template <class A, class B>
    auto rows(const Product<A, B>& node, Range range) {
        return matmul(rows(node.a, range), node.b);
    }
    template <class Op, std::size_t Axis, bool Keep, class E>
    auto rows(const Reduction<Op, Axis, Keep, E>& node, Range range) {
        return Reduction<Op, Axis, Keep, decltype(rows(node.operand, range))>(rows(node.operand, range));
    }
    template <class E>
    auto rows(const Diagonal<E>& node, Range range) {
        return diagonal_of(node.operand, range);
    }
    template <class F, class... Operands>
    auto rows(const Apply<F, Operands...>& node, Range range) {
        constexpr std::size_t rank = Apply<F, Operands...>::shape::rank;
        return on_operands(node, [&]<class E>(const E& operand) {
            if constexpr (E::shape::rank < rank || (E::shape::extents[0] == 1 && Apply<F, Operands...>::shape::extents[0] != 1)) {
                return operand;
            } else {
                return rows(operand, range);
            }
        });
    }

    template <class A, class B>
    auto pairs(const Product<A, B>& node, Range rows_range, Range columns) {
        return matmul(rows(node.a, rows_range), transpose(rows(node.b.operand, columns)));
    }
    template <class F, class... Operands>
    auto pairs(const Apply<F, Operands...>& node, Range rows_range, Range columns) {
        return on_operands(node, [&]<class E>(const E& operand) {
            if constexpr (is_same_for_all<E>) {
                return operand;
            } else if constexpr (NumbersOfRows<E>) {
                return rows(operand, rows_range);
            } else if constexpr (NumbersOfColumns<E>) {
                return rows(operand, columns);
            } else {
                return pairs(operand, rows_range, columns);
            }
        });
    }

private:
    struct Known {
        const void* whole;
        Range range;
        std::unique_ptr<Part> part;
    };

    template <class F, class... Operands, class Change>
    static auto on_operands(const Apply<F, Operands...>& node, const Change& change) {
        return std::apply([&](const auto&... operand) { return apply<F>(change(operand)...); }, node.operands);
    }

    template <class A, class B>
    auto diagonal_of(const Product<A, B>& node, Range range) {
        return sum<1>(rows(node.a, range) * rows(node.b.operand, range));
    }
    template <class F, class... Operands>
    auto diagonal_of(const Apply<F, Operands...>& node, Range range) {
        return on_operands(node, [&]<class E>(const E& operand) {
            if constexpr (is_same_for_all<E>) {
                return operand;
            } else {
                return diagonal_of(operand, range);
            }
        });
    }

    BasicTape<Gradients>* tape_;
    RecyclingVector<Known> known_;
};

}  // namespace detail

}  // namespace tandem::inline TANDEM_ABI

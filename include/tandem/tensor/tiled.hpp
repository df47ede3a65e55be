// Scalars over the pairs of a matrix product, computed a tile at a time: memory for the factors, not for the product.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include <tandem/core/error.hpp>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/expression.hpp>
#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/gradient.hpp>
#include <tandem/tensor/matmul.hpp>
#include <tandem/tensor/pick.hpp>
#include <tandem/tensor/reduce.hpp>
#include <tandem/tensor/rows.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

// The terms of a scalar, each with a number as its factor.

/// Σ over all elements of a matrix of pairs.
struct OfPairs {};
/// Σ over rows, or over columns, of the logarithm of the sum of exponentials of a matrix of pairs.
struct OfRowSums {};
struct OfColumnSums {};
/// Σ over rows of a function of the row.
struct OfRows {};
/// A scalar that is no sum.
struct Plain {};

template <class Kind, class E>
struct Term {
    using kind = Kind;
    E e;
    double weight;
};

/// What is no term: a scalar that is another function of sums; rows that need other rows.
struct NoSum {};
struct OtherRows {};

/// Whether an operand has an element for every one of the result: one of extent 1 is a part of each.
template <class Operand, class E>
inline constexpr bool is_as_long = Operand::shape::rank == E::shape::rank &&
    (E::shape::rank == 0 || Operand::shape::extents[0] != 1 || E::shape::extents[0] == 1);

/// Takes a scalar apart. In a class, so that each of its functions knows all others.
struct Terms {
    /// The terms of a scalar.
    template <class E>
    static auto of(const E& e, double weight) {
        return parts(e, weight, []<class Part>(const Part& part, double factor) {
            if constexpr (is_elementwise<Part>) {
                return std::tuple(Term<Plain, Part>{part, factor});
            } else {
                return sum_terms(part, factor);
            }
        });
    }

private:
    /// What is added up with numbers as factors: all that terms(part, factor) returns of the parts.
    template <class E, class TermsOf>
    static auto parts(const E& e, double weight, const TermsOf& terms) {
        return terms(e, weight);
    }
    template <class F, class A, class B, class TermsOf>
        requires(is_as_long<A, Apply<F, A, B>> && is_as_long<B, Apply<F, A, B>> && (std::same_as<F, functions::Add> || std::same_as<F, functions::Subtract>))
    static auto parts(const Apply<F, A, B>& e, double weight, const TermsOf& terms) {
        return std::tuple_cat(parts(std::get<0>(e.operands), weight, terms),
                              parts(std::get<1>(e.operands), std::same_as<F, functions::Add> ? weight : -weight, terms));
    }
    template <class A, class TermsOf>
    static auto parts(const Apply<functions::Negate, A>& e, double weight, const TermsOf& terms) {
        return parts(std::get<0>(e.operands), -weight, terms);
    }
    template <class A, class TermsOf>
    static auto parts(const Apply<functions::Multiply, Constant, A>& e, double weight, const TermsOf& terms) {
        return parts(std::get<1>(e.operands), weight * std::get<0>(e.operands).value, terms);
    }
    template <class A, class TermsOf>
    static auto parts(const Apply<functions::Multiply, A, Constant>& e, double weight, const TermsOf& terms) {
        return parts(std::get<0>(e.operands), weight * std::get<1>(e.operands).value, terms);
    }
    template <class A, class TermsOf>
    static auto parts(const Apply<functions::Divide, A, Constant>& e, double weight, const TermsOf& terms) {
        return parts(std::get<0>(e.operands), weight / std::get<1>(e.operands).value, terms);
    }

    template <class E>
    static auto sum_terms(const E&, double) {
        return std::tuple(NoSum{});
    }
    template <class E>
    static auto sum_terms(const Reduction<functions::Sum, 0, false, E>& e, double weight) {
        return parts(e.operand, weight, [](const auto& part, double factor) { return row_terms(part, factor); });
    }

    template <class E>
    static auto row_terms(const E& e, double weight) {
        if constexpr (has_rows<E>) {
            return std::tuple(Term<OfRows, E>{e, weight});
        } else {
            return std::tuple(OtherRows{});
        }
    }
    template <std::size_t Axis, class E>
    static auto row_terms(const Reduction<functions::LogSumExp, Axis, false, E>& e, double weight) {
        return log_sum_terms<Axis == 1>(e.operand, weight);
    }
    template <std::size_t Axis, class E>
        requires has_pairs<E>
    static auto row_terms(const Reduction<functions::Sum, Axis, false, E>& e, double weight) {
        return std::tuple(Term<OfPairs, E>{e.operand, weight});
    }
    template <class E>
    static auto row_terms(const Diagonal<Transposed<E>>& e, double weight) {
        return row_terms(diagonal(e.operand.operand), weight);
    }

    template <bool AreRows, class E>
    static auto log_sum_terms(const E& e, double weight) {
        using Kind = std::conditional_t<AreRows, OfRowSums, OfColumnSums>;
        if constexpr (has_pairs<E>) {
            return std::tuple(Term<Kind, E>{e, weight});
        } else if constexpr (AreRows) {
            return row_terms<Reduction<functions::LogSumExp, 1, false, E>>(log_sum_exp<1>(e), weight);
        } else {
            return std::tuple(OtherRows{});
        }
    }
    template <bool AreRows, class E>
    static auto log_sum_terms(const Transposed<E>& e, double weight) {
        return log_sum_terms<!AreRows>(e.operand, weight);
    }
};

template <class Terms, class Fault>
inline constexpr bool has_fault = false;
template <class... Found, class Fault>
inline constexpr bool has_fault<std::tuple<Found...>, Fault> = (std::same_as<Found, Fault> || ...);

/// As a class of plain values: compilers spell out whatever an error stands in.
template <bool is_scalar, bool is_sum, bool is_of_rows>
struct TiledRules {
    static_assert(is_scalar, "tandem: tiled takes a scalar: reduce the expression with sum or mean");
    static_assert(is_sum, "tandem: tiled needs sums or means over rows, added up with numbers as factors: this scalar is another function of them");
    static_assert(is_of_rows,
                  "tandem: tiled computes a row from that row of a matrix product's factors: this expression needs other rows as well (a reduction along "
                  "them, a transpose, or a matrix that is no product)");
};

}  // namespace detail

/// A scalar that is computed a tile at a time; made by tiled().
template <Expression E>
struct Tiled : ExpressionNode {
    using has_rule = void;
    using element = typename E::element;
    using shape = Shape<>;

    E operand;
    std::size_t tile;

    Tiled(E scalar, std::size_t rows) : operand(std::move(scalar)), tile(rows) {
        if (rows == 0) throw Error("tiled", "tiles of at least one row", "0");
    }

    Extents<0> extents() const { return {}; }
    void write_key(detail::Key& key) const {
        operand.write_key(key);
        key.push_back(tile);
    }
};

/// The same scalar, in less memory: sums and means over rows are computed `rows` rows at a time, and where they are over pairs of
/// rows (elements of a matrix product, their log_sum_exp along either axis, its diagonal), in tiles of as many columns. No
/// matrix of all pairs is ever there: its tiles are computed once for the value, and once more for the gradient. A function of
/// a whole row of it has as many rows in hand as make up such a tile. What is not a sum over rows does not compile, and says why.
/// Sums are those of the direct form in another order; they do not depend on the number of threads.
template <Expression E>
auto tiled(const E& scalar, std::size_t rows = 1024) {
    constexpr bool is_scalar = E::shape::rank == 0;
    if constexpr (is_scalar) {
        using Found = decltype(detail::Terms::of(scalar, 1.0));
        constexpr bool is_sum = !detail::has_fault<Found, detail::NoSum>, is_of_rows = !detail::has_fault<Found, detail::OtherRows>;
        static_assert(sizeof(detail::TiledRules<true, is_sum, is_of_rows>) > 0);
        if constexpr (is_sum && is_of_rows) {
            return Tiled<E>(scalar, rows);
        } else {
            return scalar;
        }
    } else {
        static_assert(sizeof(detail::TiledRules<is_scalar, true, true>) > 0);
        return scalar;
    }
}

template <class E>
struct Rule<Tiled<E>> {
    using T = typename E::element;
    using Terms = decltype(detail::Terms::of(std::declval<const E&>(), 1.0));
    using Vector = Tensor<T, Shape<dynamic>>;
    /// Of every row or column: log Σ exp, once all tiles have passed; before that the largest, and the sum of exp of the distances to it.
    struct LogSums {
        Vector largest, sum;
    };
    static constexpr std::size_t count = std::tuple_size_v<Terms>;
    template <class Kind>
    static constexpr bool has() {
        return []<class... Term>(std::type_identity<std::tuple<Term...>>) {
            return (std::same_as<typename Term::kind, Kind> || ...);
        }(std::type_identity<Terms>{});
    }
    static constexpr bool of_pairs = has<detail::OfPairs>() || has<detail::OfRowSums>() || has<detail::OfColumnSums>();

    template <bool Gradients>
    Rule(const Tiled<E>& node, BasicTape<Gradients>& tape) : node_(node), terms_(detail::Terms::of(node_.operand, 1.0)) {
        if constexpr (Gradients) {
            tape_ = &tape;
            detail::visit_leaves(node_.operand, [&]<class View>(const View& view) {
                if constexpr (Real<typename View::element>)
                    wants_ = tape.template target<typename View::element, typename View::shape>(view.data()) != nullptr || wants_;
            });
        }
    }

    bool wants_gradient() const { return wants_; }

    template <class Out>
    void forward(Out& out) {
        double value = 0;
        const auto scalar = [&](const auto& prepared) {
            Tensor<T, Shape<>> result;
            detail::write(result.view(), prepared);
            return static_cast<double>(result.item());
        };
        for_each_term([&]<class Kind, class X>(const detail::Term<Kind, X>& term, std::size_t) {
            if constexpr (std::same_as<Kind, detail::Plain>) {
                ValueTape tape;
                value += term.weight * scalar(prepare(term.e, tape));
            } else if constexpr (std::same_as<Kind, detail::OfRows>) {
                for_each_rows(term.e, [&](detail::Range range) {
                    ValueTape tape;
                    detail::Cutter<false> cutter(tape);
                    value += term.weight * scalar(prepare(sum<0>(cutter.rows(term.e, range)), tape));
                });
            }
        });
        if constexpr (of_pairs) {
            const Extents<2> extents = extents_of_pairs();
            for_each_term([&]<class Kind, class X>(const detail::Term<Kind, X>&, std::size_t i) {
                if constexpr (std::same_as<Kind, detail::OfRowSums> || std::same_as<Kind, detail::OfColumnSums>) {
                    const std::size_t size = extents[std::same_as<Kind, detail::OfRowSums> ? 0 : 1];
                    sums_[i].largest.resize(size);
                    sums_[i].sum.resize(size);
                    sums_[i].largest.fill(detail::lowest<T>);
                    sums_[i].sum.fill(0);
                }
            });
            for_each_tile(extents, [&](detail::Range rows, detail::Range columns) {
                ValueTape tape;
                detail::Cutter<false> cutter(tape);
                for_each_term([&]<class Kind, class X>(const detail::Term<Kind, X>& term, std::size_t i) {
                    if constexpr (std::same_as<Kind, detail::OfPairs>) {
                        value += term.weight * scalar(prepare(sum(cutter.pairs(term.e, rows, columns)), tape));
                    } else if constexpr (std::same_as<Kind, detail::OfRowSums>) {
                        add<1>(sums_[i], detail::in_memory(cutter.pairs(term.e, rows, columns), tape), rows);
                    } else if constexpr (std::same_as<Kind, detail::OfColumnSums>) {
                        add<0>(sums_[i], detail::in_memory(cutter.pairs(term.e, rows, columns), tape), columns);
                    }
                });
            });
            for_each_term([&]<class Kind, class X>(const detail::Term<Kind, X>& term, std::size_t i) {
                if constexpr (std::same_as<Kind, detail::OfRowSums> || std::same_as<Kind, detail::OfColumnSums>) {
                    Vector& log_sums = sums_[i].largest;
                    assign(log_sums, log_sums + log(sums_[i].sum));
                    for (const T log_sum : log_sums.elements()) value += term.weight * static_cast<double>(log_sum);
                }
            });
        }
        out.fill(static_cast<T>(value));
    }

    template <class Value>
    void backward(const Value&, const Value& gradient) const {
        const double g = static_cast<double>(gradient.item());
        const auto pass_on = [&](const auto& prepared, double weight) {
            using X = std::remove_cvref_t<decltype(prepared)>;
            propagate(prepared, Expand<typename X::shape, Constant>(Constant(weight * g), prepared.extents()));
        };
        for_each_term([&]<class Kind, class X>(const detail::Term<Kind, X>& term, std::size_t) {
            if constexpr (std::same_as<Kind, detail::Plain>) {
                Tape tape(*tape_);
                pass_on(prepare(term.e, tape), term.weight);
            } else if constexpr (std::same_as<Kind, detail::OfRows>) {
                for_each_rows(term.e, [&](detail::Range range) {
                    Tape tape(*tape_);
                    detail::Cutter<true> cutter(tape);
                    pass_on(prepare(cutter.rows(term.e, range), tape), term.weight);
                    tape.backward();
                    cutter.flush();
                });
            }
        });
        if constexpr (of_pairs) {
            for_each_tile(extents_of_pairs(), [&](detail::Range rows, detail::Range columns) {
                Tape tape(*tape_);
                detail::Cutter<true> cutter(tape);
                for_each_term([&]<class Kind, class X>(const detail::Term<Kind, X>& term, std::size_t i) {
                    if constexpr (std::same_as<Kind, detail::OfPairs>) {
                        pass_on(prepare(cutter.pairs(term.e, rows, columns), tape), term.weight);
                    } else if constexpr (std::same_as<Kind, detail::OfRowSums>) {
                        const Leaf<T, Shape<dynamic, 1>> log_sums(View<const T, Shape<dynamic, 1>>(
                            sums_[i].largest.data() + rows.first, {{rows.last - rows.first, 1}}));
                        pass_on(prepare(exp(cutter.pairs(term.e, rows, columns) - log_sums), tape), term.weight);
                    } else if constexpr (std::same_as<Kind, detail::OfColumnSums>) {
                        const Leaf<T, Shape<dynamic>> log_sums(std::as_const(sums_[i].largest).view().slice(columns.first, columns.last));
                        pass_on(prepare(exp(cutter.pairs(term.e, rows, columns) - log_sums), tape), term.weight);
                    }
                });
                tape.backward();
                cutter.flush();
            });
        }
    }

private:
    /// visit(term, number) in order.
    template <class Visit>
    void for_each_term(const Visit& visit) const {
        std::size_t i = 0;
        std::apply([&](const auto&... term) { (visit(term, i++), ...); }, terms_);
    }

    Extents<2> extents_of_pairs() const {
        Extents<2> extents{};
        bool is_first = true;
        for_each_term([&]<class Kind, class X>(const detail::Term<Kind, X>& term, std::size_t) {
            if constexpr (!std::same_as<Kind, detail::Plain> && !std::same_as<Kind, detail::OfRows>) {
                if (!is_first && extents != term.e.extents()) detail::throw_extents("tiled", extents, term.e.extents());
                extents = term.e.extents();
                is_first = false;
            }
        });
        return extents;
    }

    template <class Visit>
    void for_each_tile(const Extents<2>& extents, const Visit& visit) const {
        for (std::size_t row = 0; row < extents[0]; row += node_.tile) {
            for (std::size_t column = 0; column < extents[1]; column += node_.tile)
                visit({row, std::min(row + node_.tile, extents[0])}, {column, std::min(column + node_.tile, extents[1])});
        }
    }

    /// Ranges of rows that have no more pairs than a tile.
    template <class X, class Visit>
    void for_each_rows(const X& e, const Visit& visit) const {
        const std::size_t all = e.extents()[0];
        const std::size_t step = node_.tile >= all ? std::max<std::size_t>(all, 1) : std::max<std::size_t>(1, node_.tile * node_.tile / all);
        for (std::size_t row = 0; row < all; row += step) visit(detail::Range{row, std::min(row + step, all)});
    }

    /// Adds a tile to log Σ exp of its rows (Axis 1) or columns (Axis 0).
    template <std::size_t Axis, class X>
    static void add(LogSums& sums, const X& tile, detail::Range range) {
        const auto part = [&](Vector& of) { return of.view().slice(range.first, range.last); };
        const auto largest = part(sums.largest), sum_before = part(sums.sum);
        const Vector before = evaluate(as_expression(largest));
        const Vector in_tile = evaluate(max<static_cast<int>(Axis)>(tile));
        assign(largest, max(before, in_tile));
        // Of minus infinities alone nothing is added, and infinity less itself would be no number.
        Vector finite(before.extents());
        for (std::size_t i = 0; i < finite.size(); ++i) finite(i) = std::isinf(largest(i)) ? T{0} : largest(i);
        const auto distances = [&] {
            if constexpr (Axis == 1) {
                return tile - View<const T, Shape<dynamic, 1>>(finite.data(), {{finite.size(), 1}});
            } else {
                return tile - finite;
            }
        }();
        const Vector added = evaluate(sum<static_cast<int>(Axis)>(exp(distances)));
        assign(sum_before, sum_before * exp(before - finite) + added);
    }

    Tiled<E> node_;
    Terms terms_;
    std::array<LogSums, count> sums_;
    Tape* tape_ = nullptr;
    bool wants_ = false;
};

}  // namespace tandem::inline TANDEM_ABI

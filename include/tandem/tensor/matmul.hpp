// Matrix products and transposes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

#include <tandem/kernels/gemm.hpp>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/expression.hpp>
#include <tandem/tensor/reduce.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// An extent of a matrix. What is none gets a static_assert's sentence, and here no second error.
template <class S, std::size_t Axis>
inline constexpr std::size_t matrix_extent = S::rank == 2 ? S::extents[Axis] : dynamic;

}  // namespace detail

/// A matrix with its two axes swapped. As a factor of matmul it costs nothing.
template <Expression E>
struct Transposed : ExpressionNode {
    static_assert(E::shape::rank == 2, "tandem: transpose takes a matrix");
    using has_rule = void;
    using element = typename E::element;
    using shape = Shape<detail::matrix_extent<typename E::shape, 1>, detail::matrix_extent<typename E::shape, 0>>;

    E operand;

    explicit Transposed(E source) : operand(std::move(source)) {}

    Extents<2> extents() const { return {{operand.extents()[1], operand.extents()[0]}}; }
    void write_key(detail::Key& key) const { operand.write_key(key); }
};

namespace detail {

// As classes of plain values: compilers spell out whatever an error stands in.

template <std::size_t columns, std::size_t rows>
struct ProductRules {
    static_assert(columns == rows, "tandem: matmul needs as many columns on the left as rows on the right");
};

}  // namespace detail

/// a · b.
template <Expression A, Expression B>
struct Product : ExpressionNode {
    static_assert(A::shape::rank == 2 && B::shape::rank == 2, "tandem: matmul takes two matrices");
    static constexpr std::size_t inner_a = detail::matrix_extent<typename A::shape, 1>;
    static constexpr std::size_t inner_b = detail::matrix_extent<typename B::shape, 0>;
    static constexpr bool is_open = inner_a == dynamic || inner_b == dynamic;
    static_assert(sizeof(detail::ProductRules < is_open ? dynamic : inner_a, is_open ? dynamic : inner_b >) > 0);
    using has_rule = void;
    using element = typename detail::CommonElementOf<typename A::element, typename B::element>::type;
    using shape = Shape<detail::matrix_extent<typename A::shape, 0>, detail::matrix_extent<typename B::shape, 1>>;

    A a;
    B b;

    Product(A left, B right) : a(std::move(left)), b(std::move(right)) {
        if (a.extents()[1] != b.extents()[0]) {
            throw Error("matmul", std::to_string(a.extents()[1]) + " rows on the right of " + to_string(a.extents()),
                        to_string(b.extents()));
        }
    }

    Extents<2> extents() const { return {{a.extents()[0], b.extents()[1]}}; }
    void write_key(detail::Key& key) const {
        a.write_key(key);
        b.write_key(key);
    }
};

/// An elementwise expression written out as a tensor, because what reads it needs its elements in memory.
template <Expression E>
struct Materialised : ExpressionNode {
    using has_rule = void;
    using element = typename E::element;
    using shape = typename E::shape;

    E operand;

    explicit Materialised(E source) : operand(std::move(source)) {}

    auto extents() const { return operand.extents(); }
    void write_key(detail::Key& key) const { operand.write_key(key); }
};

/// xᵀ of the matrix x <M, N>: <N, M>. As a factor of matmul it costs nothing; elsewhere it is written out.
template <TensorOperand X>
auto transpose(X&& x) {
    return Transposed<AsExpression<X>>(as_expression(std::forward<X>(x)));
}

/// The matrix product of a <M, K> and b <K, N>: <M, N>.
template <TensorOperand A, TensorOperand B>
auto matmul(A&& a, B&& b) {
    return Product<AsExpression<A>, AsExpression<B>>(as_expression(std::forward<A>(a)),
                                                     as_expression(std::forward<B>(b)));
}

namespace detail {

template <class E>
inline constexpr bool is_leaf = false;
template <Element T, class S>
inline constexpr bool is_leaf<Leaf<T, S>> = true;

/// The expression as one leaf in memory.
template <class E, bool Gradients>
auto in_memory(const E& e, BasicTape<Gradients>& tape) {
    using Prepared = decltype(prepare(e, std::declval<ValueTape&>()));
    if constexpr (is_leaf<Prepared>) {
        return prepare(e, tape);
    } else {
        return tape.result(Materialised<E>(e));
    }
}

/// A factor of a product: a leaf in memory, possibly to be read transposed.
template <class L, bool Transpose>
struct Factor {
    L leaf;

    kernels::Operand<typename decltype(L::view)::element> operand() const {
        const auto matrix = kernels::row_major(leaf.view.data(), leaf.view.extent(1));
        return Transpose ? matrix.transposed() : matrix;
    }
};

template <class E, bool Gradients>
auto factor_of(const E& e, BasicTape<Gradients>& tape) {
    auto leaf = in_memory(e, tape);
    return Factor<decltype(leaf), false>{leaf};
}
template <class E, bool Gradients>
auto factor_of(const Transposed<E>& e, BasicTape<Gradients>& tape) {
    auto leaf = in_memory(e.operand, tape);
    return Factor<decltype(leaf), true>{leaf};
}

/// Adds left · right, or its transpose for a factor that was read transposed, to a factor's gradient.
template <class L, bool Transpose, Element A, Element B>
void add_product(const Factor<L, Transpose>& factor, const kernels::Operand<A>& left, const kernels::Operand<B>& right,
                 std::size_t inner) {
    using T = typename L::element;
    if (factor.leaf.adjoint == nullptr) return;
    const bool accumulate = factor.leaf.adjoint->touched;
    auto& target = factor.leaf.adjoint->dense();
    const std::size_t rows = target.extent(0), columns = target.extent(1);
    if constexpr (Transpose) {
        kernels::gemm<T>(rows, columns, inner, right.transposed(), left.transposed(), target.data(), columns,
                         accumulate);
    } else {
        kernels::gemm<T>(rows, columns, inner, left, right, target.data(), columns, accumulate);
    }
}

// A product that is broadcast to S is smaller than S: it is computed by itself.
template <class S, class A, class B>
requires(S::rank == 2 && (Product<A, B>::shape::extents[0] != 1 || S::extents[0] == 1) &&
         (Product<A, B>::shape::extents[1] != 1 ||
          S::extents[1] == 1)) inline constexpr std::size_t products_of_shape<S, Product<A, B>> = 1;

/// Calls visit with every view an expression reads; a Held temporary cannot overlap anything.
template <class E, class Visit>
void visit_leaves(const E& e, const Visit& visit) {
    if constexpr (requires { e.operands; }) {
        std::apply([&](const auto&... operand) { (visit_leaves(operand, visit), ...); }, e.operands);
    } else if constexpr (requires { e.operand; }) {
        visit_leaves(e.operand, visit);
    } else if constexpr (requires { e.a; }) {
        visit_leaves(e.a, visit);
        visit_leaves(e.b, visit);
    } else if constexpr (requires { e.view; }) {
        visit(e.view);
    }
}

/// The product in an elementwise chain that holds just one of shape S.
template <class S, class E>
const auto& find_product(const E& e) {
    if constexpr (requires { e.operands; }) {
        return [&]<class F, class... Operands, std::size_t... I>(const Apply<F, Operands...>& node,
                                                                 std::index_sequence<I...>) -> const auto& {
            constexpr std::size_t position = ((products_of_shape<S, Operands> == 1 ? I : 0) + ...);
            return find_product<S>(std::get<position>(node.operands));
        }
        (e, std::make_index_sequence<std::tuple_size_v<decltype(e.operands)>>{});
    } else {
        return e;
    }
}

/// The chain with its product replaced by the memory the product is computed into.
template <class S, class E, class Target>
auto prepare_around_product(const E& e, ValueTape& tape, const Target& target) {
    if constexpr (products_of_shape<S, E> == 0) {
        return prepare(e, tape);
    } else if constexpr (requires { e.operands; }) {
        return [&]<class F, class... Operands>(const Apply<F, Operands...>& node) {
            return std::apply(
                [&](const auto&... operand) { return apply<F>(prepare_around_product<S>(operand, tape, target)...); },
                node.operands);
        }(e);
    } else {
        return target;
    }
}

/// Applies a chain to finished blocks of a product. The chain's type is erased so that a program compiles the product
/// once, not once for every chain it has.
struct ChainEpilogue {
    const void* chain;
    void (*apply)(const void* chain, std::size_t row, std::size_t last_row, std::size_t first, std::size_t last);

    void operator()(std::size_t row, std::size_t last_row, std::size_t first, std::size_t last) const {
        apply(chain, row, last_row, first, last);
    }
};

template <class T, class S, class E>
void compute_through_product(const View<T, S>& out, const E& e) {
    ValueTape tape;
    const auto& product = find_product<S>(e);
    const auto a = factor_of(product.a, tape);
    const auto b = factor_of(product.b, tape);
    const auto multiply = [&](const auto& epilogue) {
        kernels::gemm<T>(out.extent(0), out.extent(1), product.a.extents()[1], a.operand(), b.operand(), out.data(),
                         out.extent(1), false, epilogue);
    };
    if constexpr (!requires { e.operands; }) {
        multiply(kernels::NoEpilogue{});
    } else {
        const auto chain = prepare_around_product<S>(e, tape, Leaf<T, S>(out));
        const auto write_block = [&](std::size_t row, std::size_t last_row, std::size_t first, std::size_t last) {
            for (; row < last_row; ++row) {
                write_row<T>(chain.cursor(Extents<2>{{row, 0}}), out.data() + row * out.extent(1), first, last);
            }
        };
        multiply(ChainEpilogue{&write_block, [](const void* erased, auto... block) {
                                   (*static_cast<const decltype(write_block)*>(erased))(block...);
                               }});
    }
}

}  // namespace detail

/// out = e for an elementwise chain around one matrix product of out's shape: the chain is applied to each block of the
/// product while it is in the cache, or apart from out where out overlaps a tensor of the chain.
template <class T, class S, class E>
void assign_through_product(const View<T, S>& out, const E& e) {
    bool overlaps = false;
    detail::visit_leaves(e, [&](const auto& view) {
        const auto* first = reinterpret_cast<const std::byte*>(view.data());
        const auto* begin = reinterpret_cast<const std::byte*>(out.data());
        overlaps =
            overlaps || (first < begin + out.size() * sizeof(T) && begin < first + view.size() * sizeof(*view.data()));
    });
    if (overlaps) {
        Tensor<T, S> apart(out.extents());
        detail::compute_through_product(apart.view(), e);
        std::copy_n(apart.data(), apart.size(), out.data());
    } else {
        detail::compute_through_product(out, e);
    }
}

template <class A, class B>
struct Rule<Product<A, B>> {
    using T = typename Product<A, B>::element;

    decltype(detail::factor_of(std::declval<const A&>(), std::declval<ValueTape&>())) a;
    decltype(detail::factor_of(std::declval<const B&>(), std::declval<ValueTape&>())) b;
    std::size_t rows, columns, inner;

    template <bool Gradients>
    Rule(const Product<A, B>& node, BasicTape<Gradients>& tape)
        : a(detail::factor_of(node.a, tape)),
          b(detail::factor_of(node.b, tape)),
          rows(node.a.extents()[0]),
          columns(node.b.extents()[1]),
          inner(node.a.extents()[1]) {}

    bool wants_gradient() const { return tandem::wants_gradient(a.leaf) || tandem::wants_gradient(b.leaf); }

    template <class Out>
    void forward(Out& out) const {
        kernels::gemm<T>(rows, columns, inner, a.operand(), b.operand(), out.data(), columns);
    }

    template <class Value>
    void backward(const Value&, const Value& gradient) const {
        const auto g = kernels::row_major(gradient.data(), columns);
        detail::add_product(a, g, b.operand().transposed(), columns);
        detail::add_product(b, a.operand().transposed(), g, rows);
    }
};

template <class E>
struct Rule<Materialised<E>> {
    decltype(prepare(std::declval<const E&>(), std::declval<ValueTape&>())) operand;

    template <bool Gradients>
    Rule(const Materialised<E>& node, BasicTape<Gradients>& tape) : operand(prepare(node.operand, tape)) {}

    bool wants_gradient() const { return tandem::wants_gradient(operand); }

    template <class Out>
    void forward(Out& out) const {
        detail::write(out.view(), operand);
    }

    template <class Value>
    void backward(const Value&, const Value& gradient) const {
        propagate(operand, Leaf<typename Value::element, typename Value::shape>(gradient.view()));
    }
};

/// What the rules of nodes that pick or permute elements of one operand in memory share.
template <class E>
struct InMemoryRule {
    decltype(detail::in_memory(std::declval<const E&>(), std::declval<ValueTape&>())) operand;

    template <bool Gradients>
    InMemoryRule(const E& e, BasicTape<Gradients>& tape) : operand(detail::in_memory(e, tape)) {}

    bool wants_gradient() const { return tandem::wants_gradient(operand); }
};

template <class E>
struct Rule<Transposed<E>> : InMemoryRule<E> {
    template <bool Gradients>
    Rule(const Transposed<E>& node, BasicTape<Gradients>& tape) : InMemoryRule<E>(node.operand, tape) {}

    template <class Out>
    void forward(Out& out) const {
        for (std::size_t i = 0; i < out.extent(0); ++i) {
            for (std::size_t j = 0; j < out.extent(1); ++j) out(i, j) = this->operand.view(j, i);
        }
    }

    template <class Value>
    void backward(const Value&, const Value& gradient) const {
        auto& target = this->operand.adjoint->dense();
        for (std::size_t i = 0; i < gradient.extent(0); ++i) {
            for (std::size_t j = 0; j < gradient.extent(1); ++j) target(j, i) += gradient(i, j);
        }
    }
};

}  // namespace tandem::inline TANDEM_ABI

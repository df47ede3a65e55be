// Parts composed of layers and elementwise functions, which need no backward pass of their own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include <tandem/core/error.hpp>
#include <tandem/nn/activation.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/nn/part.hpp>
#include <tandem/nn/sequences.hpp>

namespace tandem::inline TANDEM_ABI {

namespace nn {

/// What all nodes of a composition derive from. A node has the compute type C, the width of its rows, Saved, and
///     forward(x, sequences, saved, keep): the node's rows, which stand in saved or are x
///     backward(x, g, dx, sequences, saved, gradient): adds to dx and to the parameters of `gradient`, the same
///         composition over the gradient's layers
struct ComposedNode {};

/// A node of a composition: what `|`, + and * take.
template <class N>
concept Composition = std::derived_from<N, ComposedNode>;

/// The rows that a part is given.
template <Real Element, std::size_t Width>
struct ComposedInput : ComposedNode {
    using C = Element;
    static constexpr std::size_t width = Width, input_width = Width;
    struct Saved {};

    Rows<const C, width> forward(Rows<const C, width> x, const Sequences<C>&, Saved&, bool) const { return x; }
    void backward(Rows<const C, width>, Rows<const C, width> g, Rows<C, width> dx, const Sequences<C>&, Saved&,
                  const ComposedInput&) const {
        add_rows<C, width>(g, dx);
    }
};

/// A layer behind a node: a dense layer, a norm, or a BlockPart.
template <Composition Before, class Layer, std::size_t Width>
struct ComposedLayer : ComposedNode {
    using C = typename Before::C;
    static constexpr std::size_t width = Width, before_width = Before::width, input_width = Before::input_width;

    Before before;
    const Layer* layer;

    template <class L>
    struct SavedOf {
        using type = None;
    };
    template <class L>
        requires requires { typename L::Saved; }
    struct SavedOf<L> {
        using type = typename L::Saved;
    };

    struct Saved {
        typename Before::Saved before;
        typename SavedOf<Layer>::type layer;
        Rows<const C, before_width> in{nullptr, {{0, before_width}}};
        Tensor<C, Shape<dynamic, width>> out;
        Tensor<C, Shape<dynamic, before_width>> gradient;
    };

    Rows<const C, width> forward(Rows<const C, input_width> x, const Sequences<C>& sequences, Saved& saved,
                                 bool keep) const {
        saved.in = before.forward(x, sequences, saved.before, keep);
        saved.out.resize(saved.in.extent(0));
        if constexpr (requires { layer->forward(saved.in, saved.out, sequences, saved.layer, keep); }) {
            layer->forward(saved.in, saved.out, sequences, saved.layer, keep);
        } else if constexpr (requires { layer->forward(saved.in, saved.out, saved.layer); }) {
            layer->forward(saved.in, saved.out, saved.layer);
        } else {
            layer->forward(saved.in, saved.out);
        }
        return saved.out;
    }

    void backward(Rows<const C, input_width> x, Rows<const C, width> g, Rows<C, input_width> dx,
                  const Sequences<C>& sequences, Saved& saved, const ComposedLayer& gradient) const {
        // `gradient` was composed over a value that backward may write: only operator(), which composes, is const.
        Layer& parameters = const_cast<Layer&>(*gradient.layer);
        saved.gradient.resize(saved.in.extent(0));
        if constexpr (requires { layer->backward(saved.in, g, saved.gradient, sequences, saved.layer, parameters); }) {
            layer->backward(saved.in, g, saved.gradient, sequences, saved.layer, parameters);
        } else if constexpr (requires { layer->backward(saved.in, g, saved.gradient, saved.layer, parameters, false); }) {
            layer->backward(saved.in, g, saved.gradient, saved.layer, parameters, false);
        } else {
            layer->backward(saved.in, g, saved.gradient, parameters);
        }
        before.backward(x, saved.gradient, dx, sequences, saved.before, gradient.before);
    }
};

/// An elementwise function, written over expressions, of a node.
template <Composition Before, class Function>
struct ComposedFunction : ComposedNode {
    using C = typename Before::C;
    static constexpr std::size_t width = Before::width, input_width = Before::input_width;

    Before before;
    [[no_unique_address]] Function function;

    struct Saved {
        typename Before::Saved before;
        Rows<const C, width> in{nullptr, {{0, width}}};
        Tensor<C, Shape<dynamic, width>> out, gradient;
    };

    Rows<const C, width> forward(Rows<const C, input_width> x, const Sequences<C>& sequences, Saved& saved,
                                 bool keep) const {
        saved.in = before.forward(x, sequences, saved.before, keep);
        saved.out.resize(saved.in.extent(0));
        activate(function, saved.in.data(), saved.out.data(), saved.out.size());
        return saved.out;
    }

    void backward(Rows<const C, input_width> x, Rows<const C, width> g, Rows<C, input_width> dx,
                  const Sequences<C>& sequences, Saved& saved, const ComposedFunction& gradient) const {
        saved.gradient.resize(saved.in.extent(0));
        std::copy_n(g.data(), g.size(), saved.gradient.data());
        activate_backward(function, saved.in.data(), saved.gradient.data(), saved.gradient.size());
        before.backward(x, saved.gradient, dx, sequences, saved.before, gradient.before);
    }
};

/// a + b or a · b, element by element.
template <Composition A, Composition B, bool is_product>
struct ComposedPair : ComposedNode {
    static_assert(A::width == B::width && A::input_width == B::input_width,
                  "tandem: composed parts that are added or multiplied have rows of one width");
    using C = typename A::C;
    static constexpr std::size_t width = A::width, input_width = A::input_width;

    A a;
    B b;

    struct Saved {
        typename A::Saved a;
        typename B::Saved b;
        Rows<const C, width> left{nullptr, {{0, width}}}, right{nullptr, {{0, width}}};
        Tensor<C, Shape<dynamic, width>> out, gradient;
    };

    Rows<const C, width> forward(Rows<const C, input_width> x, const Sequences<C>& sequences, Saved& saved,
                                 bool keep) const {
        saved.left = a.forward(x, sequences, saved.a, keep);
        saved.right = b.forward(x, sequences, saved.b, keep);
        saved.out.resize(saved.left.extent(0));
        combine(saved.left, saved.right, saved.out);
        return saved.out;
    }

    void backward(Rows<const C, input_width> x, Rows<const C, width> g, Rows<C, input_width> dx,
                  const Sequences<C>& sequences, Saved& saved, const ComposedPair& gradient) const {
        if constexpr (is_product) {
            saved.gradient.resize(saved.left.extent(0));
            combine(g, saved.right, saved.gradient);
            a.backward(x, saved.gradient, dx, sequences, saved.a, gradient.a);
            combine(g, saved.left, saved.gradient);
            b.backward(x, saved.gradient, dx, sequences, saved.b, gradient.b);
        } else {
            a.backward(x, g, dx, sequences, saved.a, gradient.a);
            b.backward(x, g, dx, sequences, saved.b, gradient.b);
        }
    }

private:
    static void combine(Rows<const C, width> left, Rows<const C, width> right, Rows<C, width> out) {
        if constexpr (is_product) {
            assign(out, as_expression(left) * as_expression(right));
        } else {
            assign(out, as_expression(left) + as_expression(right));
        }
    }
};

/// Every sequence's matrix [RowsEach, width] transposed, so that what follows mixes tokens.
template <Composition Before, std::size_t RowsEach>
struct ComposedTranspose : ComposedNode {
    using C = typename Before::C;
    static constexpr std::size_t width = RowsEach, before_width = Before::width, input_width = Before::input_width;

    Before before;

    struct Saved {
        typename Before::Saved before;
        Tensor<C, Shape<dynamic, width>> out;
        Tensor<C, Shape<dynamic, before_width>> gradient;
    };

    Rows<const C, width> forward(Rows<const C, input_width> x, const Sequences<C>& sequences, Saved& saved,
                                 bool keep) const {
        const Rows<const C, before_width> in = before.forward(x, sequences, saved.before, keep);
        const std::size_t count = sequences.count();
        if (in.extent(0) != count * RowsEach) {
            throw Error("transposed", "sequences of " + std::to_string(RowsEach) + " rows each",
                        std::to_string(in.extent(0)) + " rows in " + std::to_string(count) + " sequences");
        }
        saved.out.resize(count * before_width);
        transpose_each<before_width>(count, in.data(), RowsEach, saved.out.data());
        return saved.out;
    }

    void backward(Rows<const C, input_width> x, Rows<const C, width> g, Rows<C, input_width> dx,
                  const Sequences<C>& sequences, Saved& saved, const ComposedTranspose& gradient) const {
        const std::size_t count = sequences.count();
        saved.gradient.resize(count * RowsEach);
        transpose_each<RowsEach>(count, g.data(), before_width, saved.gradient.data());
        before.backward(x, saved.gradient, dx, sequences, saved.before, gradient.before);
    }

private:
    template <std::size_t Columns>
    static void transpose_each(std::size_t count, const C* from, std::size_t rows, C* to) {
        parallel_for(count, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t s = begin; s < end; ++s) {
                kernels::active<C>().transpose(from + s * rows * Columns, Columns, rows, Columns,
                                               to + s * rows * Columns, rows);
            }
        });
    }
};

/// What tandem::transposed is.
template <std::size_t RowsEach>
struct TransposeTag {};

template <Composition N, std::size_t RowsEach>
auto operator|(const N& node, TransposeTag<RowsEach>) {
    return ComposedTranspose<N, RowsEach>{{}, node};
}

template <Composition N, Arithmetic T, std::size_t In, std::size_t Out, bool HasBias>
auto operator|(const N& node, const Linear<T, In, Out, HasBias>& layer) {
    static_assert(N::width == In, "tandem: a composed dense layer must take rows of the width it is given");
    return ComposedLayer<N, Linear<T, In, Out, HasBias>, Out>{{}, node, &layer};
}

template <Composition N, class F>
auto operator|(const N& node, const F& layer_or_function) {
    if constexpr (detail::ListsParameters<F>) {
        return ComposedLayer<N, F, N::width>{{}, node, &layer_or_function};
    } else {
        return ComposedFunction<N, F>{{}, node, layer_or_function};
    }
}

template <Composition A, Composition B>
auto operator+(const A& a, const B& b) {
    return ComposedPair<A, B, false>{{}, a, b};
}
template <Composition A, Composition B>
auto operator*(const A& a, const B& b) {
    return ComposedPair<A, B, true>{{}, a, b};
}

}  // namespace nn

/// x | transposed<tokens>: the columns of every sequence as rows, of width `tokens`; transposed<width> turns them back.
/// Throws Error where a sequence has not as many rows.
template <std::size_t RowsEach>
inline constexpr nn::TransposeTag<RowsEach> transposed{};

/// The base of a mixer's or MLP's Layer that is composed of layers and elementwise functions:
///
///     template <Arithmetic T, BlockShape shape, auto parts>
///     struct Layer : Composed<Layer<T, shape, parts>, T, shape.width> {
///         Linear<T, shape.width, shape.hidden> up, gate;
///         Linear<T, shape.hidden, shape.width> down;
///         static void parameters(...);                                   // as any layer's
///         auto operator()(auto x) const { return ((x | up) * (x | gate | Silu{})) | down; }
///     };
///
/// `|` puts a layer (dense, norm, another BlockPart) or a function over expressions behind a composition, + and * join
/// two; what is named twice is computed twice. Backward follows from that.
template <class Layer, Arithmetic T, std::size_t width>
struct Composed {
    using C = Compute<T>;

    /// Holds the composition's own Saved, whose type is not known before the layer is complete.
    struct Saved {
        std::unique_ptr<void, void (*)(void*)> of_composition{nullptr, [](void*) {}};
    };

    void forward(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences, Saved& saved,
                 bool keep) const {
        const auto composition = compose(*static_cast<const Layer*>(this));
        using Memory = typename std::remove_const_t<decltype(composition)>::Saved;
        static_assert(std::remove_const_t<decltype(composition)>::width == width,
                      "tandem: a composed part must end in rows of the tower's width");
        if (saved.of_composition == nullptr) {
            saved.of_composition = {new Memory, [](void* memory) { delete static_cast<Memory*>(memory); }};
        }
        const auto out = composition.forward(x, sequences, *static_cast<Memory*>(saved.of_composition.get()), keep);
        std::copy_n(out.data(), out.size(), y.data());
    }

    void backward(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx, const Sequences<C>& sequences,
                  Saved& saved, Layer& gradient) const requires Trainable<T> {
        const auto composition = compose(*static_cast<const Layer*>(this));
        using Memory = typename std::remove_const_t<decltype(composition)>::Saved;
        std::fill_n(dx.data(), dx.size(), C{0});
        composition.backward(x, dy, dx, sequences, *static_cast<Memory*>(saved.of_composition.get()),
                             compose(gradient));
    }

private:
    static auto compose(const Layer& layer) { return layer(nn::ComposedInput<C, width>{}); }
};

}  // namespace tandem::inline TANDEM_ABI

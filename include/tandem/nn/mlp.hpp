// The perceptrons of a transformer block.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include <tandem/nn/activation.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/nn/sequences.hpp>

namespace tandem::inline TANDEM_ABI {

namespace nn {

/// Hidden layers keep their rows this long: off multiples of 4096 bytes.
template <Arithmetic T, BlockShape shape>
inline constexpr std::size_t hidden_row = kernels::row_length<Compute<T>>(shape.hidden);

/// The dense layer from a tower's width to the MLP's hidden width.
template <Arithmetic T, BlockShape shape>
using IntoHidden = Linear<T, shape.width, shape.hidden, true, shape.width, hidden_row<T, shape>>;
/// The dense layer from the MLP's hidden width back to the tower's.
template <Arithmetic T, BlockShape shape>
using FromHidden = Linear<T, shape.hidden, shape.width, true, hidden_row<T, shape>, shape.width>;
/// Hidden rows, in rows of hidden_row elements.
template <Arithmetic T, BlockShape shape>
using Hidden = Tensor<Compute<T>, Shape<dynamic, hidden_row<T, shape>>>;

/// An activation of a config in one model.
template <class Activation, Real C>
auto activation_in(const Activation& activation, [[maybe_unused]] const Sequences<C>& sequences) {
    if constexpr (std::is_same_v<Activation, AnyGelu>) {
        return sequences.gelu;
    } else {
        return activation;
    }
}

/// after = activation(layer(x)) · factor, which may be null; `before` gets layer(x) where backward needs it.
template <Arithmetic T, BlockShape shape, class Activation>
void activated_hidden(const IntoHidden<T, shape>& layer, const Activation& activation,
                      Rows<const Compute<T>, shape.width> x, const Hidden<T, shape>* factor, Hidden<T, shape>& before,
                      Hidden<T, shape>& after, bool keep) {
    using C = Compute<T>;
    constexpr std::size_t row = hidden_row<T, shape>;
    after.resize(x.extent(0));
    if (keep) before.resize(x.extent(0));
    if constexpr (!has_kernel<Activation>) {
        Hidden<T, shape>& raw = keep ? before : after;
        layer.forward(x, raw);
        activate(activation, raw.data(), after.data(), after.size());
        if (factor != nullptr) assign(after, as_expression(after) * as_expression(*factor));
    } else {
        kernels::Finish<C> finish{.activation = kernel_of(activation)};
        if (keep) finish.before = before.data(), finish.before_stride = row;
        if (factor != nullptr) finish.factor = factor->data(), finish.factor_stride = row;
        layer.forward(x, after, finish);
    }
}

/// y = c_proj(activation(c_fc(x))).
template <Arithmetic T, BlockShape shape, auto parts>
struct Mlp {
    static constexpr std::size_t width = shape.width;
    using C = Compute<T>;

    IntoHidden<T, shape> c_fc;
    FromHidden<T, shape> c_proj;

    using NarrowLayer = Mlp;
    static constexpr bool passes_narrow =
        has_kernel<decltype(activation_in(parts.activation, std::declval<const Sequences<C>&>()))>;

    struct Saved {
        Hidden<T, shape> before, after;
        Hidden<T, shape> gradient;
        Narrow<shape.hidden> narrow;

        void lend(Saved& to) { std::swap(gradient, to.gradient); }
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        decltype(c_fc)::parameters(visit, at + "c_fc.", self.c_fc...);
        decltype(c_proj)::parameters(visit, at + "c_proj.", self.c_proj...);
    }

    void initialise(Random& random, const InitScale& scale) {
        fill_normal(c_fc.weight, random, scale.hidden());
        fill_normal(c_proj.weight, random, scale.residual());
    }

    /// y = the perceptron's result, then what `finish` says. `keep` keeps what backward needs.
    void forward(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences, Saved& saved, bool keep,
                 const kernels::Finish<C>& finish = {}) const {
        activated_hidden<T, shape>(c_fc, activation_in(parts.activation, sequences), x, nullptr, saved.before, saved.after, keep);
        c_proj.forward(saved.after, y, finish);
    }

    /// The same from rows of bfloat16: see NarrowPart.
    void forward_narrow(NarrowView<width> x, Rows<C, width> y, const Sequences<C>& sequences, Saved& saved,
                        const kernels::Finish<C>& finish) const {
        c_fc.forward_narrow(x, saved.narrow, {.activation = kernel_of(activation_in(parts.activation, sequences))});
        c_proj.forward_narrow(saved.narrow, y, finish);
    }

    void backward(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx, const Sequences<C>& sequences, Saved& saved,
                  Mlp& gradient) const requires Trainable<T> {
        saved.gradient.resize(x.extent(0));
        c_proj.backward(saved.after, dy, saved.gradient, gradient.c_proj);
        activate_backward(activation_in(parts.activation, sequences), saved.before.data(), saved.gradient.data(), saved.gradient.size());
        c_fc.backward(x, saved.gradient, dx, gradient.c_fc);
    }
};

/// y = fc2(activation(fc1_g(x)) · fc1_x(x)) (Shazeer 2020, eq. 6), under the names of timm's SwiGLU.
template <Arithmetic T, BlockShape shape, auto parts>
struct GatedMlp {
    static constexpr std::size_t width = shape.width;
    using C = Compute<T>;

    IntoHidden<T, shape> fc1_g, fc1_x;
    FromHidden<T, shape> fc2;

    struct Saved {
        Hidden<T, shape> before, value, after;
        Hidden<T, shape> gate, gradient;
        Tensor<C, Shape<dynamic, width>> dx;

        void lend(Saved& to) {
            std::swap(gate, to.gate);
            std::swap(gradient, to.gradient);
            std::swap(dx, to.dx);
        }
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        decltype(fc1_g)::parameters(visit, at + "fc1_g.", self.fc1_g...);
        decltype(fc1_x)::parameters(visit, at + "fc1_x.", self.fc1_x...);
        decltype(fc2)::parameters(visit, at + "fc2.", self.fc2...);
    }

    void initialise(Random& random, const InitScale& scale) {
        fill_normal(fc1_g.weight, random, scale.hidden());
        fill_normal(fc1_x.weight, random, scale.hidden());
        fill_normal(fc2.weight, random, scale.residual());
    }

    void forward(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences, Saved& saved, bool keep,
                 const kernels::Finish<C>& finish = {}) const {
        saved.value.resize(x.extent(0));
        fc1_x.forward(x, saved.value);
        activated_hidden<T, shape>(fc1_g, activation_in(parts.activation, sequences), x, &saved.value, saved.before, saved.after, keep);
        fc2.forward(saved.after, y, finish);
    }

    void backward(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx, const Sequences<C>& sequences, Saved& saved,
                  GatedMlp& gradient) const requires Trainable<T> {
        const std::size_t rows = x.extent(0);
        saved.gate.resize(rows);
        saved.gradient.resize(rows);
        saved.dx.resize(rows);
        fc2.backward(saved.after, dy, saved.gradient, gradient.fc2);
        activate(activation_in(parts.activation, sequences), saved.before.data(), saved.gate.data(), saved.gate.size());
        assign(saved.gate, as_expression(saved.gate) * as_expression(saved.gradient));
        assign(saved.gradient, as_expression(saved.gradient) * as_expression(saved.value));
        activate_backward(activation_in(parts.activation, sequences), saved.before.data(), saved.gradient.data(), saved.gradient.size());
        fc1_x.backward(x, saved.gate, saved.dx, gradient.fc1_x);
        fc1_g.backward(x, saved.gradient, dx, gradient.fc1_g);
        add_rows<C, width>(saved.dx, dx);
    }
};

}  // namespace nn

/// The MLP of a config. Another one is another type with a template Layer<T, shape, parts> that has this layer's members
/// (see BlockPart) and treats every row alone; shape.hidden is what the config's mlp_ratio gives.
struct Mlp {
    template <Arithmetic T, BlockShape shape, auto parts>
    using Layer = nn::Mlp<T, shape, parts>;

    static constexpr Cost cost(const BlockShape& shape, std::size_t tokens) {
        return nn::linear_cost(shape.width, shape.hidden, true, tokens) +
               nn::linear_cost(shape.hidden, shape.width, true, tokens) +
               tokens * shape.hidden * Cost{.inference = 1, .saved = 2, .scratch = 1};
    }
};

/// An MLP whose hidden layer is gated by a second one: SwiGLU with `.activation = Silu{}`, GEGLU with Gelu{}.
struct GatedMlp {
    template <Arithmetic T, BlockShape shape, auto parts>
    using Layer = nn::GatedMlp<T, shape, parts>;

    static constexpr Cost cost(const BlockShape& shape, std::size_t tokens) {
        return nn::linear_cost(shape.width, 2 * shape.hidden, true, tokens) +
               nn::linear_cost(shape.hidden, shape.width, true, tokens) +
               tokens * Cost{.inference = 2 * shape.hidden,
                             .saved = 3 * shape.hidden,
                             .scratch = 2 * shape.hidden + shape.width};
    }
};

}  // namespace tandem::inline TANDEM_ABI

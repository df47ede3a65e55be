// The two-layer perceptron of a transformer block.
#pragma once

#include <cstddef>
#include <string>

#include <tandem/nn/activation.hpp>
#include <tandem/nn/attention.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/parameter.hpp>

namespace tandem::inline TANDEM_ABI {

namespace nn {

/// y = c_proj(activation(c_fc(x))).
template <Arithmetic T, BlockShape shape, auto activation>
struct Mlp {
    static constexpr std::size_t width = shape.width;
    static constexpr std::size_t hidden = shape.hidden;
    using C = Compute<T>;

    /// Elements from one row of the hidden layer to the next.
    static constexpr std::size_t hidden_row = kernels::row_length<C>(hidden);

    Linear<T, width, hidden, true, width, hidden_row> c_fc;
    Linear<T, hidden, width, true, hidden_row, width> c_proj;

    struct Saved {
        Tensor<C, Shape<dynamic, hidden_row>> before, after;
        Tensor<C, Shape<dynamic, hidden_row>> gradient;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        decltype(c_fc)::parameters(visit, at + "c_fc.", self.c_fc...);
        decltype(c_proj)::parameters(visit, at + "c_proj.", self.c_proj...);
    }

    void initialise(Random& random, const InitScale& scale) {
        fill_normal(c_fc.weight, random, scale.hidden());
        fill_normal(c_proj.weight, random, scale.residual());
    }

    /// y = residual + the perceptron's result. residual may be y; `keep` keeps what backward needs.
    void forward(Rows<const C, width> x, Rows<const C, width> residual, Rows<C, width> y, Offsets, Saved& saved,
                 bool keep) const {
        constexpr kernels::Activation fused = kernel_activation<std::remove_const_t<decltype(activation)>>;
        saved.after.resize(x.extent(0));
        if (keep) saved.before.resize(x.extent(0));
        if constexpr (fused == kernels::Activation::none) {
            c_fc.forward(x, keep ? saved.before.view() : saved.after.view());
            activate(activation, keep ? saved.before.data() : saved.after.data(), saved.after.data(),
                     saved.after.size());
        } else {
            c_fc.forward(
                x, saved.after,
                {.activation = fused, .before = keep ? saved.before.data() : nullptr, .before_stride = hidden_row});
        }
        c_proj.forward_onto(residual, saved.after, y);
    }

    void backward(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx, Offsets, Saved& saved,
                  Mlp& gradient) const requires Trainable<T> {
        saved.gradient.resize(x.extent(0));
        c_proj.backward(saved.after, dy, saved.gradient, gradient.c_proj);
        activate_backward(activation, saved.before.data(), saved.gradient.data(), saved.gradient.size());
        c_fc.backward(x, saved.gradient, dx, gradient.c_fc);
    }
};

}  // namespace nn

/// The MLP of a config. Another one is another type with a template Layer<T, shape, activation> that has this layer's
/// members; shape.hidden is what the config's mlp_ratio gives.
struct Mlp {
    template <Arithmetic T, BlockShape shape, auto choice, auto activation>
    using Layer = nn::Mlp<T, shape, activation>;

    static constexpr Cost cost(const BlockShape& shape, std::size_t tokens) {
        return nn::linear_cost(shape.width, shape.hidden, true, tokens) +
               nn::linear_cost(shape.hidden, shape.width, true, tokens) + Cost{.saved = 2 * tokens * shape.hidden};
    }
};

}  // namespace tandem::inline TANDEM_ABI

// Multi-head self-attention over ragged sequences.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <span>
#include <string>

#include <tandem/kernels/attention.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/parameter.hpp>

namespace tandem::inline TANDEM_ABI {

/// Where the sequences of a batch stand in a matrix of token rows: sequence s owns the rows [offsets[s], offsets[s +
/// 1]).
using Offsets = std::span<const std::size_t>;

/// What the layers of a transformer block know of the tower they stand in.
struct BlockShape {
    std::size_t width = 0;
    std::size_t heads = 0;
    std::size_t hidden = 0;  ///< width of the MLP's hidden layer
    std::size_t tokens = 0;  ///< the longest sequence
    bool causal = false;     ///< a token attends only to itself and those before it
};

namespace nn {

/// to[i] = from[rows[i]].
template <Real C, std::size_t Width>
void gather_rows(Rows<const C, Width> from, std::span<const std::size_t> rows, Rows<C, Width> to) {
    for (std::size_t i = 0; i < rows.size(); ++i)
        std::copy_n(from.data() + rows[i] * Width, Width, to.data() + i * Width);
}

/// to[rows[i]] += from[i].
template <Real C, std::size_t Width>
void add_to_rows(Rows<const C, Width> from, std::span<const std::size_t> rows, Rows<C, Width> to) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
        C* const row = to.data() + rows[i] * Width;
        std::transform(row, row + Width, from.data() + i * Width, row, std::plus<C>());
    }
}

/// softmax(q kᵀ / sqrt(head width)) v for every head (Vaswani et al. 2017), with torch.nn.MultiheadAttention's
/// parameters: in_proj holds the rows of q, k and v one after the other.
template <Arithmetic T, BlockShape shape>
struct SelfAttention {
    static constexpr std::size_t width = shape.width;
    static_assert(shape.heads > 0 && width % shape.heads == 0, "tandem: width must be a multiple of heads");
    using C = Compute<T>;

    Linear<T, width, 3 * width> in_proj;
    Linear<T, width, width> out_proj;

    struct Saved {
        Tensor<C, Shape<dynamic, 3 * width>> qkv;
        Tensor<C, Shape<dynamic, width>> mixed;
        Tensor<C, Shape<dynamic, 3 * width>> qkv_gradient;
        Tensor<C, Shape<dynamic, width>> mixed_gradient;
        /// Of picked rows only: their inputs and queries. Keys and values are those of all rows.
        Tensor<C, Shape<dynamic, width>> picked, q, q_gradient, picked_gradient;
        Tensor<C, Shape<dynamic, 2 * width>> kv, kv_gradient;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "in_proj_weight", self.in_proj.weight...);
        visit(at + "in_proj_bias", self.in_proj.bias...);
        Linear<T, width, width>::parameters(visit, at + "out_proj.", self.out_proj...);
    }

    void initialise(Random& random, const InitScale& scale) {
        fill_normal(in_proj.weight, random, scale.attention());
        fill_normal(out_proj.weight, random, scale.residual());
    }

    /// y = residual + the mixed x. residual may be y; `keep` keeps what backward needs.
    void forward(Rows<const C, width> x, Rows<const C, width> residual, Rows<C, width> y, Offsets offsets, Saved& saved,
                 bool) const {
        saved.qkv.resize(x.extent(0));
        saved.mixed.resize(x.extent(0));
        in_proj.forward(x, saved.qkv);
        kernels::attention<C>(kernel_shape(offsets), saved.qkv.data(), saved.mixed.data());
        out_proj.forward_onto(residual, saved.mixed, y);
    }

    void backward(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx, Offsets offsets, Saved& saved,
                  SelfAttention& gradient) const requires Trainable<T> {
        saved.qkv_gradient.resize(x.extent(0));
        saved.mixed_gradient.resize(x.extent(0));
        out_proj.backward(saved.mixed, dy, saved.mixed_gradient, gradient.out_proj);
        kernels::attention_backward<C>(kernel_shape(offsets), saved.qkv.data(), saved.mixed_gradient.data(),
                                       saved.qkv_gradient.data());
        in_proj.backward(x, saved.qkv_gradient, dx, gradient.in_proj);
    }

    /// Whether forward_picked can be used: whether queries can be cut off keys and values.
    static bool can_pick() { return Linear<T, width, 3 * width>::cuts_at(width); }

    /// The rows of forward's result that `picked` names, one in every sequence; residual and y hold those rows alone.
    void forward_picked(Rows<const C, width> x, Rows<const C, width> residual, Rows<C, width> y, Offsets offsets,
                        std::span<const std::size_t> picked, Saved& saved) const {
        const std::size_t count = picked.size();
        saved.picked.resize(count);
        saved.q.resize(count);
        saved.kv.resize(x.extent(0));
        saved.mixed.resize(count);
        gather_rows<C, width>(x, picked, saved.picked);
        in_proj.forward_part(0, width, count, saved.picked.data(), saved.q.data());
        in_proj.forward_part(width, 3 * width, x.extent(0), x.data(), saved.kv.data());
        kernels::attention_picked<C>(kernel_shape(offsets), picked, saved.q.data(), saved.kv.data(),
                                     saved.mixed.data());
        out_proj.forward_onto(residual, saved.mixed, y);
    }

    /// Adds to the gradients, and writes dx for all rows, given dy for the picked ones.
    void backward_picked(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx, Offsets offsets,
                         std::span<const std::size_t> picked, Saved& saved,
                         SelfAttention& gradient) const requires Trainable<T> {
        const std::size_t count = picked.size();
        saved.mixed_gradient.resize(count);
        saved.q_gradient.resize(count);
        saved.picked_gradient.resize(count);
        saved.kv_gradient.resize(x.extent(0));
        out_proj.backward(saved.mixed, dy, saved.mixed_gradient, gradient.out_proj);
        kernels::attention_picked_backward<C>(kernel_shape(offsets), picked, saved.q.data(), saved.kv.data(),
                                              saved.mixed_gradient.data(), saved.q_gradient.data(),
                                              saved.kv_gradient.data());
        in_proj.backward_part(width, 3 * width, x.extent(0), x.data(), saved.kv_gradient.data(), dx.data(),
                              gradient.in_proj);
        in_proj.backward_part(0, width, count, saved.picked.data(), saved.q_gradient.data(),
                              saved.picked_gradient.data(), gradient.in_proj);
        add_to_rows<C, width>(saved.picked_gradient, picked, dx);
    }

private:
    static kernels::AttentionShape kernel_shape(Offsets offsets) {
        return {.offsets = offsets, .heads = shape.heads, .head_width = width / shape.heads, .causal = shape.causal};
    }
};

}  // namespace nn

/// The mixer of a config. Another mixer is another type with a template Layer<T, shape> that has this layer's members.
struct SelfAttention {
    template <Arithmetic T, BlockShape shape, auto choice>
    using Layer = nn::SelfAttention<T, shape>;

    /// The products q kᵀ and weights · v count in full also under a causal mask, as fvcore counts them.
    static constexpr Cost cost(const BlockShape& shape, std::size_t tokens) {
        return nn::linear_cost(shape.width, 3 * shape.width, true, tokens) +
               nn::linear_cost(shape.width, shape.width, true, tokens) +
               Cost{.flops = 4 * tokens * tokens * shape.width, .saved = 4 * tokens * shape.width};
    }
};

}  // namespace tandem::inline TANDEM_ABI

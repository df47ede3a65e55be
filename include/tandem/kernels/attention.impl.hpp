// Definitions of kernels/attention.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include <tandem/core/dtype.hpp>
#include <tandem/core/memory.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/kernels/attention.hpp>
#include <tandem/kernels/dispatch.hpp>
#include <tandem/kernels/gemm.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

namespace detail {

template <Real T>
struct AttentionScratch {
    Buffer<T> weights, gradient;
};

/// softmax(q · kᵀ / sqrt(head_width)) of one head into weights[queries, length], for queries that stand at the
/// positions from `position` on; entries a causal mask hides are zero.
template <Real T>
void attention_weights(const AttentionShape& shape, std::size_t queries, std::size_t position, std::size_t length,
                       const Operand<T>& q, const Operand<T>& k, T* weights) {
    const KernelSet<T>& set = active<T>();
    gemm_serial(queries, length, shape.head_width, q, k.transposed(), weights, length);
    const T scale = T{1} / std::sqrt(static_cast<T>(shape.head_width));
    for (std::size_t i = 0; i < queries; ++i) {
        const std::size_t visible = shape.causal ? position + i + 1 : length;
        set.softmax(weights + i * length, visible, scale);
        std::fill(weights + i * length + visible, weights + (i + 1) * length, T{0});
    }
}

/// The gradients of one head for its queries: dq, dk and dv (added to where `accumulate` is set), given the weights and
/// dout; `gradient` is scratch of the weights' size.
template <Real T>
void attention_head_backward(const AttentionShape& shape, std::size_t queries, std::size_t position, std::size_t length,
                             const Operand<T>& q, const Operand<T>& k, const Operand<T>& v, const Operand<T>& dout,
                             const T* weights, T* gradient, Target<T> dq, Target<T> dk, Target<T> dv, bool accumulate) {
    const GradientKernels<T>& set = active_gradients<T>();
    const T scale = T{1} / std::sqrt(static_cast<T>(shape.head_width));
    const Operand<T> w = row_major(weights, length), g = row_major<T>(gradient, length);
    gemm_serial(length, shape.head_width, queries, w.transposed(), dout, dv.data, dv.row_stride, accumulate);
    gemm_serial(queries, length, shape.head_width, dout, v.transposed(), gradient, length);
    for (std::size_t i = 0; i < queries; ++i) {
        const std::size_t visible = shape.causal ? position + i + 1 : length;
        set.softmax_backward(weights + i * length, gradient + i * length, visible, scale);
        std::fill(gradient + i * length + visible, gradient + (i + 1) * length, T{0});
    }
    gemm_serial(queries, shape.head_width, length, g, k, dq.data, dq.row_stride);
    gemm_serial(length, shape.head_width, queries, g.transposed(), q, dk.data, dk.row_stride, accumulate);
}

/// The rows of one sequence: its keys, and its queries.
struct AttentionRows {
    std::size_t first, length;   ///< of keys and values
    std::size_t query, queries;  ///< of q and of the result
    std::size_t position;        ///< of the first query, in the sequence
};

/// Calls body(rows, head) for every sequence and `heads` heads, in parallel.
template <class Body>
void for_each_head(const AttentionShape& shape, std::size_t heads, const Body& body) {
    parallel_for(shape.sequences() * heads, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t task = begin; task < end; ++task) {
            const std::size_t s = task / heads, first = shape.offsets[s], length = shape.offsets[s + 1] - first;
            if (length == 0) continue;
            const bool all = shape.picked.empty();
            body(AttentionRows{first, length, all ? first : s, all ? length : 1, all ? 0 : shape.picked[s] - first},
                 task % heads);
        }
    });
}

template <Real T>
AttentionScratch<T>& attention_scratch() {
    thread_local AttentionScratch<T> scratch;
    return scratch;
}

}  // namespace detail

template <Real T>
void attention(const AttentionShape& shape, const AttentionOperands<const T>& in, T* out, std::size_t out_stride) {
    const std::size_t group = shape.heads / shape.kv_heads;
    detail::for_each_head(shape, shape.heads, [&](const detail::AttentionRows& rows, std::size_t head) {
        const std::size_t column = head * shape.head_width, kv_column = head / group * shape.head_width;
        Buffer<T>& weights = detail::attention_scratch<T>().weights;
        weights.resize(rows.queries * rows.length);
        detail::attention_weights(shape, rows.queries, rows.position, rows.length,
                                  row_major(in.q + rows.query * in.q_stride + column, in.q_stride),
                                  row_major(in.k + rows.first * in.k_stride + kv_column, in.k_stride), weights.data());
        gemm_serial<T>(rows.queries, shape.head_width, rows.length, row_major<T>(weights.data(), rows.length),
                       row_major(in.v + rows.first * in.v_stride + kv_column, in.v_stride),
                       out + rows.query * out_stride + column, out_stride);
    });
}

namespace detail {

/// Memory of one head in bfloat16: keys and values in panels, the products of some queries with all keys, and their weights.
struct NarrowAttentionScratch {
    Buffer<bfloat16> keys, values, weights;
    Buffer<float> products, sums;
};

inline NarrowAttentionScratch& narrow_attention_scratch() {
    thread_local NarrowAttentionScratch scratch;
    return scratch;
}

/// Keys [length, width] as the right operand of q · kᵀ: a panel's columns are keys, its groups pairs of a key's elements.
inline void pack_keys(const PanelLayout& layout, std::size_t length, std::size_t width, const bfloat16* keys,
                      std::size_t stride, bfloat16* panels) {
    for (std::size_t key = 0; key < length; key += layout.width, panels += layout.panel_size(width)) {
        const std::size_t here = std::min(layout.width, length - key);
        if (here < layout.width) std::fill_n(panels, layout.panel_size(width), bfloat16{0});
        active_reduced().narrow_rows.transpose_pairs(keys + key * stride, stride, here, width / 2, panels, layout.width);
    }
}

/// Values [length, width] as the right operand of weights · v: groups are pairs of rows.
inline void pack_values(const PanelLayout& layout, std::size_t length, std::size_t width, const bfloat16* values,
                        std::size_t stride, bfloat16* panels) {
    static constexpr std::array<bfloat16, widest_panel> zeros{};
    for (std::size_t column = 0; column < width; column += layout.width, panels += layout.panel_size(length)) {
        const std::size_t here = std::min(layout.width, width - column);
        if (here < layout.width) std::fill_n(panels, layout.panel_size(length), bfloat16{0});
        for (std::size_t row = 0; row < length; row += 2) {
            const bfloat16* const first = values + row * stride + column;
            active_reduced().narrow_rows.interleave(first, row + 1 < length ? first + stride : zeros.data(),
                                                    panels + row * layout.width, here);
        }
    }
}

}  // namespace detail

TANDEM_INLINE void attention(const AttentionShape& shape, const AttentionOperands<const bfloat16>& in, bfloat16* out,
                             std::size_t out_stride) {
    constexpr std::size_t most_queries = 128;  // so that products and weights stay in the L2 cache
    const ReducedKernels& reduced = active_reduced();
    const TileKernel<bfloat16, bfloat16, float>& tile = reduced.pairs;
    const PanelLayout layout = layout_of(tile);
    const std::size_t group = shape.heads / shape.kv_heads, width = shape.head_width;
    const float scale = 1 / std::sqrt(static_cast<float>(width));
    detail::for_each_head(shape, shape.heads, [&](const detail::AttentionRows& rows, std::size_t head) {
        const std::size_t column = head * width, kv_column = head / group * width, length = rows.length;
        const std::size_t together = std::min(most_queries, tile.rows), stride = round_up(length, 2);
        const std::size_t panel_step = together * layout.width;
        detail::NarrowAttentionScratch& scratch = detail::narrow_attention_scratch();
        scratch.keys.resize(layout.size(width, length));
        scratch.values.resize(layout.size(length, width));
        scratch.products.resize(round_up(length, layout.width) * together);
        scratch.weights.resize(stride * together);
        scratch.sums.resize(panel_step);
        detail::pack_keys(layout, length, width, in.k + rows.first * in.k_stride + kv_column, in.k_stride, scratch.keys.data());
        detail::pack_values(layout, length, width, in.v + rows.first * in.v_stride + kv_column, in.v_stride,
                            scratch.values.data());
        observe_product(rows.queries, length, width);
        observe_product(rows.queries, width, length);
        for (std::size_t first = 0; first < rows.queries; first += together) {
            const std::size_t count = std::min(together, rows.queries - first);
            const bfloat16* const queries = in.q + (rows.query + first) * in.q_stride + column;
            for (std::size_t panel = 0; panel * layout.width < length; ++panel) {
                const bfloat16* const keys = scratch.keys.data() + panel * layout.panel_size(width);
                tile.multiply(count, width / 2, queries, in.q_stride, 2, keys, scratch.products.data() + panel * panel_step, keys,
                              false);
            }
            for (std::size_t i = 0; i < count; ++i) {
                bfloat16* const weights = scratch.weights.data() + i * stride;
                const std::size_t visible = shape.causal ? rows.position + first + i + 1 : length;
                reduced.narrow_rows.softmax(scratch.products.data() + i * layout.width, layout.width, panel_step, visible,
                                            scale, weights);
                std::fill(weights + visible, weights + stride, bfloat16{0});
            }
            for (std::size_t panel = 0; panel * layout.width < width; ++panel) {
                const bfloat16* const values = scratch.values.data() + panel * layout.panel_size(length);
                const std::size_t at = panel * layout.width;
                tile.multiply(count, stride / 2, scratch.weights.data(), stride, 2, values, scratch.sums.data(), values, false);
                reduced.narrow_rows.finish(scratch.sums.data(), layout.width, count, std::min(layout.width, width - at),
                                           out + (rows.query + first) * out_stride + column + at, out_stride, {});
            }
        }
    });
}

template <Real T>
void attention_backward(const AttentionShape& shape, const AttentionOperands<const T>& in, const T* dout,
                        std::size_t dout_stride, const AttentionOperands<T>& gradient) {
    const std::size_t group = shape.heads / shape.kv_heads;
    // A task is a key head: the query heads that read it add up in order.
    detail::for_each_head(shape, shape.kv_heads, [&](const detail::AttentionRows& rows, std::size_t kv_head) {
        detail::AttentionScratch<T>& scratch = detail::attention_scratch<T>();
        scratch.weights.resize(rows.queries * rows.length);
        scratch.gradient.resize(rows.queries * rows.length);
        const std::size_t kv_column = kv_head * shape.head_width;
        const Operand<T> keys = row_major(in.k + rows.first * in.k_stride + kv_column, in.k_stride),
                         values = row_major(in.v + rows.first * in.v_stride + kv_column, in.v_stride);
        for (std::size_t member = 0; member < group; ++member) {
            const std::size_t column = (kv_head * group + member) * shape.head_width;
            const Operand<T> queries = row_major(in.q + rows.query * in.q_stride + column, in.q_stride);
            detail::attention_weights(shape, rows.queries, rows.position, rows.length, queries, keys,
                                      scratch.weights.data());
            detail::attention_head_backward(
                shape, rows.queries, rows.position, rows.length, queries, keys, values,
                row_major(dout + rows.query * dout_stride + column, dout_stride), scratch.weights.data(),
                scratch.gradient.data(),
                Target<T>{gradient.q + rows.query * gradient.q_stride + column, gradient.q_stride, 0},
                Target<T>{gradient.k + rows.first * gradient.k_stride + kv_column, gradient.k_stride, 0},
                Target<T>{gradient.v + rows.first * gradient.v_stride + kv_column, gradient.v_stride, 0}, member > 0);
        }
    });
}

#if defined(TANDEM_COMPILED)
template void attention<float>(const AttentionShape&, const AttentionOperands<const float>&, float*, std::size_t);
template void attention<double>(const AttentionShape&, const AttentionOperands<const double>&, double*, std::size_t);
template void attention_backward<float>(const AttentionShape&, const AttentionOperands<const float>&, const float*,
                                        std::size_t, const AttentionOperands<float>&);
template void attention_backward<double>(const AttentionShape&, const AttentionOperands<const double>&, const double*,
                                         std::size_t, const AttentionOperands<double>&);
#endif

}  // namespace tandem::inline TANDEM_ABI::kernels

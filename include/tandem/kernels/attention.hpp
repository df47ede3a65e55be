// Scaled dot-product attention over ragged sequences, one (sequence, head) at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>

#include <tandem/core/dtype.hpp>
#include <tandem/core/memory.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/kernels/gemm.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

/// What attention works on: sequence s owns the rows offsets[s] to offsets[s + 1] of packed matrices. `width` is
/// heads · head_width; a row of qkv is [q; k; v], three times that, a head being head_width adjacent columns of each.
struct AttentionShape {
    std::span<const std::size_t> offsets;
    std::size_t heads;
    std::size_t head_width;
    bool causal;

    std::size_t width() const { return heads * head_width; }
    std::size_t sequences() const { return offsets.size() - 1; }
};

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

/// The gradients of one head for its queries: dq, dk and dv, given the weights and dout; `gradient` is scratch of the
/// weights' size.
template <Real T>
void attention_head_backward(const AttentionShape& shape, std::size_t queries, std::size_t position, std::size_t length,
                             const Operand<T>& q, const Operand<T>& k, const Operand<T>& v, const Operand<T>& dout,
                             const T* weights, T* gradient, Target<T> dq, Target<T> dk, Target<T> dv) {
    const GradientKernels<T>& set = active_gradients<T>();
    const T scale = T{1} / std::sqrt(static_cast<T>(shape.head_width));
    const Operand<T> w = row_major(weights, length), g = row_major<T>(gradient, length);
    gemm_serial(length, shape.head_width, queries, w.transposed(), dout, dv.data, dv.row_stride);
    gemm_serial(queries, length, shape.head_width, dout, v.transposed(), gradient, length);
    for (std::size_t i = 0; i < queries; ++i) {
        const std::size_t visible = shape.causal ? position + i + 1 : length;
        set.softmax_backward(weights + i * length, gradient + i * length, visible, scale);
        std::fill(gradient + i * length + visible, gradient + (i + 1) * length, T{0});
    }
    gemm_serial(queries, shape.head_width, length, g, k, dq.data, dq.row_stride);
    gemm_serial(length, shape.head_width, queries, g.transposed(), q, dk.data, dk.row_stride);
}

/// Calls body(sequence, first_row, length, head) for every (sequence, head), in parallel.
template <class Body>
void for_each_head(const AttentionShape& shape, const Body& body) {
    parallel_for(shape.sequences() * shape.heads, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t task = begin; task < end; ++task) {
            const std::size_t first = shape.offsets[task / shape.heads];
            const std::size_t length = shape.offsets[task / shape.heads + 1] - first;
            if (length > 0) body(task / shape.heads, first, length, task % shape.heads);
        }
    });
}

template <Real T>
AttentionScratch<T>& attention_scratch() {
    thread_local AttentionScratch<T> scratch;
    return scratch;
}

}  // namespace detail

/// out[rows, width] = softmax(q · kᵀ / sqrt(head_width)) · v for every head (Vaswani et al. 2017, eq. 1).
template <Real T>
void attention(const AttentionShape& shape, const T* qkv, T* out) {
    const std::size_t width = shape.width(), stride = 3 * width;
    detail::for_each_head(shape, [&](std::size_t, std::size_t first, std::size_t length, std::size_t head) {
        Buffer<T>& weights = detail::attention_scratch<T>().weights;
        weights.resize(length * length);
        const T* const q = qkv + first * stride + head * shape.head_width;
        detail::attention_weights(shape, length, 0, length, row_major(q, stride), row_major(q + width, stride),
                                  weights.data());
        gemm_serial<T>(length, shape.head_width, length, row_major<T>(weights.data(), length),
                       row_major(q + 2 * width, stride), out + first * width + head * shape.head_width, width);
    });
}

/// dqkv[rows, 3 · width] of attention(), given qkv and dout[rows, width]. The weights are computed again, not kept.
template <Real T>
void attention_backward(const AttentionShape& shape, const T* qkv, const T* dout, T* dqkv) {
    const std::size_t width = shape.width(), stride = 3 * width;
    detail::for_each_head(shape, [&](std::size_t, std::size_t first, std::size_t length, std::size_t head) {
        detail::AttentionScratch<T>& scratch = detail::attention_scratch<T>();
        scratch.weights.resize(length * length);
        scratch.gradient.resize(length * length);
        const T* const q = qkv + first * stride + head * shape.head_width;
        T* const dq = dqkv + first * stride + head * shape.head_width;
        const Operand<T> queries = row_major(q, stride), keys = row_major(q + width, stride);
        detail::attention_weights(shape, length, 0, length, queries, keys, scratch.weights.data());
        detail::attention_head_backward(shape, length, 0, length, queries, keys, row_major(q + 2 * width, stride),
                                        row_major(dout + first * width + head * shape.head_width, width),
                                        scratch.weights.data(), scratch.gradient.data(), Target<T>{dq, stride, 0},
                                        Target<T>{dq + width, stride, 0}, Target<T>{dq + 2 * width, stride, 0});
    });
}

/// The rows of attention()'s result that `picked` names, one in every sequence: out[sequences, width], from their own
/// queries q[sequences, width] and all rows' kv[rows, 2 · width]. The same bits as attention() gives those rows.
template <Real T>
void attention_picked(const AttentionShape& shape, std::span<const std::size_t> picked, const T* q, const T* kv,
                      T* out) {
    const std::size_t width = shape.width(), stride = 2 * width;
    detail::for_each_head(shape, [&](std::size_t sequence, std::size_t first, std::size_t length, std::size_t head) {
        Buffer<T>& weights = detail::attention_scratch<T>().weights;
        weights.resize(length);
        const std::size_t column = head * shape.head_width;
        const T* const k = kv + first * stride + column;
        detail::attention_weights(shape, 1, picked[sequence] - first, length,
                                  row_major(q + sequence * width + column, width), row_major(k, stride),
                                  weights.data());
        gemm_serial<T>(1, shape.head_width, length, row_major<T>(weights.data(), length), row_major(k + width, stride),
                       out + sequence * width + column, width);
    });
}

/// dq[sequences, width] and dkv[rows, 2 · width] of attention_picked(), given dout[sequences, width].
template <Real T>
void attention_picked_backward(const AttentionShape& shape, std::span<const std::size_t> picked, const T* q,
                               const T* kv, const T* dout, T* dq, T* dkv) {
    const std::size_t width = shape.width(), stride = 2 * width;
    detail::for_each_head(shape, [&](std::size_t sequence, std::size_t first, std::size_t length, std::size_t head) {
        detail::AttentionScratch<T>& scratch = detail::attention_scratch<T>();
        scratch.weights.resize(length);
        scratch.gradient.resize(length);
        const std::size_t column = head * shape.head_width, row = sequence * width + column,
                          position = picked[sequence] - first;
        const T* const k = kv + first * stride + column;
        T* const dk = dkv + first * stride + column;
        const Operand<T> query = row_major(q + row, width), keys = row_major(k, stride);
        detail::attention_weights(shape, 1, position, length, query, keys, scratch.weights.data());
        detail::attention_head_backward(shape, 1, position, length, query, keys, row_major(k + width, stride),
                                        row_major(dout + row, width), scratch.weights.data(), scratch.gradient.data(),
                                        Target<T>{dq + row, width, 0}, Target<T>{dk, stride, 0},
                                        Target<T>{dk + width, stride, 0});
    });
}

}  // namespace tandem::inline TANDEM_ABI::kernels

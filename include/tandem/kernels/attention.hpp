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

/// softmax(q · kᵀ / sqrt(head_width)) of one head into weights[length, length]; entries a causal mask hides are zero.
template <Real T>
void attention_weights(const AttentionShape& shape, std::size_t length, const T* q, T* weights) {
    const KernelSet<T>& set = active<T>();
    const std::size_t stride = 3 * shape.width();
    gemm_serial(length, length, shape.head_width, row_major(q, stride),
                row_major(q + shape.width(), stride).transposed(), weights, length);
    const T scale = T{1} / std::sqrt(static_cast<T>(shape.head_width));
    for (std::size_t i = 0; i < length; ++i) {
        const std::size_t visible = shape.causal ? i + 1 : length;
        set.softmax(weights + i * length, visible, scale);
        std::fill(weights + i * length + visible, weights + (i + 1) * length, T{0});
    }
}

/// Calls body(first_row, length, head) for every (sequence, head), in parallel.
template <class Body>
void for_each_head(const AttentionShape& shape, const Body& body) {
    parallel_for(shape.sequences() * shape.heads, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t task = begin; task < end; ++task) {
            const std::size_t first = shape.offsets[task / shape.heads];
            const std::size_t length = shape.offsets[task / shape.heads + 1] - first;
            if (length > 0) body(first, length, task % shape.heads);
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
    const std::size_t width = shape.width();
    detail::for_each_head(shape, [&](std::size_t first, std::size_t length, std::size_t head) {
        Buffer<T>& memory = detail::attention_scratch<T>().weights;
        memory.resize(length * length);
        T* const weights = memory.data();
        const T* const q = qkv + first * 3 * width + head * shape.head_width;
        detail::attention_weights(shape, length, q, weights);
        gemm_serial(length, shape.head_width, length, row_major(weights, length), row_major(q + 2 * width, 3 * width),
                    out + first * width + head * shape.head_width, width);
    });
}

/// dqkv[rows, 3 · width] of attention(), given qkv and dout[rows, width]. The weights are computed again, not kept.
template <Real T>
void attention_backward(const AttentionShape& shape, const T* qkv, const T* dout, T* dqkv) {
    const KernelSet<T>& set = active<T>();
    const std::size_t width = shape.width(), stride = 3 * width;
    const T scale = T{1} / std::sqrt(static_cast<T>(shape.head_width));
    detail::for_each_head(shape, [&](std::size_t first, std::size_t length, std::size_t head) {
        detail::AttentionScratch<T>& scratch = detail::attention_scratch<T>();
        scratch.weights.resize(length * length);
        scratch.gradient.resize(length * length);
        T* const weights = scratch.weights.data();
        T* const gradient = scratch.gradient.data();
        const T* const q = qkv + first * stride + head * shape.head_width;
        T* const dq = dqkv + first * stride + head * shape.head_width;
        const Operand<T> out_gradient = row_major(dout + first * width + head * shape.head_width, width);
        detail::attention_weights(shape, length, q, weights);
        gemm_serial(length, shape.head_width, length, row_major<T>(weights, length).transposed(), out_gradient,
                    dq + 2 * width, stride);
        gemm_serial(length, length, shape.head_width, out_gradient, row_major(q + 2 * width, stride).transposed(),
                    gradient, length);
        for (std::size_t i = 0; i < length; ++i) {
            const std::size_t visible = shape.causal ? i + 1 : length;
            set.softmax_backward(weights + i * length, gradient + i * length, visible, scale);
            std::fill(gradient + i * length + visible, gradient + (i + 1) * length, T{0});
        }
        gemm_serial(length, shape.head_width, length, row_major<T>(gradient, length), row_major(q + width, stride), dq,
                    stride);
        gemm_serial(length, shape.head_width, length, row_major<T>(gradient, length).transposed(), row_major(q, stride),
                    dq + width, stride);
    });
}

}  // namespace tandem::inline TANDEM_ABI::kernels

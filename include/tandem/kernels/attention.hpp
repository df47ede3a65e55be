// Scaled dot-product attention over ragged sequences, one (sequence, head) at a time.
#pragma once

#include <cstddef>
#include <span>

#include <tandem/core/dtype.hpp>
#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

/// What attention works on: sequence s owns the rows offsets[s] to offsets[s + 1]. A query row holds `heads` heads of
/// head_width adjacent elements, a row of keys or values `kv_heads` of them: query head h reads key head h / (heads /
/// kv_heads) (Ainslie et al. 2023, grouped queries).
struct AttentionShape {
    std::span<const std::size_t> offsets;
    std::size_t heads;
    std::size_t kv_heads;
    std::size_t head_width;
    bool causal;
    /// Where queries stand: empty, all rows have one; else one row in every sequence, and row s of q is its query.
    std::span<const std::size_t> picked = {};

    std::size_t width() const { return heads * head_width; }
    std::size_t sequences() const { return offsets.size() - 1; }
};

/// Queries, keys and values, each in rows of its own stride: one matrix may hold them side by side.
template <class T>
struct AttentionOperands {
    T* q;
    std::size_t q_stride;
    T* k;
    std::size_t k_stride;
    T* v;
    std::size_t v_stride;
};

/// out = softmax(q · kᵀ / sqrt(head_width)) · v for every head (Vaswani et al. 2017, eq. 1), in rows of `out_stride`. A
/// picked row gets the bits it gets among all.
template <Real T>
void attention(const AttentionShape& shape, const AttentionOperands<const T>& in, T* out, std::size_t out_stride);

/// The same of rows of bfloat16, where pairs of them are multiplied; head_width and all strides are even. Weights are
/// rounded to bfloat16 as well.
void attention(const AttentionShape& shape, const AttentionOperands<const bfloat16>& in, bfloat16* out,
               std::size_t out_stride);

/// The gradients of attention()'s operands, given them and dout. The weights are computed again, not kept.
template <Real T>
void attention_backward(const AttentionShape& shape, const AttentionOperands<const T>& in, const T* dout,
                        std::size_t dout_stride, const AttentionOperands<T>& gradient);

}  // namespace tandem::inline TANDEM_ABI::kernels

#if !defined(TANDEM_COMPILED)
#include <tandem/kernels/attention.impl.hpp>
#endif

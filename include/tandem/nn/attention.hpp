// Multi-head self-attention over ragged sequences.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <tandem/kernels/attention.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/nn/sequences.hpp>

namespace tandem::inline TANDEM_ABI {

/// What the last block makes of a patch that is to be compared with captions, without any training for it.
enum class PatchFeatures {
    plain,      ///< what it was trained to
    mask_clip,  ///< the patch's own values, without residual and MLP (MaskCLIP, Zhou et al., ECCV 2022, section 3.2)
    sclip,      ///< values mixed by softmax(q qᵀ) + softmax(k kᵀ), in the whole block (SCLIP, Wang et al., ECCV 2024, eq. 4)
    clear_clip  ///< values mixed by softmax(q qᵀ), without residual and MLP (ClearCLIP, Lan et al., ECCV 2024, section 3.3)
};

namespace nn {

/// The norm of every head of queries or keys (open_clip/transformer.py, Attention.ln_q): head_width elements, one gain
/// for all heads.
template <Arithmetic T, std::size_t Heads, std::size_t HeadWidth, auto choice>
struct HeadNorm {
    using C = Compute<T>;
    using Norm = typename decltype(choice)::template Layer<T, HeadWidth, choice>;
    static constexpr std::size_t width = Heads * HeadWidth;

    Norm norm;

    struct Saved {
        typename Norm::Saved norm;
        /// A row a head.
        Tensor<C, Shape<dynamic, HeadWidth>> raw, normed, gradient;
    };

    /// The normed heads of `rows` rows of x, in rows of `width`, in `saved`.
    C* forward(std::size_t rows, kernels::StridedRows<const C> x, Saved& saved) const {
        saved.raw.resize(rows * Heads);
        saved.normed.resize(rows * Heads);
        for (std::size_t i = 0; i < rows; ++i) std::copy_n(x.row(i), width, saved.raw.data() + i * width);
        norm.forward(saved.raw, saved.normed, saved.norm);
        return saved.normed.data();
    }

    /// dx of forward's x, given the gradient of its result in saved.gradient.
    void backward(std::size_t rows, kernels::StridedRows<C> dx, Saved& saved, HeadNorm& gradient) const
        requires Trainable<T>
    {
        norm.backward(saved.raw, saved.gradient, saved.gradient, saved.norm, gradient.norm, false);
        for (std::size_t i = 0; i < rows; ++i) std::copy_n(saved.gradient.data() + i * width, width, dx.row(i));
    }
};

/// Rotates the pairs (2i, 2i + 1) of every head by the angles of a row's place, or back: rotary positions (Su et al.
/// 2021, eq. 34). place(row) is that place.
template <Real C, class Place>
void rotate_heads(std::size_t rows, std::size_t heads, std::size_t head_width, kernels::StridedRows<C> x,
                  const C* rotations, bool back, const Place& place) {
    const C sign = back ? C{-1} : C{1};
    parallel_for(rows, 64, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            const C* const cosines = rotations + place(i) * head_width;
            const C* const sines = cosines + head_width / 2;
            C* head = x.row(i);
            for (std::size_t h = 0; h < heads; ++h, head += head_width) {
                for (std::size_t j = 0; j < head_width / 2; ++j) {
                    const C a = head[2 * j], b = head[2 * j + 1], sine = sign * sines[j];
                    head[2 * j] = a * cosines[j] - b * sine;
                    head[2 * j + 1] = b * cosines[j] + a * sine;
                }
            }
        }
    });
}

/// softmax(q kᵀ / sqrt(head width)) v for every head (Vaswani et al. 2017), with torch.nn.MultiheadAttention's
/// parameters: in_proj holds the rows of q, k and v one after the other.
template <Arithmetic T, BlockShape shape, auto parts>
struct SelfAttention {
    static constexpr std::size_t width = shape.width, head_width = shape.head_width;
    static constexpr std::size_t q_width = shape.heads * head_width, kv_width = shape.kv_heads * head_width;
    static constexpr std::size_t qkv_width = q_width + 2 * kv_width;
    static constexpr bool has_norm = parts.qk_norm;
    using C = Compute<T>;
    using QueryNorm = std::conditional_t<has_norm, HeadNorm<T, shape.heads, head_width, parts.norm>, None>;
    using KeyNorm = std::conditional_t<has_norm, HeadNorm<T, shape.kv_heads, head_width, parts.norm>, None>;

    Linear<T, width, qkv_width> in_proj;
    Linear<T, q_width, width> out_proj;
    [[no_unique_address]] QueryNorm ln_q;
    [[no_unique_address]] KeyNorm ln_k;

    using NarrowLayer = SelfAttention;
    static constexpr bool passes_narrow = !has_norm && !shape.rotary && head_width % 2 == 0;

    struct Saved {
        Narrow<qkv_width> narrow_qkv;
        Narrow<q_width> narrow_q, narrow_mixed;
        Narrow<2 * kv_width> narrow_kv;
        Narrow<width> narrow_picked;
        Tensor<C, Shape<dynamic, qkv_width>> qkv, qkv_gradient;
        Tensor<C, Shape<dynamic, q_width>> mixed, mixed_gradient;
        /// Of picked rows only: their inputs and queries. Keys and values are those of all rows.
        Tensor<C, Shape<dynamic, width>> picked, picked_gradient;
        Tensor<C, Shape<dynamic, q_width>> q, q_gradient;
        Tensor<C, Shape<dynamic, 2 * kv_width>> kv, kv_gradient;
        [[no_unique_address]] typename QueryNorm::Saved q_norm;
        [[no_unique_address]] typename KeyNorm::Saved k_norm;

        void lend(Saved& to) {
            std::swap(qkv_gradient, to.qkv_gradient);
            std::swap(mixed_gradient, to.mixed_gradient);
            if constexpr (has_norm) {
                std::swap(q_norm.gradient, to.q_norm.gradient);
                std::swap(k_norm.gradient, to.k_norm.gradient);
            }
        }
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "in_proj_weight", self.in_proj.weight...);
        visit(at + "in_proj_bias", self.in_proj.bias...);
        if constexpr (has_norm) {
            QueryNorm::Norm::parameters(visit, at + "ln_q.", self.ln_q.norm...);
            KeyNorm::Norm::parameters(visit, at + "ln_k.", self.ln_k.norm...);
        }
        decltype(out_proj)::parameters(visit, at + "out_proj.", self.out_proj...);
    }

    void initialise(Random& random, const InitScale& scale) {
        fill_normal(in_proj.weight, random, scale.attention());
        fill_normal(out_proj.weight, random, scale.residual());
    }

    /// y = the mixed x, then what `finish` says. `keep` keeps what backward needs.
    void forward(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences, Saved& saved, bool,
                 const kernels::Finish<C>& finish = {}) const {
        saved.qkv.resize(x.extent(0));
        saved.mixed.resize(x.extent(0));
        in_proj.forward(x, saved.qkv);
        prepare(x.extent(0), all(saved.qkv.data()), sequences, {}, saved);
        kernels::attention<C>(kernel_shape(sequences, {}), operands(all(saved.qkv.data()), saved), saved.mixed.data(),
                              q_width);
        out_proj.forward(saved.mixed, y, finish);
    }

    /// The same from rows of bfloat16: see NarrowPart.
    void forward_narrow(NarrowView<width> x, Rows<C, width> y, const Sequences<C>& sequences, Saved& saved,
                        const kernels::Finish<C>& finish) const {
        in_proj.forward_narrow(x, saved.narrow_qkv);
        mix_narrow(all(std::as_const(saved.narrow_qkv).data(), saved.narrow_qkv.extent(1)), sequences, {}, y, saved, finish);
    }

    void backward(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx, const Sequences<C>& sequences,
                  Saved& saved, SelfAttention& gradient) const requires Trainable<T> {
        const std::size_t rows = x.extent(0);
        saved.qkv_gradient.resize(rows);
        saved.mixed_gradient.resize(rows);
        out_proj.backward(saved.mixed, dy, saved.mixed_gradient, gradient.out_proj);
        backward_through(rows, all(saved.qkv.data()), all(saved.qkv_gradient.data()), sequences, {}, saved, gradient);
        in_proj.backward(x, saved.qkv_gradient, dx, gradient.in_proj);
    }

    /// softmax(q kᵀ / sqrt(head width)) for sequences that are all `tokens` long: to <sequences, heads, tokens, tokens>.
    void weights(Rows<const C, width> x, const Sequences<C>& sequences, std::size_t tokens, Saved& saved, C* to) const {
        saved.qkv.resize(x.extent(0));
        in_proj.forward(x, saved.qkv);
        prepare(x.extent(0), all(saved.qkv.data()), sequences, {}, saved);
        const auto from = operands(all(saved.qkv.data()), saved);
        const C scale = C{1} / std::sqrt(static_cast<C>(head_width));
        parallel_for(sequences.count() * shape.heads * tokens, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                const std::size_t first = i / (shape.heads * tokens) * tokens, head = i / tokens % shape.heads;
                const std::size_t query = i % tokens, seen = sequences.causal ? query + 1 : tokens;
                const C* const q = from.q + (first + query) * from.q_stride + head * head_width;
                const C* const k = from.k + first * from.k_stride + head * shape.kv_heads / shape.heads * head_width;
                C* const row = to + i * tokens;
                attend(q, k, from.k_stride, scale, seen, row);
                std::fill(row + seen, row + tokens, C{0});
            }
        });
    }

    /// Whether forward_patches can be used: queries that attend to queries need values of as many heads.
    static constexpr bool mixes_patches = shape.heads == shape.kv_heads;

    /// As forward, with the values mixed as `features` say, which are not plain.
    void forward_patches(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences, PatchFeatures features,
                         Saved& saved, const kernels::Finish<C>& finish = {}) const {
        const std::size_t rows = x.extent(0);
        saved.qkv.resize(rows);
        saved.mixed.resize(rows);
        in_proj.forward(x, saved.qkv);
        prepare(rows, all(saved.qkv.data()), sequences, {}, saved);
        auto from = operands(all(saved.qkv.data()), saved);
        const auto mix = [&](const C* of, std::size_t stride, C* to) {
            from.q = from.k = of;
            from.q_stride = from.k_stride = stride;
            kernels::attention<C>(kernel_shape(sequences, {}), from, to, q_width);
        };
        if (features == PatchFeatures::mask_clip) {
            for (std::size_t i = 0; i < rows; ++i) std::copy_n(from.v + i * from.v_stride, q_width, saved.mixed.data() + i * q_width);
        } else {
            const C* const keys = from.k;
            const std::size_t stride = from.k_stride;
            mix(from.q, from.q_stride, saved.mixed.data());
            if (features == PatchFeatures::sclip) {
                saved.mixed_gradient.resize(rows);
                mix(keys, stride, saved.mixed_gradient.data());
                for (std::size_t i = 0; i < rows * q_width; ++i) saved.mixed.data()[i] += saved.mixed_gradient.data()[i];
            }
        }
        out_proj.forward(saved.mixed, y, finish);
    }

    /// Whether forward_picked can be used: whether queries can be cut off keys and values.
    static bool can_pick() { return decltype(in_proj)::cuts_at(q_width); }

    /// The rows of forward's result that `picked` names, one in every sequence; y and `finish` hold those rows alone.
    void forward_picked(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences,
                        std::span<const std::size_t> picked, Saved& saved, const kernels::Finish<C>& finish) const {
        const std::size_t count = picked.size();
        saved.picked.resize(count);
        saved.q.resize(count);
        saved.kv.resize(x.extent(0));
        saved.mixed.resize(count);
        gather_rows<C, width>(x, picked, saved.picked);
        in_proj.forward_part(0, q_width, count, saved.picked.data(), saved.q.data());
        in_proj.forward_part(q_width, qkv_width, x.extent(0), x.data(), saved.kv.data());
        prepare(x.extent(0), apart(saved.q.data(), saved.kv.data()), sequences, picked, saved);
        kernels::attention<C>(kernel_shape(sequences, picked),
                              operands(apart(saved.q.data(), saved.kv.data()), saved), saved.mixed.data(), q_width);
        out_proj.forward(saved.mixed, y, finish);
    }

    /// The same from rows of bfloat16.
    void forward_picked_narrow(NarrowView<width> x, Rows<C, width> y, const Sequences<C>& sequences,
                               std::span<const std::size_t> picked, Saved& saved, const kernels::Finish<C>& finish) const {
        saved.narrow_picked.resize(picked.size());
        gather_rows<bfloat16, kernels::narrow_length(width)>(x, picked, saved.narrow_picked);
        in_proj.forward_narrow(saved.narrow_picked, saved.narrow_q, {}, 0, q_width);
        in_proj.forward_narrow(x, saved.narrow_kv, {}, q_width, qkv_width);
        mix_narrow(apart(std::as_const(saved.narrow_q).data(), std::as_const(saved.narrow_kv).data(), saved.narrow_q.extent(1),
                         saved.narrow_kv.extent(1)),
                   sequences, picked, y, saved, finish);
    }

    /// Adds to the gradients, and writes dx for all rows, given dy for the picked ones.
    void backward_picked(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx,
                         const Sequences<C>& sequences, std::span<const std::size_t> picked, Saved& saved,
                         SelfAttention& gradient) const requires Trainable<T> {
        const std::size_t count = picked.size(), rows = x.extent(0);
        saved.mixed_gradient.resize(count);
        saved.q_gradient.resize(count);
        saved.picked_gradient.resize(count);
        saved.kv_gradient.resize(rows);
        out_proj.backward(saved.mixed, dy, saved.mixed_gradient, gradient.out_proj);
        backward_through(rows, apart(saved.q.data(), saved.kv.data()),
                         apart(saved.q_gradient.data(), saved.kv_gradient.data()), sequences, picked, saved, gradient);
        in_proj.backward_part(q_width, qkv_width, rows, x.data(), saved.kv_gradient.data(), dx.data(),
                              gradient.in_proj);
        in_proj.backward_part(0, q_width, count, saved.picked.data(), saved.q_gradient.data(),
                              saved.picked_gradient.data(), gradient.in_proj);
        add_to_rows<C, width>(saved.picked_gradient, picked, dx);
    }

    /// After backward, or backward_picked with `picked`: for every token of sequences that are all `tokens` long, the mean over
    /// heads of relu(A ∘ dL/dA) in its column of the attention weights A, summed over the queries; to <sequences, tokens>.
    void relevance(const Sequences<C>& sequences, std::size_t tokens, std::span<const std::size_t> picked, Saved& saved, C* to) const {
        const auto from = operands(picked.empty() ? all(saved.qkv.data()) : apart(saved.q.data(), saved.kv.data()), saved);
        const std::size_t queries = picked.empty() ? tokens : 1;
        const C scale = C{1} / std::sqrt(static_cast<C>(head_width));
        parallel_for(sequences.count(), 1, [&](std::size_t begin, std::size_t end) {
            std::vector<C> weights(tokens);
            for (std::size_t s = begin; s < end; ++s) {
                C* const sum = to + s * tokens;
                std::fill_n(sum, tokens, C{0});
                for (std::size_t i = 0; i < queries * shape.heads; ++i) {
                    const std::size_t row = s * queries + i / shape.heads, head = i % shape.heads;
                    const std::size_t column = head * head_width, kv_column = head * shape.kv_heads / shape.heads * head_width;
                    attend(from.q + row * from.q_stride + column, from.k + s * tokens * from.k_stride + kv_column, from.k_stride,
                           scale, tokens, weights.data());
                    const C* const gradient = saved.mixed_gradient.data() + row * q_width + column;
                    const C* v = from.v + s * tokens * from.v_stride + kv_column;
                    for (std::size_t j = 0; j < tokens; ++j, v += from.v_stride) {
                        const C slope = std::inner_product(gradient, gradient + head_width, v, C{0});
                        sum[j] += std::max(slope, C{0}) * weights[j] / static_cast<C>(shape.heads);
                    }
                }
            }
        });
    }

private:
    /// One row of softmax(scale · q kᵀ) over `seen` keys.
    static void attend(const C* q, const C* k, std::size_t stride, C scale, std::size_t seen, C* row) {
        for (std::size_t j = 0; j < seen; ++j, k += stride) row[j] = scale * std::inner_product(q, q + head_width, k, C{0});
        const C largest = *std::max_element(row, row + seen);
        C sum = 0;
        for (std::size_t j = 0; j < seen; ++j) sum += row[j] = std::exp(row[j] - largest);
        for (std::size_t j = 0; j < seen; ++j) row[j] /= sum;
    }

    using Operands = kernels::AttentionOperands<C>;

    template <class E>
    static kernels::AttentionOperands<E> all(E* qkv, std::size_t stride = qkv_width) {
        return {qkv, stride, qkv + q_width, stride, qkv + q_width + kv_width, stride};
    }
    template <class E>
    static kernels::AttentionOperands<E> apart(E* q, E* kv, std::size_t q_stride = q_width, std::size_t stride = 2 * kv_width) {
        return {q, q_stride, kv, stride, kv + kv_width, stride};
    }

    void mix_narrow(const kernels::AttentionOperands<const bfloat16>& projected, const Sequences<C>& sequences,
                    std::span<const std::size_t> picked, Rows<C, width> y, Saved& saved,
                    const kernels::Finish<C>& finish) const {
        saved.narrow_mixed.resize(y.extent(0));
        kernels::attention(kernel_shape(sequences, picked), projected, saved.narrow_mixed.data(), saved.narrow_mixed.extent(1));
        out_proj.forward_narrow(saved.narrow_mixed, y, finish);
    }

    static kernels::AttentionShape kernel_shape(const Sequences<C>& sequences, std::span<const std::size_t> picked) {
        return {.offsets = sequences.offsets,
                .heads = shape.heads,
                .kv_heads = shape.kv_heads,
                .head_width = head_width,
                .causal = sequences.causal,
                .picked = picked};
    }

    /// What attention reads: queries and keys as projected, or as normed.
    static kernels::AttentionOperands<const C> operands(const Operands& projected, Saved& saved) {
        Operands from = projected;
        if constexpr (has_norm) {
            from.q = saved.q_norm.normed.data();
            from.k = saved.k_norm.normed.data();
            from.q_stride = q_width;
            from.k_stride = kv_width;
        }
        return {from.q, from.q_stride, from.k, from.k_stride, from.v, from.v_stride};
    }

    /// Norms and rotates queries and keys.
    void prepare(std::size_t rows, const Operands& projected, const Sequences<C>& sequences,
                 std::span<const std::size_t> picked, Saved& saved) const {
        [[maybe_unused]] Operands to = projected;
        [[maybe_unused]] const std::size_t queries = picked.empty() ? rows : picked.size();
        if constexpr (has_norm) {
            to.q = ln_q.forward(queries, {projected.q, projected.q_stride}, saved.q_norm);
            to.k = ln_k.forward(rows, {projected.k, projected.k_stride}, saved.k_norm);
            to.q_stride = q_width;
            to.k_stride = kv_width;
        }
        if constexpr (shape.rotary) rotate(rows, queries, to, sequences, picked, false);
    }

    static void rotate(std::size_t rows, std::size_t queries, const Operands& at, const Sequences<C>& sequences,
                       std::span<const std::size_t> picked, bool back) {
        if (sequences.rotations == nullptr) return;
        const auto place = [&](std::size_t row) {
            const auto after = std::upper_bound(sequences.offsets.begin(), sequences.offsets.end(), row);
            return sequences.position(static_cast<std::size_t>(after - sequences.offsets.begin()) - 1, row);
        };
        rotate_heads<C>(queries, shape.heads, head_width, {at.q, at.q_stride}, sequences.rotations, back,
                        [&](std::size_t i) { return place(picked.empty() ? i : picked[i]); });
        rotate_heads<C>(rows, shape.kv_heads, head_width, {at.k, at.k_stride}, sequences.rotations, back, place);
    }

    /// From the gradient of what attention mixed to that of what was projected.
    void backward_through(std::size_t rows, const Operands& projected, const Operands& dprojected,
                          const Sequences<C>& sequences, std::span<const std::size_t> picked, Saved& saved,
                          SelfAttention& gradient) const requires Trainable<T> {
        [[maybe_unused]] const std::size_t queries = picked.empty() ? rows : picked.size();
        Operands to = dprojected;
        if constexpr (has_norm) {
            saved.q_norm.gradient.resize(queries * shape.heads);
            saved.k_norm.gradient.resize(rows * shape.kv_heads);
            to.q = saved.q_norm.gradient.data();
            to.k = saved.k_norm.gradient.data();
            to.q_stride = q_width;
            to.k_stride = kv_width;
        }
        kernels::attention_backward<C>(kernel_shape(sequences, picked), operands(projected, saved),
                                       saved.mixed_gradient.data(), q_width, to);
        if constexpr (shape.rotary) rotate(rows, queries, to, sequences, picked, true);
        if constexpr (has_norm) {
            ln_q.backward(queries, {dprojected.q, dprojected.q_stride}, saved.q_norm, gradient.ln_q);
            ln_k.backward(rows, {dprojected.k, dprojected.k_stride}, saved.k_norm, gradient.ln_k);
        }
    }
};

}  // namespace nn

/// The mixer of a config. Another mixer is another type with a template Layer<T, shape, parts> that has this layer's
/// members (see BlockPart).
struct SelfAttention {
    template <Arithmetic T, BlockShape shape, auto parts>
    using Layer = nn::SelfAttention<T, shape, parts>;

    static constexpr bool takes_any_length = true;

    /// In a causal tower a token must not see those after it.
    static constexpr bool can_be_causal = true;

    /// The products q kᵀ and weights · v count in full also under a causal mask, as fvcore counts them.
    static constexpr Cost cost(const BlockShape& shape, std::size_t tokens, const auto& parts) {
        return part_cost(shape, tokens, tokens, parts) +
               tokens * (qkv(shape) + q(shape)) * Cost{.inference = 1, .saved = 1, .scratch = 1};
    }

    /// For one picked row of a sequence.
    static constexpr Cost picked_cost(const BlockShape& shape, std::size_t tokens, const auto& parts) {
        const std::size_t held = 2 * tokens * kv(shape) + 2 * q(shape) + shape.width;
        return part_cost(shape, 1, tokens, parts) + held * Cost{.inference = 1, .saved = 1, .scratch = 1};
    }

private:
    static constexpr std::size_t q(const BlockShape& shape) { return shape.heads * shape.head_width; }
    static constexpr std::size_t kv(const BlockShape& shape) { return shape.kv_heads * shape.head_width; }
    static constexpr std::size_t qkv(const BlockShape& shape) { return q(shape) + 2 * kv(shape); }

    /// Products, and the norms of queries and keys.
    static constexpr Cost part_cost(const BlockShape& shape, std::size_t queries, std::size_t tokens,
                                    const auto& parts) {
        const Cost in{.parameters = (shape.width + 1) * qkv(shape), .matrices = shape.width * qkv(shape)};
        const Cost products = product_cost(2 * shape.width * (queries * q(shape) + 2 * tokens * kv(shape)) +
                                           4 * queries * tokens * q(shape));
        Cost total = in + products + nn::linear_cost(q(shape), shape.width, true, queries);
        if (parts.qk_norm) {
            total = total + parts.norm.cost(shape.head_width, queries * shape.heads) +
                    parts.norm.cost(shape.head_width, tokens * shape.kv_heads) +
                    (queries * q(shape) + tokens * kv(shape)) * Cost{.inference = 2, .saved = 2, .scratch = 1};
        }
        return total;
    }
};

}  // namespace tandem::inline TANDEM_ABI

// From token rows to one embedding: final norm, pooling, projection.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <tandem/nn/attention.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/mlp.hpp>
#include <tandem/nn/parameter.hpp>

namespace tandem::inline TANDEM_ABI {

/// A pooling that picks one row of every sequence; the tower then computes that row alone where it can. Any other
/// pooling has a template Layer<T, shape, parts> with Saved and parameters as a BlockPart,
///     forward(x, y, sequences, prefix, saved, keep) const        // all rows to one a sequence
///     backward(x, dy, dx, sequences, prefix, saved, gradient) const
/// (`prefix`: tokens in front of the patches), and cost(shape, tokens, parts).
template <class Pooling>
concept PicksRow = Pooling::picks_row;

/// What makes an embedding of a pooled row; open_clip's proj_type.
enum class Projection {
    linear,  ///< a matrix, or with proj_bias a dense layer
    none,    ///< nothing: the embedding is as wide as the tower
    mlp      ///< two matrices, GELU between them (open_clip/hf_model.py, proj_type "mlp")
};

namespace nn {

/// The mean over rows, but the first `prefix` of each sequence.
template <Arithmetic T, BlockShape shape, auto parts>
struct Average {
    static constexpr std::size_t width = shape.width;
    using C = Compute<T>;

    struct Saved {};

    static void parameters(const auto&, const ParameterName&, auto&...) {}

    void forward(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences, std::size_t prefix, Saved&,
                 bool) const {
        for (std::size_t s = 0; s < sequences.count(); ++s) {
            auto mean_row = y[s];
            assign(mean_row, mean<0>(x.slice(sequences.offsets[s] + prefix, sequences.offsets[s + 1])));
        }
    }

    void backward(Rows<const C, width>, Rows<const C, width> dy, Rows<C, width> dx, const Sequences<C>& sequences,
                  std::size_t prefix, Saved&, Average&) const {
        for (std::size_t s = 0; s < sequences.count(); ++s) {
            const std::size_t begin = sequences.offsets[s], first = begin + prefix, end = sequences.offsets[s + 1];
            std::fill_n(dx.data() + begin * width, prefix * width, C{0});
            auto spread = dx.slice(first, end);
            assign(spread, dy[s] * static_cast<double>(C{1} / static_cast<C>(end - first)));
        }
    }
};

/// A learned query attends to all rows, an MLP follows: the pooling of SigLIP's image tower (Zhai et al. 2022, section
/// 3), under the names of timm/layers/attention_pool.py's AttentionPoolLatent.
template <Arithmetic T, BlockShape shape, auto parts>
struct AttentionPool {
    static constexpr std::size_t width = shape.width;
    static constexpr std::size_t head_width = shape.width / shape.heads;
    using C = Compute<T>;
    using Norm = typename decltype(parts.norm)::template Layer<T, width, parts.norm>;
    using Stream = Tensor<C, Shape<dynamic, width>>;

    Tensor<C, Shape<1, width>> latent;
    Linear<T, width, width> q;
    Linear<T, width, 2 * width> kv;
    Linear<T, width, width> proj;
    Norm norm;
    nn::Mlp<T, shape, parts> mlp;

    struct Saved {
        Stream query, queries, mixed, projected, normed;
        Stream queries_gradient, stream_gradient, scratch;
        Tensor<C, Shape<dynamic, 2 * width>> kv, kv_gradient;
        typename Norm::Saved norm;
        typename nn::Mlp<T, shape, parts>::Saved mlp;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "latent", self.latent...);
        decltype(q)::parameters(visit, at + "q.", self.q...);
        decltype(kv)::parameters(visit, at + "kv.", self.kv...);
        decltype(proj)::parameters(visit, at + "proj.", self.proj...);
        Norm::parameters(visit, at + "norm.", self.norm...);
        using Feedforward = nn::Mlp<T, shape, parts>;
        decltype(Feedforward::c_fc)::parameters(visit, at + "mlp.fc1.", self.mlp.c_fc...);
        decltype(Feedforward::c_proj)::parameters(visit, at + "mlp.fc2.", self.mlp.c_proj...);
    }

    void initialise(Random& random, const InitScale& scale) {
        fill_normal(latent, random, scale.attention());
        fill_normal(q.weight, random, scale.attention());
        fill_normal(kv.weight, random, scale.attention());
        fill_normal(proj.weight, random, scale.attention());
        mlp.initialise(random, scale);
    }

    void forward(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences, std::size_t, Saved& saved,
                 bool keep) const {
        const std::size_t count = sequences.count();
        for (Stream* stream : {&saved.queries, &saved.mixed, &saved.projected, &saved.normed}) stream->resize(count);
        saved.query.resize(1);
        saved.kv.resize(x.extent(0));
        q.forward(latent.view(), saved.query);
        for (std::size_t s = 0; s < count; ++s) std::copy_n(saved.query.data(), width, &saved.queries(s, 0));
        kv.forward(x, saved.kv);
        kernels::attention<C>(kernel_shape(sequences), operands(saved), saved.mixed.data(), width);
        proj.forward(saved.mixed, saved.projected);
        norm.forward(saved.projected, saved.normed, saved.norm);
        mlp.forward(saved.normed, y, sequences, saved.mlp, keep,
                    {.residual = saved.projected.data(), .residual_stride = width});
    }

    void backward(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx, const Sequences<C>& sequences,
                  std::size_t, Saved& saved, AttentionPool& gradient) const requires Trainable<T> {
        const std::size_t count = sequences.count();
        for (Stream* stream : {&saved.queries_gradient, &saved.stream_gradient, &saved.scratch}) stream->resize(count);
        saved.kv_gradient.resize(x.extent(0));
        std::copy_n(dy.data(), dy.size(), saved.stream_gradient.data());
        mlp.backward(saved.normed, dy, saved.scratch, sequences, saved.mlp, gradient.mlp);
        norm.backward(saved.projected, saved.scratch, saved.stream_gradient, saved.norm, gradient.norm, true);
        proj.backward(saved.mixed, saved.stream_gradient, saved.scratch, gradient.proj);
        kernels::attention_backward<C>(
            kernel_shape(sequences), operands(saved), saved.scratch.data(), width,
            {saved.queries_gradient.data(), width, saved.kv_gradient.data(), 2 * width,
             saved.kv_gradient.data() + width, 2 * width});
        kv.backward(x, saved.kv_gradient, dx, gradient.kv);
        // All sequences share one query. Its gradients go on from sequence to sequence, as all others do.
        for (std::size_t i = 0; i < count; ++i) std::copy_n(latent.data(), width, saved.stream_gradient.data() + i * width);
        q.backward(saved.stream_gradient, saved.queries_gradient, saved.scratch, gradient.q);
        detail::add_column_sums<C>(count, width, {saved.scratch.data(), width}, gradient.latent.data());
    }

private:
    static kernels::AttentionShape kernel_shape(const Sequences<C>& sequences) {
        return {.offsets = sequences.offsets,
                .heads = shape.heads,
                .kv_heads = shape.heads,
                .head_width = head_width,
                .causal = false,
                .picked = sequences.offsets.first(sequences.count())};
    }
    static kernels::AttentionOperands<const C> operands(const Saved& saved) {
        return {saved.queries.data(), width, saved.kv.data(), 2 * width, saved.kv.data() + width, 2 * width};
    }
};

}  // namespace nn

/// The pooling of an image tower: the class token's row.
struct ClassToken {
    static constexpr bool picks_row = true;
    static constexpr bool needs_class_token = true;
};

/// The mean of the rows after the final norm; in an image tower without class token and registers
/// (open_clip/transformer.py, _global_pool "avg"), in a text tower over all that it computes.
struct Average {
    static constexpr bool picks_row = false;

    template <Arithmetic T, BlockShape shape, auto parts>
    using Layer = nn::Average<T, shape.of_any_length(), parts>;

    static constexpr Cost cost(const BlockShape&, std::size_t, const auto&) { return {}; }
};

/// Attention pooling over all rows after the final norm ("MAP"), with the tower's heads, MLP ratio, norm and activation.
struct AttentionPool {
    static constexpr bool picks_row = false;

    template <Arithmetic T, BlockShape shape, auto parts>
    using Layer = nn::AttentionPool<T, shape.of_any_length(), parts>;

    static constexpr Cost cost(const BlockShape& shape, std::size_t tokens, const auto& parts) {
        const std::size_t width = shape.width;
        // The query is the same for all, and projected once a batch.
        const Cost query{.parameters = 2 * width + width * width, .matrices = width * width, .flops = 2 * width * width};
        return query + product_cost(4 * tokens * width) + nn::linear_cost(width, width, true, 1) +
               nn::linear_cost(width, 2 * width, true, tokens) + parts.norm.cost(width, 1) + Mlp::cost(shape, 1) +
               width * Cost{.inference = 2 * tokens + 4, .saved = 2 * tokens + 4, .scratch = 2 * tokens + 3};
    }
};

/// The pooling of a text tower: the row of the end-of-text token, which is the highest id (CLIP/clip/model.py:352-354).
/// The first one counts where there are several. In a causal tower no later token can reach that row, so the tower
/// computes each caption only up to it.
struct Eot {
    static constexpr bool picks_row = true;

    static std::size_t position(std::span<const Id> ids) {
        return static_cast<std::size_t>(std::max_element(ids.begin(), ids.end()) - ids.begin());
    }
};

/// The pooling of a text tower: the row of the first token of this id, or where there is none, the first row (open_clip's
/// pool_type "eos", open_clip/transformer.py, text_global_pool; transformers' CLIPTextModel with an eos_token_id).
struct Eos {
    static constexpr bool picks_row = true;
    Id id = 2;

    constexpr std::size_t position(std::span<const Id> ids) const {
        const auto found = std::find(ids.begin(), ids.end(), id);
        return found == ids.end() ? 0 : static_cast<std::size_t>(found - ids.begin());
    }
};

/// The pooling of a text tower: the first row, where BERT has its class token.
struct First {
    static constexpr bool picks_row = true;

    static std::size_t position(std::span<const Id>) { return 0; }
};

/// The pooling of a text tower: the last row of the context, padding or not, as SigLIP has it (open_clip's pool_type
/// "last").
struct Last {
    static constexpr bool picks_row = true;

    static std::size_t position(std::span<const Id> ids) { return ids.size() - 1; }
};

namespace nn {

/// From pooled rows <N, Width> to embeddings <N, Embedding>: times a matrix [Width, Embedding] (CLIP/clip/model.py:238), or
/// a dense layer as PyTorch's where there is a bias (open_clip/transformer.py, proj_bias), or nothing.
template <Arithmetic T, std::size_t Width, std::size_t Embedding, Projection type, bool has_bias>
struct EmbeddingProjection {
    using C = Compute<T>;
    static constexpr bool is_linear = type == Projection::linear && has_bias;
    static constexpr std::size_t hidden = (Width + Embedding) / 2;  ///< of an mlp (open_clip/hf_model.py:149)

    struct TwoMatrices {
        Linear<T, Width, hidden, false> in;
        Linear<T, hidden, Embedding, false> out;

        static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
            decltype(in)::parameters(visit, at + "0.", self.in...);
            decltype(out)::parameters(visit, at + "2.", self.out...);
        }
    };
    struct TwoSaved {
        Tensor<C, Shape<dynamic, hidden>> before, after, gradient;
    };
    using Matrix = std::conditional_t<
        is_linear, Linear<T, Width, Embedding>,
        std::conditional_t<type == Projection::none, None,
                           std::conditional_t<type == Projection::mlp, TwoMatrices, Tensor<Stored<T>, Shape<Width, Embedding>>>>>;
    using Saved = std::conditional_t<type == Projection::mlp, TwoSaved, None>;

    [[no_unique_address]] Matrix matrix;

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        if constexpr (is_linear || type == Projection::mlp) {
            Matrix::parameters(visit, at + ".", self.matrix...);
        } else if constexpr (type != Projection::none) {
            visit(at, self.matrix...);
        }
    }

    void initialise(Random& random, const InitScale& scale) {
        if constexpr (is_linear) {
            fill_normal(matrix.weight, random, scale.attention());
        } else if constexpr (type == Projection::mlp) {
            initialise_part(matrix, random, scale);
        } else if constexpr (type != Projection::none) {
            fill_normal(matrix, random, scale.attention());
        }
    }

    void forward(Rows<const C, Width> x, Rows<C, Embedding> y, [[maybe_unused]] Saved& saved) const {
        if constexpr (type == Projection::mlp) {
            saved.before.resize(x.extent(0));
            saved.after.resize(x.extent(0));
            matrix.in.forward(x, saved.before);
            activate(Gelu{}, saved.before.data(), saved.after.data(), saved.after.size());
            matrix.out.forward(saved.after, y);
        } else if constexpr (is_linear) {
            matrix.forward(x, y);
        } else if constexpr (type == Projection::none) {
            std::copy_n(x.data(), x.size(), y.data());
        } else {
            kernels::gemm<C>(x.extent(0), Embedding, Width, kernels::row_major<C>(x.data(), Width),
                             kernels::row_major(matrix.data(), Embedding), y.data(), Embedding);
        }
    }

    /// Writes dx, adds to the gradients.
    void backward(Rows<const C, Width> x, Rows<const C, Embedding> dy, Rows<C, Width> dx, [[maybe_unused]] Saved& saved,
                  EmbeddingProjection& gradient) const requires Trainable<T> {
        if constexpr (type == Projection::mlp) {
            saved.gradient.resize(x.extent(0));
            matrix.out.backward(saved.after, dy, saved.gradient, gradient.matrix.out);
            activate_backward(Gelu{}, saved.before.data(), saved.gradient.data(), saved.gradient.size());
            matrix.in.backward(x, saved.gradient, dx, gradient.matrix.in);
        } else if constexpr (is_linear) {
            matrix.backward(x, dy, dx, gradient.matrix);
        } else if constexpr (type == Projection::none) {
            std::copy_n(dy.data(), dy.size(), dx.data());
        } else {
            const std::size_t count = x.extent(0);
            const auto g = kernels::row_major(dy.data(), Embedding);
            kernels::gemm<C>(Width, Embedding, count, kernels::row_major<C>(x.data(), Width).transposed(), g,
                             gradient.matrix.data(), Embedding, true);
            kernels::gemm<C>(count, Width, Embedding, g, kernels::row_major(matrix.data(), Embedding).transposed(),
                             dx.data(), Width);
        }
    }
};

/// Stands where rows are not normed: passes them on.
template <Arithmetic T, std::size_t Width>
struct Keep {
    using C = Compute<T>;
    struct Saved {};

    static void parameters(const auto&, const ParameterName&, auto&...) {}
    void forward(Rows<const C, Width> x, Rows<C, Width> y, Saved&) const { std::copy_n(x.data(), x.size(), y.data()); }
    void backward(Rows<const C, Width>, Rows<const C, Width> dy, Rows<C, Width> dx, Saved&, Keep&, bool) const {
        if (dx.data() != dy.data()) std::copy_n(dy.data(), dy.size(), dx.data());
    }
};

/// Norm and pooling and projection, applied to x <rows, width> to give y <N, Embedding>. A pooling
/// that picks one row commutes with the norm of rows, and the tower gives it the picked rows alone; any other pools
/// what is normed, or norms what is pooled where norm_last is set. Without has_norm there is none.
template <Arithmetic T, BlockShape shape, std::size_t Embedding, auto parts, class Pooling, bool norm_last,
          Projection proj_type, bool proj_bias, bool has_norm = true>
struct Head {
    static constexpr std::size_t width = shape.width;
    static constexpr bool picks_row = PicksRow<Pooling>;
    using C = Compute<T>;
    using Norm = std::conditional_t<has_norm, typename decltype(parts.norm)::template Layer<T, width, parts.norm>, Keep<T, width>>;

    template <class P>
    struct LayerOf {
        using type = typename P::template Layer<T, shape, parts>;
    };
    using Pool = typename std::conditional_t<picks_row, std::type_identity<None>, LayerOf<Pooling>>::type;
    using Projector = EmbeddingProjection<T, width, Embedding, proj_type, proj_bias>;

    [[no_unique_address]] Norm norm;
    [[no_unique_address]] Pool pool;
    [[no_unique_address]] Projector projection;

    struct Saved {
        [[no_unique_address]] typename Norm::Saved norm;
        [[no_unique_address]] typename Pool::Saved pool;
        [[no_unique_address]] typename Projector::Saved projection;
        Tensor<C, Shape<dynamic, width>> normed, pooled;
        Tensor<C, Shape<dynamic, width>> normed_gradient, pooled_gradient;
    };

    static void parameters(const auto& visit, const ParameterName& pool_at, auto&... self) {
        if constexpr (!picks_row) Pool::parameters(visit, pool_at, self.pool...);
    }

    void initialise(Random& random, const InitScale& scale) {
        projection.initialise(random, scale);
        if constexpr (!picks_row) initialise_part(pool, random, scale);
    }

    /// y = x, or with `normed` the norm of every row.
    void copy_tokens(bool normed, Rows<const C, width> x, Rows<C, width> y, Saved& saved) const {
        if (normed) {
            norm.forward(x, y, saved.norm);
        } else {
            std::copy_n(x.data(), x.size(), y.data());
        }
    }

    /// x holds the picked row of every sequence, or all rows.
    void forward(Rows<const C, width> x, Rows<C, Embedding> y, const Sequences<C>& sequences, std::size_t prefix,
                 Saved& saved, bool keep) const {
        const std::size_t count = sequences.count();
        saved.pooled.resize(count);
        if constexpr (picks_row) {
            norm.forward(x, saved.pooled, saved.norm);
        } else if constexpr (norm_last) {
            saved.normed.resize(count);
            pool.forward(x, saved.normed, sequences, prefix, saved.pool, keep);
            norm.forward(saved.normed, saved.pooled, saved.norm);
        } else {
            saved.normed.resize(x.extent(0));
            norm.forward(x, saved.normed, saved.norm);
            pool.forward(saved.normed, saved.pooled, sequences, prefix, saved.pool, keep);
        }
        projection.forward(saved.pooled, y, saved.projection);
    }

    /// Writes dx for all of x, given dy; adds to the gradients.
    void backward(Rows<const C, width> x, Rows<const C, Embedding> dy, Rows<C, width> dx, const Sequences<C>& sequences,
                  std::size_t prefix, Saved& saved, Head& gradient) const requires Trainable<T> {
        const std::size_t count = sequences.count();
        saved.pooled_gradient.resize(count);
        projection.backward(saved.pooled, dy, saved.pooled_gradient, saved.projection, gradient.projection);
        if constexpr (picks_row) {
            norm.backward(x, saved.pooled_gradient, dx, saved.norm, gradient.norm, false);
        } else if constexpr (norm_last) {
            norm.backward(saved.normed, saved.pooled_gradient, saved.pooled_gradient, saved.norm, gradient.norm, false);
            pool.backward(x, saved.pooled_gradient, dx, sequences, prefix, saved.pool, gradient.pool);
        } else {
            saved.normed_gradient.resize(x.extent(0));
            pool.backward(saved.normed, saved.pooled_gradient, saved.normed_gradient, sequences, prefix, saved.pool,
                          gradient.pool);
            norm.backward(x, saved.normed_gradient, dx, saved.norm, gradient.norm, false);
        }
    }
};

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI

// From token rows to one embedding: final norm, pooling, projection.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <tandem/nn/attention.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/parameter.hpp>

namespace tandem::inline TANDEM_ABI {

/// The pooling of an image tower: the class token's row.
struct ClassToken {
    static constexpr bool picks_row = true;
    static constexpr bool needs_class_token = true;
};

/// The pooling of an image tower: the mean of the patch rows after the final norm, without the class token's
/// (open_clip/transformer.py, _global_pool "avg").
struct Average {
    static constexpr bool picks_row = false;
    static constexpr bool needs_class_token = false;
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

namespace nn {

/// Norm and pooling and projection [width, embedding], applied to x <rows, Width> to give y <N, Embedding>. A pooling
/// that picks one row commutes with the norm of rows, and the tower gives it the picked rows alone.
template <Arithmetic T, std::size_t Width, std::size_t Embedding, auto norm_choice, class Pooling>
struct Head {
    using C = Compute<T>;
    using Norm = typename decltype(norm_choice)::template Layer<T, Width, norm_choice>;

    static constexpr bool picks_row = Pooling::picks_row;

    Norm norm;
    Tensor<Stored<T>, Shape<Width, Embedding>> projection;

    struct Saved {
        typename Norm::Saved norm;
        /// Picking: the picked rows normed. Averaging: all rows normed, then their means.
        Tensor<C, Shape<dynamic, Width>> normed, pooled;
        Tensor<C, Shape<dynamic, Width>> pooled_gradient, normed_gradient;
    };

    void initialise(Random& random, const InitScale& scale) { fill_normal(projection, random, scale.attention()); }

    /// x holds the picked row of every sequence, or all rows to average, but the first `skip` of each sequence.
    void forward(Rows<const C, Width> x, Rows<C, Embedding> y, Offsets offsets, std::size_t skip, Saved& saved) const {
        const std::size_t count = offsets.size() - 1;
        saved.pooled.resize(count);
        if constexpr (picks_row) {
            norm.forward(x, saved.pooled, saved.norm);
        } else {
            saved.normed.resize(x.extent(0));
            norm.forward(x, saved.normed, saved.norm);
            for (std::size_t i = 0; i < count; ++i) {
                const std::size_t first = offsets[i] + skip, length = offsets[i + 1] - first;
                auto mean_row = saved.pooled[i];
                assign(mean_row, mean<0>(saved.normed.view().slice(first, first + length)));
            }
        }
        kernels::gemm<C>(count, Embedding, Width, kernels::row_major<C>(saved.pooled.data(), Width),
                         kernels::row_major(projection.data(), Embedding), y.data(), Embedding);
    }

    /// Writes dx for all of x, given dy; adds to the gradients.
    void backward(Rows<const C, Width> x, Rows<const C, Embedding> dy, Rows<C, Width> dx, Offsets offsets,
                  std::size_t skip, Saved& saved, Head& gradient) const requires Trainable<T> {
        const std::size_t count = offsets.size() - 1;
        saved.pooled_gradient.resize(count);
        const auto g = kernels::row_major(dy.data(), Embedding);
        kernels::gemm<C>(Width, Embedding, count, kernels::row_major<C>(saved.pooled.data(), Width).transposed(), g,
                         gradient.projection.data(), Embedding, true);
        kernels::gemm<C>(count, Width, Embedding, g, kernels::row_major(projection.data(), Embedding).transposed(),
                         saved.pooled_gradient.data(), Width);
        if constexpr (picks_row) {
            norm.backward(x, saved.pooled_gradient, dx, saved.norm, gradient.norm, false);
        } else {
            saved.normed_gradient.resize(x.extent(0));
            for (std::size_t i = 0; i < count; ++i) {
                const std::size_t first = offsets[i] + skip;
                const C share = C{1} / static_cast<C>(offsets[i + 1] - first);
                std::fill_n(&saved.normed_gradient(offsets[i], 0), skip * Width, C{0});
                auto spread = saved.normed_gradient.view().slice(first, offsets[i + 1]);
                assign(spread, saved.pooled_gradient[i] * static_cast<double>(share));
            }
            norm.backward(x, saved.normed_gradient, dx, saved.norm, gradient.norm, false);
        }
    }
};

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI

// What the layers of a transformer are told: the sizes of the tower, and where a batch's sequences stand.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <span>

#include <tandem/core/image_size.hpp>
#include <tandem/nn/linear.hpp>

namespace tandem::inline TANDEM_ABI {

/// Where the sequences of a batch stand in a matrix of token rows: sequence s owns the rows [offsets[s], offsets[s +
/// 1]).
using Offsets = std::span<const std::size_t>;

/// The sequences of a batch, of which a layer gets the rows one after the other. C is the element of the rows.
template <Real C>
struct Sequences {
    Offsets offsets;
    /// Of every row, its place in its sequence before any token was dropped; empty: none was.
    std::span<const std::size_t> positions = {};
    /// A token sees only itself and those before it.
    bool causal = false;
    /// Where queries and keys are rotated: for every place, head_width / 2 cosines, then as many sines. Null: nowhere.
    const C* rotations = nullptr;
    /// What stands for AnyGelu in this model.
    kernels::Activation gelu = kernels::Activation::gelu;

    std::size_t count() const { return offsets.size() - 1; }
    std::size_t rows() const { return offsets.back(); }
    /// The place of a row of sequence s.
    std::size_t position(std::size_t s, std::size_t row) const {
        return positions.empty() ? row - offsets[s] : positions[row];
    }
};

/// What the layers of a transformer block know of the tower they stand in.
struct BlockShape {
    std::size_t width = 0;
    std::size_t heads = 0;
    std::size_t kv_heads = 0;    ///< heads of keys and values; fewer than `heads`: grouped queries
    std::size_t head_width = 0;  ///< of one head
    std::size_t hidden = 0;      ///< width of the MLP's hidden layer
    std::size_t tokens = 0;      ///< the longest sequence
    std::size_t prefix = 0;      ///< tokens in front of the patches: class token and registers
    bool rotary = false;         ///< queries and keys are rotated (Sequences::rotations)
    ImageSize grid{};            ///< of the patches, all there, row by row; 0: the tokens are no grid

    /// What is left of it for layers that take sequences of any length: towers that differ in nothing else share them.
    constexpr BlockShape of_any_length() const {
        BlockShape shape = *this;
        shape.tokens = shape.prefix = 0;
        shape.grid = {};
        return shape;
    }
};

namespace nn {

/// Stands where a config has no such part.
struct None {
    struct Saved {};
};

/// to[i] = from[rows[i]]; to may be from where rows ascend.
template <class C, std::size_t Width>
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

/// to += from.
template <Real C, std::size_t Width>
void add_rows(Rows<const C, Width> from, Rows<C, Width> to) {
    parallel_for(from.size(), 16384, [&](std::size_t begin, std::size_t end) {
        std::transform(to.data() + begin, to.data() + end, from.data() + begin, to.data() + begin, std::plus<C>());
    });
}

}  // namespace nn

/// Where the norms of a block stand.
enum class NormPosition {
    pre,      ///< x + part(norm(x)): GPT-2, CLIP
    post,     ///< norm(x + part(x)): Vaswani et al. 2017; torch.nn.TransformerEncoderLayer's default
    sandwich  ///< x + norm(part(norm(x))): Ding et al. 2021, Gemma 2
};

/// What a block is made of: a value of a choice type for each part, and how they stand together.
template <class Norm, class Mixer, class Mlp, class Activation>
struct BlockParts {
    Norm norm;
    Mixer mixer;
    Mlp mlp;
    Activation activation;
    NormPosition norm_position = NormPosition::pre;
    bool parallel = false;        ///< x + mixer(norm(x)) + mlp(norm(x)), one norm: Dehghani et al. 2023, ViT-22B
    bool qk_norm = false;         ///< queries and keys of every head are normed: Dehghani et al. 2023
    double ls_init_value = 0;     ///< layer scale starts at this (Touvron et al. 2021, CaiT); 0: there is none
    double drop_path_rate = 0;    ///< of the last block; a block's rate grows linearly from 0 (Huang et al. 2016)
};

}  // namespace tandem::inline TANDEM_ABI

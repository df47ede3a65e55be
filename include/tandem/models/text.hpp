// The text transformer: token ids in, embeddings out.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <tandem/models/config.hpp>
#include <tandem/nn/block.hpp>
#include <tandem/nn/embedding.hpp>
#include <tandem/nn/pooling.hpp>

namespace tandem::inline TANDEM_ABI {

/// The tower of a TextConfig, as the text side of CLIP/clip/model.py:343-356. A causal tower computes each caption only up
/// to the token it pools: what comes later cannot reach it.
template <Arithmetic T, auto config, std::size_t Embedding>
class TextTransformer {
    static constexpr bool valid = config.sizes_are_positive() && config.heads_fit();
    static constexpr std::size_t width = valid ? config.width : 1;
    static constexpr BlockShape shape = valid ? config.block_shape() : BlockShape{1, 1, 1, 1, false};
    using Pooling = std::remove_const_t<decltype(config.pooling)>;

public:
    static constexpr std::size_t context = valid ? config.context : 1;
    using C = Compute<T>;
    using Input = View<const Id, Shape<dynamic, context>>;
    using Table = nn::TokenEmbedding<T, config.vocabulary, context, width>;
    using Blocks = nn::Transformer<T, shape, config.layers, config.block_parts()>;
    using Head = nn::Head<T, width, Embedding, config.norm, Pooling>;

    struct Workspace {
        typename Blocks::Saved blocks;
        typename Head::Saved head;
        Tensor<Id, Shape<dynamic, context>> ids;
        Tensor<C, Shape<dynamic, width>> gradient, picked_gradient;
        std::vector<std::size_t> offsets, rows;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        Table::parameters(visit, at, self.table_...);
        Blocks::parameters(visit, at + "transformer.", self.transformer_...);
        Head::Norm::parameters(visit, at + "ln_final.", self.head_.norm...);
        visit(at + "text_projection", self.head_.projection...);
    }

    void initialise(Random& random) {
        const InitScale scale{.width = width, .layers = config.layers};
        table_.initialise(random, scale);
        transformer_.initialise(random);
        head_.initialise(random, scale);
    }

    /// ids <N, context> to embeddings <N, Embedding>, not normalised.
    void forward(Input ids, Rows<C, Embedding> embeddings, Workspace& work, bool keep) const {
        const std::size_t count = ids.extent(0);
        work.offsets.resize(count + 1);
        work.rows.resize(count);
        if (keep) {
            work.ids.resize(count);
            std::copy_n(ids.data(), ids.size(), work.ids.data());
        }
        work.offsets[0] = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t position = Pooling::position(ids[i].elements());
            work.rows[i] = work.offsets[i] + position;
            work.offsets[i + 1] = work.offsets[i] + (config.causal ? position + 1 : context);
        }
        table_.forward(ids, transformer_.input(work.offsets.back(), work.blocks), work.offsets);
        if constexpr (Head::picks_row) {
            head_.forward(transformer_.forward_picked(work.offsets, work.rows, work.blocks, keep), embeddings, work.offsets,
                          0, work.head);
        } else {
            head_.forward(transformer_.forward(work.offsets, work.blocks, keep), embeddings, work.offsets, 0, work.head);
        }
    }

    /// Adds to the gradients of all parameters, given the gradient of the embeddings of the last forward with `keep`.
    void backward(Rows<const C, Embedding> gradient_of_embeddings, Workspace& work, TextTransformer& gradient) const
        requires Trainable<T>
    {
        work.gradient.resize(work.offsets.back());
        if constexpr (Head::picks_row) {
            work.picked_gradient.resize(work.rows.size());
            head_.backward(work.blocks.picked, gradient_of_embeddings, work.picked_gradient, work.offsets, 0, work.head,
                           gradient.head_);
            transformer_.backward_picked(work.picked_gradient, work.gradient, work.offsets, work.rows, work.blocks,
                                         gradient.transformer_);
        } else {
            head_.backward(work.blocks.streams.back(), gradient_of_embeddings, work.gradient, work.offsets, 0, work.head,
                           gradient.head_);
            transformer_.backward(work.gradient, work.offsets, work.blocks, gradient.transformer_);
        }
        table_.backward(work.ids, work.gradient, work.offsets, gradient.table_);
    }

private:
    Table table_;
    Blocks transformer_;
    Head head_;

    // Last, as in VisionTransformer.
    static_assert(config.sizes_are_positive(), "tandem: TextConfig: all sizes must be positive");
    static_assert(config.heads_fit(), "tandem: TextConfig: width must be a multiple of heads");
};

}  // namespace tandem::inline TANDEM_ABI

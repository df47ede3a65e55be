// The vision transformer: images in, embeddings out.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <tandem/models/config.hpp>
#include <tandem/nn/block.hpp>
#include <tandem/nn/embedding.hpp>
#include <tandem/nn/pooling.hpp>

namespace tandem::inline TANDEM_ABI {

/// The tower of a VitConfig, as open_clip's VisionTransformer (CLIP/clip/model.py:206-240).
template <Arithmetic T, auto config, std::size_t Embedding>
class VisionTransformer {
    static constexpr bool valid =
        config.sizes_are_positive() && config.patches_fit() && config.heads_fit() && config.pooling_fits();
    // A refused config reports its one sentence and no follow-up errors from the layers below.
    static constexpr std::size_t image = valid ? config.image : 1;
    static constexpr std::size_t patch = valid ? config.patch : 1;
    static constexpr std::size_t width = valid ? config.width : 1;
    static constexpr BlockShape shape = valid ? config.block_shape() : BlockShape{1, 1, 1, 1, false};

public:
    using C = Compute<T>;
    using Input = View<const C, Shape<dynamic, 3, image, image>>;
    using Stem = nn::PatchEmbedding<T, image, patch, width, config.class_token>;
    using Norm = typename decltype(config.norm)::template Layer<T, width, config.norm>;
    using Blocks = nn::Transformer<T, shape, config.layers, config.block_parts()>;
    using Head = nn::Head<T, width, Embedding, config.norm, std::remove_const_t<decltype(config.pooling)>>;

    /// What a forward pass leaves for the backward pass, and all memory both need; reused from call to call.
    struct Workspace {
        typename Stem::Saved stem;
        typename Norm::Saved norm;
        typename Blocks::Saved blocks;
        typename Head::Saved head;
        Tensor<C, Shape<dynamic, width>> embedded, gradient, scratch, picked_gradient;
        std::vector<std::size_t> offsets, rows;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        Stem::parameters(visit, at, self.stem_...);
        Norm::parameters(visit, at + "ln_pre.", self.ln_pre_...);
        Blocks::parameters(visit, at + "transformer.", self.transformer_...);
        Norm::parameters(visit, at + "ln_post.", self.head_.norm...);
        visit(at + "proj", self.head_.projection...);
    }

    void initialise(Random& random) {
        const InitScale scale{.width = width, .layers = config.layers};
        stem_.initialise(random, scale);
        transformer_.initialise(random);
        head_.initialise(random, scale);
    }

    /// images <N, 3, image, image>, already normalised, to embeddings <N, Embedding>, not normalised. `keep` keeps what
    /// backward needs.
    void forward(Input images, Rows<C, Embedding> embeddings, Workspace& work, bool keep) const {
        const std::size_t count = images.extent(0);
        work.embedded.resize(count * Stem::tokens);
        work.offsets.resize(count + 1);
        work.rows.resize(count);
        for (std::size_t i = 0; i <= count; ++i) work.offsets[i] = i * Stem::tokens;
        for (std::size_t i = 0; i < count; ++i) work.rows[i] = i * Stem::tokens;
        stem_.forward(images, work.embedded, work.stem);
        ln_pre_.forward(work.embedded, transformer_.input(count * Stem::tokens, work.blocks), work.norm);
        if constexpr (Head::picks_row) {
            head_.forward(transformer_.forward_picked(work.offsets, work.rows, work.blocks, keep), embeddings,
                          work.offsets, skipped, work.head);
        } else {
            head_.forward(transformer_.forward(work.offsets, work.blocks, keep), embeddings, work.offsets, skipped,
                          work.head);
        }
    }

    /// Adds to the gradients of all parameters, given the gradient of the embeddings of the last forward with `keep`.
    void backward(Rows<const C, Embedding> gradient_of_embeddings, Workspace& work,
                  VisionTransformer& gradient) const requires Trainable<T> {
        work.gradient.resize(work.embedded.extent(0));
        work.scratch.resize(work.embedded.extent(0));
        if constexpr (Head::picks_row) {
            work.picked_gradient.resize(work.rows.size());
            head_.backward(work.blocks.picked, gradient_of_embeddings, work.picked_gradient, work.offsets, skipped,
                           work.head, gradient.head_);
            transformer_.backward_picked(work.picked_gradient, work.gradient, work.offsets, work.rows, work.blocks,
                                         gradient.transformer_);
        } else {
            head_.backward(work.blocks.streams.back(), gradient_of_embeddings, work.gradient, work.offsets, skipped,
                           work.head, gradient.head_);
            transformer_.backward(work.gradient, work.offsets, work.blocks, gradient.transformer_);
        }
        ln_pre_.backward(work.embedded, work.gradient, work.scratch, work.norm, gradient.ln_pre_, false);
        stem_.backward(work.scratch, work.stem, gradient.stem_);
    }

private:
    static constexpr std::size_t skipped = Stem::tokens - Stem::patches;

    Stem stem_;
    Norm ln_pre_;
    Blocks transformer_;
    Head head_;

    // Last, because clang leaves out of a class whatever follows a failed assertion, and reports that as well.
    static_assert(config.sizes_are_positive(), "tandem: VitConfig: all sizes must be positive");
    static_assert(config.patches_fit(), "tandem: VitConfig: image must be a multiple of patch");
    static_assert(config.heads_fit(), "tandem: VitConfig: width must be a multiple of heads");
    static_assert(config.pooling_fits(), "tandem: VitConfig: ClassToken pooling needs class_token = true");
};

}  // namespace tandem::inline TANDEM_ABI

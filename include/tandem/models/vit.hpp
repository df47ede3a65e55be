// The vision transformer: images in, embeddings out.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include <tandem/models/config.hpp>
#include <tandem/models/part_rules.hpp>
#include <tandem/nn/transformer.hpp>
#include <tandem/nn/embedding.hpp>
#include <tandem/nn/pooling.hpp>

namespace tandem::inline TANDEM_ABI {

/// The tower of a VitConfig, as open_clip's VisionTransformer (CLIP/clip/model.py:206-240). `wanted` is the shape of its
/// blocks.
template <Arithmetic T, auto config, std::size_t Embedding, BlockShape wanted>
class VisionTransformer {
    // A refused config reports its one sentence and no follow-up errors from the layers below.
    static constexpr bool valid = config.is_valid() && detail::TowerParts<T, config, wanted>::hold;
    static constexpr auto stand_in = [] {
        if constexpr (valid) {
            return config;
        } else {
            return VitConfig<>{.image = 1, .patch = 1, .width = 1, .layers = 1, .heads = 1};
        }
    }();
    static constexpr ImageSize image = stand_in.image, grid = stand_in.grid();
    static constexpr BlockShape shape = valid ? wanted : stand_in.block_shape();
    static constexpr auto parts = stand_in.block_parts();

public:
    static constexpr std::size_t width = stand_in.width, tokens = stand_in.tokens(), layers = stand_in.layers;
    static constexpr std::size_t heads = stand_in.heads, patches = stand_in.patches();
    using C = Compute<T>;
    using Input = Images<C, image>;
    using InputGradient = ImagesGradient<C, image>;
    using Stem = typename decltype(stand_in.stem)::template Layer<T, stand_in.stem_shape(), parts>;
    using Tokens =
        nn::ImageTokens<T, grid, width, stand_in.class_token, stand_in.reg_tokens, stand_in.pos_embed_type>;
    using LayerNorm = typename decltype(stand_in.norm)::template Layer<T, width, stand_in.norm>;
    using Norm = std::conditional_t<stand_in.no_ln_pre, nn::None, LayerNorm>;
    using Blocks = nn::Transformer<T, nn::blocks_shape<parts>(shape), parts>;
    using Head = nn::Head<T, shape, Embedding, parts, std::remove_const_t<decltype(stand_in.pooling)>,
                          stand_in.final_ln_after_pool, stand_in.proj_type, stand_in.proj_bias>;

    /// What a forward pass leaves for the backward pass, and all memory both need; reused from call to call.
    struct Workspace {
        typename Stem::Saved stem;
        [[no_unique_address]] typename Norm::Saved norm;
        typename Blocks::Saved blocks;
        typename Head::Saved head;
        Tensor<C, Shape<dynamic, width>> patches, embedded, kept, gradient, picked_gradient;
        std::vector<std::size_t> offsets, rows, positions, chosen;
        kernels::Activation gelu = kernels::Activation::gelu;
        std::vector<Random> random;  ///< of each item: draws what the next forward pass with `keep` leaves out of it; none: nothing

        /// Groups from the front that learn nothing: what makes the blocks' input, and blocks. The backward pass ends behind them.
        std::size_t locked = 0;

        std::span<Random> drawing(bool keep) { return keep ? std::span<Random>(random) : std::span<Random>(); }

        Sequences<C> sequences() const {
            return {.offsets = offsets, .positions = positions, .causal = false, .rotations = rotations(), .gelu = gelu};
        }
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        Stem::parameters(visit, at, self.stem_...);
        Tokens::parameters(visit, at, self.tokens_...);
        if constexpr (has_norm) Norm::parameters(visit, at + "ln_pre.", self.ln_pre_...);
        Blocks::parameters(visit, at + "transformer.", self.transformer_...);
        LayerNorm::parameters(visit, at + "ln_post.", self.head_.norm...);
        Head::parameters(visit, at + "attn_pool.", self.head_...);
        Head::Projector::parameters(visit, at + "proj", self.head_.projection...);
    }

    void initialise(Random& random) {
        const InitScale scale{.width = width, .layers = stand_in.layers};
        initialise_part(stem_, random, scale);
        tokens_.initialise(random, scale);
        transformer_.initialise(random);
        head_.initialise(random, scale);
    }

    /// images <N, 3, height, width>, already normalised, to embeddings <N, Embedding>, not normalised. `keep` keeps what
    /// backward needs, and leaves out what the config's dropouts draw.
    void forward(Input images, Rows<C, Embedding> embeddings, Workspace& work, bool keep) const {
        nn::check_draws("VisionTransformer::forward", work.random, images.extent(0));
        work.blocks.locked = work.locked == 0 ? 0 : work.locked - 1;
        embed(images, work, keep);
        const Sequences<C> sequences = work.sequences();
        head_.forward(run_blocks(sequences, work, keep), embeddings, sequences, Tokens::prefix, work.head, keep);
    }

    /// What stands behind the first `count` blocks, of every token of every image, class token first: to <N · tokens,
    /// width>; with `normed`, behind the last norm.
    void tokens_after(std::size_t count, bool normed, Input images, Rows<C, width> to, Workspace& work) const {
        embed(images, work, false);
        const Rows<C, width> from = transformer_.forward_first(count, work.sequences(), work.blocks);
        head_.copy_tokens(normed, from, to, work.head);
    }

    /// What norm, pooling and projection make of every patch alone, as the last block leaves it with `features`: to
    /// <N · patches, Embedding>, not normalised.
    void patch_embeddings(Input images, PatchFeatures features, Rows<C, Embedding> to, Workspace& work) const {
        embed(images, work, false);
        const auto blocks = [&]() -> Rows<const C, width> {
            if constexpr (requires { requires Blocks::Layer::Mixer::mixes_patches; }) {
                if (features != PatchFeatures::plain)
                    return transformer_.forward_patches(work.sequences(), features, work.blocks);
            }
            return transformer_.forward_first(layers, work.sequences(), work.blocks);
        };
        const Rows<const C, width> from = blocks();
        std::vector<std::size_t> rows(to.extent(0)), ends(rows.size() + 1);
        for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = i / patches * tokens + Tokens::prefix + i % patches;
        std::iota(ends.begin(), ends.end(), std::size_t{0});
        work.kept.resize(rows.size());
        nn::gather_rows<C, width>(from, rows, work.kept);
        head_.forward(work.kept, to, {.offsets = ends, .gelu = gelu_}, 0, work.head, false);
    }

    /// The attention weights of block `layer`: to <N, heads, tokens, tokens>.
    void attention_weights(std::size_t layer, Input images, C* to, Workspace& work) const {
        embed(images, work, false);
        transformer_.attention_weights(layer, work.sequences(), tokens, work.blocks, to);
    }

    /// Adds to the gradients of all parameters, given the gradient of the embeddings of the last forward with `keep`;
    /// writes that of the images where it is asked for.
    void backward(Rows<const C, Embedding> gradient_of_embeddings, Workspace& work, VisionTransformer& gradient,
                  InputGradient gradient_of_images = {nullptr, {{0, 3, image.height, image.width}}}) const
        requires Trainable<T>
    {
        const Sequences<C> sequences = work.sequences();
        work.gradient.resize(sequences.rows());
        if constexpr (Head::picks_row) {
            work.picked_gradient.resize(work.rows.size());
            head_.backward(work.blocks.picked, gradient_of_embeddings, work.picked_gradient, sequences, Tokens::prefix,
                           work.head, gradient.head_);
            transformer_.backward_picked(work.picked_gradient, work.gradient, sequences, work.rows, work.blocks,
                                         gradient.transformer_);
        } else {
            head_.backward(work.blocks.streams.back(), gradient_of_embeddings, work.gradient, sequences, Tokens::prefix,
                           work.head, gradient.head_);
            transformer_.backward(work.gradient, sequences, work.blocks, gradient.transformer_);
        }
        if (work.locked > 0) {
            if (gradient_of_images.size() > 0) throw Error("VisionTransformer::backward", "a tower without locked layers, since the images' gradient is asked for", std::to_string(work.locked) + " locked groups");
            return;
        }
        const bool dropped = may_drop && !work.chosen.empty();
        if constexpr (has_norm) {
            ln_pre_.backward(before_norm(work, dropped), work.gradient, work.gradient, work.norm, gradient.ln_pre_,
                             false);
        }
        Rows<const C, width> dtokens = work.gradient;
        if constexpr (may_drop) {
            if (dropped) {
                work.embedded.resize(work.patches.extent(0) / Tokens::patches * Tokens::tokens);
                work.embedded.fill(0);
                nn::add_to_rows<C, width>(work.gradient, work.chosen, work.embedded);
                dtokens = work.embedded;
            }
        }
        tokens_.backward(dtokens, work.patches, gradient.tokens_);
        if constexpr (requires { stem_.backward(work.patches, work.stem, gradient.stem_, gradient_of_images); }) {
            stem_.backward(work.patches, work.stem, gradient.stem_, gradient_of_images);
        } else {
            if (gradient_of_images.size() > 0)
                throw Error("VisionTransformer::backward", "a stem whose backward(dy, saved, gradient, dimages) writes the images' gradient");
            stem_.backward(work.patches, work.stem, gradient.stem_);
        }
    }

    /// What of every token counted in the last block for a loss, <N, tokens>, given the gradient of the embeddings of the last
    /// forward with `keep`.
    void relevance(Rows<const C, Embedding> gradient_of_embeddings, Workspace& work, VisionTransformer& gradient, C* to) const
        requires Trainable<T>
    {
        const Sequences<C> sequences = work.sequences();
        if constexpr (Head::picks_row) {
            work.picked_gradient.resize(work.rows.size());
            head_.backward(work.blocks.picked, gradient_of_embeddings, work.picked_gradient, sequences, Tokens::prefix,
                           work.head, gradient.head_);
            transformer_.relevance(work.picked_gradient, sequences, tokens, work.rows, work.blocks, gradient.transformer_, to);
        } else {
            work.gradient.resize(sequences.rows());
            head_.backward(work.blocks.streams.back(), gradient_of_embeddings, work.gradient, sequences, Tokens::prefix,
                           work.head, gradient.head_);
            transformer_.relevance(work.gradient, sequences, tokens, {}, work.blocks, gradient.transformer_, to);
        }
    }

    const Blocks& blocks() const { return transformer_; }
    Blocks& blocks() { return transformer_; }

    /// Which form of GELU stands for AnyGelu.
    void set_gelu(kernels::Activation form) { gelu_ = form; }

private:
    static constexpr bool has_norm = !stand_in.no_ln_pre, may_drop = stand_in.patch_dropout > 0;

    static const C* rotations() {
        if constexpr (stand_in.pos_embed_type == PosEmbed::rotary) {
            return nn::rotations_2d<C, Tokens::prefix, grid, shape.head_width>().data();
        } else {
            return nullptr;
        }
    }

    /// From images to the input of the blocks.
    void embed(Input images, Workspace& work, bool keep) const {
        const std::size_t count = images.extent(0);
        const bool drops = may_drop && !work.drawing(keep).empty();
        work.patches.resize(count * Tokens::patches);
        work.embedded.resize(count * Tokens::tokens);
        stem_.forward(images, work.patches, work.stem, keep);
        choose(count, drops, work);
        work.gelu = gelu_;
        const auto into_blocks = transformer_.input(work.offsets.back(), work.blocks);
        tokens_.forward(work.patches, has_norm || drops ? work.embedded.view() : into_blocks);
        if constexpr (may_drop) {
            if (drops) {
                work.kept.resize(work.offsets.back());
                nn::gather_rows<C, width>(work.embedded, work.chosen, has_norm ? work.kept.view() : into_blocks);
            }
        }
        if constexpr (has_norm) ln_pre_.forward(before_norm(work, drops), into_blocks, work.norm);
    }

    static Rows<const C, width> before_norm(Workspace& work, bool drops) {
        return drops ? work.kept.view() : work.embedded.view();
    }

    Rows<const C, width> run_blocks(const Sequences<C>& sequences, Workspace& work, bool keep) const {
        if constexpr (Head::picks_row) {
            return transformer_.forward_picked(sequences, work.rows, work.blocks, keep, work.drawing(keep));
        } else {
            return transformer_.forward(sequences, work.blocks, keep, work.drawing(keep));
        }
    }

    /// Which tokens of every image the blocks see: all, or the prefix and a random max(1, int(patches · (1 − dropout)))
    /// of the patches (open_clip/transformer.py, PatchDropout).
    static void choose(std::size_t count, bool drops, Workspace& work) {
        const std::size_t chosen = drops ? kept_patches() : Tokens::patches;
        const std::size_t length = Tokens::prefix + chosen;
        work.offsets.resize(count + 1);
        work.rows.resize(count);
        for (std::size_t i = 0; i <= count; ++i) work.offsets[i] = i * length;
        for (std::size_t i = 0; i < count; ++i) work.rows[i] = i * length;
        if constexpr (may_drop) {
            work.positions.clear();
            work.chosen.clear();
            std::vector<std::size_t> order(Tokens::patches);
            for (std::size_t i = 0; drops && i < count; ++i) {
                std::iota(order.begin(), order.end(), Tokens::prefix);
                shuffle(order, work.random[i]);
                std::sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(chosen));
                for (std::size_t token = 0; token < length; ++token) {
                    work.positions.push_back(token < Tokens::prefix ? token : order[token - Tokens::prefix]);
                    work.chosen.push_back(i * Tokens::tokens + work.positions.back());
                }
            }
        }
    }

    static constexpr std::size_t kept_patches() {
        return std::max<std::size_t>(
            1, static_cast<std::size_t>(static_cast<double>(Tokens::patches) * (1 - stand_in.patch_dropout)));
    }

    Stem stem_;
    Tokens tokens_;
    [[no_unique_address]] Norm ln_pre_;
    Blocks transformer_{layers};
    Head head_;
    kernels::Activation gelu_ = kernels::Activation::gelu;

    static_assert(sizeof(detail::rules_of<config, Embedding>(0)) > 0);
};

}  // namespace tandem::inline TANDEM_ABI

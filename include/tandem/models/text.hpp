// The text transformer: token ids in, embeddings out.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tandem/core/ranks.hpp>
#include <tandem/models/config.hpp>
#include <tandem/models/part_rules.hpp>
#include <tandem/nn/transformer.hpp>
#include <tandem/nn/embedding.hpp>
#include <tandem/nn/masked_language.hpp>
#include <tandem/nn/mlp.hpp>
#include <tandem/nn/pooling.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// Whether a text tower has a head for MaskedLanguage.
template <class Text>
concept MasksLanguage = requires { requires Text::masks_language; };

}  // namespace detail

/// The tower of a TextConfig, as the text side of CLIP/clip/model.py:343-356. A causal tower computes each caption only up
/// to the token it pools: what comes later cannot reach it; where it pools many, up to the end-of-text token. `wanted` is
/// the shape of its blocks; a tower that does not own them is lent another's.
template <Arithmetic T, auto config, std::size_t Embedding, BlockShape wanted, bool OwnsBlocks>
class TextTransformer {
    static constexpr bool valid = config.is_valid() && detail::TowerParts<T, config, wanted>::hold;
    static constexpr auto stand_in = [] {
        if constexpr (valid) {
            return config;
        } else {
            return TextConfig<>{.vocabulary = 1, .context = 1, .width = 1, .layers = 1, .heads = 1};
        }
    }();
    static constexpr BlockShape shape = valid ? wanted : stand_in.block_shape();
    static constexpr auto parts = stand_in.block_parts();
    using Pooling = std::remove_const_t<decltype(stand_in.pooling)>;

public:
    static constexpr std::size_t context = stand_in.context, width = stand_in.width, layers = stand_in.layers;
    static constexpr std::size_t tokens = context, heads = stand_in.heads;
    using C = Compute<T>;
    using Input = View<const Id, Shape<dynamic, context>>;
    using Table = nn::TokenEmbedding<T, stand_in.vocabulary, context, width, stand_in.places(), stand_in.first_position,
                                     stand_in.token_types>;
    using Norm = std::conditional_t<stand_in.ln_embed,
                                    typename decltype(stand_in.norm)::template Layer<T, width, stand_in.norm>, nn::None>;
    using Blocks = nn::Transformer<T, nn::blocks_shape<parts>(shape), parts>;
    using Head = nn::Head<T, shape, Embedding, parts, Pooling, stand_in.final_ln_after_pool, stand_in.proj_type,
                          stand_in.proj_bias, !stand_in.no_ln_final>;
    static constexpr bool masks_language = stand_in.masks_language();
    using MlmHead = std::conditional_t<masks_language, nn::MaskedLanguageHead<T, stand_in.vocabulary, width, stand_in.norm, !stand_in.no_ln_final>, nn::None>;

    /// Of captions that training shows twice: as they are, to be embedded, and right behind it with tokens that are to be told.
    struct Masked {
        bool is_on = false;                  ///< in the last forward pass
        C scale = 0;                         ///< what the next backward pass multiplies the cross-entropy of every token by
        std::vector<std::size_t> counts{};   ///< tokens to be told of each caption
        std::vector<C> losses{};             ///< the sum of their cross-entropies, after the backward pass
        std::vector<std::size_t> rows{};     ///< where they stand
        std::vector<Id> labels{};            ///< and what they are
        std::vector<std::size_t> pooled_rows{}, pooled_offsets{};  ///< what is pooled, of the captions as they are
        std::vector<Random> random{};
        Tensor<Id, Shape<dynamic, context>> captions;
        std::vector<nn::ChosenToken> chosen{};
        std::vector<C> of_tokens{};
        Tensor<C, Shape<dynamic, width>> pooled, hidden;
        typename MlmHead::Saved head;
        /// The head's gradient of the table of tokens, which embedding them adds to as well: apart between begin_share() and close_share().
        Tensor<C, Shape<dynamic, width>> table;
    };

    struct Workspace {
        [[no_unique_address]] typename Norm::Saved norm;
        typename Blocks::Saved blocks;
        typename Head::Saved head;
        Tensor<Id, Shape<dynamic, context>> ids;
        Tensor<C, Shape<dynamic, width>> embedded, gradient, picked_gradient;
        std::vector<std::size_t> offsets, rows;
        kernels::Activation gelu = kernels::Activation::gelu;
        std::vector<Random> random;  ///< of each item: draws what the next forward pass with `keep` leaves out of it; none: nothing
        /// Groups from the front that learn nothing: what makes the blocks' input, and blocks. The backward pass ends behind them.
        std::size_t locked = 0;
        [[no_unique_address]] std::conditional_t<masks_language, Masked, nn::None> masked;

        Sequences<C> sequences() const {
            return {.offsets = offsets, .positions = {}, .causal = stand_in.causal, .rotations = rotations(), .gelu = gelu};
        }
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        Table::parameters(visit, at, self.table_...);
        if constexpr (has_norm) Norm::parameters(visit, at + "ln_embed.", self.ln_embed_...);
        if constexpr (OwnsBlocks) Blocks::parameters(visit, at + "transformer.", self.transformer_...);
        Head::Norm::parameters(visit, at + "ln_final.", self.head_.norm...);
        Head::parameters(visit, at + "text_pool.", self.head_...);
        Head::Projector::parameters(visit, at + "text_projection", self.head_.projection...);
        if constexpr (masks_language) MlmHead::parameters(visit, at + "mlm_head.", self.mlm_head_...);
    }

    void initialise(Random& random) {
        const InitScale scale{.width = width, .layers = stand_in.layers};
        table_.initialise(random, scale);
        if constexpr (OwnsBlocks) transformer_.initialise(random);
        head_.initialise(random, scale);
        if constexpr (masks_language) initialise_mlm_head(random);
    }

    /// ids <N, context> to embeddings <N, Embedding>, not normalised. `keep` keeps what backward needs, and leaves out
    /// what the config's dropouts draw; where the config masks language, backward then needs the scale of the tokens that were drawn to be told.
    void forward(Input ids, Rows<C, Embedding> embeddings, Workspace& work, bool keep) const requires OwnsBlocks {
        forward(ids, embeddings, work, keep, transformer_);
    }
    /// The same through blocks that are another tower's.
    void forward(Input ids, Rows<C, Embedding> embeddings, Workspace& work, bool keep, const Blocks& blocks) const {
        const std::size_t count = ids.extent(0);
        nn::check_draws("TextTransformer::forward", work.random, count);
        work.blocks.locked = work.locked == 0 ? 0 : work.locked - 1;
        if (keep || is_padded) {
            work.ids.resize(count);
            std::copy_n(ids.data(), ids.size(), work.ids.data());
            if constexpr (stand_in.token_dropout > 0) {
                for (std::size_t i = 0; keep && i < work.random.size(); ++i) drop_tokens(work.ids[i].elements(), work.random[i]);
            }
            ids = work.ids;
        }
        if constexpr (masks_language) {
            work.masked.is_on = keep && !work.random.empty();
            if (work.masked.is_on) return forward_masked(embeddings, work, blocks);
        }
        work.offsets.resize(count + 1);
        work.rows.resize(count);
        work.offsets[0] = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t length = is_padded ? close_up(work.ids[i].elements()) : context;
            const std::size_t position = end_of(ids[i].elements().first(length));
            work.rows[i] = work.offsets[i] + position;
            work.offsets[i + 1] = work.offsets[i] + (stand_in.causal ? position + 1 : length);
        }
        embed(ids, work, blocks);
        const Sequences<C> sequences = work.sequences();
        head_.forward(run_blocks(blocks, sequences, work, keep), embeddings, sequences, 0, work.head, keep);
    }

    /// What stands behind the first `count` blocks, of every place of the context, padding included: to <N · context,
    /// width>; with `normed`, behind the last norm. Where the tower knows padding, its rows are 0.
    void tokens_after(std::size_t count, bool normed, Input ids, Rows<C, width> to, Workspace& work,
                      const Blocks& blocks) const {
        embed_all(ids, work, blocks);
        const Rows<const C, width> from = blocks.forward_first(count, work.sequences(), work.blocks);
        if constexpr (is_padded) {
            work.embedded.resize(from.extent(0));
            head_.copy_tokens(normed, from, work.embedded, work.head);
            std::fill_n(to.data(), to.size(), C{0});
            nn::add_to_rows<C, width>(work.embedded, work.rows, to);
        } else {
            head_.copy_tokens(normed, from, to, work.head);
        }
    }
    void tokens_after(std::size_t count, bool normed, Input ids, Rows<C, width> to, Workspace& work) const
        requires OwnsBlocks
    {
        tokens_after(count, normed, ids, to, work, transformer_);
    }

    /// The attention weights of block `layer`: to <N, heads, context, context>.
    void attention_weights(std::size_t layer, Input ids, C* to, Workspace& work, const Blocks& blocks) const {
        if constexpr (is_padded) {
            // Captions are of lengths of their own.
            constexpr std::size_t size = heads * context * context;
            std::fill_n(to, ids.extent(0) * size, C{0});
            std::vector<C> weights;
            for (std::size_t i = 0; i < ids.extent(0); ++i) {
                embed_all(ids.slice(i, i + 1), work, blocks);
                const std::size_t length = work.rows.size();
                weights.resize(heads * length * length);
                blocks.attention_weights(layer, work.sequences(), length, work.blocks, weights.data());
                for (std::size_t j = 0; j < weights.size(); ++j)
                    to[i * size + (j / (length * length) * context + work.rows[j / length % length]) * context + work.rows[j % length]] = weights[j];
            }
        } else {
            embed_all(ids, work, blocks);
            blocks.attention_weights(layer, work.sequences(), context, work.blocks, to);
        }
    }
    void attention_weights(std::size_t layer, Input ids, C* to, Workspace& work) const requires OwnsBlocks {
        attention_weights(layer, ids, to, work, transformer_);
    }

    /// Adds to the gradients of all parameters, given the gradient of the embeddings of the last forward with `keep`.
    void backward(Rows<const C, Embedding> gradient_of_embeddings, Workspace& work, TextTransformer& gradient) const
        requires(Trainable<T> && OwnsBlocks)
    {
        backward(gradient_of_embeddings, work, gradient, transformer_, gradient.transformer_);
    }
    void backward(Rows<const C, Embedding> gradient_of_embeddings, Workspace& work, TextTransformer& gradient,
                  const Blocks& blocks, Blocks& blocks_gradient) const
        requires Trainable<T>
    {
        const Sequences<C> sequences = work.sequences();
        work.gradient.resize(sequences.rows());
        if constexpr (masks_language) {
            if (work.masked.is_on) {
                backward_of_masked(gradient_of_embeddings, work, gradient);
                blocks.backward(work.gradient, sequences, work.blocks, blocks_gradient);
                return backward_of_tokens(work, gradient);
            }
        }
        if constexpr (Head::picks_row) {
            work.picked_gradient.resize(work.rows.size());
            head_.backward(work.blocks.picked, gradient_of_embeddings, work.picked_gradient, sequences, 0, work.head,
                           gradient.head_);
            blocks.backward_picked(work.picked_gradient, work.gradient, sequences, work.rows, work.blocks,
                                   blocks_gradient);
        } else {
            head_.backward(work.blocks.streams.back(), gradient_of_embeddings, work.gradient, sequences, 0, work.head,
                           gradient.head_);
            blocks.backward(work.gradient, sequences, work.blocks, blocks_gradient);
        }
        backward_of_tokens(work, gradient);
    }

    /// Between these two the head for masked language and the embedding of tokens, which both add to the table of tokens, do so apart: alternating, they
    /// would depend on the parts of a batch.
    void begin_share(Workspace& work) const requires masks_language {
        if (work.locked > 0) return;
        work.masked.table.resize(stand_in.vocabulary);
        work.masked.table.fill(0);
    }
    void close_share(Workspace& work, TextTransformer& gradient) const requires masks_language {
        if (work.locked > 0) return;
        const std::array to{gradient.table_.token_embedding.elements()}, from{work.masked.table.elements()};
        detail::add_tensors<C>(to, from);
        work.masked.table.fill(0);
    }

    /// Random weights of the head for masked language: what it begins with where a checkpoint has none.
    void initialise_mlm_head(Random& random) requires masks_language { mlm_head_.initialise(random, {.width = width, .layers = stand_in.layers}); }

    /// Which form of GELU stands for AnyGelu.
    void set_gelu(kernels::Activation form) { gelu_ = form; }

private:
    static constexpr bool has_norm = stand_in.ln_embed, is_padded = stand_in.pad_id >= 0;

    static auto own_blocks() {
        if constexpr (OwnsBlocks) {
            return Blocks(layers);
        } else {
            return nn::None{};
        }
    }

    static const C* rotations() {
        if constexpr (stand_in.pos_embed_type == PosEmbed::rotary) {
            return nn::rotations_1d<C, context, shape.head_width>().data();
        } else {
            return nullptr;
        }
    }

    /// The whole context of every caption, padding that is known left out; work.rows says where the tokens stood.
    void embed_all(Input ids, Workspace& work, const Blocks& blocks) const {
        const std::size_t count = ids.extent(0);
        work.offsets.resize(count + 1);
        work.rows.clear();
        if constexpr (is_padded) {
            work.ids.resize(count);
            std::copy_n(ids.data(), ids.size(), work.ids.data());
            for (std::size_t i = 0; i < count; ++i) {
                for (std::size_t at = 0; at < context; ++at) {
                    if (ids(i, at) != stand_in.pad_id) work.rows.push_back(i * context + at);
                }
                close_up(work.ids[i].elements());
                work.offsets[i + 1] = work.rows.size();
            }
            ids = work.ids;
        } else {
            for (std::size_t i = 0; i <= count; ++i) work.offsets[i] = i * context;
        }
        embed(ids, work, blocks);
    }

    /// The ids that work.offsets counts, to the blocks' input.
    void embed(Input ids, Workspace& work, const Blocks& blocks) const {
        const std::size_t rows = work.offsets.back();
        work.gelu = gelu_;
        if constexpr (has_norm) {
            work.embedded.resize(rows);
            table_.forward(ids, work.embedded, work.offsets);
            ln_embed_.forward(work.embedded, blocks.input(rows, work.blocks), work.norm);
        } else {
            table_.forward(ids, blocks.input(rows, work.blocks), work.offsets);
        }
    }

    /// forward() with `keep` of work.ids, each caption of which is followed by itself with tokens that are to be told.
    void forward_masked(Rows<C, Embedding> embeddings, Workspace& work, const Blocks& blocks) const requires masks_language {
        Masked& masked = work.masked;
        const std::size_t count = work.ids.extent(0);
        for (auto* counted : {&masked.rows, &masked.pooled_rows, &masked.counts}) counted->clear();
        for (auto* offsets : {&work.offsets, &masked.pooled_offsets}) offsets->assign(1, 0);
        masked.labels.clear();
        masked.random.clear();
        std::swap(work.ids, masked.captions);
        work.ids.resize(2 * count);
        for (std::size_t i = 0; i < count; ++i) {
            const auto caption = work.ids[2 * i].elements(), twin = work.ids[2 * i + 1].elements();
            std::ranges::copy(masked.captions[i].elements(), caption.begin());
            const std::size_t length = close_up(caption);
            std::ranges::copy(caption, twin.begin());
            masked.random.push_back(work.random[i]);
            masked.random.emplace_back(Seed{masked.random.back().next()}, 0);
            masked.chosen.clear();
            nn::mask_tokens(twin.first(length), stand_in.masked_language, stand_in.vocabulary, masked.random.back(), masked.chosen);
            const std::size_t first = work.offsets.back();
            if constexpr (Head::picks_row) {
                masked.pooled_rows.push_back(first + end_of(caption.first(length)));
            } else {
                for (std::size_t j = 0; j < length; ++j) masked.pooled_rows.push_back(first + j);
            }
            masked.pooled_offsets.push_back(masked.pooled_rows.size());
            masked.counts.push_back(masked.chosen.size());
            for (const nn::ChosenToken& token : masked.chosen) {
                masked.rows.push_back(first + length + token.position);
                masked.labels.push_back(token.id);
            }
            work.offsets.push_back(first + length);
            work.offsets.push_back(first + 2 * length);
        }
        embed(work.ids, work, blocks);
        const Rows<const C, width> rows = blocks.forward(work.sequences(), work.blocks, true, masked.random);
        masked.pooled.resize(masked.pooled_rows.size());
        nn::gather_rows<C, width>(rows, masked.pooled_rows, masked.pooled);
        head_.forward(masked.pooled, embeddings, pooled_sequences(work), 0, work.head, true);
    }

    /// work.gradient = the gradient of what leaves the blocks, of forward_masked's embeddings and of the tokens to be told.
    void backward_of_masked(Rows<const C, Embedding> gradient_of_embeddings, Workspace& work, TextTransformer& gradient) const
        requires(masks_language && Trainable<T>)
    {
        Masked& masked = work.masked;
        work.gradient.fill(0);
        work.picked_gradient.resize(masked.pooled_rows.size());
        head_.backward(masked.pooled, gradient_of_embeddings, work.picked_gradient, pooled_sequences(work), 0, work.head, gradient.head_);
        nn::add_to_rows<C, width>(work.picked_gradient, masked.pooled_rows, work.gradient);
        masked.hidden.resize(masked.rows.size());
        work.picked_gradient.resize(masked.rows.size());
        nn::gather_rows<C, width>(work.blocks.streams.back(), masked.rows, masked.hidden);
        masked.of_tokens.resize(masked.rows.size());
        // A locked tower's table is not updated.
        C* const of_table = work.locked > 0 ? nullptr : masked.table.data();
        mlm_head_.loss_and_gradient(masked.hidden, masked.labels, masked.scale, table_.token_embedding, nn::activation_in(stand_in.activation, work.sequences()),
                                    work.picked_gradient, masked.of_tokens, masked.head, gradient.mlm_head_, of_table);
        nn::add_to_rows<C, width>(work.picked_gradient, masked.rows, work.gradient);
        masked.losses.clear();
        std::size_t first = 0;
        for (const std::size_t count : masked.counts) {
            C sum = 0;
            for (std::size_t i = first; i < first + count; ++i) sum += masked.of_tokens[i];
            masked.losses.push_back(sum);
            first += count;
        }
    }

    /// The captions as they are, by what is pooled of them.
    Sequences<C> pooled_sequences(const Workspace& work) const requires masks_language {
        Sequences<C> sequences = work.sequences();
        sequences.offsets = work.masked.pooled_offsets;
        return sequences;
    }

    /// The gradients of what makes the blocks' input, given work.gradient.
    void backward_of_tokens(Workspace& work, TextTransformer& gradient) const requires Trainable<T> {
        if (work.locked > 0) return;
        if constexpr (has_norm)
            ln_embed_.backward(work.embedded, work.gradient, work.gradient, work.norm, gradient.ln_embed_, false);
        table_.backward(work.ids, work.gradient, work.offsets, gradient.table_);
    }

    /// Takes the padding out of a caption: its tokens close up, and it stands behind them. Returns how many they are.
    static std::size_t close_up(std::span<Id> ids) {
        const auto end = std::remove(ids.begin(), ids.end(), Id{stand_in.pad_id});
        std::fill(end, ids.end(), Id{stand_in.pad_id});
        if (end == ids.begin()) throw Error("TextTransformer", "a caption with a token that is no padding", "padding alone");
        return static_cast<std::size_t>(end - ids.begin());
    }

    static std::size_t end_of(std::span<const Id> ids) {
        if constexpr (Head::picks_row) {
            return stand_in.pooling.position(ids);
        } else {
            return Eot::position(ids);
        }
    }

    Rows<const C, width> run_blocks(const Blocks& blocks, const Sequences<C>& sequences, Workspace& work,
                                    bool keep) const {
        const std::span<Random> drawing = keep ? std::span<Random>(work.random) : std::span<Random>();
        if constexpr (Head::picks_row) {
            return blocks.forward_picked(sequences, work.rows, work.blocks, keep, drawing);
        } else {
            return blocks.forward(sequences, work.blocks, keep, drawing);
        }
    }

    /// Leaves out a random share of what stands between the first token and the end of text, in place: the others close
    /// up, as if the caption had never had them, and keep their order (open_clip/tokenizer.py, random_mask_tokenize,
    /// draws the order as well).
    static void drop_tokens(std::span<Id> ids, Random& random) {
        const std::size_t end = Eot::position(ids);
        if (end < 2) return;
        const std::size_t words = end - 1;
        const auto kept = std::max<std::size_t>(
            1, static_cast<std::size_t>(static_cast<double>(words) * (1 - stand_in.token_dropout)));
        std::size_t to = 1;
        for (std::size_t from = 1; from < end; ++from) {
            // Selection sampling: each of the rest is kept with the same chance.
            if (random.below(end - from) < kept + 1 - to) ids[to++] = ids[from];
        }
        const Id padding = end + 1 < ids.size() ? ids.back() : 0;
        std::copy(ids.begin() + static_cast<std::ptrdiff_t>(end), ids.end(),
                  ids.begin() + static_cast<std::ptrdiff_t>(to));
        std::fill(ids.end() - static_cast<std::ptrdiff_t>(end - to), ids.end(), padding);
    }

    Table table_;
    [[no_unique_address]] Norm ln_embed_;
    [[no_unique_address]] std::conditional_t<OwnsBlocks, Blocks, nn::None> transformer_ = own_blocks();
    Head head_;
    [[no_unique_address]] MlmHead mlm_head_;
    kernels::Activation gelu_ = kernels::Activation::gelu;

    static_assert(sizeof(detail::rules_of<config, Embedding>(0)) > 0);
};

}  // namespace tandem::inline TANDEM_ABI

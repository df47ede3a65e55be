// A stack of residual blocks, and what it costs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <tandem/nn/block.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/nn/part.hpp>
#include <tandem/nn/sequences.hpp>

namespace tandem::inline TANDEM_ABI {

namespace nn {

/// Throws Error unless what draws dropouts is there for every item of a batch, or for none.
inline void check_draws(const char* where, const std::vector<Random>& random, std::size_t count) {
    if (!random.empty() && random.size() != count) throw Error(where, "a Random for each of " + std::to_string(count) + " items, or none", std::to_string(random.size()));
}

/// The shape that blocks of a tower are made for.
template <auto parts>
constexpr BlockShape blocks_shape(const BlockShape& shape) {
    if constexpr (requires { requires decltype(parts.mixer)::takes_any_length; }) {
        return shape.of_any_length();
    } else {
        return shape;
    }
}

/// Blocks one after the other; how many is no part of the type, so that deep and shallow towers share their code.
template <Arithmetic T, BlockShape shape, auto parts>
struct Transformer {
    static constexpr std::size_t width = shape.width;
    using C = Compute<T>;
    using Layer = Block<T, shape, parts>;

    std::vector<Layer> resblocks;

    explicit Transformer(std::size_t layers) : resblocks(layers) {}

    /// streams[place(i)] is the input of block i; the last one is the output.
    struct Saved {
        std::vector<Tensor<C, Shape<dynamic, width>>> streams{2};
        std::vector<typename Layer::Saved> blocks{1};
        Tensor<C, Shape<dynamic, width>> scratch, picked;
        Recompute recompute = Recompute::nothing;
        /// So many blocks from the front learn nothing, nor does what stands before them: the backward pass ends behind them, and they keep nothing.
        std::size_t locked = 0;

        /// Blocks from the front that keep nothing: they have blocks[0] in turn, before or after the first one that does.
        std::size_t unkept(std::size_t layers) const { return std::min(layers - 1, std::max(locked, recompute.of(layers))); }
        /// Of the input of block i where it is kept; locked blocks have two streams in turn.
        std::size_t place(std::size_t i) const { return locked == 0 ? i : i < locked ? i % 2 : 2 + i - locked; }

        /// What stochastic depth drops of each block, which has it while it runs: see with_drops.
        struct Drops {
            std::vector<C> mixer, mlp;
        };
        std::vector<Drops> drops;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        for (std::size_t i = 0; i < std::min({self.resblocks.size()...}); ++i) {
            Layer::parameters(visit, at + "resblocks." + std::to_string(i) + ".", self.resblocks[i]...);
        }
    }

    void initialise(Random& random) {
        for (Layer& block : resblocks) block.initialise(random, {.width = width, .layers = layers()});
    }

    /// Where the input must be written before forward.
    Rows<C, width> input(std::size_t rows, Saved& saved) const {
        saved.streams.front().resize(rows);
        return saved.streams.front();
    }

    /// Returns the output, which stands in `saved`. With `keep`, all that backward needs is kept; without, each
    /// block overwrites what the one before it left. Stochastic depth drops what `random` draws, one for each sequence, where it is given.
    Rows<C, width> forward(const Sequences<C>& sequences, Saved& saved, bool keep, std::span<Random> random) const {
        prepare(saved, keep, random);
        return forward_blocks(layers(), sequences, saved, keep);
    }

    /// The output of the first `count` blocks, as forward computes it without `keep`.
    Rows<C, width> forward_first(std::size_t count, const Sequences<C>& sequences, Saved& saved) const {
        prepare(saved, false, {});
        return forward_blocks(count, sequences, saved, false);
    }

    /// The output, with the values of the last block mixed as `features` say.
    Rows<C, width> forward_patches(const Sequences<C>& sequences, PatchFeatures features, Saved& saved) const {
        const Rows<const C, width> from = forward_first(layers() - 1, sequences, saved);
        auto& to = saved.streams[layers() % 2];
        to.resize(from.extent(0));
        resblocks.back().forward_patches(from, to, sequences, features, saved.blocks[0]);
        return to;
    }

    /// The attention weights of block `layer`, counted from 0, for sequences that are all `tokens` long.
    void attention_weights(std::size_t layer, const Sequences<C>& sequences, std::size_t tokens, Saved& saved, C* to) const {
        const Rows<const C, width> from = forward_first(layer, sequences, saved);
        resblocks[layer].attention_weights(from, sequences, tokens, saved.blocks[0], to);
    }

    /// The rows of the output that `picked` names, one in every sequence: <sequences, width>.
    Rows<C, width> forward_picked(const Sequences<C>& sequences, std::span<const std::size_t> picked, Saved& saved,
                                  bool keep, std::span<Random> random) const {
        prepare(saved, keep, random);
        const Rows<C, width> from = forward_blocks(layers() - 1, sequences, saved, keep);
        saved.picked.resize(picked.size());
        const bool keeps = keep && saved.locked < layers();
        with_drops(layers() - 1, saved, keep, [&](auto& block) {
            resblocks.back().forward_picked(from, saved.picked, sequences, picked, block, keeps);
        });
        return saved.picked;
    }

    /// In place g = the gradient of the input, or of the first block's that is not locked, given that of the output.
    void backward(Rows<C, width> g, const Sequences<C>& sequences, Saved& saved,
                  Transformer& gradient) const requires Trainable<T> {
        backward_blocks(layers(), g, sequences, saved, gradient);
    }

    /// g = the same, given the gradient of forward_picked's result, which is overwritten.
    void backward_picked(Rows<C, width> g_picked, Rows<C, width> g, const Sequences<C>& sequences,
                         std::span<const std::size_t> picked, Saved& saved,
                         Transformer& gradient) const requires Trainable<T> {
        if (saved.locked >= layers()) return;
        saved.scratch.resize(g.extent(0));
        with_drops(layers() - 1, saved, true, [&](auto& block) {
            resblocks.back().backward_picked(saved.streams[saved.place(layers() - 1)], g_picked, g, saved.scratch, sequences, picked, block,
                                             gradient.resblocks.back());
        });
        backward_blocks(layers() - 1, g, sequences, saved, gradient);
    }

    /// What of the last block's input counted for a loss, <sequences, tokens>, given the gradient of the output, or with `picked`
    /// that of forward_picked's result; either is overwritten. See SelfAttention::relevance.
    void relevance(Rows<C, width> g, const Sequences<C>& sequences, std::size_t tokens, std::span<const std::size_t> picked, Saved& saved,
                   Transformer& gradient, C* to) const requires Trainable<T> {
        const std::size_t last = layers() - 1;
        saved.scratch.resize(sequences.rows());
        with_drops(last, saved, true, [&](auto& block) {
            if (picked.empty()) {
                resblocks[last].backward(saved.streams[saved.place(last)], g, saved.scratch, sequences, block, gradient.resblocks[last]);
            } else {
                auto& unused = saved.streams[saved.place(layers())];
                unused.resize(sequences.rows());
                resblocks[last].backward_picked(saved.streams[saved.place(last)], g, unused, saved.scratch, sequences, picked, block,
                                                gradient.resblocks[last]);
            }
            resblocks[last].relevance(sequences, tokens, picked, block, to);
        });
    }

private:
    std::size_t layers() const { return resblocks.size(); }

    void prepare(Saved& saved, bool keep, [[maybe_unused]] std::span<Random> random) const {
        const std::size_t held = layers() - saved.unkept(layers()), passed = saved.place(layers()) + 1;
        if (keep && (saved.blocks.size() != held || saved.streams.size() != passed)) {
            std::vector<Tensor<C, Shape<dynamic, width>>> streams(passed);
            streams.front() = std::move(saved.streams.front());
            saved.streams = std::move(streams);
            saved.blocks = std::vector<typename Layer::Saved>(held);
        }
        if constexpr (parts.drop_path_rate > 0) {
            const std::size_t drawn = keep ? layers() : 1;
            if (saved.drops.size() < drawn) saved.drops.resize(drawn);
            for (std::size_t i = 0; i < drawn; ++i) {
                const double rate =
                    layers() > 1 ? parts.drop_path_rate * static_cast<double>(i) / static_cast<double>(layers() - 1)
                                 : 0;
                draw(saved.drops[i].mixer, rate, random);
                draw(saved.drops[i].mlp, rate, random);
            }
        }
    }

    /// body(what is kept of block `layer`), with what stochastic depth drops of it.
    template <class Body>
    void with_drops(std::size_t layer, Saved& saved, bool keep, const Body& body) const {
        const std::size_t unkept = saved.unkept(layers());
        auto& block = saved.blocks[keep && layer > unkept ? layer - unkept : 0];
        const auto exchange = [&] {
            if constexpr (parts.drop_path_rate > 0) {
                typename Saved::Drops& drops = saved.drops[keep ? layer : 0];
                std::swap(block.mixer.drop, drops.mixer);
                std::swap(block.mlp.drop, drops.mlp);
            }
        };
        exchange();
        body(block);
        exchange();
    }

    /// 0 with probability `rate`, else 1 / (1 − rate), so that the mean is 1.
    static void draw(std::vector<C>& drop, double rate, std::span<Random> random) {
        drop.resize(rate > 0 ? random.size() : 0);
        std::transform(random.begin(), random.begin() + static_cast<std::ptrdiff_t>(drop.size()), drop.begin(),
                       [&](Random& of_sequence) { return of_sequence.uniform() < rate ? C{0} : static_cast<C>(1 / (1 - rate)); });
    }

    Rows<C, width> forward_blocks(std::size_t count, const Sequences<C>& sequences, Saved& saved, bool keep) const {
        const std::size_t rows = saved.streams.front().extent(0);
        for (std::size_t i = 0; i < count; ++i) {
            auto& from = saved.streams[keep ? saved.place(i) : i % 2];
            auto& to = saved.streams[keep ? saved.place(i + 1) : (i + 1) % 2];
            to.resize(rows);
            const bool keeps = keep && i >= saved.unkept(layers()) && i >= saved.locked;
            with_drops(i, saved, keep, [&](auto& block) { resblocks[i].forward(from, to, sequences, block, keeps); });
        }
        return saved.streams[keep ? saved.place(count) : count % 2];
    }

    void backward_blocks(std::size_t count, Rows<C, width> g, const Sequences<C>& sequences, Saved& saved,
                         Transformer& gradient) const requires Trainable<T> {
        saved.scratch.resize(g.extent(0));
        const std::size_t unkept = saved.unkept(layers());
        if (count > unkept + 1) saved.blocks[0].lend(saved.blocks[count - 1 - unkept]);
        for (std::size_t i = count; i-- > saved.locked;) {
            auto& from = saved.streams[saved.place(i)];
            with_drops(i, saved, true, [&](auto& block) {
                // What comes out is there already: in the stream that the block behind has no more use for.
                if (i < unkept) resblocks[i].forward(from, saved.streams[saved.place(i + 1)], sequences, block, true);
                resblocks[i].backward(from, g, saved.scratch, sequences, block, gradient.resblocks[i]);
            });
            if (i > unkept) saved.blocks[i - unkept].lend(saved.blocks[i - unkept - 1]);
        }
    }
};

/// A part's cost, by the parts it stands among where it asks for them.
constexpr Cost cost_of(const auto& part, const BlockShape& shape, std::size_t tokens, const auto& parts) {
    if constexpr (requires { part.cost(shape, tokens, parts); }) {
        return part.cost(shape, tokens, parts);
    } else {
        return part.cost(shape, tokens);
    }
}

/// What stands behind mixer and MLP, for `tokens` tokens: second norm, layer scale, stochastic depth.
constexpr Cost branch_cost(const BlockShape& shape, std::size_t tokens, const auto& parts) {
    const std::size_t rows = tokens * shape.width;
    const bool is_sandwich = parts.norm_position == NormPosition::sandwich, is_scaled = parts.ls_init_value != 0;
    const bool drops = parts.drop_path_rate > 0;
    Cost total{.parameters = is_scaled ? shape.width : 0};
    if (is_sandwich) total = total + parts.norm.cost(shape.width, tokens) + held_cost(2 * rows);
    if (!is_sandwich && (is_scaled || drops)) total = total + Cost{.saved = rows};
    if (is_sandwich || is_scaled || drops) total = total + Cost{.scratch = rows};
    return total;
}

/// One block, and the output it hands to the next.
constexpr Cost block_cost(const BlockShape& shape, std::size_t tokens, const auto& parts) {
    const std::size_t rows = tokens * shape.width, kept = parts.parallel ? 1 : 3;
    return (parts.parallel ? 1 : 2) * parts.norm.cost(shape.width, tokens) +
           cost_of(parts.mixer, shape, tokens, parts) + cost_of(parts.mlp, shape, tokens, parts) +
           2 * branch_cost(shape, tokens, parts) +
           rows * Cost{.inference = kept, .saved = kept + 1, .scratch = parts.parallel ? 1U : 0U};
}

/// The last block of a tower that pools one row.
constexpr Cost picked_block_cost(const BlockShape& shape, std::size_t tokens, const auto& parts) {
    if constexpr (requires { parts.mixer.picked_cost(shape, tokens, parts); }) {
        const std::size_t normed = parts.norm_position == NormPosition::post ? 0 : tokens;
        return parts.norm.cost(shape.width, normed) + parts.mixer.picked_cost(shape, tokens, parts) +
               cost_of(parts.mlp, shape, 1, parts) + 2 * branch_cost(shape, 1, parts) +
               (parts.parallel ? Cost{} : parts.norm.cost(shape.width, 1)) + held_cost((normed + 4) * shape.width);
    } else {
        return block_cost(shape, tokens, parts);
    }
}

/// What a mixer that picks keeps for that.
constexpr std::size_t picked_mixer_saved(const BlockShape& shape, std::size_t tokens, const auto& parts) {
    if constexpr (requires { parts.mixer.picked_cost(shape, tokens, parts); }) {
        return parts.mixer.picked_cost(shape, tokens, parts).saved;
    } else {
        return 0;
    }
}

/// `layers` blocks, the streams between them, and the backward pass's own two. FLOPs and parameters are those of whole
/// blocks; what is executed and held knows that the last block computes one row where `picks` is set, and what is kept which blocks are
/// computed again.
constexpr Cost transformer_cost(const BlockShape& shape, std::size_t tokens, std::size_t layers, const auto& parts,
                                bool picks, Recompute recompute) {
    const Cost block = block_cost(shape, tokens, parts);
    const Cost last = picks ? picked_block_cost(shape, tokens, parts) : block;
    const std::size_t rows = tokens * shape.width;
    Cost total = layers * block;
    total.executed = (layers - 1) * block.executed + last.executed;
    total.saved = (layers - 1) * block.saved + last.saved + rows;
    // Blocks that are computed again have the memory of the one behind them; if that is one that picks, it has its own queries and keys beside theirs.
    const std::size_t again = recompute.of(layers);
    total.saved -= again * (block.saved - rows);
    if (again > 0 && again + 1 == layers) total.saved += std::max(block.saved - rows, last.saved) - last.saved + (picks ? picked_mixer_saved(shape, tokens, parts) : 0);
    total.inference = (layers > 1 ? block.inference : 0) + (picks || layers == 1 ? last.inference : 0) + 2 * rows;
    total.scratch = (layers > 1 ? block.scratch : 0) + (picks || layers == 1 ? last.scratch : 0) + 2 * rows;
    return total;
}

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI

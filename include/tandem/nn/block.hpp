// The pre-norm residual block, and a stack of them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include <tandem/nn/attention.hpp>
#include <tandem/nn/layer_norm.hpp>
#include <tandem/nn/mlp.hpp>
#include <tandem/nn/parameter.hpp>

namespace tandem::inline TANDEM_ABI {

/// The parts a block is made of, each a value of a choice type.
template <class Norm, class Mixer, class Mlp, class Activation>
struct BlockParts {
    Norm norm;
    Mixer mixer;
    Mlp mlp;
    Activation activation;

    /// What one block costs: its parts, and the four tensors it keeps between them.
    constexpr Cost cost(const BlockShape& shape, std::size_t tokens) const {
        return 2 * norm.cost(shape.width, tokens) + mixer.cost(shape, tokens) + mlp.cost(shape, tokens) +
               Cost{.saved = 4 * tokens * shape.width};
    }
};

namespace nn {

/// x + mixer(ln_1(x)), then + mlp(ln_2(·)): CLIP/clip/model.py:171-192.
template <Arithmetic T, BlockShape shape, auto parts>
struct Block {
    static constexpr std::size_t width = shape.width;
    using C = Compute<T>;
    using Norm = typename decltype(parts.norm)::template Layer<T, width, parts.norm>;
    using Mixer = typename decltype(parts.mixer)::template Layer<T, shape, parts.mixer>;
    using Feedforward = typename decltype(parts.mlp)::template Layer<T, shape, parts.mlp, parts.activation>;

    Norm ln_1;
    Mixer attn;
    Norm ln_2;
    Feedforward mlp;

    struct Saved {
        typename Norm::Saved norm_1, norm_2;
        typename Mixer::Saved mixer;
        typename Feedforward::Saved mlp;
        Tensor<C, Shape<dynamic, width>> normed_1, middle, normed_2;
        /// For picked rows: their inputs, or all rows of a mixer that cannot pick; and the offsets of sequences of one
        /// row.
        Tensor<C, Shape<dynamic, width>> whole;
        std::vector<std::size_t> ends;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        Norm::parameters(visit, at + "ln_1.", self.ln_1...);
        Mixer::parameters(visit, at + "attn.", self.attn...);
        Norm::parameters(visit, at + "ln_2.", self.ln_2...);
        Feedforward::parameters(visit, at + "mlp.", self.mlp...);
    }

    void initialise(Random& random, const InitScale& scale) {
        initialise_part(attn, random, scale);
        initialise_part(mlp, random, scale);
    }

    /// x and y are <rows, width> and must not overlap. `keep` keeps what backward needs.
    void forward(Rows<const C, width> x, Rows<C, width> y, Offsets offsets, Saved& saved, bool keep) const {
        const std::size_t rows = x.extent(0);
        saved.normed_1.resize(rows);
        saved.middle.resize(rows);
        saved.normed_2.resize(rows);
        ln_1.forward(x, saved.normed_1, saved.norm_1);
        attn.forward(saved.normed_1, x, saved.middle, offsets, saved.mixer, keep);
        ln_2.forward(saved.middle, saved.normed_2, saved.norm_2);
        mlp.forward(saved.normed_2, saved.middle, y, offsets, saved.mlp, keep);
    }

    /// The rows of forward's result that `picked` names, one in every sequence, in y <sequences, width>. A mixer that
    /// can pick, and all that follows it, computes those rows alone; the bits are forward's.
    void forward_picked(Rows<const C, width> x, Rows<C, width> y, Offsets offsets, std::span<const std::size_t> picked,
                        Saved& saved, bool keep) const {
        if (!can_pick()) {
            saved.whole.resize(x.extent(0));
            forward(x, saved.whole, offsets, saved, keep);
            return gather_rows<C, width>(saved.whole, picked, y);
        }
        if constexpr (mixer_picks) {
            const std::size_t count = picked.size();
            saved.normed_1.resize(x.extent(0));
            saved.whole.resize(count);
            saved.middle.resize(count);
            saved.normed_2.resize(count);
            saved.ends.resize(count + 1);
            std::iota(saved.ends.begin(), saved.ends.end(), std::size_t{0});
            ln_1.forward(x, saved.normed_1, saved.norm_1);
            gather_rows<C, width>(x, picked, saved.whole);
            attn.forward_picked(saved.normed_1, saved.whole, saved.middle, offsets, picked, saved.mixer);
            ln_2.forward(saved.middle, saved.normed_2, saved.norm_2);
            mlp.forward(saved.normed_2, saved.middle, y, saved.ends, saved.mlp, keep);
        }
    }

    /// g = dL/dx for all rows, given g_picked = dL/dy of forward_picked, which is overwritten. `scratch` is <rows,
    /// width>.
    void backward_picked(Rows<const C, width> x, Rows<C, width> g_picked, Rows<C, width> g, Rows<C, width> scratch,
                         Offsets offsets, std::span<const std::size_t> picked, Saved& saved,
                         Block& gradient) const requires Trainable<T> {
        std::fill_n(g.data(), g.size(), C{0});
        if (!can_pick()) {
            add_to_rows<C, width>(g_picked, picked, g);
            return backward(x, g, scratch, offsets, saved, gradient);
        }
        if constexpr (mixer_picks) {
            const Rows<C, width> few(scratch.data(), {{picked.size(), width}});
            mlp.backward(saved.normed_2, g_picked, few, saved.ends, saved.mlp, gradient.mlp);
            ln_2.backward(saved.middle, few, g_picked, saved.norm_2, gradient.ln_2, true);
            attn.backward_picked(saved.normed_1, g_picked, scratch, offsets, picked, saved.mixer, gradient.attn);
            add_to_rows<C, width>(g_picked, picked, g);
            ln_1.backward(x, scratch, g, saved.norm_1, gradient.ln_1, true);
        }
    }

    /// In place g = dL/dx, given g = dL/dy. `scratch` is <rows, width>.
    void backward(Rows<const C, width> x, Rows<C, width> g, Rows<C, width> scratch, Offsets offsets, Saved& saved,
                  Block& gradient) const requires Trainable<T> {
        mlp.backward(saved.normed_2, g, scratch, offsets, saved.mlp, gradient.mlp);
        ln_2.backward(saved.middle, scratch, g, saved.norm_2, gradient.ln_2, true);
        attn.backward(saved.normed_1, g, scratch, offsets, saved.mixer, gradient.attn);
        ln_1.backward(x, scratch, g, saved.norm_1, gradient.ln_1, true);
    }

private:
    static constexpr bool mixer_picks = requires { Mixer::can_pick(); };

    static bool can_pick() {
        if constexpr (mixer_picks) {
            return Mixer::can_pick();
        } else {
            return false;
        }
    }
};

/// `Layers` blocks one after the other.
template <Arithmetic T, BlockShape shape, std::size_t Layers, auto parts>
struct Transformer {
    static constexpr std::size_t width = shape.width;
    using C = Compute<T>;
    using Layer = Block<T, shape, parts>;

    std::vector<Layer> resblocks = std::vector<Layer>(Layers);

    /// streams[i] is the input of block i; the last one is the output.
    struct Saved {
        std::vector<Tensor<C, Shape<dynamic, width>>> streams{2};
        std::vector<typename Layer::Saved> blocks{1};
        Tensor<C, Shape<dynamic, width>> scratch, picked;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        for (std::size_t i = 0; i < Layers; ++i) {
            Layer::parameters(visit, at + "resblocks." + std::to_string(i) + ".", self.resblocks[i]...);
        }
    }

    void initialise(Random& random) {
        for (Layer& block : resblocks) block.initialise(random, {.width = width, .layers = Layers});
    }

    /// Where the input must be written before forward.
    Rows<C, width> input(std::size_t rows, Saved& saved) const {
        saved.streams.front().resize(rows);
        return saved.streams.front();
    }

    /// Returns the output, which stands in `saved`. With `keep`, all that backward needs is kept; without, each block
    /// overwrites what the one before it left.
    Rows<C, width> forward(Offsets offsets, Saved& saved, bool keep) const {
        return forward_blocks(Layers, offsets, saved, keep);
    }

    /// The rows of the output that `picked` names, one in every sequence: <sequences, width>.
    Rows<C, width> forward_picked(Offsets offsets, std::span<const std::size_t> picked, Saved& saved, bool keep) const {
        const Rows<C, width> from = forward_blocks(Layers - 1, offsets, saved, keep);
        saved.picked.resize(picked.size());
        resblocks.back().forward_picked(from, saved.picked, offsets, picked, saved.blocks[keep ? Layers - 1 : 0], keep);
        return saved.picked;
    }

    /// In place g = the gradient of the input, given that of the output.
    void backward(Rows<C, width> g, Offsets offsets, Saved& saved, Transformer& gradient) const requires Trainable<T> {
        backward_blocks(Layers, g, offsets, saved, gradient);
    }

    /// g = the gradient of the input, given that of forward_picked's result, which is overwritten.
    void backward_picked(Rows<C, width> g_picked, Rows<C, width> g, Offsets offsets,
                         std::span<const std::size_t> picked, Saved& saved,
                         Transformer& gradient) const requires Trainable<T> {
        saved.scratch.resize(g.extent(0));
        resblocks.back().backward_picked(saved.streams[Layers - 1], g_picked, g, saved.scratch, offsets, picked,
                                         saved.blocks[Layers - 1], gradient.resblocks.back());
        backward_blocks(Layers - 1, g, offsets, saved, gradient);
    }

private:
    Rows<C, width> forward_blocks(std::size_t count, Offsets offsets, Saved& saved, bool keep) const {
        const std::size_t rows = saved.streams.front().extent(0);
        if (keep && saved.blocks.size() != Layers) {
            std::vector<Tensor<C, Shape<dynamic, width>>> streams(Layers + 1);
            streams.front() = std::move(saved.streams.front());
            saved.streams = std::move(streams);
            saved.blocks = std::vector<typename Layer::Saved>(Layers);
        }
        for (std::size_t i = 0; i < count; ++i) {
            auto& from = saved.streams[keep ? i : i % 2];
            auto& to = saved.streams[keep ? i + 1 : (i + 1) % 2];
            to.resize(rows);
            resblocks[i].forward(from, to, offsets, saved.blocks[keep ? i : 0], keep);
        }
        return saved.streams[keep ? count : count % 2];
    }

    void backward_blocks(std::size_t count, Rows<C, width> g, Offsets offsets, Saved& saved,
                         Transformer& gradient) const requires Trainable<T> {
        saved.scratch.resize(g.extent(0));
        for (std::size_t i = count; i-- > 0;) {
            resblocks[i].backward(saved.streams[i], g, saved.scratch, offsets, saved.blocks[i], gradient.resblocks[i]);
        }
    }
};

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI

// The pre-norm residual block, and a stack of them.
#pragma once

#include <cstddef>
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
template <Element T, BlockShape shape, auto parts>
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
    };

    static void parameters(const auto& visit, const std::string& at, auto&... self) {
        Norm::parameters(visit, at + "ln_1.", self.ln_1...);
        Mixer::parameters(visit, at + "attn.", self.attn...);
        Norm::parameters(visit, at + "ln_2.", self.ln_2...);
        Feedforward::parameters(visit, at + "mlp.", self.mlp...);
    }

    void initialise(Random& random, const InitScale& scale) {
        initialise_part(attn, random, scale);
        initialise_part(mlp, random, scale);
    }

    /// x and y are <rows, width> and must not overlap; y may be used as scratch before it holds the result.
    void forward(Rows<const C, width> x, Rows<C, width> y, Offsets offsets, Saved& saved) const {
        const std::size_t rows = x.extent(0);
        saved.normed_1.resize(rows);
        saved.middle.resize(rows);
        saved.normed_2.resize(rows);
        ln_1.forward(x, saved.normed_1, saved.norm_1);
        attn.forward(saved.normed_1, y, offsets, saved.mixer);
        detail::add<C>(x, y, saved.middle.view());
        ln_2.forward(saved.middle, saved.normed_2, saved.norm_2);
        mlp.forward(saved.normed_2, y, offsets, saved.mlp);
        detail::add<C>(y, saved.middle.view(), y);
    }

    /// In place g = dL/dx, given g = dL/dy. `scratch` is <rows, width>.
    void backward(Rows<const C, width> x, Rows<C, width> g, Rows<C, width> scratch, Offsets offsets, Saved& saved,
                  Block& gradient) const
        requires Real<T>
    {
        mlp.backward(saved.normed_2, g, scratch, offsets, saved.mlp, gradient.mlp);
        ln_2.backward(saved.middle, scratch, g, saved.norm_2, gradient.ln_2, true);
        attn.backward(saved.normed_1, g, scratch, offsets, saved.mixer, gradient.attn);
        ln_1.backward(x, scratch, g, saved.norm_1, gradient.ln_1, true);
    }
};

/// `Layers` blocks one after the other.
template <Element T, BlockShape shape, std::size_t Layers, auto parts>
struct Transformer {
    static constexpr std::size_t width = shape.width;
    using C = Compute<T>;
    using Layer = Block<T, shape, parts>;

    std::vector<Layer> resblocks = std::vector<Layer>(Layers);

    /// streams[i] is the input of block i; the last one is the output.
    struct Saved {
        std::vector<Tensor<C, Shape<dynamic, width>>> streams{2};
        std::vector<typename Layer::Saved> blocks{1};
        Tensor<C, Shape<dynamic, width>> scratch;
    };

    static void parameters(const auto& visit, const std::string& at, auto&... self) {
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
        const std::size_t rows = saved.streams.front().extent(0);
        if (keep && saved.blocks.size() != Layers) {
            std::vector<Tensor<C, Shape<dynamic, width>>> streams(Layers + 1);
            streams.front() = std::move(saved.streams.front());
            saved.streams = std::move(streams);
            saved.blocks = std::vector<typename Layer::Saved>(Layers);
        }
        for (std::size_t i = 0; i < Layers; ++i) {
            auto& from = saved.streams[keep ? i : i % 2];
            auto& to = saved.streams[keep ? i + 1 : (i + 1) % 2];
            to.resize(rows);
            resblocks[i].forward(from, to, offsets, saved.blocks[keep ? i : 0]);
        }
        return saved.streams[keep ? Layers : Layers % 2];
    }

    /// In place g = the gradient of the input, given that of the output.
    void backward(Rows<C, width> g, Offsets offsets, Saved& saved, Transformer& gradient) const
        requires Real<T>
    {
        saved.scratch.resize(g.extent(0));
        for (std::size_t i = Layers; i-- > 0;) {
            resblocks[i].backward(saved.streams[i], g, saved.scratch, offsets, saved.blocks[i], gradient.resblocks[i]);
        }
    }
};

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI

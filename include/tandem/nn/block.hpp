// The residual block, and a stack of them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <tandem/nn/attention.hpp>
#include <tandem/nn/layer_norm.hpp>
#include <tandem/nn/mlp.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/nn/part.hpp>
#include <tandem/nn/sequences.hpp>

namespace tandem::inline TANDEM_ABI {

namespace nn {

/// A mixer or an MLP on its way into the residual stream: y = residual + drop · ls · after(part(x)), of which `after` (the
/// second norm of a sandwich), ls (layer scale) and drop (stochastic depth, one factor a sequence) are there where the
/// config has them.
template <Arithmetic T, std::size_t Width, auto parts, class Part>
struct Branch {
    using C = Compute<T>;
    static constexpr bool has_norm = parts.norm_position == NormPosition::sandwich;
    static constexpr bool has_scale = parts.ls_init_value != 0, drops = parts.drop_path_rate > 0;
    using Norm = std::conditional_t<has_norm, typename decltype(parts.norm)::template Layer<T, Width, parts.norm>, None>;

    Part part;
    [[no_unique_address]] Norm after;
    Tensor<C, Shape<has_scale ? Width : 0>> gamma;

    struct Saved {
        typename Part::Saved part;
        [[no_unique_address]] typename Norm::Saved norm;
        Tensor<C, Shape<dynamic, Width>> result, normed, gradient;  ///< of the part, where something stands behind it
        std::vector<C> drop;                                        ///< one factor a sequence; empty: all 1

        void lend(Saved& to) {
            std::swap(gradient, to.gradient);
            if constexpr (requires { part.lend(to.part); }) part.lend(to.part);
        }
    };

    Branch() { gamma.fill(static_cast<C>(parts.ls_init_value)); }

    static void parameters(const auto& visit, const ParameterName& part_at, const ParameterName& norm_at,
                           const ParameterName& scale_at, auto&... self) {
        Part::parameters(visit, part_at, self.part...);
        if constexpr (has_norm) Norm::parameters(visit, norm_at, self.after...);
        if constexpr (has_scale) visit(scale_at + "gamma", self.gamma...);
    }

    /// residual may be y.
    void forward(Rows<const C, Width> x, Rows<const C, Width> residual, Rows<C, Width> y,
                 const Sequences<C>& sequences, Saved& saved, bool keep) const {
        run(residual, y, sequences, saved, keep, [&](Rows<C, Width> to, const kernels::Finish<C>* finish) {
            if constexpr (FinishingPart<Part, C, Width>) {
                part.forward(x, to, sequences, saved.part, keep, finish != nullptr ? *finish : kernels::Finish<C>{});
            } else {
                part.forward(x, to, sequences, saved.part, keep);
            }
        });
    }

    /// The same for the rows that `picked` names, one in every sequence; residual and y hold those rows alone, and
    /// `ends` says so.
    void forward_picked(Rows<const C, Width> x, Rows<const C, Width> residual, Rows<C, Width> y,
                        const Sequences<C>& sequences, std::span<const std::size_t> picked, const Sequences<C>& ends,
                        Saved& saved, bool keep) const {
        run(residual, y, ends, saved, keep, [&](Rows<C, Width> to, const kernels::Finish<C>* finish) {
            part.forward_picked(x, to, sequences, picked, saved.part,
                                finish != nullptr ? *finish : kernels::Finish<C>{});
        });
    }

    /// dx, given the gradient g of y, which is that of the residual as well and stays as it is.
    void backward(Rows<const C, Width> x, Rows<const C, Width> g, Rows<C, Width> dx, const Sequences<C>& sequences,
                  Saved& saved, Branch& gradient) const requires Trainable<T> {
        part.backward(x, through(g, sequences, saved, gradient), dx, sequences, saved.part, gradient.part);
    }
    void backward_picked(Rows<const C, Width> x, Rows<const C, Width> g, Rows<C, Width> dx,
                         const Sequences<C>& sequences, std::span<const std::size_t> picked, const Sequences<C>& ends,
                         Saved& saved, Branch& gradient) const requires Trainable<T> {
        part.backward_picked(x, through(g, ends, saved, gradient), dx, sequences, picked, saved.part, gradient.part);
    }

private:
    /// A part that can finish its last product adds the residual there, and scales.
    template <class Forward>
    void run(Rows<const C, Width> residual, Rows<C, Width> y, const Sequences<C>& rows, Saved& saved, bool keep,
             const Forward& forward) const {
        constexpr bool finishes = FinishingPart<Part, C, Width> && !has_norm;
        if constexpr (finishes) {
            if (!drops || saved.drop.empty()) {
                kernels::Finish<C> finish{.residual = residual.data(), .residual_stride = Width};
                if constexpr (has_scale) {
                    finish.factor = gamma.data();
                    if (keep) {
                        saved.result.resize(rows.rows());
                        finish.before = saved.result.data();
                        finish.before_stride = Width;
                    }
                }
                return forward(y, &finish);
            }
        }
        if constexpr (!finishes || drops) {
            saved.result.resize(rows.rows());
            forward(saved.result, nullptr);
            const C* result = saved.result.data();
            if constexpr (has_norm) {
                saved.normed.resize(rows.rows());
                after.forward(saved.result, saved.normed, saved.norm);
                result = saved.normed.data();
            }
            for_each_row(rows, saved.drop, [&](std::size_t row, C drop) {
                for (std::size_t j = row * Width, column = 0; column < Width; ++j, ++column)
                    y.data()[j] = residual.data()[j] + drop * scale(column) * result[j];
            });
        }
    }

    C scale([[maybe_unused]] std::size_t column) const {
        if constexpr (has_scale) {
            return gamma.data()[column];
        } else {
            return C{1};
        }
    }

    /// The gradient of the part's result.
    Rows<const C, Width> through(Rows<const C, Width> g, const Sequences<C>& rows, Saved& saved, Branch& gradient) const
        requires Trainable<T>
    {
        if constexpr (!has_norm && !has_scale && !drops) {
            return g;
        } else {
            saved.gradient.resize(rows.rows());
            if constexpr (has_scale) {
                const C* const result = has_norm ? saved.normed.data() : saved.result.data();
                // Row by row in order, so that the sums' bits do not depend on the threads.
                for (std::size_t s = 0; s < rows.count(); ++s) {
                    const C drop = saved.drop.empty() ? C{1} : saved.drop[s];
                    for (std::size_t j = rows.offsets[s] * Width; j < rows.offsets[s + 1] * Width; ++j)
                        gradient.gamma.data()[j % Width] += drop * g.data()[j] * result[j];
                }
            }
            for_each_row(rows, saved.drop, [&](std::size_t row, C drop) {
                for (std::size_t j = row * Width, column = 0; column < Width; ++j, ++column)
                    saved.gradient.data()[j] = drop * scale(column) * g.data()[j];
            });
            if constexpr (has_norm)
                after.backward(saved.result, saved.gradient, saved.gradient, saved.norm, gradient.after, false);
            return saved.gradient;
        }
    }

    template <class Body>
    static void for_each_row(const Sequences<C>& rows, const std::vector<C>& drop, const Body& body) {
        parallel_for(rows.count(), 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t s = begin; s < end; ++s) {
                for (std::size_t row = rows.offsets[s]; row < rows.offsets[s + 1]; ++row)
                    body(row, drop.empty() ? C{1} : drop[s]);
            }
        });
    }
};

/// x + mixer(ln_1(x)), then + mlp(ln_2(·)) (CLIP/clip/model.py:171-192), or as parts.norm_position and parts.parallel
/// have it.
template <Arithmetic T, BlockShape shape, auto parts>
struct Block {
    static constexpr std::size_t width = shape.width;
    static constexpr bool is_post = parts.norm_position == NormPosition::post, is_parallel = parts.parallel;
    using C = Compute<T>;
    using Norm = typename decltype(parts.norm)::template Layer<T, width, parts.norm>;
    using Mixer = typename decltype(parts.mixer)::template Layer<T, shape, parts>;
    using Feedforward = typename decltype(parts.mlp)::template Layer<T, shape, parts>;
    using SecondNorm = std::conditional_t<is_parallel, None, Norm>;
    using Stream = Tensor<C, Shape<dynamic, width>>;

    static_assert(BlockPart<Mixer, C, width>,
                  "tandem: a mixer's Layer<T, shape, parts> needs Saved, parameters(visit, at, self...) and forward(x, y, "
                  "sequences, saved, keep): see BlockPart");
    static_assert(BlockPart<Feedforward, C, width>,
                  "tandem: an MLP's Layer<T, shape, parts> needs Saved, parameters(visit, at, self...) and forward(x, y, "
                  "sequences, saved, keep): see BlockPart");
    static_assert(NormPart<Norm, C, width>,
                  "tandem: a norm's Layer<T, Width, choice> needs Saved, parameters(visit, at, self...) and forward(x, y, saved)");
    static_assert(!is_parallel || parts.norm_position == NormPosition::pre,
                  "tandem: a parallel block has one norm, before mixer and MLP: leave norm_position at pre");

    Norm ln_1;
    Branch<T, width, parts, Mixer> attn;
    [[no_unique_address]] SecondNorm ln_2;
    Branch<T, width, parts, Feedforward> mlp;

    struct Saved {
        typename Norm::Saved norm_1;
        [[no_unique_address]] typename SecondNorm::Saved norm_2;
        typename Branch<T, width, parts, Mixer>::Saved mixer;
        typename Branch<T, width, parts, Feedforward>::Saved mlp;
        /// Pre: what the norms gave. Post: the sums they were given. Parallel: normed_2 is the gradient of the MLP's input.
        Stream normed_1, middle, normed_2;
        /// For picked rows: their inputs, or all rows of a mixer that cannot pick; and the offsets of sequences of one
        /// row.
        Stream whole;
        std::vector<std::size_t> ends;

        /// Hands what only a backward pass uses to the block that is next to have one.
        void lend(Saved& to) {
            mixer.lend(to.mixer);
            mlp.lend(to.mlp);
            if constexpr (is_parallel) std::swap(normed_2, to.normed_2);
        }
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        Norm::parameters(visit, at + "ln_1.", self.ln_1...);
        Branch<T, width, parts, Mixer>::parameters(visit, at + "attn.", at + "ln_attn.", at + "ls_1.", self.attn...);
        if constexpr (!is_parallel) Norm::parameters(visit, at + "ln_2.", self.ln_2...);
        Branch<T, width, parts, Feedforward>::parameters(visit, at + "mlp.", at + "ln_mlp.", at + "ls_2.", self.mlp...);
    }

    void initialise(Random& random, const InitScale& scale) {
        initialise_part(attn.part, random, scale);
        initialise_part(mlp.part, random, scale);
    }

    /// x and y are <rows, width> and must not overlap. `keep` keeps what backward needs.
    void forward(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences, Saved& saved,
                 bool keep) const {
        const std::size_t rows = x.extent(0);
        saved.normed_1.resize(rows);
        if constexpr (is_post) {
            attn.forward(x, x, saved.normed_1, sequences, saved.mixer, keep);
        } else {
            ln_1.forward(x, saved.normed_1, saved.norm_1);
            if constexpr (is_parallel) {
                attn.forward(saved.normed_1, x, y, sequences, saved.mixer, keep);
            } else {
                saved.middle.resize(rows);
                attn.forward(saved.normed_1, x, saved.middle, sequences, saved.mixer, keep);
            }
        }
        second_half(y, sequences, saved, keep);
    }

    /// What the mixer's queries make of its keys: see SelfAttention::weights.
    void attention_weights(Rows<const C, width> x, const Sequences<C>& sequences, std::size_t tokens, Saved& saved,
                           C* to) const {
        Rows<const C, width> input = x;
        if constexpr (!is_post) {
            saved.normed_1.resize(x.extent(0));
            ln_1.forward(x, saved.normed_1, saved.norm_1);
            input = saved.normed_1;
        }
        attn.part.weights(input, sequences, tokens, saved.mixer.part, to);
    }

    /// The rows of forward's result that `picked` names, one in every sequence, in y <sequences, width>. A mixer that
    /// can pick, and all that follows it, computes those rows alone; the bits are forward's.
    void forward_picked(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences,
                        std::span<const std::size_t> picked, Saved& saved, bool keep) const {
        if (!can_pick()) {
            saved.whole.resize(x.extent(0));
            forward(x, saved.whole, sequences, saved, keep);
            return gather_rows<C, width>(saved.whole, picked, y);
        }
        if constexpr (mixer_picks) {
            const std::size_t count = picked.size();
            saved.whole.resize(count);
            saved.ends.resize(count + 1);
            std::iota(saved.ends.begin(), saved.ends.end(), std::size_t{0});
            const Sequences<C> ends{.offsets = saved.ends, .gelu = sequences.gelu};
            gather_rows<C, width>(x, picked, saved.whole);
            if constexpr (is_post) {
                saved.normed_1.resize(count);
                attn.forward_picked(x, saved.whole, saved.normed_1, sequences, picked, ends, saved.mixer, keep);
            } else {
                saved.middle.resize(x.extent(0));
                ln_1.forward(x, saved.middle, saved.norm_1);
                if constexpr (is_parallel) {
                    attn.forward_picked(saved.middle, saved.whole, y, sequences, picked, ends, saved.mixer, keep);
                    saved.normed_1.resize(count);
                    gather_rows<C, width>(saved.middle, picked, saved.normed_1);
                } else {
                    saved.normed_1.resize(x.extent(0));
                    std::swap(saved.normed_1, saved.middle);
                    saved.middle.resize(count);
                    attn.forward_picked(saved.normed_1, saved.whole, saved.middle, sequences, picked, ends, saved.mixer,
                                        keep);
                }
            }
            second_half(y, ends, saved, keep);
        }
    }

    /// g = dL/dx for all rows, given g_picked = dL/dy of forward_picked, which is overwritten. `scratch` is <rows,
    /// width>.
    void backward_picked(Rows<const C, width> x, Rows<C, width> g_picked, Rows<C, width> g, Rows<C, width> scratch,
                         const Sequences<C>& sequences, std::span<const std::size_t> picked, Saved& saved,
                         Block& gradient) const requires Trainable<T> {
        std::fill_n(g.data(), g.size(), C{0});
        if (!can_pick()) {
            add_to_rows<C, width>(g_picked, picked, g);
            return backward(x, g, scratch, sequences, saved, gradient);
        }
        if constexpr (mixer_picks) {
            const Rows<C, width> few(scratch.data(), {{picked.size(), width}});
            const Sequences<C> ends{.offsets = saved.ends, .gelu = sequences.gelu};
            if constexpr (is_parallel) {
                saved.normed_2.resize(picked.size());
                mlp.backward(saved.normed_1, g_picked, saved.normed_2, ends, saved.mlp, gradient.mlp);
                attn.backward_picked(saved.middle, g_picked, scratch, sequences, picked, ends, saved.mixer,
                                     gradient.attn);
                add_to_rows<C, width>(saved.normed_2, picked, scratch);
            } else if constexpr (is_post) {
                second_half_backward(g_picked, few, ends, saved, gradient);
                ln_1.backward(saved.normed_1, g_picked, g_picked, saved.norm_1, gradient.ln_1, false);
                attn.backward_picked(x, g_picked, scratch, sequences, picked, ends, saved.mixer, gradient.attn);
                add_rows<C, width>(scratch, g);
            } else {
                second_half_backward(g_picked, few, ends, saved, gradient);
                attn.backward_picked(saved.normed_1, g_picked, scratch, sequences, picked, ends, saved.mixer,
                                     gradient.attn);
            }
            add_to_rows<C, width>(g_picked, picked, g);
            if constexpr (!is_post) ln_1.backward(x, scratch, g, saved.norm_1, gradient.ln_1, true);
        }
    }

    /// In place g = dL/dx, given g = dL/dy. `scratch` is <rows, width>.
    void backward(Rows<const C, width> x, Rows<C, width> g, Rows<C, width> scratch, const Sequences<C>& sequences,
                  Saved& saved, Block& gradient) const requires Trainable<T> {
        if constexpr (is_parallel) {
            saved.normed_2.resize(x.extent(0));
            mlp.backward(saved.normed_1, g, saved.normed_2, sequences, saved.mlp, gradient.mlp);
            attn.backward(saved.normed_1, g, scratch, sequences, saved.mixer, gradient.attn);
            add_rows<C, width>(saved.normed_2, scratch);
            ln_1.backward(x, scratch, g, saved.norm_1, gradient.ln_1, true);
        } else if constexpr (is_post) {
            second_half_backward(g, scratch, sequences, saved, gradient);
            ln_1.backward(saved.normed_1, g, g, saved.norm_1, gradient.ln_1, false);
            attn.backward(x, g, scratch, sequences, saved.mixer, gradient.attn);
            add_rows<C, width>(scratch, g);
        } else {
            second_half_backward(g, scratch, sequences, saved, gradient);
            attn.backward(saved.normed_1, g, scratch, sequences, saved.mixer, gradient.attn);
            ln_1.backward(x, scratch, g, saved.norm_1, gradient.ln_1, true);
        }
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

    /// All that follows the mixer treats every row alone: the rows are all, or the picked ones.
    void second_half(Rows<C, width> y, const Sequences<C>& sequences, Saved& saved, bool keep) const {
        const std::size_t rows = y.extent(0);
        if constexpr (is_parallel) {
            mlp.forward(saved.normed_1, y, y, sequences, saved.mlp, keep);
        } else if constexpr (is_post) {
            saved.middle.resize(rows);
            saved.normed_2.resize(rows);
            ln_1.forward(saved.normed_1, saved.middle, saved.norm_1);
            mlp.forward(saved.middle, saved.middle, saved.normed_2, sequences, saved.mlp, keep);
            ln_2.forward(saved.normed_2, y, saved.norm_2);
        } else {
            saved.normed_2.resize(rows);
            ln_2.forward(saved.middle, saved.normed_2, saved.norm_2);
            mlp.forward(saved.normed_2, saved.middle, y, sequences, saved.mlp, keep);
        }
    }

    /// In place g = the gradient of the middle of the stream.
    void second_half_backward(Rows<C, width> g, Rows<C, width> scratch, const Sequences<C>& sequences, Saved& saved,
                              Block& gradient) const requires Trainable<T> {
        if constexpr (is_post) {
            ln_2.backward(saved.normed_2, g, g, saved.norm_2, gradient.ln_2, false);
            mlp.backward(saved.middle, g, scratch, sequences, saved.mlp, gradient.mlp);
            add_rows<C, width>(scratch, g);
        } else {
            mlp.backward(saved.normed_2, g, scratch, sequences, saved.mlp, gradient.mlp);
            ln_2.backward(saved.middle, scratch, g, saved.norm_2, gradient.ln_2, true);
        }
    }
};

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

    /// streams[i] is the input of block i; the last one is the output.
    struct Saved {
        std::vector<Tensor<C, Shape<dynamic, width>>> streams{2};
        std::vector<typename Layer::Saved> blocks{1};
        Tensor<C, Shape<dynamic, width>> scratch, picked;
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

    /// Returns the output, which stands in `saved`. With `keep`, all that backward needs is kept, and stochastic depth
    /// drops what `random` draws; without, each block overwrites what the one before it left.
    Rows<C, width> forward(const Sequences<C>& sequences, Saved& saved, bool keep, Random& random) const {
        prepare(sequences, saved, keep, random);
        return forward_blocks(layers(), sequences, saved, keep);
    }

    /// The output of the first `count` blocks, as forward computes it without `keep`.
    Rows<C, width> forward_first(std::size_t count, const Sequences<C>& sequences, Saved& saved, Random& random) const {
        prepare(sequences, saved, false, random);
        return forward_blocks(count, sequences, saved, false);
    }

    /// The attention weights of block `layer`, counted from 0, for sequences that are all `tokens` long.
    void attention_weights(std::size_t layer, const Sequences<C>& sequences, std::size_t tokens, Saved& saved, C* to,
                           Random& random) const {
        const Rows<const C, width> from = forward_first(layer, sequences, saved, random);
        resblocks[layer].attention_weights(from, sequences, tokens, saved.blocks[0], to);
    }

    /// The rows of the output that `picked` names, one in every sequence: <sequences, width>.
    Rows<C, width> forward_picked(const Sequences<C>& sequences, std::span<const std::size_t> picked, Saved& saved,
                                  bool keep, Random& random) const {
        prepare(sequences, saved, keep, random);
        const Rows<C, width> from = forward_blocks(layers() - 1, sequences, saved, keep);
        saved.picked.resize(picked.size());
        resblocks.back().forward_picked(from, saved.picked, sequences, picked, saved.blocks[keep ? layers() - 1 : 0],
                                        keep);
        return saved.picked;
    }

    /// In place g = the gradient of the input, given that of the output.
    void backward(Rows<C, width> g, const Sequences<C>& sequences, Saved& saved, Transformer& gradient) const
        requires Trainable<T>
    {
        backward_blocks(layers(), g, sequences, saved, gradient);
    }

    /// g = the gradient of the input, given that of forward_picked's result, which is overwritten.
    void backward_picked(Rows<C, width> g_picked, Rows<C, width> g, const Sequences<C>& sequences,
                         std::span<const std::size_t> picked, Saved& saved, Transformer& gradient) const
        requires Trainable<T>
    {
        saved.scratch.resize(g.extent(0));
        resblocks.back().backward_picked(saved.streams[layers() - 1], g_picked, g, saved.scratch, sequences, picked,
                                         saved.blocks[layers() - 1], gradient.resblocks.back());
        backward_blocks(layers() - 1, g, sequences, saved, gradient);
    }

private:
    std::size_t layers() const { return resblocks.size(); }

    void prepare(const Sequences<C>& sequences, Saved& saved, bool keep, Random& random) const {
        if (keep && saved.blocks.size() != layers()) {
            std::vector<Tensor<C, Shape<dynamic, width>>> streams(layers() + 1);
            streams.front() = std::move(saved.streams.front());
            saved.streams = std::move(streams);
            saved.blocks = std::vector<typename Layer::Saved>(layers());
        }
        if constexpr (parts.drop_path_rate > 0) {
            for (std::size_t i = 0; i < saved.blocks.size(); ++i) {
                const double rate =
                    layers() > 1 ? parts.drop_path_rate * static_cast<double>(i) / static_cast<double>(layers() - 1) : 0;
                draw(saved.blocks[i].mixer.drop, sequences.count(), keep ? rate : 0, random);
                draw(saved.blocks[i].mlp.drop, sequences.count(), keep ? rate : 0, random);
            }
        }
    }

    /// 0 with probability `rate`, else 1 / (1 − rate), so that the mean is 1.
    static void draw(std::vector<C>& drop, std::size_t count, double rate, Random& random) {
        drop.resize(rate > 0 ? count : 0);
        for (C& factor : drop) factor = random.uniform() < rate ? C{0} : static_cast<C>(1 / (1 - rate));
    }

    Rows<C, width> forward_blocks(std::size_t count, const Sequences<C>& sequences, Saved& saved, bool keep) const {
        const std::size_t rows = saved.streams.front().extent(0);
        for (std::size_t i = 0; i < count; ++i) {
            auto& from = saved.streams[keep ? i : i % 2];
            auto& to = saved.streams[keep ? i + 1 : (i + 1) % 2];
            to.resize(rows);
            resblocks[i].forward(from, to, sequences, saved.blocks[keep ? i : 0], keep);
        }
        return saved.streams[keep ? count : count % 2];
    }

    void backward_blocks(std::size_t count, Rows<C, width> g, const Sequences<C>& sequences, Saved& saved,
                         Transformer& gradient) const requires Trainable<T> {
        saved.scratch.resize(g.extent(0));
        if (count > 1) saved.blocks[0].lend(saved.blocks[count - 1]);
        for (std::size_t i = count; i-- > 0;) {
            resblocks[i].backward(saved.streams[i], g, saved.scratch, sequences, saved.blocks[i],
                                  gradient.resblocks[i]);
            if (i > 0) saved.blocks[i].lend(saved.blocks[i - 1]);
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

/// `layers` blocks, the streams between them, and the backward pass's own two. FLOPs and parameters are those of whole
/// blocks; what is executed and held knows that the last block computes one row where `picks` is set.
constexpr Cost transformer_cost(const BlockShape& shape, std::size_t tokens, std::size_t layers, const auto& parts,
                                bool picks) {
    const Cost block = block_cost(shape, tokens, parts);
    const Cost last = picks ? picked_block_cost(shape, tokens, parts) : block;
    const std::size_t rows = tokens * shape.width;
    Cost total = layers * block;
    total.executed = (layers - 1) * block.executed + last.executed;
    total.saved = (layers - 1) * block.saved + last.saved + rows;
    total.inference = (layers > 1 ? block.inference : 0) + (picks || layers == 1 ? last.inference : 0) + 2 * rows;
    total.scratch = (layers > 1 ? block.scratch : 0) + (picks || layers == 1 ? last.scratch : 0) + 2 * rows;
    return total;
}

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI

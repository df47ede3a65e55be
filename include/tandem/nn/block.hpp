// The residual block.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <tandem/nn/attention.hpp>
#include <tandem/nn/branch.hpp>
#include <tandem/nn/layer_norm.hpp>
#include <tandem/nn/mlp.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/nn/part.hpp>
#include <tandem/nn/sequences.hpp>

namespace tandem::inline TANDEM_ABI {

namespace nn {

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

    static_assert(
        BlockPart<Mixer, C, width>,
        "tandem: a mixer's Layer<T, shape, parts> needs Saved, parameters(visit, at, self...) and forward(x, y, "
        "sequences, saved, keep): see BlockPart");
    static_assert(
        BlockPart<Feedforward, C, width>,
        "tandem: an MLP's Layer<T, shape, parts> needs Saved, parameters(visit, at, self...) and forward(x, y, "
        "sequences, saved, keep): see BlockPart");
    static_assert(NormPart<Norm, C, width>,
                  "tandem: a norm's Layer<T, Width, choice> needs Saved, parameters(visit, at, self...) and forward(x, "
                  "y, saved)");
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
        /// Pre: what the norms gave. Post: the sums they were given. Parallel: normed_2 is the gradient of the MLP's
        /// input.
        Stream normed_1, middle, normed_2;
        /// What the norms gave where layers hand one another rows of bfloat16.
        Narrow<width> narrow;
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
        if constexpr (can_pass_narrow) {
            if (kernels::passes_narrow<T>()) {
                ln_1.forward_narrow(x, saved.narrow);
                attn.forward_narrow(saved.narrow, x, middle_of(y, saved), sequences, saved.mixer);
                return second_half_narrow(y, sequences, saved);
            }
        }
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

    /// As forward, with the mixer's values mixed as `features` say, which are not plain. What mask_clip and clear_clip leave is the mixer's branch
    /// alone.
    void forward_patches(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences, PatchFeatures features,
                         Saved& saved) const {
        const std::size_t rows = x.extent(0);
        Rows<const C, width> input = x;
        saved.normed_1.resize(rows);
        if constexpr (!is_post) {
            ln_1.forward(x, saved.normed_1, saved.norm_1);
            input = saved.normed_1;
        }
        if (features != PatchFeatures::sclip) {
            saved.whole.resize(rows);
            saved.whole.fill(0);
            return attn.forward_patches(input, saved.whole, y, sequences, features, saved.mixer);
        }
        if constexpr (is_post) {
            attn.forward_patches(input, x, saved.normed_1, sequences, features, saved.mixer);
        } else if constexpr (is_parallel) {
            attn.forward_patches(input, x, y, sequences, features, saved.mixer);
        } else {
            saved.middle.resize(rows);
            attn.forward_patches(input, x, saved.middle, sequences, features, saved.mixer);
        }
        second_half(y, sequences, saved, false);
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
            if constexpr (can_pass_narrow) {
                if (kernels::passes_narrow<T>()) {
                    ln_1.forward_narrow(x, saved.narrow);
                    attn.forward_picked_narrow(saved.narrow, saved.whole, middle_of(y, saved), sequences, picked, ends, saved.mixer);
                    if constexpr (is_parallel) {
                        gather_rows<bfloat16, kernels::narrow_length(width)>(saved.narrow, picked, saved.narrow);
                        saved.narrow.resize(count);
                    }
                    return second_half_narrow(y, ends, saved);
                }
            }
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

    /// After backward, or backward_picked with `picked`, what of the input counted: see SelfAttention::relevance.
    void relevance(const Sequences<C>& sequences, std::size_t tokens, std::span<const std::size_t> picked, Saved& saved, C* to) const {
        attn.part.relevance(sequences, tokens, can_pick() ? picked : std::span<const std::size_t>{}, saved.mixer.part, to);
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
    static constexpr bool can_pass_narrow = [] {
        if constexpr (requires { requires NarrowPart<Mixer> && NarrowPart<Feedforward>; }) {
            return !Trainable<T> && !is_post && width <= kernels::narrow_depth &&
                   requires(const Norm& norm, Rows<const C, width> x, Narrow<width>& y) { norm.forward_narrow(x, y); };
        }
        return false;
    }();

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

    /// Where the mixer's branch goes: in the middle of the stream, or, in a parallel block, into its result.
    static Rows<C, width> middle_of(Rows<C, width> y, Saved& saved) {
        if constexpr (is_parallel) return y;
        saved.middle.resize(y.extent(0));
        return saved.middle;
    }

    /// second_half(), after the mixer got rows of bfloat16.
    void second_half_narrow(Rows<C, width> y, const Sequences<C>& sequences, Saved& saved) const {
        if constexpr (is_parallel) {
            mlp.forward_narrow(saved.narrow, y, y, sequences, saved.mlp);
        } else {
            ln_2.forward_narrow(saved.middle, saved.narrow);
            mlp.forward_narrow(saved.narrow, saved.middle, y, sequences, saved.mlp);
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

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI

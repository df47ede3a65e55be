// One loss over nested prefixes of the embeddings, so that each prefix is an embedding of its own.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <utility>

#include <tandem/losses/contrastive.hpp>
#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/pick.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// As a class of plain values: compilers print both sides of a comparison.
template <std::size_t longest, std::size_t embedding>
struct LengthRules {
    static_assert(longest <= embedding, "tandem: a length of matryoshka is at most the embedding's");
};

}  // namespace detail

/// Σ over the lengths d of loss(first d elements, normalised again): Kusupati et al. 2022, eq. 1, with every weight 1.
/// Takes a bias if the loss does. It trains the lengths it names: name the whole embedding's too. Made by matryoshka().
template <ComposableLoss L, std::size_t... Lengths>
struct Matryoshka : LossNode {
    static_assert(sizeof...(Lengths) > 0, "tandem: matryoshka needs at least one length");
    static constexpr std::size_t least_pairs = tandem::least_pairs<L>;
    static constexpr bool sees_batch = tandem::sees_batch<L>;

    L loss;

    explicit Matryoshka(L of_each) : loss(std::move(of_each)) {}

    static void for_each_loss(const auto& visit, auto& self) { visit(self.loss); }

    template <class Image, class Text, class... Learned>
        requires std::invocable<const L&, const Image&, const Text&, const Learned&...>
    auto operator()(const Image& image, const Text& text, const Learned&... learned) const {
        constexpr bool fits = ((Lengths <= Image::shape::extents[1]) && ...);
        static_assert(sizeof(detail::LengthRules<std::max({Lengths...}), Image::shape::extents[1]>) > 0);
        if constexpr (fits) {
            return (loss(normalize(first_columns<Lengths>(image)), normalize(first_columns<Lengths>(text)), learned...) +
                    ...);
        } else {
            return loss(image, text, learned...);
        }
    }
};

/// matryoshka<64, 128, 256>(InfoNce{}): a loss for embeddings that may be cut to 64 or 128 elements (see truncated).
template <std::size_t... Lengths, ComposableLoss L>
auto matryoshka(L loss) {
    return Matryoshka<L, Lengths...>(std::move(loss));
}

/// The first Length elements of every embedding, normalised again: what a model trained with matryoshka() is searched by
/// where memory or time is short.
template <std::size_t Length, TensorOperand X>
auto truncated(const X& embeddings) {
    return evaluate(normalize(first_columns<Length>(embeddings)));
}

}  // namespace tandem::inline TANDEM_ABI

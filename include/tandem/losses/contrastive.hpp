// Contrastive losses as expressions over two embedding matrices, and how losses compose.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <type_traits>
#include <utility>

#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/matmul.hpp>
#include <tandem/tensor/pick.hpp>
#include <tandem/tensor/reduce.hpp>
#include <tandem/tensor/tiled.hpp>

namespace tandem::inline TANDEM_ABI {

/// What the library's losses derive from, so that they can be added and weighted. A loss is called with the normalised
/// embeddings image <N, D> and text <N, D>, the scale <> (the exponential of the learned logit scale) and, if it takes a
/// fourth argument, the learned bias <>; it returns a scalar expression. A lambda does too; Loss{lambda} composes.
struct LossNode {};

/// A loss that can be added and weighted.
template <class L>
concept ComposableLoss = std::derived_from<L, LossNode>;

/// Calls a loss with the bias if it takes one.
template <class L, class Image, class Text, class Scale, class Bias>
auto call_loss(const L& loss, const Image& image, const Text& text, const Scale& scale, const Bias& bias) {
    if constexpr (std::invocable<const L&, const Image&, const Text&, const Scale&, const Bias&>) {
        return loss(image, text, scale, bias);
    } else {
        return loss(image, text, scale);
    }
}

/// The fewest pairs a loss learns from: 2 or more where it tells every pair from the others of its batch, which it says
/// by a static member of this name; a loss that says nothing may learn from one.
template <class L>
inline constexpr std::size_t least_pairs = 1;
template <class L>
requires requires {
    L::least_pairs;
}
inline constexpr std::size_t least_pairs<L> = L::least_pairs;

/// Whether a loss sees what is embedded, beside the embeddings; it says so by a static member of this name, and has see(first, count, images, ids),
/// which is called with the pairs from `first` on of a batch of `count`, part after part, and seen(ranks) behind the last one of this rank's, before
/// the loss is: what a rank has not seen, the loss gathers there; ranks is nullptr where a process is alone.
template <class L>
inline constexpr bool sees_batch = false;
template <class L>
requires requires {
    L::sees_batch;
}
inline constexpr bool sees_batch<L> = L::sees_batch;

/// Whether a loss is of pairs; one that is not says so by a static member of this name, and no image is embedded for it.
template <class L>
inline constexpr bool embeds_pairs = true;
template <class L>
requires requires {
    L::embeds_pairs;
}
inline constexpr bool embeds_pairs<L> = L::embeds_pairs;

namespace detail {

/// visit(part) for a loss that sees batches, or those that it is made of.
template <class L, class Visit>
void for_each_seeing(L& loss, const Visit& visit) {
    if constexpr (requires { L::for_each_loss(visit, loss); }) {
        L::for_each_loss([&](auto& part) { for_each_seeing(part, visit); }, loss);
    } else if constexpr (sees_batch<L>) {
        visit(loss);
    }
}

}  // namespace detail

// Both losses scale the image embeddings, not the logits, as open_clip does: fewer products, and derivatives of the logits
// that are simpler to compile.

/// Symmetric cross-entropy over scaled cosine similarities: InfoNCE in both directions (Radford et al. 2021, fig. 3;
/// open_clip/loss.py, ClipLoss).
struct InfoNce : LossNode {
    static constexpr std::size_t least_pairs = 2;  // of one pair it is 0 for any weights

    auto operator()(const auto& image, const auto& text, const auto& scale) const {
        const auto logits = matmul(scale * image, transpose(text));
        // Both cross-entropies subtract the same diagonal, and none needs the transpose.
        return mean(0.5 * (log_sum_exp<1>(logits) + log_sum_exp<0>(logits)) - diagonal(logits));
    }
};

/// −1/N Σᵢⱼ log σ(zᵢⱼ (scale · xᵢ·yⱼ + bias)), z = 1 on the diagonal and −1 elsewhere (Zhai et al. 2023, alg. 1;
/// open_clip/loss.py, SigLipLoss). Since log σ(l) = log σ(−l) + l, the diagonal needs no second matrix.
struct SigmoidLoss : LossNode {
    static constexpr std::size_t least_pairs = 2;  // one pair has nothing that should not match

    auto operator()(const auto& image, const auto& text, const auto& scale, const auto& bias) const {
        const auto logits = matmul(scale * image, transpose(text)) + bias;
        const double count = static_cast<double>(image.extents()[0]);
        return (sum(softplus(logits)) - sum(diagonal(logits))) * (1.0 / count);
    }
};

/// No loss of pairs: a text tower learns its MaskedLanguage alone. The image tower and what makes embeddings of captions have no gradient, and a Trainer
/// leaves them alone.
struct NoPairs : LossNode {
    static constexpr bool embeds_pairs = false;

    auto operator()(const auto& image, const auto& text, const auto& scale) const { return 0.0 * (sum(image) + sum(text) + scale); }
};

/// What smooths the labels of a loss, as a term beside it: InfoNce{} + 0.1 * LabelSmoothing{} is InfoNCE in which a label is 1 − 0.1 for the match and
/// 0.1 spread over all (Szegedy et al. 2016, section 7; torch.nn.CrossEntropyLoss, label_smoothing): mean log-probabilities take the place of a tenth
/// of the match's, and what both subtract falls out of their difference. For a loss of one match a row, told from all others.
struct LabelSmoothing : LossNode {
    auto operator()(const auto& image, const auto& text, const auto& scale) const {
        const auto logits = matmul(scale * image, transpose(text));
        return mean(diagonal(logits) - mean<1>(logits));
    }
};

/// A user's own loss, made to compose: Loss{[](auto image, auto text, auto scale) { ... }}.
template <class F>
struct Loss : LossNode {
    F function;

    explicit Loss(F f) : function(std::move(f)) {}

    // Template parameters by name: g++ 12 crashes on nested constraints over the types of `const auto&` parameters.
    template <class Image, class Text, class... Learned>
        requires std::invocable<const F&, const Image&, const Text&, const Learned&...>
    auto operator()(const Image& image, const Text& text, const Learned&... learned) const {
        return function(image, text, learned...);
    }
};

/// weight · loss; takes a bias if the loss does.
template <ComposableLoss L>
struct WeightedLoss : LossNode {
    static constexpr std::size_t least_pairs = tandem::least_pairs<L>;
    static constexpr bool sees_batch = tandem::sees_batch<L>;
    static constexpr bool embeds_pairs = tandem::embeds_pairs<L>;

    double weight;
    L loss;

    WeightedLoss(double factor, L weighted) : weight(factor), loss(std::move(weighted)) {}

    static void for_each_loss(const auto& visit, auto& self) { visit(self.loss); }

    template <class Image, class Text, class... Learned>
        requires std::invocable<const L&, const Image&, const Text&, const Learned&...>
    auto operator()(const Image& image, const Text& text, const Learned&... learned) const {
        return weight * loss(image, text, learned...);
    }
};

/// a + b; takes a bias if one of them does.
template <ComposableLoss A, ComposableLoss B>
struct SummedLoss : LossNode {
    static constexpr std::size_t least_pairs = std::max(tandem::least_pairs<A>, tandem::least_pairs<B>);
    static constexpr bool sees_batch = tandem::sees_batch<A> || tandem::sees_batch<B>;
    static constexpr bool embeds_pairs = tandem::embeds_pairs<A> || tandem::embeds_pairs<B>;

    A a;
    B b;

    SummedLoss(A first, B second) : a(std::move(first)), b(std::move(second)) {}

    static void for_each_loss(const auto& visit, auto& self) { visit(self.a), visit(self.b); }

    template <class Image, class Text, class Scale>
        requires std::invocable<const A&, const Image&, const Text&, const Scale&> &&
                 std::invocable<const B&, const Image&, const Text&, const Scale&>
    auto operator()(const Image& image, const Text& text, const Scale& scale) const {
        return a(image, text, scale) + b(image, text, scale);
    }
    template <class Image, class Text, class Scale, class Bias>
        requires std::invocable<const A&, const Image&, const Text&, const Scale&, const Bias&> ||
                 std::invocable<const B&, const Image&, const Text&, const Scale&, const Bias&>
    auto operator()(const Image& image, const Text& text, const Scale& scale, const Bias& bias) const {
        return call_loss(a, image, text, scale, bias) + call_loss(b, image, text, scale, bias);
    }
};

template <ComposableLoss A, ComposableLoss B>
auto operator+(A a, B b) {
    return SummedLoss<A, B>(std::move(a), std::move(b));
}

template <ComposableLoss L>
auto operator*(std::convertible_to<double> auto weight, L loss) {
    return WeightedLoss<L>(static_cast<double>(weight), std::move(loss));
}

/// A loss that is computed a tile at a time; made by tiled().
template <ComposableLoss L>
struct TiledLoss : LossNode {
    static constexpr std::size_t least_pairs = tandem::least_pairs<L>;
    static constexpr bool sees_batch = tandem::sees_batch<L>;
    static constexpr bool embeds_pairs = tandem::embeds_pairs<L>;

    L loss;
    std::size_t rows;

    TiledLoss(L of_all, std::size_t tile) : loss(std::move(of_all)), rows(tile) {}

    static void for_each_loss(const auto& visit, auto& self) { visit(self.loss); }

    template <class Image, class Text, class... Learned>
        requires std::invocable<const L&, const Image&, const Text&, const Learned&...>
    auto operator()(const Image& image, const Text& text, const Learned&... learned) const {
        return tiled(loss(image, text, learned...), rows);
    }
};

/// The same loss in memory that grows with the batch and not with its square: tiled(InfoNce{}), tiled(SigmoidLoss{}), or of a loss
/// of your own that is a sum over rows; see tiled() of expressions. Another number of rows sums in another order; a snapshot does not say it.
template <ComposableLoss L>
auto tiled(L loss, std::size_t rows = 1024) {
    return TiledLoss<L>(std::move(loss), rows);
}

}  // namespace tandem::inline TANDEM_ABI

// What a model costs, told from its config: parameters, operations, memory.
#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>

#include <tandem/models/config.hpp>
#include <tandem/nn/parameter.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// Of a tower, whose blocks, if it has any, may be computed again.
constexpr Cost tower_cost(const auto& tower, Recompute recompute) {
    if constexpr (requires { tower.cost(recompute); }) {
        return tower.cost(recompute);
    } else if constexpr (requires { tower.cost(std::size_t{}, recompute); }) {
        return tower.cost(std::size_t{}, recompute);
    } else {
        return tower.cost();
    }
}

/// The projection of the library's own towers, whose cost() leaves it out.
constexpr Cost projection_cost(const auto& tower, std::size_t embedding) {
    if constexpr (requires { tower.projection_cost(embedding); }) {
        return tower.projection_cost(embedding);
    } else if constexpr (requires { tower.head_cost(); }) {
        const std::size_t size = tower.width * embedding;
        if (tower.proj_type == Projection::none) return held_cost(embedding);
        if (tower.proj_type == Projection::mlp) {
            const std::size_t hidden = (tower.width + embedding) / 2;
            return nn::linear_cost(tower.width, hidden, false, 1) + nn::linear_cost(hidden, embedding, false, 1) +
                   hidden * Cost{.inference = 2, .saved = 2, .scratch = 1} + held_cost(embedding);
        }
        if (tower.proj_bias) return nn::linear_cost(tower.width, embedding, true, 1) + held_cost(embedding);
        return Cost{.parameters = size, .tables = size} + product_cost(2 * size) + held_cost(embedding);
    } else {
        return held_cost(embedding);
    }
}

}  // namespace detail

/// What the image side costs for one image, projection included: the figures of open_clip's docs/model_profile.csv. What training
/// keeps is without what it computes again.
constexpr Cost image_cost(const auto& config, Recompute recompute = Recompute::nothing) {
    return detail::tower_cost(config.vision, recompute) + detail::projection_cost(config.vision, config.embedding);
}

/// What the text side costs for one caption of `tokens` tokens, the end-of-text token included, or of the full context;
/// projection included.
constexpr Cost text_cost(const auto& config, std::size_t tokens = 0, Recompute recompute = Recompute::nothing) {
    const Cost projection = detail::projection_cost(config.text, config.embedding);
    Cost total = detail::tower_cost(config.text, recompute) + projection;
    if constexpr (requires { config.text.cost(tokens, recompute); }) {
        if (tokens > 0) {
            const std::size_t dense = total.flops;
            total = config.text.cost(tokens, recompute) + projection;
            total.flops = dense;  // the naive model pads
        }
    }
    if constexpr (requires { config.text.blocks_cost(); }) {
        if (config.shared) total.parameters -= config.text.blocks_cost().parameters;
    }
    return total;
}

namespace detail {

/// Of one image–text pair, or of one item of a tower.
constexpr Cost whole_cost(const auto& config, Recompute recompute = Recompute::nothing) {
    if constexpr (HasTwoTowers<std::remove_cvref_t<decltype(config)>>) {
        Cost total = image_cost(config, recompute) + text_cost(config, 0, recompute);
        total.parameters += config.logit_bias ? 2 : 1;
        return total;
    } else {
        return tower_cost(config, recompute);
    }
}

}  // namespace detail

/// Scalars in all parameters of a model, or of one tower without its projection.
constexpr std::size_t parameter_count(const auto& config) { return detail::whole_cost(config).parameters; }

/// Bytes of the parameters of a Clip<config, T>: matrices in T's own elements, the rest in those T computes with. The
/// scales of an int8 model's rows are not counted.
template <Arithmetic T = float>
constexpr std::size_t parameter_bytes(const auto& config) {
    const Cost cost = detail::whole_cost(config);
    return cost.matrices * (std::same_as<T, int8> ? 1 : sizeof(Stored<T>)) + cost.tables * sizeof(Stored<T>) +
           (cost.parameters - cost.matrices - cost.tables) * sizeof(Compute<T>);
}

/// Floating-point operations of one image–text pair through a model, or of one item through a tower, with captions of the
/// full context: 2 for each multiply-accumulate of the matrix products, as fvcore counts.
constexpr std::size_t forward_flops(const auto& config) { return detail::whole_cost(config).flops; }

/// Those of them that are computed: the last block of a tower that pools one row computes that row alone (where the
/// width of all heads is a multiple of a panel's, 32 or fewer elements). What captions shorter than the context save is
/// in text_cost(config, tokens).executed.
constexpr std::size_t executed_flops(const auto& config) { return detail::whole_cost(config).executed; }

/// Bytes of activations that a training step holds for one pair, or one item of a tower, in elements of C.
template <class C = float>
constexpr std::size_t training_bytes(const auto& config, Recompute recompute = Recompute::nothing) {
    return detail::whole_cost(config, recompute).training() * sizeof(C);
}

/// Bytes that each of several ranks sends in a training step on a batch of so many pairs (see BatchParts): gradients twice, but for the part that a
/// rank keeps, and embeddings; with shard_state (see TrainerOptions) weights as well. Besides go some hundred bytes by which ranks compare what they see.
template <class C = float>
constexpr std::size_t exchanged_bytes(const auto& config, std::size_t ranks, std::size_t batch, bool shard_state = false) {
    const std::size_t learned = config.logit_bias ? 2 : 1;  // the scalars of the loss, which every rank has for itself
    const std::size_t weights = shard_state ? parameter_count(config) : 0;
    return (ranks - 1) * (2 * (parameter_count(config) - learned + batch * config.embedding) + weights) * sizeof(C) / ranks;
}

/// Bytes of activations that inference holds for one item of a tower; of a model, for one image and one caption.
template <class C = float>
constexpr std::size_t inference_bytes(const auto& config) {
    return detail::whole_cost(config).inference * sizeof(C);
}

}  // namespace tandem::inline TANDEM_ABI

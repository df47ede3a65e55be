// Architectures as constexpr values: the configs of towers and models, and what they cost.
#pragma once

#include <cstddef>

#include <tandem/core/error.hpp>
#include <tandem/nn/activation.hpp>
#include <tandem/nn/block.hpp>
#include <tandem/nn/layer_norm.hpp>
#include <tandem/nn/mlp.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/nn/pooling.hpp>

namespace tandem::inline TANDEM_ABI {

template <Arithmetic T, auto config, std::size_t Embedding>
class VisionTransformer;
template <Arithmetic T, auto config, std::size_t Embedding>
class TextTransformer;

/// A vision transformer. Sizes are in pixels, widths in channels. norm, activation, mixer, mlp and pooling are values: the
/// library's own or a user's; an activation may be a captureless lambda over expressions.
template <class Norm = LayerNorm, class Activation = Gelu, class Mixer = SelfAttention, class MlpKind = Mlp,
          class Pooling = ClassToken>
struct VitConfig {
    std::size_t image = 224;
    std::size_t patch = 32;
    std::size_t width = 768;
    std::size_t layers = 12;
    std::size_t heads = 12;
    double mlp_ratio = 4.0;  ///< the MLP's hidden width is int(width · mlp_ratio), as in open_clip and timm
    bool class_token = true;
    Norm norm{};
    Activation activation{};
    Mixer mixer{};
    MlpKind mlp{};
    Pooling pooling{};

    /// The tower this config describes. Another kind of tower is another config type with its own Tower and cost().
    template <Arithmetic T, auto self, std::size_t Embedding>
    using Tower = VisionTransformer<T, self, Embedding>;

    constexpr bool sizes_are_positive() const { return image > 0 && patch > 0 && width > 0 && layers > 0 && heads > 0; }
    constexpr bool patches_fit() const { return patch > 0 && image % patch == 0; }
    constexpr bool heads_fit() const { return heads > 0 && width % heads == 0; }
    constexpr bool pooling_fits() const { return class_token || !Pooling::needs_class_token; }

    constexpr std::size_t patches() const { return (image / patch) * (image / patch); }
    constexpr std::size_t tokens() const { return patches() + (class_token ? 1 : 0); }
    constexpr BlockShape block_shape() const {
        return {.width = width,
                .heads = heads,
                .hidden = static_cast<std::size_t>(static_cast<double>(width) * mlp_ratio),
                .tokens = tokens(),
                .causal = false};
    }
    constexpr auto block_parts() const { return BlockParts<Norm, Mixer, MlpKind, Activation>{norm, mixer, mlp, activation}; }

    /// For one image, without the projection.
    constexpr Cost cost() const {
        if (!sizes_are_positive()) throw Error("VitConfig", "all sizes must be positive");
        if (!patches_fit()) throw Error("VitConfig", "image must be a multiple of patch");
        if (!heads_fit()) throw Error("VitConfig", "width must be a multiple of heads");
        if (!pooling_fits()) throw Error("VitConfig", "ClassToken pooling needs class_token = true");
        const Cost stem = nn::linear_cost(3 * patch * patch, width, false, patches());
        const Cost tables{.parameters = (tokens() + (class_token ? 1 : 0)) * width,
                          .saved = 3 * patch * patch * patches() + 2 * tokens() * width};
        return stem + tables + 2 * norm.cost(width, tokens()) + layers * block_parts().cost(block_shape(), tokens());
    }
};

/// A text transformer over token ids; causal unless said otherwise.
template <class Norm = LayerNorm, class Activation = Gelu, class Mixer = SelfAttention, class MlpKind = Mlp,
          class Pooling = Eot>
struct TextConfig {
    std::size_t vocabulary = 49408;
    std::size_t context = 77;
    std::size_t width = 512;
    std::size_t layers = 12;
    std::size_t heads = 8;
    double mlp_ratio = 4.0;
    bool causal = true;
    Norm norm{};
    Activation activation{};
    Mixer mixer{};
    MlpKind mlp{};
    Pooling pooling{};

    template <Arithmetic T, auto self, std::size_t Embedding>
    using Tower = TextTransformer<T, self, Embedding>;

    constexpr bool sizes_are_positive() const {
        return vocabulary > 0 && context > 0 && width > 0 && layers > 0 && heads > 0;
    }
    constexpr bool heads_fit() const { return heads > 0 && width % heads == 0; }

    constexpr BlockShape block_shape() const {
        return {.width = width,
                .heads = heads,
                .hidden = static_cast<std::size_t>(static_cast<double>(width) * mlp_ratio),
                .tokens = context,
                .causal = causal};
    }
    constexpr auto block_parts() const { return BlockParts<Norm, Mixer, MlpKind, Activation>{norm, mixer, mlp, activation}; }

    /// For one caption of `tokens` tokens, the end-of-text token included; of the whole context unless given. Without the
    /// projection.
    constexpr Cost cost(std::size_t tokens = 0) const {
        if (!sizes_are_positive()) throw Error("TextConfig", "all sizes must be positive");
        if (!heads_fit()) throw Error("TextConfig", "width must be a multiple of heads");
        if (tokens == 0) tokens = context;
        const Cost tables{.parameters = (vocabulary + context) * width, .saved = tokens * width};
        return tables + norm.cost(width, tokens) + layers * block_parts().cost(block_shape(), tokens);
    }
};

/// Two towers and one space. Any two tower configs go together.
template <class Vision = VitConfig<>, class Text = TextConfig<>>
struct ClipConfig {
    Vision vision{};
    Text text{};
    std::size_t embedding = 512;
    /// A learned bias beside the logit scale, which the sigmoid loss needs.
    bool logit_bias = false;
};

/// What the image side costs for one image, projection included: the figures of open_clip's docs/model_profile.csv.
constexpr Cost image_cost(const auto& config) {
    return config.vision.cost() + nn::linear_cost(config.vision.width, config.embedding, false, 1);
}

/// What the text side costs for one caption of the full context, projection included.
constexpr Cost text_cost(const auto& config) {
    return config.text.cost() + nn::linear_cost(config.text.width, config.embedding, false, 1);
}

namespace detail {

template <class Config>
concept HasTwoTowers = requires(const Config& config) {
    config.vision;
    config.text;
};

}  // namespace detail

/// Scalars in all parameters of a model, or of one tower without its projection.
constexpr std::size_t parameter_count(const auto& config) {
    if constexpr (detail::HasTwoTowers<std::remove_cvref_t<decltype(config)>>) {
        return image_cost(config).parameters + text_cost(config).parameters + 1 + (config.logit_bias ? 1 : 0);
    } else {
        return config.cost().parameters;
    }
}

/// Floating-point operations of one image–text pair through a model, or of one item through a tower, with captions of the
/// full context: 2 for each multiply-accumulate of the matrix products, as fvcore counts.
constexpr std::size_t forward_flops(const auto& config) {
    if constexpr (detail::HasTwoTowers<std::remove_cvref_t<decltype(config)>>) {
        return image_cost(config).flops + text_cost(config).flops;
    } else {
        return config.cost().flops;
    }
}

/// Bytes that a training step keeps from the forward pass for the backward pass, for one item, in elements of C.
template <class C = float>
constexpr std::size_t activation_bytes(const auto& config) {
    if constexpr (detail::HasTwoTowers<std::remove_cvref_t<decltype(config)>>) {
        return (image_cost(config).saved + text_cost(config).saved) * sizeof(C);
    } else {
        return config.cost().saved * sizeof(C);
    }
}

}  // namespace tandem::inline TANDEM_ABI

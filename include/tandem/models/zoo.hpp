// The architectures the field names, as open_clip's model configs of the same names (with erf GELU).
#pragma once

#include <tandem/models/config.hpp>

namespace tandem::inline TANDEM_ABI {

inline constexpr ClipConfig vit_b_32{
    .vision = VitConfig{.image = 224, .patch = 32, .width = 768, .layers = 12, .heads = 12},
    .text = TextConfig{.width = 512, .layers = 12, .heads = 8},
    .embedding = 512};

inline constexpr ClipConfig vit_b_16{
    .vision = VitConfig{.image = 224, .patch = 16, .width = 768, .layers = 12, .heads = 12},
    .text = TextConfig{.width = 512, .layers = 12, .heads = 8},
    .embedding = 512};

inline constexpr ClipConfig vit_l_14{
    .vision = VitConfig{.image = 224, .patch = 14, .width = 1024, .layers = 24, .heads = 16},
    .text = TextConfig{.width = 768, .layers = 12, .heads = 12},
    .embedding = 768};

inline constexpr ClipConfig vit_l_14_336{
    .vision = VitConfig{.image = 336, .patch = 14, .width = 1024, .layers = 24, .heads = 16},
    .text = TextConfig{.width = 768, .layers = 12, .heads = 12},
    .embedding = 768};

inline constexpr ClipConfig vit_h_14{
    .vision = VitConfig{.image = 224, .patch = 14, .width = 1280, .layers = 32, .heads = 16},
    .text = TextConfig{.width = 1024, .layers = 24, .heads = 16},
    .embedding = 1024};

inline constexpr ClipConfig vit_g_14{
    .vision = VitConfig{.image = 224, .patch = 14, .width = 1408, .layers = 40, .heads = 16, .mlp_ratio = 4.3637},
    .text = TextConfig{.width = 1024, .layers = 24, .heads = 16},
    .embedding = 1024};

inline constexpr ClipConfig vit_bigg_14{
    .vision = VitConfig{.image = 224, .patch = 14, .width = 1664, .layers = 48, .heads = 16, .mlp_ratio = 4.9231},
    .text = TextConfig{.width = 1280, .layers = 32, .heads = 20},
    .embedding = 1280};

/// The same architecture with another activation in both towers. The checkpoints OpenAI published are
/// with_activation(vit_b_32, QuickGelu{}) and so on.
template <class Activation>
constexpr auto with_activation(const auto& config, Activation activation) {
    return ClipConfig{config.vision.with_activation(activation), config.text.with_activation(activation),
                      config.embedding, config.logit_bias, config.shared};
}

}  // namespace tandem::inline TANDEM_ABI

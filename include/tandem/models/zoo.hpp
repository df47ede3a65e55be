// The architectures the field names, under open_clip's names: CLIP's with erf GELU, as open_clip's model configs have
// them; SigLIP's with the tanh form that they were trained with and transformers computes (open_clip takes the erf form
// for some: see with_activation).
#pragma once

#include <tandem/models/config.hpp>
#include <tandem/models/efficientnet.hpp>
#include <tandem/models/resnet.hpp>

namespace tandem::inline TANDEM_ABI {

/// ViT-B/32 at 224 pixels.
inline constexpr ClipConfig vit_b_32{
    .vision = VitConfig{.image = 224, .patch = 32, .width = 768, .layers = 12, .heads = 12},
    .text = TextConfig{.width = 512, .layers = 12, .heads = 8},
    .embedding = 512};

/// ViT-B/16 at 224 pixels.
inline constexpr ClipConfig vit_b_16{
    .vision = VitConfig{.image = 224, .patch = 16, .width = 768, .layers = 12, .heads = 12},
    .text = TextConfig{.width = 512, .layers = 12, .heads = 8},
    .embedding = 512};

/// ViT-L/14 at 224 pixels.
inline constexpr ClipConfig vit_l_14{
    .vision = VitConfig{.image = 224, .patch = 14, .width = 1024, .layers = 24, .heads = 16},
    .text = TextConfig{.width = 768, .layers = 12, .heads = 12},
    .embedding = 768};

/// ViT-L/14 at 336 pixels.
inline constexpr ClipConfig vit_l_14_336{
    .vision = VitConfig{.image = 336, .patch = 14, .width = 1024, .layers = 24, .heads = 16},
    .text = TextConfig{.width = 768, .layers = 12, .heads = 12},
    .embedding = 768};

/// ViT-H/14 at 224 pixels.
inline constexpr ClipConfig vit_h_14{
    .vision = VitConfig{.image = 224, .patch = 14, .width = 1280, .layers = 32, .heads = 16},
    .text = TextConfig{.width = 1024, .layers = 24, .heads = 16},
    .embedding = 1024};

/// ViT-H/14 at 378 pixels.
inline constexpr ClipConfig vit_h_14_378{
    .vision = VitConfig{.image = 378, .patch = 14, .width = 1280, .layers = 32, .heads = 16},
    .text = TextConfig{.width = 1024, .layers = 24, .heads = 16},
    .embedding = 1024};

/// Its text tower as Stable Diffusion 2 ships it: without the last block, whose tokens it does not use.
inline constexpr ClipConfig vit_h_14_penultimate{
    .vision = VitConfig{.image = 224, .patch = 14, .width = 1280, .layers = 32, .heads = 16},
    .text = TextConfig{.width = 1024, .layers = 23, .heads = 16},
    .embedding = 1024};

/// ViT-g/14 at 224 pixels.
inline constexpr ClipConfig vit_g_14{
    .vision = VitConfig{.image = 224, .patch = 14, .width = 1408, .layers = 40, .heads = 16, .mlp_ratio = 4.3637},
    .text = TextConfig{.width = 1024, .layers = 24, .heads = 16},
    .embedding = 1024};

/// ViT-bigG/14 at 224 pixels.
inline constexpr ClipConfig vit_bigg_14{
    .vision = VitConfig{.image = 224, .patch = 14, .width = 1664, .layers = 48, .heads = 16, .mlp_ratio = 4.9231},
    .text = TextConfig{.width = 1280, .layers = 32, .heads = 20},
    .embedding = 1280};

/// ViT-B/32 at 256 pixels.
inline constexpr ClipConfig vit_b_32_256{
    .vision = VitConfig{.image = 256, .patch = 32, .width = 768, .layers = 12, .heads = 12},
    .text = TextConfig{.width = 512, .layers = 12, .heads = 8},
    .embedding = 512};

/// ViT-B/16-plus at 240 pixels.
inline constexpr ClipConfig vit_b_16_plus_240{
    .vision = VitConfig{.image = 240, .patch = 16, .width = 896, .layers = 12, .heads = 14},
    .text = TextConfig{.width = 640, .layers = 12, .heads = 10},
    .embedding = 640};

/// ModifiedResNet RN50 of OpenAI's CLIP.
inline constexpr ClipConfig rn50{ResNetConfig{.image = 224, .layers = {3, 4, 6, 3}, .width = 64}, TextConfig{}, 1024};
/// ModifiedResNet RN101 of OpenAI's CLIP.
inline constexpr ClipConfig rn101{ResNetConfig{.image = 224, .layers = {3, 4, 23, 3}, .width = 64}, TextConfig{}, 512};
/// ModifiedResNet RN50x4 of OpenAI's CLIP.
inline constexpr ClipConfig rn50x4{ResNetConfig{.image = 288, .layers = {4, 6, 10, 6}, .width = 80},
                                   TextConfig{.width = 640, .heads = 10}, 640};
/// ModifiedResNet RN50x16 of OpenAI's CLIP.
inline constexpr ClipConfig rn50x16{ResNetConfig{.image = 384, .layers = {6, 8, 18, 8}, .width = 96},
                                    TextConfig{.width = 768, .heads = 12}, 768};
/// ModifiedResNet RN50x64 of OpenAI's CLIP.
inline constexpr ClipConfig rn50x64{ResNetConfig{.image = 448, .layers = {3, 15, 36, 10}, .width = 128},
                                    TextConfig{.width = 1024, .heads = 16}, 1024};

namespace detail {

/// Post-norm towers of transformers' BertModel and XLMRobertaModel, which read no padding.
template <class Pooling>
constexpr auto bert_text(std::size_t vocabulary, std::size_t context, std::size_t positions, std::size_t width,
                         std::size_t layers, std::size_t heads, float eps, Pooling pooling) {
    return TextConfig{.vocabulary = vocabulary,
                      .context = context,
                      .width = width,
                      .layers = layers,
                      .heads = heads,
                      .causal = false,
                      .norm_position = NormPosition::post,
                      .pad_id = 0,
                      .positions = positions,
                      .token_types = 2,
                      .ln_embed = true,
                      .no_ln_final = true,
                      .norm = LayerNorm{eps},
                      .pooling = pooling};
}

/// XLM-RoBERTa as open_clip has it (open_clip/hf_model.py; transformers/models/xlm_roberta/modeling_xlm_roberta.py): the
/// first token has position 2, behind the padding's; the mean of all tokens, then an MLP.
constexpr auto xlm_roberta(std::size_t width, std::size_t layers, std::size_t heads) {
    auto config = bert_text(250002, 77, 514, width, layers, heads, 1e-5F, Average{});
    config.pad_id = 1;
    config.first_position = 2;
    config.token_types = 1;
    config.proj_type = Projection::mlp;
    return config;
}

/// ALIGN's text tower: BERT, pooled at its first token, with a biased projection (transformers/models/align/modeling_align.py).
/// Its processor pads to 64 tokens.
constexpr auto align_text(std::size_t vocabulary, std::size_t context, std::size_t positions, std::size_t width,
                          std::size_t layers, std::size_t heads) {
    auto config = bert_text(vocabulary, context, positions, width, layers, heads, 1e-12F, First{});
    config.proj_bias = true;
    return config;
}

/// SigLIP's towers (Zhai et al. 2023, section 4; timm/models/vision_transformer.py, vit_base_patch16_siglip_224 and those
/// after it; transformers/models/siglip): no class token, a bias on the patches, attention pooling instead of a
/// projection; bidirectional text pooled at its last place, with a biased projection.
constexpr auto siglip_vision(ImageSize image, std::size_t patch, std::size_t width, std::size_t layers,
                             std::size_t heads, double mlp_ratio = 4.0) {
    return VitConfig{.image = image,
                     .patch = patch,
                     .width = width,
                     .layers = layers,
                     .heads = heads,
                     .mlp_ratio = mlp_ratio,
                     .class_token = false,
                     .no_ln_pre = true,
                     .patch_bias = true,
                     .floor_patches = !image.is_multiple_of(patch),
                     .proj_type = Projection::none,
                     .norm = LayerNorm{1e-6F},
                     .activation = TanhGelu{},
                     .pooling = AttentionPool{}};
}
constexpr auto siglip_text(std::size_t vocabulary, std::size_t width, std::size_t layers, std::size_t heads,
                           double mlp_ratio = 4.0, std::size_t context = 64) {
    return TextConfig{.vocabulary = vocabulary,
                      .context = context,
                      .width = width,
                      .layers = layers,
                      .heads = heads,
                      .mlp_ratio = mlp_ratio,
                      .causal = false,
                      .proj_bias = true,
                      .norm = LayerNorm{1e-6F},
                      .activation = TanhGelu{},
                      .pooling = Last{}};
}

constexpr auto siglip_b(std::size_t image, std::size_t patch, std::size_t vocabulary) {
    return ClipConfig{siglip_vision(image, patch, 768, 12, 12), siglip_text(vocabulary, 768, 12, 12), 768, true};
}
constexpr auto siglip_l(std::size_t image, std::size_t vocabulary) {
    return ClipConfig{siglip_vision(image, 16, 1024, 24, 16), siglip_text(vocabulary, 1024, 24, 16), 1024, true};
}
constexpr auto siglip_so400m(std::size_t image, std::size_t patch, std::size_t vocabulary, std::size_t context = 64) {
    constexpr double ratio = 3.7362;  // 4304 hidden channels
    return ClipConfig{siglip_vision(image, patch, 1152, 27, 16, ratio),
                      siglip_text(vocabulary, 1152, 27, 16, ratio, context), 1152, true};
}
/// The multilingual one, whose text tower has no projection (open_clip, ViT-SO400M-16-SigLIP-i18n-256.json).
constexpr auto siglip_so400m_i18n() {
    auto config = siglip_so400m(256, 16, 250000);
    config.text.proj_type = Projection::none;
    config.text.proj_bias = false;
    return config;
}
constexpr auto siglip_gopt(std::size_t image) {
    return ClipConfig{siglip_vision(image, 16, 1536, 40, 16), siglip_text(256000, 1152, 27, 16, 3.7362), 1536, true};
}

}  // namespace detail

/// ALIGN base: EfficientNet-B7 beside BERT (transformers, AlignConfig).
inline constexpr ClipConfig align_base{EfficientNetConfig{}, detail::align_text(30522, 64, 512, 768, 12, 12), 640};

/// ViT-B/32 beside XLM-RoBERTa base, for captions in 100 languages (open_clip).
inline constexpr ClipConfig xlm_roberta_base_vit_b_32{vit_b_32.vision, detail::xlm_roberta(768, 12, 12), 512};
/// ViT-H/14 beside XLM-RoBERTa large, for captions in 100 languages (open_clip).
inline constexpr ClipConfig xlm_roberta_large_vit_h_14{vit_h_14.vision, detail::xlm_roberta(1024, 24, 16), 1024};

/// SigLIP B/16 at 224 pixels.
inline constexpr ClipConfig vit_b_16_siglip = detail::siglip_b(224, 16, 32000);
/// SigLIP B/16 at 256 pixels.
inline constexpr ClipConfig vit_b_16_siglip_256 = detail::siglip_b(256, 16, 32000);
/// SigLIP B/16 at 384 pixels.
inline constexpr ClipConfig vit_b_16_siglip_384 = detail::siglip_b(384, 16, 32000);
/// SigLIP B/16 at 512 pixels.
inline constexpr ClipConfig vit_b_16_siglip_512 = detail::siglip_b(512, 16, 32000);
/// SigLIP B/16 at 256 pixels, for captions in many languages.
inline constexpr ClipConfig vit_b_16_siglip_i18n_256 = detail::siglip_b(256, 16, 250000);
/// SigLIP L/16 at 256 pixels.
inline constexpr ClipConfig vit_l_16_siglip_256 = detail::siglip_l(256, 32000);
/// SigLIP L/16 at 384 pixels.
inline constexpr ClipConfig vit_l_16_siglip_384 = detail::siglip_l(384, 32000);
/// SigLIP SO400M/14 at 224 pixels.
inline constexpr ClipConfig vit_so400m_14_siglip = detail::siglip_so400m(224, 14, 32000, 16);
/// SigLIP SO400M/14 at 378 pixels.
inline constexpr ClipConfig vit_so400m_14_siglip_378 = detail::siglip_so400m(378, 14, 32000);
/// Its last six rows and columns of pixels are in no patch: 378 with another preprocessing.
inline constexpr ClipConfig vit_so400m_14_siglip_384 = detail::siglip_so400m(384, 14, 32000);
/// SigLIP SO400M/16 at 256 pixels, for captions in many languages.
inline constexpr ClipConfig vit_so400m_16_siglip_i18n_256 = detail::siglip_so400m_i18n();
/// The same as transformers' SiglipModel has it, which always has a projection.
inline constexpr ClipConfig vit_so400m_16_siglip_i18n_256_head = detail::siglip_so400m(256, 16, 250000);

/// SigLIP 2 B/32 at 256 pixels.
inline constexpr ClipConfig vit_b_32_siglip2_256 = detail::siglip_b(256, 32, 256000);
/// SigLIP 2 B/16 at 224 pixels.
inline constexpr ClipConfig vit_b_16_siglip2 = detail::siglip_b(224, 16, 256000);
/// SigLIP 2 B/16 at 256 pixels.
inline constexpr ClipConfig vit_b_16_siglip2_256 = detail::siglip_b(256, 16, 256000);
/// SigLIP 2 B/16 at 384 pixels.
inline constexpr ClipConfig vit_b_16_siglip2_384 = detail::siglip_b(384, 16, 256000);
/// SigLIP 2 B/16 at 512 pixels.
inline constexpr ClipConfig vit_b_16_siglip2_512 = detail::siglip_b(512, 16, 256000);
/// SigLIP 2 L/16 at 256 pixels.
inline constexpr ClipConfig vit_l_16_siglip2_256 = detail::siglip_l(256, 256000);
/// SigLIP 2 L/16 at 384 pixels.
inline constexpr ClipConfig vit_l_16_siglip2_384 = detail::siglip_l(384, 256000);
/// SigLIP 2 L/16 at 512 pixels.
inline constexpr ClipConfig vit_l_16_siglip2_512 = detail::siglip_l(512, 256000);
/// SigLIP 2 SO400M/14 at 224 pixels.
inline constexpr ClipConfig vit_so400m_14_siglip2 = detail::siglip_so400m(224, 14, 256000);
/// SigLIP 2 SO400M/14 at 378 pixels.
inline constexpr ClipConfig vit_so400m_14_siglip2_378 = detail::siglip_so400m(378, 14, 256000);
/// SigLIP 2 SO400M/14 at 384 pixels.
inline constexpr ClipConfig vit_so400m_14_siglip2_384 = detail::siglip_so400m(384, 14, 256000);
/// SigLIP 2 SO400M/16 at 256 pixels.
inline constexpr ClipConfig vit_so400m_16_siglip2_256 = detail::siglip_so400m(256, 16, 256000);
/// SigLIP 2 SO400M/16 at 384 pixels.
inline constexpr ClipConfig vit_so400m_16_siglip2_384 = detail::siglip_so400m(384, 16, 256000);
/// SigLIP 2 SO400M/16 at 512 pixels.
inline constexpr ClipConfig vit_so400m_16_siglip2_512 = detail::siglip_so400m(512, 16, 256000);
/// SigLIP 2 g-opt/16 at 256 pixels.
inline constexpr ClipConfig vit_gopt_16_siglip2_256 = detail::siglip_gopt(256);
/// SigLIP 2 g-opt/16 at 384 pixels.
inline constexpr ClipConfig vit_gopt_16_siglip2_384 = detail::siglip_gopt(384);

/// The same architecture for images of another size: {height, width}, or the side of a square, in pixels. load() resizes the
/// positions of a checkpoint.
constexpr auto with_image(auto config, decltype(config.vision.image) image) {
    config.vision.image = image;
    return config;
}

/// The same architecture with other activations, one for each tower.
template <class Image, class Text>
constexpr auto with_activation(const auto& config, Image of_image, Text of_text) {
    return ClipConfig{config.vision.with_activation(of_image), config.text.with_activation(of_text), config.embedding,
                      config.logit_bias, config.shared};
}

/// The same for both. The checkpoints OpenAI published are with_activation(vit_b_32, QuickGelu{}) and so on.
template <class Activation>
constexpr auto with_activation(const auto& config, Activation activation) {
    return with_activation(config, activation, activation);
}

}  // namespace tandem::inline TANDEM_ABI

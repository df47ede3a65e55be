// The study that ships: the quickstart's architecture, and one change each. The first variant is the base. A variant NAME
// may have a loss of its own, `inline const auto NAME_loss = ...;`; else one with a bias trains with the sigmoid loss.
#pragma once

#include <tandem/tandem.hpp>

namespace td = tandem;

inline constexpr td::VitConfig picture{.image = 48, .patch = 8, .width = 128, .layers = 4, .heads = 4, .class_token = false,
                                       .activation = td::QuickGelu{}, .pooling = td::Average{}};
inline constexpr td::TextConfig words{.vocabulary = 4096, .context = 24, .width = 128, .layers = 3, .heads = 4,
                                      .activation = td::QuickGelu{}};

/// A change to a config, as another constant.
template <class Config, class Change>
constexpr Config with(Config config, const Change& change) {
    change(config);
    return config;
}

inline constexpr td::ClipConfig base{.vision = picture, .text = words, .embedding = 128};

inline constexpr td::ClipConfig patch_6{
    .vision = with(picture, [](auto& c) { c.patch = 6; }), .text = words, .embedding = 128};
inline constexpr td::ClipConfig patch_12{
    .vision = with(picture, [](auto& c) { c.patch = 12; }), .text = words, .embedding = 128};
inline constexpr td::ClipConfig wide_shallow{
    .vision = with(picture, [](auto& c) { c.width = 184, c.layers = 2; }), .text = words, .embedding = 128};
inline constexpr td::ClipConfig narrow_deep{
    .vision = with(picture, [](auto& c) { c.width = 92, c.layers = 8; }), .text = words, .embedding = 128};
inline constexpr td::ClipConfig class_token{
    .vision = td::VitConfig{.image = 48, .patch = 8, .width = 128, .layers = 4, .heads = 4, .activation = td::QuickGelu{}},
    .text = words,
    .embedding = 128};
inline constexpr td::ClipConfig rms_norm{
    .vision = td::VitConfig{.image = 48, .patch = 8, .width = 128, .layers = 4, .heads = 4, .class_token = false,
                            .norm = td::RmsNorm{}, .activation = td::QuickGelu{}, .pooling = td::Average{}},
    .text = words,
    .embedding = 128};
inline constexpr td::ClipConfig swiglu{
    .vision = td::VitConfig{.image = 48, .patch = 8, .width = 128, .layers = 4, .heads = 4, .mlp_ratio = 8.0 / 3,
                            .class_token = false, .activation = td::Silu{}, .mlp = td::GatedMlp{}, .pooling = td::Average{}},
    .text = words,
    .embedding = 128};
inline constexpr td::ClipConfig rotary{
    .vision = with(picture, [](auto& c) { c.pos_embed_type = td::PosEmbed::rotary; }), .text = words, .embedding = 128};
inline constexpr td::ClipConfig registers{
    .vision = with(picture, [](auto& c) { c.reg_tokens = 4; }), .text = words, .embedding = 128};
inline constexpr td::ClipConfig text_sees_all{
    .vision = picture, .text = with(words, [](auto& c) { c.causal = false; }), .embedding = 128};
inline constexpr td::ClipConfig sigmoid{.vision = picture, .text = words, .embedding = 128, .logit_bias = true};
inline constexpr td::ClipConfig text_depth_6{
    .vision = picture, .text = with(words, [](auto& c) { c.layers = 6; }), .embedding = 128};

// One family in several sizes, for the scaling fit.
inline constexpr td::ClipConfig size_64{
    .vision = with(picture, [](auto& c) { c.width = 64; }), .text = with(words, [](auto& c) { c.width = 64; }), .embedding = 128};
inline constexpr td::ClipConfig size_192{
    .vision = with(picture, [](auto& c) { c.width = 192; }), .text = with(words, [](auto& c) { c.width = 192; }), .embedding = 128};

// The variants that architectures.sh compares unless told otherwise: the README's architecture and one change each.
#pragma once

#include <tandem/models/config.hpp>

namespace td = tandem;

inline constexpr td::TextConfig captions{.vocabulary = 4096, .context = 32, .width = 192, .layers = 4, .heads = 3};

inline constexpr td::ClipConfig base{
    .vision = td::VitConfig{.image = 64, .patch = 8, .width = 192, .layers = 6, .heads = 3}, .text = captions, .embedding = 128};
inline constexpr td::ClipConfig same_as_base{
    .vision = td::VitConfig{.image = 64, .patch = 8, .width = 192, .layers = 6, .heads = 3}, .text = captions, .embedding = 128};
inline constexpr td::ClipConfig twice_as_deep{
    .vision = td::VitConfig{.image = 64, .patch = 8, .width = 192, .layers = 12, .heads = 3}, .text = captions, .embedding = 128};
inline constexpr td::ClipConfig wide_and_shallow{
    .vision = td::VitConfig{.image = 64, .patch = 8, .width = 256, .layers = 3, .heads = 4}, .text = captions, .embedding = 128};
inline constexpr td::ClipConfig patch_16{
    .vision = td::VitConfig{.image = 64, .patch = 16, .width = 192, .layers = 6, .heads = 3}, .text = captions, .embedding = 128};
inline constexpr td::ClipConfig convolutional_stem{
    .vision = td::VitConfig{.image = 64, .patch = 8, .width = 192, .layers = 6, .heads = 3, .stem = td::ConvStem{}},
    .text = captions,
    .embedding = 128};
inline constexpr td::ClipConfig swiglu_rms_rotary{
    .vision = td::VitConfig{.image = 64, .patch = 8, .width = 192, .layers = 6, .heads = 3, .mlp_ratio = 8.0 / 3,
                            .pos_embed_type = td::PosEmbed::rotary, .norm = td::RmsNorm{}, .activation = td::Silu{},
                            .mlp = td::GatedMlp{}},
    .text = captions,
    .embedding = 128};
inline constexpr td::ClipConfig grouped_queries{
    .vision = td::VitConfig{.image = 64, .patch = 8, .width = 192, .layers = 6, .heads = 3, .kv_heads = 1},
    .text = captions,
    .embedding = 128};

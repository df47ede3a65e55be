// The architecture of the quickstart: small enough to train from scratch in ten minutes on two cores.
#pragma once

#include <tandem/tandem.hpp>

namespace quickstart {

namespace td = tandem;

inline constexpr td::ClipConfig design{
    .vision = td::VitConfig{.image = 48, .patch = 8, .width = 128, .layers = 4, .heads = 4, .class_token = false,
                            .activation = td::QuickGelu{}, .pooling = td::Average{}},
    .text = td::TextConfig{.vocabulary = 4096, .context = 24, .width = 128, .layers = 3, .heads = 4,
                           .activation = td::QuickGelu{}},
    .embedding = 128};

static_assert(td::parameter_count(design) < 3'000'000);
static_assert(td::forward_flops(design.vision) < 100'000'000);

}  // namespace quickstart

// The small model of many of the wrong programs.
#pragma once

#include <tandem/models/clip.hpp>

inline constexpr tandem::ClipConfig config{
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
    .embedding = 16};

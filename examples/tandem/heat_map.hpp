// Where in a picture something is, over the picture.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include <tandem/images/image.hpp>

#include "checkpoint.hpp"

namespace program {

/// The cosine of every patch with a text, row by row.
std::vector<float> patch_cosines(const Opened& opened, std::span<const float> pixels, std::span<const float> text);

/// The side of a square map.
std::size_t map_side(std::span<const float> map);

/// Lays `of_20` twentieths of a colour over a pixel.
void blend(td::Image& picture, std::size_t pixel, const td::Colour& colour, unsigned of_20);

/// A square map between its lowest and highest value, over the picture as the model sees it, at 448 pixels or more.
td::Image overlay(const Opened& opened, const td::Image& picture, std::span<const float> map);

}  // namespace program

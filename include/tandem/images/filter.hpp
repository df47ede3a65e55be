// Filters that resize, antialiased: of images, and of tables of positions.
#pragma once

#include <cstddef>
#include <vector>

#include <tandem/core/image_size.hpp>
#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// Pillow's BILINEAR (a triangle) and BICUBIC (Keys 1981, a = -0.5), both widened by the reduction.
enum class Filter { bilinear, bicubic };

namespace detail {

/// A product that is never fused with an addition: with -mfma the last bit, and with it a pixel, could differ.
double product(double a, double b);

/// A table of positions, `prefix` rows and then those of a grid `from`, for a grid `to`: bicubic and antialiased, as
/// open_clip/model.py's resize_pos_embed has torch.nn.functional.interpolate do it. Rows of `width`; the prefix stays.
std::vector<float> resize_positions(const std::vector<float>& table, std::size_t prefix, const ImageSize& from,
                                    const ImageSize& to, std::size_t width);

/// The inputs of `source` that output i of `size` is made of, where these together cover [low, high): the first one is
/// returned, `weights` of it and those after it add up to 1. (Resample.c:185-286, precompute_coeffs; `low` and `high`
/// are floats there too.)
int filter_taps(int source, float low, float high, int size, int i, Filter filter, std::vector<double>& weights);

}  // namespace detail

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/images/filter.impl.hpp>
#endif

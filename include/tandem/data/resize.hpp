// Antialiased resizing, bit for bit Pillow's.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/data/image.hpp>

namespace tandem::inline TANDEM_ABI {

/// Pillow's BILINEAR (a triangle) and BICUBIC (Keys 1981, a = -0.5), both widened by the reduction.
enum class Filter { bilinear, bicubic };

/// Which of the two passes goes first. Each rounds to 8 bits, so the order shows, by a level or two beside sharp edges.
enum class PassOrder {
    pillow_13,     ///< since Pillow 13.0: down first where height shrinks by more than twice the pixels that width does
    across_first,  ///< always across first: Pillow up to 12, with which the published models were trained
};

/// A box of whole pixels.
struct Region {
    int left = 0;
    int top = 0;
    int width = 0;
    int height = 0;

    bool operator==(const Region&) const = default;
};

namespace detail {

/// Sides and pixel counts that resizing accepts: they bound its tables and int arithmetic, far beyond any camera.
inline constexpr int resize_side_limit = 1 << 20;
inline constexpr std::size_t resize_pixel_limit = std::size_t{1} << 28;

inline void check_resize_size(int width, int height, std::string_view what) {
    const bool sides = width > 0 && height > 0 && width <= resize_side_limit && height <= resize_side_limit;
    if (sides && static_cast<std::size_t>(width) * static_cast<std::size_t>(height) <= resize_pixel_limit) return;
    throw Error("resize", std::string(what) + " sides of 1 to 2^20 and at most 2^28 pixels",
                std::to_string(width) + " x " + std::to_string(height));
}

/// A product that is never fused with an addition: with -mfma the last bit, and with it a pixel, could differ.
inline double product(double a, double b) {
    const volatile double rounded = a * b;
    return rounded;
}

inline double filter_support(Filter filter) {
    return filter == Filter::bicubic ? 2.0 : 1.0;
}

/// The filter's value at x (Pillow libImaging/Resample.c:20-63, in its order of operations).
inline double filter_value(Filter filter, double x) {
    const double distance = std::abs(x);
    if (filter == Filter::bilinear) return distance < 1.0 ? 1.0 - distance : 0.0;
    if (distance < 1.0) return product(product(product(1.5, distance) - 2.5, distance), distance) + 1.0;
    if (distance < 2.0) return (product(product(distance - 5.0, distance) + 8.0, distance) - 4.0) * -0.5;
    return 0.0;
}

inline constexpr int weight_bits = 22;

/// For each output position the first input position and the 22-bit weights of it and those after it.
struct ResizeWeights {
    struct Taps {
        std::size_t first;
        std::size_t begin;
        std::size_t count;
    };
    std::vector<Taps> taps;
    std::vector<std::int32_t> values;

    std::span<const std::int32_t> of(const Taps& at) const { return {values.data() + at.begin, at.count}; }

    /// Counts input positions from the first one used, which is returned.
    std::size_t rebase() {
        const std::size_t origin = taps.front().first;
        for (Taps& at : taps) at.first -= origin;
        return origin;
    }

    /// The number of input positions, from 0 to the last one used.
    std::size_t inputs() const { return taps.back().first + taps.back().count; }
};

/// Weights of outputs [begin, begin + count) of `size` outputs that together cover [low, high) of `source` inputs.
/// (Resample.c:185-286, precompute_coeffs and normalize_coeffs_8bpc; `low` and `high` are floats there too.)
inline ResizeWeights resize_weights(int source, float low, float high, int size, int begin, int count, Filter filter) {
    const double scale = static_cast<double>(high - low) / size;
    const double stretch = std::max(scale, 1.0);
    const double support = filter_support(filter) * stretch;
    const double shrink = 1.0 / stretch;
    ResizeWeights weights;
    weights.taps.reserve(static_cast<std::size_t>(count));
    std::vector<double> values;
    for (int i = begin; i < begin + count; ++i) {
        const double centre = low + product(i + 0.5, scale);
        const int first = std::max(static_cast<int>(centre - support + 0.5), 0);
        const int end = std::min(static_cast<int>(centre + support + 0.5), source);
        values.clear();
        double sum = 0;
        for (int x = first; x < end; ++x) {
            values.push_back(filter_value(filter, product(x - centre + 0.5, shrink)));
            sum += values.back();
        }
        weights.taps.push_back({static_cast<std::size_t>(first), weights.values.size(), values.size()});
        for (double value : values) {
            if (sum != 0) value /= sum;
            const double scaled = value * (1 << weight_bits);
            weights.values.push_back(static_cast<std::int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5));
        }
    }
    return weights;
}

/// Bytes that are summed at once: 16 pixels of a row, or one pixel of 16 rows. Fixed, so that the loops vectorise.
inline constexpr std::size_t resize_rows = 16;
inline constexpr std::size_t resize_block = 3 * resize_rows;

/// out[i] = sum over t of weights[t] * source[t * stride + i], rounded and clamped, for `count` neighbours i.
template <std::size_t count>
void weigh(const std::uint8_t* source, std::size_t stride, std::span<const std::int32_t> weights, std::uint8_t* out) {
    std::array<std::int32_t, count> sums;
    sums.fill(1 << (weight_bits - 1));
    for (const std::int32_t weight : weights) {
        for (std::size_t i = 0; i < count; ++i) sums[i] += weight * source[i];
        source += stride;
    }
    for (std::size_t i = 0; i < count; ++i) {
        out[i] = static_cast<std::uint8_t>(std::clamp(sums[i] >> weight_bits, 0, 255));
    }
}

/// A rectangle of an image's pixels, `stride` bytes from row to row.
struct ImageView {
    const std::uint8_t* pixels;
    std::size_t stride;
    int width;
    int height;
};

inline ImageView view(const Image& image, const Region& region) {
    const std::size_t stride = static_cast<std::size_t>(image.width) * 3;
    return {
        image.pixels.data() + static_cast<std::size_t>(region.top) * stride + static_cast<std::size_t>(region.left) * 3,
        stride, region.width, region.height};
}

inline ImageView view(const Image& image) {
    return view(image, {0, 0, image.width, image.height});
}

inline Image copy(const ImageView& source) {
    const std::size_t row = static_cast<std::size_t>(source.width) * 3;
    Image image{source.width, source.height, std::vector<std::uint8_t>(row * static_cast<std::size_t>(source.height))};
    for (std::size_t y = 0; y < static_cast<std::size_t>(source.height); ++y) {
        std::copy_n(source.pixels + y * source.stride, row, image.pixels.data() + y * row);
    }
    return image;
}

/// The horizontal pass. 16 rows at a time are laid side by side, byte after byte, so that one weight meets 48
/// neighbouring bytes.
inline Image pass_across(const ImageView& source, const ResizeWeights& weights) {
    const auto height = static_cast<std::size_t>(source.height);
    const std::size_t bytes = weights.inputs() * 3;
    const std::size_t row_bytes = weights.taps.size() * 3;
    std::vector<std::uint8_t> tile(bytes * resize_rows);
    Image out{static_cast<int>(weights.taps.size()), source.height, std::vector<std::uint8_t>(height * row_bytes)};
    for (std::size_t y = 0; y < height; y += resize_rows) {
        const std::size_t rows = std::min(resize_rows, height - y);
        std::array<const std::uint8_t*, resize_rows> row;
        for (std::size_t r = 0; r < resize_rows; ++r) {
            row[r] = source.pixels + (y + std::min(r, rows - 1)) * source.stride;
        }
        for (std::size_t i = 0; i < bytes; ++i) {
            for (std::size_t r = 0; r < resize_rows; ++r) tile[i * resize_rows + r] = row[r][i];
        }
        std::uint8_t* target = out.pixels.data() + y * row_bytes;
        for (const ResizeWeights::Taps& at : weights.taps) {
            std::array<std::uint8_t, resize_block> pixel;
            weigh<resize_block>(tile.data() + at.first * resize_block, resize_block, weights.of(at), pixel.data());
            for (std::size_t r = 0; r < rows; ++r) {
                for (std::size_t c = 0; c < 3; ++c) target[r * row_bytes + c] = pixel[c * resize_rows + r];
            }
            target += 3;
        }
    }
    return out;
}

/// The vertical pass.
inline Image pass_down(const ImageView& source, const ResizeWeights& weights) {
    const std::size_t bytes = static_cast<std::size_t>(source.width) * 3;
    Image out{source.width, static_cast<int>(weights.taps.size()),
              std::vector<std::uint8_t>(weights.taps.size() * bytes)};
    std::uint8_t* target = out.pixels.data();
    for (const ResizeWeights::Taps& at : weights.taps) {
        const std::uint8_t* top = source.pixels + at.first * source.stride;
        std::size_t i = 0;
        for (; i + resize_block <= bytes; i += resize_block) {
            weigh<resize_block>(top + i, source.stride, weights.of(at), target + i);
        }
        for (; i < bytes; i += 3) weigh<3>(top + i, source.stride, weights.of(at), target + i);
        target += bytes;
    }
    return out;
}

/// How a resize is done, beside its sizes.
struct ResizeMethod {
    Filter filter = Filter::bicubic;
    PassOrder order = PassOrder::pillow_13;
};

/// The part `window` of the width x height result of resizing the box (x0, y0, x1, y1) of source. Only what the window
/// needs is computed, so a centre crop of a long strip costs no more than the crop.
inline Image resize_window(const ImageView& source, const std::array<float, 4>& box, int width, int height,
                           const Region& window, ResizeMethod method) {
    const std::size_t left = static_cast<std::size_t>(window.left);
    const std::size_t top = static_cast<std::size_t>(window.top);
    if (width == source.width && height == source.height && box[0] == 0 && box[1] == 0 &&
        box[2] == static_cast<float>(width) && box[3] == static_cast<float>(height)) {
        return copy({source.pixels + top * source.stride + left * 3, source.stride, window.width, window.height});
    }
    ResizeWeights across =
        resize_weights(source.width, box[0], box[2], width, window.left, window.width, method.filter);
    ResizeWeights down =
        resize_weights(source.height, box[1], box[3], height, window.top, window.height, method.filter);
    const std::uint8_t* used = source.pixels + down.rebase() * source.stride + across.rebase() * 3;
    const ImageView part{used, source.stride, static_cast<int>(across.inputs()), static_cast<int>(down.inputs())};
    const bool down_first = method.order == PassOrder::pillow_13 && height < source.height &&
                            source.height - height > 2 * (source.width - width);
    if (down_first) return pass_across(view(pass_down(part, down)), across);
    return pass_down(view(pass_across(part, across)), down);
}

inline Image resize_view(const ImageView& source, int width, int height, ResizeMethod method) {
    return resize_window(source, {0, 0, static_cast<float>(source.width), static_cast<float>(source.height)}, width,
                         height, {0, 0, width, height}, method);
}

}  // namespace detail

/// The box (x0, y0) to (x1, y1), in pixels and fractions of them, resized to width x height. Bit for bit Pillow's
/// image.resize((width, height), filter, box) (libImaging/Resample.c): two passes in 22-bit integer weights, each
/// rounded and clamped to 8 bits; pixels just outside the box still count at its border.
/// Throws Error for an empty box, one that leaves the image, and sides beyond 2^20 or 2^28 pixels.
inline Image resize_region(const Image& image, float x0, float y0, float x1, float y1, int width, int height,
                           Filter filter, PassOrder order = PassOrder::pillow_13) {
    detail::check_image(image, "resize");
    detail::check_resize_size(image.width, image.height, "an image with");
    detail::check_resize_size(width, height, "a result with");
    // (Written so that a NaN fails.)
    const bool inside = 0 <= x0 && x0 < x1 && x1 <= static_cast<float>(image.width) && 0 <= y0 && y0 < y1 &&
                        y1 <= static_cast<float>(image.height);
    if (!inside) {
        throw Error("resize",
                    "a box inside the image of " + std::to_string(image.width) + " x " + std::to_string(image.height),
                    "(" + std::to_string(x0) + ", " + std::to_string(y0) + ") to (" + std::to_string(x1) + ", " +
                        std::to_string(y1) + ")");
    }
    return detail::resize_window(detail::view(image), {x0, y0, x1, y1}, width, height, {0, 0, width, height},
                                 {filter, order});
}

/// The whole image resized to width x height; see resize_region.
inline Image resize(const Image& image, int width, int height, Filter filter, PassOrder order = PassOrder::pillow_13) {
    return resize_region(image, 0, 0, static_cast<float>(image.width), static_cast<float>(image.height), width, height,
                         filter, order);
}

}  // namespace tandem::inline TANDEM_ABI

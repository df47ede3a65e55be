// Definitions of images/resize.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/images/filter.hpp>
#include <tandem/images/image.hpp>
#include <tandem/images/resize.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// Sides and pixel counts that resizing accepts: they bound its tables and int arithmetic, far beyond any camera.
inline constexpr int resize_side_limit = 1 << 20;

TANDEM_INLINE void check_resize_size(int width, int height, std::string_view what) {
    const bool sides = width > 0 && height > 0 && width <= resize_side_limit && height <= resize_side_limit;
    if (sides && static_cast<std::size_t>(width) * static_cast<std::size_t>(height) <= resize_pixel_limit) return;
    throw Error("resize", std::string(what) + " sides of 1 to 2^20 and at most 2^28 pixels",
                std::to_string(width) + " x " + std::to_string(height));
}

/// For each output position its taps, which count input positions, and their weights as `kernels` packs them.
struct ResizeWeights {
    std::vector<kernels::ResizeTaps> outputs;
    std::vector<std::int32_t> packed;

    /// Counts input positions from the first one used, which is returned.
    std::size_t rebase() {
        const std::size_t origin = outputs.front().first;
        for (kernels::ResizeTaps& output : outputs) output.first -= origin;
        return origin;
    }

    /// The number of input positions, from 0 to the last one used.
    std::size_t inputs() const { return outputs.back().first + outputs.back().taps; }
};

/// The taps of neighbouring outputs along an axis, and their weights one after the other.
struct AxisTaps {
    std::vector<int> first;          ///< input position of an output's first tap
    std::vector<std::size_t> begin;  ///< of an output's weights; one more than there are outputs
    std::vector<double> weights;
};

/// Of outputs [begin, end) of `size` outputs that together cover [low, high) of `source` inputs.
TANDEM_INLINE AxisTaps axis_taps(int source, float low, float high, int size, int begin, int end, Filter filter) {
    AxisTaps taps{.first = {}, .begin = {0}, .weights = {}};
    std::vector<double> values;
    for (int i = begin; i < end; ++i) {
        taps.first.push_back(filter_taps(source, low, high, size, i, filter, values));
        taps.weights.insert(taps.weights.end(), values.begin(), values.end());
        taps.begin.push_back(taps.weights.size());
    }
    return taps;
}

/// The fraction's bits that weights have in PyTorch: the most with which the largest one of the whole axis is below
/// 2^15 (ATen/native/cpu/UpSampleKernel.cpp, _compute_index_ranges_int16_weights).
TANDEM_INLINE int torch_weight_bits(const AxisTaps& whole) {
    const double largest = std::ranges::max(whole.weights);
    int bits = 0;
    while (bits < kernels::resize_weight_bits && static_cast<int>(0.5 + largest * (2 << bits)) < 1 << 15) ++bits;
    return bits;
}

/// Weights of outputs [begin, begin + count) of `size` outputs that together cover [low, high) of `source` inputs.
/// (Resample.c:185-286, normalize_coeffs_8bpc.)
TANDEM_INLINE ResizeWeights resize_weights(int source, float low, float high, int size, int begin, int count,
                                           ResizeMethod method, const kernels::ResizeKernels& loops) {
    const bool needs_all = method.resampling == Resampling::torchvision;
    const int from = needs_all ? 0 : begin;
    const AxisTaps taps = axis_taps(source, low, high, size, from, needs_all ? size : begin + count, method.filter);
    const int bits = needs_all ? torch_weight_bits(taps) : kernels::resize_weight_bits;
    ResizeWeights weights;
    weights.outputs.reserve(static_cast<std::size_t>(count));
    std::vector<std::int32_t> fixed;
    for (auto i = static_cast<std::size_t>(begin - from); i < static_cast<std::size_t>(begin - from + count); ++i) {
        const std::span<const double> values(taps.weights.data() + taps.begin[i], taps.begin[i + 1] - taps.begin[i]);
        const std::size_t groups = (values.size() + loops.group - 1) / loops.group;
        weights.outputs.push_back({static_cast<std::size_t>(taps.first[i]), values.size(), weights.packed.size()});
        fixed.assign(groups * loops.group, 0);
        for (std::size_t t = 0; t < values.size(); ++t) {
            const double scaled = values[t] * (1 << bits);
            // Fewer bits, moved up, give the same sums and roundings: the kernels know one format.
            fixed[t] = static_cast<std::int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5) *
                       (1 << (kernels::resize_weight_bits - bits));
        }
        weights.packed.resize(weights.packed.size() + groups * loops.words);
        std::int32_t* packed = weights.packed.data() + weights.outputs.back().packed;
        for (std::size_t g = 0; g < groups; ++g) loops.pack(fixed.data() + g * loops.group, packed + g * loops.words);
    }
    return weights;
}

TANDEM_INLINE ImageView view(const Image& image, const Region& region) {
    const std::size_t stride = static_cast<std::size_t>(image.width) * 3;
    return {
        image.pixels.data() + static_cast<std::size_t>(region.top) * stride + static_cast<std::size_t>(region.left) * 3,
        stride, region.width, region.height};
}

TANDEM_INLINE ImageView view(const Image& image) {
    return view(image, {0, 0, image.width, image.height});
}

TANDEM_INLINE Image copy(const ImageView& source) {
    const std::size_t row = static_cast<std::size_t>(source.width) * 3;
    Image image{source.width, source.height, std::vector<std::uint8_t>(row * static_cast<std::size_t>(source.height))};
    for (std::size_t y = 0; y < static_cast<std::size_t>(source.height); ++y) {
        std::copy_n(source.pixels + y * source.stride, row, image.pixels.data() + y * row);
    }
    return image;
}

/// The horizontal pass: out is [source.height][weights.outputs.size()][3].
TANDEM_INLINE void pass_across(const ImageView& source, const ResizeWeights& weights,
                               const kernels::ResizeKernels& loops, std::uint8_t* out) {
    const auto height = static_cast<std::size_t>(source.height);
    const std::size_t used = weights.inputs() * 3;
    const std::size_t row_bytes = weights.outputs.size() * 3;
    const std::size_t readable = (height - 1) * source.stride + used;
    std::vector<std::uint8_t> copies(kernels::resize_rows * (used + kernels::resize_overread));
    for (std::size_t y = 0; y < height; y += kernels::resize_rows) {
        std::array<const std::uint8_t*, kernels::resize_rows> rows;
        std::array<std::uint8_t*, kernels::resize_rows> targets;
        for (std::size_t r = 0; r < kernels::resize_rows; ++r) {
            const std::size_t row = std::min(y + r, height - 1);
            rows[r] = source.pixels + row * source.stride;
            targets[r] = out + row * row_bytes;
            if (row * source.stride + used + kernels::resize_overread <= readable) continue;
            // Behind the last rows there may be no memory that can be read.
            std::uint8_t* copy = copies.data() + r * (used + kernels::resize_overread);
            std::copy_n(rows[r], used, copy);
            rows[r] = copy;
        }
        loops.across(rows, weights.outputs.data(), weights.outputs.size(), weights.packed.data(), targets);
    }
}

/// The vertical pass: out is [weights.outputs.size()][source.width][3].
TANDEM_INLINE void pass_down(const ImageView& source, const ResizeWeights& weights, const kernels::ResizeKernels& loops,
                             std::uint8_t* out) {
    const std::size_t bytes = static_cast<std::size_t>(source.width) * 3;
    for (const kernels::ResizeTaps& output : weights.outputs) {
        loops.down(source.pixels + output.first * source.stride, source.stride, bytes,
                   weights.packed.data() + output.packed, output.taps, out);
        out += bytes;
    }
}

TANDEM_INLINE bool resizes_down_first(int source_width, int source_height, int width, int height, ResizeMethod method) {
    return method.resampling == Resampling::pillow_13 && height < source_height &&
           source_height - height > 2 * (source_width - width);
}

TANDEM_INLINE Image resize_window(const ImageView& source, const std::array<float, 4>& box, int width, int height,
                                  const Region& window, ResizeMethod method, const kernels::ResizeKernels& loops) {
    const std::size_t left = static_cast<std::size_t>(window.left);
    const std::size_t top = static_cast<std::size_t>(window.top);
    if (width == source.width && height == source.height && box[0] == 0 && box[1] == 0 &&
        box[2] == static_cast<float>(width) && box[3] == static_cast<float>(height)) {
        return copy({source.pixels + top * source.stride + left * 3, source.stride, window.width, window.height});
    }
    ResizeWeights across =
        resize_weights(source.width, box[0], box[2], width, window.left, window.width, method, loops);
    ResizeWeights down =
        resize_weights(source.height, box[1], box[3], height, window.top, window.height, method, loops);
    const std::uint8_t* used = source.pixels + down.rebase() * source.stride + across.rebase() * 3;
    const ImageView part{used, source.stride, static_cast<int>(across.inputs()), static_cast<int>(down.inputs())};
    const bool down_first = resizes_down_first(source.width, source.height, width, height, method);
    const int half_width = down_first ? part.width : window.width;
    const int half_height = down_first ? window.height : part.height;
    const std::size_t stride = static_cast<std::size_t>(half_width) * 3;
    const auto scratch = std::make_unique_for_overwrite<std::uint8_t[]>(stride * static_cast<std::size_t>(half_height));
    const ImageView half{scratch.get(), stride, half_width, half_height};
    Image result{window.width, window.height,
                 std::vector<std::uint8_t>(std::size_t{3} * static_cast<std::size_t>(window.width) *
                                           static_cast<std::size_t>(window.height))};
    if (down_first) {
        pass_down(part, down, loops, scratch.get());
        pass_across(half, across, loops, result.pixels.data());
    } else {
        pass_across(part, across, loops, scratch.get());
        pass_down(half, down, loops, result.pixels.data());
    }
    return result;
}

/// Throws unless the samples are as many as the storage says.
TANDEM_INLINE void check_samples(const Image& image, std::string_view where) {
    const std::size_t pixels = image.pixels.size() / 3, found = image.samples.size();
    const std::size_t expected = image.storage == Storage::alpha    ? pixels
                                 : image.storage == Storage::ink    ? 4 * pixels
                                 : image.storage == Storage::grey16 ? 2 * pixels
                                                                    : found;
    if (found == expected) return;
    throw Error(where, std::to_string(expected) + " samples beside the pixels", std::to_string(found));
}

/// Three channels, written by `channels(index, out)`, of every pixel of a region.
template <class Channels>
Image gathered(const Image& image, const Region& region, const Channels& channels) {
    Image out{region.width, region.height,
              std::vector<std::uint8_t>(std::size_t{3} * static_cast<std::size_t>(region.width) *
                                        static_cast<std::size_t>(region.height))};
    std::uint8_t* target = out.pixels.data();
    for (int y = region.top; y < region.top + region.height; ++y) {
        const std::size_t first = static_cast<std::size_t>(y) * static_cast<std::size_t>(image.width);
        for (int x = region.left; x < region.left + region.width; ++x, target += 3) {
            channels(first + static_cast<std::size_t>(x), target);
        }
    }
    return out;
}

/// Where Pillow's nearest neighbours lie: outputs [begin, begin + count) of `size` over `source` inputs, by repeated
/// addition in doubles (libImaging/Geometry.c, ImagingScaleAffine).
[[gnu::cold]] TANDEM_INLINE std::vector<int> nearest_inputs(int source, int size, int begin, int count) {
    const double step = static_cast<double>(source) / size;
    double at = step * 0.5;
    std::vector<int> inputs;
    for (int i = 0; i < begin + count; ++i, at += step) {
        if (i >= begin) inputs.push_back(std::min(static_cast<int>(at), source - 1));
    }
    return inputs;
}

/// Pillow's RGB of a 16-bit grey: all that is brighter than 255 is white (libImaging/Convert.c, I16_RGB).
TANDEM_INLINE std::uint8_t clamped_grey(unsigned low, unsigned high) {
    return static_cast<std::uint8_t>(high == 0 ? low : 255U);
}

/// 16-bit grey resized in doubles, each pass rounded and clamped to 16 bits (Resample.c, the functions _16bpc), as RGB.
[[gnu::cold]] TANDEM_INLINE Image resize_grey16(const Image& image, const Region& part, int width, int height,
                                                const Region& window, ResizeMethod method) {
    using Plane = std::vector<std::uint16_t>;
    const auto columns = static_cast<std::size_t>(part.width), rows = static_cast<std::size_t>(part.height);
    const auto out_columns = static_cast<std::size_t>(window.width), out_rows = static_cast<std::size_t>(window.height);
    Plane plane(columns * rows);
    for (std::size_t y = 0; y < rows; ++y) {
        const std::size_t first = (y + static_cast<std::size_t>(part.top)) * static_cast<std::size_t>(image.width) +
                                  static_cast<std::size_t>(part.left);
        for (std::size_t x = 0; x < columns; ++x) {
            const std::uint8_t* sample = image.samples.data() + 2 * (first + x);
            plane[y * columns + x] = static_cast<std::uint16_t>(sample[0] | sample[1] << 8);
        }
    }
    // Inputs of a line lie `step` samples apart, lines `line`; so do outputs.
    struct Layout {
        std::size_t line, step;
    };
    std::vector<double> weights;
    const auto pass = [&](int source, int size, int begin, int count, std::size_t lines, Layout from, Layout to) {
        Plane out(lines * static_cast<std::size_t>(count));
        for (int i = 0; i < count; ++i) {
            const auto first = static_cast<std::size_t>(
                filter_taps(source, 0, static_cast<float>(source), size, begin + i, method.filter, weights));
            for (std::size_t line = 0; line < lines; ++line) {
                double sum = 0;
                for (std::size_t t = 0; t < weights.size(); ++t) {
                    sum += product(plane[line * from.line + (first + t) * from.step], weights[t]);
                }
                const int rounded = static_cast<int>(sum >= 0 ? sum + 0.5 : sum - 0.5);
                out[line * to.line + static_cast<std::size_t>(i) * to.step] =
                    static_cast<std::uint16_t>(std::clamp(rounded, 0, 0xffff));
            }
        }
        plane = std::move(out);
    };
    const auto across = [&](std::size_t lines) {
        pass(part.width, width, window.left, window.width, lines, {columns, 1}, {out_columns, 1});
    };
    const auto down = [&](std::size_t lines) {
        pass(part.height, height, window.top, window.height, lines, {1, lines}, {1, lines});
    };
    if (resizes_down_first(part.width, part.height, width, height, method)) {
        down(columns);
        across(out_rows);
    } else {
        across(rows);
        down(out_columns);
    }
    Image out{window.width, window.height, {}};
    for (const unsigned value : plane) out.pixels.insert(out.pixels.end(), 3, clamped_grey(value & 255U, value >> 8));
    return out;
}

/// The part `window` of the width x height result of resizing the region `part` of a picture that is stored otherwise
/// than as RGB, as RGB: what Pillow's crop(part).resize((width, height)).convert("RGB") gives of it.
[[gnu::cold]] TANDEM_INLINE Image resize_other(const Image& image, const Region& part, int width, int height,
                                               const Region& window, ResizeMethod method) {
    check_samples(image, "resize");
    const std::vector<std::uint8_t>& samples = image.samples;
    const bool copies = part.width == width && part.height == height;
    if (image.storage == Storage::grey16) {
        if (!copies) return resize_grey16(image, part, width, height, window, method);
        return gathered(image, {part.left + window.left, part.top + window.top, window.width, window.height},
                        [&](std::size_t i, std::uint8_t* out) {
                            out[0] = out[1] = out[2] = clamped_grey(samples[2 * i], samples[2 * i + 1]);
                        });
    }
    const auto resized = [&](const ImageView& source) {
        return resize_window(source, {0, 0, static_cast<float>(part.width), static_cast<float>(part.height)}, width,
                             height, window, method);
    };
    if (copies) return resized(view(image, part));
    if (image.storage == Storage::nearest) {
        const std::vector<int> columns = nearest_inputs(part.width, width, window.left, window.width);
        const std::vector<int> rows = nearest_inputs(part.height, height, window.top, window.height);
        Image out{window.width, window.height, {}};
        for (const int y : rows) {
            const ImageView row = view(image, {part.left, part.top + y, part.width, 1});
            for (const int x : columns) {
                const std::uint8_t* pixel = row.pixels + 3 * static_cast<std::size_t>(x);
                out.pixels.insert(out.pixels.end(), pixel, pixel + 3);
            }
        }
        return out;
    }
    const auto resized_channels = [&](const auto& channels) { return resized(view(gathered(image, part, channels))); };
    if (image.storage == Storage::ink) {
        Image out = resized_channels([&](std::size_t i, std::uint8_t* to) { std::copy_n(&samples[4 * i], 3, to); });
        const Image blacks =
            resized_channels([&](std::size_t i, std::uint8_t* to) { to[0] = to[1] = to[2] = samples[4 * i + 3]; });
        for (std::size_t i = 0; i < out.pixels.size(); ++i) out.pixels[i] = ink_level(out.pixels[i], blacks.pixels[i]);
        return out;
    }
    // Colours weigh by their alpha (Pillow's modes RGBa and La; Convert.c, rgbA2rgba and rgba2rgbA): what lies under a
    // transparent area has no weight, and the area is black.
    Image out = resized_channels([&](std::size_t i, std::uint8_t* to) {
        for (std::size_t c = 0; c < 3; ++c) to[c] = blend(image.pixels[3 * i + c], 0, samples[i]);
    });
    const Image alphas = resized_channels([&](std::size_t i, std::uint8_t* to) { to[0] = to[1] = to[2] = samples[i]; });
    for (std::size_t i = 0; i < out.pixels.size(); ++i) {
        const unsigned alpha = alphas.pixels[i];
        if (alpha != 0) out.pixels[i] = static_cast<std::uint8_t>(std::min(255U * out.pixels[i] / alpha, 255U));
    }
    return out;
}

TANDEM_INLINE Image resize_part(const Image& image, const Region& part, Storage storage, int width, int height,
                                const Region& window, ResizeMethod method) {
    if (storage != Storage::rgb) return resize_other(image, part, width, height, window, method);
    return resize_window(view(image, part), {0, 0, static_cast<float>(part.width), static_cast<float>(part.height)},
                         width, height, window, method);
}

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE Image resize_region(const Image& image, float x0, float y0, float x1, float y1, int width, int height,
                                  Filter filter, Resampling resampling) {
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
                                 {filter, resampling});
}

TANDEM_INLINE Image resize(const Image& image, int width, int height, Filter filter, Resampling resampling) {
    return resize_region(image, 0, 0, static_cast<float>(image.width), static_cast<float>(image.height), width, height,
                         filter, resampling);
}

}  // namespace tandem::inline TANDEM_ABI

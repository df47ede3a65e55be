// The loops of image preprocessing in plain C++: the oracle.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include <tandem/core/platform.hpp>
#include <tandem/kernels/resize_set.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

namespace resize_scalar {

inline std::uint8_t rounded(std::int32_t sum) {
    return static_cast<std::uint8_t>(std::clamp(sum >> resize_weight_bits, 0, 255));
}

inline void pack(const std::int32_t* weights, std::int32_t* packed) {
    *packed = *weights;
}

/// `count` neighbouring bytes; fixed, so that the loops vectorise.
template <std::size_t count>
void down_block(const std::uint8_t* source, std::size_t stride, const std::int32_t* packed, std::size_t taps,
                std::uint8_t* out) {
    std::array<std::int32_t, count> sums;
    sums.fill(resize_rounding);
    for (std::size_t t = 0; t < taps; ++t, source += stride) {
        for (std::size_t i = 0; i < count; ++i) sums[i] += packed[t] * source[i];
    }
    for (std::size_t i = 0; i < count; ++i) out[i] = rounded(sums[i]);
}

inline void down(const std::uint8_t* source, std::size_t stride, std::size_t bytes, const std::int32_t* packed,
                 std::size_t taps, std::uint8_t* out) {
    constexpr std::size_t block = 32;
    std::size_t i = 0;
    for (; i + block <= bytes; i += block) down_block<block>(source + i, stride, packed, taps, out + i);
    for (; i < bytes; ++i) down_block<1>(source + i, stride, packed, taps, out + i);
}

inline void across(const std::array<const std::uint8_t*, resize_rows>& rows, const ResizeTaps* outputs,
                   std::size_t count, const std::int32_t* packed, const std::array<std::uint8_t*, resize_rows>& out) {
    for (std::size_t r = 0; r < resize_rows; ++r) {
        std::uint8_t* target = out[r];
        for (std::size_t x = 0; x < count; ++x, target += 3) {
            const std::uint8_t* pixel = rows[r] + 3 * outputs[x].first;
            const std::int32_t* weights = packed + outputs[x].packed;
            std::int32_t red = resize_rounding, green = resize_rounding, blue = resize_rounding;
            for (std::size_t t = 0; t < outputs[x].taps; ++t, pixel += 3) {
                red += weights[t] * pixel[0];
                green += weights[t] * pixel[1];
                blue += weights[t] * pixel[2];
            }
            target[0] = rounded(red);
            target[1] = rounded(green);
            target[2] = rounded(blue);
        }
    }
}

inline void normalise(const std::uint8_t* pixels, std::size_t count, const NormaliseTable& table, float* planes,
                      std::size_t stride) {
    for (std::size_t c = 0; c < 3; ++c) {
        float* out = planes + c * stride;
        for (std::size_t i = 0; i < count; ++i) out[i] = table.values[c][pixels[3 * i + c]];
    }
}

inline constexpr ResizeKernels kernels{1, 1, pack, down, across, normalise};

}  // namespace resize_scalar

}  // namespace tandem::inline TANDEM_ABI::kernels

// The loops of image preprocessing as a table of function pointers: weighted sums of pixel rows and columns, and pixels
// to normalised planes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

/// Pillow's fixed point: a weight of 1 is 2^22. Sums are exact in 32 bits as long as 255 times the sum of the weights'
/// magnitudes stays below 2^30.9, whatever the order of summation.
inline constexpr int resize_weight_bits = 22;
inline constexpr std::int32_t resize_rounding = 1 << (resize_weight_bits - 1);  ///< half a unit of the sum

/// Bytes that `across` may read behind the last pixel it uses in a row.
inline constexpr std::size_t resize_overread = 16;

/// Rows that `across` takes at once.
inline constexpr std::size_t resize_rows = 4;

/// The inputs of one output: `taps` of them from `first` on, whose packed weights begin at `packed`.
struct ResizeTaps {
    std::size_t first;
    std::size_t taps;
    std::size_t packed;
};

/// (value / 255 - mean) / deviation of each channel's 256 values, and the same as two products that some instruction
/// sets compute faster than they look it up.
struct NormaliseTable {
    std::array<std::array<float, 256>, 3> values;
    std::array<float, 3> mean;
    std::array<std::array<float, 2>, 3> inverse;  ///< 1 / deviation, rounded, and what the rounding took
    bool computable = false;                      ///< those products give every value's bits
};

/// 1 / divisor in float, and what its rounding took.
constexpr std::array<float, 2> inverse_of(float divisor) {
    const double inverse = 1.0 / static_cast<double>(divisor);
    const auto high = static_cast<float>(inverse);
    return {high, static_cast<float>(inverse - static_cast<double>(high))};
}

/// inverse_of 255, the divisor of every pixel.
inline constexpr std::array<float, 2> level_inverse = inverse_of(255.0F);

/// The values of a byte as a share of 255.
inline constexpr std::array<float, 256> unit_levels = [] {
    std::array<float, 256> values{};
    for (std::size_t i = 0; i < 256; ++i) values[i] = static_cast<float>(i) / 255.0F;
    return values;
}();
/// Pixels of three equal bytes, one of each level.
inline constexpr std::array<std::uint8_t, 3 * 256> grey_levels = [] {
    std::array<std::uint8_t, 3 * 256> pixels{};
    for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i / 3);
    return pixels;
}();

/// The loops of one instruction set.
struct ResizeKernels {
    /// An output's weights are padded with zeros to a multiple of `group` and packed, `words` for each group.
    std::size_t group;
    std::size_t words;
    void (*pack)(const std::int32_t* weights, std::int32_t* packed);

    /// out[i] = the sum over the taps t of weight[t] * source[t * stride + i], rounded and clamped, for i < bytes.
    void (*down)(const std::uint8_t* source, std::size_t stride, std::size_t bytes, const std::int32_t* packed,
                 std::size_t taps, std::uint8_t* out);

    /// Pixel x of out[r] = the sum over its taps t of weight[t] * pixel first + t of rows[r], for x < count. A row may
    /// be given more than once.
    void (*across)(const std::array<const std::uint8_t*, resize_rows>& rows, const ResizeTaps* outputs,
                   std::size_t count, const std::int32_t* packed, const std::array<std::uint8_t*, resize_rows>& out);

    /// Pixel i's channels go to planes[c * stride + i].
    void (*normalise)(const std::uint8_t* pixels, std::size_t count, const NormaliseTable& table, float* planes,
                      std::size_t stride);
};

}  // namespace tandem::inline TANDEM_ABI::kernels

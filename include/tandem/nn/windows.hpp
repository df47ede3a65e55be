// The windows of pixels that a convolution multiplies.
#pragma once

#include <cstddef>

#include <tandem/core/image_size.hpp>
#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::nn {

/// Windows of kernel · kernel pixels every `stride` of them, over images that have `pad` rows and columns of zeros
/// before them and as many as it takes behind them: `out` windows.
struct Windows {
    ImageSize in, out;
    std::size_t kernel, stride, pad;

    constexpr std::size_t taps() const { return kernel * kernel; }
};

/// A pixel in the padding.
inline constexpr std::size_t outside = ~std::size_t{0};

/// Calls body(row, tap, pixel) for every place of every window of the lines [first, last) of the result, which count on
/// from image to image: `row` is the result's, `pixel` the one that the kernel's position `tap` lies on, or outside.
template <class Body>
void for_each_window(const Windows& windows, std::size_t first, std::size_t last, const Body& body) {
    for (std::size_t line = first; line < last; ++line) {
        const std::size_t image = line / windows.out.height * windows.in.area();
        const std::size_t top = line % windows.out.height * windows.stride;
        for (std::size_t x = 0; x < windows.out.width; ++x) {
            for (std::size_t tap = 0; tap < windows.taps(); ++tap) {
                // In the padding before the first line or column, these wrap around to huge numbers.
                const std::size_t row = top + tap / windows.kernel - windows.pad,
                                  column = x * windows.stride + tap % windows.kernel - windows.pad;
                const bool inside = row < windows.in.height && column < windows.in.width;
                body(line * windows.out.width + x, tap, inside ? image + row * windows.in.width + column : outside);
            }
        }
    }
}

}  // namespace tandem::inline TANDEM_ABI::nn

// What convolutional towers do to pixels that stand as rows of channels, beside convolving them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>

#include <tandem/core/parallel.hpp>
#include <tandem/kernels/dispatch.hpp>

namespace tandem::inline TANDEM_ABI::nn {

/// y = x + other, elementwise; y may be one of them.
template <Real C>
void add(const C* x, const C* other, C* y, std::size_t size) {
    parallel_for(size, 16384, [&](std::size_t begin, std::size_t end) {
        kernels::active<C>().finish_tile(x + begin, 0, 1, end - begin, y + begin, 0, false,
                                         {.residual = other + begin});
    });
}

/// The mean of every window of size · size pixels, which do not overlap: torch.nn.AvgPool2d(size).
template <Real C>
void average_pool(std::size_t count, std::size_t side, std::size_t size, std::size_t width, const C* x, C* y) {
    const std::size_t out = side / size;
    parallel_for(count * out, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t row = begin * out; row < end * out; ++row) {
            C* const to = y + row * width;
            std::fill_n(to, width, C{0});
            for (std::size_t tap = 0; tap < size * size; ++tap) {
                const std::size_t line = row / out * size + tap / size;  // of all images: side is a multiple of size
                const C* const from = x + (line * side + row % out * size + tap % size) * width;
                std::transform(to, to + width, from, to, std::plus<C>());
            }
            for (std::size_t c = 0; c < width; ++c) to[c] /= static_cast<C>(size * size);
        }
    });
}

/// dx of average_pool, given dy: every element of a window gets the same share.
template <Real C>
void average_pool_backward(std::size_t count, std::size_t side, std::size_t size, std::size_t width, const C* dy,
                           C* dx) {
    const std::size_t out = side / size;
    parallel_for(count * side, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t row = begin * side; row < end * side; ++row) {
            const C* const from = dy + (row / side / size * out + row % side / size) * width;
            for (std::size_t c = 0; c < width; ++c) dx[row * width + c] = from[c] / static_cast<C>(size * size);
        }
    });
}

/// [N, channels, side, side] to rows of channels.
template <Real C>
void channels_last(std::size_t count, std::size_t channels, std::size_t pixels, const C* x, C* y) {
    parallel_for(count * channels, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t plane = begin; plane < end; ++plane) {
            C* const to = y + plane / channels * channels * pixels + plane % channels;
            for (std::size_t i = 0; i < pixels; ++i) to[i * channels] = x[plane * pixels + i];
        }
    });
}
/// The way back.
template <Real C>
void channels_first(std::size_t count, std::size_t channels, std::size_t pixels, const C* x, C* y) {
    parallel_for(count * channels, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t plane = begin; plane < end; ++plane) {
            const C* const from = x + plane / channels * channels * pixels + plane % channels;
            for (std::size_t i = 0; i < pixels; ++i) y[plane * pixels + i] = from[i * channels];
        }
    });
}

}  // namespace tandem::inline TANDEM_ABI::nn

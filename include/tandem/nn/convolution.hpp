// Convolutions over pixels that stand as rows of channels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include <tandem/core/parallel.hpp>
#include <tandem/kernels/dispatch.hpp>
#include <tandem/nn/batch_norm.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/nn/windows.hpp>

namespace tandem::inline TANDEM_ABI::nn {

/// The pixels of square images as rows, image by image, line by line: <N · side · side, channels>. Sizes are run-time
/// numbers: a convolutional tower has a layer of every size, and would be compiled for each.
template <Real C>
using Pixels = Tensor<C, Shape<dynamic, dynamic>>;

/// Where a convolution reads: side · side pixels of `in` channels, windows of kernel · kernel pixels every `stride` of
/// them, `pad` rows and columns of zeros before the image and as many as it takes behind it.
struct ConvolutionShape {
    std::size_t side = 0, in = 0, out = 0, kernel = 1, stride = 1, pad = 0;
    std::size_t out_side = 0;

    constexpr std::size_t depth() const { return in * kernel * kernel; }
    constexpr std::size_t rows(std::size_t count) const { return count * out_side * out_side; }
    /// One window is one pixel, and all of them are read.
    constexpr bool is_plain() const { return kernel == 1 && stride == 1; }

    /// With `pad` zeros on every side, as torch.nn.Conv2d.
    static constexpr ConvolutionShape padded(std::size_t side, std::size_t in, std::size_t out, std::size_t kernel,
                                             std::size_t stride) {
        const std::size_t pad = kernel / 2;
        return {side, in, out, kernel, stride, pad, (side + 2 * pad - kernel) / stride + 1};
    }
    constexpr Windows windows() const { return {{side, side}, {out_side, out_side}, kernel, stride, pad}; }

    /// Of the product with the weight; memory is the layers'.
    constexpr Cost cost() const { return linear_cost(depth(), out, false, out_side * out_side); }
};

/// A convolution without a bias. The weight has PyTorch's shape, [out, in, kernel, kernel].
template <Arithmetic T>
struct Convolution {
    using C = Compute<T>;

    ConvolutionShape shape;
    PackedMatrix<T, Shape<dynamic, dynamic, dynamic, dynamic>> weight;

    explicit Convolution(const ConvolutionShape& sizes)
        : shape(sizes), weight(Extents<4>{{sizes.out, sizes.in, sizes.kernel, sizes.kernel}}) {}

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "weight", self.weight...);
    }

    /// torch.nn.Conv2d draws uniformly; this has its variance, 1 / (3 · depth).
    void initialise(Random& random) {
        fill_normal(weight, random, 1 / std::sqrt(3.0 * static_cast<double>(shape.depth())));
    }

    /// x <N · side², in> to y <N · out_side², out>, then what `finish` says.
    void forward(std::size_t count, const C* x, C* y, const kernels::Finish<C>& finish = {}) const {
        const std::size_t side = shape.out_side, depth = shape.depth(), out = shape.out;
        if (shape.is_plain()) return weight.product(shape.rows(count), {x, depth}, {y, out}, finish);
        // As many lines of windows as stay in a core's cache until they are multiplied.
        const std::size_t lines = std::max<std::size_t>(1, 131072 / (side * depth));
        parallel_for(count * side, lines, [&](std::size_t begin, std::size_t end) {
            thread_local Buffer<C> windows;
            for (std::size_t first = begin; first < end; first += lines) {
                const std::size_t last = std::min(end, first + lines), row = first * side, rows = (last - first) * side;
                windows.resize(rows * depth);
                write_windows(first, last, x, windows.data());
                weight.product(rows, {windows.data(), depth}, {y + row * out, out}, finish.at(row, 0));
            }
        });
    }

    /// Adds to the weight's gradient, and writes dx unless it is null.
    void backward(std::size_t count, const C* x, const C* dy, C* dx, Pixels<C>& windows, Pixels<C>& dwindows,
                  Convolution& gradient) const requires Trainable<T> {
        const std::size_t rows = shape.rows(count), depth = shape.depth(), side = shape.out_side;
        if (shape.is_plain())
            return weight.product_backward(rows, {x, depth}, {dy, shape.out}, {dx, depth}, gradient.weight, 0,
                                           shape.out);
        windows.resize(rows, depth);
        parallel_for(count * side, 1, [&](std::size_t begin, std::size_t end) {
            write_windows(begin, end, x, windows.data() + begin * side * depth);
        });
        if (dx != nullptr) dwindows.resize(rows, depth);
        weight.product_backward(rows, {windows.data(), depth}, {dy, shape.out},
                                {dx == nullptr ? nullptr : dwindows.data(), depth}, gradient.weight, 0, shape.out);
        if (dx == nullptr) return;
        std::fill_n(dx, count * shape.side * shape.side * shape.in, C{0});
        // Windows overlap: image by image, not line by line.
        const std::size_t taps = shape.kernel * shape.kernel;
        parallel_for(count, 1, [&](std::size_t begin, std::size_t end) {
            for_each_window(shape.windows(), begin * side, end * side,
                            [&](std::size_t row, std::size_t tap, std::size_t pixel) {
                                if (pixel == outside) return;
                                C* const to = dx + pixel * shape.in;
                                const C* const g = dwindows.data() + row * depth + tap;
                                for (std::size_t c = 0; c < shape.in; ++c) to[c] += g[c * taps];
                            });
        });
    }

private:
    /// The windows of the lines [first, last), channel by channel as the weight has them.
    void write_windows(std::size_t first, std::size_t last, const C* x, C* windows) const {
        const std::size_t depth = shape.depth(), taps = shape.kernel * shape.kernel, before = first * shape.out_side;
        for_each_window(shape.windows(), first, last, [&](std::size_t row, std::size_t tap, std::size_t pixel) {
            C* const to = windows + (row - before) * depth + tap;
            for (std::size_t c = 0; c < shape.in; ++c) to[c * taps] = pixel == outside ? C{0} : x[pixel * shape.in + c];
        });
    }
};

/// A convolution of every channel alone. The weight has PyTorch's shape, [channels, 1, kernel, kernel]; shape.in is
/// shape.out.
template <Arithmetic T>
struct DepthwiseConvolution {
    using C = Compute<T>;

    ConvolutionShape shape;
    Tensor<C, Shape<dynamic, dynamic, dynamic, dynamic>> weight;

    explicit DepthwiseConvolution(const ConvolutionShape& sizes)
        : shape(sizes), weight(sizes.out, std::size_t{1}, sizes.kernel, sizes.kernel) {}

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "weight", self.weight...);
    }

    void initialise(Random& random) { fill_normal(weight, random, 1 / std::sqrt(3.0 * static_cast<double>(taps()))); }

    /// x <N · side², channels> to y <N · out_side², channels>: activation(scale · the sums + bias), where scale and
    /// bias are one a channel, or null.
    void forward(std::size_t count, const C* x, C* y, const C* scale = nullptr, const C* bias = nullptr,
                 kernels::Activation activation = kernels::Activation::none) const {
        const std::size_t width = shape.in, side = shape.out_side;
        const kernels::KernelSet<C>& set = kernels::active<C>();
        std::vector<C> by_tap(taps() * width);
        set.transpose(weight.data(), taps(), width, taps(), by_tap.data(), width);
        for (std::size_t i = 0; scale != nullptr && i < by_tap.size(); ++i) by_tap[i] *= scale[i % width];
        parallel_for(count * side, 1, [&](std::size_t begin, std::size_t end) {
            std::vector<const C*> pixels(taps()), factors(taps());
            std::size_t terms = 0;
            for_each_window(shape.windows(), begin, end, [&](std::size_t row, std::size_t tap, std::size_t pixel) {
                if (tap == 0) terms = 0;
                if (pixel != outside) {
                    pixels[terms] = x + pixel * width;
                    factors[terms++] = by_tap.data() + tap * width;
                }
                if (tap + 1 == taps())
                    set.sum_of_products(terms, pixels.data(), factors.data(), bias, activation, y + row * width, width);
            });
        });
    }

    /// Adds to the weight's gradient, and writes dx.
    void backward(std::size_t count, const C* x, const C* dy, C* dx, DepthwiseConvolution& gradient) const {
        const std::size_t width = shape.in;
        std::fill_n(dx, count * shape.side * shape.side * width, C{0});
        // Channels in parallel: windows overlap, and every channel has a gradient of its own.
        parallel_for((width + 15) / 16, 1, [&](std::size_t begin, std::size_t end) {
            const std::size_t last = std::min(end * 16, width);
            for_each_window(shape.windows(), 0, count * shape.out_side,
                            [&](std::size_t row, std::size_t tap, std::size_t pixel) {
                                for (std::size_t c = begin * 16; pixel != outside && c < last; ++c) {
                                    const C g = dy[row * width + c];
                                    gradient.weight.data()[c * taps() + tap] += g * x[pixel * width + c];
                                    dx[pixel * width + c] += g * weight.data()[c * taps() + tap];
                                }
                            });
        });
    }

private:
    std::size_t taps() const { return shape.kernel * shape.kernel; }
};

/// A convolution and the batch norm and activation behind it.
template <Arithmetic T>
struct NormedConvolution {
    using C = Compute<T>;

    Convolution<T> convolution;
    BatchNorm<T> norm;

    struct Saved {
        Pixels<C> convolved, out;
        typename BatchNorm<T>::Saved norm;
    };

    NormedConvolution(const ConvolutionShape& shape, kernels::Activation activation, double eps = 1e-5)
        : convolution(shape), norm(shape.out, activation, eps) {}

    const ConvolutionShape& shape() const { return convolution.shape; }

    /// x to saved.out. Unless they are folded, what backward needs stays in `saved`.
    void forward(std::size_t count, const C* x, Saved& saved, Statistics statistics) const {
        const std::size_t rows = shape().rows(count);
        saved.out.resize(rows, shape().out);
        if (statistics == Statistics::folded) {
            norm.fold(saved.norm);
            convolution.forward(
                count, x, saved.out.data(),
                {.scale = saved.norm.scale.data(), .bias = saved.norm.shift.data(), .activation = norm.activation});
            return;
        }
        saved.convolved.resize(rows, shape().out);
        convolution.forward(count, x, saved.convolved.data());
        norm.forward(rows, saved.convolved.data(), saved.out.data(), saved.norm, statistics == Statistics::batch);
    }

    /// g is the gradient of saved.out, and is overwritten; writes dx unless it is null.
    void backward(std::size_t count, const C* x, C* g, C* dx, Saved& saved, Pixels<C>& windows, Pixels<C>& dwindows,
                  NormedConvolution& gradient) const requires Trainable<T> {
        norm.backward(shape().rows(count), saved.convolved.data(), g, saved.norm, gradient.norm);
        convolution.backward(count, x, g, dx, windows, dwindows, gradient.convolution);
    }
};

}  // namespace tandem::inline TANDEM_ABI::nn

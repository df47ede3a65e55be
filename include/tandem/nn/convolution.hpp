// Convolutions over pixels that stand as rows of channels, and the batch norm behind them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include <tandem/core/parallel.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/parameter.hpp>

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
    constexpr Cost cost() const {
        const std::size_t pixels = out_side * out_side;
        return linear_cost(depth(), out, false, pixels) + pixels * out * held_cost(1);
    }
};

/// Calls body(row, column, pixel) for every place of every window, image by image in parallel: `column` begins the
/// kernel position's elements of the first channel, `pixel` is -1 in the padding.
template <class Body>
void for_each_window(const ConvolutionShape& shape, std::size_t count, const Body& body) {
    const std::size_t side = shape.out_side, kernel = shape.kernel;
    parallel_for(count * side, std::max<std::size_t>(1, 64 / side), [&](std::size_t begin, std::size_t end) {
        for (std::size_t line = begin; line < end; ++line) {
            const std::size_t image = line / side * shape.side * shape.side, top = line % side * shape.stride;
            for (std::size_t x = 0; x < side; ++x) {
                for (std::size_t tap = 0; tap < kernel * kernel; ++tap) {
                    // Behind the first line or column of an image, these wrap around to huge numbers.
                    const std::size_t row = top + tap / kernel - shape.pad,
                                      column = x * shape.stride + tap % kernel - shape.pad;
                    const bool inside = row < shape.side && column < shape.side;
                    body(line * side + x, tap, inside ? image + row * shape.side + column : ~std::size_t{0});
                }
            }
        }
    });
}

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

    /// x <N · side², in> to y <N · out_side², out>; `windows` is scratch.
    void forward(std::size_t count, const C* x, C* y, Pixels<C>& windows) const {
        weight.product(shape.rows(count), {input(count, x, windows), shape.depth()}, {y, shape.out}, {});
    }

    /// Adds to the weight's gradient, and writes dx unless it is null.
    void backward(std::size_t count, const C* x, const C* dy, C* dx, Pixels<C>& windows, Pixels<C>& dwindows,
                  Convolution& gradient) const requires Trainable<T> {
        const std::size_t rows = shape.rows(count), depth = shape.depth();
        const C* const from = input(count, x, windows);
        C* into = dx;
        if (dx != nullptr && !shape.is_plain()) {
            dwindows.resize(rows, depth);
            into = dwindows.data();
        }
        weight.product_backward(rows, {from, depth}, {dy, shape.out}, {into, depth}, gradient.weight, 0, shape.out);
        if (dx == nullptr || shape.is_plain()) return;
        std::fill_n(dx, count * shape.side * shape.side * shape.in, C{0});
        // Windows overlap: image by image, not line by line.
        const std::size_t taps = shape.kernel * shape.kernel, pixels = shape.out_side * shape.out_side;
        parallel_for(count, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t row = begin * pixels; row < end * pixels; ++row) {
                const std::size_t image = row / pixels * shape.side * shape.side;
                for (std::size_t tap = 0; tap < taps; ++tap) {
                    const std::size_t line =
                        row % pixels / shape.out_side * shape.stride + tap / shape.kernel - shape.pad;
                    const std::size_t column = row % shape.out_side * shape.stride + tap % shape.kernel - shape.pad;
                    if (line >= shape.side || column >= shape.side) continue;
                    C* const to = dx + (image + line * shape.side + column) * shape.in;
                    const C* const g = dwindows.data() + row * depth + tap;
                    for (std::size_t c = 0; c < shape.in; ++c) to[c] += g[c * taps];
                }
            }
        });
    }

private:
    /// What the product reads: x itself, or its windows, channel by channel as the weight has them.
    const C* input(std::size_t count, const C* x, Pixels<C>& windows) const {
        if (shape.is_plain()) return x;
        const std::size_t depth = shape.depth(), taps = shape.kernel * shape.kernel;
        windows.resize(shape.rows(count), depth);
        for_each_window(shape, count, [&](std::size_t row, std::size_t tap, std::size_t pixel) {
            C* const to = windows.data() + row * depth + tap;
            for (std::size_t c = 0; c < shape.in; ++c)
                to[c * taps] = pixel == ~std::size_t{0} ? C{0} : x[pixel * shape.in + c];
        });
        return windows.data();
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

    /// x <N · side², channels> to y <N · out_side², channels>.
    void forward(std::size_t count, const C* x, C* y) const {
        const std::size_t width = shape.in;
        std::vector<C> by_tap(taps() * width);
        kernels::active<C>().transpose(weight.data(), taps(), width, taps(), by_tap.data(), width);
        std::fill_n(y, shape.rows(count) * width, C{0});
        for_each_window(shape, count, [&](std::size_t row, std::size_t tap, std::size_t pixel) {
            if (pixel == ~std::size_t{0}) return;
            const C *const from = x + pixel * width, *const factors = by_tap.data() + tap * width;
            C* const to = y + row * width;
            for (std::size_t c = 0; c < width; ++c) to[c] += factors[c] * from[c];
        });
    }

    /// Adds to the weight's gradient, and writes dx.
    void backward(std::size_t count, const C* x, const C* dy, C* dx, DepthwiseConvolution& gradient) const {
        const std::size_t width = shape.in, pixels = shape.out_side * shape.out_side;
        std::fill_n(dx, count * shape.side * shape.side * width, C{0});
        // Channels in parallel: windows overlap, and every channel has a gradient of its own.
        parallel_for((width + 15) / 16, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t row = 0; row < count * pixels; ++row) {
                for (std::size_t tap = 0; tap < taps(); ++tap) {
                    const std::size_t line =
                        row % pixels / shape.out_side * shape.stride + tap / shape.kernel - shape.pad;
                    const std::size_t column = row % shape.out_side * shape.stride + tap % shape.kernel - shape.pad;
                    if (line >= shape.side || column >= shape.side) continue;
                    const std::size_t pixel = row / pixels * shape.side * shape.side + line * shape.side + column;
                    for (std::size_t c = begin * 16; c < std::min(end * 16, width); ++c) {
                        const C g = dy[row * width + c];
                        gradient.weight.data()[c * taps() + tap] += g * x[pixel * width + c];
                        dx[pixel * width + c] += g * weight.data()[c * taps() + tap];
                    }
                }
            }
        });
    }

private:
    std::size_t taps() const { return shape.kernel * shape.kernel; }
};

/// What becomes of the numbers behind a batch norm.
enum class Rectifier { none, relu, silu };

/// torch.nn.BatchNorm2d (Ioffe, Szegedy 2015): in training by the batch's own mean and variance, and else by the
/// running means of those of all batches. Then the rectifier.
template <Arithmetic T>
struct BatchNorm {
    using C = Compute<T>;

    Tensor<C, Shape<dynamic>> weight, bias;
    RunningMean<C> running_mean, running_var;
    double eps;
    Rectifier rectifier;

    struct Saved {
        Tensor<C, Shape<dynamic>> mean, inverse;  ///< what the rows were normed with
        bool is_batch = false;
    };

    BatchNorm(std::size_t width, Rectifier behind, double eps_of = 1e-5)
        : weight(width), bias(width), running_mean(width), running_var(width), eps(eps_of), rectifier(behind) {
        weight.fill(1);
        running_var.fill(1);
    }

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "weight", self.weight...);
        visit(at + "bias", self.bias...);
        visit(at + "running_mean", self.running_mean...);
        visit(at + "running_var", self.running_var...);
    }

    /// In place or not. `by_batch` norms by the rows given.
    void forward(std::size_t rows, const C* x, C* y, Saved& saved, bool by_batch) const {
        const std::size_t width = weight.size();
        saved.is_batch = by_batch;
        saved.mean.resize(width);
        saved.inverse.resize(width);
        for_each_channel(width, [&](std::size_t c) {
            double mean = static_cast<double>(running_mean.data()[c]),
                   variance = static_cast<double>(running_var.data()[c]);
            if (by_batch) {
                mean = variance = 0;
                for (std::size_t row = 0; row < rows; ++row) mean += static_cast<double>(x[row * width + c]);
                mean /= static_cast<double>(rows);
                for (std::size_t row = 0; row < rows; ++row) {
                    const double difference = static_cast<double>(x[row * width + c]) - mean;
                    variance += difference * difference;
                }
                variance /= static_cast<double>(rows);
            }
            saved.mean.data()[c] = static_cast<C>(mean);
            saved.inverse.data()[c] = static_cast<C>(1 / std::sqrt(variance + eps));
        });
        parallel_for(rows, std::max<std::size_t>(1, 4096 / width), [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin * width; i < end * width; i += width) {
                for (std::size_t c = 0; c < width; ++c) y[i + c] = normed(x[i + c], c, saved);
                rectify(y + i, width);
            }
        });
    }

    /// In place g = dL/dx, given g = dL/dy and the x of forward. Adds to the gradients.
    void backward(std::size_t rows, const C* x, C* g, const Saved& saved, BatchNorm& gradient) const {
        const std::size_t width = weight.size();
        const auto count = static_cast<double>(rows);
        for_each_channel(width, [&](std::size_t c) {
            const double mean = static_cast<double>(saved.mean.data()[c]),
                         inverse = static_cast<double>(saved.inverse.data()[c]);
            double sum = 0, along = 0;
            for (std::size_t row = 0; row < rows; ++row) {
                C& slope = g[row * width + c];
                if (rectifier != Rectifier::none) slope *= rectifier_slope(normed(x[row * width + c], c, saved));
                sum += static_cast<double>(slope);
                along += static_cast<double>(slope) * (static_cast<double>(x[row * width + c]) - mean) * inverse;
            }
            gradient.bias.data()[c] += static_cast<C>(sum);
            gradient.weight.data()[c] += static_cast<C>(along);
            const double scale = static_cast<double>(weight.data()[c]) * inverse;
            for (std::size_t row = 0; row < rows; ++row) {
                C& slope = g[row * width + c];
                const double hat = (static_cast<double>(x[row * width + c]) - mean) * inverse;
                const double through = saved.is_batch ? (sum + hat * along) / count : 0;
                slope = static_cast<C>(scale * (static_cast<double>(slope) - through));
            }
            if (!saved.is_batch) return;
            const double variance =
                (1 / (inverse * inverse) - eps) * count / std::max(1.0, count - 1);  // unbiased, as PyTorch's
            gradient.running_mean.data()[c] += running_mean.data()[c] - static_cast<C>(mean);
            gradient.running_var.data()[c] += running_var.data()[c] - static_cast<C>(variance);
        });
    }

private:
    template <class Body>
    static void for_each_channel(std::size_t width, const Body& body) {
        parallel_for(width, 16, [&](std::size_t begin, std::size_t end) {
            for (std::size_t c = begin; c < end; ++c) body(c);
        });
    }

    C normed(C x, std::size_t c, const Saved& saved) const {
        return (x - saved.mean.data()[c]) * (saved.inverse.data()[c] * weight.data()[c]) + bias.data()[c];
    }
    void rectify(C* row, std::size_t width) const {
        if (rectifier == Rectifier::relu) std::transform(row, row + width, row, [](C x) { return std::max(x, C{0}); });
        if (rectifier == Rectifier::silu)
            std::transform(row, row + width, row, [](C x) { return x / (1 + std::exp(-x)); });
    }
    C rectifier_slope(C x) const {
        if (rectifier == Rectifier::relu) return x > 0 ? C{1} : C{0};
        const C sigmoid = 1 / (1 + std::exp(-x));
        return sigmoid * (1 + x * (1 - sigmoid));
    }
};

/// A convolution and the batch norm and rectifier behind it.
template <Arithmetic T>
struct NormedConvolution {
    using C = Compute<T>;

    Convolution<T> convolution;
    BatchNorm<T> norm;

    struct Saved {
        Pixels<C> convolved, out;
        typename BatchNorm<T>::Saved norm;
    };

    NormedConvolution(const ConvolutionShape& shape, Rectifier rectifier, double eps = 1e-5)
        : convolution(shape), norm(shape.out, rectifier, eps) {}

    const ConvolutionShape& shape() const { return convolution.shape; }

    /// x to saved.out. With `by_batch` or `keep`, what backward needs stays in `saved`.
    void forward(std::size_t count, const C* x, Saved& saved, Pixels<C>& windows, bool by_batch) const {
        const std::size_t rows = shape().rows(count);
        saved.convolved.resize(rows, shape().out);
        saved.out.resize(rows, shape().out);
        convolution.forward(count, x, saved.convolved.data(), windows);
        norm.forward(rows, saved.convolved.data(), saved.out.data(), saved.norm, by_batch);
    }

    /// g is the gradient of saved.out, and is overwritten; writes dx unless it is null.
    void backward(std::size_t count, const C* x, C* g, C* dx, Saved& saved, Pixels<C>& windows, Pixels<C>& dwindows,
                  NormedConvolution& gradient) const requires Trainable<T> {
        norm.backward(shape().rows(count), saved.convolved.data(), g, saved.norm, gradient.norm);
        convolution.backward(count, x, g, dx, windows, dwindows, gradient.convolution);
    }
};

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

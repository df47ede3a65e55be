// Convolutions over pixels that stand as rows of channels, and the batch norm behind them.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include <tandem/core/memory.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/kernels/dispatch.hpp>
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
    /// Of the product with the weight; memory is the layers'.
    constexpr Cost cost() const { return linear_cost(depth(), out, false, out_side * out_side); }
};

/// What a chain of blocks holds (see BlockChain), in elements for one image: in inference the buffers of two blocks in
/// turn, in training those of all, and of what the backward pass needs the largest of each.
class ChainMemory {
public:
    template <std::size_t Held, std::size_t Needed>
    constexpr void add(const std::array<std::size_t, Held>& held, std::size_t saved,
                       const std::array<std::size_t, Needed>& needed) {
        for (std::size_t i = 0; i < Held; ++i) turns_[count_ % 2][i] = std::max(turns_[count_ % 2][i], held[i]);
        for (std::size_t i = 0; i < Needed; ++i) needed_[i] = std::max(needed_[i], needed[i]);
        saved_ += saved;
        ++count_;
    }
    constexpr Cost cost() const {
        Cost cost{.saved = saved_};
        for (const auto& turn : turns_) {
            for (const std::size_t buffer : turn) cost.inference += buffer;
        }
        for (const std::size_t buffer : needed_) cost.scratch += buffer;
        return cost;
    }

private:
    std::array<std::array<std::size_t, 8>, 2> turns_{};
    std::array<std::size_t, 8> needed_{};
    std::size_t saved_ = 0, count_ = 0;
};

/// A pixel in the padding.
inline constexpr std::size_t outside = ~std::size_t{0};

/// Calls body(row, tap, pixel) for every place of every window of the lines [first, last) of the result, which count on
/// from image to image: `row` is the result's, `pixel` the one that the kernel's position `tap` lies on, or outside.
template <class Body>
void for_each_window(const ConvolutionShape& shape, std::size_t first, std::size_t last, const Body& body) {
    const std::size_t side = shape.out_side, kernel = shape.kernel;
    for (std::size_t line = first; line < last; ++line) {
        const std::size_t image = line / side * shape.side * shape.side, top = line % side * shape.stride;
        for (std::size_t x = 0; x < side; ++x) {
            for (std::size_t tap = 0; tap < kernel * kernel; ++tap) {
                // In the padding before the first line or column, these wrap around to huge numbers.
                const std::size_t row = top + tap / kernel - shape.pad,
                                  column = x * shape.stride + tap % kernel - shape.pad;
                const bool inside = row < shape.side && column < shape.side;
                body(line * side + x, tap, inside ? image + row * shape.side + column : outside);
            }
        }
    }
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
            for_each_window(shape, begin * side, end * side, [&](std::size_t row, std::size_t tap, std::size_t pixel) {
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
        for_each_window(shape, first, last, [&](std::size_t row, std::size_t tap, std::size_t pixel) {
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
            for_each_window(shape, begin, end, [&](std::size_t row, std::size_t tap, std::size_t pixel) {
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
            for_each_window(shape, 0, count * shape.out_side, [&](std::size_t row, std::size_t tap, std::size_t pixel) {
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

/// What a batch norm norms with: the running means, in the convolution before it and with nothing kept for backward;
/// the same, with that kept; or the batch's own.
enum class Statistics { folded, running, batch };

/// The statistics of a pass: folded where nothing is kept, else running or the batch's.
constexpr Statistics statistics_of(bool keep, bool uses_running_means) {
    return !keep ? Statistics::folded : uses_running_means ? Statistics::running : Statistics::batch;
}

/// torch.nn.BatchNorm2d (Ioffe, Szegedy 2015): in training by the batch's own mean and variance, and else by the
/// running means of those of all batches. Then the activation: none, relu or silu.
template <Arithmetic T>
struct BatchNorm {
    using C = Compute<T>;

    Tensor<C, Shape<dynamic>> weight, bias;
    RunningMean<C> running_mean, running_var;
    double eps;
    kernels::Activation activation;

    struct Saved {
        Tensor<C, Shape<dynamic>> mean, inverse;  ///< what the rows were normed with
        Tensor<C, Shape<dynamic>> scale, shift;   ///< the same as one factor and one addend
        bool is_batch = false;
    };

    BatchNorm(std::size_t width, kernels::Activation behind, double eps_of = 1e-5)
        : weight(width), bias(width), running_mean(width), running_var(width), eps(eps_of), activation(behind) {
        weight.fill(1);
        running_var.fill(1);
    }

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "weight", self.weight...);
        visit(at + "bias", self.bias...);
        visit(at + "running_mean", self.running_mean...);
        visit(at + "running_var", self.running_var...);
    }

    /// By the running means it is activation(scale · x + shift), whatever the rows are.
    void fold(Saved& saved) const {
        saved.scale.resize(weight.size());
        saved.shift.resize(weight.size());
        for (std::size_t c = 0; c < weight.size(); ++c) {
            const double scale =
                static_cast<double>(weight.data()[c]) / std::sqrt(static_cast<double>(running_var.data()[c]) + eps);
            saved.scale.data()[c] = static_cast<C>(scale);
            saved.shift.data()[c] = static_cast<C>(static_cast<double>(bias.data()[c]) -
                                                   static_cast<double>(running_mean.data()[c]) * scale);
        }
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
                kernels::active<C>().activate(activation, y + i, y + i, width);
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
                if (activation != kernels::Activation::none) slope *= slope_at(normed(x[row * width + c], c, saved));
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
    /// The activation's.
    C slope_at(C x) const {
        if (activation == kernels::Activation::relu) return x > 0 ? C{1} : C{0};
        const C sigmoid = 1 / (1 + std::exp(-x));
        return sigmoid * (1 + x * (1 - sigmoid));
    }
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

/// Blocks that follow one another, from pixels to pixels. In inference, two share their memory in turn.
template <class Block>
struct BlockChain {
    using C = typename Block::C;

    std::vector<Block> blocks;

    struct Saved {
        std::vector<typename Block::Saved> blocks;
        typename Block::Scratch scratch;
        Pixels<C> g, dx;
    };

    /// x to what it returns, which stands in `saved`.
    const C* forward(std::size_t count, const C* x, Saved& saved, bool keep, Statistics statistics) const {
        saved.blocks.resize(keep ? blocks.size() : 2);
        for (std::size_t i = 0; i < blocks.size(); ++i) {
            auto& own = saved.blocks[keep ? i : i % 2];
            blocks[i].forward(count, x, own, statistics);
            x = own.out().data();
        }
        return x;
    }

    /// In place saved.g, the gradient of what forward returned, becomes that of x.
    void backward(std::size_t count, const C* x, Saved& saved, BlockChain& gradient) const {
        for (std::size_t i = blocks.size(); i-- > 0;) {
            const C* const from = i > 0 ? saved.blocks[i - 1].out().data() : x;
            blocks[i].backward(count, from, saved.g, saved.dx, saved.blocks[i], saved.scratch, gradient.blocks[i]);
            std::swap(saved.g, saved.dx);
        }
    }
};

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

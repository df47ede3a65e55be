// Batch norm over rows of channels, with the activation behind it.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <type_traits>

#include <tandem/core/parallel.hpp>
#include <tandem/kernels/dispatch.hpp>
#include <tandem/nn/parameter.hpp>

namespace tandem::inline TANDEM_ABI::nn {

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
        for_each_channels(width, [&](std::size_t first, auto channels) {
            using Sums = std::array<double, most_channels>;
            Sums mean, variance;
            for (std::size_t c = 0; c < channels; ++c) {
                mean[c] = by_batch ? 0 : static_cast<double>(running_mean.data()[first + c]);
                variance[c] = by_batch ? 0 : static_cast<double>(running_var.data()[first + c]);
            }
            if (by_batch) {
                const auto count = static_cast<double>(rows);
                for (std::size_t row = 0; row < rows; ++row) {
                    const C* const from = x + row * width + first;
                    for (std::size_t c = 0; c < channels; ++c) mean[c] += static_cast<double>(from[c]);
                }
                for (std::size_t c = 0; c < channels; ++c) mean[c] /= count;
                for (std::size_t row = 0; row < rows; ++row) {
                    const C* const from = x + row * width + first;
                    for (std::size_t c = 0; c < channels; ++c) {
                        const double difference = static_cast<double>(from[c]) - mean[c];
                        variance[c] += difference * difference;
                    }
                }
                for (std::size_t c = 0; c < channels; ++c) variance[c] /= count;
            }
            for (std::size_t c = 0; c < channels; ++c) {
                saved.mean.data()[first + c] = static_cast<C>(mean[c]);
                saved.inverse.data()[first + c] = static_cast<C>(1 / std::sqrt(variance[c] + eps));
            }
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
        for_each_channels(width, [&](std::size_t first, auto channels) {
            std::array<double, most_channels> mean, inverse, scale, sum{}, along{};
            for (std::size_t c = 0; c < channels; ++c) {
                mean[c] = static_cast<double>(saved.mean.data()[first + c]);
                inverse[c] = static_cast<double>(saved.inverse.data()[first + c]);
                scale[c] = static_cast<double>(weight.data()[first + c]) * inverse[c];
            }
            for (std::size_t row = 0; row < rows; ++row) {
                const C* const from = x + row * width + first;
                C* const slope = g + row * width + first;
                if (activation != kernels::Activation::none) {
                    for (std::size_t c = 0; c < channels; ++c) slope[c] *= slope_at(normed(from[c], first + c, saved));
                }
                for (std::size_t c = 0; c < channels; ++c) {
                    sum[c] += static_cast<double>(slope[c]);
                    along[c] += static_cast<double>(slope[c]) * (static_cast<double>(from[c]) - mean[c]) * inverse[c];
                }
            }
            for (std::size_t c = 0; c < channels; ++c) {
                gradient.bias.data()[first + c] += static_cast<C>(sum[c]);
                gradient.weight.data()[first + c] += static_cast<C>(along[c]);
            }
            for (std::size_t row = 0; row < rows; ++row) {
                const C* const from = x + row * width + first;
                C* const slope = g + row * width + first;
                for (std::size_t c = 0; c < channels; ++c) {
                    const double hat = (static_cast<double>(from[c]) - mean[c]) * inverse[c];
                    const double through = saved.is_batch ? (sum[c] + hat * along[c]) / count : 0;
                    slope[c] = static_cast<C>(scale[c] * (static_cast<double>(slope[c]) - through));
                }
            }
            for (std::size_t c = 0; saved.is_batch && c < channels; ++c) {
                const double variance =
                    (1 / (inverse[c] * inverse[c]) - eps) * count / std::max(1.0, count - 1);  // unbiased, as PyTorch's
                gradient.running_mean.data()[first + c] += running_mean.data()[first + c] - static_cast<C>(mean[c]);
                gradient.running_var.data()[first + c] += running_var.data()[first + c] - static_cast<C>(variance);
            }
        });
    }

private:
    static constexpr std::size_t most_channels = 16;

    /// Calls body(first, count) for neighbouring channels, in parallel: a line of the cache of them at a time, row by
    /// row, in loops of a constant length but for the last.
    template <class Body>
    static void for_each_channels(std::size_t width, const Body& body) {
        parallel_for((width + most_channels - 1) / most_channels, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t first = begin * most_channels; first < std::min(end * most_channels, width);
                 first += most_channels) {
                if (first + most_channels <= width) {
                    body(first, std::integral_constant<std::size_t, most_channels>{});
                } else {
                    body(first, width - first);
                }
            }
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

}  // namespace tandem::inline TANDEM_ABI::nn

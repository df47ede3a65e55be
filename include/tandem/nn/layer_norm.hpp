// Layer normalisation, with and without a mean.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>

#include <tandem/core/parallel.hpp>
#include <tandem/kernels/dispatch.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/parameter.hpp>

namespace tandem::inline TANDEM_ABI {

namespace nn {

/// y = (x − mean) / sqrt(variance + eps) · weight + bias over the last axis (Ba, Kiros, Hinton 2016); without
/// choice.has_mean, y = x / sqrt(mean of x² + eps) · weight (Zhang, Sennrich 2019). Its parameters and arithmetic are
/// float32 in a bfloat16 model.
template <Arithmetic T, std::size_t Width, auto choice>
struct LayerNorm {
    using C = Compute<T>;
    static constexpr bool has_mean = choice.has_mean;

    Tensor<C, Shape<Width>> weight;
    Tensor<C, Shape<has_mean ? Width : 0>> bias;

    /// The mean and 1 / sqrt(variance + eps) of every row.
    struct Saved {
        Tensor<C, Shape<dynamic>> mean, inverse;
    };

    LayerNorm() { weight.fill(1); }

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "weight", self.weight...);
        if constexpr (has_mean) visit(at + "bias", self.bias...);
    }

    void forward(Rows<const C, Width> x, Rows<C, Width> y, Saved& saved) const {
        const std::size_t rows = x.extent(0);
        saved.mean.resize(has_mean ? rows : 0);
        saved.inverse.resize(rows);
        parallel_for(rows, grain, [&](std::size_t first, std::size_t last) {
            kernels::active<C>().layer_norm(x.data() + first * Width, weight.data(), if_mean(bias.data()),
                                            y.data() + first * Width, if_mean(saved.mean.data() + first),
                                            saved.inverse.data() + first, last - first, Width,
                                            static_cast<C>(choice.eps));
        });
    }

    /// The same into rows of bfloat16, where kernels::passes_narrow<T>().
    void forward_narrow(Rows<const C, Width> x, Narrow<Width>& y) const {
        const std::size_t stride = y.extent(1);
        y.resize(x.extent(0));
        parallel_for(x.extent(0), grain, [&](std::size_t first, std::size_t last) {
            kernels::active_reduced().narrow_rows.layer_norm(x.data() + first * Width, weight.data(), if_mean(bias.data()),
                                                             y.data() + first * stride, stride, last - first, Width,
                                                             static_cast<C>(choice.eps), has_mean);
        });
    }

    /// dx, or dx += where `accumulate` is set: the layer's input also feeds the residual stream. dx may be dy.
    void backward(Rows<const C, Width> x, Rows<const C, Width> dy, Rows<C, Width> dx, const Saved& saved,
                  LayerNorm& gradient, bool accumulate) const {
        const std::size_t rows = x.extent(0);
        const auto& set = kernels::active_gradients<C>();
        parallel_for((Width + 63) / 64, 1, [&](std::size_t begin, std::size_t end) {
            set.layer_norm_parameters_backward(dy.data(), x.data(), if_mean(saved.mean.data()), saved.inverse.data(),
                                               gradient.weight.data(), if_mean(gradient.bias.data()), rows, Width,
                                               begin * 64, std::min(end * 64, Width));
        });
        parallel_for(rows, grain, [&](std::size_t first, std::size_t last) {
            set.layer_norm_backward(dy.data() + first * Width, x.data() + first * Width, weight.data(),
                                    if_mean(saved.mean.data() + first), saved.inverse.data() + first,
                                    dx.data() + first * Width, last - first, Width, accumulate);
        });
    }

private:
    static constexpr std::size_t grain = std::max<std::size_t>(1, 16384 / Width);

    template <class P>
    static P* if_mean(P* pointer) {
        return has_mean ? pointer : nullptr;
    }
};

}  // namespace nn

/// The norm of a config: `.norm = LayerNorm{.eps = 1e-6f}`. OpenAI and OpenCLIP weights use 1e-5, SigLIP 1e-6. Another
/// norm is another type with a template Layer<T, Width, choice> that has this layer's members (see NormPart).
struct LayerNorm {
    static constexpr bool has_mean = true;
    float eps = 1e-5f;

    template <Arithmetic T, std::size_t Width, auto choice>
    using Layer = nn::LayerNorm<T, Width, choice>;

    static constexpr Cost cost(std::size_t width, std::size_t tokens) {
        return Cost{.parameters = 2 * width} + held_cost(2 * tokens);
    }
};

/// Root mean square norm: torch.nn.RMSNorm, with timm's eps.
struct RmsNorm {
    static constexpr bool has_mean = false;
    float eps = 1e-6f;

    template <Arithmetic T, std::size_t Width, auto choice>
    using Layer = nn::LayerNorm<T, Width, choice>;

    static constexpr Cost cost(std::size_t width, std::size_t tokens) {
        return Cost{.parameters = width} + held_cost(tokens);
    }
};

}  // namespace tandem::inline TANDEM_ABI

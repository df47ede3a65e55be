// y = x · Wᵀ + b.
#pragma once

#include <cstddef>
#include <string>

#include <tandem/core/parallel.hpp>
#include <tandem/kernels/gemm.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/matmul.hpp>
#include <tandem/tensor/packed.hpp>

namespace tandem::inline TANDEM_ABI {

/// Any number of rows of a fixed width: what layers read and write.
template <class T, std::size_t Width>
using Rows = View<T, Shape<dynamic, Width>>;

namespace nn {

/// What a dense layer costs.
constexpr Cost linear_cost(std::size_t in, std::size_t out, bool has_bias, std::size_t tokens) {
    return {.parameters = in * out + (has_bias ? out : 0), .flops = 2 * tokens * in * out};
}

namespace detail {

// The layers' widths are types, the code below them is not: one instantiation serves every layer of an element type.
template <class T>
using AnyMatrix = View<T, Shape<dynamic, dynamic>>;

/// sums += Σ over rows of x.
template <Real T>
void add_column_sums(AnyMatrix<const T> x, T* sums) {
    const std::size_t width = x.extent(1);
    parallel_for((width + 63) / 64, 1, [&](std::size_t begin, std::size_t end) {
        kernels::active_gradients<T>().column_sums(x.data(), sums, x.extent(0), width, begin * 64,
                                                   std::min(end * 64, width));
    });
}

}  // namespace detail

/// A dense layer. The weight has PyTorch's shape, [out, in].
template <Arithmetic T, std::size_t In, std::size_t Out, bool HasBias = true>
struct Linear {
    using C = Compute<T>;

    PackedMatrix<T, Shape<Out, In>> weight;
    Tensor<C, Shape<HasBias ? Out : 0>> bias;

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "weight", self.weight...);
        if constexpr (HasBias) visit(at + "bias", self.bias...);
    }

    /// x <rows, In> to y <rows, Out>; they must not overlap. `finish` says what else becomes of each element once its
    /// bias is added, while it is in registers.
    void forward(Rows<const C, In> x, Rows<C, Out> y, kernels::Finish<C> finish = {}) const {
        if constexpr (HasBias) finish.bias = bias.data();
        weight.product(x.extent(0), x.data(), y.data(), finish);
    }

    /// The rows [first, last) of the layer as a layer of their own, which can only be cut where a panel of the weight
    /// ends.
    static bool cuts_at(std::size_t row) { return row % decltype(weight)::layout().width == 0; }
    void forward_part(std::size_t first, std::size_t last, std::size_t rows, const C* x, C* y) const {
        weight.product(rows, x, y, {.bias = HasBias ? bias.data() + first : nullptr}, first, last);
    }
    void backward_part(std::size_t first, std::size_t last, std::size_t rows, const C* x, const C* dy, C* dx,
                       Linear& gradient) const requires Trainable<T> {
        weight.product_backward(rows, x, dy, dx, gradient.weight, first, last);
        if constexpr (HasBias) detail::add_column_sums<C>({dy, {{rows, last - first}}}, gradient.bias.data() + first);
    }

    /// y = residual + forward(x). residual may be y.
    void forward_onto(Rows<const C, Out> residual, Rows<const C, In> x, Rows<C, Out> y) const {
        forward(x, y, {.residual = residual.data(), .residual_stride = Out});
    }

    /// Adds to the gradients of weight and bias, and writes dx unless it is an empty view.
    void backward(Rows<const C, In> x, Rows<const C, Out> dy, Rows<C, In> dx,
                  Linear& gradient) const requires Trainable<T> {
        backward_part(0, Out, x.extent(0), x.data(), dy.data(), dx.data(), gradient);
    }
};

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI

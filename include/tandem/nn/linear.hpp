// y = x · Wᵀ + b.
#pragma once

#include <cstddef>
#include <string>

#include <tandem/core/parallel.hpp>
#include <tandem/kernels/gemm.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/matmul.hpp>

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
template <class T>
using AnyVector = View<T, Shape<dynamic>>;

template <class T, class S>
AnyMatrix<const T> as_matrix(const Tensor<T, S>& weight) {
    const std::size_t rows = weight.extent(0);
    return {weight.data(), {{rows, weight.size() / rows}}};
}

/// y = x · weightᵀ (+ bias), the bias added in the product's epilogue. bias may be empty.
template <Real C, Element T>
void affine(AnyMatrix<const C> x, AnyMatrix<const T> weight, AnyVector<const C> bias, AnyMatrix<C> y) {
    if (bias.size() == 0) {
        assign(y, matmul(x, transpose(weight)));
    } else {
        assign(y, matmul(x, transpose(weight)) + bias);
    }
}

/// y = a + b for rows of one width; y may be one of the two.
template <Real C>
void add(AnyMatrix<const C> a, AnyMatrix<const C> b, AnyMatrix<C> y) {
    assign(y, a + b);
}

/// sums += Σ over rows of x.
template <Real T>
void add_column_sums(AnyMatrix<const T> x, T* sums) {
    const std::size_t width = x.extent(1);
    parallel_for((width + 63) / 64, 1, [&](std::size_t begin, std::size_t end) {
        kernels::active<T>().column_sums(x.data(), sums, x.extent(0), width, begin * 64, std::min(end * 64, width));
    });
}

/// The gradients of affine: dx = dy · weight where dx is not empty, dweight += dyᵀ · x, dbias += Σ dy where not null.
template <Real T>
void affine_backward(AnyMatrix<const T> x, AnyMatrix<const T> weight, AnyMatrix<const T> dy, AnyMatrix<T> dx, T* dweight,
                     T* dbias) {
    const std::size_t rows = x.extent(0), in = x.extent(1), out = dy.extent(1);
    const auto gradient = kernels::row_major(dy.data(), out);
    kernels::gemm<T>(out, in, rows, gradient.transposed(), kernels::row_major(x.data(), in), dweight, in, true);
    if (dbias != nullptr) add_column_sums(dy, dbias);
    if (dx.data() != nullptr) {
        kernels::gemm<T>(rows, in, out, gradient, kernels::row_major(weight.data(), in), dx.data(), in);
    }
}

}  // namespace detail

/// A dense layer. The weight has PyTorch's layout, [out, in].
template <Element T, std::size_t In, std::size_t Out, bool HasBias = true>
struct Linear {
    using C = Compute<T>;

    Tensor<T, Shape<Out, In>> weight;
    Tensor<C, Shape<HasBias ? Out : 0>> bias;

    static void parameters(const auto& visit, const std::string& at, auto&... self) {
        visit(at + "weight", self.weight...);
        if constexpr (HasBias) visit(at + "bias", self.bias...);
    }

    /// x <rows, In> to y <rows, Out>; they must not overlap.
    void forward(Rows<const C, In> x, Rows<C, Out> y) const {
        detail::affine<C, T>(x, detail::as_matrix(weight), bias.view(), y);
    }

    /// Adds to the gradients of weight and bias, and writes dx unless it is an empty view.
    void backward(Rows<const C, In> x, Rows<const C, Out> dy, Rows<C, In> dx, Linear& gradient) const
        requires Real<T>
    {
        detail::affine_backward<T>(x, detail::as_matrix(weight), dy, dx, gradient.weight.data(),
                                   HasBias ? gradient.bias.data() : nullptr);
    }
};

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI

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

/// Rows of bfloat16 that one layer hands to another: see kernels::passes_narrow.
template <std::size_t Width>
using Narrow = Tensor<bfloat16, Shape<dynamic, kernels::narrow_length(Width)>>;
/// A view of such rows.
template <std::size_t Width>
using NarrowView = Rows<const bfloat16, kernels::narrow_length(Width)>;

/// What a dense layer costs.
constexpr Cost linear_cost(std::size_t in, std::size_t out, bool has_bias, std::size_t tokens) {
    return Cost{.parameters = in * out + (has_bias ? out : 0), .matrices = in * out} + product_cost(2 * tokens * in * out);
}

namespace detail {

/// sums += Σ over rows of x [rows, width].
template <Real T>
void add_column_sums(std::size_t rows, std::size_t width, const kernels::StridedRows<const T>& x, T* sums) {
    parallel_for((width + 63) / 64, 1, [&](std::size_t begin, std::size_t end) {
        kernels::active_gradients<T>().column_sums(x.data, sums, rows, x.stride, begin * 64, std::min(end * 64, width));
    });
}

}  // namespace detail

/// A dense layer. The weight has PyTorch's shape, [out, in]. Rows of its input and output may be longer than that: what
/// stands behind is neither read nor written.
template <Arithmetic T, std::size_t In, std::size_t Out, bool HasBias = true, std::size_t InRow = In,
          std::size_t OutRow = Out>
struct Linear {
    static_assert(InRow >= In && OutRow >= Out, "tandem: Linear: rows are at least as long as what the layer reads");
    using C = Compute<T>;

    PackedMatrix<T, Shape<Out, In>> weight;
    Tensor<C, Shape<HasBias ? Out : 0>> bias;

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "weight", self.weight...);
        if constexpr (HasBias) visit(at + "bias", self.bias...);
    }

    /// x <rows, In> to y <rows, Out>, in rows of InRow and OutRow; they must not overlap. `finish` says what else
    /// becomes of each element once its bias is added, while it is in registers.
    void forward(Rows<const C, InRow> x, Rows<C, OutRow> y, kernels::Finish<C> finish = {}) const {
        if constexpr (HasBias) finish.bias = bias.data();
        weight.product(x.extent(0), {x.data(), InRow}, {y.data(), OutRow}, finish);
    }

    /// The rows [first, last) of the layer from rows of bfloat16 to such, where kernels::passes_narrow<T>().
    template <std::size_t Row>
    void forward_narrow(NarrowView<In> x, Tensor<bfloat16, Shape<dynamic, Row>>& y, kernels::Finish<C> finish = {},
                        std::size_t first = 0, std::size_t last = Out) const {
        static_assert(In <= kernels::narrow_depth);
        y.resize(x.extent(0));
        if constexpr (HasBias) finish.bias = bias.data() + first;
        weight.template product<bfloat16, bfloat16>(x.extent(0), {x.data(), x.extent(1)}, {y.data(), y.extent(1)}, finish, first,
                                                    last);
    }
    /// forward() from rows of bfloat16.
    void forward_narrow(NarrowView<In> x, Rows<C, OutRow> y, kernels::Finish<C> finish) const {
        if constexpr (HasBias) finish.bias = bias.data();
        weight.template product<bfloat16, C>(x.extent(0), {x.data(), x.extent(1)}, {y.data(), OutRow}, finish);
    }

    /// The rows [first, last) of the layer as a layer of their own, which can only be cut where a panel of the weight
    /// ends.
    static bool cuts_at(std::size_t row) { return row % decltype(weight)::layout().width == 0; }
    void forward_part(std::size_t first, std::size_t last, std::size_t rows, const C* x, C* y) const {
        weight.product(rows, {x, InRow}, {y, last - first}, {.bias = HasBias ? bias.data() + first : nullptr}, first,
                       last);
    }
    void backward_part(std::size_t first, std::size_t last, std::size_t rows, const C* x, const C* dy, C* dx,
                       Linear& gradient) const requires Trainable<T> {
        backward_rows(first, last, rows, {x, InRow}, {dy, last - first}, {dx, InRow}, gradient);
    }

    /// y = residual + forward(x). residual may be y.
    void forward_onto(Rows<const C, OutRow> residual, Rows<const C, InRow> x, Rows<C, OutRow> y) const {
        forward(x, y, {.residual = residual.data(), .residual_stride = OutRow});
    }

    /// Adds to the gradients of weight and bias, and writes dx unless it is an empty view.
    void backward(Rows<const C, InRow> x, Rows<const C, OutRow> dy, Rows<C, InRow> dx,
                  Linear& gradient) const requires Trainable<T> {
        backward_rows(0, Out, x.extent(0), {x.data(), InRow}, {dy.data(), OutRow}, {dx.data(), InRow}, gradient);
    }

private:
    void backward_rows(std::size_t first, std::size_t last, std::size_t rows, kernels::StridedRows<const C> x,
                       kernels::StridedRows<const C> dy, kernels::StridedRows<C> dx,
                       Linear& gradient) const requires Trainable<T> {
        weight.product_backward(rows, x, dy, dx, gradient.weight, first, last);
        if constexpr (HasBias) detail::add_column_sums<C>(rows, last - first, dy, gradient.bias.data() + first);
    }
};

}  // namespace nn

using nn::Linear;

}  // namespace tandem::inline TANDEM_ABI

// Weights as products read them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include <tandem/core/memory.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/kernels/gemm.hpp>
#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI {

/// A weight of shape S = <Out, ...>, a matrix [out, in] to products, kept once and in the panels that they read: it is
/// packed when it is set, not when it is used. Gradients and moments have the same layout, so what works element by
/// element walks `elements()`; that span is longer than size() where Out does not fill the last panel, and which
/// element stands where depends on the instruction set. operator() and unpacked() know.
template <Element T, class S>
class PackedMatrix {
public:
    using element = T;
    using shape = S;
    static constexpr std::size_t out = S::extents[0];
    static constexpr std::size_t in = Extents<S::rank>(S::extents).count() / out;

    PackedMatrix() : elements_(layout().size(in, out)) {}

    static kernels::PanelLayout layout() { return kernels::weight_layout<T>(); }

    static constexpr std::size_t size() { return out * in; }
    static constexpr std::size_t extent(std::size_t axis) { return S::extents[axis]; }

    std::span<T> elements() & { return {elements_.data(), elements_.size()}; }
    std::span<const T> elements() const& { return {elements_.data(), elements_.size()}; }
    void elements() && = delete;  // the memory would be gone before it is read

    T& operator()(std::size_t row, std::size_t column) { return elements()[layout().position(column, row, in)]; }
    const T& operator()(std::size_t row, std::size_t column) const {
        return elements()[layout().position(column, row, in)];
    }

    void fill(T value) { std::fill_n(elements_.data(), elements_.size(), value); }

    /// Takes over the elements of a row-major tensor.
    void pack(View<const T, S> weight) { kernels::pack_weight(out, in, weight.data(), elements_.data()); }

    /// The elements as a row-major tensor.
    Tensor<T, S> unpacked() const {
        Tensor<T, S> weight;
        parallel_for(out, 16, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                for (std::size_t j = 0; j < in; ++j) weight.data()[i * in + j] = (*this)(i, j);
            }
        });
        return weight;
    }

private:
    Buffer<T> elements_;
};

/// A parameter's elements, row-major, whatever its layout.
template <class T, class S>
const Tensor<T, S>& to_row_major(const Tensor<T, S>& parameter) {
    return parameter;
}
template <class T, class S>
Tensor<T, S> to_row_major(const PackedMatrix<T, S>& parameter) {
    return parameter.unpacked();
}
template <class T, class S>
void from_row_major(Tensor<T, S>& parameter, const Tensor<T, S>& values) {
    std::copy_n(values.data(), values.size(), parameter.data());
}
template <class T, class S>
void from_row_major(PackedMatrix<T, S>& parameter, const Tensor<T, S>& values) {
    parameter.pack(values.view());
}

}  // namespace tandem::inline TANDEM_ABI

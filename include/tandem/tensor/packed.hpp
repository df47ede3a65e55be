// Weights as products read them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
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

    /// y[rows, last - first] = x[rows, in] · the weight's rows [first, last), then what `finish` says. `first` begins a
    /// panel.
    void product(std::size_t rows, const Compute<T>* x, Compute<T>* y, const kernels::Finish<Compute<T>>& finish,
                 std::size_t first = 0, std::size_t last = out) const {
        kernels::dense<T>(rows, last - first, in, x, elements_.data() + layout().position(0, first, in), y, finish);
    }

    /// Adds dyᵀ · x to the rows [first, last) of `gradient`, and sets dx = dy · those rows of the weight unless dx is
    /// null.
    void product_backward(std::size_t rows, const T* x, const T* dy, T* dx, PackedMatrix& gradient,
                          std::size_t first = 0, std::size_t last = out) const requires Real<T> {
        const std::size_t at = layout().position(0, first, in);
        kernels::dense_backward<T>(rows, last - first, in, x, elements_.data() + at, dy, dx,
                                   gradient.elements_.data() + at);
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

/// A weight rounded to signed bytes, each of its rows with a scale of its own. To whoever sets or reads it, it is
/// float32.
template <class S>
class PackedMatrix<int8, S> {
public:
    using element = float;
    using shape = S;
    static constexpr std::size_t out = S::extents[0];
    static constexpr std::size_t in = Extents<S::rank>(S::extents).count() / out;

    PackedMatrix()
        : bytes_(layout().size(in, out)), scales_(padded()), sums_(padded() * ((in + block() - 1) / block())) {}

    static kernels::PanelLayout layout() { return kernels::weight_layout<int8>(); }

    static constexpr std::size_t size() { return out * in; }
    static constexpr std::size_t extent(std::size_t axis) { return S::extents[axis]; }

    float operator()(std::size_t row, std::size_t column) const {
        return scales_.data()[row] * static_cast<float>(bytes_.data()[layout().position(column, row, in)]);
    }

    void product(std::size_t rows, const float* x, float* y, const kernels::Finish<float>& finish,
                 std::size_t first = 0, std::size_t last = out) const {
        const kernels::ByteWeight part{bytes_.data() + layout().position(0, first, in), scales_.data() + first,
                                       sums_.data() + first, padded()};
        kernels::dense_bytes(rows, last - first, in, x, part, y, finish);
    }

    /// Takes over the elements of a row-major tensor, rounded to the nearest of 255 steps of their row.
    void pack(View<const float, S> weight) {
        std::fill_n(bytes_.data(), bytes_.size(), int8{0});
        std::fill_n(sums_.data(), sums_.size(), 0);
        parallel_for(out, 16, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                const float* const row = weight.data() + i * in;
                float most = 0;
                for (std::size_t j = 0; j < in; ++j) most = std::max(most, std::abs(row[j]));
                scales_.data()[i] = most > 0 ? most / 127 : 1;
                for (std::size_t j = 0; j < in; ++j) {
                    const auto byte = static_cast<int8>(std::lrint(row[j] / scales_.data()[i]));
                    bytes_.data()[layout().position(j, i, in)] = byte;
                    sums_.data()[j / block() * padded() + i] += byte;
                }
            }
        });
    }

    Tensor<float, S> unpacked() const {
        Tensor<float, S> weight;
        for (std::size_t i = 0; i < out; ++i) {
            for (std::size_t j = 0; j < in; ++j) weight.data()[i * in + j] = (*this)(i, j);
        }
        return weight;
    }

private:
    static std::size_t padded() { return kernels::round_up(out, layout().width); }
    static std::size_t block() { return kernels::gemm_depth * layout().group; }

    Buffer<int8> bytes_;
    Buffer<float> scales_;
    Buffer<std::int32_t> sums_;
};

/// A parameter's elements, row-major, whatever its layout.
template <class T, class S>
const Tensor<T, S>& to_row_major(const Tensor<T, S>& parameter) {
    return parameter;
}
template <class T, class S>
auto to_row_major(const PackedMatrix<T, S>& parameter) {
    return parameter.unpacked();
}
template <class T, class S>
void from_row_major(Tensor<T, S>& parameter, const Tensor<T, S>& values) {
    std::copy_n(values.data(), values.size(), parameter.data());
}
template <class T, class S>
void from_row_major(PackedMatrix<T, S>& parameter, const Tensor<typename PackedMatrix<T, S>::element, S>& values) {
    parameter.pack(values.view());
}

}  // namespace tandem::inline TANDEM_ABI

// Weights as products read them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include <tandem/core/memory.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/kernels/dense.hpp>
#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI {

/// A weight, a matrix [out, in] to products, kept once and in the panels that they read: it is packed when it is set,
/// not when it is used. Gradients and moments have the same layout, so what works element by element walks
/// `elements()`; that span is longer than size() where `out` does not fill the last panel, and which element stands
/// where depends on the instruction set: operator(), pack and unpack know. Sizes are numbers here, so that a program
/// has one of these an element type; PackedMatrix gives them a shape.
template <Arithmetic T>
class PackedWeight {
public:
    using element = Stored<T>;
    using arithmetic = T;

    PackedWeight(std::size_t out, std::size_t in) : out_(out), in_(in), elements_(layout().size(in, out)) {}

    static kernels::PanelLayout layout() { return kernels::weight_layout<T>(); }

    std::size_t size() const { return out_ * in_; }

    std::span<element> elements() & { return {elements_.data(), elements_.size()}; }
    std::span<const element> elements() const& { return {elements_.data(), elements_.size()}; }
    void elements() && = delete;  // the memory would be gone before it is read

    element& operator()(std::size_t row, std::size_t column) {
        return elements_.data()[layout().position(column, row, in_)];
    }
    const element& operator()(std::size_t row, std::size_t column) const {
        return elements_.data()[layout().position(column, row, in_)];
    }

    void fill(element value) { std::fill_n(elements_.data(), elements_.size(), value); }

    /// Calls visit(name, buffer) for all memory that the weight is kept in.
    void for_each_buffer(const auto& visit) { visit("", elements_); }

    /// Takes over row-major elements.
    void pack(const element* weight) { kernels::pack_weight<T>(out_, in_, weight, elements_.data()); }

    /// Writes the elements row-major.
    void unpack(element* weight) const {
        parallel_for(out_, 16, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) layout().for_each_row(i, in_, [&](std::size_t j, std::size_t at) { weight[i * in_ + j] = elements_.data()[at]; });
        });
    }

    /// y[rows, last - first] = x[rows, in] · the weight's rows [first, last), then what `finish` says. `first` begins a
    /// panel. Elements of x and y as in kernels::dense.
    template <class X = Compute<T>, class Y = Compute<T>>
    void product(std::size_t rows, kernels::StridedRows<const X> x, kernels::StridedRows<Y> y,
                 const kernels::Finish<Compute<T>>& finish, std::size_t first, std::size_t last) const {
        kernels::dense<T>(rows, last - first, in_, x, elements_.data() + layout().position(0, first, in_), y, finish);
    }
    template <class X = Compute<T>, class Y = Compute<T>>
    void product(std::size_t rows, kernels::StridedRows<const X> x, kernels::StridedRows<Y> y,
                 const kernels::Finish<Compute<T>>& finish) const {
        product(rows, x, y, finish, 0, out_);
    }

    /// Adds dyᵀ · x to the rows [first, last) of `gradient`, and sets dx = dy · those rows of the weight unless dx is
    /// null.
    void product_backward(std::size_t rows, kernels::StridedRows<const Compute<T>> x,
                          kernels::StridedRows<const Compute<T>> dy, kernels::StridedRows<Compute<T>> dx,
                          PackedWeight& gradient, std::size_t first, std::size_t last) const requires Trainable<T> {
        const std::size_t at = layout().position(0, first, in_);
        kernels::dense_backward<T>(rows, last - first, in_, x, elements_.data() + at, dy, dx,
                                   gradient.elements_.data() + at);
    }

private:
    std::size_t out_, in_;
    Buffer<element> elements_;
};

/// A weight rounded to signed bytes, each of its rows with a scale of its own. To whoever sets or reads it, it is
/// float32.
template <std::same_as<int8> T>
class PackedWeight<T> {
public:
    using element = float;
    using arithmetic = T;

    PackedWeight(std::size_t out, std::size_t in)
        : out_(out),
          in_(in),
          bytes_(layout().size(in, out)),
          scales_(padded()),
          sums_(padded() * ((in + block() - 1) / block())) {}

    static kernels::PanelLayout layout() { return kernels::weight_layout<int8>(); }
    /// Elements along the depth of which there is one sum a row.
    static std::size_t block() { return kernels::active_reduced().bytes.depth * layout().group; }

    std::size_t size() const { return out_ * in_; }

    float operator()(std::size_t row, std::size_t column) const {
        return scales_.data()[row] * static_cast<float>(bytes_.data()[layout().position(column, row, in_)]);
    }

    void for_each_buffer(const auto& visit) {
        visit("", bytes_);
        visit(".scales", scales_);
        visit(".sums", sums_);
    }

    /// Takes over row-major elements, rounded to the nearest of 255 steps of their row.
    void pack(const float* weight) {
        std::fill_n(bytes_.data(), bytes_.size(), int8{0});
        const kernels::PanelLayout panels = layout();
        parallel_for(out_, 16, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                const float* const row = weight + i * in_;
                float most = 0;
                for (std::size_t j = 0; j < in_; ++j) most = std::max(most, std::abs(row[j]));
                scales_.data()[i] = most > 0 ? most / 127 : 1;
                const float inverse = 1 / scales_.data()[i];
                for (std::size_t first = 0; first < in_; first += block()) {
                    int8* to = bytes_.data() + panels.position(first, i, in_);
                    std::int32_t sum = 0;
                    for (std::size_t j = first; j < std::min(first + block(), in_); ++j) {
                        const auto byte = static_cast<int8>(std::lrint(row[j] * inverse));
                        to[j % panels.group] = byte;
                        if (j % panels.group == panels.group - 1) to += panels.width * panels.group;
                        sum += byte;
                    }
                    sums_.data()[first / block() * padded() + i] = sum;
                }
            }
        });
    }

    void unpack(float* weight) const {
        for (std::size_t i = 0; i < out_; ++i) {
            for (std::size_t j = 0; j < in_; ++j) weight[i * in_ + j] = (*this)(i, j);
        }
    }

    template <class X = float, class Y = float>
    void product(std::size_t rows, kernels::StridedRows<const X> x, kernels::StridedRows<Y> y,
                 const kernels::Finish<float>& finish, std::size_t first, std::size_t last) const {
        const kernels::ByteWeight part{bytes_.data() + layout().position(0, first, in_), scales_.data() + first,
                                       sums_.data() + first, padded()};
        kernels::dense_bytes(rows, last - first, in_, x, part, y, finish);
    }
    template <class X = float, class Y = float>
    void product(std::size_t rows, kernels::StridedRows<const X> x, kernels::StridedRows<Y> y,
                 const kernels::Finish<float>& finish) const {
        product(rows, x, y, finish, 0, out_);
    }

private:
    std::size_t padded() const { return kernels::round_up(out_, layout().width); }

    std::size_t out_, in_;
    Buffer<int8> bytes_;
    Buffer<float> scales_;
    Buffer<std::int32_t> sums_;
};

/// A packed weight of shape S = <Out, ...>, the further extents being those of one row.
template <Arithmetic T, class S>
class PackedMatrix : public PackedWeight<T> {
public:
    using shape = S;

    PackedMatrix() requires(S::dynamic_count == 0) : PackedMatrix(S::extents) {}
    explicit PackedMatrix(const Extents<S::rank>& extents)
        : PackedWeight<T>(extents[0], extents.count() / extents[0]), extents_(extents) {}

    const Extents<S::rank>& extents() const { return extents_; }

private:
    Extents<S::rank> extents_;
};

/// A parameter's elements, row-major, whatever its layout.
template <class T, class S>
const Tensor<T, S>& to_row_major(const Tensor<T, S>& parameter) {
    return parameter;
}
template <class T, class S>
auto to_row_major(const PackedMatrix<T, S>& parameter) {
    Tensor<typename PackedMatrix<T, S>::element, S> values(parameter.extents());
    parameter.unpack(values.data());
    return values;
}
/// Sets a parameter's elements from row-major ones, whatever its layout.
template <class T, class S>
void from_row_major(Tensor<T, S>& parameter, const Tensor<T, S>& values) {
    std::copy_n(values.data(), values.size(), parameter.data());
}
template <class T, class S>
void from_row_major(PackedMatrix<T, S>& parameter, const Tensor<typename PackedMatrix<T, S>::element, S>& values) {
    parameter.pack(values.data());
}

#if defined(TANDEM_COMPILED)
extern template class PackedWeight<float>;
extern template class PackedWeight<double>;
extern template class PackedWeight<amp_bf16>;
extern template class PackedWeight<bfloat16>;
extern template class PackedWeight<int8>;
#endif

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/tensor/packed.impl.hpp>
#endif

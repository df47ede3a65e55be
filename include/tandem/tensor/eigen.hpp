// Tensors as Eigen matrices, without a copy; the only file that knows Eigen, and no part of tandem.hpp.
#pragma once

#include <type_traits>

// g++ 12 takes the undefined operand of AVX-512 intrinsics for an uninitialised read (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Core>
#pragma GCC diagnostic pop

#include <tandem/core/platform.hpp>
#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

constexpr int eigen_extent(std::size_t extent) { return extent == dynamic ? Eigen::Dynamic : static_cast<int>(extent); }

}  // namespace detail

/// An Eigen::Map onto a matrix <rows, columns> or a vector `<n>` (as a column), static extents kept. It is valid for as
/// long as the tensor's memory.
template <class T, class S>
auto as_eigen(const View<T, S>& view) {
    static_assert(S::rank == 1 || S::rank == 2, "tandem: as_eigen takes a vector or a matrix");
    using Plain = std::remove_const_t<T>;
    constexpr int rows = detail::eigen_extent(S::extents[0]);
    constexpr int columns = S::rank == 2 ? detail::eigen_extent(S::extents[S::rank - 1]) : 1;
    constexpr int order = columns == 1 ? Eigen::ColMajor : Eigen::RowMajor;
    using Matrix = Eigen::Matrix<Plain, rows, columns, order>;
    using Mapped = Eigen::Map<std::conditional_t<std::is_const_v<T>, const Matrix, Matrix>>;
    const auto height = static_cast<Eigen::Index>(view.extent(0));
    return Mapped(view.data(), height, S::rank == 2 ? static_cast<Eigen::Index>(view.extent(S::rank - 1)) : 1);
}

template <Element T, class S>
auto as_eigen(Tensor<T, S>& tensor) {
    return as_eigen(tensor.view());
}
template <Element T, class S>
auto as_eigen(const Tensor<T, S>& tensor) {
    return as_eigen(tensor.view());
}

}  // namespace tandem::inline TANDEM_ABI

// The device's kernels: an elementwise chain, a reduction of one, a matrix product, a permutation.
#pragma once

#include <cmath>
#include <cstddef>

#include <tandem/core/dtype.hpp>
#include <tandem/core/shape.hpp>
#include <tandem/kernels/gemm.hpp>
#include <tandem/tensor/expression.hpp>
#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/reduce.hpp>

namespace tandem::inline TANDEM_ABI::cuda::detail {

inline constexpr unsigned threads_a_block = 256;
/// The kernels stride over what a grid does not cover, so this is a choice and not a limit.
inline constexpr std::size_t most_blocks = std::size_t{1} << 20;
/// Rows and columns of a matrix product that a block computes.
inline constexpr unsigned tile = 16;

/// Reads one element.
template <Real T>
struct ScalarAccess {
    std::size_t j;

    template <class From>
    __device__ T load(const From* row) const {
        return static_cast<T>(row[j]);
    }
    template <class From>
    __device__ T splat(From value) const {
        return static_cast<T>(value);
    }
};

template <std::size_t Rank>
__device__ Extents<Rank> element_index(const Extents<Rank>& extents, std::size_t element) {
    Extents<Rank> index{};
    for (std::size_t axis = Rank; axis-- > 0;) {
        index[axis] = element % extents[axis];
        element /= extents[axis];
    }
    return index;
}

template <Real T, std::size_t Rank, class E>
__device__ T element_at(const E& e, const Extents<Rank>& index) {
    return e.cursor(index).get(ScalarAccess<T>{index[Rank - 1]});
}

template <bool Flat, class T, std::size_t Rank, class E>
__global__ void write_elements(T* out, Extents<Rank> extents, std::size_t count, E e) {
    using C = Compute<T>;
    const std::size_t step = std::size_t{gridDim.x} * blockDim.x;
    for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
        if constexpr (Flat) {
            out[i] = static_cast<T>(e.cursor(WholeTensor{}).get(ScalarAccess<C>{i}));
        } else {
            out[i] = static_cast<T>(element_at<C>(e, element_index(extents, i)));
        }
    }
}

/// Folds one value of every thread of the block; each thread gets the result.
template <class F, Real T>
__device__ T fold_block(T value) {
    __shared__ T values[threads_a_block];
    __syncthreads();
    values[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = threads_a_block / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) values[threadIdx.x] = F{}(values[threadIdx.x], values[threadIdx.x + half]);
        __syncthreads();
    }
    return values[0];
}

/// A block computes a result where its elements are contiguous; elsewhere a thread does, and its neighbours compute the
/// neighbouring results, so that memory is read in order either way.
template <class Op, std::size_t Axis, Real T, class E, std::size_t Rank>
__global__ void reduce_axis(T* out, Extents<Rank> kept, std::size_t count, std::size_t width, E e) {
    constexpr bool by_block = Axis + 1 == Rank;
    const std::size_t first = by_block ? blockIdx.x : std::size_t{blockIdx.x} * blockDim.x + threadIdx.x;
    const std::size_t step = by_block ? gridDim.x : std::size_t{gridDim.x} * blockDim.x;
    const std::size_t first_k = by_block ? threadIdx.x : 0;
    const std::size_t step_k = by_block ? blockDim.x : 1;
    for (std::size_t i = first; i < count; i += step) {
        Extents<Rank> index = element_index(kept, i);
        T maximum{0};
        if constexpr (Op::needs_maximum) {
            maximum = tandem::detail::lowest<T>;
            for (std::size_t k = first_k; k < width; k += step_k) {
                index[Axis] = k;
                maximum = functions::Maximum{}(maximum, element_at<T>(e, index));
            }
            if constexpr (by_block) maximum = fold_block<functions::Maximum>(maximum);
        }
        T sum{0};
        for (std::size_t k = first_k; k < width; k += step_k) {
            index[Axis] = k;
            sum = Op::combine(sum, element_at<T>(e, index), maximum);
        }
        if constexpr (by_block) sum = fold_block<functions::Add>(sum);
        if (!by_block || threadIdx.x == 0) {
            out[i] = Op::needs_maximum && std::isinf(maximum) ? maximum : Op::finish(sum, maximum);
        }
    }
}

/// Reads the tile of an operand that starts at (row, column), zeros past its edges; neighbouring threads read
/// neighbouring elements whichever way the operand lies.
template <Real T, Element From>
__device__ void load_tile(const kernels::Operand<From>& operand, std::size_t row, std::size_t column, std::size_t rows,
                          std::size_t columns, T (&to)[tile][tile + 1]) {
    const bool by_rows = operand.column_stride == 1;
    const unsigned i = by_rows ? threadIdx.y : threadIdx.x;
    const unsigned j = by_rows ? threadIdx.x : threadIdx.y;
    const bool inside = row + i < rows && column + j < columns;
    to[i][j] = inside
                   ? static_cast<T>(operand.data[(row + i) * operand.row_stride + (column + j) * operand.column_stride])
                   : T{0};
}

template <Real T, Element A, Element B>
__global__ void multiply(kernels::Operand<A> a, kernels::Operand<B> b, T* out, std::size_t rows, std::size_t columns,
                         std::size_t inner) {
    // One column more than is used, so that a column's elements lie in different banks.
    __shared__ T left[tile][tile + 1];
    __shared__ T right[tile][tile + 1];
    const std::size_t tiles_a_row = (columns + tile - 1) / tile;
    const std::size_t tiles = (rows + tile - 1) / tile * tiles_a_row;
    for (std::size_t i = blockIdx.x; i < tiles; i += gridDim.x) {
        const std::size_t row = i / tiles_a_row * tile, column = i % tiles_a_row * tile;
        T sum{0};
        for (std::size_t k = 0; k < inner; k += tile) {
            load_tile(a, row, k, rows, inner, left);
            load_tile(b, k, column, inner, columns, right);
            __syncthreads();
            for (unsigned j = 0; j < tile; ++j) sum += left[threadIdx.y][j] * right[j][threadIdx.x];
            __syncthreads();
        }
        if (row + threadIdx.y < rows && column + threadIdx.x < columns) {
            out[(row + threadIdx.y) * columns + column + threadIdx.x] = sum;
        }
    }
}

// Where element i of a permutation stands in its operand.
struct TransposePosition {
    std::size_t rows, columns;
    __device__ std::size_t operator()(std::size_t i) const { return i % rows * columns + i / rows; }
};
struct DiagonalPosition {
    std::size_t columns;
    __device__ std::size_t operator()(std::size_t i) const { return i * (columns + 1); }
};
struct GatherPosition {
    std::size_t columns;
    const Id* ids;
    __device__ std::size_t operator()(std::size_t i) const { return i * columns + static_cast<std::size_t>(ids[i]); }
};

template <class T, class From, class Position>
__global__ void pick_elements(T* out, const From* from, std::size_t count, Position position) {
    const std::size_t step = std::size_t{gridDim.x} * blockDim.x;
    for (std::size_t i = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
        out[i] = static_cast<T>(from[position(i)]);
    }
}

}  // namespace tandem::inline TANDEM_ABI::cuda::detail

// The hot kernels as a table of function pointers: run-time sizes, one table per element type and instruction set.
#pragma once

#include <cstddef>

#include <tandem/core/dtype.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

/// What an instruction set provides. All matrices are row-major; strides count elements.
template <Real T>
struct KernelSet {
    const char* name;

    /// The register tile of the GEMM, and the tile itself: c[tile_rows, tile_columns] (+)= a · b. Element (i, k) of a
    /// stands at a[i · a_row + k · a_column]; b holds `depth` rows of tile_columns contiguous elements.
    std::size_t tile_rows;
    std::size_t tile_columns;
    void (*gemm_tile)(std::size_t depth, const T* a, std::size_t a_row, std::size_t a_column, const T* b, T* c,
                      std::size_t c_stride, bool accumulate);

    /// y = (x − mean) · inverse · gain + bias per row of `width` (Ba, Kiros, Hinton 2016, eq. 4), with the biased
    /// variance, inverse = 1 / sqrt(variance + eps). mean and inverse hold one element a row, for the backward pass.
    void (*layer_norm)(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                       std::size_t width, T eps);

    /// dx of layer_norm, added to dx where `accumulate` is set.
    void (*layer_norm_backward)(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                std::size_t rows, std::size_t width, bool accumulate);

    /// Adds the gradients of gain and bias over all rows, for the columns [first, last) only, row by row in order.
    void (*layer_norm_parameters_backward)(const T* dy, const T* x, const T* mean, const T* inverse, T* dgain, T* dbias,
                                           std::size_t rows, std::size_t width, std::size_t first, std::size_t last);

    /// sums[j] += Σ_i x[i, j] for the columns [first, last), row by row in order.
    void (*column_sums)(const T* x, T* sums, std::size_t rows, std::size_t width, std::size_t first, std::size_t last);

    /// In place x = softmax(scale · x) over one row of `count` elements.
    void (*softmax)(T* x, std::size_t count, T scale);

    /// In place dx = scale · y · (dx − Σ dx·y): the gradient of softmax(scale · x), given its result y and dx = dL/dy.
    void (*softmax_backward)(const T* y, T* dx, std::size_t count, T scale);
};

}  // namespace tandem::inline TANDEM_ABI::kernels

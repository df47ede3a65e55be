// The kernels as plain loops: the oracle that every other instruction set is tested against.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include <tandem/kernels/kernel_set.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

template <Real T>
struct Scalar {
    static constexpr std::size_t tile_rows = 4;
    static constexpr std::size_t tile_columns = 4;

    static void gemm_tile(std::size_t depth, const T* a, std::size_t a_row, std::size_t a_column, const T* b, T* c,
                          std::size_t c_stride, bool accumulate) {
        // Depth outside: were it the inner loop, g++ could fuse multiply and add in one vectorised version of it and not in
        // another, and a row's bits would depend on where its operands stand.
        T sums[tile_rows][tile_columns];
        for (std::size_t i = 0; i < tile_rows; ++i) {
            for (std::size_t j = 0; j < tile_columns; ++j) sums[i][j] = accumulate ? c[i * c_stride + j] : T{0};
        }
        for (std::size_t k = 0; k < depth; ++k) {
            for (std::size_t i = 0; i < tile_rows; ++i) {
                const T left = a[i * a_row + k * a_column];
                for (std::size_t j = 0; j < tile_columns; ++j) sums[i][j] += left * b[k * tile_columns + j];
            }
        }
        for (std::size_t i = 0; i < tile_rows; ++i) {
            for (std::size_t j = 0; j < tile_columns; ++j) c[i * c_stride + j] = sums[i][j];
        }
    }

    static void layer_norm(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                           std::size_t width, T eps) {
        for (std::size_t i = 0; i < rows; ++i, x += width, y += width) {
            T sum{0}, squares{0};
            for (std::size_t j = 0; j < width; ++j) sum += x[j];
            const T mu = sum / static_cast<T>(width);
            for (std::size_t j = 0; j < width; ++j) squares += (x[j] - mu) * (x[j] - mu);
            const T scale = T{1} / std::sqrt(squares / static_cast<T>(width) + eps);
            for (std::size_t j = 0; j < width; ++j) y[j] = (x[j] - mu) * scale * gain[j] + bias[j];
            mean[i] = mu;
            inverse[i] = scale;
        }
    }

    static void layer_norm_backward(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                    std::size_t rows, std::size_t width, bool accumulate) {
        for (std::size_t i = 0; i < rows; ++i, x += width, dy += width, dx += width) {
            T sum{0}, product{0};
            for (std::size_t j = 0; j < width; ++j) {
                sum += dy[j] * gain[j];
                product += dy[j] * gain[j] * (x[j] - mean[i]) * inverse[i];
            }
            sum /= static_cast<T>(width);
            product /= static_cast<T>(width);
            for (std::size_t j = 0; j < width; ++j) {
                const T normed = (x[j] - mean[i]) * inverse[i];
                const T value = inverse[i] * (dy[j] * gain[j] - sum - normed * product);
                dx[j] = accumulate ? dx[j] + value : value;
            }
        }
    }

    static void layer_norm_parameters_backward(const T* dy, const T* x, const T* mean, const T* inverse, T* dgain,
                                               T* dbias, std::size_t rows, std::size_t width, std::size_t first,
                                               std::size_t last) {
        for (std::size_t j = first; j < last; ++j) {
            for (std::size_t i = 0; i < rows; ++i) {
                dgain[j] += dy[i * width + j] * (x[i * width + j] - mean[i]) * inverse[i];
                dbias[j] += dy[i * width + j];
            }
        }
    }

    static void column_sums(const T* x, T* sums, std::size_t rows, std::size_t width, std::size_t first,
                            std::size_t last) {
        for (std::size_t j = first; j < last; ++j) {
            for (std::size_t i = 0; i < rows; ++i) sums[j] += x[i * width + j];
        }
    }

    static void softmax(T* x, std::size_t count, T scale) {
        T largest = scale * x[0], sum{0};
        for (std::size_t j = 1; j < count; ++j) largest = std::max(largest, scale * x[j]);
        for (std::size_t j = 0; j < count; ++j) sum += x[j] = std::exp(scale * x[j] - largest);
        for (std::size_t j = 0; j < count; ++j) x[j] /= sum;
    }

    static void softmax_backward(const T* y, T* dx, std::size_t count, T scale) {
        T dot{0};
        for (std::size_t j = 0; j < count; ++j) dot += dx[j] * y[j];
        for (std::size_t j = 0; j < count; ++j) dx[j] = scale * y[j] * (dx[j] - dot);
    }
};

}  // namespace tandem::inline TANDEM_ABI::kernels

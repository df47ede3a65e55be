// The kernels as plain loops: the oracle that every other instruction set is tested against.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <vector>

#include <tandem/kernels/kernel_set.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

/// The register tile of the oracle.
inline constexpr std::size_t scalar_tile_rows = 4, scalar_tile_columns = 4;

/// TileKernel::multiply in plain C++.
template <class A, class B, class Sum, std::size_t group, std::size_t columns = scalar_tile_columns>
void scalar_product(std::size_t rows, std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                    const B* b, Sum* out, const void*, bool onto) {
    // Depth outside: were it the inner loop, g++ could fuse multiply and add in one vectorised version of it and not in
    // another, and a row's bits would depend on where its operands stand.
    if (!onto) std::fill_n(out, rows * columns, Sum{0});
    for (std::size_t k = 0; k < groups * group; ++k) {
        for (std::size_t i = 0; i < rows; ++i) {
            const Sum left = static_cast<Sum>(a[i * a_row + k / group * a_group + k % group]);
            for (std::size_t j = 0; j < columns; ++j) {
                const B right = b[(k / group * columns + j) * group + k % group];
                out[i * columns + j] += left * static_cast<Sum>(right);
            }
        }
    }
}

/// KernelSet and GradientKernels in plain C++: what the kernels of every instruction set are held against.
template <Real T>
struct Scalar {
    static void finish_tile(const T* product, std::size_t product_stride, std::size_t rows, std::size_t columns, T* c,
                            std::size_t c_stride, bool accumulate, const Finish<T>& finish) {
        for (std::size_t i = 0; i < rows; ++i) {
            for (std::size_t j = 0; j < columns; ++j) {
                T value = product[i * product_stride + j];
                if (accumulate) value += c[i * c_stride + j];
                if (finish.scale != nullptr) value *= finish.scale[j];
                if (finish.bias != nullptr) value += finish.bias[j];
                if (finish.before != nullptr) finish.before[i * finish.before_stride + j] = value;
                value = activated(finish.activation, value);
                if (finish.factor != nullptr) value *= finish.factor[i * finish.factor_stride + j];
                if (finish.residual != nullptr) value += finish.residual[i * finish.residual_stride + j];
                c[i * c_stride + j] = value;
            }
        }
    }

    static void transpose(const T* from, std::size_t from_stride, std::size_t rows, std::size_t columns, T* to,
                          std::size_t to_stride) {
        for (std::size_t i = 0; i < rows; ++i) {
            for (std::size_t j = 0; j < columns; ++j) to[j * to_stride + i] = from[i * from_stride + j];
        }
    }

    static void sum_of_products(std::size_t terms, const T* const* x, const T* const* factors, const T* bias,
                                Activation activation, T* y, std::size_t width) {
        for (std::size_t j = 0; j < width; ++j) {
            T total = bias == nullptr ? T{0} : bias[j];
            for (std::size_t i = 0; i < terms; ++i) total += x[i][j] * factors[i][j];
            y[j] = activated(activation, total);
        }
    }

    static T dot(const T* x, const T* y, std::size_t size) {
        T total{0};
        for (std::size_t i = 0; i < size; ++i) total += x[i] * y[i];
        return total;
    }

    static void activate(Activation activation, const T* x, T* y, std::size_t size) {
        for (std::size_t i = 0; i < size; ++i) y[i] = activated(activation, x[i]);
    }

    static void activate_backward(Activation activation, const T* x, T* g, std::size_t size) {
        for (std::size_t i = 0; i < size; ++i) g[i] *= derivative(activation, x[i]);
    }

    static void layer_norm(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                           std::size_t width, T eps) {
        for (std::size_t i = 0; i < rows; ++i, x += width, y += width) {
            T sum{0}, squares{0};
            for (std::size_t j = 0; j < width; ++j) sum += x[j];
            const T mu = mean == nullptr ? T{0} : sum / static_cast<T>(width);
            for (std::size_t j = 0; j < width; ++j) squares += (x[j] - mu) * (x[j] - mu);
            const T scale = T{1} / std::sqrt(squares / static_cast<T>(width) + eps);
            for (std::size_t j = 0; j < width; ++j) {
                y[j] = (x[j] - mu) * scale * gain[j] + (bias == nullptr ? T{0} : bias[j]);
            }
            if (mean != nullptr) mean[i] = mu;
            inverse[i] = scale;
        }
    }

    static void layer_norm_backward(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                    std::size_t rows, std::size_t width, bool accumulate) {
        for (std::size_t i = 0; i < rows; ++i, x += width, dy += width, dx += width) {
            const T mu = mean == nullptr ? T{0} : mean[i];
            T sum{0}, product{0};
            for (std::size_t j = 0; j < width; ++j) {
                sum += dy[j] * gain[j];
                product += dy[j] * gain[j] * (x[j] - mu) * inverse[i];
            }
            sum = mean == nullptr ? T{0} : sum / static_cast<T>(width);
            product /= static_cast<T>(width);
            for (std::size_t j = 0; j < width; ++j) {
                const T normed = (x[j] - mu) * inverse[i];
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
                const T mu = mean == nullptr ? T{0} : mean[i];
                dgain[j] += dy[i * width + j] * (x[i * width + j] - mu) * inverse[i];
                if (dbias != nullptr) dbias[j] += dy[i * width + j];
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

private:
    static constexpr T pi = std::numbers::pi_v<T>;

    static T normal_distribution(T x) { return T(0.5) * (1 + std::erf(x / std::numbers::sqrt2_v<T>)); }
    static T sigmoid(T x) { return 1 / (1 + std::exp(-x)); }
    static T tanh_gate(T x) { return T(0.5) * (1 + std::tanh(std::sqrt(2 / pi) * (x + T(0.044715) * x * x * x))); }

    static T activated(Activation activation, T x) {
        switch (activation) {
            case Activation::gelu:
                return x * normal_distribution(x);
            case Activation::quick_gelu:
                return x * sigmoid(T(1.702) * x);
            case Activation::tanh_gelu:
                return x * tanh_gate(x);
            case Activation::silu:
                return x * sigmoid(x);
            case Activation::relu:
                return x <= 0 ? T{0} : x;  // keeps a NaN
            case Activation::squared_relu:
                return x > 0 ? x * x : T{0} * x;  // keeps a NaN
            case Activation::none:
                break;
        }
        return x;
    }

    static T derivative(Activation activation, T x) {
        switch (activation) {
            case Activation::gelu:
                return normal_distribution(x) + x * std::exp(-x * x / 2) / std::sqrt(2 * pi);
            case Activation::quick_gelu: {
                const T gate = sigmoid(T(1.702) * x);
                return gate * (1 + T(1.702) * x * (1 - gate));
            }
            case Activation::tanh_gelu: {
                const T gate = tanh_gate(x);
                return gate * (1 + x * 2 * std::sqrt(2 / pi) * (1 + 3 * T(0.044715) * x * x) * (1 - gate));
            }
            case Activation::silu: {
                const T gate = sigmoid(x);
                return gate * (1 + x * (1 - gate));
            }
            case Activation::relu:
                return x <= 0 ? T{0} : x > 0 ? T{1} : x;
            case Activation::squared_relu:
                return x > 0 ? 2 * x : T{0} * x;
            case Activation::none:
                break;
        }
        return 1;
    }
};

/// ReducedKernels::narrow in plain C++.
inline void scalar_narrow(const float* x, bfloat16* y, std::size_t size) {
    std::copy_n(x, size, y);
}

/// ReducedKernels::narrow_pairs in plain C++.
inline void scalar_narrow_pairs(const float* first, const float* second, bfloat16* to, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) {
        to[2 * i] = first[i];
        to[2 * i + 1] = second[i];
    }
}

/// ReducedKernels::quantise in plain C++.
inline void scalar_quantise(const float* x, std::uint8_t* y, std::size_t size, float& scale, std::int32_t& zero) {
    // Zero is always among the values, so that it is exact, and a row of zeros has a scale.
    float least = 0, most = 0;
    for (std::size_t i = 0; i < size; ++i) {
        least = std::min(least, x[i]);
        most = std::max(most, x[i]);
    }
    scale = most > least ? (most - least) / 255 : 1;
    const float inverse = 1 / scale;
    zero = static_cast<std::int32_t>(std::lrint(-least * inverse));
    for (std::size_t i = 0; i < size; ++i) {
        const float byte = std::nearbyint(x[i] * inverse) + static_cast<float>(zero);
        y[i] = static_cast<std::uint8_t>(std::clamp(byte, 0.0f, 255.0f));
    }
}

/// NarrowRows::finish in plain C++.
inline void scalar_finish_narrow(const float* product, std::size_t product_stride, std::size_t rows, std::size_t columns,
                                 bfloat16* c, std::size_t c_stride, const Finish<float>& finish) {
    for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j < columns; ++j) {
            float value = 0;
            Scalar<float>::finish_tile(product + i * product_stride + j, 1, 1, 1, &value, 1, false, finish.at(i, j));
            c[i * c_stride + j] = value;
        }
    }
}

/// NarrowRows::layer_norm in plain C++.
inline void scalar_layer_norm_narrow(const float* x, const float* gain, const float* bias, bfloat16* y,
                                     std::size_t y_stride, std::size_t rows, std::size_t width, float eps, bool has_mean) {
    std::vector<float> normed(width);
    for (std::size_t i = 0; i < rows; ++i) {
        float mean = 0, inverse = 0;
        Scalar<float>::layer_norm(x + i * width, gain, bias, normed.data(), has_mean ? &mean : nullptr, &inverse, 1, width, eps);
        std::copy_n(normed.data(), width, y + i * y_stride);
    }
}

/// NarrowRows::softmax in plain C++.
inline void scalar_softmax_narrow(float* x, std::size_t panel, std::size_t panel_step, std::size_t count, float scale,
                                  bfloat16* y) {
    std::vector<float> row(count);
    for (std::size_t j = 0; j < count; ++j) row[j] = x[j / panel * panel_step + j % panel];
    Scalar<float>::softmax(row.data(), count, scale);
    std::copy_n(row.data(), count, y);
}

/// NarrowRows::quantise in plain C++.
inline void scalar_quantise_narrow(const bfloat16* x, std::uint8_t* y, std::size_t size, float& scale, std::int32_t& zero) {
    const std::vector<float> row(x, x + size);
    scalar_quantise(row.data(), y, size, scale, zero);
}

/// NarrowRows::transpose_pairs in plain C++.
inline void scalar_transpose_pairs(const bfloat16* from, std::size_t from_stride, std::size_t rows, std::size_t pairs,
                                   bfloat16* to, std::size_t to_stride) {
    for (std::size_t j = 0; j < rows; ++j) {
        for (std::size_t i = 0; i < pairs; ++i) std::copy_n(from + j * from_stride + 2 * i, 2, to + 2 * (i * to_stride + j));
    }
}

/// NarrowRows::interleave in plain C++.
inline void scalar_interleave(const bfloat16* first, const bfloat16* second, bfloat16* to, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) {
        to[2 * i] = first[i];
        to[2 * i + 1] = second[i];
    }
}

/// ReducedKernels::finish_bytes in plain C++.
inline void scalar_finish_bytes(const ByteProduct& product, std::size_t tile_columns, std::size_t rows,
                                std::size_t columns, float* c, std::size_t c_stride, bool accumulate,
                                const Finish<float>& finish) {
    for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j < columns; ++j) {
            const std::int32_t exact = product.sums[i * tile_columns + j] - product.row_zero[i] * product.column_sum[j];
            const float value = static_cast<float>(exact) * product.row_scale[i] * product.column_scale[j];
            Scalar<float>::finish_tile(&value, 1, 1, 1, c + i * c_stride + j, c_stride, accumulate, finish.at(i, j));
        }
    }
}

/// NarrowRows::finish_bytes in plain C++.
inline void scalar_finish_bytes_narrow(const ByteProduct& product, std::size_t tile_columns, std::size_t rows,
                                       std::size_t columns, bfloat16* c, std::size_t c_stride, const Finish<float>& finish) {
    std::vector<float> values(rows * columns);
    scalar_finish_bytes(product, tile_columns, rows, columns, values.data(), columns, false, {});
    scalar_finish_narrow(values.data(), columns, rows, columns, c, c_stride, finish);
}

}  // namespace tandem::inline TANDEM_ABI::kernels

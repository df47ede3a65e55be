// SIMD at the build's -march, through xsimd; the only file that knows it. Holds the vector type that expressions are
// evaluated in, and the kernels written over it.
#pragma once

#include <array>
#include <cstddef>
#include <utility>

// g++ 12 takes the undefined operand of AVX-512 intrinsics for an uninitialised read (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <xsimd/xsimd.hpp>
#pragma GCC diagnostic pop

#include <tandem/core/dtype.hpp>
#include <tandem/kernels/kernel_set.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

template <Real T>
using Batch = xsimd::batch<T>;

/// Elements in one Batch<T>.
template <Real T>
inline constexpr std::size_t lanes = Batch<T>::size;

template <Real T>
Batch<T> load(const T* from) {
    return Batch<T>::load_unaligned(from);
}

/// The first `count` < lanes elements, zeros behind them; nothing past them is read.
template <Real T>
Batch<T> load_partial(const T* from, std::size_t count) {
    std::array<T, lanes<T>> buffer{};
    for (std::size_t i = 0; i < count; ++i) buffer[i] = from[i];
    return Batch<T>::load_unaligned(buffer.data());
}

inline Batch<float> load_partial(const bfloat16* from, std::size_t count) {
    std::array<float, lanes<float>> buffer{};
    for (std::size_t i = 0; i < count; ++i) buffer[i] = from[i];
    return Batch<float>::load_unaligned(buffer.data());
}

inline Batch<float> load(const bfloat16* from) { return load_partial(from, lanes<float>); }

template <Real T>
void store(T* to, const Batch<T>& value) {
    value.store_unaligned(to);
}

template <Real T>
void store_partial(T* to, const Batch<T>& value, std::size_t count) {
    std::array<T, lanes<T>> buffer;
    value.store_unaligned(buffer.data());
    for (std::size_t i = 0; i < count; ++i) to[i] = buffer[i];
}

inline void store_partial(bfloat16* to, const Batch<float>& value, std::size_t count) {
    std::array<float, lanes<float>> buffer;
    value.store_unaligned(buffer.data());
    for (std::size_t i = 0; i < count; ++i) to[i] = bfloat16(buffer[i]);
}

inline void store(bfloat16* to, const Batch<float>& value) { store_partial(to, value, lanes<float>); }

/// Σ and max over lanes in a fixed order, so that every caller gets the same bits.
template <Real T>
T reduce_sum(const Batch<T>& value) {
    std::array<T, lanes<T>> buffer;
    value.store_unaligned(buffer.data());
    for (std::size_t half = lanes<T> / 2; half > 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) buffer[i] += buffer[i + half];
    }
    return buffer[0];
}

template <Real T>
T reduce_max(const Batch<T>& value) {
    std::array<T, lanes<T>> buffer;
    value.store_unaligned(buffer.data());
    T largest = buffer[0];
    for (std::size_t i = 1; i < lanes<T>; ++i) largest = buffer[i] > largest ? buffer[i] : largest;
    return largest;
}

/// Calls body(load, store) over a row of `count` elements: whole vectors first, then one partial vector, with
/// the same arithmetic for both.
template <Real T, class Body>
void for_each_vector(std::size_t count, const Body& body) {
    std::size_t j = 0;
    for (; j + lanes<T> <= count; j += lanes<T>) {
        body([j](const T* from) { return load(from + j); }, [j](T* to, const Batch<T>& value) { store(to + j, value); });
    }
    if (const std::size_t rest = count - j; rest > 0) {
        body([j, rest](const T* from) { return load_partial(from + j, rest); },
             [j, rest](T* to, const Batch<T>& value) { store_partial(to + j, value, rest); });
    }
}

template <Real T>
struct Native {
    using V = Batch<T>;
    static constexpr std::size_t width_in_vectors = 2;
    // 14 x 2 accumulators, 2 vectors of b and one broadcast fill AVX-512's 32 registers; 6 x 2 fill AVX2's 16.
    static constexpr std::size_t tile_rows = lanes<T> * sizeof(T) >= 64 ? 14 : 6;
    static constexpr std::size_t tile_columns = width_in_vectors * lanes<T>;

    static void gemm_tile(std::size_t depth, const T* a, std::size_t a_row, std::size_t a_column, const T* b, T* c,
                          std::size_t c_stride, bool accumulate) {
        tile(depth, a, a_row, a_column, b, c, c_stride, accumulate, std::make_index_sequence<tile_rows>{});
    }

    static void layer_norm(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                           std::size_t width, T eps) {
        for (std::size_t i = 0; i < rows; ++i, x += width, y += width) {
            const T mu = row_sum(x, width) / static_cast<T>(width);
            V squares(T{0});
            const std::size_t whole = width / lanes<T> * lanes<T>;
            for (std::size_t j = 0; j < whole; j += lanes<T>) {
                const V centred = load(x + j) - V(mu);
                squares = xsimd::fma(centred, centred, squares);
            }
            T rest{0};
            for (std::size_t j = whole; j < width; ++j) rest += (x[j] - mu) * (x[j] - mu);
            const T variance = (reduce_sum(squares) + rest) / static_cast<T>(width);
            const T scale = T{1} / std::sqrt(variance + eps);
            for_each_vector<T>(width, [&](const auto& get, const auto& put) {
                put(y, xsimd::fma((get(x) - V(mu)) * V(scale), get(gain), get(bias)));
            });
            mean[i] = mu;
            inverse[i] = scale;
        }
    }

    static void layer_norm_backward(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                    std::size_t rows, std::size_t width, bool accumulate) {
        for (std::size_t i = 0; i < rows; ++i, x += width, dy += width, dx += width) {
            const V mu(mean[i]), scale(inverse[i]);
            V sums(T{0}), products(T{0});
            for_each_vector<T>(width, [&](const auto& get, const auto&) {
                const V g = get(dy) * get(gain);  // zero behind the row's end
                sums += g;
                products = xsimd::fma(g, (get(x) - mu) * scale, products);
            });
            const V sum(reduce_sum(sums) / static_cast<T>(width));
            const V product(reduce_sum(products) / static_cast<T>(width));
            for_each_vector<T>(width, [&](const auto& get, const auto& put) {
                const V normed = (get(x) - mu) * scale;
                const V value = scale * (get(dy) * get(gain) - sum - normed * product);
                put(dx, accumulate ? get(dx) + value : value);
            });
        }
    }

    static void layer_norm_parameters_backward(const T* dy, const T* x, const T* mean, const T* inverse, T* dgain,
                                               T* dbias, std::size_t rows, std::size_t width, std::size_t first,
                                               std::size_t last) {
        for_each_vector<T>(last - first, [&](const auto& get, const auto& put) {
            V gain_sum = get(dgain + first), bias_sum = get(dbias + first);
            for (std::size_t i = 0; i < rows; ++i) {
                const V g = get(dy + i * width + first);
                gain_sum = xsimd::fma(g, (get(x + i * width + first) - V(mean[i])) * V(inverse[i]), gain_sum);
                bias_sum += g;
            }
            put(dgain + first, gain_sum);
            put(dbias + first, bias_sum);
        });
    }

    static void column_sums(const T* x, T* sums, std::size_t rows, std::size_t width, std::size_t first,
                            std::size_t last) {
        for_each_vector<T>(last - first, [&](const auto& get, const auto& put) {
            V sum = get(sums + first);
            for (std::size_t i = 0; i < rows; ++i) sum += get(x + i * width + first);
            put(sums + first, sum);
        });
    }

    static void softmax(T* x, std::size_t count, T scale) {
        T largest = scale * x[0];
        const std::size_t whole = count / lanes<T> * lanes<T>;
        if (whole > 0) {
            V peaks = V(scale) * load(x);
            for (std::size_t j = lanes<T>; j < whole; j += lanes<T>) peaks = xsimd::max(peaks, V(scale) * load(x + j));
            largest = reduce_max(peaks);
        }
        for (std::size_t j = whole; j < count; ++j) largest = scale * x[j] > largest ? scale * x[j] : largest;
        V sums(T{0});
        for (std::size_t j = 0; j < whole; j += lanes<T>) {
            const V value = xsimd::exp(xsimd::fms(V(scale), load(x + j), V(largest)));
            store(x + j, value);
            sums += value;
        }
        T sum = reduce_sum(sums);
        if (const std::size_t rest = count - whole; rest > 0) {
            store_partial(x + whole, xsimd::exp(xsimd::fms(V(scale), load_partial(x + whole, rest), V(largest))), rest);
            for (std::size_t j = whole; j < count; ++j) sum += x[j];
        }
        const V normaliser(T{1} / sum);
        for_each_vector<T>(count, [&](const auto& get, const auto& put) { put(x, get(x) * normaliser); });
    }

    static void softmax_backward(const T* y, T* dx, std::size_t count, T scale) {
        V products(T{0});
        for_each_vector<T>(count,
                           [&](const auto& get, const auto&) { products = xsimd::fma(get(dx), get(y), products); });
        const V dot(reduce_sum(products));
        for_each_vector<T>(count, [&](const auto& get, const auto& put) {
            put(dx, V(scale) * get(y) * (get(dx) - dot));
        });
    }

private:
    static T row_sum(const T* x, std::size_t width) {
        V sums(T{0});
        for_each_vector<T>(width, [&](const auto& get, const auto&) { sums += get(x); });
        return reduce_sum(sums);
    }

    // Index sequences instead of loops keep every accumulator in a register at -O2. A pointer to every third row lets
    // x86's scaled addressing reach all rows of a with few registers.
    template <std::size_t... Rows>
    static void tile(std::size_t depth, const T* a, std::size_t a_row, std::size_t a_column, const T* b, T* c,
                     std::size_t c_stride, bool accumulate, std::index_sequence<Rows...>) {
        V left[tile_rows], right[tile_rows];
        if (accumulate) {
            ((left[Rows] = load(c + Rows * c_stride), right[Rows] = load(c + Rows * c_stride + lanes<T>)), ...);
        } else {
            ((left[Rows] = V(T{0}), right[Rows] = V(T{0})), ...);
        }
        const T* thirds[(tile_rows + 2) / 3];
        ((thirds[Rows / 3] = a + Rows / 3 * 3 * a_row), ...);
        for (std::size_t k = 0; k < depth; ++k, b += tile_columns) {
            const V b0 = load(b), b1 = load(b + lanes<T>);
            (multiply_add(thirds[Rows / 3][Rows % 3 * a_row], b0, b1, left[Rows], right[Rows]), ...);
            ((Rows % 3 == 0 ? void(thirds[Rows / 3] += a_column) : void()), ...);
        }
        ((store(c + Rows * c_stride, left[Rows]), store(c + Rows * c_stride + lanes<T>, right[Rows])), ...);
    }

    static void multiply_add(T a, const V& b0, const V& b1, V& left, V& right) {
        const V repeated(a);
        left = xsimd::fma(repeated, b0, left);
        right = xsimd::fma(repeated, b1, right);
    }
};

}  // namespace tandem::inline TANDEM_ABI::kernels

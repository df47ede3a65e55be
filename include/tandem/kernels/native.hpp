// The vector type that expressions are evaluated in: SIMD at the build's -march, through xsimd.
#pragma once

#include <array>
#include <cstddef>

// g++ 12 takes the undefined operand of AVX-512 intrinsics for an uninitialised read (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <xsimd/xsimd.hpp>
#pragma GCC diagnostic pop

#include <tandem/core/dtype.hpp>
#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

/// The vector of the build's -march.
template <Real T>
using Batch = xsimd::batch<T>;

/// Elements in one Batch<T>.
template <Real T>
inline constexpr std::size_t lanes = Batch<T>::size;

/// lanes<T> elements from memory, aligned or not.
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

inline Batch<float> load(const bfloat16* from) {
    return load_partial(from, lanes<float>);
}

/// lanes<T> elements to memory, aligned or not.
template <Real T>
void store(T* to, const Batch<T>& value) {
    value.store_unaligned(to);
}

/// The first `count` <= lanes<T> elements; nothing behind them is written.
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

inline void store(bfloat16* to, const Batch<float>& value) {
    store_partial(to, value, lanes<float>);
}

/// Σ over lanes in a fixed order, so that every caller gets the same bits.
template <Real T>
T reduce_sum(const Batch<T>& value) {
    std::array<T, lanes<T>> buffer;
    value.store_unaligned(buffer.data());
    for (std::size_t half = lanes<T> / 2; half > 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) buffer[i] += buffer[i + half];
    }
    return buffer[0];
}

/// The largest of the lanes.
template <Real T>
T reduce_max(const Batch<T>& value) {
    std::array<T, lanes<T>> buffer;
    value.store_unaligned(buffer.data());
    T largest = buffer[0];
    for (std::size_t i = 1; i < lanes<T>; ++i) largest = buffer[i] > largest ? buffer[i] : largest;
    return largest;
}

}  // namespace tandem::inline TANDEM_ABI::kernels

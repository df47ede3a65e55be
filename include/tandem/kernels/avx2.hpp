// AVX2 and FMA kernels, in a target region: they run wherever the CPU has the instructions, whatever the build's flags.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include <tandem/core/dtype.hpp>
#include <tandem/kernels/kernel_set.hpp>

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace tandem::inline TANDEM_ABI::kernels::avx2 {

inline __m256i first_lanes(std::size_t count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
}

struct Vector {
    using element = float;
    static constexpr std::size_t lanes = 8;
    static constexpr std::size_t tile_rows = 6;  // 6 x 2 sums, 2 vectors of b and a broadcast fit the 16 registers

    __m256 value;

    Vector() = default;
    Vector(__m256 v) : value(v) {}
    explicit Vector(float x) : value(_mm256_set1_ps(x)) {}

    static Vector load(const float* from) { return _mm256_loadu_ps(from); }
    static Vector load(const float* from, std::size_t count) { return _mm256_maskload_ps(from, first_lanes(count)); }
    void store(float* to) const { _mm256_storeu_ps(to, value); }
    void store(float* to, std::size_t count) const { _mm256_maskstore_ps(to, first_lanes(count), value); }

    static Vector difference_of_products(const std::int32_t* sums, std::int32_t factor, const std::int32_t* others) {
        const __m256i other = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(others));
        const __m256i product = _mm256_mullo_epi32(_mm256_set1_epi32(factor), other);
        return _mm256_cvtepi32_ps(
            _mm256_sub_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums)), product));
    }
    void store_bytes(std::uint8_t* to, std::size_t count) const {
        alignas(32) std::int32_t integers[lanes];
        _mm256_store_si256(reinterpret_cast<__m256i*>(integers), _mm256_cvtps_epi32(value));
        for (std::size_t i = 0; i < count; ++i) to[i] = static_cast<std::uint8_t>(integers[i]);
    }
    void store_narrow(bfloat16* to, std::size_t count) const {
        alignas(32) float floats[lanes];
        store(floats);
        for (std::size_t i = 0; i < count; ++i) to[i] = bfloat16(floats[i]);
    }
    static void store_narrow_pairs(const Vector& first, const Vector& second, bfloat16* to, std::size_t count) {
        alignas(16) std::array<bfloat16, lanes> lower, upper;
        first.store_narrow(lower.data(), lanes);
        second.store_narrow(upper.data(), lanes);
        for (std::size_t i = 0; i < count; ++i) {
            to[2 * i] = lower[i];
            to[2 * i + 1] = upper[i];
        }
    }
};

inline Vector operator+(const Vector& a, const Vector& b) {
    return _mm256_add_ps(a.value, b.value);
}
inline Vector operator-(const Vector& a, const Vector& b) {
    return _mm256_sub_ps(a.value, b.value);
}
inline Vector operator*(const Vector& a, const Vector& b) {
    return _mm256_mul_ps(a.value, b.value);
}
inline Vector operator/(const Vector& a, const Vector& b) {
    return _mm256_div_ps(a.value, b.value);
}
inline Vector fma(const Vector& a, const Vector& b, const Vector& c) {
    return _mm256_fmadd_ps(a.value, b.value, c.value);
}
inline Vector min(const Vector& a, const Vector& b) {
    return _mm256_min_ps(a.value, b.value);
}
inline Vector max(const Vector& a, const Vector& b) {
    return _mm256_max_ps(a.value, b.value);
}
inline Vector round(const Vector& a) {
    return _mm256_round_ps(a.value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/// a · 2^power, for powers of -252 to 254: in two steps, so that what is too small becomes subnormal, then zero.
inline Vector scale_by_power(const Vector& a, const Vector& power) {
    const __m256i whole = _mm256_cvtps_epi32(power.value), half = _mm256_srai_epi32(whole, 1);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(a.value, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}

#include <tandem/kernels/vector_kernels.ipp>

inline constexpr KernelSet<float> kernel_set = VectorKernels<Vector>::set("avx2");

/// A float is a bfloat16 with sixteen zero bits behind it.
struct WidenedDot {
    using A = float;
    using B = bfloat16;
    using Sum = __m256;
    using Total = float;
    static constexpr std::size_t lanes = 8, tile_rows = 5, group = 2;
    struct Pair {
        __m256 even, odd;
    };

    static Sum zero() { return _mm256_setzero_ps(); }
    static Sum sums(const Total* from) { return _mm256_loadu_ps(from); }
    static Pair load(const B* from) {
        const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
        const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
        return {_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)), _mm256_castsi256_ps(_mm256_and_si256(pairs, upper))};
    }
    static Pair broadcast(const A* from) { return {_mm256_set1_ps(from[0]), _mm256_set1_ps(from[1])}; }
    static Sum dot(const Pair& a, const Pair& b, const Sum& sum) {
        return _mm256_fmadd_ps(a.odd, b.odd, _mm256_fmadd_ps(a.even, b.even, sum));
    }
    static void store(Total* to, const Sum& sum) { _mm256_storeu_ps(to, sum); }
};

/// Quadruples of bytes as two products of pairs of 16-bit numbers: nothing saturates.
struct ByteDot {
    using A = std::uint8_t;
    using B = std::int8_t;
    using Sum = __m256i;
    using Total = std::int32_t;
    static constexpr std::size_t lanes = 8, tile_rows = 4, group = 4;
    struct Halves {
        __m256i even, odd;
    };

    static Sum zero() { return _mm256_setzero_si256(); }
    static Halves load(const B* from) {
        const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
        return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
    }
    static Halves broadcast(const A* from) {
        int bytes;
        std::memcpy(&bytes, from, sizeof bytes);
        const __m256i repeated = _mm256_set1_epi32(bytes);
        return {_mm256_and_si256(repeated, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(repeated, 8)};
    }
    static Sum dot(const Halves& a, const Halves& b, const Sum& sum) {
        const __m256i products = _mm256_add_epi32(_mm256_madd_epi16(a.even, b.even), _mm256_madd_epi16(a.odd, b.odd));
        return _mm256_add_epi32(sum, products);
    }
    static void store(Total* to, const Sum& sum) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), sum); }
};

inline constexpr ReducedKernels reduced_kernels{.pairs = {.rows = 0, .columns = 16, .group = 2, .multiply = nullptr},
                                                .widened = TileKernels<WidenedDot>::kernel,
                                                .narrow = Conversions<Vector>::narrow,
                                                .narrow_pairs = Conversions<Vector>::narrow_pairs,
                                                .bytes = TileKernels<ByteDot>::kernel,
                                                .quantise = Conversions<Vector>::quantise<float>,
                                                .finish_bytes = Conversions<Vector>::finish_bytes};

}  // namespace tandem::inline TANDEM_ABI::kernels::avx2

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

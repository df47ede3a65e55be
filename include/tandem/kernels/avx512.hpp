// AVX-512 kernels, in target regions: they run wherever the CPU has the instructions, whatever the build's flags.
#pragma once

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
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#endif

namespace tandem::inline TANDEM_ABI::kernels::avx512 {

constexpr __mmask16 first_lanes(std::size_t count) {
    return static_cast<__mmask16>((1u << count) - 1u);
}

// Masked forms where g++ 12 takes the undefined operand of the plain ones for an uninitialised read (GCC bug 105593).
inline constexpr __mmask16 all_lanes = first_lanes(16);

struct Vector {
    using element = float;
    static constexpr std::size_t lanes = 16;
    static constexpr std::size_t tile_rows = 14;  // 14 x 2 sums, 2 vectors of b and a broadcast fill the 32 registers

    __m512 value;

    Vector() = default;
    Vector(__m512 v) : value(v) {}
    explicit Vector(float x) : value(_mm512_set1_ps(x)) {}

    static Vector load(const float* from) { return _mm512_loadu_ps(from); }
    static Vector load(const float* from, std::size_t count) { return _mm512_maskz_loadu_ps(first_lanes(count), from); }
    void store(float* to) const { _mm512_storeu_ps(to, value); }
    void store(float* to, std::size_t count) const { _mm512_mask_storeu_ps(to, first_lanes(count), value); }

    static Vector difference_of_products(const std::int32_t* sums, std::int32_t factor, const std::int32_t* others) {
        const __m512i product = _mm512_mullo_epi32(_mm512_set1_epi32(factor), _mm512_loadu_si512(others));
        return _mm512_maskz_cvtepi32_ps(all_lanes, _mm512_sub_epi32(_mm512_loadu_si512(sums), product));
    }
    void store_bytes(std::uint8_t* to, std::size_t count) const {
        _mm512_mask_cvtepi32_storeu_epi8(to, first_lanes(count), _mm512_maskz_cvtps_epi32(all_lanes, value));
    }
    /// The upper halves are bfloat16, rounded as its constructor does.
    __m512i narrow() const {
        const __m512i word = _mm512_castps_si512(value);
        const __m512i odd = _mm512_and_si512(_mm512_maskz_srli_epi32(all_lanes, word, 16), _mm512_set1_epi32(1));
        const __m512i rounded = _mm512_add_epi32(word, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        const __m512i quiet = _mm512_or_si512(word, _mm512_set1_epi32(0x00400000));
        const __mmask16 is_nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
        return _mm512_mask_mov_epi32(rounded, is_nan, quiet);
    }
    void store_narrow(bfloat16* to, std::size_t count) const {
        _mm512_mask_cvtepi32_storeu_epi16(to, first_lanes(count), _mm512_maskz_srli_epi32(all_lanes, narrow(), 16));
    }
    static void store_narrow_pairs(const Vector& first, const Vector& second, bfloat16* to, std::size_t count) {
        const __m512i upper = _mm512_and_si512(second.narrow(), _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
        const __m512i lower = _mm512_maskz_srli_epi32(all_lanes, first.narrow(), 16);
        _mm512_mask_storeu_epi32(to, first_lanes(count), _mm512_or_si512(upper, lower));
    }

    static Vector load(const bfloat16* from, std::size_t count) {
        return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(all_lanes, words(from, count), 16));
    }
    static void store_pairs(const bfloat16* first, const bfloat16* second, bfloat16* to, std::size_t count) {
        const __m512i upper = _mm512_maskz_slli_epi32(all_lanes, words(second, count), 16);
        _mm512_mask_storeu_epi32(to, first_lanes(count), _mm512_or_si512(upper, words(first, count)));
    }
    static Vector fraction(const Vector& x) {
        return _mm512_maskz_reduce_ps(all_lanes, x.value, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    }
    static Vector reciprocal(const Vector& x) { return _mm512_maskz_rcp14_ps(all_lanes, x.value); }

private:
    static __m512i words(const bfloat16* from, std::size_t count) {
        return _mm512_maskz_cvtepu16_epi32(all_lanes, _mm256_maskz_loadu_epi16(first_lanes(count), from));
    }
};

inline Vector operator+(const Vector& a, const Vector& b) {
    return _mm512_add_ps(a.value, b.value);
}
inline Vector operator-(const Vector& a, const Vector& b) {
    return _mm512_sub_ps(a.value, b.value);
}
inline Vector operator*(const Vector& a, const Vector& b) {
    return _mm512_mul_ps(a.value, b.value);
}
inline Vector operator/(const Vector& a, const Vector& b) {
    return _mm512_div_ps(a.value, b.value);
}
inline Vector fma(const Vector& a, const Vector& b, const Vector& c) {
    return _mm512_fmadd_ps(a.value, b.value, c.value);
}
inline Vector min(const Vector& a, const Vector& b) {
    return _mm512_maskz_min_ps(all_lanes, a.value, b.value);
}
inline Vector max(const Vector& a, const Vector& b) {
    return _mm512_maskz_max_ps(all_lanes, a.value, b.value);
}
inline Vector round(const Vector& a) {
    return _mm512_maskz_roundscale_ps(all_lanes, a.value, _MM_FROUND_TO_NEAREST_INT);
}
inline Vector scale_by_power(const Vector& a, const Vector& power) {
    return _mm512_maskz_scalef_ps(all_lanes, a.value, power.value);
}

#include <tandem/kernels/vector_kernels.ipp>

inline constexpr KernelSet<float> kernel_set = VectorKernels<Vector>::set("avx512");
using Convert = Conversions<Vector>;

/// A float is a bfloat16 with sixteen zero bits behind it.
struct WidenedDot {
    using A = float;
    using B = bfloat16;
    using Sum = __m512;
    using Total = float;
    static constexpr std::size_t lanes = 16, tile_rows = 13, group = 2;
    struct Pair {
        __m512 even, odd;
    };

    static Sum zero() { return _mm512_setzero_ps(); }
    static Sum sums(const Total* from) { return _mm512_loadu_ps(from); }
    static Pair load(const B* from) {
        const __m512i pairs = _mm512_loadu_si512(from);
        const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
        return {_mm512_castsi512_ps(_mm512_maskz_slli_epi32(all_lanes, pairs, 16)),
                _mm512_castsi512_ps(_mm512_and_si512(pairs, upper))};
    }
    static Pair broadcast(const A* from) { return {_mm512_set1_ps(from[0]), _mm512_set1_ps(from[1])}; }
    static Sum dot(const Pair& a, const Pair& b, const Sum& sum) {
        return _mm512_fmadd_ps(a.odd, b.odd, _mm512_fmadd_ps(a.even, b.even, sum));
    }
    static void store(Total* to, const Sum& sum) { _mm512_storeu_ps(to, sum); }
};

inline constexpr TileKernel<float, bfloat16, float> widened = TileKernels<WidenedDot>::kernel;

}  // namespace tandem::inline TANDEM_ABI::kernels::avx512

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#endif

namespace tandem::inline TANDEM_ABI::kernels::avx512bf16 {

/// Rounds to bfloat16 in one instruction, to which subnormal numbers are zero (Intel SDM, VCVTNEPS2BF16).
struct Vector : avx512::Vector {
    Vector() = default;
    Vector(const avx512::Vector& v) : avx512::Vector(v) {}
    explicit Vector(float x) : avx512::Vector(x) {}

    template <class From>
    static Vector load(const From* from, std::size_t count) {
        return avx512::Vector::load(from, count);
    }
    static Vector load(const float* from) { return avx512::Vector::load(from); }
    void store_narrow(bfloat16* to, std::size_t count) const {
        _mm256_mask_storeu_epi16(to, avx512::first_lanes(count), narrow(*this));
    }
    static void store_narrow(const Vector& first, const Vector& second, bfloat16* to) {
        const __m512bh both = _mm512_cvtne2ps_pbh(second.value, first.value);
        std::memcpy(static_cast<void*>(to), &both, sizeof both);
    }
    static void store_narrow_pairs(const Vector& first, const Vector& second, bfloat16* to, std::size_t count) {
        const __m512i lower = _mm512_maskz_cvtepu16_epi32(avx512::all_lanes, narrow(first));
        const __m512i upper = _mm512_maskz_cvtepu16_epi32(avx512::all_lanes, narrow(second));
        _mm512_mask_storeu_epi32(to, avx512::first_lanes(count),
                                 _mm512_or_si512(_mm512_maskz_slli_epi32(avx512::all_lanes, upper, 16), lower));
    }

private:
    static __m256i narrow(const Vector& x) {
        const __m256bh halves = _mm512_maskz_cvtneps_pbh(avx512::all_lanes, x.value);
        __m256i words;
        std::memcpy(&words, &halves, sizeof words);
        return words;
    }
};

#include <tandem/kernels/vector_kernels.ipp>

using Convert = Conversions<Vector>;

/// Pairs of bfloat16, summed in float32; subnormal inputs and results count as zero (Intel SDM, VDPBF16PS).
struct PairDot {
    using A = bfloat16;
    using B = bfloat16;
    using Sum = __m512;
    using Total = float;
    static constexpr std::size_t lanes = 16, tile_rows = 14, group = 2;

    static Sum zero() { return _mm512_setzero_ps(); }
    static Sum sums(const Total* from) { return _mm512_loadu_ps(from); }
    static __m512bh load(const B* from) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(from)); }
    static __m512bh broadcast(const A* from) {
        int pair;
        std::memcpy(&pair, from, sizeof pair);
        return reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
    }
    static Sum dot(const __m512bh& a, const __m512bh& b, const Sum& sum) { return _mm512_dpbf16_ps(sum, a, b); }
    static void store(Total* to, const Sum& sum) { _mm512_storeu_ps(to, sum); }
};

inline constexpr TileKernel<bfloat16, bfloat16, float> pairs = TileKernels<PairDot>::kernel;

}  // namespace tandem::inline TANDEM_ABI::kernels::avx512bf16

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

namespace tandem::inline TANDEM_ABI::kernels::avx512vnni {

#include <tandem/kernels/vector_kernels.ipp>

struct ByteDot {
    using A = std::uint8_t;
    using B = std::int8_t;
    using Sum = __m512i;
    using Total = std::int32_t;
    static constexpr std::size_t lanes = 16, tile_rows = 14, group = 4;

    static Sum zero() { return _mm512_setzero_si512(); }
    static __m512i load(const B* from) { return _mm512_loadu_si512(from); }
    static __m512i broadcast(const A* from) {
        int bytes;
        std::memcpy(&bytes, from, sizeof bytes);
        return _mm512_set1_epi32(bytes);
    }
    static Sum dot(const __m512i& a, const __m512i& b, const Sum& sum) { return _mm512_dpbusd_epi32(sum, a, b); }
    static void store(Total* to, const Sum& sum) { _mm512_storeu_si512(to, sum); }
};

inline constexpr TileKernel<std::uint8_t, std::int8_t, std::int32_t> bytes = TileKernels<ByteDot>::kernel;

}  // namespace tandem::inline TANDEM_ABI::kernels::avx512vnni

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

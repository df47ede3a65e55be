// The loops of image preprocessing for AVX-512 with its byte products (VNNI).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <tandem/kernels/resize_avx2.hpp>

#if defined(__x86_64__)

// (FMA is named because g++ inlines no function into one of fewer instruction sets, and AVX-512 does not imply it.)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), \
                             apply_to = function)
#else
// g++ 12 takes the undefined operand of AVX-512 intrinsics for an uninitialised read (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

namespace tandem::inline TANDEM_ABI::kernels {

namespace resize_avx512 {

// Products of four bytes and four signed bytes summed at once (vpdpbusd) are exact: a weight is three signed digits.

/// Four weights: their lowest digits, the middle ones and the highest.
inline void pack(const std::int32_t* weights, std::int32_t* packed) {
    // Half a digit more makes every digit unsigned; flipping its highest bit takes the half away again.
    constexpr std::uint32_t halves = 0x808080;
    std::array<std::uint32_t, 3> words{};
    for (unsigned i = 0; i < 4; ++i) {
        const std::uint32_t digits = (static_cast<std::uint32_t>(weights[i]) + halves) ^ halves;
        for (unsigned d = 0; d < 3; ++d) words[d] |= (digits >> (8 * d) & 0xff) << (8 * i);
    }
    for (std::size_t d = 0; d < 3; ++d) packed[d] = static_cast<std::int32_t>(words[d]);
}

/// Sixteen outputs' sums, a part for each digit.
struct Sums {
    __m512i low;
    __m512i middle;
    __m512i high;

    /// Adds quadruples of bytes times packed weights.
    void add(__m512i quadruples, const std::int32_t* packed) {
        low = _mm512_dpbusd_epi32(low, quadruples, _mm512_set1_epi32(packed[0]));
        middle = _mm512_dpbusd_epi32(middle, quadruples, _mm512_set1_epi32(packed[1]));
        high = _mm512_dpbusd_epi32(high, quadruples, _mm512_set1_epi32(packed[2]));
    }
    __m512i rounded() const {
        const __m512i upper = _mm512_add_epi32(_mm512_slli_epi32(middle, 8), _mm512_slli_epi32(high, 16));
        return _mm512_srai_epi32(_mm512_add_epi32(low, upper), resize_weight_bits);
    }
};

inline Sums no_sums() {
    return {_mm512_set1_epi32(resize_rounding), _mm512_setzero_si512(), _mm512_setzero_si512()};
}

/// Four vectors of outputs to bytes, clamped by saturation, in each quarter by itself.
inline __m512i to_bytes(__m512i a, __m512i b, __m512i c, __m512i d) {
    return _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
}

// (Written out, not as loops over arrays: g++ -O2 does not unroll those and keeps the arrays in memory.)

inline void down(const std::uint8_t* source, std::size_t stride, std::size_t bytes, const std::int32_t* packed,
                 std::size_t taps, std::uint8_t* out) {
    constexpr std::size_t block = 64;
    for (std::size_t begin = 0; begin < bytes; begin += block) {
        const __mmask64 present = ~std::uint64_t{0} >> (block - std::min(block, bytes - begin));
        Sums a = no_sums(), b = no_sums(), c = no_sums(), d = no_sums();
        const std::int32_t* weights = packed;
        for (std::size_t t = 0; t < taps; t += 4, weights += 3) {
            // (Taps that are missing have weight 0.)
            const __m512i first = _mm512_maskz_loadu_epi8(present, source + t * stride + begin);
            const __m512i second =
                _mm512_maskz_loadu_epi8(present, source + std::min(t + 1, taps - 1) * stride + begin);
            const __m512i third = _mm512_maskz_loadu_epi8(present, source + std::min(t + 2, taps - 1) * stride + begin);
            const __m512i fourth =
                _mm512_maskz_loadu_epi8(present, source + std::min(t + 3, taps - 1) * stride + begin);
            const __m512i left_front = _mm512_unpacklo_epi8(first, second);
            const __m512i right_front = _mm512_unpackhi_epi8(first, second);
            const __m512i left_back = _mm512_unpacklo_epi8(third, fourth);
            const __m512i right_back = _mm512_unpackhi_epi8(third, fourth);
            a.add(_mm512_unpacklo_epi16(left_front, left_back), weights);
            b.add(_mm512_unpackhi_epi16(left_front, left_back), weights);
            c.add(_mm512_unpacklo_epi16(right_front, right_back), weights);
            d.add(_mm512_unpackhi_epi16(right_front, right_back), weights);
        }
        _mm512_mask_storeu_epi8(out + begin, present, to_bytes(a.rounded(), b.rounded(), c.rounded(), d.rounded()));
    }
}

inline __m512i load_quarters(const std::uint8_t* a, const std::uint8_t* b, const std::uint8_t* c,
                             const std::uint8_t* d) {
    __m512i all = _mm512_castsi128_si512(resize_avx2::load_half(a));
    all = _mm512_inserti32x4(all, resize_avx2::load_half(b), 1);
    all = _mm512_inserti32x4(all, resize_avx2::load_half(c), 2);
    return _mm512_inserti32x4(all, resize_avx2::load_half(d), 3);
}

/// One output of four rows: red, green, blue and nothing, in each quarter. The four taps of a group are 12 of the 16
/// bytes that are loaded.
inline __m512i weigh_pixel(const std::array<const std::uint8_t*, resize_rows>& rows, const ResizeTaps& output,
                           const std::int32_t* packed) {
    const __m512i channels =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1));
    Sums sums = no_sums();
    packed += output.packed;
    for (std::size_t t = 0, at = 3 * output.first; t < output.taps; t += 4, at += 12, packed += 3) {
        const __m512i bytes = load_quarters(rows[0] + at, rows[1] + at, rows[2] + at, rows[3] + at);
        sums.add(_mm512_shuffle_epi8(bytes, channels), packed);
    }
    return sums.rounded();
}

inline void across(const std::array<const std::uint8_t*, resize_rows>& rows, const ResizeTaps* outputs,
                   std::size_t count, const std::int32_t* packed, const std::array<std::uint8_t*, resize_rows>& out) {
    for (std::size_t x = 0; x < count; x += 4) {
        const __m512i bytes = to_bytes(weigh_pixel(rows, outputs[x], packed),
                                       weigh_pixel(rows, outputs[std::min(x + 1, count - 1)], packed),
                                       weigh_pixel(rows, outputs[std::min(x + 2, count - 1)], packed),
                                       weigh_pixel(rows, outputs[std::min(x + 3, count - 1)], packed));
        resize_avx2::store_pixels(_mm512_castsi512_si128(bytes), count - x, out[0] + 3 * x);
        resize_avx2::store_pixels(_mm512_extracti32x4_epi32(bytes, 1), count - x, out[1] + 3 * x);
        resize_avx2::store_pixels(_mm512_extracti32x4_epi32(bytes, 2), count - x, out[2] + 3 * x);
        resize_avx2::store_pixels(_mm512_extracti32x4_epi32(bytes, 3), count - x, out[3] + 3 * x);
    }
}

// (Normalising writes 12 bytes for each that it reads, and wider stores would not be aligned.)
inline constexpr ResizeKernels kernels{4, 3, pack, down, across, resize_avx2::normalise};

}  // namespace resize_avx512

}  // namespace tandem::inline TANDEM_ABI::kernels

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#pragma GCC diagnostic pop
#endif

#endif

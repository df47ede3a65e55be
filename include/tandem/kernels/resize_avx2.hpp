// The loops of image preprocessing for AVX2 and FMA.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <tandem/kernels/resize_scalar.hpp>
#include <tandem/kernels/resize_set.hpp>

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace tandem::inline TANDEM_ABI::kernels {

namespace resize_avx2 {

// 16-bit products summed in pairs (vpmaddwd) are exact: a weight is high * 2^15 + low with 0 <= low < 2^15.
inline constexpr int low_bits = 15;

/// Four weights: the low halves of two, their high halves, and the same of the other two.
inline void pack(const std::int32_t* weights, std::int32_t* packed) {
    constexpr std::int32_t low = (1 << low_bits) - 1;
    for (std::size_t i = 0; i < 4; i += 2) {
        packed[i] = (weights[i] & low) | (weights[i + 1] & low) << 16;
        packed[i + 1] = (weights[i] >> low_bits & 0xffff) | weights[i + 1] >> low_bits << 16;
    }
}

inline __m128i load_half(const void* from) {
    return _mm_loadu_si128(static_cast<const __m128i*>(from));
}

inline __m256i load_halves(const void* low, const void* high) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load_half(low)), load_half(high), 1);
}

/// Eight outputs' sums, in two parts.
struct Sums {
    __m256i low;
    __m256i high;

    /// Adds pairs of 16-bit values times a packed pair of weights.
    void add(__m256i pairs, const std::int32_t* packed) {
        low = _mm256_add_epi32(low, _mm256_madd_epi16(pairs, _mm256_set1_epi32(packed[0])));
        high = _mm256_add_epi32(high, _mm256_madd_epi16(pairs, _mm256_set1_epi32(packed[1])));
    }
    __m256i rounded() const {
        return _mm256_srai_epi32(_mm256_add_epi32(low, _mm256_slli_epi32(high, low_bits)), resize_weight_bits);
    }
};

inline Sums no_sums() {
    return {_mm256_set1_epi32(resize_rounding), _mm256_setzero_si256()};
}

/// Four vectors of outputs to bytes, clamped by saturation, in each half by itself.
inline __m256i to_bytes(__m256i a, __m256i b, __m256i c, __m256i d) {
    return _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
}

inline constexpr std::size_t down_block = 32;

inline __m256i load_bytes(const std::uint8_t* from, std::size_t count) {
    alignas(__m256i) std::array<std::uint8_t, down_block> bytes{};
    if (count == down_block) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    std::memcpy(bytes.data(), from, count);
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes.data()));
}

inline void down(const std::uint8_t* source, std::size_t stride, std::size_t bytes, const std::int32_t* packed,
                 std::size_t taps, std::uint8_t* out) {
    const __m256i zero = _mm256_setzero_si256();
    for (std::size_t begin = 0; begin < bytes; begin += down_block) {
        // The last block of a row is its last 32 bytes, some of which are written twice.
        if (begin + down_block > bytes && bytes >= down_block) begin = bytes - down_block;
        const std::size_t count = std::min(down_block, bytes - begin);
        Sums a = no_sums(), b = no_sums(), c = no_sums(), d = no_sums();
        for (std::size_t t = 0; t < taps; t += 2) {
            // (A second tap that is missing has weight 0.)
            const __m256i first = load_bytes(source + t * stride + begin, count);
            const __m256i second = load_bytes(source + std::min(t + 1, taps - 1) * stride + begin, count);
            const __m256i left = _mm256_unpacklo_epi8(first, second), right = _mm256_unpackhi_epi8(first, second);
            a.add(_mm256_unpacklo_epi8(left, zero), packed + t);
            b.add(_mm256_unpackhi_epi8(left, zero), packed + t);
            c.add(_mm256_unpacklo_epi8(right, zero), packed + t);
            d.add(_mm256_unpackhi_epi8(right, zero), packed + t);
        }
        alignas(__m256i) std::array<std::uint8_t, down_block> result;
        _mm256_store_si256(reinterpret_cast<__m256i*>(result.data()),
                           to_bytes(a.rounded(), b.rounded(), c.rounded(), d.rounded()));
        std::memcpy(out + begin, result.data(), count);
    }
}

/// One output of two rows: red, green, blue and nothing, in each half. The four taps of a group are 12 of the 16 bytes
/// that are loaded.
inline __m256i weigh_pixel(const std::uint8_t* first_row, const std::uint8_t* second_row, const ResizeTaps& output,
                           const std::int32_t* packed) {
    // The first two pixels of a group and the other two, as pairs of 16-bit values for each channel.
    const __m256i front =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m256i back =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
    Sums sums = no_sums();
    packed += output.packed;
    for (std::size_t t = 0, at = 3 * output.first; t < output.taps; t += 4, at += 12, packed += 4) {
        const __m256i bytes = load_halves(first_row + at, second_row + at);
        sums.add(_mm256_shuffle_epi8(bytes, front), packed);
        sums.add(_mm256_shuffle_epi8(bytes, back), packed + 2);
    }
    return sums.rounded();
}

/// Four pixels, or the last `left` of a row, from groups of four bytes of which the last means nothing.
inline void store_pixels(__m128i pixels, std::size_t left, std::uint8_t* out) {
    const __m128i packed =
        _mm_shuffle_epi8(pixels, _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
    // The next pixels overwrite the four bytes too many.
    if (3 * left >= sizeof packed) return _mm_storeu_si128(reinterpret_cast<__m128i*>(out), packed);
    alignas(__m128i) std::array<std::uint8_t, sizeof packed> bytes;
    _mm_store_si128(reinterpret_cast<__m128i*>(bytes.data()), packed);
    std::memcpy(out, bytes.data(), 3 * std::min<std::size_t>(left, 4));
}

/// Four outputs of two rows.
inline void across_two(const std::uint8_t* first_row, const std::uint8_t* second_row, const ResizeTaps* outputs,
                       std::size_t left, const std::int32_t* packed, std::uint8_t* first_out,
                       std::uint8_t* second_out) {
    const std::size_t last = left - 1;
    const __m256i bytes = to_bytes(weigh_pixel(first_row, second_row, outputs[0], packed),
                                   weigh_pixel(first_row, second_row, outputs[std::min<std::size_t>(1, last)], packed),
                                   weigh_pixel(first_row, second_row, outputs[std::min<std::size_t>(2, last)], packed),
                                   weigh_pixel(first_row, second_row, outputs[std::min<std::size_t>(3, last)], packed));
    store_pixels(_mm256_castsi256_si128(bytes), left, first_out);
    store_pixels(_mm256_extracti128_si256(bytes, 1), left, second_out);
}

inline void across(const std::array<const std::uint8_t*, resize_rows>& rows, const ResizeTaps* outputs,
                   std::size_t count, const std::int32_t* packed, const std::array<std::uint8_t*, resize_rows>& out) {
    for (std::size_t x = 0; x < count; x += 4) {
        across_two(rows[0], rows[1], outputs + x, count - x, packed, out[0] + 3 * x, out[1] + 3 * x);
        across_two(rows[2], rows[3], outputs + x, count - x, packed, out[2] + 3 * x, out[3] + 3 * x);
    }
}

/// a * (high + low): a division by the number whose inverse that is, nearly always with its rounding.
inline __m256 multiply(__m256 a, const std::array<float, 2>& inverse) {
    return _mm256_fmadd_ps(a, _mm256_set1_ps(inverse[0]), _mm256_mul_ps(a, _mm256_set1_ps(inverse[1])));
}

/// One channel of eight pixels, whose reds' places in their half are given, each beside three of -1.
inline void normalise_channel(__m256i bytes, __m256i red, const NormaliseTable& table, std::size_t channel,
                              float* out) {
    const __m256i places = _mm256_add_epi8(red, _mm256_set1_epi32(static_cast<int>(channel)));
    const __m256 value = _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, places));
    const __m256 centred = _mm256_sub_ps(multiply(value, level_inverse), _mm256_set1_ps(table.mean[channel]));
    _mm256_storeu_ps(out, multiply(centred, table.inverse[channel]));
}

inline void normalise(const std::uint8_t* pixels, std::size_t count, const NormaliseTable& table, float* planes,
                      std::size_t stride) {
    const std::size_t whole = table.computable ? count / 8 * 8 : 0;
    // Pixels 0 to 3 are the first 12 of 16 bytes, pixels 4 to 7 the last 12.
    const __m256i red = _mm256_setr_epi8(0, -1, -1, -1, 3, -1, -1, -1, 6, -1, -1, -1, 9, -1, -1, -1,  //
                                         4, -1, -1, -1, 7, -1, -1, -1, 10, -1, -1, -1, 13, -1, -1, -1);
    for (std::size_t i = 0; i < whole; i += 8) {
        const __m256i bytes = load_halves(pixels + 3 * i, pixels + 3 * i + 8);
        normalise_channel(bytes, red, table, 0, planes + i);
        normalise_channel(bytes, red, table, 1, planes + stride + i);
        normalise_channel(bytes, red, table, 2, planes + 2 * stride + i);
    }
    resize_scalar::normalise(pixels + 3 * whole, count - whole, table, planes + whole, stride);
}

inline constexpr ResizeKernels kernels{4, 4, pack, down, across, normalise};

}  // namespace resize_avx2

}  // namespace tandem::inline TANDEM_ABI::kernels

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif

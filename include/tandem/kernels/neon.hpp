// NEON kernels: what every 64-bit Arm CPU has, and the bfloat16 and dot-product instructions of newer ones.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include <tandem/core/dtype.hpp>
#include <tandem/kernels/kernel_set.hpp>

#if defined(__aarch64__)
#include <arm_neon.h>

namespace tandem::inline TANDEM_ABI::kernels::neon {

struct Vector {
    using element = float;
    static constexpr std::size_t lanes = 4;
    static constexpr std::size_t tile_rows = 10;  // from 11 on, g++ 12 keeps some sums in memory

    float32x4_t value;

    Vector() = default;
    Vector(float32x4_t v) : value(v) {}
    explicit Vector(float x) : value(vdupq_n_f32(x)) {}

    static Vector load(const float* from) { return vld1q_f32(from); }
    static Vector load(const float* from, std::size_t count) {
        float lane[lanes]{};
        for (std::size_t i = 0; i < count; ++i) lane[i] = from[i];
        return load(lane);
    }
    void store(float* to) const { vst1q_f32(to, value); }
    void store(float* to, std::size_t count) const {
        float lane[lanes];
        store(lane);
        for (std::size_t i = 0; i < count; ++i) to[i] = lane[i];
    }

    static Vector difference_of_products(const std::int32_t* sums, std::int32_t factor, const std::int32_t* others) {
        return vcvtq_f32_s32(vmlsq_s32(vld1q_s32(sums), vdupq_n_s32(factor), vld1q_s32(others)));
    }
    void store_bytes(std::uint8_t* to, std::size_t count) const {
        const uint16x4_t words = vmovn_u32(vreinterpretq_u32_s32(vcvtnq_s32_f32(value)));
        std::uint8_t bytes[8];
        vst1_u8(bytes, vmovn_u16(vcombine_u16(words, words)));
        std::memcpy(to, bytes, count);
    }
    /// As bfloat16's constructor rounds.
    uint16x4_t narrow() const {
        const uint32x4_t word = vreinterpretq_u32_f32(value);
        const uint32x4_t odd = vandq_u32(vshrq_n_u32(word, 16), vdupq_n_u32(1));
        const uint32x4_t rounded = vaddq_u32(word, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
        const uint32x4_t quiet = vorrq_u32(word, vdupq_n_u32(0x00400000));
        return vshrn_n_u32(vbslq_u32(vceqq_f32(value, value), rounded, quiet), 16);
    }
    void store_narrow(bfloat16* to, std::size_t count) const {
        std::uint16_t bits[lanes];
        vst1_u16(bits, narrow());
        std::memcpy(static_cast<void*>(to), bits, count * sizeof(bfloat16));
    }
    static void store_narrow_pairs(const Vector& first, const Vector& second, bfloat16* to, std::size_t count) {
        std::uint16_t bits[2 * lanes];
        vst2_u16(bits, uint16x4x2_t{{first.narrow(), second.narrow()}});
        std::memcpy(static_cast<void*>(to), bits, 2 * count * sizeof(bfloat16));
    }

    static Vector load(const bfloat16* from, std::size_t count) {
        return vreinterpretq_f32_u32(vshll_n_u16(words(from, count), 16));
    }
    static void store_pairs(const bfloat16* first, const bfloat16* second, bfloat16* to, std::size_t count) {
        std::uint16_t bits[2 * lanes];
        vst2_u16(bits, uint16x4x2_t{{words(first, count), words(second, count)}});
        std::memcpy(static_cast<void*>(to), bits, 2 * count * sizeof(bfloat16));
    }
    static Vector reciprocal(const Vector& x) {
        const float32x4_t estimate = vrecpeq_f32(x.value);
        return vmulq_f32(estimate, vrecpsq_f32(x.value, estimate));
    }

private:
    static uint16x4_t words(const bfloat16* from, std::size_t count) {
        std::uint16_t bits[lanes]{};
        std::memcpy(bits, static_cast<const void*>(from), count * sizeof(bfloat16));
        return vld1_u16(bits);
    }
};

inline Vector operator+(const Vector& a, const Vector& b) {
    return vaddq_f32(a.value, b.value);
}
inline Vector operator-(const Vector& a, const Vector& b) {
    return vsubq_f32(a.value, b.value);
}
inline Vector operator*(const Vector& a, const Vector& b) {
    return vmulq_f32(a.value, b.value);
}
inline Vector operator/(const Vector& a, const Vector& b) {
    return vdivq_f32(a.value, b.value);
}
inline Vector fma(const Vector& a, const Vector& b, const Vector& c) {
    return vfmaq_f32(c.value, a.value, b.value);
}
inline Vector min(const Vector& a, const Vector& b) {
    return vminq_f32(a.value, b.value);
}
inline Vector max(const Vector& a, const Vector& b) {
    return vmaxq_f32(a.value, b.value);
}
inline Vector round(const Vector& a) {
    return vrndnq_f32(a.value);
}
/// a · 2^power, for powers of -252 to 254: in two steps, so that what is too small becomes subnormal, then zero.
inline Vector scale_by_power(const Vector& a, const Vector& power) {
    const int32x4_t whole = vcvtnq_s32_f32(power.value), half = vshrq_n_s32(whole, 1), bias = vdupq_n_s32(127);
    const float32x4_t first = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
    const float32x4_t second = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23));
    return vmulq_f32(vmulq_f32(a.value, first), second);
}

#include <tandem/kernels/vector_kernels.ipp>

inline constexpr KernelSet<float> kernel_set = VectorKernels<Vector>::set("neon");

/// A float is a bfloat16 with sixteen zero bits behind it.
struct WidenedDot {
    using A = float;
    using B = bfloat16;
    using Sum = float32x4_t;
    using Total = float;
    static constexpr std::size_t lanes = 4, tile_rows = 8, group = 2;
    struct Pair {
        float32x4_t even, odd;
    };

    static Sum zero() { return vdupq_n_f32(0); }
    static Sum sums(const Total* from) { return vld1q_f32(from); }
    static Pair load(const B* from) {
        const uint32x4_t pairs = vreinterpretq_u32_u8(vld1q_u8(reinterpret_cast<const std::uint8_t*>(from)));
        return {vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16)),
                vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xffff0000u)))};
    }
    static Pair broadcast(const A* from) { return {vdupq_n_f32(from[0]), vdupq_n_f32(from[1])}; }
    static Sum dot(const Pair& a, const Pair& b, const Sum& sum) {
        return vfmaq_f32(vfmaq_f32(sum, a.even, b.even), a.odd, b.odd);
    }
    static void store(Total* to, const Sum& sum) { vst1q_f32(to, sum); }
};

/// The tile of a dot product of signed bytes, made one for an unsigned left operand: 128 is taken from the left bytes,
/// and 128 times the sums of the right operand's columns added to the result. All of it is exact.
template <class Tile>
struct OffsetTile {
    static_assert(Tile::columns == 8);

    static void multiply(std::size_t rows, std::size_t groups, const std::uint8_t* a, std::size_t a_row,
                         std::size_t a_group, const std::int8_t* b, std::int32_t* out, const void* ahead, bool onto) {
        Tile::multiply(rows, groups, a, a_row, a_group, b, out, ahead, onto);
        int32x4_t left = vdupq_n_s32(0), right = left;
        for (std::size_t g = 0; g < groups; ++g, b += 32) {
            left = vpadalq_s16(left, vpaddlq_s8(vld1q_s8(b)));
            right = vpadalq_s16(right, vpaddlq_s8(vld1q_s8(b + 16)));
        }
        for (std::size_t i = 0; i < rows; ++i, out += 8) {
            vst1q_s32(out, vaddq_s32(vld1q_s32(out), vshlq_n_s32(left, 7)));
            vst1q_s32(out + 4, vaddq_s32(vld1q_s32(out + 4), vshlq_n_s32(right, 7)));
        }
    }

    static constexpr TileKernel<std::uint8_t, std::int8_t, std::int32_t> kernel{Tile::kernel.rows, Tile::columns,
                                                                                Tile::kernel.group, multiply};
};

/// Signed bytes as 16-bit products: the sum of two fits as well, the right bytes being within ±127.
struct WideningBytes {
    using A = std::uint8_t;
    using B = std::int8_t;
    using Sum = int32x4_t;
    using Total = std::int32_t;
    static constexpr std::size_t lanes = 4, tile_rows = 8, group = 4;

    static Sum zero() { return vdupq_n_s32(0); }
    static int8x16_t load(const B* from) { return vld1q_s8(from); }
    static int8x16_t broadcast(const A* from) {
        std::uint32_t bytes;
        std::memcpy(&bytes, from, sizeof bytes);
        return vreinterpretq_s8_u32(vdupq_n_u32(bytes ^ 0x80808080u));
    }
    static Sum dot(const int8x16_t& a, const int8x16_t& b, const Sum& sum) {
        const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
        return vpadalq_s16(sum, vpaddq_s16(low, high));
    }
    static void store(Total* to, const Sum& sum) { vst1q_s32(to, sum); }
};

inline constexpr ReducedKernels reduced_kernels{.pairs = {.rows = 0, .columns = 8, .group = 2, .multiply = nullptr},
                                                .widened = TileKernels<WidenedDot>::kernel,
                                                .narrow = Conversions<Vector>::narrow,
                                                .narrow_pairs = Conversions<Vector>::narrow_pairs,
                                                .bytes = OffsetTile<TileKernels<WideningBytes>>::kernel,
                                                .quantise = Conversions<Vector>::quantise<float>,
                                                .finish_bytes = Conversions<Vector>::finish_bytes};

}  // namespace tandem::inline TANDEM_ABI::kernels::neon

// The dot products below take their left operand by element: four bytes in the low lane of a register. g++ knows them
// from Armv8.2 on, which a build for Armv9 already is; naming the architecture would lower that.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("bf16"))), apply_to = function)
#else
#pragma GCC push_options
#if __ARM_ARCH > 8
#pragma GCC target("+bf16")
#else
#pragma GCC target("arch=armv8.2-a+bf16")
#endif
#endif

namespace tandem::inline TANDEM_ABI::kernels::neonbf16 {

#include <tandem/kernels/vector_kernels.ipp>

/// Pairs of bfloat16, summed in float32; subnormal inputs and results count as zero, and sums round to odd unless the
/// CPU is set to extended behaviour (Arm Architecture Reference Manual, BFDOT).
struct PairDot {
    using A = bfloat16;
    using B = bfloat16;
    using Sum = float32x4_t;
    using Total = float;
    static constexpr std::size_t lanes = 4, tile_rows = 12, group = 2;

    static Sum zero() { return vdupq_n_f32(0); }
    static Sum sums(const Total* from) { return vld1q_f32(from); }
    static bfloat16x8_t load(const B* from) {
        return vreinterpretq_bf16_u8(vld1q_u8(reinterpret_cast<const std::uint8_t*>(from)));
    }
    static bfloat16x4_t broadcast(const A* from) {
        float pair;
        std::memcpy(&pair, from, sizeof pair);
        return vreinterpret_bf16_f32(float32x2_t{pair, 0});
    }
    static Sum dot(const bfloat16x4_t& a, const bfloat16x8_t& b, const Sum& sum) {
        return vbfdotq_lane_f32(sum, b, a, 0);
    }
    static void store(Total* to, const Sum& sum) { vst1q_f32(to, sum); }
};

inline constexpr TileKernel<bfloat16, bfloat16, float> pairs = TileKernels<PairDot>::kernel;

}  // namespace tandem::inline TANDEM_ABI::kernels::neonbf16

#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#if __ARM_ARCH > 8
#pragma GCC target("+dotprod")
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#endif

namespace tandem::inline TANDEM_ABI::kernels::neondot {

#include <tandem/kernels/vector_kernels.ipp>

struct SignedDot {
    using A = std::uint8_t;
    using B = std::int8_t;
    using Sum = int32x4_t;
    using Total = std::int32_t;
    static constexpr std::size_t lanes = 4, tile_rows = 8, group = 4;

    static Sum zero() { return vdupq_n_s32(0); }
    static int8x16_t load(const B* from) { return vld1q_s8(from); }
    static int8x8_t broadcast(const A* from) {
        float bytes;
        std::memcpy(&bytes, from, sizeof bytes);
        return vreinterpret_s8_u8(veor_u8(vreinterpret_u8_f32(float32x2_t{bytes, 0}), vdup_n_u8(128)));
    }
    static Sum dot(const int8x8_t& a, const int8x16_t& b, const Sum& sum) { return vdotq_lane_s32(sum, b, a, 0); }
    static void store(Total* to, const Sum& sum) { vst1q_s32(to, sum); }
};

inline constexpr TileKernel<std::uint8_t, std::int8_t, std::int32_t> bytes =
    neon::OffsetTile<TileKernels<SignedDot>>::kernel;

}  // namespace tandem::inline TANDEM_ABI::kernels::neondot

#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("i8mm"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#if __ARM_ARCH > 8
#pragma GCC target("+i8mm")
#else
#pragma GCC target("arch=armv8.2-a+i8mm")
#endif
#endif

namespace tandem::inline TANDEM_ABI::kernels::neoni8mm {

#include <tandem/kernels/vector_kernels.ipp>

struct MixedDot {
    using A = std::uint8_t;
    using B = std::int8_t;
    using Sum = int32x4_t;
    using Total = std::int32_t;
    static constexpr std::size_t lanes = 4, tile_rows = 12, group = 4;

    static Sum zero() { return vdupq_n_s32(0); }
    static int8x16_t load(const B* from) { return vld1q_s8(from); }
    static uint8x8_t broadcast(const A* from) {
        float bytes;
        std::memcpy(&bytes, from, sizeof bytes);
        return vreinterpret_u8_f32(float32x2_t{bytes, 0});
    }
    static Sum dot(const uint8x8_t& a, const int8x16_t& b, const Sum& sum) { return vsudotq_lane_s32(sum, b, a, 0); }
    static void store(Total* to, const Sum& sum) { vst1q_s32(to, sum); }
};

inline constexpr TileKernel<std::uint8_t, std::int8_t, std::int32_t> bytes = TileKernels<MixedDot>::kernel;

}  // namespace tandem::inline TANDEM_ABI::kernels::neoni8mm

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

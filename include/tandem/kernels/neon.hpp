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
    static constexpr std::size_t tile_rows = 14;  // 14 x 2 sums, 2 vectors of b and a broadcast fill the 32 registers

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
        std::int32_t integers[lanes];
        vst1q_s32(integers, vcvtnq_s32_f32(value));
        for (std::size_t i = 0; i < count; ++i) to[i] = static_cast<std::uint8_t>(integers[i]);
    }
    void store_narrow(bfloat16* to, std::size_t count) const {
        float floats[lanes];
        store(floats);
        for (std::size_t i = 0; i < count; ++i) to[i] = bfloat16(floats[i]);
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

// Σ and max over lanes in a fixed order, so that every caller gets the same bits.
inline float sum(const Vector& a) {
    alignas(64) float lane[Vector::lanes];
    a.store(lane);
    for (std::size_t half = Vector::lanes / 2; half > 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) lane[i] += lane[i + half];
    }
    return lane[0];
}
inline float largest(const Vector& a) {
    alignas(64) float lane[Vector::lanes];
    a.store(lane);
    float most = lane[0];
    for (std::size_t i = 1; i < Vector::lanes; ++i) most = lane[i] > most ? lane[i] : most;
    return most;
}

#include <tandem/kernels/vector_kernels.ipp>

inline constexpr KernelSet<float> kernel_set = VectorKernels<Vector>::set("neon");

/// A float is a bfloat16 with sixteen zero bits behind it.
struct WideningPairs {
    using A = bfloat16;
    using B = bfloat16;
    using Sum = float32x4_t;
    using Total = float;
    static constexpr std::size_t lanes = 4, tile_rows = 8, group = 2;
    struct Pair {
        float32x4_t even, odd;
    };

    static Sum zero() { return vdupq_n_f32(0); }
    static Pair split(uint32x4_t pairs) {
        return {vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16)),
                vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xffff0000u)))};
    }
    static Pair load(const B* from) {
        return split(vreinterpretq_u32_u8(vld1q_u8(reinterpret_cast<const std::uint8_t*>(from))));
    }
    static Pair broadcast(const A* from) {
        std::uint32_t pair;
        std::memcpy(&pair, from, sizeof pair);
        return split(vdupq_n_u32(pair));
    }
    static Sum dot(const Pair& a, const Pair& b, const Sum& sum) {
        return vfmaq_f32(vfmaq_f32(sum, a.even, b.even), a.odd, b.odd);
    }
    static void store(Total* to, const Sum& sum) { vst1q_f32(to, sum); }
};

/// Quadruples of bytes as products of 16-bit numbers.
struct WideningBytes {
    using A = std::uint8_t;
    using B = std::int8_t;
    using Sum = int32x4_t;
    using Total = std::int32_t;
    static constexpr std::size_t lanes = 4, tile_rows = 4, group = 4;
    struct Halves {
        int16x8_t low, high;
    };

    static Sum zero() { return vdupq_n_s32(0); }
    static Halves load(const B* from) {
        const int8x16_t bytes = vld1q_s8(from);
        return {vmovl_s8(vget_low_s8(bytes)), vmovl_s8(vget_high_s8(bytes))};
    }
    static Halves broadcast(const A* from) {
        std::uint32_t bytes;
        std::memcpy(&bytes, from, sizeof bytes);
        const int16x8_t wide = vreinterpretq_s16_u16(vmovl_u8(vcreate_u8(bytes | std::uint64_t{bytes} << 32)));
        return {wide, wide};
    }
    static int32x4_t products(int16x8_t a, int16x8_t b) {
        return vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_s16(vget_high_s16(a), vget_high_s16(b)));
    }
    static Sum dot(const Halves& a, const Halves& b, const Sum& sum) {
        return vaddq_s32(sum, vpaddq_s32(products(a.low, b.low), products(a.high, b.high)));
    }
    static void store(Total* to, const Sum& sum) { vst1q_s32(to, sum); }
};

inline constexpr ReducedKernels reduced_kernels{.pairs = TileKernels<WideningPairs>::kernel,
                                                .narrow = Conversions<Vector>::narrow,
                                                .bytes = TileKernels<WideningBytes>::kernel,
                                                .quantise = Conversions<Vector>::quantise,
                                                .dequantise = Conversions<Vector>::dequantise};

}  // namespace tandem::inline TANDEM_ABI::kernels::neon
#endif

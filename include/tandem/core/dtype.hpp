// Element types: float, double, bfloat16, and integer ids.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <type_traits>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// The upper half of a float: 8 exponent bits, 7 mantissa bits. A storage type; arithmetic happens in float.
class bfloat16 {
public:
    bfloat16() = default;

    /// Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
    TANDEM_DEVICE constexpr bfloat16(float value) {
        const auto word = std::bit_cast<std::uint32_t>(value);
        const bool is_nan = (word & 0x7fffffffU) > 0x7f800000U;
        const std::uint32_t rounded = is_nan ? (word | 0x00400000U) : word + 0x7fffU + ((word >> 16) & 1U);
        bits_ = static_cast<std::uint16_t>(rounded >> 16);
    }

    TANDEM_DEVICE constexpr operator float() const {
        return std::bit_cast<float>(static_cast<std::uint32_t>(bits_) << 16);
    }

    TANDEM_DEVICE constexpr std::uint16_t bits() const { return bits_; }

private:
    std::uint16_t bits_ = 0;
};

/// The short name users write: Clip<vit_b_32, bf16>.
using bf16 = bfloat16;

/// Weights of a model quantised to bytes: Clip<vit_b_32, int8>.
using int8 = std::int8_t;

/// Weights in float32 whose products are of bfloat16, in training too: open_clip's --precision amp_bf16. Sums, norms,
/// gradients and everything else stay float32. The name of an arithmetic, not of an element in memory.
struct amp_bf16 {};

/// Token ids and class labels.
using Id = std::int32_t;

/// Types that expressions, gradients and kernels compute in.
template <class T>
concept Real = std::same_as<T, float> || std::same_as<T, double>;

/// Types that a Tensor can hold.
template <class T>
concept Element = Real<T> || std::same_as<T, bfloat16> || std::same_as<T, int8> || std::same_as<T, Id>;

/// What a model can be made of.
template <class T>
concept Arithmetic = Real<T> || std::same_as<T, bfloat16> || std::same_as<T, int8> || std::same_as<T, amp_bf16>;

/// What a model that trains can be made of: bfloat16 has too few bits to add small updates to.
template <class T>
concept Trainable = Real<T> || std::same_as<T, amp_bf16>;

/// The type arithmetic on T happens in: float32 and float64 compute in themselves, the others in float32.
template <class T>
using Compute = std::conditional_t<Real<T> || std::same_as<T, Id>, T, float>;

/// The type that a model of T keeps what is no weight of a product in: a byte alone holds no embedding.
template <Arithmetic T>
using Stored = std::conditional_t<std::same_as<T, bfloat16>, bfloat16, Compute<T>>;

}  // namespace tandem::inline TANDEM_ABI

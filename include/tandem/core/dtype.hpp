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

/// Token ids and class labels.
using Id = std::int32_t;

template <class T>
concept Real = std::same_as<T, float> || std::same_as<T, double>;

template <class T>
concept Element = Real<T> || std::same_as<T, bfloat16> || std::same_as<T, int8> || std::same_as<T, Id>;

/// The type arithmetic on T happens in: bfloat16 and int8 compute in float, every other type in itself.
template <Element T>
using Compute = std::conditional_t<std::same_as<T, bfloat16> || std::same_as<T, int8>, float, T>;

/// The type that a model of T keeps what is no weight of a product in: a byte alone holds no embedding.
template <Element T>
using Stored = std::conditional_t<std::same_as<T, int8>, float, T>;

}  // namespace tandem::inline TANDEM_ABI

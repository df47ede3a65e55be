// What a safetensors file is made of: element types and described tensors.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

static_assert(std::endian::native == std::endian::little && sizeof(std::size_t) == 8,
              "safetensors files are read in place, which needs a 64-bit little-endian machine");

/// The element types a safetensors file may hold: the closed list of the reference (Dtype in safetensors/src/tensor.rs,
/// release 0.8.0), in its spelling and order. Values are stored little-endian.
enum class DataType : std::uint8_t {
    BOOL,
    F4,
    F6_E2M3,
    F6_E3M2,
    U8,
    I8,
    F8_E5M2,
    F8_E4M3,
    F8_E8M0,
    F8_E4M3FNUZ,
    F8_E5M2FNUZ,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64
};

namespace detail {

struct DataTypeEntry {
    std::string_view name;
    std::size_t bits;
};

/// In the order of DataType.
inline constexpr std::array<DataTypeEntry, 22> data_types{
    {{"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
     {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
     {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
     {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}}};

}  // namespace detail

/// Bits of one element; below 8 for the packed types.
constexpr std::size_t bits(DataType type) {
    return detail::data_types[static_cast<std::size_t>(type)].bits;
}

/// The type's spelling in a file's header.
constexpr std::string_view name(DataType type) {
    return detail::data_types[static_cast<std::size_t>(type)].name;
}

/// The type that stores T exactly.
template <class T>
constexpr DataType data_type_of() {
    if constexpr (std::is_same_v<T, float>) {
        return DataType::F32;
    } else if constexpr (std::is_same_v<T, double>) {
        return DataType::F64;
    } else if constexpr (std::is_same_v<T, bfloat16>) {
        return DataType::BF16;
    } else if constexpr (std::is_same_v<T, std::int32_t>) {
        return DataType::I32;
    } else if constexpr (std::is_same_v<T, std::int64_t>) {
        return DataType::I64;
    } else {
        static_assert(std::is_same_v<T, std::uint8_t>,
                      "A file stores float, double, bfloat16, std::int32_t, std::int64_t and std::uint8_t.");
        return DataType::U8;
    }
}

/// One tensor of a file: row-major elements of `type`, as bytes that belong to the file (or, when saving, to the
/// caller). The bytes need not be aligned to the element.
struct StoredTensor {
    std::string name;
    DataType type = DataType::F32;
    std::vector<std::size_t> shape;
    std::span<const std::byte> data;
};

namespace detail {

/// Bytes of a tensor. Nothing if they overflow 64 bits or end within a byte; like the reference, the product overflows
/// by its leading dimensions even where a later one is zero.
inline std::optional<std::size_t> byte_count(DataType type, std::span<const std::size_t> shape) {
    std::size_t total = 1;
    for (const std::size_t extent : shape)
        if (__builtin_mul_overflow(total, extent, &total)) return std::nullopt;
    if (__builtin_mul_overflow(total, bits(type), &total) || total % 8 != 0) return std::nullopt;
    return total / 8;
}

/// A name out of an untrusted file, fit for an error message: in quotes, short, without control characters.
inline std::string in_quotes(std::string_view text) {
    constexpr std::size_t limit = 100;
    std::string result = "'";
    for (const char c : text.substr(0, limit)) result += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
    return result + (text.size() > limit ? "...'" : "'");
}

inline std::string shape_text(std::span<const std::size_t> shape) {
    std::string result = "[";
    for (const std::size_t extent : shape.first(std::min<std::size_t>(shape.size(), 16)))
        result += (result.size() > 1 ? ", " : "") + std::to_string(extent);
    return result + (shape.size() > 16 ? ", ...]" : "]");
}

/// The positions of tensors in an order given at run time, so that a program compiles one sort for all of them.
inline std::vector<std::uint32_t> sorted_positions(std::span<const StoredTensor> tensors,
                                                   bool (*before)(const StoredTensor&, const StoredTensor&)) {
    std::vector<std::uint32_t> positions(tensors.size());
    std::iota(positions.begin(), positions.end(), 0U);
    std::sort(positions.begin(), positions.end(),
              [&](std::uint32_t a, std::uint32_t b) { return before(tensors[a], tensors[b]); });
    return positions;
}

/// The positions of tensors in the order of their names. Throws Error if two have the same.
inline std::vector<std::uint32_t> positions_by_name(std::span<const StoredTensor> tensors, std::string_view where) {
    auto positions =
        sorted_positions(tensors, [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
    for (std::size_t i = 1; i < positions.size(); ++i) {
        const std::string& name = tensors[positions[i]].name;
        if (name == tensors[positions[i - 1]].name)
            throw Error(where, "tensor " + in_quotes(name) + ": duplicate name");
    }
    return positions;
}

/// Length of the UTF-8 sequence at the start of the text (Unicode 15, table 3-7), 0 if it is malformed.
inline std::size_t utf8_sequence(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned>(static_cast<unsigned char>(text[i])); };
    const unsigned first = byte(0);
    if (first < 0x80) return 1;
    const std::size_t length = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (length == 0 || text.size() < length) return 0;
    const unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (byte(1) < low || byte(1) > high) return 0;
    for (std::size_t i = 2; i < length; ++i)
        if ((byte(i) & 0xc0U) != 0x80) return 0;
    return length;
}

// Bounds that keep the memory for a header, however hostile, below 16 MB. They are far above any real file.
inline constexpr std::size_t max_header_bytes = 100'000'000;  // the format's own
inline constexpr std::size_t max_string_bytes = std::size_t{1} << 19;
inline constexpr std::size_t max_gap_bytes = std::size_t{1} << 14;  // between two strings
inline constexpr std::size_t max_index_bytes = std::size_t{6} << 20;

/// Upper bound of the memory one tensor takes in the index, and of one metadata entry.
constexpr std::size_t index_cost(std::size_t name_bytes, std::size_t rank) {
    return sizeof(StoredTensor) + 64 + name_bytes + 2 * rank * sizeof(std::size_t);
}

}  // namespace detail

}  // namespace tandem::inline TANDEM_ABI

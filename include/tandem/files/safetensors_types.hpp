// What a safetensors file is made of: element types and described tensors.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <tandem/core/dtype.hpp>
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
    } else if constexpr (std::is_same_v<T, std::int8_t>) {
        return DataType::I8;
    } else {
        static_assert(std::is_same_v<T, std::uint8_t>,
                      "Tensors are of float, double, bfloat16, std::int32_t, std::int64_t, std::int8_t or std::uint8_t.");
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
std::optional<std::size_t> byte_count(DataType type, std::span<const std::size_t> shape);

std::string shape_text(std::span<const std::size_t> shape);

/// The positions of tensors in the order of their names. Throws Error if two have the same.
std::vector<std::uint32_t> positions_by_name(std::span<const StoredTensor> tensors, std::string_view where);

/// Length of the UTF-8 sequence at the start of the text (Unicode 15, table 3-7), 0 if it is malformed.
std::size_t utf8_sequence(std::string_view text);

/// A name out of an untrusted file, fit for an error message: in quotes, short, without control characters.
std::string in_quotes(std::string_view text);

/// The positions of tensors in an order given at run time, so that a program compiles one sort for all of them.
std::vector<std::uint32_t> sorted_positions(std::span<const StoredTensor> tensors,
                                            bool (*before)(const StoredTensor&, const StoredTensor&));

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

#if !defined(TANDEM_COMPILED)
#include <tandem/files/safetensors_types.impl.hpp>
#endif

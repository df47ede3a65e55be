// Definitions of files/safetensors_types.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/files/safetensors_types.hpp>

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE std::optional<std::size_t> byte_count(DataType type, std::span<const std::size_t> shape) {
    std::size_t total = 1;
    for (const std::size_t extent : shape)
        if (__builtin_mul_overflow(total, extent, &total)) return std::nullopt;
    if (__builtin_mul_overflow(total, bits(type), &total) || total % 8 != 0) return std::nullopt;
    return total / 8;
}

TANDEM_INLINE std::string in_quotes(std::string_view text) {
    constexpr std::size_t limit = 100;
    std::string result = "'";
    for (const char c : text.substr(0, limit)) result += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
    return result + (text.size() > limit ? "...'" : "'");
}

TANDEM_INLINE std::string shape_text(std::span<const std::size_t> shape) {
    std::string result = "[";
    for (const std::size_t extent : shape.first(std::min<std::size_t>(shape.size(), 16)))
        result += (result.size() > 1 ? ", " : "") + std::to_string(extent);
    return result + (shape.size() > 16 ? ", ...]" : "]");
}

TANDEM_INLINE std::vector<std::uint32_t> sorted_positions(std::span<const StoredTensor> tensors,
                                                          bool (*before)(const StoredTensor&, const StoredTensor&)) {
    std::vector<std::uint32_t> positions(tensors.size());
    std::iota(positions.begin(), positions.end(), 0U);
    std::sort(positions.begin(), positions.end(),
              [&](std::uint32_t a, std::uint32_t b) { return before(tensors[a], tensors[b]); });
    return positions;
}

TANDEM_INLINE std::vector<std::uint32_t> positions_by_name(std::span<const StoredTensor> tensors,
                                                           std::string_view where) {
    auto positions =
        sorted_positions(tensors, [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
    for (std::size_t i = 1; i < positions.size(); ++i) {
        const std::string& name = tensors[positions[i]].name;
        if (name == tensors[positions[i - 1]].name)
            throw Error(where, "tensor " + in_quotes(name) + ": duplicate name");
    }
    return positions;
}

TANDEM_INLINE std::size_t utf8_sequence(std::string_view text) {
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

}  // namespace tandem::inline TANDEM_ABI::detail

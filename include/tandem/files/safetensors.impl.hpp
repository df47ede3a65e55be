// Definitions of files/safetensors.hpp.
#pragma once

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/files/json.hpp>
#include <tandem/files/safetensors.hpp>
#include <tandem/files/safetensors_header.hpp>
#include <tandem/files/safetensors_types.hpp>

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE Safetensors Safetensors::open(const std::filesystem::path& path) {
    MappedFile file(path);
    Safetensors result = parse(file.bytes(), path.string());
    result.file_ = std::move(file);
    return result;
}

TANDEM_INLINE Safetensors Safetensors::parse(std::span<const std::byte> bytes, std::string_view where) {
    return Safetensors(detail::read_header(bytes, where));
}

TANDEM_INLINE const StoredTensor* Safetensors::find(std::string_view name) const {
    const auto found =
        std::lower_bound(header_.by_name.begin(), header_.by_name.end(), name,
                         [&](std::uint32_t i, std::string_view sought) { return header_.tensors[i].name < sought; });
    if (found == header_.by_name.end() || header_.tensors[*found].name != name) return nullptr;
    return &header_.tensors[*found];
}

TANDEM_INLINE void Safetensors::forget(const StoredTensor& tensor) const {
    if (file_) file_->forget(tensor.data);
}

}  // namespace tandem::inline TANDEM_ABI

namespace tandem::inline TANDEM_ABI::detail {

/// IEEE 754 binary16 to binary32, exact; NaN payloads are kept.
TANDEM_INLINE float half_to_float(std::uint16_t half) {
    const std::uint32_t sign = (half & 0x8000U) << 16;
    const std::uint32_t exponent = (half >> 10) & 0x1fU;
    const std::uint32_t mantissa = half & 0x3ffU;
    if (exponent == 0) {
        const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
        return sign == 0 ? magnitude : -magnitude;
    }
    const std::uint32_t wide = exponent == 0x1f ? 0xffU : exponent + (127 - 15);
    return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}

TANDEM_INLINE void check_size(const StoredTensor& tensor) {
    if (byte_count(tensor.type, tensor.shape) != tensor.data.size())
        throw Error(tensor.name,
                    "data of shape " + shape_text(tensor.shape) + " and type " + std::string(name(tensor.type)),
                    std::to_string(tensor.data.size()) + " bytes");
}

/// Appends a JSON string. Throws Error if it is not UTF-8 or longer than the reader takes.
TANDEM_INLINE void append_header_string(std::string& json, std::string_view text, std::string_view where) {
    const std::size_t begin = json.size();
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t length = utf8_sequence(text.substr(i));
        if (length == 0) throw Error(where, "name or metadata " + in_quotes(text) + " is not UTF-8");
        i += length;
    }
    append_json_string(json, text);
    if (json.size() - begin > max_string_bytes)
        throw Error(where, "name or metadata " + in_quotes(text) + " is longer than 512 KiB");
}

/// The header for tensors in this order, its eight length bytes included, padded so that the data is aligned.
TANDEM_INLINE std::string header_for(std::span<const StoredTensor* const> tensors,
                                     const std::map<std::string, std::string>& metadata, std::size_t alignment,
                                     std::string_view where) {
    std::string json = "{";
    std::size_t cost = 0;
    if (!metadata.empty()) {
        json += "\"__metadata__\":{";
        for (const auto& [key, value] : metadata) {
            if (json.back() != '{') json += ',';
            append_header_string(json, key, where);
            json += ':';
            append_header_string(json, value, where);
            cost += index_cost(key.size() + value.size(), 0);
        }
        json += '}';
    }
    std::size_t offset = 0;
    for (const StoredTensor* tensor : tensors) {
        if (json.size() > 1) json += ',';
        append_header_string(json, tensor->name, where);
        json.append(":{\"dtype\":\"").append(name(tensor->type)).append("\",\"shape\":[");
        for (const std::size_t extent : tensor->shape) {
            if (json.back() != '[') json += ',';
            json += std::to_string(extent);
        }
        json += "],\"data_offsets\":[" + std::to_string(offset) + ',';
        offset += tensor->data.size();
        json += std::to_string(offset) + "]}";
        cost += index_cost(tensor->name.size(), tensor->shape.size());
    }
    json += '}';
    json.append((alignment - (sizeof(std::uint64_t) + json.size()) % alignment) % alignment, ' ');
    if (cost > max_index_bytes) throw Error(where, "names, shapes and metadata take more than 6 MiB");
    const std::uint64_t length = json.size();
    std::string result(sizeof(length), '\0');
    std::memcpy(result.data(), &length, sizeof(length));
    return result + json;
}

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE void save_safetensors(const std::filesystem::path& path, std::span<const StoredTensor> tensors,
                                    const std::map<std::string, std::string>& metadata, std::size_t alignment) {
    const std::string where = path.string();
    for (const StoredTensor& tensor : tensors) {
        if (tensor.name == "__metadata__") throw Error(where, "a tensor cannot have the reserved name '__metadata__'");
        if (detail::byte_count(tensor.type, tensor.shape) != tensor.data.size())
            throw Error(where, "tensor " + detail::in_quotes(tensor.name) + ": " + std::string(name(tensor.type)) +
                                   " " + detail::shape_text(tensor.shape) + " does not take " +
                                   std::to_string(tensor.data.size()) + " bytes");
    }
    detail::positions_by_name(tensors, where);
    const auto before = [](const StoredTensor& a, const StoredTensor& b) {
        return bits(a.type) != bits(b.type) ? bits(a.type) > bits(b.type) : &a < &b;
    };
    std::vector<const StoredTensor*> order;
    for (const std::uint32_t i : detail::sorted_positions(tensors, before)) order.push_back(&tensors[i]);

    const std::string header = detail::header_for(order, metadata, alignment, where);
    std::vector<std::span<const std::byte>> parts{std::as_bytes(std::span<const char>(header))};
    for (const StoredTensor* tensor : order) parts.push_back(tensor->data);
    write_file_atomically(path, parts);
}

namespace detail {

/// Copies elements of type Stored, aligned or not, through `convert(value, index)`.
template <class Stored, class T, class Convert>
void convert_elements(std::span<const std::byte> data, std::span<T> out, Convert convert) {
    for (std::size_t i = 0; i < out.size(); ++i) {
        Stored value;
        std::memcpy(&value, data.data() + i * sizeof(Stored), sizeof(Stored));
        out[i] = convert(value, i);
    }
}

}  // namespace detail

template <StoredElement T>
void read_elements(const StoredTensor& tensor, std::span<T> out) {
    detail::check_size(tensor);
    const std::size_t count = tensor.data.size() * 8 / bits(tensor.type);
    if (out.size() != count)
        throw Error(tensor.name, std::to_string(out.size()) + " elements",
                    std::to_string(count) + " (shape " + detail::shape_text(tensor.shape) + ")");
    if (tensor.type == data_type_of<T>()) {
        if (!out.empty()) std::memcpy(out.data(), tensor.data.data(), tensor.data.size());
        return;
    }
    if constexpr (std::integral<T>) {
        const auto fitting = [&](auto value, std::size_t i) {
            if (!std::in_range<T>(value))
                throw Error(tensor.name, "values that fit " + std::string(name(data_type_of<T>())),
                            std::to_string(value) + " at element " + std::to_string(i));
            return static_cast<T>(value);
        };
        switch (tensor.type) {
            case DataType::I64:
                return detail::convert_elements<std::int64_t>(tensor.data, out, fitting);
            case DataType::I32:
                return detail::convert_elements<std::int32_t>(tensor.data, out, fitting);
            case DataType::U8:
                return detail::convert_elements<std::uint8_t>(tensor.data, out, fitting);
            default:
                throw Error(tensor.name, "I64, I32 or U8", name(tensor.type));
        }
    } else {
        const auto rounded = [](auto value, std::size_t) {
            if constexpr (std::same_as<T, bfloat16>) {
                return bfloat16(static_cast<float>(value));
            } else {
                return static_cast<T>(value);
            }
        };
        const auto from_half = [&](std::uint16_t half, std::size_t i) {
            return rounded(detail::half_to_float(half), i);
        };
        const auto from_bfloat16 = [&](std::uint16_t word, std::size_t i) {
            return rounded(std::bit_cast<float>(static_cast<std::uint32_t>(word) << 16), i);
        };
        switch (tensor.type) {
            case DataType::F64:
                return detail::convert_elements<double>(tensor.data, out, rounded);
            case DataType::F32:
                return detail::convert_elements<float>(tensor.data, out, rounded);
            case DataType::F16:
                return detail::convert_elements<std::uint16_t>(tensor.data, out, from_half);
            case DataType::BF16:
                return detail::convert_elements<std::uint16_t>(tensor.data, out, from_bfloat16);
            default:
                throw Error(tensor.name, "F64, F32, F16 or BF16", name(tensor.type));
        }
    }
}

#if defined(TANDEM_COMPILED)
template void read_elements<float>(const StoredTensor&, std::span<float>);
template void read_elements<double>(const StoredTensor&, std::span<double>);
template void read_elements<bfloat16>(const StoredTensor&, std::span<bfloat16>);
template void read_elements<std::int32_t>(const StoredTensor&, std::span<std::int32_t>);
template void read_elements<std::int64_t>(const StoredTensor&, std::span<std::int64_t>);
template void read_elements<std::uint8_t>(const StoredTensor&, std::span<std::uint8_t>);
#endif

}  // namespace tandem::inline TANDEM_ABI

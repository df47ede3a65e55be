// Definitions of files/safetensors_header.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/files/json.hpp>
#include <tandem/files/safetensors_header.hpp>
#include <tandem/files/safetensors_types.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// The header without the whitespace around it. Refuses what the JSON parser would let pass (byte order mark, NUL as
/// end) and what would cost it memory or depth: it keeps a copy of everything since the last string.
[[gnu::cold]] TANDEM_INLINE std::string_view screened_header(std::string_view text, std::string_view where) {
    constexpr std::string_view whitespace = " \t\r\n";
    const auto at = [](std::size_t position) { return " at byte " + std::to_string(position) + " of the header"; };
    const std::size_t begin = std::min(text.find_first_not_of(whitespace), text.size());
    const std::size_t end = text.find_last_not_of(whitespace) + 1;
    if (begin == text.size()) throw Error(where, "header is empty, expected a JSON object");
    if (text[begin] != '{') throw Error(where, "header is not JSON: expected an object" + at(begin));
    bool in_string = false;
    bool escaped = false;
    std::size_t mark = begin;
    for (std::size_t i = begin; i < end; ++i) {
        const char c = text[i];
        if (static_cast<unsigned char>(c) >= 0x80) {
            const std::size_t length = utf8_sequence(text.substr(i));
            if (length == 0) throw Error(where, "header is not UTF-8" + at(i));
            i += length - 1;
            escaped = false;
        } else if (escaped) {
            escaped = false;
        } else if (c == '"') {
            in_string = !in_string;
            mark = i;
        } else if (in_string) {
            escaped = c == '\\';
        } else if (c == '\0') {
            throw Error(where, "header is not JSON: NUL" + at(i));
        }
        if (i - mark > (in_string ? max_string_bytes : max_gap_bytes))
            throw Error(where, std::string("header holds ") +
                                   (in_string ? "a string longer than 512 KiB" : "16 KiB without a string") + at(i));
    }
    return text.substr(begin, end - begin);
}

/// Receives the JSON parser's events and builds the list of tensors from them, without a document in between.
class HeaderReader final : public JsonEvents {
public:
    HeaderReader(std::string_view where, std::span<const std::byte> data) : where_(where), data_(data) {}

    bool other(std::string_view json) override {
        wrong(json == "null"                      ? "null"
              : json == "true" || json == "false" ? "a boolean"
              : json[0] == '-'                    ? "a negative number"
                                                  : "the number " + std::string(json));
    }

    bool number(std::uint64_t value) override {
        if (place_ == Place::shape) {
            charge(2 * sizeof(std::size_t));
            tensor().shape.push_back(value);
        } else if (place_ == Place::offsets && offset_count_ < 2) {
            offsets_[offset_count_++] = value;
        } else if (place_ == Place::offsets) {
            fail("data_offsets: expected two numbers, found more");
        } else {
            wrong("a number");
        }
        return true;
    }

    bool string(std::string_view value) override {
        if (place_ == Place::type) {
            const auto entry = std::find_if(data_types.begin(), data_types.end(),
                                            [&](const DataTypeEntry& known) { return known.name == value; });
            if (entry == data_types.end()) fail("unknown dtype " + in_quotes(value));
            tensor().type = static_cast<DataType>(entry - data_types.begin());
            place_ = Place::tensor;
        } else if (place_ == Place::metadata_value) {
            charge(index_cost(metadata_key_.size() + value.size(), 0));
            if (!metadata_.try_emplace(metadata_key_, value).second)
                throw Error(where_, "__metadata__: duplicate key " + in_quotes(metadata_key_));
            place_ = Place::metadata;
        } else {
            wrong("the string " + in_quotes(value));
        }
        return true;
    }

    bool key(std::string_view value) override {
        if (place_ == Place::top) {
            in_metadata_ = value == "__metadata__";
            if (in_metadata_ && std::exchange(has_metadata_, true))
                throw Error(where_, "duplicate key '__metadata__' in the header");
            if (!in_metadata_) {
                charge(index_cost(value.size(), 0));
                tensors_.push_back({.name = std::string(value), .type = {}, .shape = {}, .data = {}});
            }
            place_ = Place::entry;
        } else if (place_ == Place::metadata) {
            metadata_key_ = value;
            place_ = Place::metadata_value;
        } else {
            const auto field =
                std::find_if(fields.begin(), fields.end(), [&](const Field& known) { return known.name == value; });
            if (field == fields.end()) fail("unknown key " + in_quotes(value));
            bool& seen = seen_[static_cast<std::size_t>(field - fields.begin())];
            if (std::exchange(seen, true)) fail("duplicate key " + in_quotes(value));
            place_ = field->place;
        }
        return true;
    }

    bool start_object() override {
        if (place_ == Place::outside) {
            place_ = Place::top;
        } else if (place_ == Place::entry) {
            place_ = in_metadata_ ? Place::metadata : Place::tensor;
            seen_ = {};
            offset_count_ = 0;
        } else {
            wrong("an object");
        }
        return true;
    }

    bool end_object() override {
        if (place_ == Place::tensor) close_tensor();
        place_ = place_ == Place::top ? Place::outside : Place::top;
        return true;
    }

    bool start_array() override {
        if (place_ == Place::shape_value) {
            place_ = Place::shape;
        } else if (place_ == Place::offsets_value) {
            place_ = Place::offsets;
        } else {
            wrong("an array");
        }
        return true;
    }

    bool end_array() override {
        if (place_ == Place::offsets && offset_count_ != 2)
            fail("data_offsets: expected two numbers, found " + std::to_string(offset_count_));
        place_ = Place::tensor;
        return true;
    }

    std::map<std::string, std::string>& metadata() { return metadata_; }
    std::vector<StoredTensor>& tensors() { return tensors_; }

private:
    /// Where the parser stands: the value it awaits, or the object or array it is in.
    enum class Place : std::uint8_t {
        outside,
        top,
        entry,
        tensor,
        type,
        shape_value,
        shape,
        offsets_value,
        offsets,
        metadata,
        metadata_value
    };

    struct Field {
        std::string_view name;
        Place place;
    };
    static constexpr std::array<Field, 3> fields{
        {{"dtype", Place::type}, {"shape", Place::shape_value}, {"data_offsets", Place::offsets_value}}};

    StoredTensor& tensor() { return tensors_.back(); }

    [[noreturn, gnu::cold]] void fail(const std::string& fault) const {
        throw Error(where_, "tensor " + in_quotes(tensors_.back().name) + ": " + fault);
    }

    [[noreturn, gnu::cold]] void wrong(const std::string& found) const {
        switch (place_) {
            case Place::type:
                fail("dtype: expected a string, found " + found);
            case Place::shape_value:
                fail("shape: expected an array, found " + found);
            case Place::shape:
                fail("shape: expected unsigned 64-bit integers, found " + found);
            case Place::offsets_value:
                fail("data_offsets: expected an array, found " + found);
            case Place::offsets:
                fail("data_offsets: expected unsigned 64-bit integers, found " + found);
            case Place::metadata_value:
                throw Error(where_, "__metadata__ " + in_quotes(metadata_key_) + ": expected a string, found " + found);
            default:
                if (in_metadata_) throw Error(where_, "__metadata__: expected an object, found " + found);
                fail("expected an object, found " + found);
        }
    }

    void charge(std::size_t bytes) {
        index_bytes_ += bytes;
        if (index_bytes_ > max_index_bytes)
            throw Error(where_, "header describes more than 6 MiB of names, shapes and metadata (" +
                                    std::to_string(tensors_.size()) + " tensors so far)");
    }

    void close_tensor() {
        for (std::size_t i = 0; i < fields.size(); ++i)
            if (!seen_[i]) fail("missing key " + in_quotes(fields[i].name));
        const auto [begin, end] = offsets_;
        const auto range = [&] { return "data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) + "]"; };
        const auto what = [&] { return std::string(name(tensor().type)) + " " + shape_text(tensor().shape); };
        if (end < begin) fail(range() + " end before they begin");
        if (end > data_.size())
            fail(range() + " exceed the file's " + std::to_string(data_.size()) + " bytes of tensor data");
        const std::optional<std::size_t> size = byte_count(tensor().type, tensor().shape);
        if (!size) fail("shape: " + what() + " overflows 64 bits or ends within a byte");
        if (*size != end - begin)
            fail(range() + ": expected " + std::to_string(*size) + " bytes for " + what() + ", found " +
                 std::to_string(end - begin));
        tensor().data = data_.subspan(begin, end - begin);
    }

    std::string where_;
    std::span<const std::byte> data_;
    std::vector<StoredTensor> tensors_;
    std::map<std::string, std::string> metadata_;
    std::string metadata_key_;
    std::size_t index_bytes_ = 0;
    std::array<std::size_t, 2> offsets_{};
    std::size_t offset_count_ = 0;
    std::array<bool, 3> seen_{};
    Place place_ = Place::outside;
    bool in_metadata_ = false;
    bool has_metadata_ = false;
};

[[gnu::cold]] TANDEM_INLINE Header read_header(std::span<const std::byte> file, std::string_view where) {
    constexpr std::size_t length_bytes = 8;
    if (file.size() < length_bytes)
        throw Error(where, "a file of at least 8 bytes", std::to_string(file.size()) + " bytes");
    std::uint64_t length = 0;
    std::memcpy(&length, file.data(), length_bytes);
    if (length > max_header_bytes)
        throw Error(where, "a header of at most 100000000 bytes", "a header length of " + std::to_string(length));
    file = file.subspan(length_bytes);
    if (length > file.size())
        throw Error(where, "a header of " + std::to_string(length) + " bytes",
                    "a file that ends after " + std::to_string(file.size()) + " of them");
    const std::string_view text = screened_header({reinterpret_cast<const char*>(file.data()), length}, where);
    const std::span<const std::byte> data = file.subspan(length);

    HeaderReader reader(where, data);
    if (const std::optional<std::size_t> fault = json_fault(text, reader)) {
        throw Error(where, "header is not JSON near its byte " + std::to_string(*fault));
    }
    Header header{std::move(reader.metadata()), std::move(reader.tensors()), {}};
    std::vector<StoredTensor>& tensors = header.tensors;
    // Zero-sized tensors share their offset with a neighbour; the name makes their order unique.
    const auto before = [](const StoredTensor& a, const StoredTensor& b) {
        if (a.data.data() != b.data.data()) return a.data.data() < b.data.data();
        return a.data.size() != b.data.size() ? a.data.size() < b.data.size() : a.name < b.name;
    };
    std::vector<std::uint32_t> order = sorted_positions(tensors, before);
    // In place, cycle by cycle: a second list would take a hostile header's memory twice.
    for (std::uint32_t i = 0; i < order.size(); ++i) {
        std::uint32_t to = i;
        while (order[to] != i) {
            const std::uint32_t from = std::exchange(order[to], to);
            std::swap(tensors[to], tensors[from]);
            to = from;
        }
        order[to] = to;
    }
    header.by_name = positions_by_name(tensors, where);

    const std::byte* covered = data.data();
    for (const StoredTensor& tensor : tensors) {
        if (tensor.data.data() != covered)
            throw Error(where,
                        "tensor " + in_quotes(tensor.name) + ": data_offsets expected to begin at " +
                            std::to_string(covered - data.data()) + ", found " +
                            std::to_string(tensor.data.data() - data.data()) +
                            (tensor.data.data() > covered ? " (hole before it)" : " (overlaps the tensor before it)"));
        covered += tensor.data.size();
    }
    const auto rest = data.data() + data.size() - covered;
    if (rest != 0) throw Error(where, std::to_string(rest) + " bytes after the last tensor belong to none");
    return header;
}

}  // namespace tandem::inline TANDEM_ABI::detail

// Definitions of files/json.hpp.
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <rapidjson/encodedstream.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>

#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/files/file_kind.hpp>
#include <tandem/files/json.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// RapidJSON's handler. It has its names for the events, and tells of each type of number apart.
struct JsonHandler {
    using Ch = char;

    JsonEvents& events;

    bool Null() { return events.other("null"); }
    bool Bool(bool value) { return events.other(value ? "true" : "false"); }
    bool Int(std::int32_t value) { return print(value); }
    bool Int64(std::int64_t value) { return print(value); }
    bool Uint(std::uint32_t value) { return events.number(value); }
    bool Uint64(std::uint64_t value) { return events.number(value); }
    bool Double(double value) { return print(value); }
    bool RawNumber(const char* digits, std::size_t size, bool) { return events.other({digits, size}); }
    bool String(const char* text, std::size_t size, bool) { return events.string({text, size}); }
    bool Key(const char* text, std::size_t size, bool) { return events.key({text, size}); }
    bool StartObject() { return events.start_object(); }
    bool EndObject(std::size_t) { return events.end_object(); }
    bool StartArray() { return events.start_array(); }
    bool EndArray(std::size_t) { return events.end_array(); }

private:
    bool print(auto value) {
        std::array<char, 32> text;
        const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
        return events.other({text.data(), static_cast<std::size_t>(end - text.data())});
    }
};

TANDEM_INLINE void append_json_string(std::string& json, std::string_view text) {
    json += '"';
    for (const char letter : text) {
        const auto code = static_cast<unsigned char>(letter);
        if (code < 0x20) {
            constexpr std::string_view digits = "0123456789abcdef";
            json.append("\\u00").append({digits[code >> 4], digits[code & 15U]});
        } else {
            if (code == '"' || code == '\\') json += '\\';
            json += letter;
        }
    }
    json += '"';
}

TANDEM_INLINE bool JsonLeaves::start_object() {
    keys_.emplace_back();
    return keys_.size() <= deepest;
}

TANDEM_INLINE bool JsonLeaves::key(std::string_view name) {
    keys_.back() = name;
    return true;
}

TANDEM_INLINE bool JsonLeaves::end_object() {
    keys_.pop_back();
    return true;
}

TANDEM_INLINE bool JsonLeaves::start_array() {
    ++arrays_;
    return !keys_.empty();
}

TANDEM_INLINE bool JsonLeaves::end_array() {
    --arrays_;
    return true;
}

TANDEM_INLINE bool JsonLeaves::add(std::uint64_t number, JsonLeaf::Kind kind, std::string text) {
    if (keys_.empty()) return false;
    std::string path = keys_[0];
    for (std::size_t i = 1; i < keys_.size(); ++i) path += "." + keys_[i];
    leaves.push_back({std::move(path), keys_.size(), kind, arrays_ > 0, std::move(text), number});
    return true;
}

[[gnu::cold]] TANDEM_INLINE std::optional<std::size_t> json_fault(std::string_view text, JsonEvents& events) {
    rapidjson::MemoryStream memory(text.data(), text.size());
    rapidjson::EncodedInputStream<rapidjson::UTF8<>, rapidjson::MemoryStream> input(memory);
    JsonHandler handler{events};
    rapidjson::Reader reader;
    // Not recursive, so that no document is deep enough to exhaust the stack.
    reader.Parse<rapidjson::kParseIterativeFlag | rapidjson::kParseValidateEncodingFlag>(input, handler);
    if (reader.HasParseError()) return reader.GetErrorOffset();
    // To RapidJSON, a NUL is the end of the text.
    return input.Tell() == text.size() ? std::nullopt : std::optional(input.Tell());
}

[[gnu::cold]] TANDEM_INLINE void read_json(const std::filesystem::path& path, JsonEvents& events,
                                           std::string_view expected) {
    const MappedFile file(path);
    const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    const std::optional<std::size_t> fault = json_fault(text, events);
    if (!fault) return;
    if (const std::string_view kind = file_kind(file.bytes()).name; !kind.empty() && kind != "JSON")
        throw_other_kind(path.string(), expected, file.bytes());
    throw Error(path.string(), expected, "a fault at byte " + std::to_string(*fault));
}

}  // namespace tandem::inline TANDEM_ABI::detail

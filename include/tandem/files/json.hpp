// JSON through RapidJSON's event parser. Every reader derives from one event interface, so that a program compiles the
// parser once, and one that reads no JSON not at all.
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <rapidjson/encodedstream.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// What a document holds, in its order. An event that returns false ends the parsing.
class JsonEvents {
public:
    virtual bool string(std::string_view value) = 0;
    virtual bool number(std::uint64_t value) = 0;
    /// null, a boolean, a number that is negative or not whole, or one beyond 64 bits, as JSON writes it.
    virtual bool other(std::string_view json) = 0;
    virtual bool start_object() = 0;
    virtual bool key(std::string_view name) = 0;
    virtual bool end_object() = 0;
    virtual bool start_array() = 0;
    virtual bool end_array() = 0;

protected:
    ~JsonEvents() = default;
};

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

/// Reports `text` to `events`. Returns the position where it is no JSON, or where an event returned false; nothing if
/// neither happened. A template so that it is compiled only where it is called.
template <class Text>
[[gnu::cold]] std::optional<std::size_t> json_fault(const Text& text, JsonEvents& events) {
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

/// Appends `text`, which must be UTF-8, as a JSON string.
inline void append_json_string(std::string& json, std::string_view text) {
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

/// A value that is neither object nor array.
struct JsonLeaf {
    enum class Kind { text, number, other };

    std::string path;       ///< the keys from the root down, joined by dots; elements of arrays have none
    std::size_t depth = 0;  ///< how many keys those are
    Kind kind = Kind::other;
    bool in_array = false;     ///< or below one
    std::string text;          ///< of a text, and of anything else as it would be printed
    std::uint64_t number = 0;  ///< of a whole number that is not negative
};

/// Collects all leaves of a document whose root is an object.
class JsonLeaves final : public JsonEvents {
public:
    std::vector<JsonLeaf> leaves;

    bool string(std::string_view value) override { return add({}, JsonLeaf::Kind::text, std::string(value)); }
    bool number(std::uint64_t value) override { return add(value, JsonLeaf::Kind::number, std::to_string(value)); }
    bool other(std::string_view json) override { return add({}, JsonLeaf::Kind::other, std::string(json)); }
    bool start_object() override {
        keys_.emplace_back();
        return keys_.size() <= deepest;
    }
    bool key(std::string_view name) override {
        keys_.back() = name;
        return true;
    }
    bool end_object() override {
        keys_.pop_back();
        return true;
    }
    bool start_array() override {
        ++arrays_;
        return !keys_.empty();
    }
    bool end_array() override {
        --arrays_;
        return true;
    }

private:
    static constexpr std::size_t deepest = 64;

    bool add(std::uint64_t number, JsonLeaf::Kind kind, std::string text) {
        if (keys_.empty()) return false;
        std::string path = keys_[0];
        for (std::size_t i = 1; i < keys_.size(); ++i) path += "." + keys_[i];
        leaves.push_back({std::move(path), keys_.size(), kind, arrays_ > 0, std::move(text), number});
        return true;
    }

    std::vector<std::string> keys_;
    std::size_t arrays_ = 0;
};

}  // namespace tandem::inline TANDEM_ABI::detail

// JSON through nlohmann/json's event parser. Every reader derives from one event interface, so that a program compiles the
// parser once (it costs more compile time than any other dependency) and one that reads no JSON not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::detail {

using JsonEvents = nlohmann::json_sax<nlohmann::json>;

/// Reports `text` to `events`; false if it is not JSON or an event returned false. A template so that it is compiled
/// only where it is called. json::sax_parse() would do the same, and compile readers of four binary formats with it.
template <class Text>
[[gnu::cold]] bool parse_json(const Text& text, JsonEvents& events) {
    auto input = nlohmann::detail::input_adapter(text.data(), text.data() + text.size());
    return nlohmann::detail::parser<nlohmann::json, decltype(input)>(std::move(input)).sax_parse(&events);
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
    std::string text;          ///< of a text, and of anything else as it would be printed
    std::uint64_t number = 0;  ///< of a whole number that is not negative
};

/// Collects all leaves of a document whose root is an object.
class JsonLeaves final : public JsonEvents {
public:
    std::vector<JsonLeaf> leaves;

    bool null() override { return add({}, JsonLeaf::Kind::other, "null"); }
    bool boolean(bool value) override { return add({}, JsonLeaf::Kind::other, value ? "true" : "false"); }
    bool number_integer(number_integer_t value) override {
        return add({}, JsonLeaf::Kind::other, std::to_string(value));
    }
    bool number_unsigned(number_unsigned_t value) override {
        return add(value, JsonLeaf::Kind::number, std::to_string(value));
    }
    bool number_float(number_float_t, const string_t& digits) override { return add({}, JsonLeaf::Kind::other, digits); }
    bool string(string_t& value) override { return add({}, JsonLeaf::Kind::text, std::move(value)); }
    bool binary(binary_t&) override { return false; }
    bool start_object(std::size_t) override {
        keys_.emplace_back();
        return keys_.size() <= deepest;
    }
    bool key(string_t& value) override {
        keys_.back() = std::move(value);
        return true;
    }
    bool end_object() override {
        keys_.pop_back();
        return true;
    }
    bool start_array(std::size_t) override { return !keys_.empty(); }
    bool end_array() override { return true; }
    bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

private:
    static constexpr std::size_t deepest = 64;

    bool add(std::uint64_t number, JsonLeaf::Kind kind, std::string text) {
        if (keys_.empty()) return false;
        std::string path = keys_[0];
        for (std::size_t i = 1; i < keys_.size(); ++i) path += "." + keys_[i];
        leaves.push_back({std::move(path), keys_.size(), kind, std::move(text), number});
        return true;
    }

    std::vector<std::string> keys_;
};

}  // namespace tandem::inline TANDEM_ABI::detail

// JSON through RapidJSON's event parser. Every reader derives from one event interface, so that a program compiles the
// parser once, and one that reads no JSON not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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
    bool start_object() override;
    bool key(std::string_view name) override;
    bool end_object() override;
    bool start_array() override;
    bool end_array() override;

private:
    static constexpr std::size_t deepest = 64;

    bool add(std::uint64_t number, JsonLeaf::Kind kind, std::string text);

    std::vector<std::string> keys_;
    std::size_t arrays_ = 0;
};

/// Reports `text` to `events`. Returns the position where it is no JSON, or where an event returned false; nothing if
/// neither happened.
std::optional<std::size_t> json_fault(std::string_view text, JsonEvents& events);

/// Reports a whole file to `events`. Throws Error that says what was expected of it, and where it is no JSON; of
/// another kind of file, what it is.
void read_json(const std::filesystem::path& path, JsonEvents& events, std::string_view expected = "a JSON object");

/// Appends `text`, which must be UTF-8, as a JSON string.
void append_json_string(std::string& json, std::string_view text);

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/files/json.impl.hpp>
#endif

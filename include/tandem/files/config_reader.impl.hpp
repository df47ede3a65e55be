// Definitions of files/config_reader.hpp.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/files/config_reader.hpp>
#include <tandem/files/json.hpp>

namespace tandem::inline TANDEM_ABI::detail {

[[gnu::cold]] TANDEM_INLINE ConfigReader::ConfigReader(const std::filesystem::path& path)
    : where_(path.string()), name_(path.filename().string()) {
    read_json(path, leaves_);
    std::vector<std::string_view> paths;
    for (const JsonLeaf& leaf : leaves_.leaves) {
        if (!leaf.in_array) paths.push_back(leaf.path);
    }
    std::ranges::sort(paths);
    if (const auto twice = std::ranges::adjacent_find(paths); twice != paths.end())
        throw Error(where_, "every key once", std::string(*twice) + " twice");
    read_.resize(leaves_.leaves.size());
}

TANDEM_INLINE std::optional<std::string> ConfigReader::find(std::string_view path) const {
    const JsonLeaf* const leaf = leaf_at(path);
    return leaf == nullptr ? std::nullopt : std::optional(leaf->text);
}

TANDEM_INLINE std::vector<std::string> ConfigReader::all(std::string_view path) const {
    std::vector<std::string> found;
    for_each([&](const JsonLeaf& leaf, std::string_view name, std::size_t i) {
        if (name != path) return;
        read_[i] = true;
        if (leaf.text != "null" || leaf.kind == JsonLeaf::Kind::text) found.push_back(leaf.text);
    });
    return found;
}

TANDEM_INLINE bool ConfigReader::has_below(std::string_view prefix) const {
    bool found = false;
    for_each([&](const JsonLeaf&, std::string_view name, std::size_t) { found = found || name.starts_with(prefix); });
    return found;
}

TANDEM_INLINE std::optional<double> ConfigReader::number(std::string_view path) const {
    const JsonLeaf* const leaf = leaf_at(path);
    if (leaf == nullptr) return std::nullopt;
    return to_number(path, *leaf);
}

TANDEM_INLINE std::vector<double> ConfigReader::numbers(std::string_view path) const {
    std::vector<double> found;
    for_each([&](const JsonLeaf& leaf, std::string_view name, std::size_t i) {
        if (name != path) return;
        read_[i] = true;
        if (leaf.text != "null" || leaf.kind == JsonLeaf::Kind::text) found.push_back(to_number(path, leaf));
    });
    return found;
}

TANDEM_INLINE std::optional<std::size_t> ConfigReader::count(std::string_view path) const {
    const JsonLeaf* const leaf = leaf_at(path);
    if (leaf == nullptr) return std::nullopt;
    if (leaf->kind != JsonLeaf::Kind::number || leaf->number > std::uint64_t{1} << 32U)
        refuse(path, "a whole number up to 2^32");
    return static_cast<std::size_t>(leaf->number);
}

TANDEM_INLINE std::optional<bool> ConfigReader::flag(std::string_view path) const {
    const JsonLeaf* const leaf = leaf_at(path);
    if (leaf == nullptr) return std::nullopt;
    if (leaf->kind != JsonLeaf::Kind::other || (leaf->text != "true" && leaf->text != "false"))
        refuse(path, "true or false");
    return leaf->text == "true";
}

TANDEM_INLINE std::vector<std::pair<std::string, std::size_t>> ConfigReader::counts() const {
    std::vector<std::pair<std::string, std::size_t>> found;
    for (const JsonLeaf& leaf : leaves_.leaves) found.emplace_back(leaf.path, count(leaf.path).value_or(0));
    return found;
}

TANDEM_INLINE std::vector<std::string> ConfigReader::values_below(std::string_view prefix) const {
    std::vector<std::string> found;
    for_each([&](const JsonLeaf& leaf, std::string_view name, std::size_t i) {
        if (!name.starts_with(prefix)) return;
        read_[i] = true;
        found.push_back(leaf.text);
    });
    return found;
}

TANDEM_INLINE bool ConfigReader::is_null(std::string_view path) const {
    bool found = false;
    for_each([&](const JsonLeaf& leaf, std::string_view name, std::size_t) {
        found = found || (name == path && leaf.text == "null" && leaf.kind == JsonLeaf::Kind::other);
    });
    return found;
}

TANDEM_INLINE std::vector<std::string> ConfigReader::keys_below(std::string_view prefix) const {
    std::vector<std::string> keys;
    for_each([&](const JsonLeaf&, std::string_view name, std::size_t) {
        if (!name.starts_with(prefix)) return;
        name.remove_prefix(prefix.size());
        const std::string key(name.substr(0, name.find('.')));
        if (keys.empty() || keys.back() != key) keys.push_back(key);
    });
    return keys;
}

TANDEM_INLINE std::string ConfigReader::one_of(std::string_view path, std::string_view otherwise,
                                               std::initializer_list<std::string_view> known) const {
    const std::optional<std::string> found = find(path);
    if (!found) return std::string(otherwise);
    if (std::ranges::find(known, *found) == known.end()) {
        std::string expected;
        for (const std::string_view word : known)
            expected += (expected.empty() ? "" : word == *(known.end() - 1) ? " or " : ", ") + std::string(word);
        refuse(path, expected);
    }
    return *found;
}

TANDEM_INLINE void ConfigReader::require(std::string_view path, std::string_view value) const {
    const std::optional<std::string> found = find(path);
    if (found && *found != value && !same_number(*found, value)) refuse(path, std::string(value));
}

TANDEM_INLINE void ConfigReader::require_all(std::string_view path,
                                             std::initializer_list<std::string_view> values) const {
    const std::vector<std::string> found = all(path);
    if (!found.empty() && !std::ranges::equal(found, values)) refuse(path, "the library's default, the only one here");
}

TANDEM_INLINE void ConfigReader::ignore(std::span<const IrrelevantKey> keys, std::string_view prefix) const {
    for_each([&](const JsonLeaf&, std::string_view name, std::size_t i) {
        if (!name.starts_with(prefix)) return;
        name.remove_prefix(prefix.size());
        read_[i] = read_[i] || std::ranges::any_of(keys, [&](const IrrelevantKey& irrelevant) {
                       return name.starts_with(irrelevant.key) &&
                              (name.size() == irrelevant.key.size() || name[irrelevant.key.size()] == '.');
                   });
    });
}

TANDEM_INLINE void ConfigReader::ignore(std::initializer_list<IrrelevantKey> keys, std::string_view prefix) const {
    ignore(std::span(keys.begin(), keys.size()), prefix);
}

[[gnu::cold]] TANDEM_INLINE void ConfigReader::refuse_unread(std::string_view prefix) const {
    std::string unread, last;
    for (std::size_t i = 0; i < read_.size(); ++i) {
        const JsonLeaf& leaf = leaves_.leaves[i];
        const bool is_nothing = leaf.text == "null" && leaf.kind == JsonLeaf::Kind::other;
        if (read_[i] || is_nothing || !leaf.path.starts_with(prefix) || leaf.path == last) continue;
        last = leaf.path;
        unread += "\n  " + leaf.path + " = " + shown(leaf);
    }
    if (!unread.empty())
        throw Error(where_, "the file asks for what has no counterpart here:" + unread +
                                "\n  (a key that does not matter can be taken out of the file)");
}

[[noreturn, gnu::cold]] TANDEM_INLINE void ConfigReader::refuse(std::string_view path,
                                                                const std::string& expected) const {
    std::string found;
    for_each([&](const JsonLeaf& leaf, std::string_view name, std::size_t) {
        if (name == path) found += (found.empty() ? "" : ", ") + shown(leaf);
    });
    throw Error(where_, at_ + std::string(path) + " = " + expected, found.empty() ? "nothing" : found);
}

TANDEM_INLINE const JsonLeaf* ConfigReader::leaf_at(std::string_view path) const {
    const JsonLeaf* found = nullptr;
    std::size_t count = 0;
    for_each([&](const JsonLeaf& leaf, std::string_view name, std::size_t i) {
        if (name != path) return;
        read_[i] = true;
        ++count;
        if (leaf.text != "null" || leaf.kind == JsonLeaf::Kind::text) found = &leaf;
    });
    if (count > 1) refuse(path, "one value");
    return found;
}

TANDEM_INLINE double ConfigReader::to_number(std::string_view path, const JsonLeaf& leaf) const {
    double value = 0;
    const char* const end = leaf.text.data() + leaf.text.size();
    const auto [stop, failed] = std::from_chars(leaf.text.data(), end, value);
    if (leaf.kind == JsonLeaf::Kind::text || failed != std::errc() || stop != end) refuse(path, "a number");
    return value;
}

TANDEM_INLINE bool ConfigReader::same_number(std::string_view a, std::string_view b) {
    double x = 0, y = 0;
    const auto read = [](std::string_view text, double& value) {
        return std::from_chars(text.data(), text.data() + text.size(), value).ptr == text.data() + text.size();
    };
    return read(a, x) && read(b, y) && x == y;
}

TANDEM_INLINE std::string ConfigReader::shown(const JsonLeaf& leaf) {
    return leaf.kind == JsonLeaf::Kind::text ? "\"" + leaf.text + "\"" : leaf.text;
}

}  // namespace tandem::inline TANDEM_ABI::detail

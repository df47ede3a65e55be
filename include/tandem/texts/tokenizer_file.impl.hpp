// Definitions of texts/tokenizer_file.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/files/json.hpp>
#include <tandem/texts/tokenizer_file.hpp>

namespace tandem::inline TANDEM_ABI::detail {

[[gnu::cold]] TANDEM_INLINE TokenizerFile TokenizerFile::read(const std::filesystem::path& path) {
    if (!std::filesystem::is_regular_file(path)) throw Error(path.string(), "a tokenizer.json", "no file");
    TokenizerFile json;
    json.file = path;
    read_json(path, json, "a tokenizer.json");
    return json;
}

TANDEM_INLINE std::string TokenizerFile::value(const std::string& path, const std::string& otherwise) const {
    read_.insert(path);
    const auto found = values.find(path);
    return found == values.end() ? otherwise : found->second;
}

TANDEM_INLINE void TokenizerFile::require(const std::string& path, const std::string& wanted,
                                          const std::string& otherwise) const {
    if (const std::string found = value(path, otherwise); found != wanted)
        throw Error(file.string(), path + " = " + wanted, found.empty() ? "nothing" : found);
}

TANDEM_INLINE void TokenizerFile::ignore(const std::string& path) const {
    for (auto at = values.lower_bound(path); at != values.end() && at->first.starts_with(path); ++at) {
        if (at->first.size() == path.size() || at->first[path.size()] == '.') read_.insert(at->first);
    }
}

[[gnu::cold]] TANDEM_INLINE void TokenizerFile::refuse_unread() const {
    // Every call pads and cuts to a length of its own, but on the side that the file says.
    for (const char* const path : {"truncation.direction", "padding.direction"}) {
        if (!read_.contains(path)) require(path, "Right", "Right");
    }
    for (const char* const path : {"version", "truncation", "padding", "decoder"}) ignore(path);
    std::string unread;
    for (const auto& [path, text] : values) {
        if (!read_.contains(path) && text != "null") unread += "\n  " + path + " = " + text.substr(0, 200);
    }
    if (!unread.empty()) throw Error(file.string(), "the file asks for what has no counterpart here:" + unread);
}

TANDEM_INLINE bool TokenizerFile::string(std::string_view text) {
    if (is_at("model", "merges")) {
        if (levels_.size() == 4) return half(text);
        const std::size_t space = text.find(' ');
        if (space == std::string_view::npos) return false;
        merges.emplace_back(text.substr(0, space), text.substr(space + 1));
        return advance();
    }
    if (is_piece()) {
        pieces.emplace_back(text, 0.0);
        return advance();
    }
    return leaf(text);
}

TANDEM_INLINE bool TokenizerFile::number(std::uint64_t number) {
    if (is_piece()) return score(static_cast<double>(number));
    if (is_at("model", "vocab")) {
        vocabulary.emplace(levels_.back().key, static_cast<Id>(number));
        return true;
    }
    return leaf(std::to_string(number));
}

TANDEM_INLINE bool TokenizerFile::other(std::string_view json) {
    return is_piece() ? score(std::strtod(std::string(json).c_str(), nullptr)) : leaf(json);
}

TANDEM_INLINE bool TokenizerFile::key(std::string_view name) {
    levels_.back().key = name;
    return true;
}

TANDEM_INLINE bool TokenizerFile::is_at(std::string_view first, std::string_view second) const {
    return levels_.size() >= 2 && levels_[0].key == first && levels_[1].key == second;
}

TANDEM_INLINE bool TokenizerFile::score(double value) {
    if (pieces.empty() || levels_.back().index != 1) return false;
    pieces.back().second = value;
    return advance();
}

TANDEM_INLINE bool TokenizerFile::open(bool is_array) {
    levels_.push_back({"", 0, is_array});
    return levels_.size() <= deepest;
}

TANDEM_INLINE bool TokenizerFile::close() {
    levels_.pop_back();
    return levels_.empty() || advance();
}

TANDEM_INLINE bool TokenizerFile::advance() {
    if (levels_.back().is_array) ++levels_.back().index;
    return true;
}

TANDEM_INLINE bool TokenizerFile::half(std::string_view text) {
    if (levels_.back().index == 0) merges.emplace_back(text, "");
    if (levels_.back().index == 1) merges.back().second = text;
    return advance() && levels_.back().index <= 2;
}

TANDEM_INLINE bool TokenizerFile::leaf(std::string_view text) {
    if (levels_.empty()) return false;
    std::string path;
    for (const Level& level : levels_)
        path += (path.empty() ? "" : ".") + (level.is_array ? std::to_string(level.index) : level.key);
    values[path] = text;
    return advance();
}

}  // namespace tandem::inline TANDEM_ABI::detail

// What a tokenizer.json of the tokenizers package holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/files/json.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// A tokenizer.json: vocabulary, pieces and merges, which are long, apart from the rest.
class TokenizerFile final : public JsonEvents {
public:
    std::unordered_map<std::string, Id> vocabulary;
    std::vector<std::pair<std::string, double>> pieces;  ///< of a unigram vocabulary, with their scores
    std::vector<std::pair<std::string, std::string>> merges;
    std::filesystem::path file;
    std::map<std::string, std::string>
        values;  ///< all other leaves by their paths; elements of arrays by their indices

    /// Throws Error if there is no such file, or it is no JSON.
    [[gnu::cold]] static TokenizerFile read(const std::filesystem::path& path) {
        if (!std::filesystem::is_regular_file(path)) throw Error(path.string(), "a tokenizer.json", "no file");
        const MappedFile mapped(path);
        TokenizerFile json;
        json.file = path;
        const std::string_view text(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
        if (const auto fault = json_fault(text, json))
            throw Error(path.string(), "a tokenizer.json", "a fault at byte " + std::to_string(*fault));
        return json;
    }

    bool has(const std::string& path) const { return values.contains(path); }
    std::string value(const std::string& path, const std::string& otherwise = "") const {
        read_.insert(path);
        const auto found = values.find(path);
        return found == values.end() ? otherwise : found->second;
    }
    /// Throws Error unless the file says `wanted` there; with `otherwise`, its silence means that.
    void require(const std::string& path, const std::string& wanted, const std::string& otherwise = "") const {
        if (const std::string found = value(path, otherwise); found != wanted)
            throw Error(file.string(), path + " = " + wanted, found.empty() ? "nothing" : found);
    }
    /// What stands at `path` and below it does not matter.
    void ignore(const std::string& path) const {
        for (auto at = values.lower_bound(path); at != values.end() && at->first.starts_with(path); ++at) {
            if (at->first.size() == path.size() || at->first[path.size()] == '.') read_.insert(at->first);
        }
    }
    /// Throws Error that lists what no one asked for: decoding, and what every call overrides, excepted.
    [[gnu::cold]] void refuse_unread() const {
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

    bool string(std::string_view text) override {
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
    bool number(std::uint64_t number) override {
        if (is_piece()) return score(static_cast<double>(number));
        if (is_at("model", "vocab")) {
            vocabulary.emplace(levels_.back().key, static_cast<Id>(number));
            return true;
        }
        return leaf(std::to_string(number));
    }
    bool other(std::string_view json) override {
        return is_piece() ? score(std::strtod(std::string(json).c_str(), nullptr)) : leaf(json);
    }
    bool start_object() override { return open(false); }
    bool key(std::string_view name) override {
        levels_.back().key = name;
        return true;
    }
    bool end_object() override { return close(); }
    bool start_array() override { return open(true); }
    bool end_array() override { return close(); }

private:
    static constexpr std::size_t deepest = 64;

    struct Level {
        std::string key;
        std::size_t index = 0;
        bool is_array = false;
    };

    bool is_at(std::string_view first, std::string_view second) const {
        return levels_.size() >= 2 && levels_[0].key == first && levels_[1].key == second;
    }
    /// In the pair of a piece and its score.
    bool is_piece() const { return levels_.size() == 4 && levels_[2].is_array && is_at("model", "vocab"); }
    bool score(double value) {
        if (pieces.empty() || levels_.back().index != 1) return false;
        pieces.back().second = value;
        return advance();
    }
    bool open(bool is_array) {
        levels_.push_back({"", 0, is_array});
        return levels_.size() <= deepest;
    }
    bool close() {
        levels_.pop_back();
        return levels_.empty() || advance();
    }
    bool advance() {
        if (levels_.back().is_array) ++levels_.back().index;
        return true;
    }
    bool half(std::string_view text) {
        if (levels_.back().index == 0) merges.emplace_back(text, "");
        if (levels_.back().index == 1) merges.back().second = text;
        return advance() && levels_.back().index <= 2;
    }
    bool leaf(std::string_view text) {
        if (levels_.empty()) return false;
        std::string path;
        for (const Level& level : levels_)
            path += (path.empty() ? "" : ".") + (level.is_array ? std::to_string(level.index) : level.key);
        values[path] = text;
        return advance();
    }

    std::vector<Level> levels_;
    mutable std::set<std::string> read_;
};

}  // namespace tandem::inline TANDEM_ABI::detail

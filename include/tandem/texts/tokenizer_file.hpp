// What a tokenizer.json of the tokenizers package holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <tandem/core/dtype.hpp>
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
    static TokenizerFile read(const std::filesystem::path& path);

    bool has(const std::string& path) const { return values.contains(path); }
    std::string value(const std::string& path, const std::string& otherwise = "") const;
    /// Throws Error unless the file says `wanted` there; with `otherwise`, its silence means that.
    void require(const std::string& path, const std::string& wanted, const std::string& otherwise = "") const;
    /// What stands at `path` and below it does not matter.
    void ignore(const std::string& path) const;
    /// Throws Error that lists what no one asked for: decoding, and what every call overrides, excepted.
    void refuse_unread() const;

    bool string(std::string_view text) override;
    bool number(std::uint64_t number) override;
    bool other(std::string_view json) override;
    bool start_object() override { return open(false); }
    bool key(std::string_view name) override;
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

    bool is_at(std::string_view first, std::string_view second) const;
    /// In the pair of a piece and its score.
    bool is_piece() const { return levels_.size() == 4 && levels_[2].is_array && is_at("model", "vocab"); }
    bool score(double value);
    bool open(bool is_array);
    bool close();
    bool advance();
    bool half(std::string_view text);
    bool leaf(std::string_view text);

    std::vector<Level> levels_;
    mutable std::set<std::string> read_;
};

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/texts/tokenizer_file.impl.hpp>
#endif

// Config files of models, tokenizers and preprocessing, of which nothing is passed over in silence.
#pragma once

#include <cstddef>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/platform.hpp>
#include <tandem/files/json.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// A key that a library's config may hold and that changes nothing of what is computed here, and why not. It covers
/// what stands below it.
struct IrrelevantKey {
    std::string_view key, reason;
};

/// A config file by the paths of its values ("text_config.hidden_size"). It keeps account of what is asked for: what a
/// library would use and nobody here reads or lists as irrelevant is an Error (refuse_unread). null says nothing, but
/// where is_null() is asked.
class ConfigReader {
public:
    /// Throws Error if the file is no JSON object, or says something twice.
    explicit ConfigReader(const std::filesystem::path& path);

    const std::string& where() const { return where_; }
    /// The file's name, without its folder.
    const std::string& name() const { return name_; }

    /// From here on paths are those below `prefix`, which ends in a dot.
    void enter(std::string prefix) { at_ = std::move(prefix); }

    /// The value, a text without its quotes.
    std::optional<std::string> find(std::string_view path) const;
    /// The elements of an array; one, where the file has a value that is none.
    std::vector<std::string> all(std::string_view path) const;
    bool has_below(std::string_view prefix) const;

    std::optional<double> number(std::string_view path) const;
    /// The numbers of an array, or one.
    std::vector<double> numbers(std::string_view path) const;
    std::optional<std::size_t> count(std::string_view path) const;
    std::optional<bool> flag(std::string_view path) const;
    /// Of a file that is one object of whole numbers, all of them.
    std::vector<std::pair<std::string, std::size_t>> counts() const;
    /// The values of the object whose path is `prefix` without its last dot, as texts.
    std::vector<std::string> values_below(std::string_view prefix) const;
    /// Whether the file says null there, which is not always what its silence means.
    bool is_null(std::string_view path) const;
    /// The keys of the object whose path is `prefix` without its last dot, in the file's order.
    std::vector<std::string> keys_below(std::string_view prefix) const;
    /// One of some words, or `otherwise` where the file says nothing.
    std::string one_of(std::string_view path, std::string_view otherwise,
                       std::initializer_list<std::string_view> known) const;
    /// A key that has a counterpart at one value alone, which is also what its absence means.
    void require(std::string_view path, std::string_view value) const;
    /// The same of an array.
    void require_all(std::string_view path, std::initializer_list<std::string_view> values) const;
    /// Keys that do not matter, and what stands below them.
    void ignore(std::span<const IrrelevantKey> keys, std::string_view prefix = "") const;
    void ignore(std::initializer_list<IrrelevantKey> keys, std::string_view prefix = "") const;

    /// Throws Error that lists what stands below `prefix` and was not asked for, key and value.
    void refuse_unread(std::string_view prefix = "") const;

    /// Throws Error that names key, value and what was expected.
    [[noreturn]] void refuse(std::string_view path, const std::string& expected) const;

private:
    template <class Visit>
    void for_each(const Visit& visit) const {
        for (std::size_t i = 0; i < leaves_.leaves.size(); ++i) {
            const std::string_view path = leaves_.leaves[i].path;
            if (path.starts_with(at_)) visit(leaves_.leaves[i], path.substr(at_.size()), i);
        }
    }

    const JsonLeaf* leaf_at(std::string_view path) const;

    double to_number(std::string_view path, const JsonLeaf& leaf) const;

    static bool same_number(std::string_view a, std::string_view b);

    static std::string shown(const JsonLeaf& leaf);

    std::string where_, name_, at_;
    JsonLeaves leaves_;
    mutable std::vector<bool> read_;  ///< of every leaf, whether it was asked for
};

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/files/config_reader.impl.hpp>
#endif

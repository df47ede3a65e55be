// What tokenizers have in common.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <filesystem>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/data/clean_text.hpp>

namespace tandem::inline TANDEM_ABI {

/// Turns texts into rows of ids of one length, cut and padded as its models were trained.
template <class T>
concept Tokenizer = requires(const T& tokenizer, std::string_view text, std::span<Id> out,
                             std::span<const std::string> texts) {
    tokenizer.encode(text, out);
    { tokenizer.encode_batch(texts, std::size_t{}) } -> std::same_as<std::vector<Id>>;
};

namespace detail {

/// Of [low, high), sorted by their `text` and alike in all but the last letter of `prefix`, those that begin with it.
template <class Iterator>
void narrow_to_prefix(Iterator& low, Iterator& high, std::string_view prefix) {
    using Entry = typename std::iterator_traits<Iterator>::value_type;
    low = std::lower_bound(low, high, prefix, [](const Entry& entry, std::string_view sought) {
        return std::string_view(entry.text) < sought;
    });
    high = std::upper_bound(low, high, prefix, [](std::string_view sought, const Entry& entry) {
        return sought < std::string_view(entry.text).substr(0, sought.size());
    });
}

/// A token whose literal in a text stands for it.
struct SpecialToken {
    std::string text;
    Id id;
};

/// Calls part(text) for what stands between the literals of special tokens, and special(id) for each of them.
template <class Part, class Special>
void for_each_part(std::string_view text, std::span<const SpecialToken> specials, const Part& part,
                   const Special& special) {
    std::size_t begun = 0;
    for (std::size_t at = 0; at < text.size();) {
        const auto found = std::ranges::find_if(
            specials, [&](const SpecialToken& known) { return text.substr(at).starts_with(known.text); });
        if (found == specials.end()) {
            ++at;
            continue;
        }
        part(text.substr(begun, at - begun));
        special(found->id);
        begun = at += found->text.size();
    }
    part(text.substr(begun));
}

/// The file `path`, or in the folder `path` the one of the tokenizer's own name, or tokenizer.json. Throws Error if
/// there is none.
[[gnu::cold]] inline std::filesystem::path vocabulary_file(const std::filesystem::path& path, const char* own) {
    std::filesystem::path file = path;
    if (std::filesystem::is_directory(path)) {
        file = path / own;
        if (!std::filesystem::exists(file)) file = path / "tokenizer.json";
    }
    if (!std::filesystem::is_regular_file(file))
        throw Error(path.string(), std::string("a ") + own + ", or a tokenizer.json", "no file");
    return file;
}

#if __has_include(<utf8proc.h>)

/// What BERT's tokenizer and XLM-RoBERTa's have around the pieces of a text: a token before it and one behind it,
/// literals in it that stand for special tokens, padding.
struct BertFrame {
    std::vector<SpecialToken> specials;
    Id begin = 0, padding = 0, end = 0, unknown = 0;
    bool cleans = false;  ///< as open_clip does (clean = "whitespace")

    /// append(part, ids) makes ids of what stands between the literals.
    template <class Append>
    std::vector<Id> encode(std::string_view text, const Append& append) const {
        std::vector<Id> ids{begin};
        for_each_part(
            cleans ? clean_space_as_open_clip(text) : encode_utf8(decode_utf8(text)), specials,
            [&](std::string_view part) { append(part, ids); }, [&](Id special) { ids.push_back(special); });
        ids.push_back(end);
        return ids;
    }

    /// A whole text's ids in a row of their own: padded behind, or cut so that the last one still ends the text.
    void fit(std::string_view where, std::vector<Id> ids, std::span<Id> out) const {
        if (out.size() < 2) throw Error(where, "a context of at least 2 tokens", std::to_string(out.size()));
        if (ids.size() > out.size()) {
            ids.resize(out.size());
            ids.back() = end;
        }
        std::fill(std::copy(ids.begin(), ids.end(), out.begin()), out.end(), padding);
    }
};

#endif

/// How a tokenizer's texts are cleaned: as asked for, or as the library does whose config lies beside it.
inline Cleaning cleaning_of(const std::filesystem::path& path, std::optional<Cleaning> wanted) {
    return wanted.value_or(std::filesystem::exists(path / "open_clip_config.json") ? Cleaning::open_clip
                                                                                   : Cleaning::transformers);
}

/// The rows of encode(text, out), [texts, context] row by row, made in parallel.
std::vector<Id> encode_rows(const auto& tokenizer, std::span<const std::string> texts, std::size_t context) {
    constexpr std::size_t texts_per_piece = 64;
    std::vector<Id> ids(texts.size() * context);
    parallel_for(texts.size(), texts_per_piece, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i)
            tokenizer.encode(texts[i], std::span(ids).subspan(i * context, context));
    });
    return ids;
}

}  // namespace detail

}  // namespace tandem::inline TANDEM_ABI

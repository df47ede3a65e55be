// What tokenizers have in common.
#pragma once

#include <concepts>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/added_tokens.hpp>
#include <tandem/texts/clean_text.hpp>

namespace tandem::inline TANDEM_ABI {

/// Turns texts into rows of ids of one length, cut and padded as its models were trained.
template <class T>
concept Tokenizer = requires(const T& tokenizer, std::string_view text, std::span<Id> out,
                             std::span<const std::string> texts) {
    tokenizer.encode(text, out);
    { tokenizer.encode_batch(texts, std::size_t{}) } -> std::same_as<std::vector<Id>>;
};

namespace detail {

/// The file `path`, or in the folder `path` the one of the tokenizer's own name, or tokenizer.json. Throws Error if
/// there is none.
std::filesystem::path vocabulary_file(const std::filesystem::path& path, const char* own);

#if defined(TANDEM_COMPILED) || __has_include(<utf8proc.h>)

/// What BERT's tokenizer, XLM-RoBERTa's and T5's have around the pieces of a text: a token before it and one behind it,
/// literals in it that stand for special tokens, padding.
struct BertFrame {
    AddedTokens added{};
    Id begin = 0, padding = 0, end = 0, unknown = 0;
    bool begins = true;          ///< a text has the token before it, and not T5's alone behind it
    bool cleans = false;         ///< as open_clip does (clean = "whitespace")
    bool canonicalizes = false;  ///< as open_clip does for SigLIP (clean = "canonicalize")
    bool strips_end = false;     ///< `end` is written as 0, as open_clip's strip_sep_token has it

    /// append(part, ids) makes ids of what stands between the literals.
    template <class Append>
    std::vector<Id> encode(std::string_view text, const Append& append) const {
        std::vector<Id> ids;
        if (begins) ids.push_back(begin);
        added.split(
            canonicalizes ? canonicalize_as_open_clip(text)
            : cleans      ? clean_space_as_open_clip(text)
                          : encode_utf8(decode_utf8(text)),
            [&](std::string_view part) { append(part, ids); }, [&](Id token) { ids.push_back(token); });
        ids.push_back(end);
        return ids;
    }

    /// A whole text's ids in a row of their own: padded behind, or cut so that the last one still ends the text.
    void fit(std::string_view where, std::vector<Id> ids, std::span<Id> out) const;
};

#endif

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

#if !defined(TANDEM_COMPILED)
#include <tandem/texts/tokenizer.impl.hpp>
#endif

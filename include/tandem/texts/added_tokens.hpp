// Tokens that are found in a text as they are written, before it is split any further.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/unicode.hpp>

namespace tandem::inline TANDEM_ABI::detail {

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

#if defined(TANDEM_COMPILED) || __has_include(<utf8proc.h>)

/// A token that a tokenizer was given beside its vocabulary, under the names of tokenizers' AddedToken.
struct AddedToken {
    std::string text;
    Id id = 0;
    bool single_word = false;             ///< not inside of a word
    bool lstrip = false, rstrip = false;  ///< takes the white space before it, or behind it
    bool normalized = false;              ///< is looked for in the text as it was cleaned, and cleaned itself
};

/// Finds them from left to right, the longest where several begin at one place
/// (tokenizers/src/tokenizer/added_vocabulary.rs, find_matches).
class AddedTokens {
public:
    void add(AddedToken token);

    bool has(std::string_view text) const;
    const std::vector<AddedToken>& tokens() const { return tokens_; }

    /// Calls part(text) for what stands between tokens, and token(id) for each of them.
    template <class Part, class Token>
    void split(std::string_view text, const Part& part, const Token& token) const {
        std::size_t begun = 0;
        for (std::size_t at = 0; at < text.size();) {
            const AddedToken* const found = longest_at(text, at);
            if (found == nullptr) {
                ++at;
                continue;
            }
            std::size_t begin = at, end = at + found->text.size();
            at = end;  // a token that is passed over does not overlap another
            if (found->single_word && (is_word_at_end(text.substr(0, begin)) || is_word_at_begin(text.substr(end))))
                continue;
            if (found->lstrip) {
                while (begin > begun) {
                    std::size_t letter = begin - 1;
                    while (letter > begun && (static_cast<unsigned char>(text[letter]) & 0xC0U) == 0x80) --letter;
                    if (!is_white_space(front_code_point(text.substr(letter)).value)) break;
                    begin = letter;
                }
            }
            if (found->rstrip) {
                while (end < text.size()) {
                    const CodePoint next = front_code_point(text.substr(end));
                    if (!is_white_space(next.value)) break;
                    end += next.bytes;
                }
            }
            if (begin > begun) part(text.substr(begun, begin - begun));
            token(found->id);
            begun = at = end;
        }
        if (begun < text.size()) part(text.substr(begun));
    }

private:
    const AddedToken* longest_at(std::string_view text, std::size_t at) const;

    /// The regex crate's \w: letters, marks, decimal digits, connectors, and the two joiners.
    static bool is_word(char32_t c);
    static bool is_word_at_begin(std::string_view text);
    static bool is_word_at_end(std::string_view text);

    std::vector<AddedToken> tokens_;  ///< sorted: a prefix is a range
    std::vector<bool> begins_ = std::vector<bool>(256);
};

#endif

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/texts/added_tokens.impl.hpp>
#endif

// How CLIP's two tokenizers split a caption into words and special tokens.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>

#include <tandem/core/platform.hpp>
#include <tandem/texts/clean_text.hpp>
#include <tandem/texts/unicode.hpp>

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI::detail {

/// The literals that stand for the two special tokens.
struct SpecialLiterals {
    std::string_view start;
    std::string_view end;
};

constexpr SpecialLiterals special_literals(Cleaning cleaning) {
    return cleaning == Cleaning::open_clip ? SpecialLiterals{"<start_of_text>", "<end_of_text>"}
                                           : SpecialLiterals{"<|startoftext|>", "<|endoftext|>"};
}

/// The length of the contraction ('s, 't, 're, 've, 'm, 'll, 'd) at the front of a lower-case text; 0 if none.
inline std::size_t contraction_length(std::string_view text, Cleaning cleaning) {
    if (text.size() < 2 || text[0] != '\'') return 0;
    for (const std::string_view ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
        if (text.starts_with(ending)) return ending.size();
    }
    // open_clip ignores case, and the long s is an "s" then.
    return cleaning == Cleaning::open_clip && text.starts_with("'\u017F") ? 3 : 0;
}

/// The length of `literal` at the front of `text` where each "s" may be a long s; 0 if it is not there.
inline std::size_t ignoring_long_s(std::string_view text, std::string_view literal) {
    constexpr std::string_view long_s = "\u017F";
    std::size_t at = 0;
    for (const char c : literal) {
        if (at < text.size() && text[at] == c) {
            ++at;
        } else if (c == 's' && text.substr(at).starts_with(long_s)) {
            at += long_s.size();
        } else {
            return 0;
        }
    }
    return at;
}

inline CharClass word_class(char32_t c, Cleaning cleaning) {
    // The regex package finds U+0345 neither a letter nor anything else when it ignores case (it folds to iota).
    if (cleaning == Cleaning::open_clip && c == 0x345) return CharClass::space;
    return char_class(c, cleaning == Cleaning::open_clip ? UnicodeEdition::v18 : UnicodeEdition::v16);
}

/// Calls word(piece) for each match of 's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+ in a cleaned text, and
/// special(is_start) for open_clip's special literals.
template <class Word, class Special>
void split_cleaned(std::string_view text, Cleaning cleaning, const Word& word, const Special& special) {
    const SpecialLiterals literals = special_literals(cleaning);
    const auto take = [&](std::size_t length) {
        word(text.substr(0, length));
        text.remove_prefix(length);
    };
    while (!text.empty()) {
        if (text.front() == '<') {
            if (cleaning == Cleaning::open_clip) {
                const std::size_t start = ignoring_long_s(text, literals.start);
                const std::size_t end = ignoring_long_s(text, literals.end);
                if (const std::size_t length = std::max(start, end)) {
                    // With a long s it matches as one word, yet is not the special token.
                    if (text.starts_with(start ? literals.start : literals.end)) {
                        special(start != 0);
                        text.remove_prefix(length);
                    } else {
                        take(length);
                    }
                    continue;
                }
            } else if (text.starts_with(literals.start) || text.starts_with(literals.end)) {
                // Written in capitals, it is one piece to the first split and three to the second.
                take(2);
                take(text.find('|'));
                take(2);
                continue;
            }
        }
        if (const std::size_t length = contraction_length(text, cleaning)) {
            take(length);
            continue;
        }
        const CodePoint first = front_code_point(text);
        const CharClass kind = word_class(first.value, cleaning);
        std::size_t length = first.bytes;
        if (kind == CharClass::letter || kind == CharClass::other) {
            while (length < text.size()) {
                const CodePoint next = front_code_point(text.substr(length));
                if (word_class(next.value, cleaning) != kind) break;
                length += next.bytes;
            }
        }
        if (kind == CharClass::space) {
            text.remove_prefix(length);
        } else {
            take(length);
        }
    }
}

/// Cleans a text and splits it into words and special tokens.
template <class Word, class Special>
void split_text(std::string_view text, Cleaning cleaning, const Word& word, const Special& special) {
    if (cleaning == Cleaning::transformers) {
        // Here special tokens are found, letter for letter, before anything is cleaned.
        const SpecialLiterals literals = special_literals(cleaning);
        while (true) {
            const std::size_t start = text.find(literals.start);
            const std::size_t end = text.find(literals.end);
            const std::size_t at = std::min(start, end);
            if (at == std::string_view::npos) break;
            split_cleaned(clean_text(text.substr(0, at), cleaning), cleaning, word, special);
            special(start < end);
            text.remove_prefix(at + (start < end ? literals.start : literals.end).size());
        }
    }
    split_cleaned(clean_text(text, cleaning), cleaning, word, special);
}

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

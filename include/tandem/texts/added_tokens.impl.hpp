// Definitions of texts/added_tokens.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <utility>

#include <tandem/core/platform.hpp>
#include <tandem/texts/added_tokens.hpp>
#include <tandem/texts/code_points.hpp>
#include <tandem/texts/unicode.hpp>

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE void AddedTokens::add(AddedToken token) {
    if (token.text.empty()) return;
    begins_[static_cast<unsigned char>(token.text.front())] = true;
    const auto place = std::ranges::lower_bound(tokens_, token.text, {}, &AddedToken::text);
    // What is added twice counts as it was the last time.
    if (place != tokens_.end() && place->text == token.text) {
        *place = std::move(token);
    } else {
        tokens_.insert(place, std::move(token));
    }
}

TANDEM_INLINE bool AddedTokens::has(std::string_view text) const {
    return std::ranges::any_of(tokens_, [&](const AddedToken& token) { return token.text == text; });
}

TANDEM_INLINE const AddedToken* AddedTokens::longest_at(std::string_view text, std::size_t at) const {
    if (!begins_[static_cast<unsigned char>(text[at])]) return nullptr;
    const AddedToken* longest = nullptr;
    auto low = tokens_.begin(), high = tokens_.end();
    for (std::size_t length = 1; at + length <= text.size() && low != high; ++length) {
        narrow_to_prefix(low, high, text.substr(at, length));
        if (low != high && low->text.size() == length) longest = &*low;
    }
    return longest;
}

TANDEM_INLINE bool AddedTokens::is_word(char32_t c) {
    const utf8proc_category_t kind = category(c);
    return (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_ND) || kind == UTF8PROC_CATEGORY_NL ||
           kind == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D;
}

TANDEM_INLINE bool AddedTokens::is_word_at_begin(std::string_view text) {
    return !text.empty() && is_word(front_code_point(text).value);
}

TANDEM_INLINE bool AddedTokens::is_word_at_end(std::string_view text) {
    if (text.empty()) return false;
    std::size_t letter = text.size() - 1;
    while (letter > 0 && (static_cast<unsigned char>(text[letter]) & 0xC0U) == 0x80) --letter;
    return is_word(front_code_point(text.substr(letter)).value);
}

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

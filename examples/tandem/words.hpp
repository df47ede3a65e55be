// The words of captions and queries.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace program {

/// The words of a text as they are looked for: letters and digits of any script together.
std::vector<std::string> words_of(std::string_view text);

/// Of these, those that are more than grammar, unless none is.
std::vector<std::string> content_words(std::string_view text);

/// The query of FTS5 for words joined by AND or OR; empty without words.
std::string words_query(const std::vector<std::string>& words, const char* joined_by);

/// Whether a word is more than a few letters or a number.
bool says_something(std::string_view word);

/// A number that a text always gives: an order, or a coin, that is nobody's choice.
std::uint64_t scattered(std::string_view text);

}  // namespace program

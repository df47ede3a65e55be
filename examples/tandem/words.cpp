#include "words.hpp"

#include <algorithm>
#include <cctype>
#include <set>
#include <span>
#include <utility>

#include <tandem/core/digest.hpp>

namespace program {

std::vector<std::string> content_words(std::string_view text) {
    static const std::set<std::string> little{"a",  "an", "and", "as", "at", "by", "for", "from", "in", "is", "it",
                                              "of", "on", "or",  "the", "to", "with"};
    std::vector<std::string> words = words_of(text);
    if (std::ranges::any_of(words, [&](const std::string& word) { return !little.contains(word); }))
        std::erase_if(words, [&](const std::string& word) { return little.contains(word); });
    return words;
}

std::vector<std::string> words_of(std::string_view text) {
    std::vector<std::string> words;
    std::string word;
    for (const char c : std::string(text) + ' ') {
        const auto byte = static_cast<unsigned char>(c);
        if (byte >= 0x80 || std::isalnum(byte) != 0) {
            word += static_cast<char>(byte < 0x80 ? std::tolower(byte) : byte);
        } else if (!word.empty()) {
            words.push_back(std::move(word));
            word.clear();
        }
    }
    return words;
}

std::string words_query(const std::vector<std::string>& words, const char* joined_by) {
    std::string query;
    for (const std::string& word : words) query += (query.empty() ? "" : std::string(" ") + joined_by + " ") + '"' + word + '"';
    return query;
}

bool says_something(std::string_view word) {
    return word.size() >= 3 && word.find_first_not_of("0123456789") != std::string_view::npos;
}

std::uint64_t scattered(std::string_view text) {
    tandem::Digest digest;
    digest.add(std::as_bytes(std::span(text)));
    return digest.value();
}

}  // namespace program

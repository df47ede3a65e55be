// What the tokenizers' tests share: tables of texts and ids, as make_bpe_goldens.py describes them.
#pragma once

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <tandem/texts/bpe.hpp>

namespace token_goldens {

using Rows = std::vector<std::vector<std::string>>;

inline std::vector<std::string> fields(const std::string& row) {
    std::vector<std::string> out(1);
    for (const char c : row) {
        if (c == '\t') {
            out.emplace_back();
        } else {
            out.back() += c;
        }
    }
    return out;
}

inline std::string unescaped(const std::string& text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '\\') {
            out += text[i];
            continue;
        }
        const char c = text.at(++i);
        out += c == 't' ? '\t' : c == 'n' ? '\n' : c == 'r' ? '\r' : c;
    }
    return out;
}

inline std::vector<tandem::Id> parse_ids(const std::string& text) {
    std::istringstream stream(text);
    return {std::istream_iterator<tandem::Id>(stream), {}};
}

/// Ids as tables write them, each with a blank after it.
inline std::string text_of(const std::vector<tandem::Id>& ids) {
    std::string text;
    for (const tandem::Id id : ids) text += std::to_string(id) + " ";
    return text;
}

/// The rows of a table by their first field, their kind.
inline std::map<std::string, Rows> read(const std::filesystem::path& path) {
    std::map<std::string, Rows> by_kind;
    std::istringstream lines(tandem::detail::read_gzip(path));
    for (std::string line; std::getline(lines, line);) {
        std::vector<std::string> row = fields(line);
        by_kind[row.front()].push_back(row);
    }
    return by_kind;
}

/// Ten mistakes are shown, and all are counted.
inline void compare_ids(const std::vector<tandem::Id>& found, const std::string& text, const std::string& expected,
                        std::size_t& wrong) {
    if (found == parse_ids(expected) || ++wrong > 10) return;
    UNSCOPED_INFO(text << "\n  expected " << expected << "\n  found    " << text_of(found));
}

/// Rows of a kind, a text and its ids, which stand in a column: more than ten thousand.
template <class Tokenizer>
void compare_texts(const Tokenizer& tokenizer, const Rows& rows, std::size_t column) {
    std::size_t wrong = 0;
    for (const auto& row : rows) compare_ids(tokenizer.encode(unescaped(row.at(1))), row.at(1), row.at(column), wrong);
    CHECK(wrong == 0);
    CHECK(rows.size() > 10'000);
}

/// Rows of a kind, a context, a text and its ids, cut or padded to that context: more than a hundred.
template <class Tokenizer>
void compare_contexts(const Tokenizer& tokenizer, const Rows& rows) {
    std::size_t wrong = 0;
    for (const auto& row : rows) {
        std::vector<tandem::Id> found(std::stoul(row.at(1)), -1);
        tokenizer.encode(unescaped(row.at(2)), found);
        compare_ids(found, row.at(2), row.at(3), wrong);
    }
    CHECK(wrong == 0);
    CHECK(rows.size() > 100);
}

/// A batch is its texts one by one.
template <class Tokenizer>
void check_batch(const Tokenizer& tokenizer) {
    const std::vector<std::string> texts{"a photo of a cat", "", "Dogs, two of them!"};
    const std::vector<tandem::Id> batch = tokenizer.encode_batch(texts, 16);
    REQUIRE(batch.size() == 48);
    for (std::size_t i = 0; i < texts.size(); ++i) {
        std::vector<tandem::Id> row(16);
        tokenizer.encode(texts[i], row);
        CHECK(std::equal(row.begin(), row.end(), batch.begin() + static_cast<std::ptrdiff_t>(16 * i)));
    }
}

}  // namespace token_goldens

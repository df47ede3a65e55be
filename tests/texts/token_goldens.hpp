// What the tokenizers' tests share: tables of texts and ids, as make_bpe_goldens.py describes them.
#pragma once

#include <cstddef>
#include <filesystem>
#include <iterator>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <tandem/texts/bpe.hpp>

namespace token_goldens {

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

/// The rows of a table by their first field, their kind.
inline std::map<std::string, std::vector<std::vector<std::string>>> read(const std::filesystem::path& path) {
    std::map<std::string, std::vector<std::vector<std::string>>> by_kind;
    std::istringstream lines(tandem::detail::read_gzip(path));
    for (std::string line; std::getline(lines, line);) {
        std::vector<std::string> row = fields(line);
        by_kind[row.front()].push_back(row);
    }
    return by_kind;
}

}  // namespace token_goldens

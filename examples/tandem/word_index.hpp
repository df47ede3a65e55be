// The words of a catalogue's pictures, and how well pictures fit some: SQLite's full-text search, or the same on a server.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "database.hpp"

namespace program {

/// What tables it keeps, in SQL.
const char* word_tables(const Database& database);

/// Of a picture, in which words are looked for. A caption says more than a folder's name, a tag more than both.
struct WordFields {
    std::string caption, name, tags;
};

enum class Having { all, any };

/// Words are found by their stems. What two kinds of database find, and its scores, are the same: those of FTS5's bm25 (SQLite 3.40,
/// ext/fts5/fts5_aux.c), with weights 2, 1 and 4; but that a word of several stems ("don't") is a phrase in a file, and on a server
/// all of its stems, wherever they stand.
class WordIndex {
public:
    explicit WordIndex(const Database& database) : database_(database) {}

    void set(std::int64_t id, const WordFields& fields) const;
    void erase(std::int64_t id) const;

    /// All that a picture's fields say.
    std::string text(std::int64_t id) const;
    /// Pictures that have a word.
    std::size_t count(const std::string& word) const;
    /// Pictures that have the words.
    std::vector<std::int64_t> having(const std::vector<std::string>& words, Having which) const;
    /// The same as a condition on picture.id, with its parameters.
    std::pair<std::string, std::vector<std::string>> condition(const std::vector<std::string>& words, Having which) const;
    /// visit(id, score) for pictures that have any of the words, the best first and then by id, as long as it returns true.
    void for_each_scored(const std::vector<std::string>& words, const std::function<bool(std::int64_t, double)>& visit) const;

private:
    const Database& database_;
};

}  // namespace program

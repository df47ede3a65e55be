// SQLite: files, and the stems of words as its full-text search has them.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "database.hpp"

namespace program {

std::unique_ptr<detail::Connection> open_sqlite(const std::string& path, Database::Mode mode);

/// The tokenizer of FTS5 that finds "dogs" for "Dog": Porter's stems of Unicode's letters without their accents.
class Stemmer {
public:
    struct Word {
        std::string stem;
        std::size_t begin, end;  ///< where it stands in the text
    };

    Stemmer();
    Stemmer(const Stemmer&) = delete;
    Stemmer& operator=(const Stemmer&) = delete;
    ~Stemmer();

    std::vector<Word> operator()(std::string_view text) const;

    /// One of the calling thread's own.
    static const Stemmer& of_thread();

private:
    struct Tokenizer;
    std::unique_ptr<Tokenizer> tokenizer_;
};

}  // namespace program

// SQLite as values: a connection, its statements, a transaction. Every failure is a td::Error that names the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <sqlite3.h>

#include <tandem/core/error.hpp>

namespace program {

namespace td = tandem;

class Database;

/// What SQLite says, not what was asked of it.
class DatabaseError : public td::Error {
public:
    using td::Error::Error;
};

namespace detail {

struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using CompiledStatement = std::unique_ptr<sqlite3_stmt, Finalize>;

}  // namespace detail

/// A statement, which is run row by row.
class Statement {
public:
    /// Compiled once a connection and text, and used again.
    Statement(const Database& database, std::string_view sql);
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;
    ~Statement();

    /// The next parameters, from the first on after a reset.
    template <class T>
    Statement& bind(const T& value) {
        ++bound_;
        if constexpr (std::is_same_v<T, std::nullptr_t>) {
            check(sqlite3_bind_null(handle_.get(), bound_));
        } else if constexpr (std::is_integral_v<T>) {
            check(sqlite3_bind_int64(handle_.get(), bound_, static_cast<sqlite3_int64>(value)));
        } else if constexpr (std::is_floating_point_v<T>) {
            check(sqlite3_bind_double(handle_.get(), bound_, static_cast<double>(value)));
        } else if constexpr (std::is_convertible_v<const T&, std::string_view>) {
            const std::string_view text = value;
            check(sqlite3_bind_text64(handle_.get(), bound_, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
        } else {
            const auto bytes = std::as_bytes(std::span(value));
            // An empty blob is not NULL.
            check(bytes.empty() ? sqlite3_bind_zeroblob(handle_.get(), bound_, 0)
                                : sqlite3_bind_blob64(handle_.get(), bound_, bytes.data(), bytes.size(), SQLITE_TRANSIENT));
        }
        return *this;
    }

    /// Whether there is a row (more).
    bool step();
    /// Runs it to its end, ready to be bound anew.
    void run();

    std::int64_t integer(int column) const { return sqlite3_column_int64(handle_.get(), column); }
    double number(int column) const { return sqlite3_column_double(handle_.get(), column); }
    std::string text(int column) const;
    /// Valid until the next step.
    std::span<const std::byte> blob(int column) const;
    bool is_null(int column) const { return sqlite3_column_type(handle_.get(), column) == SQLITE_NULL; }

private:
    void check(int code) const;

    const Database* database_;
    detail::CompiledStatement handle_;
    int bound_ = 0;
};

/// A connection, for one thread at a time.
class Database {
public:
    enum class Mode { read, write, create };

    /// Throws Error if the file is not there (but for create) or is no database.
    Database(const std::filesystem::path& path, Mode mode);

    /// Runs statements without parameters.
    void run(const std::string& sql) const;
    /// The same, where a failure means nothing.
    void try_run(const char* sql) const noexcept { sqlite3_exec(handle_.get(), sql, nullptr, nullptr, nullptr); }
    /// The first number of the first row; 0 without a row.
    std::int64_t number(std::string_view sql) const;

    std::int64_t last_row() const { return sqlite3_last_insert_rowid(handle_.get()); }
    const std::string& path() const { return path_; }
    [[noreturn]] void fail() const;

private:
    friend class Statement;
    friend class Stemmer;
    friend class Transaction;

    struct Close {
        void operator()(sqlite3* database) const { sqlite3_close_v2(database); }
    };
    std::string path_;
    std::unique_ptr<sqlite3, Close> handle_;
    mutable std::multimap<std::string, detail::CompiledStatement, std::less<>> spare_;  ///< statements that nobody runs
};

/// The tokenizer of FTS5 that finds "dogs" for "Dog": Porter's stems of Unicode's letters without their accents.
class Stemmer {
public:
    struct Word {
        std::string stem;
        std::size_t begin, end;  ///< where it stands in the text
    };

    explicit Stemmer(const Database& database);
    Stemmer(const Stemmer&) = delete;
    Stemmer& operator=(const Stemmer&) = delete;
    ~Stemmer();

    std::vector<Word> operator()(std::string_view text) const;

private:
    const Database& database_;
    fts5_tokenizer functions_{};
    Fts5Tokenizer* tokenizer_ = nullptr;
};

/// All or nothing of what is written while it lives; it writes nothing unless it is committed.
class Transaction {
public:
    explicit Transaction(const Database& database) : database_(database) { database_.run("BEGIN IMMEDIATE"); }
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    ~Transaction();

    void commit();

private:
    const Database& database_;
    bool is_open_ = true;
};

}  // namespace program

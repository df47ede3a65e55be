// A database as values: a connection, its statements, a transaction. It is a file of SQLite's, or a server's (PostgreSQL). Every
// failure is a td::Error that names it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>

namespace program {

namespace td = tandem;

class Database;

/// What the database says, not what was asked of it.
class DatabaseError : public td::Error {
public:
    using td::Error::Error;
};

namespace detail {

/// A statement that a database has compiled. Parameters count from 1, columns from 0.
class CompiledStatement {
public:
    virtual ~CompiledStatement() = default;
    virtual void bind_null(int at) = 0;
    virtual void bind_integer(int at, std::int64_t value) = 0;
    virtual void bind_number(int at, double value) = 0;
    virtual void bind_text(int at, std::string_view text) = 0;
    virtual void bind_blob(int at, std::span<const std::byte> bytes) = 0;
    virtual bool step() = 0;
    /// Ready to be bound anew.
    virtual void reset() noexcept = 0;
    virtual std::int64_t integer(int column) const = 0;
    virtual double number(int column) const = 0;
    virtual std::span<const std::byte> blob(int column) const = 0;
};

/// What a kind of database does.
class Connection {
public:
    virtual ~Connection() = default;
    virtual std::unique_ptr<CompiledStatement> compile(std::string_view sql) = 0;
    /// Runs statements without parameters.
    virtual void run(const std::string& sql) = 0;
    virtual void begin_writing() = 0;
    virtual void begin_reading() = 0;
    /// As news to other connections, or not: see version().
    virtual void commit(bool is_news) = 0;
    virtual void roll_back() noexcept = 0;
    /// Another one after other connections have committed.
    virtual std::int64_t version() = 0;
};

}  // namespace detail

/// A statement, which is run row by row. Parameters are ?, or ?1, ?2 and so on.
class Statement {
public:
    /// Used again by the next statement of the same text on the connection.
    Statement(const Database& database, std::string_view sql);
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;
    ~Statement();

    /// The next parameters, from the first on after a reset.
    template <class T>
    Statement& bind(const T& value) {
        ++bound_;
        if constexpr (std::is_same_v<T, std::nullptr_t>) {
            handle_->bind_null(bound_);
        } else if constexpr (std::is_integral_v<T>) {
            handle_->bind_integer(bound_, static_cast<std::int64_t>(value));
        } else if constexpr (std::is_floating_point_v<T>) {
            handle_->bind_number(bound_, static_cast<double>(value));
        } else if constexpr (std::is_convertible_v<const T&, std::string_view>) {
            handle_->bind_text(bound_, value);
        } else {
            handle_->bind_blob(bound_, std::as_bytes(std::span(value)));
        }
        return *this;
    }

    /// Whether there is a row (more).
    bool step() { return handle_->step(); }
    /// Runs it to its end, ready to be bound anew.
    void run();

    std::int64_t integer(int column) const { return handle_->integer(column); }
    double number(int column) const { return handle_->number(column); }
    std::string text(int column) const;
    /// Valid until the next step.
    std::span<const std::byte> blob(int column) const { return handle_->blob(column); }

private:
    const Database* database_;
    std::string sql_;
    std::unique_ptr<detail::CompiledStatement> handle_;
    int bound_ = 0;
};

/// A connection, for one thread at a time.
class Database {
public:
    enum class Mode { read, write, create };

    /// Whether a place is a server's, postgresql://..., and not a file.
    static bool is_server(std::string_view where);

    /// Throws Error if nothing is there (but for create) or it is no database.
    Database(const std::string& where, Mode mode);

    void run(const std::string& sql) const { connection_->run(sql); }
    /// The first number of the first row; 0 without a row.
    std::int64_t number(std::string_view sql) const;
    /// Changes with what other connections commit.
    std::int64_t version() const { return connection_->version(); }

    const std::string& path() const { return path_; }
    bool is_on_server() const { return is_server(path_); }

private:
    friend class Statement;
    friend class Transaction;
    friend class Reading;

    std::string path_;
    std::unique_ptr<detail::Connection> connection_;
    mutable std::multimap<std::string, std::unique_ptr<detail::CompiledStatement>, std::less<>> spare_;  ///< statements that nobody runs
};

/// All or nothing of what is written while it lives; it writes nothing unless it is committed. One at a time writes.
class Transaction {
public:
    explicit Transaction(const Database& database) : database_(database) { database_.connection_->begin_writing(); }
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    ~Transaction() {
        if (is_open_) database_.connection_->roll_back();
    }

    void commit() {
        database_.connection_->commit(true);
        is_open_ = false;
    }
    /// Where nothing was written that readers know of: they do not look for it.
    void commit_derived() {
        database_.connection_->commit(false);
        is_open_ = false;
    }

private:
    const Database& database_;
    bool is_open_ = true;
};

/// All that is read while it lives is of one moment.
class Reading {
public:
    explicit Reading(const Database& database) : database_(database) { database_.connection_->begin_reading(); }
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;
    ~Reading() { database_.connection_->roll_back(); }

private:
    const Database& database_;
};

}  // namespace program

#include "sqlite.hpp"

#include <sqlite3.h>

#include <tandem/core/error.hpp>

namespace program {

namespace {

struct Close {
    void operator()(sqlite3* database) const { sqlite3_close_v2(database); }
};
struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Handle = std::unique_ptr<sqlite3, Close>;

class SqliteStatement final : public detail::CompiledStatement {
public:
    SqliteStatement(sqlite3* database, const std::string& path, std::string_view sql) : database_(database), path_(path) {
        sqlite3_stmt* statement = nullptr;
        check(sqlite3_prepare_v3(database, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT, &statement, nullptr));
        handle_.reset(statement);
    }

    void bind_null(int at) override { check(sqlite3_bind_null(handle_.get(), at)); }
    void bind_integer(int at, std::int64_t value) override { check(sqlite3_bind_int64(handle_.get(), at, value)); }
    void bind_number(int at, double value) override { check(sqlite3_bind_double(handle_.get(), at, value)); }
    void bind_text(int at, std::string_view text) override {
        check(sqlite3_bind_text64(handle_.get(), at, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8));
    }
    void bind_blob(int at, std::span<const std::byte> bytes) override {
        // An empty blob is not NULL.
        check(bytes.empty() ? sqlite3_bind_zeroblob(handle_.get(), at, 0) : sqlite3_bind_blob64(handle_.get(), at, bytes.data(), bytes.size(), SQLITE_TRANSIENT));
    }
    bool step() override {
        const int code = sqlite3_step(handle_.get());
        if (code != SQLITE_ROW && code != SQLITE_DONE) fail();
        return code == SQLITE_ROW;
    }
    void reset() noexcept override {
        sqlite3_reset(handle_.get());
        sqlite3_clear_bindings(handle_.get());
    }
    std::int64_t integer(int column) const override { return sqlite3_column_int64(handle_.get(), column); }
    double number(int column) const override { return sqlite3_column_double(handle_.get(), column); }
    std::span<const std::byte> blob(int column) const override {
        const void* const data = sqlite3_column_blob(handle_.get(), column);
        return {static_cast<const std::byte*>(data), static_cast<std::size_t>(sqlite3_column_bytes(handle_.get(), column))};
    }

private:
    void check(int code) const {
        if (code != SQLITE_OK) fail();
    }
    [[noreturn]] void fail() const { throw DatabaseError(path_, sqlite3_errmsg(database_)); }

    sqlite3* database_;
    const std::string& path_;
    std::unique_ptr<sqlite3_stmt, Finalize> handle_;
};

Handle open_handle(const std::string& path, int flags) {
    // Nobody reads SQLite's count of memory, for which every allocation of every thread would take one lock.
    static const int is_uncounted = sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    static_cast<void>(is_uncounted);
    sqlite3* database = nullptr;
    const int code = sqlite3_open_v2(path.c_str(), &database, SQLITE_OPEN_NOMUTEX | flags, nullptr);
    Handle handle(database);
    if (code != SQLITE_OK) throw DatabaseError(path, handle ? sqlite3_errmsg(database) : "no memory for a database");
    return handle;
}

class SqliteConnection final : public detail::Connection {
public:
    SqliteConnection(const std::string& path, Database::Mode mode)
        : path_(path),
          handle_(open_handle(path, mode == Database::Mode::read    ? SQLITE_OPEN_READONLY
                                    : mode == Database::Mode::write ? SQLITE_OPEN_READWRITE
                                                                    : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)) {
        // Another program that writes is waited for.
        sqlite3_busy_timeout(handle_.get(), 30'000);
    }

    std::unique_ptr<detail::CompiledStatement> compile(std::string_view sql) override { return std::make_unique<SqliteStatement>(handle_.get(), path_, sql); }
    void run(const std::string& sql) override {
        if (sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) throw DatabaseError(path_, sqlite3_errmsg(handle_.get()));
    }
    void begin_writing() override { run("BEGIN IMMEDIATE"); }
    void begin_reading() override { run("BEGIN"); }
    void commit(bool) override { run("COMMIT"); }
    // What has failed already may have rolled back by itself.
    void roll_back() noexcept override { sqlite3_exec(handle_.get(), "ROLLBACK", nullptr, nullptr, nullptr); }
    std::int64_t version() override {
        SqliteStatement statement(handle_.get(), path_, "PRAGMA data_version");
        return statement.step() ? statement.integer(0) : 0;
    }

private:
    std::string path_;
    Handle handle_;
};

}  // namespace

std::unique_ptr<detail::Connection> open_sqlite(const std::string& path, Database::Mode mode) { return std::make_unique<SqliteConnection>(path, mode); }

/// Of a database of its own, in memory, since a tokenizer belongs to one.
struct Stemmer::Tokenizer {
    Handle database = open_handle(":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    fts5_tokenizer functions{};
    Fts5Tokenizer* tokenizer = nullptr;
};

Stemmer::Stemmer() : tokenizer_(std::make_unique<Tokenizer>()) {
    fts5_api* api = nullptr;
    sqlite3_stmt* statement = nullptr;
    sqlite3* const database = tokenizer_->database.get();
    if (sqlite3_prepare_v2(database, "SELECT fts5(?1)", -1, &statement, nullptr) == SQLITE_OK) {
        const std::unique_ptr<sqlite3_stmt, Finalize> held(statement);
        sqlite3_bind_pointer(statement, 1, &api, "fts5_api_ptr", nullptr);
        sqlite3_step(statement);
    }
    void* user = nullptr;
    const char* options[] = {"unicode61", "remove_diacritics", "2"};  // as the catalogue's table has it
    if (api == nullptr || api->xFindTokenizer(api, "porter", &user, &tokenizer_->functions) != SQLITE_OK ||
        tokenizer_->functions.xCreate(user, options, 3, &tokenizer_->tokenizer) != SQLITE_OK)
        throw td::Error("SQLite", "one with FTS5", "one without");
}

Stemmer::~Stemmer() {
    if (tokenizer_->tokenizer != nullptr) tokenizer_->functions.xDelete(tokenizer_->tokenizer);
}

std::vector<Stemmer::Word> Stemmer::operator()(std::string_view text) const {
    std::vector<Word> words;
    const auto add = [](void* to, int, const char* stem, int size, int begin, int end) {
        static_cast<std::vector<Word>*>(to)->push_back(
            {std::string(stem, static_cast<std::size_t>(size)), static_cast<std::size_t>(begin), static_cast<std::size_t>(end)});
        return SQLITE_OK;
    };
    if (tokenizer_->functions.xTokenize(tokenizer_->tokenizer, &words, FTS5_TOKENIZE_DOCUMENT, text.data(), static_cast<int>(text.size()), add) != SQLITE_OK)
        throw td::Error("SQLite", "words of a text", sqlite3_errmsg(tokenizer_->database.get()));
    return words;
}

const Stemmer& Stemmer::of_thread() {
    thread_local const Stemmer stemmer;
    return stemmer;
}

}  // namespace program

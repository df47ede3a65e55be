#include "database.hpp"

#include <utility>

namespace program {

Statement::Statement(const Database& database, std::string_view sql) : database_(&database) {
    if (const auto spare = database.spare_.find(sql); spare != database.spare_.end()) {
        handle_ = std::move(spare->second);
        database.spare_.erase(spare);
        return;
    }
    sqlite3_stmt* statement = nullptr;
    check(sqlite3_prepare_v3(database.handle_.get(), sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT,
                             &statement, nullptr));
    handle_.reset(statement);
}

Statement::~Statement() {
    sqlite3_reset(handle_.get());
    sqlite3_clear_bindings(handle_.get());
    database_->spare_.emplace(sqlite3_sql(handle_.get()), std::move(handle_));
}

void Statement::check(int code) const {
    if (code != SQLITE_OK) database_->fail();
}

bool Statement::step() {
    const int code = sqlite3_step(handle_.get());
    if (code != SQLITE_ROW && code != SQLITE_DONE) database_->fail();
    return code == SQLITE_ROW;
}

void Statement::run() {
    while (step()) {
    }
    check(sqlite3_reset(handle_.get()));
    check(sqlite3_clear_bindings(handle_.get()));
    bound_ = 0;
}

std::string Statement::text(int column) const {
    const auto bytes = blob(column);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::span<const std::byte> Statement::blob(int column) const {
    const void* const data = sqlite3_column_blob(handle_.get(), column);
    return {static_cast<const std::byte*>(data), static_cast<std::size_t>(sqlite3_column_bytes(handle_.get(), column))};
}

Database::Database(const std::filesystem::path& path, Mode mode) : path_(path.string()) {
    // Nobody reads SQLite's count of memory, for which every allocation of every thread would take one lock.
    static const int is_uncounted = sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    static_cast<void>(is_uncounted);
    sqlite3* database = nullptr;
    const int flags = SQLITE_OPEN_NOMUTEX | (mode == Mode::read     ? SQLITE_OPEN_READONLY
                                             : mode == Mode::write ? SQLITE_OPEN_READWRITE
                                                                   : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    const int code = sqlite3_open_v2(path_.c_str(), &database, flags, nullptr);
    handle_.reset(database);
    if (code != SQLITE_OK) fail();
    // Another program that writes is waited for.
    sqlite3_busy_timeout(database, 30'000);
}

void Database::run(const std::string& sql) const {
    if (sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) fail();
}

std::int64_t Database::number(std::string_view sql) const {
    Statement statement(*this, sql);
    return statement.step() ? statement.integer(0) : 0;
}

void Database::fail() const {
    throw DatabaseError(path_, handle_ ? sqlite3_errmsg(handle_.get()) : "no memory for a database");
}

Stemmer::Stemmer(const Database& database) : database_(database) {
    fts5_api* api = nullptr;
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v2(database.handle_.get(), "SELECT fts5(?1)", -1, &statement, nullptr) != SQLITE_OK) database.fail();
    const detail::CompiledStatement held(statement);
    sqlite3_bind_pointer(statement, 1, &api, "fts5_api_ptr", nullptr);
    sqlite3_step(statement);
    void* user = nullptr;
    const char* options[] = {"unicode61", "remove_diacritics", "2"};  // as the catalogue's table has it
    if (api == nullptr || api->xFindTokenizer(api, "porter", &user, &functions_) != SQLITE_OK ||
        functions_.xCreate(user, options, 3, &tokenizer_) != SQLITE_OK)
        throw td::Error(database.path(), "SQLite with FTS5", "one without");
}

Stemmer::~Stemmer() { functions_.xDelete(tokenizer_); }

std::vector<Stemmer::Word> Stemmer::operator()(std::string_view text) const {
    std::vector<Word> words;
    const auto add = [](void* to, int, const char* stem, int size, int begin, int end) {
        static_cast<std::vector<Word>*>(to)->push_back(
            {std::string(stem, static_cast<std::size_t>(size)), static_cast<std::size_t>(begin), static_cast<std::size_t>(end)});
        return SQLITE_OK;
    };
    if (functions_.xTokenize(tokenizer_, &words, FTS5_TOKENIZE_DOCUMENT, text.data(), static_cast<int>(text.size()), add) != SQLITE_OK)
        database_.fail();
    return words;
}

Transaction::~Transaction() {
    // What has failed already may have rolled back by itself.
    if (is_open_) sqlite3_exec(database_.handle_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
}

void Transaction::commit() {
    database_.run("COMMIT");
    is_open_ = false;
}

}  // namespace program

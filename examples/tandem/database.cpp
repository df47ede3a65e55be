#include "database.hpp"

namespace program {

Statement::Statement(const Database& database, std::string_view sql) : database_(&database) {
    sqlite3_stmt* statement = nullptr;
    check(sqlite3_prepare_v3(database.handle_.get(), sql.data(), static_cast<int>(sql.size()), 0, &statement, nullptr));
    handle_.reset(statement);
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
    throw td::Error(path_, handle_ ? sqlite3_errmsg(handle_.get()) : "no memory for a database");
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

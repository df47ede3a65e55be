#include "database.hpp"

#include <utility>

#include "postgres.hpp"
#include "sqlite.hpp"

namespace program {

Statement::Statement(const Database& database, std::string_view sql) : database_(&database), sql_(sql) {
    if (const auto spare = database.spare_.find(sql); spare != database.spare_.end()) {
        handle_ = std::move(spare->second);
        database.spare_.erase(spare);
        return;
    }
    handle_ = database.connection_->compile(sql);
}

Statement::~Statement() {
    handle_->reset();
    database_->spare_.emplace(std::move(sql_), std::move(handle_));
}

void Statement::run() {
    while (step()) {
    }
    handle_->reset();
    bound_ = 0;
}

std::string Statement::text(int column) const {
    const auto bytes = blob(column);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

bool Database::is_server(std::string_view where) { return where.starts_with("postgresql://") || where.starts_with("postgres://"); }

Database::Database(const std::string& where, Mode mode) 
    : path_(is_server(where) ? without_password(where) : where), connection_(is_server(where) ? connect_postgres(where, mode) : open_sqlite(where, mode)) {}

std::int64_t Database::number(std::string_view sql) const {
    Statement statement(*this, sql);
    return statement.step() ? statement.integer(0) : 0;
}

}  // namespace program

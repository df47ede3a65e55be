#include "postgres.hpp"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <vector>

#include <libpq-fe.h>

namespace program {

namespace {

struct Finish {
    void operator()(PGconn* connection) const { PQfinish(connection); }
};
struct Clear {
    void operator()(PGresult* result) const { PQclear(result); }
};
using Result = std::unique_ptr<PGresult, Clear>;

/// Of PostgreSQL's catalogue (pg_type.dat).
constexpr Oid type_bytea = 17, type_int8 = 20, type_float8 = 701;

class PostgresConnection;

/// Texts are bytes there as well: paths are not always UTF-8, and are compared byte by byte.
class PostgresStatement final : public detail::CompiledStatement {
public:
    PostgresStatement(PostgresConnection& connection, std::string_view sql);

    void bind_null(int at) override { parameter(at) = {}; }
    void bind_integer(int at, std::int64_t value) override { parameter(at) = {std::to_string(value), type_int8, 0, true}; }
    void bind_number(int at, double value) override {
        char text[32];
        const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
        parameter(at) = {std::string(text, end), type_float8, 0, true};
    }
    void bind_text(int at, std::string_view text) override { parameter(at) = {std::string(text), type_bytea, 1, true}; }
    void bind_blob(int at, std::span<const std::byte> bytes) override { bind_text(at, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}); }
    bool step() override;
    void reset() noexcept override {
        result_.reset();
        row_ = -1;
        parameters_.clear();
    }
    std::int64_t integer(int column) const override {
        const char* const text = PQgetvalue(result_.get(), row_, column);
        std::int64_t value = 0;
        std::from_chars(text, text + std::strlen(text), value);
        return value;
    }
    double number(int column) const override { return std::strtod(PQgetvalue(result_.get(), row_, column), nullptr); }
    std::span<const std::byte> blob(int column) const override;

private:
    struct Parameter {
        std::string value;
        Oid type = 0;
        int format = 0;
        bool is_there = false;
    };
    Parameter& parameter(int at) {
        if (parameters_.size() < static_cast<std::size_t>(at)) parameters_.resize(static_cast<std::size_t>(at));
        return parameters_[static_cast<std::size_t>(at) - 1];
    }

    PostgresConnection& connection_;
    std::string sql_;
    std::vector<Parameter> parameters_;
    Result result_;
    int row_ = -1;
    mutable std::vector<std::vector<std::byte>> decoded_;  ///< of the row, by column
};

class PostgresConnection final : public detail::Connection {
public:
    PostgresConnection(const std::string& where, Database::Mode mode) : where_(without_password(where)), handle_(PQconnectdb(where.c_str())) {
        if (PQstatus(handle_.get()) != CONNECTION_OK) fail();
        PQsetNoticeProcessor(handle_.get(), [](void*, const char*) {}, nullptr);
        if (mode == Database::Mode::create) run("CREATE SCHEMA IF NOT EXISTS tandem");
        run("SET search_path TO tandem, public; SET bytea_output = 'hex'");
        if (mode == Database::Mode::read) run("SET default_transaction_read_only = on");
    }

    std::unique_ptr<detail::CompiledStatement> compile(std::string_view sql) override { return std::make_unique<PostgresStatement>(*this, sql); }
    void run(const std::string& sql) override { check(Result(PQexec(handle_.get(), sql.c_str()))); }
    /// One at a time, as in a file.
    void begin_writing() override { run("BEGIN; SELECT pg_advisory_xact_lock(1953393773)"); }
    void begin_reading() override { run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); }
    void commit() override {
        // With what was written, so that whoever sees the number sees that as well.
        run("UPDATE change SET number = number + 1");
        run("COMMIT");
    }
    void roll_back() noexcept override { PQclear(PQexec(handle_.get(), "ROLLBACK")); }
    std::int64_t version() override {
        PostgresStatement statement(*this, "SELECT number FROM change");
        return statement.step() ? statement.integer(0) : 0;
    }

    Result check(Result result) const {
        const ExecStatusType status = PQresultStatus(result.get());
        if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) fail();
        return result;
    }
    PGconn* handle() const { return handle_.get(); }

private:
    [[noreturn]] void fail() const {
        std::string message = PQerrorMessage(handle_.get());
        while (!message.empty() && message.back() == '\n') message.pop_back();
        throw DatabaseError(where_, message.empty() ? "no memory for a connection" : message);
    }

    std::string where_;
    std::unique_ptr<PGconn, Finish> handle_;
};

PostgresStatement::PostgresStatement(PostgresConnection& connection, std::string_view sql) : connection_(connection) {
    // ? and ?1 are $1; what stands in quotes is a text.
    int count = 0;
    bool is_quoted = false;
    for (std::size_t i = 0; i < sql.size(); ++i) {
        if (sql[i] == '\'') is_quoted = !is_quoted;
        if (sql[i] != '?' || is_quoted) {
            sql_ += sql[i];
            continue;
        }
        const bool is_numbered = i + 1 < sql.size() && sql[i + 1] >= '1' && sql[i + 1] <= '9';
        sql_ += is_numbered ? "$" : "$" + std::to_string(++count);
    }
}

bool PostgresStatement::step() {
    if (!result_) {
        std::vector<const char*> values;
        std::vector<int> lengths, formats;
        std::vector<Oid> types;
        for (const Parameter& one : parameters_) {
            values.push_back(one.is_there ? one.value.data() : nullptr);
            lengths.push_back(static_cast<int>(one.value.size()));
            formats.push_back(one.format);
            types.push_back(one.type);
        }
        result_ = connection_.check(Result(PQexecParams(connection_.handle(), sql_.c_str(), static_cast<int>(values.size()), types.data(), values.data(), lengths.data(), formats.data(), 0)));
        row_ = -1;
    }
    ++row_;
    decoded_.clear();
    return row_ < PQntuples(result_.get());
}

std::span<const std::byte> PostgresStatement::blob(int column) const {
    const char* const text = PQgetvalue(result_.get(), row_, column);
    const auto size = static_cast<std::size_t>(PQgetlength(result_.get(), row_, column));
    if (PQftype(result_.get(), column) != type_bytea) return std::as_bytes(std::span(text, size));
    if (decoded_.size() <= static_cast<std::size_t>(column)) decoded_.resize(static_cast<std::size_t>(PQnfields(result_.get())));
    std::vector<std::byte>& bytes = decoded_[static_cast<std::size_t>(column)];
    bytes.clear();
    // bytea_output's hex form, the default since version 9: \x and two digits a byte.
    const auto digit = [](char c) { return static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10); };
    for (std::size_t i = 2; i + 1 < size; i += 2) bytes.push_back(static_cast<std::byte>(16 * digit(text[i]) + digit(text[i + 1])));
    return bytes;
}

}  // namespace

std::string without_password(const std::string& where) {
    const std::size_t begin = where.find("://"), at = where.find('@');
    const std::size_t colon = begin == std::string::npos ? std::string::npos : where.find(':', begin + 3);
    if (at == std::string::npos || colon == std::string::npos || colon > at) return where;
    return where.substr(0, colon) + where.substr(at);
}

std::unique_ptr<detail::Connection> connect_postgres(const std::string& where, Database::Mode mode) { return std::make_unique<PostgresConnection>(where, mode); }

}  // namespace program

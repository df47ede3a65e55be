#include "postgres.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
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
    std::int64_t integer(int column) const override;
    double number(int column) const override { return std::bit_cast<double>(integer(column)); }
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
};

class PostgresConnection final : public detail::Connection {
public:
    PostgresConnection(const std::string& where, Database::Mode mode) : where_(without_password(where)), mode_(mode) {
        // A server that does not answer is not waited for by the minute.
        const char* const names[] = {"connect_timeout", "dbname", nullptr};
        const char* const values[] = {"10", where.c_str(), nullptr};
        handle_.reset(PQconnectdbParams(names, values, 1));
        begin_session();
    }

    std::unique_ptr<detail::CompiledStatement> compile(std::string_view sql) override { return std::make_unique<PostgresStatement>(*this, sql); }
    void run(const std::string& sql) override {
        be_connected();
        check(Result(PQexec(handle_.get(), sql.c_str())));
    }
    /// One at a time, as in a file.
    void begin_writing() override {
        run("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE");
        is_open_ = true;
        try {
            run("SELECT pg_advisory_xact_lock(1953393773)");
        } catch (const td::Error&) {
            roll_back();
            throw;
        }
    }
    void begin_reading() override {
        run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        is_open_ = true;
    }
    void commit(bool is_news) override {
        // With what was written, so that whoever sees the number sees that as well.
        if (is_news) run("UPDATE tandem.change SET number = number + 1");
        run("COMMIT");
        is_open_ = false;
    }
    void roll_back() noexcept override {
        is_open_ = false;
        PQclear(PQexec(handle_.get(), "ROLLBACK"));
    }
    std::int64_t version() override {
        PostgresStatement statement(*this, "SELECT number FROM change");
        return statement.step() ? statement.integer(0) : 0;
    }

    /// Connects anew if the connection was lost. What was begun on it is lost as well, and fails.
    void be_connected() {
        if (PQstatus(handle_.get()) == CONNECTION_OK) return;
        if (is_open_) fail();
        PQreset(handle_.get());
        begin_session();
    }
    Result check(Result result) const {
        const ExecStatusType status = PQresultStatus(result.get());
        if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) fail();
        return result;
    }
    PGconn* handle() const { return handle_.get(); }

private:
    void begin_session() {
        if (PQstatus(handle_.get()) != CONNECTION_OK) fail();
        PQsetNoticeProcessor(handle_.get(), [](void*, const char*) {}, nullptr);
        check(Result(PQexec(handle_.get(), "SET search_path TO tandem, public")));
        if (mode_ == Database::Mode::read) check(Result(PQexec(handle_.get(), "SET default_transaction_read_only = on")));
    }
    [[noreturn]] void fail() const {
        std::string message = PQerrorMessage(handle_.get());
        while (!message.empty() && message.back() == '\n') message.pop_back();
        throw DatabaseError(where_, message.empty() ? "no memory for a connection" : message);
    }

    std::string where_;
    Database::Mode mode_;
    bool is_open_ = false;  ///< a transaction
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
        connection_.be_connected();
        result_ = connection_.check(Result(PQexecParams(connection_.handle(), sql_.c_str(), static_cast<int>(values.size()), types.data(), values.data(), lengths.data(), formats.data(), 1)));
        row_ = -1;
    }
    ++row_;
    return row_ < PQntuples(result_.get());
}

std::span<const std::byte> PostgresStatement::blob(int column) const {
    return std::as_bytes(std::span(PQgetvalue(result_.get(), row_, column), static_cast<std::size_t>(PQgetlength(result_.get(), row_, column))));
}

std::int64_t PostgresStatement::integer(int column) const {
    // As many bytes as the column's type has, the highest first.
    std::uint64_t value = 0;
    const std::span<const std::byte> bytes = blob(column);
    for (const std::byte byte : bytes) value = value << 8 | std::to_integer<std::uint64_t>(byte);
    const auto unused = static_cast<unsigned>(64 - 8 * std::min<std::size_t>(bytes.size(), 8));
    return bytes.empty() ? 0 : static_cast<std::int64_t>(value << unused) >> unused;
}

}  // namespace

std::string without_password(const std::string& where) {
    char* error = nullptr;
    struct Free {
        void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
    };
    const std::unique_ptr<PQconninfoOption, Free> options(PQconninfoParse(where.c_str(), &error));
    PQfreemem(error);
    const auto value = [&](const std::string& name) {
        for (const PQconninfoOption* option = options.get(); option != nullptr && option->keyword != nullptr; ++option) {
            if (option->keyword == name && option->val != nullptr) return std::string(option->val);
        }
        return std::string();
    };
    const std::string user = value("user"), port = value("port");
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    // libpq's own message has the whole text in it.
    if (!options || !std::ranges::all_of(port, is_digit))
        throw td::Error("--database", "postgresql://user:password@host:port/database, in which /, @ and : of a password are written %2F, %40 and %3A", "another text");
    return "postgresql://" + user + (user.empty() ? "" : "@") + value("host") + (port.empty() ? "" : ":" + port) + "/" + value("dbname");
}

std::unique_ptr<detail::Connection> connect_postgres(const std::string& where, Database::Mode mode) { return std::make_unique<PostgresConnection>(where, mode); }

}  // namespace program

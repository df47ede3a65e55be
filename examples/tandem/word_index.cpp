#include "word_index.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <map>
#include <set>

#include "sqlite.hpp"
#include "words.hpp"

namespace program {

namespace {

constexpr const char* file_tables =
    "CREATE VIRTUAL TABLE words USING fts5(caption, name, tags, tokenize='porter unicode61 remove_diacritics 2', prefix='2 3');";

/// Every stem of every picture, and how often each field has it.
constexpr const char* server_tables = R"(
CREATE TABLE words(id BIGINT PRIMARY KEY REFERENCES picture(id) ON DELETE CASCADE, caption BYTEA NOT NULL, name BYTEA NOT NULL, tags BYTEA NOT NULL, length INTEGER NOT NULL);
CREATE TABLE posting(
    stem BYTEA NOT NULL, id BIGINT NOT NULL REFERENCES words(id) ON DELETE CASCADE, caption INTEGER NOT NULL, name INTEGER NOT NULL,
    tags INTEGER NOT NULL, PRIMARY KEY(stem, id));
CREATE INDEX posting_id ON posting(id);
)";

constexpr std::array weights{2.0, 1.0, 4.0};

std::vector<std::string> stems_of(const std::string& text) {
    std::vector<std::string> stems;
    for (const Stemmer::Word& word : Stemmer::of_thread()(text)) stems.push_back(word.stem);
    return stems;
}

}  // namespace

const char* word_tables(const Database& database) { return database.is_on_server() ? server_tables : file_tables; }

void WordIndex::erase(std::int64_t id) const {
    Statement(database_, database_.is_on_server() ? "DELETE FROM words WHERE id = ?" : "DELETE FROM words WHERE rowid = ?").bind(id).run();
}

void WordIndex::set(std::int64_t id, const WordFields& fields) const {
    erase(id);
    if (!database_.is_on_server()) {
        Statement(database_, "INSERT INTO words(rowid, caption, name, tags) VALUES(?, ?, ?, ?)").bind(id).bind(fields.caption).bind(fields.name).bind(fields.tags).run();
        return;
    }
    std::map<std::string, std::array<int, 3>> counts;
    std::size_t length = 0;
    for (std::size_t field = 0; field < 3; ++field) {
        const std::string& text = field == 0 ? fields.caption : field == 1 ? fields.name : fields.tags;
        for (const std::string& stem : stems_of(text)) {
            ++counts[stem][field];
            ++length;
        }
    }
    Statement(database_, "INSERT INTO words VALUES(?, ?, ?, ?, ?)").bind(id).bind(fields.caption).bind(fields.name).bind(fields.tags).bind(length).run();
    // Some stems at once: a server may be far away. A statement has at most 65,535 parameters.
    constexpr std::size_t at_once = 1000;
    for (auto stem = counts.begin(); stem != counts.end();) {
        const auto some = std::min(at_once, static_cast<std::size_t>(std::distance(stem, counts.end())));
        std::string sql = "INSERT INTO posting VALUES";
        for (std::size_t i = 0; i < some; ++i) sql += i == 0 ? "(?, ?, ?, ?, ?)" : ", (?, ?, ?, ?, ?)";
        Statement statement(database_, sql);
        for (std::size_t i = 0; i < some; ++i, ++stem) statement.bind(stem->first).bind(id).bind(stem->second[0]).bind(stem->second[1]).bind(stem->second[2]);
        statement.run();
    }
}

std::string WordIndex::text(std::int64_t id) const {
    Statement statement(database_, database_.is_on_server() ? "SELECT caption, name, tags FROM words WHERE id = ?" : "SELECT caption, name, tags FROM words WHERE rowid = ?");
    if (!statement.bind(id).step()) return {};
    return statement.text(0) + " " + statement.text(1) + " " + statement.text(2);
}

std::pair<std::string, std::vector<std::string>> WordIndex::condition(const std::vector<std::string>& words, Having which) const {
    if (!database_.is_on_server()) return {"picture.id IN (SELECT rowid FROM words WHERE words MATCH ?)", {words_query(words, which == Having::all ? "AND" : "OR")}};
    std::string sql;
    std::vector<std::string> stems;
    for (const std::string& word : words) {
        std::string all;
        for (std::string& stem : stems_of(word)) {
            all += std::string(all.empty() ? "" : " AND ") + "picture.id IN (SELECT id FROM posting WHERE stem = ?)";
            stems.push_back(std::move(stem));
        }
        if (!all.empty()) sql += std::string(sql.empty() ? "" : which == Having::all ? " AND " : " OR ") + "(" + all + ")";
    }
    return {stems.empty() ? "FALSE" : "(" + sql + ")", stems};
}

std::vector<std::int64_t> WordIndex::having(const std::vector<std::string>& words, Having which) const {
    if (words.empty()) return {};
    const auto [sql, values] = condition(words, which);
    Statement statement(database_, "SELECT id FROM picture WHERE " + sql);
    for (const std::string& value : values) statement.bind(value);
    std::vector<std::int64_t> ids;
    while (statement.step()) ids.push_back(statement.integer(0));
    return ids;
}

std::size_t WordIndex::count(const std::string& word) const {
    const auto [sql, values] = condition({word}, Having::all);
    Statement statement(database_, database_.is_on_server() ? "SELECT count(*) FROM picture WHERE " + sql : std::string("SELECT count(*) FROM words WHERE words MATCH ?"));
    for (const std::string& value : values) statement.bind(value);
    return statement.step() ? static_cast<std::size_t>(statement.integer(0)) : 0;
}

void WordIndex::for_each_scored(const std::vector<std::string>& words, const std::function<bool(std::int64_t, double)>& visit) const {
    if (words.empty()) return;
    if (!database_.is_on_server()) {
        Statement statement(database_, "SELECT rowid, -bm25(words, 2.0, 1.0, 4.0) AS score FROM words WHERE words MATCH ? ORDER BY score DESC, rowid");
        statement.bind(words_query(words, "OR"));
        while (statement.step() && visit(statement.integer(0), statement.number(1))) {
        }
        return;
    }
    double rows = 0, length = 0;
    {
        Statement statement(database_, "SELECT count(*), coalesce(sum(length), 0) FROM words");
        statement.step();
        rows = static_cast<double>(statement.integer(0));
        length = static_cast<double>(statement.integer(1));
    }
    if (rows == 0 || length == 0) return;
    constexpr double k1 = 1.2, b = 0.75;
    std::map<std::int64_t, double> scores;
    Statement statement(database_, "SELECT p.id, p.caption, p.name, p.tags, w.length FROM posting p JOIN words w ON w.id = p.id WHERE p.stem = ? ORDER BY p.id");
    struct Hit {
        std::size_t stems = 0;
        double frequency = 0, length = 0;
    };
    for (const std::string& word : words) {
        std::map<std::int64_t, Hit> hits;
        const std::vector<std::string> stems = stems_of(word);
        for (const std::string& stem : stems) {
            statement.bind(stem);
            while (statement.step()) {
                double frequency = 0;
                for (int field = 0; field < 3; ++field) frequency += weights[static_cast<std::size_t>(field)] * static_cast<double>(statement.integer(1 + field));
                Hit& hit = hits[statement.integer(0)];
                hit.frequency = hit.stems == 0 ? frequency : std::min(hit.frequency, frequency);
                hit.length = static_cast<double>(statement.integer(4));
                ++hit.stems;
            }
            statement.run();
        }
        std::erase_if(hits, [&](const auto& entry) { return entry.second.stems < stems.size(); });
        const auto have = static_cast<double>(hits.size());
        const double rarity = std::log((rows - have + 0.5) / (have + 0.5));
        const double weight = rarity > 0 ? rarity : 1e-6;
        for (const auto& [id, hit] : hits)
            scores[id] += weight * ((hit.frequency * (k1 + 1)) / (hit.frequency + k1 * (1 - b + b * hit.length / (length / rows))));
    }
    std::vector<std::pair<double, std::int64_t>> order;
    for (const auto& [id, score] : scores) order.emplace_back(-score, id);
    std::ranges::sort(order);
    for (const auto& [score, id] : order) {
        if (!visit(id, -score)) return;
    }
}

}  // namespace program

#include "catalogue.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <ctime>
#include <map>
#include <set>

#include <tandem/core/to_text.hpp>

#include "words.hpp"

namespace program {

namespace {

/// "tndm", which file(1) and SQLite's own shell show; and the version of what stands below.
constexpr std::int64_t application_id = 0x746e646d;
constexpr std::int64_t schema_version = 1;

constexpr const char* schema = R"(
CREATE TABLE about(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE picture(
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, modified INTEGER NOT NULL, digest TEXT NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, taken TEXT NOT NULL, caption TEXT NOT NULL, keywords TEXT NOT NULL,
    error TEXT NOT NULL);
CREATE INDEX picture_digest ON picture(digest);
CREATE TABLE vector(id INTEGER PRIMARY KEY REFERENCES picture(id) ON DELETE CASCADE, value BLOB NOT NULL);
CREATE TABLE thumbnail(id INTEGER PRIMARY KEY REFERENCES picture(id) ON DELETE CASCADE, jpeg BLOB NOT NULL);
CREATE TABLE tag(
    id INTEGER NOT NULL REFERENCES picture(id) ON DELETE CASCADE, label TEXT NOT NULL, accepted INTEGER NOT NULL,
    PRIMARY KEY(id, label)) WITHOUT ROWID;
CREATE INDEX tag_label ON tag(label);
CREATE VIRTUAL TABLE words USING fts5(caption, name, tags, tokenize='porter unicode61 remove_diacritics 2', prefix='2 3');
)";

constexpr const char* columns = "id, path, size, modified, digest, width, height, taken, caption, keywords, error";

PictureEntry entry_of(const Statement& row) {
    return {.id = row.integer(0),
            .path = row.text(1),
            .file = {row.integer(2), row.integer(3)},
            .digest = row.text(4),
            .width = static_cast<int>(row.integer(5)),
            .height = static_cast<int>(row.integer(6)),
            .taken = row.text(7),
            .caption = row.text(8),
            .keywords = row.text(9),
            .error = row.text(10)};
}

double number_of(const std::string& text, double otherwise) {
    double value = otherwise;
    std::from_chars(text.data(), text.data() + text.size(), value);
    return value;
}

}  // namespace

std::string PictureEntry::date() const {
    if (!taken.empty()) return taken;
    const std::time_t seconds = file.modified / 1'000'000'000;
    std::tm parts{};
    std::array<char, 20> text{};
    gmtime_r(&seconds, &parts);
    std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S", &parts);
    return text.data();
}

Catalogue Catalogue::open(const std::filesystem::path& path, Database::Mode mode) {
    if (!std::filesystem::exists(path))
        throw td::Error(path.string(), "a catalogue, which tandem index makes", "nothing there");
    if (std::filesystem::is_directory(path)) throw td::Error(path.string(), "a catalogue's file", "a folder");
    Database database(path, mode);
    if (database.number("PRAGMA application_id") != application_id)
        throw td::Error(path.string(), "a catalogue, which tandem index makes", "another database");
    if (const std::int64_t version = database.number("PRAGMA user_version"); version != schema_version)
        throw td::Error(path.string(), "a catalogue of version " + std::to_string(schema_version),
                        "version " + std::to_string(version) + ", of another tandem");
    database.run("PRAGMA foreign_keys = ON");
    if (mode != Database::Mode::read) database.run("PRAGMA synchronous = NORMAL");
    return Catalogue(std::move(database));
}

Catalogue Catalogue::create(const std::filesystem::path& path) {
    if (std::filesystem::is_directory(path)) throw td::Error(path.string(), "a catalogue's file", "a folder");
    {
        const Database database(path, Database::Mode::create);
        // Of a run that was killed at its beginning there may be a file without anything.
        const auto is_empty = [&] {
            return database.number("PRAGMA application_id") == 0 && database.number("SELECT count(*) FROM sqlite_master") == 0;
        };
        if (is_empty()) {
            // Readers go on while something is written.
            database.run("PRAGMA journal_mode = WAL");
            Transaction transaction(database);
            if (is_empty()) {  // another run may have made it meanwhile
                database.run(schema);
                database.run("PRAGMA application_id = " + std::to_string(application_id) +
                             "; PRAGMA user_version = " + std::to_string(schema_version));
            }
            transaction.commit();
        }
    }
    return open(path, Database::Mode::write);
}

std::string Catalogue::outside(const std::vector<std::string>& folders) const {
    Statement statement(database_, "SELECT path FROM picture ORDER BY path");
    while (statement.step()) {
        std::string path = statement.text(0);
        const auto holds = [&](const std::string& folder) { return path.starts_with(inside(folder)); };
        if (std::ranges::none_of(folders, holds)) return path;
    }
    return {};
}

std::string Catalogue::get(const std::string& key) const {
    Statement statement(database_, "SELECT value FROM about WHERE key = ?");
    return statement.bind(key).step() ? statement.text(0) : std::string();
}

void Catalogue::set(const std::string& key, const std::string& value) const {
    Statement(database_, "INSERT OR REPLACE INTO about VALUES(?, ?)").bind(key).bind(value).run();
}

Judgement Catalogue::judgement() const {
    Judgement judgement;
    judgement.curve.slopes[0] = number_of(get("relevance.standard"), judgement.curve.slopes[0]);
    judgement.curve.slopes[1] = number_of(get("relevance.cosine"), judgement.curve.slopes[1]);
    judgement.curve.offset = number_of(get("relevance.offset"), judgement.curve.offset);
    judgement.cut = number_of(get("relevance.cut"), judgement.cut);
    judgement.mixture_cut = number_of(get("mixture.cut"), judgement.mixture_cut);
    if (const std::string weight = get("mixture.words"); !weight.empty()) judgement.words = number_of(weight, 0);
    judgement.fitted_on = static_cast<std::size_t>(number_of(get("relevance.fitted_on"), 0));
    return judgement;
}

void Catalogue::set(const Judgement& judgement) const {
    Transaction transaction(database_);
    set("relevance.standard", td::detail::to_text(judgement.curve.slopes[0]));
    set("relevance.cosine", td::detail::to_text(judgement.curve.slopes[1]));
    set("relevance.offset", td::detail::to_text(judgement.curve.offset));
    set("relevance.cut", td::detail::to_text(judgement.cut));
    set("relevance.fitted_on", std::to_string(judgement.fitted_on));
    set("mixture.cut", td::detail::to_text(judgement.mixture_cut));
    set("relevance.stale", "");
    set("mixture.words", judgement.words ? td::detail::to_text(*judgement.words) : "");
    transaction.commit();
}

std::map<std::string, PictureEntry> Catalogue::below(const std::string& folder) const {
    std::map<std::string, PictureEntry> found;
    const auto [begin, end] = range_below(folder);
    Statement statement(database_, std::string("SELECT ") + columns +
                                       " FROM picture WHERE path = ?1 OR (path >= ?2 AND path < ?3)");
    statement.bind(folder).bind(begin).bind(end);
    while (statement.step()) {
        PictureEntry entry = entry_of(statement);
        std::string path = entry.path;
        found.emplace(std::move(path), std::move(entry));
    }
    return found;
}

template <class Value>
std::optional<PictureEntry> Catalogue::first(const char* condition, const Value& value) const {
    Statement statement(database_, std::string("SELECT ") + columns + " FROM picture WHERE " + condition);
    if (!statement.bind(value).step()) return std::nullopt;
    return entry_of(statement);
}

std::optional<PictureEntry> Catalogue::with_id(std::int64_t id) const { return first("id = ?", id); }

std::optional<PictureEntry> Catalogue::with_path(const std::string& path) const { return first("path = ?", path); }

std::optional<PictureEntry> Catalogue::with_content(const std::string& digest) const {
    return first("digest = ? AND id IN (SELECT id FROM vector)", digest);
}

void Catalogue::index_words(const PictureEntry& entry) const {
    Statement(database_, "DELETE FROM words WHERE rowid = ?").bind(entry.id).run();
    if (!entry.error.empty()) return;
    const std::filesystem::path path(entry.path);
    // The name and its folder: what is above is the same for all.
    const std::string name = path.parent_path().filename().string() + " " + path.stem().string();
    Statement tags(database_, "SELECT group_concat(label, char(10)) FROM tag WHERE id = ? AND accepted = 1");
    tags.bind(entry.id).step();
    Statement(database_, "INSERT INTO words(rowid, caption, name, tags) VALUES(?, ?, ?, ?)")
        .bind(entry.id)
        .bind(entry.caption)
        .bind(name)
        .bind(entry.keywords + "\n" + tags.text(0))
        .run();
}

void Catalogue::put(const PictureEntry& entry, std::span<const float> vector, std::span<const std::byte> thumbnail) const {
    Statement statement(database_,
                        "INSERT INTO picture(path, size, modified, digest, width, height, taken, caption, keywords, error) "
                        "VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(path) DO UPDATE SET size = excluded.size, modified = "
                        "excluded.modified, digest = excluded.digest, width = excluded.width, height = excluded.height, taken = "
                        "excluded.taken, caption = excluded.caption, keywords = excluded.keywords, error = excluded.error "
                        "RETURNING id");
    statement.bind(entry.path)
        .bind(entry.file.size)
        .bind(entry.file.modified)
        .bind(entry.digest)
        .bind(entry.width)
        .bind(entry.height)
        .bind(entry.taken)
        .bind(entry.caption)
        .bind(entry.keywords)
        .bind(entry.error);
    statement.step();
    PictureEntry written = entry;
    written.id = statement.integer(0);
    statement.run();
    Statement(database_, "DELETE FROM vector WHERE id = ?").bind(written.id).run();
    Statement(database_, "DELETE FROM thumbnail WHERE id = ?").bind(written.id).run();
    if (entry.error.empty()) {
        Statement(database_, "INSERT INTO vector VALUES(?, ?)").bind(written.id).bind(vector).run();
        Statement(database_, "INSERT INTO thumbnail VALUES(?, ?)").bind(written.id).bind(thumbnail).run();
    }
    index_words(written);
}

void Catalogue::put_copy(const PictureEntry& entry, std::int64_t of) const {
    Statement statement(database_, "SELECT v.value, t.jpeg FROM vector v JOIN thumbnail t ON t.id = v.id WHERE v.id = ?");
    if (!statement.bind(of).step()) throw td::Error(database_.path(), "picture " + std::to_string(of) + " has no vector");
    const std::string vector = statement.text(0), thumbnail = statement.text(1);
    std::vector<float> values(vector.size() / sizeof(float));
    std::memcpy(values.data(), vector.data(), values.size() * sizeof(float));
    put(entry, values, std::as_bytes(std::span(thumbnail)));
}

void Catalogue::move(const PictureEntry& entry, const std::string& to, const FileState& file) const {
    Statement(database_, "UPDATE picture SET path = ?, size = ?, modified = ? WHERE id = ?")
        .bind(to)
        .bind(file.size)
        .bind(file.modified)
        .bind(entry.id)
        .run();
    PictureEntry moved = entry;
    moved.path = to;
    index_words(moved);
}

void Catalogue::set_words(const PictureEntry& entry) const {
    Statement(database_, "UPDATE picture SET caption = ?, keywords = ? WHERE id = ?")
        .bind(entry.caption)
        .bind(entry.keywords)
        .bind(entry.id)
        .run();
    index_words(entry);
}

void Catalogue::erase(std::int64_t id) const {
    Statement(database_, "DELETE FROM words WHERE rowid = ?").bind(id).run();
    Statement(database_, "DELETE FROM picture WHERE id = ?").bind(id).run();
}

void Catalogue::forget_vectors() const {
    // A size of -1 is no file's: every picture is embedded again, under its own row and with its tags.
    // What the scores of another model are worth, this one's say nothing of.
    database_.run(
        "DELETE FROM vector; DELETE FROM thumbnail; UPDATE picture SET size = -1, digest = '';"
        "DELETE FROM about WHERE key LIKE 'relevance.%' OR key LIKE 'mixture.%'");
}

std::vector<std::byte> Catalogue::thumbnail(std::int64_t id) const {
    Statement statement(database_, "SELECT jpeg FROM thumbnail WHERE id = ?");
    if (!statement.bind(id).step()) return {};
    const auto bytes = statement.blob(0);
    return {bytes.begin(), bytes.end()};
}

void Catalogue::set_tags(std::int64_t id, std::span<const std::string> labels, bool accepted) const {
    Transaction transaction(database_);
    Statement statement(database_, "INSERT OR REPLACE INTO tag VALUES(?, ?, ?)");
    for (const std::string& label : labels) statement.bind(id).bind(label).bind(accepted ? 1 : 0).run();
    const auto entry = with_id(id);
    if (!entry) throw td::Error(database_.path(), "a picture's number", std::to_string(id));
    index_words(*entry);
    transaction.commit();
}

std::pair<std::vector<std::string>, std::vector<std::string>> Catalogue::tags(std::int64_t id) const {
    std::pair<std::vector<std::string>, std::vector<std::string>> found;
    Statement statement(database_, "SELECT label, accepted FROM tag WHERE id = ? ORDER BY label");
    statement.bind(id);
    while (statement.step()) (statement.integer(1) != 0 ? found.first : found.second).push_back(statement.text(0));
    return found;
}

std::vector<std::string> Catalogue::frequent_words(std::size_t most) const {
    std::map<std::string, std::size_t> counts;
    Statement statement(database_, "SELECT caption, keywords FROM picture WHERE error = ''");
    while (statement.step()) {
        const std::vector<std::string> words = content_words(statement.text(0) + "\n" + statement.text(1));
        for (const std::string& word : std::set<std::string>(words.begin(), words.end())) {
            if (says_something(word)) ++counts[word];
        }
    }
    std::vector<std::pair<std::size_t, std::string>> order;
    for (const auto& [word, count] : counts) {
        if (count >= 3) order.emplace_back(count, word);
    }
    std::ranges::sort(order, [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
    std::vector<std::string> words;
    for (std::size_t i = 0; i < std::min(most, order.size()); ++i) words.push_back(order[i].second);
    return words;
}

std::vector<std::string> Catalogue::errors(std::size_t most) const {
    std::vector<std::string> found;
    Statement statement(database_, "SELECT error FROM picture WHERE error <> '' ORDER BY path LIMIT ?");
    statement.bind(most);
    while (statement.step()) found.push_back(statement.text(0));
    return found;
}

std::size_t Catalogue::count() const { return static_cast<std::size_t>(database_.number("SELECT count(*) FROM vector")); }

}  // namespace program

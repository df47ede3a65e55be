#include "nearby.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include <tandem/tasks/approximate_index.hpp>

#include "labelled.hpp"
#include "progress.hpp"
#include "words.hpp"

namespace program {

namespace {

/// Of the ten nearest of a text, this share is to be found.
constexpr std::size_t nearest = 10;
constexpr double wanted = 0.95;

/// Texts that are asked to see how many are found: words of captions, or neutral prompts where these are too few. One half chooses, the
/// other tells.
struct Questions {
    std::vector<float> choosing, telling;
};

Questions read_questions(const Catalogue& catalogue, const Opened& opened) {
    constexpr std::size_t most = 128, least = 32;
    std::vector<std::string> words = catalogue.frequent_words(most);
    std::ranges::sort(words, {}, scattered);
    const std::vector<float> rows = words.size() < least ? embed_neutral(opened) : embed_texts(opened, words);
    const std::size_t width = opened.clip.sizes().embedding, half = rows.size() / width / 2 * width;
    return {{rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(half)}, {rows.begin() + static_cast<std::ptrdiff_t>(half), rows.end()}};
}

/// What was chosen for a few pictures is too narrow for many.
bool is_outgrown(std::size_t chosen_for, std::size_t pictures) { return 10 * pictures > 11 * chosen_for; }

void report(const std::string& where, double recall, std::size_t texts) {
    std::fprintf(stderr, "%s: %.1f %% of the %zu nearest of %zu held-out texts are found\n", where.c_str(), 100 * recall, nearest, texts);
}

class GraphFile final : public Nearby {
public:
    GraphFile(const Catalogue& catalogue, const Opened& opened, const td::Index& index) : graphs_(open(catalogue, opened, index)) {}

    std::vector<td::Match> search(const Catalogue&, std::span<const float> query, std::size_t k,
                                  std::span<const std::uint64_t> allowed) const override {
        return std::move(graphs_.search(query, k, {.allowed = allowed}).matches.front());
    }

private:
    static td::ApproximateIndex open(const Catalogue& catalogue, const Opened& opened, const td::Index& index) {
        const std::filesystem::path path = catalogue.database().path() + ".hnsw";
        std::optional<Progress> progress;
        const td::GraphProgress show = [&](std::size_t done, std::size_t all) {
            if (!progress) progress.emplace("graphs", 0, all);
            progress->show(done);
        };
        std::optional<td::ApproximateIndex> graphs;
        if (std::filesystem::exists(path)) {
            try {
                graphs.emplace(td::ApproximateIndex::load(path, index, show));
            } catch (const td::Error& error) {
                std::fprintf(stderr, "%s; made anew\n", error.what());
            }
        }
        // A file that is a little behind is brought up to date sooner than it is written.
        bool is_worth_keeping = !graphs;
        if (!graphs) graphs.emplace(index, td::GraphOptions{}, show);
        const td::GraphUpdate& update = graphs->last_update();
        is_worth_keeping = is_worth_keeping || 100 * (update.added + update.gone) > graphs->count();
        if (is_outgrown(graphs->breadth_chosen_for(), graphs->count())) {
            is_worth_keeping = true;
            const Questions questions = read_questions(catalogue, opened);
            graphs->choose_breadth(questions.choosing, nearest, wanted);
            report(path.string(), graphs->recall(questions.telling, nearest), questions.telling.size() / index.width());
        }
        try {
            if (is_worth_keeping) graphs->save(path);
        } catch (const td::Error& error) {  // a place that this user may only read: it is made again the next time
            std::fprintf(stderr, "not kept: %s\n", error.what());
        }
        return std::move(*graphs);
    }

    td::ApproximateIndex graphs_;
};

class ServerIndex final : public Nearby {
public:
    ServerIndex(const std::string& place, const Catalogue& catalogue, const Opened& opened, const td::Index& index,
                const std::vector<std::int64_t>& ids)
        : index_(&index), ids_(&ids) {
        schema_ = bring_up_to_date(place, catalogue);
        // The widest that pgvector allows, where none will do.
        constexpr std::array<std::size_t, 5> breadths{40, 100, 200, 400, most_breadth};
        const auto stored = [&](const char* key, std::size_t otherwise) {
            const std::string text = catalogue.get(key);
            std::from_chars(text.data(), text.data() + text.size(), otherwise);
            return otherwise;
        };
        breadth_ = std::clamp<std::size_t>(stored("nearby.breadth", 100), 1, most_breadth);
        if (!is_outgrown(stored("nearby.pictures", 0), ids.size())) return;
        const Questions questions = read_questions(catalogue, opened);
        for (const std::size_t breadth : breadths) {
            breadth_ = breadth;
            if (recall(catalogue, questions.choosing) >= wanted) break;
        }
        report(catalogue.database().path(), recall(catalogue, questions.telling), questions.telling.size() / index.width());
        const Catalogue writing = Catalogue::open(place, Database::Mode::write);
        Transaction transaction(writing.database());
        writing.set("nearby.breadth", std::to_string(breadth_));
        writing.set("nearby.pictures", std::to_string(ids.size()));
        transaction.commit_derived();
    }

    std::vector<td::Match> search(const Catalogue& catalogue, std::span<const float> query, std::size_t k,
                                  std::span<const std::uint64_t> allowed) const override {
        std::size_t bits = allowed.empty() ? ids_->size() : 0;
        for (const std::uint64_t word : allowed) bits += static_cast<std::size_t>(std::popcount(word));
        k = std::min(k, bits);
        const double share = static_cast<double>(bits) / std::max(1.0, static_cast<double>(ids_->size()));
        const double breadth = static_cast<double>(std::max(breadth_, k)) / std::max(share, 1e-9);
        if (breadth <= most_breadth) {
            std::vector<td::Match> matches = ask(catalogue, query, static_cast<std::size_t>(breadth), allowed);
            if (matches.size() >= k) {
                matches.resize(k);
                return matches;
            }
        }
        return std::move(index_->search(query, k, {.allowed = allowed}).matches.front());
    }

private:
    /// Of hnsw.ef_search (pgvector 0.5 to 0.8).
    static constexpr std::size_t most_breadth = 1000;

    static std::string text_of(std::span<const float> row) {
        std::string text = "[";
        for (const float value : row) {
            std::array<char, 32> digits;
            text.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr);
            text += ',';
        }
        text.back() = ']';
        return text;
    }

    std::vector<td::Match> ask(const Catalogue& catalogue, std::span<const float> query, std::size_t breadth,
                               std::span<const std::uint64_t> allowed) const {
        const Database& database = catalogue.database();
        database.run("SET hnsw.ef_search = " + std::to_string(breadth));
        Statement statement(database, "SELECT id FROM nearby ORDER BY embedding OPERATOR(" + schema_ + ".<#>) convert_from(?, 'UTF8')::" + schema_ + ".vector LIMIT ?");
        statement.bind(text_of(query)).bind(breadth);
        std::vector<std::size_t> positions;
        while (statement.step()) {
            // What came since the index was loaded is not in it.
            const auto at = std::ranges::lower_bound(*ids_, statement.integer(0));
            if (at == ids_->end() || *at != statement.integer(0)) continue;
            const auto position = static_cast<std::size_t>(at - ids_->begin());
            if (td::is_allowed(allowed, position)) positions.push_back(position);
        }
        const std::vector<float> scores = index_->scores(query, positions);
        std::vector<td::Match> matches;
        for (std::size_t i = 0; i < positions.size(); ++i) matches.push_back({positions[i], scores[i]});
        std::ranges::sort(matches, td::detail::is_better);
        return matches;
    }

    double recall(const Catalogue& catalogue, std::span<const float> queries) const {
        const std::size_t width = index_->width();
        td::SearchResult found;
        for (std::size_t at = 0; at < queries.size(); at += width) found.matches.push_back(search(catalogue, queries.subspan(at, width), nearest, {}));
        return td::recall_of(index_->search(queries, nearest), found);
    }

    /// The schema that pgvector is in, quoted; empty where it is in none.
    static std::string schema_of(const Database& database) {
        Statement statement(database, "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'");
        return statement.step() ? statement.text(0) : std::string();
    }

    /// Adds the vectors that are not there yet; what is changed or gone went with its vector. Returns the schema that pgvector is in.
    std::string bring_up_to_date(const std::string& place, const Catalogue& catalogue) const {
        constexpr const char* has_index = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'tandem' AND indexname = 'nearby_embedding'";
        constexpr const char* width_there = "SELECT atttypmod FROM pg_attribute WHERE attrelid = to_regclass('tandem.nearby') AND attname = 'embedding'";
        constexpr const char* count_missing = "SELECT count(*) FROM vector v WHERE NOT EXISTS (SELECT 1 FROM nearby n WHERE n.id = v.id)";
        const auto width = static_cast<std::int64_t>(index_->width());
        const Database& reading = catalogue.database();
        if (reading.number(has_index) != 0 && reading.number(width_there) == width && reading.number(count_missing) == 0) return schema_of(reading);
        if (reading.number("SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'") == 0)
            throw td::Error("--approximate", "a server with pgvector (0.5 or later), or a catalogue in a file", "none on " + reading.path());

        const Database database(place, Database::Mode::write);
        // One at a time brings it up to date; indexers go on meanwhile. The lock ends with the connection.
        database.run("SELECT pg_advisory_lock(1953393774)");
        if (schema_of(database).empty()) database.run("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public");
        const std::string schema = schema_of(database);
        if (database.number("SELECT count(*) FROM pg_am WHERE amname = 'hnsw'") == 0)
            throw td::Error("--approximate", "pgvector 0.5 or later, which has HNSW", "an older one on " + database.path());
        if (const std::int64_t there = database.number(width_there); there != 0 && there != width) database.run("DROP TABLE nearby");
        database.run("CREATE TABLE IF NOT EXISTS nearby(id BIGINT PRIMARY KEY REFERENCES vector(id) ON DELETE CASCADE, embedding " + schema + ".vector(" +
                     std::to_string(width) + ") NOT NULL)");
        const auto missing = static_cast<std::size_t>(database.number(count_missing));
        Progress progress("nearby", 0, missing);
        constexpr std::size_t batch = 1000;
        std::size_t added = 0;
        for (std::size_t here = batch; here == batch; added += here) {
            Transaction transaction(database);
            here = 0;
            Statement some(database, "SELECT v.id, v.value FROM vector v WHERE NOT EXISTS (SELECT 1 FROM nearby n WHERE n.id = v.id) ORDER BY v.id LIMIT ?");
            for (some.bind(batch); some.step(); ++here) {
                const auto bytes = some.blob(1);
                std::vector<float> row(bytes.size() / sizeof(float));
                std::memcpy(row.data(), bytes.data(), row.size() * sizeof(float));
                Statement(database, "INSERT INTO nearby VALUES(?, convert_from(?, 'UTF8')::" + schema + ".vector)").bind(some.integer(0)).bind(text_of(row)).run();
            }
            transaction.commit_derived();
            progress.show(std::min(added + here, missing));
        }
        // Of many rows at once it is made faster than row by row.
        if (database.number(has_index) == 0) std::fprintf(stderr, "%s: makes its index of %zu vectors\n", database.path().c_str(), ids_->size());
        database.run("CREATE INDEX IF NOT EXISTS nearby_embedding ON nearby USING hnsw (embedding " + schema + ".vector_ip_ops)");
        return schema;
    }

    const td::Index* index_;
    const std::vector<std::int64_t>* ids_;
    std::string schema_;
    std::size_t breadth_ = 100;
};

}  // namespace

std::unique_ptr<const Nearby> open_nearby(const std::string& place, const Catalogue& catalogue, const Opened& opened, const td::Index& index,
                                          const std::vector<std::int64_t>& ids) {
    if (catalogue.database().is_on_server()) {
        try {
            return std::make_unique<ServerIndex>(place, catalogue, opened, index, ids);
        } catch (const DatabaseError& error) {  // a user who may only read, for instance
            std::fprintf(stderr, "%s; every picture is looked at\n", error.what());
            return nullptr;
        }
    }
    return std::make_unique<GraphFile>(catalogue, opened, index);
}

}  // namespace program

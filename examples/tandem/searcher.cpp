#include "searcher.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <numeric>

#include <tandem/core/digest.hpp>
#include <tandem/tasks/fusion.hpp>
#include <tandem/tasks/relevance.hpp>

#include "inputs.hpp"
#include "run_inputs.hpp"

namespace program {

namespace {

/// Rows whose products with a query tell how high its scores are.
constexpr std::size_t background_rows = 2048;
/// The most pictures that are ranked by words.
constexpr std::size_t most_words = 1000;

bool is_set(const std::vector<std::uint64_t>& words, std::size_t i) {
    return words.empty() || (words[i / 64] >> (i % 64) & 1U) != 0;
}

/// What the model sees of a picture of all colours, wider than high.
std::vector<float> seen_probe(const Opened& opened) {
    td::Image probe{.width = 211, .height = 97, .pixels = {}};
    for (int i = 0; i < probe.width * probe.height; ++i) {
        for (int channel = 0; channel < 3; ++channel)
            probe.pixels.push_back(static_cast<std::uint8_t>((i % probe.width + 2 * (i / probe.width)) * (channel + 1)));
    }
    std::vector<float> pixels(opened.preprocess.count());
    td::preprocess(probe, opened.preprocess, pixels);
    const auto background = opened.preprocess.background;
    for (const int part : background ? std::array{int{background->red}, int{background->green}, int{background->blue}}
                                     : std::array{-1, -1, -1})
        pixels.push_back(static_cast<float>(part));
    return pixels;
}

/// The query's number of a picture in the catalogue.
std::optional<long long> picture_number(const std::string& text) {
    return text.starts_with("id:") ? whole_number(text.substr(3)) : std::nullopt;
}

bool is_file(const std::string& text) {
    std::error_code failed;
    return std::filesystem::is_regular_file(text, failed);
}

std::vector<float> finite(const std::string& of, std::vector<float> row) {
    if (!std::ranges::all_of(row, [](float value) { return std::isfinite(value); }))
        throw td::Error("query", "finite numbers from the model for every term", "infinities or NaN for " + of);
    return row;
}

}  // namespace

namespace {

/// One search in hand: the data, and a connection.
struct Search {
    const Snapshot& data;
    const Catalogue& catalogue;

    /// A bit for every picture that may be found, empty for all, and how many those are.
    std::vector<std::uint64_t> allowed(const Filter& filter, std::size_t& count) const;
    /// How well pictures have the words, the best 1.
    std::map<std::size_t, double> word_scores(const std::vector<std::string>& words,
                                              const std::vector<std::uint64_t>& allowed) const;
    PictureEntry entry(std::size_t position) const {
        return catalogue.with_id(data.ids[position]).value_or(PictureEntry{});
    }
    std::vector<std::string> hits(std::size_t position, const std::vector<std::string>& words) const;
};

std::vector<std::uint64_t> Search::allowed(const Filter& filter, std::size_t& count) const {
    count = data.ids.size();
    if (filter.is_empty()) return {};
    std::string sql = "SELECT id FROM picture WHERE error = ''";
    std::vector<std::string> values;
    const auto add = [&](const char* condition, std::initializer_list<std::string> texts) {
        sql += std::string(" AND ") + condition;
        values.insert(values.end(), texts);
    };
    if (!filter.folder.empty()) {
        const std::filesystem::path folder = std::filesystem::weakly_canonical(filter.folder);
        const std::string inside = folder == "/" ? "/" : folder.string() + "/";
        std::string end = inside;
        ++end.back();
        add("path >= ? AND path < ?", {inside, end});
    }
    if (!filter.tag.empty()) add("id IN (SELECT id FROM tag WHERE label = ? AND accepted = 1)", {filter.tag});
    if (!filter.word.empty()) {
        const std::string query = words_query(words_of(filter.word), "AND");
        if (query.empty()) throw td::Error("--word", "a word", filter.word);
        add("id IN (SELECT rowid FROM words WHERE words MATCH ?)", {query});
    }
    // What has no date of its own has that of its file.
    const char* const date =
        "(CASE WHEN taken <> '' THEN taken ELSE datetime(modified / 1000000000, 'unixepoch') END)";
    if (!filter.after.empty()) add((std::string(date) + " >= ?").c_str(), {filter.after});
    if (!filter.before.empty()) add((std::string(date) + " < ?").c_str(), {filter.before});
    Statement statement(catalogue.database(), sql);
    for (const std::string& value : values) statement.bind(value);
    std::vector<std::uint64_t> bits((data.ids.size() + 63) / 64 + 1);
    count = 0;
    while (statement.step()) {
        const auto position = data.positions.find(statement.integer(0));
        if (position == data.positions.end()) continue;
        bits[position->second / 64] |= std::uint64_t{1} << (position->second % 64);
        ++count;
    }
    return bits;
}

std::map<std::size_t, double> Search::word_scores(const std::vector<std::string>& words,
                                                    const std::vector<std::uint64_t>& allowed) const {
    std::map<std::size_t, double> scores;
    if (words.empty()) return scores;
    // A caption says more than a folder's name, a tag more than both.
    Statement statement(catalogue.database(),
                        "SELECT rowid, -bm25(words, 2.0, 1.0, 4.0) AS score FROM words WHERE words MATCH ? ORDER BY score DESC, rowid");
    statement.bind(words_query(words, "OR"));
    double best = 0;
    while (scores.size() < most_words && statement.step()) {
        const auto position = data.positions.find(statement.integer(0));
        if (position == data.positions.end() || !is_set(allowed, position->second)) continue;
        best = std::max(best, statement.number(1));
        scores[position->second] = std::max(statement.number(1), 0.0);
    }
    // A word that half of the pictures have weighs nothing; where all do, the pictures have it still.
    for (auto& [position, score] : scores) score = best > 0 ? score / best : 1;
    return scores;
}

std::vector<std::string> Search::hits(std::size_t position, const std::vector<std::string>& words) const {
    std::vector<std::string> found;
    Statement statement(catalogue.database(), "SELECT count(*) FROM words WHERE words MATCH ? AND rowid = ?");
    for (const std::string& word : words) {
        statement.bind(words_query({word}, "AND")).bind(data.ids[position]);
        if (statement.step() && statement.integer(0) > 0) found.push_back(word);
        statement.run();
    }
    return found;
}

}  // namespace

Searcher::Searcher(std::filesystem::path path, const Opened& opened)
    : path_(std::move(path)), opened_(&opened), watched_(Catalogue::open(path_, Database::Mode::read)) {
    refresh();
}

void Searcher::refresh() {
    const std::scoped_lock loading(loading_);
    const Database& database = watched_.database();
    // Another connection's commits change it.
    const std::int64_t version = database.number("PRAGMA data_version");
    const auto before = snapshot();
    if (before && before->version == version) return;
    const auto next = std::make_shared<Snapshot>();
    next->version = version;
    const std::size_t width = opened_->clip.sizes().embedding;
    std::vector<float> rows;
    Statement statement(database, "SELECT id, value FROM vector ORDER BY id");
    while (statement.step()) {
        const auto bytes = statement.blob(1);
        if (bytes.size() != width * sizeof(float))
            throw td::Error(database.path(), "vectors of " + std::to_string(width) + " numbers",
                            std::to_string(bytes.size()) + " bytes of picture " + std::to_string(statement.integer(0)));
        next->positions[statement.integer(0)] = next->ids.size();
        next->ids.push_back(statement.integer(0));
        rows.resize(rows.size() + width);
        std::memcpy(rows.data() + rows.size() - width, bytes.data(), bytes.size());
    }
    const std::size_t count = next->ids.size(), sample = std::min(background_rows, count);
    for (std::size_t i = 0; i < sample; ++i) {
        const float* const row = rows.data() + i * count / sample * width;
        next->background.insert(next->background.end(), row, row + width);
    }
    const std::string fingerprint = watched_.get("fingerprint");
    if (before && before->index->fingerprint() != fingerprint)
        throw td::Error(database.path(), "the model that this run has opened, " + before->index->fingerprint(),
                        fingerprint + ": it was embedded anew; start again");
    next->index.emplace(width, fingerprint);
    next->index->add(rows);
    next->judgement = watched_.judgement();
    const std::scoped_lock holding(holding_);
    snapshot_ = next;
}

std::shared_ptr<const Snapshot> Searcher::snapshot() const {
    const std::scoped_lock holding(holding_);
    return snapshot_;
}

std::unique_ptr<Catalogue> Searcher::take() const {
    const std::scoped_lock holding(holding_);
    if (free_.empty()) return std::make_unique<Catalogue>(Catalogue::open(path_, Database::Mode::read));
    std::unique_ptr<Catalogue> catalogue = std::move(free_.back());
    free_.pop_back();
    return catalogue;
}

void Searcher::give(std::unique_ptr<Catalogue> catalogue) const {
    const std::scoped_lock holding(holding_);
    free_.push_back(std::move(catalogue));
}

std::vector<float> Searcher::embed_picture(const td::Image& picture, const std::string& name) const {
    std::vector<float> pixels(opened_->preprocess.count());
    td::preprocess(picture, opened_->preprocess, pixels);
    const auto found = opened_->clip.encode_image(pixels);
    return finite(name, {found.data(), found.data() + found.size()});
}

std::vector<float> Searcher::embed_text(const std::string& text) const {
    return finite(text, embed_texts(*opened_, std::span(&text, 1)));
}

std::vector<float> Searcher::embed(const std::vector<td::QueryTerm>& terms, const Request& request, const Snapshot& data) const {
    std::vector<td::QueryTerm> all = terms;
    std::vector<float> rows;
    for (const td::QueryTerm& term : terms) {
        std::vector<float> row;
        if (const auto id = picture_number(term.text)) {
            const auto position = data.positions.find(*id);
            if (position == data.positions.end()) throw td::Error("query", "the number of a picture in the catalogue", term.text);
            row = data.index->row(position->second);
        } else if (request.names_files && is_file(term.text)) {
            row = embed_picture(read_picture(*opened_, term.text), term.text);
        } else {
            row = embed_text(term.text);
        }
        rows.insert(rows.end(), row.begin(), row.end());
    }
    if (!request.picture.empty()) {
        all.push_back({1, "picture"});
        rows.insert(rows.end(), request.picture.begin(), request.picture.end());
    }
    return td::combine(all, rows);
}

Answer Searcher::search(const Request& request) const {
    std::vector<td::QueryTerm> terms;
    if (request.picture.empty() || request.query.find_first_not_of(' ') != std::string::npos)
        terms = td::parse_query(request.query);
    const Lease catalogue(*this);
    const std::shared_ptr<const Snapshot> held = snapshot();
    const Snapshot& data = *held;
    const Search hand{data, *catalogue};
    Answer answer;
    const std::vector<std::uint64_t> may = hand.allowed(request.filter, answer.searched);
    if (data.ids.empty()) return answer;

    std::vector<std::string> words;
    if (request.ranking != Ranking::meaning) {
        for (const td::QueryTerm& term : terms) {
            if (term.weight <= 0 || picture_number(term.text) || (request.names_files && is_file(term.text))) continue;
            for (std::string& word : content_words(term.text)) words.push_back(std::move(word));
        }
    }
    const std::map<std::size_t, double> by_words = hand.word_scores(words, may);

    // Words decide only where there are any.
    const bool fuses = !by_words.empty() && request.ranking == Ranking::both, mixes = fuses && data.judgement.words;
    std::map<std::size_t, Found> found;
    std::vector<std::vector<std::size_t>> rankings(2);
    if (request.ranking != Ranking::words) {
        const std::vector<float> query = embed(terms, request, data);
        const td::Standard standard = td::standardise(query, data.background);
        const auto probability = [&](float score) {
            return data.judgement.curve(std::array{standard(static_cast<double>(score)), static_cast<double>(score)});
        };
        // All that are relevant, and as many as are shown.
        std::vector<td::Match> matches;
        const double least = mixes ? std::min(data.judgement.cut, data.judgement.mixture_cut / std::max(1e-9, 1 - *data.judgement.words))
                                   : data.judgement.cut;
        for (std::size_t k = std::max<std::size_t>(256, request.limit);; k *= 4) {
            matches = data.index->search(query, k, {.allowed = may}).matches[0];
            if (matches.size() < k || probability(matches.back().score) < least) break;
        }
        for (const td::Match& match : matches) {
            const double p = probability(match.score);
            found[match.position].meaning = p;
            found[match.position].is_relevant = p >= data.judgement.cut;
            rankings[0].push_back(match.position);
        }
        // Those with the words that are further down in meaning.
        for (const auto& [position, score] : by_words) {
            if (found.contains(position)) continue;
            const std::vector<float> row = data.index->row(position);
            found[position].meaning = probability(std::inner_product(row.begin(), row.end(), query.begin(), 0.0F));
        }
    }
    for (const auto& [position, score] : by_words) {
        found[position].score = score;
        rankings[1].push_back(position);
    }
    std::ranges::stable_sort(rankings[1], [&](std::size_t a, std::size_t b) { return by_words.at(a) > by_words.at(b); });

    std::map<std::size_t, double> fused;
    if (fuses && !mixes) {
        for (const td::Ranked& ranked : td::reciprocal_rank_fusion(rankings)) fused[ranked.item] = ranked.score;
    }
    std::vector<std::size_t> order;
    for (auto& [position, one] : found) {
        order.push_back(position);
        if (request.ranking == Ranking::words) continue;
        if (mixes) {
            one.score = td::mix(*one.meaning, one.score, *data.judgement.words);
            one.is_relevant = one.score >= data.judgement.mixture_cut;
        } else {
            one.score = fuses ? fused[position] : *one.meaning;
        }
    }
    // Where no mixture was learned, what has all of the words is what was asked for, whatever it looks like.
    if (!words.empty() && !mixes) {
        Statement statement(catalogue->database(), "SELECT rowid FROM words WHERE words MATCH ?");
        statement.bind(words_query(words, "AND"));
        while (statement.step()) {
            const auto position = data.positions.find(statement.integer(0));
            if (position == data.positions.end()) continue;
            if (const auto one = found.find(position->second); one != found.end()) one->second.is_relevant = true;
        }
    }
    answer.relevant = static_cast<std::size_t>(
        std::ranges::count_if(found, [](const auto& one) { return one.second.is_relevant; }));
    std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return found[a].score > found[b].score; });
    const auto fold = std::ranges::stable_partition(order, [&](std::size_t i) { return found[i].is_relevant; });
    if (request.order != Order::relevance) {
        for (const std::size_t i : order) found[i].picture = hand.entry(i);
        std::ranges::stable_sort(order.begin(), fold.begin(), [&](std::size_t a, std::size_t b) {
            const PictureEntry &first = found[a].picture, &second = found[b].picture;
            return request.order == Order::date ? first.date() > second.date() : first.path < second.path;
        });
    }
    order.resize(std::min(order.size(), request.limit));
    for (const std::size_t i : order) {
        found[i].picture = hand.entry(i);
        found[i].words = hand.hits(i, words);
        answer.found.push_back(std::move(found[i]));
    }
    return answer;
}

std::string fingerprint_of(const Arguments& arguments, const Opened& opened) {
    Inputs inputs;
    inputs.add_options(arguments);
    inputs.add_model(weights_of(arguments));
    inputs.add_tokenizer(tokenizer_of(arguments));
    td::Digest digest;
    const std::string text = inputs.text();
    digest.add(std::as_bytes(std::span(text)));
    // How pictures are seen, by what becomes of one.
    digest.add(std::span<const float>(seen_probe(opened)));
    return opened.clip.sizes().architecture + " " + arguments.get("--precision", "f32") + " " + digest.text();
}

std::filesystem::path database_of(const Arguments& arguments) {
    if (arguments.has("--database")) return arguments.get("--database");
    const char* const data = std::getenv("XDG_DATA_HOME");
    const char* const home = std::getenv("HOME");
    if ((data == nullptr || *data == 0) && (home == nullptr || *home == 0))
        throw UsageError("--database", "this option, where neither XDG_DATA_HOME nor HOME is set", "none");
    return (data != nullptr && *data != 0 ? std::filesystem::path(data) : std::filesystem::path(home) / ".local/share") / "tandem" /
           "pictures.db";
}

Arguments with_model_of(const Catalogue& catalogue, const Arguments& arguments) {
    Arguments options = arguments;
    for (const Option& option : checkpoint_options) {
        const std::string value = catalogue.get(std::string("option ") + option.name);
        if (!value.empty() && !options.has(option.name)) options.set(option.name, value);
    }
    return options;
}

Session::Session(const Arguments& arguments)
    : options(with_model_of(Catalogue::open(database_of(arguments), Database::Mode::read), arguments)),
      opened(open(options)),
      searcher(database_of(arguments), opened) {
    const std::string now = fingerprint_of(options, opened), stored = searcher.snapshot()->index->fingerprint();
    if (stored != now)
        throw td::Error(database_of(arguments).string(), "the model that made its vectors, " + stored,
                        now + ", whose vectors have another meaning: tandem index --again embeds anew");
}

}  // namespace program

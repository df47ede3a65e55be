#include "searcher.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <set>
#include <span>
#include <unordered_map>
#include <unordered_set>

#include <tandem/core/digest.hpp>
#include <tandem/tasks/fusion.hpp>
#include <tandem/tasks/relevance.hpp>

#include "inputs.hpp"
#include "run_inputs.hpp"
#include "sqlite.hpp"
#include "word_index.hpp"

namespace program {

namespace {

/// Rows whose products with a query tell how high its scores are.
constexpr std::size_t background_rows = 2048;
/// The most pictures that are found by words, and that are ranked to find them.
constexpr std::size_t most_words = 500, most_ranked = 2500;

void set(std::vector<std::uint64_t>& words, std::size_t i) { words[i / 64] |= std::uint64_t{1} << (i % 64); }

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

bool is_file(const std::string& text) {
    std::error_code failed;
    return std::filesystem::is_regular_file(text, failed);
}

std::vector<float> finite(const std::string& of, std::vector<float> row) {
    if (!is_finite(row))
        throw td::Error("query", "finite numbers from the model for every term", "infinities or NaN for " + of);
    return row;
}

/// One search in hand: the data, and a connection.
struct Search {
    const Snapshot& data;
    const Catalogue& catalogue;

    /// A bit for every picture that may be found, empty for all, and how many those are.
    std::vector<std::uint64_t> allowed(const Filter& filter, std::size_t& count) const;
    /// How well pictures have the words, the best first and 1.
    std::vector<td::Ranked> word_scores(const std::vector<std::string>& words, const std::vector<std::uint64_t>& allowed,
                                        const std::vector<float>& query) const;
    PictureEntry entry(std::size_t position) const {
        return catalogue.with_id(data.ids[position]).value_or(PictureEntry{});
    }
    /// The words of pictures that a query has, as they are written there.
    void name_hits(std::span<Found> found, const std::vector<std::string>& words) const;
    /// Of some words, those that rank: the rarest, as many as are quickly looked through.
    std::vector<std::string> telling(std::vector<std::string> words) const;
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
        std::error_code failed;
        const std::filesystem::path named = std::filesystem::weakly_canonical(filter.folder, failed);
        const std::filesystem::path folder = failed ? std::filesystem::path(filter.folder).lexically_normal() : named;
        const auto [begin, end] = range_below(folder.string());
        add("path >= ? AND path < ?", {begin, end});
    }
    if (!filter.tag.empty()) add("id IN (SELECT id FROM tag WHERE label = ? AND accepted = 1)", {filter.tag});
    if (!filter.word.empty()) {
        const std::vector<std::string> words = words_of(filter.word);
        if (words.empty()) throw td::Error("--word", "a word", filter.word);
        const auto [condition, needed] = WordIndex(catalogue.database()).condition(words, Having::all);
        add(condition.c_str(), {});
        values.insert(values.end(), needed.begin(), needed.end());
    }
    // What has no date of its own has that of its file.
    const char* const date = catalogue.database().is_on_server()
                                 ? "(CASE WHEN taken <> '' THEN taken ELSE convert_to(to_char(to_timestamp(modified / 1000000000) AT TIME ZONE 'UTC', "
                                   "'YYYY-MM-DD HH24:MI:SS'), 'UTF8') END)"
                                 : "(CASE WHEN taken <> '' THEN taken ELSE datetime(modified / 1000000000, 'unixepoch') END)";
    if (!filter.after.empty()) add((std::string(date) + " >= ?").c_str(), {filter.after});
    if (!filter.before.empty()) add((std::string(date) + " < ?").c_str(), {filter.before});
    Statement statement(catalogue.database(), sql);
    for (const std::string& value : values) statement.bind(value);
    std::vector<std::uint64_t> bits((data.ids.size() + 63) / 64 + 1);
    count = 0;
    while (statement.step()) {
        const auto position = data.position_of(statement.integer(0));
        if (!position) continue;
        set(bits, *position);
        ++count;
    }
    return bits;
}

std::vector<td::Ranked> Search::word_scores(const std::vector<std::string>& words, const std::vector<std::uint64_t>& allowed,
                                            const std::vector<float>& query) const {
    std::vector<td::Ranked> scores;
    if (words.empty()) return scores;
    if (words.size() == 1 && !query.empty() && data.word_count(words[0], catalogue) > most_ranked) {
        // One word that very many have says of each the same: meaning decides between them.
        std::vector<std::uint64_t> have(data.ids.size() / 64 + 1);
        for (const std::int64_t id : WordIndex(catalogue.database()).having(words, Having::any)) {
            const auto position = data.position_of(id);
            if (position && td::is_allowed(allowed, *position)) set(have, *position);
        }
        for (const td::Match& match : data.nearest(catalogue, query, most_words, have)) scores.push_back({match.position, 1});
        return scores;
    }
    WordIndex(catalogue.database()).for_each_scored(words, [&](std::int64_t id, double score) {
        const auto position = data.position_of(id);
        if (position && td::is_allowed(allowed, *position)) scores.push_back({*position, std::max(score, 0.0)});
        return scores.size() < most_words;
    });
    // A word that half of the pictures have weighs nothing; where all do, the pictures have it still.
    const double best = scores.empty() ? 0 : scores.front().score;
    for (td::Ranked& one : scores) one.score = best > 0 ? one.score / best : 1;
    return scores;
}

void Search::name_hits(std::span<Found> found, const std::vector<std::string>& words) const {
    if (words.empty() || found.empty()) return;
    const Stemmer& stemmer = Stemmer::of_thread();
    std::set<std::string> stems;
    for (const std::string& word : words) {
        for (const Stemmer::Word& part : stemmer(word)) stems.insert(part.stem);
    }
    const WordIndex index(catalogue.database());
    for (Found& one : found) {
        const std::string text = index.text(one.picture.id);
        std::set<std::string> known;
        for (const Stemmer::Word& word : stemmer(text)) {
            // One of a stem: a caption may have it with a capital and without.
            if (stems.contains(word.stem) && known.insert(word.stem).second)
                one.words.push_back(text.substr(word.begin, word.end - word.begin));
        }
    }
}

std::vector<std::string> Search::telling(std::vector<std::string> words) const {
    // A word of a fifth of the pictures tells next to nothing, and costs most.
    std::ranges::sort(words);
    words.erase(std::ranges::unique(words).begin(), words.end());
    std::vector<std::pair<std::size_t, std::string>> counts;
    for (const std::string& word : words) counts.emplace_back(data.word_count(word, catalogue), word);
    std::ranges::sort(counts);
    std::vector<std::string> chosen;
    std::size_t pictures = 0;
    for (const auto& [count, word] : counts) {
        if (count == 0) continue;
        if (!chosen.empty() && pictures + count > most_ranked) break;
        chosen.push_back(word);
        pictures += count;
    }
    return chosen;
}

/// A picture in the running.
struct Candidate {
    std::size_t position = 0;
    double score = 0;
    double words = 0;
    std::optional<double> meaning{};
    bool is_relevant = false;
};

/// All that are relevant by meaning, and as many as are shown; and those with the words, which may be further down in meaning.
std::vector<Candidate> by_meaning(const std::vector<float>& query, const Search& hand, const std::vector<std::uint64_t>& may, std::size_t limit,
                                  const std::vector<td::Ranked>& by_words, bool mixes) {
    const Snapshot& data = hand.data;
    const td::Standard standard = td::standardise(query, data.background);
    const Judgement& judgement = data.judgement;
    const auto probability = [&](float score) {
        return judgement.curve(std::array{standard(static_cast<double>(score)), static_cast<double>(score)});
    };
    // What has none of the words needs more to be relevant in a mixture.
    const double least = mixes ? judgement.mixture_cut / std::max(1e-9, 1 - *judgement.words) : judgement.cut;
    std::vector<td::Match> matches;
    for (std::size_t k = std::max<std::size_t>(256, limit);; k *= 4) {
        matches = data.nearest(hand.catalogue, query, k, may);
        if (matches.size() < k || probability(matches.back().score) < least) break;
    }
    std::vector<Candidate> candidates;
    std::unordered_map<std::size_t, std::size_t> places;
    for (const td::Match& match : matches) {
        const double p = probability(match.score);
        places.emplace(match.position, candidates.size());
        candidates.push_back({.position = match.position, .score = p, .meaning = p, .is_relevant = p >= judgement.cut});
    }
    for (const auto& [position, score] : by_words) {
        if (const auto place = places.find(position); place != places.end()) {
            candidates[place->second].words = score;
            continue;
        }
        const std::vector<float> row = data.index->row(position);
        const double p = probability(std::inner_product(row.begin(), row.end(), query.begin(), 0.0F));
        candidates.push_back({.position = position, .score = p, .words = score, .meaning = p, .is_relevant = p >= judgement.cut});
    }
    return candidates;
}

/// Scores by rank in meaning and in words.
void fuse_ranks(std::vector<Candidate>& candidates, const std::vector<td::Ranked>& by_words) {
    std::vector<std::vector<std::size_t>> rankings(2);
    std::ranges::sort(candidates, {}, [](const Candidate& one) { return std::pair(-*one.meaning, one.position); });
    for (const Candidate& one : candidates) rankings[0].push_back(one.position);
    for (const td::Ranked& one : by_words) rankings[1].push_back(one.item);
    std::unordered_map<std::size_t, double> scores;
    for (const td::Ranked& one : td::reciprocal_rank_fusion(rankings)) scores[one.item] = one.score;
    for (Candidate& one : candidates) one.score = scores[one.position];
}

}  // namespace

std::optional<long long> picture_number(const std::string& text) {
    return text.starts_with("id:") ? whole_number(text.substr(3)) : std::nullopt;
}

std::optional<std::size_t> Snapshot::position_of(std::int64_t id) const {
    const auto found = std::ranges::lower_bound(ids, id);
    if (found == ids.end() || *found != id) return std::nullopt;
    return static_cast<std::size_t>(found - ids.begin());
}

Searcher::Searcher(std::string path, const Opened& opened, bool is_approximate)
    : path_(std::move(path)), opened_(&opened), is_approximate_(is_approximate), watched_(Catalogue::open(path_, Database::Mode::read)) {
    refresh();
}

void Searcher::refresh() {
    const std::scoped_lock loading(loading_);
    const Database& database = watched_.database();
    // Another connection's commits change it.
    const std::int64_t version = database.version();
    if (version == seen_) return;
    seen_ = version;  // what fails is not tried again before it changes, unless it was the database
    try {
        load(version);
    } catch (const DatabaseError&) {
        seen_ = -1;
        throw;
    }
}

void Searcher::load(std::int64_t version) {
    const Database& database = watched_.database();
    const auto before = snapshot();
    const auto next = std::make_shared<Snapshot>();
    next->version = version;
    const std::size_t width = opened_->clip.sizes().embedding;
    std::optional<Reading> moment(database);
    const std::string fingerprint = watched_.get("fingerprint");
    if (before && before->index->fingerprint() != fingerprint)
        throw td::Error(database.path(), "the model that this run has opened, " + before->index->fingerprint(),
                        fingerprint + ": it was embedded anew; start again");
    next->judgement = watched_.judgement();
    std::vector<float> rows;
    Statement statement(database, "SELECT id, value FROM vector ORDER BY id");
    while (statement.step()) {
        const auto bytes = statement.blob(1);
        if (bytes.size() != width * sizeof(float))
            throw td::Error(database.path(), "vectors of " + std::to_string(width) + " numbers",
                            std::to_string(bytes.size()) + " bytes of picture " + std::to_string(statement.integer(0)));
        next->ids.push_back(statement.integer(0));
        rows.resize(rows.size() + width);
        std::memcpy(rows.data() + rows.size() - width, bytes.data(), bytes.size());
    }
    const std::size_t count = next->ids.size(), sample = std::min(background_rows, count);
    for (std::size_t i = 0; i < sample; ++i) {
        const float* const row = rows.data() + i * count / sample * width;
        next->background.insert(next->background.end(), row, row + width);
    }
    next->index.emplace(width, fingerprint);
    next->index->add(rows);
    moment.reset();
    if (is_approximate_) next->nearby = open_nearby(path_, watched_, *opened_, *next->index, next->ids);
    const std::scoped_lock holding(holding_);
    snapshot_ = next;
}

std::vector<td::Match> Snapshot::nearest(const Catalogue& catalogue, std::span<const float> query, std::size_t k,
                                         std::span<const std::uint64_t> allowed) const {
    if (nearby) return nearby->search(catalogue, query, k, allowed);
    return std::move(index->search(query, k, {.allowed = allowed}).matches.front());
}

std::size_t Snapshot::word_count(const std::string& word, const Catalogue& catalogue) const {
    {
        const std::scoped_lock lock(counting_);
        if (const auto found = counts_.find(word); found != counts_.end()) return found->second;
    }
    const std::size_t count = WordIndex(catalogue.database()).count(word);
    constexpr std::size_t most = 100'000;
    const std::scoped_lock lock(counting_);
    if (counts_.size() < most) counts_[word] = count;
    return count;
}

std::shared_ptr<const Snapshot> Searcher::snapshot() const {
    const std::scoped_lock holding(holding_);
    return snapshot_;
}

std::unique_ptr<Catalogue> Searcher::take() const {
    {
        const std::scoped_lock holding(holding_);
        if (!free_.empty()) {
            std::unique_ptr<Catalogue> catalogue = std::move(free_.back());
            free_.pop_back();
            return catalogue;
        }
    }
    // A server may take its time.
    return std::make_unique<Catalogue>(Catalogue::open(path_, Database::Mode::read));
}

void Searcher::give(std::unique_ptr<Catalogue> catalogue) const {
    const std::scoped_lock holding(holding_);
    free_.push_back(std::move(catalogue));
}

std::vector<float> Searcher::embed_picture(const td::Image& picture, const std::string& name) const { return program::embed_picture(*opened_, picture, name); }

std::vector<float> Searcher::embed_text(const std::string& text) const {
    report_long_texts(*opened_, std::span(&text, 1));
    return finite(text, embed_texts(*opened_, std::span(&text, 1)));
}

std::vector<float> Searcher::embed(const std::vector<td::QueryTerm>& terms, const Request& request, const Snapshot& data) const {
    std::vector<td::QueryTerm> all = terms;
    std::vector<float> rows;
    for (const td::QueryTerm& term : terms) {
        std::vector<float> row;
        if (const auto id = picture_number(term.text)) {
            const auto position = data.position_of(*id);
            if (!position) throw td::Error("query", "the number of a picture in the catalogue", term.text);
            row = data.index->row(*position);
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
    const std::vector<std::string> telling = hand.telling(words);
    std::vector<float> query;
    if (request.ranking != Ranking::words) query = embed(terms, request, data);
    const std::vector<td::Ranked> by_words = hand.word_scores(telling, may, query);
    // Words decide only where there are any.
    const bool fuses = !by_words.empty() && request.ranking == Ranking::both, mixes = fuses && data.judgement.words;

    std::vector<Candidate> candidates;
    if (request.ranking == Ranking::words) {
        for (const auto& [position, score] : by_words) candidates.push_back({.position = position, .score = score});
    } else {
        candidates = by_meaning(query, hand, may, request.limit, by_words, mixes);
    }
    if (mixes) {
        for (Candidate& one : candidates) {
            one.score = td::mix(*one.meaning, one.words, *data.judgement.words);
            one.is_relevant = one.score >= data.judgement.mixture_cut;
        }
    } else if (fuses) {
        fuse_ranks(candidates, by_words);
    }
    // Where no mixture was learned, what has all of the words is what was asked for, whatever it looks like.
    if (!words.empty() && !mixes) {
        std::unordered_set<std::size_t> have_all;
        for (const std::int64_t id : WordIndex(catalogue->database()).having(words, Having::all)) {
            if (const auto position = data.position_of(id)) have_all.insert(*position);
        }
        for (Candidate& one : candidates) one.is_relevant = one.is_relevant || have_all.contains(one.position);
    }
    std::ranges::sort(candidates, [](const Candidate& a, const Candidate& b) {
        if (a.is_relevant != b.is_relevant) return a.is_relevant;
        return a.score != b.score ? a.score > b.score : a.position < b.position;
    });
    answer.relevant = static_cast<std::size_t>(std::ranges::count_if(candidates, &Candidate::is_relevant));

    // Another order is one inside the relevant ones; the others come behind, as they were.
    if (request.order == Order::relevance) candidates.resize(std::min(candidates.size(), request.limit));
    const std::size_t fold = std::min(answer.relevant, candidates.size());
    for (const Candidate& one : std::span(candidates).first(std::max(fold, std::min(candidates.size(), request.limit))))
        answer.found.push_back({.picture = hand.entry(one.position), .score = one.score, .meaning = one.meaning,
                                .words = {}, .is_relevant = one.is_relevant});
    if (request.order != Order::relevance) {
        const auto last = answer.found.begin() + static_cast<std::ptrdiff_t>(fold);
        std::ranges::sort(answer.found.begin(), last, [&](const Found& a, const Found& b) {
            if (request.order == Order::date && a.picture.date() != b.picture.date()) return a.picture.date() > b.picture.date();
            return a.picture.path < b.picture.path;
        });
        answer.found.resize(std::min(answer.found.size(), request.limit));
    }
    hand.name_hits(answer.found, words);
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

std::string database_of(const Arguments& arguments) {
    if (arguments.has("--database")) return arguments.get("--database");
    const char* const data = std::getenv("XDG_DATA_HOME");
    const char* const home = std::getenv("HOME");
    if ((data == nullptr || *data == 0) && (home == nullptr || *home == 0))
        throw UsageError("--database", "this option, where neither XDG_DATA_HOME nor HOME is set", "none");
    const std::filesystem::path folder = data != nullptr && *data != 0 ? std::filesystem::path(data) : std::filesystem::path(home) / ".local/share";
    return (folder / "tandem" / "pictures.db").string();
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
      searcher(database_of(arguments), opened, arguments.has(approximate_option.name)) {
    const std::string now = fingerprint_of(options, opened), stored = searcher.snapshot()->index->fingerprint();
    if (stored != now)
        throw td::Error(searcher.place(), "the model that made its vectors, " + stored,
                        now + ", whose vectors have another meaning: tandem index --again embeds anew");
}

}  // namespace program

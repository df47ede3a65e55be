#include "judge.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <tandem/core/parallel.hpp>
#include <tandem/tasks/fusion.hpp>
#include <tandem/tasks/relevance.hpp>
#include <tandem/tasks/retrieval.hpp>

#include "searcher.hpp"
#include "word_index.hpp"

namespace program {

namespace {

/// Pictures and words that are looked at, and how few words are too few.
constexpr std::size_t most_pictures = 4000, most_words = 300, least_words = 20;

struct Sample {
    std::vector<std::int64_t> ids;
    std::vector<std::string> paths;
    std::vector<float> rows;
    std::vector<std::set<std::string>> words;  ///< of the captions
};

Sample read_sample(const Catalogue& catalogue) {
    Sample sample;
    Statement ids(catalogue.database(), "SELECT p.id FROM picture p JOIN vector v ON v.id = p.id WHERE p.caption <> '' ORDER BY p.id");
    std::vector<std::int64_t> all;
    while (ids.step()) all.push_back(ids.integer(0));
    const std::size_t count = std::min(most_pictures, all.size());
    Statement statement(catalogue.database(),
                        "SELECT v.value, p.caption, p.path FROM picture p JOIN vector v ON v.id = p.id WHERE p.id = ?");
    for (std::size_t i = 0; i < count; ++i) {
        const std::int64_t id = all[i * all.size() / count];
        if (!statement.bind(id).step()) {  // gone since
            statement.run();
            continue;
        }
        const auto bytes = statement.blob(0);
        sample.ids.push_back(id);
        sample.paths.push_back(statement.text(2));
        sample.rows.resize(sample.rows.size() + bytes.size() / sizeof(float));
        std::memcpy(sample.rows.data() + sample.rows.size() - bytes.size() / sizeof(float), bytes.data(), bytes.size());
        const std::vector<std::string> words = words_of(statement.text(1));
        sample.words.emplace_back(words.begin(), words.end());
        statement.run();
    }
    return sample;
}

/// Words that some captions have and most have not.
std::vector<std::string> choose_words(const Sample& sample) {
    std::map<std::string, std::size_t> counts;
    for (const std::set<std::string>& words : sample.words) {
        for (const std::string& word : words) {
            if (says_something(word)) ++counts[word];
        }
    }
    std::vector<std::string> chosen;
    for (const auto& [word, count] : counts) {
        if (count >= 3 && count <= sample.ids.size() / 10) chosen.push_back(word);
    }
    std::ranges::sort(chosen, {}, scattered);
    chosen.resize(std::min(chosen.size(), most_words));
    return chosen;
}

/// One word's scores of all pictures, and which have it.
struct Query {
    std::vector<double> cosines, standard, words;
    std::vector<std::uint8_t> relevant;
    std::size_t count = 0;  ///< of the relevant
    double deviation = 1;
};

/// F1 where all above a threshold count as found.
double f1_above(const std::vector<double>& scores, const Query& query, double threshold) {
    std::size_t hits = 0, found = 0;
    for (std::size_t i = 0; i < scores.size(); ++i) {
        if (scores[i] < threshold) continue;
        ++found;
        hits += query.relevant[i];
    }
    return td::f1_score(hits, found, query.count);
}

/// The best of all thresholds for one query.
double best_f1(const Query& query) {
    const std::vector<std::size_t> order = td::best_matches<double>(query.cosines, query.cosines.size());
    double best = 0;
    std::size_t hits = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
        hits += query.relevant[order[i]];
        best = std::max(best, td::f1_score(hits, i + 1, query.count));
    }
    return best;
}

/// The threshold with the best mean F1 over some queries.
template <class Scores>
double best_threshold(std::span<const Query> queries, const Scores& scores, double low, double high) {
    constexpr int steps = 100;
    std::vector<std::vector<double>> all;
    for (const Query& query : queries) all.push_back(scores(query));
    double best = -1, chosen = low;
    for (int step = 0; step <= steps; ++step) {
        const double threshold = std::lerp(low, high, static_cast<double>(step) / steps);
        double sum = 0;
        for (std::size_t q = 0; q < queries.size(); ++q) sum += f1_above(all[q], queries[q], threshold);
        if (sum <= best) continue;
        best = sum;
        chosen = threshold;
    }
    return chosen;
}

double mean_of(std::span<const Query> queries, const auto& value) {
    double sum = 0;
    for (const Query& query : queries) sum += value(query);
    return queries.empty() ? 0 : sum / static_cast<double>(queries.size());
}

std::string print(const char* format, auto... values) {
    std::array<char, 512> text{};
    std::snprintf(text.data(), text.size(), format, values...);
    return text.data();
}

}  // namespace

Judgement fit_judgement(const Catalogue& catalogue, const Opened& opened, std::ostream& report) {
    const Sample sample = read_sample(catalogue);
    const std::vector<std::string> words = choose_words(sample);
    if (words.size() < least_words) {
        report << "relevance: too few captions to learn it from (" << words.size() << " words that some captions have, of "
               << least_words << "): scores are as of an average model\n";
        return {};
    }
    const std::size_t count = sample.ids.size(), width = sample.rows.size() / count;
    std::vector<Query> queries(words.size());
    const std::vector<float> rows = embed_texts(opened, words);
    td::parallel_for(words.size(), 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t q = begin; q < end; ++q) {
            Query& query = queries[q];
            const auto row = std::span(rows).subspan(q * width, width);
            const td::Standard standard = td::standardise(row, sample.rows);
            query.deviation = standard.deviation;
            for (std::size_t i = 0; i < count; ++i) {
                const double product = td::detail::product_in_double(row, std::span(sample.rows).subspan(i * width, width));
                query.cosines.push_back(product);
                query.standard.push_back(standard(product));
                query.relevant.push_back(sample.words[i].contains(words[q]) ? 1 : 0);
                query.count += query.relevant.back();
            }
        }
    });
    // What words find. Of every second picture they are hidden, or words alone could not be wrong.
    std::map<std::int64_t, std::size_t> places;
    for (std::size_t i = 0; i < count; ++i) places[sample.ids[i]] = i;
    // By paths: numbers are others on a server.
    const auto is_hidden = [&](std::size_t i) { return scattered(sample.paths[i]) % 2 == 0; };
    const WordIndex index(catalogue.database());
    for (std::size_t q = 0; q < words.size(); ++q) {
        std::vector<double>& scores = queries[q].words;
        scores.resize(count);
        index.for_each_scored({words[q]}, [&](std::int64_t id, double score) {
            const auto place = places.find(id);
            if (place != places.end() && !is_hidden(place->second)) scores[place->second] = std::max(score, 0.0);
            return true;
        });
        const double best = *std::ranges::max_element(scores);
        for (double& score : scores) score = best > 0 ? score / best : 0;
    }

    const std::size_t half = queries.size() / 2;
    const auto training = std::span<const Query>(queries).first(half), held_out = std::span<const Query>(queries).subspan(half);
    std::vector<double> features;
    std::vector<std::uint8_t> relevant;
    for (const Query& query : training) {
        for (std::size_t i = 0; i < count; ++i) features.insert(features.end(), {query.standard[i], query.cosines[i]});
        relevant.insert(relevant.end(), query.relevant.begin(), query.relevant.end());
    }
    Judgement judgement;
    judgement.fitted_on = half;
    judgement.curve = td::fit_logistic(features, relevant);
    const auto logits = [&](const Query& query) {
        std::vector<double> found;
        for (std::size_t i = 0; i < count; ++i)
            found.push_back(judgement.curve.slopes[0] * query.standard[i] + judgement.curve.slopes[1] * query.cosines[i] + judgement.curve.offset);
        return found;
    };
    // What is nearer must be more probable, whatever the query: z = (cosine − mean) / deviation.
    const bool rises = std::ranges::all_of(queries, [&](const Query& query) {
        return judgement.curve.slopes[0] / query.deviation + judgement.curve.slopes[1] > 0;
    });
    if (!rises) {
        report << "relevance: the model does not know the captions' words (what fits them better is not more often theirs): "
                  "scores are as of an average model\n";
        return {};
    }
    const auto probabilities = [&](const Query& query) {
        std::vector<double> found;
        for (const double logit : logits(query)) found.push_back(td::Logistic{}(logit));
        return found;
    };
    // Probabilities of what is rare lie close together near 0; their logits do not.
    const double least = best_threshold(training, logits, -10, 5);
    judgement.cut = td::Logistic{}(least);
    const auto cosines = [](const Query& query) -> const std::vector<double>& { return query.cosines; };
    const double fixed = best_threshold(training, cosines, -0.2, 0.8);
    const auto examples = [&](std::span<const Query> some) {
        std::vector<td::MixtureExample> found;
        for (const Query& query : some) found.push_back({probabilities(query), query.words, query.relevant});
        return found;
    };
    judgement.words = td::learn_mixture(examples(training));
    const auto mixtures = [&](const Query& query) {
        std::vector<double> found = probabilities(query);
        for (std::size_t i = 0; i < count; ++i) found[i] = td::mix(found[i], query.words[i], *judgement.words);
        return found;
    };
    judgement.mixture_cut = best_threshold(training, mixtures, 0.01, 0.99);

    // How well that went on words that nothing was fitted on.
    std::vector<double> promised;
    std::vector<std::uint8_t> true_of;
    for (const Query& query : held_out) {
        const std::vector<double> some = probabilities(query);
        promised.insert(promised.end(), some.begin(), some.end());
        true_of.insert(true_of.end(), query.relevant.begin(), query.relevant.end());
    }
    const std::vector<td::MixtureExample> tests = examples(held_out);
    const double fused = mean_of(held_out, [&](const Query& query) {
        std::vector<std::vector<std::size_t>> rankings{td::best_matches<double>(query.cosines, count),
                                                       td::best_matches<double>(query.words, count)};
        std::erase_if(rankings[1], [&](std::size_t i) { return query.words[i] == 0; });
        std::vector<double> sums(count);
        for (const td::Ranked& ranked : td::reciprocal_rank_fusion(rankings)) sums[ranked.item] = ranked.score;
        return td::ndcg_at(sums, query.relevant, 10);
    });
    report << print("relevance: fitted on %zu words of %zu captions; on %zu others:\n", half, count, held_out.size())
           << print("  expected calibration error %.4f; F1 of what is called relevant by meaning %.3f, of the best fixed cosine "
                    "%.3f, of the best cut for each %.3f; by both, where half of the pictures have no words, %.3f\n",
                    td::expected_calibration_error(promised, true_of),
                    mean_of(held_out, [&](const Query& query) { return f1_above(logits(query), query, least); }),
                    mean_of(held_out, [&](const Query& query) { return f1_above(query.cosines, query, fixed); }),
                    mean_of(held_out, best_f1),
                    mean_of(held_out, [&](const Query& query) { return f1_above(mixtures(query), query, judgement.mixture_cut); }))
           << print("  nDCG@10, where half of the pictures have no words: meaning %.3f, words %.3f, both by rank %.3f, both by a "
                    "weight of %.2f for words %.3f\n",
                    td::mixture_ndcg(tests, 0), td::mixture_ndcg(tests, 1), fused, *judgement.words,
                    td::mixture_ndcg(tests, *judgement.words));
    return judgement;
}

}  // namespace program

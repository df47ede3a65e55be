// Definitions of tasks/tagging.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <functional>
#include <map>
#include <numeric>
#include <system_error>
#include <utility>

#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/tasks/tagging.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// Indices, largest score first; of equal scores the negative first, so that no tie helps.
inline std::vector<std::size_t> by_score(const char* where, std::span<const double> scores, std::span<const std::uint8_t> positive) {
    check_labels(where, scores.size(), positive);
    std::vector<std::size_t> order(scores.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::sort(order, [&](std::size_t a, std::size_t b) {
        if (scores[a] != scores[b]) return scores[a] > scores[b];
        return positive[a] != positive[b] ? positive[a] < positive[b] : a < b;
    });
    return order;
}

/// The words of a line, which blanks divide.
inline std::vector<std::string_view> fields_of(std::string_view line) {
    std::vector<std::string_view> fields;
    for (std::size_t i = 0; i < line.size();) {
        const std::size_t end = std::min(line.find(' ', i), line.size());
        if (end > i) fields.push_back(line.substr(i, end - i));
        i = end + 1;
    }
    return fields;
}

template <class Visit>
void for_each_line(std::string_view text, const Visit& visit) {
    for (std::size_t begin = 0, number = 1; begin < text.size(); ++number) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        std::string_view line = text.substr(begin, end - begin);
        if (line.ends_with('\r')) line.remove_suffix(1);
        visit(line, number);
        begin = end + 1;
    }
}

}  // namespace detail

TANDEM_INLINE Taxonomy Taxonomy::parse(std::string_view text, std::string_view where) {
    Taxonomy taxonomy;
    std::vector<std::size_t> above;  // the labels that the next one may be below
    std::map<std::string, std::size_t, std::less<>> lines;
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    detail::for_each_line(text, [&](std::string_view line, std::size_t number) {
        std::size_t depth = 0;
        while (line.starts_with("  ") || line.starts_with('\t')) {
            line.remove_prefix(line.starts_with('\t') ? 1 : 2);
            ++depth;
        }
        while (line.starts_with(' ')) line.remove_prefix(1);
        while (line.ends_with(' ') || line.ends_with('\t')) line.remove_suffix(1);
        if (line.empty()) return;
        const std::string at = std::string(where) + " line " + std::to_string(number);
        if (depth > above.size())
            throw Error(at, "a label at most one step further in than the one before", std::to_string(depth) + " steps");
        if (const auto [found, is_new] = lines.emplace(line, number); !is_new)
            throw Error(at, "every label once", "\"" + std::string(line) + "\", which stands in line " + std::to_string(found->second));
        above.resize(depth);
        taxonomy.parents.push_back(depth == 0 ? root : above.back());
        above.push_back(taxonomy.labels.size());
        taxonomy.labels.emplace_back(line);
    });
    return taxonomy;
}

TANDEM_INLINE Taxonomy Taxonomy::parse_wordnet(std::string_view text, std::string_view where) {
    struct Synset {
        std::string word;
        std::string_view above;  ///< the offset of its first hypernym, which names it
    };
    std::map<std::string_view, Synset> synsets;
    std::vector<std::string_view> order;
    detail::for_each_line(text, [&](std::string_view line, std::size_t number) {
        if (line.empty() || line.front() == ' ') return;  // the licence
        const std::vector<std::string_view> fields = detail::fields_of(line.substr(0, line.find(" | ")));
        const auto count_at = [&](std::size_t i, int base) {
            std::size_t count = 0;
            const bool is_there = i < fields.size();
            const char* const end = is_there ? fields[i].data() + fields[i].size() : nullptr;
            if (!is_there || std::from_chars(fields[i].data(), end, count, base) != std::from_chars_result{end, std::errc()})
                throw Error(std::string(where) + " line " + std::to_string(number), "a synset of WordNet's data.noun",
                            std::string(line.substr(0, 60)));
            return count;
        };
        // Offset, file number, "n", words in hexadecimal, then a word and a number each, then pointers of four fields.
        const std::size_t words = count_at(3, 16), pointers_at = 4 + 2 * words, pointers = count_at(pointers_at, 10);
        Synset synset;
        for (const char c : fields[4]) synset.word += c == '_' ? ' ' : c;
        for (std::size_t i = 0; i < pointers && synset.above.empty(); ++i) {
            const std::size_t at = pointers_at + 1 + 4 * i;
            if (at + 3 >= fields.size()) break;
            if (fields[at] == "@" || fields[at] == "@i") synset.above = fields[at + 1];
        }
        synsets.emplace(fields[0], std::move(synset));
        order.push_back(fields[0]);
    });
    Taxonomy taxonomy;
    std::map<std::string, std::size_t, std::less<>> known;
    std::map<std::string_view, std::size_t> places;  // of synsets that are listed, or of what stands for them
    // A synset's hypernyms come first, in the file or not.
    const auto place = [&](const auto& self, std::string_view offset, std::size_t depth) -> std::size_t {
        if (const auto found = places.find(offset); found != places.end()) return found->second;
        const auto synset = synsets.find(offset);
        if (synset == synsets.end() || depth > 64)
            throw Error(where, "hypernyms that are in the file, and no circle of them", std::string(offset));
        const std::size_t above = synset->second.above.empty() ? root : self(self, synset->second.above, depth + 1);
        const auto [word, is_new] = known.emplace(synset->second.word, taxonomy.labels.size());
        if (is_new) {
            taxonomy.labels.push_back(synset->second.word);
            taxonomy.parents.push_back(above);
        }
        return places[offset] = is_new ? word->second : above;
    };
    for (const std::string_view offset : order) place(place, offset, 0);
    if (taxonomy.labels.empty()) throw Error(where, "synsets of WordNet's data.noun", "none");
    return taxonomy;
}

TANDEM_INLINE std::vector<std::size_t> Taxonomy::path(std::size_t label) const {
    std::vector<std::size_t> path;
    for (; label != root; label = parents.at(label)) path.push_back(label);
    std::ranges::reverse(path);
    return path;
}

TANDEM_INLINE Tagger::Tagger(Taxonomy taxonomy, std::vector<float> rows, std::span<const float> neutral)
    : taxonomy_(std::move(taxonomy)),
      width_(taxonomy_.size() == 0 ? 0 : rows.size() / taxonomy_.size()),
      rows_(std::move(rows)),
      neutral_(neutral.begin(), neutral.end()),
      curves_(taxonomy_.size(), Logistic{{30, -30}, -3}) {
    if (width_ == 0 || rows_.size() != taxonomy_.size() * width_)
        throw Error("Tagger", "a row for each of " + std::to_string(taxonomy_.size()) + " labels", std::to_string(rows_.size()) + " elements");
    if (neutral_.empty() || neutral_.size() % width_ != 0)
        throw Error("Tagger", "neutral prompts of width " + std::to_string(width_), std::to_string(neutral_.size()) + " elements");
}

TANDEM_INLINE Tagger::Evidence Tagger::evidence(std::span<const float> picture) const {
    if (picture.size() != width_)
        throw Error("Tagger::evidence", "a picture's row of " + std::to_string(width_), std::to_string(picture.size()) + " elements");
    const auto cosines = [&](const std::vector<float>& rows) {
        std::vector<double> products(rows.size() / width_);
        for (std::size_t i = 0; i < products.size(); ++i)
            products[i] = detail::product_in_double(std::span(rows).subspan(i * width_, width_), picture);
        return products;
    };
    const std::vector<double> neutral = cosines(neutral_);
    return {cosines(rows_), std::accumulate(neutral.begin(), neutral.end(), 0.0) / static_cast<double>(neutral.size())};
}

TANDEM_INLINE void Tagger::calibrate(const LabelledPictures& known) {
    const std::size_t count = known.rows.size() / width_, labels = taxonomy_.size();
    if (count == 0 || known.rows.size() != count * width_ || known.has.size() != count * labels)
        throw Error("Tagger::calibrate", std::to_string(labels) + " labels for each of " + std::to_string(count) + " pictures",
                    std::to_string(known.has.size()));
    std::vector<double> all(2 * count * labels);
    parallel_for(count, 16, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            const Evidence found = evidence(std::span(known.rows).subspan(i * width_, width_));
            for (std::size_t label = 0; label < labels; ++label) {
                all[2 * (i * labels + label)] = found.cosines[label];
                all[2 * (i * labels + label) + 1] = found.neutral;
            }
        }
    });
    const Logistic common = fit_logistic(all, known.has);
    parallel_for(labels, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t label = begin; label < end; ++label) {
            std::vector<double> features;
            std::vector<std::uint8_t> has;
            for (std::size_t i = 0; i < count; ++i) {
                const double* const pair = all.data() + 2 * (i * labels + label);
                features.insert(features.end(), {pair[0], pair[1]});
                has.push_back(known.has[i * labels + label]);
            }
            const auto positives = static_cast<double>(std::ranges::count(has, std::uint8_t{1}));
            curves_[label] = common;
            if (positives == 0 || positives == static_cast<double>(count)) continue;
            const Logistic own = fit_logistic(features, has);
            const double weight = positives / (positives + 20);
            for (std::size_t j = 0; j < 2; ++j) curves_[label].slopes[j] = std::lerp(common.slopes[j], own.slopes[j], weight);
            curves_[label].offset = std::lerp(common.offset, own.offset, weight);
        }
    });
}

TANDEM_INLINE std::vector<double> Tagger::probabilities(std::span<const float> picture) const {
    const Evidence found = evidence(picture);
    std::vector<double> probabilities(taxonomy_.size());
    for (std::size_t label = 0; label < probabilities.size(); ++label)
        probabilities[label] = curves_[label](std::array{found.cosines[label], found.neutral});
    raise_parents(taxonomy_, probabilities);
    return probabilities;
}

TANDEM_INLINE void raise_parents(const Taxonomy& taxonomy, std::span<double> probabilities) {
    // Parents come before their children.
    for (std::size_t label = probabilities.size(); label-- > 0;) {
        const std::size_t parent = taxonomy.parents[label];
        if (parent != Taxonomy::root) probabilities[parent] = std::max(probabilities[parent], probabilities[label]);
    }
}

TANDEM_INLINE std::optional<double> average_precision(std::span<const double> scores, std::span<const std::uint8_t> positive) {
    double sum = 0;
    std::size_t hits = 0, rank = 0;
    for (const std::size_t i : detail::by_score("average_precision", scores, positive)) {
        ++rank;
        if (positive[i] != 0) sum += static_cast<double>(++hits) / static_cast<double>(rank);
    }
    if (hits == 0) return std::nullopt;
    return sum / static_cast<double>(hits);
}

TANDEM_INLINE std::optional<double> threshold_for_precision(std::span<const double> scores,
                                                            std::span<const std::uint8_t> positive, double precision,
                                                            std::size_t least) {
    std::optional<double> threshold;
    std::size_t hits = 0, rank = 0;
    const std::vector<std::size_t> order = detail::by_score("threshold_for_precision", scores, positive);
    for (const std::size_t i : order) {
        hits += positive[i] != 0 ? 1 : 0;
        // A threshold lets in all that have its score.
        const bool is_last = ++rank == order.size() || scores[order[rank]] < scores[i];
        if (is_last && hits >= least && static_cast<double>(hits) >= precision * static_cast<double>(rank)) threshold = scores[i];
    }
    return threshold;
}

TANDEM_INLINE std::optional<double> threshold_for_recall(std::span<const double> scores,
                                                         std::span<const std::uint8_t> positive, double recall) {
    const auto there = static_cast<double>(std::ranges::count_if(positive, [](std::uint8_t is) { return is != 0; }));
    std::size_t hits = 0;
    for (const std::size_t i : detail::by_score("threshold_for_recall", scores, positive)) {
        hits += positive[i] != 0 ? 1 : 0;
        // Not more than is needed: the first that reaches the share is the largest threshold.
        if (positive[i] != 0 && static_cast<double>(hits) >= recall * there) return scores[i];
    }
    return std::nullopt;
}

}  // namespace tandem::inline TANDEM_ABI

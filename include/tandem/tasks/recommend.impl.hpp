// Definitions of tasks/recommend.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include <tandem/core/error.hpp>
#include <tandem/tasks/query.hpp>
#include <tandem/tasks/recommend.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

inline float product_of(std::span<const float> x, std::span<const float> y) {
    return std::inner_product(x.begin(), x.end(), y.begin(), 0.0F);
}

}  // namespace detail

TANDEM_INLINE std::vector<Match> diversify(const Index& index, std::span<const Match> matches, std::size_t count,
                                           double diversity, float same) {
    struct Open {
        Match match;
        std::vector<float> row;
        float nearest = -std::numeric_limits<float>::infinity();  ///< to what was taken
    };
    std::vector<Open> open;
    for (const Match& match : matches) open.push_back({match, index.row(match.position)});
    std::vector<Match> chosen;
    while (chosen.size() < count) {
        const Open* best = nullptr;
        double most = -std::numeric_limits<double>::infinity();
        for (const Open& one : open) {
            if (one.nearest >= same) continue;
            const double redundancy = chosen.empty() ? 0 : static_cast<double>(one.nearest);
            const double gain = (1 - diversity) * static_cast<double>(one.match.score) - diversity * redundancy;
            if (gain > most) {
                most = gain;
                best = &one;
            }
        }
        if (best == nullptr) break;
        chosen.push_back(best->match);
        const std::vector<float> row = best->row;
        for (Open& one : open)
            one.nearest = one.match.position == chosen.back().position ? std::numeric_limits<float>::infinity()
                                                                       : std::max(one.nearest, detail::product_of(one.row, row));
    }
    return chosen;
}

TANDEM_INLINE double diversity_of(const Index& index, std::span<const Match> matches) {
    double sum = 0;
    for (std::size_t i = 0; i < matches.size(); ++i) {
        const std::vector<float> row = index.row(matches[i].position);
        for (std::size_t j = 0; j < i; ++j) sum += static_cast<double>(detail::product_of(row, index.row(matches[j].position)));
    }
    const auto pairs = static_cast<double>(matches.size() * (matches.size() - std::min<std::size_t>(1, matches.size()))) / 2;
    return pairs == 0 ? 0 : 1 - sum / pairs;
}

TANDEM_INLINE std::vector<Match> recommend(const Index& index, std::span<const std::size_t> liked,
                                           std::span<const std::size_t> disliked, const RecommendOptions& options) {
    if (liked.empty()) throw Error("recommend", "something that was liked", "nothing");
    std::vector<QueryTerm> terms;
    std::vector<float> rows;
    const auto add = [&](std::span<const std::size_t> positions, double total, double half_life) {
        double sum = 0;
        const std::size_t first = terms.size();
        for (std::size_t i = 0; i < positions.size(); ++i) {
            const double age = static_cast<double>(positions.size() - 1 - i);
            const double weight = half_life > 0 ? std::exp2(-age / half_life) : 1;
            const std::vector<float> row = index.row(positions[i]);
            rows.insert(rows.end(), row.begin(), row.end());
            terms.push_back({weight, {}});
            sum += weight;
        }
        for (std::size_t i = first; i < terms.size(); ++i) terms[i].weight *= total / sum;
    };
    add(liked, 1, options.half_life);
    add(disliked, -0.25, 0);
    const std::vector<float> wanted = combine(terms, rows);

    // The history goes, and what is the same as any of it, so more are looked at.
    const std::size_t looked_at = 10 * options.count + 2 * (liked.size() + disliked.size()) + 50;
    const SearchResult nearest = index.search(wanted, looked_at, {.allowed = options.allowed});
    std::vector<Match> fresh;
    const std::size_t width = index.width();
    for (const Match& match : nearest.matches.front()) {
        const std::vector<float> row = index.row(match.position);
        bool is_known = false;
        for (std::size_t i = 0; i < terms.size() && !is_known; ++i)
            is_known = detail::product_of(row, std::span(rows).subspan(i * width, width)) >= options.same;
        const auto is_in = [&](std::span<const std::size_t> some) { return std::ranges::find(some, match.position) != some.end(); };
        if (!is_known && !is_in(liked) && !is_in(disliked)) fresh.push_back(match);
    }
    return diversify(index, fresh, options.count, options.diversity, options.same);
}

}  // namespace tandem::inline TANDEM_ABI

// Retrieval: how high the matching item ranks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI {

/// Which items match a query, one or more: several captions of a picture.
using Matches = std::span<const std::size_t>;

/// The share of queries i of which one of the matches is among the k items of the highest score[i, ·]: its expectation when ties are broken at random, so
/// that identical items neither help nor hurt. matches_of(i) lists those of query i. Throws Error for a query without one.
template <Real T, class MatchesOf>
double recall_at_any(const Tensor<T, Shape<dynamic, dynamic>>& scores, std::size_t k, const MatchesOf& matches_of) {
    double found = 0;
    for (std::size_t i = 0; i < scores.extent(0); ++i) {
        const auto row = scores[i].elements();
        const Matches matches = matches_of(i);
        if (matches.empty()) throw Error("recall_at_any", "a match for every query", "none for query " + std::to_string(i));
        T best = -std::numeric_limits<T>::infinity();
        for (const std::size_t match : matches) best = std::max(best, row[match]);
        const auto count = [&](const auto& holds) { return static_cast<double>(std::count_if(row.begin(), row.end(), holds)); };
        const double higher = count([&](T score) { return score > best; }), ties = count([&](T score) { return score == best; });
        const auto right = static_cast<double>(std::ranges::count_if(matches, [&](std::size_t match) { return row[match] == best; }));
        const double places = std::clamp(static_cast<double>(k) - higher, 0.0, ties);
        // None of the places falls to a match: places of the wrong ones in a row.
        double none = 1;
        for (double taken = 0; taken < places; ++taken) none *= std::max(0.0, ties - right - taken) / (ties - taken);
        found += 1 - none;
    }
    return scores.extent(0) == 0 ? 0.0 : found / static_cast<double>(scores.extent(0));
}

/// The same where the match of query i is item first + i, and no other.
template <Real T>
double recall_at(const Tensor<T, Shape<dynamic, dynamic>>& scores, std::size_t k, std::size_t first = 0) {
    std::size_t match = 0;
    return recall_at_any(scores, k, [&](std::size_t i) {
        match = first + i;
        return Matches(&match, 1);
    });
}

/// The k items of the highest scores, best first; the first of equal ones first.
template <Real T>
std::vector<std::size_t> best_matches(std::span<const T> scores, std::size_t k) {
    std::vector<std::size_t> order(scores.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto last = order.begin() + static_cast<std::ptrdiff_t>(std::min(k, order.size()));
    std::partial_sort(order.begin(), last, order.end(), [&](std::size_t a, std::size_t b) {
        return scores[a] > scores[b] || (!(scores[b] > scores[a]) && a < b);
    });
    order.erase(last, order.end());
    return order;
}

}  // namespace tandem::inline TANDEM_ABI

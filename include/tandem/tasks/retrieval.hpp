// Retrieval: how high the matching item ranks.
#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI {

/// The share of queries i whose match, item first + i, is among the k items of the highest score[i, ·]: its expectation when ties
/// are broken at random, so that identical items neither help nor hurt.
template <Real T>
double recall_at(const Tensor<T, Shape<dynamic, dynamic>>& scores, std::size_t k, std::size_t first = 0) {
    double found = 0;
    for (std::size_t i = 0; i < scores.extent(0); ++i) {
        const auto row = scores[i].elements();
        const T match = row[first + i];
        const auto higher = std::count_if(row.begin(), row.end(), [&](T score) { return score > match; });
        const auto ties = std::count(row.begin(), row.end(), match);
        const double places = static_cast<double>(k) - static_cast<double>(higher);
        found += std::clamp(places / static_cast<double>(std::max<std::ptrdiff_t>(ties, 1)), 0.0, 1.0);
    }
    return scores.extent(0) == 0 ? 0.0 : found / static_cast<double>(scores.extent(0));
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

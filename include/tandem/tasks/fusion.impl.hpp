// Definitions of tasks/fusion.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <string>

#include <tandem/core/error.hpp>
#include <tandem/tasks/fusion.hpp>
#include <tandem/tasks/retrieval.hpp>

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE std::vector<Ranked> reciprocal_rank_fusion(std::span<const std::vector<std::size_t>> rankings, double k) {
    std::map<std::size_t, double> scores;
    for (const std::vector<std::size_t>& ranking : rankings) {
        for (std::size_t i = 0; i < ranking.size(); ++i) scores[ranking[i]] += 1 / (k + static_cast<double>(i + 1));
    }
    std::vector<Ranked> fused;
    for (const auto& [item, score] : scores) fused.push_back({item, score});
    std::ranges::sort(fused, [](const Ranked& a, const Ranked& b) {
        return a.score != b.score ? a.score > b.score : a.item < b.item;
    });
    return fused;
}

TANDEM_INLINE double ndcg_at(std::span<const double> scores, std::span<const std::uint8_t> relevant, std::size_t k) {
    if (scores.size() != relevant.size())
        throw Error("ndcg_at", std::to_string(scores.size()) + " labels", std::to_string(relevant.size()));
    const std::vector<std::size_t> order = best_matches<double>(scores, k);
    const auto there = static_cast<std::size_t>(std::ranges::count_if(relevant, [](std::uint8_t is) { return is != 0; }));
    double gain = 0, most = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
        const double share = 1 / std::log2(static_cast<double>(i + 2));
        if (relevant[order[i]] != 0) gain += share;
        if (i < there) most += share;
    }
    return most == 0 ? 0 : gain / most;
}

TANDEM_INLINE double mixture_ndcg(std::span<const MixtureExample> examples, double weight, std::size_t k) {
    double sum = 0;
    std::vector<double> scores;
    for (const MixtureExample& example : examples) {
        if (example.second.size() != example.first.size())
            throw Error("mixture_ndcg", std::to_string(example.first.size()) + " scores of each kind",
                        std::to_string(example.second.size()));
        scores.resize(example.first.size());
        for (std::size_t i = 0; i < scores.size(); ++i) scores[i] = mix(example.first[i], example.second[i], weight);
        sum += ndcg_at(scores, example.relevant, k);
    }
    return examples.empty() ? 0 : sum / static_cast<double>(examples.size());
}

TANDEM_INLINE double learn_mixture(std::span<const MixtureExample> examples, std::size_t k) {
    if (examples.empty()) throw Error("learn_mixture", "examples to learn from", "none");
    constexpr std::size_t steps = 20;
    double best = -1;
    std::vector<double> weights;
    for (std::size_t i = 0; i <= steps; ++i) {
        const double weight = static_cast<double>(i) / steps, gain = mixture_ndcg(examples, weight, k);
        if (gain > best) {
            best = gain;
            weights.clear();
        }
        if (gain == best) weights.push_back(weight);
    }
    return weights[weights.size() / 2];
}

}  // namespace tandem::inline TANDEM_ABI

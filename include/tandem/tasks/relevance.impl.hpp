// Definitions of tasks/relevance.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <string>

#include <tandem/core/error.hpp>
#include <tandem/tasks/relevance.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

TANDEM_INLINE void check_labels(const char* where, std::size_t scores, std::span<const std::uint8_t> positive) {
    if (positive.size() != scores) throw Error(where, std::to_string(scores) + " labels", std::to_string(positive.size()));
}

/// The number of positives. Throws Error unless there are some, and negatives.
TANDEM_INLINE std::size_t count_positives(const char* where, std::span<const std::uint8_t> positive) {
    const auto count = static_cast<std::size_t>(std::ranges::count_if(positive, [](std::uint8_t is) { return is != 0; }));
    if (count == 0 || count == positive.size())
        throw Error(where, "positives and negatives to tell apart",
                    std::to_string(count) + " positives of " + std::to_string(positive.size()));
    return count;
}

}  // namespace detail

TANDEM_INLINE Standard standardise(std::span<const float> query, std::span<const float> background) {
    const std::size_t width = query.size(), count = width == 0 ? 0 : background.size() / width;
    if (count == 0 || background.size() != count * width)
        throw Error("standardise", "rows of the query's width " + std::to_string(width),
                    std::to_string(background.size()) + " elements");
    double sum = 0, squares = 0;
    std::vector<double> products(count);
    for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t j = 0; j < width; ++j)
            products[i] += static_cast<double>(query[j]) * static_cast<double>(background[i * width + j]);
        sum += products[i];
    }
    const double mean = sum / static_cast<double>(count);
    for (const double product : products) squares += (product - mean) * (product - mean);
    const double deviation = std::sqrt(squares / static_cast<double>(count));
    return {mean, deviation > 0 ? deviation : 1};
}

TANDEM_INLINE double Logistic::operator()(double z) const {
    const double logit = slope * z + offset;
    // Either way the exponential is at most 1.
    return logit >= 0 ? 1 / (1 + std::exp(-logit)) : std::exp(logit) / (1 + std::exp(logit));
}

TANDEM_INLINE Logistic fit_logistic(std::span<const double> scores, std::span<const std::uint8_t> positive,
                                    std::span<const double> weights) {
    detail::check_labels("fit_logistic", scores.size(), positive);
    if (!weights.empty() && weights.size() != scores.size())
        throw Error("fit_logistic", std::to_string(scores.size()) + " weights, or none", std::to_string(weights.size()));
    const auto positives = static_cast<double>(detail::count_positives("fit_logistic", positive));
    const double negatives = static_cast<double>(scores.size()) - positives;
    const double high = (positives + 1) / (positives + 2), low = 1 / (negatives + 2);
    const auto weight = [&](std::size_t i) { return weights.empty() ? 1.0 : weights[i]; };
    // Steps of Newton's method are taken in standardised scores, which makes them of one size.
    const double count = static_cast<double>(scores.size());
    const double mean = std::accumulate(scores.begin(), scores.end(), 0.0) / count;
    double variance = 0;
    for (const double score : scores) variance += (score - mean) * (score - mean) / count;
    const double unit = variance > 0 ? std::sqrt(variance) : 1;
    const auto loss = [&](const Logistic& curve) {
        double sum = 0;
        for (std::size_t i = 0; i < scores.size(); ++i) {
            const double logit = curve.slope * (scores[i] - mean) / unit + curve.offset;
            const double target = positive[i] != 0 ? high : low;
            // −target · log p − (1 − target) · log(1 − p), without a large exponential.
            sum += weight(i) * (std::log1p(std::exp(-std::abs(logit))) + std::max(logit, 0.0) - target * logit);
        }
        return sum;
    };
    Logistic curve{0, std::log((positives + 1) / (negatives + 1))};
    double before = loss(curve);
    for (int step = 0; step < 100; ++step) {
        double g1 = 0, g2 = 0, h11 = 1e-12, h12 = 0, h22 = 1e-12;
        for (std::size_t i = 0; i < scores.size(); ++i) {
            const double z = (scores[i] - mean) / unit, p = curve(z), target = positive[i] != 0 ? high : low;
            const double error = weight(i) * (p - target), slope = weight(i) * p * (1 - p);
            g1 += error * z;
            g2 += error;
            h11 += slope * z * z;
            h12 += slope * z;
            h22 += slope;
        }
        const double determinant = h11 * h22 - h12 * h12;
        if (std::abs(g1) < 1e-9 * count && std::abs(g2) < 1e-9 * count) break;
        if (!(determinant > 0)) break;
        const double by1 = (h22 * g1 - h12 * g2) / determinant, by2 = (h11 * g2 - h12 * g1) / determinant;
        bool has_fallen = false;
        for (double length = 1; length > 1e-10 && !has_fallen; length /= 2) {
            const Logistic next{curve.slope - length * by1, curve.offset - length * by2};
            const double after = loss(next);
            if (!(after < before)) continue;
            has_fallen = true;
            curve = next;
            before = after;
        }
        if (!has_fallen) break;
    }
    return {curve.slope / unit, curve.offset - curve.slope * mean / unit};
}

TANDEM_INLINE Isotonic::Isotonic(std::span<const double> scores, std::span<const std::uint8_t> positive) {
    detail::check_labels("Isotonic", scores.size(), positive);
    detail::count_positives("Isotonic", positive);
    std::vector<std::size_t> order(scores.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, {}, [&](std::size_t i) { return scores[i]; });
    struct Pool {
        double first, last, positives, count;

        double share() const { return positives / count; }
    };
    std::vector<Pool> pools;
    for (const std::size_t i : order) {
        const double is = positive[i] != 0 ? 1 : 0;
        // Equal scores have one probability.
        if (!pools.empty() && pools.back().last == scores[i]) {
            pools.back().positives += is;
            ++pools.back().count;
        } else {
            pools.push_back({scores[i], scores[i], is, 1});
        }
        while (pools.size() > 1 && pools.back().share() <= pools[pools.size() - 2].share()) {
            const Pool upper = pools.back();
            pools.pop_back();
            Pool& lower = pools.back();
            lower = {lower.first, upper.last, lower.positives + upper.positives, lower.count + upper.count};
        }
    }
    for (const Pool& pool : pools) {
        for (const double score : {pool.first, pool.last}) {
            if (!scores_.empty() && scores_.back() == score) continue;
            scores_.push_back(score);
            probabilities_.push_back(pool.share());
        }
    }
}

TANDEM_INLINE double Isotonic::operator()(double score) const {
    const auto above = std::ranges::lower_bound(scores_, score);
    if (above == scores_.end()) return probabilities_.back();
    const auto i = static_cast<std::size_t>(above - scores_.begin());
    if (i == 0 || *above == score) return probabilities_[i];
    return std::lerp(probabilities_[i - 1], probabilities_[i],
                     (score - scores_[i - 1]) / (scores_[i] - scores_[i - 1]));
}

TANDEM_INLINE double expected_calibration_error(std::span<const double> probabilities,
                                                std::span<const std::uint8_t> positive, std::size_t bins) {
    detail::check_labels("expected_calibration_error", probabilities.size(), positive);
    std::vector<std::size_t> order(probabilities.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(order, {}, [&](std::size_t i) { return probabilities[i]; });
    double error = 0;
    bins = std::clamp<std::size_t>(bins, 1, std::max<std::size_t>(1, order.size()));
    for (std::size_t bin = 0; bin < bins; ++bin) {
        double difference = 0;
        for (std::size_t i = order.size() * bin / bins; i < order.size() * (bin + 1) / bins; ++i)
            difference += probabilities[order[i]] - (positive[order[i]] != 0 ? 1 : 0);
        error += std::abs(difference);
    }
    return order.empty() ? 0 : error / static_cast<double>(order.size());
}

TANDEM_INLINE double f1_score(std::size_t hits, std::size_t found, std::size_t there) {
    return hits == 0 ? 0 : 2 * static_cast<double>(hits) / static_cast<double>(found + there);
}

}  // namespace tandem::inline TANDEM_ABI

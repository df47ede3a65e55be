// Definitions of tasks/relevance.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <string>
#include <utility>

#include <tandem/core/error.hpp>
#include <tandem/tasks/relevance.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

TANDEM_INLINE double product_in_double(std::span<const float> x, std::span<const float> y) {
    double sum = 0;
    for (std::size_t j = 0; j < x.size(); ++j) sum += static_cast<double>(x[j]) * static_cast<double>(y[j]);
    return sum;
}

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
        products[i] = detail::product_in_double(query, background.subspan(i * width, width));
        sum += products[i];
    }
    const double mean = sum / static_cast<double>(count);
    for (const double product : products) squares += (product - mean) * (product - mean);
    const double deviation = std::sqrt(squares / static_cast<double>(count));
    return {mean, deviation > 0 ? deviation : 1};
}

TANDEM_INLINE double Logistic::operator()(std::span<const double> features) const {
    if (features.size() != slopes.size())
        throw Error("Logistic", std::to_string(slopes.size()) + " features", std::to_string(features.size()));
    const double logit = std::inner_product(slopes.begin(), slopes.end(), features.begin(), offset);
    // Either way the exponential is at most 1.
    return logit >= 0 ? 1 / (1 + std::exp(-logit)) : std::exp(logit) / (1 + std::exp(logit));
}

namespace detail {

/// Solves a x = b for a symmetric matrix [n, n], which becomes its Cholesky factor, and b, which becomes x. Says whether the
/// matrix is positive definite.
TANDEM_INLINE bool solve_symmetric(std::vector<double>& a, std::vector<double>& b) {
    const std::size_t n = b.size();
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j <= i; ++j) {
            double sum = a[i * n + j];
            for (std::size_t k = 0; k < j; ++k) sum -= a[i * n + k] * a[j * n + k];
            if (i != j) {
                a[i * n + j] = sum / a[j * n + j];
            } else if (sum > 0) {
                a[i * n + i] = std::sqrt(sum);
            } else {
                return false;
            }
        }
    }
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t k = 0; k < i; ++k) b[i] -= a[i * n + k] * b[k];
        b[i] /= a[i * n + i];
    }
    for (std::size_t i = n; i-- > 0;) {
        for (std::size_t k = i + 1; k < n; ++k) b[i] -= a[k * n + i] * b[k];
        b[i] /= a[i * n + i];
    }
    return true;
}

/// A logistic regression in the making: features that have mean 0 and deviation 1, a last one of 1 for the offset.
struct LogisticFit {
    std::size_t count, width;  ///< rows; features with the last one
    std::vector<double> rows, targets;
    double decay;

    double logit(std::size_t i, const std::vector<double>& slopes) const {
        return std::inner_product(slopes.begin(), slopes.end(), rows.begin() + static_cast<std::ptrdiff_t>(i * width), 0.0);
    }
    double loss(const std::vector<double>& slopes) const {
        double sum = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const double found = logit(i, slopes);
            // −target · log p − (1 − target) · log(1 − p), without a large exponential.
            sum += std::log1p(std::exp(-std::abs(found))) + std::max(found, 0.0) - targets[i] * found;
        }
        sum /= static_cast<double>(count);
        for (std::size_t j = 0; j + 1 < width; ++j) sum += decay / 2 * slopes[j] * slopes[j];
        return sum;
    }
    /// Newton's step from `slopes`; empty where there is none.
    std::vector<double> step(const std::vector<double>& slopes) const {
        std::vector<double> gradient(width), curvature(width * width);
        for (std::size_t i = 0; i < count; ++i) {
            const double* const row = rows.data() + i * width;
            const double p = Logistic{}(logit(i, slopes)), error = p - targets[i], weight = p * (1 - p);
            for (std::size_t j = 0; j < width; ++j) {
                gradient[j] += error * row[j];
                const double weighted = weight * row[j];
                for (std::size_t k = 0; k <= j; ++k) curvature[j * width + k] += weighted * row[k];
            }
        }
        double largest = 0;
        for (std::size_t j = 0; j < width; ++j) {
            const double held = j + 1 < width ? decay : 0;
            gradient[j] = gradient[j] / static_cast<double>(count) + held * slopes[j];
            for (std::size_t k = 0; k <= j; ++k) curvature[j * width + k] /= static_cast<double>(count);
            // A feature that never changes has no curvature, and no gradient either.
            curvature[j * width + j] += held + 1e-12;
            largest = std::max(largest, std::abs(gradient[j]));
        }
        if (largest < 1e-10 || !solve_symmetric(curvature, gradient)) return {};
        return gradient;
    }
};

}  // namespace detail

TANDEM_INLINE Logistic fit_logistic(std::span<const double> features, std::span<const std::uint8_t> positive, double decay) {
    const std::size_t count = positive.size(), given = count == 0 ? 0 : features.size() / count;
    if (given == 0 || features.size() != given * count)
        throw Error("fit_logistic", "as many features for each of " + std::to_string(count) + " labels",
                    std::to_string(features.size()) + " numbers");
    const auto positives = static_cast<double>(detail::count_positives("fit_logistic", positive));
    const double all = static_cast<double>(count), negatives = all - positives;
    const double high = (positives + 1) / (positives + 2), low = 1 / (negatives + 2);
    const std::size_t width = given + 1;
    detail::LogisticFit fit{count, width, std::vector<double>(count * width, 1.0), std::vector<double>(count), decay};
    std::vector<double> means(given), units(given);
    for (std::size_t j = 0; j < given; ++j) {
        for (std::size_t i = 0; i < count; ++i) means[j] += features[i * given + j] / all;
        double variance = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const double from_mean = features[i * given + j] - means[j];
            variance += from_mean * from_mean / all;
        }
        // What never changes differs from its mean by rounding alone.
        const bool changes = variance > 1e-24 * means[j] * means[j] && variance > 0;
        units[j] = changes ? std::sqrt(variance) : 1;
        for (std::size_t i = 0; i < count; ++i)
            fit.rows[i * width + j] = changes ? (features[i * given + j] - means[j]) / units[j] : 0;
    }
    for (std::size_t i = 0; i < count; ++i) fit.targets[i] = positive[i] != 0 ? high : low;

    std::vector<double> slopes(width);
    slopes.back() = std::log((positives + 1) / (negatives + 1));
    double before = fit.loss(slopes);
    bool has_fallen = true;
    for (int step = 0; step < 100 && has_fallen; ++step) {
        const std::vector<double> direction = fit.step(slopes);
        if (direction.empty()) break;
        has_fallen = false;
        for (double length = 1; length > 1e-10 && !has_fallen; length /= 2) {
            std::vector<double> next = slopes;
            for (std::size_t j = 0; j < width; ++j) next[j] -= length * direction[j];
            const double after = fit.loss(next);
            if (!(after < before)) continue;
            has_fallen = true;
            slopes = std::move(next);
            before = after;
        }
    }
    Logistic curve{std::vector<double>(given), slopes.back()};
    for (std::size_t j = 0; j < given; ++j) {
        curve.slopes[j] = slopes[j] / units[j];
        curve.offset -= curve.slopes[j] * means[j];
    }
    return curve;
}

TANDEM_INLINE Isotonic::Isotonic(std::span<const double> scores, std::span<const std::uint8_t> positive) {
    detail::check_labels("Isotonic", scores.size(), positive);
    detail::count_positives("Isotonic", positive);
    std::vector<std::size_t> order(scores.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::sort(order, {}, [&](std::size_t i) { return std::pair(scores[i], i); });
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
    std::ranges::sort(order, {}, [&](std::size_t i) { return std::pair(probabilities[i], i); });
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

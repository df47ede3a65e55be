// Scores that mean something: a cosine becomes the probability that a picture is what the query asks for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// The product of two rows of one width, summed in double.
double product_in_double(std::span<const float> x, std::span<const float> y);

/// Throws Error unless there is a label for every score.
void check_labels(const char* where, std::size_t scores, std::span<const std::uint8_t> positive);

}  // namespace detail

/// How one query's products with any picture lie: cosines of different queries are of different heights, what stands out of
/// a query's own is alike for all.
struct Standard {
    double mean = 0, deviation = 1;

    double operator()(double score) const { return (score - mean) / deviation; }
};

/// The mean and standard deviation of a query's products with rows [N, width] of a background; a deviation of 0 becomes 1.
/// Throws Error without a row.
Standard standardise(std::span<const float> query, std::span<const float> background);

/// The probability 1 / (1 + exp(−(Σ slope · feature + offset))): of one score, Platt's curve; of several features or a whole
/// embedding, a logistic regression.
struct Logistic {
    std::vector<double> slopes{1};
    double offset = 0;

    /// Throws Error unless there is a feature for every slope.
    double operator()(std::span<const double> features) const;
    double operator()(double score) const { return (*this)(std::span(&score, 1)); }
};

/// The fit to features [N, F] of which is known whether they are positive, with Platt's smoothed targets (Platt 1999, sect.
/// 2.2), by Newton's method with a line search (Lin, Lin, Weng 2007). `decay` · |slope|² / 2 is added to the mean loss, of
/// features that have deviation 1. Throws Error for sizes that differ and unless there are positives and negatives.
Logistic fit_logistic(std::span<const double> features, std::span<const std::uint8_t> positive, double decay = 0);

/// A curve that only rises, by steps (pool adjacent violators; Zadrozny, Elkan 2002): for a thousand scores or more, where
/// the shape of the curve is not known.
class Isotonic {
public:
    /// With the same errors as fit_logistic.
    Isotonic(std::span<const double> scores, std::span<const std::uint8_t> positive);

    /// Between two scores that were seen, the line between their probabilities.
    double operator()(double score) const;

private:
    std::vector<double> scores_, probabilities_;
};

/// The mean difference between what is promised and what comes true, over `bins` of equally many scores (Nguyen, O'Connor
/// 2015; Guo et al. 2017, eq. 3). Throws Error for sizes that differ.
double expected_calibration_error(std::span<const double> probabilities, std::span<const std::uint8_t> positive,
                                  std::size_t bins = 15);

/// 2 · hits / (found + there): the harmonic mean of precision and recall; 0 where nothing is found.
double f1_score(std::size_t hits, std::size_t found, std::size_t there);

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/tasks/relevance.impl.hpp>
#endif

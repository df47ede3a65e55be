// Two rankings of the same things, by meaning and by words, made one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// An item and its score in a ranking.
struct Ranked {
    std::size_t item;
    double score;

    friend bool operator==(const Ranked&, const Ranked&) = default;
};

/// Σ 1 / (k + rank) over the rankings that an item is in, each best first and its ranks from 1 (Cormack, Clarke, Büttcher 2009):
/// for when nothing is known of the scores. Best first, of equal ones the lesser item.
std::vector<Ranked> reciprocal_rank_fusion(std::span<const std::vector<std::size_t>> rankings, double k = 60);

/// (1 − weight) · first + weight · second (Bruch, Gai, Ingber 2023, eq. 4, which beats the fusion of ranks where a few
/// examples tell the weight). Both scores in [0, 1].
inline double mix(double first, double second, double weight) { return (1 - weight) * first + weight * second; }

/// One query of which is known what is relevant: two scores in [0, 1] of every item.
struct MixtureExample {
    std::vector<double> first, second;
    std::vector<std::uint8_t> relevant;
};

/// The gain of the first k items of a ranking over the most that they could have: every relevant item counts
/// 1 / log2(rank + 1) (Järvelin, Kekäläinen 2002, with gains of 0 and 1). Of equal scores the first item comes first; 0 where
/// nothing is relevant. Throws Error for sizes that differ.
double ndcg_at(std::span<const double> scores, std::span<const std::uint8_t> relevant, std::size_t k);

/// The mean of ndcg_at over the examples, for a mixture.
double mixture_ndcg(std::span<const MixtureExample> examples, double weight, std::size_t k = 10);

/// The weight, of 0, 0.05, …, 1, with the best mixture_ndcg; of equal ones the middle one. Throws Error without an example.
double learn_mixture(std::span<const MixtureExample> examples, std::size_t k = 10);

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/tasks/fusion.impl.hpp>
#endif

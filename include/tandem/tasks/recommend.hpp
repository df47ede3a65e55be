// What is like what somebody liked, and not ten times the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <tandem/core/platform.hpp>
#include <tandem/tasks/index.hpp>

namespace tandem::inline TANDEM_ABI {

/// How recommendations are chosen.
struct RecommendOptions {
    std::size_t count = 10;
    /// 0 takes the nearest; above, what is near and unlike what was taken already: every choice has the most of
    /// (1 − diversity) · relevance − diversity · the largest product with a choice before (maximal marginal relevance, Carbonell,
    /// Goldstein 1998).
    double diversity = 0.3;
    /// Of rows with a product of that or more one is recommended, and none of what is that near to the history.
    float same = 0.97F;
    /// A liked row's weight halves with every so many that came after it; 0: all weigh alike.
    double half_life = 0;
    /// Bits of rows that may be recommended, as SearchOptions::allowed has them.
    std::span<const std::uint64_t> allowed{};
};

/// The rows of an index to somebody who liked those at `liked`, oldest first, and not those at `disliked` (which are taken
/// away with a quarter of the weight; Rocchio 1971): their weighted mean is asked for. What is in the history is not
/// recommended. Scores are the products with that mean. Throws Error without a liked row, for positions that were never given,
/// and if nothing is left of the mean.
std::vector<Match> recommend(const Index& index, std::span<const std::size_t> liked, std::span<const std::size_t> disliked = {},
                             const RecommendOptions& options = {});

/// Of matches, best first, the choice of the same name in RecommendOptions. Rows are those of the index.
std::vector<Match> diversify(const Index& index, std::span<const Match> matches, std::size_t count, double diversity, float same);

/// One less the mean product of all pairs of rows: how different a list is. 0 of fewer than two.
double diversity_of(const Index& index, std::span<const Match> matches);

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/tasks/recommend.impl.hpp>
#endif

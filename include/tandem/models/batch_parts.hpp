// In which parts a batch is computed, by which ranks, and in which order its gradient is added up.
#pragma once

#include <cstddef>

#include <tandem/core/platform.hpp>
#include <tandem/core/ranks.hpp>

namespace tandem::inline TANDEM_ABI {

/// A batch in parts: all of a part's pairs are in memory at a time. The parts are dealt out in `shares`, runs of as many parts each; a rank has
/// one or several neighbouring shares. Within a share gradients are added up pair by pair in order, and the shares' sums as a binary tree of
/// neighbours: so the gradient depends on the shares, and neither on how many ranks compute them nor on how large their parts are.
struct BatchParts {
    std::size_t count = 0, part = 0;
    std::size_t shares = 1;  ///< a power of two, and no fewer than there are ranks
    Ranks* ranks = nullptr;  ///< of which this process is one; nullptr: alone

    std::size_t ranks_count() const { return ranks == nullptr ? 1 : ranks->size(); }
    std::size_t parts() const { return (count + part - 1) / part; }
    std::size_t share() const { return parts() / shares; }

    /// Parts of this rank, and the first of them.
    std::size_t own_parts() const { return parts() / ranks_count(); }
    std::size_t first_part() const { return ranks == nullptr ? 0 : ranks->rank() * own_parts(); }

    /// This rank's parts in the order in which they are computed: all are embedded, from the last one to the first, which is still in memory when it
    /// is passed back through, and then all the others again in order, each passed back through.
    std::size_t computed() const { return 2 * own_parts() - 1; }
    std::size_t part_at(std::size_t i) const;

    /// Throws Error, which names `where`, unless there are pairs and the parts can be dealt out so.
    void check(const char* where) const;
};

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/models/batch_parts.impl.hpp>
#endif

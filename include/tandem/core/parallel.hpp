// Parallel loops; the only file that knows oneTBB.
#pragma once

#include <algorithm>
#include <cstddef>

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// Calls body(begin, end) over disjoint pieces that cover [0, count), each of at least `grain` items (but the last).
/// Where the pieces lie depends on the number of threads: body must give an item the same result in any piece.
template <class Body>
void parallel_for(std::size_t count, std::size_t grain, const Body& body) {
    if (count == 0) return;
    if (count <= grain) {
        body(std::size_t{0}, count);
        return;
    }
    tbb::parallel_for(tbb::blocked_range<std::size_t>(0, count, std::max<std::size_t>(grain, 1)),
                      [&](const tbb::blocked_range<std::size_t>& range) { body(range.begin(), range.end()); });
}

}  // namespace tandem::inline TANDEM_ABI

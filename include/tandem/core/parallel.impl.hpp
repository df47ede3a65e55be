// Definitions of core/parallel.hpp; the only file that knows oneTBB.
#pragma once

#include <algorithm>
#include <cstddef>

// g++ 12 takes the undefined operand of AVX-512 intrinsics for an uninitialised read (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#pragma GCC diagnostic pop

#include <tandem/core/parallel.hpp>
#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

TANDEM_INLINE void run_pieces(std::size_t count, std::size_t grain, PieceFunction function, const void* body) {
    // Isolated, so that a thread waiting here cannot pick up an unrelated task that uses the same thread-local scratch.
    tbb::this_task_arena::isolate([&] {
        tbb::parallel_for(
            tbb::blocked_range<std::size_t>(0, count, std::max<std::size_t>(grain, 1)),
            [&](const tbb::blocked_range<std::size_t>& range) { function(body, range.begin(), range.end()); });
    });
}

}  // namespace detail

TANDEM_INLINE std::size_t core_count() {
    return static_cast<std::size_t>(std::max(1, tbb::this_task_arena::max_concurrency()));
}

}  // namespace tandem::inline TANDEM_ABI

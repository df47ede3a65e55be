// Parallel loops; the only file that knows oneTBB.
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

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

using PieceFunction = void (*)(const void* body, std::size_t begin, std::size_t end);

// The body is type-erased so that a program instantiates oneTBB's loop once, not once for every loop it has.
inline void run_pieces(std::size_t count, std::size_t grain, PieceFunction function, const void* body) {
    // Isolated, so that a thread waiting here cannot pick up an unrelated task that uses the same thread-local scratch.
    tbb::this_task_arena::isolate([&] {
        tbb::parallel_for(
            tbb::blocked_range<std::size_t>(0, count, std::max<std::size_t>(grain, 1)),
            [&](const tbb::blocked_range<std::size_t>& range) { function(body, range.begin(), range.end()); });
    });
}

}  // namespace detail

/// The number of threads that a loop started here runs on.
inline std::size_t core_count() {
    return static_cast<std::size_t>(std::max(1, tbb::this_task_arena::max_concurrency()));
}

/// Calls body(begin, end) over disjoint pieces that cover [0, count), none of less than half of `grain` items where there
/// are that many. Where the pieces lie depends on the number of threads: body must give an item the same result in any
/// piece. The number of threads is the user's: tbb::global_control.
template <class Body>
void parallel_for(std::size_t count, std::size_t grain, const Body& body) {
    if (count == 0) return;
    if (count <= grain) {
        body(std::size_t{0}, count);
        return;
    }
    detail::run_pieces(
        count, grain,
        [](const void* erased, std::size_t begin, std::size_t end) { (*static_cast<const Body*>(erased))(begin, end); },
        &body);
}

}  // namespace tandem::inline TANDEM_ABI

// Parallel loops.
#pragma once

#include <cstddef>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

using PieceFunction = void (*)(const void* body, std::size_t begin, std::size_t end);

/// Calls function(body, begin, end) over the pieces of parallel_for. The body is type-erased so that a program has
/// oneTBB's loop once, not once for every loop of its own.
void run_pieces(std::size_t count, std::size_t grain, PieceFunction function, const void* body);

}  // namespace detail

/// The number of threads that a loop started here runs on.
std::size_t core_count();

/// Calls body(begin, end) over disjoint pieces that cover [0, count), none of less than half of `grain` items where
/// there are that many. Where the pieces lie depends on the number of threads: body must give an item the same result
/// in any piece. The number of threads is the user's: tbb::global_control.
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

#if !defined(TANDEM_COMPILED)
#include <tandem/core/parallel.impl.hpp>
#endif

// Stands in for oneTBB in ThreadSanitizer builds; see parallel_for.h.
#pragma once

namespace tbb::this_task_arena {

template <class Body>
decltype(auto) isolate(const Body& body) {
    return body();
}

}  // namespace tbb::this_task_arena

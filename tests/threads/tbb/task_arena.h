// Stands in for oneTBB; see parallel_for.h.
#pragma once

#include <tbb/global_control.h>

namespace tbb {

/// Runs its work with the number of threads that global_control allows.
class task_arena {
public:
    explicit task_arena(int) {}

    template <class Body>
    decltype(auto) execute(const Body& body) {
        return body();
    }
};

}  // namespace tbb

namespace tbb::this_task_arena {

inline int max_concurrency() {
    return static_cast<int>(global_control::threads());
}

template <class Body>
decltype(auto) isolate(const Body& body) {
    return body();
}

}  // namespace tbb::this_task_arena

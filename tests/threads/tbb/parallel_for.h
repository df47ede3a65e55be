// Stands in for oneTBB where that cannot be used. In ThreadSanitizer builds: Debian's oneTBB is not instrumented, so
// ThreadSanitizer does not see how it hands work from thread to thread and reports races in its every loop; with threads
// started and joined in the open, what remains to be reported is what the library itself shares between them. In builds
// for another architecture: Debian installs oneTBB for this machine's only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include <tbb/blocked_range.h>
#include <tbb/global_control.h>

namespace tbb {

/// Runs body over a piece of the range for every thread, at once, the first on the calling one; the first exception is
/// passed on.
template <class Value, class Body>
void parallel_for(const blocked_range<Value>& range, const Body& body) {
    const std::size_t threads = global_control::threads();
    const std::size_t piece = std::max(range.grainsize(), (range.size() + threads - 1) / threads);
    std::mutex mutex;
    std::exception_ptr failure;
    const auto run = [&](std::size_t offset) {
        try {
            const Value begin = static_cast<Value>(range.begin() + offset);
            const Value end = static_cast<Value>(range.begin() + std::min(offset + piece, range.size()));
            body(blocked_range<Value>(begin, end, range.grainsize()));
        } catch (...) {
            const std::lock_guard lock(mutex);
            if (!failure) failure = std::current_exception();
        }
    };
    std::vector<std::jthread> workers;
    for (std::size_t offset = piece; offset < range.size(); offset += piece) workers.emplace_back(run, offset);
    if (range.size() > 0) run(0);
    workers.clear();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace tbb

// Stands in for oneTBB in ThreadSanitizer builds. Debian's oneTBB is not instrumented, so ThreadSanitizer does not see
// how it hands work from thread to thread and reports races in its every loop. With threads started and joined in the
// open, what remains to be reported is what the library itself shares between them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include <tbb/blocked_range.h>

namespace tbb {

/// Runs body over three pieces of the range at once; the first exception is passed on.
template <class Value, class Body>
void parallel_for(const blocked_range<Value>& range, const Body& body) {
    constexpr std::size_t threads = 3;
    const std::size_t piece = std::max(range.grainsize(), (range.size() + threads - 1) / threads);
    std::mutex mutex;
    std::exception_ptr failure;
    std::vector<std::jthread> workers;
    for (std::size_t offset = 0; offset < range.size(); offset += piece) {
        const Value begin = static_cast<Value>(range.begin() + offset);
        const Value end = static_cast<Value>(range.begin() + std::min(offset + piece, range.size()));
        workers.emplace_back([&, begin, end] {
            try {
                body(blocked_range<Value>(begin, end, range.grainsize()));
            } catch (...) {
                const std::lock_guard lock(mutex);
                if (!failure) failure = std::current_exception();
            }
        });
    }
    workers.clear();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace tbb

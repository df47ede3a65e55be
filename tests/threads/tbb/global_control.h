// Stands in for oneTBB; see parallel_for.h.
#pragma once

#include <atomic>
#include <cstddef>

namespace tbb {

/// The number of threads of every loop, while it lives; three by default.
class global_control {
public:
    enum parameter { max_allowed_parallelism };

    global_control(parameter, std::size_t value) : before_(threads_.exchange(value)) {}
    global_control(const global_control&) = delete;
    global_control& operator=(const global_control&) = delete;
    ~global_control() { threads_ = before_; }

    static std::size_t threads() { return threads_; }

private:
    static inline std::atomic<std::size_t> threads_ = 3;

    std::size_t before_;
};

}  // namespace tbb

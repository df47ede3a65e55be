// How far long work is.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <string>

namespace program {

/// One line on a terminal that is written over; elsewhere a line every ten seconds.
class Progress {
public:
    Progress(const char* what, std::size_t done, std::size_t all) : what_(what), first_(done), all_(all) {}

    void show(std::size_t done) {
        const auto now = Clock::now();
        const bool terminal = ::isatty(STDERR_FILENO) == 1, ended = done == all_;
        if (!ended && now - shown_ < (terminal ? std::chrono::milliseconds(100) : std::chrono::seconds(10))) return;
        shown_ = now;
        const double seconds = std::chrono::duration<double>(now - start_).count();
        constexpr std::size_t width = 30;
        const std::size_t filled = all_ == 0 ? width : width * done / all_;
        std::fprintf(stderr, "%s%-6s [%s%s] %zu/%zu, %.1f/s%s", terminal ? "\r" : "", what_,
                     std::string(filled, '#').c_str(), std::string(width - filled, '.').c_str(), done, all_,
                     static_cast<double>(done - first_) / std::max(seconds, 1e-9), terminal && !ended ? "" : "\n");
    }

private:
    using Clock = std::chrono::steady_clock;
    const char* what_;
    std::size_t first_, all_;
    Clock::time_point start_ = Clock::now(), shown_ = start_;
};

}  // namespace program

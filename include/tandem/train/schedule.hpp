// Learning-rate schedules over the progress of a run.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// Linear warm-up over the first `warmup` of the run, then half a cosine down to `floor` (open_clip_train/scheduler.py,
/// cosine_lr). Progress, not steps, is what a schedule follows, so that a run can be bounded by time as well.
struct WarmupCosine {
    double warmup = 0.05;
    double floor = 0.0;

    /// The factor of the optimizer's rate at `progress`, 0 before the first step and 1 after the last.
    double operator()(double progress) const {
        if (progress < warmup) return progress / warmup;
        const double through = std::min(1.0, (progress - warmup) / std::max(1e-12, 1.0 - warmup));
        return floor + (1.0 - floor) * 0.5 * (1.0 + std::cos(std::numbers::pi * through));
    }
};

/// The same rate throughout.
struct ConstantRate {
    double operator()(double) const { return 1.0; }
};

}  // namespace tandem::inline TANDEM_ABI

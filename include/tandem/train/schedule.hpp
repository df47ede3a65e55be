// Learning-rate schedules over the progress of a run.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <string>

#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// Where in a run a step lies.
struct Progress {
    std::size_t step = 0;   ///< steps before this one
    std::size_t steps = 0;  ///< of the whole run; 0: time bounds it, and nobody knows
    double begin = 0;       ///< the share of the run that has passed before this step
    double end = 0;         ///< and the share with it
};

// A schedule is a callable: the factor of the optimizer's rate at a share of the run from 0, before the first step,
// to 1. One with a member at(Progress) is asked that instead, and may count in steps.

namespace detail {

/// Any schedule's factor at a step.
template <class Schedule>
double schedule_factor(Schedule& schedule, const Progress& progress) {
    if constexpr (requires { schedule.at(progress); }) {
        return static_cast<double>(schedule.at(progress));
    } else {
        return static_cast<double>(schedule(progress.begin));
    }
}

/// The factor at a step of a schedule with a linear warm-up over a share of the run: rest(step, warm-up, steps) behind it, or curve(share)
/// where time bounds the run. There a step of the warm-up takes the share of time that has passed when its gradient is there.
template <class Rest, class Curve>
double warmed_up(const Progress& progress, double warmup, const Rest& rest, const Curve& curve) {
    if (progress.steps == 0) {
        return progress.begin < warmup ? std::min(1.0, progress.end / warmup) : curve(progress.begin);
    }
    const double steps = static_cast<double>(progress.steps), step = static_cast<double>(progress.step);
    const double length = std::round(warmup * steps);
    return step < length ? (step + 1) / length : rest(step, length, steps);
}

[[gnu::cold]] inline void check_share(const char* name, double value) {
    if (!(value >= 0 && value <= 1)) throw Error(name, "a share from 0 to 1", std::to_string(value));
}

}  // namespace detail

/// Linear warm-up over the first `warmup` of the run, then half a cosine down to `floor`. With a bound in steps or
/// epochs these are the rates of open_clip_train/scheduler.py, cosine_lr, at every step, for a warm-up of `warmup`
/// times the steps, rounded; open_clip's floor is 0. With a bound in seconds, which has no count of steps, a step of
/// the warm-up takes the share of time that has passed when its gradient is there, so that no step has a rate of 0.
struct WarmupCosine {
    double warmup = 0.05;
    double floor = 0.0;

    double at(const Progress& progress) const {
        return detail::warmed_up(
            progress, warmup, [&](double step, double length, double steps) { return cosine(step - length, steps - length); }, *this);
    }

    /// The continuous curve, which starts at 0 where there is a warm-up.
    double operator()(double progress) const {
        if (progress < warmup) return progress / warmup;
        return cosine(std::min(progress, 1.0) - warmup, std::max(1e-12, 1.0 - warmup));
    }

    /// Throws Error unless both lie in [0, 1].
    [[gnu::cold]] void check() const {
        detail::check_share("WarmupCosine.warmup", warmup);
        detail::check_share("WarmupCosine.floor", floor);
    }

private:
    double cosine(double passed, double whole) const {
        return floor + (1.0 - floor) * 0.5 * (1.0 + std::cos(std::numbers::pi * passed / whole));
    }
};

/// Linear warm-up over the first `warmup` of the run, then the same rate, and over the last `cooldown` of the run down to `floor`: by
/// (1 − passed / cooldown) ^ power, a line where the power is 1. With a bound in steps or epochs these are the rates of
/// open_clip_train/scheduler.py, const_lr and const_lr_cooldown, at every step, for shares of the steps, rounded; with a bound in seconds
/// the warm-up is WarmupCosine's. A run may be long without its length being known beforehand: another one goes on from before
/// the cooldown.
struct WarmupConstant {
    double warmup = 0.05;
    double cooldown = 0;
    double floor = 0;
    double power = 1;

    double at(const Progress& progress) const {
        const auto rest = [&](double step, double, double steps) {
            const double down = std::round(cooldown * steps);
            return step < steps - down ? 1.0 : cooled(step - (steps - down), down);
        };
        return detail::warmed_up(progress, warmup, rest, *this);
    }

    /// The continuous curve, which starts at 0 where there is a warm-up.
    double operator()(double progress) const {
        if (progress < warmup) return progress / warmup;
        return progress < 1 - cooldown || cooldown == 0 ? 1.0 : cooled(std::min(progress, 1.0) - (1 - cooldown), cooldown);
    }

    /// Throws Error unless warm-up, cooldown and floor lie in [0, 1] and the power is positive.
    [[gnu::cold]] void check() const {
        detail::check_share("WarmupConstant.warmup", warmup);
        detail::check_share("WarmupConstant.cooldown", cooldown);
        detail::check_share("WarmupConstant.floor", floor);
        if (!(power > 0 && std::isfinite(power))) throw Error("WarmupConstant.power", "a finite number above 0", std::to_string(power));
    }

private:
    double cooled(double passed, double whole) const { return std::pow(1 - passed / whole, power) * (1 - floor) + floor; }
};

/// The same rate throughout.
struct ConstantRate {
    double operator()(double) const { return 1.0; }
};

}  // namespace tandem::inline TANDEM_ABI

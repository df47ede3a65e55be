// Definitions of train/trainer.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <limits>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/random.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/train/optimizer.hpp>
#include <tandem/train/snapshot.hpp>
#include <tandem/train/trainer.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

[[gnu::cold]] TANDEM_INLINE std::string short_name(std::string_view text) {
    const std::size_t begin = text.find("Type = ") + 7;
    std::string_view name = text.substr(begin, text.find_first_of(";]", begin) - begin);
    const std::size_t end = std::min(name.find('<'), name.size());
    if (name.substr(end).starts_with("<lambda") || name.starts_with("(lambda")) return "lambda";
    name = name.substr(0, end);
    return std::string(name.substr(name.rfind(':') + 1));
}

TANDEM_INLINE Epoch::Epoch(std::size_t epoch, std::vector<std::size_t> draws, Seed run) : number(epoch), order(std::move(draws)) {
    Random shuffler(run, epoch);
    shuffle(order, shuffler);
    seed = Seed{shuffler.state()};
}

TANDEM_INLINE RateFactor without_pairs(RateFactor rest) {
    return [rest = std::move(rest)](std::string_view name) {
        const bool is_of_pairs = std::ranges::any_of(std::array<std::string_view, 5>{"visual.", "logit_", "text_projection", "text_pool", "ln_final"},
                                                     [&](std::string_view part) { return name.starts_with(part); });
        if (is_of_pairs) return 0.0;
        return rest ? rest(name) : 1.0;
    };
}

}  // namespace detail

[[gnu::cold]] TANDEM_INLINE void TrainerOptions::check(std::size_t least_pairs, std::size_t pairs) const {
    const auto positive = [](const char* option, std::size_t value) {
        if (value == 0) throw Error(option, "1 or more", "0");
    };
    const auto not_negative = [](const char* option, double value) {
        detail::check_option(std::isfinite(value) && value >= 0, option, "a finite number, 0 or above", value);
    };
    not_negative("TrainerOptions.seconds", seconds);
    not_negative("TrainerOptions.clip_norm", clip_norm);
    detail::check_option(average_decay >= 0 && average_decay < 1, "TrainerOptions.average_decay", "a number from 0 to below 1", average_decay);
    positive("TrainerOptions.batch", batch);
    positive("TrainerOptions.max_skipped", max_skipped);
    positive("TrainerOptions.snapshot_every", snapshot_every);
    positive("TrainerOptions.report_every", report_every);
    if ((steps > 0) + (epochs > 0) + (seconds > 0) != 1) {
        throw Error("TrainerOptions", "exactly one of steps, epochs and seconds to be set",
                    "steps " + std::to_string(steps) + ", epochs " + std::to_string(epochs) + ", seconds " +
                        detail::to_text(seconds));
    }
    if (batch < least_pairs) {
        throw Error("TrainerOptions.batch",
                    std::to_string(least_pairs) +
                        " pairs or more, since this loss tells every pair from the others of its batch",
                    std::to_string(batch));
    }
    if (micro_batch > batch)
        throw Error("TrainerOptions.micro_batch", "at most the batch, " + std::to_string(batch), std::to_string(micro_batch));
    if (pairs < batch) {
        throw Error("Trainer", "at least one batch of " + std::to_string(batch) + " pairs",
                    std::to_string(pairs) + " pairs");
    }
    parts().check("TrainerOptions");
    if (ranks != nullptr && seconds > 0)
        throw Error("TrainerOptions.seconds", "0, since ranks have clocks of their own: steps or epochs bound their run", detail::to_text(seconds));
    if (epochs > std::numeric_limits<std::size_t>::max() / pairs) {
        throw Error("TrainerOptions.epochs", "a number of steps that can be counted",
                    std::to_string(epochs) + " epochs");
    }
}

TANDEM_INLINE BatchParts TrainerOptions::parts() const {
    const std::size_t all_shares = shares > 0 ? shares : ranks != nullptr ? ranks->size() : 1;
    return {batch, micro_batch > 0 ? micro_batch : batch % all_shares == 0 ? batch / all_shares : batch, all_shares, ranks};
}

[[gnu::cold]] TANDEM_INLINE void TrainerOptions::add_to(RunInputs& inputs) const {
    const auto add = [&](const char* name, const std::string& value) { inputs.emplace_back(name, value); };
    const auto count = [&](const char* name, std::size_t value) { add(name, std::to_string(value)); };
    const auto number = [&](const char* name, double value) { add(name, detail::to_text(value)); };
    count("batch", batch);
    count("steps", steps);
    count("epochs", epochs);
    number("seconds", seconds);
    count("seed", seed.value);
    number("clip_norm", clip_norm);
    count("max_skipped", max_skipped);
    if (parts().shares > 1) count("shares", parts().shares);
    if (average_decay > 0) number("average_decay", average_decay);
}

TANDEM_INLINE RateFactor TrainerOptions::whole_rate_factor() const {
    if (!lock_image && !lock_text) return rate_factor;
    return [image = lock_image, text = lock_text, rest = rate_factor](std::string_view name) {
        const bool is_image = name.starts_with("visual."), is_text = !is_image && !name.starts_with("logit_");
        if ((image && is_image) || (text && is_text)) return 0.0;
        return rest ? rest(name) : 1.0;
    };
}

TANDEM_INLINE void TrainerOptions::report(const StepReport& report) const {
    const int rest = static_cast<int>(std::clamp(report.seconds_left, 0.0, 1e9));
    std::array<char, 240> line;
    const std::string total = report.steps > 0 ? "/" + std::to_string(report.steps) : "";
    std::array<char, 40> of_ceiling{};
    if (ceiling > 0) std::snprintf(of_ceiling.data(), of_ceiling.size(), " (%.0f %% of the ceiling)", 100 * report.ceiling_share);
    std::snprintf(line.data(), line.size(), "step %zu%s  loss %.4f  logit scale %.2f  rate %.3g  %.0f samples/s%s  data %.0f %%  %d:%02d left\n",
                  report.step, total.c_str(), report.loss, report.logit_scale, report.rate, report.samples_per_second, of_ceiling.data(),
                  100 * report.waiting, rest / 60, rest % 60);
    *log << line.data() << std::flush;
}

}  // namespace tandem::inline TANDEM_ABI

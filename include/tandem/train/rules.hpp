// What a Trainer is given, as classes of plain values: compilers spell out whatever an error stands in.
#pragma once

#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>

#include <tandem/core/dtype.hpp>
#include <tandem/core/random.hpp>
#include <tandem/train/optimizer.hpp>
#include <tandem/train/schedule.hpp>

namespace tandem::inline TANDEM_ABI::detail {

template <class Optimizer>
concept HasRate = requires(const Optimizer& optimizer) {
    { optimizer.rate } -> std::convertible_to<double>;
};

/// `state` is what a Trainer keeps for an optimizer.
template <class Optimizer, class Model, class State>
concept Updates = requires(const Optimizer& optimizer, Model& model, State& state) {
    { optimizer.update(model, model, state, 1.0, 1.0) } -> std::convertible_to<bool>;
};

template <class Optimizer, class Model, class State>
concept TakesFactor = requires(const Optimizer& optimizer, Model& model, State& state, const RateFactor& factor) {
    optimizer.update(model, model, state, 1.0, 1.0, factor);
};

/// The type of what a Trainer keeps for an optimizer: its own, or AdamW's.
template <class Optimizer, class Model>
auto state_of() {
    if constexpr (requires { typename Optimizer::template State<Model>; }) {
        return std::type_identity<typename Optimizer::template State<Model>>{};
    } else {
        return std::type_identity<AdamW::State<Model>>{};
    }
}

template <class Optimizer, bool has_rate, bool has_update>
struct OptimizerRules {
    static_assert(has_rate,
                  "tandem: an optimizer needs a member double rate, which the schedule multiplies: see AdamW");
    static_assert(
        has_update || !has_rate,
        "tandem: an optimizer needs update(model, gradient, AdamW::State<Model>&, rate, gradient_scale), which "
        "returns whether all weights are finite: see AdamW");
};

template <class Schedule>
concept GivesFactors = requires(Schedule& schedule, const Progress& progress) {
    { schedule.at(progress) } -> std::convertible_to<double>;
}
|| requires(Schedule& schedule) {
    { schedule(0.5) } -> std::convertible_to<double>;
};

template <class Schedule, bool gives_factors>
struct ScheduleRules {
    static_assert(gives_factors,
                  "tandem: a schedule is called with the share of the run that has passed, a double, or has "
                  "at(Progress), and returns a factor of the rate: WarmupCosine, ConstantRate, or a lambda");
};

template <class Data>
concept HasSize = requires(const Data& data) {
    { data.size() } -> std::convertible_to<std::size_t>;
};

template <class Data>
concept Fetches = requires(const Data& data, Random& random, std::span<float> image, std::span<Id> ids) {
    data.fetch(std::size_t{}, random, image, ids);
};

template <class Data, bool has_size, bool has_fetch>
struct DataRules {
    static_assert(has_size, "tandem: a source of pairs needs size() const, the number of its pairs: see PairSource");
    static_assert(
        has_fetch,
        "tandem: a source of pairs needs fetch(std::size_t index, Random&, std::span<float> image, std::span<Id> "
        "ids) const: see PairSource");
};

}  // namespace tandem::inline TANDEM_ABI::detail

// Reproducible random numbers: a seed and a stream name every sequence, so that parallel work needs no shared state.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// A seed that a user names where they start something random: Clip<config> model{Seed{0}}.
struct Seed {
    std::uint64_t value = 0;
};

/// SplitMix64 (Steele, Lea, Flood 2014): one 64-bit word of state, so a snapshot of it is one integer.
/// Random(seed, stream) gives independent sequences for different streams of one seed.
class Random {
public:
    explicit constexpr Random(Seed seed, std::uint64_t stream = 0)
        : state_(mix(seed.value + increment) ^ mix(mix(stream) + 0x632be59bd9b4e019ULL)) {}

    constexpr std::uint64_t next() { return mix(state_ += increment); }

    /// Uniform in [0, 1), 53 bits.
    constexpr double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
    constexpr double uniform(double low, double high) { return low + (high - low) * uniform(); }

    /// Uniform in [0, count); count must be positive. The bias of the multiply-shift is below count / 2^64.
    constexpr std::size_t below(std::size_t count) {
        return static_cast<std::size_t>((static_cast<Wide>(next()) * count) >> 64);
    }

    /// Standard normal by Box–Muller; the second value is dropped so that the state stays one word.
    double normal() {
        const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
        return radius * std::cos(2.0 * std::numbers::pi * uniform());
    }

    constexpr std::uint64_t state() const { return state_; }
    constexpr void set_state(std::uint64_t state) { state_ = state; }

private:
    // nvcc takes __extension__ before a typedef, but not before using.
    __extension__ typedef unsigned __int128 Wide;

    static constexpr std::uint64_t increment = 0x9e3779b97f4a7c15ULL;

    static constexpr std::uint64_t mix(std::uint64_t z) {
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        return z ^ (z >> 31);
    }

    std::uint64_t state_;
};

/// Fisher–Yates; the same random state gives the same order on every platform (std::shuffle does not promise that).
template <class Range>
void shuffle(Range& range, Random& random) {
    for (std::size_t i = range.size(); i > 1; --i) {
        const std::size_t j = random.below(i);
        const auto held = range[i - 1];
        range[i - 1] = range[j];
        range[j] = held;
    }
}

}  // namespace tandem::inline TANDEM_ABI

// A digest of data in 64 bits: tells whether a run that goes on sees what it saw before.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>

#include <tandem/core/platform.hpp>
#include <tandem/core/random.hpp>

namespace tandem::inline TANDEM_ABI {

/// Two different contents have the same digest with a chance of 2^-64; it withstands accidents, not an adversary.
class Digest {
public:
    void add(std::uint64_t word) {
        // A word spreads before it meets the others, so that no simple change of the next one undoes its own.
        word *= 0xbf58476d1ce4e5b9ULL;
        word = (word ^ (word >> 32)) * 0x94d049bb133111ebULL;
        state_ = std::rotl(state_ ^ word ^ (word >> 29), 23) * 0x9e3779b97f4a7c15ULL;
    }

    /// The bytes of `values`, and how many there are.
    template <class T>
    void add(std::span<const T> values) {
        const std::span<const std::byte> bytes = std::as_bytes(values);
        add(bytes.size());
        for (std::size_t at = 0; at < bytes.size(); at += sizeof(std::uint64_t)) {
            std::uint64_t word = 0;
            std::memcpy(&word, bytes.data() + at, std::min(sizeof(word), bytes.size() - at));
            add(word);
        }
    }

    std::uint64_t value() const { return Random(Seed{state_}).next(); }

    /// Sixteen hexadecimal digits.
    std::string text() const {
        std::array<char, 17> digits;
        std::snprintf(digits.data(), digits.size(), "%016llx", static_cast<unsigned long long>(value()));
        return digits.data();
    }

private:
    std::uint64_t state_ = 1;
};

}  // namespace tandem::inline TANDEM_ABI

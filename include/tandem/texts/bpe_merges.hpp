// Byte-pair merging: which two tokens become which third, applied to one word.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// Two neighbouring tokens become a third.
struct MergeRule {
    Id left = 0;
    Id right = 0;
    Id result = 0;
};

/// The rules of a vocabulary by rank, and a hash table from pairs to ranks that is only read once it is built.
class MergeRules {
public:
    MergeRules() = default;

    /// Room for `count` rules.
    explicit MergeRules(std::size_t count) : slots_(std::bit_ceil(2 * count + 1)) { rules_.reserve(count); }

    /// Adds the next rule; false, and no change, if its pair has one already.
    bool add(const MergeRule& rule);

    const std::vector<MergeRule>& rules() const { return rules_; }

    /// Merges the tokens of one word: the lowest rank first, of equal ranks the leftmost. `ranks` is working memory.
    void apply(std::vector<Id>& ids, std::vector<std::uint32_t>& ranks) const;

private:
    static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

    struct Slot {
        std::uint64_t key = 0;
        std::uint32_t rank = none;
    };

    static std::uint64_t key(Id left, Id right);

    std::size_t position(std::uint64_t key) const;

    std::uint32_t rank(Id left, Id right) const { return slots_[position(key(left, right))].rank; }

    /// Quadratic in the length, and the fastest for the words people write.
    void apply_short(std::vector<Id>& ids, std::vector<std::uint32_t>& ranks) const;

    /// The same result in n log n steps, for runs of thousands of letters or emoji.
    void apply_long(std::vector<Id>& ids) const;

    std::vector<MergeRule> rules_;
    std::vector<Slot> slots_ = std::vector<Slot>(1);
};

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/texts/bpe_merges.impl.hpp>
#endif

// Definitions of texts/bpe_merges.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <queue>
#include <string>
#include <utility>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/bpe_merges.hpp>

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE bool MergeRules::add(const MergeRule& rule) {
    Slot& slot = slots_[position(key(rule.left, rule.right))];
    if (slot.rank != none) return false;
    slot = {key(rule.left, rule.right), static_cast<std::uint32_t>(rules_.size())};
    rules_.push_back(rule);
    return true;
}

TANDEM_INLINE void MergeRules::apply(std::vector<Id>& ids, std::vector<std::uint32_t>& ranks) const {
    constexpr std::size_t longest_scanned = 64;
    if (ids.size() > longest_scanned) {
        apply_long(ids);
    } else {
        apply_short(ids, ranks);
    }
}

TANDEM_INLINE std::uint64_t MergeRules::key(Id left, Id right) {
    return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
}

TANDEM_INLINE std::size_t MergeRules::position(std::uint64_t key) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = static_cast<std::size_t>((key * 0x9e3779b97f4a7c15ULL) >> 32) & mask;
    while (slots_[at].rank != none && slots_[at].key != key) at = (at + 1) & mask;
    return at;
}

TANDEM_INLINE void MergeRules::apply_short(std::vector<Id>& ids, std::vector<std::uint32_t>& ranks) const {
    ranks.clear();
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) ranks.push_back(rank(ids[i], ids[i + 1]));
    while (!ranks.empty()) {
        const auto best = std::min_element(ranks.begin(), ranks.end());
        if (*best == none) break;
        const auto at = static_cast<std::size_t>(best - ranks.begin());
        ids[at] = rules_[*best].result;
        ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
        ranks.erase(best);
        if (at > 0) ranks[at - 1] = rank(ids[at - 1], ids[at]);
        if (at < ranks.size()) ranks[at] = rank(ids[at], ids[at + 1]);
    }
}

TANDEM_INLINE void MergeRules::apply_long(std::vector<Id>& ids) const {
    constexpr Id gone = -1;
    const std::size_t count = ids.size();
    using Candidate = std::pair<std::uint32_t, std::size_t>;  // rank, position of the left token
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
    std::vector<std::size_t> next(count);
    std::vector<std::size_t> previous(count);
    const auto offer = [&](std::size_t at) {
        if (next[at] >= count) return;
        const std::uint32_t found = rank(ids[at], ids[next[at]]);
        if (found != none) queue.emplace(found, at);
    };
    for (std::size_t i = 0; i < count; ++i) {
        next[i] = i + 1;
        previous[i] = i - 1;  // of the first: never read
    }
    for (std::size_t i = 0; i + 1 < count; ++i) offer(i);
    while (!queue.empty()) {
        const auto [offered, at] = queue.top();
        queue.pop();
        // The pair may have changed since it was offered.
        if (ids[at] == gone || next[at] >= count || rank(ids[at], ids[next[at]]) != offered) continue;
        const std::size_t taken = next[at];
        ids[at] = rules_[offered].result;
        ids[taken] = gone;
        next[at] = next[taken];
        if (next[at] < count) previous[next[at]] = at;
        if (at > 0) offer(previous[at]);
        offer(at);
    }
    std::erase(ids, gone);
}

}  // namespace tandem::inline TANDEM_ABI::detail

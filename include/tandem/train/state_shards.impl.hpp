// Definitions of train/state_shards.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/ranks.hpp>
#include <tandem/train/state_shards.hpp>

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE StateShards::StateShards(Ranks& ranks, const std::vector<std::pair<std::string, std::size_t>>& sizes) : ranks_(&ranks) {
    std::vector<const std::pair<std::string, std::size_t>*> order;
    for (const auto& parameter : sizes) order.push_back(&parameter);
    std::ranges::sort(order, [](const auto* a, const auto* b) { return a->second != b->second ? a->second > b->second : a < b; });
    std::vector<std::size_t> loads(ranks.size());
    for (const auto* parameter : order) {
        const auto least = std::ranges::min_element(loads);
        *least += parameter->second;
        owners_[parameter->first] = static_cast<std::size_t>(least - loads.begin());
    }
}

TANDEM_INLINE RateFactor StateShards::of_mine(RateFactor rest) const {
    return [this, rest = std::move(rest)](std::string_view name) { return !is_mine(name) ? 0.0 : rest ? rest(name) : 1.0; };
}

template <class T>
void share_tensors(Ranks& ranks, const ByRank<T>& tensors, SumRoom<T>& room) {
    constexpr std::size_t piece = std::size_t{1} << 20;
    // At every distance a rank has what a group of so many neighbours began with, and exchanges it for another group's.
    for (std::size_t distance = 1; distance < ranks.size(); distance *= 2) {
        const auto group_of = [&](std::size_t rank) {
            std::vector<std::span<T>> all;
            for (std::size_t member = rank / distance * distance, end = member + distance; member < end; ++member)
                all.insert(all.end(), tensors[member].begin(), tensors[member].end());
            return all;
        };
        const std::size_t partner = ranks.rank() ^ distance;
        std::vector<std::span<T>> out = group_of(ranks.rank()), in = group_of(partner);
        auto out_at = out.begin(), in_at = in.begin();
        // visit(elements) for the next ones of a group's, a piece in all.
        const auto next_piece = [](auto& at, const auto& end, const auto& visit) {
            for (std::size_t left = piece; left > 0 && at != end;) {
                const std::size_t count = std::min(left, at->size());
                visit(at->first(count));
                left -= count;
                *at = at->subspan(count);
                if (at->empty()) ++at;
            }
        };
        while (out_at != out.end() || in_at != in.end()) {
            room.together.clear();
            next_piece(out_at, out.end(), [&](std::span<T> run) { room.together.insert(room.together.end(), run.begin(), run.end()); });
            std::vector<std::span<T>> runs;
            std::size_t size = 0;
            next_piece(in_at, in.end(), [&](std::span<T> run) { runs.push_back(run), size += run.size(); });
            room.received.resize(std::max(room.received.size(), size));
            ranks.exchange(partner, std::as_bytes(std::span(room.together)), std::as_writable_bytes(std::span(room.received).first(size)));
            auto from = room.received.begin();
            for (const std::span<T> run : runs) {
                std::copy_n(from, run.size(), run.begin());
                from += static_cast<std::ptrdiff_t>(run.size());
            }
        }
    }
}

template <class T>
void collect_tensors(Ranks& ranks, const ByRank<T>& tensors) {
    for (std::size_t rank = 1; rank < tensors.size(); ++rank) {
        for (const std::span<T> tensor : tensors[rank]) {
            if (ranks.rank() == 0) ranks.exchange(rank, {}, std::as_writable_bytes(tensor));
            if (ranks.rank() == rank) ranks.exchange(0, std::as_bytes(tensor), {});
        }
    }
}

#if defined(TANDEM_COMPILED)
template void share_tensors<float>(Ranks&, const ByRank<float>&, SumRoom<float>&);
template void share_tensors<double>(Ranks&, const ByRank<double>&, SumRoom<double>&);
template void collect_tensors<float>(Ranks&, const ByRank<float>&);
template void collect_tensors<double>(Ranks&, const ByRank<double>&);
#endif

}  // namespace tandem::inline TANDEM_ABI::detail

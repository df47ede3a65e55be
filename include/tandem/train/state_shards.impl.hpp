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
void share_tensors(Ranks& ranks, const ByRank<T>& tensors, std::vector<T>& room) {
    std::size_t most = 0;
    for (const auto& of_rank : tensors) {
        std::size_t size = 0;
        for (const std::span<T> tensor : of_rank) size += tensor.size();
        most = std::max(most, size);
    }
    const std::size_t piece = std::min(most, std::size_t{1} << 20);
    // How far each rank's tensors have gone.
    struct Walk {
        std::size_t number = 0, place = 0;
    };
    std::vector<Walk> walks(tensors.size());
    // visit(a run of elements, where it stands in the piece) for the next piece of a rank's tensors.
    const auto next_piece = [&](std::size_t rank, const auto& visit) {
        Walk& walk = walks[rank];
        for (std::size_t done = 0; done < piece && walk.number < tensors[rank].size();) {
            const std::span<T> tensor = tensors[rank][walk.number];
            const std::size_t count = std::min(piece - done, tensor.size() - walk.place);
            visit(tensor.subspan(walk.place, count), done);
            done += count;
            walk.place += count;
            if (walk.place == tensor.size()) walk = {walk.number + 1, 0};
        }
    };
    const auto is_left = [&] {
        for (std::size_t rank = 0; rank < tensors.size(); ++rank) {
            if (walks[rank].number < tensors[rank].size()) return true;
        }
        return false;
    };
    room.resize(piece * ranks.size());
    while (is_left()) {
        const auto own = std::span(room).subspan(ranks.rank() * piece, piece);
        next_piece(ranks.rank(), [&](std::span<T> run, std::size_t at) { std::ranges::copy(run, own.begin() + static_cast<std::ptrdiff_t>(at)); });
        gather<T>(ranks, room);
        for (std::size_t rank = 0; rank < tensors.size(); ++rank) {
            if (rank == ranks.rank()) continue;
            next_piece(rank, [&](std::span<T> run, std::size_t at) { std::copy_n(room.data() + rank * piece + at, run.size(), run.data()); });
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
template void share_tensors<float>(Ranks&, const ByRank<float>&, std::vector<float>&);
template void share_tensors<double>(Ranks&, const ByRank<double>&, std::vector<double>&);
template void collect_tensors<float>(Ranks&, const ByRank<float>&);
template void collect_tensors<double>(Ranks&, const ByRank<double>&);
#endif

}  // namespace tandem::inline TANDEM_ABI::detail

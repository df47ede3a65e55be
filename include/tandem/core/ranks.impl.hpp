// Definitions of core/ranks.hpp.
#pragma once

#include <algorithm>
#include <cstdint>

#include <tandem/core/parallel.hpp>
#include <tandem/core/ranks.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// Rows of a loop over floats that are worth another thread.
inline constexpr std::size_t sum_grain = 65536;

template <class T>
void add_to(std::span<T> to, std::span<const T> from) {
    parallel_for(to.size(), sum_grain, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) to[i] += from[i];
    });
}

template <class T>
void add_tensors(std::span<const std::span<T>> to, std::span<const std::span<T>> from) {
    for (std::size_t i = 0; i < to.size(); ++i) add_to<T>(to[i], from[i]);
}

template <class T>
void add_up_one(Ranks& ranks, std::span<T> values, std::vector<T>& received) {
    struct Piece {
        std::size_t begin, end;
        std::size_t size() const { return end - begin; }
    };
    const auto part = [&](Piece piece) { return values.subspan(piece.begin, piece.size()); };
    // At every distance a half is sent away and the other one kept, and summed; then the same way back.
    std::vector<Piece> kept, sent;
    Piece whole{0, values.size()};
    for (std::size_t distance = 1; distance < ranks.size(); distance *= 2) {
        Piece low{whole.begin, whole.begin + whole.size() / 2}, high{low.end, whole.end};
        if ((ranks.rank() & distance) != 0) std::swap(low, high);
        if (received.size() < low.size()) received.resize(low.size());
        const std::span<T> in = std::span(received).first(low.size());
        ranks.exchange(ranks.rank() ^ distance, std::as_bytes(part(high)), std::as_writable_bytes(in));
        add_to<T>(part(low), in);
        kept.push_back(low);
        sent.push_back(high);
        whole = low;
    }
    for (std::size_t i = kept.size(), distance = ranks.size() / 2; i > 0; --i, distance /= 2)
        ranks.exchange(ranks.rank() ^ distance, std::as_bytes(part(kept[i - 1])), std::as_writable_bytes(part(sent[i - 1])));
}

TANDEM_INLINE void gather_bytes(Ranks& ranks, std::span<std::byte> all) {
    const std::size_t each = all.size() / ranks.size();
    for (std::size_t distance = 1; distance < ranks.size(); distance *= 2) {
        const auto block = [&](std::size_t rank) { return all.subspan(rank / distance * distance * each, distance * each); };
        const std::size_t partner = ranks.rank() ^ distance;
        ranks.exchange(partner, block(ranks.rank()), block(partner));
    }
}

}  // namespace detail

TANDEM_INLINE std::vector<std::string> gather_texts(Ranks& ranks, const std::string& mine) {
    std::vector<std::uint64_t> sizes(ranks.size());
    sizes[ranks.rank()] = mine.size();
    gather<std::uint64_t>(ranks, sizes);
    const std::size_t longest = *std::ranges::max_element(sizes);
    std::string all(longest * ranks.size(), '\0');
    std::ranges::copy(mine, all.begin() + static_cast<std::ptrdiff_t>(ranks.rank() * longest));
    gather<char>(ranks, all);
    std::vector<std::string> texts;
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) texts.push_back(all.substr(rank * longest, sizes[rank]));
    return texts;
}

template <class T>
void add_up(Ranks& ranks, std::span<const std::span<T>> tensors, SumRoom<T>& room) {
    // Small ones go together: a message costs more than they do.
    constexpr std::size_t small = 16384;
    std::vector<T>& together = room.together;
    together.clear();
    for (const std::span<T> tensor : tensors) {
        if (tensor.size() < small) together.insert(together.end(), tensor.begin(), tensor.end());
    }
    detail::add_up_one<T>(ranks, together, room.received);
    auto from = together.begin();
    for (const std::span<T> tensor : tensors) {
        if (tensor.size() >= small) {
            detail::add_up_one<T>(ranks, tensor, room.received);
        } else {
            std::copy_n(from, tensor.size(), tensor.begin());
            from += static_cast<std::ptrdiff_t>(tensor.size());
        }
    }
}

#if defined(TANDEM_COMPILED)
template void detail::add_tensors<float>(std::span<const std::span<float>>, std::span<const std::span<float>>);
template void detail::add_tensors<double>(std::span<const std::span<double>>, std::span<const std::span<double>>);
template void add_up<float>(Ranks&, std::span<const std::span<float>>, SumRoom<float>&);
template void add_up<double>(Ranks&, std::span<const std::span<double>>, SumRoom<double>&);
#endif

}  // namespace tandem::inline TANDEM_ABI

// Processes that compute one thing together: what they exchange, and sums that do not depend on how many they are.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// This process among others: train/mpi.hpp has those of MPI; derive from it for another transport. Everything that ranks do together
/// is made of exchange(), which all of them call in the same order.
class Ranks {
public:
    Ranks() = default;
    Ranks(const Ranks&) = delete;
    Ranks& operator=(const Ranks&) = delete;
    virtual ~Ranks() = default;

    /// Which one this is, of how many: a power of two.
    virtual std::size_t rank() const = 0;
    virtual std::size_t size() const = 0;

    /// Sends to another rank and receives from it, which calls it for this one with spans of the other's sizes. Called by one thread at a
    /// time. Returns once `in` is written; throws Error, or ends the process, if it never will be.
    virtual void exchange(std::size_t partner, std::span<const std::byte> out, std::span<std::byte> in) = 0;
};

namespace detail {

/// `all` has as many bytes of every rank, in order; this one's are there, and then all are.
void gather_bytes(Ranks& ranks, std::span<std::byte> all);

/// to += from, tensor by tensor.
template <class T>
void add_tensors(std::span<const std::span<T>> to, std::span<const std::span<T>> from);

}  // namespace detail

/// `all` has as many elements of every rank, in order; this one's are there, and then all are.
template <class T>
void gather(Ranks& ranks, std::span<T> all) {
    static_assert(std::is_trivially_copyable_v<T>);
    detail::gather_bytes(ranks, std::as_writable_bytes(all));
}

/// Every rank's text, in order.
std::vector<std::string> gather_texts(Ranks& ranks, const std::string& mine);

/// Memory for sums over ranks, which grows to what they need.
template <class T>
struct SumRoom {
    std::vector<T> together{}, received{};
};

/// Adds up tensors of the same sizes over all ranks: a binary tree of neighbours, ((0 + 1) + (2 + 3)) + …, whose sums have the same bits on every
/// rank, and are those of fewer ranks that add up as many neighbours themselves. Twice the tensors' bytes are sent, by recursive halving and doubling
/// (Thakur, Rabenseifner, Gropp 2005, section 4.4). T is float or double.
template <class T>
void add_up(Ranks& ranks, std::span<const std::span<T>> tensors, SumRoom<T>& room);

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/core/ranks.impl.hpp>
#endif

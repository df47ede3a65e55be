// Shapes as types: static extents, and dynamic ones, by custom in front.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <utility>

#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// An extent known only at run time, such as a batch size.
inline constexpr std::size_t dynamic = static_cast<std::size_t>(-1);

/// The run-time counterpart of a Shape: every extent as a number. Also a structural value, for shape arithmetic.
template <std::size_t Rank>
struct Extents {
    std::size_t value[Rank == 0 ? 1 : Rank]{};

    TANDEM_DEVICE constexpr std::size_t operator[](std::size_t axis) const { return value[axis]; }
    TANDEM_DEVICE constexpr std::size_t& operator[](std::size_t axis) { return value[axis]; }

    /// The number of elements; 1 for a scalar.
    TANDEM_DEVICE constexpr std::size_t count() const {
        std::size_t product = 1;
        for (std::size_t axis = 0; axis < Rank; ++axis) product *= value[axis];
        return product;
    }

    TANDEM_DEVICE constexpr bool operator==(const Extents& other) const {
        for (std::size_t axis = 0; axis < Rank; ++axis) {
            if (value[axis] != other.value[axis]) return false;
        }
        return true;
    }
};

namespace detail {

[[gnu::cold]] inline std::string extents_text(std::span<const std::size_t> extents) {
    std::string text = "[";
    for (const std::size_t extent : extents) {
        if (text.size() > 1) text += ", ";
        text += extent == dynamic ? std::string("?") : std::to_string(extent);
    }
    return text + "]";
}

}  // namespace detail

/// "[2, 3]"; a dynamic extent prints as "?".
template <std::size_t Rank>
std::string to_string(const Extents<Rank>& extents) {
    return detail::extents_text(std::span(extents.value, Rank));
}

namespace detail {

// Apart from its callers, which are compiled for every shape.
template <std::size_t Expected, std::size_t Found>
[[noreturn, gnu::cold]] void throw_extents(const char* where, const Extents<Expected>& expected,
                                           const Extents<Found>& found) {
    throw Error(where, to_string(expected), to_string(found));
}

[[noreturn, gnu::cold]] inline void throw_slice(std::size_t size, std::size_t first, std::size_t last) {
    throw Error("View::slice", "items of 0 to " + std::to_string(size),
                std::to_string(first) + " to " + std::to_string(last));
}

}  // namespace detail

/// The extents of a tensor as a type: Shape<dynamic, 50, 768>. Shape<> is a scalar.
template <std::size_t... Ns>
struct Shape {
    static constexpr std::size_t rank = sizeof...(Ns);
    static constexpr Extents<rank> extents{Ns...};
    static constexpr std::size_t dynamic_count = (std::size_t{0} + ... + (Ns == dynamic ? 1 : 0));

    /// Whether these run-time extents are of this shape.
    static constexpr bool admits(const Extents<rank>& candidate) {
        for (std::size_t axis = 0; axis < rank; ++axis) {
            if (extents[axis] != dynamic && extents[axis] != candidate[axis]) return false;
        }
        return true;
    }
};

namespace detail {

/// The Shape whose extents Maker::extents() returns. A function, not a constant, as argument: g++ 12 crashes on alias
/// templates that take a class-type constant of dependent type.
template <class Maker, std::size_t... Axes>
auto shape_of(std::index_sequence<Axes...>) -> Shape<Maker::extents()[Axes]...>;

template <class Maker>
using ShapeFrom = decltype(shape_of<Maker>(std::make_index_sequence<Maker::rank>{}));

}  // namespace detail

/// Whether two extents of an elementwise operation agree: equal, one of them 1, or known only at run time. A dynamic
/// extent never stands for a broadcast 1: it must equal its partner, which is checked when the expression is made.
constexpr bool extents_broadcast(std::size_t a, std::size_t b) {
    return a == b || a == 1 || b == 1 || a == dynamic || b == dynamic;
}

/// The extent of an elementwise operation on two extents that agree (extents_broadcast).
constexpr std::size_t broadcast_extent(std::size_t a, std::size_t b) {
    if (a == 1) return b;
    if (b == 1) return a;
    return a == dynamic ? b : a;
}

namespace detail {

/// NumPy's rule: shapes are aligned at their last axis, a missing leading axis counts as 1.
template <std::size_t Rank>
constexpr std::size_t aligned_extent(const Extents<Rank>& own, std::size_t rank, std::size_t axis) {
    return axis + Rank < rank ? 1 : own[axis + Rank - rank];
}

template <class A, class B>
constexpr bool shapes_broadcast() {
    constexpr std::size_t rank = std::max(A::rank, B::rank);
    for (std::size_t axis = 0; axis < rank; ++axis) {
        if (!extents_broadcast(aligned_extent(A::extents, rank, axis), aligned_extent(B::extents, rank, axis))) {
            return false;
        }
    }
    return true;
}

template <class A, class B>
struct BroadcastMaker {
    static constexpr std::size_t rank = std::max(A::rank, B::rank);

    static constexpr Extents<rank> extents() {
        Extents<rank> result{};
        for (std::size_t axis = 0; axis < rank; ++axis) {
            result[axis] =
                broadcast_extent(aligned_extent(A::extents, rank, axis), aligned_extent(B::extents, rank, axis));
        }
        return result;
    }
};

}  // namespace detail

/// Whether tensors of shapes A and B meet in an elementwise operation, by NumPy's rule.
template <class A, class B>
inline constexpr bool can_broadcast = detail::shapes_broadcast<A, B>();

/// The shape of an elementwise operation on shapes A and B.
template <class A, class B>
using Broadcast = detail::ShapeFrom<detail::BroadcastMaker<A, B>>;

/// The run-time extents of an elementwise operation; throws where dynamic extents disagree.
template <class A, class B>
constexpr auto broadcast_extents(const Extents<A::rank>& a, const Extents<B::rank>& b) {
    constexpr std::size_t rank = std::max(A::rank, B::rank);
    Extents<rank> result{};
    for (std::size_t axis = 0; axis < rank; ++axis) {
        const std::size_t left = detail::aligned_extent(a, rank, axis);
        const std::size_t right = detail::aligned_extent(b, rank, axis);
        const bool left_is_one = detail::aligned_extent(A::extents, rank, axis) == 1;
        const bool right_is_one = detail::aligned_extent(B::extents, rank, axis) == 1;
        if (left != right && !left_is_one && !right_is_one) {
            detail::throw_extents("elementwise operation", a, b);
        }
        result[axis] = left_is_one ? right : left;
    }
    return result;
}

/// Extents with one axis removed, or kept as 1.
template <std::size_t Axis, bool Keep, std::size_t Rank>
constexpr auto without_axis(const Extents<Rank>& extents) {
    Extents<(Keep ? Rank : Rank - 1)> result{};
    for (std::size_t axis = 0, out = 0; axis < Rank; ++axis) {
        if (axis != Axis) {
            result[out++] = extents[axis];
        } else if (Keep) {
            result[out++] = 1;
        }
    }
    return result;
}

namespace detail {

template <class S, std::size_t Axis, bool Keep>
struct WithoutAxisMaker {
    static constexpr std::size_t rank = Keep ? S::rank : S::rank - 1;
    static constexpr Extents<rank> extents() { return without_axis<Axis, Keep>(S::extents); }
};

}  // namespace detail

/// S with one axis removed, or kept as 1.
template <class S, std::size_t Axis, bool Keep>
using WithoutAxis = detail::ShapeFrom<detail::WithoutAxisMaker<S, Axis, Keep>>;

}  // namespace tandem::inline TANDEM_ABI

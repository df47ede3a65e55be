// Tensors that own their elements and views that do not, with extents as types.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <span>
#include <type_traits>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/memory.hpp>
#include <tandem/core/shape.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

// As classes of plain values: compilers spell out whatever an error stands in, and print both sides of a comparison.

template <std::size_t given, std::size_t dynamic_extents>
struct SizeRules {
    static_assert(given == dynamic_extents, "tandem: give exactly one size for every dynamic extent of the shape");
};

template <std::size_t given, std::size_t axes>
struct IndexRules {
    static_assert(given == axes, "tandem: give exactly one index for every axis of the tensor");
};

/// The full extents of shape S, given its dynamic ones in order.
template <class S, std::convertible_to<std::size_t>... Dynamic>
constexpr Extents<S::rank> extents_of(Dynamic... extents) {
    static_assert(sizeof(SizeRules<sizeof...(Dynamic), S::dynamic_count>) > 0);
    Extents<S::rank> result = S::extents;
    [[maybe_unused]] std::size_t axis = 0;
    [[maybe_unused]] const auto next_dynamic = [&]() -> std::size_t& {
        while (S::extents[axis] != dynamic) ++axis;
        return result[axis++];
    };
    ((next_dynamic() = static_cast<std::size_t>(extents)), ...);
    return result;
}

/// The extents of shape S with 0 for the dynamic ones.
template <class S>
constexpr Extents<S::rank> empty_extents() {
    Extents<S::rank> result = S::extents;
    for (std::size_t axis = 0; axis < S::rank; ++axis) {
        if (result[axis] == dynamic) result[axis] = 0;
    }
    return result;
}

template <std::size_t Rank, std::convertible_to<std::size_t>... Indices>
TANDEM_DEVICE constexpr std::size_t offset_of(const Extents<Rank>& extents, Indices... indices) {
    static_assert(sizeof(IndexRules<sizeof...(Indices), Rank>) > 0);
    std::size_t offset = 0;
    [[maybe_unused]] std::size_t axis = 0;
    ((offset = offset * extents[axis++] + static_cast<std::size_t>(indices)), ...);
    return offset;
}

template <class S, std::size_t... Axes>
auto tail_shape(std::index_sequence<Axes...>) -> Shape<S::extents[Axes + 1]...>;

}  // namespace detail

/// The shape of one item along the leading axis.
template <class S>
using ItemShape = decltype(detail::tail_shape<S>(std::make_index_sequence<S::rank - 1>{}));

/// A contiguous row-major tensor somebody else owns. View<const T, S> reads, View<T, S> also writes.
template <class T, class S>
    requires Element<std::remove_const_t<T>>
class View {
public:
    using element = std::remove_const_t<T>;
    using shape = S;

    /// Empty: dynamic extents are 0.
    View() : extents_(detail::empty_extents<S>()) {}
    TANDEM_DEVICE constexpr View(T* data, const Extents<S::rank>& extents) : data_(data), extents_(extents) {}

    /// Views `elements`, whose number must be that of the shape with these dynamic extents.
    template <std::convertible_to<std::size_t>... Dynamic>
    explicit View(std::span<T> elements, Dynamic... dynamic_extents)
        : data_(elements.data()), extents_(detail::extents_of<S>(dynamic_extents...)) {
        if (elements.size() != extents_.count()) {
            throw Error("View", std::to_string(extents_.count()) + " elements for " + to_string(extents_),
                        std::to_string(elements.size()));
        }
    }

    /// A view that writes is also one that reads; a static extent may be forgotten.
    template <class U, class From>
        requires(std::same_as<const U, T> || (std::same_as<U, T> && !std::same_as<From, S>)) &&
                (From::rank == S::rank)
    TANDEM_DEVICE constexpr View(const View<U, From>& other) : data_(other.data()), extents_(other.extents()) {
        constexpr bool fits = [] {
            for (std::size_t axis = 0; axis < S::rank; ++axis) {
                if (S::extents[axis] != dynamic && S::extents[axis] != From::extents[axis]) return false;
            }
            return true;
        }();
        static_assert(fits, "tandem: a view cannot change a tensor's static extents");
    }

    TANDEM_DEVICE constexpr T* data() const { return data_; }
    TANDEM_DEVICE constexpr const Extents<S::rank>& extents() const { return extents_; }
    TANDEM_DEVICE constexpr std::size_t extent(std::size_t axis) const { return extents_[axis]; }
    TANDEM_DEVICE constexpr std::size_t size() const { return extents_.count(); }
    std::span<T> elements() const { return {data_, size()}; }

    template <std::convertible_to<std::size_t>... Indices>
    TANDEM_DEVICE constexpr T& operator()(Indices... indices) const {
        return data_[detail::offset_of(extents_, indices...)];
    }

    /// The item at `index` of the leading axis.
    constexpr auto operator[](std::size_t index) const
        requires(S::rank > 0)
    {
        Extents<S::rank - 1> inner{};
        for (std::size_t axis = 1; axis < S::rank; ++axis) inner[axis - 1] = extents_[axis];
        return View<T, ItemShape<S>>(data_ + index * inner.count(), inner);
    }

    /// The items [first, last) of the leading axis. Throws Error if there are not as many.
    constexpr auto slice(std::size_t first, std::size_t last) const
        requires(S::rank > 0 && S::extents[0] == dynamic)
    {
        if (first > last || last > extents_[0]) detail::throw_slice(extents_[0], first, last);
        Extents<S::rank> extents = extents_;
        extents[0] = last - first;
        return View<T, S>(data_ + first * (extents_.count() / std::max<std::size_t>(extents_[0], 1)), extents);
    }

private:
    T* data_ = nullptr;
    Extents<S::rank> extents_;
};

/// A tensor that owns its elements, 64-byte aligned, zero when made. Copies are deep. Tensor<float, Shape<dynamic, 768>>
/// x(rows) has `rows` x 768 elements; a shape without dynamic extents takes no sizes; Tensor<float, Shape<>> is a scalar.
template <Element T, class S>
class Tensor {
public:
    using element = T;
    using shape = S;

    Tensor()
        requires(S::dynamic_count == 0)
        : elements_(S::extents.count()) {}
    Tensor()
        requires(S::dynamic_count > 0)
        : extents_(detail::empty_extents<S>()) {}

    template <std::convertible_to<std::size_t>... Dynamic>
        requires(sizeof...(Dynamic) > 0 && S::dynamic_count > 0)
    explicit Tensor(Dynamic... dynamic_extents) : Tensor(detail::extents_of<S>(dynamic_extents...)) {}

    /// The elements of a fully static shape in row-major order, or of a vector: Tensor<float, Shape<dynamic>> x{1, 2}.
    Tensor(std::initializer_list<T> values)
        requires(S::dynamic_count == 0 || S::rank == 1)
    {
        if constexpr (S::dynamic_count > 0) extents_[0] = values.size();
        if (values.size() != extents_.count()) {
            throw Error("Tensor", std::to_string(extents_.count()) + " elements for " + to_string(extents_),
                        std::to_string(values.size()));
        }
        elements_.resize(values.size());
        std::copy(values.begin(), values.end(), elements_.data());
    }

    explicit Tensor(const Extents<S::rank>& extents) : elements_(extents.count()), extents_(extents) {
        if (!S::admits(extents)) detail::throw_extents("Tensor", S::extents, extents);
    }

    /// New dynamic extents. Memory is kept when they shrink; the contents do not survive.
    template <std::convertible_to<std::size_t>... Dynamic>
    void resize(Dynamic... dynamic_extents) {
        extents_ = detail::extents_of<S>(dynamic_extents...);
        elements_.resize(extents_.count());
    }
    void resize(const Extents<S::rank>& extents) {
        if (!S::admits(extents)) detail::throw_extents("Tensor::resize", S::extents, extents);
        extents_ = extents;
        elements_.resize(extents.count());
    }

    void fill(T value) { std::fill_n(elements_.data(), size(), value); }

    T* data() { return elements_.data(); }
    const T* data() const { return elements_.data(); }
    const Extents<S::rank>& extents() const { return extents_; }
    std::size_t extent(std::size_t axis) const { return extents_[axis]; }
    std::size_t size() const { return elements_.size(); }
    std::span<T> elements() & { return {data(), size()}; }
    std::span<const T> elements() const& { return {data(), size()}; }
    void elements() && = delete;  // the memory would be gone before it is read

    /// The memory of the elements, for what reads or borrows it as a whole.
    Buffer<T>& buffer() { return elements_; }

    View<T, S> view() { return {data(), extents_}; }
    View<const T, S> view() const { return {data(), extents_}; }
    operator View<T, S>() { return view(); }
    operator View<const T, S>() const { return view(); }

    template <std::convertible_to<std::size_t>... Indices>
    T& operator()(Indices... indices) {
        return data()[detail::offset_of(extents_, indices...)];
    }
    template <std::convertible_to<std::size_t>... Indices>
    const T& operator()(Indices... indices) const {
        return data()[detail::offset_of(extents_, indices...)];
    }

    auto operator[](std::size_t index) { return view()[index]; }
    auto operator[](std::size_t index) const { return view()[index]; }

    /// The value of a scalar.
    T item() const
        requires(S::rank == 0)
    {
        return *data();
    }

private:
    Buffer<T> elements_;
    Extents<S::rank> extents_ = S::extents;
};

}  // namespace tandem::inline TANDEM_ABI

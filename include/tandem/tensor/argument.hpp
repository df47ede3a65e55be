// What a model is given: views, and one sentence for what is none of them.
#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>
#include <utility>

#include <tandem/core/dtype.hpp>
#include <tandem/core/shape.hpp>
#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

// Functions of the values that disagree, and of nothing else: compilers spell out every type on the way to an error,
// and print both sides of a comparison that fails. Each is false, so that no second error follows the sentence.

template <class Given, class Model>
constexpr bool refuse_element() {
    static_assert(
        std::is_same_v<Given, Model>,
        "tandem: the elements given are not of the model's type (images: float, double of a Clip<config, double>; "
        "ids: tandem::Id)");
    return false;
}

template <std::size_t given, std::size_t model>
constexpr bool refuse_rank() {
    static_assert(given == model,
                  "tandem: a model takes images <N, 3, height, width> and ids <N, context> (axes given == its own)");
    return false;
}

template <bool are_static>
constexpr bool refuse_dynamic() {
    static_assert(
        are_static,
        "tandem: a model's images and ids bear their size in their type: Model::Vision::Input(images.elements(), "
        "count), Model::Text::Input(ids.elements(), count)");
    return false;
}

template <std::size_t channels, std::size_t height, std::size_t width, std::size_t model_channels,
          std::size_t model_height, std::size_t model_width>
constexpr bool refuse_images() {
    static_assert(channels == model_channels,
                  "tandem: images must have as many channels as the model's (given == its own)");
    static_assert(height == model_height, "tandem: images must be as high as the model's (given == its own)");
    static_assert(width == model_width, "tandem: images must be as wide as the model's (given == its own)");
    return false;
}

template <std::size_t context, std::size_t model_context>
constexpr bool refuse_ids() {
    static_assert(context == model_context, "tandem: ids must be of the model's context length (given == its own)");
    return false;
}

template <class Given>
concept HasShape = requires {
    typename Given::element;
    Given::shape::extents;
};

template <bool is_expression>
constexpr bool refuse_kind() {
    static_assert(!is_expression, "tandem: a model takes tensors: evaluate() makes one of an expression");
    static_assert(is_expression,
                  "tandem: a model takes tensors and views: Model::Vision::Input(span, count) or "
                  "Model::Text::Input(span, count)");
    return false;
}

/// Whether a view <T, S> is made of a Given; if not, that has been said.
template <class T, class S, class Given>
constexpr bool is_argument() {
    constexpr bool converts = std::convertible_to<Given, View<T, S>>;
    if constexpr (!HasShape<Given> && !converts) {
        return refuse_kind<HasShape<Given>>();
    } else if constexpr (!HasShape<Given>) {
        return true;
    } else if constexpr (!std::same_as<typename Given::element, std::remove_const_t<T>>) {
        return refuse_element<typename Given::element, std::remove_const_t<T>>();
    } else if constexpr (Given::shape::rank != S::rank) {
        return refuse_rank<Given::shape::rank, S::rank>();
    } else {
        constexpr auto given = Given::shape::extents, own = S::extents;
        constexpr bool fits = S::admits(given);
        constexpr bool are_static = Given::shape::dynamic_count <= S::dynamic_count;
        if constexpr (!fits && !are_static) {
            return refuse_dynamic<are_static>();
        } else if constexpr (!fits && S::rank == 4) {
            return refuse_images<given[1], given[2], given[3], own[1], own[2], own[3]>();
        } else if constexpr (!fits) {
            return refuse_ids<given[S::rank - 1], own[S::rank - 1]>();
        } else if constexpr (!converts) {
            return refuse_kind<HasShape<Given>>();
        } else {
            return true;
        }
    }
}

}  // namespace detail

/// A V = View<T, S> as a parameter of a model's function: it takes whatever is a V or converts to one, and tells of
/// anything else in one sentence what it should have been, where a View as a parameter leaves no function to call.
template <class V>
struct Argument;

template <class T, class S>
struct Argument<View<T, S>> : View<T, S> {
    Argument() = default;
    Argument(T* data, const Extents<S::rank>& extents) : View<T, S>(data, extents) {}

    template <class Given>
    requires(!std::derived_from<std::remove_cvref_t<Given>, Argument>) Argument(Given&& given)
        : View<T, S>(view_of(std::forward<Given>(given))) {}

private:
    template <class Given>
    static View<T, S> view_of(Given&& given) {
        if constexpr (detail::is_argument<T, S, std::remove_cvref_t<Given>>()) {
            return std::forward<Given>(given);
        } else {
            return {};
        }
    }
};

}  // namespace tandem::inline TANDEM_ABI

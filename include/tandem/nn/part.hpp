// What a part of a user's own must have to stand in a model: the concepts behind a config's choices.
#pragma once

#include <concepts>
#include <cstddef>

#include <tandem/kernels/kernel_set.hpp>
#include <tandem/nn/linear.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/nn/sequences.hpp>

namespace tandem::inline TANDEM_ABI {

namespace nn::detail {

/// A visitor that does nothing, to ask whether a part lists its parameters.
struct IgnoreParameter {
    void operator()(const ParameterName&, auto&...) const {}
};

template <class Part>
concept ListsParameters = requires(Part& part) { Part::parameters(IgnoreParameter{}, ParameterName(), part); };

template <class Layer>
concept HasSaved = requires { typename Layer::Saved; };

template <class Layer, class C, std::size_t width>
concept ForwardsSequences = requires(const Layer& layer, Rows<const C, width> x, Rows<C, width> y,
                                     const Sequences<C>& sequences, typename Layer::Saved& saved) {
    layer.forward(x, y, sequences, saved, true);
};

template <class Layer, class C, std::size_t width>
concept ForwardsRows = requires(const Layer& layer, Rows<const C, width> x, Rows<C, width> y,
                                typename Layer::Saved& saved) { layer.forward(x, y, saved); };

template <class Layer, class C, std::size_t width>
concept ForwardsToOne = requires(const Layer& layer, Rows<const C, width> x, Rows<C, width> y,
                                 const Sequences<C>& sequences, typename Layer::Saved& saved) {
    layer.forward(x, y, sequences, std::size_t{}, saved, true);
};

template <class Layer, class Images, class C, std::size_t width>
concept ForwardsImages = requires(const Layer& layer, Images images, Rows<C, width> y, typename Layer::Saved& saved) {
    layer.forward(images, y, saved, true);
};

/// What the Layer of a choice has, as plain values: compilers spell out whatever an error stands in.
template <class Choice, bool has_layer, bool is_default, bool has_saved, bool has_parameters>
struct PartRules {
    static_assert(has_layer, "tandem: a part of your own lacks the template Layer: see BlockPart and NormPart");
    static_assert(is_default, "tandem: the Layer of a part of your own lacks a default constructor");
    static_assert(has_saved, "tandem: the Layer of a part of your own lacks the type Saved: see BlockPart and NormPart");
    static_assert(has_parameters,
                  "tandem: the Layer of a part of your own lacks static void parameters(const auto& visit, const "
                  "ParameterName& at, auto&... self): see for_each_parameter");
};

// And its forward, of a Layer that has the Saved which forward takes.
template <class Choice, bool has_forward, class Members>
struct BlockPartRules : Members {
    static_assert(has_forward,
                  "tandem: the Layer of a mixer or an MLP lacks forward(x, y, sequences, saved, keep) const: see BlockPart");
};
template <class Choice, bool has_forward, class Members>
struct NormRules : Members {
    static_assert(has_forward, "tandem: the Layer of a norm lacks forward(x, y, saved) const: see NormPart");
};
template <class Choice, bool has_forward, class Members>
struct PoolingRules : Members {
    static_assert(has_forward,
                  "tandem: the Layer of a pooling lacks forward(x, y, sequences, prefix, saved, keep) const: see PicksRow");
};
template <class Choice, bool has_forward, class Members>
struct StemRules : Members {
    static_assert(has_forward, "tandem: the Layer of a stem lacks forward(images, y, saved, keep) const: see PatchStem");
};

template <class Choice, class Layer>
using MembersOf = PartRules<Choice, true, std::default_initializable<Layer>, HasSaved<Layer>, ListsParameters<Layer>>;
template <class Choice>
using LacksLayer = PartRules<Choice, false, true, true, true>;

}  // namespace nn::detail

/// A mixer's or an MLP's Layer<T, shape, parts>, C being Compute<T>: a default-constructible value with
///
///     struct Saved;                                   // what forward leaves for backward, and all scratch
///     static void parameters(const auto& visit, const ParameterName& at, auto&... self);    // see for_each_parameter
///     void forward(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences, Saved& saved,
///                  bool keep) const;
///     void backward(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx,
///                   const Sequences<C>& sequences, Saved& saved, Layer& gradient) const;
///
/// and, if it likes, `void initialise(Random&, const InitScale&)` (else see initialise_part). forward writes y, which
/// does not overlap x; the block adds the residual. backward writes dx and adds to the gradients of its parameters; it
/// is called after a forward with `keep`, with the same x and saved. Types that only infer need none. The choice, the type
/// named in the config, holds the template Layer and `static constexpr Cost cost(const BlockShape&, std::size_t tokens)`;
/// a mixer that lets no token see those after it says `static constexpr bool can_be_causal = true`, and one whose Layer does
/// not depend on the shape's tokens, prefix and grid `takes_any_length = true`. An MLP must treat
/// every row alone: it may be given some of them.
template <class Layer, class C, std::size_t width>
concept BlockPart = std::default_initializable<Layer> && nn::detail::ListsParameters<Layer> &&
                    nn::detail::ForwardsSequences<Layer, C, width>;

/// A block part that can do what a block does with its result, y = result · factor + residual, in its last product.
template <class Layer, class C, std::size_t width>
concept FinishingPart = requires(const Layer& layer, Rows<const C, width> x, Rows<C, width> y,
                                 const Sequences<C>& sequences, typename Layer::Saved& saved,
                                 const kernels::Finish<C>& finish) {
    layer.forward(x, y, sequences, saved, true, finish);
};

/// A block part that can take its rows as bfloat16 where kernels::passes_narrow<T>(), a FinishingPart that only infers; one
/// whose queries can be picked does that as well. It says so of itself, by name: what derives from it may have another forward.
/// Its block does so if its norms' `forward_narrow` can write such rows.
template <class Layer>
concept NarrowPart = std::same_as<typename Layer::NarrowLayer, Layer> && Layer::passes_narrow;

/// A norm's Layer<T, Width, choice>: Saved and parameters as above, forward(x, y, saved) over rows, and
/// backward(x, dy, dx, saved, gradient, accumulate), where dx may be dy, and is added to where `accumulate` is set. The
/// choice has `static constexpr Cost cost(std::size_t width, std::size_t tokens)`.
template <class Layer, class C, std::size_t width>
concept NormPart = std::default_initializable<Layer> && nn::detail::ListsParameters<Layer> &&
                   nn::detail::ForwardsRows<Layer, C, width>;

}  // namespace tandem::inline TANDEM_ABI

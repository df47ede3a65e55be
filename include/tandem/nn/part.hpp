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
                    requires(const Layer& layer, Rows<const C, width> x, Rows<C, width> y,
                             const Sequences<C>& sequences, typename Layer::Saved& saved) {
                        layer.forward(x, y, sequences, saved, true);
                    };

/// A block part that can do what a block does with its result, y = result · factor + residual, in its last product.
template <class Layer, class C, std::size_t width>
concept FinishingPart = requires(const Layer& layer, Rows<const C, width> x, Rows<C, width> y,
                                 const Sequences<C>& sequences, typename Layer::Saved& saved,
                                 const kernels::Finish<C>& finish) {
    layer.forward(x, y, sequences, saved, true, finish);
};

/// A norm's Layer<T, Width, choice>: Saved and parameters as above, forward(x, y, saved) over rows, and
/// backward(x, dy, dx, saved, gradient, accumulate), where dx may be dy, and is added to where `accumulate` is set. The
/// choice has `static constexpr Cost cost(std::size_t width, std::size_t tokens)`.
template <class Layer, class C, std::size_t width>
concept NormPart = std::default_initializable<Layer> && nn::detail::ListsParameters<Layer> &&
                   requires(const Layer& layer, Rows<const C, width> x, Rows<C, width> y,
                            typename Layer::Saved& saved) { layer.forward(x, y, saved); };

}  // namespace tandem::inline TANDEM_ABI

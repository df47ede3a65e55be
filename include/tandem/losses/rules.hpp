// What a loss must be, as a class of plain values: compilers spell out whatever an error stands in.
#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>

#include <tandem/core/dtype.hpp>
#include <tandem/core/shape.hpp>
#include <tandem/losses/contrastive.hpp>
#include <tandem/tensor/expression.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// How a loss L answers a model of element C whose embeddings have this width.
template <class L, class C, std::size_t embedding, bool has_bias>
struct LossCall {
    using Rows = Leaf<C, Shape<dynamic, embedding>>;
    using Scalar = Leaf<C, Shape<>>;
    static constexpr bool takes_scale = std::invocable<const L&, const Rows&, const Rows&, const Scalar&>;
    static constexpr bool takes_bias = std::invocable<const L&, const Rows&, const Rows&, const Scalar&, const Scalar&>;
    static constexpr bool is_callable = takes_scale || (has_bias && takes_bias);

    static auto result() {
        if constexpr (has_bias && takes_bias) {
            return std::type_identity<
                std::invoke_result_t<const L&, const Rows&, const Rows&, const Scalar&, const Scalar&>>{};
        } else if constexpr (takes_scale) {
            return std::type_identity<std::invoke_result_t<const L&, const Rows&, const Rows&, const Scalar&>>{};
        } else {
            return std::type_identity<void>{};
        }
    }
    using Result = typename decltype(result())::type;

    static constexpr bool is_expression = Expression<Result>;
    static constexpr std::size_t axes() {
        if constexpr (is_expression) {
            return std::remove_cvref_t<Result>::shape::rank;
        } else {
            return 0;
        }
    }
    static constexpr bool fits = is_expression && axes() == 0;
};

/// Of a loss; each is told but what another says already.
template <class L, bool is_callable, bool lacks_bias, bool is_expression, std::size_t axes>
struct LossRules {
    static_assert(!lacks_bias, "tandem: this loss takes a bias: set .logit_bias = true in the ClipConfig");
    static_assert(
        is_callable || lacks_bias,
        "tandem: a loss is called with image <N, D>, text <N, D>, scale <> and, if it takes a fourth, bias <>: this "
        "one takes other parameters");
    static_assert(is_expression || !is_callable,
                  "tandem: a loss returns a scalar expression of its embeddings, not a number or a tensor");
    static_assert(axes == 0, "tandem: a loss must be a scalar: reduce it with mean or sum (its axes == 0)");
};

template <class L, class Call, bool has_bias>
auto loss_rules() -> LossRules<L, Call::is_callable, !Call::is_callable && Call::takes_bias && !has_bias,
                               Call::is_expression, Call::axes()>;

/// Whether a loss, as it is given, may keep what it sees of a batch, if it does.
template <class Given>
inline constexpr bool may_see = !sees_batch<std::remove_cvref_t<Given>> || !std::is_const_v<std::remove_reference_t<Given>>;

template <bool may_change>
struct SeeingLossRules {
    static_assert(may_change, "tandem: a loss that sees its batches keeps what it has seen: it cannot be const");
};

/// Of a loss that is not of pairs.
template <bool embeds_pairs, bool masks_language, bool is_shared>
struct PairlessRules {
    static_assert(embeds_pairs || masks_language, "tandem: the loss NoPairs is for a model whose TextConfig has a masked_language, and this one has none");
    static_assert(embeds_pairs || !is_shared, "tandem: the loss NoPairs is for towers that have their blocks for themselves: these share them");
};

/// Of a model that is to train.
template <bool trains>
struct TrainingRules {
    static_assert(trains,
                  "tandem: bf16 and int8 models only infer: their weights have too few bits for gradients and updates; "
                  "amp_bf16 trains");
};

}  // namespace tandem::inline TANDEM_ABI::detail

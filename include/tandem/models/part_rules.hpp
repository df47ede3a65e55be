// What the parts of a tower must have, asked before anything is made of them.
#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>

#include <tandem/core/dtype.hpp>
#include <tandem/models/rules.hpp>
#include <tandem/nn/activation.hpp>
#include <tandem/nn/transformer.hpp>
#include <tandem/nn/part.hpp>
#include <tandem/nn/pooling.hpp>
#include <tandem/nn/stem.hpp>

namespace tandem::inline TANDEM_ABI::detail {

// Of the Layer that a tower makes of a choice: the rules it must obey. Declarations alone, whose results say it when
// they are made complete.

template <class Choice, class Layer, class C, std::size_t width>
auto block_part_rules()
    -> nn::detail::BlockPartRules<Choice,
                                  !nn::detail::HasSaved<Layer> || nn::detail::ForwardsSequences<Layer, C, width>,
                                  nn::detail::MembersOf<Choice, Layer>>;
template <class Choice, class Layer, class C, std::size_t width>
auto norm_rules()
    -> nn::detail::NormRules<Choice, !nn::detail::HasSaved<Layer> || nn::detail::ForwardsRows<Layer, C, width>,
                             nn::detail::MembersOf<Choice, Layer>>;
template <class Choice, class Layer, class C, std::size_t width>
auto pooling_rules()
    -> nn::detail::PoolingRules<Choice, !nn::detail::HasSaved<Layer> || nn::detail::ForwardsToOne<Layer, C, width>,
                                nn::detail::MembersOf<Choice, Layer>>;
template <class Choice, class Layer, class Input, class C, std::size_t width>
auto stem_rules()
    -> nn::detail::StemRules<Choice, !nn::detail::HasSaved<Layer> || nn::detail::ForwardsImages<Layer, Input, C, width>,
                             nn::detail::MembersOf<Choice, Layer>>;

template <Arithmetic T, auto tower>
auto stem_rules_of(int)
    -> decltype(stem_rules<decltype(tower.stem),
                           typename decltype(tower.stem)::template Layer<T, tower.stem_shape(), tower.block_parts()>,
                           View<const Compute<T>, Shape<dynamic, 3, tower.image.height, tower.image.width>>, Compute<T>,
                           tower.width>());
template <Arithmetic T, auto tower>
auto stem_rules_of(long) -> nn::detail::LacksLayer<decltype(tower.stem)>;

template <class Rules>
inline constexpr bool holds = false;
template <>
inline constexpr bool holds<NoRules> = true;
template <template <class, bool, class> class Rules, class Choice>
inline constexpr bool holds<Rules<Choice, true, nn::detail::PartRules<Choice, true, true, true, true>>> = true;

/// Whether a tower's config is one of the library's own, and valid.
template <auto tower>
constexpr bool has_parts() {
    if constexpr (requires {
                      tower.is_valid();
                      tower.block_parts();
                  }) {
        return tower.is_valid();
    } else {
        return false;
    }
}

/// The rules that the parts of a tower must obey in blocks of this shape. A tower that has no such parts has no rules.
template <Arithmetic T, auto tower, BlockShape shape, bool = has_parts<tower>()>
struct TowerParts {
    using Mixer = NoRules;
    using Mlp = NoRules;
    using Norm = NoRules;
    using Pooling = NoRules;
    using Stem = NoRules;
    using Activation = NoRules;
    static constexpr bool hold = true;
};

template <Arithmetic T, auto tower, BlockShape shape>
class TowerParts<T, tower, shape, true> {
    using C = Compute<T>;
    static constexpr std::size_t width = shape.width;
    static constexpr auto parts = tower.block_parts();
    static constexpr BlockShape block_shape = nn::blocks_shape<parts>(shape);

    // The second function of each pair is chosen where the first has no type: of a choice without a Layer.
    template <class Choice>
    static auto block_part(int)
        -> decltype(block_part_rules<Choice, typename Choice::template Layer<T, block_shape, parts>, C, width>());
    template <class Choice>
    static nn::detail::LacksLayer<Choice> block_part(long);

    template <class Choice>
    static auto norm(int)
        -> decltype(norm_rules<Choice, typename Choice::template Layer<T, width, parts.norm>, C, width>());
    template <class Choice>
    static nn::detail::LacksLayer<Choice> norm(long);

    template <class Choice>
    requires PicksRow<Choice>
    static NoRules pooling(int);
    template <class Choice>
    static auto pooling(int)
        -> decltype(pooling_rules<Choice, typename Choice::template Layer<T, shape, parts>, C, width>());
    template <class Choice>
    static nn::detail::LacksLayer<Choice> pooling(long);

    static auto stem() {
        if constexpr (requires { tower.stem; }) {
            return std::type_identity<decltype(stem_rules_of<T, tower>(0))>{};
        } else {
            return std::type_identity<NoRules>{};
        }
    }

public:
    using Mixer = decltype(block_part<decltype(tower.mixer)>(0));
    using Mlp = decltype(block_part<decltype(tower.mlp)>(0));
    using Norm = decltype(norm<decltype(tower.norm)>(0));
    using Pooling = decltype(pooling<decltype(tower.pooling)>(0));
    using Stem = typename decltype(stem())::type;
    using Activation = nn::detail::ActivationRules<nn::detail::is_activation<decltype(tower.activation), C>()>;
    static constexpr bool hold = holds<Mixer> && holds<Mlp> && holds<Norm> && holds<Pooling> && holds<Stem> &&
                                 nn::detail::is_activation<decltype(tower.activation), C>();
};

}  // namespace tandem::inline TANDEM_ABI::detail

// A model's layers in groups, from the pixels or tokens to the embedding: what layer-wise rates and partly locked towers go by.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>
#include <type_traits>

#include <tandem/nn/pooling.hpp>
#include <tandem/train/optimizer.hpp>

namespace tandem::inline TANDEM_ABI {

/// The groups of one tower as open_clip has them: what makes tokens of the input; each block, the last one with the norm behind it;
/// pooling and projection (open_clip/transformer.py, VisionTransformer.layer_groups and _text_layer_groups; modified_resnet.py,
/// layer_groups, whose blocks are the four stages).
struct LayerGroups {
    std::string_view blocks;         ///< how the names of the blocks' parameters begin, up to a block's number
    std::size_t first = 0, count = 0;  ///< the first block's number, and how many there are
    std::string_view norm;           ///< behind the last block
    std::array<std::string_view, 4> head{};
    bool has_head = true;

    constexpr std::size_t size() const { return count + (has_head ? 2 : 1); }

    /// Groups between a parameter of this tower and the embedding: 0 in the last one.
    std::size_t depth(std::string_view name) const;
};

/// How the rates of a model's layers differ.
struct LayerRates {
    /// A tower's rates fall by this factor from each group to the one before it, above 0 and at most 1: open_clip's
    /// --image-layer-decay and --text-layer-decay.
    double image_decay = 1, text_decay = 1;
    /// All of a tower stays but so many of its last groups: open_clip's --lock-image-unlocked-groups and
    /// --lock-text-unlocked-layers. None: all of it learns.
    std::optional<std::size_t> image_unlocked{}, text_unlocked{};

    friend bool operator==(const LayerRates&, const LayerRates&) = default;
};

namespace detail {

/// The rate factor of LayerRates. Throws Error for a decay out of its bounds.
RateFactor layer_rates(const LayerGroups& image, const LayerGroups& text, const LayerRates& rates);

template <class Tower>
concept ResidualStages = requires(const Tower& tower) { tower.layers.size(); };

template <class Tower>
concept ScaledBlocks = requires(const Tower& tower) { tower.depth_coefficient; };

template <class Tower>
concept CountedLayers = requires(const Tower& tower) { tower.layers + 0; };

}  // namespace detail

/// The groups of a model's image tower. Towers of a user's own have none.
constexpr LayerGroups image_layer_groups(const auto& config) {
    using Tower = std::remove_cvref_t<decltype(config.vision)>;
    if constexpr (detail::ScaledBlocks<Tower>) {
        std::size_t count = 0;
        config.vision.for_each_block([&](const auto&) { ++count; });
        return {.blocks = "visual.encoder.blocks.", .count = count, .norm = {}, .has_head = false};
    } else if constexpr (detail::ResidualStages<Tower>) {
        return {.blocks = "visual.layer", .first = 1, .count = config.vision.layers.size(), .norm = {}, .head = {"visual.attnpool"}};
    } else {
        static_assert(detail::CountedLayers<Tower>, "tandem: layer groups need an image tower of the library's: this one does not say how many layers it has");
        return {.blocks = "visual.transformer.resblocks.",
                .count = config.vision.layers,
                .norm = "visual.ln_post",
                .head = {"visual.proj", "visual.attn_pool"},
                .has_head = config.vision.proj_type != Projection::none};
    }
}

/// The groups of a model's text tower.
constexpr LayerGroups text_layer_groups(const auto& config) {
    static_assert(detail::CountedLayers<std::remove_cvref_t<decltype(config.text)>>,
                  "tandem: layer groups need a text tower of the library's: this one does not say how many layers it has");
    return {.blocks = "transformer.resblocks.",
            .count = config.text.layers,
            .norm = "ln_final",
            .head = {"text_projection", "text_pool"},
            .has_head = config.text.proj_type != Projection::none};
}

/// What `rates` make of every parameter's rate: TrainerOptions.rate_factor. Parameters of neither tower keep theirs. Throws Error for a
/// decay out of its bounds.
RateFactor layer_rates(const auto& config, const LayerRates& rates) {
    return detail::layer_rates(image_layer_groups(config), text_layer_groups(config), rates);
}

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/train/layer_groups.impl.hpp>
#endif

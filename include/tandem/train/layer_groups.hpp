// A model's layers in groups, from the pixels or tokens to the embedding: what layer-wise rates and partly locked towers go by.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>
#include <type_traits>

#include <tandem/models/config.hpp>
#include <tandem/nn/pooling.hpp>
#include <tandem/train/optimizer.hpp>

namespace tandem::inline TANDEM_ABI {

/// The groups of one tower as open_clip has them: what makes tokens of the input; each block, the last one with the norm behind it;
/// pooling, projection and the head for masked language (open_clip/transformer.py, VisionTransformer.layer_groups and _text_layer_groups; timm_model.py, layer_groups;
/// modified_resnet.py, layer_groups, whose blocks are the four stages).
struct LayerGroups {
    std::string_view blocks;         ///< how the names of the blocks' parameters begin, up to a block's number
    std::size_t first = 0, count = 0;  ///< the first block's number, and how many there are
    std::string_view norm;           ///< behind the last block
    std::array<std::string_view, 3> head{};  ///< how the names of what follows begin
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

/// The rate factor of LayerRates.
RateFactor layer_rates(const LayerGroups& image, const LayerGroups& text, bool is_shared, const LayerRates& rates);

template <class Tower>
concept ResidualStages = requires(const Tower& tower) { tower.layers.size(); };

template <class Tower>
concept ScaledBlocks = requires(const Tower& tower) { tower.depth_coefficient; };

template <class Tower>
concept CountedBlocks = requires(const Tower& tower) {
    tower.layers + 0;
    tower.proj_type == Projection::none;
    tower.pooling;
};

/// Whether something with parameters stands behind a tower's last norm.
constexpr bool has_head(const auto& tower) {
    return tower.proj_type != Projection::none || std::is_same_v<std::remove_cvref_t<decltype(tower.pooling)>, AttentionPool>;
}

}  // namespace detail

/// Whether a model's towers are the library's: of a user's own nothing is known of layers.
template <class Config>
concept HasLayerGroups = requires(const Config& config) {
    requires detail::CountedBlocks<decltype(config.vision)> || detail::ResidualStages<decltype(config.vision)> ||
                 detail::ScaledBlocks<decltype(config.vision)>;
    requires detail::CountedBlocks<decltype(config.text)>;
};

/// The groups of a model's image tower.
template <HasLayerGroups Config>
constexpr LayerGroups image_layer_groups(const Config& config) {
    using Tower = decltype(config.vision);
    if constexpr (detail::ScaledBlocks<Tower>) {
        std::size_t count = 0;
        config.vision.for_each_block([&](const auto&) { ++count; });
        return {.blocks = "visual.encoder.blocks.", .count = count, .norm = {}, .has_head = false};
    } else if constexpr (detail::ResidualStages<Tower>) {
        return {.blocks = "visual.layer", .first = 1, .count = config.vision.layers.size(), .norm = {}, .head = {"visual.attnpool"}};
    } else {
        return {.blocks = "visual.transformer.resblocks.",
                .count = config.vision.layers,
                .norm = "visual.ln_post",
                .head = {"visual.proj", "visual.attn_pool"},
                .has_head = detail::has_head(config.vision)};
    }
}

/// The groups of a model's text tower.
template <HasLayerGroups Config>
constexpr LayerGroups text_layer_groups(const Config& config) {
    return {.blocks = "transformer.resblocks.",
            .count = config.text.layers,
            .norm = "ln_final",
            .head = {"text_projection", "text_pool", "mlm_head"},
            .has_head = detail::has_head(config.text)};
}

/// What `rates` make of every parameter's rate: TrainerOptions.rate_factor. Parameters of neither tower keep theirs; running means of a
/// group that stays do so, too, while its batches are still normalised. Throws Error for a decay out of its bounds, and for rates that
/// differ between towers that share their blocks.
template <HasLayerGroups Config>
RateFactor layer_rates(const Config& config, const LayerRates& rates) {
    return detail::layer_rates(image_layer_groups(config), text_layer_groups(config), config.shared, rates);
}

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/train/layer_groups.impl.hpp>
#endif

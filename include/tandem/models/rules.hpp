// What a config must obey, as classes of plain values: compilers spell out whatever an error stands in, and a config is
// longer than any sentence.
#pragma once

#include <cstddef>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::detail {

constexpr bool is_multiple(std::size_t whole, std::size_t part) {
    return part != 0 && whole % part == 0;
}

/// Of a VitConfig. `heads_width` is the width that the heads divide, 0 where each has its own; of the other sizes a
/// rule that does not apply has 0 as well.
template <std::size_t least_size, std::size_t heads_width, std::size_t heads, std::size_t kv_heads, std::size_t height,
          std::size_t image_width, std::size_t patch, std::size_t projected, std::size_t embedding, bool norms_fit,
          bool rates_are_shares, bool positions_fit, bool pooling_fits, bool pooling_is_for_images, bool stem_fits>
struct VitRules {
    static_assert(least_size > 0, "tandem: VitConfig: all sizes must be positive");
    static_assert(
        least_size == 0 || (is_multiple(height, patch) && is_multiple(image_width, patch)),
        "tandem: VitConfig: image must be a multiple of patch in height and width, or floor_patches be set and a "
        "patch fit");
    static_assert(least_size == 0 || is_multiple(heads_width, heads),
                  "tandem: VitConfig: width must be a multiple of heads, or head_width be given");
    static_assert(least_size == 0 || is_multiple(heads, kv_heads),
                  "tandem: VitConfig: heads must be a multiple of kv_heads");
    static_assert(norms_fit,
                  "tandem: VitConfig: a parallel block has one norm, before mixer and MLP: leave norm_position at pre");
    static_assert(rates_are_shares,
                  "tandem: VitConfig: patch_dropout and drop_path_rate must be at least 0 and below 1");
    static_assert(positions_fit,
                  "tandem: VitConfig: sin_cos_2d needs a width, rotary a head width that is a multiple of 4");
    static_assert(pooling_fits, "tandem: VitConfig: ClassToken pooling needs class_token = true");
    static_assert(pooling_is_for_images,
                  "tandem: VitConfig: Eot, First and Last pool captions: an image is pooled by ClassToken, Average or "
                  "AttentionPool");
    static_assert(
        stem_fits,
        "tandem: VitConfig: ConvStem needs a patch that is a power of 2 above 1, and a width that is a multiple "
        "of it; it has no patch_bias and no floor_patches");
    static_assert(projected == embedding,
                  "tandem: VitConfig: without a projection (proj_type none) the embedding is as wide as the tower, and "
                  "there is no proj_bias");
};

/// Of a TextConfig, likewise.
template <std::size_t least_size, std::size_t heads_width, std::size_t heads, std::size_t kv_heads,
          std::size_t projected, std::size_t embedding, bool norms_fit, bool rates_are_shares, bool positions_fit,
          bool final_norm_fits, bool pooling_is_for_text, bool mixer_fits, bool masked_language_fits>
struct TextRules {
    static_assert(least_size > 0, "tandem: TextConfig: all sizes must be positive");
    static_assert(least_size == 0 || is_multiple(heads_width, heads),
                  "tandem: TextConfig: width must be a multiple of heads, or head_width be given");
    static_assert(least_size == 0 || is_multiple(heads, kv_heads),
                  "tandem: TextConfig: heads must be a multiple of kv_heads");
    static_assert(
        norms_fit,
        "tandem: TextConfig: a parallel block has one norm, before mixer and MLP: leave norm_position at pre");
    static_assert(rates_are_shares,
                  "tandem: TextConfig: token_dropout, drop_path_rate and masked_language's share must be at least 0 and below 1");
    static_assert(positions_fit,
                  "tandem: TextConfig: positions are learnable, or rotary with an even head width; sin_cos_2d is for "
                  "images");
    static_assert(final_norm_fits,
                  "tandem: TextConfig: no_ln_final leaves out the norm that final_ln_after_pool places");
    static_assert(pooling_is_for_text,
                  "tandem: TextConfig: a caption has no class token: it is pooled by Eot, First, Last, Average or "
                  "AttentionPool");
    static_assert(
        projected == embedding,
        "tandem: TextConfig: without a projection (proj_type none) the embedding is as wide as the tower, and "
        "there is no proj_bias");
    static_assert(mixer_fits, "tandem: TextConfig: this mixer lets a token see those after it: set .causal = false");
    static_assert(masked_language_fits,
                  "tandem: TextConfig: masked_language needs a tower that is not causal, a pad_id, another id as mask in the vocabulary, and a weight above 0");
};

/// Of a ClipConfig, whether its towers agree where they are to share their blocks.
template <bool can_share>
struct ClipRules {
    static_assert(
        can_share,
        "tandem: ClipConfig: shared = true needs two towers that agree in width, layers, heads, MLP and all parts "
        "of a block");
};

/// Of a tower that has none.
struct NoRules {};

}  // namespace tandem::inline TANDEM_ABI::detail

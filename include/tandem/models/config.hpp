// Architectures as constexpr values: the configs of towers and models. What they cost is in models/cost.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <type_traits>

#include <tandem/core/error.hpp>
#include <tandem/core/image_size.hpp>
#include <tandem/models/rules.hpp>
#include <tandem/nn/activation.hpp>
#include <tandem/nn/transformer.hpp>
#include <tandem/nn/layer_norm.hpp>
#include <tandem/nn/masked_language.hpp>
#include <tandem/nn/mlp.hpp>
#include <tandem/nn/parameter.hpp>
#include <tandem/nn/pooling.hpp>
#include <tandem/nn/positions.hpp>
#include <tandem/nn/stem.hpp>

namespace tandem::inline TANDEM_ABI {

template <Arithmetic T, auto config, std::size_t Embedding, BlockShape shape>
class VisionTransformer;
template <Arithmetic T, auto config, std::size_t Embedding, BlockShape shape, bool OwnsBlocks>
class TextTransformer;

namespace detail {

// What the configs of both towers have in common. Each rule has a sentence, which a config that breaks it is refused
// with: by the tower when it is compiled, by cost() as an Error.

constexpr std::size_t head_width_of(const auto& config) {
    return config.head_width > 0 || config.heads == 0 ? config.head_width : config.width / config.heads;
}
constexpr std::size_t kv_heads_of(const auto& config) { return config.kv_heads > 0 ? config.kv_heads : config.heads; }
constexpr bool heads_fit(const auto& config) {
    return config.heads > 0 && (config.head_width > 0 || config.width % config.heads == 0);
}
constexpr bool kv_heads_fit(const auto& config) { return config.kv_heads == 0 || config.heads % config.kv_heads == 0; }
constexpr bool norms_fit(const auto& config) { return !config.parallel || config.norm_position == NormPosition::pre; }
constexpr bool projection_fits(const auto& config, std::size_t embedding) {
    if (config.proj_type == Projection::mlp) return !config.proj_bias;
    return config.proj_type == Projection::linear || (config.width == embedding && !config.proj_bias);
}
/// The width that an embedding without a projection has; of what has one, the embedding's. 0 where a bias has none.
constexpr std::size_t projected_width(const auto& config, std::size_t embedding) {
    if (projection_fits(config, embedding)) return embedding;
    return config.proj_bias ? 0 : config.width;
}
constexpr bool is_share(double rate) { return rate >= 0 && rate < 1; }

constexpr auto block_parts_of(const auto& config) {
    return BlockParts{config.norm,     config.mixer,   config.mlp,           config.activation,    config.norm_position,
                      config.parallel, config.qk_norm, config.ls_init_value, config.drop_path_rate};
}

constexpr bool has_last_norm(const auto& config) {
    if constexpr (requires { config.no_ln_final; }) {
        return !config.no_ln_final;
    } else {
        return true;
    }
}

/// The last norm and the pooling, for `tokens` tokens.
constexpr Cost head_cost_of(const auto& config, std::size_t tokens) {
    const std::size_t width = config.width;
    const bool has_norm = has_last_norm(config);
    if constexpr (PicksRow<std::remove_cvref_t<decltype(config.pooling)>>) {
        return (has_norm ? config.norm.cost(width, 1) : Cost{}) + width * Cost{.inference = 2, .saved = 2, .scratch = 2};
    } else {
        const std::size_t normed = config.final_ln_after_pool ? 1 : tokens;
        return (has_norm ? config.norm.cost(width, normed) : Cost{}) +
               nn::cost_of(config.pooling, config.block_shape(), tokens, config.block_parts()) +
               (normed + 1) * width * Cost{.inference = 1, .saved = 1, .scratch = 1};
    }
}

constexpr std::size_t hidden_of(const auto& config) {
    return static_cast<std::size_t>(static_cast<double>(config.width) * config.mlp_ratio);
}

}  // namespace detail

/// A vision transformer. Sizes are in pixels, widths in channels. norm, activation, mixer, mlp, pooling and stem are
/// values: the library's own or a user's; an activation may be a captureless lambda over expressions. Options that
/// open_clip's CLIPVisionCfg or timm's VisionTransformer have bear their names and defaults.
template <class Norm = LayerNorm, class Activation = Gelu, class Mixer = SelfAttention, class MlpKind = Mlp,
          class Pooling = ClassToken, class Stem = PatchStem>
struct VitConfig {
    ImageSize image = 224;  ///< {height, width}, or the side of a square
    std::size_t patch = 32;
    std::size_t width = 768;
    std::size_t layers = 12;
    std::size_t heads = 12;
    std::size_t head_width = 0;  ///< of one head; 0: width / heads
    std::size_t kv_heads = 0;    ///< heads of keys and values, for grouped queries; 0: as many as heads
    double mlp_ratio = 4.0;      ///< the MLP's hidden width is int(width · mlp_ratio), as in open_clip and timm
    bool class_token = true;
    std::size_t reg_tokens = 0;  ///< registers
    PosEmbed pos_embed_type = PosEmbed::learnable;
    bool no_ln_pre = false;            ///< no norm before the first block
    bool final_ln_after_pool = false;  ///< the last norm stands behind a pooling of many rows
    NormPosition norm_position = NormPosition::pre;
    bool parallel = false;      ///< mixer and MLP of a block side by side
    bool qk_norm = false;       ///< queries and keys are normed, head by head
    double ls_init_value = 0;   ///< what layer scale starts at; 0: there is none
    double patch_dropout = 0;   ///< the share of patches a training step leaves out (Li et al. 2023, FLIP)
    double drop_path_rate = 0;  ///< stochastic depth: the share of images that skip the last block, less in those before
    bool patch_bias = false;    ///< the patches' convolution has a bias
    bool floor_patches = false;  ///< pixels behind the last whole patch are left out, where image is no multiple of it
    Projection proj_type = Projection::linear;
    bool proj_bias = false;
    Norm norm{};
    Activation activation{};
    Mixer mixer{};
    MlpKind mlp{};
    Pooling pooling{};
    Stem stem{};

    /// The tower this config describes. Another kind of tower is another config type with its own Tower and cost() (see
    /// TowerConfig).
    template <Arithmetic T, auto self, std::size_t Embedding, BlockShape shape>
    using Tower = VisionTransformer<T, self, Embedding, shape>;

    /// What this config, for embeddings of this width, must obey: a type whose assertions say it.
    template <auto self, std::size_t embedding>
    static auto rules()
        -> detail::VitRules<self.least_size(), (self.head_width > 0 ? self.heads : self.width), self.heads,
                            detail::kv_heads_of(self), self.patches_fit() ? self.patch : self.image.height,
                            self.patches_fit() ? self.patch : self.image.width, self.patch,
                            detail::projected_width(self, embedding), embedding, self.norms_fit(),
                            self.rates_are_shares(), self.positions_fit(), self.pooling_fits(),
                            self.pooling_is_for_images(), !self.patches_fit() || self.stem_fits()>;

    constexpr bool sizes_are_positive() const { return least_size() > 0; }
    constexpr std::size_t least_size() const {
        return std::min({image.height, image.width, patch, width, layers, heads});
    }
    constexpr bool patches_fit() const {
        return patch > 0 && (image.is_multiple_of(patch) || (floor_patches && patches() > 0));
    }
    constexpr bool projection_fits(std::size_t embedding) const { return detail::projection_fits(*this, embedding); }
    constexpr bool heads_fit() const { return detail::heads_fit(*this); }
    constexpr bool kv_heads_fit() const { return detail::kv_heads_fit(*this); }
    constexpr bool norms_fit() const { return detail::norms_fit(*this); }
    constexpr bool rates_are_shares() const {
        return detail::is_share(patch_dropout) && detail::is_share(drop_path_rate);
    }
    constexpr bool positions_fit() const {
        return pos_embed_type == PosEmbed::learnable ||
               (pos_embed_type == PosEmbed::rotary ? detail::head_width_of(*this) : width) % 4 == 0;
    }
    constexpr bool pooling_fits() const {
        if constexpr (requires { Pooling::needs_class_token; }) {
            return class_token;
        } else {
            return true;
        }
    }
    constexpr bool pooling_is_for_images() const {
        return !PicksRow<Pooling> || requires { Pooling::needs_class_token; };
    }
    constexpr bool stem_fits() const {
        return stem.fits(stem_shape()) && (image.is_multiple_of(patch) || std::is_same_v<Stem, PatchStem>);
    }
    constexpr bool is_valid() const {
        return sizes_are_positive() && patches_fit() && heads_fit() && kv_heads_fit() && norms_fit() &&
               rates_are_shares() && positions_fit() && pooling_fits() && pooling_is_for_images() && stem_fits();
    }

    constexpr ImageSize grid() const { return image / patch; }
    constexpr std::size_t patches() const { return grid().area(); }
    constexpr std::size_t prefix() const { return (class_token ? 1 : 0) + reg_tokens; }
    constexpr std::size_t tokens() const { return prefix() + patches(); }
    constexpr StemShape stem_shape() const {
        return {.image = image, .patch = patch, .width = width, .bias = patch_bias};
    }
    constexpr BlockShape block_shape() const {
        return {.width = width,
                .heads = heads,
                .kv_heads = detail::kv_heads_of(*this),
                .head_width = detail::head_width_of(*this),
                .hidden = detail::hidden_of(*this),
                .tokens = tokens(),
                .prefix = prefix(),
                .rotary = pos_embed_type == PosEmbed::rotary,
                .grid = patch_dropout > 0 ? ImageSize{} : grid()};
    }
    constexpr auto block_parts() const { return detail::block_parts_of(*this); }

    /// The same tower with another activation.
    template <class Other>
    constexpr auto with_activation(Other other) const {
        return VitConfig<Norm, Other, Mixer, MlpKind, Pooling, Stem>{
            image,     patch,         width,    layers,        heads,          head_width,     kv_heads,
            mlp_ratio, class_token,   reg_tokens, pos_embed_type, no_ln_pre,   final_ln_after_pool,
            norm_position, parallel,  qk_norm,  ls_init_value, patch_dropout,  drop_path_rate, patch_bias,
            floor_patches, proj_type, proj_bias, norm,         other,          mixer,          mlp,
            pooling,   stem};
    }

    /// For one image, without the projection.
    constexpr Cost cost(Recompute recompute = Recompute::nothing) const {
        require();
        return stem_cost() + token_cost() + blocks_cost(recompute) + head_cost();
    }

    // Its parts, as describe() lists them.
    constexpr Cost stem_cost() const {
        return stem.cost(stem_shape(), block_parts()) + patches() * width * held_cost(1);
    }
    constexpr Cost token_cost() const {
        const std::size_t table = pos_embed_type == PosEmbed::learnable ? tokens() - reg_tokens : 0;
        const Cost total{.parameters = (table + prefix()) * width};
        const Cost norm_before = no_ln_pre ? Cost{} : norm.cost(width, tokens());
        return total + norm_before + tokens() * width * held_cost(1);
    }
    constexpr Cost blocks_cost(Recompute recompute = Recompute::nothing) const {
        return nn::transformer_cost(block_shape(), tokens(), layers, block_parts(), PicksRow<Pooling>, recompute);
    }
    constexpr Cost head_cost() const { return detail::head_cost_of(*this, tokens()); }

private:
    constexpr void require() const {
        const auto rule = [](bool holds, const char* sentence) {
            if (!holds) throw Error("VitConfig", sentence);
        };
        rule(sizes_are_positive(), "all sizes must be positive");
        rule(patches_fit(), "image must be a multiple of patch in height and width, or floor_patches be set and a patch fit");
        rule(heads_fit(), "width must be a multiple of heads, or head_width be given");
        rule(is_valid(), "an architecture that Clip<config> takes: compile one to read why it does not");
    }
};

/// A text transformer over token ids; causal unless said otherwise. Options that open_clip's CLIPTextCfg has bear its
/// names and defaults.
template <class Norm = LayerNorm, class Activation = Gelu, class Mixer = SelfAttention, class MlpKind = Mlp,
          class Pooling = Eot>
struct TextConfig {
    std::size_t vocabulary = 49408;
    std::size_t context = 77;
    std::size_t width = 512;
    std::size_t layers = 12;
    std::size_t heads = 8;
    std::size_t head_width = 0;  ///< of one head; 0: width / heads
    std::size_t kv_heads = 0;    ///< heads of keys and values, for grouped queries; 0: as many as heads
    double mlp_ratio = 4.0;
    bool causal = true;
    PosEmbed pos_embed_type = PosEmbed::learnable;
    bool final_ln_after_pool = false;  ///< the last norm stands behind a pooling of many rows
    NormPosition norm_position = NormPosition::pre;
    bool parallel = false;
    bool qk_norm = false;
    double ls_init_value = 0;
    double token_dropout = 0;  ///< the share of a caption's tokens between start and end that a training step leaves out
    double drop_path_rate = 0;
    Projection proj_type = Projection::linear;
    bool proj_bias = false;
    /// Tokens of this id are padding, wherever they stand: nothing is computed of them, no token sees them, and no pooling
    /// counts them. -1: there is no such id.
    int pad_id = -1;
    std::size_t positions = 0;       ///< rows of the table of positions; 0: context
    std::size_t first_position = 0;  ///< the row of a caption's first token
    std::size_t token_types = 0;     ///< rows that BERT adds by a token's type, of which captions have the first
    bool ln_embed = false;           ///< a norm before the first block
    bool no_ln_final = false;        ///< no norm behind the last one
    MaskedLanguage masked_language{};  ///< what training hides of captions and has told; where its share is above 0, the tower has a head for it
    Norm norm{};
    Activation activation{};
    Mixer mixer{};
    MlpKind mlp{};
    Pooling pooling{};

    template <Arithmetic T, auto self, std::size_t Embedding, BlockShape shape, bool OwnsBlocks>
    using Tower = TextTransformer<T, self, Embedding, shape, OwnsBlocks>;

    /// As VitConfig's.
    template <auto self, std::size_t embedding>
    static auto rules()
        -> detail::TextRules<self.least_size(), (self.head_width > 0 ? self.heads : self.width), self.heads,
                             detail::kv_heads_of(self), detail::projected_width(self, embedding), embedding,
                             self.norms_fit(), self.rates_are_shares(), self.positions_fit(), self.final_norm_fits(),
                             self.pooling_is_for_text(), self.mixer_fits(), self.masked_language_fits()>;

    constexpr bool sizes_are_positive() const { return least_size() > 0; }
    constexpr std::size_t least_size() const { return std::min({vocabulary, context, width, layers, heads}); }
    constexpr bool heads_fit() const { return detail::heads_fit(*this); }
    constexpr bool kv_heads_fit() const { return detail::kv_heads_fit(*this); }
    constexpr bool norms_fit() const { return detail::norms_fit(*this); }
    constexpr bool rates_are_shares() const {
        return detail::is_share(token_dropout) && detail::is_share(drop_path_rate) && detail::is_share(masked_language.share);
    }
    constexpr bool positions_fit() const {
        if (pos_embed_type == PosEmbed::learnable) return places() >= first_position + context;
        return pos_embed_type == PosEmbed::rotary && detail::head_width_of(*this) % 2 == 0 && positions == 0 &&
               first_position == 0;
    }
    constexpr bool final_norm_fits() const { return !(no_ln_final && final_ln_after_pool); }
    constexpr bool pooling_is_for_text() const { return !requires { Pooling::needs_class_token; }; }
    constexpr bool projection_fits(std::size_t embedding) const { return detail::projection_fits(*this, embedding); }
    constexpr bool mixer_fits() const { return !causal || requires { requires Mixer::can_be_causal; }; }
    constexpr bool masks_language() const { return masked_language.share > 0; }
    constexpr bool masked_language_fits() const {
        const auto [share, mask, weight] = masked_language;
        return share == 0 || (!causal && pad_id >= 0 && mask != pad_id && mask >= 0 && static_cast<std::size_t>(mask) < vocabulary && weight > 0 &&
                              weight < std::numeric_limits<double>::infinity());
    }
    constexpr bool is_valid() const {
        return sizes_are_positive() && heads_fit() && kv_heads_fit() && norms_fit() && rates_are_shares() &&
               positions_fit() && final_norm_fits() && pooling_is_for_text() && mixer_fits() && masked_language_fits();
    }

    constexpr BlockShape block_shape() const {
        return {.width = width,
                .heads = heads,
                .kv_heads = detail::kv_heads_of(*this),
                .head_width = detail::head_width_of(*this),
                .hidden = detail::hidden_of(*this),
                .tokens = context,
                .rotary = pos_embed_type == PosEmbed::rotary};
    }
    constexpr auto block_parts() const { return detail::block_parts_of(*this); }

    /// The same tower with another activation.
    template <class Other>
    constexpr auto with_activation(Other other) const {
        return TextConfig<Norm, Other, Mixer, MlpKind, Pooling>{
            vocabulary, context, width,  layers,        heads,         head_width,     kv_heads, mlp_ratio,
            causal,     pos_embed_type,  final_ln_after_pool, norm_position, parallel, qk_norm,
            ls_init_value, token_dropout, drop_path_rate, proj_type, proj_bias, pad_id, positions, first_position,
            token_types, ln_embed, no_ln_final, masked_language, norm, other, mixer, mlp, pooling};
    }

    /// Rows of the table of positions.
    constexpr std::size_t places() const {
        if (pos_embed_type != PosEmbed::learnable) return 0;
        return positions == 0 ? context : positions;
    }

    /// For one caption of `tokens` tokens, the end-of-text token included; of the whole context unless given. Without the
    /// projection.
    constexpr Cost cost(std::size_t tokens = 0, Recompute recompute = Recompute::nothing) const {
        require();
        return token_cost(tokens) + blocks_cost(tokens, recompute) + head_cost(tokens) + masked_language_cost(tokens, recompute);
    }

    constexpr Cost token_cost(std::size_t tokens = 0) const {
        const Cost tables{.parameters = (vocabulary + places() + token_types) * width, .tables = vocabulary * width};
        return ln_embed ? tables + norm.cost(width, computed(tokens)) + held_cost(computed(tokens) * width) : tables;
    }
    constexpr Cost blocks_cost(std::size_t tokens = 0, Recompute recompute = Recompute::nothing) const {
        return nn::transformer_cost(block_shape(), computed(tokens), layers, block_parts(), PicksRow<Pooling>, recompute);
    }
    constexpr Cost head_cost(std::size_t tokens = 0) const { return detail::head_cost_of(*this, computed(tokens)); }
    /// The head for masked language, and what training holds more: every caption twice, of both all rows of the last block, and what is to be told.
    constexpr Cost masked_language_cost(std::size_t tokens = 0, Recompute recompute = Recompute::nothing) const {
        if (!masks_language()) return {};
        const Cost once = blocks_cost(tokens, recompute), before = token_cost(tokens);
        const Cost twice = 2 * nn::transformer_cost(block_shape(), computed(tokens), layers, block_parts(), false, recompute);
        const auto masked = static_cast<std::size_t>(masked_language.share * static_cast<double>(computed(tokens)));
        return Cost{.parameters = nn::linear_cost(width, width, true, 0).parameters + (no_ln_final ? 1 : 2) * norm.cost(width, 0).parameters + vocabulary,
                    .matrices = width * width,
                    .saved = before.saved + twice.saved - once.saved + width * masked,
                    .scratch = before.scratch + twice.scratch - once.scratch + (no_ln_final ? 5 : 6) * width * masked};
    }

private:
    /// A tower that is not causal computes the padding as well, unless it knows it.
    constexpr std::size_t computed(std::size_t tokens) const {
        return tokens == 0 || (!causal && pad_id < 0) ? context : tokens;
    }

    constexpr void require() const {
        const auto rule = [](bool holds, const char* sentence) {
            if (!holds) throw Error("TextConfig", sentence);
        };
        rule(sizes_are_positive(), "all sizes must be positive");
        rule(heads_fit(), "width must be a multiple of heads, or head_width be given");
        rule(is_valid(), "an architecture that Clip<config> takes: compile one to read why it does not");
    }
};

/// What a ClipConfig's vision and text may be beside VitConfig and TextConfig: a value with `constexpr Cost cost() const`,
/// for one item and all of the tower (or without its last layer, which `projection_cost(embedding)` then counts), and a template Tower<T, self, Embedding>, a class with C = Compute<T>, Input (a view
/// of images <N, 3, H, W> or of ids <N, context>), Workspace, and
///     static void parameters(const auto& visit, const ParameterName& at, auto&... self);
///     void initialise(Random& random);
///     void forward(Input input, Rows<C, Embedding> embeddings, Workspace& work, bool keep) const;
///     void backward(Rows<const C, Embedding> gradient_of_embeddings, Workspace& work, Tower& gradient) const;
/// forward writes embeddings that are not normalised; backward adds to the gradients.
template <class Config>
concept TowerConfig = requires(const Config& config) {
    { config.cost() } -> std::convertible_to<Cost>;
};

/// Two towers and one space. Any two tower configs go together (see TowerConfig).
template <class Vision = VitConfig<>, class Text = TextConfig<>>
struct ClipConfig {
    static_assert(TowerConfig<Vision> && TowerConfig<Text>, "tandem: ClipConfig: a tower's config needs cost() and Tower<T, self, Embedding>: see TowerConfig");

    Vision vision{};
    Text text{};
    std::size_t embedding = 512;
    /// A learned bias beside the logit scale, which the sigmoid loss needs.
    bool logit_bias = false;
    /// Both sides use the image tower's blocks, each with its own tokens, final norm and projection.
    bool shared = false;
};

namespace detail {

template <class Config>
concept HasTwoTowers = requires(const Config& config) {
    config.vision;
    config.text;
};

template <auto value>
struct ValueTag {};

/// The shape of the blocks that both towers use.
constexpr BlockShape shared_shape(const auto& config) {
    const BlockShape image = config.vision.block_shape(), text = config.text.block_shape();
    BlockShape shape = image.of_any_length();
    shape.tokens = std::max(image.tokens, text.tokens);
    shape.rotary = image.rotary || text.rotary;
    return shape;
}

/// Without what shared blocks do not depend on.
constexpr BlockShape without_tokens(const BlockShape& of_tower) {
    BlockShape shape = of_tower.of_any_length();
    shape.rotary = false;
    return shape;
}

/// Whether the towers of a shared model ask for the same blocks.
template <auto config>
constexpr bool blocks_agree() {
    if constexpr (requires { config.vision.block_parts(); config.text.block_parts(); }) {
        return std::is_same_v<ValueTag<config.vision.block_parts()>, ValueTag<config.text.block_parts()>> &&
               std::is_same_v<ValueTag<without_tokens(config.vision.block_shape())>,
                              ValueTag<without_tokens(config.text.block_shape())>> &&
               config.vision.layers == config.text.layers;
    } else {
        return false;
    }
}

/// What a tower's config must obey, if it says so.
template <auto tower, std::size_t embedding>
auto rules_of(int) -> decltype(decltype(tower)::template rules<tower, embedding>());
template <auto tower, std::size_t embedding>
NoRules rules_of(long);

}  // namespace detail

}  // namespace tandem::inline TANDEM_ABI

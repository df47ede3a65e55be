// Definitions of models/model_config.hpp.
#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/files/config_reader.hpp>
#include <tandem/models/model_config.hpp>

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE bool same_value(const std::string& a, const std::string& b) {
    if (a == b) return true;
    char *end_a = nullptr, *end_b = nullptr;
    const double x = std::strtod(a.c_str(), &end_a), y = std::strtod(b.c_str(), &end_b);
    return !a.empty() && !b.empty() && *end_a == 0 && *end_b == 0 && x == y;
}

TANDEM_INLINE void ArchitectureReader::add_count(const std::string& field, const std::string& path,
                                                 std::size_t otherwise) {
    const auto found = count(path);
    if (found == 0U) refuse(path, "a whole number above 0");
    add(field, path, std::to_string(found.value_or(otherwise)), found.has_value());
}

TANDEM_INLINE void ArchitectureReader::add_number(const std::string& field, const std::string& path, double otherwise) {
    const auto found = number(path);
    add(field, path, to_text(found.value_or(otherwise)), found.has_value());
}

TANDEM_INLINE void ArchitectureReader::add_flag(const std::string& field, const std::string& path, bool otherwise) {
    const auto found = flag(path);
    add(field, path, found.value_or(otherwise) ? "true" : "false", found.has_value());
}

TANDEM_INLINE void ArchitectureReader::add_word(const std::string& field, const std::string& path,
                                                std::string_view otherwise,
                                                std::initializer_list<std::string_view> known) {
    add(field, path, one_of(path, otherwise, known), find(path).has_value());
}

TANDEM_INLINE void ArchitectureReader::add_image(const std::string& field, const std::string& path,
                                                 std::size_t otherwise) {
    std::vector<std::string> sides = all(path);
    for (const std::string& side : sides) {
        if (side.find_first_not_of("0123456789") != std::string::npos || side.size() > 6 || side == "0")
            refuse(path, "a number of pixels, or height and width");
    }
    if (sides.size() > 2) refuse(path, "a number of pixels, or height and width");
    const bool is_said = !sides.empty();
    if (!is_said) sides = {std::to_string(otherwise)};
    add(field, path, sides.front() == sides.back() ? sides.front() : sides.front() + " x " + sides.back(), is_said);
}

TANDEM_INLINE void ArchitectureReader::conclude(const std::string& field, std::string value, const std::string& path) {
    fields.push_back({field, std::move(value), name() + ", " + path});
}

TANDEM_INLINE void ArchitectureReader::add(const std::string& field, const std::string& path, std::string value,
                                           bool is_said) {
    fields.push_back({field, std::move(value), name() + ", " + path + (is_said ? "" : " by default")});
}

// Reasons why a key of a config does not matter.
inline constexpr std::string_view names_only = "a name, or where the file comes from";

inline constexpr std::string_view of_training = "of training, or of weights that are drawn and not loaded";

inline constexpr std::string_view of_generation = "of language models that generate text";

inline constexpr std::string_view of_interface = "how results are handed over, or computed with the same numbers";

inline constexpr std::string_view of_heads = "of classifiers on top of a model, which are no part of it";

inline constexpr std::string_view in_tensors = "where the value starts in training; the checkpoint has what it became";

/// What every config of transformers may hold: PretrainedConfig's attributes in versions 4 and 5
/// (transformers/configuration_utils.py).
inline constexpr std::array pretrained_keys{
    IrrelevantKey{"_name_or_path", names_only},
    IrrelevantKey{"_commit_hash", names_only},
    IrrelevantKey{"architectures", names_only},
    IrrelevantKey{"transformers_version", names_only},
    IrrelevantKey{"tokenizer_class", "the tokenizer's own config says it"},
    IrrelevantKey{"torch_dtype",
                  "the precision to store and compute in: the tensors say the one, the caller the other"},
    IrrelevantKey{"dtype", "the precision to store and compute in: the tensors say the one, the caller the other"},
    IrrelevantKey{"_attn_implementation", of_interface},
    IrrelevantKey{"_attn_implementation_autoset", of_interface},
    IrrelevantKey{"attn_implementation", of_interface},
    IrrelevantKey{"return_dict", of_interface},
    IrrelevantKey{"use_return_dict", of_interface},
    IrrelevantKey{"output_hidden_states", of_interface},
    IrrelevantKey{"output_attentions", of_interface},
    IrrelevantKey{"torchscript", of_interface},
    IrrelevantKey{"use_bfloat16", of_interface},
    IrrelevantKey{"tf_legacy_loss", of_training},
    IrrelevantKey{"chunk_size_feed_forward", of_interface},
    IrrelevantKey{"gradient_checkpointing", of_training},
    IrrelevantKey{"initializer_range", of_training},
    IrrelevantKey{"initializer_factor", of_training},
    IrrelevantKey{"attention_dropout", of_training},
    IrrelevantKey{"dropout", of_training},
    IrrelevantKey{"hidden_dropout_prob", of_training},
    IrrelevantKey{"attention_probs_dropout_prob", of_training},
    IrrelevantKey{"classifier_dropout", of_heads},
    IrrelevantKey{"tie_word_embeddings", "there is no output layer to share the table with"},
    IrrelevantKey{"is_encoder_decoder", of_generation},
    IrrelevantKey{"cross_attention_hidden_size", of_generation},
    IrrelevantKey{"tie_encoder_decoder", of_generation},
    IrrelevantKey{"use_cache", of_generation},
    IrrelevantKey{"max_length", of_generation},
    IrrelevantKey{"min_length", of_generation},
    IrrelevantKey{"do_sample", of_generation},
    IrrelevantKey{"early_stopping", of_generation},
    IrrelevantKey{"num_beams", of_generation},
    IrrelevantKey{"num_beam_groups", of_generation},
    IrrelevantKey{"diversity_penalty", of_generation},
    IrrelevantKey{"temperature", of_generation},
    IrrelevantKey{"top_k", of_generation},
    IrrelevantKey{"top_p", of_generation},
    IrrelevantKey{"typical_p", of_generation},
    IrrelevantKey{"repetition_penalty", of_generation},
    IrrelevantKey{"length_penalty", of_generation},
    IrrelevantKey{"no_repeat_ngram_size", of_generation},
    IrrelevantKey{"encoder_no_repeat_ngram_size", of_generation},
    IrrelevantKey{"bad_words_ids", of_generation},
    IrrelevantKey{"num_return_sequences", of_generation},
    IrrelevantKey{"output_scores", of_generation},
    IrrelevantKey{"return_dict_in_generate", of_generation},
    IrrelevantKey{"forced_bos_token_id", of_generation},
    IrrelevantKey{"forced_eos_token_id", of_generation},
    IrrelevantKey{"remove_invalid_values", of_generation},
    IrrelevantKey{"exponential_decay_length_penalty", of_generation},
    IrrelevantKey{"suppress_tokens", of_generation},
    IrrelevantKey{"begin_suppress_tokens", of_generation},
    IrrelevantKey{"decoder_start_token_id", of_generation},
    IrrelevantKey{"sep_token_id", of_generation},
    IrrelevantKey{"bos_token_id", of_generation},
    IrrelevantKey{"prefix", of_generation},
    IrrelevantKey{"task_specific_params", of_generation},
    IrrelevantKey{"finetuning_task", of_heads},
    IrrelevantKey{"id2label", of_heads},
    IrrelevantKey{"label2id", of_heads},
    IrrelevantKey{"num_labels", of_heads},
    IrrelevantKey{"problem_type", of_heads}};

/// The padding's id of a text tower: nothing is masked by it in CLIPTextModel and SiglipTextModel
/// (modeling_clip.py, modeling_siglip.py: only an attention_mask that the caller gives), and BertModel's table has its
/// row for it like any other.
inline constexpr IrrelevantKey padding_key{"pad_token_id", "the tower masks what the tokenizer says is padding"};

/// A text tower of transformers: CLIPTextConfig, SiglipTextConfig or AlignTextConfig, whose fields stand behind `at`.
[[gnu::cold]] TANDEM_INLINE void read_transformers_text(ArchitectureReader& config, const std::string& at,
                                                        std::string_view family) {
    const bool is_clip = family == "clip", is_align = family == "align";
    config.add_count("text.vocabulary", at + "vocab_size", is_clip ? 49408 : is_align ? 30522 : 32000);
    config.add_count(is_align ? "text.positions" : "text.context", at + "max_position_embeddings",
                     is_clip    ? 77
                     : is_align ? 512
                                : 64);
    config.add_count("text.width", at + "hidden_size", is_clip ? 512 : 768);
    config.add_count("text.hidden", at + "intermediate_size", is_clip ? 2048 : 3072);
    config.add_count("text.layers", at + "num_hidden_layers", 12);
    config.add_count("text.heads", at + "num_attention_heads", is_clip ? 8 : 12);
    config.add_word("text.activation", at + "hidden_act",
                    is_clip    ? "quick_gelu"
                    : is_align ? "gelu"
                               : "gelu_pytorch_tanh",
                    {"quick_gelu", "gelu", "gelu_pytorch_tanh"});
    config.add_number("text.norm.eps", at + "layer_norm_eps", is_clip ? 1e-5 : is_align ? 1e-12 : 1e-6);
    config.conclude("text.causal", is_clip ? "true" : "false", "model_type");
    config.conclude("text.proj_bias", is_clip ? "false" : "true", "model_type");
    // modeling_clip.py, CLIPTextTransformer: where eos_token_id is 2, the largest id counts; else the first one equal
    // to it.
    const auto ends = config.all(at + "eos_token_id");
    const auto vocabulary = config.count(at + "vocab_size").value_or(49408);
    if (is_clip && ends.size() > 1) config.refuse(at + "eos_token_id", "one id");
    const std::size_t end = is_clip ? config.count(at + "eos_token_id").value_or(49407) : 0;
    if (!is_clip || end == 2 || end + 1 == vocabulary) {
        config.conclude("text.pooling",
                        is_align  ? "first"
                        : is_clip ? "argmax"
                                  : "last",
                        is_clip ? at + "eos_token_id" : "model_type");
    } else {
        config.conclude("text.pooling", "eos", at + "eos_token_id");
        config.conclude("text.eos_id", std::to_string(end), at + "eos_token_id");
    }
    if (is_align) {
        config.add_count("text.token_types", at + "type_vocab_size", 2);
        config.require(at + "position_embedding_type", "absolute");
        config.require(at + "is_decoder", "false");
        config.require(at + "add_cross_attention", "false");
    } else {
        config.ignore({{"is_decoder", of_generation}, {"add_cross_attention", of_generation}}, at);
    }
    config.require(at + "model_type", std::string(family) + "_text_model");
    config.ignore(pretrained_keys, at);
    config.ignore({padding_key}, at);
}

/// A vision tower: CLIPVisionConfig, SiglipVisionConfig or AlignVisionConfig.
[[gnu::cold]] TANDEM_INLINE void read_transformers_vision(ArchitectureReader& config, const std::string& at,
                                                          std::string_view family) {
    config.require(at + "num_channels", "3");
    config.require(at + "model_type", std::string(family) + "_vision_model");
    config.ignore(pretrained_keys, at);
    config.ignore({{"is_decoder", of_generation},
                   {"add_cross_attention", of_generation},
                   {"pad_token_id", of_generation},
                   {"eos_token_id", of_generation}},
                  at);
    if (family == "align") {
        config.add_number("vision.width_coefficient", at + "width_coefficient", 2.0);
        config.add_number("vision.depth_coefficient", at + "depth_coefficient", 3.1);
        config.add_count("vision.depth_divisor", at + "depth_divisor", 8);
        config.require_all(at + "kernel_sizes", {"3", "3", "5", "3", "5", "5", "3"});
        config.require_all(at + "in_channels", {"32", "16", "24", "40", "80", "112", "192"});
        config.require_all(at + "out_channels", {"16", "24", "40", "80", "112", "192", "320"});
        config.require_all(at + "strides", {"1", "2", "2", "2", "1", "2", "1"});
        config.require_all(at + "num_block_repeats", {"1", "2", "2", "3", "3", "4", "1"});
        config.require_all(at + "expand_ratios", {"1", "6", "6", "6", "6", "6", "6"});
        config.require(at + "squeeze_expansion_ratio", "0.25");
        config.one_of(at + "hidden_act", "swish", {"swish", "silu"});
        config.require(at + "pooling_type", "mean");
        config.require(at + "batch_norm_eps", "0.001");
        // modeling_align.py, AlignVisionModel: the side of the pooling's window, which covers the map of any image.
        if (config.count(at + "hidden_dim").value_or(2560) < 64) config.refuse(at + "hidden_dim", "64 or more");
        config.ignore({{"image_size", "the tower takes any; the preprocessing says which"},
                       {"num_hidden_layers", "computed from the others (configuration_align.py)"},
                       {"batch_norm_momentum", of_training},
                       {"drop_connect_rate", of_training}},
                      at);
        return;
    }
    const bool is_clip = family == "clip";
    config.add_image("vision.image", at + "image_size", 224);
    config.add_count("vision.patch", at + "patch_size", is_clip ? 32 : 16);
    config.add_count("vision.width", at + "hidden_size", 768);
    config.add_count("vision.hidden", at + "intermediate_size", 3072);
    config.add_count("vision.layers", at + "num_hidden_layers", 12);
    config.add_count("vision.heads", at + "num_attention_heads", 12);
    config.add_word("vision.activation", at + "hidden_act", is_clip ? "quick_gelu" : "gelu_pytorch_tanh",
                    {"quick_gelu", "gelu", "gelu_pytorch_tanh"});
    config.add_number("vision.norm.eps", at + "layer_norm_eps", is_clip ? 1e-5 : 1e-6);
    config.conclude("vision.pooling", is_clip ? "tok" : "map", "model_type");
    config.conclude("vision.no_ln_pre", is_clip ? "false" : "true", "model_type");
    if (!is_clip) config.flag(at + "vision_use_head");  // the tensors have a head, or tokens alone come out
}

/// transformers' config.json, of a whole model or of one of its towers. It leaves out what is the default of its
/// CLIPVisionConfig, SiglipVisionConfig, AlignTextConfig and so on (transformers/models/*/configuration_*.py, 5.23).
[[gnu::cold]] TANDEM_INLINE void read_transformers_config(ArchitectureReader& config) {
    const bool has_parts = config.has_below("vision_config.") || config.has_below("text_config.");
    if (!config.find("model_type") && !has_parts) config.refuse("model_type", "clip, siglip or align");
    const std::string type =
        config.one_of("model_type", "clip",
                      {"clip", "siglip", "align", "clip_text_model", "clip_vision_model", "siglip_text_model",
                       "siglip_vision_model", "align_text_model", "align_vision_model"});
    const std::string family = type.substr(0, type.find('_'));
    const bool is_text = type.ends_with("_text_model"), is_vision = type.ends_with("_vision_model");
    config.ignore(pretrained_keys);
    if (is_text || is_vision) {
        is_text ? read_transformers_text(config, "", family) : read_transformers_vision(config, "", family);
        if (family == "clip") {
            config.add_count("embedding", "projection_dim", 512);
        } else if (is_text && family == "siglip") {
            const auto width = config.count("hidden_size").value_or(768);
            config.conclude("embedding", std::to_string(config.count("projection_size").value_or(width)),
                            "projection_size");
        }
        return config.refuse_unread();
    }
    // Configs of before version 4.28 have both; the newer word counts (configuration_clip.py,
    // CLIPConfig.__post_init__).
    const auto part = [&](const std::string& name) {
        const std::string old = name + "_dict.";
        if (family != "clip" || !config.has_below(old)) return name + ".";
        const std::string reason = "overridden by what " + name + "_dict says";
        config.ignore({{name, reason}});
        return old;
    };
    const std::string vision = part("vision_config"), text = part("text_config");
    read_transformers_vision(config, vision, family);
    read_transformers_text(config, text, family);
    if (family == "siglip") {
        const auto width = config.count(vision + "hidden_size").value_or(768);
        config.conclude("embedding", std::to_string(width), vision + "hidden_size");
        config.add_count("embedding", text + "projection_size", config.count(text + "hidden_size").value_or(768));
    } else {
        config.add_count("embedding", "projection_dim", family == "align" ? 640 : 512);
        const IrrelevantKey unused{"projection_dim", "the whole model's counts (modeling_clip.py, CLIPModel)"};
        config.ignore({unused}, vision);
        config.ignore({unused}, text);
    }
    if (family == "siglip") config.require(vision + "vision_use_head", "true");
    config.conclude("logit_bias", family == "siglip" ? "true" : "false", "model_type");
    config.ignore({{"logit_scale_init_value", in_tensors},
                   {"temperature_init_value", in_tensors},
                   {"pad_token_id", of_generation},
                   {"eos_token_id", of_generation}});
    config.refuse_unread();
}

/// SigLIP's image towers by timm's names, which are their sizes (timm/models/vision_transformer.py).
struct TimmSiglip {
    std::size_t width = 0, layers = 0, heads = 0, hidden = 0, patch = 0;
    bool is_tanh =
        false;  ///< act_layer = 'gelu_tanh': those first trained for SigLIP 2; the others share SigLIP's names
};

[[gnu::cold]] TANDEM_INLINE std::optional<TimmSiglip> timm_siglip(std::string_view name) {
    const auto take = [&](std::string_view prefix) {
        if (!name.starts_with(prefix)) return false;
        name.remove_prefix(prefix.size());
        return true;
    };
    const auto take_number = [&] {
        std::size_t value = 0;
        const auto [end, failed] = std::from_chars(name.data(), name.data() + name.size(), value);
        name.remove_prefix(static_cast<std::size_t>(end - name.data()));
        return failed == std::errc() ? value : 0;
    };
    if (!take("vit_")) return std::nullopt;
    TimmSiglip found;
    bool is_large = false, is_so400m = false;
    if (take("base_")) {
        found = {768, 12, 12, 3072};
    } else if (take("large_")) {
        found = {1024, 24, 16, 4096};
        is_large = true;
    } else if (take("so400m_")) {
        found = {1152, 27, 16, 4304};
        is_so400m = true;
    } else if (take("giantopt_")) {
        found = {1536, 40, 16, 6144};
        found.is_tanh = true;
    } else {
        return std::nullopt;
    }
    if (!take("patch") || (found.patch = take_number()) == 0 || !take("_siglip_")) return std::nullopt;
    const std::size_t image = take_number();
    if (image == 0 || !name.empty()) return std::nullopt;
    found.is_tanh =
        found.is_tanh || found.patch == 32 || (is_large && image == 512) || (is_so400m && found.patch == 16);
    return found;
}

/// Blocks of open_clip's own transformers, in vision_cfg or text_cfg (open_clip/model.py, _build_vision_tower and
/// _build_text_tower).
[[gnu::cold]] TANDEM_INLINE void read_open_clip_blocks(ArchitectureReader& config, const std::string& at,
                                                       const std::string& field, std::size_t width, bool quick_gelu) {
    config.add_count(field + "width", at + "width", width);
    width = config.count(at + "width").value_or(width);
    const double ratio = config.number(at + "mlp_ratio").value_or(4.0);
    if (!(ratio > 0 && ratio < 1000)) config.refuse(at + "mlp_ratio", "a number above 0");
    config.conclude(field + "hidden", std::to_string(static_cast<std::size_t>(static_cast<double>(width) * ratio)),
                    at + "mlp_ratio");
    config.add_count(field + "layers", at + "layers", 12);
    const auto approximate = config.find(at + "act_kwargs.approximate");
    if (approximate) config.one_of(at + "act_kwargs.approximate", "none", {"none", "tanh"});
    if (approximate && quick_gelu) config.refuse(at + "act_kwargs.approximate", "nothing, where quick_gelu is true");
    config.conclude(field + "activation",
                    quick_gelu              ? "quick_gelu"
                    : approximate == "tanh" ? "gelu_pytorch_tanh"
                                            : "gelu",
                    approximate ? at + "act_kwargs.approximate" : "quick_gelu");
    config.add_number(field + "norm.eps", at + "norm_kwargs.eps", 1e-5);
    const double scale = config.number(at + "ls_init_value").value_or(0);
    config.conclude(field + "layer_scale", scale == 0 ? "false" : "true", at + "ls_init_value");
    config.conclude(field + "ls_init_value", to_text(scale), at + "ls_init_value");
    config.add_flag(field + "qk_norm", at + "qk_norm", false);
    for (const char* const key : {"scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"})
        config.require(at + key, "false");
    config.one_of(at + "block_type", "default", {"default", "custom"});  // the same sums; it follows from the options
    config.ignore({{"output_tokens", of_interface}}, at);
}

/// What read_open_clip_blocks reads, for a tower that is no transformer of open_clip's own.
[[gnu::cold]] TANDEM_INLINE void ignore_block_keys(const ArchitectureReader& config, const std::string& at,
                                                   std::string_view reason) {
    for (const char* const key :
         {"mlp_ratio", "ls_init_value", "final_ln_after_pool", "pool_type", "act_kwargs", "norm_kwargs", "block_type",
          "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"})
        config.ignore({{key, reason}}, at);
}

/// vision_cfg of an open_clip config.
[[gnu::cold]] TANDEM_INLINE void read_open_clip_vision(ArchitectureReader& config, const std::string& at,
                                                       bool quick_gelu) {
    config.add_number("vision.patch_dropout", at + "patch_dropout", 0);  // of training alone
    config.add_image("vision.image", at + "image_size", 224);
    if (const auto timm = config.find(at + "timm_model_name")) {
        const auto sizes = timm_siglip(*timm);
        if (!sizes)
            config.refuse(at + "timm_model_name",
                          "vit_base, large, so400m or giantopt_patchN_siglip_SIZE, the towers of timm that are here");
        const auto conclude = [&](const char* field, std::size_t value) {
            config.conclude(std::string("vision.") + field, std::to_string(value), at + "timm_model_name");
        };
        conclude("patch", sizes->patch);
        conclude("width", sizes->width);
        conclude("hidden", sizes->hidden);
        conclude("layers", sizes->layers);
        conclude("heads", sizes->heads);
        config.conclude("vision.activation", sizes->is_tanh ? "gelu_pytorch_tanh" : "gelu", at + "timm_model_name");
        config.conclude("vision.norm.eps", "1e-6", at + "timm_model_name");
        config.conclude("vision.no_ln_pre", "true", at + "timm_model_name");
        config.conclude("vision.pooling", "map", at + "timm_model_name");
        if (config.find(at + "timm_pool").value_or("avg") != "map") config.refuse(at + "timm_pool", "map");
        if (config.find(at + "timm_proj").value_or("linear") != "none") config.refuse(at + "timm_proj", "none");
        static constexpr std::string_view by_name =
            "a timm model has it by its name (open_clip/model.py, CLIPVisionCfg)";
        ignore_block_keys(config, at, by_name);
        config.ignore({{"timm_model_pretrained", of_training},
                       {"timm_drop", of_training},
                       {"timm_drop_path", of_training},
                       {"timm_proj_bias", "there is no projection"},
                       {"layers", by_name},
                       {"width", by_name},
                       {"head_width", by_name},
                       {"patch_size", by_name},
                       {"attentional_pool", by_name},
                       {"attn_pooler_queries", by_name},
                       {"attn_pooler_heads", by_name},
                       {"no_ln_pre", by_name},
                       {"pos_embed_type", by_name},
                       {"output_tokens", by_name}},
                      at);
        return;
    }
    static constexpr std::string_view no_timm = "of towers of timm";
    config.ignore({{"timm_model_pretrained", no_timm},
                   {"timm_pool", no_timm},
                   {"timm_proj", no_timm},
                   {"timm_proj_bias", no_timm},
                   {"timm_drop", no_timm},
                   {"timm_drop_path", no_timm}},
                  at);
    if (const auto stages = config.all(at + "layers"); stages.size() > 1) {
        if (stages.size() != 4) config.refuse(at + "layers", "4 stages, which a ResNet has");
        if (config.all(at + "image_size").size() > 1 &&
            config.all(at + "image_size").front() != config.all(at + "image_size").back())
            config.refuse(at + "image_size", "one side: a ResNet's images are square");
        std::string text;
        for (const std::string& blocks : stages) text += (text.empty() ? "" : ",") + blocks;
        config.conclude("vision.stages", text, at + "layers");
        config.add_count("vision.width", at + "width", 64);
        config.add_count("vision.head_width", at + "head_width", 64);
        static constexpr std::string_view no_blocks = "of transformers; this is a ResNet";
        ignore_block_keys(config, at, no_blocks);
        config.ignore({{"patch_size", no_blocks},
                       {"attentional_pool", no_blocks},
                       {"attn_pooler_queries", no_blocks},
                       {"attn_pooler_heads", no_blocks},
                       {"no_ln_pre", no_blocks},
                       {"pos_embed_type", no_blocks},
                       {"output_tokens", no_blocks}},
                      at);
        return;
    }
    read_open_clip_blocks(config, at, "vision.", 768, quick_gelu);
    config.add_count("vision.patch", at + "patch_size", 16);
    const std::size_t width = config.count(at + "width").value_or(768),
                      head = config.count(at + "head_width").value_or(64);
    if (head == 0 || width % head != 0)
        config.refuse(at + "head_width", "a width that divides " + std::to_string(width));
    config.conclude("vision.heads", std::to_string(width / head), at + "head_width");
    config.add_word("vision.pos_embed_type", at + "pos_embed_type", "learnable", {"learnable", "sin_cos_2d"});
    config.add_flag("vision.no_ln_pre", at + "no_ln_pre", false);
    config.add_flag("vision.final_ln_after_pool", at + "final_ln_after_pool", false);
    config.add_word("vision.pooling", at + "pool_type", "tok", {"tok", "avg"});
    config.require(at + "attentional_pool", "false");
    config.ignore({{"attn_pooler_queries", "of attentional_pool"}, {"attn_pooler_heads", "of attentional_pool"}}, at);
}

/// text_cfg of an open_clip config. What the tokenizer reads of it is the tokenizer's.
[[gnu::cold]] TANDEM_INLINE void read_open_clip_text(ArchitectureReader& config, const std::string& at,
                                                     bool quick_gelu) {
    static constexpr std::string_view of_tokenizer = "open_tokenizer reads it";
    config.ignore(
        {{"hf_tokenizer_name", of_tokenizer}, {"tokenizer_mode", of_tokenizer}, {"tokenizer_kwargs", of_tokenizer}},
        at);
    config.add_count("text.context", at + "context_length", 77);
    if (const auto hf = config.find(at + "hf_model_name")) {
        // Its sizes stand in a config that is elsewhere; the names that are known here tell them as well.
        const std::string name = hf->substr(hf->rfind('/') + 1);
        const bool is_large = name == "xlm-roberta-large";
        if (name != "xlm-roberta-base" && !is_large)
            config.refuse(at + "hf_model_name",
                          "xlm-roberta-base or xlm-roberta-large, the towers of transformers that are here");
        const auto conclude = [&](const char* field, std::string value) {
            config.conclude(std::string("text.") + field, std::move(value), at + "hf_model_name");
        };
        conclude("width", is_large ? "1024" : "768");
        conclude("hidden", is_large ? "4096" : "3072");
        conclude("layers", is_large ? "24" : "12");
        conclude("heads", is_large ? "16" : "12");
        conclude("vocabulary", "250002");
        conclude("positions", "514");
        conclude("token_types", "1");
        conclude("norm.eps", "1e-5");
        conclude("activation", "gelu");
        conclude("causal", "false");
        const std::string pooler =
            config.one_of(at + "hf_pooler_type", "mean_pooler", {"mean_pooler", "cls_last_hidden_state_pooler"});
        config.conclude("text.pooling", pooler == "mean_pooler" ? "avg" : "first", at + "hf_pooler_type");
        config.add_word("text.proj_type", at + "hf_proj_type", "mlp", {"mlp", "linear"});
        static constexpr std::string_view by_name = "a model of transformers has it in its own config";
        ignore_block_keys(config, at, by_name);
        config.ignore({{"hf_model_pretrained", of_training},
                       {"vocab_size", by_name},
                       {"width", by_name},
                       {"heads", by_name},
                       {"layers", by_name},
                       {"embed_cls", by_name},
                       {"pad_id", by_name},
                       {"eos_id", by_name},
                       {"no_causal_mask", by_name},
                       {"proj_bias", by_name},
                       {"proj_type", by_name},
                       {"output_tokens", of_interface}},
                      at);
        return;
    }
    read_open_clip_blocks(config, at, "text.", 512, quick_gelu);
    config.add_count("text.vocabulary", at + "vocab_size", 49408);
    config.add_count("text.heads", at + "heads", 8);
    const bool sees_all = config.flag(at + "no_causal_mask").value_or(false);
    config.conclude("text.causal", sees_all ? "false" : "true", at + "no_causal_mask");
    config.add_word("text.pooling", at + "pool_type", "argmax", {"argmax", "last", "first", "eos"});
    const std::size_t end = config.count(at + "eos_id").value_or(2);
    if (config.find(at + "pool_type") == "eos") config.conclude("text.eos_id", std::to_string(end), at + "eos_id");
    config.add_word("text.proj_type", at + "proj_type", "linear", {"linear", "none"});
    config.conclude(
        "text.proj_bias",
        config.flag(at + "proj_bias").value_or(false) && config.find(at + "proj_type") != "none" ? "true" : "false",
        at + "proj_bias");
    config.require(at + "embed_cls", "false");
    static constexpr std::string_view no_hf = "of towers of transformers";
    config.ignore(
        {{"pad_id", "of embed_cls (open_clip/transformer.py, TextTransformer)"},
         {"final_ln_after_pool", "open_clip does not hand it to its TextTransformer (model.py, _build_text_tower)"},
         {"hf_model_pretrained", no_hf},
         {"hf_proj_type", no_hf},
         {"hf_pooler_type", no_hf}},
        at);
}

[[gnu::cold]] TANDEM_INLINE void read_open_clip_config(ArchitectureReader& config, const std::string& root) {
    for (const char* const part : {"vision_cfg.", "text_cfg."}) {
        if (!config.has_below(root + part) && !config.has_below(root))
            config.refuse(root + std::string(part).substr(0, std::string(part).size() - 1), "an object");
    }
    config.add_count("embedding", root + "embed_dim", 512);
    const bool quick_gelu = config.flag(root + "quick_gelu").value_or(false);
    read_open_clip_vision(config, root + "vision_cfg.", quick_gelu);
    read_open_clip_text(config, root + "text_cfg.", quick_gelu);
    config.conclude("logit_bias", config.number(root + "init_logit_bias") ? "true" : "false", root + "init_logit_bias");
    config.ignore({{"custom_text", "how tensors are named, which they show"},
                   {"init_logit_scale", in_tensors},
                   {"nonscalar_logit_scale", "its shape, [] or [1]"},
                   {"cast_dtype", of_interface},
                   {"output_dict", of_interface}},
                  root);
    if (!root.empty()) config.ignore({{"preprocess_cfg", "load_preprocess reads it"}, {"hf_hub_id", names_only}});
    config.refuse_unread();
}

[[gnu::cold]] TANDEM_INLINE std::vector<ArchitectureField> stored_architecture(const std::filesystem::path& folder) {
    if (const auto path = folder / "open_clip_config.json"; std::filesystem::exists(path)) {
        ArchitectureReader config(path);
        if (!config.has_below("model_cfg.")) throw Error(path.string(), "a model_cfg", "none");
        read_open_clip_config(config, "model_cfg.");
        return std::move(config.fields);
    }
    if (const auto path = folder / "config.json"; std::filesystem::exists(path)) {
        ArchitectureReader config(path);
        read_transformers_config(config);
        return std::move(config.fields);
    }
    return {};
}

}  // namespace tandem::inline TANDEM_ABI::detail

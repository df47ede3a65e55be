// Definitions of models/transformers_config.hpp.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include <tandem/core/error.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/models/transformers_config.hpp>

namespace tandem::inline TANDEM_ABI::detail {

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

}  // namespace tandem::inline TANDEM_ABI::detail

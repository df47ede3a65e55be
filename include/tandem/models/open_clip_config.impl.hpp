// Definitions of models/open_clip_config.hpp.
#pragma once

#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <tandem/core/error.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/models/open_clip_config.hpp>

namespace tandem::inline TANDEM_ABI::detail {

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

}  // namespace tandem::inline TANDEM_ABI::detail

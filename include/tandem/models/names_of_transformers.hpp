// The names of transformers' CLIPModel and SiglipModel.
#pragma once

#include <cstddef>
#include <string>

#include <tandem/core/platform.hpp>
#include <tandem/models/source.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// Where transformers' SiglipModel keeps a parameter of the attention pooling (modeling_siglip.py,
/// SiglipMultiheadAttentionPoolingHead; torch.nn.MultiheadAttention has queries, keys and values in one matrix).
[[gnu::cold]] inline Source transformers_pool_source(std::string name) {
    const std::string at = "vision_model.head.";
    const auto rows = [&](const char* kind, std::size_t first, std::size_t last) {
        return Source{{at + "attention.in_proj_" + kind}, false, first, last, 3};
    };
    if (name == "latent") return {{at + "probe"}};
    if (name == "q.weight") return rows("weight", 0, 1);
    if (name == "q.bias") return rows("bias", 0, 1);
    if (name == "kv.weight") return rows("weight", 1, 3);
    if (name == "kv.bias") return rows("bias", 1, 3);
    replace_prefix(name, "proj.", "attention.out_proj.") || replace_prefix(name, "norm.", "layernorm.");
    return {{at + name}};
}

/// Where transformers' CLIPModel and SiglipModel keep the parameter open_clip calls `name`. The pairs are those of
/// transformers' convert_clip_original_pytorch_to_hf.py and convert_siglip_to_hf.py.
[[gnu::cold]] inline Source transformers_source(std::string name) {
    if (name == "visual.proj") return {{"visual_projection.weight"}, true};
    if (name == "text_projection") return {{"text_projection.weight"}, true};
    if (name == "logit_scale" || name == "logit_bias") return {{name}};
    if (replace_prefix(name, "text_projection.", "text_model.head.")) return {{name}};  // SigLIP's has a bias
    if (replace_prefix(name, "visual.attn_pool.", "")) return transformers_pool_source(name);
    const std::string tower = replace_prefix(name, "visual.", "") ? "vision_model." : "text_model.";
    if (replace_prefix(name, "transformer.resblocks.", "")) {
        const std::size_t dot = name.find('.');
        const std::string at = tower + "encoder.layers." + name.substr(0, dot + 1);
        std::string part = name.substr(dot + 1);
        if (part == "attn.in_proj_weight" || part == "attn.in_proj_bias") {
            const std::string kind = part == "attn.in_proj_weight" ? "weight" : "bias";
            return {
                {at + "self_attn.q_proj." + kind, at + "self_attn.k_proj." + kind, at + "self_attn.v_proj." + kind}};
        }
        replace_prefix(part, "ln_1.", "layer_norm1.") || replace_prefix(part, "ln_2.", "layer_norm2.") ||
            replace_prefix(part, "attn.", "self_attn.") || replace_prefix(part, "mlp.c_fc.", "mlp.fc1.") ||
            replace_prefix(part, "mlp.c_proj.", "mlp.fc2.");
        return {{at + part}};
    }
    replace_prefix(name, "conv1.", "embeddings.patch_embedding.") ||
        replace_prefix(name, "class_embedding", "embeddings.class_embedding") ||
        replace_prefix(name, "positional_embedding", "embeddings.position_embedding.weight") ||
        replace_prefix(name, "token_embedding.", "embeddings.token_embedding.") ||
        replace_prefix(name, "ln_pre.", "pre_layrnorm.") || replace_prefix(name, "ln_post.", "post_layernorm.") ||
        replace_prefix(name, "ln_final.", "final_layer_norm.");
    return {{tower + name}};
}

}  // namespace tandem::inline TANDEM_ABI::detail

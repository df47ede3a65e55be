// The names of open_clip's image towers that are timm's.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include <tandem/core/platform.hpp>
#include <tandem/models/source.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// Where open_clip's TimmModel keeps the image parameter open_clip's own tower calls `name`: under the names of
/// timm/models/vision_transformer.py.
[[gnu::cold]] inline Source timm_source(std::string name) {
    replace_prefix(name, "visual.", "");
    if (name == "proj") return {{"visual.head.proj.weight"}, true};
    if (replace_prefix(name, "proj.", "visual.head.proj.")) return {{name}};
    const std::string at = "visual.trunk.";
    if (replace_prefix(name, "transformer.resblocks.", "")) {
        const std::size_t dot = name.find('.');
        std::string part = name.substr(dot + 1);
        static constexpr std::array<std::array<std::string_view, 2>, 10> names{{{"ln_1.", "norm1."},
                                                                                {"ln_2.", "norm2."},
                                                                                {"attn.in_proj_", "attn.qkv."},
                                                                                {"attn.out_proj.", "attn.proj."},
                                                                                {"attn.ln_q.", "attn.q_norm."},
                                                                                {"attn.ln_k.", "attn.k_norm."},
                                                                                {"mlp.c_fc.", "mlp.fc1."},
                                                                                {"mlp.c_proj.", "mlp.fc2."},
                                                                                {"ls_1.", "ls1."},
                                                                                {"ls_2.", "ls2."}}};
        for (const auto& [ours, theirs] : names) {
            if (replace_prefix(part, ours, theirs)) break;
        }
        return {{at + "blocks." + name.substr(0, dot + 1) + part}};
    }
    replace_prefix(name, "conv1.", "patch_embed.proj.") || replace_prefix(name, "class_embedding", "cls_token") ||
        replace_prefix(name, "positional_embedding", "pos_embed") || replace_prefix(name, "ln_pre.", "norm_pre.") ||
        replace_prefix(name, "ln_post.", "norm.");
    return {{at + name}};
}

}  // namespace tandem::inline TANDEM_ABI::detail

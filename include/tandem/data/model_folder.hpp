// What the configs beside a checkpoint say of it.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <tandem/core/file.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/data/json.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// The activation a checkpoint's config names, in transformers' words (quick_gelu, gelu, gelu_pytorch_tanh); empty if
/// there is no config or it does not say. CLIPModel's default is quick_gelu, open_clip's gelu.
[[gnu::cold]] inline std::string configured_activation(const std::filesystem::path& folder) {
    const auto read = [&](const char* name) {
        JsonLeaves config;
        if (!std::filesystem::exists(folder / name)) return config;
        const MappedFile file(folder / name);
        const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
        if (json_fault(text, config)) config.leaves.clear();
        return config;
    };
    std::string activation;
    for (const JsonLeaf& leaf : read("config.json").leaves) {
        if (leaf.path == "vision_config.hidden_act") return leaf.text;
        if (leaf.path.starts_with("vision_config.")) activation = "quick_gelu";
    }
    for (const JsonLeaf& leaf : read("open_clip_config.json").leaves) {
        if (leaf.path == "model_cfg.quick_gelu") return leaf.text == "true" ? "quick_gelu" : "gelu";
        if (leaf.path.starts_with("model_cfg.")) activation = "gelu";
    }
    return activation;
}

}  // namespace tandem::inline TANDEM_ABI::detail

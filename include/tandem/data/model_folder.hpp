// What the configs beside a checkpoint say of it.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include <nlohmann/json.hpp>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// The activation a checkpoint's config names, in transformers' words; empty if there is no config or it does not say.
inline std::string configured_activation(const std::filesystem::path& folder) {
    const auto read = [&](const char* name) {
        std::ifstream stream(folder / name);
        return stream ? nlohmann::json::parse(stream, nullptr, false) : nlohmann::json();
    };
    const nlohmann::json hugging_face = read("config.json"), open_clip = read("open_clip_config.json");
    if (hugging_face.is_object() && hugging_face.contains("vision_config")) {
        const auto& vision = hugging_face["vision_config"];
        return vision.is_object() ? vision.value("hidden_act", std::string("quick_gelu")) : std::string();
    }
    if (open_clip.is_object() && open_clip.contains("model_cfg") && open_clip["model_cfg"].is_object()) {
        return open_clip["model_cfg"].value("quick_gelu", false) ? "quick_gelu" : "gelu";
    }
    return {};
}

}  // namespace tandem::inline TANDEM_ABI::detail

// Definitions of models/model_config.hpp.
#pragma once

#include <filesystem>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/models/model_config.hpp>
#include <tandem/models/open_clip_config.hpp>
#include <tandem/models/transformers_config.hpp>

namespace tandem::inline TANDEM_ABI::detail {

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

// open_clip's model configs.
#pragma once

#include <string>

#include <tandem/core/platform.hpp>
#include <tandem/models/architecture_reader.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// open_clip's open_clip_config.json, or one of its model configs (then `root` is empty), with the defaults of its
/// CLIPVisionCfg and CLIPTextCfg (open_clip/model.py, 3.3).
void read_open_clip_config(ArchitectureReader& config, const std::string& root);

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/models/open_clip_config.impl.hpp>
#endif

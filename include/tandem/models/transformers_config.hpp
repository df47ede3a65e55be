// transformers' model configs.
#pragma once

#include <tandem/core/platform.hpp>
#include <tandem/models/architecture_reader.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// config.json of transformers' CLIP, SigLIP and ALIGN, and of one tower of theirs, with the defaults of its classes.
void read_transformers_config(ArchitectureReader& config);

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/models/transformers_config.impl.hpp>
#endif

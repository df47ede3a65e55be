// What the configs in a model's folder say of its architecture.
#pragma once

#include <filesystem>
#include <vector>

#include <tandem/core/platform.hpp>
#include <tandem/models/architecture_reader.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// What a folder's configs say; nothing where it has none. Throws Error for a config that is no JSON, and for all that
/// a config asks for and is not here.
std::vector<ArchitectureField> stored_architecture(const std::filesystem::path& folder);

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/models/model_config.impl.hpp>
#endif

// Shards that are compressed.
#pragma once

#include <filesystem>

namespace training {

/// Writes what a compressed archive holds to a file of its name, less the compression's ending, in a folder, and returns that file. Throws Error where
/// it is none, or the file cannot be written; of an archive that is damaged what stands before is kept, and said on standard error.
std::filesystem::path unpack(const std::filesystem::path& archive, const std::filesystem::path& folder);

}  // namespace training

// What trainers wrap around the names of a model's tensors, and which tower a file is of.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/platform.hpp>
#include <tandem/files/weight_files.hpp>

namespace tandem::inline TANDEM_ABI {

/// What a checkpoint is loaded for. Weights of a tower that is not are left as they are; they take no memory in a model
/// that was made empty, and the checkpoint need not have them.
enum class Towers { both, image, text };

namespace detail {

/// Gives the tensors of a model that a trainer has wrapped (DistributedDataParallel, torch.compile, FSDP, Lightning,
/// PEFT, a dictionary in a dictionary) the names they have in the model itself, and a tower of transformers alone those
/// it has in the whole. Where several models stand in the file, `wanted` is the prefix of the one to read; without it,
/// the one that is no running average of another. Returns sentences on what was decided. Throws Error that lists the
/// prefixes where none is plainly meant, or there is no such one.
std::vector<std::string> unwrap(WeightFiles& file, std::string_view where, Towers towers, std::string wanted);

}  // namespace detail

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/models/unwrap.impl.hpp>
#endif

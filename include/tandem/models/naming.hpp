// Under which names a checkpoint keeps a model's parameters: those of open_clip, OpenAI, timm, transformers, and what
// trainers wrap around them.
#pragma once

#include <cstddef>
#include <optional>
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

/// The tensors of a file that make up one parameter: their rows one after the other, transposed where said; of one that
/// several parameters share, the rows from share `first` to share `last` of `shares`.
struct Source {
    std::vector<std::string> names;
    bool transposed = false;
    std::size_t first = 0, last = 1, shares = 1;
    bool is_temperature = false;  ///< its reciprocal's logarithm is the parameter
};

/// How the parameters of a file are named, told from the names themselves.
class Naming {
public:
    explicit Naming(const WeightFiles& file);

    Source operator()(const std::string& name) const;

    /// Whose names they are.
    std::string scheme() const { return transformers_ ? "transformers" : timm_ ? "open_clip with timm" : "open_clip"; }

    /// Buffers, not weights: masks, position lists, and what OpenAI's archives add (CLIP/clip/model.py:430).
    bool is_ignored(std::string_view name) const;

private:
    std::optional<std::string> bert_;  ///< what stands before the names of a BERT
    bool temperature_ = false, transformers_ = false, timm_ = false, text_prefix_ = false;
};

/// Gives the tensors of a model that a trainer has wrapped (DistributedDataParallel, torch.compile, FSDP, Lightning,
/// PEFT, a dictionary in a dictionary) the names they have in the model itself, and a tower of transformers alone those
/// it has in the whole. Where several models stand in the file, `wanted` is the prefix of the one to read; without it,
/// the one that is no running average of another. Returns sentences on what was decided. Throws Error that lists the
/// prefixes where none is plainly meant, or there is no such one.
std::vector<std::string> unwrap(WeightFiles& file, std::string_view where, Towers towers, std::string wanted);

}  // namespace detail

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/models/naming.impl.hpp>
#endif

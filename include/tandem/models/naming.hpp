// Under which names a checkpoint keeps a model's parameters: those of open_clip and OpenAI, which are the library's
// own, or those of timm and transformers (names_of_*.hpp).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <tandem/core/platform.hpp>
#include <tandem/files/weight_files.hpp>
#include <tandem/models/source.hpp>

namespace tandem::inline TANDEM_ABI::detail {

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

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/models/naming.impl.hpp>
#endif

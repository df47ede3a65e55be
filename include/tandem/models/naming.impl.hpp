// Definitions of models/naming.hpp.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <tandem/files/weight_files.hpp>
#include <tandem/models/names_of_bert.hpp>
#include <tandem/models/names_of_timm.hpp>
#include <tandem/models/names_of_transformers.hpp>
#include <tandem/models/naming.hpp>
#include <tandem/models/source.hpp>

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE Naming::Naming(const WeightFiles& file) {
    const auto take = [&](std::string_view name) {
        transformers_ = transformers_ || name.starts_with("vision_model.") || name.starts_with("text_model.");
        timm_ = timm_ || name.starts_with("visual.trunk.");
        temperature_ = temperature_ || name == "temperature";
        text_prefix_ = text_prefix_ || name.starts_with("text.");
        if (const std::size_t end = name.find("embeddings.word_embeddings.weight"); end != std::string_view::npos)
            bert_ = name.substr(0, end);
    };
    for (const StoredTensor& tensor : file.tensors()) take(tensor.name);
    for (const UnreadableTensor& tensor : file.unreadable()) take(tensor.name);
}

TANDEM_INLINE Source Naming::operator()(const std::string& name) const {
    const bool of_text = !name.starts_with("visual.") && !name.starts_with("logit_");
    if (temperature_ && name == "logit_scale") return {.names = {"temperature"}, .is_temperature = true};
    if (bert_ && of_text) return bert_source(name, *bert_);
    if (transformers_) return transformers_source(name);
    if (timm_ && name.starts_with("visual.")) return timm_source(name);
    return {{(text_prefix_ && of_text ? "text." : "") + name}};
}

TANDEM_INLINE bool Naming::is_ignored(std::string_view name) const {
    return name.ends_with("position_ids") || name.ends_with("token_type_ids") || name.ends_with("attn_mask") ||
           name.ends_with("num_batches_tracked") || (bert_ && name.starts_with(*bert_ + "pooler.")) ||
           name.starts_with("mlm_head.") ||  // through which no embedding goes
           name == "input_resolution" || name == "context_length" || name == "vocab_size";
}

}  // namespace tandem::inline TANDEM_ABI::detail

// The names of transformers' text towers that are a BERT.
#pragma once

#include <cstddef>
#include <string>

#include <tandem/core/platform.hpp>
#include <tandem/models/source.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// Where transformers' BertModel and XLMRobertaModel keep the text parameter that open_clip's own tower calls `name`,
/// behind `at`; what stands behind the model, open_clip's HFTextEncoder keeps in `proj`, transformers' AlignModel
/// beside it.
[[gnu::cold]] inline Source bert_source(std::string name, const std::string& at) {
    if (name.starts_with("text_projection")) {
        if (replace_prefix(name, "text_projection.0.", "0.") || replace_prefix(name, "text_projection.2.", "2."))
            return {{"text.proj." + name}};
        return {{name}};
    }
    if (replace_prefix(name, "transformer.resblocks.", "")) {
        const std::size_t dot = name.find('.');
        const std::string layer = at + "encoder.layer." + name.substr(0, dot + 1);
        std::string part = name.substr(dot + 1);
        if (replace_prefix(part, "attn.in_proj_", "")) {
            const std::string self = layer + "attention.self.";
            return {{self + "query." + part, self + "key." + part, self + "value." + part}};
        }
        replace_prefix(part, "attn.out_proj.", "attention.output.dense.") ||
            replace_prefix(part, "ln_1.", "attention.output.LayerNorm.") ||
            replace_prefix(part, "mlp.c_fc.", "intermediate.dense.") ||
            replace_prefix(part, "mlp.c_proj.", "output.dense.") || replace_prefix(part, "ln_2.", "output.LayerNorm.");
        return {{layer + part}};
    }
    replace_prefix(name, "token_embedding.", "word_embeddings.") ||
        replace_prefix(name, "positional_embedding", "position_embeddings.weight") ||
        replace_prefix(name, "token_type_embedding", "token_type_embeddings.weight") ||
        replace_prefix(name, "ln_embed.", "LayerNorm.");
    return {{at + "embeddings." + name}};
}

}  // namespace tandem::inline TANDEM_ABI::detail

// Definitions of models/architecture.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/files/weight_files.hpp>
#include <tandem/models/architecture.hpp>
#include <tandem/models/model_config.hpp>
#include <tandem/models/naming.hpp>
#include <tandem/models/source.hpp>
#include <tandem/models/unwrap.hpp>

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE std::size_t side_of_square(std::size_t patches) {
    const auto side = static_cast<std::size_t>(std::lround(std::sqrt(static_cast<double>(patches))));
    return side * side == patches ? side : 0;
}

[[gnu::cold]] TANDEM_INLINE std::vector<ArchitectureField> stored_sizes(const WeightFiles& file) {
    const Naming naming(file);
    const auto shape = [&](const std::string& name) {
        const Source source = naming(name);
        const StoredTensor* const stored = file.find(source.names.front());
        std::vector<std::size_t> extents;
        if (stored == nullptr) return extents;
        extents = stored->shape;
        while (extents.size() > 2 && extents.front() == 1) extents.erase(extents.begin());
        if (source.transposed) std::ranges::reverse(extents);
        return extents;
    };
    std::vector<ArchitectureField> fields;
    const auto add = [&](const char* name, std::size_t value) {
        if (value > 0) fields.push_back({name, std::to_string(value), "the tensors"});
    };
    const auto blocks = [&](const std::string& at, const std::string& tower) {
        std::size_t layers = 0;
        while (!shape(at + std::to_string(layers) + ".ln_1.weight").empty()) ++layers;
        add((tower + "layers").c_str(), layers);
        if (const auto hidden = shape(at + "0.mlp.c_fc.weight"); hidden.size() == 2)
            add((tower + "hidden").c_str(), hidden[0]);
    };
    const auto blocks_of_stage = [&](std::size_t stage) {
        std::size_t found = 0;
        while (!shape("visual.layer" + std::to_string(stage) + "." + std::to_string(found) + ".conv1.weight").empty())
            ++found;
        return found;
    };
    std::size_t inverted = 0;
    while (!shape("visual.encoder.blocks." + std::to_string(inverted) + ".projection.project_conv.weight").empty())
        ++inverted;
    add("vision.blocks", inverted);
    if (const auto first = shape("visual.layer1.0.conv1.weight"); !first.empty()) {
        std::string stages;
        for (std::size_t stage = 1; stage <= 4; ++stage)
            stages += (stage > 1 ? "," : "") + std::to_string(blocks_of_stage(stage));
        fields.push_back({"vision.stages", stages, "the tensors"});
        add("vision.width", first[0]);
        if (const auto positions = shape("visual.attnpool.positional_embedding"); positions.size() == 2)
            add("vision.grid", side_of_square(positions[0] - 1));
    } else if (const auto patches = shape("visual.conv1.weight"); patches.size() == 4) {
        add("vision.width", patches[0]);
        add("vision.patch", patches[2]);
    }
    const bool has_class_token = !shape("visual.class_embedding").empty();
    if (const auto positions = shape("visual.positional_embedding"); positions.size() == 2) {
        add("vision.grid", side_of_square(positions[0] - (has_class_token ? 1 : 0)));
    }
    if (!shape("visual.attn_pool.latent").empty()) fields.push_back({"vision.pooling", "map", "the tensors"});
    // A class token may stand there unused (CLIPA pools the mean): the usual, unless a config says otherwise.
    else if (has_class_token)
        fields.push_back({"vision.pooling", "tok", "the tensors, by default"});
    blocks("visual.transformer.resblocks.", "vision.");
    const auto flag = [&](const char* name, bool value) {
        fields.push_back({name, value ? "true" : "false", "the tensors"});
    };
    if (!shape("visual.transformer.resblocks.0.ln_1.weight").empty())
        flag("vision.no_ln_pre", shape("visual.ln_pre.weight").empty());
    if (file.find("logit_scale") != nullptr || file.find("temperature") != nullptr)
        flag("logit_bias", file.find("logit_bias") != nullptr);
    if (const auto table = shape("token_embedding.weight"); table.size() == 2) {
        add("text.vocabulary", table[0]);
        add("text.width", table[1]);
    }
    if (const auto positions = shape("positional_embedding"); positions.size() == 2) {
        // A BERT's table says how long a caption may be, not how long it is.
        add(shape("token_type_embedding").empty() ? "text.context" : "text.positions", positions[0]);
    }
    blocks("transformer.resblocks.", "text.");
    if (const auto projection = shape("text_projection"); projection.size() == 2) add("embedding", projection[1]);
    if (const auto projection = shape("text_projection.2.weight"); projection.size() == 2)
        add("embedding", projection[0]);
    if (const auto projection = shape("text_projection.weight"); projection.size() == 2)
        add("embedding", projection[0]);
    if (!shape("text_projection.weight").empty()) flag("text.proj_bias", !shape("text_projection.bias").empty());
    if (const auto types = shape("token_type_embedding"); types.size() == 2) add("text.token_types", types[0]);
    if (file.find("input_resolution") != nullptr) {
        // OpenAI's archives; all of their models have it (CLIP/clip/model.py:171-180).
        for (const char* const name : {"vision.activation", "text.activation"})
            fields.push_back({name, "quick_gelu", "OpenAI's archive"});
    }
    return fields;
}

[[gnu::cold]] TANDEM_INLINE void require_agreement(const std::filesystem::path& folder,
                                                   const std::vector<ArchitectureField>& architecture, Towers towers) {
    std::string faults;
    for (const ArchitectureField& stored : stored_architecture(folder)) {
        const bool of_image = stored.name.starts_with("vision."), of_text = stored.name.starts_with("text.");
        if ((of_image && towers == Towers::text) || (of_text && towers == Towers::image)) continue;
        // A tower alone may have no projection, and its config a default for it; the tensors tell.
        if (!of_image && !of_text && towers != Towers::both) continue;
        for (const ArchitectureField& ours : architecture) {
            if (stored.name == ours.name && !same_value(stored.value, ours.value))
                faults += "\n  " + stored.name + ": expected " + ours.value + ", found " + stored.value + " (" +
                          stored.source + ")";
        }
    }
    if (faults.find("activation") != std::string::npos)
        faults += "\n  with_activation makes the same architecture with another";
    if (!faults.empty())
        throw Error(folder.string(), "the checkpoint's config does not fit the architecture:" + faults);
}

}  // namespace tandem::inline TANDEM_ABI::detail

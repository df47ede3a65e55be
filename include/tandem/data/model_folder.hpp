// What the configs beside a checkpoint say of its architecture.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/data/json.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// A property of an architecture that a file tells, or a constant has. `name` is the constant's ("vision.layers"); sizes are
/// decimal, activations in transformers' words, poolings in open_clip's.
struct ArchitectureField {
    std::string name;
    std::string value;
    std::string source;  ///< where a file says so, or that it does not and means its default
};

/// Numbers are the same however they are written: 1e-6 and 1e-06.
inline bool same_value(const std::string& a, const std::string& b) {
    if (a == b) return true;
    char *end_a = nullptr, *end_b = nullptr;
    const double x = std::strtod(a.c_str(), &end_a), y = std::strtod(b.c_str(), &end_b);
    return *end_a == 0 && *end_b == 0 && x == y;
}

/// A config file's leaves by their paths, and the fields that were found in it.
class ConfigReader {
public:
    /// Throws Error if the file is no JSON object.
    [[gnu::cold]] explicit ConfigReader(const std::filesystem::path& path) : file_(path.filename().string()) {
        const MappedFile file(path);
        const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
        if (const auto fault = json_fault(text, leaves_))
            throw Error(path.string(), "a JSON object", "a fault at byte " + std::to_string(*fault));
    }

    std::optional<std::string> find(std::string_view path) const {
        for (const JsonLeaf& leaf : leaves_.leaves) {
            if (leaf.path == path && leaf.text != "null") return leaf.text;
        }
        return std::nullopt;
    }
    /// The elements of an array; one, where the file has a value that is none.
    std::vector<std::string> all(std::string_view path) const {
        std::vector<std::string> found;
        for (const JsonLeaf& leaf : leaves_.leaves) {
            if (leaf.path == path && leaf.text != "null") found.push_back(leaf.text);
        }
        return found;
    }
    /// Reads only what stands below `prefix`, which ends in a dot, as if it were all of the file.
    void enter(std::string_view prefix) {
        std::erase_if(leaves_.leaves, [&](const JsonLeaf& leaf) { return !leaf.path.starts_with(prefix); });
        for (JsonLeaf& leaf : leaves_.leaves) leaf.path.erase(0, prefix.size());
    }
    bool has_below(std::string_view prefix) const {
        return std::ranges::any_of(leaves_.leaves, [&](const JsonLeaf& leaf) { return leaf.path.starts_with(prefix); });
    }

    /// Adds what the file says at `path`, or what its absence means.
    void add(std::string name, const std::string& path, std::string_view otherwise) {
        const auto found = find(path);
        fields.push_back({std::move(name), found.value_or(std::string(otherwise)),
                          file_ + ", " + path + (found ? "" : " by default")});
    }
    /// Adds the size of an image, a number or [height, width].
    void add_size(std::string name, const std::string& path, std::string_view otherwise) {
        const std::vector<std::string> sides = all(path);
        if (sides.size() == 2 && sides[0] != sides[1]) {
            conclude(std::move(name), sides[0] + " x " + sides[1], path);
        } else {
            add(std::move(name), path, otherwise);
        }
    }
    /// Adds what follows from the file.
    void conclude(std::string name, std::string value, const std::string& path) {
        fields.push_back({std::move(name), std::move(value), file_ + ", " + path});
    }

    std::vector<ArchitectureField> fields;

private:
    std::string file_;
    JsonLeaves leaves_;
};

/// transformers' config.json writes what is not the default of its CLIPVisionConfig, SiglipVisionConfig, AlignTextConfig and
/// so on. `type` is its model_type: clip, siglip or align.
[[gnu::cold]] inline void read_transformers_config(ConfigReader& config, std::string_view type) {
    struct Entry {
        const char *name, *path, *clip, *siglip, *align;  ///< the defaults; null: not in such a config
    };
    static constexpr const char* none = nullptr;
    static constexpr std::array<Entry, 19> entries{{
        {"vision.patch", "vision_config.patch_size", "32", "16", none},
        {"vision.width", "vision_config.hidden_size", "768", "768", none},
        {"vision.hidden", "vision_config.intermediate_size", "3072", "3072", none},
        {"vision.layers", "vision_config.num_hidden_layers", "12", "12", none},
        {"vision.heads", "vision_config.num_attention_heads", "12", "12", none},
        {"vision.activation", "vision_config.hidden_act", "quick_gelu", "gelu_pytorch_tanh", none},
        {"vision.norm.eps", "vision_config.layer_norm_eps", "1e-5", "1e-6", none},
        {"vision.width_coefficient", "vision_config.width_coefficient", none, none, "2.0"},
        {"vision.depth_coefficient", "vision_config.depth_coefficient", none, none, "3.1"},
        {"text.vocabulary", "text_config.vocab_size", "49408", "32000", "30522"},
        {"text.context", "text_config.max_position_embeddings", "77", "64", none},
        {"text.positions", "text_config.max_position_embeddings", none, none, "512"},
        {"text.width", "text_config.hidden_size", "512", "768", "768"},
        {"text.hidden", "text_config.intermediate_size", "2048", "3072", "3072"},
        {"text.layers", "text_config.num_hidden_layers", "12", "12", "12"},
        {"text.heads", "text_config.num_attention_heads", "8", "12", "12"},
        {"text.activation", "text_config.hidden_act", "quick_gelu", "gelu_pytorch_tanh", "gelu"},
        {"text.norm.eps", "text_config.layer_norm_eps", "1e-5", "1e-6", "1e-12"},
        {"embedding", "projection_dim", "512", none, "640"},
    }};
    const bool is_siglip = type == "siglip", is_align = type == "align";
    for (const Entry& entry : entries) {
        const char* const otherwise = is_align ? entry.align : is_siglip ? entry.siglip : entry.clip;
        if (otherwise != none) config.add(entry.name, entry.path, otherwise);
    }
    // An AlignModel's image_size is not what its processor makes.
    if (!is_align) {
        config.add_size("vision.image", "vision_config.image_size", "224");
        config.conclude("vision.pooling", is_siglip ? "map" : "tok", "model_type");
    }
    // transformers pools a CLIP at the first token of this id, or where that is 2, at the largest id.
    const auto end = config.find("text_config.eos_token_id");
    const auto last = config.find("text_config.vocab_size").value_or("49408");
    const bool is_largest = !end || end == "2" || std::strtol(end->c_str(), nullptr, 10) + 1 == std::strtol(last.c_str(), nullptr, 10);
    if (is_align || is_siglip || is_largest) {
        config.conclude("text.pooling", is_align ? "first" : is_siglip ? "last" : "argmax", "model_type");
    } else {
        config.conclude("text.pooling", "token " + *end, "text_config.eos_token_id");
    }
    config.conclude("text.causal", is_align || is_siglip ? "false" : "true", "model_type");
}

/// The activation of a tower of open_clip's: a file says quick_gelu for both, or tanh for one.
inline std::string open_clip_activation(const ConfigReader& config, const std::string& tower) {
    if (config.find("model_cfg.quick_gelu") == "true") return "quick_gelu";
    return config.find(tower + ".act_kwargs.approximate") == "tanh" ? "gelu_pytorch_tanh" : "gelu";
}

/// open_clip's open_clip_config.json, with the defaults of its CLIPVisionCfg and CLIPTextCfg (open_clip/model.py). Towers
/// of timm have their sizes in their names, and the activation in timm's table.
[[gnu::cold]] inline void read_open_clip_config(ConfigReader& config) {
    const std::string vision = "model_cfg.vision_cfg", text = "model_cfg.text_cfg";
    const auto number = [&](const std::string& path, double otherwise) {
        const auto found = config.find(path);
        return found ? std::strtod(found->c_str(), nullptr) : otherwise;
    };
    const auto hidden = [&](const std::string& tower, double width) {
        return std::to_string(static_cast<std::size_t>(number(tower + ".width", width) * number(tower + ".mlp_ratio", 4.0)));
    };
    config.add("embedding", "model_cfg.embed_dim", "512");
    config.add_size("vision.image", vision + ".image_size", "224");
    if (const auto timm = config.find(vision + ".timm_model_name")) {
        // timm/models/vision_transformer.py: these say act_layer = 'gelu_tanh', the other towers of SigLIP share erf's.
        static constexpr std::array<std::string_view, 4> tanh{"_patch32_siglip", "large_patch16_siglip_512",
                                                              "so400m_patch16_siglip", "giantopt_patch16_siglip"};
        const bool is_tanh = std::ranges::any_of(tanh, [&](auto part) { return timm->find(part) != std::string::npos; });
        if (timm->find("_siglip") != std::string::npos) {
            config.conclude("vision.activation", is_tanh ? "gelu_pytorch_tanh" : "gelu", vision + ".timm_model_name");
            config.conclude("vision.norm.eps", "1e-6", vision + ".timm_model_name");
            config.conclude("vision.pooling", timm->find("_gap_") != std::string::npos ? "avg" : "map",
                            vision + ".timm_model_name");
        }
    } else if (const auto stages = config.all(vision + ".layers"); stages.size() > 1) {
        std::string text_of;
        for (const std::string& blocks : stages) text_of += (text_of.empty() ? "" : ",") + blocks;
        config.conclude("vision.stages", text_of, vision + ".layers");
        config.add("vision.width", vision + ".width", "64");
    } else {
        config.add("vision.patch", vision + ".patch_size", "16");
        config.add("vision.width", vision + ".width", "768");
        config.conclude("vision.hidden", hidden(vision, 768), vision + ".mlp_ratio");
        config.add("vision.layers", vision + ".layers", "12");
        const double head = number(vision + ".head_width", 64);
        config.conclude("vision.heads", std::to_string(static_cast<std::size_t>(number(vision + ".width", 768) / head)),
                        vision + ".head_width");
        config.conclude("vision.activation", open_clip_activation(config, vision), "model_cfg.quick_gelu");
        config.add("vision.norm.eps", vision + ".norm_kwargs.eps", "1e-5");
        config.add("vision.pooling", vision + ".pool_type", "tok");
    }
    if (const auto hf = config.find(text + ".hf_model_name")) {
        // Its sizes stand in a config that is elsewhere; the tensors tell them.
        const auto pooling = config.find(text + ".hf_pooler_type").value_or("mean_pooler");
        config.conclude("text.pooling", pooling == "mean_pooler" ? "avg" : pooling == "cls_last_hidden_state_pooler" ? "first" : pooling,
                        text + ".hf_pooler_type");
        config.conclude("text.activation", "gelu", text + ".hf_model_name");
        config.conclude("text.causal", "false", text + ".hf_model_name");
        config.add("text.context", text + ".context_length", "77");
        return;
    }
    config.add("text.vocabulary", text + ".vocab_size", "49408");
    config.add("text.context", text + ".context_length", "77");
    config.add("text.width", text + ".width", "512");
    config.conclude("text.hidden", hidden(text, 512), text + ".mlp_ratio");
    config.add("text.layers", text + ".layers", "12");
    config.add("text.heads", text + ".heads", "8");
    config.conclude("text.activation", open_clip_activation(config, text), "model_cfg.quick_gelu");
    config.add("text.norm.eps", text + ".norm_kwargs.eps", "1e-5");
    config.add("text.pooling", text + ".pool_type", "argmax");
    config.conclude("text.causal", config.find(text + ".no_causal_mask") == "true" ? "false" : "true",
                    text + ".no_causal_mask");
}

/// What a folder's configs say; nothing where it has none. Throws Error for a config that is no JSON, and for a model_type
/// of transformers that has no counterpart here.
[[gnu::cold]] inline std::vector<ArchitectureField> stored_architecture(const std::filesystem::path& folder) {
    if (const auto path = folder / "open_clip_config.json"; std::filesystem::exists(path)) {
        ConfigReader config(path);
        if (config.has_below("model_cfg.")) read_open_clip_config(config);
        return std::move(config.fields);
    }
    if (const auto path = folder / "config.json"; std::filesystem::exists(path)) {
        ConfigReader config(path);
        const auto type = config.find("model_type");
        if (type && type != "clip" && type != "siglip" && type != "align")
            throw Error(path.string(), "a model_type of clip, siglip or align", *type);
        if (type || config.has_below("vision_config.")) read_transformers_config(config, type.value_or("clip"));
        return std::move(config.fields);
    }
    return {};
}

}  // namespace tandem::inline TANDEM_ABI::detail

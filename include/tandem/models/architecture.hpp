// What a constant has in common with what files tell of an architecture, and where the two differ.
#pragma once

#include <array>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <tandem/models/config.hpp>
#include <tandem/models/efficientnet.hpp>
#include <tandem/models/model_config.hpp>
#include <tandem/models/resnet.hpp>
#include <tandem/models/unwrap.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// The side of the square that so many patches make up, or 0.
std::size_t side_of_square(std::size_t patches);

/// Names as files have them; empty for a user's own part, which no file names.
template <class Activation>
constexpr std::string_view activation_name() {
    if constexpr (std::is_same_v<Activation, QuickGelu>) return "quick_gelu";
    if constexpr (std::is_same_v<Activation, Gelu>) return "gelu";
    if constexpr (std::is_same_v<Activation, TanhGelu>) return "gelu_pytorch_tanh";
    return {};
}
template <class Pooling>
constexpr std::string_view pooling_name() {
    if constexpr (std::is_same_v<Pooling, ClassToken>) return "tok";
    if constexpr (std::is_same_v<Pooling, Average>) return "avg";
    if constexpr (std::is_same_v<Pooling, AttentionPool>) return "map";
    if constexpr (std::is_same_v<Pooling, Eot>) return "argmax";
    if constexpr (std::is_same_v<Pooling, Last>) return "last";
    if constexpr (std::is_same_v<Pooling, First>) return "first";
    if constexpr (std::is_same_v<Pooling, Eos>) return "eos";
    return {};
}

/// What a tower's constant has of what files tell. The image's size is not among it: positions are resized.
template <class Tower>
[[gnu::cold]] void add_tower_fields(std::vector<ArchitectureField>& fields, const std::string& at, const Tower& tower) {
    const auto add = [&](const char* name, std::string value) {
        if (!value.empty()) fields.push_back({at + name, std::move(value), ""});
    };
    if constexpr (requires { tower.patch; }) add("patch", std::to_string(tower.patch));
    if constexpr (std::is_same_v<Tower, EfficientNetConfig>) {
        std::size_t blocks = 0;
        tower.for_each_block([&](const auto&) { ++blocks; });
        add("blocks", std::to_string(blocks));
        std::array<char, 32> coefficient;
        for (const auto& [name, value] : {std::pair("width_coefficient", tower.width_coefficient),
                                          std::pair("depth_coefficient", tower.depth_coefficient)}) {
            std::snprintf(coefficient.data(), coefficient.size(), "%.6g", value);
            add(name, coefficient.data());
        }
        add("depth_divisor", std::to_string(tower.depth_divisor));
    }
    if constexpr (std::is_same_v<Tower, ResNetConfig>) {
        std::string layers;
        for (const std::size_t blocks : tower.layers) layers += (layers.empty() ? "" : ",") + std::to_string(blocks);
        add("stages", layers);
        add("width", std::to_string(tower.width));
        add("head_width", std::to_string(tower.head_width));
    }
    if constexpr (requires { tower.vocabulary; }) {
        add("vocabulary", std::to_string(tower.vocabulary));
        add("context", std::to_string(tower.context));
        add("positions", std::to_string(tower.places()));
        add("causal", tower.causal ? "true" : "false");
        add("token_types", std::to_string(tower.token_types));
    }
    if constexpr (requires { tower.no_ln_pre; }) add("no_ln_pre", tower.no_ln_pre ? "true" : "false");
    if constexpr (requires { tower.block_shape(); }) {
        add("width", std::to_string(tower.width));
        add("hidden", std::to_string(hidden_of(tower)));
        add("layers", std::to_string(tower.layers));
        add("heads", std::to_string(tower.heads));
        add("activation", std::string(activation_name<std::remove_cvref_t<decltype(tower.activation)>>()));
        add("pooling", std::string(pooling_name<std::remove_cvref_t<decltype(tower.pooling)>>()));
        if constexpr (requires { tower.pooling.id; }) add("eos_id", std::to_string(tower.pooling.id));
        // open_clip's text tower is not told of it, nor has it a choice where one row is picked.
        if constexpr (!PicksRow<std::remove_cvref_t<decltype(tower.pooling)>>)
            add("final_ln_after_pool", tower.final_ln_after_pool ? "true" : "false");
        add("qk_norm", tower.qk_norm ? "true" : "false");
        add("layer_scale", tower.ls_init_value > 0 ? "true" : "false");
        static constexpr std::array positions{"learnable", "sin_cos_2d", "rotary"};
        add("pos_embed_type", positions[static_cast<std::size_t>(tower.pos_embed_type)]);
        static constexpr std::array projections{"linear", "none", "mlp"};
        add("proj_type", projections[static_cast<std::size_t>(tower.proj_type)]);
        add("proj_bias", tower.proj_bias ? "true" : "false");
        if constexpr (requires { tower.norm.eps; }) {
            std::array<char, 32> eps;
            std::snprintf(eps.data(), eps.size(), "%.3g", static_cast<double>(tower.norm.eps));
            add("norm.eps", eps.data());
        }
    }
}

/// What files tell of a model, as its constant has it.
[[gnu::cold]] std::vector<ArchitectureField> architecture_fields(const auto& config) {
    std::vector<ArchitectureField> fields{{"embedding", std::to_string(config.embedding), ""},
                                          {"logit_bias", config.logit_bias ? "true" : "false", ""}};
    add_tower_fields(fields, "vision.", config.vision);
    add_tower_fields(fields, "text.", config.text);
    return fields;
}

/// The same, and the image's size.
[[gnu::cold]] std::vector<ArchitectureField> whole_fields(const auto& config) {
    std::vector<ArchitectureField> fields = architecture_fields(config);
    fields.push_back({"vision.image", to_string(ImageSize(config.vision.image)), ""});
    if constexpr (requires { config.vision.grid(); })
        fields.push_back({"vision.grid", to_string(ImageSize(config.vision.grid())), ""});
    return fields;
}

/// Throws Error where the configs of a folder contradict the architecture. Much of that would load, and give wrong
/// embeddings.
void require_agreement(const std::filesystem::path& folder, const std::vector<ArchitectureField>& architecture,
                       Towers towers);

/// What the names and shapes of a file's tensors tell of the architecture.
std::vector<ArchitectureField> stored_sizes(const WeightFiles& file);

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/models/architecture.impl.hpp>
#endif

// An architecture in words: its parts with what they cost, and the constant itself.
#pragma once

#include <array>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <tandem/models/config.hpp>
#include <tandem/models/cost.hpp>
#include <tandem/models/efficientnet.hpp>
#include <tandem/models/resnet.hpp>

namespace tandem::inline TANDEM_ABI {

/// A line of describe()'s table: a part of a model for one image or one caption of the full context.
struct PartCost {
    std::string name;
    std::string output;  ///< the shape of what it hands on
    Cost cost;
    std::size_t depth = 0;  ///< of lines that a line above sums up
};

namespace detail {

/// A type's name as a program writes it, without its namespaces; empty for a lambda's.
template <class T>
[[gnu::cold]] std::string type_name() {
    const std::string_view text = __PRETTY_FUNCTION__;
    const std::size_t begin = text.find("T = ") + 4;
    std::string_view name = text.substr(begin, text.find_first_of(";]", begin) - begin);
    if (name.find("lambda") != std::string_view::npos) return {};
    if (const std::size_t colon = name.rfind("::"); colon != std::string_view::npos) name.remove_prefix(colon + 2);
    return std::string(name);
}

template <class T>
[[gnu::cold]] std::string part_name(const char* role, const T&) {
    const std::string name = type_name<T>();
    return std::string(role) + (name.empty() ? "" : " (" + name + ")");
}

std::string number_text(double value, int digits = 12);

/// Writes a config's fields as designated initialisers, those that differ from the default.
class FieldWriter {
public:
    void add(const char* name, std::size_t value, std::size_t usual);
    void add(const char* name, double value, double usual);
    void add(const char* name, bool value, bool usual);
    void add(const char* name, PosEmbed value, PosEmbed usual);
    void add(const char* name, NormPosition value, NormPosition usual);
    void add(const char* name, Projection value, Projection usual);
    template <class Usual, class Part>
    [[gnu::cold]] void add_part(const char* name, const Part& part) {
        if constexpr (requires { part.eps == Usual{}.eps; }) {
            if (std::is_same_v<Part, Usual> && part.eps == Usual{}.eps) return;
        } else if (std::is_same_v<Part, Usual>) {
            return;
        }
        const std::string type = type_name<Part>();
        if (type.empty()) {
            put(name, "/* a lambda */");
        } else if constexpr (requires { part.eps; }) {
            put(name, "td::" + type + "{.eps = " + number_text(static_cast<double>(part.eps), 6) + "f}");
        } else if constexpr (requires { part.id; }) {
            put(name, "td::" + type + "{" + std::to_string(part.id) + "}");
        } else {
            put(name, "td::" + type + "{}");
        }
    }
    void put(const char* name, const std::string& value);

    const std::string& text() const { return text_; }

private:
    std::string text_;
};

std::string size_text(const ImageSize& size);

[[gnu::cold]] void write_block_fields(FieldWriter& fields, const auto& config, const auto& usual) {
    fields.add("norm_position", config.norm_position, usual.norm_position);
    fields.add("parallel", config.parallel, usual.parallel);
    fields.add("qk_norm", config.qk_norm, usual.qk_norm);
    fields.add("ls_init_value", config.ls_init_value, usual.ls_init_value);
}

[[gnu::cold]] void write_projection_fields(FieldWriter& fields, const auto& config, const auto& usual) {
    fields.add("proj_type", config.proj_type, usual.proj_type);
    fields.add("proj_bias", config.proj_bias, usual.proj_bias);
}

[[gnu::cold]] void write_part_fields(FieldWriter& fields, const auto& config, const auto& usual) {
    using Usual = std::remove_cvref_t<decltype(usual)>;
    fields.template add_part<decltype(Usual::norm)>("norm", config.norm);
    fields.template add_part<decltype(Usual::activation)>("activation", config.activation);
    fields.template add_part<decltype(Usual::mixer)>("mixer", config.mixer);
    fields.template add_part<decltype(Usual::mlp)>("mlp", config.mlp);
    fields.template add_part<decltype(Usual::pooling)>("pooling", config.pooling);
}

[[gnu::cold]] void write_size_fields(FieldWriter& fields, const auto& config, const auto& usual) {
    fields.put("width", std::to_string(config.width));
    fields.put("layers", std::to_string(config.layers));
    fields.put("heads", std::to_string(config.heads));
    fields.add("head_width", config.head_width, usual.head_width);
    fields.add("kv_heads", config.kv_heads, usual.kv_heads);
    fields.add("mlp_ratio", config.mlp_ratio, usual.mlp_ratio);
}

}  // namespace detail

/// A config as the program text that makes it, td being the library's namespace: sizes, and what is not the default. A
/// lambda has no text, and types of a user's own are named without their namespaces.
template <class N, class A, class M, class F, class P, class S>
[[gnu::cold]] std::string constant_text(const VitConfig<N, A, M, F, P, S>& config) {
    const VitConfig<> usual;
    detail::FieldWriter fields;
    fields.put("image", detail::size_text(config.image));
    fields.put("patch", std::to_string(config.patch));
    detail::write_size_fields(fields, config, usual);
    fields.add("class_token", config.class_token, usual.class_token);
    fields.add("reg_tokens", config.reg_tokens, usual.reg_tokens);
    fields.add("pos_embed_type", config.pos_embed_type, usual.pos_embed_type);
    fields.add("no_ln_pre", config.no_ln_pre, usual.no_ln_pre);
    fields.add("final_ln_after_pool", config.final_ln_after_pool, usual.final_ln_after_pool);
    detail::write_block_fields(fields, config, usual);
    fields.add("patch_dropout", config.patch_dropout, usual.patch_dropout);
    fields.add("drop_path_rate", config.drop_path_rate, usual.drop_path_rate);
    fields.add("patch_bias", config.patch_bias, usual.patch_bias);
    fields.add("floor_patches", config.floor_patches, usual.floor_patches);
    detail::write_projection_fields(fields, config, usual);
    detail::write_part_fields(fields, config, usual);
    fields.template add_part<PatchStem>("stem", config.stem);
    return "td::VitConfig{" + fields.text() + "}";
}

template <class N, class A, class M, class F, class P>
[[gnu::cold]] std::string constant_text(const TextConfig<N, A, M, F, P>& config) {
    const TextConfig<> usual;
    detail::FieldWriter fields;
    fields.put("vocabulary", std::to_string(config.vocabulary));
    fields.put("context", std::to_string(config.context));
    detail::write_size_fields(fields, config, usual);
    fields.add("causal", config.causal, usual.causal);
    fields.add("pos_embed_type", config.pos_embed_type, usual.pos_embed_type);
    fields.add("final_ln_after_pool", config.final_ln_after_pool, usual.final_ln_after_pool);
    detail::write_block_fields(fields, config, usual);
    fields.add("token_dropout", config.token_dropout, usual.token_dropout);
    fields.add("drop_path_rate", config.drop_path_rate, usual.drop_path_rate);
    // In the order of the config's members, as C++ wants them.
    detail::write_projection_fields(fields, config, usual);
    if (config.pad_id != usual.pad_id) fields.put("pad_id", std::to_string(config.pad_id));
    fields.add("positions", config.positions, usual.positions);
    fields.add("first_position", config.first_position, usual.first_position);
    fields.add("token_types", config.token_types, usual.token_types);
    fields.add("ln_embed", config.ln_embed, usual.ln_embed);
    fields.add("no_ln_final", config.no_ln_final, usual.no_ln_final);
    if (config.masked_language != usual.masked_language) {
        const MaskedLanguage& choice = config.masked_language;
        fields.put("masked_language", "{.share = " + detail::number_text(choice.share, 6) + ", .mask = " + std::to_string(choice.mask) +
                                          ", .weight = " + detail::number_text(choice.weight, 6) + "}");
    }
    detail::write_part_fields(fields, config, usual);
    return "td::TextConfig{" + fields.text() + "}";
}

std::string constant_text(const ResNetConfig& config);

std::string constant_text(const EfficientNetConfig& config);

template <class Vision, class Text>
[[gnu::cold]] std::string constant_text(const ClipConfig<Vision, Text>& config) {
    const auto tower = [](const auto& side) {
        if constexpr (requires { constant_text(side); }) {
            return constant_text(side);
        } else {
            return detail::type_name<std::remove_cvref_t<decltype(side)>>() + "{}";
        }
    };
    return "td::ClipConfig{\n    .vision = " + tower(config.vision) + ",\n    .text = " + tower(config.text) +
           ",\n    .embedding = " + std::to_string(config.embedding) +
           (config.logit_bias ? ",\n    .logit_bias = true" : "") + (config.shared ? ",\n    .shared = true" : "") +
           "}";
}

/// What every part of a model costs, for one image and one caption of the full context; lines of depth 0 add up to the
/// whole.
[[gnu::cold]] std::vector<PartCost> cost_by_part(const auto& config) {
    std::vector<PartCost> lines;
    const auto shape = [](std::size_t rows, std::size_t width) {
        return "[" + std::to_string(rows) + ", " + std::to_string(width) + "]";
    };
    const auto vector = [](std::size_t width) { return "[" + std::to_string(width) + "]"; };
    const auto blocks = [&](const std::string& at, const auto& tower, std::size_t tokens, bool counts) {
        const auto parts = tower.block_parts();
        const BlockShape block = tower.block_shape();
        Cost whole = tower.blocks_cost();
        if (!counts) whole.parameters = whole.matrices = 0;
        lines.push_back({at + "transformer, " + std::to_string(tower.layers) + " blocks" + (counts ? "" : " (shared)"),
                         shape(tokens, tower.width), whole});
        const auto each = [&](std::string name, const Cost& cost) {
            lines.push_back({std::move(name), shape(tokens, tower.width), cost, 1});
        };
        each(detail::part_name(parts.parallel ? "norm" : "2 norms", parts.norm),
             (parts.parallel ? 1 : 2) * parts.norm.cost(tower.width, tokens));
        each(detail::part_name("mixer", parts.mixer), nn::cost_of(parts.mixer, block, tokens, parts));
        each(detail::part_name("mlp", parts.mlp), nn::cost_of(parts.mlp, block, tokens, parts));
    };
    const auto& vision = config.vision;
    if constexpr (requires { vision.stem_cost(); }) {
        lines.push_back(
            {detail::part_name("visual.stem", vision.stem), shape(vision.patches(), vision.width), vision.stem_cost()});
        lines.push_back({"visual tokens, positions" + std::string(vision.no_ln_pre ? "" : ", ln_pre"),
                         shape(vision.tokens(), vision.width), vision.token_cost()});
        blocks("visual.", vision, vision.tokens(), true);
        lines.push_back(
            {detail::part_name("visual.ln_post, pooling", vision.pooling), vector(vision.width), vision.head_cost()});
    } else {
        lines.push_back({detail::part_name("visual", vision), "", vision.cost()});
    }
    lines.push_back({"image embedding", vector(config.embedding), detail::projection_cost(vision, config.embedding)});
    const auto& text = config.text;
    if constexpr (requires { text.token_cost(); }) {
        lines.push_back({"token_embedding, positions", shape(text.context, text.width), text.token_cost()});
        blocks("", text, text.context, !config.shared);
        lines.push_back({detail::part_name("ln_final, pooling", text.pooling), vector(text.width), text.head_cost()});
        if constexpr (requires { text.masked_language_cost(); }) {
            if (text.masks_language()) lines.push_back({"mlm_head", vector(text.vocabulary), text.masked_language_cost()});
        }
    } else {
        lines.push_back({detail::part_name("text", text), "", text.cost()});
    }
    lines.push_back({"text embedding", vector(config.embedding), detail::projection_cost(text, config.embedding)});
    lines.push_back({config.logit_bias ? "logit_scale, logit_bias" : "logit_scale", "[]",
                     Cost{.parameters = config.logit_bias ? 2U : 1U}});
    return lines;
}

/// The table of a model's parts, as torchinfo prints one: parameters, FLOPs of the naive model and those executed, and
/// what a pair's activations take in float32; then bytes of the weights by precision, those of activations, and the constant itself. An
/// indented line is one of each block.
[[gnu::cold]] std::string describe(const auto& config) {
    std::string text;
    const auto line = [&](const std::string& name, const std::string& output, const Cost& cost) {
        std::array<char, 192> row;
        std::snprintf(row.data(), row.size(), "%-46.46s %-14s %12zu %10.2f %10.2f %10.3f %10.3f\n", name.c_str(),
                      output.c_str(), cost.parameters, 1e-6 * static_cast<double>(cost.flops),
                      1e-6 * static_cast<double>(cost.executed), 4e-6 * static_cast<double>(cost.inference),
                      4e-6 * static_cast<double>(cost.training()));
        text += row.data();
    };
    std::array<char, 192> head;
    std::snprintf(head.data(), head.size(), "%-46s %-14s %12s %10s %10s %10s %10s\n", "part", "output", "parameters",
                  "MFLOP", "executed", "MB infer", "MB train");
    text += head.data();
    for (const PartCost& part : cost_by_part(config))
        line(std::string(2 * part.depth, ' ') + part.name, part.output, part.cost);
    line("one image and one caption", "", detail::whole_cost(config));
    std::array<char, 192> bytes;
    std::snprintf(bytes.data(), bytes.size(), "weights: %.2f MB in float32, %.2f in bf16, %.2f in int8\n",
                  1e-6 * static_cast<double>(parameter_bytes<float>(config)),
                  1e-6 * static_cast<double>(parameter_bytes<bfloat16>(config)),
                  1e-6 * static_cast<double>(parameter_bytes<int8>(config)));
    text += bytes.data();
    std::snprintf(bytes.data(), bytes.size(), "activations of a pair in training: %.2f MB, %.2f where blocks are computed again\n",
                  1e-6 * static_cast<double>(training_bytes(config)), 1e-6 * static_cast<double>(training_bytes(config, Recompute::blocks)));
    return text + bytes.data() + constant_text(config) + "\n";
}
template <auto config>
[[gnu::cold]] std::string describe() {
    return describe(config);
}

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/models/describe.impl.hpp>
#endif

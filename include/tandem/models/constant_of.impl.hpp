// Definitions of models/constant_of.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/image_size.hpp>
#include <tandem/models/constant_of.hpp>
#include <tandem/models/describe.hpp>
#include <tandem/models/efficientnet.hpp>
#include <tandem/models/architecture_reader.hpp>
#include <tandem/models/resnet.hpp>

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE std::string FieldValues::operator()(std::string_view name, std::string otherwise) const {
    for (const ArchitectureField& field : fields_) {
        if (field.name == name) return field.value;
    }
    return otherwise;
}

TANDEM_INLINE std::size_t FieldValues::count(std::string_view name, std::size_t otherwise) const {
    const std::string value = (*this)(name);
    return value.empty() ? otherwise : static_cast<std::size_t>(std::strtoull(value.c_str(), nullptr, 10));
}

TANDEM_INLINE bool FieldValues::is(std::string_view name, bool otherwise) const {
    return (*this)(name, otherwise ? "true" : "false") == "true";
}

TANDEM_INLINE ImageSize FieldValues::image() const {
    const std::string sides = (*this)("vision.image");
    if (sides.empty()) return count("vision.grid") * count("vision.patch", 32);
    const std::size_t cross = sides.find('x'), height = std::strtoull(sides.c_str(), nullptr, 10);
    return {height, cross == std::string::npos ? height : std::strtoull(sides.c_str() + cross + 1, nullptr, 10)};
}

/// The shortest ratio of which a width makes the hidden one (hidden_of).
[[gnu::cold]] TANDEM_INLINE double ratio_of(std::size_t hidden, std::size_t width) {
    if (hidden == 0 || width == 0) return 4.0;
    // Rounded up, as the product is rounded down.
    double scale = 1;
    for (int digits = 0; digits < 12; ++digits, scale *= 10) {
        const double ratio = std::ceil(static_cast<double>(hidden) / static_cast<double>(width) * scale) / scale;
        if (static_cast<std::size_t>(static_cast<double>(width) * ratio) == hidden) return ratio;
    }
    return (static_cast<double>(hidden) + 0.5) / static_cast<double>(width);
}

/// A tower's text with the parts that the fields name and its config has not: they stand last.
[[gnu::cold]] TANDEM_INLINE std::string with_parts(std::string text, const FieldValues& value, const std::string& at,
                                                   std::string_view usual_pooling) {
    text.pop_back();
    const auto put = [&](const char* part, const std::string& type) {
        text += std::string(text.ends_with('{') ? "." : ", .") + part + " = td::" + type;
    };
    if (const std::string eps = value(at + "norm.eps"); !eps.empty() && !same_value(eps, "1e-5"))
        put("norm", "LayerNorm{.eps = " + eps + "f}");
    const std::string activation = value(at + "activation"), pooling = value(at + "pooling");
    if (activation == "quick_gelu") put("activation", "QuickGelu{}");
    if (activation == "gelu_pytorch_tanh") put("activation", "TanhGelu{}");
    if (pooling != usual_pooling) {
        if (pooling == "avg") put("pooling", "Average{}");
        if (pooling == "map") put("pooling", "AttentionPool{}");
        if (pooling == "last") put("pooling", "Last{}");
        if (pooling == "first") put("pooling", "First{}");
        if (pooling == "eos") put("pooling", "Eos{" + value(at + "eos_id", "2") + "}");
    }
    return text + "}";
}

[[gnu::cold]] TANDEM_INLINE std::string vision_constant(const FieldValues& value) {
    const std::size_t width = value.count("vision.width");
    if (const std::string stages = value("vision.stages"); !stages.empty()) {
        const std::size_t side = value.image().height == 0 ? 32 * value.count("vision.grid") : value.image().height;
        ResNetConfig vision{.image = side, .width = width, .head_width = value.count("vision.head_width", 64)};
        std::istringstream numbers(stages);
        for (std::size_t& blocks : vision.layers) {
            numbers >> blocks;
            numbers.ignore();
        }
        return constant_text(vision);
    }
    if (const std::string coefficient = value("vision.width_coefficient"); !coefficient.empty())
        return constant_text(
            EfficientNetConfig{.width_coefficient = std::strtod(coefficient.c_str(), nullptr),
                               .depth_coefficient = std::strtod(value("vision.depth_coefficient").c_str(), nullptr),
                               .depth_divisor = value.count("vision.depth_divisor", 8)});
    if (width == 0) return "td::VitConfig{}";
    const ImageSize image = value.image();
    const std::size_t patch = value.count("vision.patch", 1);
    const bool is_map = value("vision.pooling") == "map";
    const VitConfig<> vision{
        .image = image,
        .patch = patch,
        .width = width,
        .layers = value.count("vision.layers"),
        .heads = value.count("vision.heads", width / 64),
        .mlp_ratio = ratio_of(value.count("vision.hidden"), width),
        .class_token = !is_map,
        .pos_embed_type = value("vision.pos_embed_type") == "sin_cos_2d" ? PosEmbed::sin_cos_2d : PosEmbed::learnable,
        .no_ln_pre = value.is("vision.no_ln_pre"),
        .final_ln_after_pool = value.is("vision.final_ln_after_pool"),
        .qk_norm = value.is("vision.qk_norm"),
        .ls_init_value = std::strtod(value("vision.ls_init_value", "0").c_str(), nullptr),
        .patch_dropout = std::strtod(value("vision.patch_dropout", "0").c_str(), nullptr),
        .patch_bias = is_map,
        .floor_patches = !image.is_multiple_of(patch),
        .proj_type = is_map ? Projection::none : Projection::linear};
    return with_parts(constant_text(vision), value, "vision.", "tok");
}

[[gnu::cold]] TANDEM_INLINE std::string text_constant(const FieldValues& value) {
    const std::size_t width = value.count("text.width");
    if (width == 0) return "td::TextConfig{}";
    TextConfig<> text{.vocabulary = value.count("text.vocabulary"),
                      .context = value.count("text.context", 64),
                      .width = width,
                      .layers = value.count("text.layers"),
                      .heads = value.count("text.heads", width / 64),
                      .mlp_ratio = ratio_of(value.count("text.hidden"), width),
                      .causal = value.is("text.causal", true),
                      .qk_norm = value.is("text.qk_norm"),
                      .ls_init_value = std::strtod(value("text.ls_init_value", "0").c_str(), nullptr),
                      .proj_type = value("text.proj_type") == "none"  ? Projection::none
                                   : value("text.proj_type") == "mlp" ? Projection::mlp
                                                                      : Projection::linear,
                      .proj_bias = value.is("text.proj_bias")};
    if (const std::size_t types = value.count("text.token_types"); types > 0) {
        // BERT has two types and pads with 0, XLM-RoBERTa one, pads with 1 and begins its positions behind that.
        const bool is_bert = types > 1;
        text.causal = false;
        text.norm_position = NormPosition::post;
        text.pad_id = is_bert ? 0 : 1;
        text.positions = value.count("text.positions");
        text.first_position = is_bert ? 0 : 2;
        text.token_types = types;
        text.ln_embed = text.no_ln_final = true;
        text.proj_bias = is_bert;
    }
    return with_parts(constant_text(text), value, "text.", "argmax");
}

[[gnu::cold]] TANDEM_INLINE std::string constant_of(const std::vector<ArchitectureField>& fields) {
    const FieldValues value(fields);
    const std::size_t width = std::max(value.count("text.width"), value.count("vision.width"));
    return "td::ClipConfig{\n    .vision = " + vision_constant(value) + ",\n    .text = " + text_constant(value) +
           ",\n    .embedding = " + value("embedding", std::to_string(width)) +
           (value.is("logit_bias") ? ",\n    .logit_bias = true" : "") + "}";
}

}  // namespace tandem::inline TANDEM_ABI::detail

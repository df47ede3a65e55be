// Definitions of models/describe.hpp.
#pragma once

#include <array>
#include <cstddef>
#include <cstdio>
#include <string>

#include <tandem/models/describe.hpp>
#include <tandem/models/efficientnet.hpp>
#include <tandem/models/resnet.hpp>

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE std::string number_text(double value, int digits) {
    std::array<char, 32> text;
    std::snprintf(text.data(), text.size(), "%.*g", digits, value);
    return text.data();
}

TANDEM_INLINE void FieldWriter::add(const char* name, std::size_t value, std::size_t usual) {
    if (value != usual) put(name, std::to_string(value));
}

TANDEM_INLINE void FieldWriter::add(const char* name, double value, double usual) {
    if (value != usual) put(name, number_text(value));
}

TANDEM_INLINE void FieldWriter::add(const char* name, bool value, bool usual) {
    if (value != usual) put(name, value ? "true" : "false");
}

TANDEM_INLINE void FieldWriter::add(const char* name, PosEmbed value, PosEmbed usual) {
    static constexpr std::array names{"learnable", "sin_cos_2d", "rotary"};
    if (value != usual) put(name, std::string("td::PosEmbed::") + names[static_cast<std::size_t>(value)]);
}

TANDEM_INLINE void FieldWriter::add(const char* name, NormPosition value, NormPosition usual) {
    static constexpr std::array names{"pre", "post", "sandwich"};
    if (value != usual) put(name, std::string("td::NormPosition::") + names[static_cast<std::size_t>(value)]);
}

TANDEM_INLINE void FieldWriter::add(const char* name, Projection value, Projection usual) {
    static constexpr std::array names{"linear", "none", "mlp"};
    if (value != usual) put(name, std::string("td::Projection::") + names[static_cast<std::size_t>(value)]);
}

[[gnu::cold]] TANDEM_INLINE void FieldWriter::put(const char* name, const std::string& value) {
    text_ += (text_.empty() ? "." : ", .") + std::string(name) + " = " + value;
}

TANDEM_INLINE std::string size_text(const ImageSize& size) {
    if (size.is_square()) return std::to_string(size.height);
    return "{" + std::to_string(size.height) + ", " + std::to_string(size.width) + "}";
}

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

[[gnu::cold]] TANDEM_INLINE std::string constant_text(const ResNetConfig& config) {
    const ResNetConfig usual;
    detail::FieldWriter fields;
    fields.put("image", std::to_string(config.image));
    std::string layers;
    for (const std::size_t blocks : config.layers) layers += (layers.empty() ? "" : ", ") + std::to_string(blocks);
    fields.put("layers", "{" + layers + "}");
    fields.put("width", std::to_string(config.width));
    fields.add("head_width", config.head_width, usual.head_width);
    return "td::ResNetConfig{" + fields.text() + "}";
}

[[gnu::cold]] TANDEM_INLINE std::string constant_text(const EfficientNetConfig& config) {
    const EfficientNetConfig usual;
    detail::FieldWriter fields;
    fields.put("image", std::to_string(config.image));
    fields.add("width_coefficient", config.width_coefficient, usual.width_coefficient);
    fields.add("depth_coefficient", config.depth_coefficient, usual.depth_coefficient);
    fields.add("depth_divisor", config.depth_divisor, usual.depth_divisor);
    return "td::EfficientNetConfig{" + fields.text() + "}";
}

}  // namespace tandem::inline TANDEM_ABI

// Definitions of models/architecture_reader.hpp.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/models/architecture_reader.hpp>

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE bool same_value(const std::string& a, const std::string& b) {
    if (a == b) return true;
    char *end_a = nullptr, *end_b = nullptr;
    const double x = std::strtod(a.c_str(), &end_a), y = std::strtod(b.c_str(), &end_b);
    return !a.empty() && !b.empty() && *end_a == 0 && *end_b == 0 && x == y;
}

TANDEM_INLINE void ArchitectureReader::add_count(const std::string& field, const std::string& path,
                                                 std::size_t otherwise) {
    const auto found = count(path);
    if (found == 0U) refuse(path, "a whole number above 0");
    add(field, path, std::to_string(found.value_or(otherwise)), found.has_value());
}

TANDEM_INLINE void ArchitectureReader::add_number(const std::string& field, const std::string& path, double otherwise) {
    const auto found = number(path);
    add(field, path, to_text(found.value_or(otherwise)), found.has_value());
}

TANDEM_INLINE void ArchitectureReader::add_flag(const std::string& field, const std::string& path, bool otherwise) {
    const auto found = flag(path);
    add(field, path, found.value_or(otherwise) ? "true" : "false", found.has_value());
}

TANDEM_INLINE void ArchitectureReader::add_word(const std::string& field, const std::string& path,
                                                std::string_view otherwise,
                                                std::initializer_list<std::string_view> known) {
    add(field, path, one_of(path, otherwise, known), find(path).has_value());
}

TANDEM_INLINE void ArchitectureReader::add_image(const std::string& field, const std::string& path,
                                                 std::size_t otherwise) {
    std::vector<std::string> sides = all(path);
    for (const std::string& side : sides) {
        if (side.find_first_not_of("0123456789") != std::string::npos || side.size() > 6 || side == "0")
            refuse(path, "a number of pixels, or height and width");
    }
    if (sides.size() > 2) refuse(path, "a number of pixels, or height and width");
    const bool is_said = !sides.empty();
    if (!is_said) sides = {std::to_string(otherwise)};
    add(field, path, sides.front() == sides.back() ? sides.front() : sides.front() + " x " + sides.back(), is_said);
}

TANDEM_INLINE void ArchitectureReader::conclude(const std::string& field, std::string value, const std::string& path) {
    fields.push_back({field, std::move(value), name() + ", " + path});
}

TANDEM_INLINE void ArchitectureReader::add(const std::string& field, const std::string& path, std::string value,
                                           bool is_said) {
    fields.push_back({field, std::move(value), name() + ", " + path + (is_said ? "" : " by default")});
}

}  // namespace tandem::inline TANDEM_ABI::detail

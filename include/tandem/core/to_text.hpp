// Numbers as text.
#pragma once

#include <array>
#include <charconv>
#include <string>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// The shortest decimal that reads as the same number.
[[gnu::cold]] inline std::string to_text(double value) {
    std::array<char, 32> text;
    return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}

}  // namespace tandem::inline TANDEM_ABI::detail

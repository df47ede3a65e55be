// Texts taken apart from the front.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// What stands before the next `end`, or all; the text is shortened by both.
inline std::string_view take_until(std::string_view& text, char end) {
    const std::size_t length = std::min(text.find(end), text.size());
    const std::string_view taken = text.substr(0, length);
    text.remove_prefix(std::min(length + 1, text.size()));
    return taken;
}

/// The next line of a text, without its end; the text is shortened by it.
inline std::string_view take_line(std::string_view& text) {
    std::string_view line = take_until(text, '\n');
    if (line.ends_with('\r')) line.remove_suffix(1);
    return line;
}

}  // namespace tandem::inline TANDEM_ABI::detail

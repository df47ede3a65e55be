// Which tensors of a file make up a parameter.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// The tensors of a file that make up one parameter: their rows one after the other, transposed where said; of one that
/// several parameters share, the rows from share `first` to share `last` of `shares`.
struct Source {
    std::vector<std::string> names;
    bool transposed = false;
    std::size_t first = 0, last = 1, shares = 1;
    bool is_temperature = false;  ///< its reciprocal's logarithm is the parameter
};

inline bool replace_prefix(std::string& text, std::string_view from, std::string_view to) {
    if (!text.starts_with(from)) return false;
    text.replace(0, from.size(), to);
    return true;
}

}  // namespace tandem::inline TANDEM_ABI::detail

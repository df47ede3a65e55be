// Definitions of texts/tokenizer.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/tokenizer.hpp>

namespace tandem::inline TANDEM_ABI::detail {

[[gnu::cold]] TANDEM_INLINE std::filesystem::path vocabulary_file(const std::filesystem::path& path, const char* own) {
    std::filesystem::path file = path;
    if (std::filesystem::is_directory(path)) {
        file = path / own;
        if (!std::filesystem::exists(file)) file = path / "tokenizer.json";
    }
    if (!std::filesystem::is_regular_file(file))
        throw Error(path.string(), std::string("a ") + own + ", or a tokenizer.json", "no file");
    return file;
}

}  // namespace tandem::inline TANDEM_ABI::detail

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE void BertFrame::fit(std::string_view where, std::vector<Id> ids, std::span<Id> out) const {
    const std::size_t least = begins ? 2 : 1;
    if (out.size() < least)
        throw Error(where, "a context of at least " + std::to_string(least) + " tokens", std::to_string(out.size()));
    if (ids.size() > out.size()) {
        ids.resize(out.size());
        ids.back() = end;
    }
    if (strips_end) std::ranges::replace(ids, end, Id{0});
    std::fill(std::copy(ids.begin(), ids.end(), out.begin()), out.end(), padding);
}

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

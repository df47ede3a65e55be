// Definitions of train/snapshot.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include <tandem/core/error.hpp>
#include <tandem/files/safetensors.hpp>
#include <tandem/train/snapshot.hpp>

namespace tandem::inline TANDEM_ABI::detail {

[[gnu::cold]] TANDEM_INLINE void check_inputs(const std::map<std::string, std::string>& metadata, const RunInputs& now,
                                              const std::string& where) {
    std::string expected, found;
    const auto differ = [&](const std::string& name, const std::string& before, const std::string& after) {
        expected += (expected.empty() ? "" : ", ") + name + " " + before;
        found += (found.empty() ? "" : ", ") + name + " " + after;
    };
    for (const auto& [name, value] : now) {
        const auto entry = metadata.find(input_prefix + name);
        if (entry == metadata.end())
            differ(name, "(none)", value);
        else if (entry->second != value)
            differ(name, entry->second, value);
    }
    for (const auto& [key, value] : metadata) {
        if (!key.starts_with(input_prefix)) continue;
        const std::string name = key.substr(std::string_view(input_prefix).size());
        if (std::ranges::none_of(now, [&](const auto& input) { return input.first == name; }))
            differ(name, value, "(none)");
    }
    if (!expected.empty()) {
        throw Error(where, expected + ", as the snapshot's run had",
                    found + "; go on with the old values, or delete the snapshot to start anew");
    }
}

[[gnu::cold]] TANDEM_INLINE void check_stored(const Safetensors& file, const std::string& name,
                                              std::span<const std::size_t> shape, DataType type,
                                              const std::string& where) {
    const StoredTensor* const stored = file.find(name);
    if (stored != nullptr && std::ranges::equal(stored->shape, shape) && stored->type == type) return;
    throw Error(where, "a snapshot of this model, with " + name + " of shape " + shape_text(shape),
                stored == nullptr ? "no such tensor" : shape_text(stored->shape));
}

}  // namespace tandem::inline TANDEM_ABI::detail

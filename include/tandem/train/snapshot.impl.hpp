// Definitions of train/snapshot.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/ranks.hpp>
#include <tandem/files/safetensors.hpp>
#include <tandem/train/snapshot.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// Names and values of what differs, before and now; none: both are empty.
[[gnu::cold]] TANDEM_INLINE std::pair<std::string, std::string> differences(const RunInputs& before, const RunInputs& now) {
    std::string expected, found;
    const auto differ = [&](const std::string& name, const std::string& old_value, const std::string& new_value) {
        expected += (expected.empty() ? "" : ", ") + name + " " + old_value;
        found += (found.empty() ? "" : ", ") + name + " " + new_value;
    };
    const auto find = [](const RunInputs& inputs, const std::string& name) { return std::ranges::find(inputs, name, &RunInputs::value_type::first); };
    for (const auto& [name, value] : now) {
        const auto entry = find(before, name);
        if (entry == before.end())
            differ(name, "(none)", value);
        else if (entry->second != value)
            differ(name, entry->second, value);
    }
    for (const auto& [name, value] : before) {
        if (find(now, name) == now.end()) differ(name, value, "(none)");
    }
    return {expected, found};
}

[[gnu::cold]] TANDEM_INLINE void check_inputs(const std::map<std::string, std::string>& metadata, const RunInputs& now,
                                              const std::string& where) {
    RunInputs before;
    for (const auto& [key, value] : metadata) {
        if (key.starts_with(input_prefix)) before.emplace_back(key.substr(std::string_view(input_prefix).size()), value);
    }
    const auto [expected, found] = differences(before, now);
    if (!expected.empty()) {
        throw Error(where, expected + ", as the snapshot's run had",
                    found + "; go on with the old values, or delete the snapshot to start anew");
    }
}

[[gnu::cold]] TANDEM_INLINE void check_ranks(Ranks& ranks, const RunInputs& inputs) {
    std::string mine;
    for (const auto& [name, value] : inputs) mine += name + '\0' + value + '\0';
    std::vector<RunInputs> all;
    for (const std::string& text : gather_texts(ranks, mine)) {
        all.emplace_back();
        std::size_t at = 0;
        const auto next = [&] {
            const std::size_t begin = at, end = text.find('\0', begin);
            at = end + 1;
            return text.substr(begin, end - begin);
        };
        while (at < text.size()) {
            std::string name = next();
            all.back().emplace_back(std::move(name), next());
        }
    }
    for (std::size_t rank = 1; rank < all.size(); ++rank) {
        const auto [expected, found] = differences(all[0], all[rank]);
        if (!expected.empty()) throw Error("Trainer", "ranks that all have " + expected, found + " on rank " + std::to_string(rank));
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

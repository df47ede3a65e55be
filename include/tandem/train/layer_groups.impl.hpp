// Definitions of train/layer_groups.hpp.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include <tandem/core/error.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/train/layer_groups.hpp>

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE std::size_t LayerGroups::depth(std::string_view name) const {
    const std::size_t head_groups = has_head ? 1 : 0;
    if (name.starts_with(blocks)) {
        std::size_t number = 0;
        std::from_chars(name.data() + blocks.size(), name.data() + name.size(), number);
        return head_groups + first + count - 1 - number;
    }
    if (!norm.empty() && name.starts_with(norm)) return head_groups;
    if (std::ranges::any_of(head, [&](std::string_view part) { return !part.empty() && name.starts_with(part); })) return 0;
    return size() - 1;
}

namespace detail {

[[gnu::cold]] TANDEM_INLINE RateFactor layer_rates(const LayerGroups& image, const LayerGroups& text, bool is_shared, const LayerRates& rates) {
    const auto check = [](const char* name, double decay) {
        if (!(decay > 0 && decay <= 1)) throw Error(std::string("LayerRates.") + name, "a number above 0, at most 1", to_text(decay));
    };
    check("image_decay", rates.image_decay);
    check("text_decay", rates.text_decay);
    if (is_shared && (rates.image_decay != rates.text_decay || rates.image_unlocked != rates.text_unlocked))
        throw Error("LayerRates", "the same of both towers, since they share their blocks", "others");
    return [=](std::string_view name) {
        if (name.starts_with("logit_")) return 1.0;
        const bool is_image = name.starts_with("visual.");
        const std::size_t depth = (is_image ? image : text).depth(name);
        const std::optional<std::size_t>& unlocked = is_image ? rates.image_unlocked : rates.text_unlocked;
        if (unlocked && depth >= *unlocked) return 0.0;
        return std::pow(is_image ? rates.image_decay : rates.text_decay, static_cast<double>(depth));
    };
}

}  // namespace detail

}  // namespace tandem::inline TANDEM_ABI

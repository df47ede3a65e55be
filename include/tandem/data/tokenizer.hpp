// What tokenizers have in common.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <filesystem>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/data/clean_text.hpp>

namespace tandem::inline TANDEM_ABI {

/// Turns texts into rows of ids of one length, cut and padded as its models were trained.
template <class T>
concept Tokenizer = requires(const T& tokenizer, std::string_view text, std::span<Id> out, std::span<const std::string> texts) {
    tokenizer.encode(text, out);
    { tokenizer.encode_batch(texts, std::size_t{}) } -> std::same_as<std::vector<Id>>;
};

namespace detail {

/// Of [low, high), sorted by their `text` and alike in all but the last letter of `prefix`, those that begin with it.
template <class Iterator>
void narrow_to_prefix(Iterator& low, Iterator& high, std::string_view prefix) {
    using Entry = typename std::iterator_traits<Iterator>::value_type;
    low = std::lower_bound(low, high, prefix,
                           [](const Entry& entry, std::string_view sought) { return std::string_view(entry.text) < sought; });
    high = std::upper_bound(low, high, prefix, [](std::string_view sought, const Entry& entry) {
        return sought < std::string_view(entry.text).substr(0, sought.size());
    });
}

/// How a tokenizer's texts are cleaned: as asked for, or as the library does whose config lies beside it.
inline Cleaning cleaning_of(const std::filesystem::path& path, std::optional<Cleaning> wanted) {
    return wanted.value_or(std::filesystem::exists(path / "open_clip_config.json") ? Cleaning::open_clip
                                                                                  : Cleaning::transformers);
}

/// The rows of encode(text, out), [texts, context] row by row, made in parallel.
std::vector<Id> encode_rows(const auto& tokenizer, std::span<const std::string> texts, std::size_t context) {
    constexpr std::size_t texts_per_piece = 64;
    std::vector<Id> ids(texts.size() * context);
    parallel_for(texts.size(), texts_per_piece, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) tokenizer.encode(texts[i], std::span(ids).subspan(i * context, context));
    });
    return ids;
}

}  // namespace detail

}  // namespace tandem::inline TANDEM_ABI

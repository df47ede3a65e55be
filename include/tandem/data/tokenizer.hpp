// What tokenizers have in common.
#pragma once

#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// Turns texts into rows of ids of one length, cut and padded as its models were trained.
template <class T>
concept Tokenizer = requires(const T& tokenizer, std::string_view text, std::span<Id> out, std::span<const std::string> texts) {
    tokenizer.encode(text, out);
    { tokenizer.encode_batch(texts, std::size_t{}) } -> std::same_as<std::vector<Id>>;
};

namespace detail {

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

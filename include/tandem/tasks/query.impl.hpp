// Definitions of tasks/query.hpp.
#pragma once

#include <charconv>
#include <cmath>
#include <cstddef>
#include <system_error>
#include <utility>

#include <tandem/core/error.hpp>
#include <tandem/tasks/query.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// A term without the blanks around it; a weight before it is read.
TANDEM_INLINE QueryTerm query_term(std::string_view query, std::string_view words, double sign) {
    const auto is_blank = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
    while (!words.empty() && is_blank(words.front())) words.remove_prefix(1);
    while (!words.empty() && is_blank(words.back())) words.remove_suffix(1);
    const auto fail = [&](const char* expected, std::string_view found) -> QueryTerm {
        throw Error("query " + std::string(query), expected, found.empty() ? "nothing" : std::string(found));
    };
    std::string text;
    bool is_quoted = false;
    for (std::size_t i = 0; i < words.size(); ++i) {
        if (words[i] == '\\' && i + 1 < words.size() && (words[i + 1] == '"' || words[i + 1] == '\\')) {
            text += words[++i];
        } else if (words[i] == '"') {
            is_quoted = !is_quoted;
        } else {
            text += words[i];
        }
    }
    if (is_quoted) return fail("a quote at its end", words);
    QueryTerm term{sign, std::move(text)};
    double weight = 0;
    const char* const end = term.text.data() + term.text.size();
    const auto [after, error] = std::from_chars(term.text.data(), end, weight);
    if (error == std::errc() && after != end && *after == ':') {
        if (!std::isfinite(weight) || std::abs(weight) > 1e6) return fail("a weight of at most 1,000,000", words);
        term.weight = sign * weight;
        term.text.erase(0, static_cast<std::size_t>(after - term.text.data()) + 1);
    }
    if (term.text.find_first_not_of(" \t\r\n") == std::string::npos) return fail("a text or a picture for every term", words);
    return term;
}

}  // namespace detail

TANDEM_INLINE std::vector<QueryTerm> parse_query(std::string_view query) {
    std::vector<QueryTerm> terms;
    const auto is_blank = [&](std::size_t i) { return i >= query.size() || query[i] == ' ' || query[i] == '\t'; };
    double sign = 1;
    std::size_t begin = 0;
    bool is_quoted = false, has_sign = false;
    for (std::size_t i = 0; i < query.size(); ++i) {
        if (query[i] == '\\') {
            ++i;
        } else if (query[i] == '"') {
            is_quoted = !is_quoted;
        } else if (!is_quoted && (query[i] == '+' || query[i] == '-') && (i == 0 || is_blank(i - 1)) && is_blank(i + 1)) {
            // A sign before the first term is its own.
            const std::string_view before = query.substr(begin, i - begin);
            if (has_sign || before.find_first_not_of(" \t") != std::string_view::npos)
                terms.push_back(detail::query_term(query, before, sign));
            sign = query[i] == '-' ? -1 : 1;
            has_sign = true;
            begin = i + 1;
        }
    }
    terms.push_back(detail::query_term(query, query.substr(begin), sign));
    return terms;
}

TANDEM_INLINE std::vector<float> combine(std::span<const QueryTerm> terms, std::span<const float> embeddings) {
    const std::size_t width = terms.empty() ? 0 : embeddings.size() / terms.size();
    if (width == 0 || embeddings.size() != width * terms.size())
        throw Error("combine", "an embedding for each of " + std::to_string(terms.size()) + " terms",
                    std::to_string(embeddings.size()) + " elements");
    std::vector<double> sum(width);
    double most = 0, squares = 0;
    for (std::size_t i = 0; i < terms.size(); ++i) {
        most += std::abs(terms[i].weight);
        for (std::size_t j = 0; j < width; ++j)
            sum[j] += terms[i].weight * static_cast<double>(embeddings[i * width + j]);
    }
    for (const double value : sum) squares += value * value;
    // What is left of terms that cancel is the rounding of their embeddings.
    if (!(std::sqrt(squares) > 1e-5 * most))
        throw Error("combine", "terms of which something is left", "terms that cancel each other");
    std::vector<float> combined(width);
    for (std::size_t j = 0; j < width; ++j) combined[j] = static_cast<float>(sum[j] / std::sqrt(squares));
    return combined;
}

}  // namespace tandem::inline TANDEM_ABI

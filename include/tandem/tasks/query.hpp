// What is asked for, as sums and differences of texts and pictures.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// One term of a query: a text, or what names a picture, and how much of it is wanted; below 0, less of it.
struct QueryTerm {
    double weight = 1;
    std::string text;

    friend bool operator==(const QueryTerm&, const QueryTerm&) = default;
};

/// Reads "2:golden retriever" + pool.jpg - fruit: terms with + or - between blanks before them, each with a weight and a
/// colon before it where it is not 1; quotes keep anything together, a backslash keeps a quote. Throws Error, which shows the
/// query, where a term, a quote or a number is missing.
std::vector<QueryTerm> parse_query(std::string_view query);

/// Σ weight · embedding, of length 1; embeddings [terms, width]. Throws Error for sizes that differ, and if nothing is left
/// of the sum.
std::vector<float> combine(std::span<const QueryTerm> terms, std::span<const float> embeddings);

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/tasks/query.impl.hpp>
#endif

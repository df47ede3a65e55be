// Definitions of models/batch_parts.hpp.
#pragma once

#include <bit>
#include <string>

#include <tandem/core/error.hpp>
#include <tandem/models/batch_parts.hpp>

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE std::size_t BatchParts::part_at(std::size_t i) const {
    const std::size_t last = own_parts() - 1;
    return first_part() + (i <= last ? last - i : i - last);
}

TANDEM_INLINE void BatchParts::check(const char* where) const {
    if (count == 0 || part == 0)
        throw Error(where, "pairs, in parts of at least one", std::to_string(count) + " in parts of " + std::to_string(part));
    if (!std::has_single_bit(ranks_count())) throw Error(where, "a number of ranks that is a power of two", std::to_string(ranks_count()));
    if (!std::has_single_bit(shares) || shares < ranks_count())
        throw Error(where, "shares of a batch that are a power of two, and at least as many as its " + std::to_string(ranks_count()) + " ranks", std::to_string(shares));
    if (shares > 1 && (count % part != 0 || parts() % shares != 0))
        throw Error(where, std::to_string(shares) + " shares of as many parts of as many pairs",
                    std::to_string(count) + " pairs in parts of " + std::to_string(part));
}

}  // namespace tandem::inline TANDEM_ABI

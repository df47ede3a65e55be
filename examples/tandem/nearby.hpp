// Where a search among very many looks first: graphs beside the catalogue's file, or an index of pgvector on its server. Both are
// derived from the vectors, and are brought to them whenever they are loaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <tandem/tasks/index.hpp>

#include "catalogue.hpp"
#include "checkpoint.hpp"

namespace program {

class Nearby {
public:
    Nearby() = default;
    Nearby(const Nearby&) = delete;
    Nearby& operator=(const Nearby&) = delete;
    virtual ~Nearby() = default;

    /// Of the pictures of the largest products with a query, as many as are found of k, best first, with Index's scores. `allowed` as
    /// in td::SearchOptions.
    virtual std::vector<td::Match> search(const Catalogue& catalogue, std::span<const float> query, std::size_t k,
                                          std::span<const std::uint64_t> allowed) const = 0;
};

/// That of a catalogue, whose place is named with what a server asks for, made where there is none or it is none, with progress. What was made or changed is kept, and how many of the
/// nearest it finds of held-out texts is said on standard error. `ids` are the numbers of the index' rows, in order; both must
/// outlive it. Throws Error where a server has no pgvector. Null where it cannot be made or brought up to date there, which is said.
std::unique_ptr<const Nearby> open_nearby(const std::string& place, const Catalogue& catalogue, const Opened& opened, const td::Index& index,
                                          const std::vector<std::int64_t>& ids);

inline const Option approximate_option{
    "--approximate", "", "for millions of pictures: find most of the nearest by graphs, kept beside the catalogue, or by pgvector on its server"};

}  // namespace program

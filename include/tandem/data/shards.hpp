// Shards: tar archives whose consecutive files make samples.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/platform.hpp>
#include <tandem/files/tar.hpp>

namespace tandem::inline TANDEM_ABI {

/// Files of one name, told apart by their endings.
struct ShardSample {
    std::string key;                                        ///< what their names begin with, folders included
    std::vector<std::pair<std::string, std::size_t>> parts; ///< ending in lower case without its dot, and which member

    /// The first of some endings that the sample has; TarContents::members' size if it has none.
    std::size_t part(std::initializer_list<std::string_view> endings, std::size_t otherwise) const;
};

/// The samples of an archive in its order. A name's key ends before the first dot behind its last slash, as webdataset has it
/// (webdataset/tariterators.py, base_plus_ext); neighbours of one key are a sample, and an ending that comes again
/// begins the next one (open_clip_train/data.py, group_by_keys_nothrow). Names without a key or an ending are passed over.
std::vector<ShardSample> group_samples(std::span<const TarMember> members);

/// Where the members of a shard stand, as NVIDIA's DALI reads it for random access (tools/wds2idx.py, version v1.2): a line of the version and the number
/// of samples, and a line for each with ending, offset, size and name of its files. Throws Error for a name with white space, which it cannot hold.
std::string shard_index(std::span<const TarMember> members);

/// The members that such an index names, in its order; those of version v1.1, which has no names, are called by the numbers of their samples. Throws Error,
/// which says `where`, for any other text.
std::vector<TarMember> read_shard_index(std::string_view text, const std::string& where);

namespace detail {

/// The text with small letters for A to Z.
std::string small_letters(std::string text);

}  // namespace detail

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/data/shards.impl.hpp>
#endif

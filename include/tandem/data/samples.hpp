// Where image–text pairs are: in the tar shards of webdataset, in a table, in a folder. Nothing is decoded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/platform.hpp>

#if defined(TANDEM_COMPILED) || \
    (__has_include(<png.h>) && __has_include(<jpeglib.h>) && __has_include(<jconfig.h>) && __has_include(<utf8proc.h>))

namespace tandem::inline TANDEM_ABI {

/// What was left out: by cause, and of that by the file that it was in, how often.
using FaultCounts = std::map<std::string, std::map<std::string, std::size_t>>;

/// A pair that is read when it is needed.
struct Sample {
    static constexpr std::uint64_t whole = ~std::uint64_t{0};

    std::uint32_t file = 0;                 ///< of SampleList::files, where the picture is
    std::uint32_t texts = 0;                ///< of SampleList::texts, where captions do not stand in the file
    std::uint64_t offset = 0, size = whole; ///< the picture: all of the file, or these bytes
    std::uint64_t text_offset = 0;          ///< the captions in the file
    std::uint32_t text_size = 0;            ///< 0: they are in `texts`
    bool is_json = false;
    std::string key;                        ///< what the sample is called within its file
};

/// Neighbouring samples of one source, and how often an epoch has each of them: 0.5 is every other one, the others in the next.
struct SampleShare {
    std::size_t first = 0, count = 0;
    double factor = 1;

    /// How many pairs of it an epoch has.
    std::size_t pairs() const;
};

/// Pairs in the order of their files.
struct SampleList {
    std::vector<std::filesystem::path> files;
    std::vector<Sample> samples;
    std::vector<std::vector<std::string>> texts;
    FaultCounts faults;
    std::uint64_t digest = 0;  ///< of all names, places and captions
    std::vector<SampleShare> shares{};  ///< of all samples; empty: an epoch has each once
};

/// The names that a pattern stands for, in its order: {000..123} a range of numbers, all as wide where one has a leading zero, {a,b} one or the other,
/// and :: between patterns, as open_clip's --train-data has it. Throws Error for a brace without its end or within another, and a range that is none.
std::vector<std::string> expand_names(std::string_view pattern);

/// The pairs of tar shards: samples as group_samples makes them, of .jpg, .jpeg, .png or .webp with .txt, .caption or .json, the first
/// of these that is there. A text is a caption as a whole; of a JSON object it is the text under "caption", or each of the texts under "captions"
/// or "caption". Shards are read by several threads. What is damaged is left out and counted under the shard's name: a shard behind
/// damage, but for what an index beside it, NAME.idx (see read_shard_index), still finds there, a sample without its picture or caption, an empty caption, one that is no UTF-8 or JSON, bytes that begin as no picture,
/// a name that leads out of its folder. With `strict` the first of these is an Error, as is a shard that cannot be read always.
SampleList read_shards(std::span<const std::string> paths, bool strict = false);

/// How a table is read; the names are open_clip's defaults.
struct TableOptions {
    std::string image_key = "filepath", caption_key = "title";
    char separator = '\t';
};

/// The pairs of a table with a line of column names (RFC 4180: fields may stand in quotes, with separators, lines and doubled
/// quotes in them): a row is a pair. Pictures that are not found from the working directory, as open_clip looks for them, are looked for beside the table. Rows
/// with another number of fields, without path or caption, and pictures that are not there are left out and counted. Throws Error if a column is missing.
SampleList read_table(const std::filesystem::path& path, const TableOptions& options = {}, bool strict = false);

/// The pictures below a folder in the order of their paths, with the captions of captions.tsv there (see read_captions), or of a .txt, .caption or .json of the
/// same name beside them. A picture without one is left out and counted, as is a folder in it that cannot be read. Links to folders are not followed.
SampleList read_folder(const std::filesystem::path& folder, bool strict = false);

/// Whichever of these a name means by its ending: .tar shards, whose names are expanded; .csv or .tsv a table; any other a folder.
SampleList read_samples(const std::string& what, const TableOptions& table = {}, bool strict = false);

/// The samples of several sources, one behind the other, with how often an epoch has those of each (1 where nothing is given). Throws Error for another number
/// of factors than sources, for one that is not above 0 and at most 1000, and where an epoch would have no pair of a source.
SampleList join_samples(std::vector<SampleList> sources, std::span<const double> factors = {});

/// The captions of a sample: one or more. Throws Error where they cannot be read.
std::vector<std::string> captions_of(const SampleList& list, std::size_t index);

/// The bytes of a sample's picture. Throws Error where they cannot be read.
std::vector<std::byte> picture_of(const SampleList& list, std::size_t index);

namespace detail {

/// Whether bytes begin as a picture that is decoded here.
bool begins_as_picture(std::span<const std::byte> bytes);

}  // namespace detail

/// What an error calls a sample: its file, and its key where there are several.
std::string name_of(const SampleList& list, std::size_t index);

}  // namespace tandem::inline TANDEM_ABI

#endif

#if !defined(TANDEM_COMPILED)
#include <tandem/data/samples.impl.hpp>
#endif

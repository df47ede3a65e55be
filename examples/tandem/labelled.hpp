// What a file says that pictures of a catalogue show, and a split of them in two halves.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include <tandem/tasks/tagging.hpp>

#include "searcher.hpp"

namespace program {

/// The catalogue's pictures with their rows.
struct Collection {
    std::vector<PictureEntry> pictures;
    std::vector<float> rows;
};

Collection read_collection(const Catalogue& catalogue, const Snapshot& data);

/// Which pictures a file speaks of, and what they have; a label brings those that it is below.
struct Known {
    std::vector<std::size_t> pictures;  ///< places in the collection
    td::LabelledPictures data;
};

/// Reads lines of path<TAB>label, paths from the file's folder; a path alone is of a picture that has no label. What the
/// catalogue or the taxonomy has not is counted on standard error. Throws Error if nothing is left.
Known read_labelled(const std::filesystem::path& file, const Collection& collection, const td::Taxonomy& taxonomy);

/// Some of them, by place.
td::LabelledPictures part_of(const Known& known, std::span<const std::size_t> places, std::size_t labels);

/// Two halves: groups of pictures that look alike stand on one side, which the hash of their first one's content tells.
std::array<std::vector<std::size_t>, 2> split(const Collection& collection, const Known& known);

/// What says nothing in particular of a picture.
std::vector<float> embed_neutral(const Opened& opened);

/// Scores [pictures, labels] of one method, by `of` for the row of each picture.
using Scores = std::vector<double>;
Scores scores_of(std::span<const float> rows, std::size_t width, std::size_t labels,
                 const std::function<std::vector<double>(std::span<const float>)>& of);

/// One label's column.
std::vector<double> column_of(const Scores& scores, std::size_t label, std::size_t labels);
std::vector<std::uint8_t> column_of(const std::vector<std::uint8_t>& has, std::size_t label, std::size_t labels);

}  // namespace program

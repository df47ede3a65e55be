// What of many pictures is worth keeping: copies, what is alike, and what fits nothing.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <tandem/core/platform.hpp>
#include <tandem/core/random.hpp>
#include <tandem/images/image.hpp>

namespace tandem::inline TANDEM_ABI {

/// What copies of a picture share, whatever their size, compression and a crop of some percent: lightness and colour on small
/// grids that cover all of it.
struct PictureSignature {
    static constexpr int side = 48, colour_side = 24;

    std::array<std::uint8_t, side * side> light{};
    std::array<std::uint8_t, 2 * colour_side * colour_side> colour{};  ///< Cb, then Cr

    bool operator==(const PictureSignature&) const = default;
};

/// Throws Error for an image without pixels.
PictureSignature signature_of(const Image& image);

/// How well two pictures lie over each other, 1 at best: one less the largest mean difference of lightness in a block of 9 x 9, in parts of
/// the contrast; 0 where colours differ, or most of the contrast. One of the two may be a part of the other that lacks up to
/// 15 % at each edge. Outlines may be off by a 36th of a side, so that what differs only in finer detail is the same.
double same_picture(const PictureSignature& a, const PictureSignature& b);

/// From here on two pictures are the same.
inline constexpr double same_picture_score = 0.88;

/// Why a row went: it is like row `like`, with that cosine.
struct Likeness {
    std::size_t like;
    float cosine;
};

/// Groups around representatives, without chains: in the order given, a row that no representative is as near to as `least` becomes
/// one, and takes what is so near to it and belongs to none yet. Of every row, whose group it is in; of representatives nothing.
/// Rows [N, width] are of length 1. Throws Error for what is no whole row, and an order that is not one of all rows.
std::vector<std::optional<Likeness>> group_alike(std::span<const float> rows, std::size_t width, std::span<const std::size_t> order,
                                                 float least);

/// Centres of length 1, and whose row is nearest to which.
struct Clusters {
    std::vector<float> centres;            ///< [clusters, width]
    std::vector<std::size_t> of;           ///< of every row
    std::vector<std::size_t> sizes() const;
};

/// Spherical k-means (Dhillon, Modha 2001): centres start at rows drawn at random and move to the mean of theirs until nothing
/// changes, `rounds` times at most; an empty cluster takes the row that is farthest from its own. The same seed gives the same
/// clusters, whatever the threads. Throws Error for what is no whole row, and more clusters than rows.
Clusters spherical_k_means(std::span<const float> rows, std::size_t width, std::size_t clusters, Seed seed, std::size_t rounds = 20);

/// SemDeDup (Abbas et al. 2023, section 3): inside a cluster, a row goes if one that is farther from the centre has a cosine above
/// 1 − epsilon with it. Of every row, what it goes for; of those that stay nothing.
std::vector<std::optional<Likeness>> semantic_duplicates(std::span<const float> rows, std::size_t width, const Clusters& clusters,
                                                         double epsilon);

/// The mean cosine of every row with the `neighbours` others that are nearest to it: what is far from all others fits nothing.
/// Throws Error for what is no whole row, and fewer than 2 rows.
std::vector<double> nearness(std::span<const float> rows, std::size_t width, std::size_t neighbours = 10);

/// How many deviations each value lies from the median, the deviation being 1.4826 times the median of all distances from it
/// (Iglewicz, Hoaglin 1993). 0 for all where that is 0.
std::vector<double> robust_scores(std::span<const double> values);

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/tasks/curation.impl.hpp>
#endif

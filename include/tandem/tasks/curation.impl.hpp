// Definitions of tasks/curation.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/images/resize.hpp>
#include <tandem/kernels/gemm.hpp>
#include <tandem/tasks/curation.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// How many rows there are.
TANDEM_INLINE std::size_t whole_rows(std::span<const float> rows, std::size_t width, const char* where) {
    if (width == 0 || rows.size() % width != 0) throw Error(where, "rows of width " + std::to_string(width), std::to_string(rows.size()) + " numbers");
    return rows.size() / width;
}

/// Cosines of some rows with all: [some, all].
TANDEM_INLINE void cosines_of(std::span<const float> some, std::span<const float> all, std::size_t width, std::vector<float>& to) {
    const std::size_t m = some.size() / width, n = all.size() / width;
    to.resize(m * n);
    kernels::gemm<float>(m, n, width, kernels::row_major(some.data(), width), kernels::row_major(all.data(), width).transposed(), to.data(), n);
}

/// What of a picture lies over another: the share that is left out at the left, top, right and bottom.
using Margins = std::array<double, 4>;

/// Where places of an axis lie in a grid of `side`, between the margins: two of its own, and the second one's share.
template <std::size_t places>
std::array<std::pair<std::size_t, float>, places> places_between(double before, double behind, std::size_t side) {
    std::array<std::pair<std::size_t, float>, places> axis;
    for (std::size_t i = 0; i < places; ++i) {
        const double at = (before + (static_cast<double>(i) + 0.5) / static_cast<double>(places) * (1 - before - behind)) * static_cast<double>(side) - 0.5;
        const double first = std::clamp(std::floor(at), 0.0, static_cast<double>(side - 2));
        axis[i] = {static_cast<std::size_t>(first), static_cast<float>(std::clamp(at - first, 0.0, 1.0))};
    }
    return axis;
}

/// A grid [side, side] between margins, on another one; linear between its own.
template <std::size_t places>
std::array<float, places * places> sampled(const std::uint8_t* grid, std::size_t side, const Margins& inner) {
    const auto columns = places_between<places>(inner[0], inner[2], side), rows = places_between<places>(inner[1], inner[3], side);
    std::array<float, places * places> found;
    for (std::size_t y = 0; y < places; ++y) {
        const auto [top, down] = rows[y];
        const std::uint8_t* const above = grid + top * side;
        for (std::size_t x = 0; x < places; ++x) {
            const auto [left, across] = columns[x];
            const auto mixed = [&](const std::uint8_t* row) { return static_cast<float>(row[left]) * (1 - across) + static_cast<float>(row[left + 1]) * across; };
            found[y * places + x] = mixed(above) * (1 - down) + mixed(above + side) * down;
        }
    }
    return found;
}
template <std::size_t places>
std::array<float, places * places> lightness(const PictureSignature& of, const Margins& inner) {
    return sampled<places>(of.light.data(), PictureSignature::side, inner);
}

template <std::size_t count>
double squares_apart(const std::array<float, count>& a, const std::array<float, count>& b) {
    float sum = 0;
    for (std::size_t i = 0; i < count; ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return static_cast<double>(sum);
}

/// The mean square of what lies around the mean.
template <std::size_t count>
double variance_of(const std::array<float, count>& values) {
    double mean = 0, sum = 0;
    for (const float value : values) mean += static_cast<double>(value);
    mean /= static_cast<double>(count);
    for (const float value : values) sum += (static_cast<double>(value) - mean) * (static_cast<double>(value) - mean);
    return sum / static_cast<double>(count);
}

/// How far every place of a lies from what b has there and at its eight neighbours: outlines move by less than a place with a
/// copy's resizing.
template <std::size_t places>
std::array<float, places * places> beyond_neighbours(const std::array<float, places * places>& a, const std::array<float, places * places>& b) {
    std::array<float, places * places> found;
    for (std::size_t y = 0; y < places; ++y) {
        for (std::size_t x = 0; x < places; ++x) {
            float low = b[y * places + x], high = low;
            for (std::size_t v = y > 0 ? y - 1 : 0; v <= std::min(y + 1, places - 1); ++v) {
                for (std::size_t u = x > 0 ? x - 1 : 0; u <= std::min(x + 1, places - 1); ++u) {
                    low = std::min(low, b[v * places + u]);
                    high = std::max(high, b[v * places + u]);
                }
            }
            found[y * places + x] = std::max({0.0F, low - a[y * places + x], a[y * places + x] - high});
        }
    }
    return found;
}

/// Whether colours are alike, where b lies over a part of a: nowhere far from what the other has there and around it.
TANDEM_INLINE bool has_colours_of(const PictureSignature& a, const Margins& inner, const PictureSignature& b) {
    constexpr std::size_t side = PictureSignature::colour_side, plane = side * side, places = 18;
    constexpr float most_apart = 24;
    for (const std::size_t at : {std::size_t{0}, plane}) {
        const auto of_a = sampled<places>(a.colour.data() + at, side, inner), of_b = sampled<places>(b.colour.data() + at, side, {});
        if (std::ranges::max(beyond_neighbours<places>(of_a, of_b)) > most_apart || std::ranges::max(beyond_neighbours<places>(of_b, of_a)) > most_apart) return false;
    }
    return true;
}

/// One less the largest mean difference in a block of places, in deviations of b's lightness, where b lies best over a part of a.
TANDEM_INLINE double lies_over(const PictureSignature& a, const PictureSignature& b) {
    constexpr std::size_t coarse = 12, places = 36, blocks = 9, size = places / blocks;
    constexpr double most = 0.15, least_variance = 64;
    // All margins by twentieths on a coarse grid, the best of them nearer on a fine one.
    Margins inner{};
    const auto roughly_b = lightness<coarse>(b, {});
    double best = std::numeric_limits<double>::infinity();
    for (int i = 0; i < 256; ++i) {
        const Margins tried{i % 4 * 0.05, i / 4 % 4 * 0.05, i / 16 % 4 * 0.05, i / 64 * 0.05};
        const double found = squares_apart(lightness<coarse>(a, tried), roughly_b);
        if (found < best) best = found, inner = tried;
    }
    // Most of the contrast is explained by now, or never.
    if (best > 0.5 * std::max(least_variance, variance_of(roughly_b)) * static_cast<double>(coarse * coarse)) return 0;
    const auto of_b = lightness<places>(b, {});
    best = squares_apart(lightness<places>(a, inner), of_b);
    for (const double step : {0.03, 0.015, 0.0075}) {
        for (bool better = true; better;) {
            better = false;
            // An edge alone, or two that move together.
            constexpr std::array<std::array<int, 4>, 8> moves{{{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}, {1, 0, 1, 0}, {0, 1, 0, 1}, {1, 0, -1, 0}, {0, 1, 0, -1}}};
            for (const auto& move : moves) {
                for (const double sign : {step, -step}) {
                    Margins tried = inner;
                    for (std::size_t i = 0; i < 4; ++i) tried[i] = std::clamp(tried[i] + sign * move[i], 0.0, most);
                    if (tried == inner) continue;
                    const double found = squares_apart(lightness<places>(a, tried), of_b);
                    if (found < best * 0.999) best = found, inner = tried, better = true;
                }
            }
        }
    }
    if (!has_colours_of(a, inner, b)) return 0;
    const auto of_a = lightness<places>(a, inner);
    const auto one = beyond_neighbours<places>(of_a, of_b), other = beyond_neighbours<places>(of_b, of_a);
    // Where next to nothing is to be seen, noise is no difference.
    const double deviation = std::sqrt(std::max(least_variance, variance_of(of_b)));
    double worst = 0;
    for (std::size_t block = 0; block < blocks * blocks; ++block) {
        double sum = 0;
        for (std::size_t i = 0; i < size * size; ++i) {
            const std::size_t at = (block / blocks * size + i / size) * places + block % blocks * size + i % size;
            sum += static_cast<double>(one[at] + other[at]) / 2;
        }
        worst = std::max(worst, sum / (size * size));
    }
    return 1 - worst / deviation;
}

}  // namespace detail

TANDEM_INLINE PictureSignature signature_of(const Image& image) {
    detail::check_image(image, "signature_of");
    PictureSignature found;
    // ITU-R BT.601, full range.
    const auto light = [](const std::uint8_t* pixel) { return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]; };
    const Image small = resize(image, PictureSignature::side, PictureSignature::side, Filter::bilinear);
    for (std::size_t i = 0; i < found.light.size(); ++i) found.light[i] = static_cast<std::uint8_t>(std::lround(light(small.pixels.data() + 3 * i)));
    const Image tiny = resize(image, PictureSignature::colour_side, PictureSignature::colour_side, Filter::bilinear);
    constexpr std::size_t places = found.colour.size() / 2;
    for (std::size_t i = 0; i < places; ++i) {
        const std::uint8_t* const pixel = tiny.pixels.data() + 3 * i;
        found.colour[i] = static_cast<std::uint8_t>(std::clamp(std::lround(128 + 0.564 * (pixel[2] - light(pixel))), 0L, 255L));
        found.colour[places + i] = static_cast<std::uint8_t>(std::clamp(std::lround(128 + 0.713 * (pixel[0] - light(pixel))), 0L, 255L));
    }
    return found;
}

TANDEM_INLINE double same_picture(const PictureSignature& a, const PictureSignature& b) {
    // What differs on the whole is no copy with some percent cut off.
    constexpr double most_light = 40, most_colour = 16;
    const auto mean = [](std::span<const std::uint8_t> values) { return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size()); };
    constexpr std::size_t plane = PictureSignature::colour_side * PictureSignature::colour_side;
    const auto apart = [&](const std::uint8_t* one, const std::uint8_t* other, std::size_t size) {
        return std::abs(mean(std::span(one, size)) - mean(std::span(other, size)));
    };
    if (apart(a.light.data(), b.light.data(), a.light.size()) > most_light || apart(a.colour.data(), b.colour.data(), plane) > most_colour ||
        apart(a.colour.data() + plane, b.colour.data() + plane, plane) > most_colour)
        return 0;
    return std::max(detail::lies_over(a, b), detail::lies_over(b, a));
}

TANDEM_INLINE std::vector<std::optional<Likeness>> group_alike(std::span<const float> rows, std::size_t width, std::span<const std::size_t> order,
                                                               float least) {
    const std::size_t count = detail::whole_rows(rows, width, "group_alike");
    std::vector<std::uint8_t> listed(count);
    for (const std::size_t row : order) {
        if (row >= count || listed[row] != 0) throw Error("group_alike", "every row once in the order", "row " + std::to_string(row) + (row < count ? " twice" : ""));
        listed[row] = 1;
    }
    if (order.size() != count) throw Error("group_alike", std::to_string(count) + " rows in the order", std::to_string(order.size()));
    std::vector<std::optional<Likeness>> found(count);
    std::vector<std::uint8_t> taken(count);
    constexpr std::size_t at_once = 64;
    std::vector<float> some, cosines;
    for (std::size_t first = 0; first < count;) {
        // Rows that are free so far; those of them that an earlier one takes are passed over below.
        std::vector<std::size_t> asked;
        for (; first < count && asked.size() < at_once; ++first) {
            if (taken[order[first]] == 0) asked.push_back(order[first]);
        }
        some.clear();
        for (const std::size_t row : asked) some.insert(some.end(), rows.begin() + static_cast<std::ptrdiff_t>(row * width), rows.begin() + static_cast<std::ptrdiff_t>((row + 1) * width));
        detail::cosines_of(some, rows, width, cosines);
        for (std::size_t i = 0; i < asked.size(); ++i) {
            if (taken[asked[i]] != 0) continue;
            taken[asked[i]] = 1;
            for (std::size_t row = 0; row < count; ++row) {
                if (taken[row] != 0 || cosines[i * count + row] < least) continue;
                taken[row] = 1;
                found[row] = Likeness{asked[i], cosines[i * count + row]};
            }
        }
    }
    return found;
}

TANDEM_INLINE std::vector<std::size_t> Clusters::sizes() const {
    std::size_t most = 0;
    for (const std::size_t cluster : of) most = std::max(most, cluster + 1);
    std::vector<std::size_t> counts(most);
    for (const std::size_t cluster : of) ++counts[cluster];
    return counts;
}

TANDEM_INLINE Clusters spherical_k_means(std::span<const float> rows, std::size_t width, std::size_t clusters, Seed seed, std::size_t rounds) {
    const std::size_t count = detail::whole_rows(rows, width, "spherical_k_means");
    if (clusters == 0 || clusters > count) throw Error("spherical_k_means", "1 to " + std::to_string(count) + " clusters", std::to_string(clusters));
    const auto row = [&](std::size_t i) { return rows.subspan(i * width, width); };
    Random random(seed);
    std::vector<std::size_t> order(count);
    std::iota(order.begin(), order.end(), std::size_t{0});
    shuffle(order, random);
    Clusters found{.centres = {}, .of = std::vector<std::size_t>(count)};
    for (std::size_t i = 0; i < clusters; ++i) found.centres.insert(found.centres.end(), row(order[i]).begin(), row(order[i]).end());
    std::vector<float> nearest(count), cosines;
    constexpr std::size_t at_once = 4096;
    for (std::size_t round = 0; round <= rounds; ++round) {
        bool changed = round == 0;
        for (std::size_t first = 0; first < count; first += at_once) {
            const std::size_t some = std::min(at_once, count - first);
            detail::cosines_of(rows.subspan(first * width, some * width), found.centres, width, cosines);
            for (std::size_t i = 0; i < some; ++i) {
                const auto begin = cosines.begin() + static_cast<std::ptrdiff_t>(i * clusters), end = begin + static_cast<std::ptrdiff_t>(clusters);
                const auto best = std::max_element(begin, end);
                changed |= found.of[first + i] != static_cast<std::size_t>(best - begin);
                found.of[first + i] = static_cast<std::size_t>(best - begin);
                nearest[first + i] = *best;
            }
        }
        if (!changed || round == rounds) break;
        std::vector<double> sums(clusters * width);
        std::vector<std::size_t> sizes(clusters);
        for (std::size_t i = 0; i < count; ++i) {
            for (std::size_t j = 0; j < width; ++j) sums[found.of[i] * width + j] += static_cast<double>(row(i)[j]);
            ++sizes[found.of[i]];
        }
        for (std::size_t cluster = 0; cluster < clusters; ++cluster) {
            double length = 0;
            for (std::size_t j = 0; j < width; ++j) length += sums[cluster * width + j] * sums[cluster * width + j];
            if (sizes[cluster] == 0 || length == 0) {
                const auto far = static_cast<std::size_t>(std::ranges::min_element(nearest) - nearest.begin());
                std::ranges::copy(row(far), found.centres.begin() + static_cast<std::ptrdiff_t>(cluster * width));
                nearest[far] = 1;  // not for the next empty one as well
                continue;
            }
            for (std::size_t j = 0; j < width; ++j) found.centres[cluster * width + j] = static_cast<float>(sums[cluster * width + j] / std::sqrt(length));
        }
    }
    return found;
}

TANDEM_INLINE std::vector<std::optional<Likeness>> semantic_duplicates(std::span<const float> rows, std::size_t width, const Clusters& clusters,
                                                                       double epsilon) {
    const std::size_t count = detail::whole_rows(rows, width, "semantic_duplicates");
    if (clusters.of.size() != count) throw Error("semantic_duplicates", "clusters of " + std::to_string(count) + " rows", std::to_string(clusters.of.size()));
    std::vector<std::vector<std::size_t>> members(clusters.centres.size() / width);
    for (std::size_t i = 0; i < count; ++i) {
        if (clusters.of[i] >= members.size()) throw Error("semantic_duplicates", "clusters below " + std::to_string(members.size()), std::to_string(clusters.of[i]));
        members[clusters.of[i]].push_back(i);
    }
    std::vector<std::optional<Likeness>> found(count);
    const auto least = static_cast<float>(1 - epsilon);
    std::vector<float> some, cosines, centre;
    for (std::size_t cluster = 0; cluster < members.size(); ++cluster) {
        some.clear();
        for (const std::size_t i : members[cluster]) some.insert(some.end(), rows.begin() + static_cast<std::ptrdiff_t>(i * width), rows.begin() + static_cast<std::ptrdiff_t>((i + 1) * width));
        const std::size_t size = members[cluster].size();
        if (size < 2) continue;
        detail::cosines_of(some, std::span(clusters.centres).subspan(cluster * width, width), width, centre);
        std::vector<std::size_t> order(size);
        std::iota(order.begin(), order.end(), std::size_t{0});
        std::ranges::sort(order, {}, [&](std::size_t i) { return std::pair(centre[i], members[cluster][i]); });
        // Rows in that order, some at a time, with those that stand before them.
        std::vector<float> ordered;
        for (const std::size_t i : order) ordered.insert(ordered.end(), some.begin() + static_cast<std::ptrdiff_t>(i * width), some.begin() + static_cast<std::ptrdiff_t>((i + 1) * width));
        constexpr std::size_t at_once = 256;
        for (std::size_t first = 0; first < size; first += at_once) {
            const std::size_t end = std::min(size, first + at_once);
            detail::cosines_of(std::span(ordered).subspan(first * width, (end - first) * width), std::span(ordered).first(end * width), width, cosines);
            for (std::size_t i = first; i < end; ++i) {
                const auto begin = cosines.begin() + static_cast<std::ptrdiff_t>((i - first) * end);
                const auto best = std::max_element(begin, begin + static_cast<std::ptrdiff_t>(i));
                if (i > 0 && *best > least) found[members[cluster][order[i]]] = Likeness{members[cluster][order[static_cast<std::size_t>(best - begin)]], *best};
            }
        }
    }
    return found;
}

TANDEM_INLINE std::vector<double> nearness(std::span<const float> rows, std::size_t width, std::size_t neighbours) {
    const std::size_t count = detail::whole_rows(rows, width, "nearness");
    if (count < 2 || neighbours == 0) throw Error("nearness", "2 rows or more, and a neighbour", std::to_string(count) + " rows, " + std::to_string(neighbours) + " neighbours");
    const std::size_t k = std::min(neighbours, count - 1);
    std::vector<double> found(count);
    std::vector<float> cosines;
    constexpr std::size_t at_once = 256;
    for (std::size_t first = 0; first < count; first += at_once) {
        const std::size_t some = std::min(at_once, count - first);
        detail::cosines_of(rows.subspan(first * width, some * width), rows, width, cosines);
        parallel_for(some, 8, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                const auto row = std::span(cosines).subspan(i * count, count);
                row[first + i] = -2;  // not itself
                std::ranges::partial_sort(row, row.begin() + static_cast<std::ptrdiff_t>(k), std::greater<>());
                found[first + i] = std::accumulate(row.begin(), row.begin() + static_cast<std::ptrdiff_t>(k), 0.0) / static_cast<double>(k);
            }
        });
    }
    return found;
}

TANDEM_INLINE std::vector<double> robust_scores(std::span<const double> values) {
    const auto median = [](std::vector<double> some) {
        const auto middle = some.begin() + static_cast<std::ptrdiff_t>(some.size() / 2);
        std::ranges::nth_element(some, middle);
        return *middle;
    };
    std::vector<double> scores(values.size());
    if (values.empty()) return scores;
    const double centre = median({values.begin(), values.end()});
    for (std::size_t i = 0; i < values.size(); ++i) scores[i] = std::abs(values[i] - centre);
    const double deviation = 1.4826 * median(scores);
    for (std::size_t i = 0; i < values.size(); ++i) scores[i] = deviation > 0 ? (values[i] - centre) / deviation : 0;
    return scores;
}

}  // namespace tandem::inline TANDEM_ABI

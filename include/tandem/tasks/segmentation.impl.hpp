// Definitions of tasks/segmentation.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/images/resize.hpp>
#include <tandem/tasks/segmentation.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// Where windows of `window` places begin along `side` of them, half a window apart; the last one ends with the side.
TANDEM_INLINE std::vector<std::size_t> window_starts(std::size_t side, std::size_t window) {
    std::vector<std::size_t> starts;
    const std::size_t step = std::max<std::size_t>(1, window / 2);
    for (std::size_t at = 0; at + window < side; at += step) starts.push_back(at);
    starts.push_back(side - window);
    return starts;
}

/// Of one axis of a larger map: the two places that a pixel lies between, and the second one's share.
struct Between {
    std::size_t first, second;
    float share;
};
TANDEM_INLINE std::vector<Between> between(std::size_t places, std::size_t pixels) {
    std::vector<Between> axis;
    for (std::size_t i = 0; i < pixels; ++i) {
        const double centre = (static_cast<double>(i) + 0.5) * static_cast<double>(places) / static_cast<double>(pixels) - 0.5;
        const double place = std::clamp(centre, 0.0, static_cast<double>(places - 1));
        const auto first = static_cast<std::size_t>(place);
        axis.push_back({first, std::min(first + 1, places - 1), static_cast<float>(place - static_cast<double>(first))});
    }
    return axis;
}
TANDEM_INLINE float at(std::span<const float> map, std::size_t width, const Between& y, const Between& x) {
    const float* const top = map.data() + y.first * width;
    const float* const bottom = map.data() + y.second * width;
    return (top[x.first] * (1 - x.share) + top[x.second] * x.share) * (1 - y.share) +
           (bottom[x.first] * (1 - x.share) + bottom[x.second] * x.share) * y.share;
}

}  // namespace detail

TANDEM_INLINE PhraseMaps phrase_maps(const Image& picture, const Preprocess& recipe, std::size_t patch, const EmbedPatches& embed,
                                     std::span<const float> phrases, std::size_t count, std::size_t windows) {
    detail::check_image(picture, "phrase_maps");
    if (count == 0 || phrases.empty() || phrases.size() % count != 0)
        throw Error("phrase_maps", "rows of phrases, all of one width", std::to_string(count) + " rows of " + std::to_string(phrases.size()) + " numbers in all");
    if (patch == 0 || patch > std::min(recipe.size.height, recipe.size.width))
        throw Error("phrase_maps", "patches of 1 to " + std::to_string(std::min(recipe.size.height, recipe.size.width)) + " pixels", std::to_string(patch));
    if (windows == 0) throw Error("phrase_maps", "1 window or more", "0");
    const ImageSize window(recipe.size.height / patch, recipe.size.width / patch);
    const std::size_t width = phrases.size() / count;
    // `windows` windows, half a window apart, along the side that needs fewer of them.
    const auto places = [&](std::size_t side) { return side + (windows - 1) * std::max<std::size_t>(1, side / 2); };
    const double scale = std::max(static_cast<double>(places(window.height)) / picture.height, static_cast<double>(places(window.width)) / picture.width);
    const auto whole = [&](int side, std::size_t least) {
        return std::max(least, static_cast<std::size_t>(std::lround(scale * side)));
    };
    constexpr std::size_t most_windows = 4096;
    const std::size_t across = whole(picture.width, window.width), down = whole(picture.height, window.height);
    if (across / std::max<std::size_t>(1, window.width / 2) * (down / std::max<std::size_t>(1, window.height / 2)) > most_windows)
        throw Error("phrase_maps", "a picture that fewer than " + std::to_string(most_windows) + " windows cover", std::to_string(picture.width) + " x " + std::to_string(picture.height) + " pixels");
    PhraseMaps maps{.phrases = count, .grid = ImageSize(down, across), .values = {}};
    maps.values.resize(count * maps.grid.area());
    std::vector<float> seen(maps.grid.area());
    const Image resized = resize(picture, static_cast<int>(maps.grid.width * patch), static_cast<int>(maps.grid.height * patch), recipe.filter, recipe.resampling);
    std::vector<std::pair<std::size_t, std::size_t>> starts;
    for (const std::size_t top : detail::window_starts(maps.grid.height, window.height)) {
        for (const std::size_t left : detail::window_starts(maps.grid.width, window.width)) starts.emplace_back(top, left);
    }
    constexpr std::size_t at_once = 16;
    for (std::size_t first = 0; first < starts.size(); first += at_once) {
        const std::size_t some = std::min(at_once, starts.size() - first);
        std::vector<float> pixels(some * recipe.count());
        for (std::size_t i = 0; i < some; ++i) {
            // Where patches do not fill the model's image, it does not look at the rest.
            const auto [top, left] = starts[first + i];
            const int y = static_cast<int>(top * patch), x = static_cast<int>(left * patch);
            const Region part{x, y, static_cast<int>(window.width * patch), static_cast<int>(window.height * patch)};
            const Image cut = detail::place(detail::view(resized, part), static_cast<int>(recipe.size.width), static_cast<int>(recipe.size.height), 0, 0, recipe.padding);
            normalise(cut, recipe.mean, recipe.deviation, std::span(pixels).subspan(i * recipe.count(), recipe.count()));
        }
        const std::vector<float> rows = embed(pixels);
        if (rows.size() != some * window.area() * width)
            throw Error("phrase_maps", std::to_string(window.area()) + " patches of width " + std::to_string(width) + " in each of " + std::to_string(some) + " windows",
                        std::to_string(rows.size()) + " numbers");
        for (std::size_t i = 0; i < some * window.area(); ++i) {
            const auto [top, left] = starts[first + i / window.area()];
            const std::size_t inside = i % window.area();
            const std::size_t at = (top + inside / window.width) * maps.grid.width + left + inside % window.width;
            const float* const row = rows.data() + i * width;
            for (std::size_t phrase = 0; phrase < count; ++phrase)
                maps.values[phrase * seen.size() + at] += std::inner_product(row, row + width, phrases.data() + phrase * width, 0.0F);
            seen[at] += 1;
        }
    }
    for (std::size_t i = 0; i < maps.values.size(); ++i) maps.values[i] /= seen[i % seen.size()];
    return maps;
}

TANDEM_INLINE std::vector<float> enlarge(std::span<const float> map, const ImageSize& grid, const ImageSize& size) {
    if (grid.area() == 0 || map.size() != grid.area() || size.area() == 0)
        throw Error("enlarge", "a map of " + to_string(grid) + " values, and a size of 1 or more",
                    std::to_string(map.size()) + " values, and " + to_string(size));
    const std::vector<detail::Between> rows = detail::between(grid.height, size.height), columns = detail::between(grid.width, size.width);
    std::vector<float> out;
    out.reserve(size.area());
    for (const detail::Between& y : rows) {
        for (const detail::Between& x : columns) out.push_back(detail::at(map, grid.width, y, x));
    }
    return out;
}

TANDEM_INLINE double Segmentation::share(std::uint16_t label) const {
    return labels.empty() ? 0 : static_cast<double>(std::ranges::count(labels, label)) / static_cast<double>(labels.size());
}

TANDEM_INLINE Segmentation segment(const PhraseMaps& maps, const ImageSize& size, const SegmentOptions& options) {
    if (maps.phrases <= options.background || maps.phrases >= Segmentation::background)
        throw Error("segment", "1 to 65,534 phrases, one or more beside the background",
                    std::to_string(maps.phrases) + ", " + std::to_string(options.background) + " of them background");
    if (maps.grid.area() == 0 || maps.values.size() != maps.phrases * maps.grid.area() || size.area() == 0)
        throw Error("segment", "maps of " + to_string(maps.grid) + " values, and a size of 1 or more",
                    std::to_string(maps.values.size()) + " values, and " + to_string(size));
    const std::size_t wanted = maps.phrases - options.background;
    const std::vector<detail::Between> rows = detail::between(maps.grid.height, size.height), columns = detail::between(maps.grid.width, size.width);
    Segmentation found{.size = size, .labels = std::vector<std::uint16_t>(size.area()), .probabilities = std::vector<float>(size.area())};
    parallel_for(size.height, 8, [&](std::size_t begin, std::size_t end) {
        std::vector<double> values(maps.phrases);
        for (std::size_t y = begin; y < end; ++y) {
            for (std::size_t x = 0; x < size.width; ++x) {
                for (std::size_t i = 0; i < maps.phrases; ++i)
                    values[i] = options.scale * (static_cast<double>(detail::at(maps.of(i), maps.grid.width, rows[y], columns[x])) + (i < wanted ? 0 : options.handicap));
                const auto best = static_cast<std::size_t>(std::max_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(wanted)) - values.begin());
                const double top = values[best], largest = *std::ranges::max_element(values);
                double sum = 0;
                for (const double value : values) sum += std::exp(value - largest);
                const double probability = std::exp(top - largest) / sum;
                const bool is_phrase = top >= largest && probability >= options.least;
                found.labels[y * size.width + x] = is_phrase ? static_cast<std::uint16_t>(best) : Segmentation::background;
                found.probabilities[y * size.width + x] = static_cast<float>(probability);
            }
        }
    });
    return found;
}

TANDEM_INLINE void Overlap::add(std::span<const std::uint16_t> found, std::span<const std::uint16_t> truth) {
    if (found.size() != truth.size()) throw Error("Overlap::add", std::to_string(truth.size()) + " labels", std::to_string(found.size()));
    const std::size_t classes = both_.size() - 1;
    const auto place = [&](std::uint16_t label) {
        if (label >= classes && label != Segmentation::background)
            throw Error("Overlap::add", "a label below " + std::to_string(classes) + ", or background", std::to_string(label));
        return std::min<std::size_t>(label, classes);
    };
    for (std::size_t i = 0; i < truth.size(); ++i) {
        const std::size_t a = place(found[i]), b = place(truth[i]);
        ++found_[a];
        ++true_[b];
        if (a == b) ++both_[a];
    }
}

TANDEM_INLINE double Overlap::mean_iou() const {
    double sum = 0, classes = 0;
    for (std::size_t i = 0; i + (with_background_ ? 0 : 1) < both_.size(); ++i) {
        const std::size_t either = found_[i] + true_[i] - both_[i];
        if (either == 0) continue;
        sum += static_cast<double>(both_[i]) / static_cast<double>(either);
        classes += 1;
    }
    return classes == 0 ? 0 : sum / classes;
}

TANDEM_INLINE double Overlap::accuracy() const {
    const auto all = std::accumulate(true_.begin(), true_.end(), std::size_t{0});
    return all == 0 ? 0 : static_cast<double>(std::accumulate(both_.begin(), both_.end(), std::size_t{0})) / static_cast<double>(all);
}

}  // namespace tandem::inline TANDEM_ABI

#include "scenes.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <map>
#include <numeric>

#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/images/codec.hpp>
#include <tandem/images/resize.hpp>
#include <tandem/tasks/segmentation.hpp>

#include "inputs.hpp"

namespace program {

namespace {

/// A drawing cut to where it is, or nothing if it has no transparent ground.
std::optional<Cutout> read_cutout(const std::filesystem::path& path) {
    td::Image image = td::read_image(path, {});
    if (image.storage != td::Storage::alpha) return std::nullopt;
    const int width = image.width;
    int left = image.width, top = image.height, right = 0, bottom = 0;
    std::size_t solid = 0;
    for (int i = 0; i < width * image.height; ++i) {
        if (image.samples[static_cast<std::size_t>(i)] < 128) continue;
        left = std::min(left, i % width), right = std::max(right, i % width + 1);
        top = std::min(top, i / width), bottom = std::max(bottom, i / width + 1);
        ++solid;
    }
    // A drawing of a few specks, or one that fills its frame, has no outline.
    if (solid < 64 || solid > image.samples.size() * 49 / 50) return std::nullopt;
    Cutout cut{.colours = td::crop(image, {left, top, right - left, bottom - top}), .alpha = {}};
    for (int y = top; y < bottom; ++y) {
        const auto row = image.samples.begin() + y * width;
        cut.alpha.insert(cut.alpha.end(), row + left, row + right);
    }
    return cut;
}

/// A drawing that fits into a square.
Cutout fitted(const Cutout& cutout, int side) {
    const int longest = std::max(cutout.colours.width, cutout.colours.height);
    const int width = std::max(1, cutout.colours.width * side / longest), height = std::max(1, cutout.colours.height * side / longest);
    // Colours weigh by their alpha, or the ground's own would bleed in.
    td::Image weighed = cutout.colours, alpha = cutout.colours;
    for (std::size_t i = 0; i < cutout.alpha.size(); ++i) {
        for (std::size_t c = 0; c < 3; ++c) {
            weighed.pixels[3 * i + c] = td::detail::blend(cutout.colours.pixels[3 * i + c], 0, cutout.alpha[i]);
            alpha.pixels[3 * i + c] = cutout.alpha[i];
        }
    }
    Cutout out{.colours = td::resize(weighed, width, height, td::Filter::bilinear), .alpha = {}};
    const td::Image small = td::resize(alpha, width, height, td::Filter::bilinear);
    for (std::size_t i = 0; i < small.pixels.size(); i += 3) out.alpha.push_back(small.pixels[i]);
    return out;
}

Scene empty_scene(int side) {
    const auto area = static_cast<std::size_t>(side) * static_cast<std::size_t>(side);
    return {.image = {.width = side, .height = side, .pixels = std::vector<std::uint8_t>(3 * area, 255)},
            .labels = std::vector<std::uint16_t>(area, td::Segmentation::background),
            .placed = {}};
}

}  // namespace

Drawings read_drawings(const std::filesystem::path& file) {
    std::map<std::string, std::vector<std::filesystem::path>> found;
    for (const std::string& line : read_texts(file)) {
        const std::size_t tab = line.find('\t');
        if (line.empty()) continue;
        if (tab == std::string::npos || tab + 1 == line.size()) throw td::Error(file.string(), "path<TAB>label in every line", line);
        found[line.substr(tab + 1)].push_back(file.parent_path() / line.substr(0, tab));
    }
    Drawings drawings;
    std::size_t passed_over = 0;
    for (auto& [label, paths] : found) {
        std::vector<std::uint8_t> usable(paths.size());
        td::parallel_for(paths.size(), 1, [&](std::size_t begin, std::size_t end) {
            for (; begin < end; ++begin) {
                try {
                    usable[begin] = read_cutout(paths[begin]) ? 1 : 0;
                } catch (const td::Error&) {
                }
            }
        });
        std::vector<std::filesystem::path> kept;
        for (std::size_t i = 0; i < paths.size(); ++i) {
            if (usable[i] != 0) kept.push_back(std::move(paths[i]));
        }
        passed_over += paths.size() - kept.size();
        if (kept.empty()) continue;
        drawings.labels.push_back(label);
        drawings.of_label.push_back(std::move(kept));
    }
    if (passed_over > 0) std::fprintf(stderr, "%s: %zu drawings passed over: damaged, or without a transparent ground around them\n", file.c_str(), passed_over);
    if (drawings.labels.size() < 4) throw td::Error(file.string(), "drawings of four labels or more", std::to_string(drawings.labels.size()));
    return drawings;
}

Cutout SceneMaker::draw(std::size_t label) {
    const std::vector<std::filesystem::path>& paths = drawings_.of_label[label];
    const std::filesystem::path& path = paths[random_.below(paths.size())];
    std::optional<Cutout> cutout = read_cutout(path);
    if (!cutout) throw td::Error(path.string(), "the drawing that was there before", "another one");
    return std::move(*cutout);
}

void SceneMaker::place(Scene& scene, const Cutout& cutout, std::size_t label, int left, int top, int side) {
    // 60 to 95 % of the place, anywhere in it.
    const int size = std::max(1, static_cast<int>(std::lround(side * random_.uniform(0.6, 0.95))));
    const Cutout drawing = fitted(cutout, size);
    const int width = drawing.colours.width, height = drawing.colours.height;
    const int x = left + static_cast<int>(random_.below(static_cast<std::size_t>(side - width + 1)));
    const int y = top + static_cast<int>(random_.below(static_cast<std::size_t>(side - height + 1)));
    for (int i = 0; i < width * height; ++i) {
        const auto from = static_cast<std::size_t>(i);
        const auto to = static_cast<std::size_t>((y + i / width) * scene.image.width + x + i % width);
        for (std::size_t c = 0; c < 3; ++c) {
            std::uint8_t& level = scene.image.pixels[3 * to + c];
            level = static_cast<std::uint8_t>(std::min(255, drawing.colours.pixels[3 * from + c] + td::detail::blend(level, 0, 255U - drawing.alpha[from])));
        }
        if (drawing.alpha[from] >= 128) scene.labels[to] = static_cast<std::uint16_t>(label);
    }
    scene.placed.push_back({.label = label, .left = x, .top = y, .width = width, .height = height});
}

std::vector<std::size_t> SceneMaker::some_labels(std::size_t count) {
    std::vector<std::size_t> all(drawings_.labels.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    td::shuffle(all, random_);
    all.resize(std::min(count, all.size()));
    return all;
}

Scene SceneMaker::compose(const std::vector<std::size_t>& labels, int side, bool shuffled) {
    Scene scene = empty_scene(side);
    if (labels.size() > 4) throw td::Error("compose", "1 to 4 labels", std::to_string(labels.size()));
    if (labels.size() == 1) {
        place(scene, draw(labels.front()), labels.front(), 0, 0, side);
        return scene;
    }
    std::vector<int> places{0, 1, 2, 3};
    if (shuffled) td::shuffle(places, random_);
    const int half = side / 2;
    for (std::size_t i = 0; i < labels.size(); ++i)
        place(scene, draw(labels[i]), labels[i], places[i] % 2 * half, places[i] / 2 * half, half);
    return scene;
}

Scene SceneMaker::repeat(std::size_t label, std::size_t count, int side) {
    Scene scene = empty_scene(side);
    const Cutout cutout = draw(label);
    std::vector<int> places(9);
    std::iota(places.begin(), places.end(), 0);
    td::shuffle(places, random_);
    const int third = side / 3;
    for (std::size_t i = 0; i < count; ++i) place(scene, cutout, label, places[i] % 3 * third, places[i] / 3 * third, third);
    return scene;
}

Scene SceneMaker::tinted(std::size_t label, const td::Colour& colour, int side) {
    Cutout cutout = draw(label);
    const std::array<unsigned, 3> tint{colour.red, colour.green, colour.blue};
    for (std::size_t i = 0; i < cutout.alpha.size(); ++i) {
        std::uint8_t* const pixel = cutout.colours.pixels.data() + 3 * i;
        // ITU-R BT.601's weights; black becomes a quarter of the colour, which can still be told.
        const unsigned light = (299U * pixel[0] + 587U * pixel[1] + 114U * pixel[2]) / 1000U;
        for (std::size_t c = 0; c < 3; ++c) pixel[c] = static_cast<std::uint8_t>(tint[c] * (64U + light * 3U / 4U) / 255U);
    }
    Scene scene = empty_scene(side);
    place(scene, cutout, label, 0, 0, side);
    return scene;
}

}  // namespace program

// Pictures of which every pixel is known: drawings on transparent ground, put together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <tandem/core/random.hpp>
#include <tandem/images/image.hpp>

namespace program {

namespace td = tandem;

/// Drawings on transparent ground, and what each shows.
struct Drawings {
    std::vector<std::string> labels;
    std::vector<std::vector<std::filesystem::path>> of_label;
};

/// Reads lines of path<TAB>label, paths from the file's folder. Drawings that cannot be read, or have no transparent ground, are
/// passed over, and counted on standard error. Throws Error if fewer than four labels are left.
Drawings read_drawings(const std::filesystem::path& file);

/// A drawing's colours, and where it is.
struct Cutout {
    td::Image colours;
    std::vector<std::uint8_t> alpha;  ///< [height][width]
};

/// What stands in a scene.
struct Placed {
    std::size_t label;
    int left, top, width, height;
};

struct Scene {
    td::Image image;
    std::vector<std::uint16_t> labels;  ///< of every pixel, Segmentation::background where nothing is
    std::vector<Placed> placed;
};

/// Puts drawings on a white square. Which ones, where and how large is drawn from `random`, so that the same seed gives the same
/// scenes.
class SceneMaker {
public:
    SceneMaker(const Drawings& drawings, td::Seed seed) : drawings_(drawings), random_(seed) {}

    /// One drawing of each of the labels, in places of their own: halves or quarters of a square of `side` pixels, the first one
    /// top left, unless they are `shuffled`. Throws Error for more than four.
    Scene compose(const std::vector<std::size_t>& labels, int side, bool shuffled = true);

    /// The same drawing `count` times, 1 to 9, in a random one of nine places each.
    Scene repeat(std::size_t label, std::size_t count, int side);

    /// One drawing in the lightnesses of one colour, from a quarter of it to all of it.
    Scene tinted(std::size_t label, const td::Colour& colour, int side);

    /// Different labels, at random.
    std::vector<std::size_t> some_labels(std::size_t count);
    std::size_t below(std::size_t count) { return random_.below(count); }

private:
    /// One of a label's drawings.
    Cutout draw(std::size_t label);
    void place(Scene& scene, const Cutout& cutout, std::size_t label, int left, int top, int side);

    const Drawings& drawings_;
    td::Random random_;
};

}  // namespace program

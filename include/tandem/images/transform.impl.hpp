// Definitions of images/transform.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/image_size.hpp>
#include <tandem/core/random.hpp>
#include <tandem/images/image.hpp>
#include <tandem/images/resize.hpp>
#include <tandem/images/transform.hpp>
#include <tandem/kernels/isa.hpp>
#include <tandem/kernels/resize.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// n / 2 for n >= 0, a half to the even neighbour, as Python's round(n / 2).
constexpr int half_to_even(int n) {
    return n / 2 + (n % 2) * (n / 2 % 2);
}

TANDEM_INLINE void check_target(const ImageSize& size, std::string_view where) {
    const auto fits = [](std::size_t side) { return side >= 1 && side <= 1 << 14; };
    if (!fits(size.height) || !fits(size.width)) throw Error(where, "a size of 1 to 16384 pixels", to_string(size));
}

/// What resize_shortest makes of width x height: torchvision 0.20, functional.py, _compute_resized_output_size.
TANDEM_INLINE std::array<int, 2> shortest_sides(int width, int height, int size) {
    const int shorter = std::min(width, height);
    const int longer = std::max(width, height);
    const auto scaled = static_cast<std::int64_t>(size) * longer;
    const double side = static_cast<double>(scaled) / shorter;
    if (side > virtual_side_limit) {
        throw Error("resize", "an image whose longer side stays within 2^30 pixels",
                    std::to_string(width) + " x " + std::to_string(height));
    }
    const int across = static_cast<int>(side);
    return width <= height ? std::array{size, across} : std::array{across, size};
}

/// The sides a crop of `size` is taken from, which the picture just covers: open_clip, transform.py, ResizeKeepRatio.
/// With `longest`, those that just fit into it.
TANDEM_INLINE std::array<int, 2> covering_sides(int width, int height, const ImageSize& size, bool longest) {
    const double down = height / static_cast<double>(size.height), across = width / static_cast<double>(size.width);
    const double ratio = longest ? std::max(down, across) : std::min(down, across);
    const auto scaled = [&](int side) { return std::max(1.0, std::nearbyint(side / ratio)); };
    if (scaled(width) > virtual_side_limit || scaled(height) > virtual_side_limit) {
        throw Error("resize", "an image whose longer side stays within 2^30 pixels",
                    std::to_string(width) + " x " + std::to_string(height));
    }
    return {static_cast<int>(scaled(width)), static_cast<int>(scaled(height))};
}

/// Where a centred window of `size` pixels begins in `side`; negative where the window is larger, by the padding.
/// (torchvision functional.py, center_crop: Python's round inside, floor of the half for padding.)
constexpr int centre_offset(int side, int size, bool floor = false) {
    if (side < size) return -((size - side) / 2);
    return floor ? (side - size) / 2 : half_to_even(side - size);
}

TANDEM_INLINE Image place(const ImageView& source, int width, int height, int left, int top, Colour colour) {
    const std::size_t row = static_cast<std::size_t>(width) * 3;
    Image canvas{width, height, std::vector<std::uint8_t>(row * static_cast<std::size_t>(height))};
    for (std::size_t i = 0; i < canvas.pixels.size(); i += 3) {
        canvas.pixels[i] = colour.red;
        canvas.pixels[i + 1] = colour.green;
        canvas.pixels[i + 2] = colour.blue;
    }
    const int first_x = std::max(0, -left);
    const int end_x = std::min(source.width, width - left);
    for (int y = std::max(0, -top); y < std::min(source.height, height - top); ++y) {
        std::copy(source.pixels + static_cast<std::size_t>(y) * source.stride + static_cast<std::size_t>(first_x) * 3,
                  source.pixels + static_cast<std::size_t>(y) * source.stride + static_cast<std::size_t>(end_x) * 3,
                  canvas.pixels.data() + static_cast<std::size_t>(y + top) * row +
                      static_cast<std::size_t>(first_x + left) * 3);
    }
    return canvas;
}

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE Image crop(const Image& image, const Region& region) {
    detail::check_image(image, "crop");
    const bool inside = region.left >= 0 && region.top >= 0 && region.width > 0 && region.height > 0 &&
                        region.width <= image.width && region.left <= image.width - region.width &&
                        region.height <= image.height && region.top <= image.height - region.height;
    if (!inside) {
        throw Error(
            "crop",
            "a region inside the image of " + std::to_string(image.width) + " x " + std::to_string(image.height),
            std::to_string(region.width) + " x " + std::to_string(region.height) + " at (" +
                std::to_string(region.left) + ", " + std::to_string(region.top) + ")");
    }
    return detail::copy(detail::view(image, region));
}

TANDEM_INLINE Image resize_shortest(const Image& image, int size, Filter filter, Resampling resampling) {
    detail::check_image(image, "resize_shortest");
    detail::check_target(size, "resize_shortest");
    const auto [width, height] = detail::shortest_sides(image.width, image.height, size);
    return resize(image, width, height, filter, resampling);
}

TANDEM_INLINE Image center_crop(const Image& image, const ImageSize& size) {
    detail::check_image(image, "center_crop");
    detail::check_target(size, "center_crop");
    const int width = static_cast<int>(size.width), height = static_cast<int>(size.height);
    return detail::place(detail::view(image), width, height, -detail::centre_offset(image.width, width),
                         -detail::centre_offset(image.height, height), black);
}

TANDEM_INLINE Image pad_to_square(const Image& image, Colour colour) {
    detail::check_image(image, "pad_to_square");
    const int side = std::max(image.width, image.height);
    detail::check_resize_size(side, side, "a square with");
    return detail::place(detail::view(image), side, side, (side - image.width) / 2, (side - image.height) / 2, colour);
}

TANDEM_INLINE Image flip_horizontal(const Image& image) {
    detail::check_image(image, "flip_horizontal");
    Image out{image.width, image.height, std::vector<std::uint8_t>(image.pixels.size())};
    const std::size_t row = static_cast<std::size_t>(image.width) * 3;
    for (std::size_t begin = 0; begin < image.pixels.size(); begin += row) {
        for (std::size_t x = 0; x < row; x += 3) {
            std::copy_n(image.pixels.data() + begin + x, 3, out.pixels.data() + begin + row - 3 - x);
        }
    }
    return out;
}

}  // namespace tandem::inline TANDEM_ABI

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE Storage resized_storage(const Image& image, ResizeAs resize_as) {
    return resize_as == ResizeAs::stored ? image.storage : Storage::rgb;
}

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE Region RandomResizedCrop::sample(int width, int height, Random& random) const {
    const bool ordered = 0 < scale_low && scale_low <= scale_high && 0 < ratio_low && ratio_low <= ratio_high &&
                         std::isfinite(scale_high) && std::isfinite(ratio_high);
    if (!ordered || width < 1 || height < 1) {
        throw Error("RandomResizedCrop", "positive, ordered bounds of scale and ratio, and an image with pixels",
                    std::to_string(scale_low) + " to " + std::to_string(scale_high) + ", " + std::to_string(ratio_low) +
                        " to " + std::to_string(ratio_high) + ", " + std::to_string(width) + " x " +
                        std::to_string(height));
    }
    for (int attempt = 0; attempt < 10; ++attempt) {
        const double area = static_cast<double>(width) * height * random.uniform(scale_low, scale_high);
        const double ratio = std::exp(random.uniform(std::log(ratio_low), std::log(ratio_high)));
        const double across = std::nearbyint(std::sqrt(area * ratio));
        const double down = std::nearbyint(std::sqrt(area / ratio));
        if (across < 1 || across > width || down < 1 || down > height) continue;
        Region region{0, 0, static_cast<int>(across), static_cast<int>(down)};
        region.top = static_cast<int>(random.below(static_cast<std::size_t>(height - region.height + 1)));
        region.left = static_cast<int>(random.below(static_cast<std::size_t>(width - region.width + 1)));
        return region;
    }
    const double ratio = static_cast<double>(width) / height;
    Region region{0, 0, width, height};
    // A strip one pixel thin could round to no pixel at all.
    if (ratio < ratio_low) {
        region.height = std::clamp(static_cast<int>(std::nearbyint(width / ratio_low)), 1, height);
    } else if (ratio > ratio_high) {
        region.width = std::clamp(static_cast<int>(std::nearbyint(height * ratio_high)), 1, width);
    }
    region.top = (height - region.height) / 2;
    region.left = (width - region.width) / 2;
    return region;
}

TANDEM_INLINE Image RandomResizedCrop::operator()(const Image& image, const ImageSize& size, Filter filter,
                                                  Random& random, ResizeAs resize_as) const {
    detail::check_image(image, "RandomResizedCrop");
    detail::check_target(size, "RandomResizedCrop");
    const Region region = sample(image.width, image.height, random);
    detail::check_resize_size(region.width, region.height, "a crop with");
    const int width = static_cast<int>(size.width), height = static_cast<int>(size.height);
    return detail::resize_part(image, region, detail::resized_storage(image, resize_as), width, height,
                               {0, 0, width, height}, {filter, Resampling::pillow_13});
}

}  // namespace tandem::inline TANDEM_ABI

namespace tandem::inline TANDEM_ABI::detail {

/// What a padding of `colour` is around a picture of this storage: torchvision pads before the picture becomes RGB,
/// with open_clip's fill_color as the value of every sample. A colour that is not grey no sample can be; it stays
/// itself.
TANDEM_INLINE Colour stored_padding(const Image& image, Storage storage, Colour colour) {
    const std::uint8_t fill = colour.red;
    if (storage == Storage::rgb || colour != Colour{fill, fill, fill}) return colour;
    if (storage == Storage::ink) {
        const std::uint8_t level = ink_level(fill, fill);
        return {level, level, level};
    }
    const std::size_t at = std::size_t{3} * fill;
    if (storage != Storage::nearest) return colour;
    if (at + 3 > image.samples.size()) return black;
    return {image.samples[at], image.samples[at + 1], image.samples[at + 2]};
}

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE Image fit_image(const Image& image, const Preprocess& recipe) {
    detail::check_image(image, "preprocess");
    detail::check_target(recipe.size, "preprocess");
    detail::check_resize_size(image.width, image.height, "an image with");
    const int width = static_cast<int>(recipe.size.width), height = static_cast<int>(recipe.size.height);
    const int largest = std::max(width, height), resized = recipe.resize;
    if (resized != 0 && resized < largest)
        throw Error("preprocess", "a resize to " + std::to_string(largest) + " pixels or more",
                    std::to_string(resized));
    const Region whole{0, 0, image.width, image.height};
    const Storage storage = detail::resized_storage(image, recipe.resize_as);
    const detail::ResizeMethod method{recipe.filter, recipe.resampling};
    if (recipe.fit != Fit::pad) {
        const auto [across, down] =
            recipe.fit == Fit::squash ? resized == 0 ? std::array{width, height} : std::array{resized, resized}
            : resized == 0 && !recipe.size.is_square()
                ? detail::covering_sides(image.width, image.height, recipe.size, false)
                : detail::shortest_sides(image.width, image.height, resized == 0 ? width : resized);
        const Region window{detail::centre_offset(across, width, recipe.floor_crop),
                            detail::centre_offset(down, height, recipe.floor_crop), width, height};
        return detail::resize_part(image, whole, storage, across, down, window, method);
    }
    const auto [across, down] = detail::covering_sides(image.width, image.height, recipe.size, true);
    const Image inner = detail::resize_part(image, whole, storage, across, down, {0, 0, across, down}, method);
    return detail::place(detail::view(inner), width, height, (width - across) / 2, (height - down) / 2,
                         detail::stored_padding(image, storage, recipe.padding));
}

TANDEM_INLINE void normalise(const Image& image, const std::array<float, 3>& mean,
                             const std::array<float, 3>& deviation, std::span<float> out) {
    detail::check_image(image, "normalise");
    if (out.size() != image.pixels.size()) {
        throw Error("normalise", std::to_string(image.pixels.size()) + " floats to write to",
                    std::to_string(out.size()));
    }
    const kernels::ResizeKernels& loops = kernels::resize_kernels(kernels::active_isa());
    const std::size_t plane = image.pixels.size() / 3;
    loops.normalise(image.pixels.data(), plane, kernels::normalise_table(mean, deviation, loops), out.data(), plane);
}

TANDEM_INLINE void preprocess(const Image& image, const Preprocess& recipe, std::span<float> out) {
    normalise(fit_image(image, recipe), recipe.mean, recipe.deviation, out);
}

}  // namespace tandem::inline TANDEM_ABI

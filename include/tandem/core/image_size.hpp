// Height and width, as one structural value.
#pragma once

#include <concepts>
#include <cstddef>
#include <string>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// The size of an image in pixels, or of a grid in patches. One number makes a square, two are height and width, as in
/// open_clip's image_size.
struct ImageSize {
    std::size_t height = 0;
    std::size_t width = 0;

    constexpr ImageSize() = default;
    constexpr ImageSize(std::integral auto side)
        : height(static_cast<std::size_t>(side)), width(static_cast<std::size_t>(side)) {}
    constexpr ImageSize(std::integral auto rows, std::integral auto columns)
        : height(static_cast<std::size_t>(rows)), width(static_cast<std::size_t>(columns)) {}

    constexpr bool operator==(const ImageSize&) const = default;
    constexpr std::size_t area() const { return height * width; }
    constexpr bool is_square() const { return height == width; }
    constexpr bool is_multiple_of(std::size_t patch) const { return height % patch == 0 && width % patch == 0; }
    /// The grid of whole patches.
    constexpr ImageSize operator/(std::size_t patch) const { return {height / patch, width / patch}; }
};

/// "224", or "384 x 256": height, then width.
inline std::string to_string(const ImageSize& size) {
    return std::to_string(size.height) + (size.is_square() ? "" : " x " + std::to_string(size.width));
}

}  // namespace tandem::inline TANDEM_ABI

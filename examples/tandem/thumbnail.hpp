// Small JPEGs of pictures.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <tandem/images/image.hpp>

namespace program {

/// The longer side of a thumbnail, in pixels.
inline constexpr int thumbnail_side = 320;

/// The picture in at most that size, as a JPEG. Throws Error that begins with `name`.
std::vector<std::byte> make_thumbnail(const tandem::Image& image, const std::string& name);

/// A transparent picture as it is looked at: on white.
tandem::Image on_white(tandem::Image image);

/// A picture whose longer side is at most that long.
tandem::Image fitted(const tandem::Image& image, int most);

/// The picture as a JPEG.
std::vector<std::byte> encode_jpeg(const tandem::Image& image, const std::string& name, int quality = 82);

}  // namespace program

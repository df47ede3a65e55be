// What a picture's file says of it beside its pixels: EXIF, XMP and IPTC.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace program {

struct Metadata {
    std::string taken;     ///< EXIF's DateTimeOriginal as YYYY-MM-DD HH:MM:SS, or empty
    std::string caption;   ///< titles and descriptions, a line each
    std::string keywords;  ///< a line each
};

/// Reads it by Exiv2. What is damaged or not there is empty: a picture can be looked at without. Calls must not overlap.
Metadata read_metadata(std::span<const std::byte> bytes);

/// Adds keywords (dc:subject) to a sidecar, which is made where it is not there; what else it holds stays. Throws Error that names
/// it if it is no XMP or cannot be written. Calls must not overlap.
void write_sidecar(const std::filesystem::path& path, const std::vector<std::string>& keywords);

}  // namespace program

// Definitions of images/orientation.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/files/file_kind.hpp>
#include <tandem/images/orientation.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// Unsigned numbers of bytes that may be missing: nothing is read beyond the end.
class ExifBytes {
public:
    explicit ExifBytes(std::span<const std::byte> bytes) : bytes_(bytes) {}

    /// The number of `size` bytes at a place, or 0 where there are not as many.
    std::size_t number(std::size_t at, std::size_t size, bool is_little) const {
        if (at > bytes_.size() || bytes_.size() - at < size) return 0;
        std::size_t value = 0;
        for (std::size_t i = 0; i < size; ++i) {
            const auto byte = std::to_integer<std::size_t>(bytes_[at + (is_little ? size - 1 - i : i)]);
            value = value << 8 | byte;
        }
        return value;
    }
    bool has(std::size_t at, std::string_view text) const {
        return at <= bytes_.size() && starts_with(bytes_.subspan(at), text);
    }
    std::size_t size() const { return bytes_.size(); }
    std::span<const std::byte> part(std::size_t at, std::size_t size) const {
        if (at > bytes_.size()) return {};
        return bytes_.subspan(at, std::min(size, bytes_.size() - at));
    }

private:
    std::span<const std::byte> bytes_;
};

/// The EXIF data of a file: a TIFF header and what it leads to.
TANDEM_INLINE std::span<const std::byte> exif_of(std::span<const std::byte> file) {
    const ExifBytes bytes(file);
    if (bytes.has(0, "\xff\xd8\xff")) {
        // Segments up to the picture's data; each has its length behind its mark.
        for (std::size_t at = 2; bytes.number(at, 1, false) == 0xff;) {
            const std::size_t mark = bytes.number(at + 1, 1, false), length = bytes.number(at + 2, 2, false);
            if (mark == 0xff) {  // a byte that fills up
                ++at;
                continue;
            }
            if (mark == 0xda || mark == 0xd9 || length < 2) return {};
            if (mark == 0xe1 && bytes.has(at + 4, std::string_view("Exif\0\0", 6)))
                return bytes.part(at + 10, length - 8);
            at += 2 + length;
        }
    } else if (bytes.has(0, "\x89PNG\r\n\x1a\n")) {
        for (std::size_t at = 8; at + 12 <= bytes.size();) {
            const std::size_t length = bytes.number(at, 4, false);
            if (bytes.has(at + 4, "eXIf")) return bytes.part(at + 8, length);
            at += 12 + length;
        }
    } else if (bytes.has(0, "RIFF") && bytes.has(8, "WEBP")) {
        for (std::size_t at = 12; at + 8 <= bytes.size();) {
            const std::size_t length = bytes.number(at + 4, 4, true);
            if (bytes.has(at, "EXIF")) {
                // Some writers keep JPEG's head before it.
                const std::size_t head = bytes.has(at + 8, std::string_view("Exif\0\0", 6)) ? 6 : 0;
                return bytes.part(at + 8 + head, length - head);
            }
            at += 8 + length + length % 2;
        }
    }
    return {};
}

TANDEM_INLINE int exif_orientation(std::span<const std::byte> file) {
    constexpr std::size_t orientation_tag = 0x0112, entry_size = 12, of_16_bits = 3;
    const ExifBytes exif(exif_of(file));
    const bool is_little = exif.has(0, "II");
    if (!is_little && !exif.has(0, "MM")) return 1;
    if (exif.number(2, 2, is_little) != 42) return 1;
    const std::size_t first = exif.number(4, 4, is_little), count = exif.number(first, 2, is_little);
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t entry = first + 2 + i * entry_size;
        if (exif.number(entry, 2, is_little) != orientation_tag) continue;
        const std::size_t value = exif.number(entry + 8, 2, is_little);
        const bool is_valid = exif.number(entry + 2, 2, is_little) == of_16_bits && value >= 1 && value <= 8;
        return is_valid ? static_cast<int>(value) : 1;
    }
    return 1;
}

/// A plane [height][width][channels] whose rows and columns are swapped where said, then mirrored.
TANDEM_INLINE std::vector<std::uint8_t> turned(const std::vector<std::uint8_t>& plane, std::size_t width,
                                               std::size_t height, bool swaps, bool mirrors_x, bool mirrors_y) {
    const std::size_t channels = plane.size() / (width * height);
    const std::size_t new_width = swaps ? height : width, new_height = swaps ? width : height;
    std::vector<std::uint8_t> out(plane.size());
    for (std::size_t y = 0; y < new_height; ++y) {
        for (std::size_t x = 0; x < new_width; ++x) {
            const std::size_t to_x = mirrors_x ? new_width - 1 - x : x, to_y = mirrors_y ? new_height - 1 - y : y;
            const std::size_t from = swaps ? x * width + y : y * width + x;
            std::memcpy(out.data() + (to_y * new_width + to_x) * channels, plane.data() + from * channels, channels);
        }
    }
    return out;
}

TANDEM_INLINE void turn(Image& image, int orientation) {
    if (orientation <= 1 || orientation > 8) return;
    const auto width = static_cast<std::size_t>(image.width), height = static_cast<std::size_t>(image.height);
    const bool swaps = orientation >= 5;
    const bool mirrors_x = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
    const bool mirrors_y = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
    image.pixels = turned(image.pixels, width, height, swaps, mirrors_x, mirrors_y);
    // (The samples of indices are their colours, which have no place in the picture.)
    if (!image.samples.empty() && image.storage != Storage::nearest)
        image.samples = turned(image.samples, width, height, swaps, mirrors_x, mirrors_y);
    if (swaps) std::swap(image.width, image.height);
}

}  // namespace tandem::inline TANDEM_ABI::detail

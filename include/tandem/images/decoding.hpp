// What the decoders of all formats share.
#pragma once

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/images/image.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// The bytes of a width x height image; refuses sizes above `limit` pixels and those memory cannot hold.
inline std::vector<std::uint8_t> allocate_pixels(std::size_t width, std::size_t height, std::size_t channels,
                                                 std::string_view name) {
    try {
        return std::vector<std::uint8_t>(width * height * channels);
    } catch (const std::exception&) {
        throw Error(name, "no memory for " + std::to_string(width) + " x " + std::to_string(height) + " pixels");
    }
}

/// Throws where a header claims no pixels, or more than `limit`.
inline void check_pixel_count(std::size_t width, std::size_t height, std::size_t limit, std::string_view name) {
    // 2^31 a side keeps every later product of 64 bits from wrapping.
    const bool fits = width < (std::size_t{1} << 31) && height < (std::size_t{1} << 31) && width * height <= limit;
    if (width > 0 && height > 0 && fits) return;
    throw OversizedImage(name, "an image of 1 to " + std::to_string(limit) + " pixels",
                         std::to_string(width) + " x " + std::to_string(height) + " pixels in the header");
}

/// Where a C library's error callback leaves its message and jumps to.
struct JumpTarget {
    std::jmp_buf jump;
    std::array<char, 256> message;

    void set(const char* text) noexcept { std::snprintf(message.data(), message.size(), "%s", text); }
};

/// Calls body; false where a callback jumped out of it. The jump runs no destructors, so body calls the library and
/// owns nothing meanwhile. Compilers never inline a function that calls setjmp: the caller's locals outlive the jump.
template <class Body>
bool survives_jump(JumpTarget& target, const Body& body) {
    if (setjmp(target.jump) != 0) return false;
    body();
    return true;
}

inline void compose_row(const std::uint8_t* rgba, std::size_t width, Colour background, std::uint8_t* rgb) {
    for (std::size_t x = 0; x < width; ++x, rgba += 4, rgb += 3) {
        rgb[0] = blend(rgba[0], background.red, rgba[3]);
        rgb[1] = blend(rgba[1], background.green, rgba[3]);
        rgb[2] = blend(rgba[2], background.blue, rgba[3]);
    }
}

/// Makes a picture whose alphas are all 255 one without.
inline void drop_opaque_alpha(Image& image) {
    const bool is_opaque =
        image.storage == Storage::alpha && std::ranges::all_of(image.samples, [](int alpha) { return alpha == 255; });
    if (!is_opaque) return;
    image.storage = Storage::rgb;
    image.samples = {};
}

/// RGBA rows as a picture: on the background, or with the alphas in its samples.
inline void take_rgba(const std::uint8_t* rgba, std::size_t pixels, const std::optional<Colour>& background,
                      Image& image) {
    if (background) return compose_row(rgba, pixels, *background, image.pixels.data());
    for (std::size_t i = 0; i < pixels; ++i) {
        std::copy_n(rgba + 4 * i, 3, image.pixels.data() + 3 * i);
        image.samples[i] = rgba[4 * i + 3];
    }
    drop_opaque_alpha(image);
}

}  // namespace tandem::inline TANDEM_ABI::detail

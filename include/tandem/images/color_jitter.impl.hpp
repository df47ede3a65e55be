// Definitions of images/color_jitter.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <utility>

#include <tandem/core/error.hpp>
#include <tandem/core/random.hpp>
#include <tandem/core/to_text.hpp>
#include <tandem/images/color_jitter.hpp>
#include <tandem/images/image.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// The grey of a colour, in Pillow's integers (libImaging/Convert.c, L24).
constexpr std::uint8_t grey_of(const std::uint8_t* pixel) {
    return static_cast<std::uint8_t>((19595U * pixel[0] + 38470U * pixel[1] + 7471U * pixel[2] + 0x8000U) >> 16);
}

/// from + factor · (to - from) in float, cut off as libImaging/Blend.c does. The product is rounded by a conversion: compilers would
/// fuse it with the sum otherwise.
inline std::uint8_t between(std::uint8_t from, std::uint8_t to, float factor) {
    const float value = static_cast<float>(from) + static_cast<float>(static_cast<double>(factor) * (to - from));
    return static_cast<std::uint8_t>(std::clamp(value, 0.0F, 255.0F));
}

/// The picture between what grey(pixel) makes of each of its pixels (factor 0) and itself (1).
template <class Grey>
Image away_from(const Image& image, double factor, const char* where, const Grey& grey) {
    if (!(factor >= 0 && factor <= std::numeric_limits<float>::max())) throw Error(where, "a factor of 0 or above", to_text(factor));
    Image out{image.width, image.height, image.pixels};
    if (factor == 1) return out;
    const auto by = static_cast<float>(factor);
    for (std::size_t i = 0; i < out.pixels.size(); i += 3) {
        const std::uint8_t from = grey(image.pixels.data() + i);
        for (std::size_t j = i; j < i + 3; ++j) out.pixels[j] = between(from, image.pixels[j], by);
    }
    return out;
}

/// A colour's hue, saturation and value in Pillow's 8 bits (libImaging/Convert.c, rgb2hsv), and back (hsv2rgb).
inline std::array<std::uint8_t, 3> to_hsv(const std::uint8_t* pixel) {
    const auto [low, high] = std::minmax({pixel[0], pixel[1], pixel[2]});
    if (low == high) return {0, 0, high};
    const auto range = static_cast<float>(high - low);
    const auto below = [&](std::size_t channel) { return static_cast<float>(high - pixel[channel]) / range; };
    double sixths = 0;
    if (pixel[0] == high) {
        sixths = below(2) - below(1);
    } else if (pixel[1] == high) {
        sixths = 2.0 + below(0) - below(2);
    } else {
        sixths = 4.0 + below(1) - below(0);
    }
    const auto hue = static_cast<float>(std::fmod(static_cast<double>(static_cast<float>(sixths)) / 6.0 + 1.0, 1.0));
    return {static_cast<std::uint8_t>(hue * 255.0), static_cast<std::uint8_t>(range / static_cast<float>(high) * 255.0), high};
}

inline void from_hsv(const std::array<std::uint8_t, 3>& hsv, std::uint8_t* pixel) {
    const auto [hue, saturation, value] = hsv;
    if (saturation == 0) return void(std::fill_n(pixel, 3, value));
    const double sixths = static_cast<float>(hue) * 6.0 / 255.0;
    const int sector = static_cast<int>(sixths);
    const float rest = static_cast<float>(sixths - static_cast<float>(sector)), full = static_cast<float>(static_cast<float>(saturation) / 255.0);
    const auto level = [&](double share) { return static_cast<std::uint8_t>(std::clamp(std::round(static_cast<float>(value) * share), 0.0, 255.0)); };
    const std::uint8_t least = level(1.0 - full), falling = level(1.0 - full * rest), rising = level(1.0 - full * (1.0 - rest));
    const std::array<std::array<std::uint8_t, 3>, 6> colours{{{value, rising, least},
                                                              {falling, value, least},
                                                              {least, value, rising},
                                                              {least, falling, value},
                                                              {rising, least, value},
                                                              {value, least, falling}}};
    std::ranges::copy(colours[static_cast<std::size_t>(sector % 6)], pixel);
}

}  // namespace detail

TANDEM_INLINE Image adjust_brightness(const Image& image, double factor) {
    detail::check_image(image, "adjust_brightness");
    return detail::away_from(image, factor, "adjust_brightness", [](const std::uint8_t*) { return std::uint8_t{0}; });
}

TANDEM_INLINE Image adjust_contrast(const Image& image, double factor) {
    detail::check_image(image, "adjust_contrast");
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < image.pixels.size(); i += 3) sum += detail::grey_of(image.pixels.data() + i);
    const auto mean = static_cast<std::uint8_t>(static_cast<double>(sum) / static_cast<double>(image.pixels.size() / 3) + 0.5);
    return detail::away_from(image, factor, "adjust_contrast", [mean](const std::uint8_t*) { return mean; });
}

TANDEM_INLINE Image adjust_saturation(const Image& image, double factor) {
    detail::check_image(image, "adjust_saturation");
    return detail::away_from(image, factor, "adjust_saturation", detail::grey_of);
}

TANDEM_INLINE Image adjust_hue(const Image& image, double share) {
    detail::check_image(image, "adjust_hue");
    if (!(share >= -0.5 && share <= 0.5)) throw Error("adjust_hue", "a share of the circle from -0.5 to 0.5", detail::to_text(share));
    Image out{image.width, image.height, image.pixels};
    const int by = static_cast<int>(share * 255);
    for (std::size_t i = 0; i < out.pixels.size(); i += 3) {
        std::array<std::uint8_t, 3> hsv = detail::to_hsv(out.pixels.data() + i);
        hsv[0] = static_cast<std::uint8_t>(hsv[0] + by);
        detail::from_hsv(hsv, out.pixels.data() + i);
    }
    return out;
}

TANDEM_INLINE Image grayscale(const Image& image) {
    detail::check_image(image, "grayscale");
    Image out{image.width, image.height, image.pixels};
    for (std::size_t i = 0; i < out.pixels.size(); i += 3) std::fill_n(out.pixels.data() + i, 3, detail::grey_of(image.pixels.data() + i));
    return out;
}

TANDEM_INLINE ColorJitter::Draw ColorJitter::sample(Random& random) const {
    for (const auto& [name, amount, most] :
         {std::tuple{"brightness", brightness, 1e6}, {"contrast", contrast, 1e6}, {"saturation", saturation, 1e6}, {"hue", hue, 0.5}}) {
        if (!(amount >= 0 && amount <= most))
            throw Error(std::string("ColorJitter.") + name, most < 1 ? "a number from 0 to 0.5" : "a number from 0 to a million", detail::to_text(amount));
    }
    Draw draw;
    for (std::size_t i = draw.order.size(); i > 1; --i) std::swap(draw.order[i - 1], draw.order[random.below(i)]);
    const auto factor = [&](double amount) { return random.uniform(std::max(0.0, 1 - amount), 1 + amount); };
    draw.brightness = factor(brightness);
    draw.contrast = factor(contrast);
    draw.saturation = factor(saturation);
    draw.hue = random.uniform(-hue, hue);
    return draw;
}

TANDEM_INLINE Image ColorJitter::apply(const Image& image, const Draw& draw) const {
    Image out{image.width, image.height, image.pixels};
    for (const std::size_t step : draw.order) {
        if (step == 0 && brightness > 0) out = adjust_brightness(out, draw.brightness);
        if (step == 1 && contrast > 0) out = adjust_contrast(out, draw.contrast);
        if (step == 2 && saturation > 0) out = adjust_saturation(out, draw.saturation);
        if (step == 3 && hue > 0) out = adjust_hue(out, draw.hue);
    }
    return out;
}

}  // namespace tandem::inline TANDEM_ABI

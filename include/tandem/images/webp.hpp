// WebP pictures, through libwebp: a program that includes this reads them wherever it reads pictures. (CMake:
// tandem::webp.)
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include <webp/decode.h>
#include <webp/demux.h>

#include <tandem/core/error.hpp>
#include <tandem/images/codec.hpp>
#include <tandem/images/decoding.hpp>
#include <tandem/images/image.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// A WebP file, lossy or lossless, as Pillow has it: RGB, with an alpha where the file says that there is one; of an
/// animation the first frame on its canvas. Throws Error for a size above the limit, and for damaged data.
inline Image decode_webp(std::span<const std::byte> bytes, std::string_view name, const DecodeOptions& options) {
    const WebPData data{reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()};
    WebPBitstreamFeatures features;
    if (WebPGetFeatures(data.bytes, data.size, &features) != VP8_STATUS_OK)
        throw Error(name, "damaged WebP: its header cannot be read");
    const auto width = static_cast<std::size_t>(features.width), height = static_cast<std::size_t>(features.height);
    check_pixel_count(width, height, options.pixel_limit, name);
    Image image{features.width, features.height, allocate_pixels(width, height, 3, name)};
    const bool keeps_alpha = features.has_alpha != 0 && !options.background;
    if (keeps_alpha) {
        image.storage = Storage::alpha;
        image.samples = allocate_pixels(width, height, 1, name);
    }
    if (features.has_animation == 0 && features.has_alpha == 0) {
        const int stride = 3 * features.width;
        if (WebPDecodeRGBInto(data.bytes, data.size, image.pixels.data(), image.pixels.size(), stride) == nullptr)
            throw Error(name, "damaged WebP: its pixels cannot be decoded");
        return image;
    }
    if (features.has_animation == 0) {
        std::vector<std::uint8_t> rgba = allocate_pixels(width, height, 4, name);
        if (WebPDecodeRGBAInto(data.bytes, data.size, rgba.data(), rgba.size(), 4 * features.width) == nullptr)
            throw Error(name, "damaged WebP: its pixels cannot be decoded");
        take_rgba(rgba.data(), width * height, options.background, image);
        return image;
    }
    WebPAnimDecoderOptions settings;
    WebPAnimDecoderOptionsInit(&settings);
    settings.color_mode = MODE_RGBA;
    const std::unique_ptr<WebPAnimDecoder, void (*)(WebPAnimDecoder*)> decoder(WebPAnimDecoderNew(&data, &settings),
                                                                               WebPAnimDecoderDelete);
    std::uint8_t* frame = nullptr;
    int time = 0;
    if (decoder == nullptr || WebPAnimDecoderGetNext(decoder.get(), &frame, &time) == 0)
        throw Error(name, "damaged WebP: its first frame cannot be decoded");
    if (features.has_alpha != 0) {
        take_rgba(frame, width * height, options.background, image);
    } else {
        for (std::size_t i = 0; i < width * height; ++i) std::copy_n(frame + 4 * i, 3, image.pixels.data() + 3 * i);
    }
    return image;
}

/// Whether it is this unit's or another's, there is one such function.
inline const bool reads_webp = (webp_decoder() = decode_webp) != nullptr;

}  // namespace tandem::inline TANDEM_ABI::detail

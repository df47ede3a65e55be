#include "thumbnail.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <jpeglib.h>

#include <tandem/core/error.hpp>
#include <tandem/images/filter.hpp>
#include <tandem/images/resize.hpp>

namespace program {

namespace td = tandem;

namespace {

/// What libjpeg says when it gives up, thrown through it; Debian's is compiled with unwinding tables.
[[noreturn]] void throw_jpeg_error(j_common_ptr coder) {
    std::array<char, JMSG_LENGTH_MAX> message{};
    coder->err->format_message(coder, message.data());
    throw td::Error("JPEG", message.data());
}

}  // namespace

std::vector<std::byte> encode_jpeg(const td::Image& image, const std::string& name, int quality) {
    if (image.width < 1 || image.height < 1 || image.width > JPEG_MAX_DIMENSION || image.height > JPEG_MAX_DIMENSION)
        throw td::Error(name, "sides that a JPEG can have", std::to_string(image.width) + " x " + std::to_string(image.height));
    jpeg_compress_struct coder{};
    jpeg_error_mgr errors{};
    coder.err = jpeg_std_error(&errors);
    errors.error_exit = throw_jpeg_error;
    unsigned char* memory = nullptr;
    unsigned long size = 0;
    jpeg_create_compress(&coder);
    const auto finish = [&] {
        jpeg_destroy_compress(&coder);
        std::free(memory);
    };
    std::vector<std::byte> bytes;
    try {
        jpeg_mem_dest(&coder, &memory, &size);
        coder.image_width = static_cast<JDIMENSION>(image.width);
        coder.image_height = static_cast<JDIMENSION>(image.height);
        coder.input_components = 3;
        coder.in_color_space = JCS_RGB;
        jpeg_set_defaults(&coder);
        jpeg_set_quality(&coder, quality, TRUE);
        jpeg_start_compress(&coder, TRUE);
        const std::size_t stride = 3 * static_cast<std::size_t>(image.width);
        while (coder.next_scanline < coder.image_height) {
            // libjpeg's rows are not const; it reads them.
            JSAMPROW row = const_cast<JSAMPROW>(image.pixels.data() + coder.next_scanline * stride);
            jpeg_write_scanlines(&coder, &row, 1);
        }
        jpeg_finish_compress(&coder);
        bytes.resize(size);
        std::memcpy(bytes.data(), memory, size);
    } catch (const td::Error& error) {
        finish();
        throw td::Error(name, error.what());
    }
    finish();
    return bytes;
}

td::Image on_white(td::Image image) {
    if (image.storage != td::Storage::alpha) return image;
    for (std::size_t i = 0; i < image.pixels.size(); ++i)
        image.pixels[i] = td::detail::blend(image.pixels[i], 255, image.samples[i / 3]);
    image.storage = td::Storage::rgb;
    image.samples.clear();
    return image;
}

td::Image fitted(const td::Image& image, int most) {
    const int longest = std::max(image.width, image.height);
    if (longest <= most) return image;
    const auto side = [&](int pixels) {
        return std::max(1, static_cast<int>(std::lround(static_cast<double>(pixels) * most / longest)));
    };
    return td::resize(image, side(image.width), side(image.height), td::Filter::bilinear);
}

std::vector<std::byte> make_thumbnail(const td::Image& image, const std::string& name) {
    return encode_jpeg(fitted(on_white(image), thumbnail_side), name);
}

}  // namespace program

// JPEG files decoded with libjpeg.
#pragma once

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#if __has_include(<jpeglib.h>) && __has_include(<jconfig.h>)
#include <jpeglib.h>
// (jerror.h needs the types of jpeglib.h.)
#include <jerror.h>
#endif

#include <tandem/core/error.hpp>
#include <tandem/images/decoding.hpp>
#include <tandem/images/image.hpp>

#if __has_include(<jpeglib.h>) && __has_include(<jconfig.h>)

namespace tandem::inline TANDEM_ABI::detail {

[[noreturn]] inline void jpeg_failed(j_common_ptr info) {
    auto& target = *static_cast<JumpTarget*>(info->client_data);
    std::array<char, JMSG_LENGTH_MAX> message;
    info->err->format_message(info, message.data());
    target.set(message.data());
    std::longjmp(target.jump, 1);
}

/// libjpeg only warns of damage and goes on with grey blocks. Warnings about stray bytes between segments and about odd
/// header fields (a baseline scan's band of coefficients among them, which decoding does not use) stay silent, since
/// every pixel is still there.
inline void jpeg_warned(j_common_ptr info, int level) {
    const int code = info->err->msg_code;
    const bool harmless = code == JWRN_EXTRANEOUS_DATA || code == JWRN_JFIF_MAJOR || code == JWRN_ADOBE_XFORM ||
                          code == JWRN_NOT_SEQUENTIAL;
    if (level < 0 && !harmless) jpeg_failed(info);
}

/// Encoders write about ten scans; a small hostile file can ask for thousands, each a pass over the whole image.
inline void jpeg_progressed(j_common_ptr info) {
    constexpr int scan_limit = 100;
    if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= scan_limit) return;
    auto& target = *static_cast<JumpTarget*>(info->client_data);
    target.set("more than 100 scans");
    std::longjmp(target.jump, 1);
}

/// One JPEG file in memory being decoded with libjpeg's defaults: accurate integer DCT, smooth chroma upsampling.
class JpegReader {
public:
    JpegReader(std::span<const std::byte> bytes, std::string_view name) : bytes_(bytes), name_(name) {
        info_.err = jpeg_std_error(&manager_);
        manager_.error_exit = jpeg_failed;
        manager_.emit_message = jpeg_warned;
        progress_.progress_monitor = jpeg_progressed;
        info_.client_data = &error_;
    }
    JpegReader(const JpegReader&) = delete;
    JpegReader& operator=(const JpegReader&) = delete;
    ~JpegReader() { jpeg_destroy_decompress(&info_); }

    Image read(const DecodeOptions& options) {
        guarded([&] {
            jpeg_create_decompress(&info_);  // (keeps err and client_data, clears the rest)
            info_.progress = &progress_;
            jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes_.data()), bytes_.size());
            jpeg_read_header(&info_, TRUE);
        });
        const std::size_t width = info_.image_width;
        const std::size_t height = info_.image_height;
        check_pixel_count(width, height, options.pixel_limit, name_);
        const bool cmyk = info_.num_components == 4;
        Image image{static_cast<int>(width), static_cast<int>(height), allocate_pixels(width, height, 3, name_)};
        std::vector<std::uint8_t> row;
        const bool keeps_inks = cmyk && !options.background;
        if (cmyk) row = allocate_pixels(width, 1, 4, name_);
        if (keeps_inks) {
            image.storage = Storage::ink;
            image.samples = allocate_pixels(width, height, 4, name_);
        }

        guarded([&] {
            info_.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
            jpeg_start_decompress(&info_);
            while (info_.output_scanline < info_.output_height) {
                const std::size_t first = info_.output_scanline * width;
                std::uint8_t* rgb = image.pixels.data() + first * 3;
                std::uint8_t* target = cmyk ? row.data() : rgb;
                jpeg_read_scanlines(&info_, &target, 1);
                if (!cmyk) continue;
                // Files store inverted inks, as Adobe writes them (Pillow JpegImagePlugin.py, "CMYK;I").
                for (std::uint8_t& ink : row) ink = static_cast<std::uint8_t>(255 - ink);
                for (std::size_t x = 0; x < width; ++x) {
                    for (std::size_t c = 0; c < 3; ++c) rgb[3 * x + c] = ink_level(row[4 * x + c], row[4 * x + 3]);
                }
                if (keeps_inks) std::copy(row.begin(), row.end(), image.samples.data() + first * 4);
            }
            jpeg_finish_decompress(&info_);
        });
        return image;
    }

private:
    template <class Body>
    void guarded(const Body& body) {
        if (survives_jump(error_, body)) return;
        const int code = manager_.msg_code;
        if (code == JERR_BAD_PRECISION) {
            throw Error(name_, "a JPEG of 8 bits a sample", std::to_string(info_.data_precision) + " bits");
        }
        const bool unsupported =
            code == JERR_SOF_UNSUPPORTED || code == JERR_CONVERSION_NOTIMPL || code == JERR_ARITH_NOTIMPL;
        throw Error(name_, (unsupported ? "" : "damaged JPEG: ") + std::string(error_.message.data()));
    }

    std::span<const std::byte> bytes_;
    std::string_view name_;
    JumpTarget error_;
    jpeg_error_mgr manager_{};
    jpeg_progress_mgr progress_{};
    jpeg_decompress_struct info_{};
};

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

// Definitions of images/image.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#if __has_include(<jpeglib.h>) && __has_include(<jconfig.h>)
#include <jpeglib.h>
// (jerror.h needs the types of jpeglib.h.)
#include <jerror.h>
#endif
#if __has_include(<png.h>)
#include <png.h>
#endif

#include <tandem/core/error.hpp>
#include <tandem/files/file_kind.hpp>
#include <tandem/images/image.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// The bytes of a width x height image; refuses sizes above `limit` pixels and those memory cannot hold.
TANDEM_INLINE std::vector<std::uint8_t> allocate_pixels(std::size_t width, std::size_t height, std::size_t channels,
                                                        std::string_view name) {
    try {
        return std::vector<std::uint8_t>(width * height * channels);
    } catch (const std::exception&) {
        throw Error(name, "no memory for " + std::to_string(width) + " x " + std::to_string(height) + " pixels");
    }
}

/// Throws where a header claims no pixels, or more than `limit`.
TANDEM_INLINE void check_pixel_count(std::size_t width, std::size_t height, std::size_t limit, std::string_view name) {
    // 2^31 a side keeps every later product of 64 bits from wrapping.
    const bool fits = width < (std::size_t{1} << 31) && height < (std::size_t{1} << 31) && width * height <= limit;
    if (width > 0 && height > 0 && fits) return;
    throw OversizedImage(name, "an image of 1 to " + std::to_string(limit) + " pixels",
                         std::to_string(width) + " x " + std::to_string(height) + " pixels in the header");
}

TANDEM_INLINE void check_image(const Image& image, std::string_view where) {
    if (image.width > 0 && image.height > 0 &&
        image.pixels.size() ==
            std::size_t{3} * static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height)) {
        return;
    }
    throw Error(where, "3 * width * height bytes of pixels",
                std::to_string(image.pixels.size()) + " bytes for " + std::to_string(image.width) + " x " +
                    std::to_string(image.height));
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

TANDEM_INLINE std::uint8_t blend(unsigned colour, unsigned background, unsigned alpha) {
    const unsigned sum = colour * alpha + background * (255U - alpha) + 128U;
    return static_cast<std::uint8_t>(((sum >> 8) + sum) >> 8);
}

TANDEM_INLINE std::uint8_t ink_level(unsigned ink, unsigned black_ink) {
    const unsigned light = 255U - black_ink;
    return static_cast<std::uint8_t>(light - blend(ink, 0, light));
}

TANDEM_INLINE void compose_row(const std::uint8_t* rgba, std::size_t width, Colour background, std::uint8_t* rgb) {
    for (std::size_t x = 0; x < width; ++x, rgba += 4, rgb += 3) {
        rgb[0] = blend(rgba[0], background.red, rgba[3]);
        rgb[1] = blend(rgba[1], background.green, rgba[3]);
        rgb[2] = blend(rgba[2], background.blue, rgba[3]);
    }
}

}  // namespace tandem::inline TANDEM_ABI::detail

#if __has_include(<png.h>)

namespace tandem::inline TANDEM_ABI::detail {

[[noreturn]] TANDEM_INLINE void png_failed(png_structp png, png_const_charp message) {
    auto& target = *static_cast<JumpTarget*>(png_get_error_ptr(png));
    target.set(message);
    std::longjmp(target.jump, 1);
}

TANDEM_INLINE void png_warned(png_structp, png_const_charp) {}

/// One PNG file in memory being decoded.
class PngReader {
public:
    PngReader(std::span<const std::byte> bytes, std::string_view name) : bytes_(bytes), name_(name) {
        png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &error_, png_failed, warned);
        if (png_ == nullptr) throw Error(name_, "libpng could not be started");
    }
    PngReader(const PngReader&) = delete;
    PngReader& operator=(const PngReader&) = delete;
    ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }

    Image read(const DecodeOptions& options) {
        constexpr std::size_t header_end = 24;  // signature, length, "IHDR", width, height
        if (bytes_.size() < header_end) throw Error(name_, "damaged PNG: the file ends inside its header");
        const std::size_t width = big_endian(16);
        const std::size_t height = big_endian(20);
        check_pixel_count(width, height, options.pixel_limit, name_);

        guarded([&] { begin(options.background.has_value()); });
        const std::size_t channels = static_cast<std::size_t>(channels_);
        const bool direct = channels == 3, buffered = !direct && passes_ > 1;
        Image image{static_cast<int>(width), static_cast<int>(height), allocate_pixels(width, height, 3, name_),
                    storage_};
        if (storage_ == Storage::nearest) image.samples = colours();
        if (storage_ == Storage::alpha) image.samples = allocate_pixels(width, height, 1, name_);
        if (storage_ == Storage::grey16) image.samples = allocate_pixels(width, height, 2, name_);
        std::vector<std::uint8_t> rows;
        if (!direct) rows = allocate_pixels(width, buffered ? height : 1, channels, name_);
        const auto row = [&](std::size_t y) {
            return direct ? image.pixels.data() + y * width * 3 : rows.data() + (buffered ? y * width * channels : 0);
        };
        const auto finish = [&](std::size_t y) {
            if (!direct) finish_row(row(y), y, options.background, image);
        };

        const bool survived = survives_jump(error_, [&] {
            for (int pass = 0; pass < passes_; ++pass) {
                for (std::size_t y = 0; y < height; ++y) {
                    in_last_row_ = pass + 1 == passes_ && y + 1 == height;
                    // The last pass of an interlaced picture has nothing for rows of even numbers.
                    has_all_ = in_last_row_ && passes_ > 1 && y % 2 == 0;
                    png_read_row(png_, row(y), nullptr);
                    if (pass + 1 == passes_ && !in_last_row_) finish(y);
                }
            }
        });
        // One of the checksums, the chunks' and zlib's behind the pixels, has to be right, as far as they are there.
        if (!survived && (!has_all_ || has_wrong_checksum_)) throw_damaged();
        if (has_wrong_end_ && (has_wrong_checksum_ || is_cut_)) throw_damaged();
        finish(height - 1);
        const bool opaque = storage_ == Storage::alpha && std::all_of(image.samples.begin(), image.samples.end(),
                                                                      [](int alpha) { return alpha == 255; });
        if (opaque) {
            image.storage = Storage::rgb;
            image.samples = {};
        }
        return image;
    }

private:
    template <class Body>
    void guarded(const Body& body) {
        if (!survives_jump(error_, body)) throw_damaged();
    }

    [[noreturn]] void throw_damaged() const {
        throw Error(name_, "damaged PNG: " + std::string(error_.message.data()));
    }

    /// Of what libpng only warns while it reads rows: wrong checksums of chunks, and, behind the last row, an end of
    /// zlib's data that is damaged. (More data than pixels is neither.)
    static void warned(png_structp png, png_const_charp text) {
        auto* self = static_cast<PngReader*>(png_get_io_ptr(png));
        if (self == nullptr || !self->in_rows_) return;
        const std::string_view message(text);
        self->error_.set(text);
        if (message.ends_with("CRC error")) {
            self->has_wrong_checksum_ = true;
        } else if (!message.ends_with("Extra compressed data") && !message.ends_with("Too much image data")) {
            self->has_wrong_end_ = true;
        }
    }

    void begin(bool compose) {
        info_ = png_create_info_struct(png_);
        if (info_ == nullptr) png_error(png_, "no memory");
        png_set_read_fn(png_, this, [](png_structp png, png_bytep out, std::size_t count) {
            auto& self = *static_cast<PngReader*>(png_get_io_ptr(png));
            if (count > self.bytes_.size() - self.position_) png_error(png, "the file ends too early");
            std::memcpy(out, self.bytes_.data() + self.position_, count);
            self.position_ += count;
        });
        png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
        // Every checksum counts, and what colours do not need (profiles, texts) is not decompressed.
        png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
        png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
        png_read_info(png_, info_);
        // Pillow, whose pixels these are, looks at no checksum from here on but zlib's, and at nothing behind the last
        // row.
        png_set_crc_action(png_, PNG_CRC_WARN_USE, PNG_CRC_QUIET_USE);
        in_rows_ = true;
        png_set_read_user_transform_fn(png_, [](png_structp png, png_row_infop, png_bytep) {
            auto& self = *static_cast<PngReader*>(png_get_io_ptr(png));
            if (self.in_last_row_) self.has_all_ = true;
        });
        // Where the file ends inside the last of them, which may still have all pixels, libpng takes single bytes.
        is_cut_ = ends_inside_pixels();
        if (is_cut_) png_set_compression_buffer_size(png_, 1);
        const int type = png_get_color_type(png_, info_), depth = png_get_bit_depth(png_, info_);
        const bool has_alpha = (type & PNG_COLOR_MASK_ALPHA) != 0;
        if (!compose) {
            storage_ = type == PNG_COLOR_TYPE_PALETTE || (type == PNG_COLOR_TYPE_GRAY && depth == 1) ? Storage::nearest
                       : type == PNG_COLOR_TYPE_GRAY && depth == 16                                  ? Storage::grey16
                       : has_alpha                                                                   ? Storage::alpha
                                                                                                     : Storage::rgb;
        }
        passes_ = png_set_interlace_handling(png_);
        if (storage_ == Storage::grey16) {
            png_read_update_info(png_, info_);
            channels_ = 2;  // bytes, of one sample
            return;
        }
        png_set_expand(png_);  // palettes to RGB, 1, 2 and 4 bits to 8, tRNS to alpha
        png_set_strip_16(png_);
        png_set_gray_to_rgb(png_);
        if (!compose && !has_alpha) png_set_strip_alpha(png_);
        png_read_update_info(png_, info_);
        channels_ = png_get_channels(png_, info_);
    }

    /// The colours that indices stand for; of a 1-bit picture, black and then white for whatever is not 0, as in
    /// Pillow.
    std::vector<std::uint8_t> colours() const {
        png_colorp palette = nullptr;
        int count = 0;
        std::vector<std::uint8_t> values;
        if (png_get_PLTE(png_, info_, &palette, &count) == 0) {
            values.assign(768, 255);
            std::fill_n(values.begin(), 3, std::uint8_t{0});
        }
        for (int i = 0; i < count; ++i)
            values.insert(values.end(), {palette[i].red, palette[i].green, palette[i].blue});
        return values;
    }

    /// Row y of the picture from libpng's row of RGBA, or of 16-bit grey.
    void finish_row(const std::uint8_t* row, std::size_t y, const std::optional<Colour>& background,
                    Image& image) const {
        const auto width = static_cast<std::size_t>(image.width);
        std::uint8_t* rgb = image.pixels.data() + y * width * 3;
        if (background) return compose_row(row, width, *background, rgb);
        if (storage_ == Storage::grey16) {
            std::uint8_t* samples = image.samples.data() + y * width * 2;
            for (std::size_t x = 0; x < width; ++x, row += 2, rgb += 3, samples += 2) {
                rgb[0] = rgb[1] = rgb[2] = samples[1] = row[0];
                samples[0] = row[1];
            }
            return;
        }
        std::uint8_t* alphas = image.samples.data() + y * width;
        for (std::size_t x = 0; x < width; ++x, row += 4, rgb += 3) {
            std::copy_n(row, 3, rgb);
            alphas[x] = row[3];
        }
    }

    bool ends_inside_pixels() const {
        constexpr std::size_t head = 8;  // length and name
        std::size_t at = head;           // (behind the signature)
        while (bytes_.size() - at >= head) {
            const std::size_t length = big_endian(at);
            if (length > bytes_.size() - at - head) return std::memcmp(bytes_.data() + at + 4, "IDAT", 4) == 0;
            at += std::min(head + length + 4, bytes_.size() - at);
        }
        return false;
    }

    std::size_t big_endian(std::size_t at) const {
        std::size_t value = 0;
        for (std::size_t i = 0; i < 4; ++i) value = value << 8 | std::to_integer<std::size_t>(bytes_[at + i]);
        return value;
    }

    std::span<const std::byte> bytes_;
    std::string_view name_;
    std::size_t position_ = 0;
    JumpTarget error_;
    png_structp png_ = nullptr;
    png_infop info_ = nullptr;
    int passes_ = 1;
    int channels_ = 3;  ///< bytes of a pixel as libpng gives it
    Storage storage_ = Storage::rgb;
    bool in_rows_ = false;
    bool is_cut_ = false;
    bool in_last_row_ = false;
    bool has_wrong_checksum_ = false;
    bool has_wrong_end_ = false;
    bool has_all_ = false;  ///< every pixel is there, whatever libpng still finds
};

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

#if __has_include(<jpeglib.h>) && __has_include(<jconfig.h>)

namespace tandem::inline TANDEM_ABI::detail {

[[noreturn]] TANDEM_INLINE void jpeg_failed(j_common_ptr info) {
    auto& target = *static_cast<JumpTarget*>(info->client_data);
    std::array<char, JMSG_LENGTH_MAX> message;
    info->err->format_message(info, message.data());
    target.set(message.data());
    std::longjmp(target.jump, 1);
}

/// libjpeg only warns of damage and goes on with grey blocks. Warnings about stray bytes between segments and about odd
/// header fields (a baseline scan's band of coefficients among them, which decoding does not use) stay silent, since
/// every pixel is still there.
TANDEM_INLINE void jpeg_warned(j_common_ptr info, int level) {
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

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE Image decode_image(std::span<const std::byte> bytes, std::string_view name,
                                 [[maybe_unused]] DecodeOptions options) {
    if (detail::starts_with(bytes, "\xff\xd8\xff")) {
#if __has_include(<jpeglib.h>) && __has_include(<jconfig.h>)
        return detail::JpegReader(bytes, name).read(options);
#else
        throw Error(name, "is a JPEG, and the headers of libjpeg were missing when this program was compiled");
#endif
    }
    if (detail::starts_with(bytes, "\x89PNG\r\n\x1a\n")) {
#if __has_include(<png.h>)
        return detail::PngReader(bytes, name).read(options);
#else
        throw Error(name, "is a PNG, and the headers of libpng were missing when this program was compiled");
#endif
    }
    const std::string_view kind = detail::file_kind(bytes).name;
    throw Error(name, "a JPEG or PNG image", kind.empty() ? "an unknown format" : kind);
}

TANDEM_INLINE Image read_image(const std::filesystem::path& path, DecodeOptions options) {
    const std::string name = path.string();
    std::error_code failure;
    if (!std::filesystem::is_regular_file(path, failure)) throw Error(name, "is not a file that can be read");
    const std::uintmax_t size = std::filesystem::file_size(path, failure);
    // 8 bytes are the most a stored pixel takes (16-bit RGBA); the rest is room for profiles and texts.
    constexpr std::uintmax_t metadata = std::uintmax_t{1} << 26;
    if (failure || (size > metadata && (size - metadata) / 8 > options.pixel_limit)) {
        throw OversizedImage(name,
                             "is larger than an image of " + std::to_string(options.pixel_limit) + " pixels can be");
    }
    std::vector<std::byte> bytes(static_cast<std::size_t>(size));
    std::ifstream file(path, std::ios::binary);
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!file) throw Error(name, "cannot be read");
    return decode_image(bytes, name, options);
}

}  // namespace tandem::inline TANDEM_ABI

#if __has_include(<png.h>)

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE std::vector<std::byte> encode_png(const Image& image) {
    detail::check_image(image, "encode_png");
    struct Writer {
        detail::JumpTarget error;
        std::vector<std::byte> bytes;
        png_structp png = nullptr;
        png_infop info = nullptr;

        Writer() = default;
        Writer(const Writer&) = delete;
        Writer& operator=(const Writer&) = delete;
        ~Writer() { png_destroy_write_struct(&png, &info); }

        static bool append(Writer& self, const std::byte* data, std::size_t count) noexcept try {
            self.bytes.insert(self.bytes.end(), data, data + count);
            return true;
        } catch (const std::exception&) {
            return false;
        }
        static void write(png_structp png, png_bytep data, std::size_t count) {
            auto& self = *static_cast<Writer*>(png_get_io_ptr(png));
            if (!append(self, reinterpret_cast<const std::byte*>(data), count)) png_error(png, "no memory");
        }
    };
    Writer writer;
    writer.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &writer.error, detail::png_failed, detail::png_warned);
    if (writer.png == nullptr) throw Error("encode_png", "libpng could not be started");
    const bool written = detail::survives_jump(writer.error, [&] {
        writer.info = png_create_info_struct(writer.png);
        if (writer.info == nullptr) png_error(writer.png, "no memory");
        png_set_write_fn(writer.png, &writer, Writer::write, nullptr);
        png_set_user_limits(writer.png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
        png_set_IHDR(writer.png, writer.info, static_cast<png_uint_32>(image.width),
                     static_cast<png_uint_32>(image.height), 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                     PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
        png_write_info(writer.png, writer.info);
        const std::size_t row = image.pixels.size() / static_cast<std::size_t>(image.height);
        for (std::size_t at = 0; at < image.pixels.size(); at += row) {
            png_write_row(writer.png, image.pixels.data() + at);
        }
        png_write_end(writer.png, writer.info);
    });
    if (!written) throw Error("encode_png", writer.error.message.data());
    return std::move(writer.bytes);
}

}  // namespace tandem::inline TANDEM_ABI

#endif

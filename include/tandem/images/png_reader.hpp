// PNG files decoded with libpng, and written.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if __has_include(<png.h>)
#include <png.h>
#endif

#include <tandem/core/error.hpp>
#include <tandem/images/decoding.hpp>
#include <tandem/images/image.hpp>

#if __has_include(<png.h>)

namespace tandem::inline TANDEM_ABI::detail {

[[noreturn]] inline void png_failed(png_structp png, png_const_charp message) {
    auto& target = *static_cast<JumpTarget*>(png_get_error_ptr(png));
    target.set(message);
    std::longjmp(target.jump, 1);
}

inline void png_warned(png_structp, png_const_charp) {}

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
        drop_opaque_alpha(image);
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

/// The pixels of a picture as a PNG file.
inline std::vector<std::byte> write_png(const Image& image) {
    struct Writer {
        JumpTarget error;
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
    writer.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &writer.error, png_failed, png_warned);
    if (writer.png == nullptr) throw Error("encode_png", "libpng could not be started");
    const bool written = survives_jump(writer.error, [&] {
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

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

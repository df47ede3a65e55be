// Antialiased resizing, bit for bit Pillow's or PyTorch's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include <tandem/images/filter.hpp>
#include <tandem/images/image.hpp>
#include <tandem/kernels/isa.hpp>
#include <tandem/kernels/resize.hpp>

namespace tandem::inline TANDEM_ABI {

/// Whose result it is, to the bit. They differ by a level in some pixels.
enum class Resampling {
    pillow_13,    ///< since Pillow 13.0: down first where height shrinks by more than twice the pixels that width does
    pillow_12,    ///< always across first: Pillow up to 12, with which the published models were trained
    torchvision,  ///< across first, and weights of 16 bits: torch.nn.functional.interpolate of bytes, antialias = True
};

/// A box of whole pixels.
struct Region {
    int left = 0;
    int top = 0;
    int width = 0;
    int height = 0;

    bool operator==(const Region&) const = default;
};

namespace detail {

inline constexpr std::size_t resize_pixel_limit = std::size_t{1} << 28;

/// A rectangle of an image's pixels, `stride` bytes from row to row.
struct ImageView {
    const std::uint8_t* pixels;
    std::size_t stride;
    int width;
    int height;
};

ImageView view(const Image& image, const Region& region);

ImageView view(const Image& image);

Image copy(const ImageView& source);

/// How a resize is done, beside its sizes.
struct ResizeMethod {
    Filter filter = Filter::bicubic;
    Resampling resampling = Resampling::pillow_13;
};

/// The part `window` of the width x height result of resizing the box (x0, y0, x1, y1) of source. Only what the window
/// needs is computed, so a centre crop of a long strip costs no more than the crop.
Image resize_window(const ImageView& source, const std::array<float, 4>& box, int width, int height,
                    const Region& window, ResizeMethod method,
                    const kernels::ResizeKernels& loops = kernels::resize_kernels(kernels::active_isa()));

/// The sides of a result of which only a window is computed.
inline constexpr int virtual_side_limit = 1 << 30;

void check_resize_size(int width, int height, std::string_view what);

/// As resize_other, of any picture; `storage` is the image's, or Storage::rgb where its RGB pixels are to be resized.
Image resize_part(const Image& image, const Region& part, Storage storage, int width, int height, const Region& window,
                  ResizeMethod method);

}  // namespace detail

/// The box (x0, y0) to (x1, y1), in pixels and fractions of them, resized to width x height. Bit for bit Pillow's
/// image.resize((width, height), filter, box) (libImaging/Resample.c), or PyTorch's: two passes in integer weights,
/// each rounded and clamped to 8 bits; pixels just outside the box still count at its border. Throws Error for an empty
/// box, one that leaves the image, and sides beyond 2^20 or 2^28 pixels.
Image resize_region(const Image& image, float x0, float y0, float x1, float y1, int width, int height, Filter filter,
                    Resampling resampling = Resampling::pillow_13);

/// The whole image resized to width x height; see resize_region.
Image resize(const Image& image, int width, int height, Filter filter, Resampling resampling = Resampling::pillow_13);

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/images/resize.impl.hpp>
#endif

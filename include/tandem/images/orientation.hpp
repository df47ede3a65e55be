// Which way up a picture is to be looked at: the one entry of EXIF data that changes what is seen.
#pragma once

#include <cstddef>
#include <span>

#include <tandem/images/image.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// The orientation that a JPEG, PNG or WebP file states in its EXIF data (CIPA DC-008-2023, table 6): 1 to 8; 1, which
/// changes nothing, where there is none, or where it cannot be made out.
int exif_orientation(std::span<const std::byte> file);

/// Turns and mirrors a picture that is stored in this orientation, with its samples, as Pillow's
/// ImageOps.exif_transpose.
void turn(Image& image, int orientation);

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/images/orientation.impl.hpp>
#endif

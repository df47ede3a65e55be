// Definitions of images/image.hpp.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <tandem/core/error.hpp>
#include <tandem/images/image.hpp>

namespace tandem::inline TANDEM_ABI::detail {

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

}  // namespace tandem::inline TANDEM_ABI::detail

// Pairs made up on the spot: image k is a flat colour with noise, caption k its number.
#pragma once

#include <tandem/tandem.hpp>

struct Colours {
    std::size_t size() const { return 8; }

    void fetch(std::size_t index, tandem::Random& random, std::span<float> image, std::span<tandem::Id> ids) const {
        const std::size_t plane = image.size() / 3;
        for (std::size_t i = 0; i < image.size(); ++i) {
            image[i] = ((index >> (i / plane)) & 1 ? 1.0F : -1.0F) + 0.1F * static_cast<float>(random.normal());
        }
        std::fill(ids.begin(), ids.end(), 0);
        ids[0] = 62;                                    // start of text
        ids[1] = static_cast<tandem::Id>(index + 1);
        ids[2] = 63;                                    // end of text: the highest id
    }
};

// What the wrong programs of training share: data, and what each of them puts another thing in the place of.
#pragma once

#include <cstddef>
#include <span>

#include <tandem/train/trainer.hpp>

#include "small.hpp"

struct Noise {
    std::size_t size() const { return 8; }
    void fetch(std::size_t, tandem::Random& random, std::span<float> image, std::span<tandem::Id> ids) const {
        for (float& pixel : image) pixel = static_cast<float>(random.normal());
        for (tandem::Id& id : ids) id = static_cast<tandem::Id>(random.below(64));
    }
};

struct Right {
    using Element = float;
    using Optimizer = tandem::AdamW;
    using Schedule = tandem::WarmupCosine;
    using Loss = tandem::InfoNce;
    using Data = Noise;
};

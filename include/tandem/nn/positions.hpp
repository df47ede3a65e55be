// Fixed positions: sine-cosine tables and rotations.
#pragma once

#include <cmath>
#include <cstddef>

#include <tandem/core/image_size.hpp>
#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI {

/// How a tower tells its tokens where they stand; open_clip's pos_embed_type, and rotations.
enum class PosEmbed {
    learnable,   ///< a learned row for every place
    sin_cos_2d,  ///< a fixed row for every patch (open_clip/pos_embed.py, get_2d_sincos_pos_embed)
    rotary       ///< queries and keys are rotated: by row and column of a patch, by the place of a text token
};

namespace nn {

/// Row 1 + p of the table is patch p's: sines, then cosines of its column in the first half, of its row in the second;
/// row 0, the class token's, is zero (open_clip/pos_embed.py:22-70).
template <Real C, ImageSize grid, std::size_t Width>
const Tensor<C, Shape<1 + grid.area(), Width>>& sin_cos_2d() {
    static const auto table = [] {
        Tensor<C, Shape<1 + grid.area(), Width>> rows;
        constexpr std::size_t bands = Width / 4;
        rows.fill(0);
        for (std::size_t patch = 0; patch < grid.area(); ++patch) {
            C* to = rows.data() + (1 + patch) * Width;
            for (const std::size_t place : {patch % grid.width, patch / grid.width}) {
                for (std::size_t j = 0; j < bands; ++j, ++to) {
                    const double angle = static_cast<double>(place) *
                                         std::pow(10000.0, -static_cast<double>(j) / static_cast<double>(bands));
                    to[0] = static_cast<C>(std::sin(angle));
                    to[bands] = static_cast<C>(std::cos(angle));
                }
                to += bands;
            }
        }
        return rows;
    }();
    return table;
}

/// The rotations of `Places` places that follow one another: angle place · 10000^(−2j / head width) for pair j (Su et al.
/// 2021, section 3.2.2). As Sequences::rotations.
template <Real C, std::size_t Places, std::size_t HeadWidth>
const Tensor<C, Shape<Places, HeadWidth>>& rotations_1d() {
    static const auto table = [] {
        Tensor<C, Shape<Places, HeadWidth>> rows;
        constexpr std::size_t pairs = HeadWidth / 2;
        for (std::size_t place = 0; place < Places; ++place) {
            for (std::size_t j = 0; j < pairs; ++j) {
                const double angle = static_cast<double>(place) *
                                     std::pow(10000.0, -static_cast<double>(j) / static_cast<double>(pairs));
                rows(place, j) = static_cast<C>(std::cos(angle));
                rows(place, pairs + j) = static_cast<C>(std::sin(angle));
            }
        }
        return rows;
    }();
    return table;
}

/// The rotations of `Prefix` tokens that are not rotated, then of a grid of patches: half of the pairs turn with a
/// patch's row, the other half with its column (timm/layers/pos_embed_sincos.py, RotaryEmbeddingCat with in_pixels =
/// False, as EVA-02 has it).
template <Real C, std::size_t Prefix, ImageSize grid, std::size_t HeadWidth>
const Tensor<C, Shape<Prefix + grid.area(), HeadWidth>>& rotations_2d() {
    static const auto table = [] {
        Tensor<C, Shape<Prefix + grid.area(), HeadWidth>> rows;
        constexpr std::size_t pairs = HeadWidth / 2, bands = HeadWidth / 4;
        for (std::size_t token = 0; token < Prefix + grid.area(); ++token) {
            for (std::size_t j = 0; j < pairs; ++j) {
                const std::size_t patch = token < Prefix ? 0 : token - Prefix;
                const std::size_t place = token < Prefix ? 0 : j < bands ? patch / grid.width : patch % grid.width;
                const double angle =
                    static_cast<double>(place) *
                    std::pow(10000.0, -static_cast<double>(j % bands) / static_cast<double>(bands));
                rows(token, j) = static_cast<C>(std::cos(angle));
                rows(token, pairs + j) = static_cast<C>(std::sin(angle));
            }
        }
        return rows;
    }();
    return table;
}

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI

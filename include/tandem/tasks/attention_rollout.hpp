// What of an image reaches what is pooled, through the attention of all layers.
#pragma once

#include <cstddef>
#include <vector>

#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI {

/// The product over all layers of ½A + ½I, A the mean of the heads' attention weights (Abnar and Zuidema 2020, section 3):
/// <N, tokens, tokens>, rows the last layer's tokens, columns those that entered the first. The rows add up to 1. `model` is a Clip
/// or an AnyClip, `images` what its image_attention takes, `layers` how many it has. Throws Error as image_attention
/// does. Each layer computes those before it again: it takes as long as half as many passes as there are layers.
template <class Model, class Images>
Tensor<float, Shape<dynamic, dynamic, dynamic>> attention_rollout(const Model& model, const Images& images, std::size_t layers) {
    Tensor<float, Shape<dynamic, dynamic, dynamic>> product;
    for (std::size_t layer = 0; layer < layers; ++layer) {
        const auto weights = model.image_attention(images, static_cast<int>(layer));
        const std::size_t count = weights.extent(0), heads = weights.extent(1), tokens = weights.extent(2);
        const std::size_t area = tokens * tokens;
        if (layer == 0) {
            product.resize(count, tokens, tokens);
            product.fill(0);
            for (std::size_t i = 0; i < count * tokens; ++i) product.data()[i * tokens + i % tokens] = 1;
        }
        std::vector<float> mean(area), mixed(area);
        for (std::size_t i = 0; i < count; ++i) {
            std::vector<double> sums(area);
            for (std::size_t j = 0; j < heads * area; ++j) sums[j % area] += static_cast<double>(weights.data()[i * heads * area + j]);
            for (std::size_t j = 0; j < area; ++j) mean[j] = static_cast<float>(0.5 * sums[j] / static_cast<double>(heads) + (j % (tokens + 1) == 0 ? 0.5 : 0.0));
            float* const at = product.data() + i * area;
            for (std::size_t row = 0; row < tokens; ++row) {
                for (std::size_t column = 0; column < tokens; ++column) {
                    float sum = 0;
                    for (std::size_t k = 0; k < tokens; ++k) sum += mean[row * tokens + k] * at[k * tokens + column];
                    mixed[row * tokens + column] = sum;
                }
            }
            for (std::size_t j = 0; j < area; ++j) at[j] = mixed[j];
        }
    }
    return product;
}

}  // namespace tandem::inline TANDEM_ABI

// The embeddings of pictures that are too many for one batch.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include <tandem/core/parallel.hpp>

namespace quickstart {

namespace td = tandem;

/// A model's embeddings of pictures that write(position, pixels) gives, [3, height, width] each; false leaves one out. `kept` gets the
/// positions of the others.
template <class Model, class Write>
typename Model::Embeddings embed_pictures(const Model& model, std::size_t count, const Write& write, std::vector<std::size_t>& kept) {
    constexpr std::size_t batch = 64, pixels = 3 * Model::architecture.vision.image.area();
    std::vector<float> rows, buffer(batch * pixels);
    std::vector<char> is_there(batch);
    for (std::size_t first = 0; first < count; first += batch) {
        const std::size_t part = std::min(batch, count - first);
        td::parallel_for(part, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) is_there[i] = write(first + i, std::span(buffer).subspan(i * pixels, pixels));
        });
        std::size_t used = 0;
        for (std::size_t i = 0; i < part; ++i) {
            if (!is_there[i]) continue;
            if (used != i) std::copy_n(buffer.data() + i * pixels, pixels, buffer.data() + used * pixels);
            kept.push_back(first + i);
            ++used;
        }
        if (used == 0) continue;
        const auto embedded = model.encode_image(typename Model::Vision::Input(std::span<const float>(buffer).first(used * pixels), used));
        rows.insert(rows.end(), embedded.data(), embedded.data() + embedded.size());
    }
    typename Model::Embeddings all(kept.size());
    std::ranges::copy(rows, all.data());
    return all;
}

}  // namespace quickstart

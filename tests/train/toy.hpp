// A model and pairs small enough that a training step takes well under a millisecond.
#pragma once

#include <filesystem>
#include <limits>
#include <span>
#include <vector>

#include <tandem/models/clip.hpp>
#include <tandem/train/trainer.hpp>

namespace toy {

namespace td = tandem;

inline constexpr td::ClipConfig config{
    .vision = td::VitConfig{.image = 8, .patch = 4, .width = 16, .layers = 1, .heads = 2},
    .text = td::TextConfig{.vocabulary = 16, .context = 4, .width = 16, .layers = 1, .heads = 2},
    .embedding = 8};
using Model = td::Clip<config>;

/// Image k is noise around a pattern of its own; its caption is k in base 4. `poisoned` pairs have NaN pixels.
struct Pairs {
    std::size_t count = 24;
    std::size_t poisoned = 0;

    std::size_t size() const { return count; }
    void fetch(std::size_t index, td::Random& random, std::span<float> image, std::span<td::Id> ids) const {
        for (std::size_t i = 0; i < image.size(); ++i) {
            const double pattern = (index >> (i % 5)) & 1 ? 1.0 : -1.0;
            image[i] = static_cast<float>(pattern + 0.1 * random.normal());
        }
        if (index < poisoned) image[0] = std::numeric_limits<float>::quiet_NaN();
        ids[0] = static_cast<td::Id>(index % 4);
        ids[1] = static_cast<td::Id>(4 + index / 4 % 4);
        ids[2] = static_cast<td::Id>(8 + index / 16);
        ids[3] = 15;
    }
};

/// The model that a snapshot holds, whatever its run was.
template <class AnyModel>
void load_model_of_snapshot(AnyModel& model, const std::filesystem::path& path) {
    const td::Safetensors file = td::Safetensors::open(path);
    td::detail::read_parameters(file, "model.", model);
}

/// All elements of a model, in order.
template <class AnyModel>
auto bytes_of(const AnyModel& model) {
    std::vector<typename AnyModel::C> all;
    td::for_each_parameter(
        [&](const std::string&, const auto& tensor) {
            all.insert(all.end(), tensor.elements().begin(), tensor.elements().end());
        },
        model);
    return all;
}

}  // namespace toy

// Definitions of tasks/conditioning.hpp.
#pragma once

#include <cmath>
#include <map>
#include <numbers>
#include <string_view>
#include <utility>

#include <tandem/core/parallel.hpp>
#include <tandem/files/weight_files.hpp>
#include <tandem/kernels/gemm.hpp>
#include <tandem/tasks/conditioning.hpp>

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE std::vector<double> cosine_alphas(std::size_t steps) {
    const auto bar = [](double share) {
        const double cosine = std::cos((share + 0.008) / 1.008 * std::numbers::pi / 2);
        return cosine * cosine;
    };
    std::vector<double> alphas;
    double product = 1;
    for (std::size_t i = 0; i < steps; ++i) {
        const auto step = static_cast<double>(i), all = static_cast<double>(steps);
        product *= 1 - std::min(1 - bar((step + 1) / all) / bar(step / all), 0.999);
        alphas.push_back(product);
    }
    return alphas;
}

TANDEM_INLINE std::vector<float> unclip_condition(std::span<const float> embedding, std::span<const float> noise, std::span<const float> mean,
                                                  std::span<const float> deviation, std::size_t level, std::span<const double> alphas) {
    const std::size_t width = embedding.size();
    if (width == 0 || width % 2 != 0 || noise.size() != width || mean.size() != width || deviation.size() != width)
        throw Error("unclip_condition", "noise, mean and deviation of the embedding's width, which is even",
                    std::to_string(noise.size()) + ", " + std::to_string(mean.size()) + " and " + std::to_string(deviation.size()) + " for " + std::to_string(width));
    if (level >= alphas.size()) throw Error("unclip_condition", "a noise level below " + std::to_string(alphas.size()), std::to_string(level));
    const double signal = std::sqrt(alphas[level]), added = std::sqrt(1 - alphas[level]);
    std::vector<float> out(2 * width);
    for (std::size_t i = 0; i < width; ++i) {
        const double standard = (static_cast<double>(embedding[i]) - static_cast<double>(mean[i])) / static_cast<double>(deviation[i]);
        out[i] = static_cast<float>((signal * standard + added * static_cast<double>(noise[i])) * static_cast<double>(deviation[i]) + static_cast<double>(mean[i]));
    }
    // Cosines first (flip_sin_to_cos), frequencies from 1 down to 1 / 10000 without reaching it (downscale_freq_shift 0).
    const std::size_t half = width / 2;
    for (std::size_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(level) * std::exp(-std::log(10000.0) * static_cast<double>(i) / static_cast<double>(half));
        out[width + i] = static_cast<float>(std::cos(angle));
        out[width + half + i] = static_cast<float>(std::sin(angle));
    }
    return out;
}

TANDEM_INLINE Projector Projector::load(const std::filesystem::path& path) {
    // A folder with this one file and no model is what LLaVA publishes beside a base model.
    const std::filesystem::path own = path / "mm_projector.bin";
    const std::filesystem::path file = std::filesystem::is_regular_file(own) ? own : path;
    const WeightFiles files = WeightFiles::open(file);
    std::map<std::size_t, std::pair<const StoredTensor*, const StoredTensor*>> found;  // by place: weight and bias
    for (const StoredTensor& tensor : files.tensors()) {
        const std::string_view name = tensor.name;
        const bool is_weight = name.ends_with(".weight"), is_bias = name.ends_with(".bias");
        std::size_t begin = name.find("mm_projector."), length = std::string_view("mm_projector.").size();
        std::string_view number;
        if (begin == std::string_view::npos) {
            constexpr std::string_view theirs = "multi_modal_projector.linear_";
            begin = name.find(theirs), length = theirs.size();
        }
        if (begin == std::string_view::npos || (!is_weight && !is_bias)) continue;
        number = name.substr(begin + length);
        number = number.substr(0, number.find('.'));
        std::size_t place = 0;
        for (const char c : number) {
            // "mm_projector.weight" has no number.
            if (c < '0' || c > '9' || number.size() > 4) {
                if (number != "weight" && number != "bias") throw Error(file.string(), "numbered layers of a projector", tensor.name);
                place = 0;
                break;
            }
            place = place * 10 + static_cast<std::size_t>(c - '0');
        }
        (is_weight ? found[place].first : found[place].second) = &tensor;
    }
    if (found.empty()) throw Error(file.string(), "the tensors of a projector (mm_projector.0.weight, multi_modal_projector.linear_1.weight)", "none");
    Projector projector;
    for (const auto& [place, pair] : found) {
        const auto [weight, bias] = pair;
        if (weight == nullptr || bias == nullptr)
            throw Error(file.string(), "weight and bias of layer " + std::to_string(place) + " of the projector", "one of them");
        if (weight->shape.size() != 2 || bias->shape.size() != 1 || bias->shape[0] != weight->shape[0])
            throw Error(file.string(), "a matrix and as many biases", weight->name + " and " + bias->name + " of other shapes");
        Layer layer{.in = weight->shape[1], .out = weight->shape[0], .weight = std::vector<float>(weight->shape[0] * weight->shape[1]), .bias = std::vector<float>(weight->shape[0])};
        if (!projector.layers_.empty() && projector.out() != layer.in)
            throw Error(file.string(), "a layer of " + std::to_string(projector.out()) + " inputs behind one of as many outputs", weight->name + " with " + std::to_string(layer.in));
        read_elements(*weight, std::span(layer.weight));
        read_elements(*bias, std::span(layer.bias));
        projector.layers_.push_back(std::move(layer));
    }
    return projector;
}

TANDEM_INLINE std::vector<float> Projector::operator()(std::span<const float> rows) const {
    if (rows.size() % in() != 0) throw Error("Projector", "rows of width " + std::to_string(in()), std::to_string(rows.size()) + " numbers");
    std::vector<float> from(rows.begin(), rows.end()), to;
    for (const Layer& layer : layers_) {
        const std::size_t count = from.size() / layer.in;
        if (&layer != &layers_.front()) {
            for (float& value : from) value = static_cast<float>(0.5 * static_cast<double>(value) * (1 + std::erf(static_cast<double>(value) / std::numbers::sqrt2)));
        }
        to.resize(count * layer.out);
        kernels::gemm<float>(count, layer.out, layer.in, kernels::row_major(from.data(), layer.in), kernels::row_major(layer.weight.data(), layer.in).transposed(),
                             to.data(), layer.out);
        for (std::size_t i = 0; i < to.size(); ++i) to[i] += layer.bias[i % layer.out];
        std::swap(from, to);
    }
    return from;
}

}  // namespace tandem::inline TANDEM_ABI

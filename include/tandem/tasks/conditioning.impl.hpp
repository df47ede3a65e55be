// Definitions of tasks/conditioning.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

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

}  // namespace tandem::inline TANDEM_ABI

// Definitions of images/filter.hpp.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include <tandem/core/image_size.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/images/filter.hpp>

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE double product(double a, double b) {
    const volatile double rounded = a * b;
    return rounded;
}

TANDEM_INLINE double filter_support(Filter filter) {
    return filter == Filter::bicubic ? 2.0 : 1.0;
}

/// The filter's value at x (Pillow libImaging/Resample.c:20-63, in its order of operations).
TANDEM_INLINE double filter_value(Filter filter, double x) {
    const double distance = std::abs(x);
    if (filter == Filter::bilinear) return distance < 1.0 ? 1.0 - distance : 0.0;
    if (distance < 1.0) return product(product(product(1.5, distance) - 2.5, distance), distance) + 1.0;
    if (distance < 2.0) return (product(product(distance - 5.0, distance) + 8.0, distance) - 4.0) * -0.5;
    return 0.0;
}

TANDEM_INLINE int filter_taps(int source, float low, float high, int size, int i, Filter filter,
                              std::vector<double>& weights) {
    const double scale = static_cast<double>(high - low) / size;
    const double stretch = std::max(scale, 1.0);
    const double support = filter_support(filter) * stretch;
    const double shrink = 1.0 / stretch;
    const double centre = low + product(i + 0.5, scale);
    const int first = std::max(static_cast<int>(centre - support + 0.5), 0);
    const int end = std::min(static_cast<int>(centre + support + 0.5), source);
    weights.clear();
    double sum = 0;
    for (int x = first; x < end; ++x) {
        weights.push_back(filter_value(filter, product(x - centre + 0.5, shrink)));
        sum += weights.back();
    }
    for (double& weight : weights) weight = sum != 0 ? weight / sum : weight;
    return first;
}

TANDEM_INLINE std::vector<float> resize_positions(const std::vector<float>& table, std::size_t prefix,
                                                  const ImageSize& from, const ImageSize& to, std::size_t width) {
    const auto pass = [&](const float* in, float* out, std::size_t size_in, std::size_t size_out, std::size_t lines,
                          std::size_t line_in, std::size_t line_out, std::size_t step) {
        std::vector<double> weights;
        for (std::size_t i = 0; i < size_out; ++i) {
            const auto first = static_cast<std::size_t>(
                filter_taps(static_cast<int>(size_in), 0, static_cast<float>(size_in), static_cast<int>(size_out),
                            static_cast<int>(i), Filter::bicubic, weights));
            for (std::size_t line = 0; line < lines; ++line) {
                for (std::size_t j = 0; j < width; ++j) {
                    double sum = 0;
                    for (std::size_t t = 0; t < weights.size(); ++t)
                        sum += weights[t] * static_cast<double>(in[line * line_in + (first + t) * step + j]);
                    out[line * line_out + i * step + j] = static_cast<float>(sum);
                }
            }
        }
    };
    std::vector<float> across(from.height * to.width * width), resized((prefix + to.area()) * width);
    std::copy_n(table.begin(), prefix * width, resized.begin());
    pass(table.data() + prefix * width, across.data(), from.width, to.width, from.height, from.width * width,
         to.width * width, width);
    pass(across.data(), resized.data() + prefix * width, from.height, to.height, to.width, width, width,
         to.width * width);
    return resized;
}

}  // namespace tandem::inline TANDEM_ABI::detail

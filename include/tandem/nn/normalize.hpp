// Rows of length 1, between the towers and the loss.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>

#include <tandem/core/dtype.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/core/platform.hpp>

// normalize() is the same as an expression. Here it is written out, for sizes at run time: with it inside the loss's
// expression, a training program took four seconds more to compile.
namespace tandem::inline TANDEM_ABI::nn {

/// No row is divided by less, as in torch.nn.functional.normalize.
inline constexpr double shortest_length = 1e-12;

/// In place x = x / max(‖x‖, 1e-12) for every row of x [rows, width]. `lengths` [rows] gets what each was divided by,
/// unless it is null.
template <Real T>
void normalize_rows(std::size_t rows, std::size_t width, T* x, T* lengths) {
    parallel_for(rows, 64, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            T* const row = x + i * width;
            double squares = 0;
            for (std::size_t j = 0; j < width; ++j)
                squares += static_cast<double>(row[j]) * static_cast<double>(row[j]);
            const double length = std::max(std::sqrt(squares), shortest_length);
            for (std::size_t j = 0; j < width; ++j) row[j] = static_cast<T>(static_cast<double>(row[j]) / length);
            if (lengths != nullptr) lengths[i] = static_cast<T>(length);
        }
    });
}

/// In place g = dL/dx, given g = dL/dy, normalize_rows' result y and its lengths: (g − y (y · g)) / length. A row that
/// was divided by the shortest length was only scaled.
template <Real T>
void normalize_rows_backward(std::size_t rows, std::size_t width, const T* y, const T* lengths, T* g) {
    parallel_for(rows, 64, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            const T* const unit = y + i * width;
            T* const row = g + i * width;
            double along = 0;
            if (static_cast<double>(lengths[i]) > shortest_length) {
                for (std::size_t j = 0; j < width; ++j)
                    along += static_cast<double>(unit[j]) * static_cast<double>(row[j]);
            }
            for (std::size_t j = 0; j < width; ++j) {
                row[j] = static_cast<T>((static_cast<double>(row[j]) - static_cast<double>(unit[j]) * along) /
                                        static_cast<double>(lengths[i]));
            }
        }
    });
}

}  // namespace tandem::inline TANDEM_ABI::nn

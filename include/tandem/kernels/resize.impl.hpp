// Definitions of kernels/resize.hpp.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <tandem/core/platform.hpp>
#include <tandem/kernels/isa.hpp>
#include <tandem/kernels/resize.hpp>
#include <tandem/kernels/resize_avx2.hpp>
#include <tandem/kernels/resize_avx512.hpp>
#include <tandem/kernels/resize_scalar.hpp>
#include <tandem/kernels/resize_set.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

TANDEM_INLINE const ResizeKernels& resize_kernels(Isa isa) {
#if defined(__x86_64__)
    if (is_avx512(isa) && cpu_features().int8) return resize_avx512::kernels;
    if (is_avx512(isa) || isa == Isa::avx2) return resize_avx2::kernels;
#endif
    static_cast<void>(isa);
    return resize_scalar::kernels;
}

TANDEM_INLINE NormaliseTable normalise_table(const std::array<float, 3>& mean, const std::array<float, 3>& deviation,
                                             const ResizeKernels& kernels) {
    NormaliseTable table;
    table.mean = mean;
    for (std::size_t c = 0; c < 3; ++c) {
        for (std::size_t i = 0; i < 256; ++i) table.values[c][i] = (unit_levels[i] - mean[c]) / deviation[c];
        table.inverse[c] = inverse_of(deviation[c]);
    }
    // Whether arithmetic gives the table's bits is not argued but tried, on every value there is.
    table.computable = true;
    std::array<std::array<float, 256>, 3> computed;
    kernels.normalise(grey_levels.data(), 256, table, computed.data()->data(), 256);
    table.computable = std::memcmp(computed.data(), table.values.data(), sizeof computed) == 0;
    return table;
}

}  // namespace tandem::inline TANDEM_ABI::kernels

// The loops of image preprocessing that the images layer calls.
#pragma once

#include <array>

#include <tandem/core/platform.hpp>
#include <tandem/kernels/isa.hpp>
#include <tandem/kernels/resize_set.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

/// The loops of an instruction set, which the CPU must have. Where none are written for it, those of the next lesser
/// one.
const ResizeKernels& resize_kernels(Isa isa);

/// The table of a mean and a deviation of channels in [0, 1].
NormaliseTable normalise_table(const std::array<float, 3>& mean, const std::array<float, 3>& deviation,
                               const ResizeKernels& kernels);

}  // namespace tandem::inline TANDEM_ABI::kernels

#if !defined(TANDEM_COMPILED)
#include <tandem/kernels/resize.impl.hpp>
#endif

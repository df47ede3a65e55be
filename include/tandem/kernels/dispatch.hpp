// The one place that chooses which instruction set's kernels run.
#pragma once

#include <tandem/core/dtype.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/kernels/isa.hpp>
#include <tandem/kernels/kernel_set.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

/// The kernels of an instruction set that the CPU has. Those of double, which no model is served in, are the build's
/// own.
template <Real T>
const KernelSet<T>& kernels_of(Isa isa);
/// The same of the kernels of gradients.
template <Real T>
const GradientKernels<T>& gradient_kernels_of(Isa isa);

/// The reduced-precision kernels of an instruction set that the CPU has; what it lacks comes from the next narrower
/// one.
ReducedKernels reduced_kernels_of(Isa isa);

/// The kernels in use.
template <Real T>
const KernelSet<T>& active();
/// The kernels of gradients in use.
template <Real T>
const GradientKernels<T>& active_gradients();
/// The reduced-precision kernels in use.
const ReducedKernels& active_reduced();

}  // namespace tandem::inline TANDEM_ABI::kernels

#if !defined(TANDEM_COMPILED)
#include <tandem/kernels/dispatch.impl.hpp>
#endif

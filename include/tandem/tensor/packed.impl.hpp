// Definitions of tensor/packed.hpp.
#pragma once

#include <tandem/core/dtype.hpp>
#include <tandem/tensor/packed.hpp>

namespace tandem::inline TANDEM_ABI {

#if defined(TANDEM_COMPILED)
template class PackedWeight<float>;
template class PackedWeight<double>;
template class PackedWeight<amp_bf16>;
template class PackedWeight<bfloat16>;
template class PackedWeight<int8>;
#endif

}  // namespace tandem::inline TANDEM_ABI

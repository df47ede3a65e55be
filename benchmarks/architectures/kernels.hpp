// What every variant of a list has in common is compiled once: a variant's program takes it from kernels.cpp, which
// architectures.py makes of this file.
#pragma once

#include <cstddef>

#include <tandem/kernels/attention.hpp>
#include <tandem/kernels/dense.hpp>
#include <tandem/tensor/packed.hpp>

namespace tandem::inline TANDEM_ABI {

namespace kernels {

extern template const KernelSet<float>& active<float>();
extern template const GradientKernels<float>& active_gradients<float>();
extern template PanelLayout weight_layout<float>();
extern template PanelLayout weight_layout<bf16>();
extern template PanelLayout weight_layout<int8>();
extern template void gemm<float, float, float, NoEpilogue>(std::size_t, std::size_t, std::size_t, const Operand<float>&,
                                                           const Operand<float>&, float*, std::size_t, bool,
                                                           const NoEpilogue&);
extern template void gemm<float, float, bf16, NoEpilogue>(std::size_t, std::size_t, std::size_t, const Operand<float>&,
                                                          const Operand<bf16>&, float*, std::size_t, bool,
                                                          const NoEpilogue&);
extern template void dense<float>(std::size_t, std::size_t, std::size_t, const StridedRows<const float>&, const float*,
                                  const StridedRows<float>&, const Finish<float>&);
extern template void dense<bf16>(std::size_t, std::size_t, std::size_t, const StridedRows<const float>&, const bf16*,
                                 const StridedRows<float>&, const Finish<float>&);
extern template void dense_backward<float>(std::size_t, std::size_t, std::size_t, const StridedRows<const float>&,
                                           const float*, const StridedRows<const float>&, const StridedRows<float>&,
                                           float*);
extern template void pack_weight<float>(std::size_t, std::size_t, const float*, float*);
extern template void pack_weight<bf16>(std::size_t, std::size_t, const bf16*, bf16*);
extern template void attention<float>(const AttentionShape&, const AttentionOperands<const float>&, float*, std::size_t);
extern template void attention_backward<float>(const AttentionShape&, const AttentionOperands<const float>&, const float*,
                                               std::size_t, const AttentionOperands<float>&);

}  // namespace kernels

extern template class PackedWeight<float>;
extern template class PackedWeight<bf16>;
extern template class PackedWeight<int8>;

}  // namespace tandem::inline TANDEM_ABI

// tandem on an NVIDIA GPU, for nvcc: the tensor layer's expressions evaluated on the device. Needs -std=c++20 and
// --expt-relaxed-constexpr.
#pragma once

#pragma nv_diagnostic push
#pragma nv_diag_suppress 128, 186, 20011, 20014
#include <tandem/tensor/cuda_evaluate.cuh>
#include <tandem/tensor/cuda_tensor.cuh>
#include <tandem/tensor/gradient.hpp>
#pragma nv_diagnostic pop

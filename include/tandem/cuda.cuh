// tandem on an NVIDIA GPU, for nvcc: the tensor layer's expressions evaluated on the device. Needs -std=c++20 and
// --expt-relaxed-constexpr:
//   cuda::DeviceTensor x(host_tensor);  auto y = cuda::evaluate(softmax(2.0 * x)).to_host();
#pragma once

// nvcc warns of loops over the axes of a scalar, and where a function for host and device is used on the host with SIMD
// vectors, which only the host has. A few of these (20014) come without a source line, which no pragma reaches: they
// mean nothing, and -diag-suppress 20014 silences them.
#pragma nv_diagnostic push
#pragma nv_diag_suppress 128, 186, 20011, 20014
#include <tandem/tensor/cuda_evaluate.cuh>
#include <tandem/tensor/cuda_tensor.cuh>
#include <tandem/tensor/gradient.hpp>
#pragma nv_diagnostic pop

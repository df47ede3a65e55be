// tandem on an NVIDIA GPU, for nvcc: the tensor layer's expressions evaluated on the device. Needs -std=c++20 and
// --expt-relaxed-constexpr.
#pragma once

#include <tandem/tensor/cuda_evaluate.cuh>
#include <tandem/tensor/cuda_tensor.cuh>
#include <tandem/tensor/gradient.hpp>

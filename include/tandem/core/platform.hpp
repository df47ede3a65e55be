// What differs between compilers and build flags, and nothing else.
#pragma once

// Two translation units built with different -m flags would otherwise share one copy of every inline kernel, whichever
// the linker kept. An inline namespace named after the flags keeps them apart; user code never spells it.
#if defined(__CUDACC__)
#define TANDEM_ABI cuda_abi
#elif defined(__AVX512F__)
#define TANDEM_ABI avx512_abi
#elif defined(__AVX2__) && defined(__FMA__)
#define TANDEM_ABI avx2_abi
#elif defined(__AVX__)
#define TANDEM_ABI avx_abi
#else
#define TANDEM_ABI base_abi
#endif

// Functors and expression nodes run on the host and, under nvcc, on the device.
#if defined(__CUDACC__)
#define TANDEM_DEVICE __host__ __device__
#else
#define TANDEM_DEVICE
#endif

namespace tandem::inline TANDEM_ABI {

inline constexpr int version_major = 0;
inline constexpr int version_minor = 1;
inline constexpr int version_patch = 0;

}  // namespace tandem::inline TANDEM_ABI

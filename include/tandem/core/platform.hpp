// What differs between compilers and build flags, and nothing else.
#pragma once

// Header-only, every unit has the library's functions as inline ones. With TANDEM_COMPILED set (CMake:
// tandem::compiled) units see declarations of what is no template, and one place has the definitions: that library, or
// the one source file that defines TANDEM_IMPLEMENTATION.
#if defined(TANDEM_IMPLEMENTATION) && !defined(TANDEM_COMPILED)
#define TANDEM_COMPILED
#endif
#if defined(TANDEM_COMPILED)
#define TANDEM_INLINE
#define TANDEM_ABI_OF(flags) compiled_##flags
#else
#define TANDEM_INLINE inline
#define TANDEM_ABI_OF(flags) flags
#endif

// Two translation units built with different -m flags would otherwise share one copy of every inline kernel, whichever
// the linker kept. An inline namespace named after the flags keeps them apart; user code never spells it.
#if defined(__CUDACC__)
#define TANDEM_ABI TANDEM_ABI_OF(cuda_abi)
#elif defined(__AVX512F__)
#define TANDEM_ABI TANDEM_ABI_OF(avx512_abi)
#elif defined(__AVX2__) && defined(__FMA__)
#define TANDEM_ABI TANDEM_ABI_OF(avx2_abi)
#elif defined(__AVX__)
#define TANDEM_ABI TANDEM_ABI_OF(avx_abi)
#else
#define TANDEM_ABI TANDEM_ABI_OF(base_abi)
#endif

// Functors and expression nodes run on the host and, under nvcc, on the device.
#if defined(__CUDACC__)
#define TANDEM_DEVICE __host__ __device__
#else
#define TANDEM_DEVICE
#endif

namespace tandem::linking {

/// Units of both kinds in one program do not link: an object cannot be of every thread and of each at once. (Linkers
/// that do not look, such as lld, still miss what one kind of unit calls in the other: the inline namespaces differ.)
#if defined(TANDEM_COMPILED)
[[gnu::weak, gnu::used]] thread_local char every_unit_is_header_only_or_every_unit_is_compiled = 0;
#else
[[gnu::weak, gnu::used]] char every_unit_is_header_only_or_every_unit_is_compiled = 0;
#endif

}  // namespace tandem::linking

namespace tandem::inline TANDEM_ABI {

/// Whether a loop of products gains from being written out twice: Clang 19 loads the operands of both halves first, and then has
/// no registers for the sums (a third of the speed).
#if defined(__clang__)
inline constexpr bool unrolls_by_hand = false;
#else
inline constexpr bool unrolls_by_hand = true;
#endif

/// The library's version, also of its CMake package.
inline constexpr int version_major = 0;
inline constexpr int version_minor = 1;  ///< see version_major
inline constexpr int version_patch = 0;  ///< see version_major

}  // namespace tandem::inline TANDEM_ABI

// Instruction sets, what the CPU at hand has of them, and the one choice that all kernels follow.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

/// Kernels are written for: plain C++ (the oracle), the build's own -march through xsimd, and the instruction sets
/// below, which run whatever the program was compiled for. amx is AVX-512 with reduced precision in tiles, and
/// amx_emulated has its tiles in plain C++, with the same sums to the bit.
enum class Isa { scalar, native, avx2, avx512, avx512bf16, neon, amx, amx_emulated };

/// What TANDEM_ISA takes, in the order of Isa.
inline constexpr std::array<std::string_view, 8> isa_names{"scalar",     "native", "avx2", "avx512",
                                                           "avx512bf16", "neon",   "amx",  "amx_emulated"};

/// The name of an instruction set, as in isa_names.
constexpr std::string_view name_of(Isa isa) {
    return isa_names[static_cast<std::size_t>(isa)];
}

/// What the CPU reports. avx512 stands for F, BW, DQ and VL; avx2 for AVX2, FMA and F16C; bf16 and int8 for products of
/// bfloat16 pairs and of byte quadruples, on top of avx512 or neon; i8mm for those of unsigned and signed bytes on
/// neon; amx for tiles of both that the operating system lets this process use.
struct CpuFeatures {
    bool avx2 = false;
    bool avx512 = false;
    bool neon = false;
    bool bf16 = false;
    bool slow_bf16 = false;  ///< at half the rate of float's products: Intel's CPUs up to Emerald Rapids
    bool int8 = false;
    bool i8mm = false;
    bool amx = false;
};

/// What the CPU at hand reports, asked once. Where it has AMX, Linux is asked to let the process use its tiles: a signal stack
/// that is too small for them is refused from then on.
const CpuFeatures& cpu_features();

/// Whether a CPU with these features runs the kernels of an instruction set.
constexpr bool has(const CpuFeatures& cpu, Isa isa) {
    switch (isa) {
        case Isa::avx2:
            return cpu.avx2;
        case Isa::avx512:
            return cpu.avx512;
        case Isa::avx512bf16:
            return cpu.avx512 && cpu.bf16;
        case Isa::neon:
            return cpu.neon;
        case Isa::amx:
            return cpu.amx;
        default:
            return true;
    }
}

/// Whether that is AVX-512, with or without more on top of it.
constexpr bool is_avx512(Isa isa) {
    return isa == Isa::avx512 || isa == Isa::avx512bf16 || isa == Isa::amx;
}

/// The instruction set of that name. Throws Error if there is none, or if the CPU does not have it.
Isa isa_named(std::string_view name);

/// The instruction set in use: the widest that the CPU has and that is not slow, or what the environment variable
/// TANDEM_ISA names. Chosen at the first call.
Isa active_isa();

}  // namespace tandem::inline TANDEM_ABI::kernels

#if !defined(TANDEM_COMPILED)
#include <tandem/kernels/isa.impl.hpp>
#endif

// Instruction sets, what the CPU at hand has of them, and the one choice that all kernels follow.
#pragma once

#include <array>
#include <cstdlib>
#include <string>
#include <string_view>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

/// Kernels are written for: plain C++ (the oracle), the build's own -march through xsimd, and the instruction sets
/// below, which run whatever the program was compiled for.
enum class Isa { scalar, native, avx2, avx512, avx512bf16, neon };

inline constexpr std::array<std::string_view, 6> isa_names{"scalar", "native", "avx2", "avx512", "avx512bf16", "neon"};

constexpr std::string_view name_of(Isa isa) {
    return isa_names[static_cast<std::size_t>(isa)];
}

/// What the CPU reports. avx512 stands for F, BW, DQ and VL; avx2 for AVX2, FMA and F16C; bf16 and int8 for products of
/// bfloat16 pairs and of byte quadruples, on top of avx512 or neon; i8mm for those of unsigned and signed bytes on
/// neon.
struct CpuFeatures {
    bool avx2 = false;
    bool avx512 = false;
    bool neon = false;
    bool bf16 = false;
    bool slow_bf16 = false;  ///< at half the rate of float's products: Intel's CPUs up to Emerald Rapids
    bool int8 = false;
    bool i8mm = false;
};

inline const CpuFeatures& cpu_features() {
    static const CpuFeatures found = [] {
        CpuFeatures cpu;
#if defined(__x86_64__)
        cpu.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        cpu.avx512 = cpu.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        cpu.bf16 = cpu.avx512 && __builtin_cpu_supports("avx512bf16");
        cpu.slow_bf16 = __builtin_cpu_is("intel") != 0;
        cpu.int8 = cpu.avx512 && __builtin_cpu_supports("avx512vnni");
#elif defined(__aarch64__) && defined(__linux__)
        cpu.neon = true;
        cpu.bf16 = (getauxval(AT_HWCAP2) & HWCAP2_BF16) != 0;
        cpu.int8 = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
        cpu.i8mm = (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
#elif defined(__aarch64__)
        cpu.neon = true;
#endif
        return cpu;
    }();
    return found;
}

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
        default:
            return true;
    }
}

/// Whether that is AVX-512, with or without products of bfloat16 pairs.
constexpr bool is_avx512(Isa isa) {
    return isa == Isa::avx512 || isa == Isa::avx512bf16;
}

/// The instruction set of that name. Throws Error if there is none, or if the CPU does not have it.
inline Isa isa_named(std::string_view name) {
    std::string available;
    for (std::size_t i = 0; i < isa_names.size(); ++i) {
        const Isa isa{static_cast<int>(i)};
        if (!has(cpu_features(), isa)) continue;
        if (isa_names[i] == name) return isa;
        available += (available.empty() ? "" : ", ") + std::string(isa_names[i]);
    }
    throw Error("TANDEM_ISA", "one that this CPU has: " + available, "\"" + std::string(name) + "\"");
}

/// The instruction set in use: the widest that the CPU has and that is not slow, or what the environment variable
/// TANDEM_ISA names. Chosen at the first call.
inline Isa active_isa() {
    static const Isa chosen = [] {
        if (const char* forced = std::getenv("TANDEM_ISA")) return isa_named(forced);
        const CpuFeatures& cpu = cpu_features();
        if (cpu.avx512) return cpu.bf16 && !cpu.slow_bf16 ? Isa::avx512bf16 : Isa::avx512;
        return cpu.avx2 ? Isa::avx2 : cpu.neon ? Isa::neon : Isa::native;
    }();
    return chosen;
}

}  // namespace tandem::inline TANDEM_ABI::kernels

// Definitions of kernels/isa.hpp.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <string>
#include <string_view>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/kernels/isa.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

TANDEM_INLINE const CpuFeatures& cpu_features() {
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

TANDEM_INLINE Isa isa_named(std::string_view name) {
    std::string available;
    for (std::size_t i = 0; i < isa_names.size(); ++i) {
        const Isa isa{static_cast<int>(i)};
        if (!has(cpu_features(), isa)) continue;
        if (isa_names[i] == name) return isa;
        available += (available.empty() ? "" : ", ") + std::string(isa_names[i]);
    }
    throw Error("TANDEM_ISA", "one that this CPU has: " + available, "\"" + std::string(name) + "\"");
}

TANDEM_INLINE Isa active_isa() {
    static const Isa chosen = [] {
        if (const char* forced = std::getenv("TANDEM_ISA")) return isa_named(forced);
        const CpuFeatures& cpu = cpu_features();
        if (cpu.avx512) return cpu.bf16 && !cpu.slow_bf16 ? Isa::avx512bf16 : Isa::avx512;
        return cpu.avx2 ? Isa::avx2 : cpu.neon ? Isa::neon : Isa::native;
    }();
    return chosen;
}

}  // namespace tandem::inline TANDEM_ABI::kernels

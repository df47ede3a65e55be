// Definitions of kernels/isa.hpp.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <string>
#include <string_view>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/kernels/isa.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

namespace detail {

/// Whether the CPU has AMX with bfloat16 and bytes, and Linux lets this process have its tiles' state, which it has to
/// be asked for once, for all of its threads (Documentation/arch/x86/xstate.rst).
inline bool asks_for_amx() {
#if defined(__x86_64__) && defined(__linux__)
    constexpr unsigned bf16 = 1U << 22, tile = 1U << 24, int8 = 1U << 25;  // Intel SDM, CPUID leaf 7
    constexpr long request_permission = 0x1023, tile_data = 18;            // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & (bf16 | tile | int8)) != (bf16 | tile | int8)) return false;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return false;
#endif
}

}  // namespace detail

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
        cpu.amx = cpu.bf16 && detail::asks_for_amx();
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
        if (cpu.amx) return Isa::amx;
        if (cpu.avx512) return cpu.bf16 && !cpu.slow_bf16 ? Isa::avx512bf16 : Isa::avx512;
        return cpu.avx2 ? Isa::avx2 : cpu.neon ? Isa::neon : Isa::native;
    }();
    return chosen;
}

}  // namespace tandem::inline TANDEM_ABI::kernels

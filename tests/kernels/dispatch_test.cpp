#include <catch2/catch.hpp>
#include <cstdlib>
#include <string>

#include <tandem/core/error.hpp>
#include <tandem/kernels/dispatch.hpp>

#include "isas.hpp"

using Catch::Matchers::Contains;
using tandem::kernels::Isa;

TEST_CASE("instruction sets by name", "[kernels]") {
    using tandem::kernels::isa_named;
    for (const Isa isa : available_isas()) CHECK(isa_named(name_of(isa)) == isa);
    CHECK_THROWS_WITH(isa_named("avx7"), Contains("TANDEM_ISA: expected one that this CPU has: scalar, native"));
    CHECK_THROWS_WITH(isa_named("avx7"), Contains(", found \"avx7\""));
    CHECK_THROWS_AS(isa_named(""), tandem::Error);
    // No CPU has both.
    CHECK_THROWS_AS(isa_named(tandem::kernels::cpu_features().neon ? "avx2" : "neon"), tandem::Error);
}

TEST_CASE("the kernels in use are those TANDEM_ISA names", "[kernels]") {
    if (const char* const forced = std::getenv("TANDEM_ISA")) {
        if (std::string(forced) == "avx7") {
            CHECK_THROWS_WITH(tandem::kernels::active<float>(), Contains("found \"avx7\""));
        } else {
            CHECK(name_of(tandem::kernels::active_isa()) == forced);
        }
    } else {
        const auto& cpu = tandem::kernels::cpu_features();
        const bool has_fast_pairs = cpu.bf16 && !cpu.slow_bf16;
        const std::string widest = cpu.amx      ? "amx"
                                   : cpu.avx512 ? (has_fast_pairs ? "avx512bf16" : "avx512")
                                   : cpu.avx2 ? "avx2"
                                   : cpu.neon ? "neon"
                                              : "native";
        CHECK(name_of(tandem::kernels::active_isa()) == widest);
    }
}

TEST_CASE("TANDEM_ISA is honoured by a whole process", "[kernels]") {
    if (std::getenv("TANDEM_ISA") != nullptr) return;  // the runs that this test starts
    CHECK(run_with_isa("avx7", "the kernels in use are those TANDEM_ISA names") == 0);
    for (const Isa isa : available_isas()) {
        CAPTURE(std::string(name_of(isa)));
        CHECK(run_with_isa(std::string(name_of(isa)), "the kernels in use are those TANDEM_ISA names") == 0);
        // Under an emulator or a sanitizer, the products alone take minutes. The release build has them all, with guard
        // pages.
#if defined(__SANITIZE_ADDRESS__)
        constexpr bool is_slow = true;
#else
        constexpr bool is_slow = sizeof TANDEM_TEST_EMULATOR > 1;
#endif
        const std::string tests = is_slow ? "[#attention_test]" : "[#gemm_test],[#dense_test],[#attention_test]";
        CHECK(run_with_isa(std::string(name_of(isa)), tests) == 0);
    }
}

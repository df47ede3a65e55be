#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <tandem/core/error.hpp>
#include <tandem/kernels/dispatch.hpp>

namespace {

/// Runs some of this executable's own tests with TANDEM_ISA set; the choice is made once a process.
int run_with_isa(const std::string& isa, const std::string& tests) {
    const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
    return std::system(
        ("TANDEM_ISA='" + isa + "' '" + self + "' '" + tests + "' --filenames-as-tags > /dev/null").c_str());
}

}  // namespace

TEMPLATE_TEST_CASE("kernels by name", "[kernels]", float, double) {
    CHECK(tandem::kernels::kernels_named<TestType>("scalar").name == std::string("scalar"));
    CHECK(tandem::kernels::kernels_named<TestType>("native").name == std::string("native"));
    CHECK_THROWS_WITH(tandem::kernels::kernels_named<TestType>("avx7"),
                      "TANDEM_ISA: expected scalar or native, found \"avx7\"");
    CHECK_THROWS_AS(tandem::kernels::kernels_named<TestType>(""), tandem::Error);
}

TEMPLATE_TEST_CASE("the kernels in use are those TANDEM_ISA names", "[kernels]", float, double) {
    const char* const forced = std::getenv("TANDEM_ISA");
    const std::string name = forced == nullptr ? "native" : forced;
    if (name == "native" || name == "scalar") {
        CHECK(tandem::kernels::active<TestType>().name == name);
    } else {
        CHECK_THROWS_WITH(tandem::kernels::active<TestType>(),
                          "TANDEM_ISA: expected scalar or native, found \"" + name + "\"");
    }
}

TEST_CASE("TANDEM_ISA is honoured by a whole process", "[kernels]") {
    if (std::getenv("TANDEM_ISA") != nullptr) return;  // the runs that this test starts
    for (const char* const isa : {"scalar", "native", "avx7"}) {
        CAPTURE(isa);
        CHECK(run_with_isa(isa, "the kernels in use are those TANDEM_ISA names*") == 0);
    }
    CHECK(run_with_isa("scalar", "[#gemm_test],[#attention_test]") == 0);
}

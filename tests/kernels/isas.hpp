// The instruction sets of the machine that the tests run on, and tests under one of them.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <tandem/kernels/dispatch.hpp>
#include <tandem/kernels/isa.hpp>

inline std::vector<tandem::kernels::Isa> available_isas() {
    using tandem::kernels::Isa;
    std::vector<Isa> available;
    for (std::size_t i = 0; i < tandem::kernels::isa_names.size(); ++i) {
        const Isa isa{static_cast<int>(i)};
        if (tandem::kernels::has(tandem::kernels::cpu_features(), isa)) available.push_back(isa);
    }
    return available;
}

/// Those of them that multiply pairs of bfloat16.
inline std::vector<tandem::kernels::Isa> isas_with_pairs() {
    std::vector<tandem::kernels::Isa> found = available_isas();
    std::erase_if(found, [](auto isa) { return tandem::kernels::reduced_kernels_of(isa).pairs.multiply == nullptr; });
    return found;
}

/// Runs some of this executable's own tests with TANDEM_ISA set; the choice is made once a process.
inline int run_with_isa(const std::string& isa, const std::string& tests) {
    const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
    return std::system(("TANDEM_ISA='" + isa + "' " TANDEM_TEST_EMULATOR " '" + self + "' '" + tests +
                        "' --filenames-as-tags > /dev/null")
                           .c_str());
}

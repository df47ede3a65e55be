// The instruction sets of the machine that the tests run on.
#pragma once

#include <vector>

#include <tandem/kernels/isa.hpp>

inline std::vector<tandem::kernels::Isa> available_isas() {
    using tandem::kernels::Isa;
    std::vector<Isa> available;
    for (const Isa isa : {Isa::scalar, Isa::native, Isa::avx2, Isa::avx512, Isa::avx512bf16, Isa::neon}) {
        if (tandem::kernels::has(tandem::kernels::cpu_features(), isa)) available.push_back(isa);
    }
    return available;
}

// What work multiplies, whichever threads do it.
#pragma once

#include <atomic>
#include <cstddef>

#include <tandem/kernels/gemm.hpp>

/// The operations of all products in `work`.
template <class Work>
std::size_t count_flops(const Work& work) {
    static std::atomic<std::size_t> flops;
    flops = 0;
    tandem::kernels::product_observer = [](std::size_t m, std::size_t n, std::size_t k) { flops += 2 * m * n * k; };
    work();
    tandem::kernels::product_observer = nullptr;
    return flops;
}

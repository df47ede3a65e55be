// What the cores' arithmetic units do at most, in GFLOP/s: float32, bfloat16, int8.
#include <cstdio>

#include <tbb/info.h>

#include "../ceiling.hpp"

int main() {
    const auto threads = static_cast<std::size_t>(tbb::info::default_concurrency());
    for (const auto precision : {ceiling::Precision::f32, ceiling::Precision::bf16, ceiling::Precision::int8})
        std::printf("%.3f\n", ceiling::gflops(precision, threads));
}

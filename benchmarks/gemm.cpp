// Products of the shapes that ViT-B/32's towers have, weights packed: GFLOP/s, and the share of what the cores'
// arithmetic units do at most, measured in this process just before (benchmarks/ceiling.hpp). One core unless --threads
// says otherwise.
//   gemm [--threads N] [--benchmark_filter='f32/768x2304/50$']          names: precision/KxN/M
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include <tbb/global_control.h>

#include <tandem/core/random.hpp>
#include <tandem/kernels/gemm.hpp>
#include <tandem/tensor/packed.hpp>

#include "ceiling.hpp"

namespace td = tandem;
namespace kernels = td::kernels;

namespace {

std::size_t threads = 1;

struct Size {
    std::size_t k, n;
};

/// The vision tower's, then the text tower's: query, key and value; output; the two of the MLP.
constexpr std::array<Size, 8> sizes{
    {{768, 2304}, {768, 768}, {768, 3072}, {3072, 768}, {512, 1536}, {512, 512}, {512, 2048}, {2048, 512}}};
constexpr std::array<int, 7> row_counts{1, 16, 50, 77, 400, 1600, 8192};

td::Buffer<float> random_values(std::size_t size, double deviation) {
    td::Buffer<float> values(size);
    td::Random random{td::Seed{1}};
    for (std::size_t i = 0; i < size; ++i) values.data()[i] = static_cast<float>(deviation * random.normal());
    return values;
}

/// Times run() and sets it beside the ceiling of that precision. One thread's time is CPU time, which other programs on
/// the machine do not add to.
template <class Run>
void measure(benchmark::State& state, ceiling::Precision precision, Size size, const Run& run) {
    const double most = ceiling::gflops(precision, threads);
    run();  // the first one allocates
    for (auto _ : state) {
        run();
        benchmark::ClobberMemory();
    }
    const double operations = 2e-9 * static_cast<double>(size.k * size.n) * static_cast<double>(state.range(0)) *
                              static_cast<double>(state.iterations());
    state.counters["GFLOP/s"] = benchmark::Counter(operations, benchmark::Counter::kIsRate);
    state.counters["ceiling"] = most;
    state.counters["share %"] = benchmark::Counter(100 * operations / most, benchmark::Counter::kIsRate);
}

/// As long as the layers keep the rows between them.
std::size_t row(std::size_t width) { return kernels::row_length<float>(width); }

/// dense(): what the models' layers call.
template <class T>
void dense(benchmark::State& state, ceiling::Precision precision, Size size) {
    const auto m = static_cast<std::size_t>(state.range(0));
    const td::Buffer<float> x = random_values(m * row(size.k), 1.0), weight = random_values(size.n * size.k, 0.02);
    td::Buffer<T> converted(weight.size()), packed(kernels::weight_layout<T>().size(size.k, size.n));
    std::copy_n(weight.data(), weight.size(), converted.data());
    kernels::pack_weight<T>(size.n, size.k, converted.data(), packed.data());
    td::Buffer<float> y(m * row(size.n));
    measure(state, precision, size, [&] {
        kernels::dense<T>(m, size.n, size.k, {x.data(), row(size.k)}, packed.data(), {y.data(), row(size.n)}, {});
    });
}

/// Bytes: rows quantised, multiplied, and brought back to float32, all inside the time.
void bytes(benchmark::State& state, ceiling::Precision precision, Size size) {
    const auto m = static_cast<std::size_t>(state.range(0));
    const td::Buffer<float> x = random_values(m * row(size.k), 1.0), weight = random_values(size.n * size.k, 0.02);
    td::PackedWeight<td::int8> packed(size.n, size.k);
    packed.pack(weight.data());
    td::Buffer<float> y(m * row(size.n));
    measure(state, precision, size, [&] { packed.product(m, {x.data(), row(size.k)}, {y.data(), row(size.n)}, {}); });
}

template <class Function>
void add(const std::string& name, Function function, ceiling::Precision precision) {
    for (const Size size : sizes) {
        const std::string shape = std::to_string(size.k) + "x" + std::to_string(size.n);
        auto* const registered = benchmark::RegisterBenchmark((name + "/" + shape).c_str(), function, precision, size);
        for (const int rows : row_counts) registered->Arg(rows);
        if (threads > 1) registered->UseRealTime();
        registered->Unit(benchmark::kMicrosecond);
    }
}

}  // namespace

int main(int count, char** arguments) {
    benchmark::Initialize(&count, arguments);
    if (count == 3 && std::string_view(arguments[1]) == "--threads" && std::atoi(arguments[2]) > 0) {
        threads = static_cast<std::size_t>(std::atoi(arguments[2]));
    } else if (count != 1) {
        std::fprintf(stderr, "gemm [--threads N] [--benchmark_...]\n");
        return 2;
    }
    const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, threads);
    benchmark::AddCustomContext("threads", std::to_string(threads));
    benchmark::AddCustomContext("kernels", std::string(kernels::name_of(kernels::active_isa())));
    add("f32", dense<float>, ceiling::Precision::f32);
    add("bf16", dense<td::bf16>, ceiling::Precision::bf16);
    add("int8", bytes, ceiling::Precision::int8);
    benchmark::RunSpecifiedBenchmarks();
}

// The kernels that work on rows, on one core: layer norm, softmax, the activations, forward and backward. GB/s counts
// what a kernel reads and writes; "copy GB/s" is what a copy within as many bytes reaches in the same process, in
// whatever cache they fit (benchmarks/ceiling.hpp).
//   rows [--benchmark_filter=softmax]                                   names: kernel/rows/width
#include <benchmark/benchmark.h>

#include <cstddef>
#include <string>

#include <tandem/core/random.hpp>
#include <tandem/kernels/dispatch.hpp>

#include "ceiling.hpp"

namespace td = tandem;
namespace kernels = td::kernels;

namespace {

td::Buffer<float> random_values(std::size_t size) {
    td::Buffer<float> values(size);
    td::Random random{td::Seed{1}};
    for (std::size_t i = 0; i < size; ++i) values.data()[i] = static_cast<float>(random.normal());
    return values;
}

/// Times run(), which reads and writes `moved` matrices and has `held` of them in memory.
template <class Run>
void measure(benchmark::State& state, double moved, double held, const Run& run) {
    const double bytes = 4.0 * static_cast<double>(state.range(0) * state.range(1));
    const double copy = ceiling::copy_rate(static_cast<std::size_t>(held * bytes));
    for (auto _ : state) {
        run();
        benchmark::ClobberMemory();
    }
    state.counters["GB/s"] =
        benchmark::Counter(1e-9 * moved * bytes * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
    state.counters["copy GB/s"] = copy;
    state.counters["Melement/s"] =
        benchmark::Counter(1e-6 * bytes / 4 * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

struct Matrices {
    std::size_t rows, width;
    td::Buffer<float> x = random_values(rows * width), y = random_values(rows * width),
                      gradient = random_values(rows * width);
    td::Buffer<float> gain = random_values(width), bias = random_values(width), mean{rows}, inverse{rows};

    explicit Matrices(const benchmark::State& state)
        : rows(static_cast<std::size_t>(state.range(0))), width(static_cast<std::size_t>(state.range(1))) {}
};

const kernels::KernelSet<float>& set() {
    return kernels::active<float>();
}

const kernels::GradientKernels<float>& gradients() {
    return kernels::active_gradients<float>();
}

void forward_norm(Matrices& m) {
    set().layer_norm(m.x.data(), m.gain.data(), m.bias.data(), m.y.data(), m.mean.data(), m.inverse.data(), m.rows,
                     m.width, 1e-5f);
}

void layer_norm(benchmark::State& state) {
    Matrices m(state);
    measure(state, 2, 2, [&] { forward_norm(m); });
}

void layer_norm_backward(benchmark::State& state) {
    Matrices m(state);
    forward_norm(m);
    measure(state, 3, 3, [&] {
        gradients().layer_norm_backward(m.gradient.data(), m.x.data(), m.gain.data(), m.mean.data(), m.inverse.data(),
                                        m.y.data(), m.rows, m.width, false);
    });
}

void layer_norm_parameters_backward(benchmark::State& state) {
    Matrices m(state);
    forward_norm(m);
    measure(state, 2, 2, [&] {
        gradients().layer_norm_parameters_backward(m.gradient.data(), m.x.data(), m.mean.data(), m.inverse.data(),
                                                   m.gain.data(), m.bias.data(), m.rows, m.width, 0, m.width);
    });
}

/// In place, over and over: the values flatten out to 1 / width, which costs what any others cost.
void softmax(benchmark::State& state) {
    Matrices m(state);
    measure(state, 2, 1, [&] {
        for (std::size_t i = 0; i < m.rows; ++i) set().softmax(m.x.data() + i * m.width, m.width, 0.125f);
    });
}

/// The scale keeps the gradients, which are multiplied over and over, away from zero's neighbourhood.
void softmax_backward(benchmark::State& state) {
    Matrices m(state);
    for (std::size_t i = 0; i < m.rows; ++i) set().softmax(m.y.data() + i * m.width, m.width, 1.0f);
    measure(state, 3, 2, [&] {
        for (std::size_t i = 0; i < m.rows; ++i) {
            gradients().softmax_backward(m.y.data() + i * m.width, m.gradient.data() + i * m.width, m.width,
                                         static_cast<float>(m.width));
        }
    });
}

void activation(benchmark::State& state, kernels::Activation kind) {
    Matrices m(state);
    measure(state, 2, 2, [&] { set().activate(kind, m.x.data(), m.y.data(), m.rows * m.width); });
}

void activation_backward(benchmark::State& state, kernels::Activation kind) {
    Matrices m(state);
    measure(state, 3, 2, [&] { gradients().activate_backward(kind, m.x.data(), m.gradient.data(), m.rows * m.width); });
}

/// One image's rows, a batch's, and more than the caches hold.
void sizes(benchmark::internal::Benchmark* registered, std::int64_t width) {
    for (const std::int64_t rows : {50, 1600, 65536}) registered->Args({rows, width});
}

/// Scores of attention: images of 50 tokens and captions of 77, all heads of one of them, and of a batch of 32.
void scores(benchmark::internal::Benchmark* registered) {
    for (const std::int64_t batch : {1, 32}) {
        registered->Args({batch * 12 * 50, 50});
        registered->Args({batch * 8 * 77, 77});
    }
}

}  // namespace

int main(int count, char** arguments) {
    benchmark::Initialize(&count, arguments);
    if (benchmark::ReportUnrecognizedArguments(count, arguments)) return 2;
    benchmark::AddCustomContext("kernels", std::string(kernels::name_of(kernels::active_isa())));
    const auto add = [](const char* name, auto function) {
        return benchmark::RegisterBenchmark(name, function)->Unit(benchmark::kMicrosecond);
    };
    sizes(add("layer_norm", layer_norm), 768);
    sizes(add("layer_norm_backward", layer_norm_backward), 768);
    sizes(add("layer_norm_parameters_backward", layer_norm_parameters_backward), 768);
    scores(add("softmax", softmax));
    scores(add("softmax_backward", softmax_backward));
    for (const auto kind :
         {kernels::Activation::gelu, kernels::Activation::quick_gelu, kernels::Activation::tanh_gelu}) {
        const std::string name = kind == kernels::Activation::gelu         ? "gelu"
                                 : kind == kernels::Activation::quick_gelu ? "quick_gelu"
                                                                           : "tanh_gelu";
        sizes(add(name.c_str(), [kind](benchmark::State& state) { activation(state, kind); }), 3072);
        sizes(add((name + "_backward").c_str(), [kind](benchmark::State& state) { activation_backward(state, kind); }),
              3072);
    }
    benchmark::RunSpecifiedBenchmarks();
}

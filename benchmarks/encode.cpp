// Images and captions a second, for each model and precision, at batches of 1, 8 and 32, with random weights. "effective
// GFLOP/s" counts the naive dense model's work, so that exact savings show as more than the machine has; the ceiling, that
// of the register tile on data in the L1 cache, is measured beside it.
//   encode --benchmark_filter=vit_b_32
#include <benchmark/benchmark.h>

#include <cstddef>
#include <string>
#include <vector>

#include <tandem/models/clip.hpp>
#include <tandem/models/zoo.hpp>

namespace td = tandem;

namespace {

template <auto config, class T>
const td::Clip<config, T>& model() {
    static const td::Clip<config, T> instance{td::Seed{0}};
    return instance;
}

template <auto config, class T>
void image(benchmark::State& state) {
    using Model = td::Clip<config, T>;
    const auto count = static_cast<std::size_t>(state.range(0));
    td::Tensor<float, typename Model::Vision::Input::shape> images(count);
    td::Random random{td::Seed{1}};
    td::fill_normal(images, random, 1.0);
    const Model& clip = model<config, T>();
    benchmark::DoNotOptimize(clip.encode_image(images).data());
    for (auto _ : state) benchmark::DoNotOptimize(clip.encode_image(images).data());
    const double items = static_cast<double>(count) * static_cast<double>(state.iterations());
    state.counters["images/s"] = benchmark::Counter(items, benchmark::Counter::kIsRate);
    state.counters["effective GFLOP/s"] =
        benchmark::Counter(1e-9 * static_cast<double>(td::forward_flops(config.vision)) * items, benchmark::Counter::kIsRate);
}

/// Captions of 13 tokens, the average of the clip art's titles and keywords.
template <auto config, class T>
void text(benchmark::State& state) {
    using Model = td::Clip<config, T>;
    const auto count = static_cast<std::size_t>(state.range(0));
    td::Tensor<td::Id, typename Model::Text::Input::shape> ids(count);
    td::Random random{td::Seed{1}};
    for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t j = 0; j < 12; ++j) ids(i, j) = static_cast<td::Id>(random.below(config.text.vocabulary - 1));
        ids(i, 12) = static_cast<td::Id>(config.text.vocabulary - 1);
    }
    const Model& clip = model<config, T>();
    benchmark::DoNotOptimize(clip.encode_text(ids).data());
    for (auto _ : state) benchmark::DoNotOptimize(clip.encode_text(ids).data());
    state.counters["captions/s"] = benchmark::Counter(static_cast<double>(count) * static_cast<double>(state.iterations()),
                                                      benchmark::Counter::kIsRate);
}

template <class A, class B, class Sum>
void ceiling(benchmark::State& state, const td::kernels::TileKernel<A, B, Sum>& tile) {
    constexpr std::size_t depth = 256;
    const std::size_t groups = depth / tile.group;
    const std::vector<A> a(tile.rows * depth, A(1));
    const std::vector<B> b(tile.columns * depth, B(1));
    std::vector<Sum> sums(tile.rows * tile.columns);
    for (auto _ : state) {
        tile.multiply(tile.rows, groups, a.data(), depth, tile.group, b.data(), sums.data());
        benchmark::ClobberMemory();
    }
    state.counters["GFLOP/s a core"] =
        benchmark::Counter(2e-9 * static_cast<double>(tile.rows * tile.columns * depth) * static_cast<double>(state.iterations()),
                           benchmark::Counter::kIsRate);
}

template <auto config>
void add(const std::string& name) {
    const auto both = [&]<class T>(const std::string& precision, T) {
        for (const int batch : {1, 8, 32}) {
            benchmark::RegisterBenchmark((name + "/image/" + precision).c_str(), image<config, T>)
                ->Arg(batch)->UseRealTime()->Unit(benchmark::kMillisecond);
            benchmark::RegisterBenchmark((name + "/text/" + precision).c_str(), text<config, T>)
                ->Arg(batch)->UseRealTime()->Unit(benchmark::kMillisecond);
        }
    };
    both("f32", float{});
    both("bf16", td::bf16{});
    both("int8", td::int8{});
}

}  // namespace

int main(int count, char** arguments) {
    benchmark::Initialize(&count, arguments);
    benchmark::RegisterBenchmark("ceiling/f32", ceiling<float, float, float>, td::kernels::active<float>().tile);
    benchmark::RegisterBenchmark("ceiling/bf16", ceiling<td::bf16, td::bf16, float>, td::kernels::active_reduced().pairs);
    benchmark::RegisterBenchmark("ceiling/int8", ceiling<std::uint8_t, std::int8_t, std::int32_t>,
                                 td::kernels::active_reduced().bytes);
    add<td::vit_b_32>("vit_b_32");
    benchmark::RunSpecifiedBenchmarks();
}

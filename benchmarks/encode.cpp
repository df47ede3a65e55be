// Images and captions a second for each named model and precision, at batches of 1, 8 and 32, with random weights, on
// all cores. GFLOP/s counts the dense model's operations, of captions up to their end; "share %" is that of what the
// cores' arithmetic units do at most, measured in this process just before (benchmarks/ceiling.hpp). The large models
// need minutes and gigabytes each: name those wanted.
//   encode --benchmark_filter='^vit_b_32/image/f32'             names: model/tower/precision/batch
#include <benchmark/benchmark.h>

#include <concepts>
#include <cstddef>
#include <memory>
#include <string>

#include <tbb/info.h>

#include <tandem/models/clip.hpp>
#include <tandem/models/cost.hpp>
#include <tandem/models/zoo.hpp>

#include "ceiling.hpp"

namespace td = tandem;

namespace {

/// The one model in memory: the largest has 10 GB of weights.
std::shared_ptr<const void> held;

template <auto config, class T>
const td::Clip<config, T>& model() {
    static std::weak_ptr<const td::Clip<config, T>> made;
    auto found = made.lock();
    if (!found) {
        held.reset();
        found = std::make_shared<const td::Clip<config, T>>(td::Seed{0});
        made = found;
        held = found;
    }
    return *found;
}

/// Times encode(), of `count` items.
template <class T, class Encode>
void measure(benchmark::State& state, const char* items, std::size_t flops, const Encode& encode) {
    constexpr auto precision = std::same_as<T, float>      ? ceiling::Precision::f32
                               : std::same_as<T, td::bf16> ? ceiling::Precision::bf16
                                                           : ceiling::Precision::int8;
    const double most = ceiling::gflops(precision, static_cast<std::size_t>(tbb::info::default_concurrency()));
    benchmark::DoNotOptimize(encode().data());
    for (auto _ : state) benchmark::DoNotOptimize(encode().data());
    const double count = static_cast<double>(state.range(0)) * static_cast<double>(state.iterations());
    const double operations = 1e-9 * static_cast<double>(flops) * count;
    state.counters[items] = benchmark::Counter(count, benchmark::Counter::kIsRate);
    state.counters["GFLOP/s"] = benchmark::Counter(operations, benchmark::Counter::kIsRate);
    state.counters["share %"] = benchmark::Counter(100 * operations / most, benchmark::Counter::kIsRate);
}

template <auto config, class T>
void image(benchmark::State& state) {
    using Model = td::Clip<config, T>;
    td::Tensor<float, typename Model::Vision::Input::shape> images(static_cast<std::size_t>(state.range(0)));
    td::Random random{td::Seed{1}};
    td::fill_normal(images, random, 1.0);
    const Model& clip = model<config, T>();
    measure<T>(state, "images/s", td::image_cost(config).flops, [&] { return clip.encode_image(images); });
}

/// Captions of 13 tokens, the average of the clip art's titles and keywords.
template <auto config, class T>
void text(benchmark::State& state) {
    using Model = td::Clip<config, T>;
    constexpr std::size_t tokens = 13, vocabulary = config.text.vocabulary;
    const auto count = static_cast<std::size_t>(state.range(0));
    td::Tensor<td::Id, typename Model::Text::Input::shape> ids(count);
    td::Random random{td::Seed{1}};
    for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t j = 0; j + 1 < tokens; ++j) ids(i, j) = static_cast<td::Id>(random.below(vocabulary - 1));
        ids(i, tokens - 1) = static_cast<td::Id>(vocabulary - 1);
    }
    const Model& clip = model<config, T>();
    measure<T>(state, "captions/s", config.text.cost(tokens).flops, [&] { return clip.encode_text(ids); });
}

template <auto config>
void add(const std::string& name) {
    const auto add_precision = [&]<class T>(const std::string& precision, T) {
        const auto tower = [&](const char* of, void (*function)(benchmark::State&)) {
            auto* const registered = benchmark::RegisterBenchmark((name + of + precision).c_str(), function);
            registered->Arg(1)->Arg(8)->Arg(32)->UseRealTime()->Unit(benchmark::kMillisecond);
        };
        tower("/image/", image<config, T>);
        tower("/text/", text<config, T>);
    };
    add_precision("f32", float{});
    add_precision("bf16", td::bf16{});
    add_precision("int8", td::int8{});
}

}  // namespace

int main(int count, char** arguments) {
    benchmark::Initialize(&count, arguments);
    if (benchmark::ReportUnrecognizedArguments(count, arguments)) return 2;
    add<td::vit_b_32>("vit_b_32");
    add<td::vit_b_16>("vit_b_16");
    add<td::vit_l_14>("vit_l_14");
    add<td::vit_l_14_336>("vit_l_14_336");
    add<td::vit_h_14>("vit_h_14");
    add<td::vit_g_14>("vit_g_14");
    add<td::vit_bigg_14>("vit_bigg_14");
    add<td::rn50>("rn50");
    benchmark::RunSpecifiedBenchmarks();
    held.reset();
}

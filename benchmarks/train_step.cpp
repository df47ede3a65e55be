// A training step (forward, backward, AdamW) at the README's architecture and at ViT-B/32, on captions of the full context
// and on captions of 13 tokens, with the GEMM's own rate beside it: benchmarks/train_step.sh sets the full-context rows
// beside PyTorch's.
#include <benchmark/benchmark.h>

#include <cstddef>

#include <tandem/losses/contrastive.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/cost.hpp>
#include <tandem/models/zoo.hpp>
#include <tandem/train/optimizer.hpp>

namespace td = tandem;

namespace {

inline constexpr td::ClipConfig clipart{
    .vision = td::VitConfig{.image = 64, .patch = 8, .width = 192, .layers = 6, .heads = 3},
    .text = td::TextConfig{.vocabulary = 4096, .context = 32, .width = 192, .layers = 4, .heads = 3},
    .embedding = 128};

template <auto config, std::size_t batch>
void train_step(benchmark::State& state) {
    using Model = td::Clip<config>;
    const std::size_t tokens = state.range(0) == 0 ? Model::Text::context : static_cast<std::size_t>(state.range(0));
    Model model{td::Seed{0}}, gradient;
    typename Model::Workspace work;
    td::AdamW::State<Model> moments;
    const td::AdamW optimizer{.rate = 1e-4};
    td::Random random{td::Seed{1}};
    td::Tensor<float, typename Model::Vision::Input::shape> images(batch);
    td::fill_normal(images, random, 1.0);
    td::Tensor<td::Id, typename Model::Text::Input::shape> ids(batch);
    const std::size_t vocabulary = config.text.vocabulary;
    for (std::size_t i = 0; i < batch; ++i) {
        for (std::size_t j = 0; j + 1 < tokens; ++j) ids(i, j) = static_cast<td::Id>(random.below(vocabulary - 1));
        ids(i, tokens - 1) = static_cast<td::Id>(vocabulary - 1);
    }
    const auto step = [&] {
        td::zero_parameters(gradient);
        benchmark::DoNotOptimize(model.loss_and_gradient(images, ids, td::InfoNce{}, gradient, work));
        optimizer.update(model, gradient, moments, optimizer.rate);
        model.clamp_logit_scale();
    };
    step();  // the first one allocates all memory
    for (auto _ : state) step();
    state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * batch));
    state.counters["dense GFLOP/s"] =
        benchmark::Counter(3e-9 * static_cast<double>(td::forward_flops(config) * batch * state.iterations()),
                           benchmark::Counter::kIsRate);
}

/// The rate of a large product on all cores: what a step could reach if it were nothing else.
void gemm(benchmark::State& state) {
    constexpr std::size_t n = 1024;
    const td::Tensor<float, td::Shape<n, n>> a, b;
    td::Tensor<float, td::Shape<n, n>> c;
    for (auto _ : state) {
        td::kernels::gemm<float>(n, n, n, td::kernels::row_major(a.data(), n), td::kernels::row_major(b.data(), n), c.data(), n);
        benchmark::ClobberMemory();
    }
    state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * n * n * n * static_cast<double>(state.iterations()),
                                                   benchmark::Counter::kIsRate);
}

BENCHMARK(gemm)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(train_step<clipart, 256>)->Name("clipart/256")->Arg(0)->Arg(13)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(train_step<td::vit_b_32, 32>)->Name("vit_b_32/32")->Arg(0)->Arg(13)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();

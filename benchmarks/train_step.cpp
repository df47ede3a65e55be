// A training step (forward, backward, AdamW) at the README's architecture and at ViT-B/32, on captions of the full context
// and on captions of 13 tokens, with the GEMM's own rate beside it: benchmarks/train_step.sh sets the full-context rows
// beside PyTorch's.
#include <benchmark/benchmark.h>

#include <chrono>
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

/// A model, what trains it, and random pairs of so many tokens (0: the context).
template <auto config>
struct Training {
    using Model = td::Clip<config>;

    Model model{td::Seed{0}}, gradient;
    typename Model::Workspace work;
    td::AdamW::State<Model> moments;
    td::AdamW optimizer{.rate = 1e-4};
    struct Batch {
        td::Tensor<float, typename Model::Vision::Input::shape> images;
        td::Tensor<td::Id, typename Model::Text::Input::shape> ids;
    } batch;

    Training(std::size_t count, std::size_t tokens) {
        if (tokens == 0) tokens = Model::Text::context;
        td::Random random{td::Seed{1}};
        batch.images.resize(count);
        batch.ids.resize(count);
        td::fill_normal(batch.images, random, 1.0);
        const std::size_t vocabulary = config.text.vocabulary;
        for (std::size_t i = 0; i < count; ++i) {
            for (std::size_t j = 0; j + 1 < tokens; ++j) batch.ids(i, j) = static_cast<td::Id>(random.below(vocabulary - 1));
            batch.ids(i, tokens - 1) = static_cast<td::Id>(vocabulary - 1);
        }
    }

    /// A step over the pairs, `parts` times over as one batch in so many parts.
    void step(std::size_t parts = 1) {
        const std::size_t count = batch.images.extent(0);
        td::zero_parameters(gradient);
        if (parts == 1) {
            benchmark::DoNotOptimize(model.loss_and_gradient(batch.images, batch.ids, td::InfoNce{}, gradient, work));
        } else {
            const auto pairs = [&](std::size_t, std::size_t) -> const Batch& { return batch; };
            benchmark::DoNotOptimize(model.loss_and_gradient(parts * count, count, pairs, td::tiled(td::InfoNce{}), gradient, work));
        }
        optimizer.update(model, gradient, moments, optimizer.rate);
        model.clamp_logit_scale();
    }
};

template <auto config, std::size_t batch>
void train_step(benchmark::State& state) {
    Training<config> training(batch, static_cast<std::size_t>(state.range(0)));
    training.step();  // the first one allocates all memory
    for (auto _ : state) training.step();
    state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * batch));
    state.counters["dense GFLOP/s"] =
        benchmark::Counter(3e-9 * static_cast<double>(td::forward_flops(config) * batch * state.iterations()),
                           benchmark::Counter::kIsRate);
}

/// A batch in parts, and in turn as many steps of a part's size: what the second forward pass costs.
template <auto config, std::size_t part>
void train_step_in_parts(benchmark::State& state) {
    const auto parts = static_cast<std::size_t>(state.range(0));
    Training<config> training(part, 0);
    training.step(2);
    double plain = 0, in_parts = 0;
    const auto now = [] { return std::chrono::steady_clock::now(); };
    const auto seconds = [](auto from, auto to) { return std::chrono::duration<double>(to - from).count(); };
    for (auto _ : state) {
        const auto begin = now();
        training.step(parts);
        const auto middle = now();
        for (std::size_t i = 0; i < parts; ++i) training.step();
        in_parts += seconds(begin, middle);
        plain += seconds(middle, now());
        state.SetIterationTime(seconds(begin, middle));
    }
    state.counters["over plain steps"] = in_parts / plain;
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
BENCHMARK(train_step_in_parts<clipart, 256>)->Name("clipart in parts of 256")->Arg(8)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(train_step_in_parts<td::vit_b_32, 32>)->Name("vit_b_32 in parts of 32")->Arg(16)->UseManualTime()->Unit(benchmark::kMillisecond);
BENCHMARK(train_step<td::vit_b_32, 32>)->Name("vit_b_32/32")->Arg(0)->Arg(13)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();

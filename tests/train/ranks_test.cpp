// Ranks: sums, batches and runs have the same bits however many compute them.
#include <catch2/catch.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/random.hpp>
#include <tandem/core/ranks.hpp>
#include <tandem/losses/contrastive.hpp>
#include <tandem/models/batch_parts.hpp>
#include <tandem/train/any_optimizer.hpp>
#include <tandem/train/state_shards.hpp>
#include <tandem/train/trainer.hpp>

#include "../temporary_folder.hpp"
#include "thread_ranks.hpp"
#include "toy.hpp"

namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

/// Everything that can be drawn is, and towers have blocks of their own.
inline constexpr td::ClipConfig drawn{
    .vision = td::VitConfig{.image = 8, .patch = 4, .width = 16, .layers = 2, .heads = 2, .patch_dropout = 0.3, .drop_path_rate = 0.2},
    .text = td::TextConfig{.vocabulary = 16, .context = 4, .width = 16, .layers = 2, .heads = 2},
    .embedding = 8,
    .logit_bias = true};
inline constexpr td::ClipConfig shared{
    .vision = td::VitConfig{.image = 8, .patch = 4, .width = 16, .layers = 2, .heads = 2},
    .text = td::TextConfig{.vocabulary = 16, .context = 4, .width = 16, .layers = 2, .heads = 2},
    .embedding = 8,
    .shared = true};

/// What is to be told is counted, and what telling it costs is summed, over all of a batch.
inline constexpr td::ClipConfig masked{
    .vision = td::VitConfig{.image = 8, .patch = 4, .width = 16, .layers = 1, .heads = 2},
    .text = td::TextConfig{.vocabulary = 16, .context = 4, .width = 16, .layers = 1, .heads = 2, .causal = false, .pad_id = 14,
                           .masked_language = {.share = 0.5, .mask = 13}},
    .embedding = 8};

/// The weights that a run of so many ranks ends with; each rank's are compared.
template <auto config, class L = td::InfoNce>
std::vector<float> weights_of_run(std::size_t ranks, td::TrainerOptions options, L loss = {}) {
    std::vector<std::vector<float>> found(ranks);
    options.log = nullptr;
    ThreadRanks(ranks).run([&](td::Ranks& rank) {
        td::Clip<config> model{td::Seed{5}};
        td::TrainerOptions mine = options;
        mine.ranks = &rank;
        td::Trainer{model, td::AdamW{.rate = 3e-3}, td::WarmupCosine{.warmup = 0.1}, loss, mine}.fit(toy::Pairs{});
        found[rank.rank()] = toy::bytes_of(model);
    });
    for (const auto& weights : found) CHECK(weights == found[0]);
    return found[0];
}

/// A schedule that errs in one step of a run of nine.
struct OtherOnce {
    std::size_t step;
    double at(const td::Progress& progress) const { return progress.steps == 9 && progress.step == step ? 0.5 : 1.0; }
};

}  // namespace

TEST_CASE("sums over ranks are a tree of neighbours, with the same bits on all") {
    for (const std::size_t size : {1, 2, 4, 8}) {
        for (const std::size_t length : {0, 1, 3, 65, 20001}) {
            std::vector<std::vector<double>> parts(size);
            td::Random random(td::Seed{size * 100 + length});
            for (auto& part : parts) {
                for (std::size_t i = 0; i < length + 7; ++i) part.push_back(random.normal());
            }
            std::vector<std::vector<double>> tree = parts;
            for (std::size_t distance = 1; distance < size; distance *= 2) {
                for (std::size_t rank = 0; rank < size; rank += 2 * distance) {
                    for (std::size_t i = 0; i < length + 7; ++i) tree[rank][i] += tree[rank + distance][i];
                }
            }
            ThreadRanks(size).run([&](td::Ranks& ranks) {
                std::vector<double>& mine = parts[ranks.rank()];
                const std::vector<std::span<double>> tensors{std::span(mine).first(7), std::span(mine).subspan(7)};
                td::SumRoom<double> room;
                td::add_up<double>(ranks, tensors, room);
            });
            for (const auto& part : parts) CHECK(part == tree[0]);
        }
    }
}

TEST_CASE("what ranks gather stands in their order") {
    for (const std::size_t size : {1, 2, 4, 8}) {
        ThreadRanks(size).run([&](td::Ranks& ranks) {
            std::vector<int> all(3 * size);
            for (std::size_t i = 0; i < 3; ++i) all[3 * ranks.rank() + i] = static_cast<int>(3 * ranks.rank() + i);
            td::gather<int>(ranks, all);
            std::vector<int> expected(3 * size);
            std::iota(expected.begin(), expected.end(), 0);
            if (all != expected) throw td::Error("test", "ranks in order", "others");
            const auto texts = td::gather_texts(ranks, std::string(ranks.rank(), 'x'));
            for (std::size_t rank = 0; rank < size; ++rank) {
                if (texts[rank] != std::string(rank, 'x')) throw td::Error("test", "texts in order", texts[rank]);
            }
        });
    }
}

TEST_CASE("twice a gradient's bytes are sent, less a rank's part") {
    constexpr std::size_t length = 1 << 16;
    for (const std::size_t size : {2, 4}) {
        ThreadRanks all(size);
        all.run([&](td::Ranks& ranks) {
            std::vector<float> values(length, 1.0F);
            const std::vector<std::span<float>> tensors{values};
            td::SumRoom<float> room;
            td::add_up<float>(ranks, tensors, room);
        });
        CHECK(all.sent_bytes() == 2 * (size - 1) * length * sizeof(float));
    }
}

TEST_CASE("parts are dealt out in shares, and asked for so that the first one need not be embedded twice") {
    const auto order = [](std::size_t parts, std::size_t shares) {
        const td::BatchParts batch{.count = 3 * parts, .part = 3, .shares = shares};
        batch.check("test");
        std::vector<std::size_t> computed;
        for (std::size_t i = 0; i < batch.computed(); ++i) computed.push_back(batch.part_at(i));
        return computed;
    };
    CHECK(order(1, 1) == std::vector<std::size_t>{0});
    CHECK(order(4, 1) == std::vector<std::size_t>{3, 2, 1, 0, 1, 2, 3});
    CHECK(order(4, 4) == std::vector<std::size_t>{3, 2, 1, 0, 1, 2, 3});
    CHECK(order(6, 2) == std::vector<std::size_t>{5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5});
    CHECK_THROWS_WITH(order(6, 3), "test: expected shares of a batch that are a power of two, and at least as many as its 1 ranks, found 3");
    CHECK_THROWS_WITH(order(6, 4), "test: expected 4 shares of as many parts of as many pairs, found 18 pairs in parts of 3");
}

TEST_CASE("one, two and four ranks end in the same bits", "[same]") {
    td::TrainerOptions options{.batch = 8, .micro_batch = 1, .shares = 4, .steps = 12, .seed = td::Seed{2}};
    const std::vector<float> alone = weights_of_run<drawn>(1, options, td::tiled(td::SigmoidLoss{}, 3));
    CHECK(weights_of_run<drawn>(2, options, td::tiled(td::SigmoidLoss{}, 3)) == alone);
    CHECK(weights_of_run<drawn>(4, options, td::tiled(td::SigmoidLoss{}, 3)) == alone);
    options.micro_batch = 0;  // a share
    options.average_decay = 0.9;
    const std::vector<float> whole = weights_of_run<shared>(1, options);
    CHECK(weights_of_run<shared>(2, options) == whole);
    CHECK(weights_of_run<shared>(4, options) == whole);
    options.shares = 8;
    CHECK(weights_of_run<shared>(1, options) == weights_of_run<shared>(4, options));
    options.micro_batch = 1;
    const std::vector<float> told = weights_of_run<masked>(1, options);
    CHECK(weights_of_run<masked>(2, options) == told);
    CHECK(weights_of_run<masked>(4, options) == told);
    CHECK(weights_of_run<masked>(4, options, td::NoPairs{}) == weights_of_run<masked>(1, options, td::NoPairs{}));
    options.micro_batch = 0;
    // Locked towers exchange nothing, and stay.
    options.lock_image = true;
    CHECK(weights_of_run<toy::config>(2, options) == weights_of_run<toy::config>(1, options));
}

TEST_CASE("a gradient in shares is the batch's") {
    td::Clip<toy::config, double> model{td::Seed{3}}, whole, in_shares;
    td::Clip<toy::config, double>::Workspace work;
    td::Tensor<double, td::Clip<toy::config, double>::Vision::Input::shape> images(16);
    td::Tensor<td::Id, td::Clip<toy::config, double>::Text::Input::shape> ids(16);
    for (std::size_t i = 0; i < 16; ++i) {
        std::vector<float> image(images.size() / 16);
        td::Random random(td::Seed{1}, i);
        toy::Pairs{}.fetch(i, random, image, ids[i].elements());
        std::ranges::copy(image, images[i].elements().begin());
    }
    td::zero_parameters(whole), td::zero_parameters(in_shares);
    struct Part {
        td::Clip<toy::config, double>::Vision::Input images;
        td::Clip<toy::config, double>::Text::Input ids;
    };
    const auto pairs = [&](std::size_t first, std::size_t last) {
        return Part{std::as_const(images).view().slice(first, last), std::as_const(ids).view().slice(first, last)};
    };
    const double loss = model.loss_and_gradient(16, 16, pairs, td::InfoNce{}, whole, work);
    work.shares = 8;
    CHECK(model.loss_and_gradient(16, 1, pairs, td::InfoNce{}, in_shares, work) == Approx(loss).epsilon(1e-12));
    td::for_each_parameter(
        [](const std::string& name, const auto& expected, const auto& found) {
            INFO(name);
            for (std::size_t i = 0; i < expected.size(); ++i) CHECK(found.elements()[i] == Approx(expected.elements()[i]).epsilon(1e-9).margin(1e-12));
        },
        whole, in_shares);
}

TEST_CASE("a step sends as many bytes as is told beforehand") {
    // Of widths that fill panels: nothing is sent that is no parameter.
    static constexpr td::ClipConfig filled{
        .vision = td::VitConfig{.image = 32, .patch = 8, .width = 64, .layers = 2, .heads = 2},
        .text = td::TextConfig{.vocabulary = 64, .context = 8, .width = 64, .layers = 2, .heads = 2},
        .embedding = 64};
    constexpr std::size_t steps = 50;
    for (const std::size_t size : {2, 4, 8}) {
        const auto sent = [&](std::size_t count, bool shard) {
            ThreadRanks all(size);
            all.run([&](td::Ranks& rank) {
                td::Clip<filled> model{td::Seed{5}};
                td::Trainer{model, td::AdamW{}, td::ConstantRate{}, td::InfoNce{},
                            td::TrainerOptions{.batch = 8, .ranks = &rank, .shard_state = shard, .steps = count, .log = nullptr}}.fit(toy::Pairs{});
            });
            return static_cast<double>(all.sent_bytes());
        };
        const auto sent_in_step = [&](bool shard) { return (sent(steps + 1, shard) - sent(1, shard)) / steps / static_cast<double>(size); };
        CHECK(sent_in_step(false) == Approx(td::exchanged_bytes(filled, size, 8)).epsilon(0.002));
        CHECK(sent_in_step(true) == Approx(td::exchanged_bytes(filled, size, 8, true)).epsilon(0.002));
    }
}

TEST_CASE("ranks that have the optimizer's state in shares end in the same bits, and write the same snapshot") {
    const TemporaryFolder folder;
    const auto run = [&](std::size_t ranks, bool shard, const char* name, const auto& optimizer) {
        std::vector<std::vector<float>> found(ranks);
        ThreadRanks(ranks).run([&](td::Ranks& rank) {
            td::Clip<drawn> model{td::Seed{5}};
            td::TrainerOptions options{.batch = 8, .ranks = &rank, .shares = 4, .shard_state = shard, .steps = 10, .seed = td::Seed{2}, .log = nullptr};
            options.lock_image = true;
            options.snapshot_every = 3;
            if (name != nullptr) options.snapshot = folder / name;
            td::Trainer{model, optimizer, td::ConstantRate{}, td::InfoNce{}, options}.fit(toy::Pairs{});
            found[rank.rank()] = toy::bytes_of(model);
        });
        for (const auto& weights : found) CHECK(weights == found[0]);
        return found[0];
    };
    const auto check = [&](const auto& optimizer) {
        const std::vector<float> expected = run(1, false, "whole", optimizer);
        CHECK(run(2, true, "shards", optimizer) == expected);
        const td::Safetensors whole = td::Safetensors::open(folder / "whole"), shards = td::Safetensors::open(folder / "shards");
        REQUIRE(whole.tensors().size() == shards.tensors().size());
        for (const td::StoredTensor& tensor : whole.tensors()) {
            CAPTURE(tensor.name);
            CHECK(std::ranges::equal(tensor.data, shards.find(tensor.name)->data));
        }
        std::filesystem::remove(folder / "whole");
        std::filesystem::remove(folder / "shards");
        CHECK(run(4, true, nullptr, optimizer) == expected);
    };
    check(td::AdamW{.rate = 3e-3});
    check(td::Muon{.rate = 3e-3});
    check(td::AnyOptimizer{td::Sgd{.rate = 0.1}});
}

TEST_CASE("parameters are dealt out to ranks evenly, and a rank has the moments of its own alone") {
    ThreadRanks(4).run([&](td::Ranks& rank) {
        td::Clip<toy::config> moment{td::Seed{1}};
        std::vector<std::pair<std::string, std::size_t>> sizes;
        std::size_t all = 0, largest = 0;
        td::for_each_parameter(
            [&](const td::ParameterName& name, const auto& tensor) {
                sizes.emplace_back(name, tensor.size());
                all += tensor.size();
                largest = std::max(largest, tensor.size());
            },
            std::as_const(moment));
        const td::detail::StateShards shards(rank, sizes);
        std::vector<std::size_t> loads(4);
        for (const auto& [name, size] : sizes) loads[*shards.owner(name)] += size;
        if (std::ranges::max(loads) > all / 4 + largest) throw td::Error("test", "even loads", std::to_string(std::ranges::max(loads)));
        shards.release(moment);
        td::for_each_parameter(
            [&](const td::ParameterName& name, const auto& tensor) {
                const bool is_zero = std::ranges::all_of(tensor.elements(), [](float value) { return value == 0; });
                if (!shards.is_mine(name.view()) && !is_zero) throw td::Error("test", "zeros", name.operator std::string());
            },
            std::as_const(moment));
    });
}

TEST_CASE("a snapshot of four ranks goes on with two, and alone") {
    td::TrainerOptions options{.batch = 8, .shares = 4, .steps = 20, .seed = td::Seed{4}};
    const std::vector<float> expected = weights_of_run<toy::config>(1, options);
    for (const std::size_t ranks : {1, 2, 4}) {
        const TemporaryFolder folder;
        options.snapshot = folder / "run.safetensors";
        options.snapshot_every = 7;
        struct Stop {};
        CHECK_THROWS_AS(ThreadRanks(4).run([&](td::Ranks& rank) {
            td::Clip<toy::config> model{td::Seed{5}};
            td::TrainerOptions mine = options;
            mine.ranks = &rank;
            mine.log = nullptr;
            mine.evaluate_every = 10;
            td::Trainer trainer{model, td::AdamW{.rate = 3e-3}, td::WarmupCosine{.warmup = 0.1}, td::InfoNce{}, mine};
            trainer.on_evaluate([](const auto&, const td::RunState&) { throw Stop{}; });
            trainer.fit(toy::Pairs{});
        }),
                        Stop);
        // Whoever had the optimizer's state, and has it now.
        options.shard_state = !options.shard_state;
        CHECK(weights_of_run<toy::config>(ranks, options) == expected);
    }
}

TEST_CASE("ranks that one of them is asked to stop, stop together") {
    const TemporaryFolder folder;
    std::atomic<bool> stop = false;
    std::vector<std::size_t> steps(4);
    ThreadRanks(4).run([&](td::Ranks& rank) {
        td::Clip<toy::config> model{td::Seed{5}};
        td::TrainerOptions options{.batch = 8, .ranks = &rank, .steps = 1000, .snapshot = folder / "run.safetensors", .log = nullptr};
        options.stop = rank.rank() == 2 ? &stop : nullptr;
        options.report_every = 1;
        td::Trainer trainer{model, td::AdamW{}, td::ConstantRate{}, td::InfoNce{}, options};
        trainer.on_report([&](const td::StepReport& report) { stop = report.step >= 5; });
        steps[rank.rank()] = trainer.fit(toy::Pairs{}).step;
    });
    CHECK(steps[0] >= 5);
    CHECK(steps[0] < 1000);
    CHECK(steps == std::vector<std::size_t>(4, steps[0]));
}

TEST_CASE("ranks stop together behind a step that is evaluated") {
    const TemporaryFolder folder;
    std::atomic<bool> stop = false;
    std::vector<std::size_t> steps(2);
    ThreadRanks(2).run([&](td::Ranks& rank) {
        td::Clip<toy::config> model{td::Seed{5}};
        td::TrainerOptions options{.batch = 8, .ranks = &rank, .steps = 1000, .snapshot = folder / "run.safetensors", .log = nullptr, .evaluate_every = 1};
        options.stop = &stop;
        td::Trainer trainer{model, td::AdamW{}, td::ConstantRate{}, td::InfoNce{}, options};
        if (rank.rank() == 0) trainer.on_evaluate([&](const auto&, const td::RunState& run) { stop = run.step >= 4; });
        steps[rank.rank()] = trainer.fit(toy::Pairs{}).step;
    });
    CHECK(steps[0] >= 4);
    CHECK(steps[0] < 1000);
    CHECK(steps[1] == steps[0]);
}

TEST_CASE("ranks that differ are named before the first step, at the next loss, and before a snapshot is written") {
    const TemporaryFolder folder;
    const auto run = [&](const auto& change, std::size_t other_step = 99) {
        ThreadRanks(2).run([&](td::Ranks& rank) {
            td::TrainerOptions options{.batch = 8, .ranks = &rank, .steps = 9, .snapshot = folder / "run.safetensors", .log = nullptr};
            toy::Pairs pairs;
            td::Seed seed{5};
            const bool is_other = rank.rank() == 1;
            if (is_other) change(seed, options, pairs);
            td::Clip<toy::config> model{seed};
            td::Trainer{model, td::AdamW{.rate = 1e-2}, OtherOnce{is_other ? other_step : 99}, td::InfoNce{}, options}.fit(pairs);
        });
    };
    CHECK_NOTHROW(run([](auto&...) {}));
    std::filesystem::remove(folder / "run.safetensors");
    CHECK_THROWS_WITH(run([](td::Seed& seed, auto&...) { seed = td::Seed{6}; }),
                      Contains("Trainer: expected ranks that all have weights ") && Contains(" on rank 1"));
    CHECK_THROWS_WITH(run([](auto&, td::TrainerOptions& options, auto&) { options.clip_norm = 2; }),
                      "Trainer: expected ranks that all have clip_norm 1, found clip_norm 2 on rank 1");
    CHECK_THROWS_WITH(run([](auto&, td::TrainerOptions& options, auto&) { options.snapshot.clear(); }), Contains("snapshot yes, found snapshot no on rank 1"));
    CHECK_THROWS_WITH(run([](auto&, auto&, toy::Pairs& pairs) { pairs.count = 23; }), Contains("data: pairs 24") && Contains("data: pairs 23"));
    CHECK_THROWS_WITH(run([](auto&...) {}, 4), Contains("Trainer, step 6: expected ranks that compute the same, found loss ") && Contains(" on rank 1"));
    CHECK_THROWS_WITH(run([](auto&...) {}, 8), Contains("Trainer, step 9: expected ranks with the same weights, found others on rank 1"));
    CHECK(std::filesystem::exists(folder / "run.safetensors"));
}

TEST_CASE("what ranks cannot do is refused") {
    const auto refusal = [](const auto& change, std::size_t ranks = 2) {
        std::string sentence = "nothing";
        ThreadRanks(ranks).run([&](td::Ranks& rank) {
            td::Clip<toy::config> model{td::Seed{5}};
            td::TrainerOptions options{.batch = 8, .ranks = &rank, .steps = 9, .log = nullptr};
            change(options);
            try {
                td::Trainer{model, td::AdamW{}, td::ConstantRate{}, td::InfoNce{}, options}.fit(toy::Pairs{});
            } catch (const td::Error& error) {
                if (rank.rank() == 0) sentence = error.what();
            }
        });
        return sentence;
    };
    CHECK(refusal([](auto& options) { options.steps = 0, options.seconds = 2; }) ==
          "TrainerOptions.seconds: expected 0, since ranks have clocks of their own: steps or epochs bound their run, found 2");
    CHECK(refusal([](auto& options) { options.batch = 9; }) == "TrainerOptions: expected 2 shares of as many parts of as many pairs, found 9 pairs in parts of 9");
    CHECK(refusal([](auto& options) { options.shares = 1; }) ==
          "TrainerOptions: expected shares of a batch that are a power of two, and at least as many as its 2 ranks, found 1");
    CHECK(refusal([](auto&) {}, 3) == "TrainerOptions: expected a number of ranks that is a power of two, found 3");
}

TEST_CASE("a batch of one caption is seen though every rank has one pair") {
    struct Same : toy::Pairs {
        void fetch(std::size_t index, td::Random& random, std::span<float> image, std::span<td::Id> ids) const {
            toy::Pairs::fetch(index, random, image, ids);
            std::ranges::fill(ids, td::Id{3});
        }
    };
    const auto run = [](const auto& pairs) {
        ThreadRanks(4).run([&](td::Ranks& rank) {
            td::Clip<toy::config> model{td::Seed{5}};
            td::Trainer{model, td::AdamW{}, td::ConstantRate{}, td::InfoNce{}, td::TrainerOptions{.batch = 4, .ranks = &rank, .steps = 3, .log = nullptr}}.fit(pairs);
        });
    };
    CHECK_NOTHROW(run(toy::Pairs{}));
    CHECK_THROWS_WITH(run(Same{}), Contains("captions that differ within a batch") && Contains("the same ids 4 times"));
}

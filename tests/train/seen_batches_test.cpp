// Losses that see batches, in training: in parts, over ranks, and from a snapshot.
#include <catch2/catch.hpp>

#include <atomic>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include <tandem/losses/captions.hpp>
#include <tandem/losses/contrastive.hpp>
#include <tandem/losses/distillation.hpp>
#include <tandem/train/trainer.hpp>

#include "../temporary_folder.hpp"
#include "thread_ranks.hpp"
#include "toy.hpp"

namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

/// Eight captions, each of three images. Whoever has fetched `stop_at` of them asks for the run's end.
struct Repeating : toy::Pairs {
    std::size_t stop_at = 0;
    std::atomic<bool>* stop = nullptr;
    mutable std::atomic<std::size_t> fetched = 0;

    void fetch(std::size_t index, td::Random& random, std::span<float> image, std::span<td::Id> ids) const {
        toy::Pairs::fetch(index, random, image, ids);
        ids[1] = 4, ids[2] = static_cast<td::Id>(8 + index / 4 % 2);
        if (++fetched == stop_at) *stop = true;
    }
};

auto loss_with(const toy::Model& teacher, td::Repeats repeats = td::Repeats::positives) {
    return td::tiled(td::InfoNceByCaption{repeats} + td::Distillation{teacher}, 5);
}

struct Run {
    std::vector<float> weights;
    std::vector<float> losses;
};

Run train(const toy::Model& teacher, td::TrainerOptions options, td::Repeats repeats = td::Repeats::positives, std::size_t stop_at = 0) {
    std::atomic<bool> stop = false;
    Repeating pairs;
    if (stop_at > 0) pairs.stop_at = stop_at, pairs.stop = &stop, options.stop = &stop;
    options.batch = 12, options.steps = 8, options.log = nullptr;
    toy::Model model{td::Seed{5}};
    const td::RunState state = td::Trainer{model, td::AdamW{.rate = 3e-3}, td::WarmupCosine{.warmup = 0.1}, loss_with(teacher, repeats), options}.fit(pairs);
    return {toy::bytes_of(model), state.losses};
}

}  // namespace

TEST_CASE("a batch in parts is seen as a whole") {
    const toy::Model teacher{td::Seed{7}};
    const Run whole = train(teacher, {}), other = train(teacher, {}, td::Repeats::ignored);
    CHECK(std::abs(whole.losses[0] - other.losses[0]) > 0.01);
    for (const std::size_t part : {1, 5, 6}) {
        CAPTURE(part);
        const Run parts = train(teacher, {.micro_batch = part});
        for (std::size_t step = 0; step < 8; ++step) CHECK(parts.losses[step] == Approx(whole.losses[step]).epsilon(1e-5));
    }
}

TEST_CASE("ranks see each other's captions and embeddings") {
    const toy::Model teacher{td::Seed{7}};
    const Run alone = train(teacher, {.micro_batch = 3, .shares = 4});
    for (const std::size_t size : {2, 4}) {
        ThreadRanks(size).run([&](td::Ranks& rank) {
            const Run mine = train(teacher, {.micro_batch = 3, .ranks = &rank, .shares = 4});
            if (mine.weights != alone.weights) throw td::Error("test", "the weights of one rank", "others");
        });
    }
}

TEST_CASE("a run goes on where it was stopped, and not with another teacher or other matches") {
    const TemporaryFolder folder;
    const toy::Model teacher{td::Seed{7}}, other{td::Seed{8}};
    const td::TrainerOptions options{.snapshot = folder / "run.safetensors"};
    const std::size_t stopped = train(teacher, options, td::Repeats::positives, 40).losses.size();
    CHECK((stopped > 0 && stopped < 8));
    CHECK(train(teacher, options).weights == train(teacher, {}).weights);
    CHECK_THROWS_WITH(train(other, options), Contains("loss"));
    CHECK_THROWS_WITH(train(teacher, options, td::Repeats::ignored), Contains("loss"));
}

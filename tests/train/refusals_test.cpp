// What cannot learn is an Error before the weights are touched: options, weights, batches without a difference, rates
// that are none.
#include <catch2/catch.hpp>

#include <unistd.h>

#include <atomic>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <string>

#include <tandem/losses/matryoshka.hpp>

#include "toy.hpp"

namespace td = tandem;
namespace fs = std::filesystem;
using Catch::Matchers::Contains;

namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN(),
                 infinity = std::numeric_limits<double>::infinity();

using Schedule = std::function<double(double)>;

struct Folder {
    fs::path path;

    Folder() {
        std::string name = (fs::temp_directory_path() / "tandem-refusals-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path = name;
    }
    ~Folder() { fs::remove_all(path); }
};

auto trainer_for(toy::Model& model, const td::TrainerOptions& options, Schedule schedule = td::ConstantRate{},
                 double rate = 5e-3) {
    return td::Trainer{model, td::AdamW{.rate = rate}, std::move(schedule), td::InfoNce{}, options};
}

td::TrainerOptions quiet(std::size_t steps) {
    return {.batch = 8, .steps = steps, .seed = td::Seed{1}, .log = nullptr};
}

/// Pairs that are all the same, in pictures or in captions.
struct Alike : toy::Pairs {
    bool pictures = false, captions = false;

    void fetch(std::size_t index, td::Random& random, std::span<float> image, std::span<td::Id> ids) const {
        toy::Pairs::fetch(index, random, image, ids);
        if (pictures) std::fill(image.begin(), image.end(), 0.5F);
        if (captions) ids[0] = ids[1] = ids[2] = 3;
    }
};

/// Fails, and leaves the weights alone.
template <class Data = toy::Pairs>
std::string refusal(const td::TrainerOptions& options, Schedule schedule = td::ConstantRate{}, const Data& data = {}) {
    toy::Model model{td::Seed{1}};
    std::string sentence = "nothing refused";
    try {
        trainer_for(model, options, std::move(schedule)).fit(data);
    } catch (const td::Error& error) {
        sentence = error.what();
    }
    CHECK(toy::bytes_of(model) == toy::bytes_of(toy::Model{td::Seed{1}}));
    return sentence;
}

std::string refusal_with(const std::function<void(td::TrainerOptions&)>& change) {
    td::TrainerOptions options = quiet(5);
    change(options);
    return refusal(options);
}

}  // namespace

TEST_CASE("options out of range are named before the first step") {
    CHECK(refusal_with([](auto& o) { o.batch = 0; }) == "TrainerOptions.batch: expected 1 or more, found 0");
    CHECK(refusal_with([](auto& o) { o.batch = 1; }) ==
          "TrainerOptions.batch: expected 2 pairs or more, since this loss tells every pair from the others of its "
          "batch, found 1");
    CHECK(refusal_with([](auto& o) { o.seconds = not_a_number; }) ==
          "TrainerOptions.seconds: expected a finite number, 0 or above, found nan");
    CHECK(refusal_with([](auto& o) { o.seconds = -1; }) ==
          "TrainerOptions.seconds: expected a finite number, 0 or above, found -1");
    CHECK(refusal_with([](auto& o) { o.seconds = 1; }) ==
          "TrainerOptions: expected exactly one of steps, epochs and seconds to be set, found steps 5, epochs 0, "
          "seconds 1");
    CHECK(refusal_with([](auto& o) { o.steps = 0, o.epochs = std::size_t(-1); }) ==
          "TrainerOptions.epochs: expected a number of steps that can be counted, found 18446744073709551615 epochs");
    CHECK(refusal_with([](auto& o) { o.clip_norm = not_a_number; }) ==
          "TrainerOptions.clip_norm: expected a finite number, 0 or above, found nan");
    CHECK(refusal_with([](auto& o) { o.clip_norm = -1; }) ==
          "TrainerOptions.clip_norm: expected a finite number, 0 or above, found -1");
    CHECK(refusal_with([](auto& o) { o.max_skipped = 0; }) ==
          "TrainerOptions.max_skipped: expected 1 or more, found 0");
    CHECK(refusal_with([](auto& o) { o.report_every = 0; }) ==
          "TrainerOptions.report_every: expected 1 or more, found 0");
    CHECK(refusal_with([](auto& o) { o.snapshot_every = 0; }) ==
          "TrainerOptions.snapshot_every: expected 1 or more, found 0");

    toy::Model model{td::Seed{1}};
    CHECK_THROWS_WITH(trainer_for(model, quiet(5), td::ConstantRate{}, not_a_number).fit(toy::Pairs{}),
                      Contains("AdamW.rate"));
    const auto with_warmup = [&](double warmup, double floor) {
        td::Trainer{model, td::AdamW{}, td::WarmupCosine{warmup, floor}, td::InfoNce{}, quiet(5)}.fit(toy::Pairs{});
    };
    CHECK_THROWS_WITH(with_warmup(1.5, 0), Contains("WarmupCosine.warmup: expected a share from 0 to 1, found 1.5"));
    CHECK_THROWS_WITH(with_warmup(-0.1, 0), Contains("WarmupCosine.warmup"));
    CHECK_THROWS_WITH(with_warmup(not_a_number, 0), Contains("WarmupCosine.warmup"));
    CHECK_THROWS_WITH(with_warmup(0, -1), Contains("WarmupCosine.floor"));
    CHECK(toy::bytes_of(model) == toy::bytes_of(toy::Model{td::Seed{1}}));
}

TEST_CASE("a loss says how many pairs it needs, alone and in sums") {
    const auto own =
        td::Loss{[](auto image, auto text, auto scale) { return td::mean(scale * td::square(image - text)); }};
    CHECK(td::least_pairs<td::SigmoidLoss> == 2);
    CHECK(td::least_pairs<decltype(own)> == 1);
    CHECK(td::least_pairs<decltype(0.5 * own + 0.1 * td::InfoNce{})> == 2);
    CHECK(td::least_pairs<decltype(td::matryoshka<4, 8>(td::InfoNce{}))> == 2);
    toy::Model model{td::Seed{1}};
    td::TrainerOptions options = quiet(5);
    options.batch = 1;
    CHECK(td::Trainer{model, td::AdamW{}, td::ConstantRate{}, own, options}.fit(toy::Pairs{}).step == 5);
}

TEST_CASE("a snapshot that cannot be written is said before the first step") {
    const Folder folder;
    const auto sentence = [&](const fs::path& path) {
        td::TrainerOptions options = quiet(5);
        options.snapshot = path;
        return refusal(options);
    };
    CHECK_THAT(sentence(folder.path / "no/such/folder/run.safetensors"),
               Contains("no/such/folder/run.safetensors: cannot "));
    CHECK_THAT(sentence(folder.path), Contains(folder.path.string() + ": cannot "));
    CHECK_THAT(sentence("/dev/null"), Contains("/dev/null: cannot "));
}

TEST_CASE("weights that are not finite are named before the first step") {
    toy::Model model{td::Seed{1}};
    td::for_each_parameter(
        [](const td::ParameterName& name, auto& tensor) {
            if (name.view() == "visual.class_embedding") tensor.elements()[3] = std::numeric_limits<float>::infinity();
        },
        model);
    CHECK_THROWS_WITH(
        trainer_for(model, quiet(5)).fit(toy::Pairs{}),
        "visual.class_embedding: expected finite weights to train from, found infinities or NaN among them");
}

TEST_CASE("a batch of one caption or one picture again and again ends the run at its step") {
    Alike captions, pictures;
    captions.captions = pictures.pictures = true;
    CHECK(refusal(quiet(5), td::ConstantRate{}, captions) ==
          "Trainer, step 1: expected captions that differ within a batch, since this loss tells them apart, found the "
          "same ids 8 "
          "times; the weights are those of the last good step");
    CHECK_THAT(refusal(quiet(5), td::ConstantRate{}, pictures),
               Contains("pictures that differ") && Contains("the same pixels 8 times"));
}

TEST_CASE("a rate that is none ends the run at its step, and a snapshot has the weights before it") {
    for (const double bad : {not_a_number, infinity, -1.0})
        CHECK_THAT(refusal(quiet(5), [=](double) { return bad; }), Contains("Trainer, step 1: expected a factor"));

    const Folder folder;
    td::TrainerOptions options = quiet(10);
    options.snapshot = folder.path / "run.safetensors";
    const Schedule late = [](double progress) { return progress < 0.65 ? 1.0 : not_a_number; };
    toy::Model model{td::Seed{1}}, good{td::Seed{1}}, saved;
    CHECK_THROWS_WITH(
        trainer_for(model, options, late).fit(toy::Pairs{}),
        "Trainer, step 8: expected a factor of the rate that is finite, 0 or above, of the schedule, found nan; the "
        "weights are those of the last good step");
    trainer_for(good, quiet(7)).fit(toy::Pairs{});
    CHECK(toy::bytes_of(model) == toy::bytes_of(good));
    toy::load_model_of_snapshot(saved, options.snapshot);
    CHECK(toy::bytes_of(saved) == toy::bytes_of(good));
}

TEST_CASE("after too many skipped steps the weights and the snapshot are those of the last good step") {
    /// NaN pixels from the fifth step on: the fetching thread is at most one step ahead.
    struct Failing : toy::Pairs {
        std::size_t poisoned_from = 0;
        mutable std::atomic<std::size_t> fetched = 0;
        Failing(std::size_t from) : poisoned_from(from) {}
        void fetch(std::size_t index, td::Random& random, std::span<float> image, std::span<td::Id> ids) const {
            toy::Pairs::fetch(index, random, image, ids);
            if (fetched++ >= poisoned_from) image[0] = std::numeric_limits<float>::quiet_NaN();
        }
    };
    const Folder folder;
    td::TrainerOptions options = quiet(20);
    options.max_skipped = 3;
    options.snapshot = folder.path / "run.safetensors";
    toy::Model model{td::Seed{1}}, good{td::Seed{1}}, saved;
    CHECK_THROWS_WITH(trainer_for(model, options).fit(Failing(4 + 5 * 8)),  // four samples stand for the source
                      Contains("expected a finite loss and gradient within 3 steps in a row, found none up to step 8"));
    trainer_for(good, quiet(5)).fit(toy::Pairs{});
    CHECK(toy::bytes_of(model) == toy::bytes_of(good));
    toy::load_model_of_snapshot(saved, options.snapshot);
    CHECK(toy::bytes_of(saved) == toy::bytes_of(good));
}

TEST_CASE("an update that makes weights infinite ends the run in its step, and says what the snapshot still has") {
    const Folder folder;
    td::TrainerOptions options = quiet(10);
    options.snapshot = folder.path / "run.safetensors";
    toy::Model model{td::Seed{1}}, saved;
    CHECK_THROWS_WITH(
        trainer_for(model, options, td::ConstantRate{}, 1e39).fit(toy::Pairs{}),
        Contains(
            "Trainer, step 1: expected finite weights after an update, found infinities or NaN at a rate of 1e+39") &&
            Contains("run.safetensors has the weights of step 0"));
    toy::load_model_of_snapshot(saved, options.snapshot);
    CHECK(toy::bytes_of(saved) == toy::bytes_of(toy::Model{td::Seed{1}}));
}

TEST_CASE("every call of fit is a run of its own") {
    toy::Model once{td::Seed{1}}, twice{td::Seed{1}};
    trainer_for(once, quiet(6)).fit(toy::Pairs{});
    auto trainer = trainer_for(twice, quiet(6));
    trainer.fit(toy::Pairs{});
    twice = toy::Model{td::Seed{1}};
    trainer.fit(toy::Pairs{});
    CHECK(toy::bytes_of(once) == toy::bytes_of(twice));
}

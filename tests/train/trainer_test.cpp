// The training loop: it learns, it is reproducible, it guards the weights, and it says what is wrong.
#include <catch2/catch.hpp>

#include <cmath>
#include <sstream>

#include "toy.hpp"

namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

td::TrainerOptions quiet(std::size_t steps) {
    return {.batch = 8, .steps = steps, .seed = td::Seed{1}, .log = nullptr};
}

auto trainer_for(toy::Model& model, td::TrainerOptions options) {
    return td::Trainer{model, td::AdamW{.rate = 5e-3}, td::WarmupCosine{.warmup = 0.1}, td::InfoNce{}, std::move(options)};
}

}  // namespace

TEST_CASE("training lowers the loss, and the same seed gives the same bits") {
    toy::Model a{td::Seed{1}}, b{td::Seed{1}}, c{td::Seed{1}};
    const td::RunState run = trainer_for(a, quiet(60)).fit(toy::Pairs{});
    CHECK(run.step == 60);
    CHECK(run.losses.size() == 60);
    CHECK(run.losses.back() < 0.3F * run.losses.front());
    trainer_for(b, quiet(60)).fit(toy::Pairs{});
    CHECK(toy::bytes_of(a) == toy::bytes_of(b));
    td::TrainerOptions other = quiet(60);
    other.seed = td::Seed{2};
    trainer_for(c, other).fit(toy::Pairs{});
    CHECK(toy::bytes_of(a) != toy::bytes_of(c));
}

TEST_CASE("an epoch is as many steps as there are whole batches") {
    toy::Model model{td::Seed{1}};
    td::TrainerOptions options = quiet(0);
    options.epochs = 2;
    CHECK(trainer_for(model, options).fit(toy::Pairs{.count = 27}).step == 6);
}

TEST_CASE("the logit scale never leaves [1, 100]") {
    toy::Model model{td::Seed{1}};
    model.logit_scale() = 4.6F;
    td::TrainerOptions options = quiet(30);
    trainer_for(model, options).fit(toy::Pairs{});
    CHECK(model.logit_scale() <= std::log(100.0F));
    CHECK(model.logit_scale() >= 0.0F);
}

TEST_CASE("a step that is not finite is skipped, counted and reported, and leaves the weights alone") {
    toy::Model model{td::Seed{1}};
    std::ostringstream log;
    td::TrainerOptions options = quiet(40);
    options.log = &log;
    const td::RunState run = trainer_for(model, options).fit(toy::Pairs{.count = 24, .poisoned = 1});
    // One poisoned pair among 24 spoils one of the three batches of every epoch.
    CHECK(run.skipped >= 13);
    CHECK(run.skipped <= 14);
    CHECK_THAT(log.str(), Contains("skipped: loss ") && Contains("of 40 steps were skipped"));
    for (const float value : toy::bytes_of(model)) REQUIRE(std::isfinite(value));

    toy::Model untouched{td::Seed{1}};
    const auto before = toy::bytes_of(untouched);
    options = quiet(40);
    options.max_skipped = 4;
    auto trainer = trainer_for(untouched, options);
    CHECK_THROWS_WITH(trainer.fit(toy::Pairs{.count = 24, .poisoned = 24}),
                      Contains("expected a finite loss and gradient within 4 steps in a row, found none up to step 4"));
    CHECK(toy::bytes_of(untouched) == before);
}

TEST_CASE("the evaluation hook sees the model every so many steps, and the log has its line") {
    toy::Model model{td::Seed{1}};
    std::ostringstream log;
    td::TrainerOptions options = quiet(20);
    options.log = &log;
    options.report_every = 10;
    options.evaluate_every = 5;
    auto trainer = trainer_for(model, options);
    std::vector<std::size_t> seen;
    trainer.on_evaluate([&](const toy::Model&, const td::RunState& run) { seen.push_back(run.step); });
    trainer.fit(toy::Pairs{});
    CHECK(seen == std::vector<std::size_t>{5, 10, 15, 20});
    CHECK_THAT(log.str(), Contains("step 10/20  loss ") && Contains("logit scale ") && Contains("samples/s  0:00 left"));
}

TEST_CASE("what cannot be trained is said before it starts") {
    toy::Model model{td::Seed{1}};
    CHECK_THROWS_WITH(trainer_for(model, quiet(5)).fit(toy::Pairs{.count = 7}),
                      "Trainer: expected at least one batch of 8 pairs, found 7 pairs");
    CHECK_THROWS_WITH(
        trainer_for(model, quiet(0)).fit(toy::Pairs{}),
        "TrainerOptions: expected exactly one of steps, epochs and seconds to be set, found steps 0, epochs 0, "
        "seconds 0");
}

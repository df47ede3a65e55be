// The training loop: it learns, it is reproducible, it guards the weights, and it says what is wrong.
#include <catch2/catch.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

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
    CHECK_THAT(log.str(), Contains("step 10/20  loss ") && Contains("logit scale ") && Contains("samples/s  data ") && Contains(" %  0:00 left"));
}

TEST_CASE("a locked tower stays, the other one has the gradients that it has beside a free one, whole and in parts") {
    const auto visual = [](std::string_view name) { return name.starts_with("visual."); };
    // Sums of parts are in another order.
    const auto same = [](const toy::Model& a, const toy::Model& b, const auto& of) {
        std::size_t different = 0, counted = 0;
        td::for_each_parameter(
            [&](const td::ParameterName& name, const auto& first, const auto& second) {
                if (!of(name.view())) return;
                ++counted;
                for (std::size_t i = 0; i < first.size(); ++i) different += std::abs(first.elements()[i] - second.elements()[i]) > 1e-5F * std::max(1.0F, std::abs(second.elements()[i]));
            },
            a, b);
        CHECK(counted > 0);
        return different == 0;
    };
    toy::Model model{td::Seed{1}}, whole;
    td::Tensor<float, toy::Model::Vision::Input::shape> images(9);
    td::Tensor<td::Id, toy::Model::Text::Input::shape> ids(9);
    for (std::size_t i = 0; i < 9; ++i) {
        td::Random random{td::Seed{2}, i};
        toy::Pairs{}.fetch(i, random, {images[i].data(), images.size() / 9}, ids[i].elements());
    }
    toy::Model::Workspace work;
    td::zero_parameters(whole);
    model.loss_and_gradient(images, ids, td::InfoNce{}, whole, work);
    whole.logit_scale() = 0;
    for (const bool image : {true, false}) {
        for (const std::size_t part : {9U, 4U}) {
            CAPTURE(image, part);
            toy::Model::Workspace locked;
            (image ? locked.lock_image : locked.lock_text) = true;
            toy::Model gradient, zero;
            td::zero_parameters(gradient), td::zero_parameters(zero);
            const auto pairs = [&](std::size_t first, std::size_t last) {
                struct {
                    toy::Model::Vision::Input images;
                    toy::Model::Text::Input ids;
                } batch{images.view().slice(first, last), ids.view().slice(first, last)};
                return batch;
            };
            model.loss_and_gradient(9, part, pairs, td::InfoNce{}, gradient, locked);
            const auto is_locked = [&](std::string_view name) { return !name.starts_with("logit_") && visual(name) == image; };
            CHECK(same(gradient, zero, is_locked));
            gradient.logit_scale() = 0;
            CHECK(same(gradient, whole, [&](std::string_view name) { return !is_locked(name); }));
        }
    }
    td::TrainerOptions options = quiet(10);
    options.lock_image = true;
    toy::Model trained{td::Seed{1}};
    const td::RunState run = trainer_for(trained, options).fit(toy::Pairs{});
    CHECK(run.losses.back() < run.losses.front());
    CHECK(same(trained, model, visual));
    CHECK_FALSE(same(trained, model, [&](std::string_view name) { return !visual(name); }));
    options.rate_factor = [](std::string_view) { return -1.0; };
    CHECK_THROWS_WITH(trainer_for(trained, options).fit(toy::Pairs{}),
                      Contains("TrainerOptions.rate_factor, ") && Contains("expected a finite number, 0 or above, found -1"));
}

TEST_CASE("masked language alone leaves the image tower and what makes embeddings as they are, and lowers its loss") {
    static constexpr td::ClipConfig config{
        .vision = toy::config.vision,
        .text = td::TextConfig{.vocabulary = 16, .context = 4, .width = 16, .layers = 1, .heads = 2, .causal = false, .pad_id = 14,
                               .masked_language = {.share = 0.5, .mask = 13}},
        .embedding = 8};
    const auto check = [&](const auto& loss) {
        td::Clip<config> model{td::Seed{5}};
        const td::Clip<config> before = model;
        const td::RunState run = td::Trainer{model, td::AdamW{.rate = 3e-3}, td::ConstantRate{}, loss, td::TrainerOptions{.batch = 8, .steps = 60, .log = nullptr}}.fit(toy::Pairs{});
        CHECK(run.losses.back() < 0.8F * run.losses.front());
        td::for_each_parameter(
            [](const td::ParameterName& name, const auto& old, const auto& now) {
                CAPTURE(name.view());
                const bool stays = name.view().starts_with("visual.") || name.view().starts_with("logit_") || name.view() == "text_projection" ||
                                   name.view().starts_with("ln_final.");
                CHECK(std::ranges::equal(old.elements(), now.elements()) == stays);
            },
            before, std::as_const(model));
    };
    check(td::NoPairs{});
    check(1.0 * td::NoPairs{});
    check(td::tiled(td::NoPairs{} + td::NoPairs{}));
    td::Clip<config> model{td::Seed{5}};
    const td::TrainerOptions locked{.batch = 8, .steps = 2, .log = nullptr, .lock_text = true};
    CHECK_THROWS_WITH((td::Trainer{model, td::AdamW{}, td::ConstantRate{}, td::NoPairs{}, locked}.fit(toy::Pairs{})),
                      "TrainerOptions.lock_text: expected false, since the loss NoPairs is about the text tower alone, found true");
}

TEST_CASE("a run that is stopped ends behind its step, and its reports say what steps were") {
    std::atomic<bool> stop = false;
    td::TrainerOptions options = quiet(40);
    options.stop = &stop;
    options.report_every = 4;
    toy::Model model{td::Seed{1}};
    auto trainer = trainer_for(model, options);
    std::vector<td::StepReport> reports;
    trainer.on_report([&](const td::StepReport& report) {
        reports.push_back(report);
        stop = report.step == 12;
    });
    CHECK(trainer.fit(toy::Pairs{}).step == 13);
    REQUIRE(reports.size() == 4);
    CHECK(reports[0].step == 4);
    CHECK(reports[3].step == 13);
    CHECK(reports[0].steps == 40);
    CHECK(reports[0].rate == Approx(5e-3));  // the last step of the warm-up
    CHECK(reports[1].gradient_norm > 0);
    CHECK(reports[1].samples_per_second > 0);
    CHECK(reports[1].waiting >= 0);
    CHECK(reports[1].waiting <= 1);
    CHECK(reports[1].seconds_left > 0);
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

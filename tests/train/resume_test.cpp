// A run goes on from a snapshot in the same bits, and from other inputs not at all: each is named, with both values.
#include <catch2/catch.hpp>

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "../kernels/isas.hpp"
#include "toy.hpp"

namespace td = tandem;
namespace fs = std::filesystem;
using Catch::Matchers::Contains;

namespace {

/// Where the run of a test leaves its snapshot.
class Folder {
public:
    Folder() {
        std::string name = (fs::temp_directory_path() / "tandem-resume-XXXXXX").string();
        REQUIRE(::mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    ~Folder() { fs::remove_all(path_); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    fs::path snapshot() const { return path_ / "run.safetensors"; }

private:
    fs::path path_;
};

/// Everything that a run of the same types depends on.
struct Run {
    td::TrainerOptions options{.batch = 8, .steps = 30, .seed = td::Seed{1}, .snapshot_every = 7, .log = nullptr};
    td::AdamW optimizer{.rate = 5e-3};
    td::WarmupCosine schedule{.warmup = 0.1};
    double weight = 1;  ///< of the loss
};

template <class Model = toy::Model, class Data = toy::Pairs>
td::RunState fit(const Run& run, Model& model, const Data& data = {}) {
    return td::Trainer{model, run.optimizer, run.schedule, run.weight * td::InfoNce{}, run.options}.fit(data);
}

/// A run stopped at step 17, whose snapshot is of step 14.
template <class Data = toy::Pairs>
void stop(Run run, const Data& data = {}) {
    struct Stop {};
    toy::Model model{td::Seed{1}};
    run.options.evaluate_every = 17;
    td::Trainer trainer{model, run.optimizer, run.schedule, run.weight * td::InfoNce{}, run.options};
    trainer.on_evaluate([](const toy::Model&, const td::RunState&) { throw Stop{}; });
    CHECK_THROWS_AS(trainer.fit(data), Stop);
}

/// The refusal to go on, which leaves the weights alone.
template <class Data = toy::Pairs>
std::string refusal(const Run& run, const Data& data = {}) {
    toy::Model model{td::Seed{3}};
    std::string sentence = "nothing refused";
    try {
        fit(run, model, data);
    } catch (const td::Error& error) {
        sentence = error.what();
    }
    CHECK(toy::bytes_of(model) == toy::bytes_of(toy::Model{td::Seed{3}}));
    return sentence;
}

struct Named : toy::Pairs {
    std::map<std::string, std::string> words;
    std::map<std::string, std::string> fingerprint() const { return words; }
};

}  // namespace

TEST_CASE("a snapshot goes on in the same bits") {
    const Folder folder;
    Run run;
    toy::Model whole{td::Seed{1}}, resumed{td::Seed{99}};
    fit(run, whole);
    run.options.snapshot = folder.snapshot();
    stop(run);
    CHECK(fit(run, resumed).losses.size() == 30);
    CHECK(toy::bytes_of(resumed) == toy::bytes_of(whole));
    // What only says how often something is done may change, and a finished run stays what it is.
    run.options.snapshot_every = 3;
    run.options.report_every = 2;
    CHECK(fit(run, resumed).step == 30);
    CHECK(toy::bytes_of(resumed) == toy::bytes_of(whole));
}

TEST_CASE("a run with another optimizer, a locked tower and rates of its own goes on in the same bits, and names what is another") {
    const Folder folder;
    const auto train = [&](toy::Model& model, const td::TrainerOptions& options) {
        return td::Trainer{model, td::Lion{.rate = 1e-3}, td::ConstantRate{}, td::InfoNce{}, options}.fit(toy::Pairs{});
    };
    td::TrainerOptions options{.batch = 8, .steps = 20, .seed = td::Seed{1}, .log = nullptr};
    options.lock_text = true;
    options.rate_factor = [](std::string_view name) { return name == "visual.proj" ? 0.5 : 1.0; };
    toy::Model whole{td::Seed{1}}, stopped{td::Seed{1}};
    train(whole, options);
    options.snapshot = folder.snapshot();
    options.snapshot_every = 9;
    struct Stop {};
    options.evaluate_every = 11;
    td::Trainer trainer{stopped, td::Lion{.rate = 1e-3}, td::ConstantRate{}, td::InfoNce{}, options};
    trainer.on_evaluate([](const toy::Model&, const td::RunState&) { throw Stop{}; });
    CHECK_THROWS_AS(trainer.fit(toy::Pairs{}), Stop);
    toy::Model resumed{td::Seed{3}};
    train(resumed, options);
    CHECK(toy::bytes_of(resumed) == toy::bytes_of(whole));
    options.rate_factor = [](std::string_view name) { return name == "visual.proj" ? 0.25 : 1.0; };
    CHECK_THROWS_WITH(train(resumed, options), Contains("rate factors"));
    options.lock_text = false;
    CHECK_THROWS_WITH(train(resumed, options), Contains("rate factors"));
}

TEST_CASE("the running average of the weights goes on with its run") {
    const Folder folder;
    Run run;
    run.options.average_decay = 0.8;
    toy::Model whole{td::Seed{1}}, expected{td::Seed{1}};
    td::Trainer trainer{whole, run.optimizer, run.schedule, td::InfoNce{}, run.options};
    CHECK_THROWS_WITH(trainer.average(), Contains("expected a fit with TrainerOptions.average_decay before"));
    // What a run of one step more each time has for weights, averaged.
    std::vector<float> average = toy::bytes_of(whole);
    run.options.evaluate_every = 1;
    td::Trainer followed{whole, run.optimizer, run.schedule, td::InfoNce{}, run.options};
    followed.on_evaluate([&](const toy::Model& model, const td::RunState&) {
        const std::vector<float> now = toy::bytes_of(model);
        for (std::size_t i = 0; i < now.size(); ++i) average[i] = 0.8F * average[i] + 0.2F * now[i];
    });
    followed.fit(toy::Pairs{});
    const std::vector<float> found = toy::bytes_of(followed.average());
    double largest = 0;
    for (std::size_t i = 0; i < found.size(); ++i) largest = std::max(largest, static_cast<double>(std::abs(found[i] - average[i])));
    CHECK(largest < 1e-5);
    CHECK(found != toy::bytes_of(whole));

    run.options.snapshot = folder.snapshot();
    run.options.evaluate_every = 17;
    struct Stop {};
    toy::Model stopped{td::Seed{1}}, resumed{td::Seed{3}};
    td::Trainer first{stopped, run.optimizer, run.schedule, td::InfoNce{}, run.options};
    first.on_evaluate([](const toy::Model&, const td::RunState&) { throw Stop{}; });
    CHECK_THROWS_AS(first.fit(toy::Pairs{}), Stop);
    td::Trainer second{resumed, run.optimizer, run.schedule, td::InfoNce{}, run.options};
    second.fit(toy::Pairs{});
    CHECK(toy::bytes_of(second.average()) == found);
}

TEST_CASE("a run does not go on with any other input, and the error has its name and both values") {
    const Folder folder;
    Run run;
    run.options.snapshot = folder.snapshot();
    stop(run);
    const auto check = [&](const std::string& expected, const std::string& found,
                           const std::function<void(Run&)>& change) {
        Run other = run;
        change(other);
        CHECK(refusal(other) == folder.snapshot().string() + ": expected " + expected +
                                    ", as the snapshot's run had, found " + found +
                                    "; go on with the old values, or delete the snapshot to start anew");
    };
    check("batch 8", "batch 4", [](Run& r) { r.options.batch = 4; });
    check("steps 30", "steps 60", [](Run& r) { r.options.steps = 60; });
    check("steps 30, epochs 0", "steps 0, epochs 10", [](Run& r) { r.options.steps = 0, r.options.epochs = 10; });
    check("steps 30, seconds 0", "steps 0, seconds 0.5", [](Run& r) { r.options.steps = 0, r.options.seconds = 0.5; });
    check("seed 1", "seed 5", [](Run& r) { r.options.seed = td::Seed{5}; });
    check("clip_norm 1", "clip_norm 2", [](Run& r) { r.options.clip_norm = 2; });
    check("max_skipped 10", "max_skipped 3", [](Run& r) { r.options.max_skipped = 3; });
    check("rate 0.005", "rate 0.004", [](Run& r) { r.optimizer.rate = 4e-3; });
    check("beta1 0.9", "beta1 0.8", [](Run& r) { r.optimizer.beta1 = 0.8; });
    check("beta2 0.98", "beta2 0.999", [](Run& r) { r.optimizer.beta2 = 0.999; });
    check("eps 1e-06", "eps 1e-08", [](Run& r) { r.optimizer.eps = 1e-8; });
    check("weight_decay 0.2", "weight_decay 0.1", [](Run& r) { r.optimizer.weight_decay = 0.1; });
    const auto changed = [&](const std::function<void(Run&)>& change) {
        Run other = run;
        change(other);
        return refusal(other);
    };
    CHECK_THAT(changed([](Run& r) { r.schedule.warmup = 0.11; }),
               Contains("expected schedule WarmupCosine with ") && Contains("found schedule WarmupCosine with "));
    CHECK_THAT(changed([](Run& r) { r.schedule.floor = 0.01; }), Contains("expected schedule WarmupCosine with "));
    CHECK_THAT(changed([](Run& r) { r.weight = 0.999; }),
               Contains("expected loss WeightedLoss of value ") && Contains("found loss WeightedLoss of value "));
    CHECK_THAT(refusal(run, toy::Pairs{.count = 32}),
               Contains("expected data: pairs 24, ") && Contains("found data: pairs 32"));
    CHECK_THAT(refusal(run, toy::Pairs{.poisoned = 1}),
               Contains("expected data: samples ") && !Contains("data: pairs"));
    toy::Model model;
    CHECK(fit(run, model).step == 30);
}

TEST_CASE("a source's own fingerprint says what is another") {
    const Folder folder;
    Run run;
    run.options.snapshot = folder.snapshot();
    Named source;
    source.words = {{"version", "3"}, {"crop", "none"}};
    stop(run, source);
    source.words["version"] = "4";
    CHECK_THAT(refusal(run, source), Contains("expected data: version 3, as") && Contains("found data: version 4;"));
    source.words = {{"version", "3"}, {"flip", "0.5"}};
    CHECK_THAT(refusal(run, source), Contains("expected data: flip (none), data: crop none, as") &&
                                         Contains("found data: flip 0.5, data: crop (none);"));
    source.words = {{"version", "3"}, {"crop", "none"}};
    toy::Model model;
    CHECK(fit(run, model, source).step == 30);
}

TEST_CASE("another architecture of the same shapes, another precision, schedule or loss is named") {
    const Folder folder;
    Run run;
    run.options.snapshot = folder.snapshot();
    stop(run);
    static constexpr auto more_heads = [] {
        auto config = toy::config;
        config.vision.heads = 4;
        return config;
    }();
    td::Clip<more_heads> heads{td::Seed{3}};
    CHECK_THROWS_WITH(fit(run, heads), Contains(".layers = 1, .heads = 2},\n    .text") &&
                                           Contains(".layers = 1, .heads = 4},\n    .text"));
    CHECK(toy::bytes_of(heads) == toy::bytes_of(td::Clip<more_heads>{td::Seed{3}}));
    td::Clip<toy::config, td::amp_bf16> amp;
    CHECK_THROWS_WITH(fit(run, amp), Contains("expected precision float, as") && Contains("found precision amp_bf16"));
    CHECK(td::detail::short_type_name<decltype([] {})>() == "lambda");
    CHECK(td::detail::short_type_name<decltype(2 * td::InfoNce{})>() == "WeightedLoss");
    toy::Model model{td::Seed{3}};
    const std::function<double(double)> constant = td::ConstantRate{};
    const td::Loss own{[](auto image, auto text, auto scale) { return td::mean(scale * td::square(image - text)); }};
    CHECK_THROWS_WITH(td::Trainer(model, run.optimizer, constant, own, run.options).fit(toy::Pairs{}),
                      Contains("expected schedule WarmupCosine with ") &&
                          Contains("found schedule function with 1 1 1") && Contains(", loss Loss of value "));
    CHECK(toy::bytes_of(model) == toy::bytes_of(toy::Model{td::Seed{3}}));
}

TEST_CASE("a file that is no snapshot, and a snapshot that does not say what its run depended on, are refused") {
    const Folder folder;
    Run run;
    run.options.snapshot = folder.snapshot();
    toy::Model model{td::Seed{1}};
    td::save_weights(model, folder.snapshot());
    CHECK_THAT(
        refusal(run),
        Contains("expected a snapshot that names what its run depends on (format \"tandem snapshot 2\"), found ") &&
            Contains("no snapshot: give the snapshot another path"));
    td::detail::SavedParameters saved;
    saved.append("model.", model);
    td::save_safetensors(folder.snapshot(), saved.tensors,
                         {{"format", "tandem snapshot 1"}, {"seed", "1"}, {"step", "0"}});
    CHECK_THAT(refusal(run),
               Contains("found format \"tandem snapshot 1\", whose run only the tandem that wrote it can go on with: "
                        "delete it to start anew"));
}

TEST_CASE("kernels of another instruction set are named") {
    if (const char* snapshot = std::getenv("TANDEM_TEST_SNAPSHOT")) {  // the run that this test starts
        Run run;
        run.options.snapshot = snapshot;
        const std::string here(td::kernels::name_of(td::kernels::active_isa()));
        CHECK_THAT(refusal(run), Contains("expected TANDEM_ISA ") && Contains("found TANDEM_ISA " + here));
        return;
    }
    const Folder folder;
    Run run;
    run.options.snapshot = folder.snapshot();
    stop(run);
    REQUIRE(::setenv("TANDEM_TEST_SNAPSHOT", folder.snapshot().c_str(), 1) == 0);
    const std::string other = td::kernels::active_isa() == td::kernels::Isa::scalar ? "native" : "scalar";
    CHECK(run_with_isa(other, "kernels of another instruction set are named") == 0);
    ::unsetenv("TANDEM_TEST_SNAPSHOT");
}

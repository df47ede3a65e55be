// Infinities and NaN put into a run at random: each is caught in its step, and no weight is touched.
#include <catch2/catch.hpp>

#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

#include <tandem/train/trainer.hpp>

#include "toy.hpp"

namespace td = tandem;

namespace {

constexpr std::size_t batch = 12, steps = 2000;
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();

/// Where a number is put.
enum class Place { nowhere, pixel, activation, loss, gradient };

struct Injection {
    Place place = Place::nowhere;
    double number = 0;
    std::size_t pair = 0, element = 0;
};

/// One for every step, half of them nowhere.
const std::vector<Injection> plan = [] {
    std::vector<Injection> all(steps);
    td::Random random{td::Seed{11}};
    for (Injection& injection : all) {
        if (random.below(2) == 0) continue;
        constexpr std::array places{Place::pixel, Place::activation, Place::loss, Place::gradient};
        constexpr std::array numbers{not_a_number, infinity, -infinity};
        injection = {places[random.below(4)], numbers[random.below(3)], random.below(batch), random.below(3 * 8 * 8)};
    }
    return all;
}();

std::size_t under_way = 0;  // the step

/// 1, or what the plan puts there in this step.
double factor(Place place) { return plan[under_way].place == place ? plan[under_way].number : 1.0; }

/// Batches are fetched one behind the other, each of all pairs.
struct Pairs : toy::Pairs {
    mutable std::atomic<std::size_t> fetched = 0;

    Pairs() { count = batch; }
    void fetch(std::size_t index, td::Random& random, std::span<float> image, std::span<td::Id> ids) const {
        toy::Pairs::fetch(index, random, image, ids);
        const std::size_t step = fetched++ / batch;
        if (step < steps && plan[step].place == Place::pixel && plan[step].pair == index) image[plan[step].element] = static_cast<float>(plan[step].number);
    }
};

/// The identity where the plan does not put something into its value or its derivative.
struct Injected {
    template <class V>
    V operator()(const V& a) const {
        return a * V(static_cast<float>(factor(Place::activation)));
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A&) {
        return factor(Place::gradient) * g;
    }
};

}  // namespace

TEST_CASE("a thousand infinities and NaN in pixels, activations, losses and gradients are caught in their steps") {
    const td::Loss loss{[](const auto& image, const auto& text, const auto& scale) {
        return td::InfoNce{}(td::apply<Injected>(image), text, scale) * factor(Place::loss);
    }};
    toy::Model model{td::Seed{5}};
    td::Trainer trainer{model, td::AdamW{.rate = 1e-4}, td::WarmupCosine{}, loss,
                        td::TrainerOptions{.batch = batch, .steps = steps, .max_skipped = steps, .report_every = 1, .log = nullptr}};
    std::vector<float> before = toy::bytes_of(model);
    std::size_t injected = 0, wrong = 0;
    trainer.on_report([&](const td::StepReport& report) {
        const bool is_injected = plan[under_way].place != Place::nowhere;
        std::vector<float> after = toy::bytes_of(model);
        injected += is_injected ? 1 : 0;
        // A skipped step has no rate.
        wrong += (after == before) == is_injected && (report.rate == 0) == is_injected ? 0 : 1;
        before = std::move(after);
        ++under_way;
    });
    const td::RunState run = trainer.fit(Pairs{});
    CHECK(run.step == steps);
    CHECK(injected > 950);
    CHECK(run.skipped == injected);
    CHECK(wrong == 0);
}

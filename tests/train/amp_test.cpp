// Training in bfloat16: gradients near float32's, weights in float32, and a loss that falls as float32's does.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <numeric>
#include <string>
#include <vector>

#include <tandem/kernels/dense.hpp>
#include <tandem/models/checkpoint.hpp>

#include "../kernels/isas.hpp"
#include "toy.hpp"

namespace td = tandem;
namespace fs = std::filesystem;

namespace {

using Amp = td::Clip<toy::config, td::amp_bf16>;

template <class Model>
td::RunState train(Model& model, td::TrainerOptions options = {.batch = 8, .steps = 60, .seed = td::Seed{1}, .log = nullptr}) {
    td::Trainer trainer{model, td::AdamW{.rate = 5e-3}, td::WarmupCosine{.warmup = 0.1}, td::InfoNce{}, options};
    return trainer.fit(toy::Pairs{});
}

template <class Model>
Model gradient_of(const Model& model) {
    constexpr std::size_t count = 8;
    td::Tensor<float, typename Model::Vision::Input::shape> images(count);
    td::Tensor<td::Id, typename Model::Text::Input::shape> ids(count);
    td::Random random{td::Seed{5}};
    const std::size_t pixels = images.size() / count;
    for (std::size_t i = 0; i < count; ++i) {
        toy::Pairs{}.fetch(i, random, {images.data() + i * pixels, pixels}, ids[i].elements());
    }
    Model gradient;
    typename Model::Workspace work;
    td::zero_parameters(gradient);
    model.loss_and_gradient(images, ids, td::InfoNce{}, gradient, work);
    return gradient;
}

/// All parameters, row-major.
template <class Model>
std::vector<double> values_of(const Model& model) {
    std::vector<double> values;
    td::for_each_parameter(
        [&](const std::string&, const auto& parameter) {
            const auto& elements = td::to_row_major(parameter);
            values.insert(values.end(), elements.data(), elements.data() + elements.size());
        },
        model);
    return values;
}

}  // namespace

TEST_CASE("gradients in bfloat16 are near float32's, and equal where the CPU has no pairs") {
    const td::Clip<toy::config> exact{td::Seed{1}};
    const Amp rounded{td::Seed{1}};
    const std::vector<double> expected = values_of(gradient_of(exact)), found = values_of(gradient_of(rounded));
    const auto dot = [](const std::vector<double>& x, const std::vector<double>& y) {
        return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
    };
    const double cosine = dot(expected, found) / std::sqrt(dot(expected, expected) * dot(found, found));
    if (td::kernels::multiplies_pairs<td::amp_bf16>()) {
        // Each rounding is off by at most 2^-9; a gradient went through some twenty products.
        CHECK(cosine > 0.999);
        CHECK(cosine < 1 - 1e-9);
    } else {
        CHECK(cosine == Approx(1).epsilon(1e-12));
    }
}

TEST_CASE("training in bfloat16 lowers the loss as float32 does, and the same seed gives the same bits") {
    td::Clip<toy::config> exact{td::Seed{1}};
    Amp a{td::Seed{1}}, b{td::Seed{1}};
    const td::RunState expected = train(exact), found = train(a);
    CHECK(found.losses.front() == Approx(expected.losses.front()).epsilon(0.01));
    CHECK(found.losses.back() < 0.3F * found.losses.front());
    train(b);
    CHECK(values_of(a) == values_of(b));
}

TEST_CASE("in bfloat16 the size of a part is part of what a run is") {
    const fs::path path = fs::temp_directory_path() / "tandem-amp-test-run.safetensors";
    fs::remove(path);
    td::TrainerOptions options{.batch = 8, .micro_batch = 4, .steps = 2, .seed = td::Seed{1}, .snapshot = path, .log = nullptr};
    Amp model{td::Seed{1}};
    train(model, options);
    options.micro_batch = 2;
    CHECK_THROWS_WITH(train(model, options), Catch::Matchers::Contains("micro_batch") && Catch::Matchers::Contains("4") && Catch::Matchers::Contains("2"));
    fs::remove(path);
}

TEST_CASE("weights trained in bfloat16 are saved in float32, and any arithmetic loads them") {
    Amp model{td::Seed{1}};
    train(model);
    const fs::path path = fs::temp_directory_path() / "tandem-amp-test.safetensors";
    td::save_weights(model, path);
    td::Clip<toy::config> loaded;
    td::load_weights(loaded, path);
    Amp again;
    td::load_weights(again, path);
    fs::remove(path);
    CHECK(values_of(loaded) == values_of(model));
    CHECK(values_of(again) == values_of(model));
}

TEST_CASE("products of pairs are tested where the CPU has them, chosen or not") {
    if (std::getenv("TANDEM_ISA") != nullptr) return;  // the run that this test starts
    for (const auto isa : isas_with_pairs()) {
        CAPTURE(std::string(name_of(isa)));
        CHECK(run_with_isa(std::string(name_of(isa)), "*bfloat16*") == 0);
    }
}

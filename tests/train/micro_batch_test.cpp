// Batches in parts: gradients and runs are those of whole batches.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/random.hpp>
#include <tandem/losses/contrastive.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/train/layer_groups.hpp>
#include <tandem/train/trainer.hpp>

#include "../count_flops.hpp"
#include "../temporary_folder.hpp"
#include "toy.hpp"

namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

/// Whatever can be left out is, and every pair draws.
inline constexpr td::ClipConfig with_dropouts{
    .vision = td::VitConfig{.image = 8, .patch = 2, .width = 16, .layers = 3, .heads = 2, .patch_dropout = 0.4, .drop_path_rate = 0.3},
    .text = td::TextConfig{.vocabulary = 16, .context = 6, .width = 16, .layers = 3, .heads = 2, .token_dropout = 0.3, .drop_path_rate = 0.3},
    .embedding = 8,
    .logit_bias = true};

inline constexpr td::ClipConfig plain{
    .vision = td::VitConfig{.image = 8, .patch = 2, .width = 16, .layers = 3, .heads = 2},
    .text = td::TextConfig{.vocabulary = 16, .context = 6, .width = 16, .layers = 3, .heads = 2},
    .embedding = 8,
    .logit_bias = true};

/// What adds to gradients otherwise than a block's products.
inline constexpr td::ClipConfig pooled{
    .vision = td::VitConfig{.image = 8, .patch = 4, .width = 16, .layers = 2, .heads = 2, .reg_tokens = 1, .norm_position = td::NormPosition::sandwich,
                            .qk_norm = true, .ls_init_value = 0.5, .pooling = td::AttentionPool{}, .stem = td::ConvStem{}},
    .text = td::TextConfig{.vocabulary = 16, .context = 6, .width = 16, .layers = 2, .heads = 2, .proj_type = td::Projection::mlp, .mlp = td::GatedMlp{},
                           .pooling = td::Average{}},
    .embedding = 8};

/// Both towers add to the same blocks.
inline constexpr td::ClipConfig shared{
    .vision = td::VitConfig{.image = 8, .patch = 2, .width = 16, .layers = 2, .heads = 2},
    .text = td::TextConfig{.vocabulary = 16, .context = 6, .width = 16, .layers = 2, .heads = 2},
    .embedding = 8,
    .shared = true};

/// Two sums go into the table of tokens: of what is read, and of what is told.
inline constexpr td::ClipConfig masked{
    .vision = td::VitConfig{.image = 8, .patch = 4, .width = 16, .layers = 1, .heads = 2},
    .text = td::TextConfig{.vocabulary = 16, .context = 6, .width = 16, .layers = 2, .heads = 2, .causal = false, .token_dropout = 0.2, .drop_path_rate = 0.3,
                           .pad_id = 0, .masked_language = {.share = 0.4, .mask = 1}, .pooling = td::Average{}},
    .embedding = 8};

/// So large a vocabulary that a batch's tokens are told in two runs.
inline constexpr td::ClipConfig many_words{
    .vision = masked.vision,
    .text = td::TextConfig{.vocabulary = 120'000, .context = 6, .width = 8, .layers = 1, .heads = 1, .causal = false, .pad_id = 0,
                           .masked_language = {.share = 0.9, .mask = 1}, .pooling = td::First{}},
    .embedding = 8};

template <class Model>
struct Batch {
    td::Tensor<typename Model::C, typename Model::Vision::Input::shape> images;
    td::Tensor<td::Id, typename Model::Text::Input::shape> ids;

    explicit Batch(std::size_t count) : images(count), ids(count) {
        td::Random random(td::Seed{4});
        for (auto& value : images.elements()) value = static_cast<typename Model::C>(random.normal());
        for (std::size_t i = 0; i < count; ++i) {
            for (td::Id& id : ids[i].elements()) id = static_cast<td::Id>(random.below(14));
            ids[i].elements().back() = 15;
        }
    }

    /// Pairs [first, last).
    struct Part {
        typename Model::Vision::Input images;
        typename Model::Text::Input ids;
    };
    Part part(std::size_t first, std::size_t last) const {
        return {std::as_const(images).view().slice(first, last), std::as_const(ids).view().slice(first, last)};
    }
};

template <class Model, class L>
void check_parts(const L& loss) {
    constexpr std::size_t count = 13;
    const Model model{td::Seed{2}};
    const Batch<Model> batch(count);
    typename Model::Workspace work;
    work.dropout = td::Seed{77};
    std::vector<typename Model::C> expected;
    for (const std::size_t part : std::vector<std::size_t>{100, 1, 2, 5, 12, 13}) {
        CAPTURE(part);
        Model found;
        td::zero_parameters(found);
        std::vector<std::pair<std::size_t, std::size_t>> asked;
        const auto pairs = [&](std::size_t first, std::size_t last) {
            asked.emplace_back(first, last);
            return batch.part(first, last);
        };
        const auto value = model.loss_and_gradient(count, part, pairs, loss, found, work);
        auto elements = toy::bytes_of(found);
        elements.push_back(value);
        if (expected.empty()) expected = elements;
        CHECK(elements == expected);
        // From the last one on, and all but the first again.
        const std::size_t parts = (count + part - 1) / part;
        REQUIRE(asked.size() == 2 * parts - 1);
        for (std::size_t i = 0; i < asked.size(); ++i) {
            const std::size_t number = i < parts ? parts - 1 - i : i - parts + 1;
            CHECK(asked[i] == std::pair(number * part, std::min(number * part + part, count)));
        }
    }
}

}  // namespace

TEST_CASE("a batch in parts has the gradients of the whole batch, to the bit") {
    check_parts<td::Clip<with_dropouts, double>>(td::SigmoidLoss{} + td::tiled(td::InfoNce{}, 4));
    check_parts<td::Clip<plain>>(td::tiled(td::SigmoidLoss{}, 3));
    check_parts<td::Clip<pooled>>(td::InfoNce{});
    check_parts<td::Clip<shared>>(td::InfoNce{});
    check_parts<td::Clip<masked>>(td::InfoNce{});
    check_parts<td::Clip<masked, double>>(td::NoPairs{});
    check_parts<td::Clip<many_words>>(td::InfoNce{});
}

TEST_CASE("with dropouts, the gradient in parts is that of the loss in parts: both passes draw the same") {
    using Model = td::Clip<with_dropouts, double>;
    constexpr std::size_t count = 13, part = 5;
    Model model{td::Seed{2}};
    const Batch<Model> batch(count);
    typename Model::Workspace work;
    work.dropout = td::Seed{77};
    const auto pairs = [&](std::size_t first, std::size_t last) { return batch.part(first, last); };
    const auto loss_at = [&](Model& gradient) {
        td::zero_parameters(gradient);
        return model.loss_and_gradient(count, part, pairs, td::SigmoidLoss{} + td::InfoNce{}, gradient, work);
    };
    Model gradient, unused;
    loss_at(gradient);
    // Along the gradient the loss rises by its squared length.
    const double norm = td::gradient_norm(gradient), step = 1e-5 / norm;
    const auto move = [&](double by) {
        td::for_each_parameter(
            [&](const std::string&, auto& weights, const auto& slope) {
                const auto to = weights.elements();
                const auto from = slope.elements();
                for (std::size_t i = 0; i < to.size(); ++i) to[i] += by * from[i];
            },
            model, gradient);
    };
    move(step);
    const double above = loss_at(unused);
    move(-2 * step);
    const double below = loss_at(unused);
    CHECK((above - below) / (2 * step) == Approx(norm * norm).epsilon(1e-6));
}

TEST_CASE("what cannot be done in parts is refused") {
    static constexpr td::ClipConfig residual{td::ResNetConfig{.image = 32, .layers = {1, 1, 1, 1}, .width = 2, .head_width = 16},
                                             td::TextConfig{.vocabulary = 16, .context = 4, .width = 16, .layers = 1, .heads = 2}, 8};
    using Model = td::Clip<residual>;
    const Model model{td::Seed{1}};
    const Batch<Model> batch(4);
    Model gradient;
    Model::Workspace work;
    const auto pairs = [&](std::size_t first, std::size_t last) { return batch.part(first, last); };
    CHECK_THROWS_WITH(model.loss_and_gradient(4, 2, pairs, td::InfoNce{}, gradient, work), Contains("a batch as a whole") && Contains("parts of 2 of 4"));
    CHECK(std::isfinite(model.loss_and_gradient(4, 4, pairs, td::InfoNce{}, gradient, work)));
    CHECK_THROWS_WITH(model.loss_and_gradient(4, 0, pairs, td::InfoNce{}, gradient, work), Contains("parts of at least one"));
    CHECK_THROWS_WITH(model.loss_and_gradient(0, 1, pairs, td::InfoNce{}, gradient, work), Contains("found 0 in parts of 1"));
    CHECK_THROWS_WITH(model.loss_and_gradient(batch.part(0, 0).images, batch.part(0, 0).ids, td::InfoNce{}, gradient, work), Contains("pairs, in parts"));
    const auto too_few = [&](std::size_t first, std::size_t last) { return batch.part(first, last - 1); };
    CHECK_THROWS_WITH(model.loss_and_gradient(4, 4, too_few, td::InfoNce{}, gradient, work), Contains("expected 4 images and as many captions, found 3 and 3"));
}

TEST_CASE("a run in micro-batches is the run in whole batches, and goes on in the same bits") {
    const TemporaryFolder folder;
    const auto fit = [](td::TrainerOptions options, const toy::Pairs& data = {}) {
        toy::Model model{td::Seed{1}};
        const td::RunState run = td::Trainer{model, td::AdamW{.rate = 5e-3}, td::WarmupCosine{.warmup = 0.1}, td::tiled(td::InfoNce{}, 4), options}.fit(data);
        return std::pair(toy::bytes_of(model), run);
    };
    const td::TrainerOptions whole{.batch = 8, .steps = 20, .seed = td::Seed{1}, .log = nullptr};
    td::TrainerOptions parts = whole;
    parts.micro_batch = 3;
    const auto expected = fit(whole);
    CHECK(fit(parts).first == expected.first);

    // Stopped in the middle, it goes on, in parts of another size as well.
    td::TrainerOptions half = parts;
    half.snapshot = folder / "run";
    half.steps = 20;
    half.snapshot_every = 6;
    {
        struct Stop {};
        toy::Model model{td::Seed{1}};
        half.evaluate_every = 9;
        td::Trainer trainer{model, td::AdamW{.rate = 5e-3}, td::WarmupCosine{.warmup = 0.1}, td::tiled(td::InfoNce{}, 4), half};
        trainer.on_evaluate([](const toy::Model&, const td::RunState&) { throw Stop{}; });
        CHECK_THROWS_AS(trainer.fit(toy::Pairs{}), Stop);
    }
    half.micro_batch = 2;
    half.evaluate_every = 0;
    CHECK(fit(half).first == expected.first);

    parts.micro_batch = 9;
    CHECK_THROWS_WITH(fit(parts), Contains("TrainerOptions.micro_batch") && Contains("at most the batch, 8"));
}

TEST_CASE("captions that are all the same are found in parts as well") {
    struct Alike : toy::Pairs {
        std::size_t from = 0;  ///< pairs behind it have captions of their own

        void fetch(std::size_t index, td::Random& random, std::span<float> image, std::span<td::Id> ids) const {
            toy::Pairs::fetch(index, random, image, ids);
            if (index >= from) std::ranges::fill(ids, td::Id{15});
        }
    };
    const td::TrainerOptions options{.batch = 24, .micro_batch = 5, .steps = 2, .seed = td::Seed{1}, .log = nullptr};
    toy::Model model{td::Seed{1}};
    td::Trainer trainer{model, td::AdamW{}, td::ConstantRate{}, td::InfoNce{}, options};
    CHECK_THROWS_WITH(trainer.fit(Alike{}), Contains("the same ids 24 times"));
    Alike some;
    some.from = 1;
    CHECK(trainer.fit(some).step == 2);
}

TEST_CASE("layers from the front that stay are not passed back through, and what learns has the same bits") {
    const auto fit = [](td::RateFactor factor) {
        toy::Model model{td::Seed{1}};
        td::Trainer trainer{model, td::AdamW{.rate = 5e-3}, td::WarmupCosine{.warmup = 0.1}, td::tiled(td::InfoNce{}, 4),
                            td::TrainerOptions{.batch = 8, .steps = 1, .clip_norm = 0, .seed = td::Seed{1}, .log = nullptr, .rate_factor = std::move(factor)}};
        const std::size_t flops = count_flops([&] { trainer.fit(toy::Pairs{}); });
        return std::pair(toy::bytes_of(model), flops);
    };
    // The image tower's head alone, and of the text tower its block as well.
    const td::RateFactor some = td::layer_rates(toy::config, {.image_unlocked = 1, .text_unlocked = 2});
    const auto all = fit({}), found = fit(some);
    CHECK(found.second < all.second);
    std::size_t at = 0;
    toy::Model model{td::Seed{1}};
    td::for_each_parameter(
        [&](const td::ParameterName& name, const auto& tensor) {
            CAPTURE(name.view());
            const bool learns = some(name.view()) != 0;
            for (const float before : tensor.elements()) {
                if (found.first[at] != (learns ? all.first[at] : before)) FAIL("other bits");
                ++at;
            }
        },
        model);
    CHECK(at == all.first.size());
}

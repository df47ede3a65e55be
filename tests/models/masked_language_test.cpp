// Masked language: what is chosen, how it is told, and what its gradient is.
#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/losses/contrastive.hpp>
#include <tandem/models/check_gradients.hpp>
#include <tandem/models/checkpoint.hpp>
#include <tandem/models/cost.hpp>
#include <tandem/models/describe.hpp>

#include "../temporary_folder.hpp"
#include "check_model_gradients.hpp"
#include "saved_models.hpp"

namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

inline constexpr td::VitConfig vision{.image = 4, .patch = 2, .width = 4, .layers = 1, .heads = 2};

/// As BERT is: norms behind, the first row pooled.
inline constexpr td::ClipConfig bert{
    .vision = vision,
    .text = td::TextConfig{.vocabulary = 10, .context = 7, .width = 6, .layers = 2, .heads = 2, .causal = false, .norm_position = td::NormPosition::post,
                           .pad_id = 0, .ln_embed = true, .no_ln_final = true, .masked_language = {.share = 0.4, .mask = 1, .weight = 0.7}, .pooling = td::First{}},
    .embedding = 3};

/// Norms before, and what is left out is drawn as well.
inline constexpr td::ClipConfig averaged{
    .vision = vision,
    .text = td::TextConfig{.vocabulary = 10, .context = 7, .width = 6, .layers = 2, .heads = 2, .causal = false, .token_dropout = 0.3, .drop_path_rate = 0.3,
                           .pad_id = 0, .masked_language = {.share = 0.4, .mask = 1}, .activation = td::QuickGelu{}, .pooling = td::Average{}},
    .embedding = 3,
    .logit_bias = true};

/// The text tower's blocks are the image tower's.
inline constexpr td::ClipConfig shared{
    .vision = td::VitConfig{.image = 4, .patch = 2, .width = 6, .layers = 2, .heads = 2},
    .text = td::TextConfig{.vocabulary = 10, .context = 7, .width = 6, .layers = 2, .heads = 2, .causal = false, .pad_id = 0,
                           .masked_language = {.share = 0.4, .mask = 1}},
    .embedding = 3,
    .shared = true};

}  // namespace

TEST_CASE("of the tokens between first and last a share is chosen, and 80, 10 and 10 % of it are hidden, replaced and left") {
    constexpr std::size_t length = 22, vocabulary = 1000, rounds = 20000;
    constexpr td::MaskedLanguage choice{.share = 0.15, .mask = 7};
    td::Random random(td::Seed{3});
    std::vector<td::nn::ChosenToken> chosen;
    std::size_t masked = 0, kept = 0, others = 0;
    std::array<std::size_t, length> at{};
    for (std::size_t round = 0; round < rounds; ++round) {
        std::array<td::Id, length> ids;
        for (td::Id& id : ids) id = static_cast<td::Id>(500 + random.below(500));
        const std::array<td::Id, length> before = ids;
        chosen.clear();
        td::nn::mask_tokens(ids, choice, vocabulary, random, chosen);
        std::size_t next = 0;
        for (std::size_t i = 0; i < length; ++i) {
            if (next == chosen.size() || chosen[next].position != i) {
                CHECK(ids[i] == before[i]);
                continue;
            }
            CHECK(chosen[next++].id == before[i]);
            ++at[i];
            (ids[i] == choice.mask ? masked : ids[i] == before[i] ? kept : others) += 1;
        }
        CHECK(next == chosen.size());
    }
    const auto all = static_cast<double>(masked + kept + others);
    const auto is_near = [](double found, double expected, double count) { return std::abs(found - expected) < 5 * std::sqrt(expected * (1 - expected) / count); };
    CHECK(is_near(all / (rounds * (length - 2)), 0.15, rounds * (length - 2)));
    CHECK(is_near(static_cast<double>(masked) / all, 0.8, all));
    CHECK(is_near(static_cast<double>(kept) / all, 0.1, all));
    CHECK((at.front() == 0 && at.back() == 0));
    for (std::size_t i = 1; i + 1 < length; ++i) CHECK(is_near(static_cast<double>(at[i]) / rounds, 0.15, rounds));
    // Captions that have nothing between.
    std::array<td::Id, 2> ends{1, 2};
    chosen.clear();
    for (std::size_t size = 0; size <= 2; ++size) td::nn::mask_tokens(std::span(ends).first(size), {.share = 1, .mask = 7}, vocabulary, random, chosen);
    CHECK((chosen.empty() && ends == std::array<td::Id, 2>{1, 2}));
}

TEST_CASE("gradients of masked language beside a loss of pairs") {
    check_model_gradients<bert>(td::InfoNce{});
    check_model_gradients<averaged>(td::InfoNce{} + 0.5 * td::SigmoidLoss{});
    check_model_gradients<shared>(td::InfoNce{});
}

TEST_CASE("gradients of masked language alone") {
    check_model_gradients<bert>(td::NoPairs{});
    check_model_gradients<averaged>(td::NoPairs{});
}

TEST_CASE("alone, no image is embedded and what makes embeddings has no gradient") {
    using Model = td::Clip<averaged>;
    const Model model{td::Seed{1}};
    td::Random random(td::Seed{2});
    td::detail::RandomPairs<Model> pairs(random);
    pairs.images.fill(std::numeric_limits<float>::quiet_NaN());
    Model gradient;
    td::zero_parameters(gradient);
    Model::Workspace work;
    const float loss = model.loss_and_gradient(pairs.images, pairs.ids, td::NoPairs{}, gradient, work);
    CHECK((loss > 1 && loss < 4));  // ln 10 is a guess's
    td::for_each_parameter(
        [](const td::ParameterName& name, const auto& tensor) {
            CAPTURE(name.view());
            double squares = 0;
            for (const float g : tensor.elements()) squares += g * g;
            const bool is_of_pairs = name.view().starts_with("visual.") || name.view().starts_with("logit_") || name.view() == "text_projection" ||
                                     name.view().starts_with("ln_final");
            CHECK(std::isfinite(squares));
            CHECK((squares == 0) == is_of_pairs);
        },
        std::as_const(gradient));
}

TEST_CASE("where nothing is chosen nothing is told, and a locked text tower tells nothing") {
    using Model = td::Clip<averaged>;
    constexpr td::ClipConfig without = [] {
        auto config = averaged;
        config.text.masked_language = {};
        return config;
    }();
    td::Random random(td::Seed{2});
    td::detail::RandomPairs<Model> pairs(random);
    const auto loss_of = [&](const auto& model, const auto& loss, bool lock_text) {
        using Any = std::remove_cvref_t<decltype(model)>;
        Any gradient;
        typename Any::Workspace work;
        td::zero_parameters(gradient);
        work.lock_text = lock_text;
        const float value = model.loss_and_gradient(pairs.images, pairs.ids, loss, gradient, work);
        double squares = 0;
        td::for_each_parameter(
            [&](const td::ParameterName& name, const auto& tensor) {
                if (name.view().starts_with("mlm_head.")) {
                    for (const float g : tensor.elements()) squares += g * g;
                }
            },
            gradient);
        CHECK((lock_text ? squares == 0 : std::isfinite(squares)));
        return value;
    };
    const Model model{td::Seed{1}};
    const td::Clip<without> plain{td::Seed{1}};
    CHECK(loss_of(model, td::InfoNce{}, true) == loss_of(plain, td::InfoNce{}, true));
    CHECK_THROWS_WITH(loss_of(model, td::NoPairs{}, true), "Clip::loss_and_gradient: expected a text tower that is not locked, since NoPairs is about it alone, found a locked one");
    // Captions of a first and a last token.
    for (std::size_t i = 0; i < pairs.ids.extent(0); ++i) {
        std::ranges::fill(pairs.ids[i].elements(), td::Id{0});
        pairs.ids(i, 0) = static_cast<td::Id>(2 + i);
        pairs.ids(i, 1) = 9;
    }
    CHECK(loss_of(model, td::NoPairs{}, false) == 0);
    CHECK(std::isfinite(loss_of(model, td::InfoNce{}, false)));
}

TEST_CASE("a step that ends in an exception, and one in which blocks are computed again, leave the next one's bits alone") {
    using Model = td::Clip<averaged>;
    const Model model{td::Seed{1}};
    td::Random random(td::Seed{2});
    const td::detail::RandomPairs<Model> pairs(random);
    struct Part {
        Model::Vision::Input images;
        Model::Text::Input ids;
    };
    const auto step = [&](Model::Workspace& work, std::size_t calls = 99) {
        Model gradient;
        td::zero_parameters(gradient);
        const auto part = [&](std::size_t first, std::size_t last) {
            if (calls-- == 0) throw td::Error("test", "a part", "none");
            return Part{pairs.images.view().slice(first, last), pairs.ids.view().slice(first, last)};
        };
        model.loss_and_gradient(pairs.images.extent(0), 1, part, td::InfoNce{}, gradient, work);
        return gradient;
    };
    Model::Workspace fresh, work;
    const Model expected = step(fresh);
    CHECK_THROWS_AS(step(work, 5), td::Error);
    check_same_bytes(step(work), expected);
    work.recompute = td::Recompute::blocks;
    check_same_bytes(step(work), expected);
    work.recompute = td::Recompute::nothing;
    check_same_bytes(step(work), expected);
}

TEST_CASE("captions embed as they do without masked language") {
    constexpr td::ClipConfig without = [] {
        auto config = averaged;
        config.text.masked_language = {};
        return config;
    }();
    td::Clip<averaged> model{td::Seed{1}};
    td::Clip<without> plain{td::Seed{1}};
    td::Random random(td::Seed{2});
    const td::detail::RandomPairs<td::Clip<without>> pairs(random);
    const auto expected = plain.encode_text(pairs.ids), found = model.encode_text(pairs.ids);
    CHECK(std::ranges::equal(found.elements(), expected.elements()));
    // Nor does what was trained with it need its head.
    const TemporaryFolder folder;
    td::save_weights(model, folder / "model.safetensors");
    td::Clip<without> loaded;
    td::load_weights(loaded, folder / "model.safetensors");
    const auto again = loaded.encode_text(pairs.ids);
    CHECK(std::ranges::equal(again.elements(), expected.elements()));
    // And the head begins at random, or stays, where a checkpoint has none.
    td::save_weights(loaded, folder / "without.safetensors");
    const auto begun = td::load<averaged>(folder / "without.safetensors");
    td::Clip<averaged> kept_head{td::Seed{1}};
    td::load_weights(kept_head, folder / "without.safetensors");
    double squares = 0;
    td::for_each_parameter(
        [&](const td::ParameterName& name, const auto& found_tensor, const auto& kept_tensor, const auto& before) {
            if (!name.view().starts_with("mlm_head.")) return;
            CHECK(std::ranges::equal(kept_tensor.elements(), before.elements()));
            if (name.view() == "mlm_head.dense.weight") {
                for (const float weight : found_tensor.elements()) squares += weight * weight;
            }
        },
        begun, std::as_const(kept_head), std::as_const(model));
    CHECK(squares > 0);
    // Without anything to draw from, training leaves captions as they are.
    td::Clip<averaged>::Text::Workspace work;
    td::Clip<averaged>::Embeddings kept(pairs.ids.extent(0));
    model.text().forward(pairs.ids, kept, work, true);
    td::nn::normalize_rows<float>(kept.extent(0), 3, kept.data(), nullptr);
    CHECK(std::ranges::equal(kept.elements(), expected.elements()));
}

TEST_CASE("the head for masked language is among a model's parameters, its cost and its text") {
    CHECK(td::count_parameters(td::Clip<bert>{}) == td::parameter_count(bert));
    CHECK(td::count_parameters(td::Clip<averaged>{}) == td::parameter_count(averaged));
    CHECK(td::count_parameters(td::Clip<shared>{}) == td::parameter_count(shared));
    CHECK_THAT(td::constant_text(bert), Contains(".no_ln_final = true, .masked_language = {.share = 0.4, .mask = 1, .weight = 0.7}"));
    CHECK_THAT(td::describe<bert>(), Contains("mlm_head"));
}

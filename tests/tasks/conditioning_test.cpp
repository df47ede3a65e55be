// What generators read, on a small model; at real sizes tests/parity/conditioning.py compares it with diffusers.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <tandem/models/clip.hpp>
#include <tandem/tasks/conditioning.hpp>
#include <tandem/texts/bpe_trainer.hpp>

namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

template <std::size_t width>
inline constexpr td::ClipConfig config{.vision = td::VitConfig{.image = 16, .patch = 8, .width = 16, .layers = 1, .heads = 2},
                                       .text = td::TextConfig{.vocabulary = 600, .context = 12, .width = width, .layers = 3, .heads = 2},
                                       .embedding = 8};

}  // namespace

TEST_CASE("prompts are hidden states of every place") {
    const td::Clip<config<16>> first{td::Seed{1}};
    const td::Clip<config<24>> second{td::Seed{2}};
    const td::Bpe text = td::train_bpe(std::vector<std::string>{"a cat", "a dog"}, 540);
    const std::vector<std::string> prompts{"a cat", ""};
    const std::vector<td::Id> ids = text.encode_batch(prompts, 12);
    const td::Clip<config<16>>::Text::Input a(std::span<const td::Id>(ids), 2);
    const td::Clip<config<24>>::Text::Input b(std::span<const td::Id>(ids), 2);

    const td::PromptCondition plain = td::stable_diffusion_condition(first, text, prompts);
    CHECK(plain.tokens == 12);
    CHECK(plain.width == 16);
    CHECK(plain.pooled.empty());
    const auto last = first.text_tokens(a, -1, true), skipped = first.text_tokens(a, -3, true);
    CHECK(std::ranges::equal(plain.embeds, last.elements()));
    CHECK(std::ranges::equal(td::stable_diffusion_condition(first, text, prompts, 2).embeds, skipped.elements()));

    const td::PromptCondition wide = td::sdxl_condition(first, text, second, text, prompts, 1);
    const auto left = first.text_tokens(a, -3);
    const auto right = second.text_tokens(b, -3);
    CHECK(wide.width == 40);
    for (std::size_t prompt = 0; prompt < 2; ++prompt) {
        for (std::size_t place = 0; place < 12; ++place) {
            const float* const row = wide.embeds.data() + (prompt * 12 + place) * 40;
            REQUIRE(std::equal(row, row + 16, &left(prompt, place, 0)));
            REQUIRE(std::equal(row + 16, row + 40, &right(prompt, place, 0)));
        }
    }
    const auto pooled = second.encode_text(b, false);
    CHECK(std::ranges::equal(wide.pooled, pooled.elements()));
    // Not normalised, but in the same direction.
    auto unit = second.encode_text(b);
    double length = 0;
    for (std::size_t j = 0; j < 8; ++j) length += static_cast<double>(pooled(1, j)) * static_cast<double>(pooled(1, j));
    CHECK(std::abs(length - 1) > 1e-3);
    for (std::size_t j = 0; j < 8; ++j) CHECK(pooled(1, j) == Approx(static_cast<double>(unit(1, j)) * std::sqrt(length)).margin(1e-6));

    CHECK_THROWS_WITH(td::stable_diffusion_condition(first, text, {}), Contains("a condition: expected a prompt, found none"));
    CHECK_THROWS_WITH(td::stable_diffusion_condition(first, text, prompts, 9), Contains("Clip::text_tokens: expected a layer"));
}

TEST_CASE("noise levels are diffusers'") {
    // DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod, diffusers 0.42.1.
    const std::vector<double> alphas = td::cosine_alphas();
    REQUIRE(alphas.size() == 1000);
    CHECK(alphas[0] == Approx(0.9999586939811707).epsilon(1e-6));
    CHECK(alphas[1] == Approx(0.9999125599861145).epsilon(1e-6));
    CHECK(alphas[499] == Approx(0.4938434660434723).epsilon(1e-5));
    CHECK(alphas[999] == Approx(2.4287349909002387e-09).epsilon(1e-3));

    const std::vector<float> embedding{0.5F, -1, 2, 0.25F, 0, 3}, noise{1, 0.5F, -0.5F, 0.1F, -2, 0}, mean{0.1F, 0.2F, 0.3F, 0, 0, 1}, deviation{1, 2, 0.5F, 1, 2, 1};
    const std::vector<float> found = td::unclip_condition(embedding, noise, mean, deviation, 7, alphas);
    const std::vector<double> expected{0.5215, -0.9781, 1.9942, 0.2521, -0.0864, 2.9995, 0.7539, 0.9477, 0.9999, 0.6570, 0.3192, 0.0151};
    REQUIRE(found.size() == expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) CHECK(found[i] == Approx(expected[i]).margin(6e-5));
    CHECK_THROWS_WITH(td::unclip_condition(embedding, noise, mean, deviation, 1000, alphas), Contains("a noise level below 1000, found 1000"));
    CHECK_THROWS_WITH(td::unclip_condition(embedding, std::vector<float>(3), mean, deviation, 0, alphas), Contains("of the embedding's width"));
}

// Groups of layers, and rates that go by them.
#include <catch2/catch.hpp>

#include <cmath>
#include <string_view>

#include <tandem/models/zoo.hpp>
#include <tandem/train/layer_groups.hpp>

namespace td = tandem;
using Catch::Contains;

namespace {

inline constexpr td::ClipConfig pooled{
    .vision = td::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 3, .heads = 2, .class_token = false,
                            .proj_type = td::Projection::none, .pooling = td::AttentionPool{}},
    .text = td::TextConfig{.vocabulary = 600, .context = 16, .width = 32, .layers = 2, .heads = 2},
    .embedding = 32};

}  // namespace

// What optim.py's layer_decay_param_groups gives for the same models.
TEST_CASE("rates fall from the embedding to the pixels and tokens", "[train]") {
    const td::RateFactor rate = td::layer_rates(td::vit_b_32, {.image_decay = 0.5, .text_decay = 0.9});
    const auto at = [&](std::string_view name, double base, int depth) {
        INFO(name);
        CHECK(rate(name) == Approx(std::pow(base, depth)).epsilon(1e-12));
    };
    at("visual.proj", 0.5, 0);
    at("visual.ln_post.weight", 0.5, 1);
    at("visual.transformer.resblocks.11.mlp.c_fc.weight", 0.5, 1);
    at("visual.transformer.resblocks.10.ln_1.bias", 0.5, 2);
    at("visual.transformer.resblocks.1.attn.in_proj_weight", 0.5, 11);
    at("visual.transformer.resblocks.0.attn.in_proj_weight", 0.5, 12);
    at("visual.ln_pre.weight", 0.5, 13);
    at("visual.conv1.weight", 0.5, 13);
    at("visual.class_embedding", 0.5, 13);
    at("visual.positional_embedding", 0.5, 13);
    at("text_projection", 0.9, 0);
    at("ln_final.weight", 0.9, 1);
    at("transformer.resblocks.11.ln_2.weight", 0.9, 1);
    at("transformer.resblocks.0.ln_2.weight", 0.9, 12);
    at("token_embedding.weight", 0.9, 13);
    at("positional_embedding", 0.9, 13);
    at("logit_scale", 1, 0);
}

TEST_CASE("a residual network's groups are its stages", "[train]") {
    constexpr td::LayerGroups groups = td::image_layer_groups(td::rn50);
    STATIC_REQUIRE(groups.size() == 6);
    CHECK(groups.depth("visual.attnpool.c_proj.weight") == 0);
    CHECK(groups.depth("visual.layer4.2.conv1.weight") == 1);
    CHECK(groups.depth("visual.layer1.0.downsample.0.weight") == 4);
    CHECK(groups.depth("visual.bn3.weight") == 5);
}

TEST_CASE("attention pooling is a group of its own, a projection that is not there none", "[train]") {
    constexpr td::LayerGroups groups = td::image_layer_groups(pooled);
    STATIC_REQUIRE(groups.size() == 5);
    CHECK(groups.depth("visual.attn_pool.latent") == 0);
    CHECK(groups.depth("visual.ln_post.weight") == 1);
    CHECK(groups.depth("visual.transformer.resblocks.2.ln_1.weight") == 1);
    CHECK(groups.depth("visual.transformer.resblocks.0.ln_1.weight") == 3);
    CHECK(groups.depth("visual.conv1.weight") == 4);
    STATIC_REQUIRE(td::image_layer_groups(td::vit_b_16_siglip).size() == 14);
    constexpr auto plain = [] {
        td::ClipConfig config = td::vit_b_32;
        config.vision.proj_type = td::Projection::none;
        return config;
    }();
    STATIC_REQUIRE(td::image_layer_groups(plain).size() == 13);
    CHECK(td::image_layer_groups(plain).depth("visual.transformer.resblocks.11.ln_1.weight") == 0);
}

TEST_CASE("the last groups of a locked tower learn", "[train]") {
    const td::RateFactor rate = td::layer_rates(td::vit_b_32, {.image_unlocked = 2, .text_unlocked = 0});
    CHECK(rate("visual.proj") == 1);
    CHECK(rate("visual.ln_post.bias") == 1);
    CHECK(rate("visual.transformer.resblocks.11.ln_1.weight") == 1);
    CHECK(rate("visual.transformer.resblocks.10.ln_1.weight") == 0);
    CHECK(rate("visual.conv1.weight") == 0);
    CHECK(rate("text_projection") == 0);
    CHECK(rate("token_embedding.weight") == 0);
    CHECK(rate("logit_scale") == 1);
    const td::RateFactor all = td::layer_rates(td::vit_b_32, {.image_unlocked = 99});
    CHECK(all("visual.conv1.weight") == 1);
    CHECK(all("token_embedding.weight") == 1);
}

TEST_CASE("decays out of their bounds are refused", "[train]") {
    CHECK_THROWS_WITH(td::layer_rates(td::vit_b_32, {.image_decay = 0}), Contains("LayerRates.image_decay") && Contains("found 0"));
    CHECK_THROWS_WITH(td::layer_rates(td::vit_b_32, {.text_decay = 1.5}), Contains("LayerRates.text_decay") && Contains("found 1.5"));
    constexpr auto shared = [] {
        td::ClipConfig config = pooled;
        config.shared = true;
        return config;
    }();
    CHECK_THROWS_WITH(td::layer_rates(shared, {.image_decay = 0.5}), Contains("LayerRates: expected the same of both towers"));
    CHECK(td::layer_rates(shared, {.image_decay = 0.5, .text_decay = 0.5})("visual.transformer.resblocks.2.ln_1.weight") == 0.5);
}

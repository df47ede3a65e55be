// The choices of a config, several in each model: every parameter's gradient against central differences in double, and as
// many parameters as the constant says.
#include <catch2/catch.hpp>

#include <tandem/models/check_gradients.hpp>
#include <tandem/models/clip.hpp>
#include <tandem/models/cost.hpp>

namespace td = tandem;

namespace {

inline constexpr td::ClipConfig modern{
    .vision = td::VitConfig{.image = {4, 6}, .patch = 2, .width = 6, .layers = 2, .heads = 4, .head_width = 4, .kv_heads = 2,
                            .mlp_ratio = 1.5, .class_token = false, .reg_tokens = 2, .pos_embed_type = td::PosEmbed::rotary,
                            .qk_norm = true, .ls_init_value = 0.3, .norm = td::RmsNorm{}, .activation = td::Silu{},
                            .mlp = td::GatedMlp{}, .pooling = td::Average{}},
    .text = td::TextConfig{.vocabulary = 12, .context = 6, .width = 8, .layers = 2, .heads = 4, .kv_heads = 1,
                           .pos_embed_type = td::PosEmbed::rotary, .qk_norm = true, .norm = td::RmsNorm{},
                           .activation = td::Gelu{}, .mlp = td::GatedMlp{}},
    .embedding = 4};

inline constexpr td::ClipConfig post{
    .vision = td::VitConfig{.image = {6, 4}, .patch = 2, .width = 8, .layers = 2, .heads = 2, .mlp_ratio = 2.0,
                            .class_token = false, .pos_embed_type = td::PosEmbed::sin_cos_2d,
                            .norm_position = td::NormPosition::post, .activation = td::SquaredRelu{},
                            .pooling = td::AttentionPool{}},
    .text = td::TextConfig{.vocabulary = 12, .context = 6, .width = 6, .layers = 2, .heads = 3, .causal = false,
                           .norm_position = td::NormPosition::sandwich, .ls_init_value = 0.5, .token_dropout = 0.4,
                           .pooling = td::Last{}},
    .embedding = 4};

inline constexpr td::ClipConfig parallel{
    .vision = td::VitConfig{.image = {12, 8}, .patch = 4, .width = 8, .layers = 2, .heads = 2, .mlp_ratio = 2.0, .reg_tokens = 1,
                            .no_ln_pre = true, .parallel = true, .patch_dropout = 0.5, .drop_path_rate = 0.5,
                            .stem = td::ConvStem{}},
    .text = td::TextConfig{.vocabulary = 12, .context = 6, .width = 6, .layers = 2, .heads = 3,
                           .final_ln_after_pool = true, .norm_position = td::NormPosition::post, .drop_path_rate = 0.4,
                           .pooling = td::Average{}},
    .embedding = 4,
    .logit_bias = true};

inline constexpr td::ClipConfig shared{
    .vision = td::VitConfig{.image = 6, .patch = 3, .width = 8, .layers = 2, .heads = 2, .mlp_ratio = 2.0,
                            .pos_embed_type = td::PosEmbed::rotary, .qk_norm = true, .patch_dropout = 0.3},
    .text = td::TextConfig{.vocabulary = 12, .context = 6, .width = 8, .layers = 2, .heads = 2, .mlp_ratio = 2.0,
                           .qk_norm = true},
    .embedding = 4,
    .shared = true};

inline constexpr td::ClipConfig sandwich{
    .vision = td::VitConfig{.image = 4, .patch = 2, .width = 6, .layers = 3, .heads = 2, .mlp_ratio = 2.0,
                            .norm_position = td::NormPosition::sandwich, .ls_init_value = 0.7, .drop_path_rate = 0.6},
    .text = td::TextConfig{.vocabulary = 10, .context = 5, .width = 6, .layers = 2, .heads = 2, .mlp_ratio = 2.0,
                           .norm_position = td::NormPosition::post, .ls_init_value = 0.7, .norm = td::RmsNorm{}},
    .embedding = 4};

template <auto config, class L = td::InfoNce>
void check(const L& loss = {}) {
    const td::GradientCheck worst = td::check_gradients<config>(loss, td::Seed{7});
    INFO(worst.parameter);
    CHECK(worst.difference <= 1e-5);
    CHECK(td::count_parameters(td::Clip<config>{}) == td::parameter_count(config));
}

}  // namespace

TEST_CASE("RMS norm, QK norm, grouped queries, free head width, gated MLP, layer scale, registers, rotary positions") {
    check<modern>();
}
TEST_CASE("post norm and sandwich, sine-cosine positions, squared ReLU, attention pooling, token dropout, last token") {
    check<post>();
}
TEST_CASE("parallel block, convolutional stem, patch dropout, stochastic depth, no first norm, pooling before the norm") {
    check<parallel>(td::SigmoidLoss{});
}
TEST_CASE("one tower shared by both sides") { check<shared>(); }
TEST_CASE("sandwich and post norm with layer scale and stochastic depth, one row picked") { check<sandwich>(); }

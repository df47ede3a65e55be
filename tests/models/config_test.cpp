// The zoo's constants against open_clip's published profile (docs/model_profile.csv), to its printed digits.
#include <catch2/catch.hpp>

#include <cmath>

#include <tandem/models/cost.hpp>
#include <tandem/models/zoo.hpp>

namespace td = tandem;

namespace {

double millions(std::size_t parameters) { return std::round(static_cast<double>(parameters) / 1e4) / 100; }
double giga(std::size_t flops) { return std::round(static_cast<double>(flops) / 1e7) / 100; }

template <class Config>
void check(const Config& config, double image_m, double text_m, double image_gflops, double text_gflops) {
    CHECK(millions(td::image_cost(config).parameters) == Approx(image_m).margin(1e-9));
    CHECK(millions(td::text_cost(config).parameters) == Approx(text_m).margin(1e-9));
    CHECK(giga(td::image_cost(config).flops) == Approx(image_gflops).margin(1e-9));
    CHECK(giga(td::text_cost(config).flops) == Approx(text_gflops).margin(1e-9));
}

}  // namespace

TEST_CASE("parameters and FLOPs of the zoo are open_clip's") {
    check(td::vit_b_32, 87.85, 63.43, 8.82, 5.96);
    check(td::vit_b_16, 86.19, 63.43, 35.13, 5.96);
    check(td::vit_l_14, 303.97, 123.65, 162.03, 13.30);
    check(td::vit_l_14_336, 304.29, 123.65, 381.92, 13.30);
    check(td::vit_h_14, 632.08, 354.03, 334.59, 47.09);
    check(td::vit_g_14, 1012.65, 354.03, 534.06, 47.09);
    check(td::vit_bigg_14, 1844.91, 694.66, 967.50, 97.86);
    check(td::vit_b_32_256, 87.86, 63.43, 11.50, 5.96);
    check(td::vit_b_16_plus_240, 117.21, 91.16, 54.76, 9.27);
    check(td::vit_b_16_siglip, 92.88, 110.27, 35.42, 11.02);
    check(td::vit_b_16_siglip_256, 92.93, 110.27, 46.82, 11.02);
    check(td::vit_b_16_siglip_512, 93.52, 110.27, 216.24, 11.02);
    check(td::vit_b_16_siglip_i18n_256, 92.93, 277.70, 46.82, 11.02);
    check(td::vit_l_16_siglip_384, 316.28, 336.19, 383.85, 39.06);
    check(td::vit_so400m_14_siglip, 427.68, 449.68, 220.35, 13.19);
    check(td::vit_so400m_14_siglip_384, 428.23, 449.73, 670.35, 53.13);
    check(td::vit_so400m_16_siglip2_512, 428.77, 707.78, 979.61, 53.13);
    check(td::vit_gopt_16_siglip2_384, 1163.66, 708.23, 1392.98, 53.13);
    check(td::rn50, 38.32, 63.69, 12.22, 5.96);
    check(td::rn101, 56.26, 63.43, 19.54, 5.96);
    check(td::rn50x4, 87.14, 91.16, 42.56, 9.27);
    check(td::rn50x16, 167.33, 123.65, 149.39, 13.30);
    check(td::rn50x64, 420.38, 202.88, 529.11, 23.55);
    // The text side's published FLOPs are for 514 tokens; these are B/32's image and 12 layers of width 768 for 77.
    check(td::xlm_roberta_base_vit_b_32, 87.85, 278.27, 8.82, 13.30);
    check(td::xlm_roberta_large_vit_h_14, 632.08, 560.94, 334.59, 47.09);
    // The text side without BERT's pooler (0.59 M), which is no part of the embedding.
    check(td::align_base, 62.14, 109.38, 16.80, 11.02);
}

TEST_CASE("costs are constants and add up") {
    static_assert(td::parameter_count(td::vit_b_32) == 151'277'313);
    static_assert(td::forward_flops(td::vit_b_32) == td::image_cost(td::vit_b_32).flops + td::text_cost(td::vit_b_32).flops);
    static_assert(td::training_bytes(td::vit_b_32) > td::training_bytes(td::vit_b_32.vision));
    static_assert(td::parameter_count(td::with_activation(td::vit_b_32, td::QuickGelu{})) ==
                  td::parameter_count(td::vit_b_32));
    CHECK(td::vit_g_14.vision.block_shape().hidden == 6144);
    CHECK(td::vit_bigg_14.vision.block_shape().hidden == 8192);
}

TEST_CASE("a wrong config names its fault at run time too") {
    CHECK_THROWS_WITH(td::parameter_count(td::VitConfig{.image = 30, .patch = 8}),
                      "VitConfig: image must be a multiple of patch in height and width, or floor_patches be set and a patch fit");
    CHECK_THROWS_WITH(td::parameter_count(td::VitConfig{.image = {32, 30}, .patch = 8}),
                      "VitConfig: image must be a multiple of patch in height and width, or floor_patches be set and a patch fit");
    CHECK_THROWS_WITH(td::parameter_count(td::TextConfig{.width = 10, .heads = 3}),
                      "TextConfig: width must be a multiple of heads, or head_width be given");
}

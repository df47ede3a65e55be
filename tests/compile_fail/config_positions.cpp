// Axial rotations take four channels of a head at a time.
// expect: tandem: VitConfig: sin_cos_2d needs a width, rotary a head width that is a multiple of 4
#include <tandem/models/clip.hpp>

inline constexpr tandem::ClipConfig config {
#if defined(TANDEM_EXPECT_FAIL)
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2, .head_width = 6, .pos_embed_type = tandem::PosEmbed::rotary},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
#else
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2, .pos_embed_type = tandem::PosEmbed::rotary},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
#endif
    .embedding = 16
};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

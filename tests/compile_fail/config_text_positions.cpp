// A caption has no grid.
// expect: tandem: TextConfig: positions are learnable, or rotary with an even head width; sin_cos_2d is for images
#include <tandem/models/clip.hpp>

inline constexpr tandem::ClipConfig config {
#if defined(TANDEM_EXPECT_FAIL)
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2, .pos_embed_type = tandem::PosEmbed::sin_cos_2d},
#else
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2, .pos_embed_type = tandem::PosEmbed::rotary},
#endif
    .embedding = 16
};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

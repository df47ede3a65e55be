// A share of 1 would leave nothing.
// expect: tandem: VitConfig: patch_dropout and drop_path_rate must be at least 0 and below 1
#include <tandem/models/clip.hpp>

inline constexpr tandem::ClipConfig config {
#if defined(TANDEM_EXPECT_FAIL)
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2, .patch_dropout = 1.0},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
#else
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2, .patch_dropout = 0.5},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
#endif
    .embedding = 16
};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

// Every stage of the stem halves the image.
// expect: tandem: VitConfig: ConvStem needs a patch that is a power of 2 above 1, and a width that is a multiple of it
#include <tandem/models/clip.hpp>

inline constexpr tandem::ClipConfig config {
#if defined(TANDEM_EXPECT_FAIL)
    .vision = tandem::VitConfig{.image = 36, .patch = 12, .width = 36, .layers = 1, .heads = 2, .head_width = 5, .stem = tandem::ConvStem{}},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
#else
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2, .stem = tandem::ConvStem{}},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
#endif
    .embedding = 16
};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

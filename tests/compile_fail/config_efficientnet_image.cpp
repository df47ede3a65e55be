// Five halvings must leave a pixel.
// expect: tandem: EfficientNetConfig: image must be at least 32 pixels, and the coefficients above 0
#include <tandem/models/clip.hpp>
#include <tandem/models/efficientnet.hpp>

inline constexpr tandem::ClipConfig config {
#if defined(TANDEM_EXPECT_FAIL)
    .vision = tandem::EfficientNetConfig{.image = 16, .width_coefficient = 0.125, .depth_coefficient = 0.3},
#else
    .vision = tandem::EfficientNetConfig{.image = 32, .width_coefficient = 0.125, .depth_coefficient = 0.3},
#endif
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
    .embedding = 40
};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

// Five halvings of the image must leave whole pixels.
// expect: tandem: ResNetConfig: image must be a multiple of 32, width even, every stage have blocks, and head_width divide 32 width
#include <tandem/models/clip.hpp>
#include <tandem/models/resnet.hpp>

inline constexpr tandem::ClipConfig config {
#if defined(TANDEM_EXPECT_FAIL)
    .vision = tandem::ResNetConfig{.image = 100, .layers = {1, 1, 1, 1}, .width = 4},
#else
    .vision = tandem::ResNetConfig{.image = 64, .layers = {1, 1, 1, 1}, .width = 4},
#endif
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
    .embedding = 16
};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

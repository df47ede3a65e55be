// The mean of the last channels is the embedding: nothing projects it.
// expect: tandem: EfficientNetConfig: its last channels are the embedding: set the ClipConfig's embedding to features()
#include <tandem/models/clip.hpp>
#include <tandem/models/efficientnet.hpp>

inline constexpr tandem::ClipConfig config {
    .vision = tandem::EfficientNetConfig{.image = 32, .width_coefficient = 0.125, .depth_coefficient = 0.3},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
#if defined(TANDEM_EXPECT_FAIL)
    .embedding = 16
#else
    .embedding = 40
#endif
};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

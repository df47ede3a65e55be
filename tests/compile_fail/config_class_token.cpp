// Without a class token there is none to pool.
// expect: tandem: VitConfig: ClassToken pooling needs class_token = true
#include <tandem/models/clip.hpp>

inline constexpr tandem::ClipConfig config {
#if defined(TANDEM_EXPECT_FAIL)
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2, .class_token = false},
#else
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2},
#endif
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2}, .embedding = 16
};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

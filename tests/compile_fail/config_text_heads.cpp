// The text tower's heads share its width evenly, too.
// expect: tandem: TextConfig: width must be a multiple of heads
// shows: is_multiple(32, 5)
#include <tandem/models/clip.hpp>

inline constexpr tandem::ClipConfig config {
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2},
#if defined(TANDEM_EXPECT_FAIL)
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 5},
#else
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 4},
#endif
    .embedding = 16
};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

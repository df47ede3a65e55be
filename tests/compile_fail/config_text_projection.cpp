// Without a projection the embedding is the pooled row.
// expect: tandem: TextConfig: without a projection (proj_type none) the embedding is as wide as the tower, and there is no proj_bias
// shows: 32 == 16
#include <tandem/models/clip.hpp>

inline constexpr tandem::ClipConfig config {
#if defined(TANDEM_EXPECT_FAIL)
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2, .proj_type = tandem::Projection::none},
#else
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 16, .layers = 1, .heads = 2, .proj_type = tandem::Projection::none},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2, .proj_bias = true},
#endif
    .embedding = 16
};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

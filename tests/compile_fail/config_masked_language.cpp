// What is told must not have been seen, and padding is never to be told.
// expect: tandem: TextConfig: masked_language needs a tower that is not causal, a pad_id, another id as mask in the vocabulary, and a weight above 0
#include <tandem/models/clip.hpp>

inline constexpr tandem::ClipConfig config {
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2},
#if defined(TANDEM_EXPECT_FAIL)
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2, .masked_language = {.share = 0.15, .mask = 3}},
#else
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2, .causal = false, .pad_id = 0,
                               .masked_language = {.share = 0.15, .mask = 3}},
#endif
    .embedding = 16
};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

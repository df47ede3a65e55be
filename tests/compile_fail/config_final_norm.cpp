// A norm that is left out stands nowhere.
// expect: tandem: TextConfig: no_ln_final leaves out the norm that final_ln_after_pool places
#include <tandem/models/clip.hpp>

inline constexpr tandem::ClipConfig config {
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2},
#if defined(TANDEM_EXPECT_FAIL)
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2, .final_ln_after_pool = true,
                               .no_ln_final = true, .pooling = tandem::Average{}},
#else
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2, .no_ln_final = true,
                               .pooling = tandem::Average{}},
#endif
    .embedding = 16
};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

// The image tower would stay, and its blocks are the text tower's.
// expect: tandem: the loss NoPairs is for towers that have their blocks for themselves: these share them
#include <tandem/models/clip.hpp>

inline constexpr tandem::ClipConfig config {
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2, .causal = false, .pad_id = 0,
                               .masked_language = {.share = 0.15, .mask = 3}},
    .embedding = 16,
#if defined(TANDEM_EXPECT_FAIL)
    .shared = true
#endif
};

using Model = tandem::Clip<config>;

float step(const Model& model, Model::Vision::Input images, Model::Text::Input ids, Model& gradient, Model::Workspace& work) {
    return model.loss_and_gradient(images, ids, tandem::NoPairs{}, gradient, work);
}

int main() {}

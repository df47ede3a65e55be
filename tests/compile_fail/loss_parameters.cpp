// A loss takes the scale as well.
// expect: tandem: a loss is called with image <N, D>, text <N, D>, scale <> and, if it takes a fourth, bias <>: this one takes other parameters
#include <tandem/models/clip.hpp>

inline constexpr tandem::ClipConfig config{
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
    .embedding = 16};

using Model = tandem::Clip<config>;

#if defined(TANDEM_EXPECT_FAIL)
inline constexpr auto loss = [](auto image, auto text) { return tandem::mean(image * text); };
#else
inline constexpr auto loss = [](auto image, auto text, auto scale) { return scale * tandem::mean(image * text); };
#endif

float step(const Model& model, Model::Vision::Input images, Model::Text::Input ids, Model& gradient,
           Model::Workspace& work) {
    return model.loss_and_gradient(images, ids, loss, gradient, work);
}

int main() {}

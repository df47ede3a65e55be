// A loss takes no more than the bias.
// expect: tandem: a loss is called with image <N, D>, text <N, D>, scale <> and, if it takes a fourth, bias <>: this one takes other parameters
#include <tandem/models/clip.hpp>

#include "small.hpp"

using Model = tandem::Clip<config>;

#if defined(TANDEM_EXPECT_FAIL)
inline constexpr auto loss = [](auto image, auto text, auto scale, auto, auto) { return scale * tandem::mean(image * text); };
#else
inline constexpr auto loss = [](auto image, auto text, auto scale) { return scale * tandem::mean(image * text); };
#endif

float step(const Model& model, Model::Vision::Input images, Model::Text::Input ids, Model& gradient,
           Model::Workspace& work) {
    return model.loss_and_gradient(images, ids, loss, gradient, work);
}

int main() {}

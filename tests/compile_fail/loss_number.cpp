// A loss is an expression, from which its gradient follows.
// expect: tandem: a loss returns a scalar expression of its embeddings, not a number or a tensor
#include <tandem/models/clip.hpp>

#include "small.hpp"

using Model = tandem::Clip<config>;

#if defined(TANDEM_EXPECT_FAIL)
inline constexpr auto loss = [](auto image, auto text, auto scale) { return tandem::evaluate(scale * tandem::mean(image * text)).item(); };
#else
inline constexpr auto loss = [](auto image, auto text, auto scale) { return scale * tandem::mean(image * text); };
#endif

float step(const Model& model, Model::Vision::Input images, Model::Text::Input ids, Model& gradient,
           Model::Workspace& work) {
    return model.loss_and_gradient(images, ids, loss, gradient, work);
}

int main() {}

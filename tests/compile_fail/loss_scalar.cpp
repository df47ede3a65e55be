// A loss is one number for a batch.
// expect: tandem: a loss must be a scalar: reduce it with mean or sum (its axes == 0)
// shows: 1 == 0
#include <tandem/models/clip.hpp>

#include "small.hpp"

using Model = tandem::Clip<config>;

#if defined(TANDEM_EXPECT_FAIL)
inline constexpr auto loss = [](auto image, auto text, auto scale) { return scale * tandem::sum<1>(image * text); };
#else
inline constexpr auto loss = [](auto image, auto text, auto scale) { return scale * tandem::mean(image * text); };
#endif

float step(const Model& model, Model::Vision::Input images, Model::Text::Input ids, Model& gradient,
           Model::Workspace& work) {
    return model.loss_and_gradient(images, ids, loss, gradient, work);
}

int main() {}

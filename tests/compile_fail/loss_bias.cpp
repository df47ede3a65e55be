// The sigmoid loss needs a model with a learned bias.
// expect: tandem: this loss takes a bias: set .logit_bias = true in the ClipConfig
#include <tandem/models/clip.hpp>

#include "small.hpp"

#if defined(TANDEM_EXPECT_FAIL)
using Chosen = tandem::SigmoidLoss;
#else
using Chosen = tandem::InfoNce;
#endif
using Model = tandem::Clip<config>;

float step(const Model& model, Model::Vision::Input images, Model::Text::Input ids, Model& gradient,
           Model::Workspace& work) {
    return model.loss_and_gradient(images, ids, Chosen{}, gradient, work);
}

int main() {}

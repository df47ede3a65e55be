// A bfloat16 model infers only.
// expect: tandem: bf16 and int8 models only infer: their weights have too few bits for gradients and updates; amp_bf16 trains
#include <tandem/models/clip.hpp>

#include "small.hpp"

using Chosen = tandem::InfoNce;
#if defined(TANDEM_EXPECT_FAIL)
using Element = tandem::bf16;
#else
using Element = float;
#endif
using Model = tandem::Clip<config, Element>;

float step(const Model& model, Model::Vision::Input images, Model::Text::Input ids, Model& gradient,
           Model::Workspace& work) {
    return model.loss_and_gradient(images, ids, Chosen{}, gradient, work);
}

int main() {}

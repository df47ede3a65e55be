// Gradients of pixels need a model that trains.
// expect: tandem: bf16 and int8 models only infer: their weights have too few bits for gradients and updates; amp_bf16 trains
// long: a little, by the longer name of the namespace in units that link tandem::compiled
#include <tandem/models/clip.hpp>

#include "small.hpp"

#if defined(TANDEM_EXPECT_FAIL)
using Model = tandem::Clip<config, tandem::bf16>;
#else
using Model = tandem::Clip<config>;
#endif

float guide(const Model& model, Model::Vision::Input images, tandem::Tensor<float, Model::Vision::Input::shape>& gradient) {
    return model.image_gradient(images, [](auto image) { return tandem::sum(image); }, gradient);
}

int main() {}

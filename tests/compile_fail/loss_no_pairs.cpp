// Without pairs there is nothing to learn but masked language.
// expect: tandem: the loss NoPairs is for a model whose TextConfig has a masked_language, and this one has none
#include <tandem/models/clip.hpp>

#include "small.hpp"

using Model = tandem::Clip<config>;

float step(const Model& model, Model::Vision::Input images, Model::Text::Input ids, Model& gradient, Model::Workspace& work) {
#if defined(TANDEM_EXPECT_FAIL)
    return model.loss_and_gradient(images, ids, tandem::NoPairs{}, gradient, work);
#else
    return model.loss_and_gradient(images, ids, tandem::InfoNce{}, gradient, work);
#endif
}

int main() {}

// A loss keeps what it has seen of its batches.
// expect: tandem: a loss that sees its batches keeps what it has seen: it cannot be const
#include <tandem/models/clip.hpp>

#include <tandem/losses/captions.hpp>

#include "small.hpp"

using Model = tandem::Clip<config>;

#if defined(TANDEM_EXPECT_FAIL)
using Chosen = const tandem::InfoNceByCaption<>;
#else
using Chosen = tandem::InfoNceByCaption<>;
#endif

float step(const Model& model, Model::Vision::Input images, Model::Text::Input ids, Chosen& loss, Model& gradient, Model::Workspace& work) {
    return model.loss_and_gradient(images, ids, loss, gradient, work);
}

int main() {}

// What is given to a model stands in memory.
// expect: tandem: a model takes tensors: evaluate() makes one of an expression
#include <tandem/models/clip.hpp>

#include "small.hpp"

using Model = tandem::Clip<config>;

#if defined(TANDEM_EXPECT_FAIL)
using Given = tandem::AsExpression<const tandem::Tensor<float, tandem::Shape<tandem::dynamic, 3, 32, 32>>&>;
#else
using Given = tandem::Tensor<float, tandem::Shape<tandem::dynamic, 3, 32, 32>>;
#endif

auto embed(const Model& model, const Given& given) {
    return model.encode_image(given);
}

int main() {}

// A vector has no shape.
// expect: tandem: a model takes tensors and views: Model::Vision::Input(span, count) or Model::Text::Input(span, count)
#include <tandem/models/clip.hpp>

#include "small.hpp"

using Model = tandem::Clip<config>;

#if defined(TANDEM_EXPECT_FAIL)
using Given = std::vector<float>;
#else
using Given = tandem::Tensor<float, tandem::Shape<tandem::dynamic, 3, 32, 32>>;
#endif

auto embed(const Model& model, const Given& given) {
    return model.encode_image(given);
}

int main() {}

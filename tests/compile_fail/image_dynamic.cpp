// The size of images is in their type.
// expect: tandem: a model's images and ids bear their size in their type: Model::Vision::Input(images.elements(), count), Model::Text::Input(ids.elements(), count)
#include <tandem/models/clip.hpp>

#include "small.hpp"

using Model = tandem::Clip<config>;

#if defined(TANDEM_EXPECT_FAIL)
using Given = tandem::Tensor<float, tandem::Shape<tandem::dynamic, tandem::dynamic, tandem::dynamic, tandem::dynamic>>;
#else
using Given = tandem::Tensor<float, tandem::Shape<tandem::dynamic, 3, 32, 32>>;
#endif

auto embed(const Model& model, const Given& given) {
    return model.encode_image(given);
}

int main() {}

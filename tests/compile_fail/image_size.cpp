// A model takes images of its own size.
// expect: tandem: images must be as high as the model's (given == its own)
// expect: tandem: images must be as wide as the model's (given == its own)
// shows: 48 == 32
#include <tandem/models/clip.hpp>

#include "small.hpp"

using Model = tandem::Clip<config>;

#if defined(TANDEM_EXPECT_FAIL)
using Given = tandem::Tensor<float, tandem::Shape<tandem::dynamic, 3, 48, 48>>;
#else
using Given = tandem::Tensor<float, tandem::Shape<tandem::dynamic, 3, 32, 32>>;
#endif

auto embed(const Model& model, const Given& given) {
    return model.encode_image(given);
}

int main() {}

// One image is a batch of one.
// expect: tandem: a model takes images <N, 3, height, width> and ids <N, context> (axes given == its own)
// shows: 3 == 4
#include <tandem/models/clip.hpp>

#include "small.hpp"

using Model = tandem::Clip<config>;

#if defined(TANDEM_EXPECT_FAIL)
using Given = tandem::Tensor<float, tandem::Shape<3, 32, 32>>;
#else
using Given = tandem::Tensor<float, tandem::Shape<tandem::dynamic, 3, 32, 32>>;
#endif

auto embed(const Model& model, const Given& given) {
    return model.encode_image(given);
}

int main() {}

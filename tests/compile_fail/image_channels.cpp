// Images have three channels.
// expect: tandem: images must have as many channels as the model's (given == its own)
// shows: 1 == 3
#include <tandem/models/clip.hpp>

#include "small.hpp"

using Model = tandem::Clip<config>;

#if defined(TANDEM_EXPECT_FAIL)
using Given = tandem::Tensor<float, tandem::Shape<tandem::dynamic, 1, 32, 32>>;
#else
using Given = tandem::Tensor<float, tandem::Shape<tandem::dynamic, 3, 32, 32>>;
#endif

auto embed(const Model& model, const Given& given) {
    return model.encode_image(given);
}

int main() {}

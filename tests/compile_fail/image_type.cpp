// A float model takes float images.
// expect: tandem: the elements given are not of the model's type (images: float, double of a Clip<config, double>; ids: tandem::Id)
// shows: <double, float>
#include <tandem/models/clip.hpp>

#include "small.hpp"

using Model = tandem::Clip<config>;

#if defined(TANDEM_EXPECT_FAIL)
using Given = tandem::Tensor<double, tandem::Shape<tandem::dynamic, 3, 32, 32>>;
#else
using Given = tandem::Tensor<float, tandem::Shape<tandem::dynamic, 3, 32, 32>>;
#endif

auto embed(const Model& model, const Given& given) {
    return model.encode_image(given);
}

int main() {}

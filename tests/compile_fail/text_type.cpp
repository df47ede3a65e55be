// Ids are integers.
// expect: tandem: the elements given are not of the model's type (images: float, double of a Clip<config, double>; ids: tandem::Id)
// shows: <float, int>
#include <tandem/models/clip.hpp>

#include "small.hpp"

using Model = tandem::Clip<config>;

#if defined(TANDEM_EXPECT_FAIL)
using Given = tandem::Tensor<float, tandem::Shape<tandem::dynamic, 8>>;
#else
using Given = tandem::Tensor<tandem::Id, tandem::Shape<tandem::dynamic, 8>>;
#endif

auto embed(const Model& model, const Given& given) {
    return model.encode_text(given);
}

int main() {}

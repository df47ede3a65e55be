// A model takes ids of its own context length.
// expect: tandem: ids must be of the model's context length (given == its own)
// shows: 77 == 8
#include <tandem/models/clip.hpp>

#include "small.hpp"

using Model = tandem::Clip<config>;

#if defined(TANDEM_EXPECT_FAIL)
using Given = tandem::Tensor<tandem::Id, tandem::Shape<tandem::dynamic, 77>>;
#else
using Given = tandem::Tensor<tandem::Id, tandem::Shape<tandem::dynamic, 8>>;
#endif

auto embed(const Model& model, const Given& given) {
    return model.encode_text(given);
}

int main() {}

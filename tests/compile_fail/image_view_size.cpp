// A view of images of another size is refused as a tensor is.
// expect: tandem: images must be as wide as the model's (given == its own)
// shows: 40 == 32
#include <tandem/models/clip.hpp>

#include "small.hpp"

using Model = tandem::Clip<config>;

#if defined(TANDEM_EXPECT_FAIL)
using Given = tandem::View<const float, tandem::Shape<tandem::dynamic, 3, 32, 40>>;
#else
using Given = tandem::View<const float, tandem::Shape<tandem::dynamic, 3, 32, 32>>;
#endif

auto embed(const Model& model, const Given& given) {
    return model.image_tokens(given);
}

int main() {}

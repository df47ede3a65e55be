// Embeddings of float and double have no cosines.
// expect: tandem: embeddings that are compared must be of one element type
// shows: <float, double>
#include <tandem/models/clip.hpp>
#include <tandem/tasks/zero_shot.hpp>

#if defined(TANDEM_EXPECT_FAIL)
using Other = double;
#else
using Other = float;
#endif

auto cosines(const tandem::Tensor<float, tandem::Shape<tandem::dynamic, 512>>& images,
             const tandem::Tensor<Other, tandem::Shape<tandem::dynamic, 512>>& texts) {
    return tandem::similarity(images, texts);
}

int main() {}

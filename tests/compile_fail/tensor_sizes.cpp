// A tensor is made with one size for every extent its shape leaves open.
// expect: tandem: give exactly one size for every dynamic extent of the shape
// shows: 2 == 1
#include <tandem/tensor/tensor.hpp>

using Rows = tandem::Tensor<float, tandem::Shape<tandem::dynamic, 768>>;

int main() {
#if defined(TANDEM_EXPECT_FAIL)
    Rows rows(4, 768);
#else
    Rows rows(4);
#endif
    return static_cast<int>(rows(0, 0));
}

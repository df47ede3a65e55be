// A tensor's element is named by one index for every axis.
// expect: tandem: give exactly one index for every axis of the tensor
// shows: 1 == 2
#include <tandem/core/shape.hpp>
#include <tandem/tensor/tensor.hpp>

float corner(const tandem::View<const float, tandem::Shape<2, 3>>& view) {
#if defined(TANDEM_EXPECT_FAIL)
    return view(0);
#else
    return view(0, 0);
#endif
}

int main() {}

// What is assigned must have the shape it is assigned to, or broadcast to it.
// expect: tandem: the expression's shape does not fit the tensor it is assigned to
// shows: Shape<2, 3>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/functions.hpp>

#if defined(TANDEM_EXPECT_FAIL)
using Result = tandem::Shape<3>;
#else
using Result = tandem::Shape<2, 3>;
#endif

void twice(tandem::Tensor<float, Result>& out, const tandem::Tensor<float, tandem::Shape<2, 3>>& x) {
    tandem::assign(out, x * 2);
}

int main() {}

// A result is stored in the type it was computed in, or in bfloat16.
// expect: tandem: the expression computes in another element type than the tensor it is assigned to
// shows: <float, double>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/functions.hpp>

#if defined(TANDEM_EXPECT_FAIL)
using Result = double;
#else
using Result = tandem::bf16;
#endif

void twice(tandem::Tensor<Result, tandem::Shape<3>>& out, const tandem::Tensor<float, tandem::Shape<3>>& x) {
    tandem::assign(out, x * 2);
}

int main() {}

// An expression computes in one type.
// expect: tandem: the tensors of an expression must have one element type (bfloat16 counts as float)
// shows: <float, double>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/functions.hpp>

#if defined(TANDEM_EXPECT_FAIL)
using Other = double;
#else
using Other = tandem::bf16;
#endif

auto sum(const tandem::Tensor<float, tandem::Shape<3>>& x, const tandem::Tensor<Other, tandem::Shape<3>>& y) {
    return tandem::evaluate(x + y);
}

int main() {}

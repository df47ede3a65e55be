// Only matrices are multiplied.
// expect: tandem: matmul takes two matrices
#include <tandem/tensor/matmul.hpp>

#if defined(TANDEM_EXPECT_FAIL)
using Right = tandem::Shape<3>;
#else
using Right = tandem::Shape<3, 1>;
#endif

auto product(const tandem::Tensor<float, tandem::Shape<2, 3>>& x, const tandem::Tensor<float, Right>& y) {
    return tandem::evaluate(tandem::matmul(x, y));
}

int main() {}

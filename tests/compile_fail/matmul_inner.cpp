// A matrix product needs as many columns on the left as rows on the right.
// expect: tandem: matmul needs as many columns on the left as rows on the right
// shows: 3 == 4
#include <tandem/tensor/matmul.hpp>

#if defined(TANDEM_EXPECT_FAIL)
using Weight = tandem::Shape<4, 5>;
#else
using Weight = tandem::Shape<3, 5>;
#endif

auto product(const tandem::Tensor<float, tandem::Shape<tandem::dynamic, 3>>& x,
             const tandem::Tensor<float, Weight>& w) {
    return tandem::evaluate(tandem::matmul(x, w));
}

int main() {}

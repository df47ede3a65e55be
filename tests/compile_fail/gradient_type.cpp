// A gradient is taken with respect to float or double tensors.
// expect: tandem: gradients are taken with respect to float or double tensors
#include <tandem/tensor/gradient.hpp>

#if defined(TANDEM_EXPECT_FAIL)
using Element = tandem::bf16;
#else
using Element = float;
#endif

auto derivative(const tandem::Tensor<Element, tandem::Shape<3>>& x) {
    return tandem::gradient(tandem::sum(x * x), x);
}

int main() {}

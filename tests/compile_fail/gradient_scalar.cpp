// Only a scalar has a gradient.
// expect: tandem: only a scalar expression has a gradient; reduce it with sum or mean
#include <tandem/tensor/gradient.hpp>

auto derivative(const tandem::Tensor<float, tandem::Shape<3>>& x) {
#if defined(TANDEM_EXPECT_FAIL)
    return tandem::gradient(x * x, x);
#else
    return tandem::gradient(tandem::sum(x * x), x);
#endif
}

int main() {}

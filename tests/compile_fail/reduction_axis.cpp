// A reduction's axis is one of its operand's.
// expect: tandem: a reduction's axis must be one of its operand's
#include <tandem/tensor/reduce.hpp>

#if defined(TANDEM_EXPECT_FAIL)
constexpr int axis = 2;
#else
constexpr int axis = 1;
#endif

auto sums(const tandem::Tensor<float, tandem::Shape<2, 3>>& x) {
    return tandem::evaluate(tandem::sum<axis>(x));
}

int main() {}

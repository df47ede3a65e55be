// tiled takes a scalar.
// expect: tandem: tiled takes a scalar: reduce the expression with sum or mean
#include <tandem/tensor/tiled.hpp>

using Matrix = tandem::Tensor<float, tandem::Shape<tandem::dynamic, 4>>;

auto rows(const Matrix& x, const Matrix& y) {
    const auto logits = tandem::matmul(x, tandem::transpose(y));
#ifdef TANDEM_EXPECT_FAIL
    return tandem::tiled(tandem::log_sum_exp<1>(logits));
#else
    return tandem::tiled(tandem::mean(tandem::log_sum_exp<1>(logits)));
#endif
}

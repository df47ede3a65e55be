// A tile's share of a function of sums is not known.
// expect: tandem: tiled needs sums or means over rows, added up with numbers as factors: this scalar is another function of them
#include <tandem/tensor/tiled.hpp>

using Matrix = tandem::Tensor<float, tandem::Shape<tandem::dynamic, 4>>;

float loss(const Matrix& x, const Matrix& y) {
    const auto distances = tandem::mean(tandem::square(tandem::matmul(x, tandem::transpose(y))));
#ifdef TANDEM_EXPECT_FAIL
    return tandem::evaluate(tandem::tiled(log(distances))).item();
#else
    return tandem::evaluate(log(tandem::tiled(distances))).item();
#endif
}

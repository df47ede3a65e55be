// Extents that are neither equal nor 1 cannot be broadcast.
// expect: tandem: the shapes of an elementwise operation do not fit: aligned at the last axis, each pair of extents
// must be equal or 1
// shows: Shape<2, 3>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/functions.hpp>

#if defined(TANDEM_EXPECT_FAIL)
using Row = tandem::Shape<4>;
#else
using Row = tandem::Shape<3>;
#endif

auto sum(const tandem::Tensor<float, tandem::Shape<2, 3>>& x, const tandem::Tensor<float, Row>& row) {
    return tandem::evaluate(x + row);
}

int main() {}

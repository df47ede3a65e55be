// Only a square matrix has a diagonal.
// expect: tandem: diagonal takes a square matrix
#include <tandem/tensor/pick.hpp>

#if defined(TANDEM_EXPECT_FAIL)
using Logits = tandem::Shape<3, 4>;
#else
using Logits = tandem::Shape<3, 3>;
#endif

auto loss(const tandem::Tensor<float, Logits>& logits) {
    return tandem::evaluate(tandem::cross_entropy(logits, tandem::diagonal));
}

int main() {}

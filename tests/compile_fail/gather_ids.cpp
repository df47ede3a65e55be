// gather takes one id for every row.
// expect: tandem: gather takes a matrix and one id for each of its rows
// long: a little, by the longer name of the namespace in units that link tandem::compiled
#include <tandem/tensor/pick.hpp>

#if defined(TANDEM_EXPECT_FAIL)
using Classes = tandem::Shape<3>;
#else
using Classes = tandem::Shape<2>;
#endif

auto loss(const tandem::Tensor<float, tandem::Shape<2, 3>>& logits,
          const tandem::Tensor<tandem::Id, Classes>& classes) {
    return tandem::evaluate(tandem::cross_entropy(logits, classes));
}

int main() {}

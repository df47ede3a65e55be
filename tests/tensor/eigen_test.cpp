// Eigen sees a tensor's own memory; its product is an oracle of matmul's.
#include <catch2/catch.hpp>

#include <tandem/core/random.hpp>
#include <tandem/tensor/eigen.hpp>
#include <tandem/tensor/matmul.hpp>

namespace td = tandem;

TEST_CASE("a map reads and writes the tensor's memory, row-major, with its extents") {
    td::Tensor<double, td::Shape<td::dynamic, 3>> a(4);
    td::Random random{td::Seed{1}};
    for (double& x : a.elements()) x = random.normal();
    auto map = td::as_eigen(a);
    static_assert(decltype(map)::ColsAtCompileTime == 3);
    CHECK(map.rows() == 4);
    CHECK(map(2, 1) == a(2, 1));
    map(3, 2) = 7;
    CHECK(a(3, 2) == 7);
    const auto& constant = a;
    CHECK(td::as_eigen(constant).sum() == Approx(map.sum()));
    td::Tensor<double, td::Shape<5>> v;
    v(4) = 2;
    CHECK(td::as_eigen(v)(4) == 2);

    td::Tensor<double, td::Shape<3, td::dynamic>> b(6);
    for (double& x : b.elements()) x = random.normal();
    const auto product = td::evaluate(td::matmul(a, b));
    CHECK((td::as_eigen(product) - map * td::as_eigen(b)).cwiseAbs().maxCoeff() < 1e-13);
}

#include <algorithm>
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <utility>

#include <tbb/global_control.h>

#include <tandem/core/random.hpp>
#include <tandem/tensor/matmul.hpp>
#include <tandem/tensor/pick.hpp>

#include "../guarded.hpp"

namespace {

using tandem::assign;
using tandem::diagonal;
using tandem::dynamic;
using tandem::evaluate;
using tandem::gather;
using tandem::Id;
using tandem::matmul;
using tandem::Random;
using tandem::Seed;
using tandem::Shape;
using tandem::Tensor;
using tandem::transpose;
using tandem::View;

template <class T>
using Matrix = Tensor<T, Shape<dynamic, dynamic>>;
template <class T>
using MatrixView = View<const T, Shape<dynamic, dynamic>>;

template <class T>
Matrix<T> random_matrix(std::uint64_t seed, std::size_t rows, std::size_t columns) {
    Matrix<T> matrix(rows, columns);
    Random random(Seed{seed});
    for (T& value : matrix.elements()) value = static_cast<T>(random.uniform(-1, 1));
    return matrix;
}

/// Compares with Σ a(i, l) · b(l, j) in double.
template <class T, class S, class Left, class Right>
void check_product(const Tensor<T, S>& found, std::size_t inner, const Left& a, const Right& b) {
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < found.extent(0); ++i) {
        for (std::size_t j = 0; j < found.extent(1); ++j) {
            double expected = 0;
            for (std::size_t l = 0; l < inner; ++l)
                expected += static_cast<double>(a(i, l)) * static_cast<double>(b(l, j));
            const double bound = static_cast<double>(inner * inner) * std::numeric_limits<T>::epsilon();
            wrong += !(std::abs(found(i, j) - expected) <= bound);
        }
    }
    CHECK(wrong == 0);
}

template <class T, class S, class U, class R>
bool same_bits(const Tensor<T, S>& a, const Tensor<U, R>& b) {
    return std::equal(a.elements().begin(), a.elements().end(), b.elements().begin(), b.elements().end());
}

}  // namespace

TEMPLATE_TEST_CASE("products of matrices and their transposes", "[tensor]", float, double) {
    using T = TestType;
    for (const auto& [m, n, k] : {std::array<std::size_t, 3>{1, 1, 1}, {3, 5, 7}, {17, 33, 9}, {65, 31, 64}}) {
        CAPTURE(m, n, k);
        const auto a = random_matrix<T>(1, m, k), at = random_matrix<T>(2, k, m);
        const auto b = random_matrix<T>(3, k, n), bt = random_matrix<T>(4, n, k);
        const auto turned = [](const auto& x) { return [&x](std::size_t i, std::size_t j) { return x(j, i); }; };
        check_product(evaluate(matmul(a, b)), k, a, b);
        check_product(evaluate(matmul(transpose(at), b)), k, turned(at), b);
        check_product(evaluate(matmul(a, transpose(bt))), k, a, turned(bt));
        check_product(evaluate(matmul(transpose(at), transpose(bt))), k, turned(at), turned(bt));
        const auto twice = evaluate(transpose(transpose(a)));
        CHECK(same_bits(twice, a));
    }
}

TEST_CASE("products read bfloat16 matrices and write float", "[tensor]") {
    const auto x = random_matrix<float>(1, 9, 40);
    Tensor<tandem::bf16, Shape<33, 40>> weight;
    assign(weight, random_matrix<float>(2, 33, 40));
    const auto product = evaluate(matmul(x, transpose(weight)));
    static_assert(std::is_same_v<decltype(product)::element, float>);
    check_product(product, 40, x, [&](std::size_t l, std::size_t j) { return weight(j, l); });
    Tensor<tandem::bf16, Shape<dynamic, 33>> narrow(9);
    assign(narrow, matmul(x, transpose(weight)));
    CHECK(narrow(8, 32).bits() == tandem::bf16(product(8, 32)).bits());
}

TEMPLATE_TEST_CASE("a chain around a product gives the bits of the chain after the product", "[tensor]", float,
                   double) {
    using T = TestType;
    Random random(Seed{5});
    const Guarded<T> out_memory(130 * 65), bias_memory(65), residual_memory(130 * 65), column_memory(130);
    for (const std::size_t m : {1U, 14U, 130U}) {
        for (const std::size_t n : {1U, 31U, 65U}) {
            for (const std::size_t k : {3U, 300U}) {
                CAPTURE(m, n, k);
                const auto a = random_matrix<T>(6, m, k), b = random_matrix<T>(7, n, k);
                const View<const T, Shape<dynamic>> bias(bias_memory.random(n, random), {{n}});
                const View<const T, Shape<dynamic, 1>> column(column_memory.random(m, random), {{m, 1}});
                const MatrixView<T> residual(residual_memory.random(m * n, random), {{m, n}});
                const View<T, Shape<dynamic, dynamic>> out(out_memory.last(m * n), {{m, n}});
                const auto chain = [&](const auto& x) { return 0.5 * x * (1 + erf(x + bias)) + residual * column; };
                const Matrix<T> product = evaluate(matmul(a, transpose(b)));
                const Matrix<T> expected = evaluate(chain(product));
                assign(out, chain(matmul(a, transpose(b))));
                // `x` stands twice in this chain: it is not fused. Once, and it is.
                CHECK(std::equal(out.elements().begin(), out.elements().end(), expected.elements().begin()));
                assign(out, tanh(2 * matmul(a, transpose(b)) + bias) - residual / column);
                const Matrix<T> once = evaluate(tanh(2 * product + bias) - residual / column);
                CHECK(std::equal(out.elements().begin(), out.elements().end(), once.elements().begin()));
            }
        }
    }
}

TEST_CASE("a product that is broadcast is not computed at the size of the result", "[tensor]") {
    const Tensor<double, Shape<3, 2>> a{1, 2, 3, 4, 5, 6};
    const Tensor<double, Shape<2, 1>> vector{10, 100};
    const Tensor<double, Shape<1, 2>> line{1, -1};
    const Tensor<double, Shape<2, 4>> b{1, 2, 3, 4, 5, 6, 7, 8};
    Tensor<double, Shape<3, 4>> c;
    c.fill(0.5);
    const auto columns = evaluate(c + matmul(a, vector));
    const auto rows = evaluate(matmul(line, b) * c);
    for (std::size_t i = 0; i < 3; ++i) {
        for (std::size_t j = 0; j < 4; ++j) {
            CHECK(columns(i, j) == 0.5 + 10 * a(i, 0) + 100 * a(i, 1));
            CHECK(rows(i, j) == 0.5 * (b(0, j) - b(1, j)));
        }
    }
    Tensor<double, Shape<3, 4>> out;
    assign(out, matmul(a, vector));
    CHECK(out(2, 3) == 650);
    assign(out, matmul(line, b));
    CHECK(out(2, 3) == -4);
}

TEMPLATE_TEST_CASE("a product may be written over its own operands", "[tensor]", float, double) {
    using T = TestType;
    const auto x = random_matrix<T>(8, 20, 20), w = random_matrix<T>(9, 20, 20);
    const Matrix<T> expected = evaluate(matmul(x, w)), residual = evaluate(x + matmul(x, w));
    Matrix<T> left = x;
    assign(left, matmul(left, w));
    CHECK(same_bits(left, expected));
    Matrix<T> right = w;
    assign(right, matmul(x, right));
    CHECK(same_bits(right, expected));
    Matrix<T> both = x;
    assign(both, both + matmul(both, w));
    CHECK(same_bits(both, residual));
    // In the chain only, not in the product.
    Matrix<T> sum = x;
    assign(sum, sum + matmul(x, w));
    CHECK(same_bits(sum, residual));
    // Overlapping in part.
    Matrix<T> memory(40, 20);
    std::copy_n(x.data(), x.size(), memory.data() + 10 * 20);
    const View<T, Shape<dynamic, dynamic>> source = memory.view().slice(10, 30), target = memory.view().slice(0, 20);
    assign(target, matmul(source, w) * 1.0);
    CHECK(std::equal(expected.elements().begin(), expected.elements().end(), target.data()));
    // Below a reduction.
    Matrix<T> scaled = x;
    assign(scaled, matmul(x, w) / tandem::sum<1, true>(scaled));
    CHECK(same_bits(scaled, evaluate(matmul(x, w) / tandem::sum<1, true>(x))));
}

TEST_CASE("products of expressions, and several in one chain", "[tensor]") {
    const Tensor<double, Shape<2, 3>> a{1, 2, 3, 4, 5, 6};
    const Tensor<double, Shape<3, 2>> b{1, 0, 2, 1, 0, 3};
    const auto result = evaluate(matmul(a * 2, b) + matmul(transpose(b), transpose(a)) - matmul(a, b + 1));
    // 2ab + (ab)ᵀ - ab - rowsums of a
    const double ab[2][2] = {{5, 11}, {14, 23}};
    for (std::size_t i = 0; i < 2; ++i) {
        for (std::size_t j = 0; j < 2; ++j) CHECK(result(i, j) == ab[i][j] + ab[j][i] - (i == 0 ? 6 : 15));
    }
    const auto chained = evaluate(matmul(matmul(a, b), a));
    CHECK(chained(0, 0) == 5 * 1 + 11 * 4);
    CHECK(chained(1, 2) == 14 * 3 + 23 * 6);
}

TEST_CASE("transposes, diagonals and gathered elements", "[tensor]") {
    const Tensor<float, Shape<2, 3>> x{1, 2, 3, 4, 5, 6};
    const auto turned = evaluate(transpose(x) * 10);
    CHECK(turned(2, 0) == 30);
    CHECK(turned(0, 1) == 40);
    Matrix<float> square(3, 3);
    for (std::size_t i = 0; i < 9; ++i) square.elements()[i] = static_cast<float>(i);
    const auto middle = evaluate(diagonal(square) + diagonal(square * 2));
    CHECK(middle(0) == 0);
    CHECK(middle(2) == 24);
    const Tensor<Id, Shape<2>> ids{2, 0};
    const auto picked = evaluate(gather(x, ids));
    CHECK(picked(0) == 3);
    CHECK(picked(1) == 4);
    CHECK(evaluate(gather(exp(x - x), ids))(1) == 1);
    // The mean over rows of log Σ exp(x) − x[target].
    const double expected = (std::log(std::exp(1.0) + std::exp(2.0) + std::exp(3.0)) - 3 +
                             std::log(std::exp(4.0) + std::exp(5.0) + std::exp(6.0)) - 4) /
                            2;
    CHECK(evaluate(cross_entropy(x, ids)).item() == Approx(expected));
    const Tensor<Id, Shape<3>> diagonal_ids{0, 1, 2};
    CHECK(evaluate(cross_entropy(square, diagonal)).item() ==
          Approx(evaluate(cross_entropy(square, diagonal_ids)).item()));
}

TEST_CASE("products, diagonals and ids that do not fit are errors", "[tensor]") {
    const Matrix<float> a(2, 3), b(4, 5);
    CHECK_THROWS_WITH(matmul(a, b), "matmul: expected 3 rows on the right of [2, 3], found [4, 5]");
    CHECK_THROWS_WITH(diagonal(a), "diagonal: expected a square matrix, found [2, 3]");
    const Tensor<Id, Shape<dynamic>> few{1}, negative{0, -1}, large{3, 0};
    CHECK_THROWS_WITH(gather(a, few), "gather: expected 2 ids, found 1");
    CHECK_THROWS_WITH(gather(a, negative), "gather: expected ids below 3, found -1");
    CHECK_THROWS_WITH(cross_entropy(a, large), "gather: expected ids below 3, found 3");
}

TEST_CASE("products of nothing", "[tensor]") {
    const Matrix<float> no_rows(0, 3), no_inner(2, 0), wide(0, 4), right(3, 4);
    CHECK(evaluate(matmul(no_rows, right)).size() == 0);
    Matrix<float> out(2, 4);
    out.fill(7);
    assign(out, matmul(no_inner, wide) + 1);
    for (const float value : out.elements()) CHECK(value == 1);
}

TEST_CASE("a chain around a product has the same bits on any number of threads", "[tensor]") {
    const auto a = random_matrix<float>(10, 300, 520), b = random_matrix<float>(11, 190, 520),
               bias = random_matrix<float>(12, 1, 190);
    const View<const float, Shape<dynamic>> row(bias.data(), {{190}});
    const auto once = evaluate(tanh(matmul(a, transpose(b)) + row));
    for (const std::size_t threads : {1U, 2U, 5U}) {
        const tbb::global_control control(tbb::global_control::max_allowed_parallelism, threads);
        CHECK(same_bits(evaluate(tanh(matmul(a, transpose(b)) + row)), once));
    }
    const auto some = std::as_const(a).view().slice(100, 103);
    const auto few = evaluate(tanh(matmul(some, transpose(b)) + row));
    CHECK(std::equal(few.elements().begin(), few.elements().end(), once.data() + 100 * 190));
}

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include <tbb/global_control.h>

#include <tandem/core/random.hpp>
#include <tandem/tensor/reduce.hpp>

#include "../guarded.hpp"

namespace {

using tandem::assign;
using tandem::dynamic;
using tandem::evaluate;
using tandem::log_sum_exp;
using tandem::max;
using tandem::mean;
using tandem::Random;
using tandem::Seed;
using tandem::Shape;
using tandem::sum;
using tandem::Tensor;
using tandem::View;

template <class T>
using Matrix = View<const T, Shape<dynamic, dynamic>>;

/// What a reduction of the numbers gives, in double.
using Oracle = std::function<double(const std::vector<double>&)>;

double plain_sum(const std::vector<double>& values) {
    double total = 0;
    for (const double value : values) total += value;
    return total;
}

double plain_log_sum_exp(const std::vector<double>& values) {
    double total = 0;
    for (const double value : values) total += std::exp(value);
    return std::log(total);
}

/// Reduces matrices of 1 to 65 columns in guarded memory along both axes, kept or not. A sum of 65 numbers below 4 is
/// off by at most 65 epsilon times the sum of their sizes, 260, in any order; in fact by far less.
template <class T, class Rows, class RowsKept, class Columns, class ColumnsKept>
void check_reduction(const Rows& rows_of, const RowsKept& rows_kept, const Columns& columns_of,
                     const ColumnsKept& columns_kept, const Oracle& oracle) {
    constexpr std::size_t largest = 65;
    Random random(Seed{1});
    const Guarded<T> x_memory(5 * largest), out_memory(largest);
    for (const std::size_t rows : {1U, 5U}) {
        for (std::size_t width = 1; width <= largest; ++width) {
            CAPTURE(rows, width);
            const Matrix<T> x(x_memory.random(rows * width, random, -4, 4), {{rows, width}});
            const View<T, Shape<dynamic>> by_row(out_memory.last(rows), {{rows}}),
                by_column(out_memory.last(width), {{width}});
            const View<T, Shape<dynamic, 1>> by_row_kept(out_memory.last(rows), {{rows, 1}});
            const View<T, Shape<1, dynamic>> by_column_kept(out_memory.last(width), {{1, width}});
            const auto check = [&](std::size_t count, const auto& values_of) {
                for (std::size_t i = 0; i < count; ++i) {
                    const double expected = oracle(values_of(i)), found = out_memory.last(count)[i];
                    REQUIRE(std::abs(found - expected) <=
                            64 * std::numeric_limits<T>::epsilon() * std::max(1.0, std::abs(expected)));
                }
            };
            const auto row = [&](std::size_t i) {
                return std::vector<double>(x.data() + i * width, x.data() + (i + 1) * width);
            };
            const auto column = [&](std::size_t j) {
                std::vector<double> values;
                for (std::size_t i = 0; i < rows; ++i) values.push_back(x(i, j));
                return values;
            };
            assign(by_row, rows_of(x));
            check(rows, row);
            assign(by_row_kept, rows_kept(x));
            check(rows, row);
            assign(by_column, columns_of(x));
            check(width, column);
            assign(by_column_kept, columns_kept(x));
            check(width, column);
        }
    }
}

}  // namespace

TEMPLATE_TEST_CASE("sums along each axis", "[tensor]", float, double) {
    check_reduction<TestType>([](auto x) { return sum<1>(x); }, [](auto x) { return sum<-1, true>(x); },
                              [](auto x) { return sum<0>(x); }, [](auto x) { return sum<-2, true>(x); }, plain_sum);
}

TEMPLATE_TEST_CASE("maxima along each axis", "[tensor]", float, double) {
    check_reduction<TestType>([](auto x) { return max(x); }, [](auto x) { return max<1, true>(x); },
                              [](auto x) { return max<0>(x); }, [](auto x) { return max<0, true>(x); },
                              [](const auto& x) { return *std::max_element(x.begin(), x.end()); });
}

TEMPLATE_TEST_CASE("log-sum-exp along each axis", "[tensor]", float, double) {
    check_reduction<TestType>([](auto x) { return log_sum_exp(x); }, [](auto x) { return log_sum_exp<1, true>(x); },
                              [](auto x) { return log_sum_exp<0>(x); }, [](auto x) { return log_sum_exp<0, true>(x); },
                              plain_log_sum_exp);
}

TEST_CASE("means and norms of an expression", "[tensor]") {
    const Tensor<double, Shape<2, 3>> x{1, 2, 3, 4, 5, 6};
    CHECK(evaluate(mean<1>(x * 2))(1) == Approx(10));
    CHECK(evaluate(mean<0, true>(x * 2))(0, 2) == Approx(9));
    CHECK(evaluate(mean(x)).item() == Approx(3.5));
    CHECK(evaluate(norm(x + 1))(0) == Approx(std::sqrt(29.0)));
    CHECK(evaluate(tandem::norm<0, true>(x + 1))(0, 1) == Approx(std::sqrt(45.0)));
}

TEMPLATE_TEST_CASE("softmax and normalised rows and columns", "[tensor]", float, double) {
    using T = TestType;
    Random random(Seed{2});
    const T tolerance = 64 * std::numeric_limits<T>::epsilon();
    for (const std::size_t width : {1U, 7U, 16U, 65U}) {
        Tensor<T, Shape<dynamic, dynamic>> x(3, width);
        for (T& value : x.elements()) value = static_cast<T>(random.uniform(-4, 4));
        const auto rows = evaluate(softmax(x)), columns = evaluate(tandem::softmax<0>(x));
        const auto unit_rows = evaluate(normalize(x)), unit_columns = evaluate(tandem::normalize<0>(x));
        for (std::size_t i = 0; i < 3; ++i) {
            double total = 0, row_total = 0, squares = 0;
            for (std::size_t j = 0; j < width; ++j) {
                total += std::exp(static_cast<double>(x(i, j)));
                row_total += rows(i, j);
                squares += static_cast<double>(x(i, j)) * x(i, j);
            }
            CHECK(row_total == Approx(1).epsilon(tolerance));
            for (std::size_t j = 0; j < width; ++j) {
                double column_total = 0, column_squares = 0;
                for (std::size_t k = 0; k < 3; ++k) {
                    column_total += std::exp(static_cast<double>(x(k, j)));
                    column_squares += static_cast<double>(x(k, j)) * x(k, j);
                }
                CAPTURE(width, i, j);
                REQUIRE(rows(i, j) == Approx(std::exp(static_cast<double>(x(i, j))) / total).epsilon(tolerance));
                REQUIRE(columns(i, j) ==
                        Approx(std::exp(static_cast<double>(x(i, j))) / column_total).epsilon(tolerance));
                REQUIRE(unit_rows(i, j) == Approx(x(i, j) / std::sqrt(squares)).epsilon(tolerance));
                REQUIRE(unit_columns(i, j) == Approx(x(i, j) / std::sqrt(column_squares)).epsilon(tolerance));
            }
        }
    }
    const Tensor<T, Shape<2, 3>> zero;
    const auto normalised = evaluate(normalize(zero));
    for (const T value : normalised.elements()) CHECK(value == 0);
}

TEMPLATE_TEST_CASE("log-sum-exp and softmax of large and infinite values", "[tensor]", float, double) {
    using T = TestType;
    const T infinity = std::numeric_limits<T>::infinity(), huge = static_cast<T>(1e30);
    const Tensor<T, Shape<5, 2>> x{huge, huge, -huge, -huge, 1000, -1000, -infinity, 0, -infinity, -infinity};
    const auto rows = evaluate(log_sum_exp(x));
    CHECK(rows(0) == huge);
    CHECK(rows(1) == -huge);
    CHECK(rows(2) == 1000);
    CHECK(rows(3) == 0);
    CHECK(rows(4) == -infinity);
    const auto columns = evaluate(log_sum_exp<0>(x));
    CHECK(columns(0) == huge);
    const auto weights = evaluate(softmax(x));
    CHECK(weights(2, 0) == 1);
    CHECK(weights(2, 1) == 0);
    CHECK(weights(3, 0) == 0);
    // The weights are exp(x - log Σ exp(x)): right up to the rounding of that difference.
    const Tensor<T, Shape<2, 2>> equal{1000, 1000, -1000, -1000};
    const auto halves = evaluate(softmax(equal));
    for (const T value : halves.elements())
        CHECK(value == Approx(0.5).epsilon(1000 * std::numeric_limits<T>::epsilon()));
    const Tensor<T, Shape<20>> far = [] {
        Tensor<T, Shape<20>> values;
        values.fill(-3000);
        values(19) = -2999;
        return values;
    }();
    CHECK(evaluate(log_sum_exp(far)).item() == Approx(-2999 + std::log(1 + 19 * std::exp(-1.0))));
    CHECK(evaluate(max(far)).item() == -2999);
}

TEST_CASE("reductions of three axes and of everything", "[tensor]") {
    Tensor<double, Shape<dynamic, 3, dynamic>> x(4, 21);
    Random random(Seed{3});
    for (double& value : x.elements()) value = random.uniform(-1, 1);
    const auto middle = evaluate(sum<1>(x));
    const auto first = evaluate(max<0>(x));
    const auto last = evaluate(log_sum_exp<2, true>(x));
    static_assert(std::is_same_v<decltype(middle)::shape, Shape<dynamic, dynamic>>);
    static_assert(std::is_same_v<decltype(last)::shape, Shape<dynamic, 3, 1>>);
    double total = 0;
    for (const double value : x.elements()) total += value;
    CHECK(evaluate(sum(x)).item() == Approx(total));
    CHECK(evaluate(mean(x)).item() == Approx(total / 252));
    for (std::size_t i = 0; i < 4; ++i) {
        for (std::size_t k = 0; k < 21; ++k) CHECK(middle(i, k) == Approx(x(i, 0, k) + x(i, 1, k) + x(i, 2, k)));
    }
    for (std::size_t j = 0; j < 3; ++j) {
        for (std::size_t k = 0; k < 21; ++k) {
            CHECK(first(j, k) == std::max({x(0, j, k), x(1, j, k), x(2, j, k), x(3, j, k)}));
        }
        double exponentials = 0;
        for (std::size_t k = 0; k < 21; ++k) exponentials += std::exp(x(3, j, k));
        CHECK(last(3, j, 0) == Approx(std::log(exponentials)));
    }
    const Tensor<double, Shape<>> scalar;
    CHECK(evaluate(sum(scalar)).item() == 0);
}

TEST_CASE("reductions of nothing", "[tensor]") {
    const Tensor<float, Shape<dynamic, 3>> no_rows;
    const Tensor<float, Shape<3, dynamic>> no_columns;
    CHECK(evaluate(sum<1>(no_rows)).size() == 0);
    const auto columns = evaluate(sum<0>(no_rows));
    CHECK(columns.size() == 3);
    for (const float value : columns.elements()) CHECK(value == 0);
    const auto rows = evaluate(sum<1>(no_columns));
    for (const float value : rows.elements()) CHECK(value == 0);
    CHECK(evaluate(sum(no_rows)).item() == 0);
    CHECK(evaluate(log_sum_exp<1>(no_columns))(0) == -std::numeric_limits<float>::infinity());
}

TEST_CASE("reductions have the same bits on any number of threads and in any batch", "[tensor]") {
    Tensor<float, Shape<dynamic, dynamic>> x(700, 333);
    Random random(Seed{4});
    for (float& value : x.elements()) value = static_cast<float>(random.uniform(-1, 1));
    const auto rows = evaluate(log_sum_exp<1>(x * 3)), columns = evaluate(sum<0>(x * x));
    const auto all = evaluate(sum(exp(x)));
    for (const std::size_t threads : {1U, 2U, 5U}) {
        const tbb::global_control control(tbb::global_control::max_allowed_parallelism, threads);
        const auto again = evaluate(log_sum_exp<1>(x * 3)), columns_again = evaluate(sum<0>(x * x));
        CHECK(std::equal(rows.elements().begin(), rows.elements().end(), again.elements().begin()));
        CHECK(std::equal(columns.elements().begin(), columns.elements().end(), columns_again.elements().begin()));
        CHECK(evaluate(sum(exp(x))).item() == all.item());
    }
    const View<const float, Shape<dynamic, dynamic>> view = std::as_const(x).view();
    CHECK(evaluate(log_sum_exp<1>(view.slice(500, 503) * 3))(1) == rows(501));
}

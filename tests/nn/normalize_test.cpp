// Rows of length 1: the written-out form against the expression, and its gradient against central differences.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <vector>

#include <tandem/core/random.hpp>
#include <tandem/nn/normalize.hpp>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/reduce.hpp>

namespace td = tandem;

namespace {

constexpr std::size_t rows = 5, width = 7;
using Matrix = td::Tensor<double, td::Shape<rows, width>>;

/// The last row but one is zero, the last shorter than 1e-12.
Matrix some_rows() {
    td::Random random{td::Seed{3}};
    Matrix x;
    for (double& value : x.elements()) value = random.normal();
    for (std::size_t j = 0; j < width; ++j) {
        x(rows - 2, j) = 0;
        x(rows - 1, j) *= 1e-13;
    }
    return x;
}

}  // namespace

TEST_CASE("normalize_rows is normalize()") {
    const Matrix x = some_rows(), expected = td::evaluate(td::normalize(x));
    Matrix y = x;
    std::vector<double> lengths(rows);
    td::nn::normalize_rows(rows, width, y.data(), lengths.data());
    for (std::size_t i = 0; i < y.size(); ++i) CHECK(y.data()[i] == Approx(expected.data()[i]).epsilon(1e-14));
    CHECK(lengths[rows - 2] == 1e-12);
    CHECK(lengths[rows - 1] == 1e-12);
    Matrix without_lengths = x;
    td::nn::normalize_rows<double>(rows, width, without_lengths.data(), nullptr);
    CHECK(std::equal(y.data(), y.data() + y.size(), without_lengths.data()));
}

TEST_CASE("normalize_rows' gradient against central differences") {
    const Matrix x = some_rows();
    Matrix y = x, g;
    std::vector<double> lengths(rows);
    td::nn::normalize_rows(rows, width, y.data(), lengths.data());
    td::Random random{td::Seed{4}};
    for (double& value : g.elements()) value = random.normal();
    const Matrix dy = g;
    td::nn::normalize_rows_backward(rows, width, y.data(), lengths.data(), g.data());
    const auto loss = [&](std::size_t at, double value) {
        Matrix moved = x;
        moved.data()[at] = value;
        td::nn::normalize_rows<double>(rows, width, moved.data(), nullptr);
        double sum = 0;
        for (std::size_t i = 0; i < moved.size(); ++i) sum += moved.data()[i] * dy.data()[i];
        return sum;
    };
    for (std::size_t i = 0; i < x.size(); ++i) {
        // Below 1e-12, where the length stays what it is, the function is linear.
        const double h = i < (rows - 2) * width ? 1e-6 : 1e-14;
        const double numeric = (loss(i, x.data()[i] + h) - loss(i, x.data()[i] - h)) / (2 * h);
        CAPTURE(i);
        CHECK(g.data()[i] == Approx(numeric).epsilon(1e-7).margin(1e-8));
    }
}

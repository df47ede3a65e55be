// Dense layers in every arithmetic that trains, forward and backward, against sums in double over the operands as they
// were rounded.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include <tbb/global_control.h>

#include <tandem/core/random.hpp>
#include <tandem/kernels/dense.hpp>
#include <tandem/tensor/packed.hpp>

#include "../guarded.hpp"

namespace kernels = tandem::kernels;
using tandem::Random;
using tandem::Seed;

namespace {

/// An operand as the products of T see it.
template <class T, class C>
double rounded(C value) {
    if (std::is_same_v<T, tandem::amp_bf16> && kernels::multiplies_pairs<T>()) {
        return static_cast<float>(tandem::bfloat16(static_cast<float>(value)));
    }
    return static_cast<double>(value);
}

/// The largest difference to Σ_k left(i, k) · right(k, j) + before(i, j), in units of what float sums may be off by.
template <class T, class Left, class Right, class Before, class Found>
void check_product(std::size_t rows, std::size_t columns, std::size_t depth, const Left& left, const Right& right,
                   const Before& before, const Found& found) {
    using C = tandem::Compute<T>;
    for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j < columns; ++j) {
            double sum = before(i, j);
            for (std::size_t k = 0; k < depth; ++k) sum += rounded<T>(left(i, k)) * rounded<T>(right(k, j));
            const double tolerance = static_cast<double>(depth + 2) * std::numeric_limits<C>::epsilon();
            REQUIRE(std::abs(static_cast<double>(found(i, j)) - sum) <= tolerance);
        }
    }
}

}  // namespace

TEMPLATE_TEST_CASE("dense layers and their gradients against the definition", "[kernels]", float, double,
                   tandem::amp_bf16) {
    using T = TestType;
    using C = tandem::Compute<T>;
    struct Size {
        std::size_t m, out, in;
    };
    std::vector<Size> sizes{{50, 96, 64}, {33, 70, 2100}, {1100, 40, 24}, {2, 65, 130}};
    for (std::size_t n = 1; n <= 65; ++n) sizes.insert(sizes.end(), {{n, 17, 9}, {5, n, 33}, {7, 12, n}, {n, n, n}});
    Random random(Seed{11});
    for (const auto& [m, out, in] : sizes) {
        CAPTURE(m, out, in);
        const kernels::PanelLayout layout = kernels::weight_layout<T>();
        // Rows are longer than what is read and written; the last one ends with it.
        const std::size_t x_row = in + 3, y_row = out + 5, x_size = (m - 1) * x_row + in,
                          y_size = (m - 1) * y_row + out;
        const Guarded<C> x_memory(x_size), y_memory(y_size), dy_memory(y_size), dx_memory(x_size),
            weight_memory(out * in), packed_memory(layout.size(in, out)), dweight_memory(layout.size(in, out));
        const C* const x = x_memory.random(x_size, random);
        const C* const dy = dy_memory.random(y_size, random);
        const C* const weight = weight_memory.random(out * in, random);
        C* const packed = packed_memory.last(layout.size(in, out));
        kernels::pack_weight<T>(out, in, weight, packed);

        C* const y = y_memory.random(y_size, random);
        const std::vector<C> y_before(y, y + y_size);
        kernels::dense<T>(m, out, in, {x, x_row}, packed, {y, y_row}, {});
        const auto nothing = [](std::size_t, std::size_t) { return 0.0; };
        check_product<T>(
            m, out, in, [&](std::size_t i, std::size_t k) { return x[i * x_row + k]; },
            [&, n = in](std::size_t k, std::size_t j) { return weight[j * n + k]; }, nothing,
            [&](std::size_t i, std::size_t j) { return y[i * y_row + j]; });
        for (std::size_t i = 0; i < y_size; ++i) {
            if (i % y_row >= out) REQUIRE(y[i] == y_before[i]);
        }

        // Added to what stands in dweight; dx is set.
        C* const dweight = dweight_memory.random(layout.size(in, out), random);
        const std::vector<C> before(dweight, dweight + layout.size(in, out));
        C* const dx = dx_memory.random(x_size, random);
        kernels::dense_backward<T>(m, out, in, {x, x_row}, packed, {dy, y_row}, {dx, x_row}, dweight);
        const auto at = [&, n = in](std::size_t row, std::size_t column) { return layout.position(column, row, n); };
        check_product<T>(
            out, in, m, [&](std::size_t i, std::size_t k) { return dy[k * y_row + i]; },
            [&](std::size_t k, std::size_t j) { return x[k * x_row + j]; },
            [&](std::size_t i, std::size_t j) { return static_cast<double>(before[at(i, j)]); },
            [&](std::size_t i, std::size_t j) { return dweight[at(i, j)]; });
        check_product<T>(
            m, in, out, [&](std::size_t i, std::size_t k) { return dy[i * y_row + k]; },
            [&, n = in](std::size_t k, std::size_t j) { return weight[k * n + j]; }, nothing,
            [&](std::size_t i, std::size_t j) { return dx[i * x_row + j]; });

        // Without dx, the weight's gradient is the same.
        std::vector<C> alone = before;
        kernels::dense_backward<T>(m, out, in, {x, x_row}, packed, {dy, y_row}, {nullptr, 0}, alone.data());
        REQUIRE(std::equal(alone.begin(), alone.end(), dweight));
    }
}

TEST_CASE("panels of pairs are as wide as those of floats", "[kernels]") {
    // What amp_bf16 rounds its weights into, on the instruction sets that have pairs.
    const kernels::ReducedKernels& reduced = kernels::active_reduced();
    CHECK(reduced.pairs.group == 2);
    if (reduced.pairs.multiply != nullptr) CHECK(reduced.pairs.columns == kernels::active<float>().tile.columns);
}

namespace {

/// dense() of a model that only infers, between rows of either element.
template <class T, class X, class Y>
void multiply(std::size_t m, const tandem::PackedWeight<T>& weight, const X* x, std::size_t x_row, Y* y, std::size_t y_row,
              const kernels::Finish<float>& finish) {
    weight.template product<X, Y>(m, {x, x_row}, {y, y_row}, finish);
}

}  // namespace

TEMPLATE_TEST_CASE("dense layers between rows of bfloat16", "[kernels]", tandem::bfloat16, tandem::int8) {
    using T = TestType;
    using tandem::bfloat16;
    if (!kernels::passes_narrow<T>()) return;
    struct Size {
        std::size_t m, out, in;
    };
    std::vector<Size> sizes{{50, 96, 64}, {300, 70, 130}, {520, 40, 24}, {33, 64, kernels::narrow_depth}};
    for (std::size_t n = 1; n <= 65; ++n) sizes.insert(sizes.end(), {{n, 17, 9}, {5, n, 33}, {7, 12, n}, {n, n, n}});
    Random random(Seed{21});
    for (const auto& [m, out, in] : sizes) {
        CAPTURE(m, out, in);
        using Weight = typename tandem::PackedWeight<T>::element;
        std::vector<Weight> values(out * in);
        for (Weight& value : values) value = static_cast<float>(random.uniform(-1, 1));
        tandem::PackedWeight<T> weight(out, in);
        weight.pack(values.data());
        const std::size_t x_row = in + 3, y_row = out + 5, x_size = (m - 1) * x_row + in, y_size = (m - 1) * y_row + out;
        const Guarded<bfloat16> x_memory(x_size), y_memory(y_size);
        const Guarded<float> bias_memory(out), residual_memory(y_size), wide_memory(y_size);
        const bfloat16* const x = x_memory.random(x_size, random);
        const std::vector<float> same(x, x + x_size);
        bfloat16* const y = y_memory.random(y_size, random);
        float* const wide = wide_memory.random(y_size, random);
        const std::vector<bfloat16> before(y, y + y_size);
        kernels::Finish<float> finish{.bias = bias_memory.random(out, random), .activation = kernels::Activation::relu};
        multiply(m, weight, x, x_row, y, y_row, finish);
        finish.residual = residual_memory.random(y_size, random);
        finish.residual_stride = y_row;
        multiply(m, weight, x, x_row, wide, y_row, finish);
        // Rows of floats that hold the same numbers have the same products to the bit.
        std::vector<float> expected(y_size);
        multiply(m, weight, same.data(), x_row, expected.data(), y_row, {.bias = finish.bias, .activation = finish.activation});
        for (std::size_t i = 0; i < y_size; ++i) {
            if (i % y_row >= out) {
                REQUIRE(y[i].bits() == before[i].bits());
                continue;
            }
            REQUIRE(y[i].bits() == bfloat16(expected[i]).bits());
            REQUIRE(wide[i] == expected[i] + finish.residual[i]);
        }
    }
}

TEMPLATE_TEST_CASE("a row of a dense layer has the same bits whatever surrounds it", "[kernels]", tandem::bfloat16, tandem::int8,
                   tandem::amp_bf16) {
    using T = TestType;
    constexpr std::size_t m = 531, in = 1700, out = 75;
    using Weight = typename tandem::PackedWeight<T>::element;
    Random random(Seed{22});
    std::vector<Weight> values(out * in);
    for (Weight& value : values) value = static_cast<float>(random.uniform(-1, 1));
    tandem::PackedWeight<T> weight(out, in);
    weight.pack(values.data());
    std::vector<float> x(m * in), whole(m * out);
    for (float& value : x) value = static_cast<float>(random.uniform(-1, 1));
    weight.template product<float, float>(m, {x.data(), in}, {whole.data(), out}, {});
    const auto check = [&](std::size_t first, std::size_t rows) {
        CAPTURE(first, rows);
        std::vector<float> part(rows * out);
        weight.template product<float, float>(rows, {x.data() + first * in, in}, {part.data(), out}, {});
        REQUIRE(std::memcmp(part.data(), whole.data() + first * out, part.size() * sizeof(float)) == 0);
    };
    for (const std::size_t rows : {1U, 2U, 15U, 16U, 17U, 33U, 50U, 200U, 300U}) {
        for (std::size_t first = 0; first + rows <= m; first += 77) check(first, rows);
    }
    for (const std::size_t threads : {1U, 2U, 5U}) {
        const tbb::global_control control(tbb::global_control::max_allowed_parallelism, threads);
        check(0, m);
    }
}

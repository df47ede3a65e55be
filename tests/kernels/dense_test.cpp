// Dense layers in every arithmetic that trains, forward and backward, against sums in double over the operands as they
// were rounded.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

#include <tandem/core/random.hpp>
#include <tandem/kernels/dense.hpp>

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

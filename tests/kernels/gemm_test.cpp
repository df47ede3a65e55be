#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include <tbb/global_control.h>
#include <tbb/task_arena.h>

#include <tandem/core/parallel.hpp>
#include <tandem/core/random.hpp>
#include <tandem/kernels/gemm.hpp>

#include "../guarded.hpp"
#include "isas.hpp"

namespace {

using tandem::Random;
using tandem::Seed;
using tandem::kernels::gemm;
using tandem::kernels::Operand;

/// A rows x columns operand whose last element is the last one before a protected page. A transposed one stands in
/// memory as columns x rows.
template <class T>
Operand<T> make_operand(const Guarded<T>& memory, std::size_t rows, std::size_t columns, std::size_t stride,
                        bool transposed, Random& random) {
    const std::size_t lines = transposed ? columns : rows, width = transposed ? rows : columns;
    const T* const data = memory.random((lines - 1) * stride + width, random);
    return transposed ? Operand<T>{data, 1, stride} : Operand<T>{data, stride, 1};
}

template <class T>
double element(const Operand<T>& matrix, std::size_t i, std::size_t j) {
    return static_cast<double>(matrix.data[i * matrix.row_stride + j * matrix.column_stride]);
}

/// The memory of one product, all of it guarded.
template <class T, class A = T, class B = T>
struct Product {
    static constexpr T untouched = static_cast<T>(123.5);

    explicit Product(std::size_t capacity) : a_memory(capacity), b_memory(capacity), c_memory(capacity) {}

    /// Computes one product and compares it with a plain loop in double: |error| <= (k + 2) · epsilon · Σ |a| |b|, the
    /// bound of a sum of k products in any order (Higham 2002, section 3.1), the +2 for the sum that is added to.
    void check(std::size_t m, std::size_t n, std::size_t k, std::size_t a_stride, bool a_transposed,
               std::size_t b_stride, bool b_transposed, std::size_t c_stride, bool accumulate) {
        const Operand<A> a = make_operand(a_memory, m, k, a_stride, a_transposed, random);
        const Operand<B> b = make_operand(b_memory, k, n, b_stride, b_transposed, random);
        const std::size_t size = (m - 1) * c_stride + n;
        T* const c = c_memory.last(size);
        std::fill_n(c, size, untouched);
        for (std::size_t i = 0; i < m; ++i) {
            for (std::size_t j = 0; j < n; ++j) c[i * c_stride + j] = static_cast<T>(random.uniform(-1, 1));
        }
        const std::vector<T> before(c, c + size);
        gemm<T>(m, n, k, a, b, c, c_stride, accumulate);
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < m; ++i) {
            for (std::size_t j = 0; j < c_stride && i * c_stride + j < size; ++j) {
                const double found = c[i * c_stride + j];
                if (j >= n) {
                    wrong += found != untouched;
                    continue;
                }
                double sum = accumulate ? before[i * c_stride + j] : 0, magnitude = std::abs(sum);
                for (std::size_t l = 0; l < k; ++l) {
                    sum += element(a, i, l) * element(b, l, j);
                    magnitude += std::abs(element(a, i, l) * element(b, l, j));
                }
                const double bound = static_cast<double>(k + 2) * std::numeric_limits<T>::epsilon() * magnitude;
                wrong += !(std::abs(found - sum) <= bound);
            }
        }
        CAPTURE(m, n, k, a_stride, a_transposed, b_stride, b_transposed, c_stride, accumulate);
        REQUIRE(wrong == 0);
    }

    void check(std::size_t m, std::size_t n, std::size_t k, bool a_transposed, bool b_transposed, bool accumulate) {
        check(m, n, k, a_transposed ? m : k, a_transposed, b_transposed ? k : n, b_transposed, n, accumulate);
    }

    Guarded<A> a_memory;
    Guarded<B> b_memory;
    Guarded<T> c_memory;
    Random random{Seed{7}};
};

/// Around the tiles of SSE (6 x 8, 6 x 4), AVX2 (6 x 16, 6 x 8), AVX-512 (14 x 32, 14 x 16) and the scalar 4 x 4.
constexpr std::size_t sizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 14, 15, 16, 17, 28, 31, 32, 33, 64, 65};

}  // namespace

TEMPLATE_TEST_CASE("gemm of all tails, orders and both modes", "[kernels]", float, double) {
    Product<TestType> product(65 * 65);
    std::size_t variant = 0;
    for (const std::size_t m : sizes) {
        for (const std::size_t n : sizes) {
            // k only counts loop rounds: two values for every pair of tails, the modes in turn.
            for (const std::size_t k : {std::size_t{1} + variant % 5, std::size_t{17} + variant % 49}) {
                product.check(m, n, k, (variant & 1) != 0, (variant & 2) != 0, (variant & 4) != 0);
                variant += 3;
            }
        }
    }
    for (std::size_t size = 1; size <= 65; ++size) {
        for (unsigned mode = 0; mode < 8; ++mode) {
            product.check(size, 33, 5, (mode & 1) != 0, (mode & 2) != 0, (mode & 4) != 0);
            product.check(15, size, 5, (mode & 1) != 0, (mode & 2) != 0, (mode & 4) != 0);
            product.check(15, 33, size, (mode & 1) != 0, (mode & 2) != 0, (mode & 4) != 0);
        }
    }
}

TEMPLATE_TEST_CASE("gemm of several blocks in every direction", "[kernels]", float, double) {
    Product<TestType> product(1030 * 250);
    for (unsigned mode = 0; mode < 8; ++mode) {
        product.check(250, 70, 1027, (mode & 1) != 0, (mode & 2) != 0, (mode & 4) != 0);
        product.check(3, 100, 2049, (mode & 1) != 0, (mode & 2) != 0, (mode & 4) != 0);
    }
}

TEMPLATE_TEST_CASE("products that are added up have the bits of one, however the depth is cut", "[kernels]", float, double) {
    using T = TestType;
    Random random(Seed{14});
    const auto check = [&](std::size_t m, std::size_t n, std::size_t k, const std::vector<std::size_t>& cuts) {
        CAPTURE(m, n, k);
        std::vector<T> a(k * m), b(k * n), c(m * n);
        for (std::vector<T>* values : {&a, &b, &c}) {
            for (T& value : *values) value = static_cast<T>(random.uniform(-1, 1));
        }
        std::vector<T> whole = c;
        // As a weight's gradient: rows of both operands are the depth.
        const auto add = [&](std::vector<T>& to, std::size_t first, std::size_t last) {
            gemm<T>(m, n, last - first, tandem::kernels::row_major(a.data() + first * m, m).transposed(),
                    tandem::kernels::row_major(b.data() + first * n, n), to.data(), n, true);
        };
        add(whole, 0, k);
        std::size_t first = 0;
        for (const std::size_t cut : cuts) add(c, std::exchange(first, cut), cut);
        add(c, first, k);
        CHECK(std::memcmp(whole.data(), c.data(), c.size() * sizeof(T)) == 0);
    };
    for (const std::size_t size : sizes) {
        check(size, 33, 40, {1, 2, 17});
        check(15, size, 40, {13});
        check(32, size, size + 2, {size});
    }
    check(70, 64, 2100, {5, 1024, 1030, 2048});
}

TEST_CASE("the left operand of a deep product is packed a part at a time", "[kernels]") {
    constexpr std::size_t m = 100, k = 45003;
    static_assert(m * k * sizeof(float) > tandem::kernels::detail::shared_bytes);
    Product<float>(m * k).check(m, 40, k, true, false, true);
}

TEMPLATE_TEST_CASE("gemm reads padded rows, in place and packed, and writes nothing between rows", "[kernels]", float,
                   double) {
    // Rows 4096 bytes apart are packed, others of the same kind read in place.
    constexpr std::size_t page = 4096 / sizeof(TestType);
    Product<TestType> product(65 * (page + 1));
    for (const std::size_t a_stride : {std::size_t{70}, page, page + 1, page / 2}) {
        for (const std::size_t m : {1U, 6U, 13U, 14U, 29U, 65U}) {
            product.check(m, 37, 65, a_stride, false, 40, false, 41, false);
            product.check(m, 37, 65, a_stride, false, page, true, page, true);
            product.check(m, 37, 65, a_stride, true, page, false, 38, true);
        }
    }
}

TEST_CASE("gemm widens bfloat16 operands", "[kernels]") {
    using tandem::bfloat16;
    Product<float, float, bfloat16> weights(300 * 70);
    Product<float, bfloat16, float> inputs(300 * 70);
    Product<float, bfloat16, bfloat16> both(300 * 70);
    for (const std::size_t m : {1U, 5U, 6U, 13U, 14U, 30U}) {
        for (const std::size_t n : {1U, 7U, 31U, 32U, 33U}) {
            for (const std::size_t k : {1U, 16U, 65U, 300U}) {
                for (const bool transposed : {false, true}) {
                    weights.check(m, n, k, transposed, !transposed, false);
                    inputs.check(m, n, k, transposed, transposed, true);
                    both.check(m, n, k, transposed, !transposed, true);
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("gemm of no terms, rows or columns", "[kernels]", float, double) {
    std::vector<TestType> c(6, 5);
    const Operand<TestType> nothing{nullptr, 1, 1};
    std::size_t calls = 0;
    const auto count_calls = [&](std::size_t, std::size_t last_row, std::size_t, std::size_t last) {
        calls += last_row * last;
    };
    gemm<TestType>(0, 3, 4, nothing, nothing, c.data(), 3, false, count_calls);
    gemm<TestType>(2, 0, 4, nothing, nothing, c.data(), 3, false, count_calls);
    CHECK(calls == 0);
    gemm<TestType>(2, 3, 0, nothing, nothing, c.data(), 3, true, count_calls);
    CHECK(c == std::vector<TestType>(6, 5));
    gemm<TestType>(2, 3, 0, nothing, nothing, c.data(), 3, false, count_calls);
    CHECK(c == std::vector<TestType>(6, 0));
    CHECK(calls == 12);
}

TEMPLATE_TEST_CASE("gemm calls the epilogue once for every finished element", "[kernels]", float, double) {
    using T = TestType;
    Random random(Seed{8});
    const auto check = [&](std::size_t m, std::size_t n, std::size_t k) {
        CAPTURE(m, n, k);
        std::vector<T> a(m * k), b(k * n), c(m * n), seen(m * n);
        for (T& value : a) value = static_cast<T>(random.uniform(-1, 1));
        for (T& value : b) value = static_cast<T>(random.uniform(-1, 1));
        std::vector<std::atomic<int>> calls(m * n);
        gemm<T>(m, n, k, tandem::kernels::row_major(a.data(), k), tandem::kernels::row_major(b.data(), n), c.data(), n, false,
                [&](std::size_t row, std::size_t last_row, std::size_t first, std::size_t last) {
                    for (; row < last_row; ++row) {
                        for (std::size_t j = first; j < last; ++j) {
                            ++calls[row * n + j];
                            seen[row * n + j] = c[row * n + j];
                        }
                    }
                });
        CHECK(std::all_of(calls.begin(), calls.end(), [](const auto& count) { return count == 1; }));
        CHECK(seen == c);
    };
    for (const std::size_t m : {1U, 5U, 14U, 65U, 300U, 1000U}) {
        for (const std::size_t n : {1U, 33U, 300U}) {
            for (const std::size_t k : {1U, 300U}) check(m, n, k);
        }
    }
    // Rows of whole pages are packed; so deep, in parts.
    check(65, 100, (std::size_t{1} << 18) / sizeof(T));
}

TEMPLATE_TEST_CASE("a row of gemm has the same bits whatever surrounds it", "[kernels]", float, double) {
    using T = TestType;
    constexpr std::size_t m = 131, n = 71, k = 1100;
    const auto a_transposed = GENERATE(false, true);
    CAPTURE(a_transposed);
    Random random(Seed{9});
    std::vector<T> a(m * k), b(k * n), whole(m * n);
    for (T& value : a) value = static_cast<T>(random.uniform(-1, 1));
    for (T& value : b) value = static_cast<T>(random.uniform(-1, 1));
    const Operand<T> left = a_transposed ? Operand<T>{a.data(), 1, m} : Operand<T>{a.data(), k, 1};
    const Operand<T> right{b.data(), n, 1};
    const auto start_row = [&](std::size_t row) {
        return Operand<T>{left.data + row * left.row_stride, left.row_stride, left.column_stride};
    };
    const auto same_rows = [&](const std::vector<T>& part, std::size_t first) {
        return std::memcmp(part.data(), whole.data() + first * n, part.size() * sizeof(T)) == 0;
    };
    gemm<T>(m, n, k, left, right, whole.data(), n);

    SECTION("alone, or with few others") {
        for (const std::size_t rows : {1U, 2U, 5U, 6U, 13U, 14U, 15U, 40U}) {
            for (std::size_t first = 0; first + rows <= m; first += 9) {
                std::vector<T> part(rows * n);
                gemm<T>(rows, n, k, start_row(first), right, part.data(), n);
                CAPTURE(rows, first);
                REQUIRE(same_rows(part, first));
            }
        }
    }
    SECTION("read in place, packed for its stride, or transposed") {
        std::vector<T> padded(m * 2048, T{7}), part(m * n);
        for (const std::size_t stride : {std::size_t{2048}, std::size_t{1101}}) {
            for (std::size_t i = 0; i < m; ++i) {
                for (std::size_t l = 0; l < k; ++l) {
                    padded[i * stride + l] = a[i * left.row_stride + l * left.column_stride];
                }
            }
            gemm<T>(m, n, k, Operand<T>{padded.data(), stride, 1}, right, part.data(), n);
            CHECK(same_rows(part, 0));
        }
    }
    SECTION("beside rows of infinities and NaNs") {
        std::vector<T> dirty(a);
        for (std::size_t l = 0; l < k; ++l) {
            dirty[3 * left.row_stride + l * left.column_stride] = std::numeric_limits<T>::infinity();
            dirty[20 * left.row_stride + l * left.column_stride] = std::numeric_limits<T>::quiet_NaN();
        }
        std::vector<T> result(m * n);
        gemm<T>(m, n, k, Operand<T>{dirty.data(), left.row_stride, left.column_stride}, right, result.data(), n);
        for (std::size_t i = 0; i < m; ++i) {
            const bool same = std::memcmp(result.data() + i * n, whole.data() + i * n, n * sizeof(T)) == 0;
            CHECK(same == (i != 3 && i != 20));
        }
    }
    SECTION("on any number of threads") {
        for (const std::size_t threads : {1U, 2U, 5U}) {
            const tbb::global_control control(tbb::global_control::max_allowed_parallelism, threads);
            std::vector<T> result(m * n), serial(m * n);
            gemm<T>(m, n, k, left, right, result.data(), n);
            CHECK(same_rows(result, 0));
            tandem::kernels::gemm_serial<T>(m, n, k, left, right, serial.data(), n);
            CHECK(same_rows(serial, 0));
        }
    }
    SECTION("accumulated, where blocks of the depth are one sum") {
        std::vector<T> result(m * n), serial(m * n), part(m * n);
        gemm<T>(m, n, k, left, right, result.data(), n, true);
        tandem::kernels::gemm_serial<T>(m, n, k, left, right, serial.data(), n, true);
        CHECK(result == serial);
        constexpr std::size_t block = tandem::kernels::gemm_depth;
        static_assert(k > block);
        gemm<T>(m, n, block, left, right, part.data(), n);
        gemm<T>(m, n, k - block, left.from(0, block), right.from(block, 0), part.data(), n, true);
        CHECK(result == part);
        std::vector<T> few((m - 5) * n);
        gemm<T>(m - 5, n, k, left.from(5, 0), right, few.data(), n, true);
        CHECK(std::memcmp(few.data(), result.data() + 5 * n, few.size() * sizeof(T)) == 0);
    }
}

TEST_CASE("products inside a parallel loop do not disturb one another's memory", "[kernels]") {
    // A thread that waits for the pieces of its product must not begin another product, which would overwrite the
    // operand packed in thread-local memory. More threads than cores make such waits likely.
    const tbb::global_control control(tbb::global_control::max_allowed_parallelism, 6);
    tbb::task_arena arena(6);
    Random random(Seed{12});
    constexpr std::size_t m = 90, n = 40, k = 70, products = 200;
    std::vector<float> a(m * k), b((k + products) * n), c(products * m * n), expected(m * n);
    for (float& value : a) value = static_cast<float>(random.uniform(-1, 1));
    for (float& value : b) value = static_cast<float>(random.uniform(-1, 1));
    const Operand<float> left{a.data(), k, 1};
    arena.execute([&] {
        tandem::parallel_for(products, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                gemm<float>(m, n, k, left, Operand<float>{b.data() + i * n, n, 1}, c.data() + i * m * n, n, false,
                            [](auto...) { std::this_thread::yield(); });
            }
        });
    });
    for (std::size_t i = 0; i < products; ++i) {
        tandem::kernels::gemm_serial<float>(m, n, k, left, Operand<float>{b.data() + i * n, n, 1}, expected.data(), n);
        CAPTURE(i);
        REQUIRE(std::memcmp(expected.data(), c.data() + i * m * n, m * n * sizeof(float)) == 0);
    }
}

TEMPLATE_TEST_CASE("gemm_serial of all tails", "[kernels]", float, double) {
    using T = TestType;
    Random random(Seed{10});
    const Guarded<T> a_memory(300 * 65), b_memory(300 * 65), c_memory(65 * 65);
    for (const std::size_t m : sizes) {
        for (const std::size_t n : {1U, 7U, 16U, 33U, 65U}) {
            for (const std::size_t k : {1U, 19U, 300U}) {
                const Operand<T> a = make_operand(a_memory, m, k, k, false, random);
                const Operand<T> b = make_operand(b_memory, k, n, k, true, random);
                T* const c = c_memory.random(m * n, random);
                std::vector<T> expected(c, c + m * n);
                for (const bool accumulate : {false, true}) {
                    gemm<T>(m, n, k, a, b, expected.data(), n, accumulate);
                    tandem::kernels::gemm_serial<T>(m, n, k, a, b, c, n, accumulate);
                    CAPTURE(m, n, k, accumulate);
                    REQUIRE(std::memcmp(expected.data(), c, m * n * sizeof(T)) == 0);
                }
            }
        }
    }
}

namespace {

/// Tiles of every height and many depths against the definition, all memory guarded.
template <class A, class B, class Sum>
void check_tile(const tandem::kernels::TileKernel<A, B, Sum>& tile, double tolerance, double low, double high) {
    Random random(Seed{11});
    const Guarded<A> a_memory(tile.rows * 70 * tile.group);
    const Guarded<B> b_memory(65 * tile.columns * tile.group);
    const Guarded<Sum> out_memory(tile.rows * tile.columns);
    for (std::size_t rows = 1; rows <= tile.rows; rows = rows == 65 ? tile.rows : rows + 1) {
        for (std::size_t groups = 1; groups <= 65; groups += rows == tile.rows ? 1 : 9) {
            for (const bool packed : {false, true}) {
                if (packed && tile.group > 1) continue;
                CAPTURE(rows, groups, packed);
                const std::size_t a_row = packed ? tile.group : (groups + 5) * tile.group;
                const std::size_t a_group = packed ? rows * tile.group : tile.group;
                const std::size_t size = (rows - 1) * a_row + (groups - 1) * a_group + tile.group;
                const A* const a =
                    a_memory.random(size, random, std::is_unsigned_v<A> ? 0 : low, std::is_unsigned_v<A> ? 255 : high);
                const B* const b = b_memory.random(groups * tile.columns * tile.group, random, low, high);
                Sum* const out = out_memory.last(rows * tile.columns);
                tile.multiply(rows, groups, a, a_row, a_group, b, out, b, false);
                for (std::size_t i = 0; i < rows; ++i) {
                    for (std::size_t j = 0; j < tile.columns; ++j) {
                        double sum = 0;
                        for (std::size_t l = 0; l < groups * tile.group; ++l) {
                            const std::size_t g = l / tile.group, e = l % tile.group;
                            sum += static_cast<double>(a[i * a_row + g * a_group + e]) *
                                   static_cast<double>(b[(g * tile.columns + j) * tile.group + e]);
                        }
                        REQUIRE(std::abs(static_cast<double>(out[i * tile.columns + j]) - sum) <= tolerance);
                    }
                }
            }
        }
    }
}

}  // namespace

TEMPLATE_TEST_CASE("the register tiles of every instruction set read and write their own elements only", "[kernels]",
                   float, double) {
    const auto isa = GENERATE(from_range(available_isas()));
    const auto& set = tandem::kernels::kernels_of<TestType>(isa);
    CAPTURE(set.name);
    check_tile(set.tile, 66 * 66 * std::numeric_limits<TestType>::epsilon(), -1, 1);
}

TEST_CASE("the tiles of pairs and bytes, for every instruction set", "[kernels]") {
    const auto isa = GENERATE(from_range(available_isas()));
    const tandem::kernels::ReducedKernels kernels = tandem::kernels::reduced_kernels_of(isa);
    CAPTURE(std::string(name_of(isa)));
    // Products of bfloat16 are exact in float: only the sums of up to 130 of them round.
    constexpr double tolerance = 130 * 130 * std::numeric_limits<float>::epsilon();
    if (kernels.pairs.multiply != nullptr) check_tile(kernels.pairs, tolerance, -1, 1);
    check_tile(kernels.widened, tolerance, -1, 1);
    check_tile(kernels.bytes, 0, -127, 127);
}

namespace {

/// Bits of the tiles' sums, in the CPU's tiles and in those in plain C++.
template <class A, class B, class Sum>
void compare_tiles(const tandem::kernels::TileKernel<A, B, Sum>& cpu, const tandem::kernels::TileKernel<A, B, Sum>& plain,
                   double low, double high, const std::vector<B>& rare) {
    Random random(Seed{12});
    const std::size_t most = 70 * cpu.group;
    std::vector<A> a(cpu.rows * most);
    std::vector<B> b(70 * cpu.columns * cpu.group);
    for (A& value : a) value = static_cast<A>(static_cast<float>(random.uniform(std::is_unsigned_v<A> ? 0 : low, high)));
    for (B& value : b) {
        value = static_cast<B>(static_cast<float>(random.uniform(low, high)));
        if (!rare.empty() && random.below(40) == 0) value = rare[random.below(rare.size())];
    }
    for (const std::size_t rows : {1U, 15U, 16U, 17U, 32U, 33U, 50U, 256U}) {
        for (const std::size_t groups : {1U, 15U, 16U, 17U, 32U, 70U}) {
            CAPTURE(rows, groups);
            std::vector<Sum> found(rows * cpu.columns), expected(found);
            cpu.multiply(rows, groups, a.data(), most, cpu.group, b.data(), found.data(), b.data(), false);
            plain.multiply(rows, groups, a.data(), most, cpu.group, b.data(), expected.data(), b.data(), false);
            REQUIRE(std::memcmp(found.data(), expected.data(), found.size() * sizeof(Sum)) == 0);
        }
    }
}

}  // namespace

TEST_CASE("AMX's tiles have the bits of those in plain C++", "[kernels]") {
    using tandem::bfloat16;
    using tandem::kernels::Isa;
    if (!has(tandem::kernels::cpu_features(), Isa::amx)) return;
    const auto cpu = tandem::kernels::reduced_kernels_of(Isa::amx), plain = tandem::kernels::reduced_kernels_of(Isa::amx_emulated);
    // Subnormal numbers, given and found, and numbers that cancel.
    const std::vector<bfloat16> rare{1e-40f, -1e-39f, 1.2e-38f, -1.3e-38f, 0.0f, -0.0f, 1.0f, -1.0f};
    compare_tiles(cpu.pairs, plain.pairs, -1, 1, {});
    compare_tiles(cpu.pairs, plain.pairs, -1, 1, rare);
    compare_tiles(cpu.pairs, plain.pairs, -1e-20, 1e-20, {});
    compare_tiles(cpu.pairs, plain.pairs, -1e-38, 1e-38, {1e10f, -1e10f});
    compare_tiles(cpu.bytes, plain.bytes, -127, 127, {});
}

TEST_CASE("sums of pairs go on where a step ends", "[kernels]") {
    const auto isa = GENERATE(from_range(available_isas()));
    const auto tile = tandem::kernels::reduced_kernels_of(isa).pairs;
    if (tile.multiply == nullptr) return;
    Random random(Seed{15});
    for (const std::size_t rows : {std::size_t{1}, tile.rows}) {
        for (const std::size_t groups : {16U, 32U, 50U, 300U}) {
            for (const std::size_t cut : {16U, 32U, 208U}) {
                if (cut > groups) continue;
                CAPTURE(name_of(isa), rows, groups, cut);
                std::vector<tandem::bfloat16> a(rows * groups * 2), b(groups * tile.columns * 2);
                for (auto& value : a) value = static_cast<float>(random.uniform(-1, 1));
                for (auto& value : b) value = static_cast<float>(random.uniform(-1, 1));
                std::vector<float> whole(rows * tile.columns), parts(whole);
                const auto multiply = [&](std::size_t first, std::size_t last, std::vector<float>& out, bool onto) {
                    tile.multiply(rows, last - first, a.data() + first * 2, groups * 2, 2, b.data() + first * tile.columns * 2, out.data(), b.data(), onto);
                };
                multiply(0, groups, whole, false);
                multiply(0, cut, parts, false);
                if (cut < groups) multiply(cut, groups, parts, true);
                CHECK(std::memcmp(whole.data(), parts.data(), parts.size() * sizeof(float)) == 0);
            }
        }
    }
}

TEST_CASE("rows of a tile are told once they are done, and at last all of them", "[kernels]") {
    const auto isa = GENERATE(from_range(available_isas()));
    const auto tile = tandem::kernels::reduced_kernels_of(isa).pairs;
    if (tile.multiply_while == nullptr) return;
    Random random(Seed{13});
    for (const std::size_t rows : {1U, 17U, 40U, 256U}) {
        for (const std::size_t groups : {3U, 16U, 50U, 300U}) {
            CAPTURE(rows, groups);
            std::vector<tandem::bfloat16> a(rows * groups * 2), b(groups * tile.columns * 2);
            for (auto& value : a) value = static_cast<float>(random.uniform(-1, 1));
            for (auto& value : b) value = static_cast<float>(random.uniform(-1, 1));
            std::vector<float> alone(rows * tile.columns), found(alone);
            tile.multiply(rows, groups, a.data(), groups * 2, 2, b.data(), alone.data(), b.data(), false);
            // What is told to be done has its last bits.
            struct Told {
                const std::vector<float>&found, &expected;
                std::size_t columns, calls = 0, rows = 0, wrong = 0;
            } told{found, alone, tile.columns};
            const auto check = [](void* state, std::size_t done) {
                Told& now = *static_cast<Told*>(state);
                ++now.calls;
                now.wrong += done < now.rows ? 1 : 0;
                now.wrong += std::memcmp(now.found.data(), now.expected.data(), done * now.columns * sizeof(float)) == 0 ? 0 : 1;
                now.rows = done;
            };
            tile.multiply_while(rows, groups, a.data(), groups * 2, b.data(), found.data(), b.data(), 1000, false, {check, &told});
            CHECK(told.rows == rows);
            CHECK(told.wrong == 0);
            CHECK((rows <= 32 || told.calls > 1));
        }
    }
}

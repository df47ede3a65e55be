#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <tandem/core/random.hpp>
#include <tandem/kernels/dispatch.hpp>

#include "../guarded.hpp"
#include "isas.hpp"

namespace {

using tandem::Random;
using tandem::Seed;

template <class T>
constexpr T epsilon = std::numeric_limits<T>::epsilon();

constexpr std::size_t largest_width = 65;

/// The scalar kernels, and those of an instruction set on guarded copies of the same data. Sums of up to 65 terms of
/// size about 1 may differ by a few roundings a term.
template <class T>
struct Pair {
    tandem::kernels::Isa isa;
    const tandem::kernels::KernelSet<T>& scalar = tandem::kernels::kernels_of<T>(tandem::kernels::Isa::scalar);
    const tandem::kernels::KernelSet<T>& tested = tandem::kernels::kernels_of<T>(isa);
    const tandem::kernels::GradientKernels<T>& scalar_gradients =
        tandem::kernels::gradient_kernels_of<T>(tandem::kernels::Isa::scalar);
    const tandem::kernels::GradientKernels<T>& tested_gradients = tandem::kernels::gradient_kernels_of<T>(isa);
};

template <class T>
double largest_difference(const std::vector<T>& expected, const T* found) {
    double largest = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const double difference = std::abs(static_cast<double>(expected[i]) - static_cast<double>(found[i]));
        if (!(difference <= largest)) largest = difference;  // a NaN counts as a difference
    }
    return largest;
}

/// Rows whose values spread out, so that 1 / standard deviation is below 2 and rounding errors are not magnified.
template <class T>
void fill_spread(T* x, std::size_t rows, std::size_t width, Random& random) {
    for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j < width; ++j) {
            x[i * width + j] = static_cast<T>(0.3 + (j % 2 == 0 ? 1 : -1) * random.uniform(0.6, 1.4));
        }
    }
}

template <class T>
std::vector<T> copy(const T* from, std::size_t count) {
    return std::vector<T>(from, from + count);
}

}  // namespace

TEMPLATE_TEST_CASE("layer norm and RMS norm, every instruction set against scalar", "[kernels]", float, double) {
    using T = TestType;
    const Pair<T> sets{GENERATE(from_range(available_isas()))};
    CAPTURE(sets.tested.name);
    Random random(Seed{1});
    constexpr std::size_t most_rows = 3, most = most_rows * largest_width;
    const Guarded<T> x_memory(most), gain_memory(largest_width), bias_memory(largest_width), y_memory(most),
        mean_memory(most_rows), inverse_memory(most_rows);
    for (std::size_t width = 1; width <= largest_width; ++width) {
        for (const bool is_rms : {false, true}) {
            const std::size_t rows = width % 2 == 0 ? 1 : most_rows;
            CAPTURE(width, rows, is_rms);
            const std::size_t size = rows * width;
            T* const x = x_memory.last(size);
            fill_spread(x, rows, width, random);
            const T* const gain = gain_memory.random(width, random);
            const T* const bias = is_rms ? nullptr : bias_memory.random(width, random);
            T* const y = y_memory.last(size);
            T* const mean = is_rms ? nullptr : mean_memory.last(rows);
            T* const inverse = inverse_memory.last(rows);
            std::vector<T> expected(size), expected_mean(rows), expected_inverse(rows);
            const T eps = static_cast<T>(1e-5);
            sets.scalar.layer_norm(x, gain, bias, expected.data(), is_rms ? nullptr : expected_mean.data(),
                                   expected_inverse.data(), rows, width, eps);
            sets.tested.layer_norm(x, gain, bias, y, mean, inverse, rows, width, eps);
            CHECK(largest_difference(expected, y) < 64 * epsilon<T>);
            if (!is_rms) CHECK(largest_difference(expected_mean, mean) < 16 * epsilon<T>);
            // A row of one value has no spread: its inverse is 1 / sqrt(eps), about 316.
            CHECK(largest_difference(expected_inverse, inverse) < (width == 1 ? 1000 : 32) * epsilon<T>);

            // The definition, in double.
            for (std::size_t i = 0; i < rows; ++i) {
                double sum = 0, squares = 0;
                for (std::size_t j = 0; j < width; ++j) sum += x[i * width + j];
                const double mu = is_rms ? 0 : sum / static_cast<double>(width);
                for (std::size_t j = 0; j < width; ++j) squares += std::pow(x[i * width + j] - mu, 2);
                const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + eps);
                for (std::size_t j = 0; j < width; ++j) {
                    const double defined = (x[i * width + j] - mu) * scale * gain[j] + (is_rms ? 0 : bias[j]);
                    REQUIRE(std::abs(defined - y[i * width + j]) < 64 * epsilon<T>);
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("the gradients of layer norm and RMS norm, every instruction set against scalar", "[kernels]", float, double) {
    using T = TestType;
    const Pair<T> sets{GENERATE(from_range(available_isas()))};
    CAPTURE(sets.tested.name);
    Random random(Seed{2});
    constexpr std::size_t most_rows = 5, most = most_rows * largest_width;
    const Guarded<T> x_memory(most), dy_memory(most), dx_memory(most), gain_memory(largest_width),
        mean_memory(most_rows), inverse_memory(most_rows), dgain_memory(largest_width), dbias_memory(largest_width);
    for (std::size_t width = 1; width <= largest_width; ++width) {
        for (const unsigned mode : {0U, 1U, 2U, 3U}) {
            const bool accumulate = (mode & 1) != 0, is_rms = (mode & 2) != 0;
            CAPTURE(width, accumulate, is_rms);
            const std::size_t rows = most_rows, size = rows * width;
            T* const x = x_memory.last(size);
            fill_spread(x, rows, width, random);
            const T* const dy = dy_memory.random(size, random);
            const T* const gain = gain_memory.random(width, random);
            T* const mean = is_rms ? nullptr : mean_memory.last(rows);
            T* const inverse = inverse_memory.last(rows);
            std::vector<T> y(size), no_bias(width);
            sets.scalar.layer_norm(x, gain, no_bias.data(), y.data(), mean, inverse, rows, width, static_cast<T>(1e-5));

            T* const dx = dx_memory.random(size, random);
            std::vector<T> expected = copy(dx, size);
            sets.scalar_gradients.layer_norm_backward(dy, x, gain, mean, inverse, expected.data(), rows, width,
                                                      accumulate);
            sets.tested_gradients.layer_norm_backward(dy, x, gain, mean, inverse, dx, rows, width, accumulate);
            CHECK(largest_difference(expected, dx) < (width == 1 ? 1000 : 64) * epsilon<T>);
            if (!accumulate) {  // in place
                std::copy_n(dy, size, dx);
                sets.tested_gradients.layer_norm_backward(dx, x, gain, mean, inverse, dx, rows, width, false);
                CHECK(largest_difference(expected, dx) < (width == 1 ? 1000 : 64) * epsilon<T>);
            }

            // Only the columns asked for, and added to what stands there.
            const std::size_t first = width / 3, last = width - width / 4;
            T* const dgain = dgain_memory.random(width, random);
            T* const dbias = is_rms ? nullptr : dbias_memory.random(width, random);
            std::vector<T> expected_gain = copy(dgain, width), expected_bias(is_rms ? 0 : width);
            if (!is_rms) expected_bias = copy(dbias, width);
            sets.scalar_gradients.layer_norm_parameters_backward(dy, x, mean, inverse, expected_gain.data(),
                                                                 is_rms ? nullptr : expected_bias.data(), rows, width,
                                                                 first, last);
            sets.tested_gradients.layer_norm_parameters_backward(dy, x, mean, inverse, dgain, dbias, rows, width, first,
                                                                 last);
            CHECK(largest_difference(expected_gain, dgain) < 64 * epsilon<T>);
            CHECK(largest_difference(expected_bias, dbias) < 64 * epsilon<T>);
        }
    }
}

TEST_CASE("the gradients of the scalar layer norm and RMS norm against central differences", "[kernels]") {
    const auto& set = tandem::kernels::kernels_of<double>(tandem::kernels::Isa::scalar);
    const auto& gradients = tandem::kernels::gradient_kernels_of<double>(tandem::kernels::Isa::scalar);
    Random random(Seed{3});
    constexpr std::size_t rows = 3, width = 7, size = rows * width;
    const bool is_rms = GENERATE(false, true);
    std::vector<double> x(size), gain(width), bias(width), dy(size), y(size), mean(rows), inverse(rows);
    double* const means = is_rms ? nullptr : mean.data();
    for (auto* values : {&x, &gain, &bias, &dy}) {
        for (double& value : *values) value = random.uniform(-1, 1);
    }
    const auto loss = [&] {
        set.layer_norm(x.data(), gain.data(), is_rms ? nullptr : bias.data(), y.data(), means, inverse.data(), rows, width,
                       1e-5);
        double sum = 0;
        for (std::size_t i = 0; i < size; ++i) sum += y[i] * dy[i];
        return sum;
    };
    loss();
    std::vector<double> dx(size), dgain(width), dbias(width);
    gradients.layer_norm_backward(dy.data(), x.data(), gain.data(), means, inverse.data(), dx.data(), rows, width, false);
    gradients.layer_norm_parameters_backward(dy.data(), x.data(), means, inverse.data(), dgain.data(),
                                             is_rms ? nullptr : dbias.data(), rows, width, 0, width);
    const auto check = [&](std::vector<double>& values, const std::vector<double>& gradient) {
        for (std::size_t i = 0; i < values.size(); ++i) {
            const double held = values[i], step = 1e-5;
            values[i] = held + step;
            const double above = loss();
            values[i] = held - step;
            const double below = loss();
            values[i] = held;
            CHECK(gradient[i] == Approx((above - below) / (2 * step)).margin(1e-7));
        }
    };
    check(x, dx);
    check(gain, dgain);
    if (!is_rms) check(bias, dbias);
}

TEMPLATE_TEST_CASE("dot products, every instruction set against scalar", "[kernels]", float, double) {
    using T = TestType;
    const Pair<T> sets{GENERATE(from_range(available_isas()))};
    CAPTURE(sets.tested.name);
    Random random(Seed{5});
    const Guarded<T> x_memory(largest_width), y_memory(largest_width);
    for (std::size_t size = 1; size <= largest_width; ++size) {
        CAPTURE(size);
        const T* const x = x_memory.random(size, random);
        const T* const y = y_memory.random(size, random);
        // Of up to 65 products of at most 1, in another order.
        CHECK(std::abs(sets.tested.dot(x, y, size) - sets.scalar.dot(x, y, size)) < static_cast<T>(size) * 8 * epsilon<T>);
    }
}

TEMPLATE_TEST_CASE("column sums, every instruction set against scalar", "[kernels]", float, double) {
    using T = TestType;
    const Pair<T> sets{GENERATE(from_range(available_isas()))};
    CAPTURE(sets.tested.name);
    Random random(Seed{4});
    constexpr std::size_t most_rows = 9;
    const Guarded<T> x_memory(most_rows * largest_width), sums_memory(largest_width);
    for (std::size_t width = 1; width <= largest_width; ++width) {
        for (const std::size_t rows : {std::size_t{0}, std::size_t{1}, most_rows}) {
            CAPTURE(width, rows);
            const T* const x = x_memory.random(rows * width, random);
            const std::size_t first = width / 5, last = width - width / 7;
            T* const sums = sums_memory.random(width, random);
            std::vector<T> expected = copy(sums, width);
            sets.scalar_gradients.column_sums(x, expected.data(), rows, width, first, last);
            sets.tested_gradients.column_sums(x, sums, rows, width, first, last);
            // Both add row by row in order: the bits are the same.
            CHECK(largest_difference(expected, sums) == 0);
        }
    }
}

TEMPLATE_TEST_CASE("sums of products, every instruction set against scalar", "[kernels]", float, double) {
    using T = TestType;
    using tandem::kernels::Activation;
    const Pair<T> sets{GENERATE(from_range(available_isas()))};
    CAPTURE(sets.tested.name);
    Random random(Seed{5});
    constexpr std::size_t most_terms = 3;
    const Guarded<T> x_memory[] = {Guarded<T>(largest_width), Guarded<T>(largest_width), Guarded<T>(largest_width)};
    const Guarded<T> factor_memory[] = {Guarded<T>(largest_width), Guarded<T>(largest_width), Guarded<T>(largest_width)};
    const Guarded<T> bias_memory(largest_width), y_memory(largest_width);
    for (std::size_t width = 1; width <= largest_width; ++width) {
        for (const std::size_t terms : {std::size_t{0}, std::size_t{1}, most_terms}) {
            for (const Activation activation : {Activation::none, Activation::relu, Activation::silu}) {
                CAPTURE(width, terms);
                std::vector<const T*> x, factors;
                for (std::size_t i = 0; i < terms; ++i) {
                    x.push_back(x_memory[i].random(width, random));
                    factors.push_back(factor_memory[i].random(width, random));
                }
                const T* const bias = width % 3 == 0 ? nullptr : bias_memory.random(width, random);
                T* const y = y_memory.random(width, random);
                std::vector<T> expected(width);
                sets.scalar.sum_of_products(terms, x.data(), factors.data(), bias, activation, expected.data(), width);
                sets.tested.sum_of_products(terms, x.data(), factors.data(), bias, activation, y, width);
                REQUIRE(largest_difference(expected, y) <= 64 * epsilon<T>);
            }
        }
    }
}

TEMPLATE_TEST_CASE("softmax and its gradient, every instruction set against scalar", "[kernels]", float, double) {
    using T = TestType;
    const Pair<T> sets{GENERATE(from_range(available_isas()))};
    CAPTURE(sets.tested.name);
    Random random(Seed{5});
    const Guarded<T> x_memory(largest_width), dx_memory(largest_width);
    for (std::size_t count = 1; count <= largest_width; ++count) {
        for (const double scale : {1.0, 0.125, 7.5}) {
            CAPTURE(count, scale);
            T* const x = x_memory.random(count, random, -3, 3);
            std::vector<T> expected = copy(x, count);
            double sum = 0;
            std::vector<double> defined(count);
            for (std::size_t j = 0; j < count; ++j) sum += defined[j] = std::exp(static_cast<T>(scale) * x[j]);
            sets.scalar.softmax(expected.data(), count, static_cast<T>(scale));
            sets.tested.softmax(x, count, static_cast<T>(scale));
            // The exponent reaches 45: half a unit in its last place is 45 · epsilon / 2 of the result.
            CHECK(largest_difference(expected, x) < 64 * epsilon<T>);
            double total = 0;
            for (std::size_t j = 0; j < count; ++j) {
                REQUIRE(std::abs(x[j] - defined[j] / sum) < 64 * epsilon<T>);
                total += x[j];
            }
            CHECK(std::abs(total - 1) < 32 * epsilon<T>);

            T* const dx = dx_memory.random(count, random);
            std::vector<T> expected_dx = copy(dx, count);
            sets.scalar_gradients.softmax_backward(x, expected_dx.data(), count, static_cast<T>(scale));
            sets.tested_gradients.softmax_backward(x, dx, count, static_cast<T>(scale));
            CHECK(largest_difference(expected_dx, dx) < 64 * epsilon<T>);
        }
    }
}

TEMPLATE_TEST_CASE("softmax of large values neither overflows nor loses the largest", "[kernels]", float, double) {
    using T = TestType;
    const Pair<T> sets{GENERATE(from_range(available_isas()))};
    CAPTURE(sets.tested.name);
    const T huge = static_cast<T>(1e30);
    {
        const auto* const set = &sets.tested;
        for (const std::size_t count : {2U, 5U, 16U, 33U, 65U}) {
            CAPTURE(set->name, count);
            for (const T offset : {huge, -huge, T{1000}, T{-1000}}) {
                std::vector<T> equal(count, offset);
                set->softmax(equal.data(), count, T{1});
                for (const T value : equal) CHECK(value == Approx(1.0 / static_cast<double>(count)));

                std::vector<T> one_hot(count, -huge);
                one_hot[count - 1] = huge;
                set->softmax(one_hot.data(), count, static_cast<T>(0.125));
                for (std::size_t j = 0; j + 1 < count; ++j) CHECK(one_hot[j] == 0);
                CHECK(one_hot[count - 1] == 1);
            }
        }
    }
}

TEMPLATE_TEST_CASE("activations and their derivatives, every instruction set against the definition in double",
                   "[kernels]", float, double) {
    using T = TestType;
    using tandem::kernels::Activation;
    const Pair<T> sets{GENERATE(from_range(available_isas()))};
    const auto kind = GENERATE(Activation::none, Activation::gelu, Activation::quick_gelu, Activation::tanh_gelu,
                               Activation::silu, Activation::relu, Activation::squared_relu);
    CAPTURE(sets.tested.name, static_cast<int>(kind));
    const auto& exact = tandem::kernels::kernels_of<double>(tandem::kernels::Isa::scalar);
    const auto& exact_gradients = tandem::kernels::gradient_kernels_of<double>(tandem::kernels::Isa::scalar);
    constexpr std::size_t count = 40001;
    std::vector<T> x(count), y(count), slope(count, 1);
    std::vector<double> wide(count), defined(count), defined_slope(count, 1);
    for (std::size_t i = 0; i < count; ++i) {
        x[i] = static_cast<T>(-10 + 20.0 * static_cast<double>(i) / (count - 1));
        wide[i] = x[i];
    }
    exact.activate(kind, wide.data(), defined.data(), count);
    exact_gradients.activate_backward(kind, wide.data(), defined_slope.data(), count);
    sets.tested.activate(kind, x.data(), y.data(), count);
    sets.tested_gradients.activate_backward(kind, x.data(), slope.data(), count);
    double worst = 0, worst_slope = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const double error = std::abs(y[i] - defined[i]) / std::max(1.0, std::abs(defined[i]));
        const double slope_error = std::abs(slope[i] - defined_slope[i]);
        if (!(error <= worst)) worst = error;
        if (!(slope_error <= worst_slope)) worst_slope = slope_error;
    }
    // The stated bounds. erf is fitted to 4 epsilon in floats; xsimd's in double is good to 1.2e-14 below -3. In a
    // slope the gate's rounding meets factors of up to 20.
    CHECK(worst <= (sizeof(T) == 4 ? 8 : 64) * epsilon<T>);
    CHECK(worst_slope <= (sizeof(T) == 4 ? 24 : 64) * epsilon<T>);
    // A NaN stays one, an infinity does not become one.
    std::vector<T> special{std::numeric_limits<T>::quiet_NaN(), T{80}, T{-80}}, out(3);
    sets.tested.activate(kind, special.data(), out.data(), 3);
    CHECK(std::isnan(out[0]));
    CHECK(out[1] == (kind == Activation::squared_relu ? T{6400} : T{80}));
    CHECK(std::abs(static_cast<double>(out[2])) <= (kind == Activation::none ? 80.0 : 1e-20));
}

TEMPLATE_TEST_CASE("a transpose, every instruction set", "[kernels]", float, double) {
    using T = TestType;
    const auto& set = tandem::kernels::kernels_of<T>(GENERATE(from_range(available_isas())));
    CAPTURE(set.name);
    Random random(Seed{9});
    const Guarded<T> from_memory(65 * 68), to_memory(65 * 68);
    for (std::size_t rows = 1; rows <= 65; ++rows) {
        for (std::size_t columns = 1; columns <= 65; ++columns) {
            const std::size_t from_stride = columns + rows % 3, to_stride = rows + columns % 4;
            const T* const from = from_memory.random((rows - 1) * from_stride + columns, random);
            const std::size_t size = (columns - 1) * to_stride + rows;
            T* const to = to_memory.random(size, random);
            std::vector<T> expected = copy(to, size);
            for (std::size_t i = 0; i < rows; ++i) {
                for (std::size_t j = 0; j < columns; ++j) expected[j * to_stride + i] = from[i * from_stride + j];
            }
            set.transpose(from, from_stride, rows, columns, to, to_stride);
            CAPTURE(rows, columns);
            REQUIRE(std::equal(expected.begin(), expected.end(), to));
        }
    }
}

TEMPLATE_TEST_CASE("a finished tile is what its parts say, every instruction set against scalar", "[kernels]", float,
                   double) {
    using T = TestType;
    using tandem::kernels::Activation;
    const Pair<T> sets{GENERATE(from_range(available_isas()))};
    CAPTURE(sets.tested.name);
    Random random(Seed{6});
    const std::size_t width = sets.tested.tile.columns, rows = 3;
    const Guarded<T> c_memory(rows * (width + 3)), bias_memory(width), residual_memory(rows * (width + 3)),
        before_memory(rows * (width + 3)), factor_memory(rows * (width + 3)), scale_memory(width);
    std::vector<T> product(rows * width);
    for (T& value : product) value = static_cast<T>(random.uniform(-2, 2));
    for (std::size_t columns = 1; columns <= width; ++columns) {
        for (unsigned mode = 0; mode < 256; ++mode) {
            CAPTURE(columns, mode);
            const std::size_t stride = columns + 3, size = (rows - 1) * stride + columns;
            T* const c = c_memory.random(size, random);
            T* const before = before_memory.random(size, random);
            const bool accumulate = (mode & 1) != 0;
            tandem::kernels::Finish<T> finish;
            if (mode & 128) finish.scale = scale_memory.random(columns, random);
            if (mode & 2) finish.bias = bias_memory.random(columns, random);
            if (mode & 4) finish.residual = residual_memory.random(size, random);
            if (mode & 8) finish.before = before;
            if (mode & 16) finish.activation = Activation::gelu;
            if (mode & 32) {
                finish.factor_stride = (mode & 64) ? stride : 0;
                finish.factor = factor_memory.random((mode & 64) ? size : columns, random);
            }
            finish.residual_stride = finish.before_stride = stride;
            std::vector<T> expected = copy(c, size), expected_before = copy(before, size);
            for (std::size_t i = 0; i < rows; ++i) {
                for (std::size_t j = 0; j < columns; ++j) {
                    const std::size_t at = i * stride + j;
                    T value = product[i * width + j] + (accumulate ? expected[at] : T{0});
                    if (finish.scale != nullptr) value *= finish.scale[j];
                    if (finish.bias != nullptr) value += finish.bias[j];
                    if (finish.before != nullptr) expected_before[at] = value;
                    sets.scalar.activate(finish.activation, &value, &value, 1);
                    if (finish.factor != nullptr) value *= finish.factor[i * finish.factor_stride + j];
                    expected[at] = value + (finish.residual != nullptr ? finish.residual[at] : T{0});
                }
            }
            sets.tested.finish_tile(product.data(), width, rows, columns, c, stride, accumulate, finish);
            REQUIRE(largest_difference(expected, c) <= (sizeof(T) == 4 ? 16 : 64) * epsilon<T>);
            REQUIRE(largest_difference(expected_before, before) <= 4 * epsilon<T>);
        }
    }
}

TEST_CASE("a finished tile of bytes, every instruction set against scalar", "[kernels]") {
    using tandem::kernels::Isa;
    using tandem::kernels::reduced_kernels_of;
    const Isa isa = GENERATE(from_range(available_isas()));
    CAPTURE(std::string(name_of(isa)));
    const tandem::kernels::ReducedKernels tested = reduced_kernels_of(isa), scalar = reduced_kernels_of(Isa::scalar);
    Random random(Seed{8});
    const std::size_t width = tested.bytes.columns, rows = 3;
    const Guarded<std::int32_t> sums_memory(rows * width), columns_memory(width);
    const Guarded<float> scale_memory(width), c_memory(rows * (width + 3)), part_memory(rows * (width + 3));
    std::int32_t* const sums = sums_memory.last(rows * width);
    std::int32_t* const column_sum = columns_memory.last(width);
    for (std::size_t i = 0; i < rows * width; ++i) sums[i] = static_cast<std::int32_t>(random.below(2000000)) - 1000000;
    for (std::size_t j = 0; j < width; ++j) column_sum[j] = static_cast<std::int32_t>(random.below(20000)) - 10000;
    const std::vector<float> row_scale{5e-7f, 1e-9f, 1e-6f};
    const std::vector<std::int32_t> row_zero{0, 255, 100};
    const tandem::kernels::ByteProduct product{sums, row_scale.data(), row_zero.data(),
                                               scale_memory.random(width, random), column_sum};
    for (std::size_t columns = 1; columns <= width; ++columns) {
        for (const bool accumulate : {false, true}) {
            CAPTURE(columns, accumulate);
            const std::size_t stride = columns + 3, size = (rows - 1) * stride + columns;
            float* const c = c_memory.random(size, random);
            tandem::kernels::Finish<float> finish;
            finish.residual = part_memory.random(size, random);
            finish.residual_stride = stride;
            std::vector<float> expected = copy(c, size);
            scalar.finish_bytes(product, width, rows, columns, expected.data(), stride, accumulate, finish);
            tested.finish_bytes(product, width, rows, columns, c, stride, accumulate, finish);
            REQUIRE(largest_difference(expected, c) <= 4 * epsilon<float>);
        }
    }
}

TEST_CASE("two rows as bfloat16 pairs, every instruction set against scalar", "[kernels]") {
    using tandem::bfloat16;
    using tandem::kernels::Isa;
    using tandem::kernels::reduced_kernels_of;
    const Isa isa = GENERATE(from_range(available_isas()));
    CAPTURE(std::string(name_of(isa)));
    const tandem::kernels::ReducedKernels tested = reduced_kernels_of(isa), scalar = reduced_kernels_of(Isa::scalar);
    Random random(Seed{9});
    const Guarded<float> first_memory(largest_width), second_memory(largest_width);
    const Guarded<bfloat16> pairs_memory(2 * largest_width);
    for (std::size_t count = 1; count <= largest_width; ++count) {
        CAPTURE(count);
        float* const first = first_memory.random(count, random);
        float* const second = second_memory.random(count, random);
        first[count / 2] = std::numeric_limits<float>::quiet_NaN();
        second[count / 3] = -std::numeric_limits<float>::infinity();
        std::vector<bfloat16> expected(2 * count);
        scalar.narrow_pairs(first, second, expected.data(), count);
        bfloat16* const pairs = pairs_memory.last(2 * count);
        tested.narrow_pairs(first, second, pairs, count);
        for (std::size_t i = 0; i < 2 * count; ++i) {
            REQUIRE(pairs[i].bits() == expected[i].bits());
            const float source = (i % 2 == 0 ? first : second)[i / 2];
            REQUIRE(pairs[i].bits() == bfloat16(source).bits());
        }
    }
}

TEST_CASE("rows of bfloat16 between layers, every instruction set against scalar", "[kernels]") {
    using tandem::bfloat16;
    using tandem::kernels::Activation;
    using tandem::kernels::Isa;
    using tandem::kernels::reduced_kernels_of;
    const Isa isa = GENERATE(from_range(available_isas()));
    CAPTURE(std::string(name_of(isa)));
    const tandem::kernels::ReducedKernels reduced = reduced_kernels_of(isa);
    const tandem::kernels::NarrowRows tested = reduced.narrow_rows, scalar = reduced_kernels_of(Isa::amx_emulated).narrow_rows;
    CHECK((tested.finish != nullptr) == (reduced.pairs.multiply != nullptr));
    if (tested.finish == nullptr) return;
    Random random(Seed{10});
    // Two roundings to 8 bits may fall to either side of what is between.
    const auto check = [](const bfloat16* found, const bfloat16* expected, std::size_t size, float absolute) {
        for (std::size_t i = 0; i < size; ++i) {
            const float want = expected[i];
            REQUIRE(std::abs(static_cast<float>(found[i]) - want) <= std::abs(want) / 128 + absolute);
        }
    };
    constexpr std::size_t rows = 3, stride = largest_width + 3;
    const Guarded<float> x_memory(rows * stride), part_memory(rows * stride), gain_memory(stride), bias_memory(stride);
    const Guarded<bfloat16> y_memory(2 * rows * stride), first_memory(rows * stride), second_memory(stride);
    for (std::size_t width = 1; width <= largest_width; ++width) {
        CAPTURE(width);
        const std::size_t size = (rows - 1) * stride + width;
        const float* const bias = bias_memory.random(width, random);
        const float* const gain = gain_memory.random(width, random);
        bfloat16* const y = y_memory.random(size, random);
        std::vector<bfloat16> expected = copy(y, size);

        const float* const product = x_memory.random(size, random, -6, 6);
        for (const Activation activation : {Activation::none, Activation::gelu, Activation::quick_gelu, Activation::tanh_gelu,
                                            Activation::silu, Activation::relu, Activation::squared_relu}) {
            for (const bool is_plain : {true, false}) {
                CAPTURE(static_cast<int>(activation), is_plain);
                tandem::kernels::Finish<float> finish{.bias = bias, .activation = activation};
                if (!is_plain) finish.scale = gain;
                finish.residual = part_memory.random(size, random);
                finish.residual_stride = stride;
                tested.finish(product, stride, rows, width, y, stride, finish);
                scalar.finish(product, stride, rows, width, expected.data(), stride, finish);
                check(y, expected.data(), size, 2e-3f);  // the residual cancels some
                finish.residual = nullptr;
                tested.finish(product, stride, rows, width, y, stride, finish);
                scalar.finish(product, stride, rows, width, expected.data(), stride, finish);
                check(y, expected.data(), size, 1e-4f);
            }
        }

        float* const x = x_memory.last(rows * width);
        fill_spread(x, rows, width, random);
        for (const bool has_mean : {true, false}) {
            tested.layer_norm(x, gain, has_mean ? bias : nullptr, y, stride, rows, width, 1e-5f, has_mean);
            scalar.layer_norm(x, gain, has_mean ? bias : nullptr, expected.data(), stride, rows, width, 1e-5f, has_mean);
            check(y, expected.data(), size, 1e-3f);
        }

        for (const std::size_t panel : {reduced.pairs.columns, std::size_t{64}}) {
            const std::size_t step = panel + 16, used = (width - 1) / panel * step + (width - 1) % panel + 1;
            float* const scores = x_memory.random(used, random, -9, 9);
            std::vector<float> same = copy(scores, used);
            bfloat16* const weights = y_memory.last(width);
            tested.softmax(scores, panel, step, width, 0.7f, weights);
            scalar.softmax(same.data(), panel, step, width, 0.7f, expected.data());
            check(weights, expected.data(), width, 1e-6f);
        }

        const bfloat16* const first = first_memory.random(width, random);
        const bfloat16* const second = second_memory.random(width, random);
        std::vector<std::uint8_t> bytes(width), expected_bytes(width);
        float scale = 0, expected_scale = 0;
        std::int32_t zero = 0, expected_zero = 0;
        tested.quantise(first, bytes.data(), width, scale, zero);
        scalar.quantise(first, expected_bytes.data(), width, expected_scale, expected_zero);
        CHECK(std::abs(scale - expected_scale) <= 4 * epsilon<float> * expected_scale);
        CHECK(std::abs(zero - expected_zero) <= 1);
        for (std::size_t i = 0; i < width; ++i) REQUIRE(std::abs(bytes[i] - expected_bytes[i]) <= 1);

        std::vector<bfloat16> pairs(2 * width);
        scalar.interleave(first, second, pairs.data(), width);
        bfloat16* const interleaved = y_memory.last(2 * width);
        tested.interleave(first, second, interleaved, width);
        CHECK(std::memcmp(interleaved, pairs.data(), pairs.size() * sizeof(bfloat16)) == 0);

        const std::size_t pair_rows = width % 40 + 1, pair_count = 19, from_stride = 2 * pair_count + 4;
        const Guarded<bfloat16> from_memory(pair_rows * from_stride), to_memory(2 * pair_count * (pair_rows + 1));
        const bfloat16* const from = from_memory.random((pair_rows - 1) * from_stride + 2 * pair_count, random);
        const std::size_t to_size = 2 * ((pair_count - 1) * (pair_rows + 1) + pair_rows);
        bfloat16* const to = to_memory.random(to_size, random);
        std::vector<bfloat16> transposed = copy(to, to_size);
        tested.transpose_pairs(from, from_stride, pair_rows, pair_count, to, pair_rows + 1);
        scalar.transpose_pairs(from, from_stride, pair_rows, pair_count, transposed.data(), pair_rows + 1);
        CHECK(std::memcmp(to, transposed.data(), to_size * sizeof(bfloat16)) == 0);
    }
}

TEST_CASE("finished bytes in rows of bfloat16, every instruction set against scalar", "[kernels]") {
    using tandem::bfloat16;
    using tandem::kernels::Isa;
    using tandem::kernels::reduced_kernels_of;
    const Isa isa = GENERATE(from_range(available_isas()));
    const tandem::kernels::ReducedKernels tested = reduced_kernels_of(isa), scalar = reduced_kernels_of(Isa::amx_emulated);
    if (tested.narrow_rows.finish == nullptr) return;
    CAPTURE(std::string(name_of(isa)));
    Random random(Seed{8});
    const std::size_t width = tested.bytes.columns, rows = 3;
    std::vector<std::int32_t> sums(rows * width), column_sum(width);
    for (std::int32_t& sum : sums) sum = static_cast<std::int32_t>(random.below(2000000)) - 1000000;
    for (std::int32_t& sum : column_sum) sum = static_cast<std::int32_t>(random.below(20000)) - 10000;
    std::vector<float> row_scale{5e-7f, 1e-9f, 1e-6f}, column_scale(width);
    for (float& scale : column_scale) scale = static_cast<float>(random.uniform(0.5, 1));
    const std::vector<std::int32_t> row_zero{0, 255, 100};
    const tandem::kernels::ByteProduct product{sums.data(), row_scale.data(), row_zero.data(), column_scale.data(), column_sum.data()};
    const Guarded<bfloat16> c_memory(rows * (width + 3));
    for (std::size_t columns = 1; columns <= width; ++columns) {
        CAPTURE(columns);
        const std::size_t stride = columns + 3, size = (rows - 1) * stride + columns;
        bfloat16* const c = c_memory.random(size, random);
        std::vector<bfloat16> expected = copy(c, size);
        tested.narrow_rows.finish_bytes(product, width, rows, columns, c, stride, {});
        scalar.narrow_rows.finish_bytes(product, width, rows, columns, expected.data(), stride, {});
        for (std::size_t i = 0; i < size; ++i) {
            const float want = expected[i];
            REQUIRE(std::abs(static_cast<float>(c[i]) - want) <= std::abs(want) / 128);
        }
    }
}

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <initializer_list>
#include <limits>

#include <tandem/core/random.hpp>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/functions.hpp>

#include "../guarded.hpp"

namespace {

using tandem::assign;
using tandem::dynamic;
using tandem::evaluate;
using tandem::Random;
using tandem::Seed;
using tandem::Shape;
using tandem::Tensor;
using tandem::View;

template <class T>
using Row = View<const T, Shape<dynamic>>;

constexpr std::size_t largest = 65;

/// Computes function(x, y) for 1 to 65 elements, in guarded memory, and compares with a scalar oracle in double. `ulps`
/// bounds the error in units of epsilon times max(1, |result|).
template <class T, class Function, class Oracle>
void check_function(const Function& function, const Oracle& oracle, double low, double high, double ulps) {
    Random random(Seed{1});
    const Guarded<T> x_memory(largest), y_memory(largest), out_memory(largest);
    for (std::size_t size = 1; size <= largest; ++size) {
        const Row<T> x(x_memory.random(size, random, low, high), {{size}});
        const Row<T> y(y_memory.random(size, random, low, high), {{size}});
        const View<T, Shape<dynamic>> out(out_memory.last(size), {{size}});
        assign(out, function(x, y));
        for (std::size_t i = 0; i < size; ++i) {
            const double expected = oracle(static_cast<double>(x(i)), static_cast<double>(y(i)));
            const double bound = ulps * std::numeric_limits<T>::epsilon() * std::max(1.0, std::abs(expected));
            CAPTURE(size, i, x(i), y(i), out(i), expected);
            REQUIRE(std::abs(out(i) - expected) <= bound);
        }
    }
}

}  // namespace

TEMPLATE_TEST_CASE("arithmetic against plain loops", "[tensor]", float, double) {
    using T = TestType;
    check_function<T>([](auto x, auto y) { return x + y; }, [](double x, double y) { return x + y; }, -5, 5, 1);
    check_function<T>([](auto x, auto y) { return x - y; }, [](double x, double y) { return x - y; }, -5, 5, 1);
    check_function<T>([](auto x, auto y) { return x * y; }, [](double x, double y) { return x * y; }, -5, 5, 1);
    check_function<T>([](auto x, auto y) { return x / y; }, [](double x, double y) { return x / y; }, 0.5, 5, 1);
    check_function<T>([](auto x, auto) { return -x; }, [](double x, double) { return -x; }, -5, 5, 0);
    check_function<T>([](auto x, auto y) { return max(x, y); }, [](double x, double y) { return std::max(x, y); }, -5,
                      5, 0);
    check_function<T>([](auto x, auto y) { return min(x, y); }, [](double x, double y) { return std::min(x, y); }, -5,
                      5, 0);
    check_function<T>([](auto x, auto y) { return greater(x, y); }, [](double x, double y) { return x > y ? 1 : 0; },
                      -5, 5, 0);
    check_function<T>([](auto x, auto) { return relu(x); }, [](double x, double) { return std::max(x, 0.0); }, -5, 5,
                      0);
    check_function<T>([](auto x, auto) { return square(x); }, [](double x, double) { return x * x; }, -5, 5, 1);
    check_function<T>([](auto x, auto) { return abs(x); }, [](double x, double) { return std::abs(x); }, -5, 5, 0);
    check_function<T>([](auto x, auto) { return 2 - 3.5 / x * 2; }, [](double x, double) { return 2 - 7 / x; }, 0.5, 5,
                      4);
}

TEMPLATE_TEST_CASE("functions against plain loops", "[tensor]", float, double) {
    using T = TestType;
    check_function<T>([](auto x, auto) { return exp(x); }, [](double x, double) { return std::exp(x); }, -20, 20, 2);
    check_function<T>([](auto x, auto) { return log(x); }, [](double x, double) { return std::log(x); }, 1e-3, 100, 2);
    check_function<T>([](auto x, auto) { return sqrt(x); }, [](double x, double) { return std::sqrt(x); }, 0, 100, 1);
    check_function<T>([](auto x, auto) { return tanh(x); }, [](double x, double) { return std::tanh(x); }, -9, 9, 2);
    // xsimd's erf for double is off by 34 epsilon at 2.2, where it goes from one approximation to the next.
    check_function<T>([](auto x, auto) { return erf(x); }, [](double x, double) { return std::erf(x); }, -6, 6, 40);
    check_function<T>([](auto x, auto) { return sigmoid(x); }, [](double x, double) { return 1 / (1 + std::exp(-x)); },
                      -30, 30, 2);
    check_function<T>([](auto x, auto) { return softplus(x); },
                      [](double x, double) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); },
                      -30, 30, 2);
}

TEMPLATE_TEST_CASE("functions at the ends of their range", "[tensor]", float, double) {
    using T = TestType;
    const T infinity = std::numeric_limits<T>::infinity();
    const Tensor<T, Shape<dynamic>> x{-infinity, -10000, -100, 0, 100, 10000, infinity};
    const auto check = [&](const auto& result, std::initializer_list<T> expected) {
        for (std::size_t i = 0; i < expected.size(); ++i) {
            CAPTURE(i);
            CHECK(result(i) == expected.begin()[i]);
        }
    };
    const T small = std::exp(T{-100});
    check(evaluate(tanh(x)), {-1, -1, -1, 0, 1, 1, 1});
    check(evaluate(erf(x)), {-1, -1, -1, 0, 1, 1, 1});
    check(evaluate(relu(x)), {0, 0, 0, 0, 100, 10000, infinity});
    CHECK(evaluate(exp(x))(1) == 0);
    CHECK(evaluate(exp(x))(5) == infinity);
    const auto gates = evaluate(sigmoid(x));
    CHECK(gates(0) == 0);
    CHECK(gates(1) == 0);
    CHECK(gates(3) == T{0.5});
    CHECK(gates(5) == 1);
    const auto softened = evaluate(softplus(x));
    CHECK(softened(1) == 0);
    CHECK(softened(2) == Approx(small).margin(std::numeric_limits<T>::min()));
    CHECK(softened(3) == Approx(std::log(2.0)));
    CHECK(softened(4) == 100);
    CHECK(softened(5) == 10000);
    CHECK(softened(6) == infinity);
}

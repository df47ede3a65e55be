#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <utility>

#include <tandem/core/random.hpp>
#include <tandem/tensor/evaluate.hpp>
#include <tandem/tensor/functions.hpp>
#include <tandem/tensor/reduce.hpp>

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

constexpr std::size_t largest = 65;

}  // namespace

TEMPLATE_TEST_CASE("an element's bits do not depend on where in a row it stands", "[tensor]", float, double) {
    using T = TestType;
    Tensor<T, Shape<dynamic>> x(largest);
    x.fill(static_cast<T>(0.7183));
    const auto y = evaluate(exp(x) * erf(x) + tanh(x) / softplus(x));
    for (const T value : y.elements()) CHECK(value == y(0));
}

TEMPLATE_TEST_CASE("broadcasting of columns, rows and scalars", "[tensor]", float, double) {
    using T = TestType;
    Random random(Seed{2});
    const Guarded<T> x_memory(largest * 9), column_memory(9), row_memory(largest), line_memory(largest),
        scalar_memory(1), out_memory(largest * 9);
    for (const std::size_t rows : {1U, 2U, 9U}) {
        for (std::size_t width = 1; width <= largest; ++width) {
            CAPTURE(rows, width);
            const View<const T, Shape<dynamic, dynamic>> x(x_memory.random(rows * width, random), {{rows, width}});
            const View<const T, Shape<dynamic, 1>> column(column_memory.random(rows, random), {{rows, 1}});
            const View<const T, Shape<dynamic>> row(row_memory.random(width, random), {{width}});
            const View<const T, Shape<1, dynamic>> line(line_memory.random(width, random), {{1, width}});
            const View<const T, Shape<>> scalar(scalar_memory.random(1, random), {});
            const View<T, Shape<dynamic, dynamic>> out(out_memory.last(rows * width), {{rows, width}});
            const auto check = [&](const auto& expected) {
                std::size_t wrong = 0;
                for (std::size_t i = 0; i < rows; ++i) {
                    for (std::size_t j = 0; j < width; ++j) wrong += out(i, j) != expected(i, j);
                }
                CHECK(wrong == 0);
            };
            assign(out, x + column);
            check([&](auto i, auto j) { return x(i, j) + column(i, 0); });
            assign(out, row - x);
            check([&](auto i, auto j) { return row(j) - x(i, j); });
            assign(out, max(scalar * x, line));
            check([&](auto i, auto j) { return std::max(scalar() * x(i, j), line(0, j)); });
            assign(out, column * line);
            check([&](auto i, auto j) { return column(i, 0) * line(0, j); });
            assign(out, row);
            check([&](auto, auto j) { return row(j); });
            assign(out, scalar + 1);
            check([&](auto, auto) { return scalar() + 1; });
        }
    }
}

TEST_CASE("broadcasting over three axes", "[tensor]") {
    Tensor<double, Shape<2, 1, 5>> a;
    Tensor<double, Shape<3, 1>> b;
    for (std::size_t i = 0; i < a.size(); ++i) a.elements()[i] = static_cast<double>(i);
    for (std::size_t i = 0; i < b.size(); ++i) b.elements()[i] = static_cast<double>(100 * i);
    const auto sum = evaluate(a + b);
    static_assert(std::is_same_v<decltype(sum)::shape, Shape<2, 3, 5>>);
    for (std::size_t i = 0; i < 2; ++i) {
        for (std::size_t j = 0; j < 3; ++j) {
            for (std::size_t k = 0; k < 5; ++k) CHECK(sum(i, j, k) == a(i, 0, k) + b(j, 0));
        }
    }
    const Tensor<double, Shape<1>> one{7};
    Tensor<double, Shape<5>> five;
    assign(five, one);
    for (const double value : five.elements()) CHECK(value == 7);
}

TEST_CASE("bfloat16 tensors are read and written one for one", "[tensor]") {
    using tandem::bfloat16;
    Random random(Seed{3});
    const Guarded<bfloat16> x_memory(largest), out_memory(largest);
    const Guarded<float> y_memory(largest), wide_memory(largest);
    for (std::size_t size = 1; size <= largest; ++size) {
        const View<const bfloat16, Shape<dynamic>> x(x_memory.random(size, random), {{size}});
        const View<const float, Shape<dynamic>> y(y_memory.random(size, random), {{size}});
        const View<bfloat16, Shape<dynamic>> out(out_memory.last(size), {{size}});
        const View<float, Shape<dynamic>> wide(wide_memory.last(size), {{size}});
        assign(wide, x * y);
        assign(out, x * y);
        const auto evaluated = evaluate(x * 2 + x);
        static_assert(std::is_same_v<decltype(evaluated)::element, float>);
        for (std::size_t i = 0; i < size; ++i) {
            CAPTURE(size, i);
            REQUIRE(wide(i) == static_cast<float>(x(i)) * y(i));
            REQUIRE(out(i).bits() == bfloat16(static_cast<float>(x(i)) * y(i)).bits());
            REQUIRE(evaluated(i) == 3 * static_cast<float>(x(i)));
        }
    }
}

TEMPLATE_TEST_CASE("an elementwise chain may read what it overwrites", "[tensor]", float, double) {
    for (std::size_t size = 1; size <= largest; ++size) {
        Tensor<TestType, Shape<dynamic>> x(size);
        for (std::size_t i = 0; i < size; ++i) x(i) = static_cast<TestType>(i);
        assign(x, x * 2);
        assign(x, x + x);
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < size; ++i) wrong += x(i) != static_cast<TestType>(4 * i);
        CHECK(wrong == 0);
    }
    Tensor<TestType, Shape<dynamic, 3>> rows(2);
    for (std::size_t i = 0; i < 6; ++i) rows.elements()[i] = static_cast<TestType>(i + 1);
    assign(rows, rows / tandem::sum<1, true>(rows));  // the reduction is computed before anything is written
    CHECK(rows(1, 2) == Approx(6.0 / 15));
    CHECK(rows(0, 0) == Approx(1.0 / 6));
}

TEST_CASE("an expression keeps temporary tensors alive", "[tensor]") {
    const auto make = [] {
        Tensor<float, Shape<3>> local{1, 2, 3};
        return std::move(local) * 2 + Tensor<float, Shape<3>>{10, 20, 30};
    };
    const auto expression = make();
    const auto copy = expression;
    const auto result = evaluate(copy + expression);
    CHECK(result(0) == 24);
    CHECK(result(2) == 72);
}

TEST_CASE("large tensors and empty ones", "[tensor]") {
    const std::size_t size = 100'003;
    Tensor<float, Shape<dynamic>> x(size);
    for (std::size_t i = 0; i < size; ++i) x(i) = static_cast<float>(i % 1000);
    const auto y = evaluate(x * 3 + 1);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < size; ++i) wrong += y(i) != static_cast<float>(i % 1000) * 3 + 1;
    CHECK(wrong == 0);

    Tensor<float, Shape<dynamic, 7>> tall(30'001);
    Tensor<float, Shape<7>> row{1, 2, 3, 4, 5, 6, 7};
    const auto sum = evaluate(tall + row);
    for (std::size_t i = 0; i < sum.extent(0); ++i) wrong += sum(i, 6) != 7;
    CHECK(wrong == 0);

    const Tensor<float, Shape<dynamic, 7>> none;
    CHECK(evaluate(exp(none + row) * 2).size() == 0);
}

TEST_CASE("extents that disagree at run time are errors", "[tensor]") {
    const Tensor<float, Shape<dynamic, 3>> two(2), four(4);
    CHECK_THROWS_WITH(two + four, "elementwise operation: expected [2, 3], found [4, 3]");
    Tensor<float, Shape<dynamic, 3>> out(3);
    CHECK_THROWS_WITH(assign(out, two * 2), "elementwise operation: expected [3, 3], found [2, 3]");
    // A dynamic extent never stands for a broadcast 1.
    const Tensor<float, Shape<dynamic, 3>> one(1);
    CHECK_THROWS_WITH(one + four, "elementwise operation: expected [1, 3], found [4, 3]");
    CHECK_THROWS_AS(assign(out, one * 2), tandem::Error);
    Tensor<float, Shape<1, 3>> fixed;
    CHECK_THROWS_WITH(assign(fixed, four * 2), "assign: expected [1, 3], found [4, 3]");
}

namespace {

inline int calls = 0;

/// The identity, which counts how often it is computed.
struct Counted {
    template <class V>
    V operator()(const V& a) const {
        ++calls;
        return a;
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A&) {
        return g;
    }
};

}  // namespace

TEST_CASE("a common subexpression is computed once", "[tensor]") {
    Tensor<float, Shape<2, 2>> x{1, 2, 3, 4};
    const auto s = tandem::sum<1, true>(tandem::apply<Counted>(x));
    calls = 0;
    evaluate(x / s);
    const int once = calls;
    CHECK(once > 0);
    calls = 0;
    const auto result = evaluate(x / s + s * exp(s) - tandem::sum<1, true>(tandem::apply<Counted>(x)));
    CHECK(calls == once);
    CHECK(result(0, 0) == Approx(1.0 / 3 + 3 * std::exp(3.0) - 3));

    // Equal in type, but of another tensor, another extent or another number: computed again.
    const Tensor<float, Shape<2, 2>> y{5, 6, 7, 8};
    calls = 0;
    const auto difference = evaluate(tandem::sum<1, true>(tandem::apply<Counted>(y)) - s);
    CHECK(calls == 2 * once);
    CHECK(difference(0, 0) == 8);
    calls = 0;
    const auto scaled =
        evaluate(tandem::sum<1>(tandem::apply<Counted>(x) * 2) - tandem::sum<1>(tandem::apply<Counted>(x) * 3));
    CHECK(calls == 2 * once);
    CHECK(scaled(1) == -7);
    const Tensor<float, Shape<dynamic>> z{1, 2, 3, 4};
    const auto first = z.view().slice(0, 2), all = z.view().slice(0, 4);
    CHECK(evaluate(tandem::sum(all) - tandem::sum(first)).item() == 7);
}

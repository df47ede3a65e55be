#include <catch2/catch.hpp>
#include <concepts>
#include <cstddef>

#include <tandem/core/error.hpp>
#include <tandem/core/shape.hpp>

using tandem::Broadcast;
using tandem::broadcast_extents;
using tandem::can_broadcast;
using tandem::dynamic;
using tandem::Extents;
using tandem::Shape;
using tandem::WithoutAxis;

// NumPy's rule, statically.
static_assert(std::same_as<Broadcast<Shape<2, 3>, Shape<2, 3>>, Shape<2, 3>>);
static_assert(std::same_as<Broadcast<Shape<2, 3>, Shape<3>>, Shape<2, 3>>);
static_assert(std::same_as<Broadcast<Shape<3>, Shape<2, 1>>, Shape<2, 3>>);
static_assert(std::same_as<Broadcast<Shape<4, 1, 3>, Shape<2, 1>>, Shape<4, 2, 3>>);
static_assert(std::same_as<Broadcast<Shape<>, Shape<2>>, Shape<2>>);
static_assert(std::same_as<Broadcast<Shape<>, Shape<>>, Shape<>>);
static_assert(!can_broadcast<Shape<2, 3>, Shape<2>>);
static_assert(!can_broadcast<Shape<2, 3>, Shape<3, 3>>);
static_assert(!can_broadcast<Shape<2, 3>, Shape<2, 3, 2>>);
// A dynamic extent takes the other's, and is checked at run time.
static_assert(std::same_as<Broadcast<Shape<dynamic, 3>, Shape<2, 3>>, Shape<2, 3>>);
static_assert(std::same_as<Broadcast<Shape<dynamic, 3>, Shape<1, 3>>, Shape<dynamic, 3>>);
static_assert(std::same_as<Broadcast<Shape<dynamic>, Shape<dynamic, 1>>, Shape<dynamic, dynamic>>);

static_assert(std::same_as<WithoutAxis<Shape<2, 3, 4>, 0, false>, Shape<3, 4>>);
static_assert(std::same_as<WithoutAxis<Shape<2, 3, 4>, 1, true>, Shape<2, 1, 4>>);
static_assert(std::same_as<WithoutAxis<Shape<dynamic, 3>, 1, false>, Shape<dynamic>>);
static_assert(std::same_as<WithoutAxis<Shape<5>, 0, false>, Shape<>>);
static_assert(std::same_as<WithoutAxis<Shape<5>, 0, true>, Shape<1>>);

static_assert(Shape<2, dynamic, dynamic>::dynamic_count == 2);
static_assert(Shape<>::rank == 0 && Shape<>::extents.count() == 1);

TEST_CASE("extents count, compare and print", "[core]") {
    CHECK(Extents<3>{{2, 3, 4}}.count() == 24);
    CHECK(Extents<0>{}.count() == 1);
    CHECK(Extents<2>{{0, 9}}.count() == 0);
    CHECK(Extents<2>{{2, 3}} == Extents<2>{{2, 3}});
    CHECK_FALSE(Extents<2>{{2, 3}} == Extents<2>{{3, 2}});
    CHECK(Extents<0>{} == Extents<0>{});
    CHECK(to_string(Extents<2>{{2, dynamic}}) == "[2, ?]");
    CHECK(to_string(Extents<0>{}) == "[]");
    CHECK(to_string(Extents<1>{{77}}) == "[77]");
}

TEST_CASE("a shape admits run-time extents that agree with its static ones", "[core]") {
    CHECK(Shape<dynamic, 3>::admits({{7, 3}}));
    CHECK(Shape<dynamic, 3>::admits({{0, 3}}));
    CHECK_FALSE(Shape<dynamic, 3>::admits({{7, 4}}));
    CHECK(Shape<>::admits({}));
}

TEST_CASE("run-time extents are broadcast along static ones only", "[core]") {
    CHECK(broadcast_extents<Shape<dynamic, 3>, Shape<3>>({{4, 3}}, {{3}}) == Extents<2>{{4, 3}});
    CHECK(broadcast_extents<Shape<dynamic, 1>, Shape<1, dynamic>>({{4, 1}}, {{1, 5}}) == Extents<2>{{4, 5}});
    CHECK(broadcast_extents<Shape<>, Shape<dynamic>>({}, {{0}}) == Extents<1>{{0}});
    CHECK(broadcast_extents<Shape<2, 1>, Shape<dynamic, dynamic>>({{2, 1}}, {{2, 9}}) == Extents<2>{{2, 9}});
    const auto mismatch = [] { broadcast_extents<Shape<dynamic>, Shape<dynamic>>({{4}}, {{5}}); };
    CHECK_THROWS_WITH(mismatch(), "elementwise operation: expected [4], found [5]");
    const auto dynamic_one = [] { broadcast_extents<Shape<dynamic>, Shape<dynamic>>({{1}}, {{5}}); };
    CHECK_THROWS_WITH(dynamic_one(), "elementwise operation: expected [1], found [5]");
    const auto wrong_static = [] { broadcast_extents<Shape<dynamic, 3>, Shape<2, 3>>({{4, 3}}, {{2, 3}}); };
    CHECK_THROWS_AS(wrong_static(), tandem::Error);
}

TEST_CASE("run-time extents lose an axis as shapes do", "[core]") {
    const Extents<3> extents{{2, 3, 4}};
    CHECK(tandem::without_axis<1, false>(extents) == Extents<2>{{2, 4}});
    CHECK(tandem::without_axis<2, true>(extents) == Extents<3>{{2, 3, 1}});
    CHECK(tandem::without_axis<0, false>(Extents<1>{{9}}) == Extents<0>{});
}

TEST_CASE("an error says where, what was expected and what was found", "[core]") {
    const tandem::Error error("visual.proj", "[768, 512]", "[512, 768]");
    CHECK(error.what() == std::string("visual.proj: expected [768, 512], found [512, 768]"));
    CHECK(error.where() == "visual.proj");
    CHECK(tandem::Error("cat.png", "not an image").what() == std::string("cat.png: not an image"));
}

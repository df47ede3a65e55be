#include <array>
#include <catch2/catch.hpp>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/tensor/tensor.hpp>

using tandem::dynamic;
using tandem::Extents;
using tandem::Shape;
using tandem::Tensor;
using tandem::View;

TEST_CASE("a tensor is made with its extents and zeros", "[tensor]") {
    const Tensor<float, Shape<2, 3>> fixed;
    CHECK(fixed.size() == 6);
    CHECK(fixed.extents() == Extents<2>{{2, 3}});
    for (const float value : fixed.elements()) CHECK(value == 0);

    const Tensor<double, Shape<dynamic, 3, dynamic>> mixed(4, 5);
    CHECK(mixed.extents() == Extents<3>{{4, 3, 5}});
    CHECK(mixed.size() == 60);
    CHECK(mixed.extent(2) == 5);

    const Tensor<float, Shape<dynamic, 3>> empty;
    CHECK(empty.size() == 0);
    CHECK(empty.extents() == Extents<2>{{0, 3}});

    Tensor<float, Shape<>> scalar;
    CHECK(scalar.size() == 1);
    CHECK(scalar.item() == 0);
    scalar() = 4;
    CHECK(scalar.item() == 4);

    const Tensor<float, Shape<2, 2>> listed{1, 2, 3, 4};
    CHECK(listed(1, 0) == 3);
    const Tensor<tandem::Id, Shape<dynamic>> ids{7, 8, 9};
    CHECK(ids.extent(0) == 3);
    CHECK(ids(2) == 9);
    const Tensor<tandem::bf16, Shape<2>> halves{1.5f, -2.f};
    CHECK(halves(1) == -2.f);

    const Tensor<float, Shape<dynamic, 2>> from_extents(Extents<2>{{3, 2}});
    CHECK(from_extents.size() == 6);
}

TEST_CASE("a tensor's elements start on a cache line", "[tensor]") {
    for (std::size_t size = 1; size <= 65; ++size) {
        const Tensor<float, Shape<dynamic>> tensor(size);
        CHECK(reinterpret_cast<std::uintptr_t>(tensor.data()) % 64 == 0);
    }
}

TEST_CASE("wrong extents are errors that name both", "[tensor]") {
    using Rows = Tensor<float, Shape<dynamic, 3>>;
    CHECK_THROWS_WITH(Rows(Extents<2>{{2, 4}}), "Tensor: expected [?, 3], found [2, 4]");
    Rows rows(2);
    CHECK_THROWS_WITH(rows.resize(Extents<2>{{2, 4}}), "Tensor::resize: expected [?, 3], found [2, 4]");
    CHECK(rows.size() == 6);
    using Fixed = Tensor<float, Shape<2, 2>>;
    CHECK_THROWS_WITH((Fixed{1, 2, 3}), "Tensor: expected 4 elements for [2, 2], found 3");
    std::vector<float> elements(7);
    using Seen = View<float, Shape<dynamic, 3>>;
    CHECK_THROWS_WITH(Seen(std::span<float>(elements), 2), "View: expected 6 elements for [2, 3], found 7");
    CHECK_THROWS_AS(Seen(std::span<float>(elements), 3), tandem::Error);
}

TEST_CASE("copies of a tensor are deep, moves take the memory", "[tensor]") {
    Tensor<float, Shape<dynamic, 2>> tensor(2);
    std::iota(tensor.elements().begin(), tensor.elements().end(), 1.f);
    Tensor<float, Shape<dynamic, 2>> copy = tensor;
    copy(0, 0) = 99;
    CHECK(tensor(0, 0) == 1);
    tensor = copy;
    CHECK(tensor(0, 0) == 99);
    const float* const data = tensor.data();
    const Tensor<float, Shape<dynamic, 2>> moved = std::move(tensor);
    CHECK(moved.data() == data);
    CHECK(moved(1, 1) == 4);
    Tensor<float, Shape<dynamic, 2>> smaller(1);
    smaller = moved;
    CHECK(smaller.extent(0) == 2);
    CHECK(smaller(1, 1) == 4);
}

TEST_CASE("resizing to fewer elements keeps the memory", "[tensor]") {
    Tensor<float, Shape<dynamic, 4>> tensor(8);
    const float* const data = tensor.data();
    tensor.resize(3);
    CHECK(tensor.data() == data);
    CHECK(tensor.size() == 12);
    CHECK(tensor.elements().size() == 12);
    tensor.resize(8);
    CHECK(tensor.data() == data);
    tensor.fill(2);
    CHECK(tensor(7, 3) == 2);
    const Tensor<float, Shape<dynamic, 4>> copy = tensor;
    CHECK(copy.size() == 32);
}

TEST_CASE("indices are row-major", "[tensor]") {
    Tensor<int, Shape<dynamic, 3, 4>> tensor(2);
    std::iota(tensor.elements().begin(), tensor.elements().end(), 0);
    CHECK(tensor(1, 2, 3) == 23);
    CHECK(tensor(1, 0, 1) == 13);
    CHECK(std::as_const(tensor)(0, 2, 1) == 9);
    const auto item = tensor[1];
    CHECK(item.extents() == Extents<2>{{3, 4}});
    CHECK(item(2, 3) == 23);
    CHECK(item[2](3) == 23);
    CHECK(item[2][3]() == 23);
    item(0, 0) = -1;
    CHECK(tensor(1, 0, 0) == -1);
    static_assert(std::same_as<decltype(std::as_const(tensor)[0]), View<const int, Shape<3, 4>>>);
    static_assert(std::same_as<decltype(tensor[0]), View<int, Shape<3, 4>>>);
}

TEST_CASE("a slice shares the memory of its view", "[tensor]") {
    Tensor<int, Shape<dynamic, 2>> tensor(5);
    std::iota(tensor.elements().begin(), tensor.elements().end(), 0);
    const auto middle = tensor.view().slice(1, 4);
    CHECK(middle.extents() == Extents<2>{{3, 2}});
    CHECK(middle(0, 0) == 2);
    CHECK(middle(2, 1) == 7);
    middle(0, 0) = 100;
    CHECK(tensor(1, 0) == 100);
    CHECK(middle.slice(1, 1).size() == 0);
    CHECK(middle.slice(1, 2)(0, 1) == 5);
    const Tensor<int, Shape<dynamic, 2>> none;
    CHECK(none.view().slice(0, 0).size() == 0);
    CHECK_THROWS_WITH(tensor.view().slice(2, 9), "View::slice: expected items of 0 to 5, found 2 to 9");
    CHECK_THROWS_AS(tensor.view().slice(3, 2), tandem::Error);
}

TEST_CASE("views convert to const and to fewer static extents, never back", "[tensor]") {
    std::array<float, 6> elements{0, 1, 2, 3, 4, 5};
    const View<float, Shape<2, 3>> view{std::span<float>(elements)};
    const View<const float, Shape<2, 3>> constant = view;
    const View<const float, Shape<dynamic, 3>> loose = View<const float, Shape<dynamic, 3>>(constant);
    CHECK(loose(1, 2) == 5);
    CHECK(loose.extent(0) == 2);
    static_assert(!std::is_convertible_v<View<const float, Shape<3>>, View<float, Shape<3>>>);
    static_assert(!std::is_convertible_v<View<float, Shape<3>>, View<float, Shape<3, 1>>>);
    static_assert(!std::is_convertible_v<View<float, Shape<3>>, View<double, Shape<3>>>);
    const View<float, Shape<dynamic, 3>> empty;
    CHECK(empty.size() == 0);
    CHECK(empty.data() == nullptr);
}

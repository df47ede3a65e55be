// A transformer whose last block computes the picked rows alone, against the same one computing all of them.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <tandem/nn/transformer.hpp>

namespace td = tandem;

namespace {

constexpr td::BlockParts<td::LayerNorm, td::SelfAttention, td::Mlp, td::Gelu> plain{};

template <class T, std::size_t width, bool causal, std::size_t layers, auto parts = plain>
void compare() {
    constexpr td::BlockShape shape{
        .width = width, .heads = 4, .kv_heads = 2, .head_width = width / 4, .hidden = 2 * width, .tokens = 9};
    using Blocks = td::nn::Transformer<T, shape, parts>;
    td::Random random{td::Seed{5}};
    Blocks blocks(layers), dense_gradient(layers), picked_gradient(layers);
    blocks.initialise(random);
    td::zero_parameters(dense_gradient);
    td::zero_parameters(picked_gradient);
    // A picked row may stand anywhere in its sequence.
    const std::vector<std::size_t> offsets{0, 4, 5, 14, 17}, picked{3, 4, 9, 14};
    const std::size_t rows = offsets.back(), count = picked.size();
    const td::Sequences<T> sequences{.offsets = offsets, .positions = {}, .causal = causal};

    typename Blocks::Saved dense, few;
    auto input = blocks.input(rows, dense);
    for (T& x : input.elements()) x = static_cast<T>(random.normal());
    std::memcpy(blocks.input(rows, few).data(), input.data(), rows * width * sizeof(T));
    // Both draw the same drops.
    std::vector<td::Random> drops;
    for (std::size_t i = 0; i < count; ++i) drops.emplace_back(td::Seed{6}, i);
    std::vector<td::Random> same_drops = drops;
    const auto all = blocks.forward(sequences, dense, true, drops);
    const auto some = blocks.forward_picked(sequences, picked, few, true, same_drops);
    REQUIRE(some.extent(0) == count);
    for (std::size_t i = 0; i < count; ++i) {
        CHECK(std::memcmp(some.data() + i * width, all.data() + picked[i] * width, width * sizeof(T)) == 0);
    }
    if constexpr (parts.drop_path_rate == 0) {
        typename Blocks::Saved forgetful;
        std::memcpy(blocks.input(rows, forgetful).data(), input.data(), rows * width * sizeof(T));
        CHECK(std::memcmp(blocks.forward_picked(sequences, picked, forgetful, false, {}).data(), some.data(),
                          count * width * sizeof(T)) == 0);
    }

    td::Tensor<T, td::Shape<td::dynamic, width>> g(rows), g_picked(count), g_all(rows);
    g.fill(0);
    for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t j = 0; j < width; ++j) g(picked[i], j) = g_picked(i, j) = static_cast<T>(random.normal());
    }
    blocks.backward(g, sequences, dense, dense_gradient);
    blocks.backward_picked(g_picked, g_all, sequences, picked, few, picked_gradient);
    // The same sums in another order, zeros left out.
    const double tolerance = 2000 * std::numeric_limits<T>::epsilon();
    const auto same = [&](std::span<const T> a, std::span<const T> b) {
        double difference = 0, norm = 0;
        for (std::size_t i = 0; i < a.size(); ++i) {
            difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
            norm += std::pow(static_cast<double>(a[i]), 2);
        }
        return std::sqrt(difference) <= tolerance * (std::sqrt(norm) + 1);
    };
    CHECK(same(g.elements(), g_all.elements()));
    td::for_each_parameter(
        [&](const std::string& name, const auto& a, const auto& b) {
            INFO(name);
            CHECK(same(a.elements(), b.elements()));
        },
        dense_gradient, picked_gradient);
}

}  // namespace

TEMPLATE_TEST_CASE("picked rows have the bits of the dense computation, and its gradients", "[nn]", float, double) {
    compare<TestType, 64, false, 2>();
    compare<TestType, 64, true, 2>();
    compare<TestType, 64, true, 1>();
    compare<TestType, 48, true, 2>();  // no multiple of AVX-512's panels: computed in full, then picked
}

TEMPLATE_TEST_CASE("picked rows of other blocks", "[nn]", float, double) {
    using Parts = std::remove_const_t<decltype(plain)>;
    constexpr Parts post = [] { Parts parts; parts.norm_position = td::NormPosition::post; return parts; }();
    constexpr Parts parallel = [] { Parts parts; parts.parallel = true; parts.qk_norm = true; return parts; }();
    constexpr Parts sandwich = [] {
        Parts parts;
        parts.norm_position = td::NormPosition::sandwich;
        parts.ls_init_value = 0.5;
        parts.drop_path_rate = 0.5;
        return parts;
    }();
    compare<TestType, 64, true, 2, post>();
    compare<TestType, 64, false, 2, parallel>();
    compare<TestType, 64, true, 2, sandwich>();
}

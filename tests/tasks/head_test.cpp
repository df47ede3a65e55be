// Heads as their files have them, folded and not.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <tandem/core/random.hpp>
#include <tandem/files/safetensors.hpp>
#include <tandem/tasks/head.hpp>

namespace td = tandem;
using Catch::Matchers::Contains;

namespace {

std::filesystem::path scratch(const char* name) { return std::filesystem::temp_directory_path() / name; }

/// Layers of these widths under names of these kinds.
struct Saved {
    std::vector<std::vector<float>> values;
    std::filesystem::path path = scratch("tandem_head.safetensors");

    Saved(const std::vector<std::size_t>& widths, const std::vector<std::string>& names) {
        td::Random random{td::Seed{1}};
        std::vector<td::StoredTensor> tensors;
        for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
            for (const std::size_t size : {widths[i] * widths[i + 1], widths[i + 1]}) {
                auto& some = values.emplace_back(size);
                for (float& value : some) value = static_cast<float>(random.normal());
            }
        }
        for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
            tensors.push_back(td::stored_tensor<float>(names[i] + ".weight", {widths[i + 1], widths[i]}, values[2 * i]));
            tensors.push_back(td::stored_tensor<float>(names[i] + ".bias", {widths[i + 1]}, values[2 * i + 1]));
        }
        std::ranges::reverse(tensors);  // the numbers decide, not the order
        td::save_safetensors(path, tensors);
    }
    ~Saved() { std::filesystem::remove(path); }
    Saved(const Saved&) = delete;
    Saved& operator=(const Saved&) = delete;

    /// What the layers make of a row, in double.
    template <class Between>
    std::vector<double> of(std::vector<double> row, const Between& between) const {
        for (std::size_t i = 0; i < values.size(); i += 2) {
            std::vector<double> next(values[i + 1].begin(), values[i + 1].end());
            for (std::size_t j = 0; j < next.size(); ++j) {
                for (std::size_t k = 0; k < row.size(); ++k) next[j] += static_cast<double>(values[i][j * row.size() + k]) * (i == 0 ? row[k] : between(row[k]));
            }
            row = next;
        }
        return row;
    }
};

}  // namespace

TEST_CASE("layers without anything between them are one") {
    // The improved aesthetic predictor's names: dropouts stand between.
    const Saved saved({6, 9, 5, 4, 3, 1}, {"layers.0", "layers.2", "layers.4", "layers.6", "layers.7"});
    const td::Head head = td::Head::load(saved.path, td::HeadActivation::none);
    CHECK(head.layers() == 1);
    CHECK(head.in() == 6);
    CHECK(head.out() == 1);
    const std::vector<float> row{0.1F, -0.2F, 0.3F, 0.4F, -0.5F, 0.6F};
    const double expected = saved.of({row.begin(), row.end()}, [](double x) { return x; })[0];
    CHECK(head(row)[0] == Approx(expected).epsilon(1e-5));
}

TEST_CASE("layers with ReLU between them, numbered beyond nine") {
    const Saved saved({4, 8, 7, 2}, {"linear_2", "linear_10", "linear_11"});
    const td::Head head = td::Head::load(saved.path, td::HeadActivation::relu);
    CHECK(head.layers() == 3);
    const std::vector<float> rows{0.1F, -0.2F, 0.3F, 0.4F, -1, 0.5F, 0, 2};
    const std::vector<float> found = head(rows);
    REQUIRE(found.size() == 4);
    for (std::size_t row = 0; row < 2; ++row) {
        const auto expected = saved.of({rows.begin() + 4 * static_cast<std::ptrdiff_t>(row), rows.begin() + 4 * static_cast<std::ptrdiff_t>(row + 1)}, [](double x) { return std::max(x, 0.0); });
        for (std::size_t j = 0; j < 2; ++j) CHECK(found[2 * row + j] == Approx(expected[j]).epsilon(1e-5).margin(1e-5));
    }
}

TEST_CASE("what is no head is named") {
    const std::vector<float> some(4);
    const auto load = [&](const std::vector<td::StoredTensor>& tensors) {
        td::save_safetensors(scratch("tandem_head.safetensors"), tensors);
        return td::Head::load(scratch("tandem_head.safetensors"), td::HeadActivation::relu);
    };
    CHECK_THROWS_WITH(load({td::stored_tensor<float>("0.weight", {2, 2}, some), td::stored_tensor<float>("0.running_mean", {4}, some)}),
                      Contains("weights and biases of dense layers, found 0.running_mean"));
    CHECK_THROWS_WITH(load({td::stored_tensor<float>("0.weight", {2, 2}, some)}), Contains("weight and bias of layer 0, found 0.weight alone"));
    CHECK_THROWS_WITH(load({td::stored_tensor<float>("0.weight", {2, 2}, some), td::stored_tensor<float>("0.bias", {4}, some)}), Contains("a matrix and as many biases"));
    const std::vector<float> broken{1, 2, std::numeric_limits<float>::quiet_NaN(), 4};
    CHECK_THROWS_WITH(load({td::stored_tensor<float>("0.weight", {1, 4}, broken), td::stored_tensor<float>("0.bias", {1}, std::span(some).first(1))}),
                      Contains("infinities or NaN in 0.weight"));
    std::filesystem::remove(scratch("tandem_head.safetensors"));
}

TEST_CASE("a projector is read under all of its names") {
    const std::vector<float> first{1, 0, 0, 1, 1, 1}, first_bias{0.5F, -0.2F, 0}, second{1, 2, 3}, second_bias{0.25F};
    const auto save = [&](const char* name, const std::string& one, const std::string& other, bool whole = true) {
        std::vector tensors{td::stored_tensor<float>(one + ".weight", {3, 2}, first), td::stored_tensor<float>(one + ".bias", {3}, first_bias),
                            td::stored_tensor<float>(other + ".weight", {1, 3}, second)};
        if (whole) tensors.push_back(td::stored_tensor<float>(other + ".bias", {1}, second_bias));
        td::save_safetensors(scratch(name), tensors);
        return scratch(name);
    };
    const auto gelu = [](double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); };
    const std::vector<float> rows{1, -1, 0, 0};
    for (const auto& [one, other] : {std::pair{"model.mm_projector.0", "model.mm_projector.2"}, {"multi_modal_projector.linear_1", "multi_modal_projector.linear_2"}}) {
        const td::Head projector = td::Head::load_projector(save("tandem_projector.safetensors", one, other));
        CHECK(projector.in() == 2);
        CHECK(projector.out() == 1);
        const std::vector<float> found = projector(rows);
        REQUIRE(found.size() == 2);
        CHECK(found[0] == Approx(gelu(1.5) + 2 * gelu(-1.2) + 3 * gelu(0) + 0.25).margin(1e-6));
        CHECK(found[1] == Approx(gelu(0.5) + 2 * gelu(-0.2) + 0.25).margin(1e-6));
        CHECK_THROWS_WITH(projector(std::vector<float>(3)), Contains("Head: expected rows of width 2"));
    }
    td::save_safetensors(scratch("tandem_projector.safetensors"), std::vector{td::stored_tensor<float>("mm_projector.weight", {3, 2}, first), td::stored_tensor<float>("mm_projector.bias", {3}, first_bias)});
    CHECK(td::Head::load_projector(scratch("tandem_projector.safetensors"))(rows)[0] == Approx(1.5));
    CHECK_THROWS_WITH(td::Head::load_projector(save("tandem_projector.safetensors", "mm_projector.0", "mm_projector.2", false)), Contains("weight and bias of layer 2, found mm_projector.2.weight alone"));
    CHECK_THROWS_WITH(td::Head::load_projector(save("tandem_projector.safetensors", "mm_projector.2", "mm_projector.0")), Contains("a layer of 1 inputs behind one of as many outputs"));
    CHECK_THROWS_WITH(td::Head::load_projector(save("tandem_projector.safetensors", "mm_projector.1", "mm_projector.x1")), Contains("layers with numbers of their own"));
    CHECK_THROWS_WITH(td::Head::load_projector(save("tandem_projector.safetensors", "proj.0", "proj.2")), Contains("its projector: expected weights and biases of dense layers, found none"));
    std::filesystem::remove(scratch("tandem_projector.safetensors"));
}

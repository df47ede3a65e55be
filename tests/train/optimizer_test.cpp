// AdamW, Lion, Muon and SGD against their formulas in double, and PyTorch's; what a factor does to a parameter's rate.
#include <catch2/catch.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/tensor/packed.hpp>
#include <tandem/train/any_optimizer.hpp>
#include <tandem/train/optimizer.hpp>

namespace td = tandem;

namespace {

struct Two {
    td::Tensor<double, td::Shape<2, 3>> matrix;
    td::Tensor<double, td::Shape<3>> vector;

    static void parameters(const auto& visit, const std::string& at, auto&... self) {
        visit(at + "matrix", self.matrix...);
        visit(at + "vector", self.vector...);
    }
};

struct Normed {
    td::Tensor<float, td::Shape<3>> vector;
    td::RunningMean<float> mean = td::RunningMean<float>(3);

    static void parameters(const auto& visit, const std::string& at, auto&... self) {
        visit(at + "vector", self.vector...);
        visit(at + "mean", self.mean...);
    }
};

}  // namespace

TEST_CASE("AdamW decays matrices only, apart from the gradient, and corrects its moments' bias") {
    const td::AdamW optimizer{.rate = 0.1, .beta1 = 0.8, .beta2 = 0.9, .eps = 1e-3, .weight_decay = 0.5};
    Two model, gradient;
    td::AdamW::State<Two> state;
    td::Random random{td::Seed{1}};
    td::fill_normal(model.matrix, random, 1.0);
    td::fill_normal(model.vector, random, 1.0);
    const Two start = model;
    double m = 0, v = 0, matrix = start.matrix(1, 2), vector = start.vector(0), mv = 0, vv = 0;
    for (int step = 1; step <= 5; ++step) {
        td::fill_normal(gradient.matrix, random, 1.0);
        td::fill_normal(gradient.vector, random, 1.0);
        optimizer.update(model, gradient, state, 0.1, 0.5);
        const auto update = [&](double p, double g, double& first, double& second, double decay) {
            g *= 0.5;
            first = 0.8 * first + 0.2 * g;
            second = 0.9 * second + 0.1 * g * g;
            const double corrected = first / (1 - std::pow(0.8, step));
            return p * (1 - decay) - 0.1 * corrected / (std::sqrt(second / (1 - std::pow(0.9, step))) + 1e-3);
        };
        matrix = update(matrix, gradient.matrix(1, 2), m, v, 0.05);
        vector = update(vector, gradient.vector(0), mv, vv, 0.0);
        CHECK(model.matrix(1, 2) == Approx(matrix).epsilon(1e-12));
        CHECK(model.vector(0) == Approx(vector).epsilon(1e-12));
    }
    CHECK(state.updates == 5);
}

namespace {

/// Five updates, beside those of one element of a matrix, which decays, and of a vector, which does not, by
/// step(weight, gradient, momentum, decays).
template <class Optimizer>
void follow(const Optimizer& optimizer, double scale, const auto& step) {
    Two model, gradient;
    typename Optimizer::template State<Two> state;
    td::Random random{td::Seed{1}};
    td::fill_normal(model.matrix, random, 1.0);
    td::fill_normal(model.vector, random, 1.0);
    double matrix = model.matrix(1, 2), vector = model.vector(0), of_matrix = 0, of_vector = 0;
    for (int i = 0; i < 5; ++i) {
        td::fill_normal(gradient.matrix, random, 1.0);
        td::fill_normal(gradient.vector, random, 1.0);
        CHECK(optimizer.update(model, gradient, state, 0.1, scale));
        step(matrix, scale * gradient.matrix(1, 2), of_matrix, true);
        step(vector, scale * gradient.vector(0), of_vector, false);
        CHECK(model.matrix(1, 2) == Approx(matrix).epsilon(1e-12));
        CHECK(model.vector(0) == Approx(vector).epsilon(1e-12));
    }
    CHECK(state.updates == 5);
}

}  // namespace

TEST_CASE("AdamW that clips updates takes smaller steps where gradients outgrow their second moment") {
    const td::AdamW optimizer{.beta1 = 0.8, .beta2 = 0.9, .eps = 1e-3, .weight_decay = 0.5, .clip_update = true};
    Two model, gradient;
    td::AdamW::State<Two> state;
    td::Random random{td::Seed{1}};
    td::fill_normal(model.matrix, random, 1.0);
    std::vector<double> p(model.matrix.data(), model.matrix.data() + 6), m(6), v(6);
    bool was_clipped = false, was_not = false;
    for (int step = 1; step <= 6; ++step) {
        td::fill_normal(gradient.matrix, random, step == 4 ? 50.0 : 1.0);
        CHECK(optimizer.update(model, gradient, state, 0.1, 0.5));
        double squares = 0;
        const double correction = 1 / (1 - std::pow(0.9, step));
        for (std::size_t i = 0; i < 6; ++i) {
            const double g = 0.5 * gradient.matrix.data()[i];
            m[i] = 0.8 * m[i] + 0.2 * g;
            v[i] = 0.9 * v[i] + 0.1 * g * g;
            squares += g * g / std::max(correction * v[i], 1e-6);
        }
        const double excess = std::max(1.0, std::sqrt(squares / 6)), rate = 0.1 / excess;
        (excess > 1 ? was_clipped : was_not) = true;
        for (std::size_t i = 0; i < 6; ++i) {
            p[i] = p[i] * (1 - rate * 0.5) - rate * m[i] / (1 - std::pow(0.8, step)) / (std::sqrt(correction * v[i]) + 1e-3);
            CHECK(model.matrix.data()[i] == Approx(p[i]).epsilon(1e-12));
        }
    }
    CHECK(was_clipped);
    CHECK(was_not);
}

TEST_CASE("Lion steps by a sign") {
    follow(td::Lion{.beta1 = 0.8, .beta2 = 0.9, .weight_decay = 0.5}, 0.5, [](double& p, double g, double& m, bool decays) {
        const double direction = 0.8 * m + 0.2 * g;
        p = p * (decays ? 1 - 0.1 * 0.5 : 1) - 0.1 * (direction > 0 ? 1 : direction < 0 ? -1 : 0);
        m = 0.9 * m + 0.1 * g;
    });
}

TEST_CASE("SGD adds decay to the gradient, and momentum as torch.optim.SGD does") {
    for (const bool nesterov : {false, true}) {
        follow(td::Sgd{.momentum = 0.7, .weight_decay = 0.3, .nesterov = nesterov}, 0.5, [&](double& p, double g, double& m, bool decays) {
            g += (decays ? 0.3 : 0) * p;
            m = 0.7 * m + g;
            p -= 0.1 * (nesterov ? g + 0.7 * m : m);
        });
    }
}

namespace {

/// Parameters of every kind: matrices of blocks, another matrix, a vector.
struct Kinds {
    td::Tensor<double, td::Shape<5, 3>> tall;
    td::Tensor<double, td::Shape<3, 7>> wide;
    td::Tensor<double, td::Shape<4, 6>> embedding;
    td::Tensor<double, td::Shape<5>> vector;

    static void parameters(const auto& visit, const std::string& at, auto&... self) {
        visit(at + "blocks.0.tall", self.tall...);
        visit(at + "blocks.1.wide", self.wide...);
        visit(at + "embedding", self.embedding...);
        visit(at + "vector", self.vector...);
    }

    /// function(number) for every element of all.
    static Kinds made(const auto& function) {
        Kinds kinds;
        std::size_t k = 0;
        td::for_each_parameter(
            [&](const auto&, auto& tensor) {
                for (double& element : tensor.elements()) element = function(static_cast<double>(k++));
            },
            kinds);
        return kinds;
    }
};

/// Losses of PyTorch's and timm's steps (make_optimizer_goldens.py), and how far the optimizer's are from them at most.
template <class Optimizer>
double distance_from_torch(const std::string& name, const Optimizer& optimizer) {
    std::ifstream file(TANDEM_TEST_DATA "/train/fixtures/optimizers.txt");
    std::string word;
    while (file >> word && word != name) file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    REQUIRE(word == name);
    Kinds model = Kinds::made([](double k) { return std::sin(0.7 * k + 1); });
    const Kinds target = Kinds::made([](double k) { return std::cos(0.3 * k); }), curvature = Kinds::made([](double k) { return 1 + 0.5 * std::sin(k); });
    Kinds gradient;
    typename Optimizer::template State<Kinds> state;
    if constexpr (requires { optimizer.prepare(state); }) optimizer.prepare(state);
    double most = 0;
    for (int step = 0; step < 20; ++step) {
        double loss = 0, expected = 0;
        td::for_each_parameter(
            [&](const auto&, auto& slope, const auto& weights, const auto& targets, const auto& curvatures) {
                for (std::size_t i = 0; i < slope.size(); ++i) {
                    const double distance = weights.data()[i] - targets.data()[i];
                    slope.data()[i] = curvatures.data()[i] * distance;
                    loss += 0.5 * curvatures.data()[i] * distance * distance;
                }
            },
            gradient, model, target, curvature);
        REQUIRE(file >> expected);
        most = std::max(most, std::abs(loss - expected));
        REQUIRE(optimizer.update(model, gradient, state, optimizer.rate));
    }
    return most;
}

}  // namespace

TEST_CASE("twenty steps are PyTorch's, and timm's for Lion") {
    CHECK(distance_from_torch("adamw", td::AdamW{.rate = 0.05}) < 1e-10);
    CHECK(distance_from_torch("lion", td::Lion{.rate = 0.02, .weight_decay = 0.5}) < 1e-10);
    CHECK(distance_from_torch("sgd", td::Sgd{.rate = 0.1, .weight_decay = 0.1}) < 1e-10);
    CHECK(distance_from_torch("nesterov", td::Sgd{.rate = 0.1, .weight_decay = 0.1, .nesterov = true}) < 1e-10);
    CHECK(distance_from_torch("muon", td::Muon{.rate = 0.05, .momentum = 0.9}) < 1e-10);
    CHECK(distance_from_torch("plain_muon", td::Muon{.rate = 0.05, .momentum = 0.9, .nesterov = false}) < 1e-10);
}

TEST_CASE("an optimizer that is chosen at run time is that optimizer") {
    const std::string names[]{"adamw", "lion", "muon", "nesterov"};
    const td::AnyOptimizer optimizers[]{td::AdamW{.rate = 0.05}, td::Lion{.rate = 0.02, .weight_decay = 0.5}, td::Muon{.rate = 0.05, .momentum = 0.9},
                                        td::Sgd{.rate = 0.1, .weight_decay = 0.1, .nesterov = true}};
    for (std::size_t i = 0; i < 4; ++i) CHECK(distance_from_torch(names[i], optimizers[i]) < 1e-10);
    CHECK_THROWS_WITH(td::AnyOptimizer(td::Lion{.beta2 = 1}).check(), "Lion.beta2: expected a number from 0 to below 1, found 1");
    td::AnyOptimizer::State<Kinds> state;
    std::vector<std::string> moments;
    const auto list = [&] { td::AnyOptimizer::State<Kinds>::moments([&](const char* name, const Kinds&) { moments.emplace_back(name); }, std::as_const(state)); };
    list();
    Kinds model, gradient;
    CHECK_THROWS_WITH(optimizers[1].update(model, gradient, state, 0.1), "AnyOptimizer::update: expected a state that prepare() made ready, found another");
    optimizers[1].prepare(state);
    list();
    CHECK(moments == std::vector<std::string>{"momentum."});
}

namespace {

/// A matrix of a block, row by row or in the panels of products, whose last one it does not fill.
template <class Matrix>
struct OneMatrix {
    Matrix matrix;

    static void parameters(const auto& visit, const std::string& at, auto&... self) { visit(at + "blocks.0.matrix", self.matrix...); }
};

}  // namespace

TEST_CASE("Muon orthogonalises matrices in panels as those in rows") {
    using Rows = td::Tensor<float, td::Shape<37, 21>>;
    OneMatrix<Rows> model, gradient;
    OneMatrix<td::PackedMatrix<float, td::Shape<37, 21>>> packed, of_packed;
    td::Muon::State<decltype(model)> state;
    td::Muon::State<decltype(packed)> of_panels;
    td::Random random{td::Seed{1}};
    td::fill_normal(model.matrix, random, 1.0);
    td::from_row_major(packed.matrix, model.matrix);
    for (int step = 0; step < 3; ++step) {
        td::fill_normal(gradient.matrix, random, 1.0);
        td::from_row_major(of_packed.matrix, gradient.matrix);
        CHECK(td::Muon{}.update(model, gradient, state, 0.1));
        CHECK(td::Muon{}.update(packed, of_packed, of_panels, 0.1));
    }
    const Rows found = td::to_row_major(packed.matrix);
    for (std::size_t i = 0; i < found.size(); ++i) CHECK(found.data()[i] == Approx(model.matrix.data()[i]).margin(1e-6));
}

TEST_CASE("Muon's products are the model's") {
    OneMatrix<td::PackedMatrix<float, td::Shape<48, 32>>> model, gradient;
    OneMatrix<td::PackedMatrix<td::amp_bf16, td::Shape<48, 32>>> reduced, of_reduced;
    td::Random random{td::Seed{1}};
    td::Tensor<float, td::Shape<48, 32>> start, slope;
    td::fill_normal(start, random, 1.0), td::fill_normal(slope, random, 1.0);
    td::from_row_major(model.matrix, start), td::from_row_major(reduced.matrix, start);
    td::from_row_major(gradient.matrix, slope), td::from_row_major(of_reduced.matrix, slope);
    td::Muon::State<decltype(model)> state;
    td::Muon::State<decltype(reduced)> of_state;
    CHECK(td::Muon{.weight_decay = 0}.update(model, gradient, state, 0.1));
    CHECK(td::Muon{.weight_decay = 0}.update(reduced, of_reduced, of_state, 0.1));
    const auto whole = td::to_row_major(model.matrix), rounded = td::to_row_major(reduced.matrix);
    double squares = 0, difference = 0;
    for (std::size_t i = 0; i < start.size(); ++i) {
        squares += std::pow(whole.data()[i] - start.data()[i], 2);
        difference += std::pow(rounded.data()[i] - whole.data()[i], 2);
    }
    // Both factors of fifteen products are rounded, each by 2^-9 at most.
    CHECK(std::sqrt(difference / squares) < 15 * 2.0 / 512);
}

TEST_CASE("Muon has the matrices of blocks, AdamW layers of projections") {
    CHECK(td::detail::is_of_block("visual.transformer.resblocks.11.mlp.c_fc.weight"));
    CHECK(td::detail::is_of_block("visual.trunk.blocks.0.attn.proj.weight"));
    CHECK_FALSE(td::detail::is_of_block("text_projection.2.weight"));
    CHECK_FALSE(td::detail::is_of_block("visual.proj"));
    CHECK_FALSE(td::detail::is_of_block("token_embedding.weight"));
}

TEMPLATE_TEST_CASE("a factor of 0 leaves a parameter alone, another one multiplies its rate", "", td::AdamW, td::Lion, td::Muon, td::Sgd) {
    const TestType optimizer{.rate = 0.1, .weight_decay = 0.5};
    Two slow, whole, gradient;
    td::Random random{td::Seed{1}};
    td::fill_normal(slow.matrix, random, 1.0);
    td::fill_normal(slow.vector, random, 1.0);
    whole = slow;
    const Two start = slow;
    gradient.matrix.fill(0.5);
    gradient.vector.fill(0.5);
    const td::RateFactor factor = [](std::string_view name) { return name == "matrix" ? 0.5 : 0.0; };
    typename TestType::template State<Two> state, other;
    CHECK(optimizer.update(slow, gradient, state, 0.1, 1.0, factor));
    CHECK(optimizer.update(whole, gradient, other, 0.05, 1.0));
    for (std::size_t i = 0; i < 6; ++i) CHECK(slow.matrix.data()[i] == whole.matrix.data()[i]);
    for (std::size_t i = 0; i < 3; ++i) CHECK(slow.vector.data()[i] == start.vector.data()[i]);
    CHECK(td::gradient_norm(gradient, factor) == Approx(std::sqrt(6 * 0.25)));
}

TEST_CASE("the norm of a gradient is over all parameters, and not finite where one element is not") {
    Two gradient;
    gradient.matrix.fill(2.0);
    gradient.vector.fill(3.0);
    CHECK(td::gradient_norm(gradient) == Approx(std::sqrt(6 * 4.0 + 3 * 9.0)));
    gradient.vector(2) = std::nan("");
    CHECK(std::isnan(td::gradient_norm(gradient)));
    gradient.vector(2) = INFINITY;
    CHECK(std::isinf(td::gradient_norm(gradient)));
}

TEST_CASE("a running mean's difference that is not finite makes the norm not finite, though it is no part of it") {
    Normed gradient;
    gradient.vector.fill(2.0F);
    gradient.mean.fill(5.0F);
    CHECK(td::gradient_norm(gradient) == Approx(std::sqrt(12.0)));
    gradient.mean.data()[1] = INFINITY;
    CHECK_FALSE(std::isfinite(td::gradient_norm(gradient)));
}

TEST_CASE("an update says whether the weights are finite after it") {
    Two model, gradient;
    td::AdamW::State<Two> state;
    gradient.matrix.fill(1.0);
    gradient.vector.fill(1.0);
    CHECK(td::AdamW{}.update(model, gradient, state, 1e-3));
    CHECK_FALSE(td::AdamW{}.update(model, gradient, state, INFINITY));
    CHECK_FALSE(td::AdamW{}.update(model, gradient, state, std::nan("")));
}

TEST_CASE("an optimizer's options are checked, by name") {
    const double inf = INFINITY, nan = std::nan("");
    const auto refused = [](const td::AdamW& optimizer, const std::string& sentence) {
        CHECK_THROWS_WITH(optimizer.check(), sentence);
    };
    CHECK_NOTHROW(td::AdamW{}.check());
    CHECK_NOTHROW(td::AdamW{.rate = 1e-9, .beta1 = 0, .beta2 = 0, .weight_decay = 0}.check());
    refused({.rate = 0}, "AdamW.rate: expected a finite number above 0, found 0");
    refused({.rate = -1e-3}, "AdamW.rate: expected a finite number above 0, found -0.001");
    refused({.rate = nan}, "AdamW.rate: expected a finite number above 0, found nan");
    refused({.rate = inf}, "AdamW.rate: expected a finite number above 0, found inf");
    refused({.beta1 = 1}, "AdamW.beta1: expected a number from 0 to below 1, found 1");
    refused({.beta1 = -0.1}, "AdamW.beta1: expected a number from 0 to below 1, found -0.1");
    refused({.beta2 = nan}, "AdamW.beta2: expected a number from 0 to below 1, found nan");
    refused({.eps = 0}, "AdamW.eps: expected a finite number, 1.2e-38 or above, found 0");
    refused({.eps = inf}, "AdamW.eps: expected a finite number, 1.2e-38 or above, found inf");
    refused({.weight_decay = -0.2}, "AdamW.weight_decay: expected a finite number, 0 or above, found -0.2");
    refused({.weight_decay = nan}, "AdamW.weight_decay: expected a finite number, 0 or above, found nan");
    CHECK_THROWS_WITH(td::Lion{.beta2 = 1}.check(), "Lion.beta2: expected a number from 0 to below 1, found 1");
    CHECK_THROWS_WITH(td::Lion{.rate = 0}.check(), "Lion.rate: expected a finite number above 0, found 0");
    CHECK_THROWS_WITH(td::Muon{.momentum = 1}.check(), "Muon.momentum: expected a number from 0 to below 1, found 1");
    CHECK_THROWS_WITH(td::Muon{.eps = 0}.check(), "Muon.eps: expected a finite number, 1.2e-38 or above, found 0");
    CHECK_THROWS_WITH(td::Sgd{.momentum = -1}.check(), "Sgd.momentum: expected a number from 0 to below 1, found -1");
    CHECK_THROWS_WITH(td::Sgd{.weight_decay = nan}.check(), "Sgd.weight_decay: expected a finite number, 0 or above, found nan");
}

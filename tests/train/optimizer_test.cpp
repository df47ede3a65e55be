// AdamW against its formula in double, schedules at their corners.
#include <catch2/catch.hpp>

#include <cmath>

#include <tandem/train/optimizer.hpp>
#include <tandem/train/schedule.hpp>

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

TEST_CASE("warm-up is linear, the cosine ends at its floor") {
    const td::WarmupCosine schedule{.warmup = 0.2, .floor = 0.1};
    CHECK(schedule(0.0) == 0.0);
    CHECK(schedule(0.1) == Approx(0.5));
    CHECK(schedule(0.2) == Approx(1.0));
    CHECK(schedule(0.6) == Approx(0.55));
    CHECK(schedule(1.0) == Approx(0.1));
    CHECK(schedule(1.5) == Approx(0.1));
}

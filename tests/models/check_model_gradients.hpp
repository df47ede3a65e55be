// Whole models against central differences.
#pragma once

#include <catch2/catch.hpp>

#include <tandem/models/check_gradients.hpp>

template <auto config, class L>
void check_model_gradients(const L& loss) {
    const tandem::GradientCheck worst = tandem::check_gradients<config>(loss, tandem::Seed{7});
    INFO(worst.parameter);
    CHECK(worst.difference <= 1e-5);
}

// Whether backward is the derivative of forward: central differences for a whole model, and so for a part of a user's own.
#pragma once

#include <cmath>
#include <cstddef>
#include <string>
#include <string_view>

#include <tandem/core/random.hpp>
#include <tandem/losses/contrastive.hpp>
#include <tandem/models/clip.hpp>

namespace tandem::inline TANDEM_ABI {

/// What check_gradients found: the parameter whose gradient is furthest off, and how far: the L2 norm of its difference
/// from central differences, over that of the latter.
struct GradientCheck {
    std::string parameter;
    double difference = 0;
};

namespace detail {

/// Random pixels, and captions that end at different places.
template <class Model>
struct RandomPairs {
    static constexpr std::size_t count = 4;
    Tensor<typename Model::C, typename Model::Vision::Input::shape> images{count};
    Tensor<Id, typename Model::Text::Input::shape> ids{count};

    explicit RandomPairs(Random& random) {
        constexpr std::size_t context = Model::Text::Input::shape::extents[1];
        const std::size_t end = Model::architecture.text.vocabulary - 1;
        for (auto& pixel : images.elements()) pixel = static_cast<typename Model::C>(random.normal());
        for (std::size_t i = 0; i < count; ++i) {
            for (Id& id : ids[i].elements()) id = static_cast<Id>(random.below(end));
            ids(i, context > 1 ? 1 + i * (context - 1) / count : 0) = static_cast<Id>(end);
        }
    }
};

}  // namespace detail

/// Holds every parameter's gradient of a Clip<config, double> with random weights, on four random pairs, against central
/// differences: where the library's own parts stand at 1e-7 or better, a part of your own whose backward is wrong stands
/// at 0.01 or more. Dropouts draw the same in every pass. Every scalar takes two passes: use small sizes.
template <auto config, class L = InfoNce>
GradientCheck check_gradients(L loss = {}, Seed seed = {}) {
    using Model = Clip<config, double>;
    Random random(seed);
    Model model(seed), gradient, unused;
    // Away from the values that layers begin with: gains of 1 and biases of 0 hide mistakes.
    for_each_parameter(
        [&](const ParameterName&, auto& tensor) {
            if constexpr (is_running_mean<decltype(tensor)>) return;
            for (double& value : tensor.elements()) value += 0.2 * random.normal();
        },
        model);
    const detail::RandomPairs<Model> pairs(random);
    typename Model::Workspace work;
    zero_parameters(gradient);
    model.loss_and_gradient(pairs.images, pairs.ids, loss, gradient, work);
    double whole = 0;
    for_each_parameter(
        [&](const ParameterName&, const auto& slope) {
            if constexpr (is_running_mean<decltype(slope)>) return;
            for (const double g : slope.elements()) whole += g * g;
        },
        gradient);
    // A gradient that is zero by construction, such as a key bias's, has only rounding errors: it is held against this.
    const double floor = 1e-5 * std::sqrt(whole);
    GradientCheck worst;
    for_each_parameter(
        [&](const ParameterName& name, auto& parameter, const auto& slope) {
            if constexpr (is_running_mean<decltype(parameter)>) return;
            // The truncation error is about h² times the third derivative, the rounding error about 1e-16 / h.
            constexpr double h = 1e-5;
            double difference = 0, norm = 0;
            for (std::size_t i = 0; i < parameter.elements().size(); ++i) {
                double& x = parameter.elements()[i];
                const double kept = x;
                x = kept + h;
                const double above = model.loss_and_gradient(pairs.images, pairs.ids, loss, unused, work);
                x = kept - h;
                const double below = model.loss_and_gradient(pairs.images, pairs.ids, loss, unused, work);
                x = kept;
                const double numeric = (above - below) / (2 * h);
                difference += std::pow(numeric - slope.elements()[i], 2);
                norm += numeric * numeric;
            }
            const double relative = std::sqrt(difference) / (std::sqrt(norm) + floor);
            if (!(relative <= worst.difference)) worst = {std::string(name), relative};
        },
        model, gradient);
    return worst;
}

}  // namespace tandem::inline TANDEM_ABI

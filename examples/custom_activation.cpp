// An activation is any function over expressions. Its derivative comes from the expression; nobody writes it.
#include <cmath>
#include <cstdio>

#include <tandem/tandem.hpp>

namespace td = tandem;

// Mish: x · tanh(log(1 + exp x)) (Misra 2019).
inline constexpr auto mish = [](auto x) { return x * tanh(softplus(x)); };

inline constexpr td::ClipConfig mine{
    .vision = td::VitConfig{.image = 16, .patch = 8, .width = 24, .layers = 1, .heads = 2, .activation = mish},
    .text = td::TextConfig{.vocabulary = 16, .context = 4, .width = 16, .layers = 1, .heads = 2, .activation = mish},
    .embedding = 8};

int main() {
    using Model = td::Clip<mine, double>;
    Model model{td::Seed{1}}, gradient, unused;
    td::zero_parameters(gradient);
    td::Tensor<double, Model::Vision::Input::shape> images(2);
    td::Random random{td::Seed{2}};
    for (double& pixel : images.elements()) pixel = random.normal();
    td::Tensor<td::Id, Model::Text::Input::shape> ids(2);
    for (std::size_t i = 0; i < 2; ++i) {
        ids(i, 0) = 14, ids(i, 1) = static_cast<td::Id>(i + 1), ids(i, 2) = 15;
    }
    Model::Workspace work;
    model.loss_and_gradient(images, ids, td::InfoNce{}, gradient, work);

    // The whole model's gradient against central differences, parameter by parameter.
    double worst = 0;
    td::for_each_parameter(
        [&](const std::string&, auto& parameter, const auto& slope) {
            for (std::size_t i = 0; i < parameter.elements().size(); i += 7) {
                double& x = parameter.elements()[i];
                const double kept = x, h = 1e-6;
                x = kept + h;
                const double above = model.loss_and_gradient(images, ids, td::InfoNce{}, unused, work);
                x = kept - h;
                const double below = model.loss_and_gradient(images, ids, td::InfoNce{}, unused, work);
                x = kept;
                worst = std::max(worst, std::abs((above - below) / (2 * h) - slope.elements()[i]));
            }
        },
        model, gradient);
    std::printf("worst difference between the derived gradient and central differences: %.1e\n", worst);
    return worst < 1e-7 ? 0 : 1;
}

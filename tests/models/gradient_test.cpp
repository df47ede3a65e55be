// Every parameter's gradient of whole models against central differences in double: activations, poolings, masks, and parts
// of a user's own.
#include <catch2/catch.hpp>

#include <cmath>
#include <string>

#include <tandem/models/clip.hpp>

namespace td = tandem;

namespace {

/// A user's own mixer: every token becomes the mean of its sequence, times a learned gain. What any other mixer needs
/// stands here: parameters, forward, backward, cost.
struct MeanMixer {
    template <td::Element T, td::BlockShape shape, auto>
    struct Layer {
        static constexpr std::size_t width = shape.width;
        td::Tensor<T, td::Shape<width>> gain;
        struct Saved {};

        Layer() { gain.fill(T{0.5}); }

        static void parameters(const auto& visit, const std::string& at, auto&... self) { visit(at + "gain", self.gain...); }

        void forward(td::Rows<const T, width> x, td::Rows<const T, width> residual, td::Rows<T, width> y, td::Offsets offsets,
                     Saved&, bool) const {
            each_column(offsets, [&](std::size_t first, std::size_t last, std::size_t j) {
                const T mean = column_sum(x, first, last, j) / static_cast<T>(last - first);
                for (std::size_t i = first; i < last; ++i) y(i, j) = residual(i, j) + gain(j) * mean;
            });
        }

        void backward(td::Rows<const T, width> x, td::Rows<const T, width> dy, td::Rows<T, width> dx, td::Offsets offsets,
                      Saved&, Layer& gradient) const {
            each_column(offsets, [&](std::size_t first, std::size_t last, std::size_t j) {
                const T share = T{1} / static_cast<T>(last - first), sum = column_sum(dy, first, last, j);
                gradient.gain(j) += sum * share * column_sum(x, first, last, j);
                for (std::size_t i = first; i < last; ++i) dx(i, j) = gain(j) * share * sum;
            });
        }

    private:
        template <class Body>
        static void each_column(td::Offsets offsets, const Body& body) {
            for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
                for (std::size_t j = 0; j < width; ++j) body(offsets[s], offsets[s + 1], j);
            }
        }
        template <class View>
        static T column_sum(const View& x, std::size_t first, std::size_t last, std::size_t j) {
            T sum{0};
            for (std::size_t i = first; i < last; ++i) sum += x(i, j);
            return sum;
        }
    };

    static constexpr td::Cost cost(const td::BlockShape& shape, std::size_t) { return {.parameters = shape.width}; }
};

inline constexpr td::ClipConfig plain{
    .vision = td::VitConfig{.image = 6, .patch = 3, .width = 8, .layers = 2, .heads = 2, .activation = td::QuickGelu{}},
    .text = td::TextConfig{.vocabulary = 12, .context = 5, .width = 6, .layers = 2, .heads = 3},
    .embedding = 4,
    .logit_bias = true};

inline constexpr td::ClipConfig unusual{
    .vision = td::VitConfig{.image = 4, .patch = 2, .width = 6, .layers = 1, .heads = 1, .mlp_ratio = 2.5, .class_token = false,
                            .activation = [](auto x) { return x * sigmoid(x); }, .mixer = MeanMixer{},
                            .pooling = td::Average{}},
    .text = td::TextConfig{.vocabulary = 10, .context = 4, .width = 6, .layers = 1, .heads = 2, .causal = false,
                           .norm = td::LayerNorm{.eps = 1e-3F}, .activation = td::TanhGelu{}},
    .embedding = 3};

inline constexpr td::ClipConfig averaged{
    .vision = td::VitConfig{.image = 4, .patch = 2, .width = 4, .layers = 1, .heads = 2, .pooling = td::Average{}},
    .text = td::TextConfig{.vocabulary = 8, .context = 3, .width = 4, .layers = 1, .heads = 1},
    .embedding = 3};

template <class Model>
struct Pairs {
    td::Tensor<double, typename Model::Vision::Input::shape> images{4};
    td::Tensor<td::Id, typename Model::Text::Input::shape> ids{4};

    explicit Pairs(td::Random& random) {
        for (double& pixel : images.elements()) pixel = random.normal();
        const auto end = static_cast<td::Id>(Model::architecture.text.vocabulary - 1);
        for (std::size_t i = 0; i < 4; ++i) {
            const std::size_t position = 1 + i % (Model::Text::context - 1);
            for (std::size_t j = 0; j < Model::Text::context; ++j) {
                ids(i, j) = static_cast<td::Id>(random.below(static_cast<std::size_t>(end)));
            }
            ids(i, position) = end;
        }
    }
};

/// Relative to the parameter's own gradient. h balances the truncation error, about h² times the third derivative, and the
/// rounding error, about 1e-16 / h.
template <auto config, class L>
void check_gradients(const L& loss) {
    using Model = td::Clip<config, double>;
    td::Random random{td::Seed{7}};
    Model model{td::Seed{1}}, gradient, unused;
    td::for_each_parameter([&](const std::string&, auto& tensor) {
        for (double& value : tensor.elements()) value += 0.2 * random.normal();
    }, model);
    const Pairs<Model> pairs(random);
    typename Model::Workspace work;
    td::zero_parameters(gradient);
    model.loss_and_gradient(pairs.images, pairs.ids, loss, gradient, work);
    td::for_each_parameter(
        [&](const std::string& name, auto& parameter, const auto& slope) {
            double difference = 0, norm = 0;
            for (std::size_t i = 0; i < parameter.elements().size(); ++i) {
                double& x = parameter.elements()[i];
                const double kept = x, h = 1e-5;
                x = kept + h;
                const double above = model.loss_and_gradient(pairs.images, pairs.ids, loss, unused, work);
                x = kept - h;
                const double below = model.loss_and_gradient(pairs.images, pairs.ids, loss, unused, work);
                x = kept;
                const double numeric = (above - below) / (2 * h);
                difference += (numeric - slope.elements()[i]) * (numeric - slope.elements()[i]);
                norm += numeric * numeric;
            }
            INFO(name);
            CHECK(std::sqrt(difference) <= 1e-6 * std::sqrt(norm) + 1e-9);
        },
        model, gradient);
}

}  // namespace

TEST_CASE("gradients of a model with class token, causal text and both losses") {
    check_gradients<plain>(td::InfoNce{} + 0.5 * td::SigmoidLoss{});
}

TEST_CASE("gradients of a model with a user's mixer and activation, average pooling, bidirectional text") {
    check_gradients<unusual>(td::InfoNce{});
}

TEST_CASE("gradients of average pooling beside a class token") { check_gradients<averaged>(td::InfoNce{}); }

TEST_CASE("a model has as many parameters as its constant says") {
    CHECK(td::count_parameters(td::Clip<plain>{}) == td::parameter_count(plain));
    CHECK(td::count_parameters(td::Clip<unusual>{}) == td::parameter_count(unusual));
    CHECK(td::count_parameters(td::Clip<averaged>{}) == td::parameter_count(averaged));
}

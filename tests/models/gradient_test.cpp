// Every parameter's gradient of whole models against central differences in double: activations, poolings, masks, and parts
// of a user's own.
#include <catch2/catch.hpp>

#include <tandem/models/check_gradients.hpp>
#include <tandem/models/cost.hpp>
#include <tandem/models/describe.hpp>

#include "check_model_gradients.hpp"

namespace td = tandem;

namespace {

/// A user's own mixer: every token becomes the mean of its sequence, times a learned gain.
struct MeanMixer {
    template <td::Arithmetic T, td::BlockShape shape, auto parts>
    struct Layer {
        static constexpr std::size_t width = shape.width;
        using C = td::Compute<T>;
        td::Tensor<C, td::Shape<width>> gain;
        struct Saved {};

        Layer() { gain.fill(C{0.5}); }

        static void parameters(const auto& visit, const td::ParameterName& at, auto&... self) {
            visit(at + "gain", self.gain...);
        }

        void forward(td::Rows<const C, width> x, td::Rows<C, width> y, const td::Sequences<C>& sequences, Saved&,
                     bool) const {
            each_column(sequences.offsets, [&](std::size_t first, std::size_t last, std::size_t j) {
                const C mean = column_sum(x, first, last, j) / static_cast<C>(last - first);
                for (std::size_t i = first; i < last; ++i) y(i, j) = gain(j) * mean;
            });
        }

        void backward(td::Rows<const C, width> x, td::Rows<const C, width> dy, td::Rows<C, width> dx,
                      const td::Sequences<C>& sequences, Saved&, Layer& gradient) const {
            each_column(sequences.offsets, [&](std::size_t first, std::size_t last, std::size_t j) {
                const C share = C{1} / static_cast<C>(last - first), sum = column_sum(dy, first, last, j);
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
        static C column_sum(const View& x, std::size_t first, std::size_t last, std::size_t j) {
            C sum{0};
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

}  // namespace

TEST_CASE("gradients of a model with class token, causal text and both losses") {
    check_model_gradients<plain>(td::InfoNce{} + 0.5 * td::SigmoidLoss{});
}

TEST_CASE("gradients of a model with a user's mixer and activation, average pooling, bidirectional text") {
    check_model_gradients<unusual>(td::InfoNce{});
}

TEST_CASE("gradients of average pooling beside a class token") { check_model_gradients<averaged>(td::InfoNce{}); }

TEST_CASE("a model has as many parameters as its constant says") {
    CHECK(td::count_parameters(td::Clip<plain>{}) == td::parameter_count(plain));
    CHECK(td::count_parameters(td::Clip<unusual>{}) == td::parameter_count(unusual));
    CHECK(td::count_parameters(td::Clip<averaged>{}) == td::parameter_count(averaged));
}

namespace {

/// A norm whose backward is 1 % too long.
struct WrongNorm {
    float eps = 1e-5f;

    template <td::Arithmetic T, std::size_t width, auto choice>
    struct Layer : td::nn::LayerNorm<T, width, td::LayerNorm{}> {
        using Right = td::nn::LayerNorm<T, width, td::LayerNorm{}>;
        using C = td::Compute<T>;

        void backward(td::Rows<const C, width> x, td::Rows<const C, width> dy, td::Rows<C, width> dx,
                      const typename Right::Saved& saved, Layer& gradient, bool accumulate) const {
            Right::backward(x, dy, dx, saved, gradient, accumulate);
            for (C& g : dx.elements()) g *= C{1.01};
        }
    };
    static constexpr td::Cost cost(std::size_t width, std::size_t tokens) { return td::LayerNorm::cost(width, tokens); }
};

inline constexpr td::ClipConfig wrong{
    .vision = td::VitConfig{.image = 4, .patch = 2, .width = 4, .layers = 1, .heads = 2, .norm = WrongNorm{}},
    .text = td::TextConfig{.vocabulary = 8, .context = 3, .width = 4, .layers = 1, .heads = 1},
    .embedding = 3};

}  // namespace

namespace {

/// A tower of a user's own: the mean colour of an image times a matrix.
struct MeanColour {
    template <td::Arithmetic T, auto self, std::size_t Embedding>
    struct Tower {
        using C = td::Compute<T>;
        using Input = td::View<const C, td::Shape<td::dynamic, 3, 4, 4>>;
        td::Linear<T, 3, Embedding> proj;

        struct Workspace {
            td::Tensor<C, td::Shape<td::dynamic, 3>> colours;
        };

        static void parameters(const auto& visit, const td::ParameterName& at, auto&... towers) {
            decltype(proj)::parameters(visit, at + "proj.", towers.proj...);
        }
        void initialise(td::Random& random) { td::fill_normal(proj.weight, random, 0.5); }
        void forward(Input images, td::Rows<C, Embedding> embeddings, Workspace& work, bool) const {
            work.colours.resize(images.extent(0));
            for (std::size_t i = 0; i < work.colours.size(); ++i) {
                C sum{0};
                for (std::size_t j = 0; j < 16; ++j) sum += images.data()[i * 16 + j];
                work.colours.data()[i] = sum / C{16};
            }
            proj.forward(work.colours, embeddings);
        }
        void backward(td::Rows<const C, Embedding> g, Workspace& work, Tower& gradient) const {
            proj.backward(work.colours, g, {nullptr, {{0, 3}}}, gradient.proj);
        }
    };
    static constexpr td::Cost cost() { return td::nn::linear_cost(3, 4, true, 1) + td::held_cost(3); }
};

inline constexpr td::ClipConfig colours{.vision = MeanColour{}, .text = plain.text, .embedding = 4};

}  // namespace

TEST_CASE("a tower of a user's own joins gradients, parameters and costs") {
    check_model_gradients<colours>(td::InfoNce{});
    CHECK(td::count_parameters(td::Clip<colours>{}) == td::parameter_count(colours));
    CHECK(td::describe<colours>().find("visual (MeanColour)") != std::string::npos);
}

TEST_CASE("check_gradients finds a backward pass that is 1 % off, and names a parameter behind it") {
    const td::GradientCheck worst = td::check_gradients<wrong>();
    CHECK(worst.difference > 5e-3);
    CHECK(worst.parameter.starts_with("visual."));
}

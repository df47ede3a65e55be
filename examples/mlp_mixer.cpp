// A mixer of one's own, composed of the library's layers: MLP-Mixer's token mixing (Tolstikhin et al. 2021). Its backward
// pass follows from what it is composed of.
#include <cstdio>

#include <tandem/tandem.hpp>

#include "colours.hpp"

namespace td = tandem;

/// A perceptron over tokens, the same for every channel.
struct TokenMixing {
    template <td::Arithmetic T, td::BlockShape shape, auto parts>
    struct Layer : td::Composed<Layer<T, shape, parts>, T, shape.width> {
        static constexpr std::size_t hidden = 2 * shape.tokens;
        td::Linear<T, shape.tokens, hidden> fc1;
        td::Linear<T, hidden, shape.tokens> fc2;

        static void parameters(const auto& visit, const td::ParameterName& at, auto&... self) {
            decltype(fc1)::parameters(visit, at + "fc1.", self.fc1...);
            decltype(fc2)::parameters(visit, at + "fc2.", self.fc2...);
        }

        auto operator()(auto x) const {
            return x | td::transposed<shape.tokens> | fc1 | td::Gelu{} | fc2 | td::transposed<shape.width>;
        }
    };

    static constexpr td::Cost cost(const td::BlockShape& shape, std::size_t tokens) {
        return td::nn::linear_cost(tokens, 2 * tokens, true, shape.width) +
               td::nn::linear_cost(2 * tokens, tokens, true, shape.width) +
               tokens * shape.width * td::Cost{.inference = 7, .saved = 7, .scratch = 7};
    }
};

template <std::size_t image, std::size_t width, std::size_t layers>
inline constexpr td::ClipConfig mixer{
    .vision = td::VitConfig{.image = image, .patch = 4, .width = width, .layers = layers, .heads = 1, .class_token = false,
                            .mixer = TokenMixing{}, .pooling = td::Average{}},
    .text = td::TextConfig{.vocabulary = 64, .context = 8, .width = 48, .layers = 2, .heads = 3},
    .embedding = 32};

int main() {
    // Small sizes: every scalar is moved up and down.
    const td::GradientCheck check = td::check_gradients<mixer<8, 6, 1>>();
    std::printf("gradients: %.1e off in %s\n", check.difference, check.parameter.c_str());

    constexpr auto config = mixer<32, 64, 4>;
    td::Clip<config> model{td::Seed{0}};
    std::printf("%zu parameters, as counted %zu\n", td::parameter_count(config), td::count_parameters(model));
    td::Trainer trainer{model, td::AdamW{.rate = 2e-3}, td::WarmupCosine{.warmup = 0.1}, td::InfoNce{},
                        td::TrainerOptions{.batch = 8, .steps = 40}};
    const td::RunState run = trainer.fit(Colours{});
    std::printf("loss %.3f -> %.3f\n", static_cast<double>(run.losses.front()), static_cast<double>(run.losses.back()));
    return check.difference < 1e-5 && run.losses.back() < 0.5F * run.losses.front() ? 0 : 1;
}

// An architecture is one constexpr value: its cost is known before anything runs, and it trains as it stands.
#include <cstdio>

#include <tandem/tandem.hpp>

#include "colours.hpp"

namespace td = tandem;

// Wide and shallow for images, deep and narrow for text; average pooling, tanh GELU, a finer eps.
inline constexpr td::ClipConfig mine{
    .vision = td::VitConfig{.image = 32, .patch = 8, .width = 96, .layers = 2, .heads = 6, .mlp_ratio = 3.0,
                            .norm = td::LayerNorm{.eps = 1e-6F}, .activation = td::TanhGelu{}, .pooling = td::Average{}},
    .text = td::TextConfig{.vocabulary = 64, .context = 8, .width = 48, .layers = 4, .heads = 3},
    .embedding = 32};

static_assert(td::parameter_count(mine) < 400'000);
static_assert(td::forward_flops(mine.vision) < 8'000'000);

int main() {
    std::printf("%zu parameters, %.1f MFLOP an image, %.2f MB of activations a pair in training\n", td::parameter_count(mine),
                1e-6 * static_cast<double>(td::forward_flops(mine.vision)),
                1e-6 * static_cast<double>(td::training_bytes(mine)));
    td::Clip<mine> model{td::Seed{0}};
    td::Trainer trainer{model, td::AdamW{.rate = 2e-3}, td::WarmupCosine{.warmup = 0.1}, td::InfoNce{},
                        td::TrainerOptions{.batch = 8, .steps = 40}};
    const td::RunState run = trainer.fit(Colours{});
    std::printf("loss %.3f -> %.3f\n", static_cast<double>(run.losses.front()), static_cast<double>(run.losses.back()));
    return run.losses.back() < 0.5F * run.losses.front() ? 0 : 1;
}

// An architecture is one constexpr value: its cost is known before anything runs, and it trains as it stands.
#include <cstdio>

#include <tandem/tandem.hpp>

namespace td = tandem;

// Wide and shallow for images, deep and narrow for text; average pooling, tanh GELU, a finer eps.
inline constexpr td::ClipConfig mine{
    .vision = td::VitConfig{.image = 32, .patch = 8, .width = 96, .layers = 2, .heads = 6, .mlp_ratio = 3.0,
                            .norm = td::LayerNorm{.eps = 1e-6F}, .activation = td::TanhGelu{}, .pooling = td::Average{}},
    .text = td::TextConfig{.vocabulary = 64, .context = 8, .width = 48, .layers = 4, .heads = 3},
    .embedding = 32};

static_assert(td::parameter_count(mine) < 400'000);
static_assert(td::forward_flops(mine.vision) < 8'000'000);

// Pairs made up on the spot: image k is a flat colour, caption k its number.
struct Colours {
    std::size_t size() const { return 8; }
    void fetch(std::size_t index, td::Random& random, std::span<float> image, std::span<td::Id> ids) const {
        const std::size_t plane = image.size() / 3;
        for (std::size_t i = 0; i < image.size(); ++i) {
            image[i] = ((index >> (i / plane)) & 1 ? 1.0F : -1.0F) + 0.1F * static_cast<float>(random.normal());
        }
        std::fill(ids.begin(), ids.end(), 0);
        ids[0] = 62;                                    // start of text
        ids[1] = static_cast<td::Id>(index + 1);
        ids[2] = 63;                                    // end of text: the highest id
    }
};

int main() {
    std::printf("%zu parameters, %.1f MFLOP an image, %.2f MB kept a pair in training\n", td::parameter_count(mine),
                1e-6 * static_cast<double>(td::forward_flops(mine.vision)),
                1e-6 * static_cast<double>(td::activation_bytes(mine)));
    td::Clip<mine> model{td::Seed{0}};
    td::Trainer trainer{model, td::AdamW{.rate = 2e-3}, td::WarmupCosine{.warmup = 0.1}, td::InfoNce{},
                        td::TrainerOptions{.batch = 8, .steps = 40}};
    const td::RunState run = trainer.fit(Colours{});
    std::printf("loss %.3f -> %.3f\n", static_cast<double>(run.losses.front()), static_cast<double>(run.losses.back()));
    return run.losses.back() < 0.5F * run.losses.front() ? 0 : 1;
}

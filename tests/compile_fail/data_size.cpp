// A source of pairs knows how many there are.
// expect: tandem: a source of pairs needs size() const, the number of its pairs: see PairSource
#include <tandem/models/clip.hpp>
#include <tandem/train/trainer.hpp>

inline constexpr tandem::ClipConfig config{
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
    .embedding = 16};

struct Noise {
    std::size_t size() const { return 8; }
    void fetch(std::size_t, tandem::Random& random, std::span<float> image, std::span<tandem::Id> ids) const {
        for (float& pixel : image) pixel = static_cast<float>(random.normal());
        for (tandem::Id& id : ids) id = static_cast<tandem::Id>(random.below(64));
    }
};

#if defined(TANDEM_EXPECT_FAIL)
struct Endless {
    void fetch(std::size_t, tandem::Random&, std::span<float>, std::span<tandem::Id>) const {}
};
using Element = float;
using Optimizer = tandem::AdamW;
using Schedule = tandem::WarmupCosine;
using Loss = tandem::InfoNce;
using Data = Endless;
#else
using Element = float;
using Optimizer = tandem::AdamW;
using Schedule = tandem::WarmupCosine;
using Loss = tandem::InfoNce;
using Data = Noise;
#endif

void train(tandem::Clip<config, Element>& model, const Data& data) {
    tandem::Trainer trainer(model, Optimizer{}, Schedule{}, Loss{}, {.batch = 4, .steps = 2});
    trainer.fit(data);
}

int main() {}

// A part holds the template of its layers.
// expect: tandem: a part of your own lacks the template Layer: see BlockPart and NormPart
#include <tandem/models/clip.hpp>

struct Gate {
#if !defined(TANDEM_EXPECT_FAIL)
    template <tandem::Arithmetic T, tandem::BlockShape shape, auto parts>
    using Layer = tandem::nn::Mlp<T, shape, parts>;
#endif
    static constexpr tandem::Cost cost(const tandem::BlockShape& shape, std::size_t tokens) {
        return tandem::Mlp::cost(shape, tokens);
    }
};

inline constexpr tandem::ClipConfig config{
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2, .mlp = Gate{}},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
    .embedding = 16};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

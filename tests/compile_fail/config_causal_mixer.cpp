// A mixer that does not say that it keeps to what came before cannot stand in a causal tower.
// expect: tandem: TextConfig: this mixer lets a token see those after it: set .causal = false
#include <tandem/models/clip.hpp>

struct Blind {
    template <tandem::Arithmetic T, tandem::BlockShape shape, auto parts>
    using Layer = tandem::nn::Mlp<T, shape, parts>;
#if !defined(TANDEM_EXPECT_FAIL)
    static constexpr bool can_be_causal = true;
#endif
    static constexpr tandem::Cost cost(const tandem::BlockShape& shape, std::size_t tokens) {
        return tandem::Mlp::cost(shape, tokens);
    }
};

inline constexpr tandem::ClipConfig config{
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2, .mixer = Blind{}},
    .embedding = 16};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

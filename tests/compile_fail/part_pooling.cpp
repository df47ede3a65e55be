// A pooling is told how many tokens stand in front of the patches.
// expect: tandem: the Layer of a pooling lacks forward(x, y, sequences, prefix, saved, keep) const: see PicksRow
#include <tandem/models/clip.hpp>

struct Beginning {
    template <tandem::Arithmetic T, tandem::BlockShape shape, auto parts>
    struct Layer {
        using C = tandem::Compute<T>;
        struct Saved {};
        static void parameters(const auto&, const tandem::ParameterName&, auto&...) {}
#if defined(TANDEM_EXPECT_FAIL)
        void forward(tandem::Rows<const C, shape.width> x, tandem::Rows<C, shape.width> y,
                     const tandem::Sequences<C>& sequences, Saved&, bool) const {
#else
        void forward(tandem::Rows<const C, shape.width> x, tandem::Rows<C, shape.width> y,
                     const tandem::Sequences<C>& sequences, std::size_t, Saved&, bool) const {
#endif
            for (std::size_t s = 0; s < sequences.count(); ++s)
                std::copy_n(x[sequences.offsets[s]].data(), shape.width, y[s].data());
        }
    };
    static constexpr tandem::Cost cost(const tandem::BlockShape&, std::size_t, const auto&) { return {}; }
};

inline constexpr tandem::ClipConfig config{
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2, .pooling = Beginning{}},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
    .embedding = 16};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

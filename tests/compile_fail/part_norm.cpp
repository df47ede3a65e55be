// A norm's forward is told no sequences.
// expect: tandem: the Layer of a norm lacks forward(x, y, saved) const: see NormPart
#include <tandem/models/clip.hpp>

struct Identity {
    template <tandem::Arithmetic T, std::size_t width, auto choice>
    struct Layer {
        using C = tandem::Compute<T>;
        struct Saved {};
        static void parameters(const auto&, const tandem::ParameterName&, auto&...) {}
#if defined(TANDEM_EXPECT_FAIL)
        void forward(tandem::Rows<const C, width> x, tandem::Rows<C, width> y) const {
#else
        void forward(tandem::Rows<const C, width> x, tandem::Rows<C, width> y, Saved&) const {
#endif
            std::copy_n(x.data(), x.size(), y.data());
        }
    };
    static constexpr tandem::Cost cost(std::size_t, std::size_t) { return {}; }
};

inline constexpr tandem::ClipConfig config{
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2, .norm = Identity{}},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
    .embedding = 16};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

// A stem makes rows of images.
// expect: tandem: the Layer of a stem lacks forward(images, y, saved, keep) const: see PatchStem
#include <tandem/models/clip.hpp>

struct Blank {
    template <tandem::Arithmetic T, tandem::StemShape shape, auto parts>
    struct Layer {
        using C = tandem::Compute<T>;
        struct Saved {};
        static void parameters(const auto&, const tandem::ParameterName&, auto&...) {}
#if !defined(TANDEM_EXPECT_FAIL)
        void forward(tandem::Images<C, shape.image>, tandem::Rows<C, shape.width> y, Saved&, bool) const {
            std::fill_n(y.data(), y.size(), C{0});
        }
#endif
    };
    static constexpr bool fits(const tandem::StemShape&) { return true; }
    static constexpr tandem::Cost cost(const tandem::StemShape&, const auto&) { return {}; }
};

inline constexpr tandem::ClipConfig config{
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2, .stem = Blank{}},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
    .embedding = 16};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

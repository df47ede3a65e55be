// A mixer says what it saves, even if that is nothing.
// expect: tandem: the Layer of a part of your own lacks the type Saved: see BlockPart and NormPart
#include <tandem/models/clip.hpp>

struct Copy {
    template <tandem::Arithmetic T, tandem::BlockShape shape, auto parts>
    struct Layer {
        using C = tandem::Compute<T>;
#if !defined(TANDEM_EXPECT_FAIL)
        struct Saved {};
#endif
        static void parameters(const auto&, const tandem::ParameterName&, auto&...) {}
        void forward(tandem::Rows<const C, shape.width> x, tandem::Rows<C, shape.width> y, const tandem::Sequences<C>&,
                     auto&, bool) const {
            std::copy_n(x.data(), x.size(), y.data());
        }
    };
    static constexpr tandem::Cost cost(const tandem::BlockShape&, std::size_t) { return {}; }
};

inline constexpr tandem::ClipConfig config{
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2, .mixer = Copy{}},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
    .embedding = 16};

tandem::Clip<config> make() {
    return tandem::Clip<config>{tandem::Seed{0}};
}

int main() {}

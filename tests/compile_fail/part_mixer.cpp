// A mixer of a user's own that lacks a member is told which members there must be.
// expect: tandem: the Layer of a mixer or an MLP lacks forward(x, y, sequences, saved, keep) const: see BlockPart
#include <tandem/models/clip.hpp>

struct Copy {
    template <tandem::Arithmetic T, tandem::BlockShape shape, auto parts>
    struct Layer {
        using C = tandem::Compute<T>;
        struct Saved {};
        static void parameters(const auto&, const tandem::ParameterName&, auto&...) {}
#if !defined(TANDEM_EXPECT_FAIL)
        void forward(tandem::Rows<const C, shape.width> x, tandem::Rows<C, shape.width> y, const tandem::Sequences<C>&,
                     Saved&, bool) const {
            std::copy_n(x.data(), x.size(), y.data());
        }
#endif
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

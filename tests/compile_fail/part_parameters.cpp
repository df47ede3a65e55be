// A mixer lists its parameters, even if it has none.
// expect: tandem: the Layer of a part of your own lacks static void parameters(const auto& visit, const ParameterName& at, auto&... self): see for_each_parameter
#include <tandem/models/clip.hpp>

struct Copy {
    template <tandem::Arithmetic T, tandem::BlockShape shape, auto parts>
    struct Layer {
        using C = tandem::Compute<T>;
        struct Saved {};
#if !defined(TANDEM_EXPECT_FAIL)
        static void parameters(const auto&, const tandem::ParameterName&, auto&...) {}
#endif
        void forward(tandem::Rows<const C, shape.width> x, tandem::Rows<C, shape.width> y, const tandem::Sequences<C>&,
                     Saved&, bool) const {
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

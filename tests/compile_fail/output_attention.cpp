// Attention maps need a mixer that attends.
// expect: tandem: attention maps need blocks that attend: this mixer has no weights()
#include <tandem/models/clip.hpp>

struct Copy {
    template <tandem::Arithmetic T, tandem::BlockShape shape, auto parts>
    struct Layer {
        using C = tandem::Compute<T>;
        struct Saved {};
        static void parameters(const auto&, const tandem::ParameterName&, auto&...) {}
        void forward(tandem::Rows<const C, shape.width> x, tandem::Rows<C, shape.width> y, const tandem::Sequences<C>&,
                     Saved&, bool) const {
            std::copy_n(x.data(), x.size(), y.data());
        }
    };
    static constexpr tandem::Cost cost(const tandem::BlockShape&, std::size_t) { return {}; }
};

template <auto mixer>
inline constexpr tandem::ClipConfig config{
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2, .mixer = mixer},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
    .embedding = 16};

#if defined(TANDEM_EXPECT_FAIL)
using Model = tandem::Clip<config<Copy{}>>;
#else
using Model = tandem::Clip<config<tandem::SelfAttention{}>>;
#endif

auto attention(const Model& model, Model::Vision::Input images) {
    return model.image_attention(images);
}

int main() {}

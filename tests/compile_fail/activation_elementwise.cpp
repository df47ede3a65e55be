// An activation acts on each element by itself.
// expect: tandem: an activation must be elementwise: reductions, products and transposes cannot stand in it
#include <tandem/models/clip.hpp>

#if defined(TANDEM_EXPECT_FAIL)
inline constexpr auto activation = [](auto x) { return softmax(x); };
#else
inline constexpr auto activation = [](auto x) { return x * sigmoid(x); };
#endif

inline constexpr tandem::ClipConfig config{
    .vision =
        tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2, .activation = activation},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
    .embedding = 16};

using Model = tandem::Clip<config>;

float step(const Model& model, Model::Vision::Input images, Model::Text::Input ids, Model& gradient,
           Model::Workspace& work) {
    return model.loss_and_gradient(images, ids, tandem::InfoNce{}, gradient, work);
}

int main() {}

// A loss is one number for a batch.
// expect: tandem: a loss must be a scalar: reduce it with mean or sum (its axes == 0)
// shows: 1 == 0
#include <tandem/models/clip.hpp>

inline constexpr tandem::ClipConfig config{
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
    .embedding = 16};

using Model = tandem::Clip<config>;

#if defined(TANDEM_EXPECT_FAIL)
inline constexpr auto loss = [](auto image, auto text, auto scale) { return scale * tandem::sum<1>(image * text); };
#else
inline constexpr auto loss = [](auto image, auto text, auto scale) { return scale * tandem::mean(image * text); };
#endif

float step(const Model& model, Model::Vision::Input images, Model::Text::Input ids, Model& gradient,
           Model::Workspace& work) {
    return model.loss_and_gradient(images, ids, loss, gradient, work);
}

int main() {}

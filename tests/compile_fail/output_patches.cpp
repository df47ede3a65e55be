// Patches that keep to themselves need queries that can attend to queries.
// expect: tandem: PatchFeatures need blocks that attend, with as many heads of keys as of queries (heads == kv_heads)
#include <tandem/models/clip.hpp>

template <std::size_t kv_heads>
inline constexpr tandem::ClipConfig config{
    .vision = tandem::VitConfig{.image = 32, .patch = 8, .width = 32, .layers = 1, .heads = 2, .kv_heads = kv_heads},
    .text = tandem::TextConfig{.vocabulary = 64, .context = 8, .width = 32, .layers = 1, .heads = 2},
    .embedding = 16};

#if defined(TANDEM_EXPECT_FAIL)
using Model = tandem::Clip<config<1>>;
#else
using Model = tandem::Clip<config<2>>;
#endif

auto patches(const Model& model, Model::Vision::Input images) {
    return model.patch_embeddings(images, tandem::PatchFeatures::sclip);
}

int main() {}

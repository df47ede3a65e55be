// Only embeddings of one model are compared.
// expect: tandem: embeddings that are compared must be of one width (the images' == the texts')
// shows: 512 == 768
#include <tandem/models/clip.hpp>
#include <tandem/tasks/zero_shot.hpp>

#if defined(TANDEM_EXPECT_FAIL)
inline constexpr std::size_t width = 768;
#else
inline constexpr std::size_t width = 512;
#endif

auto cosines(const tandem::Tensor<float, tandem::Shape<tandem::dynamic, 512>>& images,
             const tandem::Tensor<float, tandem::Shape<tandem::dynamic, width>>& texts) {
    return tandem::similarity(images, texts);
}

int main() {}

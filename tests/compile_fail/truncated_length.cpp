// An embedding is cut to fewer elements than it has.
// expect: tandem: at most as many columns as the matrix has can be taken, of an embedding as many elements
// shows: 600 <= 512
#include <tandem/models/clip.hpp>
#include <tandem/losses/matryoshka.hpp>

#if defined(TANDEM_EXPECT_FAIL)
inline constexpr std::size_t length = 600;
#else
inline constexpr std::size_t length = 64;
#endif

auto cut(const tandem::Tensor<float, tandem::Shape<tandem::dynamic, 512>>& embeddings) {
    return tandem::truncated<length>(embeddings);
}

int main() {}

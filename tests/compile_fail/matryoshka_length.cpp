// No prefix is longer than the embedding.
// expect: tandem: a length of matryoshka is at most the embedding's
// shows: 32 <= 16
#include <tandem/losses/matryoshka.hpp>

#if defined(TANDEM_EXPECT_FAIL)
inline constexpr std::size_t longest = 32;
#else
inline constexpr std::size_t longest = 16;
#endif

float loss(const tandem::Tensor<float, tandem::Shape<tandem::dynamic, 16>>& image,
           const tandem::Tensor<float, tandem::Shape<tandem::dynamic, 16>>& text, const tandem::Tensor<float, tandem::Shape<>>& scale) {
    return tandem::evaluate(tandem::matryoshka<8, longest>(tandem::InfoNce{})(
                                tandem::as_expression(image), tandem::as_expression(text), tandem::as_expression(scale)))
        .item();
}

int main() {}

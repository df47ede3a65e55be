// Needs the definitions of tandem::compiled.
#include <cstddef>
#include <vector>

#include <tandem/images/codec.hpp>
#include <tandem/tensor/matmul.hpp>
#include <tandem/texts/clean_text.hpp>

#if !defined(TANDEM_COMPILED)
#error tandem::compiled must say so to the units that link it
#endif

extern const bool compiled_component;
const bool compiled_component = [] {
    const tandem::Image image{2, 1, {1, 2, 3, 4, 5, 6}};
    tandem::Tensor<float, tandem::Shape<2, 2>> a;
    a.fill(2);
    return tandem::decode_image(tandem::encode_png(image), "encoded") == image &&
           tandem::clean_text("  A  b ", tandem::Cleaning::open_clip) == "a b" &&
           tandem::evaluate(tandem::matmul(a, a))(1, 1) == 8;
}();

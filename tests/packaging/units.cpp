// A program of the single header: with TANDEM_COMPILED, another unit has the definitions.
#include <tandem/tandem.hpp>

int draw();

int main() {
    const tandem::Image image{2, 1, {1, 2, 3, 4, 5, 6}};
    const bool same = tandem::decode_image(tandem::encode_png(image), "encoded") == image;
#if defined(WITH_ANOTHER_UNIT)
    return same && draw() >= 0 ? 0 : 1;
#else
    return same ? 0 : 1;
#endif
}

#include <cstdio>

#include <tandem/tandem.hpp>

namespace td = tandem;

int main(int, char** arguments) {
    const auto clip = td::load<td::vit_b_32>(arguments[1]);
    const auto text = td::Bpe::load(arguments[1]);
    for (const float share : td::zero_shot(clip, text, td::read_image(arguments[2]), {"a photo of a cat", "a photo of a dog"})) {
        std::printf("%.3f\n", static_cast<double>(share));
    }
}

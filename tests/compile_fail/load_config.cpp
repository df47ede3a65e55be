// A model is loaded by its architecture, not by a tower's.
// expect: tandem: load<config> takes a ClipConfig, such as vit_b_32; open() finds it from the files alone
#include <tandem/models/clip.hpp>
#include <tandem/models/checkpoint.hpp>
#include <tandem/models/zoo.hpp>

#if defined(TANDEM_EXPECT_FAIL)
inline constexpr auto architecture = tandem::vit_b_32.vision;
#else
inline constexpr auto architecture = tandem::vit_b_32;
#endif

void load() {
    (void)tandem::load<architecture>("weights.safetensors");
}

int main() {}

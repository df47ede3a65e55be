// One variant of benchmarks/architectures.sh, without the precompiled header that a list's variants share.
#include "../architectures/variant.hpp"

namespace td = tandem;

inline constexpr td::ClipConfig variant{
    .vision = td::VitConfig{.image = 64, .patch = 8, .width = 192, .layers = 6, .heads = 3},
    .text = td::TextConfig{.vocabulary = 4096, .context = 32, .width = 192, .layers = 4, .heads = 3},
    .embedding = 128};

int main() { return architectures::run<variant>(); }

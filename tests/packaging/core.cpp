// A program that uses the core alone.
#include <cstdio>

#if defined(TANDEM_FROM_SINGLE_HEADER)
#include <tandem/tandem.hpp>
#else
#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/core/random.hpp>
#endif

int main() {
    tandem::Random random{tandem::Seed{7}};
    float values[64]{};
    for (float& value : values) value = tandem::bf16(static_cast<float>(random.uniform()));
    tandem::parallel_for(64, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) values[i] += 1.0f;
    });
    for (const float value : values) {
        if (value < 1.0f || value > 2.0f) return 1;
    }
    try {
        throw tandem::Error("a", "b");
    } catch (const tandem::Error& error) {
        std::puts(error.what());
    }
}

#include <catch2/catch.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include <tandem/core/random.hpp>
#include <tandem/kernels/resize.hpp>

#include "../guarded.hpp"

using namespace tandem;
using kernels::resize_rows;
using kernels::ResizeKernels;

namespace {

/// The instruction sets that this CPU has.
std::vector<kernels::Isa> available() {
    std::vector<kernels::Isa> found;
    for (const auto isa : {kernels::Isa::scalar, kernels::Isa::avx2, kernels::Isa::avx512, kernels::Isa::neon}) {
        if (kernels::has(kernels::cpu_features(), isa)) found.push_back(isa);
    }
    return found;
}

void fill(std::span<std::uint8_t> bytes, Random& random) {
    // Runs of the extremes among noise: sums that must be clamped.
    for (std::uint8_t& byte : bytes) {
        const std::size_t draw = random.below(1024);
        byte = draw < 256 ? 0 : draw < 512 ? 255 : static_cast<std::uint8_t>(draw & 255);
    }
}

/// Weights of both signs whose magnitudes sum to just less than 2, more than any filter's.
std::vector<std::int32_t> weights(std::size_t taps, Random& random) {
    std::vector<double> shares(taps);
    double sum = 0;
    for (double& share : shares) {
        share = random.uniform(-0.4, 1);
        sum += std::abs(share);
    }
    std::vector<std::int32_t> fixed;
    for (const double share : shares) fixed.push_back(static_cast<std::int32_t>(share / sum * 1.97 * (1 << 22)));
    return fixed;
}

std::vector<std::int32_t> pack(std::vector<std::int32_t> values, const ResizeKernels& loops) {
    const std::size_t groups = (values.size() + loops.group - 1) / loops.group;
    values.resize(groups * loops.group);
    std::vector<std::int32_t> packed(groups * loops.words);
    for (std::size_t g = 0; g < groups; ++g) {
        loops.pack(values.data() + g * loops.group, packed.data() + g * loops.words);
    }
    return packed;
}

}  // namespace

TEST_CASE("every instruction set sums rows as the plain loops do", "[resize]") {
    Random random(Seed{1});
    const ResizeKernels& plain = kernels::resize_kernels(kernels::Isa::scalar);
    const Guarded<std::uint8_t> source(65 * 65), out(65);
    for (const kernels::Isa isa : available()) {
        const ResizeKernels& loops = kernels::resize_kernels(isa);
        for (std::size_t bytes = 1; bytes <= 65; ++bytes) {
            for (std::size_t taps = 1; taps <= 65; ++taps) {
                CAPTURE(kernels::name_of(isa), bytes, taps);
                const std::vector<std::int32_t> values = weights(taps, random);
                fill(source.span(taps * bytes), random);
                std::vector<std::uint8_t> expected(bytes);
                plain.down(source.last(taps * bytes), bytes, bytes, values.data(), taps, expected.data());
                std::fill_n(out.last(65), 65, std::uint8_t{77});
                loops.down(source.last(taps * bytes), bytes, bytes, pack(values, loops).data(), taps, out.last(bytes));
                REQUIRE(std::equal(expected.begin(), expected.end(), out.last(bytes)));
                REQUIRE(std::count(out.last(65), out.last(bytes), 77) == static_cast<std::ptrdiff_t>(65 - bytes));
            }
        }
    }
}

TEST_CASE("every instruction set sums pixels as the plain loops do", "[resize]") {
    Random random(Seed{2});
    const ResizeKernels& plain = kernels::resize_kernels(kernels::Isa::scalar);
    const Guarded<std::uint8_t> sources[resize_rows] = {Guarded<std::uint8_t>(1024), Guarded<std::uint8_t>(1024),
                                                        Guarded<std::uint8_t>(1024), Guarded<std::uint8_t>(1024)};
    const Guarded<std::uint8_t> outs[resize_rows] = {Guarded<std::uint8_t>(195), Guarded<std::uint8_t>(195),
                                                     Guarded<std::uint8_t>(195), Guarded<std::uint8_t>(195)};
    for (const kernels::Isa isa : available()) {
        const ResizeKernels& loops = kernels::resize_kernels(isa);
        for (std::size_t count = 1; count <= 65; ++count) {
            for (std::size_t inputs = 1; inputs <= 65; ++inputs) {
                CAPTURE(kernels::name_of(isa), count, inputs);
                std::vector<kernels::ResizeTaps> taps, packed_taps;
                std::vector<std::int32_t> values, packed;
                for (std::size_t x = 0; x < count; ++x) {
                    const std::size_t first = random.below(inputs), number = 1 + random.below(inputs - first);
                    const std::vector<std::int32_t> own = weights(number, random), own_packed = pack(own, loops);
                    taps.push_back({first, number, values.size()});
                    packed_taps.push_back({first, number, packed.size()});
                    values.insert(values.end(), own.begin(), own.end());
                    packed.insert(packed.end(), own_packed.begin(), own_packed.end());
                }
                std::array<const std::uint8_t*, resize_rows> rows;
                std::array<std::uint8_t*, resize_rows> expected_rows, out;
                std::vector<std::uint8_t> expected(resize_rows * 3 * count);
                for (std::size_t r = 0; r < resize_rows; ++r) {
                    const std::size_t readable = 3 * inputs + kernels::resize_overread;
                    fill(sources[r].span(readable), random);
                    rows[r] = sources[r].last(readable);
                    expected_rows[r] = expected.data() + r * 3 * count;
                    std::fill_n(outs[r].last(195), 195, std::uint8_t{77});
                    out[r] = outs[r].last(3 * count);
                }
                plain.across(rows, taps.data(), count, values.data(), expected_rows);
                loops.across(rows, packed_taps.data(), count, packed.data(), out);
                for (std::size_t r = 0; r < resize_rows; ++r) {
                    REQUIRE(std::equal(out[r], out[r] + 3 * count, expected_rows[r]));
                    REQUIRE(std::count(outs[r].last(195), out[r], 77) == static_cast<std::ptrdiff_t>(195 - 3 * count));
                }
            }
        }
    }
}

TEST_CASE("every instruction set normalises to the table's bits", "[resize]") {
    Random random(Seed{3});
    const ResizeKernels& plain = kernels::resize_kernels(kernels::Isa::scalar);
    const Guarded<std::uint8_t> pixels(3 * 65);
    const Guarded<float> out(3 * 65);
    for (const kernels::Isa isa : available()) {
        const ResizeKernels& loops = kernels::resize_kernels(isa);
        for (int round = 0; round < 40; ++round) {
            // The published constants, random ones, and those that no product can stand for.
            std::array<float, 3> mean{0.48145466F, 0.4578275F, 0.40821073F},
                deviation{0.26862954F, 0.26130258F, 0.27577711F};
            for (std::size_t c = 0; round > 0 && c < 3; ++c) {
                mean[c] = static_cast<float>(random.uniform(-1, 1));
                deviation[c] = static_cast<float>(random.uniform(-1, 1));
            }
            if (round == 1) deviation = {0, 1e-42F, 1e-30F};
            const kernels::NormaliseTable table = kernels::normalise_table(mean, deviation, loops);
            if (round == 0) CHECK(table.computable);
            for (std::size_t c = 0; c < 3; ++c) {
                for (std::size_t i = 0; i < 256; ++i) {
                    const float value = (static_cast<float>(i) / 255.0F - mean[c]) / deviation[c];
                    REQUIRE(std::memcmp(&table.values[c][i], &value, sizeof value) == 0);
                }
            }
            for (std::size_t count = 1; count <= 65; ++count) {
                CAPTURE(kernels::name_of(isa), round, count);
                fill(pixels.span(3 * count), random);
                std::vector<float> expected(3 * count);
                plain.normalise(pixels.last(3 * count), count, table, expected.data(), count);
                loops.normalise(pixels.last(3 * count), count, table, out.last(3 * count), count);
                REQUIRE(std::memcmp(out.last(3 * count), expected.data(), 3 * count * sizeof(float)) == 0);
            }
        }
    }
}

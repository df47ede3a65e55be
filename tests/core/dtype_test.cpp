#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstdlib>
#include <limits>

#include <tandem/core/dtype.hpp>

using tandem::bfloat16;

namespace {

float from_bits(std::uint32_t bits) {
    return std::bit_cast<float>(bits);
}

}  // namespace

TEST_CASE("every bfloat16 survives the way to float and back", "[core]") {
    std::size_t wrong = 0;
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
        const float wide = from_bits(bits << 16);
        const bfloat16 narrow(wide);
        if (std::isnan(wide)) {
            wrong += !std::isnan(static_cast<float>(narrow)) || (narrow.bits() & 0x0040U) == 0;  // quiet
        } else {
            wrong += narrow.bits() != bits;
        }
    }
    CHECK(wrong == 0);
}

TEST_CASE("floats round to the nearest bfloat16, ties to even", "[core]") {
    // 0x3f80 is 1, its last bit 2^-7.
    CHECK(bfloat16(from_bits(0x3f807fff)).bits() == 0x3f80);
    CHECK(bfloat16(from_bits(0x3f808000)).bits() == 0x3f80);
    CHECK(bfloat16(from_bits(0x3f808001)).bits() == 0x3f81);
    CHECK(bfloat16(from_bits(0x3f817fff)).bits() == 0x3f81);
    CHECK(bfloat16(from_bits(0x3f818000)).bits() == 0x3f82);
    CHECK(bfloat16(from_bits(0xbf818000)).bits() == 0xbf82);
    CHECK(bfloat16(from_bits(0x3fffffff)).bits() == 0x4000);
    // Denormal numbers round alike, zeros keep their sign.
    CHECK(bfloat16(from_bits(0x00008000)).bits() == 0x0000);
    CHECK(bfloat16(from_bits(0x00018000)).bits() == 0x0002);
    CHECK(bfloat16(-0.f).bits() == 0x8000);

    // Against the two neighbours, for floats all over the range.
    std::size_t wrong = 0;
    for (std::uint32_t bits = 0; bits < 0x7f7f0000; bits += 49'999) {
        const float value = from_bits(bits);
        const auto below = static_cast<std::uint16_t>(bits >> 16);
        const double down = from_bits(std::uint32_t{below} << 16), up = from_bits((std::uint32_t{below} + 1) << 16);
        const double to_down = value - down, to_up = up - value;
        const bool goes_up = to_up < to_down || (to_up == to_down && below % 2 == 1);
        wrong += bfloat16(value).bits() != below + (goes_up ? 1 : 0);
    }
    CHECK(wrong == 0);
}

TEST_CASE("bfloat16 has infinities and NaNs", "[core]") {
    const float infinity = std::numeric_limits<float>::infinity();
    CHECK(static_cast<float>(bfloat16(infinity)) == infinity);
    CHECK(static_cast<float>(bfloat16(-infinity)) == -infinity);
    CHECK(static_cast<float>(bfloat16(std::numeric_limits<float>::max())) == infinity);
    // Rounding must not turn a NaN of any payload into an infinity or a zero.
    for (const std::uint32_t bits : {0x7f800001U, 0x7fbfffffU, 0x7fffffffU, 0xff800001U, 0xffffffffU}) {
        CHECK(std::isnan(static_cast<float>(bfloat16(from_bits(bits)))));
        CHECK((bfloat16(from_bits(bits)).bits() >> 15) == (bits >> 31));
    }
}

TEST_CASE("bfloat16 is computed in float", "[core]") {
    static_assert(sizeof(bfloat16) == 2);
    static_assert(std::same_as<tandem::Compute<bfloat16>, float>);
    static_assert(std::same_as<tandem::Compute<double>, double>);
    static_assert(bfloat16(1.5f) * 2 == 3);
    static_assert(tandem::Element<tandem::Id> && !tandem::Real<tandem::Id> && !tandem::Real<bfloat16>);
    CHECK(bfloat16().bits() == 0);
}

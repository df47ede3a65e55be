// What this machine can do at most, measured in the process that compares itself with it: multiply-adds that depend on
// nothing, in registers, and copies and reads of memory.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <tandem/core/memory.hpp>
#include <tandem/kernels/amx.hpp>
#include <tandem/kernels/dispatch.hpp>

namespace ceiling {

enum class Precision { f32, bf16, int8 };

namespace detail {

/// The operations of one step of a loop, and `steps` of them.
struct Loop {
    double operations;
    void (*run)(std::size_t steps);
};

/// Keeps the compiler from leaving out what makes the memory at `from`.
inline void use(const void* from) {
    asm volatile("" : : "g"(from) : "memory");
}

}  // namespace detail

}  // namespace ceiling

#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace ceiling::detail::avx2 {

/// Twelve sums, an operand each way: AVX2 has 16 registers.
template <std::size_t... Sum>
void fma_loop(std::size_t steps, std::index_sequence<Sum...>) {
    __m256 sums[]{(void(Sum), _mm256_setzero_ps())...};
    const auto hide = [](__m256& value) { asm volatile("" : "+x"(value)); };  // equal sums would be computed once
    (hide(sums[Sum]), ...);
    __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(0.25f);
    for (std::size_t i = 0; i < steps; ++i) {
        asm volatile("" : "+x"(a), "+x"(b));
        ((sums[Sum] = _mm256_fmadd_ps(a, b, sums[Sum])), ...);
    }
    alignas(32) float memory[sizeof...(Sum)][8];
    (_mm256_store_ps(memory[Sum], sums[Sum]), ...);
    use(memory);
}

inline void fma(std::size_t steps) {
    fma_loop(steps, std::make_index_sequence<12>{});
}

}  // namespace ceiling::detail::avx2

#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push( \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni")
#endif

namespace ceiling::detail::avx512 {

struct Fma {
    static __m512i step(__m512i a, __m512i b, __m512i sum) {
        return _mm512_castps_si512(
            _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), _mm512_castsi512_ps(sum)));
    }
};
struct Pairs {
    static __m512i step(__m512i a, __m512i b, __m512i sum) {
        return _mm512_castps_si512(
            _mm512_dpbf16_ps(_mm512_castsi512_ps(sum), reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b)));
    }
};
struct Bytes {
    static __m512i step(__m512i a, __m512i b, __m512i sum) { return _mm512_dpbusd_epi32(sum, a, b); }
};

/// Sixteen sums: more than the instructions' latency times the two that may start in a cycle.
template <class Dot, std::size_t... Sum>
void loop(std::size_t steps, std::index_sequence<Sum...>) {
    // 0x3c003c00 is a small normal number as a float, as a pair of bfloat16 and as four bytes.
    __m512i a = _mm512_set1_epi32(0x3c003c00), b = a;
    __m512i sums[]{(void(Sum), a)...};
    const auto hide = [](__m512i& value) { asm volatile("" : "+v"(value)); };  // equal sums would be computed once
    (hide(sums[Sum]), ...);
    for (std::size_t i = 0; i < steps; ++i) {
        asm volatile("" : "+v"(a), "+v"(b));
        ((sums[Sum] = Dot::step(a, b, sums[Sum])), ...);
    }
    alignas(64) std::int32_t memory[sizeof...(Sum)][16];
    (_mm512_store_si512(memory[Sum], sums[Sum]), ...);
    use(memory);
}

template <class Dot>
void sixteen(std::size_t steps) {
    loop<Dot>(steps, std::make_index_sequence<16>{});
}

}  // namespace ceiling::detail::avx512

#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("amx-tile,amx-bf16,amx-int8"))), apply_to = function)
#else
#pragma GCC pop_options
#endif

namespace ceiling::detail {

/// Four sums in tiles, an operand of two tiles each way, as the kernels have them.
template <class Dot>
void tiles(std::size_t steps) {
    tandem::kernels::amx::CpuTiles tiles;
    tiles.configure(16, 16, 16);
    for (std::size_t i = 0; i < steps; ++i) {
        tiles.template multiply<Dot, 0, 4, 6>();
        tiles.template multiply<Dot, 1, 4, 7>();
        tiles.template multiply<Dot, 2, 5, 6>();
        tiles.template multiply<Dot, 3, 5, 7>();
    }
}

}  // namespace ceiling::detail

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif

namespace ceiling {

namespace detail {

/// Without a loop of independent operations for the CPU: tandem's register tile on data in the L1 cache.
template <auto tile_of>
void tile_loop(std::size_t steps) {
    const auto tile = tile_of();
    const auto run = [&]<class A, class B, class Sum>(const tandem::kernels::TileKernel<A, B, Sum>& kernel) {
        constexpr std::size_t depth = 256;
        const std::vector<A> a(kernel.rows * depth, A(1));
        const std::vector<B> b(kernel.columns * depth, B(1));
        std::vector<Sum> sums(kernel.rows * kernel.columns);
        for (std::size_t i = 0; i < steps; ++i) {
            kernel.multiply(kernel.rows, depth / kernel.group, a.data(), depth, kernel.group, b.data(), sums.data(), b.data(), false);
            use(sums.data());
        }
    };
    run(tile);
}

template <auto tile_of>
Loop on_tile() {
    const auto tile = tile_of();
    return {2.0 * 256 * static_cast<double>(tile.rows * tile.columns), tile_loop<tile_of>};
}

inline auto f32_tile() {
    return tandem::kernels::active<float>().tile;
}
inline auto bf16_tile() {
    return tandem::kernels::active_reduced().widened;
}
inline auto int8_tile() {
    return tandem::kernels::active_reduced().bytes;
}

inline Loop loop_of(Precision precision) {
#if defined(__x86_64__)
    const tandem::kernels::CpuFeatures& cpu = tandem::kernels::cpu_features();
    if (tandem::kernels::active_isa() == tandem::kernels::Isa::amx && precision != Precision::f32) {
        constexpr double elements = 4 * 16 * 16 * 64;  // bytes of depth in four products
        if (precision == Precision::bf16) return {elements, tiles<tandem::kernels::amx::PairDot>};
        return {2 * elements, tiles<tandem::kernels::amx::ByteDot>};
    }
    if (precision == Precision::int8 && cpu.int8) return {16 * 16 * 8, avx512::sixteen<avx512::Bytes>};
    if (precision == Precision::bf16 && tandem::kernels::active_isa() == tandem::kernels::Isa::avx512bf16) {
        return {16 * 16 * 4, avx512::sixteen<avx512::Pairs>};
    }
    if (precision != Precision::int8 && cpu.avx512) return {16 * 16 * 2, avx512::sixteen<avx512::Fma>};
    if (precision != Precision::int8 && cpu.avx2) return {12 * 8 * 2, avx2::fma};
#endif
    switch (precision) {
        case Precision::f32:
            return on_tile<f32_tile>();
        case Precision::bf16:
            return on_tile<bf16_tile>();
        case Precision::int8:
            break;
    }
    return on_tile<int8_tile>();
}

inline double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// The shortest time of `body` in about `seconds` of trying: what disturbs a measurement only ever adds to it.
template <class Body>
double shortest(double seconds, const Body& body) {
    double best = std::numeric_limits<double>::max();
    for (const double begin = now(); now() - begin < seconds;) {
        const double start = now();
        body();
        best = std::min(best, now() - start);
    }
    return best;
}

}  // namespace detail

/// Operations a second (10^9; a multiply-add is two) of the arithmetic units on `threads` cores at once: the best of
/// bursts of 20 microseconds or so on each.
inline double gflops(Precision precision, std::size_t threads = 1, double seconds = 0.02) {
    const detail::Loop loop = detail::loop_of(precision);
    const std::size_t steps = std::max<std::size_t>(1, static_cast<std::size_t>(4e6 / loop.operations));
    std::vector<double> rates(threads);
    const auto measure = [&](std::size_t i) {
        rates[i] =
            1e-9 * loop.operations * static_cast<double>(steps) / detail::shortest(seconds, [&] { loop.run(steps); });
    };
    std::vector<std::thread> others;
    for (std::size_t i = 1; i < threads; ++i) others.emplace_back(measure, i);
    measure(0);
    for (std::thread& thread : others) thread.join();
    double sum = 0;
    for (const double rate : rates) sum += rate;
    return sum;
}

/// Bytes a second (10^9; read plus written) of one core that copies half of `footprint` bytes to the other half:
/// whatever cache holds them, or memory.
inline double copy_rate(std::size_t footprint, double seconds = 0.02) {
    const std::size_t half = std::max<std::size_t>(footprint / 2, 4096);
    tandem::Buffer<std::byte> from(half), to(half);
    std::memset(from.data(), 1, half);
    std::memset(to.data(), 2, half);
    const std::size_t times = std::max<std::size_t>(1, (std::size_t{1} << 18) / half);
    const double time = detail::shortest(seconds, [&] {
        for (std::size_t i = 0; i < times; ++i) {
            detail::use(from.data());
            std::memcpy(to.data(), from.data(), half);
            detail::use(to.data());
        }
    });
    return 1e-9 * 2.0 * static_cast<double>(half * times) / time;
}

/// Bytes a second (10^9) that `threads` cores read of `footprint` bytes together.
inline double read_rate(std::size_t footprint, std::size_t threads, double seconds = 0.5) {
    const std::size_t words = footprint / sizeof(std::uint64_t) / (8 * threads) * (8 * threads), each = words / threads;
    tandem::Buffer<std::uint64_t> memory(words);
    std::memset(memory.data(), 1, words * sizeof(std::uint64_t));
    const auto read = [&](std::size_t thread) {
        std::uint64_t sums[8] = {};
        const std::uint64_t* const from = memory.data() + thread * each;
        for (std::size_t i = 0; i < each; i += 8) {
            for (std::size_t j = 0; j < 8; ++j) sums[j] += from[i + j];
        }
        detail::use(sums);
    };
    const double time = detail::shortest(seconds, [&] {
        std::vector<std::thread> others;
        for (std::size_t i = 1; i < threads; ++i) others.emplace_back(read, i);
        read(0);
        for (std::thread& thread : others) thread.join();
    });
    return 1e-9 * static_cast<double>(words * sizeof(std::uint64_t)) / time;
}

}  // namespace ceiling

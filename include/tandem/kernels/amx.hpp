// Products in tiles of 16 rows of 64 bytes: the kernel over a type of tiles, which are the CPU's own (AMX) or, rounding
// as those do, plain C++.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include <tandem/core/dtype.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/kernels/kernel_set.hpp>

// Clang assembles AMX's instructions only in functions of its target.
#if defined(__x86_64__) && defined(__clang__)
#pragma clang attribute push(__attribute__((target("amx-tile,amx-bf16,amx-int8"))), apply_to = function)
#endif

namespace tandem::inline TANDEM_ABI::kernels::amx {

/// Rows of a tile, and bytes in each of them.
inline constexpr std::size_t tile_height = 16, tile_bytes = 64;

/// Which products tiles are made of.
struct PairDot {
    using A = bfloat16;
    using B = bfloat16;
    using Sum = float;
    static constexpr std::size_t group = 2;
};
struct ByteDot {
    using A = std::uint8_t;
    using B = std::int8_t;
    using Sum = std::int32_t;
    static constexpr std::size_t group = 4;
};

/// Eight tiles as one product uses them: sums in 0 to 3, of which 2 and 3 stand below 0 and 1; what is left of the
/// product sign in 4 and 5, what is right of it in 6 and 7. This is the CPU's type; the contents are lost with the object.
/// (As assembler text: intrinsics take a tile's number as a literal only, and g++'s forget that they read memory.)
#if defined(__x86_64__)
class CpuTiles {
public:
    CpuTiles() = default;
    CpuTiles(const CpuTiles&) = delete;
    CpuTiles& operator=(const CpuTiles&) = delete;
    ~CpuTiles() { asm volatile("tilerelease"); }  // a thread's switch then saves no tiles

    /// `upper` rows in tiles 0, 1 and 4, `lower` in 2, 3 and 5, and that many groups of four bytes along the depth. A
    /// height of 0 stands for tiles that are not used. Clears all.
    void configure(std::size_t upper, std::size_t lower, std::size_t groups) {
        struct {
            std::uint8_t palette = 1, start = 0, reserved[14] = {};
            std::uint16_t row_bytes[16] = {};
            std::uint8_t rows[16] = {};
        } config;
        const auto set = [&](std::size_t tile, std::size_t rows, std::size_t bytes) {
            config.rows[tile] = static_cast<std::uint8_t>(rows);
            config.row_bytes[tile] = static_cast<std::uint16_t>(bytes);
        };
        for (std::size_t half = 0; half < 2; ++half) {
            const std::size_t rows = std::max<std::size_t>(half == 0 ? upper : lower, 1);
            set(2 * half, rows, tile_bytes);
            set(2 * half + 1, rows, tile_bytes);
            set(4 + half, rows, 4 * groups);
            set(6 + half, groups, tile_bytes);
        }
        asm volatile("ldtilecfg %0" : : "m"(config));
    }

    template <int tile>
    void clear() {
        asm volatile("tilezero %%tmm%c0" : : "i"(tile));
    }
    template <int tile>
    void load(const void* from, std::size_t stride) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(tile) : "memory");
    }
    /// load() of what will not be read again soon.
    template <int tile>
    void stream(const void* from, std::size_t stride) {
        asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(tile) : "memory");
    }
    template <int tile>
    void store(void* to, std::size_t stride) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(tile) : "memory");
    }
    template <class Dot, int sum, int left, int right>
    void multiply() {
        if constexpr (Dot::group == 2) {
            asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(left), "i"(right));
        } else {
            asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sum), "i"(left), "i"(right));
        }
    }
};
#endif

/// The same in plain C++ (Intel SDM, TDPBF16PS, TDPBUSD): the even and the odd elements of a depth are summed apart, and
/// subnormal numbers, given or found, count as zero.
class PlainTiles {
public:
    void configure(std::size_t upper, std::size_t lower, std::size_t groups) {
        for (std::size_t tile = 0; tile < 8; ++tile) tiles_[tile] = {};
        heights_ = {upper, upper, lower, lower, upper, lower, groups, groups};
        groups_ = groups;
    }
    template <int tile>
    void clear() {
        tiles_[tile] = {};
    }
    template <int tile>
    void load(const void* from, std::size_t stride) {
        for (std::size_t i = 0; i < heights_[tile]; ++i) {
            std::memcpy(tiles_[tile][i].data(), static_cast<const std::byte*>(from) + i * stride, width(tile));
        }
    }
    template <int tile>
    void stream(const void* from, std::size_t stride) {
        load<tile>(from, stride);
    }
    template <int tile>
    void store(void* to, std::size_t stride) {
        for (std::size_t i = 0; i < heights_[tile]; ++i) {
            std::memcpy(static_cast<std::byte*>(to) + i * stride, tiles_[tile][i].data(), width(tile));
        }
    }
    template <class Dot, int sum, int left, int right>
    void multiply() {
        for (std::size_t i = 0; i < heights_[sum]; ++i) {
            for (std::size_t j = 0; j < tile_height; ++j) {
                auto total = element<typename Dot::Sum>(sum, i, j);
                if constexpr (Dot::group == 2) {
                    float even = 0, odd = 0;
                    for (std::size_t k = 0; k < groups_; ++k) {
                        even = multiply_add(element<bfloat16>(left, i, 2 * k), element<bfloat16>(right, k, 2 * j), even);
                        odd = multiply_add(element<bfloat16>(left, i, 2 * k + 1), element<bfloat16>(right, k, 2 * j + 1), odd);
                    }
                    total = normal(normal(total) + normal(even + odd));
                } else {
                    for (std::size_t k = 0; k < 4 * groups_; ++k) {
                        total += element<std::uint8_t>(left, i, k) * element<std::int8_t>(right, k / 4, 4 * j + k % 4);
                    }
                }
                std::memcpy(tiles_[sum][i].data() + j * sizeof total, &total, sizeof total);
            }
        }
    }

private:
    using Tile = std::array<std::array<std::byte, tile_bytes>, tile_height>;

    std::size_t width(std::size_t tile) const { return tile == 4 || tile == 5 ? 4 * groups_ : tile_bytes; }

    template <class T>
    T element(std::size_t tile, std::size_t row, std::size_t column) const {
        T value;
        std::memcpy(&value, tiles_[tile][row].data() + column * sizeof value, sizeof value);
        return value;
    }

    static float normal(float value) { return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value; }
    static float multiply_add(float a, float b, float sum) { return normal(std::fma(normal(a), normal(b), sum)); }

    std::array<Tile, 8> tiles_;
    std::array<std::size_t, 8> heights_{};
    std::size_t groups_ = 0;
};

/// TileKernel::multiply on tiles, 2 x 2 of them at a time. The left operand's groups stand side by side.
template <class Tiles, class Dot>
struct TileProduct {
    using A = typename Dot::A;
    using B = typename Dot::B;
    using Sum = typename Dot::Sum;
    // A panel that was brought into the L1 cache is used for as many rows as have their sums, 32 KiB, still at hand when
    // the next part of it comes.
    static constexpr std::size_t rows = 256, columns = 32, together = 2 * tile_height;
    // A deeper block of 256 rows, with the panels that pass by, would not stay in 2 MiB of L2 cache.
    static constexpr std::size_t depth = Dot::group == 2 ? 768 : 1024;
    static_assert(narrow_depth <= depth * Dot::group);

    static void multiply(std::size_t height, std::size_t groups, const A* a, std::size_t a_row, std::size_t,
                         const B* b, Sum* out, const void* ahead, bool onto) {
        multiply_while(height, groups, a, a_row, b, out, ahead, groups * fetched_per_group, onto, {});
    }

    static void multiply_while(std::size_t height, std::size_t groups, const A* a, std::size_t a_row, const B* b, Sum* out,
                               const void* ahead, std::size_t ahead_bytes, bool onto, const Meanwhile& meanwhile) {
        Tiles tiles;
        const std::size_t all = (height + together - 1) / together * ((groups + tile_height - 1) / tile_height);
        Product product{.a = reinterpret_cast<const char*>(a),
                        .a_row = a_row * sizeof(A),
                        .b = reinterpret_cast<const char*>(b),
                        .out = reinterpret_cast<char*>(out),
                        .ahead = static_cast<const char*>(ahead),
                        .lines = (ahead_bytes / 64 + all - 1) / all,
                        .steps = (groups + tile_height - 1) / tile_height,
                        .onto = onto,
                        .meanwhile = meanwhile};
        const std::size_t whole = height / together * together, rest = height - whole;
        const auto rows_of = [&](std::size_t first, std::size_t last, std::size_t upper, std::size_t lower) {
            const std::size_t steps = groups / tile_height, tail = groups % tile_height;
            if (steps > 0) {
                tiles.configure(upper, lower, tile_height);
                const std::size_t blocks = (steps + block_steps - 1) / block_steps;
                for (std::size_t block = 0; block < blocks; ++block) {
                    product.block(tiles, first, last, lower > 0, block * steps / blocks, (block + 1) * steps / blocks);
                }
            }
            if (tail > 0) {
                tiles.configure(upper, lower, tail);
                product.block(tiles, first, last, lower > 0, steps, steps + 1);
            }
        };
        if (whole > 0) rows_of(0, whole, tile_height, tile_height);
        if (rest > 0) rows_of(whole, height, std::min(rest, tile_height), rest - std::min(rest, tile_height));
        if (meanwhile.run != nullptr) meanwhile.run(meanwhile.state, height);
    }

    static constexpr TileKernel<A, B, Sum> kernel{
        .rows = rows,
        .columns = columns,
        .group = Dot::group,
        .multiply = multiply,
        .multiply_while = multiply_while,
        .depth = depth,
        .unit = together,
        .in_block = 2};

private:
    /// Steps of 16 groups whose panel, 2 KiB a step, stays in the L1 cache while the rows pass by. Sums wait in memory
    /// from one such block to the next, unrounded.
    static constexpr std::size_t block_steps = 12;
    /// Rows that are finished at once, at least. A step of bytes has few of them; each call costs as much as a row's work.
    static constexpr std::size_t finished_together = Dot::group == 2 ? 1 : 8;
    static constexpr std::size_t row_of_sums = columns * sizeof(Sum), step_of_panel = tile_height * columns * 4;

    struct Product {
        const char* a;
        std::size_t a_row;
        const char* b;
        char* out;
        const char* ahead;
        std::size_t lines;  ///< of what is ahead, fetched in a step
        std::size_t steps;  ///< of the depth
        bool onto;
        Meanwhile meanwhile;

        /// The rows [first, last), and the steps [begin, end) of the depth.
        void block(Tiles& tiles, std::size_t first, std::size_t last, bool is_high, std::size_t begin, std::size_t end) {
            for (std::size_t row = first; row < last; row += together) {
                is_high ? pass<true>(tiles, row, begin, end) : pass<false>(tiles, row, begin, end);
            }
        }

        template <bool is_high>
        [[gnu::always_inline]] void pass(Tiles& tiles, std::size_t row, std::size_t begin, std::size_t end) {
            char* const upper = out + row * row_of_sums;
            char* const lower = upper + tile_height * row_of_sums;
            if (begin == 0 && !onto) {
                tiles.template clear<0>();
                tiles.template clear<1>();
                if constexpr (is_high) {
                    tiles.template clear<2>();
                    tiles.template clear<3>();
                }
            } else {
                tiles.template load<0>(upper, row_of_sums);
                tiles.template load<1>(upper + tile_bytes, row_of_sums);
                if constexpr (is_high) {
                    tiles.template load<2>(lower, row_of_sums);
                    tiles.template load<3>(lower + tile_bytes, row_of_sums);
                }
            }
            // The last steps of a depth leave time for the rows that are done: those above.
            const bool is_last = meanwhile.run != nullptr && end == steps && row > 0;
            const char* left = a + row * a_row + begin * tile_bytes;
            const char* right = b + begin * step_of_panel;
            for (std::size_t step = begin; step < end; ++step, left += tile_bytes, right += step_of_panel) {
                for (std::size_t i = 0; i < lines; ++i) __builtin_prefetch(ahead + i * 64, 0, 2);
                ahead += lines * 64;
                tiles.template stream<4>(left, a_row);
                tiles.template load<6>(right, row_of_panel);
                tiles.template load<7>(right + tile_bytes, row_of_panel);
                tiles.template multiply<Dot, 0, 4, 6>();
                if constexpr (is_high) tiles.template stream<5>(left + tile_height * a_row, a_row);
                tiles.template multiply<Dot, 1, 4, 7>();
                if constexpr (is_high) {
                    tiles.template multiply<Dot, 2, 5, 6>();
                    tiles.template multiply<Dot, 3, 5, 7>();
                }
                if (!is_last) continue;
                const std::size_t due = together * (step + 1 - begin) / (end - begin) / finished_together * finished_together;
                if (due > 0) meanwhile.run(meanwhile.state, row - together + due);
            }
            tiles.template store<0>(upper, row_of_sums);
            tiles.template store<1>(upper + tile_bytes, row_of_sums);
            if constexpr (is_high) {
                tiles.template store<2>(lower, row_of_sums);
                tiles.template store<3>(lower + tile_bytes, row_of_sums);
            }
        }

        static constexpr std::size_t row_of_panel = columns * 4;
    };
};

}  // namespace tandem::inline TANDEM_ABI::kernels::amx

#if defined(__x86_64__) && defined(__clang__)
#pragma clang attribute pop
#endif

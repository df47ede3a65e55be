// General matrix product with any strides: packing, blocking and the parallel split around the register tile.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstring>

#include <tandem/core/dtype.hpp>
#include <tandem/core/memory.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/kernels/dispatch.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

/// A matrix operand: element (i, j) stands at data[i · row_stride + j · column_stride]. A transposed view swaps the
/// two.
template <Element T>
struct Operand {
    const T* data;
    std::size_t row_stride;
    std::size_t column_stride;

    Operand transposed() const { return {data, column_stride, row_stride}; }
};

template <Element T>
constexpr Operand<T> row_major(const T* data, std::size_t row_stride) {
    return {data, row_stride, 1};
}

/// The K blocking. It is part of the contract, not a tuning knob: sums are taken in blocks of this depth in every
/// configuration, so an output row's bits do not depend on M, on the other rows, or on the number of threads.
inline constexpr std::size_t gemm_depth = 256;

namespace detail {

/// to[k · tile, + tile) = from[k · stride, + tile) for every k: whole panels of an operand whose rows lie side by side.
/// The tiles in use are spelled out so that a copy is a few vector moves.
template <std::size_t Tile, class T>
void copy_columns(const T* from, std::size_t stride, std::size_t depth, T* to) {
    for (std::size_t k = 0; k < depth; ++k, from += stride, to += Tile) std::memcpy(to, from, Tile * sizeof(T));
}

template <class T>
bool copy_whole_panel(const T* from, std::size_t stride, std::size_t depth, std::size_t tile, T* to) {
    switch (tile) {
        case 4:
            copy_columns<4>(from, stride, depth, to);
            return true;
        case 6:
            copy_columns<6>(from, stride, depth, to);
            return true;
        case 8:
            copy_columns<8>(from, stride, depth, to);
            return true;
        case 14:
            copy_columns<14>(from, stride, depth, to);
            return true;
        case 16:
            copy_columns<16>(from, stride, depth, to);
            return true;
        case 32:
            copy_columns<32>(from, stride, depth, to);
            return true;
        default:
            return false;
    }
}

/// Copies a [rows, depth] piece of an operand into panels of `tile` rows, column by column, zero-padded to whole
/// panels, widening to the type that is computed in. For the right operand, pass its transpose.
template <Element From, Real T>
void pack(const Operand<From>& operand, std::size_t rows, std::size_t depth, std::size_t tile, T* panels) {
    for (std::size_t first = 0; first < rows; first += tile, panels += tile * depth) {
        const std::size_t filled = std::min(tile, rows - first);
        const From* source = operand.data + first * operand.row_stride;
        if (operand.row_stride == 1) {
            if constexpr (std::same_as<From, T>) {
                if (filled == tile && copy_whole_panel(source, operand.column_stride, depth, tile, panels)) continue;
            }
            for (std::size_t k = 0; k < depth; ++k) {
                T* to = panels + k * tile;
                const From* from = source + k * operand.column_stride;
                for (std::size_t i = 0; i < filled; ++i) to[i] = static_cast<T>(from[i]);
                for (std::size_t i = filled; i < tile; ++i) to[i] = T{0};
            }
            continue;
        }
        // Eight rows at a time: their elements of one column stand side by side in the panel, in one line of the cache.
        constexpr std::size_t together = 8;
        std::size_t i = 0;
        for (; i + together <= filled; i += together) {
            const From* from = source + i * operand.row_stride;
            for (std::size_t k = 0; k < depth; ++k) {
                for (std::size_t j = 0; j < together; ++j) {
                    panels[k * tile + i + j] = static_cast<T>(from[j * operand.row_stride + k * operand.column_stride]);
                }
            }
        }
        for (; i < tile; ++i) {
            const From* from = source + i * operand.row_stride;
            for (std::size_t k = 0; k < depth; ++k) {
                panels[k * tile + i] = i < filled ? static_cast<T>(from[k * operand.column_stride]) : T{0};
            }
        }
    }
}

template <Real T>
struct GemmScratch {
    Buffer<T> left, right;
};

/// One set of pack buffers a thread: they stop growing at the largest product the thread has seen.
template <Real T>
GemmScratch<T>& gemm_scratch() {
    thread_local GemmScratch<T> scratch;
    return scratch;
}

constexpr std::size_t round_up(std::size_t value, std::size_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

/// Whether the tile may read the left operand where it stands. Rows a multiple of 4096 bytes apart would all fall into
/// the same few lines of the L1 cache, and columns apart touch a line for every element.
template <Real T, Element A>
bool reads_in_place(const Operand<A>& a) {
    return std::same_as<T, A> && a.column_stride == 1 && a.row_stride * sizeof(A) % 4096 != 0;
}

/// Where the left operand's tiles are read: in place, or packed. Rows that fill no whole tile are always packed.
template <Real T>
struct LeftPanels {
    const T* in_place = nullptr;
    std::size_t row_stride = 0;
    const T* packed = nullptr;
};

/// Multiplies rows of the left operand by packed panels of the right one into c[rows, columns]; the edges go through a
/// full tile on the stack.
template <Real T>
void multiply_panels(const KernelSet<T>& set, const LeftPanels<T>& left, const T* right, T* c, std::size_t c_stride,
                     std::size_t rows, std::size_t columns, std::size_t depth, bool accumulate) {
    constexpr std::size_t largest_tile = 14 * 64;
    alignas(64) std::array<T, largest_tile> edge;
    for (std::size_t j = 0; j < columns; j += set.tile_columns) {
        const std::size_t width = std::min(set.tile_columns, columns - j);
        for (std::size_t i = 0; i < rows; i += set.tile_rows) {
            const std::size_t height = std::min(set.tile_rows, rows - i);
            const bool whole = height == set.tile_rows;
            T* const target = c + i * c_stride + j;
            const auto multiply = [&](T* to, std::size_t stride) {
                if (left.in_place != nullptr && whole) {
                    set.gemm_tile(depth, left.in_place + i * left.row_stride, left.row_stride, 1, right + j * depth, to,
                                  stride, accumulate);
                } else {
                    set.gemm_tile(depth, left.packed + i * depth, 1, set.tile_rows, right + j * depth, to, stride,
                                  accumulate);
                }
            };
            if (whole && width == set.tile_columns) {
                multiply(target, c_stride);
                continue;
            }
            if (accumulate) {
                for (std::size_t y = 0; y < height; ++y) {
                    std::copy_n(target + y * c_stride, width, edge.data() + y * set.tile_columns);
                }
            }
            multiply(edge.data(), set.tile_columns);
            for (std::size_t y = 0; y < height; ++y) {
                std::copy_n(edge.data() + y * set.tile_columns, width, target + y * c_stride);
            }
        }
    }
}

/// Prepares a [rows, depth] piece of the left operand, packing what cannot be read in place into `buffer`, which has
/// room for whole tiles.
template <Real T, Element A>
LeftPanels<T> left_panels(const KernelSet<T>& set, const Operand<A>& piece, std::size_t rows, std::size_t depth,
                          T* buffer) {
    LeftPanels<T> panels{.packed = buffer};
    std::size_t first = 0;
    if constexpr (std::same_as<T, A>) {
        if (reads_in_place<T>(piece)) {
            panels.in_place = piece.data;
            panels.row_stride = piece.row_stride;
            first = rows / set.tile_rows * set.tile_rows;
        }
    }
    const Operand<A> rest{piece.data + first * piece.row_stride, piece.row_stride, piece.column_stride};
    pack(rest, rows - first, depth, set.tile_rows, buffer + first * depth);
    return panels;
}

}  // namespace detail

/// Does nothing with a finished tile.
struct NoEpilogue {
    void operator()(std::size_t, std::size_t, std::size_t, std::size_t) const {}
};

/// c[m, n] = a[m, k] · b[k, n], or c += where `accumulate` is set, on all cores. c is row-major with stride c_stride
/// and must not overlap a or b. epilogue(first_row, last_row, first_column, last_column) is called once for every block
/// of c that is complete, while it is in the cache of the thread that made it.
template <Real T, Element A, Element B, class Epilogue = NoEpilogue>
void gemm(std::size_t m, std::size_t n, std::size_t k, const Operand<A>& a, const Operand<B>& b, T* c,
          std::size_t c_stride, bool accumulate = false, const Epilogue& epilogue = {}) {
    if (m == 0 || n == 0) return;
    const KernelSet<T>& set = active<T>();
    if (k == 0) {
        for (std::size_t i = 0; i < m && !accumulate; ++i) std::fill_n(c + i * c_stride, n, T{0});
        epilogue(0, m, 0, n);
        return;
    }
    // The right operand is packed whole, once, and shared.
    const std::size_t padded_n = detail::round_up(n, set.tile_columns);
    Buffer<T>& shared = detail::gemm_scratch<T>().right;
    shared.resize(padded_n * k);
    T* const packed = shared.data();
    const std::size_t column_panels = padded_n / set.tile_columns;
    for (std::size_t first = 0; first < k; first += gemm_depth) {
        const std::size_t depth = std::min(gemm_depth, k - first);
        const std::size_t grain = std::max<std::size_t>(1, 16384 / (depth * set.tile_columns));
        parallel_for(column_panels, grain, [&](std::size_t begin, std::size_t end) {
            const std::size_t column = begin * set.tile_columns;
            const Operand<B> piece{b.data + first * b.row_stride + column * b.column_stride, b.column_stride,
                                   b.row_stride};
            detail::pack(piece, std::min(end * set.tile_columns, n) - column, depth, set.tile_columns,
                         packed + first * padded_n + column * depth);
        });
    }
    // Blocks of about 112 rows keep the left piece in the L2 cache; few rows are split over columns instead.
    const std::size_t block_rows = std::min(detail::round_up(m, set.tile_rows), 8 * set.tile_rows);
    const std::size_t row_blocks = (m + block_rows - 1) / block_rows;
    const std::size_t column_splits = row_blocks >= 8 ? 1 : std::min<std::size_t>(column_panels, 8 / row_blocks + 1);
    const std::size_t split_panels = (column_panels + column_splits - 1) / column_splits;
    parallel_for(row_blocks * column_splits, 1, [&](std::size_t begin, std::size_t end) {
        Buffer<T>& left = detail::gemm_scratch<T>().left;
        left.resize(block_rows * gemm_depth);
        for (std::size_t task = begin; task < end; ++task) {
            const std::size_t row = task / column_splits * block_rows;
            const std::size_t rows = std::min(block_rows, m - row);
            const std::size_t column = std::min(task % column_splits * split_panels * set.tile_columns, n);
            const std::size_t last = std::min(column + split_panels * set.tile_columns, n);
            if (column == last) continue;
            for (std::size_t first = 0; first < k; first += gemm_depth) {
                const std::size_t depth = std::min(gemm_depth, k - first);
                const Operand<A> piece{a.data + row * a.row_stride + first * a.column_stride, a.row_stride,
                                       a.column_stride};
                const auto panels = detail::left_panels(set, piece, rows, depth, left.data());
                detail::multiply_panels(set, panels, packed + first * padded_n + column * depth,
                                        c + row * c_stride + column, c_stride, rows, last - column, depth,
                                        accumulate || first > 0);
            }
            epilogue(row, row + rows, column, last);
        }
    });
}

/// gemm on the calling thread alone, for small products inside a loop that is parallel already.
template <Real T>
void gemm_serial(std::size_t m, std::size_t n, std::size_t k, const Operand<T>& a, const Operand<T>& b, T* c,
                 std::size_t c_stride, bool accumulate = false) {
    const KernelSet<T>& set = active<T>();
    detail::GemmScratch<T>& scratch = detail::gemm_scratch<T>();
    scratch.left.resize(detail::round_up(m, set.tile_rows) * std::min(k, gemm_depth));
    scratch.right.resize(detail::round_up(n, set.tile_columns) * std::min(k, gemm_depth));
    for (std::size_t first = 0; first < k; first += gemm_depth) {
        const std::size_t depth = std::min(gemm_depth, k - first);
        const Operand<T> left{a.data + first * a.column_stride, a.row_stride, a.column_stride};
        const Operand<T> right{b.data + first * b.row_stride, b.column_stride, b.row_stride};
        const auto panels = detail::left_panels(set, left, m, depth, scratch.left.data());
        detail::pack(right, n, depth, set.tile_columns, scratch.right.data());
        detail::multiply_panels(set, panels, scratch.right.data(), c, c_stride, m, n, depth, accumulate || first > 0);
    }
}

}  // namespace tandem::inline TANDEM_ABI::kernels

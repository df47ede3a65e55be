// Matrix products: packing, blocking and the parallel split around the register tile.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <utility>

#include <tandem/core/dtype.hpp>
#include <tandem/core/memory.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/kernels/dispatch.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

/// A matrix operand: element (i, j) stands at data[i · row_stride + j · column_stride]. A transposed view swaps the
/// two.
template <class T>
struct Operand {
    const T* data;
    std::size_t row_stride;
    std::size_t column_stride;

    Operand transposed() const { return {data, column_stride, row_stride}; }
    Operand from(std::size_t row, std::size_t column) const {
        return {data + row * row_stride + column * column_stride, row_stride, column_stride};
    }
};

template <class T>
constexpr Operand<T> row_major(const T* data, std::size_t row_stride) {
    return {data, row_stride, 1};
}

/// Where a product goes: element (i, j) stands at data[i · row_stride + j / panel · panel_stride + j % panel].
/// Row-major memory has panel_stride = panel.
template <class T>
struct Target {
    T* data;
    std::size_t row_stride;
    std::size_t panel_stride;
};

/// The K blocking, in groups of the tile. It is part of the contract, not a tuning knob: products are summed in
/// blocks of this depth in every configuration, so an output row's bits do not depend on M, on the other rows, or on
/// the number of threads.
inline constexpr std::size_t gemm_depth = 384;

/// Elements of the largest register tile.
inline constexpr std::size_t largest_tile = 14 * 64;

constexpr std::size_t round_up(std::size_t value, std::size_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

/// Panels of the right operand: `width` columns side by side, all K of them, groups of the depth together, zeros behind
/// the last column and the last row.
struct PanelLayout {
    std::size_t width;
    std::size_t group;

    std::size_t panel_size(std::size_t k) const { return round_up(k, group) * width; }
    std::size_t size(std::size_t k, std::size_t n) const { return panel_size(k) * ((n + width - 1) / width); }
    /// Where element (row, column) stands.
    std::size_t position(std::size_t row, std::size_t column, std::size_t k) const {
        return column / width * panel_size(k) + (row / group * width + column % width) * group + row % group;
    }
};

template <class A, class B, class Sum>
constexpr PanelLayout layout_of(const TileKernel<A, B, Sum>& tile) {
    return {tile.columns, tile.group};
}

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
        case 12:
            copy_columns<12>(from, stride, depth, to);
            return true;
        case 13:
            copy_columns<13>(from, stride, depth, to);
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

/// Copies `filled` rows and `depth` columns of an operand into a panel of `tile` rows, column by column, zeros behind
/// the last row, widening to the type that is computed in. For the right operand, pass its transpose.
template <class From, class T>
void pack_panel(const Operand<From>& operand, std::size_t filled, std::size_t depth, std::size_t tile, T* panel) {
    const From* source = operand.data;
    if (operand.row_stride == 1) {
        if constexpr (std::same_as<From, T>) {
            if (filled == tile && copy_whole_panel(source, operand.column_stride, depth, tile, panel)) return;
        }
        for (std::size_t k = 0; k < depth; ++k) {
            T* to = panel + k * tile;
            const From* from = source + k * operand.column_stride;
            for (std::size_t i = 0; i < filled; ++i) to[i] = static_cast<T>(from[i]);
            for (std::size_t i = filled; i < tile; ++i) to[i] = T{0};
        }
        return;
    }
    // Eight rows at a time: their elements of one column stand side by side in the panel, in one line of the cache.
    constexpr std::size_t together = 8;
    std::size_t i = 0;
    for (; i + together <= filled; i += together) {
        const From* from = source + i * operand.row_stride;
        for (std::size_t k = 0; k < depth; ++k) {
            for (std::size_t j = 0; j < together; ++j) {
                panel[k * tile + i + j] = static_cast<T>(from[j * operand.row_stride + k * operand.column_stride]);
            }
        }
    }
    for (; i < tile; ++i) {
        const From* from = source + i * operand.row_stride;
        for (std::size_t k = 0; k < depth; ++k) {
            panel[k * tile + i] = i < filled ? static_cast<T>(from[k * operand.column_stride]) : T{0};
        }
    }
}

/// Memory that stops growing at the largest product the thread has seen.
template <class T>
struct GemmScratch {
    Buffer<T> left, right;
};

template <class T>
GemmScratch<T>& gemm_scratch() {
    thread_local GemmScratch<T> scratch;
    return scratch;
}

/// Rows in even shares, none above `most`: the last tile is no smaller than the others.
struct Shares {
    std::size_t count, total;

    Shares(std::size_t rows, std::size_t most) : count((rows + most - 1) / most), total(rows) {}
    std::size_t begin(std::size_t index) const { return index * (total / count) + std::min(index, total % count); }
};

/// The left operand of one block. Packed tiles stand one after the other; unpacked rows are read where they are.
template <class A>
struct LeftBlock {
    const A* data;
    std::size_t row;    ///< elements between rows; 1 if packed
    std::size_t group;  ///< elements between groups; 0 if packed: the height of the tile

    const A* tile(std::size_t first, std::size_t depth) const { return data + first * (group == 0 ? depth : row); }
};

/// Prepares a block of the left operand. Rows are read in place if they are contiguous, but not where they lie a
/// multiple of 4096 bytes apart: those would all fall into the same few lines of the L1 cache.
template <class T, class A>
LeftBlock<T> left_block(const Operand<A>& a, const Shares& tiles, std::size_t depth, std::size_t group,
                        Buffer<T>& memory) {
    const bool is_row_major = a.column_stride == 1;
    if constexpr (std::same_as<A, T>) {
        if (is_row_major && a.row_stride * sizeof(A) % 4096 != 0) return {a.data, a.row_stride, group};
    }
    memory.resize(tiles.total * depth);
    if (is_row_major) {
        for (std::size_t i = 0; i < tiles.total; ++i) {
            std::copy_n(a.data + i * a.row_stride, depth, memory.data() + i * depth);
        }
        return {memory.data(), depth, group};
    }
    for (std::size_t t = 0; t < tiles.count; ++t) {
        const std::size_t first = tiles.begin(t), height = tiles.begin(t + 1) - first;
        pack_panel(a.from(first, 0), height, depth, height, memory.data() + first * depth);
    }
    return {memory.data(), 1, 0};
}

}  // namespace detail

/// Does nothing with a finished block.
struct NoEpilogue {
    void operator()(std::size_t, std::size_t, std::size_t, std::size_t) const {}
};

/// target[m, n] (+)= a[m, k] · panels, on all cores, where `panels` hold the right operand in the tile's layout. Each
/// tile of sums goes through finish(sums, row, rows, column, columns, depth_begin, is_last), once for every block of
/// the depth; afterwards epilogue(first_row, last_row, first_column, last_column) is called once for every block of the
/// result, while it is in the cache of the thread that made it.
template <class A, class T, class B, class Sum, class FinishTile, class Epilogue = NoEpilogue>
void multiply_panels(const TileKernel<T, B, Sum>& tile, std::size_t m, std::size_t n, std::size_t k,
                     const Operand<A>& a, const B* panels, const FinishTile& finish, const Epilogue& epilogue = {}) {
    const std::size_t block_depth = gemm_depth * tile.group;
    const std::size_t panel_size = layout_of(tile).panel_size(k), column_panels = (n + tile.columns - 1) / tile.columns;
    // Blocks of about 112 rows and 768 columns keep both operands and the result in the L2 cache. Smaller ones where
    // there would not be eight for every core, so that none waits for the last.
    const std::size_t wanted = 8 * core_count();
    const detail::Shares blocks(m, std::min<std::size_t>(m, 8 * tile.rows));
    std::size_t split_panels = std::min(column_panels, std::max<std::size_t>(1, 768 / tile.columns));
    while (split_panels > 2 && blocks.count * ((column_panels + split_panels - 1) / split_panels) < wanted) {
        split_panels = (split_panels + 1) / 2;
    }
    const std::size_t splits = (column_panels + split_panels - 1) / split_panels;
    parallel_for(blocks.count * splits, 1, [&](std::size_t begin, std::size_t end) {
        alignas(64) std::array<Sum, largest_tile> sums;
        for (std::size_t task = begin; task < end; ++task) {
            const std::size_t row = blocks.begin(task / splits), rows = blocks.begin(task / splits + 1) - row;
            const std::size_t first_panel = task % splits * split_panels;
            const std::size_t last_panel = std::min(first_panel + split_panels, column_panels);
            const detail::Shares tiles(rows, tile.rows);
            for (std::size_t depth_begin = 0; depth_begin < k; depth_begin += block_depth) {
                const std::size_t depth = round_up(std::min(block_depth, k - depth_begin), tile.group);
                const auto left = detail::left_block<T>(a.from(row, depth_begin), tiles, depth, tile.group,
                                                        detail::gemm_scratch<T>().left);
                const bool is_last = depth_begin + block_depth >= k;
                for (std::size_t panel = first_panel; panel < last_panel; ++panel) {
                    const B* const right = panels + panel * panel_size + depth_begin * tile.columns;
                    const std::size_t column = panel * tile.columns, columns = std::min(tile.columns, n - column);
                    for (std::size_t t = 0; t < tiles.count; ++t) {
                        const std::size_t first = tiles.begin(t), height = tiles.begin(t + 1) - first;
                        tile.multiply(height, depth / tile.group, left.tile(first, depth), left.row,
                                      left.group == 0 ? height : left.group, right, sums.data());
                        finish(sums.data(), row + first, height, column, columns, depth_begin, is_last);
                    }
                }
            }
            epilogue(row, row + rows, first_panel * tile.columns, std::min(last_panel * tile.columns, n));
        }
    });
}

/// Packs b[k, n] into panels, zero-padded, on all cores.
template <class B, class T>
void pack_panels(const PanelLayout& layout, std::size_t k, std::size_t n, const Operand<B>& b, T* panels) {
    const std::size_t count = (n + layout.width - 1) / layout.width;
    parallel_for(count, std::max<std::size_t>(1, 16384 / layout.panel_size(k)),
                 [&](std::size_t begin, std::size_t end) {
                     for (std::size_t panel = begin; panel < end; ++panel) {
                         const std::size_t column = panel * layout.width;
                         detail::pack_panel(b.from(0, column).transposed(), std::min(layout.width, n - column), k,
                                            layout.width, panels + panel * layout.panel_size(k));
                     }
                 });
}

namespace detail {

/// The last step of a product's tiles: into `target` through `finish`.
template <Real T>
struct FinishInto {
    const KernelSet<T>& set;
    std::size_t tile_columns;
    Target<T> target;
    bool accumulate;
    Finish<T> finish;

    void operator()(const T* sums, std::size_t row, std::size_t rows, std::size_t column, std::size_t columns,
                    std::size_t depth_begin, bool is_last) const {
        Finish<T> here{};
        if (is_last) {
            here = finish;
            if (here.bias != nullptr) here.bias += column;
            if (here.before != nullptr) here.before += row * here.before_stride + column;
            if (here.residual != nullptr) here.residual += row * here.residual_stride + column;
        }
        set.finish_tile(sums, tile_columns, rows, columns,
                        target.data + row * target.row_stride + column / tile_columns * target.panel_stride,
                        target.row_stride, accumulate || depth_begin > 0, here);
    }
};

}  // namespace detail

/// target (+)= a[m, k] · panels, then what `finish` says, in the tile's type.
template <Real T, class A, class Epilogue = NoEpilogue>
void gemm_panels(std::size_t m, std::size_t n, std::size_t k, const Operand<A>& a, const T* panels,
                 const Target<T>& target, bool accumulate, const Finish<T>& finish = {},
                 const Epilogue& epilogue = {}) {
    const KernelSet<T>& set = active<T>();
    multiply_panels(set.tile, m, n, k, a, panels,
                    detail::FinishInto<T>{set, set.tile.columns, target, accumulate, finish}, epilogue);
}

/// The layout that weights of type T are kept in.
template <Element T>
PanelLayout weight_layout() {
    if constexpr (std::same_as<T, bfloat16>) {
        return layout_of(active_reduced().pairs);
    } else if constexpr (std::same_as<T, int8>) {
        return layout_of(active_reduced().bytes);
    } else {
        return layout_of(active<T>().tile);
    }
}

/// y[m, out] = x[m, in] · weightᵀ, then what `finish` says; x and y are row-major, the weight in its layout. A bfloat16
/// weight meets x rounded to bfloat16; sums are float32.
template <Element T>
void dense(std::size_t m, std::size_t out, std::size_t in, const Compute<T>* x, const T* weight, Compute<T>* y,
           const Finish<Compute<T>>& finish) {
    using C = Compute<T>;
    if (m == 0) return;
    if constexpr (std::same_as<T, bfloat16>) {
        const ReducedKernels& reduced = active_reduced();
        const std::size_t stride = round_up(in, reduced.pairs.group);
        Buffer<bfloat16>& narrow = detail::gemm_scratch<bfloat16>().right;
        narrow.resize(m * stride);
        parallel_for(m, std::max<std::size_t>(1, 16384 / in), [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                reduced.narrow(x + i * in, narrow.data() + i * stride, in);
                std::fill_n(narrow.data() + i * stride + in, stride - in, bfloat16(0.0f));
            }
        });
        multiply_panels(reduced.pairs, m, out, in, row_major(std::as_const(narrow).data(), stride), weight,
                        detail::FinishInto<C>{active<C>(), reduced.pairs.columns,
                                              Target<C>{y, out, reduced.pairs.columns}, false, finish});
    } else {
        const std::size_t width = active<T>().tile.columns;
        gemm_panels<T>(m, out, in, row_major(x, in), weight, Target<T>{y, out, width}, false, finish);
    }
}

/// A weight [out, in] as signed bytes: its panels, a scale for every row, and for every row and block of the depth the
/// sum of its bytes; both run on to the end of the last panel.
struct ByteWeight {
    const std::int8_t* panels;
    const float* scales;
    const std::int32_t* sums;
    std::size_t sums_stride;
};

/// y = x · weightᵀ, then what `finish` says. Every row of x is rounded to bytes with its own scale and zero point; sums
/// are exact within a block of the depth.
inline void dense_bytes(std::size_t m, std::size_t out, std::size_t in, const float* x, const ByteWeight& weight,
                        float* y, const Finish<float>& finish) {
    if (m == 0) return;
    const ReducedKernels& reduced = active_reduced();
    const TileKernel<std::uint8_t, std::int8_t, std::int32_t>& tile = reduced.bytes;
    const std::size_t stride = round_up(in, tile.group);
    Buffer<std::uint8_t>& bytes = detail::gemm_scratch<std::uint8_t>().right;
    Buffer<float>& scales = detail::gemm_scratch<float>().right;
    Buffer<std::int32_t>& zeros = detail::gemm_scratch<std::int32_t>().right;
    bytes.resize(m * stride);
    scales.resize(m);
    zeros.resize(m);
    parallel_for(m, std::max<std::size_t>(1, 16384 / in), [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            reduced.quantise(x + i * in, bytes.data() + i * stride, in, scales.data()[i], zeros.data()[i]);
            std::fill_n(bytes.data() + i * stride + in, stride - in, std::uint8_t{0});
        }
    });
    const detail::FinishInto<float> into{active<float>(), tile.columns, Target<float>{y, out, tile.columns}, false,
                                         finish};
    multiply_panels(tile, m, out, in, row_major(std::as_const(bytes).data(), stride), weight.panels,
                    [&](const std::int32_t* sums, std::size_t row, std::size_t rows, std::size_t column,
                        std::size_t columns, std::size_t depth_begin, bool is_last) {
                        alignas(64) std::array<float, largest_tile> values;
                        reduced.dequantise(
                            sums, values.data(), rows, tile.columns, scales.data() + row, zeros.data() + row,
                            weight.scales + column,
                            weight.sums + depth_begin / (gemm_depth * tile.group) * weight.sums_stride + column);
                        into(values.data(), row, rows, column, columns, depth_begin, is_last);
                    });
}

/// The gradients of dense: dweight, in the weight's layout, += dyᵀ · x, and dx = dy · weight unless dx is null.
template <Real T>
void dense_backward(std::size_t m, std::size_t out, std::size_t in, const T* x, const T* weight, const T* dy, T* dx,
                    T* dweight) {
    if (m == 0) return;
    const PanelLayout layout = weight_layout<T>();
    const std::size_t width = layout.width;
    Buffer<T>& panels = detail::gemm_scratch<T>().right;
    panels.resize(layout.size(m, out));
    pack_panels(layout, m, out, row_major(dy, out), panels.data());
    gemm_panels<T>(in, out, m, row_major(x, in).transposed(), panels.data(),
                   Target<T>{dweight, width, layout.panel_size(in)}, true);
    if (dx == nullptr) return;
    // The weight's own panels run along `in`; dx needs panels that run along `out`: its square blocks, transposed.
    panels.resize(layout.size(out, in));
    parallel_for((in + width - 1) / width, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t panel = begin; panel < end; ++panel) {
            T* const to = panels.data() + panel * out * width;
            const std::size_t filled = std::min(width, in - panel * width);
            for (std::size_t row = 0; row < out; row += width) {
                const T* const block = weight + row * in + panel * width * width;
                detail::pack_panel(Operand<T>{block, width, 1}, filled, std::min(width, out - row), width,
                                   to + row * width);
            }
        }
    });
    gemm_panels<T>(m, in, out, row_major(dy, out), panels.data(), Target<T>{dx, in, width}, false);
}

/// Packs a row-major weight [out, in] into its layout.
template <Element T>
void pack_weight(std::size_t out, std::size_t in, const T* weight, T* panels) {
    const PanelLayout layout = weight_layout<T>();
    if (layout.group == 1) return pack_panels(layout, in, out, row_major(weight, in).transposed(), panels);
    parallel_for((out + layout.width - 1) / layout.width, 1, [&](std::size_t begin, std::size_t end) {
        std::fill_n(panels + begin * layout.panel_size(in), (end - begin) * layout.panel_size(in), T{});
        for (std::size_t i = begin * layout.width; i < std::min(end * layout.width, out); ++i) {
            for (std::size_t j = 0; j < in; ++j) panels[layout.position(j, i, in)] = weight[i * in + j];
        }
    });
}

/// c[m, n] = a[m, k] · b[k, n], or c += where `accumulate` is set, on all cores. c is row-major with stride c_stride
/// and must not overlap a or b. epilogue(first_row, last_row, first_column, last_column) is called once for every block
/// of c that is complete, while it is in the cache of the thread that made it.
template <Real T, Element A, Element B, class Epilogue = NoEpilogue>
void gemm(std::size_t m, std::size_t n, std::size_t k, const Operand<A>& a, const Operand<B>& b, T* c,
          std::size_t c_stride, bool accumulate = false, const Epilogue& epilogue = {}) {
    if (m == 0 || n == 0) return;
    if (k == 0) {
        for (std::size_t i = 0; i < m && !accumulate; ++i) std::fill_n(c + i * c_stride, n, T{0});
        epilogue(0, m, 0, n);
        return;
    }
    const PanelLayout layout = layout_of(active<T>().tile);
    Buffer<T>& shared = detail::gemm_scratch<T>().right;
    shared.resize(layout.size(k, n));
    pack_panels(layout, k, n, b, shared.data());
    gemm_panels<T>(m, n, k, a, shared.data(), Target<T>{c, c_stride, layout.width}, accumulate, {}, epilogue);
}

/// gemm on the calling thread alone, for small products inside a loop that is parallel already.
template <Real T>
void gemm_serial(std::size_t m, std::size_t n, std::size_t k, const Operand<T>& a, const Operand<T>& b, T* c,
                 std::size_t c_stride, bool accumulate = false) {
    const KernelSet<T>& set = active<T>();
    const PanelLayout layout = layout_of(set.tile);
    detail::GemmScratch<T>& scratch = detail::gemm_scratch<T>();
    scratch.right.resize(layout.panel_size(std::min(k, gemm_depth)));
    const detail::Shares tiles(m, set.tile.rows);
    alignas(64) std::array<T, largest_tile> sums;
    for (std::size_t depth_begin = 0; depth_begin < k; depth_begin += gemm_depth) {
        const std::size_t depth = std::min(gemm_depth, k - depth_begin);
        const auto left = detail::left_block<T>(a.from(0, depth_begin), tiles, depth, 1, scratch.left);
        for (std::size_t column = 0; column < n; column += layout.width) {
            const std::size_t columns = std::min(layout.width, n - column);
            detail::pack_panel(b.from(depth_begin, column).transposed(), columns, depth, layout.width,
                               scratch.right.data());
            for (std::size_t t = 0; t < tiles.count; ++t) {
                const std::size_t first = tiles.begin(t), height = tiles.begin(t + 1) - first;
                set.tile.multiply(height, depth, left.tile(first, depth), left.row,
                                  left.group == 0 ? height : left.group, scratch.right.data(), sums.data());
                set.finish_tile(sums.data(), layout.width, height, columns, c + first * c_stride + column, c_stride,
                                accumulate || depth_begin > 0, {});
            }
        }
    }
}

}  // namespace tandem::inline TANDEM_ABI::kernels

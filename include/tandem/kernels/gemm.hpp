// Matrix products: packing, blocking and the parallel split around the register tile.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
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

/// A row-major matrix whose rows lie row_stride elements apart.
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

/// Bytes of a line of the caches.
inline constexpr std::size_t line = 64;

/// Columns of the widest panel, and elements of the largest register tile and of the largest of all: AMX's.
inline constexpr std::size_t widest_panel = 64, largest_register_tile = 14 * widest_panel, largest_tile = 256 * 32;

/// Brings what is about to be written into the L1 cache.
template <class T>
void fetch_to_write(const T* to, std::size_t count) {
    for (std::size_t i = 0; i < count; i += line / sizeof(T)) __builtin_prefetch(to + i, 1);
    asm volatile("");  // g++ leaves out calls of functions that do nothing but fetch
}

/// The least multiple of `multiple` that is not below `value`.
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
    /// visit(row, position) for all k elements of a column.
    void for_each_row(std::size_t column, std::size_t k, const auto& visit) const {
        std::size_t at = position(0, column, k);
        for (std::size_t row = 0; row < k; row += group, at += width * group) {
            for (std::size_t i = 0; i < std::min(group, k - row); ++i) visit(row + i, at + i);
        }
    }
};

/// The panels that a tile reads.
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
        case 10:
            copy_columns<10>(from, stride, depth, to);
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
    if constexpr (std::same_as<From, T> && Real<T>) {
        if (operand.column_stride == 1) {
            active<T>().transpose(source, operand.row_stride, filled, depth, panel, tile);
            for (std::size_t k = 0; k < depth && filled < tile; ++k) {
                std::fill(panel + k * tile + filled, panel + (k + 1) * tile, T{0});
            }
            return;
        }
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

/// The most of a left operand that is to stay in the L2 cache while panels pass by, where that are tiles enough.
inline constexpr std::size_t left_bytes = std::size_t{1} << 20;

/// The most of a left operand that is packed ahead of the threads that share it: weight gradients of convolutions are as deep as
/// a batch has pixels, and their operands whole would be as large as the activations.
inline constexpr std::size_t shared_bytes = std::size_t{16} << 20;

/// Memory that stops growing at the largest product the thread has seen.
template <class T>
struct GemmScratch {
    Buffer<T> left, shared_left, right, rows;
};

template <class T>
GemmScratch<T>& gemm_scratch() {
    thread_local GemmScratch<T> scratch;
    return scratch;
}

/// Rows in even shares of whole units, none above `most`: the last tile is no smaller than the others by more than one.
struct Shares {
    std::size_t count, total, unit = 1;

    Shares(std::size_t rows, std::size_t most) : count((rows + most - 1) / most), total(rows) {}
    Shares(std::size_t rows, std::size_t most, std::size_t of) : Shares(rows, most) { unit = of; }
    std::size_t begin(std::size_t index) const {
        const std::size_t units = (total + unit - 1) / unit;
        return std::min(total, unit * (index * (units / count) + std::min(index, units % count)));
    }
};

/// The left operand of one block. Packed tiles stand one after the other; unpacked rows are read where they are.
template <class A>
struct LeftBlock {
    const A* data;
    std::size_t row;    ///< elements between rows; 1 if packed
    std::size_t group;  ///< elements between groups; 0 if packed: the height of the tile

    const A* tile(std::size_t first, std::size_t depth) const { return data + first * (group == 0 ? depth : row); }
};

/// Whether a block of the left operand can be read where it is: its rows are contiguous, and do not lie a multiple of
/// 4096 bytes apart, for those would all fall into the same few lines of the L1 cache.
template <class T, class A>
bool reads_in_place(const Operand<A>& a) {
    return std::same_as<A, T> && a.column_stride == 1 && a.row_stride * sizeof(A) % 4096 != 0;
}

/// Elements from one row of a packed block to the next: a line of the cache more than their own, which may be a
/// multiple of 4096 bytes.
template <class T>
constexpr std::size_t packed_stride(std::size_t depth) {
    return depth + line / sizeof(T);
}

/// Packs a block of the left operand: row by row where rows are contiguous, else its tiles one after the other.
template <class T, class A>
void pack_left(const Operand<A>& a, const Shares& tiles, std::size_t depth, T* memory) {
    if (a.column_stride == 1) {
        for (std::size_t i = 0; i < tiles.total; ++i) {
            std::copy_n(a.data + i * a.row_stride, depth, memory + i * packed_stride<T>(depth));
        }
        return;
    }
    for (std::size_t t = 0; t < tiles.count; ++t) {
        const std::size_t first = tiles.begin(t), height = tiles.begin(t + 1) - first;
        pack_panel(a.from(first, 0), height, depth, height, memory + first * depth);
    }
}

/// A block of the left operand, in place if `memory` is null, else as pack_left has put it there.
template <class T, class A>
LeftBlock<T> left_block(const Operand<A>& a, std::size_t depth, std::size_t group, const T* memory) {
    if constexpr (std::same_as<A, T>) {
        if (memory == nullptr) return {a.data, a.row_stride, group};
    }
    if (a.column_stride == 1) return {memory, packed_stride<T>(depth), group};
    return {memory, 1, 0};
}

}  // namespace detail

/// Where it is set, it is called with the sizes m x n x k of every product: it tells what a model computes.
inline std::atomic<void (*)(std::size_t m, std::size_t n, std::size_t k)> product_observer = nullptr;

/// Tells product_observer, where it is set, of a product.
inline void observe_product(std::size_t m, std::size_t n, std::size_t k) {
    if (const auto observer = product_observer.load(std::memory_order_relaxed); observer != nullptr) observer(m, n, k);
}

namespace detail {

/// The rows of a tile on their way into the result, while those below are made. What a row is written to is fetched a pass of
/// products before, for stores that miss the caches hold up the loads of products; not that of the first rows, which would all
/// be fetched at once.
template <class Sum, class FinishTile>
struct Finishing {
    static constexpr std::size_t ahead = 32;

    const FinishTile& finish;
    const Sum* sums;
    std::size_t tile_columns, row, height, column, columns, depth_begin;
    bool is_last;
    std::size_t done = 0;

    static void run(void* state, std::size_t rows) {
        auto& self = *static_cast<Finishing*>(state);
        if (rows <= self.done) return;
        for (std::size_t i = self.done + ahead; i < std::min(rows + ahead, self.height); ++i) {
            self.finish.fetch(self.row + i, self.column, self.columns);
        }
        self.finish(self.sums + self.done * self.tile_columns, self.row + self.done, rows - self.done, self.column, self.columns,
                    self.depth_begin, self.is_last);
        self.done = rows;
    }
};

/// What FinishInto::continued says, of a step that can add to what is there.
template <class FinishTile, class Sum>
Sum* continued(const FinishTile& finish, Sum* sums, std::size_t row, std::size_t rows, std::size_t column, std::size_t columns) {
    if constexpr (requires { finish.continued(sums, row, rows, column, columns); }) {
        return finish.continued(sums, row, rows, column, columns);
    } else {
        return nullptr;
    }
}

}  // namespace detail

/// Does nothing with a finished block.
struct NoEpilogue {
    void operator()(std::size_t, std::size_t, std::size_t, std::size_t) const {}
};

/// target[m, n] (+)= a[m, k] · panels, on all cores, where `panels` hold the right operand in the tile's layout. Each
/// tile of sums goes through finish(sums, row, rows, column, columns, depth_begin, is_last), once for every block of
/// the depth, and some of its rows through finish.fetch(row, column, columns) before; afterwards
/// epilogue(first_row, last_row, first_column, last_column) is called once for every block of the result, while it is
/// in the cache of the thread that made it.
template <class A, class T, class B, class Sum, class FinishTile, class Epilogue = NoEpilogue>
void multiply_panels(const TileKernel<T, B, Sum>& tile, std::size_t m, std::size_t n, std::size_t k,
                     const Operand<A>& a, const B* panels, const FinishTile& finish, const Epilogue& epilogue = {}) {
    observe_product(m, n, k);
    if (k == 0) return;
    const std::size_t block_depth = tile.depth * tile.group;
    const std::size_t panel_size = layout_of(tile).panel_size(k), column_panels = (n + tile.columns - 1) / tile.columns;
    const auto depth_at = [&](std::size_t begin) { return round_up(std::min(block_depth, k - begin), tile.group); };
    // A block of some tiles' rows stays in the L2 cache while all panels pass by. Where there are not eight blocks for
    // every core, the columns are split as well, so that none waits long for the last.
    const std::size_t fitting = detail::left_bytes / (tile.rows * depth_at(0) * sizeof(T));
    const detail::Shares blocks(m, std::min(m, std::clamp<std::size_t>(fitting, 1, tile.in_block) * tile.rows), tile.unit);
    const std::size_t wanted = (8 * core_count() + blocks.count - 1) / blocks.count;
    const detail::Shares splits(column_panels,
                                std::max<std::size_t>(column_panels / wanted, std::min<std::size_t>(2, column_panels)));
    const bool in_place = detail::reads_in_place<T>(a);
    // What several splits read is packed once, before: as much of the depth at a time as fits into shared_bytes.
    const bool is_shared = !in_place && splits.count > 1;
    Buffer<T>& shared = detail::gemm_scratch<T>().shared_left;
    const auto rows_of = [&](std::size_t block) { return blocks.begin(block + 1) - blocks.begin(block); };
    const std::size_t stride = detail::packed_stride<T>(depth_at(0)), depths = (k + block_depth - 1) / block_depth;
    const std::size_t together = is_shared ? std::clamp<std::size_t>(detail::shared_bytes / (m * stride * sizeof(T)), 1, depths) : depths;
    for (std::size_t first_depth = 0; first_depth < depths; first_depth += together) {
        const std::size_t last_depth = std::min(depths, first_depth + together);
        const auto shared_at = [&](std::size_t row, std::size_t rows, std::size_t depth) {
            return shared.data() + (row * (last_depth - first_depth) + rows * (depth - first_depth)) * stride;
        };
        if (is_shared) {
            const std::size_t count = last_depth - first_depth;
            shared.resize(m * count * stride);
            parallel_for(blocks.count * count, 1, [&](std::size_t begin, std::size_t end) {
                for (std::size_t task = begin; task < end; ++task) {
                    const std::size_t block = task / count, row = blocks.begin(block), rows = rows_of(block);
                    const std::size_t depth = first_depth + task % count, depth_begin = depth * block_depth;
                    detail::pack_left(a.from(row, depth_begin), detail::Shares(rows, tile.rows, tile.unit), depth_at(depth_begin), shared_at(row, rows, depth));
                }
            });
        }
        parallel_for(blocks.count * splits.count, 1, [&](std::size_t begin, std::size_t end) {
            alignas(64) std::array<Sum, largest_tile> sums;
            for (std::size_t task = begin; task < end; ++task) {
                const std::size_t row = blocks.begin(task / splits.count), rows = rows_of(task / splits.count);
                const std::size_t first_panel = splits.begin(task % splits.count);
                const std::size_t last_panel = splits.begin(task % splits.count + 1);
                const detail::Shares tiles(rows, tile.rows, tile.unit);
                for (std::size_t d = first_depth; d < last_depth; ++d) {
                    const std::size_t depth_begin = d * block_depth, depth = depth_at(depth_begin);
                    const Operand<A> block = a.from(row, depth_begin);
                    T* memory = nullptr;
                    if (is_shared) {
                        memory = shared_at(row, rows, d);
                    } else if (!in_place) {
                        Buffer<T>& own = detail::gemm_scratch<T>().left;
                        own.resize(rows * detail::packed_stride<T>(depth));
                        memory = own.data();
                        detail::pack_left(block, tiles, depth, memory);
                    }
                    const detail::LeftBlock<T> left = detail::left_block<T>(block, depth, tile.group, memory);
                    const bool is_last = d + 1 == depths;
                    for (std::size_t panel = first_panel; panel < last_panel; ++panel) {
                        const B* const right = panels + panel * panel_size + depth_begin * tile.columns;
                        // The next panel is fetched meanwhile, a part by every tile; after a task's last one most often comes the
                        // next task's first.
                        const B* const next = panel + 1 < column_panels ? right + panel_size : right;
                        const std::size_t share = depth * tile.columns / tiles.count;
                        const std::size_t fetched = depth / tile.group * fetched_per_group / sizeof(B);
                        const std::size_t column = panel * tile.columns, columns = std::min(tile.columns, n - column);
                        for (std::size_t t = 0; t < tiles.count; ++t) {
                            const std::size_t first = tiles.begin(t), height = tiles.begin(t + 1) - first;
                            Sum* const to = detail::continued(finish, sums.data(), row + first, height, column, columns);
                            const bool onto = to != nullptr, is_complete = onto && to != sums.data();
                            if (tile.multiply_while == nullptr || is_complete) {
                                tile.multiply(height, depth / tile.group, left.tile(first, depth), left.row,
                                              left.group == 0 ? height : left.group, right, onto ? to : sums.data(),
                                              (t + 1) * fetched <= depth * tile.columns ? next + t * fetched : right, onto);
                                if (!is_complete) finish(sums.data(), row + first, height, column, columns, depth_begin, is_last);
                                continue;
                            }
                            detail::Finishing<Sum, FinishTile> finishing{finish, sums.data(), tile.columns, row + first, height,
                                                                         column, columns,     depth_begin,  is_last};
                            tile.multiply_while(height, depth / tile.group, left.tile(first, depth), left.row, right, sums.data(),
                                                next + t * share, next == right ? 0 : share * sizeof(B), onto, {finishing.run, &finishing});
                        }
                    }
                }
                if (last_depth == depths) epilogue(row, row + rows, first_panel * tile.columns, std::min(last_panel * tile.columns, n));
            }
        });
    }
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

/// The last step of a product's tiles: into `target` through `finish`, or added to it where `accumulate` is set, and `finish` says
/// nothing. Then an element's sum goes on, product after product, in the order of the depth: it has the bits of one sum, however the
/// depth was cut (see TileKernel::multiply).
template <Real T>
struct FinishInto {
    const KernelSet<T>& set;
    std::size_t tile_columns;
    Target<T> target;
    bool accumulate;
    Finish<T> finish;

    T* at(std::size_t row, std::size_t column) const {
        return target.data + row * target.row_stride + column / tile_columns * target.panel_stride;
    }

    void fetch(std::size_t row, std::size_t column, std::size_t columns) const { fetch_to_write(at(row, column), columns); }

    /// Where a tile's sums go on from what the target holds: in the target, if its rows lie as the tile's do and nothing else
    /// would be written, or in `sums`, to which they are copied. Null: they begin at 0.
    T* continued(T* sums, std::size_t row, std::size_t rows, std::size_t column, std::size_t columns) const {
        if (!accumulate) return nullptr;
        T* const from = at(row, column);
        if (target.row_stride == tile_columns && (columns == tile_columns || target.panel_stride > tile_columns)) return from;
        for (std::size_t i = 0; i < rows; ++i) {
            std::copy_n(from + i * target.row_stride, columns, sums + i * tile_columns);
            std::fill_n(sums + i * tile_columns + columns, tile_columns - columns, T{0});
        }
        return sums;
    }

    void operator()(const T* sums, std::size_t row, std::size_t rows, std::size_t column, std::size_t columns,
                    std::size_t depth_begin, bool is_last) const {
        set.finish_tile(sums, tile_columns, rows, columns, at(row, column), target.row_stride, !accumulate && depth_begin > 0,
                        is_last ? finish.at(row, column) : Finish<T>{});
    }
};

}  // namespace detail

/// target (+)= a[m, k] · panels, then what `finish` says, in the tile's type; see FinishInto.
template <Real T, class A, class Epilogue = NoEpilogue>
void gemm_panels(std::size_t m, std::size_t n, std::size_t k, const Operand<A>& a, const T* panels,
                 const Target<T>& target, bool accumulate, const Finish<T>& finish = {},
                 const Epilogue& epilogue = {}) {
    const KernelSet<T>& set = active<T>();
    multiply_panels(set.tile, m, n, k, a, panels,
                    detail::FinishInto<T>{set, set.tile.columns, target, accumulate, finish}, epilogue);
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
    observe_product(m, n, k);
    const KernelSet<T>& set = active<T>();
    const PanelLayout layout = layout_of(set.tile);
    detail::GemmScratch<T>& scratch = detail::gemm_scratch<T>();
    scratch.right.resize(layout.panel_size(std::min(k, gemm_depth)));
    const detail::Shares tiles(m, set.tile.rows);
    alignas(64) std::array<T, largest_register_tile> sums;
    const detail::FinishInto<T> finish{set, layout.width, {c, c_stride, layout.width}, accumulate, {}};
    for (std::size_t depth_begin = 0; depth_begin < k; depth_begin += gemm_depth) {
        const std::size_t depth = std::min(gemm_depth, k - depth_begin);
        const Operand<T> block = a.from(0, depth_begin);
        T* memory = nullptr;
        if (!detail::reads_in_place<T>(a)) {
            scratch.left.resize(m * detail::packed_stride<T>(depth));
            memory = scratch.left.data();
            detail::pack_left(block, tiles, depth, memory);
        }
        const detail::LeftBlock<T> left = detail::left_block<T>(block, depth, 1, memory);
        for (std::size_t column = 0; column < n; column += layout.width) {
            const std::size_t columns = std::min(layout.width, n - column);
            detail::pack_panel(b.from(depth_begin, column).transposed(), columns, depth, layout.width,
                               scratch.right.data());
            for (std::size_t t = 0; t < tiles.count; ++t) {
                const std::size_t first = tiles.begin(t), height = tiles.begin(t + 1) - first;
                T* const to = finish.continued(sums.data(), first, height, column, columns);
                const bool onto = to != nullptr;
                set.tile.multiply(height, depth, left.tile(first, depth), left.row, left.group == 0 ? height : left.group,
                                  scratch.right.data(), onto ? to : sums.data(), scratch.right.data(), onto);
                if (!onto || to == sums.data()) finish(sums.data(), first, height, column, columns, depth_begin, depth_begin + depth == k);
            }
        }
    }
}

#if defined(TANDEM_COMPILED)
extern template void gemm<float, float, float, NoEpilogue>(std::size_t, std::size_t, std::size_t, const Operand<float>&,
                                                           const Operand<float>&, float*, std::size_t, bool,
                                                           const NoEpilogue&);
extern template void gemm<double, double, double, NoEpilogue>(std::size_t, std::size_t, std::size_t,
                                                              const Operand<double>&, const Operand<double>&, double*,
                                                              std::size_t, bool, const NoEpilogue&);
extern template void gemm<float, float, bfloat16, NoEpilogue>(std::size_t, std::size_t, std::size_t,
                                                              const Operand<float>&, const Operand<bfloat16>&, float*,
                                                              std::size_t, bool, const NoEpilogue&);
#endif

}  // namespace tandem::inline TANDEM_ABI::kernels

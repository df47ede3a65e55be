// Definitions of kernels/dense.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <tandem/core/dtype.hpp>
#include <tandem/core/memory.hpp>
#include <tandem/core/parallel.hpp>
#include <tandem/kernels/dense.hpp>
#include <tandem/kernels/dispatch.hpp>
#include <tandem/kernels/gemm.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

template <Arithmetic T>
PanelLayout weight_layout() {
    if constexpr (std::same_as<T, bfloat16>) {
        return layout_of(active_reduced().widened);
    } else if constexpr (std::same_as<T, int8>) {
        return layout_of(active_reduced().bytes);
    } else {
        return layout_of(active<Compute<T>>().tile);
    }
}

namespace detail {

/// x[m, in] in memory of the calling thread, each row through convert(row, from, to), zeros up to a multiple of
/// `group`.
template <class To, class From, class Convert>
Operand<To> with_padded_rows(std::size_t m, std::size_t in, std::size_t group, const StridedRows<const From>& x,
                             const Convert& convert) {
    const std::size_t filled = round_up(in, group), stride = spread_length<To>(in);
    Buffer<To>& rows = gemm_scratch<To>().rows;
    rows.resize(m * stride);
    parallel_for(m, std::max<std::size_t>(1, 16384 / in), [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            convert(i, x.row(i), rows.data() + i * stride);
            std::fill_n(rows.data() + i * stride + in, filled - in, To{});
        }
    });
    return row_major(std::as_const(rows).data(), stride);
}

}  // namespace detail

template <Arithmetic T>
bool multiplies_pairs() {
    constexpr bool rounds = std::same_as<T, bfloat16> || std::same_as<T, amp_bf16>;
    return rounds && active_reduced().pairs.multiply != nullptr;
}

template <Arithmetic T>
bool passes_narrow() {
    constexpr bool infers = std::same_as<T, bfloat16> || std::same_as<T, int8>;
    return infers && active_reduced().narrow_rows.finish != nullptr;
}

namespace detail {

/// FinishInto for rows of bfloat16, of a product that is one block deep.
struct FinishNarrow {
    const NarrowRows& set;
    std::size_t tile_columns;
    StridedRows<bfloat16> y;
    Finish<float> finish;

    void fetch(std::size_t row, std::size_t column, std::size_t columns) const { fetch_to_write(y.row(row) + column, columns); }

    void operator()(const float* sums, std::size_t row, std::size_t rows, std::size_t column, std::size_t columns,
                    std::size_t, bool) const {
        set.finish(sums, tile_columns, rows, columns, y.row(row) + column, y.stride, finish.at(row, column));
    }
};

/// FinishInto for sums of bytes, into rows of float or, of a product that is one block deep, bfloat16.
template <class Y>
struct FinishBytes {
    const ReducedKernels& set;
    const ByteWeight& weight;
    const float* scales;
    const std::int32_t* zeros;
    StridedRows<Y> y;
    Finish<float> finish;

    void fetch(std::size_t row, std::size_t column, std::size_t columns) const { fetch_to_write(y.row(row) + column, columns); }

    void operator()(const std::int32_t* sums, std::size_t row, std::size_t rows, std::size_t column, std::size_t columns,
                    std::size_t depth_begin, bool is_last) const {
        const TileKernel<std::uint8_t, std::int8_t, std::int32_t>& tile = set.bytes;
        const std::size_t block = depth_begin / (tile.depth * tile.group);
        const ByteProduct product{sums, scales + row, zeros + row, weight.scales + column,
                                  weight.sums + block * weight.sums_stride + column};
        if constexpr (std::same_as<Y, float>) {
            set.finish_bytes(product, tile.columns, rows, columns, y.row(row) + column, y.stride, depth_begin > 0,
                             is_last ? finish.at(row, column) : Finish<float>{});
        } else {
            set.narrow_rows.finish_bytes(product, tile.columns, rows, columns, y.row(row) + column, y.stride,
                                         finish.at(row, column));
        }
    }
};

/// Rows of bfloat16 as a product of pairs reads them: where they are, or, if there is half a pair, in memory of the calling
/// thread.
inline Operand<bfloat16> in_pairs(std::size_t m, std::size_t in, const StridedRows<const bfloat16>& x) {
    const std::size_t group = active_reduced().pairs.group;
    if (in % group == 0) return row_major(x.data, x.stride);
    return with_padded_rows<bfloat16>(m, in, group, x, [&](std::size_t, const bfloat16* from, bfloat16* to) {
        std::copy_n(from, in, to);
    });
}

/// x[m, in] rounded to bfloat16, in memory of the calling thread.
inline Operand<bfloat16> in_pairs(std::size_t m, std::size_t in, const StridedRows<const float>& x) {
    const ReducedKernels& reduced = active_reduced();
    return with_padded_rows<bfloat16>(m, in, reduced.pairs.group, x, [&](std::size_t, const float* from, bfloat16* to) {
        reduced.narrow(from, to, in);
    });
}

/// xᵀ[in, m] rounded to bfloat16, in the same memory.
inline Operand<bfloat16> narrow_transposed(std::size_t m, std::size_t in, const StridedRows<const float>& x) {
    constexpr std::size_t side = 64;
    const ReducedKernels& reduced = active_reduced();
    const std::size_t filled = round_up(m, reduced.pairs.group), stride = spread_length<bfloat16>(m);
    Buffer<bfloat16>& rows = gemm_scratch<bfloat16>().rows;
    rows.resize(in * stride);
    parallel_for((in + side - 1) / side, 1, [&](std::size_t begin, std::size_t end) {
        alignas(line) std::array<float, side * side> block;
        for (std::size_t column = begin * side; column < std::min(end * side, in); column += side) {
            const std::size_t columns = std::min(side, in - column);
            for (std::size_t row = 0; row < m; row += side) {
                const std::size_t height = std::min(side, m - row);
                active<float>().transpose(x.row(row) + column, x.stride, height, columns, block.data(), side);
                for (std::size_t j = 0; j < columns; ++j) {
                    reduced.narrow(block.data() + j * side, rows.data() + (column + j) * stride + row, height);
                }
            }
            for (std::size_t j = column; j < column + columns; ++j) {
                std::fill_n(rows.data() + j * stride + m, filled - m, bfloat16{0});
            }
        }
    });
    return row_major(std::as_const(rows).data(), stride);
}

/// `rows` rows of `filled` floats as pairs of one panel of `width` columns, zeros behind the last column and row.
inline void narrow_into_panel(std::size_t rows, std::size_t filled, const float* from, std::size_t stride,
                              std::size_t width, bfloat16* panel) {
    static constexpr std::array<float, widest_panel> zeros{};
    const ReducedKernels& reduced = active_reduced();
    for (std::size_t row = 0; row < rows; row += 2, panel += 2 * width) {
        reduced.narrow_pairs(from + row * stride, row + 1 < rows ? from + (row + 1) * stride : zeros.data(), panel,
                             filled);
        std::fill_n(panel + 2 * filled, 2 * (width - filled), bfloat16{0});
    }
}

/// Floats b[k, n] as panels of pairs, in memory of the calling thread. Rows lie `stride` elements apart, and what
/// becomes one panel begins `panel_step` elements behind what becomes the one before: for a row-major matrix, a panel's
/// width.
inline const bfloat16* narrow_panels(std::size_t k, std::size_t n, const float* b, std::size_t stride,
                                     std::size_t panel_step) {
    const PanelLayout layout = layout_of(active_reduced().pairs);
    Buffer<bfloat16>& panels = gemm_scratch<bfloat16>().right;
    panels.resize(layout.size(k, n));
    parallel_for((n + layout.width - 1) / layout.width, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t panel = begin; panel < end; ++panel) {
            narrow_into_panel(k, std::min(layout.width, n - panel * layout.width), b + panel * panel_step, stride,
                              layout.width, panels.data() + panel * layout.panel_size(k));
        }
    });
    return panels.data();
}

}  // namespace detail

template <Arithmetic T, class X, class Y>
void dense(std::size_t m, std::size_t out, std::size_t in, const StridedRows<const X>& x, const Stored<T>* weight,
           const StridedRows<Y>& y, const Finish<Compute<T>>& finish) {
    using C = Compute<T>;
    if (m == 0) return;
    const KernelSet<C>& set = active<C>();
    const std::size_t width = weight_layout<T>().width;
    const auto into = [&] {
        if constexpr (std::same_as<Y, C>) {
            return detail::FinishInto<C>{set, width, Target<C>{y.data, y.stride, width}, false, finish};
        } else {
            return detail::FinishNarrow{active_reduced().narrow_rows, width, y, finish};
        }
    }();
    if constexpr (!std::same_as<X, C> || !std::same_as<Y, C>) {
        multiply_panels(active_reduced().pairs, m, out, in, detail::in_pairs(m, in, x), weight, into);
    } else if constexpr (std::same_as<T, bfloat16>) {
        const ReducedKernels& reduced = active_reduced();
        const std::size_t group = reduced.widened.group;
        if (multiplies_pairs<T>()) {
            multiply_panels(reduced.pairs, m, out, in, detail::in_pairs(m, in, x), weight, into);
        } else if (in % group == 0) {
            multiply_panels(reduced.widened, m, out, in, row_major(x.data, x.stride), weight, into);
        } else {
            const auto copy = [&](std::size_t, const C* from, C* to) { std::copy_n(from, in, to); };
            multiply_panels(reduced.widened, m, out, in, detail::with_padded_rows<C>(m, in, group, x, copy), weight,
                            into);
        }
    } else {
        if constexpr (std::same_as<T, amp_bf16>) {
            if (multiplies_pairs<T>()) {
                // Rounded for every product, as autocast does: a rounded copy would have to hear of each update.
                const bfloat16* const panels = detail::narrow_panels(in, out, weight, width, in * width);
                return multiply_panels(active_reduced().pairs, m, out, in, detail::in_pairs(m, in, x), panels, into);
            }
        }
        multiply_panels(set.tile, m, out, in, row_major(x.data, x.stride), weight, into);
    }
}

template <class X, class Y>
void dense_bytes(std::size_t m, std::size_t out, std::size_t in, const StridedRows<const X>& x, const ByteWeight& weight,
                 const StridedRows<Y>& y, const Finish<float>& finish) {
    if (m == 0) return;
    const ReducedKernels& reduced = active_reduced();
    const TileKernel<std::uint8_t, std::int8_t, std::int32_t>& tile = reduced.bytes;
    Buffer<float>& scales = detail::gemm_scratch<float>().right;
    Buffer<std::int32_t>& zeros = detail::gemm_scratch<std::int32_t>().right;
    scales.resize(m);
    zeros.resize(m);
    const auto bytes = detail::with_padded_rows<std::uint8_t>(
        m, in, tile.group, x, [&](std::size_t row, const X* from, std::uint8_t* to) {
            if constexpr (std::same_as<X, float>) {
                reduced.quantise(from, to, in, scales.data()[row], zeros.data()[row]);
            } else {
                reduced.narrow_rows.quantise(from, to, in, scales.data()[row], zeros.data()[row]);
            }
        });
    multiply_panels(tile, m, out, in, bytes, weight.panels,
                    detail::FinishBytes<Y>{reduced, weight, scales.data(), zeros.data(), y, finish});
}

template <Trainable T>
void dense_backward(std::size_t m, std::size_t out, std::size_t in, const StridedRows<const Compute<T>>& x,
                    const Compute<T>* weight, const StridedRows<const Compute<T>>& dy,
                    const StridedRows<Compute<T>>& dx, Compute<T>* dweight) {
    using C = Compute<T>;
    if (m == 0) return;
    const PanelLayout layout = weight_layout<T>();
    const std::size_t width = layout.width;
    const Target<C> into_weight{dweight, width, layout.panel_size(in)}, into_dx{dx.data, dx.stride, width};
    // The weight's own panels run along `in`; dx needs panels that run along `out`: its square blocks, transposed.
    const auto for_each_block = [&](const auto& body) {
        parallel_for((in + width - 1) / width, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t panel = begin; panel < end; ++panel) {
                for (std::size_t row = 0; row < out; row += width) {
                    body(Operand<C>{weight + row * in + panel * width * width, width, 1},
                         std::min(width, in - panel * width), row, std::min(width, out - row), panel);
                }
            }
        });
    };
    if constexpr (std::same_as<T, amp_bf16>) {
        if (multiplies_pairs<T>()) {
            const TileKernel<bfloat16, bfloat16, float>& tile = active_reduced().pairs;
            const bfloat16* const right = detail::narrow_panels(m, out, dy.data, dy.stride, width);
            multiply_panels(tile, in, out, m, detail::narrow_transposed(m, in, x), right,
                            detail::FinishInto<C>{active<C>(), width, into_weight, true, {}});
            if (dx.data == nullptr) return;
            const PanelLayout pairs = layout_of(tile);
            Buffer<bfloat16>& panels = detail::gemm_scratch<bfloat16>().right;
            panels.resize(pairs.size(out, in));
            for_each_block(
                [&](const Operand<C>& block, std::size_t filled, std::size_t row, std::size_t rows, std::size_t panel) {
                    alignas(line) std::array<C, widest_panel * widest_panel> transposed;
                    detail::pack_panel(block, filled, rows, width, transposed.data());
                    detail::narrow_into_panel(rows, width, transposed.data(), width, width,
                                              panels.data() + panel * pairs.panel_size(out) + row * width);
                });
            multiply_panels(tile, m, in, out, detail::in_pairs(m, out, dy), std::as_const(panels).data(),
                            detail::FinishInto<C>{active<C>(), width, into_dx, false, {}});
            return;
        }
    }
    Buffer<C>& panels = detail::gemm_scratch<C>().right;
    panels.resize(layout.size(m, out));
    pack_panels(layout, m, out, row_major(dy.data, dy.stride), panels.data());
    gemm_panels<C>(in, out, m, row_major(x.data, x.stride).transposed(), panels.data(), into_weight, true);
    if (dx.data == nullptr) return;
    panels.resize(layout.size(out, in));
    for_each_block(
        [&](const Operand<C>& block, std::size_t filled, std::size_t row, std::size_t rows, std::size_t panel) {
            detail::pack_panel(block, filled, rows, width, panels.data() + panel * out * width + row * width);
        });
    gemm_panels<C>(m, in, out, row_major(dy.data, dy.stride), panels.data(), into_dx, false);
}

template <Arithmetic T>
void pack_weight(std::size_t out, std::size_t in, const Stored<T>* weight, Stored<T>* panels) {
    const PanelLayout layout = weight_layout<T>();
    if (layout.group == 1) return pack_panels(layout, in, out, row_major(weight, in).transposed(), panels);
    parallel_for((out + layout.width - 1) / layout.width, 1, [&](std::size_t begin, std::size_t end) {
        std::fill_n(panels + begin * layout.panel_size(in), (end - begin) * layout.panel_size(in), Stored<T>{});
        for (std::size_t i = begin * layout.width; i < std::min(end * layout.width, out); ++i) {
            Stored<T>* to = panels + layout.position(0, i, in);
            for (std::size_t j = 0; j < in; j += layout.group, to += layout.width * layout.group) {
                std::copy_n(weight + i * in + j, std::min(layout.group, in - j), to);
            }
        }
    });
}

#if defined(TANDEM_COMPILED)
template void gemm<float, float, float, NoEpilogue>(std::size_t, std::size_t, std::size_t, const Operand<float>&,
                                                    const Operand<float>&, float*, std::size_t, bool,
                                                    const NoEpilogue&);
template void gemm<double, double, double, NoEpilogue>(std::size_t, std::size_t, std::size_t, const Operand<double>&,
                                                       const Operand<double>&, double*, std::size_t, bool,
                                                       const NoEpilogue&);
template void gemm<float, float, bfloat16, NoEpilogue>(std::size_t, std::size_t, std::size_t, const Operand<float>&,
                                                       const Operand<bfloat16>&, float*, std::size_t, bool,
                                                       const NoEpilogue&);
template PanelLayout weight_layout<float>();
template PanelLayout weight_layout<double>();
template PanelLayout weight_layout<amp_bf16>();
template PanelLayout weight_layout<bfloat16>();
template PanelLayout weight_layout<int8>();
template bool multiplies_pairs<float>();
template bool multiplies_pairs<double>();
template bool multiplies_pairs<amp_bf16>();
template bool multiplies_pairs<bfloat16>();
template bool multiplies_pairs<int8>();
template void dense<float>(std::size_t, std::size_t, std::size_t, const StridedRows<const float>&, const float*,
                           const StridedRows<float>&, const Finish<float>&);
template void dense<double>(std::size_t, std::size_t, std::size_t, const StridedRows<const double>&, const double*,
                            const StridedRows<double>&, const Finish<double>&);
template void dense<amp_bf16>(std::size_t, std::size_t, std::size_t, const StridedRows<const float>&, const float*,
                              const StridedRows<float>&, const Finish<float>&);
template void dense<bfloat16>(std::size_t, std::size_t, std::size_t, const StridedRows<const float>&, const bfloat16*,
                              const StridedRows<float>&, const Finish<float>&);
template void dense<bfloat16>(std::size_t, std::size_t, std::size_t, const StridedRows<const bfloat16>&,
                              const bfloat16*, const StridedRows<float>&, const Finish<float>&);
template void dense<bfloat16>(std::size_t, std::size_t, std::size_t, const StridedRows<const bfloat16>&,
                              const bfloat16*, const StridedRows<bfloat16>&, const Finish<float>&);
template void dense_bytes<float, float>(std::size_t, std::size_t, std::size_t, const StridedRows<const float>&,
                                        const ByteWeight&, const StridedRows<float>&, const Finish<float>&);
template void dense_bytes<bfloat16, float>(std::size_t, std::size_t, std::size_t, const StridedRows<const bfloat16>&,
                                           const ByteWeight&, const StridedRows<float>&, const Finish<float>&);
template void dense_bytes<bfloat16, bfloat16>(std::size_t, std::size_t, std::size_t,
                                              const StridedRows<const bfloat16>&, const ByteWeight&,
                                              const StridedRows<bfloat16>&, const Finish<float>&);
template bool passes_narrow<float>();
template bool passes_narrow<double>();
template bool passes_narrow<amp_bf16>();
template bool passes_narrow<bfloat16>();
template bool passes_narrow<int8>();
template void dense_backward<float>(std::size_t, std::size_t, std::size_t, const StridedRows<const float>&,
                                    const float*, const StridedRows<const float>&, const StridedRows<float>&, float*);
template void dense_backward<double>(std::size_t, std::size_t, std::size_t, const StridedRows<const double>&,
                                     const double*, const StridedRows<const double>&, const StridedRows<double>&,
                                     double*);
template void dense_backward<amp_bf16>(std::size_t, std::size_t, std::size_t, const StridedRows<const float>&,
                                       const float*, const StridedRows<const float>&, const StridedRows<float>&,
                                       float*);
template void pack_weight<float>(std::size_t, std::size_t, const float*, float*);
template void pack_weight<double>(std::size_t, std::size_t, const double*, double*);
template void pack_weight<amp_bf16>(std::size_t, std::size_t, const float*, float*);
template void pack_weight<bfloat16>(std::size_t, std::size_t, const bfloat16*, bfloat16*);
#endif

}  // namespace tandem::inline TANDEM_ABI::kernels

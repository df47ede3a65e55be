// The products of dense layers and their gradients: weights in panels, in every arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>

#include <tandem/core/dtype.hpp>
#include <tandem/kernels/gemm.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

/// Rows of a matrix that lie `stride` elements apart, at least as many as are in use.
template <class T>
struct StridedRows {
    T* data;
    std::size_t stride;

    T* row(std::size_t i) const { return data + i * stride; }
};

/// How long to make rows of `width` elements: so that they do not lie a multiple of 4096 bytes apart, where products
/// would have to copy them (reads_in_place).
template <class T>
constexpr std::size_t row_length(std::size_t width) {
    return width * sizeof(T) % 4096 == 0 ? width + line / sizeof(T) : width;
}

/// How long to make rows of `width` elements that products read in tiles: an odd number of the caches' lines, so that the rows of
/// a tile spread over the whole L1 cache.
template <class T>
constexpr std::size_t spread_length(std::size_t width) {
    constexpr std::size_t elements = line / sizeof(T);
    return ((width + elements - 1) / elements | 1) * elements;
}

/// spread_length of the rows of bfloat16 that layers hand to one another.
constexpr std::size_t narrow_length(std::size_t width) { return spread_length<bfloat16>(width); }

/// The layout that weights of type T are kept in.
template <Arithmetic T>
PanelLayout weight_layout();

/// Whether products of T meet pairs of bfloat16: where the CPU has them, and they are faster than float32.
template <Arithmetic T>
bool multiplies_pairs();

/// Whether the layers of a model of T hand one another rows of bfloat16, of which products round nothing more: where
/// pairs of them are multiplied, in models that only infer. What is added up, layer after layer, stays float32.
template <Arithmetic T>
bool passes_narrow();

/// y[m, out] = x[m, in] · weightᵀ, then what `finish` says; x and y are row-major, the weight in its layout. Where the
/// CPU multiplies pairs of bfloat16, a bfloat16 weight meets x rounded to it, and an amp_bf16 weight is rounded as
/// well; elsewhere both are multiplied as they are. Sums are float32 then. X and Y, the elements of x and y, may be
/// bfloat16 where passes_narrow<T>(), Y if in <= narrow_depth.
template <Arithmetic T, class X = Compute<T>, class Y = Compute<T>>
void dense(std::size_t m, std::size_t out, std::size_t in, const StridedRows<const X>& x, const Stored<T>* weight,
           const StridedRows<Y>& y, const Finish<Compute<T>>& finish);

/// A weight [out, in] as signed bytes: its panels, a scale for every row, and for every row and block of the depth the
/// sum of its bytes; both run on to the end of the last panel.
struct ByteWeight {
    const std::int8_t* panels;
    const float* scales;
    const std::int32_t* sums;
    std::size_t sums_stride;
};

/// y = x · weightᵀ, then what `finish` says. Every row of x is rounded to bytes with its own scale and zero point; sums
/// are exact within a block of the depth. X and Y as in dense().
template <class X = float, class Y = float>
void dense_bytes(std::size_t m, std::size_t out, std::size_t in, const StridedRows<const X>& x, const ByteWeight& weight,
                 const StridedRows<Y>& y, const Finish<float>& finish);

/// The gradients of dense: dweight, in the weight's layout, += dyᵀ · x, and dx = dy · weight unless dx.data is null.
template <Trainable T>
void dense_backward(std::size_t m, std::size_t out, std::size_t in, const StridedRows<const Compute<T>>& x,
                    const Compute<T>* weight, const StridedRows<const Compute<T>>& dy,
                    const StridedRows<Compute<T>>& dx, Compute<T>* dweight);

/// Packs a row-major weight [out, in] into its layout.
template <Arithmetic T>
void pack_weight(std::size_t out, std::size_t in, const Stored<T>* weight, Stored<T>* panels);

}  // namespace tandem::inline TANDEM_ABI::kernels

#if !defined(TANDEM_COMPILED)
#include <tandem/kernels/dense.impl.hpp>
#endif

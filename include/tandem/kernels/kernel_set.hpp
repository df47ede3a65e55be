// The hot kernels as tables of function pointers: run-time sizes, one table per element type and instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

#include <tandem/core/dtype.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

/// The activations that kernels know. Any other is an expression, applied after the product.
enum class Activation { none, gelu, quick_gelu, tanh_gelu, silu, relu, squared_relu };

/// Bytes that a register tile fetches with every group, from memory that comes next. Half a line: fetched faster, they
/// would take the buffers that the tile's own loads wait for.
inline constexpr std::size_t fetched_per_group = 32;

/// The K blocking of register tiles, in groups. It is part of the contract, not a tuning knob: a tile's products are summed
/// in blocks of one depth in every configuration, so an output row's bits do not depend on M, on the other rows, or on the
/// number of threads. Where they are added to what is there, they are one sum with it instead.
inline constexpr std::size_t gemm_depth = 1024;

/// The deepest product whose result may be rows of bfloat16: all of it is one block of the depth, AMX's being the shallowest.
inline constexpr std::size_t narrow_depth = 1536;
static_assert(narrow_depth <= 2 * gemm_depth, "products of pairs of bfloat16, and of bytes, must be one block");

/// What becomes of a tile's first rows while the last ones are made, in the arithmetic units that products leave idle: `run` is
/// called again and again, with how many rows are done, and at last with all of them.
struct Meanwhile {
    void (*run)(void* state, std::size_t rows) = nullptr;
    void* state = nullptr;
};

/// The tile of a product. `group` neighbours along the depth are multiplied together: 1 for float and double, 2 for
/// bfloat16, 4 for bytes.
template <class A, class B, class Sum>
struct TileKernel {
    std::size_t rows;     ///< the most rows of one tile
    std::size_t columns;  ///< of every tile: the width of a packed panel
    std::size_t group;

    /// out[rows, columns] = a · b, for 1 to `rows` rows, or what stands there goes on with a · b where `onto` is set, which
    /// of integers nobody asks for: the same bits as of one product that is as deep as both, where those before had whole groups (of
    /// AMX's tiles, whole steps of 16). Group g of row i of a stands at a[i · a_row + g · a_group], side
    /// by side (a_group = group) where group > 1; b holds `groups` times `columns` groups, side by side; out is packed.
    /// What stands from `ahead` on is fetched into the L2 cache, fetched_per_group bytes a group; it is not read, and may be
    /// anywhere.
    void (*multiply)(std::size_t rows, std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                     const B* b, Sum* out, const void* ahead, bool onto);

    /// multiply with rows finished in between, and ahead_bytes fetched evenly; null where there is nothing to be gained.
    void (*multiply_while)(std::size_t rows, std::size_t groups, const A* a, std::size_t a_row, const B* b, Sum* out,
                           const void* ahead, std::size_t ahead_bytes, bool onto, const Meanwhile& meanwhile) = nullptr;

    std::size_t depth = gemm_depth;  ///< of a block that is summed at once, in groups
    std::size_t unit = 1;      ///< so many rows take as long as fewer
    std::size_t in_block = 8;  ///< most tiles whose rows stay in the L2 cache while all panels pass by
};

/// What becomes of a finished product: c = activation(product · scale + bias) · factor + residual, with what the activation
/// gets kept in `before`. Null pointers are left out. A factor_stride of 0 is one factor a column. residual may be c itself.
template <Real T>
struct Finish {
    const T* scale = nullptr;  ///< one a column
    const T* bias = nullptr;   ///< likewise
    Activation activation = Activation::none;
    T* before = nullptr;
    std::size_t before_stride = 0;
    const T* factor = nullptr;
    std::size_t factor_stride = 0;
    const T* residual = nullptr;
    std::size_t residual_stride = 0;

    /// For the part of the product that begins at this element.
    Finish at(std::size_t row, std::size_t column) const {
        Finish part = *this;
        if (scale != nullptr) part.scale += column;
        if (bias != nullptr) part.bias += column;
        if (before != nullptr) part.before += row * before_stride + column;
        if (factor != nullptr) part.factor += row * factor_stride + column;
        if (residual != nullptr) part.residual += row * residual_stride + column;
        return part;
    }
};

/// What an instruction set provides. All matrices are row-major; strides count elements.
template <Real T>
struct KernelSet {
    const char* name;

    TileKernel<T, T, T> tile;

    /// One tile [rows, columns] into c: c (+)= product, then what `finish` says, its pointers those of the tile's first
    /// element.
    void (*finish_tile)(const T* product, std::size_t product_stride, std::size_t rows, std::size_t columns, T* c,
                        std::size_t c_stride, bool accumulate, const Finish<T>& finish);

    /// to[j, i] = from[i, j] for `rows` rows and `columns` columns of `from`.
    void (*transpose)(const T* from, std::size_t from_stride, std::size_t rows, std::size_t columns, T* to,
                      std::size_t to_stride);

    /// y = activation(x), elementwise; x may be y.
    void (*activate)(Activation activation, const T* x, T* y, std::size_t size);

    /// y = (x − mean) · inverse · gain + bias per row of `width` (Ba, Kiros, Hinton 2016, eq. 4), with the biased
    /// variance, inverse = 1 / sqrt(variance + eps). mean and inverse hold one element a row, for the backward pass.
    /// Without `mean` and `bias` (both null), nothing is subtracted: RMSNorm (Zhang, Sennrich 2019, eq. 4). y may be x.
    void (*layer_norm)(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                       std::size_t width, T eps);

    /// In place x = softmax(scale · x) over one row of `count` elements.
    void (*softmax)(T* x, std::size_t count, T scale);

    /// y = activation(Σ x[i] · factors[i] + bias), elementwise over `terms` pairs of rows of `width` elements, in order; a null
    /// bias is none.
    void (*sum_of_products)(std::size_t terms, const T* const* x, const T* const* factors, const T* bias,
                            Activation activation, T* y, std::size_t width);

    /// Σ x[i] · y[i] over `size` elements. The order of the sum is the instruction set's.
    T (*dot)(const T* x, const T* y, std::size_t size);
};

/// What training needs beside that. A table of its own, so that programs that only infer do not compile it.
template <Real T>
struct GradientKernels {
    /// In place g = g · activation'(x).
    void (*activate_backward)(Activation activation, const T* x, T* g, std::size_t size);

    /// dx of layer_norm, added to dx where `accumulate` is set; dx may be dy.
    void (*layer_norm_backward)(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                std::size_t rows, std::size_t width, bool accumulate);

    /// Adds the gradients of gain, and of bias unless it is null, over all rows, for the columns [first, last) only, row
    /// by row in order.
    void (*layer_norm_parameters_backward)(const T* dy, const T* x, const T* mean, const T* inverse, T* dgain, T* dbias,
                                           std::size_t rows, std::size_t width, std::size_t first, std::size_t last);

    /// sums[j] += Σ_i x[i, j] for the columns [first, last), row by row in order.
    void (*column_sums)(const T* x, T* sums, std::size_t rows, std::size_t width, std::size_t first, std::size_t last);

    /// In place dx = scale · y · (dx − Σ dx·y): the gradient of softmax(scale · x), given its result y and dx = dL/dy.
    void (*softmax_backward)(const T* y, T* dx, std::size_t count, T scale);
};

/// Sums of bytes in a tile, packed, and what they stand for: the product's element (i, j) is
/// row_scale[i] · column_scale[j] · (sums[i, j] − row_zero[i] · column_sum[j]). column_scale and column_sum run on to
/// the tile's last column.
struct ByteProduct {
    const std::int32_t* sums;
    const float* row_scale;
    const std::int32_t* row_zero;
    const float* column_scale;
    const std::int32_t* column_sum;
};

/// What writes and reads the rows of bfloat16 that layers hand to one another where pairs are multiplied. Activations and
/// softmax are as accurate as that, not as float32.
struct NarrowRows {
    /// KernelSet's finish_tile, and ReducedKernels' finish_bytes, into rows of bfloat16.
    void (*finish)(const float* product, std::size_t product_stride, std::size_t rows, std::size_t columns, bfloat16* c,
                   std::size_t c_stride, const Finish<float>& finish) = nullptr;
    void (*finish_bytes)(const ByteProduct& product, std::size_t tile_columns, std::size_t rows, std::size_t columns,
                         bfloat16* c, std::size_t c_stride, const Finish<float>& finish) = nullptr;

    /// KernelSet's layer_norm, with a mean where `has_mean` is set; rows of y lie y_stride apart.
    void (*layer_norm)(const float* x, const float* gain, const float* bias, bfloat16* y, std::size_t y_stride,
                       std::size_t rows, std::size_t width, float eps, bool has_mean) = nullptr;

    /// y = softmax(scale · x) over `count` elements, which lie in pieces of `panel`, `panel_step` apart; x is overwritten.
    void (*softmax)(float* x, std::size_t panel, std::size_t panel_step, std::size_t count, float scale,
                    bfloat16* y) = nullptr;

    /// ReducedKernels' quantise.
    void (*quantise)(const bfloat16* x, std::uint8_t* y, std::size_t size, float& scale, std::int32_t& zero) = nullptr;

    /// Pair i of row j of `from` becomes pair j of row i of `to`, whose rows lie to_stride pairs apart.
    void (*transpose_pairs)(const bfloat16* from, std::size_t from_stride, std::size_t rows, std::size_t pairs,
                            bfloat16* to, std::size_t to_stride) = nullptr;

    /// to[2 i] and to[2 i + 1] are first[i] and second[i].
    void (*interleave)(const bfloat16* first, const bfloat16* second, bfloat16* to, std::size_t size) = nullptr;
};

/// What reduced precision adds to an instruction set: products of pairs and of bytes, and the conversions to them.
struct ReducedKernels {
    /// Pairs of bfloat16 as one operation; `multiply` is null where the CPU has none that is faster than float's.
    TileKernel<bfloat16, bfloat16, float> pairs;

    /// The left operand stays in float, the right one is widened to it. Of the same columns and group as `pairs`.
    TileKernel<float, bfloat16, float> widened;

    /// y = x rounded to bfloat16, to nearest even.
    void (*narrow)(const float* x, bfloat16* y, std::size_t size);

    /// Two rows of a right operand as pairs: to[2 i] and to[2 i + 1] are first[i] and second[i], rounded likewise.
    void (*narrow_pairs)(const float* first, const float* second, bfloat16* to, std::size_t size);

    /// Left bytes are unsigned, right bytes signed and within ±127; sums are exact in 32 bits for depths below 2^16.
    TileKernel<std::uint8_t, std::int8_t, std::int32_t> bytes;

    /// One row as bytes with its own scale and zero point: x ≈ scale · (y − zero).
    void (*quantise)(const float* x, std::uint8_t* y, std::size_t size, float& scale, std::int32_t& zero);

    /// KernelSet's finish_tile for a product of bytes, whose tile is `tile_columns` wide.
    void (*finish_bytes)(const ByteProduct& product, std::size_t tile_columns, std::size_t rows, std::size_t columns,
                         float* c, std::size_t c_stride, bool accumulate, const Finish<float>& finish);

    /// There where `pairs` can be multiplied.
    NarrowRows narrow_rows = {};
};

}  // namespace tandem::inline TANDEM_ABI::kernels

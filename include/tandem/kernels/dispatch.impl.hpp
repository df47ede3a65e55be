// Definitions of kernels/dispatch.hpp.
#pragma once

#include <concepts>
#include <cstdint>

#include <tandem/kernels/amx.hpp>
#include <tandem/kernels/avx2.hpp>
#include <tandem/kernels/avx512.hpp>
#include <tandem/kernels/dispatch.hpp>
#include <tandem/kernels/isa.hpp>
#include <tandem/kernels/kernel_set.hpp>
#include <tandem/kernels/native_kernels.hpp>
#include <tandem/kernels/neon.hpp>
#include <tandem/kernels/scalar.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

template <Real T, std::size_t columns = scalar_tile_columns>
inline constexpr KernelSet<T> scalar_kernels{
    .name = "scalar",
    .tile = {scalar_tile_rows, columns, 1, scalar_product<T, T, T, 1, columns>},
    .finish_tile = Scalar<T>::finish_tile,
    .transpose = Scalar<T>::transpose,
    .activate = Scalar<T>::activate,
    .layer_norm = Scalar<T>::layer_norm,
    .softmax = Scalar<T>::softmax,
    .sum_of_products = Scalar<T>::sum_of_products,
    .dot = Scalar<T>::dot};

template <Real T>
inline constexpr GradientKernels<T> scalar_gradient_kernels{
    .activate_backward = Scalar<T>::activate_backward,
    .layer_norm_backward = Scalar<T>::layer_norm_backward,
    .layer_norm_parameters_backward = Scalar<T>::layer_norm_parameters_backward,
    .column_sums = Scalar<T>::column_sums,
    .softmax_backward = Scalar<T>::softmax_backward};

inline constexpr ReducedKernels scalar_reduced_kernels{
    .pairs = {scalar_tile_rows, scalar_tile_columns, 2, nullptr},
    .widened = {scalar_tile_rows, scalar_tile_columns, 2, scalar_product<float, bfloat16, float, 2>},
    .narrow = scalar_narrow,
    .narrow_pairs = scalar_narrow_pairs,
    .bytes = {scalar_tile_rows, scalar_tile_columns, 4, scalar_product<std::uint8_t, std::int8_t, std::int32_t, 4>},
    .quantise = scalar_quantise,
    .finish_bytes = scalar_finish_bytes};

/// AMX's tiles in plain C++; panels of floats are as wide as theirs.
inline constexpr std::size_t emulated_columns = 32;
inline constexpr ReducedKernels emulated_reduced_kernels{
    .pairs = amx::TileProduct<amx::PlainTiles, amx::PairDot>::kernel,
    .widened = {scalar_tile_rows, emulated_columns, 2, scalar_product<float, bfloat16, float, 2, emulated_columns>},
    .narrow = scalar_narrow,
    .narrow_pairs = scalar_narrow_pairs,
    .bytes = amx::TileProduct<amx::PlainTiles, amx::ByteDot>::kernel,
    .quantise = scalar_quantise,
    .finish_bytes = scalar_finish_bytes,
    .narrow_rows = {.finish = scalar_finish_narrow,
                    .finish_bytes = scalar_finish_bytes_narrow,
                    .layer_norm = scalar_layer_norm_narrow,
                    .softmax = scalar_softmax_narrow,
                    .quantise = scalar_quantise_narrow,
                    .transpose_pairs = scalar_transpose_pairs,
                    .interleave = scalar_interleave}};

template <Real T>
const KernelSet<T>& kernels_of(Isa isa) {
    if (isa == Isa::scalar) return scalar_kernels<T>;
    if (isa == Isa::amx_emulated) return scalar_kernels<T, emulated_columns>;
    if constexpr (std::same_as<T, float>) {
#if defined(__x86_64__)
        if (is_avx512(isa)) return avx512::kernel_set;
        if (isa == Isa::avx2) return avx2::kernel_set;
#elif defined(__aarch64__)
        if (isa == Isa::neon) return neon::kernel_set;
#endif
    }
    return native::kernel_set<T>;
}

template <Real T>
const GradientKernels<T>& gradient_kernels_of(Isa isa) {
    if (isa == Isa::scalar || isa == Isa::amx_emulated) return scalar_gradient_kernels<T>;
    if constexpr (std::same_as<T, float>) {
#if defined(__x86_64__)
        if (is_avx512(isa)) return avx512::VectorKernels<avx512::Vector>::gradients;
        if (isa == Isa::avx2) return avx2::VectorKernels<avx2::Vector>::gradients;
#elif defined(__aarch64__)
        if (isa == Isa::neon) return neon::VectorKernels<neon::Vector>::gradients;
#endif
    }
    return native::VectorKernels<native::Vector<T>>::gradients;
}

TANDEM_INLINE ReducedKernels reduced_kernels_of(Isa isa) {
    if (isa == Isa::amx_emulated) return emulated_reduced_kernels;
#if defined(__x86_64__)
    if (is_avx512(isa)) {
        const CpuFeatures& cpu = cpu_features();
        ReducedKernels kernels{
            .pairs = avx512bf16::pairs,
            .widened = avx512::widened,
            .narrow = avx512::Convert::narrow,
            .narrow_pairs = avx512::Convert::narrow_pairs,
            .bytes = cpu.int8 ? avx512vnni::bytes : avx2::reduced_kernels.bytes,
            .quantise = avx512::Convert::quantise<float>,
            .finish_bytes = cpu.int8 ? avx512::Convert::finish_bytes : avx2::reduced_kernels.finish_bytes};
        if (isa == Isa::avx512) {
            kernels.pairs.multiply = nullptr;
        } else {
            kernels.narrow = avx512bf16::Convert::narrow;
            kernels.narrow_pairs = avx512bf16::Convert::narrow_pairs;
            kernels.narrow_rows = avx512bf16::Convert::narrow_rows;
        }
        if (isa == Isa::amx) {
            kernels.pairs = amx::TileProduct<amx::CpuTiles, amx::PairDot>::kernel;
            kernels.bytes = amx::TileProduct<amx::CpuTiles, amx::ByteDot>::kernel;
            kernels.finish_bytes = avx512::Convert::finish_bytes;
        }
        return kernels;
    }
    if (isa == Isa::avx2) return avx2::reduced_kernels;
#elif defined(__aarch64__)
    if (isa == Isa::neon) {
        const CpuFeatures& cpu = cpu_features();
        ReducedKernels kernels = neon::reduced_kernels;
        if (cpu.bf16) {
            kernels.pairs = neonbf16::pairs;
            kernels.narrow_rows = neon::Conversions<neon::Vector>::narrow_rows;
        }
        if (cpu.int8) kernels.bytes = neondot::bytes;
        if (cpu.i8mm) kernels.bytes = neoni8mm::bytes;
        return kernels;
    }
#endif
    return scalar_reduced_kernels;
}

template <Real T>
const KernelSet<T>& active() {
    static const KernelSet<T>& chosen = kernels_of<T>(active_isa());
    return chosen;
}
template <Real T>
const GradientKernels<T>& active_gradients() {
    static const GradientKernels<T>& chosen = gradient_kernels_of<T>(active_isa());
    return chosen;
}
TANDEM_INLINE const ReducedKernels& active_reduced() {
    static const ReducedKernels chosen = reduced_kernels_of(active_isa());
    return chosen;
}

#if defined(TANDEM_COMPILED)
template const KernelSet<float>& kernels_of<float>(Isa);
template const KernelSet<double>& kernels_of<double>(Isa);
template const GradientKernels<float>& gradient_kernels_of<float>(Isa);
template const GradientKernels<double>& gradient_kernels_of<double>(Isa);
template const KernelSet<float>& active<float>();
template const KernelSet<double>& active<double>();
template const GradientKernels<float>& active_gradients<float>();
template const GradientKernels<double>& active_gradients<double>();
#endif

}  // namespace tandem::inline TANDEM_ABI::kernels

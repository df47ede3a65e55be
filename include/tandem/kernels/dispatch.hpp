// The one place that chooses which instruction set's kernels run.
#pragma once

#include <cstdlib>
#include <string>
#include <string_view>

#include <tandem/core/error.hpp>
#include <tandem/kernels/kernel_set.hpp>
#include <tandem/kernels/native.hpp>
#include <tandem/kernels/scalar.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

/// The table of an instruction set written as a struct of static functions.
template <Real T, class Isa>
constexpr KernelSet<T> table_of(const char* name) {
    return {.name = name,
            .tile_rows = Isa::tile_rows,
            .tile_columns = Isa::tile_columns,
            .gemm_tile = Isa::gemm_tile,
            .layer_norm = Isa::layer_norm,
            .layer_norm_backward = Isa::layer_norm_backward,
            .layer_norm_parameters_backward = Isa::layer_norm_parameters_backward,
            .column_sums = Isa::column_sums,
            .softmax = Isa::softmax,
            .softmax_backward = Isa::softmax_backward};
}

template <Real T>
inline constexpr KernelSet<T> scalar_kernels = table_of<T, Scalar<T>>("scalar");

template <Real T>
inline constexpr KernelSet<T> native_kernels = table_of<T, Native<T>>("native");

/// The kernels of a named instruction set; an unknown or unavailable name is an Error.
template <Real T>
const KernelSet<T>& kernels_named(std::string_view name) {
    if (name == "scalar") return scalar_kernels<T>;
    if (name == "native") return native_kernels<T>;
    throw Error("TANDEM_ISA", "scalar or native", "\"" + std::string(name) + "\"");
}

/// The kernels in use: native, or what the environment variable TANDEM_ISA names. Chosen at the first call.
template <Real T>
const KernelSet<T>& active() {
    static const KernelSet<T>& chosen = [&]() -> const KernelSet<T>& {
        const char* forced = std::getenv("TANDEM_ISA");
        return kernels_named<T>(forced == nullptr ? "native" : forced);
    }();
    return chosen;
}

}  // namespace tandem::inline TANDEM_ABI::kernels

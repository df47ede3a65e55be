// Kernels at the build's -march, over xsimd's vectors.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <tandem/core/dtype.hpp>
#include <tandem/kernels/kernel_set.hpp>
#include <tandem/kernels/native.hpp>

namespace tandem::inline TANDEM_ABI::kernels {

namespace native {

template <Real T>
struct Vector {
    using element = T;
    static constexpr std::size_t lanes = kernels::lanes<T>;
    // 14 x 2 sums, 2 vectors of b and one broadcast fill AVX-512's 32 registers; 6 x 2 fit AVX2's 16.
    static constexpr std::size_t tile_rows = lanes * sizeof(T) >= 64 ? 14 : 6;

    Batch<T> value;

    Vector() = default;
    Vector(const Batch<T>& v) : value(v) {}
    explicit Vector(T x) : value(x) {}

    static Vector load(const T* from) { return kernels::load(from); }
    static Vector load(const T* from, std::size_t count) { return load_partial(from, count); }
    void store(T* to) const { kernels::store(to, value); }
    void store(T* to, std::size_t count) const { store_partial(to, value, count); }
    static Vector exp(const Vector& x) { return xsimd::exp(x.value); }
    static Vector erf(const Vector& x) { return xsimd::erf(x.value); }

    friend Vector operator+(const Vector& a, const Vector& b) { return a.value + b.value; }
    friend Vector operator-(const Vector& a, const Vector& b) { return a.value - b.value; }
    friend Vector operator*(const Vector& a, const Vector& b) { return a.value * b.value; }
    friend Vector operator/(const Vector& a, const Vector& b) { return a.value / b.value; }
    friend Vector fma(const Vector& a, const Vector& b, const Vector& c) {
        return xsimd::fma(a.value, b.value, c.value);
    }
    friend Vector max(const Vector& a, const Vector& b) { return xsimd::max(a.value, b.value); }
};

#include <tandem/kernels/vector_kernels.ipp>

template <Real T>
inline constexpr KernelSet<T> kernel_set = VectorKernels<Vector<T>>::set("native");

}  // namespace native

}  // namespace tandem::inline TANDEM_ABI::kernels

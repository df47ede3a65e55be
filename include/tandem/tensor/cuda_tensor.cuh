// Tensors in device memory. nvcc declares the CUDA runtime by itself.
#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/shape.hpp>
#include <tandem/tensor/expression.hpp>
#include <tandem/tensor/tensor.hpp>

namespace tandem::inline TANDEM_ABI::cuda {

namespace detail {

/// Throws Error, naming the call, where it failed.
inline void check(std::string_view call, cudaError_t status) {
    if (status == cudaSuccess) return;
    // The runtime remembers a failure and would report it again after the next kernel.
    static_cast<void>(cudaGetLastError());
    throw Error(call, cudaGetErrorString(status));
}

/// Copies `count` elements between host and device in either direction.
template <class T>
void copy(T* to, const T* from, std::size_t count) {
    if (count > 0) check("cudaMemcpy", cudaMemcpy(to, from, count * sizeof(T), cudaMemcpyDefault));
}

struct Release {
    // A failure here is one of an earlier kernel, which its own evaluation has reported.
    void operator()(void* pointer) const { static_cast<void>(cudaFree(pointer)); }
};

template <class T>
std::unique_ptr<T[], Release> allocate(std::size_t count) {
    if (count == 0) return nullptr;
    void* memory = nullptr;
    const std::size_t bytes = count * sizeof(T);
    check("cudaMalloc of " + std::to_string(bytes) + " bytes", cudaMalloc(&memory, bytes));
    return std::unique_ptr<T[], Release>(static_cast<T*>(memory));
}

}  // namespace detail

/// The number of GPUs this process can use; 0 where there is none, or no driver.
inline int device_count() {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
    static_cast<void>(cudaGetLastError());
    return 0;
}

/// A tensor that owns its elements in the memory of the current device, zero when made. Copies are deep. It stands in
/// expressions as a Tensor does; such expressions are for cuda::evaluate and cuda::assign alone, the host cannot read
/// its elements. Every failure of the CUDA runtime is an Error that names the call.
template <Element T, class S>
class DeviceTensor {
public:
    using element = T;
    using shape = S;

    /// Dynamic extents are 0.
    DeviceTensor() : DeviceTensor(tandem::detail::empty_extents<S>()) {}

    template <std::convertible_to<std::size_t>... Dynamic>
    requires(sizeof...(Dynamic) > 0 && S::dynamic_count > 0) explicit DeviceTensor(Dynamic... dynamic_extents)
        : DeviceTensor(tandem::detail::extents_of<S>(dynamic_extents...)) {}

    explicit DeviceTensor(const Extents<S::rank>& extents) : DeviceTensor(Unset{}, extents) {
        if (size() > 0) detail::check("cudaMemset", cudaMemset(data(), 0, size() * sizeof(T)));
    }

    /// A copy of a tensor of the host.
    explicit DeviceTensor(const Tensor<T, S>& source) : DeviceTensor(source.view()) {}

    /// A copy of the elements of a view over memory of the host or the device.
    explicit DeviceTensor(const View<const T, S>& source) : DeviceTensor(Unset{}, source.extents()) {
        copy_from(source);
    }

    DeviceTensor(const DeviceTensor& other) : DeviceTensor(other.view()) {}
    DeviceTensor(DeviceTensor&&) noexcept = default;
    DeviceTensor& operator=(const DeviceTensor& other) {
        if (this != &other) *this = DeviceTensor(other);
        return *this;
    }
    DeviceTensor& operator=(DeviceTensor&&) noexcept = default;
    ~DeviceTensor() = default;

    /// A tensor with these extents whose elements are whatever the memory held: for results that are written in full.
    static DeviceTensor uninitialised(const Extents<S::rank>& extents) { return DeviceTensor(Unset{}, extents); }

    /// Takes over the elements of a tensor of the same extents, of the host or the device.
    void copy_from(const View<const T, S>& source) {
        if (source.extents() != extents_) {
            throw Error("DeviceTensor::copy_from", to_string(extents_), to_string(source.extents()));
        }
        detail::copy(data(), source.data(), size());
    }

    /// Writes the elements to a tensor of the same extents, of the host or the device.
    void copy_to(const View<T, S>& target) const {
        if (target.extents() != extents_) {
            throw Error("DeviceTensor::copy_to", to_string(extents_), to_string(target.extents()));
        }
        detail::copy(target.data(), data(), size());
    }

    Tensor<T, S> to_host() const {
        Tensor<T, S> result(extents_);
        copy_to(result.view());
        return result;
    }

    /// The value of a scalar.
    T item() const requires(S::rank == 0) { return to_host().item(); }

    T* data() { return elements_.get(); }
    const T* data() const { return elements_.get(); }
    const Extents<S::rank>& extents() const { return extents_; }
    std::size_t extent(std::size_t axis) const { return extents_[axis]; }
    std::size_t size() const { return extents_.count(); }

    /// A view over device memory.
    View<T, S> view() { return {data(), extents_}; }
    View<const T, S> view() const { return {data(), extents_}; }
    operator View<T, S>() { return view(); }
    operator View<const T, S>() const { return view(); }

private:
    struct Unset {};

    DeviceTensor(Unset, const Extents<S::rank>& extents)
        : elements_(detail::allocate<T>(S::admits(extents) ? extents.count() : 0)), extents_(extents) {
        if (!S::admits(extents)) throw Error("DeviceTensor", to_string(S::extents), to_string(extents));
    }

    std::unique_ptr<T[], detail::Release> elements_;
    Extents<S::rank> extents_;
};

}  // namespace tandem::inline TANDEM_ABI::cuda

namespace tandem::inline TANDEM_ABI::detail {

template <class T, class S>
inline constexpr bool is_tensor<cuda::DeviceTensor<T, S>> = true;

}  // namespace tandem::inline TANDEM_ABI::detail

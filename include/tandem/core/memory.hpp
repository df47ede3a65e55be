// Aligned storage.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// An owned array whose first element is aligned to a cache line (64 bytes), so that vector loads do not straddle two; a
/// large one to a huge page, which the system is asked to use: walking it then seldom waits for a page's address.
/// Shrinking keeps the memory: a buffer that has seen its largest size allocates no more.
template <class T>
class Buffer {
    static_assert(std::is_trivially_copyable_v<T>);

public:
    static constexpr std::size_t line = 64, huge_page = std::size_t{2} << 20;

    Buffer() = default;
    explicit Buffer(std::size_t size) { resize(size); }

    Buffer(const Buffer& other) : Buffer(other.size_) {
        std::copy_n(other.data(), size_, data());
    }
    Buffer(Buffer&& other) noexcept
        : data_(std::move(other.data_)),
          size_(std::exchange(other.size_, 0)),
          capacity_(std::exchange(other.capacity_, 0)) {}
    Buffer& operator=(const Buffer& other) {
        if (this != &other) {
            resize(other.size_);
            std::copy_n(other.data(), size_, data());
        }
        return *this;
    }
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
        return *this;
    }
    ~Buffer() = default;

    /// Zero-fills what it newly allocates; the contents do not survive a growth beyond the capacity.
    void resize(std::size_t size) {
        if (size > capacity_) {
            data_.reset();
            const std::size_t bytes = size * sizeof(T);
            const std::align_val_t alignment{bytes >= huge_page ? huge_page : line};
            data_ = {static_cast<T*>(::operator new(bytes, alignment)), Release{alignment}};
            if (bytes >= huge_page) advise_huge_pages(data_.get(), bytes);
            std::fill_n(data_.get(), size, T{});
            capacity_ = size;
        }
        size_ = size;
    }

    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    std::size_t size() const { return size_; }

private:
    struct Release {
        std::align_val_t alignment{line};
        void operator()(T* pointer) const { ::operator delete(pointer, alignment); }
    };

    static void advise_huge_pages([[maybe_unused]] T* data, [[maybe_unused]] std::size_t bytes) {
#if defined(__linux__)
        ::madvise(data, bytes, MADV_HUGEPAGE);  // a refusal costs speed, nothing else
#endif
    }

    std::unique_ptr<T[], Release> data_;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
};

}  // namespace tandem::inline TANDEM_ABI

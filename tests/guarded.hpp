// Memory that ends where a page nobody may touch begins: an access past the end kills the test, whoever makes it.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstddef>
#include <span>
#include <type_traits>

#include <tandem/core/random.hpp>

/// `capacity` elements of T between two protected pages, the last one right before the second page.
template <class T>
class Guarded {
public:
    explicit Guarded(std::size_t capacity) : capacity_(capacity) {
        const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
        const std::size_t inside = (capacity * sizeof(T) + page - 1) / page * page;
        mapped_ = inside + 2 * page;
        void* const start = ::mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        REQUIRE(start != MAP_FAILED);
        start_ = static_cast<std::byte*>(start);
        if (inside > 0) REQUIRE(::mprotect(start_ + page, inside, PROT_READ | PROT_WRITE) == 0);
        end_ = reinterpret_cast<T*>(start_ + page + inside);
    }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;
    ~Guarded() { ::munmap(start_, mapped_); }

    /// The last `count` elements: those before the protected page.
    T* last(std::size_t count) const {
        REQUIRE(count <= capacity_);
        return end_ - count;
    }
    std::span<T> span(std::size_t count) const { return {last(count), count}; }

    /// Those elements, filled with uniform numbers.
    T* random(std::size_t count, tandem::Random& source, double low = -1, double high = 1) const {
        using Arithmetic = std::conditional_t<std::is_arithmetic_v<T>, T, float>;
        for (T& value : span(count)) value = static_cast<T>(static_cast<Arithmetic>(source.uniform(low, high)));
        return last(count);
    }

private:
    std::byte* start_ = nullptr;
    std::size_t mapped_ = 0;
    std::size_t capacity_ = 0;
    T* end_ = nullptr;
};

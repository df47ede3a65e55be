// Aligned storage, and memory that is used again.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <memory>
#include <mutex>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// Sizes of blocks go up in eighths of a power of two.
struct BlockClass {
    std::size_t index, bytes;
};

constexpr BlockClass block_class(std::size_t bytes) {
    constexpr std::size_t line = 64;
    const std::size_t lines = std::max<std::size_t>(1, (bytes + line - 1) / line);
    const auto shift = static_cast<std::size_t>(std::max(0, static_cast<int>(std::bit_width(lines)) - 4));
    const std::size_t eighths = (lines + (std::size_t{1} << shift) - 1) >> shift;  // 1 to 16
    return {shift * 8 + eighths, (eighths << shift) * line};
}

/// Freed blocks, kept for the next request of their size: work that has been done once allocates no more. Blocks above
/// `largest_block`, and what would make the store exceed `capacity`, go back to the system. All are aligned to 64
/// bytes.
class BlockStore {
public:
    static constexpr std::size_t largest_block = std::size_t{1} << 20, capacity = std::size_t{64} << 20;
    static constexpr std::size_t pages = std::size_t{128} << 10;  ///< from here on blocks are whole pages of the system

    /// Never destroyed: tensors of static lifetime come back later than any static object may live.
    static BlockStore& instance();

    // Not inlined: g++ would see an allocation and its release by functions that are no pair, and warn.
    void* take(std::size_t bytes);
    void* take_zeroed(std::size_t bytes);
    void give(void* memory, std::size_t bytes) noexcept;

    std::size_t held() const { return held_; }
    std::size_t peak() const { return peak_; }
    void restart_peak() { peak_ = held_.load(); }

private:
    struct Block {
        Block* next;
    };
    struct Pages {
        void* memory;
        std::size_t index;
    };

    void count(std::size_t bytes);

    static std::size_t block_bytes(std::size_t bytes);

    void* take_kept(std::size_t bytes);

    std::mutex mutex_;
    std::array<Block*, block_class(largest_block).index + 1> blocks_{};
    /// Blocks of pages stand in a list beside them: in themselves, it would fill pages that nobody has touched.
    std::array<Pages, capacity / pages> pages_{};
    std::size_t pages_count_ = 0;
    std::size_t kept_ = 0;
    std::atomic<std::size_t> held_ = 0, peak_ = 0;
};

}  // namespace detail

/// Bytes of all tensors and buffers that are held now.
std::size_t held_memory();
/// The most bytes that have been held at once since the last restart_peak_memory(), or since the program began.
std::size_t peak_memory();
/// Lets peak_memory() begin anew at what is held now.
void restart_peak_memory();

/// Fills memory that no file backs with zeros; the system has its whole pages back until they are written again.
void zero_and_release(std::span<std::byte> memory);

/// For containers whose elements come and go with every step.
template <class T>
struct RecyclingAllocator {
    using value_type = T;

    RecyclingAllocator() = default;
    template <class U>
    RecyclingAllocator(const RecyclingAllocator<U>&) {}

    T* allocate(std::size_t count) { return static_cast<T*>(detail::BlockStore::instance().take(count * sizeof(T))); }
    void deallocate(T* memory, std::size_t count) { detail::BlockStore::instance().give(memory, count * sizeof(T)); }

    bool operator==(const RecyclingAllocator&) const = default;
};

/// A std::vector whose memory is kept for the next one.
template <class T>
using RecyclingVector = std::vector<T, RecyclingAllocator<T>>;

/// For objects that come and go with every step.
struct Recycled {
    static void* operator new(std::size_t bytes);
    static void operator delete(void* memory, std::size_t bytes);
};

/// Objects that calls at the same time must not share, and later calls use again: one for each. A copy starts with
/// none.
template <class T>
class Reused {
public:
    /// One of them, for as long as it lives.
    class Lease {
    public:
        explicit Lease(Reused& owner) : owner_(owner), object_(owner.take()) {}
        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;
        ~Lease() { owner_.give(std::move(object_)); }

        T& operator*() const { return *object_; }

    private:
        Reused& owner_;
        std::unique_ptr<T> object_;
    };

    Reused() = default;
    Reused(const Reused&) {}
    Reused& operator=(const Reused&) { return *this; }
    ~Reused() = default;

private:
    std::unique_ptr<T> take() {
        const std::lock_guard lock(mutex_);
        if (idle_.empty()) {
            idle_.reserve(++made_);  // giving one back never allocates
            return std::make_unique<T>();
        }
        std::unique_ptr<T> object = std::move(idle_.back());
        idle_.pop_back();
        return object;
    }
    void give(std::unique_ptr<T> object) noexcept {
        const std::lock_guard lock(mutex_);
        idle_.push_back(std::move(object));
    }

    std::mutex mutex_;
    std::vector<std::unique_ptr<T>> idle_;
    std::size_t made_ = 0;
};

/// An owned array whose first element is aligned to a cache line (64 bytes), so that vector loads do not straddle two;
/// a large one lies in huge pages, which the system is asked to use: walking it then seldom waits for a page's address.
/// Shrinking keeps the memory: a buffer that has seen its largest size allocates no more.
template <class T>
class Buffer {
    static_assert(std::is_trivially_copyable_v<T>, "tandem: a Buffer's elements are bytes to it, zero when made");

public:
    Buffer() = default;
    explicit Buffer(std::size_t size) { resize(size); }

    Buffer(const Buffer& other) : Buffer(other.size_) { std::copy_n(other.data(), size_, data()); }
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

    /// Zero-fills what it newly allocates; the contents do not survive a growth beyond the capacity. Not inlined, as
    /// its release is not: layers hold so many buffers that a program would take noticeably longer to compile.
    [[gnu::noinline]] void resize(std::size_t size) {
        if (size > capacity_) {
            data_.reset();
            const std::size_t bytes = size * sizeof(T);
            data_ = {static_cast<T*>(detail::BlockStore::instance().take_zeroed(bytes)), Release{bytes}};
            capacity_ = size;
        }
        size_ = size;
    }

    /// Has what somebody else owns for its elements, which must stay there, aligned to a cache line, as long as this buffer
    /// has them. Nobody may write to them through it: whoever borrows for an object gives it away as const. A copy owns its own.
    [[gnu::noinline]] void borrow(std::span<const T> elements) {
        data_ = {const_cast<T*>(elements.data()), Release{}};
        size_ = capacity_ = elements.size();
    }

    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    std::size_t size() const { return size_; }

private:
    struct Release {
        std::size_t bytes = 0;  ///< none: borrowed
        [[gnu::noinline]] void operator()(T* pointer) const {
            if (bytes > 0) detail::BlockStore::instance().give(pointer, bytes);
        }
    };

    std::unique_ptr<T[], Release> data_;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
};

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/core/memory.impl.hpp>
#endif

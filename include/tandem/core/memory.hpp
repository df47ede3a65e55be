// Aligned storage, and memory that is used again.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

// AddressSanitizer must see every block freed.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool recycles_memory = false;
#elif defined(__has_feature)
inline constexpr bool recycles_memory = !__has_feature(address_sanitizer);
#else
inline constexpr bool recycles_memory = true;
#endif

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

/// Memory from the system. Blocks of 128 KiB and more are pages that the system fills with zeros where they are first
/// touched. One of a huge page (2 MiB) or more begins on one, and the system is asked to use them: then walking it
/// seldom waits for a page's address.
struct SystemMemory {
    static constexpr std::size_t line = 64, pages = std::size_t{128} << 10, huge_page = std::size_t{2} << 20;

    static bool is_zero(std::size_t bytes) { return is_mapped(bytes); }

    static void* take(std::size_t bytes) {
#if defined(__linux__)
        if (is_mapped(bytes)) {
            const std::size_t used = whole_pages(bytes), slack = bytes < huge_page ? 0 : huge_page;
            void* const start =
                ::mmap(nullptr, used + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (start == MAP_FAILED) throw std::bad_alloc();
            if (slack == 0) return start;
            const std::size_t before = (slack - reinterpret_cast<std::uintptr_t>(start) % slack) % slack;
            char* const first = static_cast<char*>(start) + before;
            if (before > 0) ::munmap(start, before);
            ::munmap(first + used, slack - before);
            ::madvise(first, used, MADV_HUGEPAGE);  // a refusal costs speed, nothing else
            return first;
        }
#endif
        return ::operator new (bytes, std::align_val_t{line});
    }

    static void give(void* memory, [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(__linux__)
        if (is_mapped(bytes)) {
            ::munmap(memory, whole_pages(bytes));
            return;
        }
#endif
        ::operator delete (memory, std::align_val_t{line});
    }

private:
    static constexpr bool is_mapped([[maybe_unused]] std::size_t bytes) {
#if defined(__linux__)
        return recycles_memory && bytes >= pages;
#else
        return false;
#endif
    }

#if defined(__linux__)
    static std::size_t whole_pages(std::size_t bytes) {
        const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
        return (bytes + page - 1) / page * page;
    }
#endif
};

/// Freed blocks, kept for the next request of their size: work that has been done once allocates no more. Blocks above
/// `largest_block`, and what would make the store exceed `capacity`, go back to the system. All are aligned to 64
/// bytes.
class BlockStore {
public:
    static constexpr std::size_t largest_block = std::size_t{1} << 20, capacity = std::size_t{64} << 20;

    /// Never destroyed: tensors of static lifetime come back later than any static object may live.
    static BlockStore& instance() {
        static BlockStore* const store = new BlockStore;
        return *store;
    }

    // Not inlined: g++ would see an allocation and its release by functions that are no pair, and warn.
    [[gnu::noinline]] void* take(std::size_t bytes) {
        count(bytes);
        if (void* const kept = take_kept(bytes)) return kept;
        return SystemMemory::take(block_bytes(bytes));
    }

    [[gnu::noinline]] void* take_zeroed(std::size_t bytes) {
        count(bytes);
        if (void* const kept = take_kept(bytes)) return std::memset(kept, 0, bytes);
        void* const memory = SystemMemory::take(block_bytes(bytes));
        return SystemMemory::is_zero(block_bytes(bytes)) ? memory : std::memset(memory, 0, bytes);
    }

    [[gnu::noinline]] void give(void* memory, std::size_t bytes) noexcept {
        held_ -= bytes;
        if (recycles_memory && bytes <= largest_block) {
            const BlockClass size = block_class(bytes);
            const std::lock_guard lock(mutex_);
            if (kept_ + size.bytes <= capacity) {
                blocks_[size.index] = new (memory) Block{blocks_[size.index]};
                kept_ += size.bytes;
                return;
            }
        }
        SystemMemory::give(memory, block_bytes(bytes));
    }

    std::size_t held() const { return held_; }
    std::size_t peak() const { return peak_; }
    void restart_peak() { peak_ = held_.load(); }

private:
    struct Block {
        Block* next;
    };

    void count(std::size_t bytes) {
        const std::size_t now = held_ += bytes;
        for (std::size_t most = peak_; now > most && !peak_.compare_exchange_weak(most, now);) {
        }
    }

    static std::size_t block_bytes(std::size_t bytes) {
        return bytes <= largest_block ? block_class(bytes).bytes : bytes;
    }

    void* take_kept(std::size_t bytes) {
        if (!recycles_memory || bytes > largest_block) return nullptr;
        const BlockClass size = block_class(bytes);
        const std::lock_guard lock(mutex_);
        Block* const block = blocks_[size.index];
        if (block != nullptr) {
            blocks_[size.index] = block->next;
            kept_ -= size.bytes;
        }
        return block;
    }

    std::mutex mutex_;
    std::array<Block*, block_class(largest_block).index + 1> blocks_{};
    std::size_t kept_ = 0;
    std::atomic<std::size_t> held_ = 0, peak_ = 0;
};

}  // namespace detail

/// Bytes of all tensors and buffers that are held now, and the most there have been since the last restart_peak_memory().
inline std::size_t held_memory() { return detail::BlockStore::instance().held(); }
inline std::size_t peak_memory() { return detail::BlockStore::instance().peak(); }
inline void restart_peak_memory() { detail::BlockStore::instance().restart_peak(); }

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

template <class T>
using RecyclingVector = std::vector<T, RecyclingAllocator<T>>;

/// For objects that come and go with every step.
struct Recycled {
    [[gnu::noinline]] static void* operator new(std::size_t bytes) {
        return detail::BlockStore::instance().take(bytes);
    }
    [[gnu::noinline]] static void operator delete(void* memory, std::size_t bytes) {
        detail::BlockStore::instance().give(memory, bytes);
    }
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
/// a large one to a huge page, which the system is asked to use: walking it then seldom waits for a page's address.
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

    /// Zero-fills what it newly allocates; the contents do not survive a growth beyond the capacity. Not inlined, as its
    /// release is not: layers hold so many buffers that a program would take noticeably longer to compile.
    [[gnu::noinline]] void resize(std::size_t size) {
        if (size > capacity_) {
            data_.reset();
            const std::size_t bytes = size * sizeof(T);
            data_ = {static_cast<T*>(detail::BlockStore::instance().take_zeroed(bytes)), Release{bytes}};
            capacity_ = size;
        }
        size_ = size;
    }

    T* data() { return data_.get(); }
    const T* data() const { return data_.get(); }
    std::size_t size() const { return size_; }

private:
    struct Release {
        std::size_t bytes = 0;
        [[gnu::noinline]] void operator()(T* pointer) const { detail::BlockStore::instance().give(pointer, bytes); }
    };

    std::unique_ptr<T[], Release> data_;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
};

}  // namespace tandem::inline TANDEM_ABI

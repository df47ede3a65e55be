// Definitions of core/memory.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <span>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <tandem/core/memory.hpp>
#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::detail {

// AddressSanitizer must see every block freed.
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool recycles_memory = false;
#elif defined(__has_feature)
inline constexpr bool recycles_memory = !__has_feature(address_sanitizer);
#else
inline constexpr bool recycles_memory = true;
#endif

#if defined(__linux__)
/// Blocks that lie side by side in regions of huge pages (2 MiB), which the system is asked to use: walking them then seldom
/// waits for a page's address, and no block has an end of its own in small pages. The system fills pages with zeros where
/// they are first touched, and may have those of a block back when it is freed; a region goes when its last block does. What
/// was a block's never becomes another's: its pages would be small ones, and not zero where pages are locked.
class HugePages {
public:
    static constexpr std::size_t huge_page = std::size_t{2} << 20, region = std::size_t{64} << 20;

    /// Never destroyed: see BlockStore.
    static HugePages& instance() {
        static HugePages* const pages = new HugePages;
        return *pages;
    }

    void* take(std::size_t bytes) {
        const std::size_t used = whole_pages(bytes);
        if (used > region / 4) return map(used, huge_page);
        const std::lock_guard lock(mutex_);
        if (current_ == nullptr || filled_ + used > region) {
            char* const fresh = map(region, region);
            live_.emplace(fresh, 0);
            current_ = fresh;
            filled_ = 0;
        }
        ++live_.at(current_);
        char* const block = current_ + filled_;
        filled_ += used;
        return block;
    }

    void give(void* memory, std::size_t bytes) noexcept {
        const std::size_t used = whole_pages(bytes);
        if (used > region / 4) {
            ::munmap(memory, used);
            return;
        }
        ::madvise(memory, used, MADV_DONTNEED);
        char* const start = static_cast<char*>(memory) - reinterpret_cast<std::uintptr_t>(memory) % region;
        const std::lock_guard lock(mutex_);
        if (--live_.at(start) > 0) return;
        ::munmap(start, region);
        live_.erase(start);
        if (start == current_) current_ = nullptr;
    }

private:
    static std::size_t whole_pages(std::size_t bytes) {
        static const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
        return (bytes + page - 1) / page * page;
    }

    static char* map(std::size_t bytes, std::size_t alignment) {
        void* const start =
            ::mmap(nullptr, bytes + alignment, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (start == MAP_FAILED) throw std::bad_alloc();
        const std::size_t before = (alignment - reinterpret_cast<std::uintptr_t>(start) % alignment) % alignment;
        char* const first = static_cast<char*>(start) + before;
        if (before > 0) ::munmap(start, before);
        ::munmap(first + bytes, alignment - before);
        ::madvise(first, bytes, MADV_HUGEPAGE);  // a refusal costs speed, nothing else
        return first;
    }

    std::mutex mutex_;
    std::map<char*, std::size_t> live_;  ///< blocks in each region
    char* current_ = nullptr;
    std::size_t filled_ = 0;
};
#endif

/// Memory from the system: of 128 KiB and more, whole pages.
struct SystemMemory {
    static constexpr std::size_t line = 64;

    static bool is_zero([[maybe_unused]] std::size_t bytes) {
#if defined(__linux__)
        return recycles_memory && bytes >= BlockStore::pages;
#else
        return false;
#endif
    }

    static void* take(std::size_t bytes) {
#if defined(__linux__)
        if (is_zero(bytes)) return HugePages::instance().take(bytes);
#endif
        return ::operator new (bytes, std::align_val_t{line});
    }

    static void give(void* memory, [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(__linux__)
        if (is_zero(bytes)) return HugePages::instance().give(memory, bytes);
#endif
        ::operator delete (memory, std::align_val_t{line});
    }
};

TANDEM_INLINE BlockStore& BlockStore::instance() {
    static BlockStore* const store = new BlockStore;
    return *store;
}

[[gnu::noinline]] TANDEM_INLINE void* BlockStore::take(std::size_t bytes) {
    count(bytes);
    if (void* const kept = take_kept(bytes)) return kept;
    return SystemMemory::take(block_bytes(bytes));
}

[[gnu::noinline]] TANDEM_INLINE void* BlockStore::take_zeroed(std::size_t bytes) {
    count(bytes);
    if (void* const kept = take_kept(bytes)) return std::memset(kept, 0, bytes);
    void* const memory = SystemMemory::take(block_bytes(bytes));
    return SystemMemory::is_zero(block_bytes(bytes)) ? memory : std::memset(memory, 0, bytes);
}

[[gnu::noinline]] TANDEM_INLINE void BlockStore::give(void* memory, std::size_t bytes) noexcept {
    held_ -= bytes;
    if (recycles_memory && bytes <= largest_block) {
        const BlockClass size = block_class(bytes);
        const std::lock_guard lock(mutex_);
        if (kept_ + size.bytes <= capacity) {
            kept_ += size.bytes;
            if (size.bytes >= pages) {
                pages_[pages_count_++] = {memory, size.index};
            } else {
                blocks_[size.index] = new (memory) Block{blocks_[size.index]};
            }
            return;
        }
    }
    SystemMemory::give(memory, block_bytes(bytes));
}

TANDEM_INLINE void BlockStore::count(std::size_t bytes) {
    const std::size_t now = held_ += bytes;
    for (std::size_t most = peak_; now > most && !peak_.compare_exchange_weak(most, now);) {
    }
}

TANDEM_INLINE std::size_t BlockStore::block_bytes(std::size_t bytes) {
    return bytes <= largest_block ? block_class(bytes).bytes : bytes;
}

TANDEM_INLINE void* BlockStore::take_kept(std::size_t bytes) {
    if (!recycles_memory || bytes > largest_block) return nullptr;
    const BlockClass size = block_class(bytes);
    const std::lock_guard lock(mutex_);
    if (size.bytes >= pages) {
        for (std::size_t i = pages_count_; i-- > 0;) {
            if (pages_[i].index != size.index) continue;
            void* const memory = pages_[i].memory;
            pages_[i] = pages_[--pages_count_];
            kept_ -= size.bytes;
            return memory;
        }
        return nullptr;
    }
    Block* const block = blocks_[size.index];
    if (block != nullptr) {
        blocks_[size.index] = block->next;
        kept_ -= size.bytes;
    }
    return block;
}

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE void zero_and_release(std::span<std::byte> memory) {
#if defined(__linux__)
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const std::size_t before = std::min(memory.size(), (page - reinterpret_cast<std::uintptr_t>(memory.data()) % page) % page);
    const std::size_t pages = (memory.size() - before) / page * page;
    // Refused where pages are locked.
    if (pages > 0 && ::madvise(memory.data() + before, pages, MADV_DONTNEED) == 0) {
        std::memset(memory.data(), 0, before);
        memory = memory.subspan(before + pages);
    }
#endif
    if (!memory.empty()) std::memset(memory.data(), 0, memory.size());
}

TANDEM_INLINE std::size_t held_memory() {
    return detail::BlockStore::instance().held();
}

TANDEM_INLINE std::size_t peak_memory() {
    return detail::BlockStore::instance().peak();
}

TANDEM_INLINE void restart_peak_memory() {
    detail::BlockStore::instance().restart_peak();
}

[[gnu::noinline]] TANDEM_INLINE void* Recycled::operator new(std::size_t bytes) {
    return detail::BlockStore::instance().take(bytes);
}

[[gnu::noinline]] TANDEM_INLINE void Recycled::operator delete(void* memory, std::size_t bytes) {
    detail::BlockStore::instance().give(memory, bytes);
}

}  // namespace tandem::inline TANDEM_ABI

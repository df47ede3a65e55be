// Definitions of core/memory.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <new>

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
            blocks_[size.index] = new (memory) Block{blocks_[size.index]};
            kept_ += size.bytes;
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
    Block* const block = blocks_[size.index];
    if (block != nullptr) {
        blocks_[size.index] = block->next;
        kept_ -= size.bytes;
    }
    return block;
}

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

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

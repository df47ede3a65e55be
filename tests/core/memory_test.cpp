#include <algorithm>
#include <catch2/catch.hpp>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <tandem/core/memory.hpp>
#include <tandem/core/random.hpp>

namespace {

using tandem::Buffer;

bool is_zero(const Buffer<std::uint8_t>& buffer) {
    return std::all_of(buffer.data(), buffer.data() + buffer.size(), [](std::uint8_t byte) { return byte == 0; });
}

}  // namespace

TEST_CASE("buffers of every size are zero, aligned and apart", "[core]") {
    tandem::Random random(tandem::Seed{1});
    // Around the sizes that are kept for the next one, that share regions of 64 MiB, and that have pages of their own.
    const std::vector<std::size_t> sizes{1, 64, 4097, 131071, 131072, 131073, 1 << 20, (1 << 20) + 1, 3 << 20, 16 << 20, (16 << 20) + 1, 70 << 20};
    std::vector<Buffer<std::uint8_t>> kept;
    for (std::size_t round = 0; round < 150; ++round) {
        if (!kept.empty() && random.below(2) == 0) {
            const std::size_t which = random.below(static_cast<std::uint32_t>(kept.size()));
            Buffer<std::uint8_t>& buffer = kept[which];
            const std::uint8_t mark = buffer.data()[0];
            CHECK(buffer.data()[buffer.size() - 1] == mark);
            CHECK(buffer.data()[buffer.size() / 2] == mark);
            kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(which));
            continue;
        }
        Buffer<std::uint8_t> buffer(sizes[random.below(static_cast<std::uint32_t>(round % 10 == 0 ? sizes.size() : sizes.size() - 2))]);
        CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64 == 0);
        REQUIRE(is_zero(buffer));
        std::memset(buffer.data(), static_cast<int>(1 + round % 200), buffer.size());
        kept.push_back(std::move(buffer));
    }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they keep what is freed, and memory of their own
namespace {

/// Memory of the whole process, in MiB: "Rss:", or what of it is in huge pages, "AnonHugePages:".
double resident(const std::string& kind = "Rss:") {
    std::ifstream file("/proc/self/smaps_rollup");
    for (std::string word; file >> word;) {
        double kilobytes = 0;
        if (word == kind && file >> kilobytes) return kilobytes / 1024;
    }
    return 0;
}

}  // namespace

TEST_CASE("freed buffers go back to the system, and new ones lie in huge pages again", "[core]") {
    constexpr std::size_t count = 40, size = (std::size_t{5} << 20) + 4096;
    const double before = resident();
    std::vector<Buffer<std::uint8_t>> kept;
    double huge = 0;
    for (int round = 0; round < 3; ++round) {
        const double huge_before = resident("AnonHugePages:");
        std::vector<Buffer<std::uint8_t>> buffers;
        for (std::size_t i = 0; i < count; ++i) {
            buffers.emplace_back(size);
            std::memset(buffers.back().data(), 1, size);
        }
        CHECK(resident() - before > 150);
        const double found = resident("AnonHugePages:") - huge_before;
        if (round == 0) huge = found;
        CHECK(found >= 0.9 * huge);
        // All but one of them, which keeps its region.
        kept.push_back(std::move(buffers[count / 2]));
    }
    CHECK(resident() - before < 50);
}

TEST_CASE("a buffer that is freed untouched takes no memory", "[core]") {
    const double before = resident();
    {
        std::vector<Buffer<std::uint8_t>> buffers;
        for (std::size_t i = 0; i < 200; ++i) buffers.emplace_back(std::size_t{300} << 10);
    }
    CHECK(resident() - before < 10);
}
#endif

#if defined(__linux__)
TEST_CASE("what is zeroed and released is zero, and the system has its whole pages", "[core]") {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    for (const std::size_t size : {std::size_t{1}, page - 1, page, 3 * page + 17, std::size_t{4} << 20}) {
        for (const std::size_t offset : {std::size_t{0}, std::size_t{1}, page - 3}) {
            Buffer<std::uint8_t> buffer(offset + size + page);
            std::fill_n(buffer.data(), buffer.size(), std::uint8_t{7});
            tandem::zero_and_release(std::as_writable_bytes(std::span(buffer.data() + offset, size)));
            const auto begin = reinterpret_cast<std::uintptr_t>(buffer.data() + offset), end = begin + size;
            const std::uintptr_t first = (begin + page - 1) / page * page, last = end / page * page;
            if (first < last) {
                std::vector<unsigned char> resident((last - first) / page);
                REQUIRE(::mincore(reinterpret_cast<void*>(first), last - first, resident.data()) == 0);
                CHECK(std::ranges::none_of(resident, [](unsigned char state) { return (state & 1U) != 0; }));
            }
            for (std::size_t i = 0; i < buffer.size(); ++i) {
                const bool is_inside = i >= offset && i < offset + size;
                if (buffer.data()[i] != (is_inside ? 0 : 7)) FAIL("byte " << i << " of " << size << " at " << offset);
            }
        }
    }
    tandem::zero_and_release({});
}
#endif

TEST_CASE("a buffer borrows what it never frees or writes", "[core]") {
    alignas(64) const std::uint8_t owned[64]{1, 2, 3};
    Buffer<std::uint8_t> buffer(1000);
    const std::size_t held = tandem::held_memory();
    buffer.borrow(owned);
    CHECK(tandem::held_memory() == held - 1000);
    CHECK(std::as_const(buffer).data() == owned);
    CHECK(buffer.size() == 64);
    Buffer<std::uint8_t> copy(buffer);
    CHECK(copy.data() != owned);
    CHECK(copy.data()[2] == 3);
    Buffer<std::uint8_t> moved(std::move(buffer));
    CHECK(std::as_const(moved).data() == owned);
    moved.resize(65);
    CHECK(moved.data() != owned);
    CHECK(owned[0] == 1);
}

#if defined(__linux__)
TEST_CASE("buffers are zero where pages are locked", "[core]") {
    if (::mlockall(MCL_CURRENT | MCL_FUTURE) != 0) return;  // not everyone may
    for (int round = 0; round < 3; ++round) {
        Buffer<std::uint8_t> buffer(std::size_t{3} << 20);
        CHECK(is_zero(buffer));
        std::memset(buffer.data(), 1, buffer.size());
    }
    ::munlockall();
}
#endif

TEST_CASE("buffers are taken and freed by many threads at once", "[core]") {
    std::vector<std::thread> threads;
    std::vector<int> wrong(4);
    for (std::size_t t = 0; t < wrong.size(); ++t) {
        threads.emplace_back([&, t] {
            tandem::Random random(tandem::Seed{t});
            std::vector<Buffer<std::uint8_t>> own;
            for (int i = 0; i < 200; ++i) {
                own.emplace_back(std::size_t{1} << (12 + random.below(10)));
                wrong[t] += is_zero(own.back()) ? 0 : 1;
                std::memset(own.back().data(), static_cast<int>(t + 1), own.back().size());
                if (own.size() > 8) {
                    const Buffer<std::uint8_t>& first = own.front();
                    for (std::size_t j = 0; j < first.size(); j += 1000) wrong[t] += first.data()[j] == t + 1 ? 0 : 1;
                    own.erase(own.begin());
                }
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == std::vector<int>(wrong.size()));
}

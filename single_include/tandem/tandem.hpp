// tandem: CLIP models as C++ types, in one header.
// Written by single_include/amalgamate.py from include/tandem; change it there.
//
// MIT License
//
// Copyright (c) 2026 The tandem authors
//
// Permission is hereby granted, free of charge, to any person obtaining a copy
// of this software and associated documentation files (the "Software"), to deal
// in the Software without restriction, including without limitation the rights
// to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
// copies of the Software, and to permit persons to whom the Software is
// furnished to do so, subject to the following conditions:
//
// The above copyright notice and this permission notice shall be included in all
// copies or substantial portions of the Software.
//
// THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
// IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
// FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
// AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
// LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
// OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
// SOFTWARE.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <concepts>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <initializer_list>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <numbers>
#include <numeric>
#include <optional>
#include <queue>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

// ---- tandem/core/platform.hpp ----

// What differs between compilers and build flags, and nothing else.

// Two translation units built with different -m flags would otherwise share one copy of every inline kernel, whichever
// the linker kept. An inline namespace named after the flags keeps them apart; user code never spells it.
#if defined(__CUDACC__)
#define TANDEM_ABI cuda_abi
#elif defined(__AVX512F__)
#define TANDEM_ABI avx512_abi
#elif defined(__AVX2__) && defined(__FMA__)
#define TANDEM_ABI avx2_abi
#elif defined(__AVX__)
#define TANDEM_ABI avx_abi
#else
#define TANDEM_ABI base_abi
#endif

// Functors and expression nodes run on the host and, under nvcc, on the device.
#if defined(__CUDACC__)
#define TANDEM_DEVICE __host__ __device__
#else
#define TANDEM_DEVICE
#endif

namespace tandem::inline TANDEM_ABI {

inline constexpr int version_major = 0;
inline constexpr int version_minor = 1;
inline constexpr int version_patch = 0;

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/core/dtype.hpp ----

// Element types: float, double, bfloat16, and integer ids.

namespace tandem::inline TANDEM_ABI {

/// The upper half of a float: 8 exponent bits, 7 mantissa bits. A storage type; arithmetic happens in float.
class bfloat16 {
public:
    bfloat16() = default;

    /// Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
    TANDEM_DEVICE constexpr bfloat16(float value) {
        const auto word = std::bit_cast<std::uint32_t>(value);
        const bool is_nan = (word & 0x7fffffffU) > 0x7f800000U;
        const std::uint32_t rounded = is_nan ? (word | 0x00400000U) : word + 0x7fffU + ((word >> 16) & 1U);
        bits_ = static_cast<std::uint16_t>(rounded >> 16);
    }

    TANDEM_DEVICE constexpr operator float() const {
        return std::bit_cast<float>(static_cast<std::uint32_t>(bits_) << 16);
    }

    TANDEM_DEVICE constexpr std::uint16_t bits() const { return bits_; }

private:
    std::uint16_t bits_ = 0;
};

/// The short name users write: Clip<vit_b_32, bf16>.
using bf16 = bfloat16;

/// Weights of a model quantised to bytes: Clip<vit_b_32, int8>.
using int8 = std::int8_t;

/// Weights in float32 whose products are of bfloat16, in training too: open_clip's --precision amp_bf16. Sums, norms,
/// gradients and everything else stay float32. The name of an arithmetic, not of an element in memory.
struct amp_bf16 {};

/// Token ids and class labels.
using Id = std::int32_t;

template <class T>
concept Real = std::same_as<T, float> || std::same_as<T, double>;

template <class T>
concept Element = Real<T> || std::same_as<T, bfloat16> || std::same_as<T, int8> || std::same_as<T, Id>;

/// What a model can be made of.
template <class T>
concept Arithmetic = Real<T> || std::same_as<T, bfloat16> || std::same_as<T, int8> || std::same_as<T, amp_bf16>;

/// What a model that trains can be made of: bfloat16 has too few bits to add small updates to.
template <class T>
concept Trainable = Real<T> || std::same_as<T, amp_bf16>;

/// The type arithmetic on T happens in: float32 and float64 compute in themselves, the others in float32.
template <class T>
using Compute = std::conditional_t<Real<T> || std::same_as<T, Id>, T, float>;

/// The type that a model of T keeps what is no weight of a product in: a byte alone holds no embedding.
template <Arithmetic T>
using Stored = std::conditional_t<std::same_as<T, bfloat16>, bfloat16, Compute<T>>;

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/core/error.hpp ----

// The one exception type of the library, and the sentence it carries.

namespace tandem::inline TANDEM_ABI {

/// Every run-time failure of tandem. what() reads "where: what was expected and what was found".
class Error : public std::runtime_error {
public:
    [[gnu::cold]] Error(std::string_view where, std::string_view message)
        : std::runtime_error(std::string(where) + ": " + std::string(message)), where_(where) {}

    [[gnu::cold]] Error(std::string_view where, std::string_view expected, std::string_view found)
        : Error(where, "expected " + std::string(expected) + ", found " + std::string(found)) {}

    /// The file, tensor, option or function the error speaks of.
    const std::string& where() const noexcept { return where_; }

private:
    std::string where_;
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/core/file.hpp ----

// Whole files: read through a memory map, replaced in one durable step.

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// "model.safetensors: cannot write: No space left on device", from the errno of the call that just failed.
[[noreturn]] inline void throw_file_error(const std::filesystem::path& path, std::string_view operation) {
    const int code = errno;
    throw Error(path.string(), "cannot " + std::string(operation) + ": " + std::generic_category().message(code));
}

/// Repeats a system call for as long as a signal interrupts it.
template <class Call>
auto uninterrupted(Call call) {
    auto result = call();
    while (result == -1 && errno == EINTR) result = call();
    return result;
}

/// The system calls of a safe write, in one place so that a test can make any of them fail. Each sets errno.
struct FileCalls {
    static int open(const char* path, int flags) { return ::open(path, flags | O_CLOEXEC, 0666); }
    static int lock(int file) { return ::flock(file, LOCK_EX); }
    static int truncate(int file) { return ::ftruncate(file, 0); }
    static ::ssize_t write(int file, const void* bytes, std::size_t count) { return ::write(file, bytes, count); }
    static int permit(int file, ::mode_t mode) { return ::fchmod(file, mode); }
    static int sync(int file) { return ::fsync(file); }
    static int rename(const char* from, const char* to) { return std::rename(from, to); }
    static int remove(const char* path) { return ::unlink(path); }
    static int close(int file) { return ::close(file); }
};

/// An open file, closed at the end of its scope.
template <class Calls = FileCalls>
class Descriptor {
public:
    Descriptor(Calls& calls, int number) : calls_(calls), number_(number) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (number_ >= 0) calls_.close(number_);
    }
    int number() const { return number_; }

private:
    Calls& calls_;
    int number_;
};

/// Opens the temporary of one target and waits for its lock. A process killed in mid-write leaves the temporary
/// behind, unlocked: the next writer takes it over, so that at most one lies about.
template <class Calls>
int open_temporary(Calls& calls, const std::filesystem::path& temporary, const std::filesystem::path& target) {
    while (true) {
        const int file =
            uninterrupted([&] { return calls.open(temporary.c_str(), O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK); });
        if (file < 0) throw_file_error(target, "create " + temporary.filename().string() + " beside it");
        struct ::stat opened {};
        struct ::stat named {};
        // Cluster file systems without locks (Lustre's default mount) leave writers of one path unordered, as
        // elsewhere.
        const bool locked = uninterrupted([&] { return calls.lock(file); }) == 0 || errno == ENOSYS ||
                            errno == ENOLCK || errno == EOPNOTSUPP;
        if (!locked || ::fstat(file, &opened) != 0) {
            const int code = errno;
            calls.remove(temporary.c_str());
            calls.close(file);
            errno = code;
            throw_file_error(target, "lock " + temporary.filename().string());
        }
        // While this writer waited, the one before it may have renamed the very file it holds: that one is the target
        // now and must not be touched.
        if (::lstat(temporary.c_str(), &named) == 0 && named.st_ino == opened.st_ino && named.st_dev == opened.st_dev)
            return file;
        calls.close(file);
    }
}

template <class Calls>
void write_parts(Calls& calls, int file, std::span<const std::span<const std::byte>> parts,
                 const std::filesystem::path& target) {
    for (std::span<const std::byte> rest : parts) {
        while (!rest.empty()) {
            const auto written = uninterrupted([&] { return calls.write(file, rest.data(), rest.size()); });
            if (written == 0) errno = EIO;
            if (written <= 0) throw_file_error(target, "write");
            rest = rest.subspan(static_cast<std::size_t>(written));
        }
    }
}

/// write_file_atomically over any set of system calls.
template <class Calls>
void replace_file(Calls calls, const std::filesystem::path& path, std::span<const std::span<const std::byte>> parts) {
    struct ::stat old {};
    const bool replaces = ::stat(path.c_str(), &old) == 0;
    if (replaces && !S_ISREG(old.st_mode)) throw Error(path.string(), "cannot write: not a regular file");

    // Opened first, so that nothing that can be known beforehand fails after the rename.
    const std::filesystem::path parent = path.parent_path().empty() ? "." : path.parent_path();
    const Descriptor<Calls> folder(calls,
                                   uninterrupted([&] { return calls.open(parent.c_str(), O_RDONLY | O_DIRECTORY); }));
    if (folder.number() < 0) throw_file_error(path, "open its folder");

    std::filesystem::path temporary = path;
    temporary += ".tandem-tmp";
    // The lock ends with the descriptor, hence after the temporary has gone one way or the other.
    const Descriptor<Calls> file(calls, open_temporary(calls, temporary, path));
    try {
        if (uninterrupted([&] { return calls.truncate(file.number()); }) != 0) throw_file_error(path, "truncate");
        write_parts(calls, file.number(), parts, path);
        if (replaces && uninterrupted([&] { return calls.permit(file.number(), old.st_mode & 07777U); }) != 0)
            throw_file_error(path, "keep its permissions");
        if (uninterrupted([&] { return calls.sync(file.number()); }) != 0) throw_file_error(path, "fsync");
        if (calls.rename(temporary.c_str(), path.c_str()) != 0) throw_file_error(path, "rename");
    } catch (...) {
        calls.remove(temporary.c_str());
        throw;
    }
    // Some network file systems know no fsync of folders and say EINVAL: there is nothing more to be had from them.
    if (uninterrupted([&] { return calls.sync(folder.number()); }) != 0 && errno != EINVAL)
        throw_file_error(path, "fsync its folder (the new file is in place, but a power loss may undo it)");
}

}  // namespace detail

/// A whole file mapped read-only; pages are read as they are touched and nothing is copied. Move only.
/// Whoever shortens the file while it is mapped kills the process (SIGBUS): replace files, do not rewrite them.
class MappedFile {
public:
    /// Throws Error with path, operation and the system's reason, also for what is not a regular file.
    explicit MappedFile(const std::filesystem::path& path) {
        detail::FileCalls calls;
        // Without O_NONBLOCK, opening a named pipe would wait for a writer.
        const detail::Descriptor<> file(
            calls, detail::uninterrupted([&] { return calls.open(path.c_str(), O_RDONLY | O_NONBLOCK); }));
        if (file.number() < 0) detail::throw_file_error(path, "open");
        struct ::stat status {};
        if (::fstat(file.number(), &status) != 0) detail::throw_file_error(path, "stat");
        if (!S_ISREG(status.st_mode)) throw Error(path.string(), "cannot open: not a regular file");
        if (status.st_size == 0) return;  // mmap refuses a length of zero
        const auto size = static_cast<std::size_t>(status.st_size);
        void* start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number(), 0);
        if (start == MAP_FAILED) detail::throw_file_error(path, "map");
        bytes_ = {static_cast<const std::byte*>(start), size};
    }

    MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
    MappedFile& operator=(MappedFile&& other) noexcept {
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~MappedFile() {
        if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
    }

    /// The file's contents, valid for as long as this object (or the one it was moved to) lives.
    std::span<const std::byte> bytes() const { return bytes_; }

    /// Lets go of the memory that `part` of the contents takes; if it is read again, it comes from the file again.
    void forget(std::span<const std::byte> part) const {
        const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
        const auto first = static_cast<std::size_t>(part.data() - bytes_.data());
        const std::size_t begin = (first + page - 1) / page * page, end = (first + part.size()) / page * page;
        if (begin < end) ::madvise(const_cast<std::byte*>(bytes_.data() + begin), end - begin, MADV_DONTNEED);
    }

private:
    std::span<const std::byte> bytes_;
};

/// Replaces the contents of `path` by the parts, one after the other: whatever happens, kill and power loss included,
/// the path afterwards holds the whole old file (or none, if there was none) or the whole new one.
/// Writes `path`.tandem-tmp in the same folder, fsyncs it, renames it, fsyncs the folder. Writers of the same path wait
/// for each other. Permissions of a replaced file are kept; a symbolic link is replaced, not followed.
/// On failure throws Error with path, operation and the system's reason; the old file stays, the temporary goes.
inline void write_file_atomically(const std::filesystem::path& path,
                                  std::span<const std::span<const std::byte>> parts) {
    detail::replace_file(detail::FileCalls{}, path, parts);
}

/// The same for a text.
inline void write_file_atomically(const std::filesystem::path& path, std::string_view text) {
    const std::span<const std::byte> part = std::as_bytes(std::span(text));
    write_file_atomically(path, std::span(&part, 1));
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/core/parallel.hpp ----

// Parallel loops; the only file that knows oneTBB.

// g++ 12 takes the undefined operand of AVX-512 intrinsics for an uninitialised read (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>
#pragma GCC diagnostic pop

namespace tandem::inline TANDEM_ABI {

namespace detail {

using PieceFunction = void (*)(const void* body, std::size_t begin, std::size_t end);

// The body is type-erased so that a program instantiates oneTBB's loop once, not once for every loop it has.
inline void run_pieces(std::size_t count, std::size_t grain, PieceFunction function, const void* body) {
    // Isolated, so that a thread waiting here cannot pick up an unrelated task that uses the same thread-local scratch.
    tbb::this_task_arena::isolate([&] {
        tbb::parallel_for(
            tbb::blocked_range<std::size_t>(0, count, std::max<std::size_t>(grain, 1)),
            [&](const tbb::blocked_range<std::size_t>& range) { function(body, range.begin(), range.end()); });
    });
}

}  // namespace detail

/// The number of threads that a loop started here runs on.
inline std::size_t core_count() {
    return static_cast<std::size_t>(std::max(1, tbb::this_task_arena::max_concurrency()));
}

/// Calls body(begin, end) over disjoint pieces that cover [0, count), none of less than half of `grain` items where there
/// are that many. Where the pieces lie depends on the number of threads: body must give an item the same result in any
/// piece. The number of threads is the user's: tbb::global_control.
template <class Body>
void parallel_for(std::size_t count, std::size_t grain, const Body& body) {
    if (count == 0) return;
    if (count <= grain) {
        body(std::size_t{0}, count);
        return;
    }
    detail::run_pieces(
        count, grain,
        [](const void* erased, std::size_t begin, std::size_t end) { (*static_cast<const Body*>(erased))(begin, end); },
        &body);
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/data/bpe_merges.hpp ----

// Byte-pair merging: which two tokens become which third, applied to one word.

namespace tandem::inline TANDEM_ABI::detail {

/// Two neighbouring tokens become a third.
struct MergeRule {
    Id left = 0;
    Id right = 0;
    Id result = 0;
};

/// The rules of a vocabulary by rank, and a hash table from pairs to ranks that is only read once it is built.
class MergeRules {
public:
    MergeRules() = default;

    /// Room for `count` rules.
    explicit MergeRules(std::size_t count) : slots_(std::bit_ceil(2 * count + 1)) { rules_.reserve(count); }

    /// Adds the next rule; false, and no change, if its pair has one already.
    bool add(const MergeRule& rule) {
        Slot& slot = slots_[position(key(rule.left, rule.right))];
        if (slot.rank != none) return false;
        slot = {key(rule.left, rule.right), static_cast<std::uint32_t>(rules_.size())};
        rules_.push_back(rule);
        return true;
    }

    const std::vector<MergeRule>& rules() const { return rules_; }

    /// Merges the tokens of one word: the lowest rank first, of equal ranks the leftmost. `ranks` is working memory.
    void apply(std::vector<Id>& ids, std::vector<std::uint32_t>& ranks) const {
        constexpr std::size_t longest_scanned = 64;
        if (ids.size() > longest_scanned) {
            apply_long(ids);
        } else {
            apply_short(ids, ranks);
        }
    }

private:
    static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

    struct Slot {
        std::uint64_t key = 0;
        std::uint32_t rank = none;
    };

    static std::uint64_t key(Id left, Id right) {
        return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
    }

    std::size_t position(std::uint64_t key) const {
        const std::size_t mask = slots_.size() - 1;
        std::size_t at = static_cast<std::size_t>((key * 0x9e3779b97f4a7c15ULL) >> 32) & mask;
        while (slots_[at].rank != none && slots_[at].key != key) at = (at + 1) & mask;
        return at;
    }

    std::uint32_t rank(Id left, Id right) const { return slots_[position(key(left, right))].rank; }

    /// Quadratic in the length, and the fastest for the words people write.
    void apply_short(std::vector<Id>& ids, std::vector<std::uint32_t>& ranks) const {
        ranks.clear();
        for (std::size_t i = 0; i + 1 < ids.size(); ++i) ranks.push_back(rank(ids[i], ids[i + 1]));
        while (!ranks.empty()) {
            const auto best = std::min_element(ranks.begin(), ranks.end());
            if (*best == none) break;
            const auto at = static_cast<std::size_t>(best - ranks.begin());
            ids[at] = rules_[*best].result;
            ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
            ranks.erase(best);
            if (at > 0) ranks[at - 1] = rank(ids[at - 1], ids[at]);
            if (at < ranks.size()) ranks[at] = rank(ids[at], ids[at + 1]);
        }
    }

    /// The same result in n log n steps, for runs of thousands of letters or emoji.
    void apply_long(std::vector<Id>& ids) const {
        constexpr Id gone = -1;
        const std::size_t count = ids.size();
        using Candidate = std::pair<std::uint32_t, std::size_t>;  // rank, position of the left token
        std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
        std::vector<std::size_t> next(count);
        std::vector<std::size_t> previous(count);
        const auto offer = [&](std::size_t at) {
            if (next[at] >= count) return;
            const std::uint32_t found = rank(ids[at], ids[next[at]]);
            if (found != none) queue.emplace(found, at);
        };
        for (std::size_t i = 0; i < count; ++i) {
            next[i] = i + 1;
            previous[i] = i - 1;  // of the first: never read
        }
        for (std::size_t i = 0; i + 1 < count; ++i) offer(i);
        while (!queue.empty()) {
            const auto [offered, at] = queue.top();
            queue.pop();
            // The pair may have changed since it was offered.
            if (ids[at] == gone || next[at] >= count || rank(ids[at], ids[next[at]]) != offered) continue;
            const std::size_t taken = next[at];
            ids[at] = rules_[offered].result;
            ids[taken] = gone;
            next[at] = next[taken];
            if (next[at] < count) previous[next[at]] = at;
            if (at > 0) offer(previous[at]);
            offer(at);
        }
        std::erase(ids, gone);
    }

    std::vector<MergeRule> rules_;
    std::vector<Slot> slots_ = std::vector<Slot>(1);
};

}  // namespace tandem::inline TANDEM_ABI::detail

// ---- tandem/data/unicode.hpp ----

// UTF-8 and the Unicode facts that tokenizers ask for; the only file that knows utf8proc.

#if __has_include(<utf8proc.h>)
#include <utf8proc.h>
#endif

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI::detail {

inline constexpr char32_t replacement_character = 0xFFFD;

/// One code point and the number of bytes it was read from.
struct CodePoint {
    char32_t value = 0;
    std::size_t bytes = 0;
};

/// Reads the code point at the front of a text that is not empty. Invalid UTF-8 gives U+FFFD for each maximal part of a
/// valid sequence (Unicode 15, section 3.9, "substitution of maximal subparts"), as Python's errors="replace" does.
constexpr CodePoint front_code_point(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned lead = byte(0);
    if (lead < 0x80) return {lead, 1};
    if (lead < 0xC2 || lead > 0xF4) return {replacement_character, 1};
    const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    char32_t value = lead & (0x7FU >> length);
    for (std::size_t i = 1; i < length; ++i) {
        unsigned low = 0x80;
        unsigned high = 0xBF;
        if (i == 1) {
            if (lead == 0xE0) low = 0xA0;   // shorter forms exist
            if (lead == 0xED) high = 0x9F;  // surrogates
            if (lead == 0xF0) low = 0x90;
            if (lead == 0xF4) high = 0x8F;  // above U+10FFFF
        }
        if (i >= text.size() || byte(i) < low || byte(i) > high) return {replacement_character, i};
        value = (value << 6) | (byte(i) & 0x3FU);
    }
    return {value, length};
}

constexpr void append_utf8(char32_t c, std::string& out) {
    const auto put = [&](char32_t value) { out += static_cast<char>(static_cast<unsigned char>(value)); };
    if (c < 0x80) {
        put(c);
    } else if (c < 0x800) {
        put(0xC0 | (c >> 6));
        put(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        put(0xE0 | (c >> 12));
        put(0x80 | ((c >> 6) & 0x3F));
        put(0x80 | (c & 0x3F));
    } else {
        put(0xF0 | (c >> 18));
        put(0x80 | ((c >> 12) & 0x3F));
        put(0x80 | ((c >> 6) & 0x3F));
        put(0x80 | (c & 0x3F));
    }
}

/// Decodes UTF-8 as Python's bytes.decode("utf-8", errors="replace") does.
inline std::u32string decode_utf8(std::string_view text) {
    std::u32string out;
    out.reserve(text.size());
    while (!text.empty()) {
        const CodePoint c = front_code_point(text);
        out += c.value;
        text.remove_prefix(c.bytes);
    }
    return out;
}

inline std::string encode_utf8(std::u32string_view text) {
    std::string out;
    out.reserve(text.size());
    for (const char32_t c : text) append_utf8(c, out);
    return out;
}

/// Unicode's White_Space property: what \s means in regular expressions.
constexpr bool is_white_space(char32_t c) {
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/// What Python's str.split() and str.strip() call white space: White_Space and the four information separators.
constexpr bool is_python_space(char32_t c) {
    return is_white_space(c) || (c >= 0x1C && c <= 0x1F);
}

/// Which Unicode a program was built with. Letters, numbers and case pairs that came after utf8proc 2.8 (Unicode 15.0)
/// stand in tables below, so that the answer does not depend on the utf8proc that is installed.
enum class UnicodeEdition {
    v16,  ///< Oniguruma inside the tokenizers package (0.22, 0.23)
    v18,  ///< the regex package of 2026
};

enum class CharClass : std::uint8_t { letter, number, space, other };

struct CodeRange {
    char32_t first;
    char32_t last;
};

/// Letters of Unicode 15.1 and 16.0.
inline constexpr CodeRange letters_16[] = {
    {0x1c89, 0x1c8a},   {0xa7cb, 0xa7cd},   {0xa7da, 0xa7dc},   {0x105c0, 0x105f3}, {0x10d4a, 0x10d65},
    {0x10d6f, 0x10d85}, {0x10ec2, 0x10ec4}, {0x11380, 0x11389}, {0x1138b, 0x1138b}, {0x1138e, 0x1138e},
    {0x11390, 0x113b5}, {0x113b7, 0x113b7}, {0x113d1, 0x113d1}, {0x113d3, 0x113d3}, {0x11bc0, 0x11be0},
    {0x13460, 0x143fa}, {0x16100, 0x1611d}, {0x16d40, 0x16d6c}, {0x18cff, 0x18cff}, {0x1e5d0, 0x1e5ed},
    {0x1e5f0, 0x1e5f0}, {0x2ebf0, 0x2ee5d}};

/// Numbers of Unicode 15.1 and 16.0.
inline constexpr CodeRange numbers_16[] = {{0x10d40, 0x10d49}, {0x116d0, 0x116e3}, {0x11bf0, 0x11bf9},
                                           {0x16130, 0x16139}, {0x16d70, 0x16d79}, {0x1ccf0, 0x1ccf9},
                                           {0x1e5f1, 0x1e5fa}};

/// Letters of Unicode 17 and 18.
inline constexpr CodeRange letters_18[] = {
    {0x558, 0x558},     {0x58b, 0x58c},     {0x88f, 0x88f},     {0xc5c, 0xc5c},     {0xcdc, 0xcdc},
    {0x208f, 0x208f},   {0x209d, 0x209f},   {0xa7ce, 0xa7cf},   {0xa7d2, 0xa7d2},   {0xa7d4, 0xa7d4},
    {0xa7dd, 0xa7dd},   {0xa7e2, 0xa7e2},   {0xa7f1, 0xa7f1},   {0xab6c, 0xab6d},   {0x107bb, 0x107bf},
    {0x10940, 0x10959}, {0x10ec5, 0x10ec7}, {0x10ed9, 0x10eee}, {0x11b0a, 0x11b0a}, {0x11db0, 0x11ddb},
    {0x11df1, 0x11df1}, {0x16ea0, 0x16eb8}, {0x16ebb, 0x16ed3}, {0x16ff2, 0x16ff3}, {0x187f8, 0x187ff},
    {0x18cd6, 0x18cda}, {0x18d09, 0x18d20}, {0x18d80, 0x18df2}, {0x18e00, 0x19191}, {0x191a0, 0x191d2},
    {0x1b123, 0x1b128}, {0x1b168, 0x1b168}, {0x1d6a6, 0x1d6a6}, {0x1df1f, 0x1df24}, {0x1df2b, 0x1df81},
    {0x1df90, 0x1df96}, {0x1dfcd, 0x1dfff}, {0x1e6c0, 0x1e6de}, {0x1e6e0, 0x1e6e2}, {0x1e6e4, 0x1e6e5},
    {0x1e6e7, 0x1e6ed}, {0x1e6f0, 0x1e6f4}, {0x1e6fe, 0x1e6ff}, {0x2b73a, 0x2b73f}, {0x2b81e, 0x2b81e},
    {0x2cea2, 0x2cead}, {0x323b0, 0x33479}, {0x3d000, 0x3fc3f}};

/// Numbers of Unicode 17 and 18.
inline constexpr CodeRange numbers_18[] = {
    {0x11de0, 0x11de9}, {0x1246f, 0x1246f}, {0x12475, 0x1247f}, {0x12550, 0x12686}, {0x16ff4, 0x16ff6}};

template <std::size_t N>
constexpr bool in_ranges(const CodeRange (&ranges)[N], char32_t c) {
    const auto* after = std::upper_bound(std::begin(ranges), std::end(ranges), c,
                                         [](char32_t value, const CodeRange& range) { return value < range.first; });
    return after != std::begin(ranges) && c <= (after - 1)->last;
}

inline utf8proc_category_t category(char32_t c) {
    return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

/// \p{L}, \p{N}, \s or none of them.
inline CharClass char_class(char32_t c, UnicodeEdition edition) {
    if (c < 0x80) {
        if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') return CharClass::letter;
        if (c >= '0' && c <= '9') return CharClass::number;
        return is_white_space(c) ? CharClass::space : CharClass::other;
    }
    if (is_white_space(c)) return CharClass::space;
    const bool recent = edition == UnicodeEdition::v18;
    if (in_ranges(letters_16, c)) return CharClass::letter;
    if (in_ranges(numbers_16, c)) return CharClass::number;
    if (in_ranges(letters_18, c)) return recent ? CharClass::letter : CharClass::other;
    if (in_ranges(numbers_18, c)) return recent ? CharClass::number : CharClass::other;
    const utf8proc_category_t kind = category(c);
    if (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO) return CharClass::letter;
    if (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO) return CharClass::number;
    return CharClass::other;
}

struct CasePairs {
    char32_t first;
    char32_t last;
    char32_t lower;  ///< of `first`; the others follow in order
};

/// Case pairs of Unicode 16 and 17.
inline constexpr CasePairs case_pairs_17[] = {
    {0x1c89, 0x1c89, 0x1c8a},    {0xa7cb, 0xa7cb, 0x264},    {0xa7cc, 0xa7cc, 0xa7cd}, {0xa7ce, 0xa7ce, 0xa7cf},
    {0xa7d2, 0xa7d2, 0xa7d3},    {0xa7d4, 0xa7d4, 0xa7d5},   {0xa7da, 0xa7da, 0xa7db}, {0xa7dc, 0xa7dc, 0x19b},
    {0x10d50, 0x10d65, 0x10d70}, {0x16ea0, 0x16eb8, 0x16ebb}};

/// The lower-case form of one code point; U+0130, the only one with two, gives "i" and is the caller's business.
/// Python up to 3.13 does not know the case pairs of Unicode 16, the tokenizers package does.
inline char32_t lower(char32_t c, bool with_pairs_17) {
    if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 0x20 : c;
    if (c >= 0x1c89) {
        for (const CasePairs& pairs : case_pairs_17) {
            if (c >= pairs.first && c <= pairs.last) return with_pairs_17 ? pairs.lower + (c - pairs.first) : c;
        }
    }
    return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

/// Unicode's Case_Ignorable property.
inline bool is_case_ignorable(char32_t c) {
    static constexpr std::array<char32_t, 17> marks_inside_words = {0x27,   0x2E,   0x3A,   0xB7,   0x387,  0x55F,
                                                                    0x5F4,  0x2018, 0x2019, 0x2024, 0x2027, 0xFE13,
                                                                    0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A};
    if (std::find(marks_inside_words.begin(), marks_inside_words.end(), c) != marks_inside_words.end()) return true;
    const utf8proc_category_t kind = category(c);
    return kind == UTF8PROC_CATEGORY_MN || kind == UTF8PROC_CATEGORY_ME || kind == UTF8PROC_CATEGORY_CF ||
           kind == UTF8PROC_CATEGORY_LM || kind == UTF8PROC_CATEGORY_SK;
}

/// Unicode's Cased property, of code points that are not case-ignorable.
inline bool is_cased(char32_t c) {
    static constexpr CodeRange others[] = {{0xAA, 0xAA},       {0xBA, 0xBA},       {0x2160, 0x217F},  {0x24B6, 0x24E9},
                                           {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
    const utf8proc_category_t kind = category(c);
    return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LL || kind == UTF8PROC_CATEGORY_LT ||
           in_ranges(others, c);
}

inline bool is_decimal_digit(char32_t c) {
    return c < 0x80 ? c >= '0' && c <= '9' : category(c) == UTF8PROC_CATEGORY_ND;
}

enum class NormalForm {
    nfc,
    nfkc,
    nfc_unicode_9,  ///< NFC as the tokenizers package knows it
};

/// Where NFC by Unicode 9 starts anew: marks that it does not know (it takes them for letters without marks), and
/// U+11930, whose one composition is younger.
inline constexpr CodeRange starters_of_unicode_9[] = {
    {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},     {0xc3c, 0xc3c},
    {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x1715, 0x1715},   {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},
    {0xa82c, 0xa82c},   {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50},
    {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e}, {0x11839, 0x1183a},
    {0x11930, 0x11930}, {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
    {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97},
    {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae},
    {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}};

/// Normalises one piece of text after another: decomposes, orders marks, composes. The marks are ordered here because
/// utf8proc_decompose takes quadratic time on a long run of them.
class Normalizer {
public:
    explicit Normalizer(NormalForm form)
        : form_(form),
          options_(static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE |
                                                  (form == NormalForm::nfkc ? UTF8PROC_COMPAT : 0))) {}

    std::u32string operator()(std::u32string_view text) {
        constexpr char32_t composed_after_unicode_9 = 0x11938;
        out_.reserve(text.size());
        for (const char32_t c : text) {
            if (form_ == NormalForm::nfc_unicode_9) {
                if (in_ranges(starters_of_unicode_9, c)) {
                    compose();
                    codes_.push_back(static_cast<utf8proc_int32_t>(c));
                    continue;
                }
                if (c == composed_after_unicode_9) {
                    place(static_cast<utf8proc_int32_t>(c));
                    continue;
                }
            }
            std::array<utf8proc_int32_t, 32> parts{};
            int boundary = 0;
            const utf8proc_ssize_t count =
                utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts.data(),
                                        static_cast<utf8proc_ssize_t>(parts.size()), options_, &boundary);
            for (utf8proc_ssize_t i = 0; i < count; ++i) place(parts[static_cast<std::size_t>(i)]);
        }
        compose();
        return std::move(out_);
    }

private:
    struct Mark {
        utf8proc_int32_t code;
        utf8proc_propval_t order;
        std::size_t position;
    };

    void place(utf8proc_int32_t code) {
        const utf8proc_propval_t order = utf8proc_get_property(code)->combining_class;
        if (order != 0) {
            marks_.push_back({code, order, marks_.size()});
            return;
        }
        place_marks();
        codes_.push_back(code);
    }

    void place_marks() {
        // By position too: std::stable_sort of g++ 12 warns under clang.
        std::sort(marks_.begin(), marks_.end(), [](const Mark& a, const Mark& b) {
            return std::pair(a.order, a.position) < std::pair(b.order, b.position);
        });
        for (const Mark& mark : marks_) codes_.push_back(mark.code);
        marks_.clear();
    }

    void compose() {
        place_marks();
        const utf8proc_ssize_t length =
            utf8proc_normalize_utf32(codes_.data(), static_cast<utf8proc_ssize_t>(codes_.size()), options_);
        out_.append(codes_.begin(), codes_.begin() + std::max<utf8proc_ssize_t>(length, 0));
        codes_.clear();
    }

    NormalForm form_;
    utf8proc_option_t options_;
    std::vector<utf8proc_int32_t> codes_;
    std::vector<Mark> marks_;
    std::u32string out_;
};

inline std::u32string normalize(std::u32string text, NormalForm form) {
    // Nothing below U+0300 changes under NFC on its own.
    const bool plain = std::all_of(text.begin(), text.end(), [](char32_t c) { return c < 0x300; });
    return plain && form != NormalForm::nfkc ? text : Normalizer(form)(text);
}

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

// ---- tandem/data/byte_alphabet.hpp ----

// GPT-2's printable alphabet for bytes, in which vocabularies of byte-level BPE are written.

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI::detail {

inline constexpr std::string_view word_end = "</w>";

/// GPT-2's printable alphabet for bytes: the visible Latin-1 characters stand for themselves and come first, the other
/// bytes are U+0100 onwards. Token ids 0 to 255 follow this order.
struct ByteAlphabet {
    std::array<unsigned char, 256> byte_of_id{};
    std::array<char32_t, 256> symbol_of_byte{};

    constexpr ByteAlphabet() {
        const auto visible = [](unsigned b) { return (b >= '!' && b <= '~') || (b >= 0xA1 && b != 0xAD); };
        std::size_t id = 0;
        for (unsigned b = 0; b < 256; ++b) {
            if (!visible(b)) continue;
            byte_of_id[id++] = static_cast<unsigned char>(b);
            symbol_of_byte[b] = b;
        }
        for (unsigned b = 0, symbol = 256; b < 256; ++b) {
            if (visible(b)) continue;
            byte_of_id[id++] = static_cast<unsigned char>(b);
            symbol_of_byte[b] = symbol++;
        }
    }

    /// The bytes that a text in the alphabet stands for; nothing where it holds another character.
    std::optional<std::string> bytes(std::string_view text) const {
        std::string out;
        while (!text.empty()) {
            const CodePoint c = front_code_point(text);
            const auto* found = std::find(symbol_of_byte.begin(), symbol_of_byte.end(), c.value);
            if (found == symbol_of_byte.end()) return std::nullopt;
            out += static_cast<char>(static_cast<unsigned char>(found - symbol_of_byte.begin()));
            text.remove_prefix(c.bytes);
        }
        return out;
    }

    std::string symbols(std::string_view bytes) const {
        std::string out;
        for (const char b : bytes) append_utf8(symbol_of_byte[static_cast<unsigned char>(b)], out);
        return out;
    }
};

inline constexpr ByteAlphabet byte_alphabet;

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

// ---- tandem/data/html_entities.hpp ----

// HTML character references: Python's html.unescape, and the cautious variant of ftfy.

namespace tandem::inline TANDEM_ABI::detail {

/// The named references of HTML 5, written by tests/data/make_html_entities.py, which explains the notation. Not a
/// view: its length would be counted in every compilation.
// clang-format off
inline constexpr char html_entity_table[] =
    // table begins
    "AElig.c6 AMP.26 Aacute.c1 Abreve:102 Acirc.c2 Acy:410 Afr:1d504 Agrave.c0 Alpha:391 Amacr:100 And:2a53 "
    "Aogon:104 Aopf:1d538 ApplyFunction:2061 Aring.c5 Ascr:1d49c Assign:2254 Atilde.c3 Auml.c4 Backslash:2216 "
    "Barv:2ae7 Barwed:2306 Bcy:411 Because:2235 Bernoullis:212c Beta:392 Bfr:1d505 Bopf:1d539 Breve:2d8 Bscr:212c "
    "Bumpeq:224e CHcy:427 COPY.a9 Cacute:106 Cap:22d2 CapitalDifferentialD:2145 Cayleys:212d Ccaron:10c Ccedil.c7 "
    "Ccirc:108 Cconint:2230 Cdot:10a Cedilla:b8 CenterDot:b7 Cfr:212d Chi:3a7 CircleDot:2299 CircleMinus:2296 "
    "CirclePlus:2295 CircleTimes:2297 ClockwiseContourIntegral:2232 CloseCurlyDoubleQuote:201d "
    "CloseCurlyQuote:2019 Colon:2237 Colone:2a74 Congruent:2261 Conint:222f ContourIntegral:222e Copf:2102 "
    "Coproduct:2210 CounterClockwiseContourIntegral:2233 Cross:2a2f Cscr:1d49e Cup:22d3 CupCap:224d DD:2145 "
    "DDotrahd:2911 DJcy:402 DScy:405 DZcy:40f Dagger:2021 Darr:21a1 Dashv:2ae4 Dcaron:10e Dcy:414 Del:2207 "
    "Delta:394 Dfr:1d507 DiacriticalAcute:b4 DiacriticalDot:2d9 DiacriticalDoubleAcute:2dd DiacriticalGrave:60 "
    "DiacriticalTilde:2dc Diamond:22c4 DifferentialD:2146 Dopf:1d53b Dot:a8 DotDot:20dc DotEqual:2250 "
    "DoubleContourIntegral:222f DoubleDot:a8 DoubleDownArrow:21d3 DoubleLeftArrow:21d0 DoubleLeftRightArrow:21d4 "
    "DoubleLeftTee:2ae4 DoubleLongLeftArrow:27f8 DoubleLongLeftRightArrow:27fa DoubleLongRightArrow:27f9 "
    "DoubleRightArrow:21d2 DoubleRightTee:22a8 DoubleUpArrow:21d1 DoubleUpDownArrow:21d5 DoubleVerticalBar:2225 "
    "DownArrow:2193 DownArrowBar:2913 DownArrowUpArrow:21f5 DownBreve:311 DownLeftRightVector:2950 "
    "DownLeftTeeVector:295e DownLeftVector:21bd DownLeftVectorBar:2956 DownRightTeeVector:295f "
    "DownRightVector:21c1 DownRightVectorBar:2957 DownTee:22a4 DownTeeArrow:21a7 Downarrow:21d3 Dscr:1d49f "
    "Dstrok:110 ENG:14a ETH.d0 Eacute.c9 Ecaron:11a Ecirc.ca Ecy:42d Edot:116 Efr:1d508 Egrave.c8 Element:2208 "
    "Emacr:112 EmptySmallSquare:25fb EmptyVerySmallSquare:25ab Eogon:118 Eopf:1d53c Epsilon:395 Equal:2a75 "
    "EqualTilde:2242 Equilibrium:21cc Escr:2130 Esim:2a73 Eta:397 Euml.cb Exists:2203 ExponentialE:2147 Fcy:424 "
    "Ffr:1d509 FilledSmallSquare:25fc FilledVerySmallSquare:25aa Fopf:1d53d ForAll:2200 Fouriertrf:2131 Fscr:2131 "
    "GJcy:403 GT.3e Gamma:393 Gammad:3dc Gbreve:11e Gcedil:122 Gcirc:11c Gcy:413 Gdot:120 Gfr:1d50a Gg:22d9 "
    "Gopf:1d53e GreaterEqual:2265 GreaterEqualLess:22db GreaterFullEqual:2267 GreaterGreater:2aa2 "
    "GreaterLess:2277 GreaterSlantEqual:2a7e GreaterTilde:2273 Gscr:1d4a2 Gt:226b HARDcy:42a Hacek:2c7 Hat:5e "
    "Hcirc:124 Hfr:210c HilbertSpace:210b Hopf:210d HorizontalLine:2500 Hscr:210b Hstrok:126 HumpDownHump:224e "
    "HumpEqual:224f IEcy:415 IJlig:132 IOcy:401 Iacute.cd Icirc.ce Icy:418 Idot:130 Ifr:2111 Igrave.cc Im:2111 "
    "Imacr:12a ImaginaryI:2148 Implies:21d2 Int:222c Integral:222b Intersection:22c2 InvisibleComma:2063 "
    "InvisibleTimes:2062 Iogon:12e Iopf:1d540 Iota:399 Iscr:2110 Itilde:128 Iukcy:406 Iuml.cf Jcirc:134 Jcy:419 "
    "Jfr:1d50d Jopf:1d541 Jscr:1d4a5 Jsercy:408 Jukcy:404 KHcy:425 KJcy:40c Kappa:39a Kcedil:136 Kcy:41a "
    "Kfr:1d50e Kopf:1d542 Kscr:1d4a6 LJcy:409 LT.3c Lacute:139 Lambda:39b Lang:27ea Laplacetrf:2112 Larr:219e "
    "Lcaron:13d Lcedil:13b Lcy:41b LeftAngleBracket:27e8 LeftArrow:2190 LeftArrowBar:21e4 "
    "LeftArrowRightArrow:21c6 LeftCeiling:2308 LeftDoubleBracket:27e6 LeftDownTeeVector:2961 LeftDownVector:21c3 "
    "LeftDownVectorBar:2959 LeftFloor:230a LeftRightArrow:2194 LeftRightVector:294e LeftTee:22a3 "
    "LeftTeeArrow:21a4 LeftTeeVector:295a LeftTriangle:22b2 LeftTriangleBar:29cf LeftTriangleEqual:22b4 "
    "LeftUpDownVector:2951 LeftUpTeeVector:2960 LeftUpVector:21bf LeftUpVectorBar:2958 LeftVector:21bc "
    "LeftVectorBar:2952 Leftarrow:21d0 Leftrightarrow:21d4 LessEqualGreater:22da LessFullEqual:2266 "
    "LessGreater:2276 LessLess:2aa1 LessSlantEqual:2a7d LessTilde:2272 Lfr:1d50f Ll:22d8 Lleftarrow:21da "
    "Lmidot:13f LongLeftArrow:27f5 LongLeftRightArrow:27f7 LongRightArrow:27f6 Longleftarrow:27f8 "
    "Longleftrightarrow:27fa Longrightarrow:27f9 Lopf:1d543 LowerLeftArrow:2199 LowerRightArrow:2198 Lscr:2112 "
    "Lsh:21b0 Lstrok:141 Lt:226a Map:2905 Mcy:41c MediumSpace:205f Mellintrf:2133 Mfr:1d510 MinusPlus:2213 "
    "Mopf:1d544 Mscr:2133 Mu:39c NJcy:40a Nacute:143 Ncaron:147 Ncedil:145 Ncy:41d NegativeMediumSpace:200b "
    "NegativeThickSpace:200b NegativeThinSpace:200b NegativeVeryThinSpace:200b NestedGreaterGreater:226b "
    "NestedLessLess:226a NewLine:a Nfr:1d511 NoBreak:2060 NonBreakingSpace:a0 Nopf:2115 Not:2aec "
    "NotCongruent:2262 NotCupCap:226d NotDoubleVerticalBar:2226 NotElement:2209 NotEqual:2260 "
    "NotEqualTilde:2242+338 NotExists:2204 NotGreater:226f NotGreaterEqual:2271 NotGreaterFullEqual:2267+338 "
    "NotGreaterGreater:226b+338 NotGreaterLess:2279 NotGreaterSlantEqual:2a7e+338 NotGreaterTilde:2275 "
    "NotHumpDownHump:224e+338 NotHumpEqual:224f+338 NotLeftTriangle:22ea NotLeftTriangleBar:29cf+338 "
    "NotLeftTriangleEqual:22ec NotLess:226e NotLessEqual:2270 NotLessGreater:2278 NotLessLess:226a+338 "
    "NotLessSlantEqual:2a7d+338 NotLessTilde:2274 NotNestedGreaterGreater:2aa2+338 NotNestedLessLess:2aa1+338 "
    "NotPrecedes:2280 NotPrecedesEqual:2aaf+338 NotPrecedesSlantEqual:22e0 NotReverseElement:220c "
    "NotRightTriangle:22eb NotRightTriangleBar:29d0+338 NotRightTriangleEqual:22ed NotSquareSubset:228f+338 "
    "NotSquareSubsetEqual:22e2 NotSquareSuperset:2290+338 NotSquareSupersetEqual:22e3 NotSubset:2282+20d2 "
    "NotSubsetEqual:2288 NotSucceeds:2281 NotSucceedsEqual:2ab0+338 NotSucceedsSlantEqual:22e1 "
    "NotSucceedsTilde:227f+338 NotSuperset:2283+20d2 NotSupersetEqual:2289 NotTilde:2241 NotTildeEqual:2244 "
    "NotTildeFullEqual:2247 NotTildeTilde:2249 NotVerticalBar:2224 Nscr:1d4a9 Ntilde.d1 Nu:39d OElig:152 "
    "Oacute.d3 Ocirc.d4 Ocy:41e Odblac:150 Ofr:1d512 Ograve.d2 Omacr:14c Omega:3a9 Omicron:39f Oopf:1d546 "
    "OpenCurlyDoubleQuote:201c OpenCurlyQuote:2018 Or:2a54 Oscr:1d4aa Oslash.d8 Otilde.d5 Otimes:2a37 Ouml.d6 "
    "OverBar:203e OverBrace:23de OverBracket:23b4 OverParenthesis:23dc PartialD:2202 Pcy:41f Pfr:1d513 Phi:3a6 "
    "Pi:3a0 PlusMinus:b1 Poincareplane:210c Popf:2119 Pr:2abb Precedes:227a PrecedesEqual:2aaf "
    "PrecedesSlantEqual:227c PrecedesTilde:227e Prime:2033 Product:220f Proportion:2237 Proportional:221d "
    "Pscr:1d4ab Psi:3a8 QUOT.22 Qfr:1d514 Qopf:211a Qscr:1d4ac RBarr:2910 REG.ae Racute:154 Rang:27eb Rarr:21a0 "
    "Rarrtl:2916 Rcaron:158 Rcedil:156 Rcy:420 Re:211c ReverseElement:220b ReverseEquilibrium:21cb "
    "ReverseUpEquilibrium:296f Rfr:211c Rho:3a1 RightAngleBracket:27e9 RightArrow:2192 RightArrowBar:21e5 "
    "RightArrowLeftArrow:21c4 RightCeiling:2309 RightDoubleBracket:27e7 RightDownTeeVector:295d "
    "RightDownVector:21c2 RightDownVectorBar:2955 RightFloor:230b RightTee:22a2 RightTeeArrow:21a6 "
    "RightTeeVector:295b RightTriangle:22b3 RightTriangleBar:29d0 RightTriangleEqual:22b5 RightUpDownVector:294f "
    "RightUpTeeVector:295c RightUpVector:21be RightUpVectorBar:2954 RightVector:21c0 RightVectorBar:2953 "
    "Rightarrow:21d2 Ropf:211d RoundImplies:2970 Rrightarrow:21db Rscr:211b Rsh:21b1 RuleDelayed:29f4 SHCHcy:429 "
    "SHcy:428 SOFTcy:42c Sacute:15a Sc:2abc Scaron:160 Scedil:15e Scirc:15c Scy:421 Sfr:1d516 ShortDownArrow:2193 "
    "ShortLeftArrow:2190 ShortRightArrow:2192 ShortUpArrow:2191 Sigma:3a3 SmallCircle:2218 Sopf:1d54a Sqrt:221a "
    "Square:25a1 SquareIntersection:2293 SquareSubset:228f SquareSubsetEqual:2291 SquareSuperset:2290 "
    "SquareSupersetEqual:2292 SquareUnion:2294 Sscr:1d4ae Star:22c6 Sub:22d0 Subset:22d0 SubsetEqual:2286 "
    "Succeeds:227b SucceedsEqual:2ab0 SucceedsSlantEqual:227d SucceedsTilde:227f SuchThat:220b Sum:2211 Sup:22d1 "
    "Superset:2283 SupersetEqual:2287 Supset:22d1 THORN.de TRADE:2122 TSHcy:40b TScy:426 Tab:9 Tau:3a4 Tcaron:164 "
    "Tcedil:162 Tcy:422 Tfr:1d517 Therefore:2234 Theta:398 ThickSpace:205f+200a ThinSpace:2009 Tilde:223c "
    "TildeEqual:2243 TildeFullEqual:2245 TildeTilde:2248 Topf:1d54b TripleDot:20db Tscr:1d4af Tstrok:166 "
    "Uacute.da Uarr:219f Uarrocir:2949 Ubrcy:40e Ubreve:16c Ucirc.db Ucy:423 Udblac:170 Ufr:1d518 Ugrave.d9 "
    "Umacr:16a UnderBar:5f UnderBrace:23df UnderBracket:23b5 UnderParenthesis:23dd Union:22c3 UnionPlus:228e "
    "Uogon:172 Uopf:1d54c UpArrow:2191 UpArrowBar:2912 UpArrowDownArrow:21c5 UpDownArrow:2195 UpEquilibrium:296e "
    "UpTee:22a5 UpTeeArrow:21a5 Uparrow:21d1 Updownarrow:21d5 UpperLeftArrow:2196 UpperRightArrow:2197 Upsi:3d2 "
    "Upsilon:3a5 Uring:16e Uscr:1d4b0 Utilde:168 Uuml.dc VDash:22ab Vbar:2aeb Vcy:412 Vdash:22a9 Vdashl:2ae6 "
    "Vee:22c1 Verbar:2016 Vert:2016 VerticalBar:2223 VerticalLine:7c VerticalSeparator:2758 VerticalTilde:2240 "
    "VeryThinSpace:200a Vfr:1d519 Vopf:1d54d Vscr:1d4b1 Vvdash:22aa Wcirc:174 Wedge:22c0 Wfr:1d51a Wopf:1d54e "
    "Wscr:1d4b2 Xfr:1d51b Xi:39e Xopf:1d54f Xscr:1d4b3 YAcy:42f YIcy:407 YUcy:42e Yacute.dd Ycirc:176 Ycy:42b "
    "Yfr:1d51c Yopf:1d550 Yscr:1d4b4 Yuml:178 ZHcy:416 Zacute:179 Zcaron:17d Zcy:417 Zdot:17b ZeroWidthSpace:200b "
    "Zeta:396 Zfr:2128 Zopf:2124 Zscr:1d4b5 aacute.e1^c1 abreve:103^102 ac:223e^ acE:223e+333 acd:223f^ "
    "acirc.e2^c2 acute.b4^ acy:430^410 aelig.e6^c6 af:2061^ afr:1d51e^ agrave.e0^c0 alefsym:2135^ aleph:2135^ "
    "alpha:3b1^391 amacr:101^100 amalg:2a3f^ amp.26 and:2227^ andand:2a55^ andd:2a5c^ andslope:2a58^ andv:2a5a^ "
    "ang:2220^ ange:29a4^ angle:2220^ angmsd:2221^ angmsdaa:29a8^ angmsdab:29a9^ angmsdac:29aa^ angmsdad:29ab^ "
    "angmsdae:29ac^ angmsdaf:29ad^ angmsdag:29ae^ angmsdah:29af^ angrt:221f^ angrtvb:22be^ angrtvbd:299d^ "
    "angsph:2222^ angst:c5^ angzarr:237c^ aogon:105^104 aopf:1d552^ ap:2248^ apE:2a70 apacir:2a6f^ ape:224a^ "
    "apid:224b^ apos:27^ approx:2248^ approxeq:224a^ aring.e5^c5 ascr:1d4b6^ ast:2a^ asymp:2248^ asympeq:224d^ "
    "atilde.e3^c3 auml.e4^c4 awconint:2233^ awint:2a11^ bNot:2aed backcong:224c^ backepsilon:3f6^ backprime:2035^ "
    "backsim:223d^ backsimeq:22cd^ barvee:22bd^ barwed:2305^ barwedge:2305^ bbrk:23b5^ bbrktbrk:23b6^ bcong:224c^ "
    "bcy:431^411 bdquo:201e^ becaus:2235^ because:2235^ bemptyv:29b0^ bepsi:3f6^ bernou:212c^ beta:3b2^392 "
    "beth:2136^ between:226c^ bfr:1d51f^ bigcap:22c2^ bigcirc:25ef^ bigcup:22c3^ bigodot:2a00^ bigoplus:2a01^ "
    "bigotimes:2a02^ bigsqcup:2a06^ bigstar:2605^ bigtriangledown:25bd^ bigtriangleup:25b3^ biguplus:2a04^ "
    "bigvee:22c1^ bigwedge:22c0^ bkarow:290d^ blacklozenge:29eb^ blacksquare:25aa^ blacktriangle:25b4^ "
    "blacktriangledown:25be^ blacktriangleleft:25c2^ blacktriangleright:25b8^ blank:2423^ blk12:2592^ blk14:2591^ "
    "blk34:2593^ block:2588^ bne:3d+20e5^ bnequiv:2261+20e5^ bnot:2310^ bopf:1d553^ bot:22a5^ bottom:22a5^ "
    "bowtie:22c8^ boxDL:2557 boxDR:2554 boxDl:2556 boxDr:2553 boxH:2550 boxHD:2566 boxHU:2569 boxHd:2564 "
    "boxHu:2567 boxUL:255d boxUR:255a boxUl:255c boxUr:2559 boxV:2551 boxVH:256c boxVL:2563 boxVR:2560 boxVh:256b "
    "boxVl:2562 boxVr:255f boxbox:29c9^ boxdL:2555 boxdR:2552 boxdl:2510^ boxdr:250c^ boxh:2500^ boxhD:2565 "
    "boxhU:2568 boxhd:252c^ boxhu:2534^ boxminus:229f^ boxplus:229e^ boxtimes:22a0^ boxuL:255b boxuR:2558 "
    "boxul:2518^ boxur:2514^ boxv:2502^ boxvH:256a boxvL:2561 boxvR:255e boxvh:253c^ boxvl:2524^ boxvr:251c^ "
    "bprime:2035^ breve:2d8^ brvbar.a6^ bscr:1d4b7^ bsemi:204f^ bsim:223d^ bsime:22cd^ bsol:5c^ bsolb:29c5^ "
    "bsolhsub:27c8^ bull:2022^ bullet:2022^ bump:224e^ bumpE:2aae bumpe:224f^ bumpeq:224f^ cacute:107^106 "
    "cap:2229^ capand:2a44^ capbrcup:2a49^ capcap:2a4b^ capcup:2a47^ capdot:2a40^ caps:2229+fe00^ caret:2041^ "
    "caron:2c7^ ccaps:2a4d^ ccaron:10d^10c ccedil.e7^c7 ccirc:109^108 ccups:2a4c^ ccupssm:2a50^ cdot:10b^10a "
    "cedil.b8^ cemptyv:29b2^ cent.a2^ centerdot:b7^ cfr:1d520^ chcy:447^427 check:2713^ checkmark:2713^ "
    "chi:3c7^3a7 cir:25cb^ cirE:29c3 circ:2c6^ circeq:2257^ circlearrowleft:21ba^ circlearrowright:21bb^ "
    "circledR:ae circledS:24c8 circledast:229b^ circledcirc:229a^ circleddash:229d^ cire:2257^ cirfnint:2a10^ "
    "cirmid:2aef^ cirscir:29c2^ clubs:2663^ clubsuit:2663^ colon:3a^ colone:2254^ coloneq:2254^ comma:2c^ "
    "commat:40^ comp:2201^ compfn:2218^ complement:2201^ complexes:2102^ cong:2245^ congdot:2a6d^ conint:222e^ "
    "copf:1d554^ coprod:2210^ copy.a9 copysr:2117 crarr:21b5^ cross:2717^ cscr:1d4b8^ csub:2acf^ csube:2ad1^ "
    "csup:2ad0^ csupe:2ad2^ ctdot:22ef^ cudarrl:2938^ cudarrr:2935^ cuepr:22de^ cuesc:22df^ cularr:21b6^ "
    "cularrp:293d^ cup:222a^ cupbrcap:2a48^ cupcap:2a46^ cupcup:2a4a^ cupdot:228d^ cupor:2a45^ cups:222a+fe00^ "
    "curarr:21b7^ curarrm:293c^ curlyeqprec:22de^ curlyeqsucc:22df^ curlyvee:22ce^ curlywedge:22cf^ curren.a4^ "
    "curvearrowleft:21b6^ curvearrowright:21b7^ cuvee:22ce^ cuwed:22cf^ cwconint:2232^ cwint:2231^ cylcty:232d^ "
    "dArr:21d3 dHar:2965 dagger:2020^ daleth:2138^ darr:2193^ dash:2010^ dashv:22a3^ dbkarow:290f^ dblac:2dd^ "
    "dcaron:10f^10e dcy:434^414 dd:2146 ddagger:2021^ ddarr:21ca^ ddotseq:2a77^ deg.b0^ delta:3b4^394 "
    "demptyv:29b1^ dfisht:297f^ dfr:1d521^ dharl:21c3^ dharr:21c2^ diam:22c4^ diamond:22c4^ diamondsuit:2666^ "
    "diams:2666^ die:a8^ digamma:3dd^3dc disin:22f2^ div:f7^ divide.f7^ divideontimes:22c7^ divonx:22c7^ "
    "djcy:452^402 dlcorn:231e^ dlcrop:230d^ dollar:24^ dopf:1d555^ dot:2d9^ doteq:2250^ doteqdot:2251^ "
    "dotminus:2238^ dotplus:2214^ dotsquare:22a1^ doublebarwedge:2306^ downarrow:2193^ downdownarrows:21ca^ "
    "downharpoonleft:21c3^ downharpoonright:21c2^ drbkarow:2910^ drcorn:231f^ drcrop:230c^ dscr:1d4b9^ "
    "dscy:455^405 dsol:29f6^ dstrok:111^110 dtdot:22f1^ dtri:25bf^ dtrif:25be^ duarr:21f5^ duhar:296f^ "
    "dwangle:29a6^ dzcy:45f^40f dzigrarr:27ff^ eDDot:2a77 eDot:2251 eacute.e9^c9 easter:2a6e^ ecaron:11b^11a "
    "ecir:2256^ ecirc.ea^ca ecolon:2255^ ecy:44d^42d edot:117^116 ee:2147^ efDot:2252 efr:1d522^ eg:2a9a^ "
    "egrave.e8^c8 egs:2a96^ egsdot:2a98^ el:2a99^ elinters:23e7^ ell:2113^ els:2a95^ elsdot:2a97^ emacr:113^112 "
    "empty:2205^ emptyset:2205^ emptyv:2205^ emsp:2003^ emsp13:2004^ emsp14:2005^ eng:14b ensp:2002^ "
    "eogon:119^118 eopf:1d556^ epar:22d5^ eparsl:29e3^ eplus:2a71^ epsi:3b5^395 epsilon:3b5^395 epsiv:3f5^395 "
    "eqcirc:2256^ eqcolon:2255^ eqsim:2242^ eqslantgtr:2a96^ eqslantless:2a95^ equals:3d^ equest:225f^ "
    "equiv:2261^ equivDD:2a78 eqvparsl:29e5^ erDot:2253 erarr:2971^ escr:212f^ esdot:2250^ esim:2242^ eta:3b7^397 "
    "eth.f0 euml.eb^cb euro:20ac^ excl:21^ exist:2203^ expectation:2130^ exponentiale:2147^ fallingdotseq:2252^ "
    "fcy:444^424 female:2640^ ffilig:fb03^46+46+49 fflig:fb00^46+46 ffllig:fb04^46+46+4c ffr:1d523^ "
    "filig:fb01^46+49 fjlig:66+6a^46+4a flat:266d^ fllig:fb02^46+4c fltns:25b1^ fnof:192^191 fopf:1d557^ "
    "forall:2200^ fork:22d4^ forkv:2ad9^ fpartint:2a0d^ frac12.bd^ frac13:2153^ frac14.bc^ frac15:2155^ "
    "frac16:2159^ frac18:215b^ frac23:2154^ frac25:2156^ frac34.be^ frac35:2157^ frac38:215c^ frac45:2158^ "
    "frac56:215a^ frac58:215d^ frac78:215e^ frasl:2044^ frown:2322^ fscr:1d4bb^ gE:2267 gEl:2a8c gacute:1f5^1f4 "
    "gamma:3b3^393 gammad:3dd^3dc gap:2a86^ gbreve:11f^11e gcirc:11d^11c gcy:433^413 gdot:121^120 ge:2265^ "
    "gel:22db^ geq:2265^ geqq:2267^ geqslant:2a7e^ ges:2a7e^ gescc:2aa9^ gesdot:2a80^ gesdoto:2a82^ "
    "gesdotol:2a84^ gesl:22db+fe00^ gesles:2a94^ gfr:1d524^ gg:226b^ ggg:22d9^ gimel:2137^ gjcy:453^403 gl:2277^ "
    "glE:2a92 gla:2aa5^ glj:2aa4^ gnE:2269 gnap:2a8a^ gnapprox:2a8a^ gne:2a88^ gneq:2a88^ gneqq:2269^ gnsim:22e7^ "
    "gopf:1d558^ grave:60^ gscr:210a^ gsim:2273^ gsime:2a8e^ gsiml:2a90^ gt.3e gtcc:2aa7 gtcir:2a7a gtdot:22d7 "
    "gtlPar:2995 gtquest:2a7c gtrapprox:2a86 gtrarr:2978 gtrdot:22d7 gtreqless:22db gtreqqless:2a8c gtrless:2277 "
    "gtrsim:2273 gvertneqq:2269+fe00^ gvnE:2269+fe00 hArr:21d4 hairsp:200a^ half:bd^ hamilt:210b^ hardcy:44a^42a "
    "harr:2194^ harrcir:2948^ harrw:21ad^ hbar:210f^ hcirc:125^124 hearts:2665^ heartsuit:2665^ hellip:2026^ "
    "hercon:22b9^ hfr:1d525^ hksearow:2925^ hkswarow:2926^ hoarr:21ff^ homtht:223b^ hookleftarrow:21a9^ "
    "hookrightarrow:21aa^ hopf:1d559^ horbar:2015^ hscr:1d4bd^ hslash:210f^ hstrok:127^126 hybull:2043^ "
    "hyphen:2010^ iacute.ed^cd ic:2063^ icirc.ee^ce icy:438^418 iecy:435^415 iexcl.a1^ iff:21d4^ ifr:1d526^ "
    "igrave.ec^cc ii:2148^ iiiint:2a0c^ iiint:222d^ iinfin:29dc^ iiota:2129^ ijlig:133^132 imacr:12b^12a "
    "image:2111^ imagline:2110^ imagpart:2111^ imath:131^49 imof:22b7^ imped:1b5^ in:2208^ incare:2105^ "
    "infin:221e^ infintie:29dd^ inodot:131^49 int:222b^ intcal:22ba^ integers:2124^ intercal:22ba^ intlarhk:2a17^ "
    "intprod:2a3c^ iocy:451^401 iogon:12f^12e iopf:1d55a^ iota:3b9^399 iprod:2a3c^ iquest.bf^ iscr:1d4be^ "
    "isin:2208^ isinE:22f9 isindot:22f5^ isins:22f4^ isinsv:22f3^ isinv:2208^ it:2062^ itilde:129^128 "
    "iukcy:456^406 iuml.ef^cf jcirc:135^134 jcy:439^419 jfr:1d527^ jmath:237^ jopf:1d55b^ jscr:1d4bf^ "
    "jsercy:458^408 jukcy:454^404 kappa:3ba^39a kappav:3f0^39a kcedil:137^136 kcy:43a^41a kfr:1d528^ kgreen:138^ "
    "khcy:445^425 kjcy:45c^40c kopf:1d55c^ kscr:1d4c0^ lAarr:21da lArr:21d0 lAtail:291b lBarr:290e lE:2266 "
    "lEg:2a8b lHar:2962 lacute:13a^139 laemptyv:29b4^ lagran:2112^ lambda:3bb^39b lang:27e8^ langd:2991^ "
    "langle:27e8^ lap:2a85^ laquo.ab^ larr:2190^ larrb:21e4^ larrbfs:291f^ larrfs:291d^ larrhk:21a9^ larrlp:21ab^ "
    "larrpl:2939^ larrsim:2973^ larrtl:21a2^ lat:2aab^ latail:2919^ late:2aad^ lates:2aad+fe00^ lbarr:290c^ "
    "lbbrk:2772^ lbrace:7b^ lbrack:5b^ lbrke:298b^ lbrksld:298f^ lbrkslu:298d^ lcaron:13e^13d lcedil:13c^13b "
    "lceil:2308^ lcub:7b^ lcy:43b^41b ldca:2936^ ldquo:201c^ ldquor:201e^ ldrdhar:2967^ ldrushar:294b^ ldsh:21b2^ "
    "le:2264^ leftarrow:2190^ leftarrowtail:21a2^ leftharpoondown:21bd^ leftharpoonup:21bc^ leftleftarrows:21c7^ "
    "leftrightarrow:2194^ leftrightarrows:21c6^ leftrightharpoons:21cb^ leftrightsquigarrow:21ad^ "
    "leftthreetimes:22cb^ leg:22da^ leq:2264^ leqq:2266^ leqslant:2a7d^ les:2a7d^ lescc:2aa8^ lesdot:2a7f^ "
    "lesdoto:2a81^ lesdotor:2a83^ lesg:22da+fe00^ lesges:2a93^ lessapprox:2a85^ lessdot:22d6^ lesseqgtr:22da^ "
    "lesseqqgtr:2a8b^ lessgtr:2276^ lesssim:2272^ lfisht:297c^ lfloor:230a^ lfr:1d529^ lg:2276^ lgE:2a91 "
    "lhard:21bd^ lharu:21bc^ lharul:296a^ lhblk:2584^ ljcy:459^409 ll:226a^ llarr:21c7^ llcorner:231e^ "
    "llhard:296b^ lltri:25fa^ lmidot:140^13f lmoust:23b0^ lmoustache:23b0^ lnE:2268 lnap:2a89^ lnapprox:2a89^ "
    "lne:2a87^ lneq:2a87^ lneqq:2268^ lnsim:22e6^ loang:27ec^ loarr:21fd^ lobrk:27e6^ longleftarrow:27f5^ "
    "longleftrightarrow:27f7^ longmapsto:27fc^ longrightarrow:27f6^ looparrowleft:21ab^ looparrowright:21ac^ "
    "lopar:2985^ lopf:1d55d^ loplus:2a2d^ lotimes:2a34^ lowast:2217^ lowbar:5f^ loz:25ca^ lozenge:25ca^ "
    "lozf:29eb^ lpar:28^ lparlt:2993^ lrarr:21c6^ lrcorner:231f^ lrhar:21cb^ lrhard:296d^ lrm:200e^ lrtri:22bf^ "
    "lsaquo:2039^ lscr:1d4c1^ lsh:21b0^ lsim:2272^ lsime:2a8d^ lsimg:2a8f^ lsqb:5b^ lsquo:2018^ lsquor:201a^ "
    "lstrok:142^141 lt.3c ltcc:2aa6 ltcir:2a79 ltdot:22d6 lthree:22cb ltimes:22c9 ltlarr:2976 ltquest:2a7b "
    "ltrPar:2996 ltri:25c3 ltrie:22b4 ltrif:25c2 lurdshar:294a^ luruhar:2966^ lvertneqq:2268+fe00^ lvnE:2268+fe00 "
    "mDDot:223a macr.af^ male:2642^ malt:2720^ maltese:2720^ map:21a6^ mapsto:21a6^ mapstodown:21a7^ "
    "mapstoleft:21a4^ mapstoup:21a5^ marker:25ae^ mcomma:2a29^ mcy:43c^41c mdash:2014^ measuredangle:2221^ "
    "mfr:1d52a^ mho:2127^ micro.b5^39c mid:2223^ midast:2a^ midcir:2af0^ middot.b7^ minus:2212^ minusb:229f^ "
    "minusd:2238^ minusdu:2a2a^ mlcp:2adb^ mldr:2026^ mnplus:2213^ models:22a7^ mopf:1d55e^ mp:2213^ mscr:1d4c2^ "
    "mstpos:223e^ mu:3bc^39c multimap:22b8^ mumap:22b8^ nGg:22d9+338 nGt:226b+20d2 nGtv:226b+338 nLeftarrow:21cd "
    "nLeftrightarrow:21ce nLl:22d8+338 nLt:226a+20d2 nLtv:226a+338 nRightarrow:21cf nVDash:22af nVdash:22ae "
    "nabla:2207^ nacute:144^143 nang:2220+20d2^ nap:2249^ napE:2a70+338 napid:224b+338^ napos:149^2bc+4e "
    "napprox:2249^ natur:266e^ natural:266e^ naturals:2115^ nbsp.a0^ nbump:224e+338^ nbumpe:224f+338^ ncap:2a43^ "
    "ncaron:148^147 ncedil:146^145 ncong:2247^ ncongdot:2a6d+338^ ncup:2a42^ ncy:43d^41d ndash:2013^ ne:2260^ "
    "neArr:21d7 nearhk:2924^ nearr:2197^ nearrow:2197^ nedot:2250+338^ nequiv:2262^ nesear:2928^ nesim:2242+338^ "
    "nexist:2204^ nexists:2204^ nfr:1d52b^ ngE:2267+338 nge:2271^ ngeq:2271^ ngeqq:2267+338^ ngeqslant:2a7e+338^ "
    "nges:2a7e+338^ ngsim:2275^ ngt:226f^ ngtr:226f^ nhArr:21ce nharr:21ae^ nhpar:2af2^ ni:220b^ nis:22fc^ "
    "nisd:22fa^ niv:220b^ njcy:45a^40a nlArr:21cd nlE:2266+338 nlarr:219a^ nldr:2025^ nle:2270^ nleftarrow:219a^ "
    "nleftrightarrow:21ae^ nleq:2270^ nleqq:2266+338^ nleqslant:2a7d+338^ nles:2a7d+338^ nless:226e^ nlsim:2274^ "
    "nlt:226e^ nltri:22ea^ nltrie:22ec^ nmid:2224^ nopf:1d55f^ not.ac^ notin:2209^ notinE:22f9+338 "
    "notindot:22f5+338^ notinva:2209^ notinvb:22f7^ notinvc:22f6^ notni:220c^ notniva:220c^ notnivb:22fe^ "
    "notnivc:22fd^ npar:2226^ nparallel:2226^ nparsl:2afd+20e5^ npart:2202+338^ npolint:2a14^ npr:2280^ "
    "nprcue:22e0^ npre:2aaf+338^ nprec:2280^ npreceq:2aaf+338^ nrArr:21cf nrarr:219b^ nrarrc:2933+338^ "
    "nrarrw:219d+338^ nrightarrow:219b^ nrtri:22eb^ nrtrie:22ed^ nsc:2281^ nsccue:22e1^ nsce:2ab0+338^ "
    "nscr:1d4c3^ nshortmid:2224^ nshortparallel:2226^ nsim:2241^ nsime:2244^ nsimeq:2244^ nsmid:2224^ nspar:2226^ "
    "nsqsube:22e2^ nsqsupe:22e3^ nsub:2284^ nsubE:2ac5+338 nsube:2288^ nsubset:2282+20d2^ nsubseteq:2288^ "
    "nsubseteqq:2ac5+338^ nsucc:2281^ nsucceq:2ab0+338^ nsup:2285^ nsupE:2ac6+338 nsupe:2289^ nsupset:2283+20d2^ "
    "nsupseteq:2289^ nsupseteqq:2ac6+338^ ntgl:2279^ ntilde.f1^d1 ntlg:2278^ ntriangleleft:22ea^ "
    "ntrianglelefteq:22ec^ ntriangleright:22eb^ ntrianglerighteq:22ed^ nu:3bd^39d num:23^ numero:2116^ "
    "numsp:2007^ nvDash:22ad nvHarr:2904 nvap:224d+20d2^ nvdash:22ac^ nvge:2265+20d2^ nvgt:3e+20d2^ nvinfin:29de^ "
    "nvlArr:2902 nvle:2264+20d2^ nvlt:3c+20d2^ nvltrie:22b4+20d2^ nvrArr:2903 nvrtrie:22b5+20d2^ nvsim:223c+20d2^ "
    "nwArr:21d6 nwarhk:2923^ nwarr:2196^ nwarrow:2196^ nwnear:2927^ oS:24c8 oacute.f3^d3 oast:229b^ ocir:229a^ "
    "ocirc.f4^d4 ocy:43e^41e odash:229d^ odblac:151^150 odiv:2a38^ odot:2299^ odsold:29bc^ oelig:153^152 "
    "ofcir:29bf^ ofr:1d52c^ ogon:2db^ ograve.f2^d2 ogt:29c1^ ohbar:29b5^ ohm:3a9^ oint:222e^ olarr:21ba^ "
    "olcir:29be^ olcross:29bb^ oline:203e^ olt:29c0^ omacr:14d^14c omega:3c9^3a9 omicron:3bf^39f omid:29b6^ "
    "ominus:2296^ oopf:1d560^ opar:29b7^ operp:29b9^ oplus:2295^ or:2228^ orarr:21bb^ ord:2a5d^ order:2134^ "
    "orderof:2134^ ordf.aa^ ordm.ba^ origof:22b6^ oror:2a56^ orslope:2a57^ orv:2a5b^ oscr:2134^ oslash.f8^d8 "
    "osol:2298^ otilde.f5^d5 otimes:2297^ otimesas:2a36^ ouml.f6^d6 ovbar:233d^ par:2225^ para.b6^ parallel:2225^ "
    "parsim:2af3^ parsl:2afd^ part:2202^ pcy:43f^41f percnt:25^ period:2e^ permil:2030^ perp:22a5^ pertenk:2031^ "
    "pfr:1d52d^ phi:3c6^3a6 phiv:3d5^3a6 phmmat:2133^ phone:260e^ pi:3c0^3a0 pitchfork:22d4^ piv:3d6^3a0 "
    "planck:210f^ planckh:210e^ plankv:210f^ plus:2b^ plusacir:2a23^ plusb:229e^ pluscir:2a22^ plusdo:2214^ "
    "plusdu:2a25^ pluse:2a72^ plusmn.b1^ plussim:2a26^ plustwo:2a27^ pm:b1^ pointint:2a15^ popf:1d561^ pound.a3^ "
    "pr:227a^ prE:2ab3 prap:2ab7^ prcue:227c^ pre:2aaf^ prec:227a^ precapprox:2ab7^ preccurlyeq:227c^ "
    "preceq:2aaf^ precnapprox:2ab9^ precneqq:2ab5^ precnsim:22e8^ precsim:227e^ prime:2032^ primes:2119^ "
    "prnE:2ab5 prnap:2ab9^ prnsim:22e8^ prod:220f^ profalar:232e^ profline:2312^ profsurf:2313^ prop:221d^ "
    "propto:221d^ prsim:227e^ prurel:22b0^ pscr:1d4c5^ psi:3c8^3a8 puncsp:2008^ qfr:1d52e^ qint:2a0c^ qopf:1d562^ "
    "qprime:2057^ qscr:1d4c6^ quaternions:210d^ quatint:2a16^ quest:3f^ questeq:225f^ quot.22 rAarr:21db "
    "rArr:21d2 rAtail:291c rBarr:290f rHar:2964 race:223d+331^ racute:155^154 radic:221a^ raemptyv:29b3^ "
    "rang:27e9^ rangd:2992^ range:29a5^ rangle:27e9^ raquo.bb^ rarr:2192^ rarrap:2975^ rarrb:21e5^ rarrbfs:2920^ "
    "rarrc:2933^ rarrfs:291e^ rarrhk:21aa^ rarrlp:21ac^ rarrpl:2945^ rarrsim:2974^ rarrtl:21a3^ rarrw:219d^ "
    "ratail:291a^ ratio:2236^ rationals:211a^ rbarr:290d^ rbbrk:2773^ rbrace:7d^ rbrack:5d^ rbrke:298c^ "
    "rbrksld:298e^ rbrkslu:2990^ rcaron:159^158 rcedil:157^156 rceil:2309^ rcub:7d^ rcy:440^420 rdca:2937^ "
    "rdldhar:2969^ rdquo:201d^ rdquor:201d^ rdsh:21b3^ real:211c^ realine:211b^ realpart:211c^ reals:211d^ "
    "rect:25ad^ reg.ae rfisht:297d^ rfloor:230b^ rfr:1d52f^ rhard:21c1^ rharu:21c0^ rharul:296c^ rho:3c1^3a1 "
    "rhov:3f1^3a1 rightarrow:2192^ rightarrowtail:21a3^ rightharpoondown:21c1^ rightharpoonup:21c0^ "
    "rightleftarrows:21c4^ rightleftharpoons:21cc^ rightrightarrows:21c9^ rightsquigarrow:219d^ "
    "rightthreetimes:22cc^ ring:2da^ risingdotseq:2253^ rlarr:21c4^ rlhar:21cc^ rlm:200f^ rmoust:23b1^ "
    "rmoustache:23b1^ rnmid:2aee^ roang:27ed^ roarr:21fe^ robrk:27e7^ ropar:2986^ ropf:1d563^ roplus:2a2e^ "
    "rotimes:2a35^ rpar:29^ rpargt:2994^ rppolint:2a12^ rrarr:21c9^ rsaquo:203a^ rscr:1d4c7^ rsh:21b1^ rsqb:5d^ "
    "rsquo:2019^ rsquor:2019^ rthree:22cc^ rtimes:22ca^ rtri:25b9^ rtrie:22b5^ rtrif:25b8^ rtriltri:29ce^ "
    "ruluhar:2968^ rx:211e^ sacute:15b^15a sbquo:201a^ sc:227b^ scE:2ab4 scap:2ab8^ scaron:161^160 sccue:227d^ "
    "sce:2ab0^ scedil:15f^15e scirc:15d^15c scnE:2ab6 scnap:2aba^ scnsim:22e9^ scpolint:2a13^ scsim:227f^ "
    "scy:441^421 sdot:22c5^ sdotb:22a1^ sdote:2a66^ seArr:21d8 searhk:2925^ searr:2198^ searrow:2198^ sect.a7^ "
    "semi:3b^ seswar:2929^ setminus:2216^ setmn:2216^ sext:2736^ sfr:1d530^ sfrown:2322^ sharp:266f^ "
    "shchcy:449^429 shcy:448^428 shortmid:2223^ shortparallel:2225^ shy.ad^ sigma:3c3^3a3 sigmaf:3c2^3a3 "
    "sigmav:3c2^3a3 sim:223c^ simdot:2a6a^ sime:2243^ simeq:2243^ simg:2a9e^ simgE:2aa0 siml:2a9d^ simlE:2a9f "
    "simne:2246^ simplus:2a24^ simrarr:2972^ slarr:2190^ smallsetminus:2216^ smashp:2a33^ smeparsl:29e4^ "
    "smid:2223^ smile:2323^ smt:2aaa^ smte:2aac^ smtes:2aac+fe00^ softcy:44c^42c sol:2f^ solb:29c4^ solbar:233f^ "
    "sopf:1d564^ spades:2660^ spadesuit:2660^ spar:2225^ sqcap:2293^ sqcaps:2293+fe00^ sqcup:2294^ "
    "sqcups:2294+fe00^ sqsub:228f^ sqsube:2291^ sqsubset:228f^ sqsubseteq:2291^ sqsup:2290^ sqsupe:2292^ "
    "sqsupset:2290^ sqsupseteq:2292^ squ:25a1^ square:25a1^ squarf:25aa^ squf:25aa^ srarr:2192^ sscr:1d4c8^ "
    "ssetmn:2216^ ssmile:2323^ sstarf:22c6^ star:2606^ starf:2605^ straightepsilon:3f5^395 straightphi:3d5^3a6 "
    "strns:af^ sub:2282^ subE:2ac5 subdot:2abd^ sube:2286^ subedot:2ac3^ submult:2ac1^ subnE:2acb subne:228a^ "
    "subplus:2abf^ subrarr:2979^ subset:2282^ subseteq:2286^ subseteqq:2ac5^ subsetneq:228a^ subsetneqq:2acb^ "
    "subsim:2ac7^ subsub:2ad5^ subsup:2ad3^ succ:227b^ succapprox:2ab8^ succcurlyeq:227d^ succeq:2ab0^ "
    "succnapprox:2aba^ succneqq:2ab6^ succnsim:22e9^ succsim:227f^ sum:2211^ sung:266a^ sup:2283^ sup1.b9^ "
    "sup2.b2^ sup3.b3^ supE:2ac6 supdot:2abe^ supdsub:2ad8^ supe:2287^ supedot:2ac4^ suphsol:27c9^ suphsub:2ad7^ "
    "suplarr:297b^ supmult:2ac2^ supnE:2acc supne:228b^ supplus:2ac0^ supset:2283^ supseteq:2287^ supseteqq:2ac6^ "
    "supsetneq:228b^ supsetneqq:2acc^ supsim:2ac8^ supsub:2ad4^ supsup:2ad6^ swArr:21d9 swarhk:2926^ swarr:2199^ "
    "swarrow:2199^ swnwar:292a^ szlig.df^53+53 target:2316^ tau:3c4^3a4 tbrk:23b4^ tcaron:165^164 tcedil:163^162 "
    "tcy:442^422 tdot:20db^ telrec:2315^ tfr:1d531^ there4:2234^ therefore:2234^ theta:3b8^398 thetasym:3d1^398 "
    "thetav:3d1^398 thickapprox:2248^ thicksim:223c^ thinsp:2009^ thkap:2248^ thksim:223c^ thorn.fe tilde:2dc^ "
    "times.d7^ timesb:22a0^ timesbar:2a31^ timesd:2a30^ tint:222d^ toea:2928^ top:22a4^ topbot:2336^ topcir:2af1^ "
    "topf:1d565^ topfork:2ada^ tosa:2929^ tprime:2034^ trade:2122 triangle:25b5^ triangledown:25bf^ "
    "triangleleft:25c3^ trianglelefteq:22b4^ triangleq:225c^ triangleright:25b9^ trianglerighteq:22b5^ "
    "tridot:25ec^ trie:225c^ triminus:2a3a^ triplus:2a39^ trisb:29cd^ tritime:2a3b^ trpezium:23e2^ tscr:1d4c9^ "
    "tscy:446^426 tshcy:45b^40b tstrok:167^166 twixt:226c^ twoheadleftarrow:219e^ twoheadrightarrow:21a0^ "
    "uArr:21d1 uHar:2963 uacute.fa^da uarr:2191^ ubrcy:45e^40e ubreve:16d^16c ucirc.fb^db ucy:443^423 udarr:21c5^ "
    "udblac:171^170 udhar:296e^ ufisht:297e^ ufr:1d532^ ugrave.f9^d9 uharl:21bf^ uharr:21be^ uhblk:2580^ "
    "ulcorn:231c^ ulcorner:231c^ ulcrop:230f^ ultri:25f8^ umacr:16b^16a uml.a8^ uogon:173^172 uopf:1d566^ "
    "uparrow:2191^ updownarrow:2195^ upharpoonleft:21bf^ upharpoonright:21be^ uplus:228e^ upsi:3c5^3a5 upsih:3d2^ "
    "upsilon:3c5^3a5 upuparrows:21c8^ urcorn:231d^ urcorner:231d^ urcrop:230e^ uring:16f^16e urtri:25f9^ "
    "uscr:1d4ca^ utdot:22f0^ utilde:169^168 utri:25b5^ utrif:25b4^ uuarr:21c8^ uuml.fc^dc uwangle:29a7^ vArr:21d5 "
    "vBar:2ae8 vBarv:2ae9 vDash:22a8 vangrt:299c^ varepsilon:3f5^395 varkappa:3f0^39a varnothing:2205^ "
    "varphi:3d5^3a6 varpi:3d6^3a0 varpropto:221d^ varr:2195^ varrho:3f1^3a1 varsigma:3c2^3a3 "
    "varsubsetneq:228a+fe00^ varsubsetneqq:2acb+fe00^ varsupsetneq:228b+fe00^ varsupsetneqq:2acc+fe00^ "
    "vartheta:3d1^398 vartriangleleft:22b2^ vartriangleright:22b3^ vcy:432^412 vdash:22a2^ vee:2228^ veebar:22bb^ "
    "veeeq:225a^ vellip:22ee^ verbar:7c^ vert:7c^ vfr:1d533^ vltri:22b2^ vnsub:2282+20d2^ vnsup:2283+20d2^ "
    "vopf:1d567^ vprop:221d^ vrtri:22b3^ vscr:1d4cb^ vsubnE:2acb+fe00 vsubne:228a+fe00^ vsupnE:2acc+fe00 "
    "vsupne:228b+fe00^ vzigzag:299a^ wcirc:175^174 wedbar:2a5f^ wedge:2227^ wedgeq:2259^ weierp:2118^ wfr:1d534^ "
    "wopf:1d568^ wp:2118^ wr:2240^ wreath:2240^ wscr:1d4cc^ xcap:22c2^ xcirc:25ef^ xcup:22c3^ xdtri:25bd^ "
    "xfr:1d535^ xhArr:27fa xharr:27f7^ xi:3be^39e xlArr:27f8 xlarr:27f5^ xmap:27fc^ xnis:22fb^ xodot:2a00^ "
    "xopf:1d569^ xoplus:2a01^ xotime:2a02^ xrArr:27f9 xrarr:27f6^ xscr:1d4cd^ xsqcup:2a06^ xuplus:2a04^ "
    "xutri:25b3^ xvee:22c1^ xwedge:22c0^ yacute.fd^dd yacy:44f^42f ycirc:177^176 ycy:44b^42b yen.a5^ yfr:1d536^ "
    "yicy:457^407 yopf:1d56a^ yscr:1d4ce^ yucy:44e^42e yuml.ff^178 zacute:17a^179 zcaron:17e^17d zcy:437^417 "
    "zdot:17c^17b zeetrf:2128^ zeta:3b6^396 zfr:1d537^ zhcy:436^416 zigrarr:21dd^ zopf:1d56b^ zscr:1d4cf^ "
    "zwj:200d^ zwnj:200c^ "
    // table ends
    ;
// clang-format on

struct HtmlEntity {
    std::u32string text;
    bool standard = true;  ///< known to HTML; otherwise only to ftfy, which decodes some names in capitals
    bool bare = false;     ///< HTML knows it without the semicolon too
};

/// Where the entity of a name without "&" and ";" stands in the list. Of the tokenizer's own type of map, for each type
/// takes time to compile.
struct HtmlEntities {
    std::vector<HtmlEntity> list;
    std::unordered_map<std::string, Id> positions;

    void add(std::string name, HtmlEntity entity) {
        if (positions.emplace(std::move(name), static_cast<Id>(list.size())).second) list.push_back(std::move(entity));
    }
};

[[gnu::cold]] inline HtmlEntities parse_html_entities(std::string_view table) {
    const auto text_of = [](std::string_view codes) {
        std::u32string text;
        while (!codes.empty()) {
            const std::string_view digits = codes.substr(0, codes.find('+'));
            unsigned value = 0;
            std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
            text += static_cast<char32_t>(value);
            codes.remove_prefix(std::min(codes.size(), digits.size() + 1));
        }
        return text;
    };
    HtmlEntities entities;
    entities.positions.reserve(4096);
    while (!table.empty()) {
        const std::string_view entry = table.substr(0, table.find(' '));
        table.remove_prefix(std::min(table.size(), entry.size() + 1));
        const std::size_t kind = entry.find_first_of(".:");
        const std::size_t hat = entry.find('^');
        std::string name(entry.substr(0, kind));
        std::u32string text = text_of(entry.substr(kind + 1, std::min(hat, entry.size()) - kind - 1));
        if (hat != std::string_view::npos) {
            const std::string_view own = entry.substr(hat + 1);
            std::string capitals = name;
            for (char& c : capitals) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 0x20) : c;
            entities.add(std::move(capitals), {own.empty() ? text : text_of(own), false, false});
        }
        entities.add(std::move(name), {std::move(text), true, entry[kind] == '.'});
    }
    return entities;
}

inline const HtmlEntities& html_entities() {
    static const HtmlEntities entities = parse_html_entities(html_entity_table);
    return entities;
}

inline const HtmlEntity* find_html_entity(const std::string& name) {
    const HtmlEntities& entities = html_entities();
    const auto found = entities.positions.find(name);
    return found == entities.positions.end() ? nullptr : &entities.list[static_cast<std::size_t>(found->second)];
}

/// What Windows-1252 has at 0x80 to 0x9F; its five holes stand for themselves.
inline constexpr std::array<char16_t, 32> windows_1252 = {
    0x20AC, 0x81,   0x201A, 0x192,  0x201E, 0x2026, 0x2020, 0x2021, 0x2C6,  0x2030, 0x160,
    0x2039, 0x152,  0x8D,   0x17D,  0x8F,   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
    0x2013, 0x2014, 0x2DC,  0x2122, 0x161,  0x203A, 0x153,  0x9D,   0x17E,  0x178};

/// The text of a numeric reference, by the rules of html.unescape: Windows-1252 for C1 controls, U+FFFD for NUL,
/// surrogates and what lies beyond Unicode, nothing for other controls and noncharacters.
inline void append_html_code_point(char32_t value, std::u32string& out) {
    if (value >= 0x80 && value <= 0x9F) {
        out += windows_1252[value - 0x80];
    } else if (value == 0 || (value >= 0xD800 && value <= 0xDFFF) || value > 0x10FFFF) {
        out += char32_t{0xFFFD};
    } else {
        const bool control = (value < 0x20 && value != '\t' && value != '\n' && value != '\f' && value != '\r');
        const bool noncharacter = (value >= 0xFDD0 && value <= 0xFDEF) || (value & 0xFFFE) == 0xFFFE;
        if (!control && !noncharacter && value != 0x7F) out += value;
    }
}

constexpr bool is_ascii_digit(char32_t c) {
    return c >= '0' && c <= '9';
}
constexpr bool is_ascii_letter(char32_t c) {
    return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

/// Decodes "#12;", "#x1F600" and the like at the front of `text` (what follows the ampersand) into `out`, and returns
/// how many code points that took; 0 where none stands there. Values too large saturate.
inline std::size_t decode_numeric_reference(std::u32string_view text, std::u32string& out) {
    if (text.size() < 2 || text[0] != '#') return 0;
    const bool hexadecimal = (text[1] | 0x20) == 'x';
    std::size_t at = hexadecimal ? 2 : 1;
    const std::size_t digits = at;
    char32_t value = 0;
    for (; at < text.size(); ++at) {
        char32_t digit = text[at] - '0';
        if (!is_ascii_digit(text[at])) {
            const char32_t letter = text[at] | 0x20;
            if (!hexadecimal || letter < 'a' || letter > 'f') break;
            digit = letter - 'a' + 10;
        }
        value = std::min<char32_t>(value * (hexadecimal ? 16 : 10) + digit, 0x110000);
    }
    if (at == digits) return 0;
    append_html_code_point(value, out);
    return at < text.size() && text[at] == ';' ? at + 1 : at;
}

/// Python's html.unescape: named references with and without semicolon, by longest prefix where need be.
inline std::u32string html_unescape(std::u32string_view text) {
    constexpr std::size_t longest_name = 32;
    std::u32string out;
    out.reserve(text.size());
    while (!text.empty()) {
        if (text.front() != '&') {
            const std::size_t plain = std::min(text.find(U'&'), text.size());
            out += text.substr(0, plain);
            text.remove_prefix(plain);
            continue;
        }
        text.remove_prefix(1);
        if (const std::size_t used = decode_numeric_reference(text, out)) {
            text.remove_prefix(used);
            continue;
        }
        std::string name;
        std::size_t length = 0;
        for (; length < std::min(longest_name, text.size()); ++length) {
            const char32_t c = text[length];
            if (c == '\t' || c == '\n' || c == '\f' || c == ' ' || c == '<' || c == '&' || c == '#' || c == ';') break;
            name += c < 0x80 ? static_cast<char>(c) : '?';
        }
        const bool closed = length > 0 && length < text.size() && text[length] == ';';
        const HtmlEntity* entity = closed ? find_html_entity(name) : nullptr;
        std::size_t used = length + 1;
        if (!entity || !entity->standard) {
            entity = nullptr;
            for (used = length; used >= 2; --used) {
                entity = find_html_entity(name.substr(0, used));
                if (entity && entity->bare) break;
                entity = nullptr;
            }
        }
        if (entity) {
            out += entity->text;
            text.remove_prefix(used);
        } else {
            out += U'&';
        }
    }
    return out;
}

/// ftfy's unescape_html (ftfy 6.3.1, fixes.py): only references that end in a semicolon, some names in capitals too.
inline std::u32string ftfy_unescape(std::u32string_view text) {
    constexpr std::size_t longest_name = 24;
    std::u32string out;
    out.reserve(text.size());
    while (!text.empty()) {
        const char32_t first = text.front();
        text.remove_prefix(1);
        if (first != '&') {
            out += first;
            continue;
        }
        const bool numeric = !text.empty() && text[0] == '#';
        std::string name;
        std::size_t at = numeric ? 1 : 0;
        while (at < text.size() && name.size() < longest_name &&
               (is_ascii_digit(text[at]) || is_ascii_letter(text[at]))) {
            name += static_cast<char>(text[at++]);
        }
        if (!name.empty() && at < text.size() && text[at] == ';') {
            std::u32string decoded;
            // A reference to ";" itself stays: ftfy takes a semicolon in the result for one that was not consumed.
            const bool known = numeric ? decode_numeric_reference(text, decoded) == at + 1 && decoded != U";"
                                       : find_html_entity(name) != nullptr;
            if (known) {
                out += numeric ? decoded : find_html_entity(name)->text;
                text.remove_prefix(at + 1);
                continue;
            }
        }
        out += U'&';
    }
    return out;
}

}  // namespace tandem::inline TANDEM_ABI::detail

// ---- tandem/data/clean_text.hpp ----

// What CLIP's two tokenizers do to a caption before they split it into words.

namespace tandem::inline TANDEM_ABI {

/// How a text is cleaned before it becomes tokens.
enum class Cleaning {
    /// open_clip's SimpleTokenizer (tokenizer.py, clean='lower'): ftfy's fixes, html.unescape twice, white space
    /// stripped and collapsed, Python's str.lower(). Of ftfy the character fixes are here (HTML references, C1
    /// controls,
    /// Latin ligatures, character width, curly quotes, line breaks, terminal escapes, control characters, NFC); its
    /// guessing at text that was decoded in the wrong encoding ("cafÃ©") is not.
    open_clip,
    /// transformers' CLIPTokenizerFast: NFC, runs of white space to one space, lower case code point by code point.
    /// As of transformers 5: "<|ENDOFTEXT|>" in capitals is text (version 4 takes it for the special token).
    transformers,
};

}  // namespace tandem::inline TANDEM_ABI

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// The letters that ftfy takes a Latin ligature or digraph apart into (chardata.py); empty for all else.
constexpr std::u32string_view ligature_letters(char32_t c) {
    switch (c) {
        case 0x132:
            return U"IJ";
        case 0x133:
            return U"ij";
        case 0x149:
            return U"\u02BCn";
        case 0x1C4:
            return U"D\u017D";
        case 0x1C5:
            return U"D\u017E";
        case 0x1C6:
            return U"d\u017E";
        case 0x1C7:
            return U"LJ";
        case 0x1C8:
            return U"Lj";
        case 0x1C9:
            return U"lj";
        case 0x1CA:
            return U"NJ";
        case 0x1CB:
            return U"Nj";
        case 0x1CC:
            return U"nj";
        case 0x1F1:
            return U"DZ";
        case 0x1F2:
            return U"Dz";
        case 0x1F3:
            return U"dz";
        case 0xFB00:
            return U"ff";
        case 0xFB01:
            return U"fi";
        case 0xFB02:
            return U"fl";
        case 0xFB03:
            return U"ffi";
        case 0xFB04:
            return U"ffl";
        case 0xFB05:
            return U"\u017Ft";
        case 0xFB06:
            return U"st";
        default:
            return {};
    }
}

constexpr char32_t uncurled(char32_t c) {
    if (c == 0x2BC || (c >= 0x2018 && c <= 0x201B)) return '\'';
    return c >= 0x201C && c <= 0x201F ? U'"' : c;
}

/// ftfy's fixes that look at one code point: C1 controls, ligatures, width, quotes, in this order.
inline std::u32string fix_characters(std::u32string_view text) {
    std::u32string out;
    out.reserve(text.size());
    for (char32_t c : text) {
        if (c < 0x80) {
            out += c;
            continue;
        }
        if (c <= 0x9F) c = windows_1252[c - 0x80];
        if (const std::u32string_view letters = ligature_letters(c); !letters.empty()) {
            for (const char32_t letter : letters) out += uncurled(letter);
        } else if (c >= 0xFF01 && c <= 0xFFEF) {
            out += normalize(std::u32string(1, c), NormalForm::nfkc);
        } else {
            out += c == 0x3000 ? U' ' : uncurled(c);
        }
    }
    return out;
}

constexpr bool is_removed_control(char32_t c) {
    return c <= 0x08 || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || (c >= 0x206A && c <= 0x206F) ||
           c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFC);
}

/// The length of the terminal escape (ESC [ digits and semicolons, letter) at the front of `text`; 0 if none is there.
inline std::size_t terminal_escape_length(std::u32string_view text) {
    if (text.size() < 3 || text[0] != 0x1B || text[1] != '[') return 0;
    std::size_t at = 2;
    while (at < text.size() && (text[at] == ';' || is_decimal_digit(text[at]))) ++at;
    return at < text.size() && is_ascii_letter(text[at]) ? at + 1 : 0;
}

/// Unix line ends; no terminal escapes, no control characters.
inline std::u32string fix_controls(std::u32string_view text) {
    std::u32string out;
    out.reserve(text.size());
    while (!text.empty()) {
        const char32_t c = text.front();
        std::size_t used = 1;
        if (c == '\r') {
            if (text.size() > 1 && text[1] == '\n') used = 2;
            out += U'\n';
        } else if (c == 0x2028 || c == 0x2029) {
            out += U'\n';
        } else if (is_removed_control(c)) {
            used = std::max<std::size_t>(terminal_escape_length(text), 1);
        } else {
            out += c;
        }
        text.remove_prefix(used);
    }
    return out;
}

/// ftfy.fix_and_explain (ftfy 6.3.1) without fix_encoding: all fixes, again until nothing changes. A text that still
/// changes after 100 rounds, which takes references nested as deep, stays as it then is: ftfy would need quadratic
/// time.
inline std::u32string ftfy_fix_segment(std::u32string text, bool unescape) {
    constexpr int most_rounds = 100;
    for (int round = 0; round < most_rounds; ++round) {
        std::u32string fixed = unescape ? ftfy_unescape(text) : text;
        fixed = normalize(fix_controls(fix_characters(fixed)), NormalForm::nfc);
        const bool settled = fixed == text;
        text = std::move(fixed);
        if (settled) break;
    }
    return text;
}

/// ftfy.fix_text: line by line, and at most a million code points at once. From the first line that holds a "<" on,
/// references are left alone.
inline std::u32string ftfy_fix_text(std::u32string_view text) {
    constexpr std::size_t longest_segment = 1'000'000;
    std::u32string out;
    bool unescape = true;
    while (!text.empty()) {
        const std::size_t line = std::min(text.find(U'\n'), text.size() - 1) + 1;
        const std::u32string_view segment = text.substr(0, std::min(line, longest_segment));
        if (segment.find(U'<') != std::u32string_view::npos) unescape = false;
        out += ftfy_fix_segment(std::u32string(segment), unescape);
        text.remove_prefix(segment.size());
    }
    return out;
}

/// Python's " ".join(text.split()).
inline std::u32string collapse_python_space(std::u32string_view text) {
    std::u32string out;
    out.reserve(text.size());
    bool gap = false;
    for (const char32_t c : text) {
        if (is_python_space(c)) {
            gap = !out.empty();
            continue;
        }
        if (gap) out += U' ';
        gap = false;
        out += c;
    }
    return out;
}

/// Python's str.lower(): a capital sigma at the end of a word becomes a final one.
inline std::u32string python_lower(std::u32string_view text) {
    std::u32string out;
    out.reserve(text.size());
    bool after_cased = false;  // whether the last code point that is not case-ignorable is cased
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char32_t c = text[i];
        if (c == 0x3A3) {
            std::size_t next = i + 1;
            while (next < text.size() && is_case_ignorable(text[next])) ++next;
            out += after_cased && (next == text.size() || !is_cased(text[next])) ? char32_t{0x3C2} : char32_t{0x3C3};
        } else {
            out += lower(c, false);
            if (c == 0x130) out += char32_t{0x307};
        }
        if (!is_case_ignorable(c)) after_cased = is_cased(c);
    }
    return out;
}

inline std::u32string clean_as_open_clip(std::u32string_view text) {
    const std::u32string fixed = ftfy_fix_text(text);
    return python_lower(collapse_python_space(html_unescape(html_unescape(fixed))));
}

inline std::u32string clean_as_transformers(std::u32string_view text) {
    std::u32string out;
    out.reserve(text.size());
    bool in_space = false;
    for (const char32_t c : normalize(std::u32string(text), NormalForm::nfc_unicode_9)) {
        const bool space = is_white_space(c);
        if (!space) {
            out += lower(c, true);
            if (c == 0x130) out += char32_t{0x307};
        } else if (!in_space) {
            out += U' ';
        }
        in_space = space;
    }
    return out;
}

/// Whether only white space and case can change: ASCII without controls and, for open_clip, without references.
inline bool is_plain(std::string_view text, Cleaning cleaning) {
    return std::all_of(text.begin(), text.end(), [&](char c) {
        return (c >= 0x20 && c < 0x7F && (c != '&' || cleaning == Cleaning::transformers)) || c == '\t' || c == '\n';
    });
}

inline std::string clean_plain(std::string_view text, Cleaning cleaning) {
    std::string out;
    out.reserve(text.size());
    bool gap = false;
    for (const char c : text) {
        if (c == ' ' || c == '\t' || c == '\n') {
            gap = cleaning == Cleaning::transformers || !out.empty();
            continue;
        }
        if (gap) out += ' ';
        gap = false;
        out += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 0x20) : c;
    }
    if (gap && cleaning == Cleaning::transformers) out += ' ';
    return out;
}

}  // namespace detail

/// The text as the tokenizer sees it, in valid UTF-8. Invalid UTF-8 becomes U+FFFD as with Python's errors="replace";
/// NUL is a control character like others (open_clip drops it, transformers keeps it).
/// Code points younger than Unicode 15: classes as in the regex (open_clip) and tokenizers packages of 2026, lower case
/// as in Python 3.11 to 3.13 and tokenizers; normalisation as the installed utf8proc knows it.
inline std::string clean_text(std::string_view text, Cleaning cleaning) {
    if (detail::is_plain(text, cleaning)) return detail::clean_plain(text, cleaning);
    const std::u32string codes = detail::decode_utf8(text);
    return detail::encode_utf8(cleaning == Cleaning::open_clip ? detail::clean_as_open_clip(codes)
                                                               : detail::clean_as_transformers(codes));
}

}  // namespace tandem::inline TANDEM_ABI

#endif

// ---- tandem/data/caption_words.hpp ----

// How CLIP's two tokenizers split a caption into words and special tokens.

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI::detail {

/// The literals that stand for the two special tokens.
struct SpecialLiterals {
    std::string_view start;
    std::string_view end;
};

constexpr SpecialLiterals special_literals(Cleaning cleaning) {
    return cleaning == Cleaning::open_clip ? SpecialLiterals{"<start_of_text>", "<end_of_text>"}
                                           : SpecialLiterals{"<|startoftext|>", "<|endoftext|>"};
}

/// The length of the contraction ('s, 't, 're, 've, 'm, 'll, 'd) at the front of a lower-case text; 0 if none.
inline std::size_t contraction_length(std::string_view text, Cleaning cleaning) {
    if (text.size() < 2 || text[0] != '\'') return 0;
    for (const std::string_view ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
        if (text.starts_with(ending)) return ending.size();
    }
    // open_clip ignores case, and the long s is an "s" then.
    return cleaning == Cleaning::open_clip && text.starts_with("'\u017F") ? 3 : 0;
}

/// The length of `literal` at the front of `text` where each "s" may be a long s; 0 if it is not there.
inline std::size_t ignoring_long_s(std::string_view text, std::string_view literal) {
    constexpr std::string_view long_s = "\u017F";
    std::size_t at = 0;
    for (const char c : literal) {
        if (at < text.size() && text[at] == c) {
            ++at;
        } else if (c == 's' && text.substr(at).starts_with(long_s)) {
            at += long_s.size();
        } else {
            return 0;
        }
    }
    return at;
}

inline CharClass word_class(char32_t c, Cleaning cleaning) {
    // The regex package finds U+0345 neither a letter nor anything else when it ignores case (it folds to iota).
    if (cleaning == Cleaning::open_clip && c == 0x345) return CharClass::space;
    return char_class(c, cleaning == Cleaning::open_clip ? UnicodeEdition::v18 : UnicodeEdition::v16);
}

/// Calls word(piece) for each match of 's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+ in a cleaned text, and
/// special(is_start) for open_clip's special literals.
template <class Word, class Special>
void split_cleaned(std::string_view text, Cleaning cleaning, const Word& word, const Special& special) {
    const SpecialLiterals literals = special_literals(cleaning);
    const auto take = [&](std::size_t length) {
        word(text.substr(0, length));
        text.remove_prefix(length);
    };
    while (!text.empty()) {
        if (text.front() == '<') {
            if (cleaning == Cleaning::open_clip) {
                const std::size_t start = ignoring_long_s(text, literals.start);
                const std::size_t end = ignoring_long_s(text, literals.end);
                if (const std::size_t length = std::max(start, end)) {
                    // With a long s it matches as one word, yet is not the special token.
                    if (text.starts_with(start ? literals.start : literals.end)) {
                        special(start != 0);
                        text.remove_prefix(length);
                    } else {
                        take(length);
                    }
                    continue;
                }
            } else if (text.starts_with(literals.start) || text.starts_with(literals.end)) {
                // Written in capitals, it is one piece to the first split and three to the second.
                take(2);
                take(text.find('|'));
                take(2);
                continue;
            }
        }
        if (const std::size_t length = contraction_length(text, cleaning)) {
            take(length);
            continue;
        }
        const CodePoint first = front_code_point(text);
        const CharClass kind = word_class(first.value, cleaning);
        std::size_t length = first.bytes;
        if (kind == CharClass::letter || kind == CharClass::other) {
            while (length < text.size()) {
                const CodePoint next = front_code_point(text.substr(length));
                if (word_class(next.value, cleaning) != kind) break;
                length += next.bytes;
            }
        }
        if (kind == CharClass::space) {
            text.remove_prefix(length);
        } else {
            take(length);
        }
    }
}

/// Cleans a text and splits it into words and special tokens.
template <class Word, class Special>
void split_text(std::string_view text, Cleaning cleaning, const Word& word, const Special& special) {
    if (cleaning == Cleaning::transformers) {
        // Here special tokens are found, letter for letter, before anything is cleaned.
        const SpecialLiterals literals = special_literals(cleaning);
        while (true) {
            const std::size_t start = text.find(literals.start);
            const std::size_t end = text.find(literals.end);
            const std::size_t at = std::min(start, end);
            if (at == std::string_view::npos) break;
            split_cleaned(clean_text(text.substr(0, at), cleaning), cleaning, word, special);
            special(start < end);
            text.remove_prefix(at + (start < end ? literals.start : literals.end).size());
        }
    }
    split_cleaned(clean_text(text, cleaning), cleaning, word, special);
}

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

// ---- tandem/data/json.hpp ----

// JSON through RapidJSON's event parser. Every reader derives from one event interface, so that a program compiles the
// parser once, and one that reads no JSON not at all.

#include <rapidjson/encodedstream.h>
#include <rapidjson/memorystream.h>
#include <rapidjson/reader.h>

namespace tandem::inline TANDEM_ABI::detail {

/// What a document holds, in its order. An event that returns false ends the parsing.
class JsonEvents {
public:
    virtual bool string(std::string_view value) = 0;
    virtual bool number(std::uint64_t value) = 0;
    /// null, a boolean, a number that is negative or not whole, or one beyond 64 bits, as JSON writes it.
    virtual bool other(std::string_view json) = 0;
    virtual bool start_object() = 0;
    virtual bool key(std::string_view name) = 0;
    virtual bool end_object() = 0;
    virtual bool start_array() = 0;
    virtual bool end_array() = 0;

protected:
    ~JsonEvents() = default;
};

/// RapidJSON's handler. It has its names for the events, and tells of each type of number apart.
struct JsonHandler {
    using Ch = char;

    JsonEvents& events;

    bool Null() { return events.other("null"); }
    bool Bool(bool value) { return events.other(value ? "true" : "false"); }
    bool Int(std::int32_t value) { return print(value); }
    bool Int64(std::int64_t value) { return print(value); }
    bool Uint(std::uint32_t value) { return events.number(value); }
    bool Uint64(std::uint64_t value) { return events.number(value); }
    bool Double(double value) { return print(value); }
    bool RawNumber(const char* digits, std::size_t size, bool) { return events.other({digits, size}); }
    bool String(const char* text, std::size_t size, bool) { return events.string({text, size}); }
    bool Key(const char* text, std::size_t size, bool) { return events.key({text, size}); }
    bool StartObject() { return events.start_object(); }
    bool EndObject(std::size_t) { return events.end_object(); }
    bool StartArray() { return events.start_array(); }
    bool EndArray(std::size_t) { return events.end_array(); }

private:
    bool print(auto value) {
        std::array<char, 32> text;
        const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
        return events.other({text.data(), static_cast<std::size_t>(end - text.data())});
    }
};

/// Reports `text` to `events`. Returns the position where it is no JSON, or where an event returned false; nothing if
/// neither happened. A template so that it is compiled only where it is called.
template <class Text>
[[gnu::cold]] std::optional<std::size_t> json_fault(const Text& text, JsonEvents& events) {
    rapidjson::MemoryStream memory(text.data(), text.size());
    rapidjson::EncodedInputStream<rapidjson::UTF8<>, rapidjson::MemoryStream> input(memory);
    JsonHandler handler{events};
    rapidjson::Reader reader;
    // Not recursive, so that no document is deep enough to exhaust the stack.
    reader.Parse<rapidjson::kParseIterativeFlag | rapidjson::kParseValidateEncodingFlag>(input, handler);
    if (reader.HasParseError()) return reader.GetErrorOffset();
    // To RapidJSON, a NUL is the end of the text.
    return input.Tell() == text.size() ? std::nullopt : std::optional(input.Tell());
}

/// Appends `text`, which must be UTF-8, as a JSON string.
inline void append_json_string(std::string& json, std::string_view text) {
    json += '"';
    for (const char letter : text) {
        const auto code = static_cast<unsigned char>(letter);
        if (code < 0x20) {
            constexpr std::string_view digits = "0123456789abcdef";
            json.append("\\u00").append({digits[code >> 4], digits[code & 15U]});
        } else {
            if (code == '"' || code == '\\') json += '\\';
            json += letter;
        }
    }
    json += '"';
}

/// A value that is neither object nor array.
struct JsonLeaf {
    enum class Kind { text, number, other };

    std::string path;       ///< the keys from the root down, joined by dots; elements of arrays have none
    std::size_t depth = 0;  ///< how many keys those are
    Kind kind = Kind::other;
    std::string text;          ///< of a text, and of anything else as it would be printed
    std::uint64_t number = 0;  ///< of a whole number that is not negative
};

/// Collects all leaves of a document whose root is an object.
class JsonLeaves final : public JsonEvents {
public:
    std::vector<JsonLeaf> leaves;

    bool string(std::string_view value) override { return add({}, JsonLeaf::Kind::text, std::string(value)); }
    bool number(std::uint64_t value) override { return add(value, JsonLeaf::Kind::number, std::to_string(value)); }
    bool other(std::string_view json) override { return add({}, JsonLeaf::Kind::other, std::string(json)); }
    bool start_object() override {
        keys_.emplace_back();
        return keys_.size() <= deepest;
    }
    bool key(std::string_view name) override {
        keys_.back() = name;
        return true;
    }
    bool end_object() override {
        keys_.pop_back();
        return true;
    }
    bool start_array() override { return !keys_.empty(); }
    bool end_array() override { return true; }

private:
    static constexpr std::size_t deepest = 64;

    bool add(std::uint64_t number, JsonLeaf::Kind kind, std::string text) {
        if (keys_.empty()) return false;
        std::string path = keys_[0];
        for (std::size_t i = 1; i < keys_.size(); ++i) path += "." + keys_[i];
        leaves.push_back({std::move(path), keys_.size(), kind, std::move(text), number});
        return true;
    }

    std::vector<std::string> keys_;
};

}  // namespace tandem::inline TANDEM_ABI::detail

// ---- tandem/data/bpe.hpp ----

// CLIP's byte-level BPE tokenizer: ids as open_clip's SimpleTokenizer and transformers' CLIPTokenizerFast give them.

// A cross compiler on Debian finds zlib.h, but not zconf.h, the part that is kept for every architecture apart.
#if __has_include(<utf8proc.h>) && __has_include(<zlib.h>) && __has_include(<zconf.h>)
#include <zlib.h>

#endif

#if __has_include(<utf8proc.h>) && __has_include(<zlib.h>) && __has_include(<zconf.h>)

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// A text file, gzip'ed or plain.
[[gnu::cold]] inline std::string read_gzip(const std::filesystem::path& path) {
    constexpr std::size_t most_bytes = std::size_t{256} << 20;
    errno = 0;
    const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
    if (!file) throw_file_error(path, "open");
    std::string text;
    std::vector<char> block(1 << 16);
    while (true) {
        const int count = gzread(file.get(), block.data(), static_cast<unsigned>(block.size()));
        int code = Z_OK;
        const char* reason = gzerror(file.get(), &code);
        // A cut file reads to its end without complaint; only the state tells.
        if (count < 0 || (code != Z_OK && code != Z_STREAM_END)) {
            throw Error(path.string(),
                        code == Z_ERRNO ? "cannot read the file" : "damaged gzip data: " + std::string(reason));
        }
        if (count == 0) return text;
        text.append(block.data(), static_cast<std::size_t>(count));
        if (text.size() > most_bytes) throw Error(path.string(), "a vocabulary below 256 MiB", "more");
    }
}

/// The next line of a text, without its end; the text is shortened by it.
inline std::string_view take_line(std::string_view& text) {
    const std::size_t length = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, length);
    text.remove_prefix(std::min(length + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    return line;
}

inline std::string at_line(const std::filesystem::path& path, std::size_t line) {
    return path.string() + " line " + std::to_string(line);
}

}  // namespace detail

/// CLIP's tokenizer. Immutable once built: any number of threads may encode at once.
class Bpe {
public:
    /// Two tokens that become one.
    struct Merge {
        Id left = 0;
        Id right = 0;
    };

    /// Reads a vocabulary. `path` is open_clip's bpe_simple_vocab_16e6.txt.gz (or a file of its form, of which the
    /// first 48,894 merges count; cleaned as open_clip does), or a folder with vocab.json and merges.txt (cleaned as
    /// transformers does, unless save() wrote it for the other). `cleaning` overrides the source's own.
    /// Throws Error naming file and line where something is missing or contradicts itself.
    [[gnu::cold]] static Bpe load(const std::filesystem::path& path, std::optional<Cleaning> cleaning = std::nullopt) {
        std::error_code failed;
        if (!std::filesystem::exists(path, failed))
            throw Error(path.string(), "a vocabulary file, or a folder with vocab.json and merges.txt",
                        "nothing there");
        return std::filesystem::is_directory(path, failed) ? load_folder(path, cleaning)
                                                           : load_merges(path, cleaning.value_or(Cleaning::open_clip));
    }

    /// The vocabulary that merges make, laid out as CLIP's: 256 bytes, 256 bytes that end a word, the merges in their
    /// order (merge i makes token 512 + i), start of text, end of text.
    /// Throws Error where a merge uses a token that does not exist yet or makes one twice.
    [[gnu::cold]] Bpe(std::span<const Merge> merges, Cleaning cleaning) : cleaning_(cleaning), merges_(merges.size()) {
        for (const bool last : {false, true}) {
            for (const unsigned char byte : detail::byte_alphabet.byte_of_id) {
                (last ? last_ids_ : byte_ids_)[byte] = static_cast<Id>(tokens_.size());
                tokens_.push_back(std::string(1, static_cast<char>(byte)) + std::string(last ? detail::word_end : ""));
            }
        }
        std::unordered_map<std::string, Id> ids = index_of(tokens_);
        for (const Merge& merge : merges) {
            const auto next = static_cast<Id>(tokens_.size());
            const std::string where = "merge " + std::to_string(tokens_.size() - 512);
            if (merge.left < 0 || merge.right < 0 || merge.left >= next || merge.right >= next)
                throw Error(where, "it joins a token that no earlier merge makes");
            std::string token =
                tokens_[static_cast<std::size_t>(merge.left)] + tokens_[static_cast<std::size_t>(merge.right)];
            if (!ids.emplace(token, next).second) throw Error(where, "it makes a token that is already there");
            merges_.add({merge.left, merge.right, next});
            tokens_.push_back(std::move(token));
        }
        start_ = static_cast<Id>(tokens_.size());
        end_ = start_ + 1;
        tokens_.resize(tokens_.size() + 2);
        name_specials();
    }

    /// Writes vocab.json and merges.txt into `folder`, which is made if need be. transformers' CLIPTokenizer opens them
    /// (and cleans in its own way); load() gives back this tokenizer, cleaning included.
    [[gnu::cold]] void save(const std::filesystem::path& folder) const {
        std::error_code failed;
        std::filesystem::create_directories(folder, failed);
        if (failed) throw Error(folder.string(), "cannot create the folder: " + failed.message());
        std::string lines = "#version: 0.2";
        if (cleaning_ == Cleaning::open_clip) lines += " " + std::string(open_clip_mark);
        lines += '\n';
        for (const detail::MergeRule& rule : merges_.rules())
            lines += symbols(rule.left) + ' ' + symbols(rule.right) + '\n';
        std::string vocabulary = "{";
        for (Id id = 0; id < static_cast<Id>(tokens_.size()); ++id) {
            constexpr detail::SpecialLiterals literals = detail::special_literals(Cleaning::transformers);
            const std::string name = id == start_ ? std::string(literals.start)
                                     : id == end_ ? std::string(literals.end)
                                                  : symbols(id);
            vocabulary += id ? ",\n" : "\n";
            detail::append_json_string(vocabulary, name);
            vocabulary += ": " + std::to_string(id);
        }
        vocabulary += "\n}\n";
        write_file_atomically(folder / "merges.txt", lines);
        write_file_atomically(folder / "vocab.json", vocabulary);
    }

    /// The ids of a text of any length, without start and end of text. Invalid UTF-8 becomes U+FFFD.
    std::vector<Id> encode(std::string_view text) const {
        std::vector<Id> ids;
        Scratch scratch;
        detail::split_text(
            text, cleaning_, [&](std::string_view word) { append_word(word, scratch, ids); },
            [&](bool is_start) { ids.push_back(is_start ? start_ : end_); });
        return ids;
    }

    /// Fills `out` with start of text, the ids, end of text, and zeros. What does not fit is cut, and the last id is
    /// end of text then (open_clip's rule; transformers cuts likewise but pads with end of text, which pooling at the
    /// first one does not see: here both modes pad with 0). Throws Error if `out` is empty.
    void encode(std::string_view text, std::span<Id> out) const {
        if (out.empty()) throw Error("Bpe::encode", "a context of at least 1 token", "0");
        const std::vector<Id> ids = encode(text);
        std::fill(out.begin(), out.end(), 0);
        out[0] = start_;
        const std::size_t kept = std::min(ids.size(), out.size() - 1);
        std::copy_n(ids.begin(), kept, out.begin() + 1);
        out[std::min(kept + 1, out.size() - 1)] = end_;
    }

    /// The rows of encode(text, out), [texts, context] row by row, made in parallel.
    std::vector<Id> encode_batch(std::span<const std::string> texts, std::size_t context) const {
        constexpr std::size_t texts_per_piece = 64;
        std::vector<Id> ids(texts.size() * context);
        parallel_for(texts.size(), texts_per_piece, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) encode(texts[i], std::span(ids).subspan(i * context, context));
        });
        return ids;
    }

    /// The text of the ids: a space after each word, special tokens as their literals, invalid UTF-8 as U+FFFD; white
    /// space at the ends is stripped in the transformers mode. Throws Error where an id is not in the vocabulary.
    std::string decode(std::span<const Id> ids) const {
        std::string bytes;
        for (const Id id : ids) {
            if (static_cast<std::size_t>(id) >= tokens_.size())
                throw Error("Bpe::decode", "ids from 0 to " + std::to_string(tokens_.size() - 1), std::to_string(id));
            bytes += tokens_[static_cast<std::size_t>(id)];
        }
        std::string text;
        for (std::string_view rest = bytes; !rest.empty();) {
            if (rest.starts_with(detail::word_end)) {
                text += ' ';
                rest.remove_prefix(detail::word_end.size());
                continue;
            }
            const detail::CodePoint c = detail::front_code_point(rest);
            detail::append_utf8(c.value, text);
            rest.remove_prefix(c.bytes);
        }
        return cleaning_ == Cleaning::open_clip ? text : stripped(text);
    }

    /// The number of ids; 49,408 for CLIP's own vocabulary.
    std::size_t vocabulary() const { return tokens_.size(); }
    Id start() const { return start_; }
    Id end() const { return end_; }
    Cleaning cleaning() const { return cleaning_; }

private:
    /// Working memory of append_word, kept from word to word.
    struct Scratch {
        std::vector<Id> ids;
        std::vector<std::uint32_t> ranks;
    };

    static constexpr std::string_view open_clip_mark = "cleaning: open_clip";

    explicit Bpe(Cleaning cleaning) : cleaning_(cleaning) {}

    static std::unordered_map<std::string, Id> index_of(std::span<const std::string> tokens) {
        std::unordered_map<std::string, Id> ids;
        ids.reserve(2 * tokens.size());
        for (std::size_t id = 0; id < tokens.size(); ++id) ids.emplace(tokens[id], static_cast<Id>(id));
        return ids;
    }

    void name_specials() {
        const detail::SpecialLiterals literals = detail::special_literals(cleaning_);
        tokens_[static_cast<std::size_t>(start_)] = literals.start;
        tokens_[static_cast<std::size_t>(end_)] = literals.end;
    }

    std::string symbols(Id id) const { return detail::byte_alphabet.symbols(tokens_[static_cast<std::size_t>(id)]); }

    static std::string stripped(const std::string& text) {
        const std::u32string codes = detail::decode_utf8(text);
        const auto is_text = [](char32_t c) { return !detail::is_python_space(c); };
        const auto first = std::find_if(codes.begin(), codes.end(), is_text);
        const auto last = std::find_if(codes.rbegin(), codes.rend(), is_text).base();
        return first < last ? detail::encode_utf8(std::u32string(first, last)) : std::string();
    }

    /// The two halves of a line of merges.
    static std::pair<std::string, std::string> parse_merge(std::string_view line, const std::string& where) {
        const std::size_t space = line.find(' ');
        if (space == std::string_view::npos || space == 0 || space + 1 == line.size() ||
            line.find(' ', space + 1) != std::string_view::npos)
            throw Error(where, "two symbols with one space between", "\"" + std::string(line.substr(0, 80)) + "\"");
        auto left = detail::byte_alphabet.bytes(line.substr(0, space));
        auto right = detail::byte_alphabet.bytes(line.substr(space + 1));
        if (!left || !right) throw Error(where, "a symbol holds a character that stands for no byte");
        return {std::move(*left), std::move(*right)};
    }

    static Bpe load_merges(const std::filesystem::path& path, Cleaning cleaning) {
        constexpr std::size_t most_merges = 49152 - 256 - 2;
        const std::string text = detail::read_gzip(path);
        std::string_view rest = text;
        detail::take_line(rest);  // the first line names the version
        std::vector<Merge> merges;
        std::unordered_map<std::string, Id> ids = index_of(Bpe(std::span<const Merge>(), cleaning).tokens_);
        ids.erase(std::string(detail::special_literals(cleaning).start));
        ids.erase(std::string(detail::special_literals(cleaning).end));
        for (std::size_t line = 2; !rest.empty() && merges.size() < most_merges; ++line) {
            const std::string_view content = detail::take_line(rest);
            if (content.empty()) continue;
            const std::string where = detail::at_line(path, line);
            const auto [left, right] = parse_merge(content, where);
            const auto left_id = ids.find(left);
            const auto right_id = ids.find(right);
            if (left_id == ids.end() || right_id == ids.end())
                throw Error(where, "it joins a token that no earlier line makes");
            merges.push_back({left_id->second, right_id->second});
            if (!ids.emplace(left + right, static_cast<Id>(512 + merges.size() - 1)).second)
                throw Error(where, "it makes a token that is already there");
        }
        if (merges.empty()) throw Error(path.string(), "a line of version and one merge a line", "no merge");
        return Bpe(merges, cleaning);
    }

    static Bpe load_folder(const std::filesystem::path& folder, std::optional<Cleaning> cleaning) {
        const std::filesystem::path merges_path = folder / "merges.txt";
        const std::string text = detail::read_gzip(merges_path);
        std::string_view rest = text;
        const bool has_version = rest.starts_with("#version");
        const std::string_view version = has_version ? detail::take_line(rest) : std::string_view();
        const bool marked = version.find(open_clip_mark) != std::string_view::npos;
        Bpe bpe(cleaning.value_or(marked ? Cleaning::open_clip : Cleaning::transformers));
        const std::unordered_map<std::string, Id> ids = bpe.read_vocabulary(folder / "vocab.json");

        bpe.merges_ = detail::MergeRules(static_cast<std::size_t>(std::count(rest.begin(), rest.end(), '\n')) + 1);
        for (std::size_t line = has_version ? 2 : 1; !rest.empty(); ++line) {
            const std::string_view content = detail::take_line(rest);
            if (content.empty()) continue;
            const std::string where = detail::at_line(merges_path, line);
            const auto [left, right] = parse_merge(content, where);
            const auto left_id = ids.find(left);
            const auto right_id = ids.find(right);
            const auto result = ids.find(left + right);
            if (left_id == ids.end() || right_id == ids.end() || result == ids.end())
                throw Error(where, "the two symbols or what they make are not in vocab.json");
            if (!bpe.merges_.add({left_id->second, right_id->second, result->second}))
                throw Error(where, "the same merge stands on an earlier line");
        }
        return bpe;
    }

    /// Fills tokens, byte ids and special ids from vocab.json; returns the ids by token.
    [[gnu::cold]] std::unordered_map<std::string, Id> read_vocabulary(const std::filesystem::path& path) {
        const std::string where = path.string();
        const MappedFile file(path);
        const auto* first = reinterpret_cast<const char*>(file.bytes().data());
        detail::JsonLeaves json;
        if (detail::json_fault(std::string_view(first, file.bytes().size()), json)) {
            throw Error(where, "a JSON object of tokens and ids", "something else");
        }
        std::vector<bool> seen(json.leaves.size());
        tokens_.resize(json.leaves.size());
        start_ = end_ = -1;
        std::unordered_map<std::string, Id> ids;
        ids.reserve(2 * json.leaves.size());
        for (const detail::JsonLeaf& leaf : json.leaves) {
            const std::string& name = leaf.path;
            if (leaf.depth != 1 || leaf.kind != detail::JsonLeaf::Kind::number || leaf.number >= seen.size())
                throw Error(where, "ids from 0 to " + std::to_string(seen.size() - 1) + ", each once",
                            "\"" + name + "\": " +
                                (leaf.kind == detail::JsonLeaf::Kind::text ? "\"" + leaf.text + "\"" : leaf.text));
            const auto id = static_cast<std::size_t>(leaf.number);
            if (seen[id]) throw Error(where, "each id once", std::to_string(id) + " twice");
            seen[id] = true;
            if (is_special(name, &detail::SpecialLiterals::start)) {
                start_ = static_cast<Id>(id);
            } else if (is_special(name, &detail::SpecialLiterals::end)) {
                end_ = static_cast<Id>(id);
            } else {
                const std::optional<std::string> bytes = detail::byte_alphabet.bytes(name);
                if (!bytes) throw Error(where, "\"" + name + "\" holds a character that stands for no byte");
                tokens_[id] = *bytes;
                ids.emplace(*bytes, static_cast<Id>(id));
            }
        }
        if (start_ < 0 || end_ < 0) throw Error(where, "it lacks <|startoftext|> or <|endoftext|>");
        name_specials();
        for (unsigned byte = 0; byte < 256; ++byte) {
            const std::string token(1, static_cast<char>(byte));
            const auto inner = ids.find(token);
            const auto last = ids.find(token + std::string(detail::word_end));
            if (inner == ids.end() || last == ids.end())
                throw Error(where, "it lacks \"" + detail::byte_alphabet.symbols(token) + "\" or \"" +
                                       detail::byte_alphabet.symbols(token) + "</w>\", a token that each byte needs");
            byte_ids_[byte] = inner->second;
            last_ids_[byte] = last->second;
        }
        return ids;
    }

    static bool is_special(std::string_view name, std::string_view detail::SpecialLiterals::*which) {
        return name == detail::special_literals(Cleaning::transformers).*which ||
               name == detail::special_literals(Cleaning::open_clip).*which;
    }

    /// Byte-pair encoding of one word: the lowest rank first, of equal ranks the leftmost.
    void append_word(std::string_view word, Scratch& scratch, std::vector<Id>& out) const {
        std::vector<Id>& ids = scratch.ids;
        ids.clear();
        for (const char byte : word) ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
        ids.back() = last_ids_[static_cast<unsigned char>(word.back())];
        merges_.apply(ids, scratch.ranks);
        out.insert(out.end(), ids.begin(), ids.end());
    }

    Cleaning cleaning_;
    std::vector<std::string> tokens_;  ///< bytes; a token that ends a word has "</w>" behind
    detail::MergeRules merges_;
    std::array<Id, 256> byte_ids_{};
    std::array<Id, 256> last_ids_{};
    Id start_ = 0;
    Id end_ = 0;
};

}  // namespace tandem::inline TANDEM_ABI

#endif

// ---- tandem/data/bpe_trainer.hpp ----

// Learns a vocabulary for the BPE tokenizer from captions.

#if __has_include(<utf8proc.h>) && __has_include(<zlib.h>) && __has_include(<zconf.h>)

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// Pair counts over a set of distinct words, kept up to date from merge to merge.
class PairCounts {
public:
    /// An ordered pair of tokens as one number, so that the lower pair wins where counts are equal.
    using Pair = std::uint64_t;

    explicit PairCounts(const std::map<std::string, std::int64_t>& words) {
        std::array<Id, 256> ids{};
        for (std::size_t id = 0; id < ids.size(); ++id) ids[byte_alphabet.byte_of_id[id]] = static_cast<Id>(id);
        for (const auto& [text, count] : words) {
            Word word{{}, count};
            for (const char byte : text) word.ids.push_back(ids[static_cast<unsigned char>(byte)]);
            word.ids.back() += 256;
            words_.push_back(std::move(word));
        }
        for (std::size_t i = 0; i < words_.size(); ++i) {
            for_each_pair(words_[i], [&](Pair pair) {
                State& state = pairs_[pair];
                state.count += words_[i].count;
                if (state.words.empty() || state.words.back() != i) state.words.push_back(i);
            });
        }
        for (const auto& [pair, state] : pairs_) queue_.push({state.count, pair});
    }

    static Id left(Pair pair) { return static_cast<Id>(pair >> 32); }
    static Id right(Pair pair) { return static_cast<Id>(pair & 0xFFFFFFFFU); }

    /// Removes and gives the most frequent pair, the lowest one of several; false when no word has two tokens left.
    bool pop(Pair& pair) {
        while (!queue_.empty()) {
            const Entry top = queue_.top();
            queue_.pop();
            const std::int64_t count = pairs_.at(top.pair).count;
            if (count == top.count && count > 0) {
                pair = top.pair;
                return true;
            }
            // Merges elsewhere took some of it since it was queued.
            if (count > 0 && count < top.count) queue_.push({count, top.pair});
        }
        return false;
    }

    /// Replaces every occurrence of a pair, left to right in each word.
    void merge(Pair pair, Id result) {
        std::unordered_set<Pair> fresh;
        const std::vector<std::size_t> affected = std::move(pairs_.at(pair).words);
        for (const std::size_t i : affected) {
            Word& word = words_[i];
            for_each_pair(word, [&](Pair old) { pairs_.at(old).count -= word.count; });
            std::size_t kept = 0;
            for (std::size_t at = 0; at < word.ids.size(); ++kept) {
                const bool here = at + 1 < word.ids.size() && key(word.ids[at], word.ids[at + 1]) == pair;
                word.ids[kept] = here ? result : word.ids[at];
                at += here ? 2 : 1;
            }
            word.ids.resize(kept);
            for_each_pair(word, [&](Pair now) {
                State& state = pairs_[now];
                state.count += word.count;
                if (left(now) != result && right(now) != result) return;
                fresh.insert(now);
                if (state.words.empty() || state.words.back() != i) state.words.push_back(i);
            });
        }
        for (const Pair now : fresh) queue_.push({pairs_.at(now).count, now});
    }

private:
    struct Word {
        std::vector<Id> ids;
        std::int64_t count = 0;
    };

    struct State {
        std::int64_t count = 0;
        std::vector<std::size_t> words;  ///< where it occurs, or did
    };

    struct Entry {
        std::int64_t count = 0;
        Pair pair = 0;
        bool operator<(const Entry& other) const {
            return count != other.count ? count < other.count : pair > other.pair;
        }
    };

    static Pair key(Id left, Id right) {
        return (static_cast<Pair>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
    }

    template <class Body>
    static void for_each_pair(const Word& word, const Body& body) {
        for (std::size_t i = 0; i + 1 < word.ids.size(); ++i) body(key(word.ids[i], word.ids[i + 1]));
    }

    std::vector<Word> words_;
    std::unordered_map<Pair, State> pairs_;
    std::priority_queue<Entry> queue_;
};

}  // namespace detail

/// Learns a vocabulary by byte-pair encoding (Sennrich, Haddow, Birch 2016): the most frequent pair of neighbouring
/// tokens becomes a token, again and again. `vocabulary` counts the 256 bytes, the 256 bytes that end a word, the
/// merges and the two special tokens; end of text is the highest id, on which pooling by argmax relies. Captions are
/// cleaned and split as encode() does it; special tokens in them are left out. The same captions in any order give the
/// same result. Where every word is one token before the vocabulary is full, it stays smaller: ask the result. Throws
/// Error where `vocabulary` is below 514.
inline Bpe train_bpe(std::span<const std::string> captions, std::size_t vocabulary,
                     Cleaning cleaning = Cleaning::open_clip) {
    constexpr std::size_t bytes = 512;
    constexpr std::size_t specials = 2;
    if (vocabulary < bytes + specials) {
        throw Error("train_bpe", "a vocabulary of at least 514 (512 bytes and 2 special tokens)",
                    std::to_string(vocabulary));
    }
    std::map<std::string, std::int64_t> words;
    for (const std::string& caption : captions) {
        detail::split_text(
            caption, cleaning, [&](std::string_view word) { ++words[std::string(word)]; }, [](bool) {});
    }
    detail::PairCounts pairs(words);
    std::vector<Bpe::Merge> merges;
    detail::PairCounts::Pair pair = 0;
    // No pair makes a token that another made before: within its ends a token is always merged in the same order.
    while (merges.size() + bytes + specials < vocabulary && pairs.pop(pair)) {
        pairs.merge(pair, static_cast<Id>(bytes + merges.size()));
        merges.push_back({detail::PairCounts::left(pair), detail::PairCounts::right(pair)});
    }
    return Bpe(merges, cleaning);
}

}  // namespace tandem::inline TANDEM_ABI

#endif

// ---- tandem/core/random.hpp ----

// Reproducible random numbers: a seed and a stream name every sequence, so that parallel work needs no shared state.

namespace tandem::inline TANDEM_ABI {

/// A seed that a user names where they start something random: Clip<config> model{Seed{0}}.
struct Seed {
    std::uint64_t value = 0;
};

/// SplitMix64 (Steele, Lea, Flood 2014): one 64-bit word of state, so a snapshot of it is one integer.
/// Random(seed, stream) gives independent sequences for different streams of one seed.
class Random {
public:
    explicit constexpr Random(Seed seed, std::uint64_t stream = 0)
        : state_(mix(seed.value + increment) ^ mix(mix(stream) + 0x632be59bd9b4e019ULL)) {}

    constexpr std::uint64_t next() { return mix(state_ += increment); }

    /// Uniform in [0, 1), 53 bits.
    constexpr double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
    constexpr double uniform(double low, double high) { return low + (high - low) * uniform(); }

    /// Uniform in [0, count); count must be positive. The bias of the multiply-shift is below count / 2^64.
    constexpr std::size_t below(std::size_t count) {
        return static_cast<std::size_t>((static_cast<Wide>(next()) * count) >> 64);
    }

    /// Standard normal by Box–Muller; the second value is dropped so that the state stays one word.
    double normal() {
        const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
        return radius * std::cos(2.0 * std::numbers::pi * uniform());
    }

    constexpr std::uint64_t state() const { return state_; }
    constexpr void set_state(std::uint64_t state) { state_ = state; }

private:
    // nvcc takes __extension__ before a typedef, but not before using.
    __extension__ typedef unsigned __int128 Wide;

    static constexpr std::uint64_t increment = 0x9e3779b97f4a7c15ULL;

    static constexpr std::uint64_t mix(std::uint64_t z) {
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        return z ^ (z >> 31);
    }

    std::uint64_t state_;
};

/// Fisher–Yates; the same random state gives the same order on every platform (std::shuffle does not promise that).
template <class Range>
void shuffle(Range& range, Random& random) {
    for (std::size_t i = range.size(); i > 1; --i) {
        const std::size_t j = random.below(i);
        const auto held = range[i - 1];
        range[i - 1] = range[j];
        range[j] = held;
    }
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/data/image.hpp ----

// RGB images in memory; JPEG and PNG files decoded to them, PNG files encoded from them.

// A cross compiler on Debian finds jpeglib.h, but not jconfig.h, the part that is kept for every architecture apart.
#if __has_include(<jpeglib.h>) && __has_include(<jconfig.h>)
#include <jpeglib.h>
// (jerror.h needs the types of jpeglib.h.)
#include <jerror.h>
#endif
#if __has_include(<png.h>)
#include <png.h>
#endif

namespace tandem::inline TANDEM_ABI {

/// 8 bits a channel, as sRGB files store them.
struct Colour {
    std::uint8_t red = 0;
    std::uint8_t green = 0;
    std::uint8_t blue = 0;

    bool operator==(const Colour&) const = default;
};

inline constexpr Colour black{0, 0, 0};
inline constexpr Colour white{255, 255, 255};

/// An RGB picture: `pixels` is [height][width][3], row by row from the top, and holds 3 * width * height bytes.
struct Image {
    int width = 0;
    int height = 0;
    std::vector<std::uint8_t> pixels;

    bool operator==(const Image&) const = default;
};

struct DecodeOptions {
    /// An image of more pixels is refused from its header, before memory for it is asked for.
    std::size_t pixel_limit = std::size_t{1} << 26;

    /// What transparent PNG pixels lie on: (colour * alpha + background * (255 - alpha)) / 255, rounded, as Pillow's
    /// paste with a mask. Empty: alpha is dropped and the stored colours are used, as Pillow's convert("RGB").
    std::optional<Colour> background = std::nullopt;
};

/// The Error of an image with more pixels than the limit, so that a caller can count these apart.
class OversizedImage : public Error {
public:
    using Error::Error;
};

namespace detail {

/// The bytes of a width x height image; refuses sizes above `limit` pixels and those memory cannot hold.
inline std::vector<std::uint8_t> allocate_pixels(std::size_t width, std::size_t height, std::size_t channels,
                                                 std::string_view name) {
    try {
        return std::vector<std::uint8_t>(width * height * channels);
    } catch (const std::exception&) {
        throw Error(name, "no memory for " + std::to_string(width) + " x " + std::to_string(height) + " pixels");
    }
}

/// Throws where a header claims no pixels, or more than `limit`.
inline void check_pixel_count(std::size_t width, std::size_t height, std::size_t limit, std::string_view name) {
    // 2^31 a side keeps every later product of 64 bits from wrapping.
    const bool fits = width < (std::size_t{1} << 31) && height < (std::size_t{1} << 31) && width * height <= limit;
    if (width > 0 && height > 0 && fits) return;
    throw OversizedImage(name, "an image of 1 to " + std::to_string(limit) + " pixels",
                         std::to_string(width) + " x " + std::to_string(height) + " pixels in the header");
}

/// Throws unless the image has pixels, and as many as its sides say.
inline void check_image(const Image& image, std::string_view where) {
    if (image.width > 0 && image.height > 0 &&
        image.pixels.size() ==
            std::size_t{3} * static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height)) {
        return;
    }
    throw Error(where, "3 * width * height bytes of pixels",
                std::to_string(image.pixels.size()) + " bytes for " + std::to_string(image.width) + " x " +
                    std::to_string(image.height));
}

/// Where a C library's error callback leaves its message and jumps to.
struct JumpTarget {
    std::jmp_buf jump;
    std::array<char, 256> message;

    void set(const char* text) noexcept { std::snprintf(message.data(), message.size(), "%s", text); }
};

/// Calls body; false where a callback jumped out of it. The jump runs no destructors, so body calls the library and
/// owns nothing meanwhile. Compilers never inline a function that calls setjmp: the caller's locals outlive the jump.
template <class Body>
bool survives_jump(JumpTarget& target, const Body& body) {
    if (setjmp(target.jump) != 0) return false;
    body();
    return true;
}

/// colour * alpha over background, divided by 255 and rounded, in Pillow's integers (libImaging/Paste.c, BLEND).
inline std::uint8_t blend(unsigned colour, unsigned background, unsigned alpha) {
    const unsigned sum = colour * alpha + background * (255U - alpha) + 128U;
    return static_cast<std::uint8_t>(((sum >> 8) + sum) >> 8);
}

inline void compose_row(const std::uint8_t* rgba, std::size_t width, Colour background, std::uint8_t* rgb) {
    for (std::size_t x = 0; x < width; ++x, rgba += 4, rgb += 3) {
        rgb[0] = blend(rgba[0], background.red, rgba[3]);
        rgb[1] = blend(rgba[1], background.green, rgba[3]);
        rgb[2] = blend(rgba[2], background.blue, rgba[3]);
    }
}

#if __has_include(<png.h>)

[[noreturn]] inline void png_failed(png_structp png, png_const_charp message) {
    auto& target = *static_cast<JumpTarget*>(png_get_error_ptr(png));
    target.set(message);
    std::longjmp(target.jump, 1);
}

inline void png_warned(png_structp, png_const_charp) {}

/// One PNG file in memory being decoded.
class PngReader {
public:
    PngReader(std::span<const std::byte> bytes, std::string_view name) : bytes_(bytes), name_(name) {
        png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, &error_, png_failed, png_warned);
        if (png_ == nullptr) throw Error(name_, "libpng could not be started");
    }
    PngReader(const PngReader&) = delete;
    PngReader& operator=(const PngReader&) = delete;
    ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }

    Image read(const DecodeOptions& options) {
        constexpr std::size_t header_end = 24;  // signature, length, "IHDR", width, height
        if (bytes_.size() < header_end) throw Error(name_, "damaged PNG: the file ends inside its header");
        const std::size_t width = big_endian(16);
        const std::size_t height = big_endian(20);
        check_pixel_count(width, height, options.pixel_limit, name_);

        const bool compose = options.background.has_value();
        guarded([&] { begin(compose); });
        const bool alpha = channels_ == 4;
        const bool buffered = alpha && passes_ > 1;
        Image image{static_cast<int>(width), static_cast<int>(height), allocate_pixels(width, height, 3, name_)};
        std::vector<std::uint8_t> rgba;
        if (alpha) rgba = allocate_pixels(width, buffered ? height : 1, 4, name_);

        guarded([&] {
            for (int pass = 0; pass < passes_; ++pass) {
                for (std::size_t y = 0; y < height; ++y) {
                    std::uint8_t* row = image.pixels.data() + y * width * 3;
                    std::uint8_t* target = alpha ? rgba.data() + (buffered ? y * width * 4 : 0) : row;
                    png_read_row(png_, target, nullptr);
                    if (alpha && pass + 1 == passes_) compose_row(target, width, *options.background, row);
                }
            }
            png_read_end(png_, nullptr);
        });
        return image;
    }

private:
    template <class Body>
    void guarded(const Body& body) {
        if (!survives_jump(error_, body)) throw Error(name_, "damaged PNG: " + std::string(error_.message.data()));
    }

    void begin(bool compose) {
        info_ = png_create_info_struct(png_);
        if (info_ == nullptr) png_error(png_, "no memory");
        png_set_read_fn(png_, this, [](png_structp png, png_bytep out, std::size_t count) {
            auto& self = *static_cast<PngReader*>(png_get_io_ptr(png));
            if (count > self.bytes_.size() - self.position_) png_error(png, "the file ends too early");
            std::memcpy(out, self.bytes_.data() + self.position_, count);
            self.position_ += count;
        });
        png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
        // Every checksum counts, and what colours do not need (profiles, texts) is not decompressed.
        png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
        png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
        png_read_info(png_, info_);
        png_set_expand(png_);  // palettes to RGB, 1, 2 and 4 bits to 8, tRNS to alpha
        png_set_strip_16(png_);
        png_set_gray_to_rgb(png_);
        if (!compose) png_set_strip_alpha(png_);
        passes_ = png_set_interlace_handling(png_);
        png_read_update_info(png_, info_);
        channels_ = png_get_channels(png_, info_);
    }

    std::size_t big_endian(std::size_t at) const {
        std::size_t value = 0;
        for (std::size_t i = 0; i < 4; ++i) value = value << 8 | std::to_integer<std::size_t>(bytes_[at + i]);
        return value;
    }

    std::span<const std::byte> bytes_;
    std::string_view name_;
    std::size_t position_ = 0;
    JumpTarget error_;
    png_structp png_ = nullptr;
    png_infop info_ = nullptr;
    int passes_ = 1;
    int channels_ = 3;
};

#endif

#if __has_include(<jpeglib.h>) && __has_include(<jconfig.h>)

[[noreturn]] inline void jpeg_failed(j_common_ptr info) {
    auto& target = *static_cast<JumpTarget*>(info->client_data);
    std::array<char, JMSG_LENGTH_MAX> message;
    info->err->format_message(info, message.data());
    target.set(message.data());
    std::longjmp(target.jump, 1);
}

/// libjpeg only warns of damage and goes on with grey blocks. Warnings about stray bytes between segments and about odd
/// header fields stay silent, since every pixel is still there.
inline void jpeg_warned(j_common_ptr info, int level) {
    const int code = info->err->msg_code;
    const bool harmless = code == JWRN_EXTRANEOUS_DATA || code == JWRN_JFIF_MAJOR || code == JWRN_ADOBE_XFORM;
    if (level < 0 && !harmless) jpeg_failed(info);
}

/// Encoders write about ten scans; a small hostile file can ask for thousands, each a pass over the whole image.
inline void jpeg_progressed(j_common_ptr info) {
    constexpr int scan_limit = 100;
    if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= scan_limit) return;
    auto& target = *static_cast<JumpTarget*>(info->client_data);
    target.set("more than 100 scans");
    std::longjmp(target.jump, 1);
}

/// One JPEG file in memory being decoded with libjpeg's defaults: accurate integer DCT, smooth chroma upsampling.
class JpegReader {
public:
    JpegReader(std::span<const std::byte> bytes, std::string_view name) : bytes_(bytes), name_(name) {
        info_.err = jpeg_std_error(&manager_);
        manager_.error_exit = jpeg_failed;
        manager_.emit_message = jpeg_warned;
        progress_.progress_monitor = jpeg_progressed;
        info_.client_data = &error_;
    }
    JpegReader(const JpegReader&) = delete;
    JpegReader& operator=(const JpegReader&) = delete;
    ~JpegReader() { jpeg_destroy_decompress(&info_); }

    Image read(const DecodeOptions& options) {
        guarded([&] {
            jpeg_create_decompress(&info_);  // (keeps err and client_data, clears the rest)
            info_.progress = &progress_;
            jpeg_mem_src(&info_, reinterpret_cast<const unsigned char*>(bytes_.data()), bytes_.size());
            jpeg_read_header(&info_, TRUE);
        });
        const std::size_t width = info_.image_width;
        const std::size_t height = info_.image_height;
        check_pixel_count(width, height, options.pixel_limit, name_);
        const bool cmyk = info_.num_components == 4;
        Image image{static_cast<int>(width), static_cast<int>(height), allocate_pixels(width, height, 3, name_)};
        std::vector<std::uint8_t> row;
        if (cmyk) row = allocate_pixels(width, 1, 4, name_);

        guarded([&] {
            info_.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
            jpeg_start_decompress(&info_);
            while (info_.output_scanline < info_.output_height) {
                std::uint8_t* rgb = image.pixels.data() + info_.output_scanline * width * 3;
                std::uint8_t* target = cmyk ? row.data() : rgb;
                jpeg_read_scanlines(&info_, &target, 1);
                if (cmyk) convert_cmyk(row.data(), width, rgb);
            }
            jpeg_finish_decompress(&info_);
        });
        return image;
    }

private:
    template <class Body>
    void guarded(const Body& body) {
        if (!survives_jump(error_, body)) throw Error(name_, "damaged JPEG: " + std::string(error_.message.data()));
    }

    /// Files store inverted inks, as Adobe writes them: black - black * ink / 255, each clamped by Pillow's integers
    /// (Pillow JpegImagePlugin.py "CMYK;I", libImaging/Convert.c cmyk2rgb).
    static void convert_cmyk(const std::uint8_t* cmyk, std::size_t width, std::uint8_t* rgb) {
        for (std::size_t x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
            for (std::size_t c = 0; c < 3; ++c) {
                rgb[c] = static_cast<std::uint8_t>(cmyk[3] - blend(255U - cmyk[c], 0, cmyk[3]));
            }
        }
    }

    std::span<const std::byte> bytes_;
    std::string_view name_;
    JumpTarget error_;
    jpeg_error_mgr manager_{};
    jpeg_progress_mgr progress_{};
    jpeg_decompress_struct info_{};
};

#endif

/// The name of a format that is known but not decoded; empty where the bytes tell nothing.
inline std::string_view foreign_format(std::span<const std::byte> bytes) {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), std::min<std::size_t>(bytes.size(), 512));
    if (text.starts_with("GIF8")) return "GIF";
    if (text.starts_with("RIFF") && text.substr(0, 12).ends_with("WEBP")) return "WebP";
    if (text.starts_with("BM")) return "BMP";
    if (text.starts_with(std::string_view("II*\0", 4)) || text.starts_with(std::string_view("MM\0*", 4))) return "TIFF";
    if (text.size() >= 12 && text.substr(4, 4) == "ftyp") return "AVIF, HEIC or a video";
    if (text.starts_with("%PDF")) return "PDF";
    if (text.starts_with("\x1f\x8b")) return "gzip";
    if (text.find("<svg") != text.npos || text.starts_with("<?xml")) return "SVG or XML";
    if (text.find("<html") != text.npos || text.find("<!DOCTYPE html") != text.npos) return "HTML";
    return {};
}

inline bool starts_with(std::span<const std::byte> bytes, std::string_view magic) {
    return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

}  // namespace detail

/// Decodes a JPEG (baseline or progressive; grey, RGB, YCbCr, CMYK, YCCK) or a PNG (every colour type and depth,
/// interlaced or not), told apart by their first bytes, to RGB. `name` is what errors call the data.
///
/// PNG pixels equal Pillow's open(...).convert("RGB"), with one exception: 16-bit grey is reduced by its high byte, as
/// 16-bit RGB is (Pillow clamps it to 255 instead, which leaves nearly all of it white). JPEG pixels equal Pillow's up
/// to the version of libjpeg-turbo (one or two levels). EXIF orientation and colour profiles are ignored, as Pillow's.
/// Throws Error for another format, a size above options.pixel_limit, and truncated or damaged data, which Pillow lets
/// pass in some cases (a wrong Huffman code, a missing end marker).
inline Image decode_image(std::span<const std::byte> bytes, std::string_view name,
                          [[maybe_unused]] DecodeOptions options = {}) {
    if (detail::starts_with(bytes, "\xff\xd8\xff")) {
#if __has_include(<jpeglib.h>) && __has_include(<jconfig.h>)
        return detail::JpegReader(bytes, name).read(options);
#else
        throw Error(name, "is a JPEG, and the headers of libjpeg were missing when this program was compiled");
#endif
    }
    if (detail::starts_with(bytes, "\x89PNG\r\n\x1a\n")) {
#if __has_include(<png.h>)
        return detail::PngReader(bytes, name).read(options);
#else
        throw Error(name, "is a PNG, and the headers of libpng were missing when this program was compiled");
#endif
    }
    const std::string_view format = detail::foreign_format(bytes);
    throw Error(name, "a JPEG or PNG image",
                bytes.empty()    ? std::string("an empty file")
                : format.empty() ? std::string("an unknown format")
                                 : std::string(format) + " data");
}

/// Reads and decodes a file; see decode_image. Throws Error naming the path.
inline Image read_image(const std::filesystem::path& path, DecodeOptions options = {}) {
    const std::string name = path.string();
    std::error_code failure;
    if (!std::filesystem::is_regular_file(path, failure)) throw Error(name, "is not a file that can be read");
    const std::uintmax_t size = std::filesystem::file_size(path, failure);
    // 8 bytes are the most a stored pixel takes (16-bit RGBA); the rest is room for profiles and texts.
    constexpr std::uintmax_t metadata = std::uintmax_t{1} << 26;
    if (failure || (size > metadata && (size - metadata) / 8 > options.pixel_limit)) {
        throw OversizedImage(name,
                             "is larger than an image of " + std::to_string(options.pixel_limit) + " pixels can be");
    }
    std::vector<std::byte> bytes(static_cast<std::size_t>(size));
    std::ifstream file(path, std::ios::binary);
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!file) throw Error(name, "cannot be read");
    return decode_image(bytes, name, options);
}

#if __has_include(<png.h>)

/// The image as an 8-bit RGB PNG file. Throws Error for an image whose pixels do not fit its sides.
inline std::vector<std::byte> encode_png(const Image& image) {
    detail::check_image(image, "encode_png");
    struct Writer {
        detail::JumpTarget error;
        std::vector<std::byte> bytes;
        png_structp png = nullptr;
        png_infop info = nullptr;

        Writer() = default;
        Writer(const Writer&) = delete;
        Writer& operator=(const Writer&) = delete;
        ~Writer() { png_destroy_write_struct(&png, &info); }

        static bool append(Writer& self, const std::byte* data, std::size_t count) noexcept try {
            self.bytes.insert(self.bytes.end(), data, data + count);
            return true;
        } catch (const std::exception&) {
            return false;
        }
        static void write(png_structp png, png_bytep data, std::size_t count) {
            auto& self = *static_cast<Writer*>(png_get_io_ptr(png));
            if (!append(self, reinterpret_cast<const std::byte*>(data), count)) png_error(png, "no memory");
        }
    };
    Writer writer;
    writer.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &writer.error, detail::png_failed, detail::png_warned);
    if (writer.png == nullptr) throw Error("encode_png", "libpng could not be started");
    const bool written = detail::survives_jump(writer.error, [&] {
        writer.info = png_create_info_struct(writer.png);
        if (writer.info == nullptr) png_error(writer.png, "no memory");
        png_set_write_fn(writer.png, &writer, Writer::write, nullptr);
        png_set_user_limits(writer.png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
        png_set_IHDR(writer.png, writer.info, static_cast<png_uint_32>(image.width),
                     static_cast<png_uint_32>(image.height), 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                     PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
        png_write_info(writer.png, writer.info);
        const std::size_t row = image.pixels.size() / static_cast<std::size_t>(image.height);
        for (std::size_t at = 0; at < image.pixels.size(); at += row) {
            png_write_row(writer.png, image.pixels.data() + at);
        }
        png_write_end(writer.png, writer.info);
    });
    if (!written) throw Error("encode_png", writer.error.message.data());
    return std::move(writer.bytes);
}

#endif

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/data/filter.hpp ----

// Filters that resize, antialiased: of images, and of tables of positions.

namespace tandem::inline TANDEM_ABI {

/// Pillow's BILINEAR (a triangle) and BICUBIC (Keys 1981, a = -0.5), both widened by the reduction.
enum class Filter { bilinear, bicubic };

namespace detail {

/// A product that is never fused with an addition: with -mfma the last bit, and with it a pixel, could differ.
inline double product(double a, double b) {
    const volatile double rounded = a * b;
    return rounded;
}

inline double filter_support(Filter filter) {
    return filter == Filter::bicubic ? 2.0 : 1.0;
}

/// The filter's value at x (Pillow libImaging/Resample.c:20-63, in its order of operations).
inline double filter_value(Filter filter, double x) {
    const double distance = std::abs(x);
    if (filter == Filter::bilinear) return distance < 1.0 ? 1.0 - distance : 0.0;
    if (distance < 1.0) return product(product(product(1.5, distance) - 2.5, distance), distance) + 1.0;
    if (distance < 2.0) return (product(product(distance - 5.0, distance) + 8.0, distance) - 4.0) * -0.5;
    return 0.0;
}

/// The inputs of `source` that output i of `size` is made of, where these together cover [low, high): the first one is
/// returned, `weights` of it and those after it add up to 1. (Resample.c:185-286, precompute_coeffs; `low` and `high` are
/// floats there too.)
inline int filter_taps(int source, float low, float high, int size, int i, Filter filter, std::vector<double>& weights) {
    const double scale = static_cast<double>(high - low) / size;
    const double stretch = std::max(scale, 1.0);
    const double support = filter_support(filter) * stretch;
    const double shrink = 1.0 / stretch;
    const double centre = low + product(i + 0.5, scale);
    const int first = std::max(static_cast<int>(centre - support + 0.5), 0);
    const int end = std::min(static_cast<int>(centre + support + 0.5), source);
    weights.clear();
    double sum = 0;
    for (int x = first; x < end; ++x) {
        weights.push_back(filter_value(filter, product(x - centre + 0.5, shrink)));
        sum += weights.back();
    }
    for (double& weight : weights) weight = sum != 0 ? weight / sum : weight;
    return first;
}

/// A table of positions, `prefix` rows and then `from` x `from` patches, for `to` x `to` patches: bicubic and antialiased, as
/// open_clip/model.py's resize_pos_embed has torch.nn.functional.interpolate do it. Rows of `width`; the prefix stays.
inline std::vector<float> resize_positions(const std::vector<float>& table, std::size_t prefix, std::size_t from,
                                           std::size_t to, std::size_t width) {
    const auto pass = [&](const float* in, float* out, std::size_t lines, std::size_t line_in, std::size_t line_out,
                          std::size_t step_in, std::size_t step_out) {
        std::vector<double> weights;
        for (std::size_t i = 0; i < to; ++i) {
            const auto first = static_cast<std::size_t>(filter_taps(static_cast<int>(from), 0, static_cast<float>(from),
                                                                    static_cast<int>(to), static_cast<int>(i),
                                                                    Filter::bicubic, weights));
            for (std::size_t line = 0; line < lines; ++line) {
                for (std::size_t j = 0; j < width; ++j) {
                    double sum = 0;
                    for (std::size_t t = 0; t < weights.size(); ++t)
                        sum += weights[t] * static_cast<double>(in[line * line_in + (first + t) * step_in + j]);
                    out[line * line_out + i * step_out + j] = static_cast<float>(sum);
                }
            }
        }
    };
    std::vector<float> across(from * to * width), resized((prefix + to * to) * width);
    std::copy_n(table.begin(), prefix * width, resized.begin());
    pass(table.data() + prefix * width, across.data(), from, from * width, to * width, width, width);
    pass(across.data(), resized.data() + prefix * width, to, width, width, to * width, to * width);
    return resized;
}

}  // namespace detail

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/kernels/isa.hpp ----

// Instruction sets, what the CPU at hand has of them, and the one choice that all kernels follow.

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace tandem::inline TANDEM_ABI::kernels {

/// Kernels are written for: plain C++ (the oracle), the build's own -march through xsimd, and the instruction sets
/// below, which run whatever the program was compiled for.
enum class Isa { scalar, native, avx2, avx512, avx512bf16, neon };

inline constexpr std::array<std::string_view, 6> isa_names{"scalar", "native", "avx2", "avx512", "avx512bf16", "neon"};

constexpr std::string_view name_of(Isa isa) {
    return isa_names[static_cast<std::size_t>(isa)];
}

/// What the CPU reports. avx512 stands for F, BW, DQ and VL; avx2 for AVX2, FMA and F16C; bf16 and int8 for products of
/// bfloat16 pairs and of byte quadruples, on top of avx512 or neon; i8mm for those of unsigned and signed bytes on
/// neon.
struct CpuFeatures {
    bool avx2 = false;
    bool avx512 = false;
    bool neon = false;
    bool bf16 = false;
    bool slow_bf16 = false;  ///< at half the rate of float's products: Intel's CPUs up to Emerald Rapids
    bool int8 = false;
    bool i8mm = false;
};

inline const CpuFeatures& cpu_features() {
    static const CpuFeatures found = [] {
        CpuFeatures cpu;
#if defined(__x86_64__)
        cpu.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        cpu.avx512 = cpu.avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
        cpu.bf16 = cpu.avx512 && __builtin_cpu_supports("avx512bf16");
        cpu.slow_bf16 = __builtin_cpu_is("intel") != 0;
        cpu.int8 = cpu.avx512 && __builtin_cpu_supports("avx512vnni");
#elif defined(__aarch64__) && defined(__linux__)
        cpu.neon = true;
        cpu.bf16 = (getauxval(AT_HWCAP2) & HWCAP2_BF16) != 0;
        cpu.int8 = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
        cpu.i8mm = (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
#elif defined(__aarch64__)
        cpu.neon = true;
#endif
        return cpu;
    }();
    return found;
}

constexpr bool has(const CpuFeatures& cpu, Isa isa) {
    switch (isa) {
        case Isa::avx2:
            return cpu.avx2;
        case Isa::avx512:
            return cpu.avx512;
        case Isa::avx512bf16:
            return cpu.avx512 && cpu.bf16;
        case Isa::neon:
            return cpu.neon;
        default:
            return true;
    }
}

/// Whether that is AVX-512, with or without products of bfloat16 pairs.
constexpr bool is_avx512(Isa isa) {
    return isa == Isa::avx512 || isa == Isa::avx512bf16;
}

/// The instruction set of that name. Throws Error if there is none, or if the CPU does not have it.
inline Isa isa_named(std::string_view name) {
    std::string available;
    for (std::size_t i = 0; i < isa_names.size(); ++i) {
        const Isa isa{static_cast<int>(i)};
        if (!has(cpu_features(), isa)) continue;
        if (isa_names[i] == name) return isa;
        available += (available.empty() ? "" : ", ") + std::string(isa_names[i]);
    }
    throw Error("TANDEM_ISA", "one that this CPU has: " + available, "\"" + std::string(name) + "\"");
}

/// The instruction set in use: the widest that the CPU has and that is not slow, or what the environment variable
/// TANDEM_ISA names. Chosen at the first call.
inline Isa active_isa() {
    static const Isa chosen = [] {
        if (const char* forced = std::getenv("TANDEM_ISA")) return isa_named(forced);
        const CpuFeatures& cpu = cpu_features();
        if (cpu.avx512) return cpu.bf16 && !cpu.slow_bf16 ? Isa::avx512bf16 : Isa::avx512;
        return cpu.avx2 ? Isa::avx2 : cpu.neon ? Isa::neon : Isa::native;
    }();
    return chosen;
}

}  // namespace tandem::inline TANDEM_ABI::kernels

// ---- tandem/kernels/resize_scalar.hpp ----

// The loops of image preprocessing (weighted sums of pixel rows and columns, and pixels to normalised planes), what
// every instruction set's version of them does, and the plain version, which is the oracle.

namespace tandem::inline TANDEM_ABI::kernels {

/// Pillow's fixed point: a weight of 1 is 2^22. Sums are exact in 32 bits as long as 255 times the sum of the weights'
/// magnitudes stays below 2^30.9, whatever the order of summation.
inline constexpr int resize_weight_bits = 22;
inline constexpr std::int32_t resize_rounding = 1 << (resize_weight_bits - 1);

/// Bytes that `across` may read behind the last pixel it uses in a row.
inline constexpr std::size_t resize_overread = 16;

/// Rows that `across` takes at once.
inline constexpr std::size_t resize_rows = 4;

/// The inputs of one output: `taps` of them from `first` on, whose packed weights begin at `packed`.
struct ResizeTaps {
    std::size_t first;
    std::size_t taps;
    std::size_t packed;
};

/// (value / 255 - mean) / deviation of each channel's 256 values, and the same as two products that some instruction
/// sets compute faster than they look it up.
struct NormaliseTable {
    std::array<std::array<float, 256>, 3> values;
    std::array<float, 3> mean;
    std::array<std::array<float, 2>, 3> inverse;  ///< 1 / deviation, rounded, and what the rounding took
    bool computable = false;                      ///< those products give every value's bits
};

/// 1 / divisor in float, and what its rounding took.
constexpr std::array<float, 2> inverse_of(float divisor) {
    const double inverse = 1.0 / static_cast<double>(divisor);
    const auto high = static_cast<float>(inverse);
    return {high, static_cast<float>(inverse - static_cast<double>(high))};
}

inline constexpr std::array<float, 2> level_inverse = inverse_of(255.0F);

/// The values of a byte as a share of 255, and a grey pixel of each.
inline constexpr std::array<float, 256> unit_levels = [] {
    std::array<float, 256> values{};
    for (std::size_t i = 0; i < 256; ++i) values[i] = static_cast<float>(i) / 255.0F;
    return values;
}();
inline constexpr std::array<std::uint8_t, 3 * 256> grey_levels = [] {
    std::array<std::uint8_t, 3 * 256> pixels{};
    for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i / 3);
    return pixels;
}();

/// The loops of one instruction set.
struct ResizeKernels {
    /// An output's weights are padded with zeros to a multiple of `group` and packed, `words` for each group.
    std::size_t group;
    std::size_t words;
    void (*pack)(const std::int32_t* weights, std::int32_t* packed);

    /// out[i] = the sum over the taps t of weight[t] * source[t * stride + i], rounded and clamped, for i < bytes.
    void (*down)(const std::uint8_t* source, std::size_t stride, std::size_t bytes, const std::int32_t* packed,
                 std::size_t taps, std::uint8_t* out);

    /// Pixel x of out[r] = the sum over its taps t of weight[t] * pixel first + t of rows[r], for x < count. A row may
    /// be given more than once.
    void (*across)(const std::array<const std::uint8_t*, resize_rows>& rows, const ResizeTaps* outputs,
                   std::size_t count, const std::int32_t* packed, const std::array<std::uint8_t*, resize_rows>& out);

    /// Pixel i's channels go to planes[c * stride + i].
    void (*normalise)(const std::uint8_t* pixels, std::size_t count, const NormaliseTable& table, float* planes,
                      std::size_t stride);
};

namespace resize_scalar {

inline std::uint8_t rounded(std::int32_t sum) {
    return static_cast<std::uint8_t>(std::clamp(sum >> resize_weight_bits, 0, 255));
}

inline void pack(const std::int32_t* weights, std::int32_t* packed) {
    *packed = *weights;
}

/// `count` neighbouring bytes; fixed, so that the loops vectorise.
template <std::size_t count>
void down_block(const std::uint8_t* source, std::size_t stride, const std::int32_t* packed, std::size_t taps,
                std::uint8_t* out) {
    std::array<std::int32_t, count> sums;
    sums.fill(resize_rounding);
    for (std::size_t t = 0; t < taps; ++t, source += stride) {
        for (std::size_t i = 0; i < count; ++i) sums[i] += packed[t] * source[i];
    }
    for (std::size_t i = 0; i < count; ++i) out[i] = rounded(sums[i]);
}

inline void down(const std::uint8_t* source, std::size_t stride, std::size_t bytes, const std::int32_t* packed,
                 std::size_t taps, std::uint8_t* out) {
    constexpr std::size_t block = 32;
    std::size_t i = 0;
    for (; i + block <= bytes; i += block) down_block<block>(source + i, stride, packed, taps, out + i);
    for (; i < bytes; ++i) down_block<1>(source + i, stride, packed, taps, out + i);
}

inline void across(const std::array<const std::uint8_t*, resize_rows>& rows, const ResizeTaps* outputs,
                   std::size_t count, const std::int32_t* packed, const std::array<std::uint8_t*, resize_rows>& out) {
    for (std::size_t r = 0; r < resize_rows; ++r) {
        std::uint8_t* target = out[r];
        for (std::size_t x = 0; x < count; ++x, target += 3) {
            const std::uint8_t* pixel = rows[r] + 3 * outputs[x].first;
            const std::int32_t* weights = packed + outputs[x].packed;
            std::int32_t red = resize_rounding, green = resize_rounding, blue = resize_rounding;
            for (std::size_t t = 0; t < outputs[x].taps; ++t, pixel += 3) {
                red += weights[t] * pixel[0];
                green += weights[t] * pixel[1];
                blue += weights[t] * pixel[2];
            }
            target[0] = rounded(red);
            target[1] = rounded(green);
            target[2] = rounded(blue);
        }
    }
}

inline void normalise(const std::uint8_t* pixels, std::size_t count, const NormaliseTable& table, float* planes,
                      std::size_t stride) {
    for (std::size_t c = 0; c < 3; ++c) {
        float* out = planes + c * stride;
        for (std::size_t i = 0; i < count; ++i) out[i] = table.values[c][pixels[3 * i + c]];
    }
}

inline constexpr ResizeKernels kernels{1, 1, pack, down, across, normalise};

}  // namespace resize_scalar

}  // namespace tandem::inline TANDEM_ABI::kernels

// ---- tandem/kernels/resize_avx2.hpp ----

// The loops of image preprocessing for AVX2 and FMA.

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace tandem::inline TANDEM_ABI::kernels {

namespace resize_avx2 {

// 16-bit products summed in pairs (vpmaddwd) are exact: a weight is high * 2^15 + low with 0 <= low < 2^15.
inline constexpr int low_bits = 15;

/// Four weights: the low halves of two, their high halves, and the same of the other two.
inline void pack(const std::int32_t* weights, std::int32_t* packed) {
    constexpr std::int32_t low = (1 << low_bits) - 1;
    for (std::size_t i = 0; i < 4; i += 2) {
        packed[i] = (weights[i] & low) | (weights[i + 1] & low) << 16;
        packed[i + 1] = (weights[i] >> low_bits & 0xffff) | weights[i + 1] >> low_bits << 16;
    }
}

inline __m128i load_half(const void* from) {
    return _mm_loadu_si128(static_cast<const __m128i*>(from));
}

inline __m256i load_halves(const void* low, const void* high) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load_half(low)), load_half(high), 1);
}

/// Eight outputs' sums, in two parts.
struct Sums {
    __m256i low;
    __m256i high;

    /// Adds pairs of 16-bit values times a packed pair of weights.
    void add(__m256i pairs, const std::int32_t* packed) {
        low = _mm256_add_epi32(low, _mm256_madd_epi16(pairs, _mm256_set1_epi32(packed[0])));
        high = _mm256_add_epi32(high, _mm256_madd_epi16(pairs, _mm256_set1_epi32(packed[1])));
    }
    __m256i rounded() const {
        return _mm256_srai_epi32(_mm256_add_epi32(low, _mm256_slli_epi32(high, low_bits)), resize_weight_bits);
    }
};

inline Sums no_sums() {
    return {_mm256_set1_epi32(resize_rounding), _mm256_setzero_si256()};
}

/// Four vectors of outputs to bytes, clamped by saturation, in each half by itself.
inline __m256i to_bytes(__m256i a, __m256i b, __m256i c, __m256i d) {
    return _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
}

inline constexpr std::size_t down_block = 32;

inline __m256i load_bytes(const std::uint8_t* from, std::size_t count) {
    alignas(__m256i) std::array<std::uint8_t, down_block> bytes{};
    if (count == down_block) return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    std::memcpy(bytes.data(), from, count);
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(bytes.data()));
}

inline void down(const std::uint8_t* source, std::size_t stride, std::size_t bytes, const std::int32_t* packed,
                 std::size_t taps, std::uint8_t* out) {
    const __m256i zero = _mm256_setzero_si256();
    for (std::size_t begin = 0; begin < bytes; begin += down_block) {
        // The last block of a row is its last 32 bytes, some of which are written twice.
        if (begin + down_block > bytes && bytes >= down_block) begin = bytes - down_block;
        const std::size_t count = std::min(down_block, bytes - begin);
        Sums a = no_sums(), b = no_sums(), c = no_sums(), d = no_sums();
        for (std::size_t t = 0; t < taps; t += 2) {
            // (A second tap that is missing has weight 0.)
            const __m256i first = load_bytes(source + t * stride + begin, count);
            const __m256i second = load_bytes(source + std::min(t + 1, taps - 1) * stride + begin, count);
            const __m256i left = _mm256_unpacklo_epi8(first, second), right = _mm256_unpackhi_epi8(first, second);
            a.add(_mm256_unpacklo_epi8(left, zero), packed + t);
            b.add(_mm256_unpackhi_epi8(left, zero), packed + t);
            c.add(_mm256_unpacklo_epi8(right, zero), packed + t);
            d.add(_mm256_unpackhi_epi8(right, zero), packed + t);
        }
        alignas(__m256i) std::array<std::uint8_t, down_block> result;
        _mm256_store_si256(reinterpret_cast<__m256i*>(result.data()),
                           to_bytes(a.rounded(), b.rounded(), c.rounded(), d.rounded()));
        std::memcpy(out + begin, result.data(), count);
    }
}

/// One output of two rows: red, green, blue and nothing, in each half. The four taps of a group are 12 of the 16 bytes
/// that are loaded.
inline __m256i weigh_pixel(const std::uint8_t* first_row, const std::uint8_t* second_row, const ResizeTaps& output,
                           const std::int32_t* packed) {
    // The first two pixels of a group and the other two, as pairs of 16-bit values for each channel.
    const __m256i front =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    const __m256i back =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
    Sums sums = no_sums();
    packed += output.packed;
    for (std::size_t t = 0, at = 3 * output.first; t < output.taps; t += 4, at += 12, packed += 4) {
        const __m256i bytes = load_halves(first_row + at, second_row + at);
        sums.add(_mm256_shuffle_epi8(bytes, front), packed);
        sums.add(_mm256_shuffle_epi8(bytes, back), packed + 2);
    }
    return sums.rounded();
}

/// Four pixels, or the last `left` of a row, from groups of four bytes of which the last means nothing.
inline void store_pixels(__m128i pixels, std::size_t left, std::uint8_t* out) {
    const __m128i packed =
        _mm_shuffle_epi8(pixels, _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
    // The next pixels overwrite the four bytes too many.
    if (3 * left >= sizeof packed) return _mm_storeu_si128(reinterpret_cast<__m128i*>(out), packed);
    alignas(__m128i) std::array<std::uint8_t, sizeof packed> bytes;
    _mm_store_si128(reinterpret_cast<__m128i*>(bytes.data()), packed);
    std::memcpy(out, bytes.data(), 3 * std::min<std::size_t>(left, 4));
}

/// Four outputs of two rows.
inline void across_two(const std::uint8_t* first_row, const std::uint8_t* second_row, const ResizeTaps* outputs,
                       std::size_t left, const std::int32_t* packed, std::uint8_t* first_out,
                       std::uint8_t* second_out) {
    const std::size_t last = left - 1;
    const __m256i bytes = to_bytes(weigh_pixel(first_row, second_row, outputs[0], packed),
                                   weigh_pixel(first_row, second_row, outputs[std::min<std::size_t>(1, last)], packed),
                                   weigh_pixel(first_row, second_row, outputs[std::min<std::size_t>(2, last)], packed),
                                   weigh_pixel(first_row, second_row, outputs[std::min<std::size_t>(3, last)], packed));
    store_pixels(_mm256_castsi256_si128(bytes), left, first_out);
    store_pixels(_mm256_extracti128_si256(bytes, 1), left, second_out);
}

inline void across(const std::array<const std::uint8_t*, resize_rows>& rows, const ResizeTaps* outputs,
                   std::size_t count, const std::int32_t* packed, const std::array<std::uint8_t*, resize_rows>& out) {
    for (std::size_t x = 0; x < count; x += 4) {
        across_two(rows[0], rows[1], outputs + x, count - x, packed, out[0] + 3 * x, out[1] + 3 * x);
        across_two(rows[2], rows[3], outputs + x, count - x, packed, out[2] + 3 * x, out[3] + 3 * x);
    }
}

/// a * (high + low): a division by the number whose inverse that is, nearly always with its rounding.
inline __m256 multiply(__m256 a, const std::array<float, 2>& inverse) {
    return _mm256_fmadd_ps(a, _mm256_set1_ps(inverse[0]), _mm256_mul_ps(a, _mm256_set1_ps(inverse[1])));
}

/// One channel of eight pixels, whose reds' places in their half are given, each beside three of -1.
inline void normalise_channel(__m256i bytes, __m256i red, const NormaliseTable& table, std::size_t channel,
                              float* out) {
    const __m256i places = _mm256_add_epi8(red, _mm256_set1_epi32(static_cast<int>(channel)));
    const __m256 value = _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, places));
    const __m256 centred = _mm256_sub_ps(multiply(value, level_inverse), _mm256_set1_ps(table.mean[channel]));
    _mm256_storeu_ps(out, multiply(centred, table.inverse[channel]));
}

inline void normalise(const std::uint8_t* pixels, std::size_t count, const NormaliseTable& table, float* planes,
                      std::size_t stride) {
    const std::size_t whole = table.computable ? count / 8 * 8 : 0;
    // Pixels 0 to 3 are the first 12 of 16 bytes, pixels 4 to 7 the last 12.
    const __m256i red = _mm256_setr_epi8(0, -1, -1, -1, 3, -1, -1, -1, 6, -1, -1, -1, 9, -1, -1, -1,  //
                                         4, -1, -1, -1, 7, -1, -1, -1, 10, -1, -1, -1, 13, -1, -1, -1);
    for (std::size_t i = 0; i < whole; i += 8) {
        const __m256i bytes = load_halves(pixels + 3 * i, pixels + 3 * i + 8);
        normalise_channel(bytes, red, table, 0, planes + i);
        normalise_channel(bytes, red, table, 1, planes + stride + i);
        normalise_channel(bytes, red, table, 2, planes + 2 * stride + i);
    }
    resize_scalar::normalise(pixels + 3 * whole, count - whole, table, planes + whole, stride);
}

inline constexpr ResizeKernels kernels{4, 4, pack, down, across, normalise};

}  // namespace resize_avx2

}  // namespace tandem::inline TANDEM_ABI::kernels

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif

// ---- tandem/kernels/resize_avx512.hpp ----

// The loops of image preprocessing for AVX-512 with its byte products (VNNI).

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__x86_64__)

// (FMA is named because g++ inlines no function into one of fewer instruction sets, and AVX-512 does not imply it.)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), \
                             apply_to = function)
#else
// g++ 12 takes the undefined operand of AVX-512 intrinsics for an uninitialised read (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

namespace tandem::inline TANDEM_ABI::kernels {

namespace resize_avx512 {

// Products of four bytes and four signed bytes summed at once (vpdpbusd) are exact: a weight is three signed digits.

/// Four weights: their lowest digits, the middle ones and the highest.
inline void pack(const std::int32_t* weights, std::int32_t* packed) {
    // Half a digit more makes every digit unsigned; flipping its highest bit takes the half away again.
    constexpr std::uint32_t halves = 0x808080;
    std::array<std::uint32_t, 3> words{};
    for (unsigned i = 0; i < 4; ++i) {
        const std::uint32_t digits = (static_cast<std::uint32_t>(weights[i]) + halves) ^ halves;
        for (unsigned d = 0; d < 3; ++d) words[d] |= (digits >> (8 * d) & 0xff) << (8 * i);
    }
    for (std::size_t d = 0; d < 3; ++d) packed[d] = static_cast<std::int32_t>(words[d]);
}

/// Sixteen outputs' sums, a part for each digit.
struct Sums {
    __m512i low;
    __m512i middle;
    __m512i high;

    /// Adds quadruples of bytes times packed weights.
    void add(__m512i quadruples, const std::int32_t* packed) {
        low = _mm512_dpbusd_epi32(low, quadruples, _mm512_set1_epi32(packed[0]));
        middle = _mm512_dpbusd_epi32(middle, quadruples, _mm512_set1_epi32(packed[1]));
        high = _mm512_dpbusd_epi32(high, quadruples, _mm512_set1_epi32(packed[2]));
    }
    __m512i rounded() const {
        const __m512i upper = _mm512_add_epi32(_mm512_slli_epi32(middle, 8), _mm512_slli_epi32(high, 16));
        return _mm512_srai_epi32(_mm512_add_epi32(low, upper), resize_weight_bits);
    }
};

inline Sums no_sums() {
    return {_mm512_set1_epi32(resize_rounding), _mm512_setzero_si512(), _mm512_setzero_si512()};
}

/// Four vectors of outputs to bytes, clamped by saturation, in each quarter by itself.
inline __m512i to_bytes(__m512i a, __m512i b, __m512i c, __m512i d) {
    return _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
}

// (Written out, not as loops over arrays: g++ -O2 does not unroll those and keeps the arrays in memory.)

inline void down(const std::uint8_t* source, std::size_t stride, std::size_t bytes, const std::int32_t* packed,
                 std::size_t taps, std::uint8_t* out) {
    constexpr std::size_t block = 64;
    for (std::size_t begin = 0; begin < bytes; begin += block) {
        const __mmask64 present = ~std::uint64_t{0} >> (block - std::min(block, bytes - begin));
        Sums a = no_sums(), b = no_sums(), c = no_sums(), d = no_sums();
        const std::int32_t* weights = packed;
        for (std::size_t t = 0; t < taps; t += 4, weights += 3) {
            // (Taps that are missing have weight 0.)
            const __m512i first = _mm512_maskz_loadu_epi8(present, source + t * stride + begin);
            const __m512i second =
                _mm512_maskz_loadu_epi8(present, source + std::min(t + 1, taps - 1) * stride + begin);
            const __m512i third = _mm512_maskz_loadu_epi8(present, source + std::min(t + 2, taps - 1) * stride + begin);
            const __m512i fourth =
                _mm512_maskz_loadu_epi8(present, source + std::min(t + 3, taps - 1) * stride + begin);
            const __m512i left_front = _mm512_unpacklo_epi8(first, second);
            const __m512i right_front = _mm512_unpackhi_epi8(first, second);
            const __m512i left_back = _mm512_unpacklo_epi8(third, fourth);
            const __m512i right_back = _mm512_unpackhi_epi8(third, fourth);
            a.add(_mm512_unpacklo_epi16(left_front, left_back), weights);
            b.add(_mm512_unpackhi_epi16(left_front, left_back), weights);
            c.add(_mm512_unpacklo_epi16(right_front, right_back), weights);
            d.add(_mm512_unpackhi_epi16(right_front, right_back), weights);
        }
        _mm512_mask_storeu_epi8(out + begin, present, to_bytes(a.rounded(), b.rounded(), c.rounded(), d.rounded()));
    }
}

inline __m512i load_quarters(const std::uint8_t* a, const std::uint8_t* b, const std::uint8_t* c,
                             const std::uint8_t* d) {
    __m512i all = _mm512_castsi128_si512(resize_avx2::load_half(a));
    all = _mm512_inserti32x4(all, resize_avx2::load_half(b), 1);
    all = _mm512_inserti32x4(all, resize_avx2::load_half(c), 2);
    return _mm512_inserti32x4(all, resize_avx2::load_half(d), 3);
}

/// One output of four rows: red, green, blue and nothing, in each quarter. The four taps of a group are 12 of the 16
/// bytes that are loaded.
inline __m512i weigh_pixel(const std::array<const std::uint8_t*, resize_rows>& rows, const ResizeTaps& output,
                           const std::int32_t* packed) {
    const __m512i channels =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, -1, -1, -1, -1));
    Sums sums = no_sums();
    packed += output.packed;
    for (std::size_t t = 0, at = 3 * output.first; t < output.taps; t += 4, at += 12, packed += 3) {
        const __m512i bytes = load_quarters(rows[0] + at, rows[1] + at, rows[2] + at, rows[3] + at);
        sums.add(_mm512_shuffle_epi8(bytes, channels), packed);
    }
    return sums.rounded();
}

inline void across(const std::array<const std::uint8_t*, resize_rows>& rows, const ResizeTaps* outputs,
                   std::size_t count, const std::int32_t* packed, const std::array<std::uint8_t*, resize_rows>& out) {
    for (std::size_t x = 0; x < count; x += 4) {
        const __m512i bytes = to_bytes(weigh_pixel(rows, outputs[x], packed),
                                       weigh_pixel(rows, outputs[std::min(x + 1, count - 1)], packed),
                                       weigh_pixel(rows, outputs[std::min(x + 2, count - 1)], packed),
                                       weigh_pixel(rows, outputs[std::min(x + 3, count - 1)], packed));
        resize_avx2::store_pixels(_mm512_castsi512_si128(bytes), count - x, out[0] + 3 * x);
        resize_avx2::store_pixels(_mm512_extracti32x4_epi32(bytes, 1), count - x, out[1] + 3 * x);
        resize_avx2::store_pixels(_mm512_extracti32x4_epi32(bytes, 2), count - x, out[2] + 3 * x);
        resize_avx2::store_pixels(_mm512_extracti32x4_epi32(bytes, 3), count - x, out[3] + 3 * x);
    }
}

// (Normalising writes 12 bytes for each that it reads, and wider stores would not be aligned.)
inline constexpr ResizeKernels kernels{4, 3, pack, down, across, resize_avx2::normalise};

}  // namespace resize_avx512

}  // namespace tandem::inline TANDEM_ABI::kernels

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#pragma GCC diagnostic pop
#endif

#endif

// ---- tandem/kernels/resize.hpp ----

// The loops of image preprocessing of each instruction set, and how the data layer calls them.

namespace tandem::inline TANDEM_ABI::kernels {

/// The loops of an instruction set, which the CPU must have. Where none are written for it, those of the next lesser
/// one.
inline const ResizeKernels& resize_kernels(Isa isa) {
#if defined(__x86_64__)
    if (is_avx512(isa) && cpu_features().int8) return resize_avx512::kernels;
    if (is_avx512(isa) || isa == Isa::avx2) return resize_avx2::kernels;
#endif
    static_cast<void>(isa);
    return resize_scalar::kernels;
}

/// The table of a mean and a deviation of channels in [0, 1].
inline NormaliseTable normalise_table(const std::array<float, 3>& mean, const std::array<float, 3>& deviation,
                                      const ResizeKernels& kernels) {
    NormaliseTable table;
    table.mean = mean;
    for (std::size_t c = 0; c < 3; ++c) {
        for (std::size_t i = 0; i < 256; ++i) table.values[c][i] = (unit_levels[i] - mean[c]) / deviation[c];
        table.inverse[c] = inverse_of(deviation[c]);
    }
    // Whether arithmetic gives the table's bits is not argued but tried, on every value there is.
    table.computable = true;
    std::array<std::array<float, 256>, 3> computed;
    kernels.normalise(grey_levels.data(), 256, table, computed.data()->data(), 256);
    table.computable = std::memcmp(computed.data(), table.values.data(), sizeof computed) == 0;
    return table;
}

}  // namespace tandem::inline TANDEM_ABI::kernels

// ---- tandem/data/resize.hpp ----

// Antialiased resizing, bit for bit Pillow's.

namespace tandem::inline TANDEM_ABI {

/// Which of the two passes goes first. Each rounds to 8 bits, so the order shows, by a level or two beside sharp edges.
enum class PassOrder {
    pillow_13,     ///< since Pillow 13.0: down first where height shrinks by more than twice the pixels that width does
    across_first,  ///< always across first: Pillow up to 12, with which the published models were trained
};

/// A box of whole pixels.
struct Region {
    int left = 0;
    int top = 0;
    int width = 0;
    int height = 0;

    bool operator==(const Region&) const = default;
};

namespace detail {

/// Sides and pixel counts that resizing accepts: they bound its tables and int arithmetic, far beyond any camera.
inline constexpr int resize_side_limit = 1 << 20;
inline constexpr std::size_t resize_pixel_limit = std::size_t{1} << 28;

inline void check_resize_size(int width, int height, std::string_view what) {
    const bool sides = width > 0 && height > 0 && width <= resize_side_limit && height <= resize_side_limit;
    if (sides && static_cast<std::size_t>(width) * static_cast<std::size_t>(height) <= resize_pixel_limit) return;
    throw Error("resize", std::string(what) + " sides of 1 to 2^20 and at most 2^28 pixels",
                std::to_string(width) + " x " + std::to_string(height));
}

/// For each output position its taps, which count input positions, and their weights as `kernels` packs them.
struct ResizeWeights {
    std::vector<kernels::ResizeTaps> outputs;
    std::vector<std::int32_t> packed;

    /// Counts input positions from the first one used, which is returned.
    std::size_t rebase() {
        const std::size_t origin = outputs.front().first;
        for (kernels::ResizeTaps& output : outputs) output.first -= origin;
        return origin;
    }

    /// The number of input positions, from 0 to the last one used.
    std::size_t inputs() const { return outputs.back().first + outputs.back().taps; }
};

/// Weights of outputs [begin, begin + count) of `size` outputs that together cover [low, high) of `source` inputs.
/// (Resample.c:185-286, normalize_coeffs_8bpc.)
inline ResizeWeights resize_weights(int source, float low, float high, int size, int begin, int count, Filter filter,
                                    const kernels::ResizeKernels& loops) {
    ResizeWeights weights;
    weights.outputs.reserve(static_cast<std::size_t>(count));
    std::vector<double> values;
    std::vector<std::int32_t> fixed;
    for (int i = begin; i < begin + count; ++i) {
        const int first = filter_taps(source, low, high, size, i, filter, values);
        const std::size_t groups = (values.size() + loops.group - 1) / loops.group;
        weights.outputs.push_back({static_cast<std::size_t>(first), values.size(), weights.packed.size()});
        fixed.assign(groups * loops.group, 0);
        for (std::size_t t = 0; t < values.size(); ++t) {
            const double scaled = values[t] * (1 << kernels::resize_weight_bits);
            fixed[t] = static_cast<std::int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
        }
        weights.packed.resize(weights.packed.size() + groups * loops.words);
        std::int32_t* packed = weights.packed.data() + weights.outputs.back().packed;
        for (std::size_t g = 0; g < groups; ++g) loops.pack(fixed.data() + g * loops.group, packed + g * loops.words);
    }
    return weights;
}

/// A rectangle of an image's pixels, `stride` bytes from row to row.
struct ImageView {
    const std::uint8_t* pixels;
    std::size_t stride;
    int width;
    int height;
};

inline ImageView view(const Image& image, const Region& region) {
    const std::size_t stride = static_cast<std::size_t>(image.width) * 3;
    return {
        image.pixels.data() + static_cast<std::size_t>(region.top) * stride + static_cast<std::size_t>(region.left) * 3,
        stride, region.width, region.height};
}

inline ImageView view(const Image& image) {
    return view(image, {0, 0, image.width, image.height});
}

inline Image copy(const ImageView& source) {
    const std::size_t row = static_cast<std::size_t>(source.width) * 3;
    Image image{source.width, source.height, std::vector<std::uint8_t>(row * static_cast<std::size_t>(source.height))};
    for (std::size_t y = 0; y < static_cast<std::size_t>(source.height); ++y) {
        std::copy_n(source.pixels + y * source.stride, row, image.pixels.data() + y * row);
    }
    return image;
}

/// The horizontal pass: out is [source.height][weights.outputs.size()][3].
inline void pass_across(const ImageView& source, const ResizeWeights& weights, const kernels::ResizeKernels& loops,
                        std::uint8_t* out) {
    const auto height = static_cast<std::size_t>(source.height);
    const std::size_t used = weights.inputs() * 3;
    const std::size_t row_bytes = weights.outputs.size() * 3;
    const std::size_t readable = (height - 1) * source.stride + used;
    std::vector<std::uint8_t> copies(kernels::resize_rows * (used + kernels::resize_overread));
    for (std::size_t y = 0; y < height; y += kernels::resize_rows) {
        std::array<const std::uint8_t*, kernels::resize_rows> rows;
        std::array<std::uint8_t*, kernels::resize_rows> targets;
        for (std::size_t r = 0; r < kernels::resize_rows; ++r) {
            const std::size_t row = std::min(y + r, height - 1);
            rows[r] = source.pixels + row * source.stride;
            targets[r] = out + row * row_bytes;
            if (row * source.stride + used + kernels::resize_overread <= readable) continue;
            // Behind the last rows there may be no memory that can be read.
            std::uint8_t* copy = copies.data() + r * (used + kernels::resize_overread);
            std::copy_n(rows[r], used, copy);
            rows[r] = copy;
        }
        loops.across(rows, weights.outputs.data(), weights.outputs.size(), weights.packed.data(), targets);
    }
}

/// The vertical pass: out is [weights.outputs.size()][source.width][3].
inline void pass_down(const ImageView& source, const ResizeWeights& weights, const kernels::ResizeKernels& loops,
                      std::uint8_t* out) {
    const std::size_t bytes = static_cast<std::size_t>(source.width) * 3;
    for (const kernels::ResizeTaps& output : weights.outputs) {
        loops.down(source.pixels + output.first * source.stride, source.stride, bytes,
                   weights.packed.data() + output.packed, output.taps, out);
        out += bytes;
    }
}

/// How a resize is done, beside its sizes.
struct ResizeMethod {
    Filter filter = Filter::bicubic;
    PassOrder order = PassOrder::pillow_13;
};

/// The part `window` of the width x height result of resizing the box (x0, y0, x1, y1) of source. Only what the window
/// needs is computed, so a centre crop of a long strip costs no more than the crop.
inline Image resize_window(const ImageView& source, const std::array<float, 4>& box, int width, int height,
                           const Region& window, ResizeMethod method,
                           const kernels::ResizeKernels& loops = kernels::resize_kernels(kernels::active_isa())) {
    const std::size_t left = static_cast<std::size_t>(window.left);
    const std::size_t top = static_cast<std::size_t>(window.top);
    if (width == source.width && height == source.height && box[0] == 0 && box[1] == 0 &&
        box[2] == static_cast<float>(width) && box[3] == static_cast<float>(height)) {
        return copy({source.pixels + top * source.stride + left * 3, source.stride, window.width, window.height});
    }
    ResizeWeights across =
        resize_weights(source.width, box[0], box[2], width, window.left, window.width, method.filter, loops);
    ResizeWeights down =
        resize_weights(source.height, box[1], box[3], height, window.top, window.height, method.filter, loops);
    const std::uint8_t* used = source.pixels + down.rebase() * source.stride + across.rebase() * 3;
    const ImageView part{used, source.stride, static_cast<int>(across.inputs()), static_cast<int>(down.inputs())};
    const bool down_first = method.order == PassOrder::pillow_13 && height < source.height &&
                            source.height - height > 2 * (source.width - width);
    const int half_width = down_first ? part.width : window.width;
    const int half_height = down_first ? window.height : part.height;
    const std::size_t stride = static_cast<std::size_t>(half_width) * 3;
    const auto scratch = std::make_unique_for_overwrite<std::uint8_t[]>(stride * static_cast<std::size_t>(half_height));
    const ImageView half{scratch.get(), stride, half_width, half_height};
    Image result{window.width, window.height,
                 std::vector<std::uint8_t>(std::size_t{3} * static_cast<std::size_t>(window.width) *
                                           static_cast<std::size_t>(window.height))};
    if (down_first) {
        pass_down(part, down, loops, scratch.get());
        pass_across(half, across, loops, result.pixels.data());
    } else {
        pass_across(part, across, loops, scratch.get());
        pass_down(half, down, loops, result.pixels.data());
    }
    return result;
}

inline Image resize_view(const ImageView& source, int width, int height, ResizeMethod method) {
    return resize_window(source, {0, 0, static_cast<float>(source.width), static_cast<float>(source.height)}, width,
                         height, {0, 0, width, height}, method);
}

}  // namespace detail

/// The box (x0, y0) to (x1, y1), in pixels and fractions of them, resized to width x height. Bit for bit Pillow's
/// image.resize((width, height), filter, box) (libImaging/Resample.c): two passes in 22-bit integer weights, each
/// rounded and clamped to 8 bits; pixels just outside the box still count at its border.
/// Throws Error for an empty box, one that leaves the image, and sides beyond 2^20 or 2^28 pixels.
inline Image resize_region(const Image& image, float x0, float y0, float x1, float y1, int width, int height,
                           Filter filter, PassOrder order = PassOrder::pillow_13) {
    detail::check_image(image, "resize");
    detail::check_resize_size(image.width, image.height, "an image with");
    detail::check_resize_size(width, height, "a result with");
    // (Written so that a NaN fails.)
    const bool inside = 0 <= x0 && x0 < x1 && x1 <= static_cast<float>(image.width) && 0 <= y0 && y0 < y1 &&
                        y1 <= static_cast<float>(image.height);
    if (!inside) {
        throw Error("resize",
                    "a box inside the image of " + std::to_string(image.width) + " x " + std::to_string(image.height),
                    "(" + std::to_string(x0) + ", " + std::to_string(y0) + ") to (" + std::to_string(x1) + ", " +
                        std::to_string(y1) + ")");
    }
    return detail::resize_window(detail::view(image), {x0, y0, x1, y1}, width, height, {0, 0, width, height},
                                 {filter, order});
}

/// The whole image resized to width x height; see resize_region.
inline Image resize(const Image& image, int width, int height, Filter filter, PassOrder order = PassOrder::pillow_13) {
    return resize_region(image, 0, 0, static_cast<float>(image.width), static_cast<float>(image.height), width, height,
                         filter, order);
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/data/transform.hpp ----

// From pictures to a tower's input: crops, padding, flips, normalisation, and whole preprocessing recipes.

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// n / 2 for n >= 0, a half to the even neighbour, as Python's round(n / 2).
constexpr int half_to_even(int n) {
    return n / 2 + (n % 2) * (n / 2 % 2);
}

inline void check_target(int size, std::string_view where) {
    if (size < 1 || size > 1 << 14) throw Error(where, "a size of 1 to 16384 pixels", std::to_string(size));
}

/// What resize_shortest makes of width x height: torchvision 0.20, functional.py, _compute_resized_output_size.
inline std::array<int, 2> shortest_sides(int width, int height, int size) {
    const int shorter = std::min(width, height);
    const int longer = std::max(width, height);
    const auto scaled = static_cast<std::int64_t>(size) * longer;
    const double side = static_cast<double>(scaled) / shorter;
    if (side > resize_side_limit) {
        throw Error("resize", "an image whose longer side stays within 2^20 pixels",
                    std::to_string(width) + " x " + std::to_string(height));
    }
    const int across = static_cast<int>(side);
    return width <= height ? std::array{size, across} : std::array{across, size};
}

/// Where a centred window of size x size begins in `side`; negative where the window is larger, by the padding.
/// (torchvision functional.py, center_crop: Python's round inside, floor of the half for padding.)
constexpr int centre_offset(int side, int size) {
    return side >= size ? half_to_even(side - size) : -((size - side) / 2);
}

/// Copies source into a canvas of one colour at (left, top), both of which may be negative.
inline Image place(const ImageView& source, int width, int height, int left, int top, Colour colour) {
    const std::size_t row = static_cast<std::size_t>(width) * 3;
    Image canvas{width, height, std::vector<std::uint8_t>(row * static_cast<std::size_t>(height))};
    for (std::size_t i = 0; i < canvas.pixels.size(); i += 3) {
        canvas.pixels[i] = colour.red;
        canvas.pixels[i + 1] = colour.green;
        canvas.pixels[i + 2] = colour.blue;
    }
    const int first_x = std::max(0, -left);
    const int end_x = std::min(source.width, width - left);
    for (int y = std::max(0, -top); y < std::min(source.height, height - top); ++y) {
        std::copy(source.pixels + static_cast<std::size_t>(y) * source.stride + static_cast<std::size_t>(first_x) * 3,
                  source.pixels + static_cast<std::size_t>(y) * source.stride + static_cast<std::size_t>(end_x) * 3,
                  canvas.pixels.data() + static_cast<std::size_t>(y + top) * row +
                      static_cast<std::size_t>(first_x + left) * 3);
    }
    return canvas;
}

}  // namespace detail

/// The pixels of a region. Throws Error for a region that is empty or leaves the image.
inline Image crop(const Image& image, const Region& region) {
    detail::check_image(image, "crop");
    const bool inside = region.left >= 0 && region.top >= 0 && region.width > 0 && region.height > 0 &&
                        region.width <= image.width && region.left <= image.width - region.width &&
                        region.height <= image.height && region.top <= image.height - region.height;
    if (!inside) {
        throw Error(
            "crop",
            "a region inside the image of " + std::to_string(image.width) + " x " + std::to_string(image.height),
            std::to_string(region.width) + " x " + std::to_string(region.height) + " at (" +
                std::to_string(region.left) + ", " + std::to_string(region.top) + ")");
    }
    return detail::copy(detail::view(image, region));
}

/// The shorter side becomes `size`, the longer one int(size * longer / shorter): torchvision's Resize(size).
inline Image resize_shortest(const Image& image, int size, Filter filter, PassOrder order = PassOrder::pillow_13) {
    detail::check_image(image, "resize_shortest");
    detail::check_target(size, "resize_shortest");
    const auto [width, height] = detail::shortest_sides(image.width, image.height, size);
    return resize(image, width, height, filter, order);
}

/// The middle size x size pixels, with torchvision's rounding (a half offset to the even pixel); sides that are shorter
/// are padded with black, the odd pixel at the right and below (torchvision 0.20, functional.py, center_crop).
inline Image center_crop(const Image& image, int size) {
    detail::check_image(image, "center_crop");
    detail::check_target(size, "center_crop");
    return detail::place(detail::view(image), size, size, -detail::centre_offset(image.width, size),
                         -detail::centre_offset(image.height, size), black);
}

/// The image in the middle of a square of its longer side; an odd pixel is added at the right or below.
inline Image pad_to_square(const Image& image, Colour colour) {
    detail::check_image(image, "pad_to_square");
    const int side = std::max(image.width, image.height);
    detail::check_resize_size(side, side, "a square with");
    return detail::place(detail::view(image), side, side, (side - image.width) / 2, (side - image.height) / 2, colour);
}

inline Image flip_horizontal(const Image& image) {
    detail::check_image(image, "flip_horizontal");
    Image out{image.width, image.height, std::vector<std::uint8_t>(image.pixels.size())};
    const std::size_t row = static_cast<std::size_t>(image.width) * 3;
    for (std::size_t begin = 0; begin < image.pixels.size(); begin += row) {
        for (std::size_t x = 0; x < row; x += 3) {
            std::copy_n(image.pixels.data() + begin + x, 3, out.pixels.data() + begin + row - 3 - x);
        }
    }
    return out;
}

/// A random part of the image, resized to a square: torchvision 0.20, transforms.py, RandomResizedCrop. The defaults of
/// scale are open_clip's training recipe (transform.py, AugmentationCfg); torchvision's own is 0.08 to 1.
struct RandomResizedCrop {
    double scale_low = 0.9;  ///< of the image's area
    double scale_high = 1.0;
    double ratio_low = 3.0 / 4.0;  ///< width / height
    double ratio_high = 4.0 / 3.0;

    /// Ten tries of an area (uniform) and a ratio (log-uniform) that fit; then the largest centred part of the image
    /// whose ratio lies within the bounds. Throws Error for bounds that are not positive and ordered.
    Region sample(int width, int height, Random& random) const {
        const bool ordered = 0 < scale_low && scale_low <= scale_high && 0 < ratio_low && ratio_low <= ratio_high &&
                             std::isfinite(scale_high) && std::isfinite(ratio_high);
        if (!ordered || width < 1 || height < 1) {
            throw Error("RandomResizedCrop", "positive, ordered bounds of scale and ratio, and an image with pixels",
                        std::to_string(scale_low) + " to " + std::to_string(scale_high) + ", " +
                            std::to_string(ratio_low) + " to " + std::to_string(ratio_high) + ", " +
                            std::to_string(width) + " x " + std::to_string(height));
        }
        for (int attempt = 0; attempt < 10; ++attempt) {
            const double area = static_cast<double>(width) * height * random.uniform(scale_low, scale_high);
            const double ratio = std::exp(random.uniform(std::log(ratio_low), std::log(ratio_high)));
            const double across = std::nearbyint(std::sqrt(area * ratio));
            const double down = std::nearbyint(std::sqrt(area / ratio));
            if (across < 1 || across > width || down < 1 || down > height) continue;
            Region region{0, 0, static_cast<int>(across), static_cast<int>(down)};
            region.top = static_cast<int>(random.below(static_cast<std::size_t>(height - region.height + 1)));
            region.left = static_cast<int>(random.below(static_cast<std::size_t>(width - region.width + 1)));
            return region;
        }
        const double ratio = static_cast<double>(width) / height;
        Region region{0, 0, width, height};
        // A strip one pixel thin could round to no pixel at all.
        if (ratio < ratio_low) {
            region.height = std::clamp(static_cast<int>(std::nearbyint(width / ratio_low)), 1, height);
        } else if (ratio > ratio_high) {
            region.width = std::clamp(static_cast<int>(std::nearbyint(height * ratio_high)), 1, width);
        }
        region.top = (height - region.height) / 2;
        region.left = (width - region.width) / 2;
        return region;
    }

    /// The sampled part resized to size x size. Pixels outside it do not bleed in: cropped first, as torchvision.
    Image operator()(const Image& image, int size, Filter filter, Random& random) const {
        detail::check_image(image, "RandomResizedCrop");
        detail::check_target(size, "RandomResizedCrop");
        const Region region = sample(image.width, image.height, random);
        detail::check_resize_size(region.width, region.height, "a crop with");
        return detail::resize_view(detail::view(image, region), size, size, {filter, PassOrder::pillow_13});
    }
};

/// How a picture of any shape becomes a square of `size`.
enum class Fit {
    shortest_then_crop,  ///< shorter side to size, centre crop (OpenAI, open_clip "shortest")
    squash,              ///< both sides to size (SigLIP, open_clip "squash")
    pad,                 ///< longer side to size, the rest filled (open_clip "longest")
};

/// A model's image preprocessing; mean and deviation are of channels in [0, 1].
struct Preprocess {
    int size = 224;
    Fit fit = Fit::shortest_then_crop;
    Filter filter = Filter::bicubic;
    std::array<float, 3> mean{0, 0, 0};
    std::array<float, 3> deviation{1, 1, 1};
    Colour padding = black;  ///< of Fit::pad
    PassOrder order = PassOrder::pillow_13;

    /// Floats of one picture: 3 * size * size.
    constexpr std::size_t count() const {
        return std::size_t{3} * static_cast<std::size_t>(size) * static_cast<std::size_t>(size);
    }
};

/// OpenAI's CLIP and most of open_clip (CLIP/clip.py, _transform).
constexpr Preprocess openai_preprocess(int size) {
    return {.size = size,
            .fit = Fit::shortest_then_crop,
            .filter = Filter::bicubic,
            .mean = {0.48145466F, 0.4578275F, 0.40821073F},
            .deviation = {0.26862954F, 0.26130258F, 0.27577711F}};
}

/// SigLIP and SigLIP 2 as open_clip runs them (pretrained.py, _slpcfg).
constexpr Preprocess siglip_preprocess(int size) {
    return {.size = size,
            .fit = Fit::squash,
            .filter = Filter::bicubic,
            .mean = {0.5F, 0.5F, 0.5F},
            .deviation = {0.5F, 0.5F, 0.5F}};
}

/// The picture as a size x size square, still in 8 bits.
inline Image fit_square(const Image& image, const Preprocess& recipe) {
    detail::check_image(image, "preprocess");
    detail::check_target(recipe.size, "preprocess");
    const int size = recipe.size;
    if (recipe.fit == Fit::squash) return resize(image, size, size, recipe.filter, recipe.order);
    if (recipe.fit == Fit::shortest_then_crop) {
        detail::check_resize_size(image.width, image.height, "an image with");
        const auto [width, height] = detail::shortest_sides(image.width, image.height, size);
        const Region window{detail::centre_offset(width, size), detail::centre_offset(height, size), size, size};
        return detail::resize_window(detail::view(image),
                                     {0, 0, static_cast<float>(image.width), static_cast<float>(image.height)}, width,
                                     height, window, {recipe.filter, recipe.order});
    }
    // open_clip, transform.py, ResizeKeepRatio(longest=1) and CenterCropOrPad.
    const double ratio = std::max(image.width, image.height) / static_cast<double>(size);
    const int width = std::max(1, static_cast<int>(std::nearbyint(image.width / ratio)));
    const int height = std::max(1, static_cast<int>(std::nearbyint(image.height / ratio)));
    const Image inner = resize(image, width, height, recipe.filter, recipe.order);
    return detail::place(detail::view(inner), size, size, (size - width) / 2, (size - height) / 2, recipe.padding);
}

/// Writes three planes, red, green, blue, each [height][width]: (value / 255 - mean) / deviation in float, as
/// torchvision's ToTensor and Normalize. Throws Error unless out has 3 * width * height floats.
inline void normalise(const Image& image, const std::array<float, 3>& mean, const std::array<float, 3>& deviation,
                      std::span<float> out) {
    detail::check_image(image, "normalise");
    if (out.size() != image.pixels.size()) {
        throw Error("normalise", std::to_string(image.pixels.size()) + " floats to write to",
                    std::to_string(out.size()));
    }
    const kernels::ResizeKernels& loops = kernels::resize_kernels(kernels::active_isa());
    const std::size_t plane = image.pixels.size() / 3;
    loops.normalise(image.pixels.data(), plane, kernels::normalise_table(mean, deviation, loops), out.data(), plane);
}

/// Fits the picture and normalises it into out, [3][size][size]. Throws Error unless out has recipe.count() floats.
inline void preprocess(const Image& image, const Preprocess& recipe, std::span<float> out) {
    normalise(fit_square(image, recipe), recipe.mean, recipe.deviation, out);
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/data/pairs.hpp ----

// Image–text pairs from a folder and a captions file.

#if __has_include(<png.h>) && __has_include(<jpeglib.h>) && __has_include(<jconfig.h>) && __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI {

/// One image and all its captions, in the file's order.
struct CaptionedImage {
    std::string path;  ///< as the captions file names it, relative to the image folder
    std::vector<std::string> captions;
};

/// What was left out of a data set, by cause.
using SkipCounts = std::map<std::string, std::size_t>;

/// Reads a captions file: a line is `path<TAB>caption`; an image with several captions has several lines. Images come
/// in the order of their first line. A line without a tab or without a path, or with an empty caption, is skipped and
/// counted; with `strict` it is an Error that names file and line.
inline std::vector<CaptionedImage> read_captions(const std::filesystem::path& file, SkipCounts& skipped,
                                                 bool strict = false) {
    std::ifstream stream(file, std::ios::binary);
    if (!stream) throw Error(file.string(), "cannot be read");
    std::vector<CaptionedImage> images;
    std::unordered_map<std::string, Id> positions;
    std::string line;
    for (std::size_t number = 1; std::getline(stream, line); ++number) {
        if (line.ends_with('\r')) line.pop_back();
        const auto refuse = [&](const char* cause) {
            if (strict) throw Error(file.string() + " line " + std::to_string(number), cause);
            ++skipped[cause];
        };
        if (line.empty()) continue;
        const std::size_t tab = line.find('\t');
        if (tab == std::string::npos || tab == 0) {
            refuse("malformed line: expected path, tab, caption");
            continue;
        }
        if (line.find_first_not_of(" \t\v\f", tab) == std::string::npos) {
            refuse("empty caption");
            continue;
        }
        const auto [position, is_new] = positions.emplace(line.substr(0, tab), static_cast<Id>(images.size()));
        if (is_new) images.push_back({line.substr(0, tab), {}});
        images[static_cast<std::size_t>(position->second)].captions.push_back(line.substr(tab + 1));
    }
    return images;
}

/// How a pair becomes what a model reads.
struct PairOptions {
    Preprocess preprocess{};
    /// Each image is reduced once, by preprocess.fit, to a square of this side, from which crops are taken; 0 keeps the
    /// whole image.
    int stored = 0;
    std::optional<RandomResizedCrop> crop{};  ///< a random part of the stored image; none: all of it
    double flip = 0.0;                        ///< the probability of a mirrored image
    DecodeOptions decode{};
    bool strict = false;                        ///< a damaged, missing or oversized image is an Error, not skipped
    std::size_t memory = std::size_t{4} << 30;  ///< bytes of stored images to keep; beyond, they are read when needed
};

/// Pairs a Trainer trains on. Every image is read once when the set is made, in parallel; one that cannot be is skipped
/// and counted by cause. The order is that of the captions file. Immutable: any number of threads may fetch.
class Pairs {
public:
    Pairs(std::filesystem::path folder, std::vector<CaptionedImage> images, const Bpe& tokenizer, std::size_t context,
          PairOptions options = {}, SkipCounts skipped = {})
        : folder_(std::move(folder)), options_(std::move(options)), context_(context), skipped_(std::move(skipped)) {
        read_images(std::move(images));
        for (const Item& item : items_) {
            const std::vector<Id> ids = tokenizer.encode_batch(item.captions, context);
            ids_.insert(ids_.end(), ids.begin(), ids.end());
        }
    }

    /// The images below `folder` that the captions file names.
    static Pairs load(const std::filesystem::path& folder, const std::filesystem::path& captions, const Bpe& tokenizer,
                      std::size_t context, PairOptions options = {}) {
        SkipCounts skipped;
        std::vector<CaptionedImage> images = read_captions(captions, skipped, options.strict);
        return Pairs(folder, std::move(images), tokenizer, context, std::move(options), std::move(skipped));
    }

    std::size_t size() const { return items_.size(); }
    const std::string& path(std::size_t index) const { return items_[index].path; }
    std::span<const std::string> captions(std::size_t index) const { return items_[index].captions; }

    /// What was left out, by cause.
    const SkipCounts& skipped() const { return skipped_; }

    /// The stored image; read again from its file where memory did not suffice to keep it.
    Image image(std::size_t index) const {
        const Item& item = items_[index];
        return item.image.pixels.empty() ? stored_image(item.path) : item.image;
    }

    /// Image `index`, cropped and mirrored at random where the options say so and normalised, and the ids of one of its
    /// captions, drawn at random.
    void fetch(std::size_t index, Random& random, std::span<float> image, std::span<Id> ids) const {
        const Item& item = items_[index];
        const std::size_t caption = item.first_caption + random.below(item.captions.size());
        std::copy_n(ids_.begin() + static_cast<std::ptrdiff_t>(caption * context_), context_, ids.begin());
        const Preprocess& recipe = options_.preprocess;
        const Image whole = this->image(index);
        Image square =
            options_.crop ? (*options_.crop)(whole, recipe.size, recipe.filter, random) : fit_square(whole, recipe);
        if (options_.flip > 0 && random.uniform() < options_.flip) square = flip_horizontal(square);
        normalise(square, recipe.mean, recipe.deviation, image);
    }

    /// Image `index` as evaluation sees it: nothing random.
    void fetch_image(std::size_t index, std::span<float> image) const {
        preprocess(this->image(index), options_.preprocess, image);
    }

private:
    struct Item {
        std::string path;
        std::vector<std::string> captions;
        std::size_t first_caption = 0;
        Image image;
    };

    Image stored_image(const std::string& path) const {
        const Image whole = read_image(folder_ / path, options_.decode);
        if (options_.stored == 0) return whole;
        Preprocess recipe = options_.preprocess;
        recipe.size = options_.stored;
        return fit_square(whole, recipe);
    }

    void read_images(std::vector<CaptionedImage> images) {
        std::vector<Image> read(images.size());
        std::vector<const char*> causes(images.size(), nullptr);
        std::mutex strict_error_guard;
        std::optional<Error> strict_error;
        std::size_t strict_position = images.size();
        parallel_for(images.size(), 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                try {
                    if (!std::filesystem::exists(folder_ / images[i].path)) {
                        throw Error((folder_ / images[i].path).string(), "no such file");
                    }
                    read[i] = stored_image(images[i].path);
                } catch (const Error& error) {
                    const bool missing = !std::filesystem::exists(folder_ / images[i].path);
                    const bool oversized = dynamic_cast<const OversizedImage*>(&error) != nullptr;
                    causes[i] = missing ? "missing image" : oversized ? "oversized image" : "damaged image";
                    const std::lock_guard lock(strict_error_guard);
                    if (i < strict_position) {
                        strict_position = i;
                        strict_error = error;
                    }
                }
            }
        });
        if (options_.strict && strict_error) throw Error(*strict_error);
        std::size_t used = 0, captions = 0;
        for (std::size_t i = 0; i < images.size(); ++i) {
            if (causes[i] != nullptr) {
                ++skipped_[causes[i]];
                continue;
            }
            used += read[i].pixels.size();
            if (used > options_.memory) read[i] = {};
            const std::size_t count = images[i].captions.size();
            items_.push_back({std::move(images[i].path), std::move(images[i].captions), captions, std::move(read[i])});
            captions += count;
        }
    }

    std::filesystem::path folder_;
    PairOptions options_;
    std::size_t context_;
    SkipCounts skipped_;
    std::vector<Item> items_;
    std::vector<Id> ids_;
};

}  // namespace tandem::inline TANDEM_ABI

#endif

// ---- tandem/data/safetensors_types.hpp ----

// What a safetensors file is made of: element types and described tensors.

namespace tandem::inline TANDEM_ABI {

static_assert(std::endian::native == std::endian::little && sizeof(std::size_t) == 8,
              "safetensors files are read in place, which needs a 64-bit little-endian machine");

/// The element types a safetensors file may hold: the closed list of the reference (Dtype in safetensors/src/tensor.rs,
/// release 0.8.0), in its spelling and order. Values are stored little-endian.
enum class DataType : std::uint8_t {
    BOOL,
    F4,
    F6_E2M3,
    F6_E3M2,
    U8,
    I8,
    F8_E5M2,
    F8_E4M3,
    F8_E8M0,
    F8_E4M3FNUZ,
    F8_E5M2FNUZ,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64
};

namespace detail {

struct DataTypeEntry {
    std::string_view name;
    std::size_t bits;
};

/// In the order of DataType.
inline constexpr std::array<DataTypeEntry, 22> data_types{
    {{"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
     {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
     {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
     {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}}};

}  // namespace detail

/// Bits of one element; below 8 for the packed types.
constexpr std::size_t bits(DataType type) {
    return detail::data_types[static_cast<std::size_t>(type)].bits;
}

/// The type's spelling in a file's header.
constexpr std::string_view name(DataType type) {
    return detail::data_types[static_cast<std::size_t>(type)].name;
}

/// The type that stores T exactly.
template <class T>
constexpr DataType data_type_of() {
    if constexpr (std::is_same_v<T, float>) {
        return DataType::F32;
    } else if constexpr (std::is_same_v<T, double>) {
        return DataType::F64;
    } else if constexpr (std::is_same_v<T, bfloat16>) {
        return DataType::BF16;
    } else if constexpr (std::is_same_v<T, std::int32_t>) {
        return DataType::I32;
    } else if constexpr (std::is_same_v<T, std::int64_t>) {
        return DataType::I64;
    } else {
        static_assert(std::is_same_v<T, std::uint8_t>,
                      "A file stores float, double, bfloat16, std::int32_t, std::int64_t and std::uint8_t.");
        return DataType::U8;
    }
}

/// One tensor of a file: row-major elements of `type`, as bytes that belong to the file (or, when saving, to the
/// caller). The bytes need not be aligned to the element.
struct StoredTensor {
    std::string name;
    DataType type = DataType::F32;
    std::vector<std::size_t> shape;
    std::span<const std::byte> data;
};

namespace detail {

/// Bytes of a tensor. Nothing if they overflow 64 bits or end within a byte; like the reference, the product overflows
/// by its leading dimensions even where a later one is zero.
inline std::optional<std::size_t> byte_count(DataType type, std::span<const std::size_t> shape) {
    std::size_t total = 1;
    for (const std::size_t extent : shape)
        if (__builtin_mul_overflow(total, extent, &total)) return std::nullopt;
    if (__builtin_mul_overflow(total, bits(type), &total) || total % 8 != 0) return std::nullopt;
    return total / 8;
}

/// A name out of an untrusted file, fit for an error message: in quotes, short, without control characters.
inline std::string in_quotes(std::string_view text) {
    constexpr std::size_t limit = 100;
    std::string result = "'";
    for (const char c : text.substr(0, limit)) result += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
    return result + (text.size() > limit ? "...'" : "'");
}

inline std::string shape_text(std::span<const std::size_t> shape) {
    std::string result = "[";
    for (const std::size_t extent : shape.first(std::min<std::size_t>(shape.size(), 16)))
        result += (result.size() > 1 ? ", " : "") + std::to_string(extent);
    return result + (shape.size() > 16 ? ", ...]" : "]");
}

/// The positions of tensors in an order given at run time, so that a program compiles one sort for all of them.
inline std::vector<std::uint32_t> sorted_positions(std::span<const StoredTensor> tensors,
                                                   bool (*before)(const StoredTensor&, const StoredTensor&)) {
    std::vector<std::uint32_t> positions(tensors.size());
    std::iota(positions.begin(), positions.end(), 0U);
    std::sort(positions.begin(), positions.end(),
              [&](std::uint32_t a, std::uint32_t b) { return before(tensors[a], tensors[b]); });
    return positions;
}

/// The positions of tensors in the order of their names. Throws Error if two have the same.
inline std::vector<std::uint32_t> positions_by_name(std::span<const StoredTensor> tensors, std::string_view where) {
    auto positions =
        sorted_positions(tensors, [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
    for (std::size_t i = 1; i < positions.size(); ++i) {
        const std::string& name = tensors[positions[i]].name;
        if (name == tensors[positions[i - 1]].name)
            throw Error(where, "tensor " + in_quotes(name) + ": duplicate name");
    }
    return positions;
}

/// Length of the UTF-8 sequence at the start of the text (Unicode 15, table 3-7), 0 if it is malformed.
inline std::size_t utf8_sequence(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned>(static_cast<unsigned char>(text[i])); };
    const unsigned first = byte(0);
    if (first < 0x80) return 1;
    const std::size_t length = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (length == 0 || text.size() < length) return 0;
    const unsigned low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    const unsigned high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (byte(1) < low || byte(1) > high) return 0;
    for (std::size_t i = 2; i < length; ++i)
        if ((byte(i) & 0xc0U) != 0x80) return 0;
    return length;
}

// Bounds that keep the memory for a header, however hostile, below 16 MB. They are far above any real file.
inline constexpr std::size_t max_header_bytes = 100'000'000;  // the format's own
inline constexpr std::size_t max_string_bytes = std::size_t{1} << 19;
inline constexpr std::size_t max_gap_bytes = std::size_t{1} << 14;  // between two strings
inline constexpr std::size_t max_index_bytes = std::size_t{6} << 20;

/// Upper bound of the memory one tensor takes in the index, and of one metadata entry.
constexpr std::size_t index_cost(std::size_t name_bytes, std::size_t rank) {
    return sizeof(StoredTensor) + 64 + name_bytes + 2 * rank * sizeof(std::size_t);
}

}  // namespace detail

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/data/safetensors_header.hpp ----

// The header of a safetensors file: the parser that enforces every rule of the format.

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// The header without the whitespace around it. Refuses what the JSON parser would let pass (byte order mark, NUL as
/// end) and what would cost it memory or depth: it keeps a copy of everything since the last string.
[[gnu::cold]] inline std::string_view screened_header(std::string_view text, std::string_view where) {
    constexpr std::string_view whitespace = " \t\r\n";
    const auto at = [](std::size_t position) { return " at byte " + std::to_string(position) + " of the header"; };
    const std::size_t begin = std::min(text.find_first_not_of(whitespace), text.size());
    const std::size_t end = text.find_last_not_of(whitespace) + 1;
    if (begin == text.size()) throw Error(where, "header is empty, expected a JSON object");
    if (text[begin] != '{') throw Error(where, "header is not JSON: expected an object" + at(begin));
    bool in_string = false;
    bool escaped = false;
    std::size_t mark = begin;
    for (std::size_t i = begin; i < end; ++i) {
        const char c = text[i];
        if (static_cast<unsigned char>(c) >= 0x80) {
            const std::size_t length = utf8_sequence(text.substr(i));
            if (length == 0) throw Error(where, "header is not UTF-8" + at(i));
            i += length - 1;
            escaped = false;
        } else if (escaped) {
            escaped = false;
        } else if (c == '"') {
            in_string = !in_string;
            mark = i;
        } else if (in_string) {
            escaped = c == '\\';
        } else if (c == '\0') {
            throw Error(where, "header is not JSON: NUL" + at(i));
        }
        if (i - mark > (in_string ? max_string_bytes : max_gap_bytes))
            throw Error(where, std::string("header holds ") +
                                   (in_string ? "a string longer than 512 KiB" : "16 KiB without a string") + at(i));
    }
    return text.substr(begin, end - begin);
}

/// Receives the JSON parser's events and builds the list of tensors from them, without a document in between.
class HeaderReader final : public JsonEvents {
public:
    HeaderReader(std::string_view where, std::span<const std::byte> data) : where_(where), data_(data) {}

    bool other(std::string_view json) override {
        wrong(json == "null"                      ? "null"
              : json == "true" || json == "false" ? "a boolean"
              : json[0] == '-'                    ? "a negative number"
                                                  : "the number " + std::string(json));
    }

    bool number(std::uint64_t value) override {
        if (place_ == Place::shape) {
            charge(2 * sizeof(std::size_t));
            tensor().shape.push_back(value);
        } else if (place_ == Place::offsets && offset_count_ < 2) {
            offsets_[offset_count_++] = value;
        } else if (place_ == Place::offsets) {
            fail("data_offsets: expected two numbers, found more");
        } else {
            wrong("a number");
        }
        return true;
    }

    bool string(std::string_view value) override {
        if (place_ == Place::type) {
            const auto entry = std::find_if(data_types.begin(), data_types.end(),
                                            [&](const DataTypeEntry& known) { return known.name == value; });
            if (entry == data_types.end()) fail("unknown dtype " + in_quotes(value));
            tensor().type = static_cast<DataType>(entry - data_types.begin());
            place_ = Place::tensor;
        } else if (place_ == Place::metadata_value) {
            charge(index_cost(metadata_key_.size() + value.size(), 0));
            if (!metadata_.try_emplace(metadata_key_, value).second)
                throw Error(where_, "__metadata__: duplicate key " + in_quotes(metadata_key_));
            place_ = Place::metadata;
        } else {
            wrong("the string " + in_quotes(value));
        }
        return true;
    }

    bool key(std::string_view value) override {
        if (place_ == Place::top) {
            in_metadata_ = value == "__metadata__";
            if (in_metadata_ && std::exchange(has_metadata_, true))
                throw Error(where_, "duplicate key '__metadata__' in the header");
            if (!in_metadata_) {
                charge(index_cost(value.size(), 0));
                tensors_.push_back({.name = std::string(value), .type = {}, .shape = {}, .data = {}});
            }
            place_ = Place::entry;
        } else if (place_ == Place::metadata) {
            metadata_key_ = value;
            place_ = Place::metadata_value;
        } else {
            const auto field =
                std::find_if(fields.begin(), fields.end(), [&](const Field& known) { return known.name == value; });
            if (field == fields.end()) fail("unknown key " + in_quotes(value));
            bool& seen = seen_[static_cast<std::size_t>(field - fields.begin())];
            if (std::exchange(seen, true)) fail("duplicate key " + in_quotes(value));
            place_ = field->place;
        }
        return true;
    }

    bool start_object() override {
        if (place_ == Place::outside) {
            place_ = Place::top;
        } else if (place_ == Place::entry) {
            place_ = in_metadata_ ? Place::metadata : Place::tensor;
            seen_ = {};
            offset_count_ = 0;
        } else {
            wrong("an object");
        }
        return true;
    }

    bool end_object() override {
        if (place_ == Place::tensor) close_tensor();
        place_ = place_ == Place::top ? Place::outside : Place::top;
        return true;
    }

    bool start_array() override {
        if (place_ == Place::shape_value) {
            place_ = Place::shape;
        } else if (place_ == Place::offsets_value) {
            place_ = Place::offsets;
        } else {
            wrong("an array");
        }
        return true;
    }

    bool end_array() override {
        if (place_ == Place::offsets && offset_count_ != 2)
            fail("data_offsets: expected two numbers, found " + std::to_string(offset_count_));
        place_ = Place::tensor;
        return true;
    }

    std::map<std::string, std::string>& metadata() { return metadata_; }
    std::vector<StoredTensor>& tensors() { return tensors_; }

private:
    /// Where the parser stands: the value it awaits, or the object or array it is in.
    enum class Place : std::uint8_t {
        outside,
        top,
        entry,
        tensor,
        type,
        shape_value,
        shape,
        offsets_value,
        offsets,
        metadata,
        metadata_value
    };

    struct Field {
        std::string_view name;
        Place place;
    };
    static constexpr std::array<Field, 3> fields{
        {{"dtype", Place::type}, {"shape", Place::shape_value}, {"data_offsets", Place::offsets_value}}};

    StoredTensor& tensor() { return tensors_.back(); }

    [[noreturn, gnu::cold]] void fail(const std::string& fault) const {
        throw Error(where_, "tensor " + in_quotes(tensors_.back().name) + ": " + fault);
    }

    [[noreturn, gnu::cold]] void wrong(const std::string& found) const {
        switch (place_) {
            case Place::type:
                fail("dtype: expected a string, found " + found);
            case Place::shape_value:
                fail("shape: expected an array, found " + found);
            case Place::shape:
                fail("shape: expected unsigned 64-bit integers, found " + found);
            case Place::offsets_value:
                fail("data_offsets: expected an array, found " + found);
            case Place::offsets:
                fail("data_offsets: expected unsigned 64-bit integers, found " + found);
            case Place::metadata_value:
                throw Error(where_, "__metadata__ " + in_quotes(metadata_key_) + ": expected a string, found " + found);
            default:
                if (in_metadata_) throw Error(where_, "__metadata__: expected an object, found " + found);
                fail("expected an object, found " + found);
        }
    }

    void charge(std::size_t bytes) {
        index_bytes_ += bytes;
        if (index_bytes_ > max_index_bytes)
            throw Error(where_, "header describes more than 6 MiB of names, shapes and metadata (" +
                                    std::to_string(tensors_.size()) + " tensors so far)");
    }

    void close_tensor() {
        for (std::size_t i = 0; i < fields.size(); ++i)
            if (!seen_[i]) fail("missing key " + in_quotes(fields[i].name));
        const auto [begin, end] = offsets_;
        const auto range = [&] { return "data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) + "]"; };
        const auto what = [&] { return std::string(name(tensor().type)) + " " + shape_text(tensor().shape); };
        if (end < begin) fail(range() + " end before they begin");
        if (end > data_.size())
            fail(range() + " exceed the file's " + std::to_string(data_.size()) + " bytes of tensor data");
        const std::optional<std::size_t> size = byte_count(tensor().type, tensor().shape);
        if (!size) fail("shape: " + what() + " overflows 64 bits or ends within a byte");
        if (*size != end - begin)
            fail(range() + ": expected " + std::to_string(*size) + " bytes for " + what() + ", found " +
                 std::to_string(end - begin));
        tensor().data = data_.subspan(begin, end - begin);
    }

    std::string where_;
    std::span<const std::byte> data_;
    std::vector<StoredTensor> tensors_;
    std::map<std::string, std::string> metadata_;
    std::string metadata_key_;
    std::size_t index_bytes_ = 0;
    std::array<std::size_t, 2> offsets_{};
    std::size_t offset_count_ = 0;
    std::array<bool, 3> seen_{};
    Place place_ = Place::outside;
    bool in_metadata_ = false;
    bool has_metadata_ = false;
};

/// What a header says: the tensors in the order of their bytes, and their positions in the order of their names.
struct Header {
    std::map<std::string, std::string> metadata;
    std::vector<StoredTensor> tensors;
    std::vector<std::uint32_t> by_name;
};

/// Reads the header of a whole file and checks everything a file can be wrong in; `where` begins every error.
[[gnu::cold]] inline Header read_header(std::span<const std::byte> file, std::string_view where) {
    constexpr std::size_t length_bytes = 8;
    if (file.size() < length_bytes)
        throw Error(where, "a file of at least 8 bytes", std::to_string(file.size()) + " bytes");
    std::uint64_t length = 0;
    std::memcpy(&length, file.data(), length_bytes);
    if (length > max_header_bytes)
        throw Error(where, "a header of at most 100000000 bytes", "a header length of " + std::to_string(length));
    file = file.subspan(length_bytes);
    if (length > file.size())
        throw Error(where, "a header of " + std::to_string(length) + " bytes",
                    "a file that ends after " + std::to_string(file.size()) + " of them");
    const std::string_view text = screened_header({reinterpret_cast<const char*>(file.data()), length}, where);
    const std::span<const std::byte> data = file.subspan(length);

    HeaderReader reader(where, data);
    if (const std::optional<std::size_t> fault = json_fault(text, reader)) {
        throw Error(where, "header is not JSON near its byte " + std::to_string(*fault));
    }
    Header header{std::move(reader.metadata()), std::move(reader.tensors()), {}};
    std::vector<StoredTensor>& tensors = header.tensors;
    // Zero-sized tensors share their offset with a neighbour; the name makes their order unique.
    const auto before = [](const StoredTensor& a, const StoredTensor& b) {
        if (a.data.data() != b.data.data()) return a.data.data() < b.data.data();
        return a.data.size() != b.data.size() ? a.data.size() < b.data.size() : a.name < b.name;
    };
    std::vector<std::uint32_t> order = sorted_positions(tensors, before);
    // In place, cycle by cycle: a second list would take a hostile header's memory twice.
    for (std::uint32_t i = 0; i < order.size(); ++i) {
        std::uint32_t to = i;
        while (order[to] != i) {
            const std::uint32_t from = std::exchange(order[to], to);
            std::swap(tensors[to], tensors[from]);
            to = from;
        }
        order[to] = to;
    }
    header.by_name = positions_by_name(tensors, where);

    const std::byte* covered = data.data();
    for (const StoredTensor& tensor : tensors) {
        if (tensor.data.data() != covered)
            throw Error(where,
                        "tensor " + in_quotes(tensor.name) + ": data_offsets expected to begin at " +
                            std::to_string(covered - data.data()) + ", found " +
                            std::to_string(tensor.data.data() - data.data()) +
                            (tensor.data.data() > covered ? " (hole before it)" : " (overlaps the tensor before it)"));
        covered += tensor.data.size();
    }
    const auto rest = data.data() + data.size() - covered;
    if (rest != 0) throw Error(where, std::to_string(rest) + " bytes after the last tensor belong to none");
    return header;
}

}  // namespace detail

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/data/safetensors.hpp ----

// Safetensors files: a memory-mapped reader, typed access to the elements, and an atomic writer.

namespace tandem::inline TANDEM_ABI {

/// A safetensors file, checked to the last rule before anything of it is seen: the rules of the reference
/// (safetensors/src/tensor.rs, release 0.8.0) and of its README, by which a duplicate key is an error too. Stricter
/// than the reference in three points: unknown keys of a tensor, a null __metadata__, and sizes no real file has (a
/// string above 512 KiB; names, shapes and metadata of more than 6 MiB) are refused. Like it, allows JSON whitespace
/// around the header. Data is neither copied nor checksummed. Move only.
class Safetensors {
public:
    /// Maps the file. Throws Error that names it and the fault.
    static Safetensors open(const std::filesystem::path& path) {
        MappedFile file(path);
        Safetensors result = parse(file.bytes(), path.string());
        result.file_ = std::move(file);
        return result;
    }

    /// Reads a file that is in memory already; the bytes must outlive the object. `where` begins every error.
    static Safetensors parse(std::span<const std::byte> bytes, std::string_view where) {
        return Safetensors(detail::read_header(bytes, where));
    }

    /// The free-form entries of the header's __metadata__; empty if it has none.
    const std::map<std::string, std::string>& metadata() const { return header_.metadata; }

    /// All tensors in the order of their bytes in the file. Their data is valid for as long as the mapping.
    std::span<const StoredTensor> tensors() const { return header_.tensors; }

    /// The tensor of that name, or nullptr.
    const StoredTensor* find(std::string_view name) const {
        const auto found = std::lower_bound(
            header_.by_name.begin(), header_.by_name.end(), name,
            [&](std::uint32_t i, std::string_view sought) { return header_.tensors[i].name < sought; });
        if (found == header_.by_name.end() || header_.tensors[*found].name != name) return nullptr;
        return &header_.tensors[*found];
    }

    /// Lets go of the memory that a tensor's data takes while the file is mapped; it can still be read.
    void forget(const StoredTensor& tensor) const {
        if (file_) file_->forget(tensor.data);
    }

private:
    explicit Safetensors(detail::Header header) : header_(std::move(header)) {}

    detail::Header header_;
    std::optional<MappedFile> file_;
};

/// Types that read_elements converts to and stored_tensor stores.
template <class T>
concept StoredElement = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, bfloat16> ||
    std::same_as<T, std::int32_t> || std::same_as<T, std::int64_t> || std::same_as<T, std::uint8_t>;

namespace detail {

/// IEEE 754 binary16 to binary32, exact; NaN payloads are kept.
inline float half_to_float(std::uint16_t half) {
    const std::uint32_t sign = (half & 0x8000U) << 16;
    const std::uint32_t exponent = (half >> 10) & 0x1fU;
    const std::uint32_t mantissa = half & 0x3ffU;
    if (exponent == 0) {
        const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
        return sign == 0 ? magnitude : -magnitude;
    }
    const std::uint32_t wide = exponent == 0x1f ? 0xffU : exponent + (127 - 15);
    return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}

/// Copies elements of type Stored, aligned or not, through `convert(value, index)`.
template <class Stored, class T, class Convert>
void convert_elements(std::span<const std::byte> data, std::span<T> out, Convert convert) {
    for (std::size_t i = 0; i < out.size(); ++i) {
        Stored value;
        std::memcpy(&value, data.data() + i * sizeof(Stored), sizeof(Stored));
        out[i] = convert(value, i);
    }
}

inline void check_size(const StoredTensor& tensor) {
    if (byte_count(tensor.type, tensor.shape) != tensor.data.size())
        throw Error(tensor.name,
                    "data of shape " + shape_text(tensor.shape) + " and type " + std::string(name(tensor.type)),
                    std::to_string(tensor.data.size()) + " bytes");
}

}  // namespace detail

/// Reads all elements in row-major order. Floating T takes F64, F32, F16 and BF16 and rounds to nearest (to bfloat16 by
/// way of float); integer T takes I64, I32 and U8. Throws Error that names the tensor if the type is another, if `out`
/// has not as many elements as the shape, or if an integer does not fit T; `out` may then be written in part.
template <StoredElement T>
void read_elements(const StoredTensor& tensor, std::span<T> out) {
    detail::check_size(tensor);
    const std::size_t count = tensor.data.size() * 8 / bits(tensor.type);
    if (out.size() != count)
        throw Error(tensor.name, std::to_string(out.size()) + " elements",
                    std::to_string(count) + " (shape " + detail::shape_text(tensor.shape) + ")");
    if (tensor.type == data_type_of<T>()) {
        if (!out.empty()) std::memcpy(out.data(), tensor.data.data(), tensor.data.size());
        return;
    }
    if constexpr (std::integral<T>) {
        const auto fitting = [&](auto value, std::size_t i) {
            if (!std::in_range<T>(value))
                throw Error(tensor.name, "values that fit " + std::string(name(data_type_of<T>())),
                            std::to_string(value) + " at element " + std::to_string(i));
            return static_cast<T>(value);
        };
        switch (tensor.type) {
            case DataType::I64:
                return detail::convert_elements<std::int64_t>(tensor.data, out, fitting);
            case DataType::I32:
                return detail::convert_elements<std::int32_t>(tensor.data, out, fitting);
            case DataType::U8:
                return detail::convert_elements<std::uint8_t>(tensor.data, out, fitting);
            default:
                throw Error(tensor.name, "I64, I32 or U8", name(tensor.type));
        }
    } else {
        const auto rounded = [](auto value, std::size_t) {
            if constexpr (std::same_as<T, bfloat16>) {
                return bfloat16(static_cast<float>(value));
            } else {
                return static_cast<T>(value);
            }
        };
        const auto from_half = [&](std::uint16_t half, std::size_t i) {
            return rounded(detail::half_to_float(half), i);
        };
        const auto from_bfloat16 = [&](std::uint16_t word, std::size_t i) {
            return rounded(std::bit_cast<float>(static_cast<std::uint32_t>(word) << 16), i);
        };
        switch (tensor.type) {
            case DataType::F64:
                return detail::convert_elements<double>(tensor.data, out, rounded);
            case DataType::F32:
                return detail::convert_elements<float>(tensor.data, out, rounded);
            case DataType::F16:
                return detail::convert_elements<std::uint16_t>(tensor.data, out, from_half);
            case DataType::BF16:
                return detail::convert_elements<std::uint16_t>(tensor.data, out, from_bfloat16);
            default:
                throw Error(tensor.name, "F64, F32, F16 or BF16", name(tensor.type));
        }
    }
}

/// Describes elements in memory as a tensor to save; they must outlive it.
template <StoredElement T>
StoredTensor stored_tensor(std::string name, std::vector<std::size_t> shape, std::span<const T> elements) {
    return {std::move(name), data_type_of<T>(), std::move(shape), std::as_bytes(elements)};
}

namespace detail {

/// Appends a JSON string. Throws Error if it is not UTF-8 or longer than the reader takes.
inline void append_header_string(std::string& json, std::string_view text, std::string_view where) {
    const std::size_t begin = json.size();
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t length = utf8_sequence(text.substr(i));
        if (length == 0) throw Error(where, "name or metadata " + in_quotes(text) + " is not UTF-8");
        i += length;
    }
    append_json_string(json, text);
    if (json.size() - begin > max_string_bytes)
        throw Error(where, "name or metadata " + in_quotes(text) + " is longer than 512 KiB");
}

/// The header for tensors in this order, its eight length bytes included, padded so that the data is 8-byte aligned.
inline std::string header_for(std::span<const StoredTensor* const> tensors,
                              const std::map<std::string, std::string>& metadata, std::string_view where) {
    std::string json = "{";
    std::size_t cost = 0;
    if (!metadata.empty()) {
        json += "\"__metadata__\":{";
        for (const auto& [key, value] : metadata) {
            if (json.back() != '{') json += ',';
            append_header_string(json, key, where);
            json += ':';
            append_header_string(json, value, where);
            cost += index_cost(key.size() + value.size(), 0);
        }
        json += '}';
    }
    std::size_t offset = 0;
    for (const StoredTensor* tensor : tensors) {
        if (json.size() > 1) json += ',';
        append_header_string(json, tensor->name, where);
        json.append(":{\"dtype\":\"").append(name(tensor->type)).append("\",\"shape\":[");
        for (const std::size_t extent : tensor->shape) {
            if (json.back() != '[') json += ',';
            json += std::to_string(extent);
        }
        json += "],\"data_offsets\":[" + std::to_string(offset) + ',';
        offset += tensor->data.size();
        json += std::to_string(offset) + "]}";
        cost += index_cost(tensor->name.size(), tensor->shape.size());
    }
    json += '}';
    json.append((8 - json.size() % 8) % 8, ' ');
    if (cost > max_index_bytes) throw Error(where, "names, shapes and metadata take more than 6 MiB");
    const std::uint64_t length = json.size();
    std::string result(sizeof(length), '\0');
    std::memcpy(result.data(), &length, sizeof(length));
    return result + json;
}

}  // namespace detail

/// Writes a safetensors file, atomically and durably (write_file_atomically). Tensors keep their order within an
/// element width, wider elements first, so that each is aligned to its element. Throws Error, and writes nothing, on
/// duplicate names, on data that does not match shape and type, on names or metadata that are not UTF-8, on names,
/// shapes and metadata beyond what Safetensors reads, and on the name __metadata__.
inline void save_safetensors(const std::filesystem::path& path, std::span<const StoredTensor> tensors,
                             const std::map<std::string, std::string>& metadata = {}) {
    const std::string where = path.string();
    for (const StoredTensor& tensor : tensors) {
        if (tensor.name == "__metadata__") throw Error(where, "a tensor cannot have the reserved name '__metadata__'");
        if (detail::byte_count(tensor.type, tensor.shape) != tensor.data.size())
            throw Error(where, "tensor " + detail::in_quotes(tensor.name) + ": " + std::string(name(tensor.type)) +
                                   " " + detail::shape_text(tensor.shape) + " does not take " +
                                   std::to_string(tensor.data.size()) + " bytes");
    }
    detail::positions_by_name(tensors, where);
    const auto before = [](const StoredTensor& a, const StoredTensor& b) {
        return bits(a.type) != bits(b.type) ? bits(a.type) > bits(b.type) : &a < &b;
    };
    std::vector<const StoredTensor*> order;
    for (const std::uint32_t i : detail::sorted_positions(tensors, before)) order.push_back(&tensors[i]);

    const std::string header = detail::header_for(order, metadata, where);
    std::vector<std::span<const std::byte>> parts{std::as_bytes(std::span<const char>(header))};
    for (const StoredTensor* tensor : order) parts.push_back(tensor->data);
    write_file_atomically(path, parts);
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/core/memory.hpp ----

// Aligned storage, and memory that is used again.

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

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

// ---- tandem/core/shape.hpp ----

// Shapes as types: static extents, and dynamic ones, by custom in front.

namespace tandem::inline TANDEM_ABI {

/// An extent known only at run time, such as a batch size.
inline constexpr std::size_t dynamic = static_cast<std::size_t>(-1);

/// The run-time counterpart of a Shape: every extent as a number. Also a structural value, for shape arithmetic.
template <std::size_t Rank>
struct Extents {
    std::size_t value[Rank == 0 ? 1 : Rank]{};

    TANDEM_DEVICE constexpr std::size_t operator[](std::size_t axis) const { return value[axis]; }
    TANDEM_DEVICE constexpr std::size_t& operator[](std::size_t axis) { return value[axis]; }

    /// The number of elements; 1 for a scalar.
    TANDEM_DEVICE constexpr std::size_t count() const {
        std::size_t product = 1;
        for (std::size_t axis = 0; axis < Rank; ++axis) product *= value[axis];
        return product;
    }

    TANDEM_DEVICE constexpr bool operator==(const Extents& other) const {
        for (std::size_t axis = 0; axis < Rank; ++axis) {
            if (value[axis] != other.value[axis]) return false;
        }
        return true;
    }
};

namespace detail {

[[gnu::cold]] inline std::string extents_text(std::span<const std::size_t> extents) {
    std::string text = "[";
    for (const std::size_t extent : extents) {
        if (text.size() > 1) text += ", ";
        text += extent == dynamic ? std::string("?") : std::to_string(extent);
    }
    return text + "]";
}

}  // namespace detail

/// "[2, 3]"; a dynamic extent prints as "?".
template <std::size_t Rank>
std::string to_string(const Extents<Rank>& extents) {
    return detail::extents_text(std::span(extents.value, Rank));
}

namespace detail {

// Apart from its callers, which are compiled for every shape.
template <std::size_t Expected, std::size_t Found>
[[noreturn, gnu::cold]] void throw_extents(const char* where, const Extents<Expected>& expected,
                                           const Extents<Found>& found) {
    throw Error(where, to_string(expected), to_string(found));
}

[[noreturn, gnu::cold]] inline void throw_slice(std::size_t size, std::size_t first, std::size_t last) {
    throw Error("View::slice", "items of 0 to " + std::to_string(size),
                std::to_string(first) + " to " + std::to_string(last));
}

}  // namespace detail

/// The extents of a tensor as a type: Shape<dynamic, 50, 768>. Shape<> is a scalar.
template <std::size_t... Ns>
struct Shape {
    static constexpr std::size_t rank = sizeof...(Ns);
    static constexpr Extents<rank> extents{Ns...};
    static constexpr std::size_t dynamic_count = (std::size_t{0} + ... + (Ns == dynamic ? 1 : 0));

    /// Whether these run-time extents are of this shape.
    static constexpr bool admits(const Extents<rank>& candidate) {
        for (std::size_t axis = 0; axis < rank; ++axis) {
            if (extents[axis] != dynamic && extents[axis] != candidate[axis]) return false;
        }
        return true;
    }
};

namespace detail {

/// The Shape whose extents Maker::extents() returns. A function, not a constant, as argument: g++ 12 crashes on alias
/// templates that take a class-type constant of dependent type.
template <class Maker, std::size_t... Axes>
auto shape_of(std::index_sequence<Axes...>) -> Shape<Maker::extents()[Axes]...>;

template <class Maker>
using ShapeFrom = decltype(shape_of<Maker>(std::make_index_sequence<Maker::rank>{}));

}  // namespace detail

/// Whether two extents of an elementwise operation agree: equal, one of them 1, or known only at run time. A dynamic
/// extent never stands for a broadcast 1: it must equal its partner, which is checked when the expression is made.
constexpr bool extents_broadcast(std::size_t a, std::size_t b) {
    return a == b || a == 1 || b == 1 || a == dynamic || b == dynamic;
}

constexpr std::size_t broadcast_extent(std::size_t a, std::size_t b) {
    if (a == 1) return b;
    if (b == 1) return a;
    return a == dynamic ? b : a;
}

namespace detail {

/// NumPy's rule: shapes are aligned at their last axis, a missing leading axis counts as 1.
template <std::size_t Rank>
constexpr std::size_t aligned_extent(const Extents<Rank>& own, std::size_t rank, std::size_t axis) {
    return axis + Rank < rank ? 1 : own[axis + Rank - rank];
}

template <class A, class B>
constexpr bool shapes_broadcast() {
    constexpr std::size_t rank = std::max(A::rank, B::rank);
    for (std::size_t axis = 0; axis < rank; ++axis) {
        if (!extents_broadcast(aligned_extent(A::extents, rank, axis), aligned_extent(B::extents, rank, axis))) {
            return false;
        }
    }
    return true;
}

template <class A, class B>
struct BroadcastMaker {
    static constexpr std::size_t rank = std::max(A::rank, B::rank);

    static constexpr Extents<rank> extents() {
        Extents<rank> result{};
        for (std::size_t axis = 0; axis < rank; ++axis) {
            result[axis] =
                broadcast_extent(aligned_extent(A::extents, rank, axis), aligned_extent(B::extents, rank, axis));
        }
        return result;
    }
};

}  // namespace detail

template <class A, class B>
inline constexpr bool can_broadcast = detail::shapes_broadcast<A, B>();

/// The shape of an elementwise operation on shapes A and B.
template <class A, class B>
using Broadcast = detail::ShapeFrom<detail::BroadcastMaker<A, B>>;

/// The run-time extents of an elementwise operation; throws where dynamic extents disagree.
template <class A, class B>
constexpr auto broadcast_extents(const Extents<A::rank>& a, const Extents<B::rank>& b) {
    constexpr std::size_t rank = std::max(A::rank, B::rank);
    Extents<rank> result{};
    for (std::size_t axis = 0; axis < rank; ++axis) {
        const std::size_t left = detail::aligned_extent(a, rank, axis);
        const std::size_t right = detail::aligned_extent(b, rank, axis);
        const bool left_is_one = detail::aligned_extent(A::extents, rank, axis) == 1;
        const bool right_is_one = detail::aligned_extent(B::extents, rank, axis) == 1;
        if (left != right && !left_is_one && !right_is_one) {
            detail::throw_extents("elementwise operation", a, b);
        }
        result[axis] = left_is_one ? right : left;
    }
    return result;
}

/// Extents with one axis removed, or kept as 1.
template <std::size_t Axis, bool Keep, std::size_t Rank>
constexpr auto without_axis(const Extents<Rank>& extents) {
    Extents<(Keep ? Rank : Rank - 1)> result{};
    for (std::size_t axis = 0, out = 0; axis < Rank; ++axis) {
        if (axis != Axis) {
            result[out++] = extents[axis];
        } else if (Keep) {
            result[out++] = 1;
        }
    }
    return result;
}

namespace detail {

template <class S, std::size_t Axis, bool Keep>
struct WithoutAxisMaker {
    static constexpr std::size_t rank = Keep ? S::rank : S::rank - 1;
    static constexpr Extents<rank> extents() { return without_axis<Axis, Keep>(S::extents); }
};

}  // namespace detail

/// S with one axis removed, or kept as 1.
template <class S, std::size_t Axis, bool Keep>
using WithoutAxis = detail::ShapeFrom<detail::WithoutAxisMaker<S, Axis, Keep>>;

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/tensor/tensor.hpp ----

// Tensors that own their elements and views that do not, with extents as types.

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// The full extents of shape S, given its dynamic ones in order.
template <class S, std::convertible_to<std::size_t>... Dynamic>
constexpr Extents<S::rank> extents_of(Dynamic... extents) {
    static_assert(sizeof...(Dynamic) == S::dynamic_count,
                  "tandem: give exactly one size for every dynamic extent of the shape");
    Extents<S::rank> result = S::extents;
    [[maybe_unused]] std::size_t axis = 0;
    [[maybe_unused]] const auto next_dynamic = [&]() -> std::size_t& {
        while (S::extents[axis] != dynamic) ++axis;
        return result[axis++];
    };
    ((next_dynamic() = static_cast<std::size_t>(extents)), ...);
    return result;
}

/// The extents of shape S with 0 for the dynamic ones.
template <class S>
constexpr Extents<S::rank> empty_extents() {
    Extents<S::rank> result = S::extents;
    for (std::size_t axis = 0; axis < S::rank; ++axis) {
        if (result[axis] == dynamic) result[axis] = 0;
    }
    return result;
}

template <std::size_t Rank, std::convertible_to<std::size_t>... Indices>
TANDEM_DEVICE constexpr std::size_t offset_of(const Extents<Rank>& extents, Indices... indices) {
    static_assert(sizeof...(Indices) == Rank, "tandem: give exactly one index for every axis of the tensor");
    std::size_t offset = 0;
    [[maybe_unused]] std::size_t axis = 0;
    ((offset = offset * extents[axis++] + static_cast<std::size_t>(indices)), ...);
    return offset;
}

template <class S, std::size_t... Axes>
auto tail_shape(std::index_sequence<Axes...>) -> Shape<S::extents[Axes + 1]...>;

}  // namespace detail

/// The shape of one item along the leading axis.
template <class S>
using ItemShape = decltype(detail::tail_shape<S>(std::make_index_sequence<S::rank - 1>{}));

/// A contiguous row-major tensor somebody else owns. View<const T, S> reads, View<T, S> also writes.
template <class T, class S>
    requires Element<std::remove_const_t<T>>
class View {
public:
    using element = std::remove_const_t<T>;
    using shape = S;

    /// Empty: dynamic extents are 0.
    View() : extents_(detail::empty_extents<S>()) {}
    TANDEM_DEVICE constexpr View(T* data, const Extents<S::rank>& extents) : data_(data), extents_(extents) {}

    /// Views `elements`, whose number must be that of the shape with these dynamic extents.
    template <std::convertible_to<std::size_t>... Dynamic>
    explicit View(std::span<T> elements, Dynamic... dynamic_extents)
        : data_(elements.data()), extents_(detail::extents_of<S>(dynamic_extents...)) {
        if (elements.size() != extents_.count()) {
            throw Error("View", std::to_string(extents_.count()) + " elements for " + to_string(extents_),
                        std::to_string(elements.size()));
        }
    }

    /// A view that writes is also one that reads; a static extent may be forgotten.
    template <class U, class From>
        requires(std::same_as<const U, T> || (std::same_as<U, T> && !std::same_as<From, S>)) &&
                (From::rank == S::rank)
    TANDEM_DEVICE constexpr View(const View<U, From>& other) : data_(other.data()), extents_(other.extents()) {
        constexpr bool fits = [] {
            for (std::size_t axis = 0; axis < S::rank; ++axis) {
                if (S::extents[axis] != dynamic && S::extents[axis] != From::extents[axis]) return false;
            }
            return true;
        }();
        static_assert(fits, "tandem: a view cannot change a tensor's static extents");
    }

    TANDEM_DEVICE constexpr T* data() const { return data_; }
    TANDEM_DEVICE constexpr const Extents<S::rank>& extents() const { return extents_; }
    TANDEM_DEVICE constexpr std::size_t extent(std::size_t axis) const { return extents_[axis]; }
    TANDEM_DEVICE constexpr std::size_t size() const { return extents_.count(); }
    std::span<T> elements() const { return {data_, size()}; }

    template <std::convertible_to<std::size_t>... Indices>
    TANDEM_DEVICE constexpr T& operator()(Indices... indices) const {
        return data_[detail::offset_of(extents_, indices...)];
    }

    /// The item at `index` of the leading axis.
    constexpr auto operator[](std::size_t index) const
        requires(S::rank > 0)
    {
        Extents<S::rank - 1> inner{};
        for (std::size_t axis = 1; axis < S::rank; ++axis) inner[axis - 1] = extents_[axis];
        return View<T, ItemShape<S>>(data_ + index * inner.count(), inner);
    }

    /// The items [first, last) of the leading axis. Throws Error if there are not as many.
    constexpr auto slice(std::size_t first, std::size_t last) const
        requires(S::rank > 0 && S::extents[0] == dynamic)
    {
        if (first > last || last > extents_[0]) detail::throw_slice(extents_[0], first, last);
        Extents<S::rank> extents = extents_;
        extents[0] = last - first;
        return View<T, S>(data_ + first * (extents_.count() / std::max<std::size_t>(extents_[0], 1)), extents);
    }

private:
    T* data_ = nullptr;
    Extents<S::rank> extents_;
};

/// A tensor that owns its elements, 64-byte aligned, zero when made. Copies are deep. Tensor<float, Shape<dynamic, 768>>
/// x(rows) has `rows` x 768 elements; a shape without dynamic extents takes no sizes; Tensor<float, Shape<>> is a scalar.
template <Element T, class S>
class Tensor {
public:
    using element = T;
    using shape = S;

    Tensor()
        requires(S::dynamic_count == 0)
        : elements_(S::extents.count()) {}
    Tensor()
        requires(S::dynamic_count > 0)
        : extents_(detail::empty_extents<S>()) {}

    template <std::convertible_to<std::size_t>... Dynamic>
        requires(sizeof...(Dynamic) > 0 && S::dynamic_count > 0)
    explicit Tensor(Dynamic... dynamic_extents) : Tensor(detail::extents_of<S>(dynamic_extents...)) {}

    /// The elements of a fully static shape in row-major order, or of a vector: Tensor<float, Shape<dynamic>> x{1, 2}.
    Tensor(std::initializer_list<T> values)
        requires(S::dynamic_count == 0 || S::rank == 1)
    {
        if constexpr (S::dynamic_count > 0) extents_[0] = values.size();
        if (values.size() != extents_.count()) {
            throw Error("Tensor", std::to_string(extents_.count()) + " elements for " + to_string(extents_),
                        std::to_string(values.size()));
        }
        elements_.resize(values.size());
        std::copy(values.begin(), values.end(), elements_.data());
    }

    explicit Tensor(const Extents<S::rank>& extents) : elements_(extents.count()), extents_(extents) {
        if (!S::admits(extents)) detail::throw_extents("Tensor", S::extents, extents);
    }

    /// New dynamic extents. Memory is kept when they shrink; the contents do not survive.
    template <std::convertible_to<std::size_t>... Dynamic>
    void resize(Dynamic... dynamic_extents) {
        extents_ = detail::extents_of<S>(dynamic_extents...);
        elements_.resize(extents_.count());
    }
    void resize(const Extents<S::rank>& extents) {
        if (!S::admits(extents)) detail::throw_extents("Tensor::resize", S::extents, extents);
        extents_ = extents;
        elements_.resize(extents.count());
    }

    void fill(T value) { std::fill_n(elements_.data(), size(), value); }

    T* data() { return elements_.data(); }
    const T* data() const { return elements_.data(); }
    const Extents<S::rank>& extents() const { return extents_; }
    std::size_t extent(std::size_t axis) const { return extents_[axis]; }
    std::size_t size() const { return elements_.size(); }
    std::span<T> elements() & { return {data(), size()}; }
    std::span<const T> elements() const& { return {data(), size()}; }
    void elements() && = delete;  // the memory would be gone before it is read

    View<T, S> view() { return {data(), extents_}; }
    View<const T, S> view() const { return {data(), extents_}; }
    operator View<T, S>() { return view(); }
    operator View<const T, S>() const { return view(); }

    template <std::convertible_to<std::size_t>... Indices>
    T& operator()(Indices... indices) {
        return data()[detail::offset_of(extents_, indices...)];
    }
    template <std::convertible_to<std::size_t>... Indices>
    const T& operator()(Indices... indices) const {
        return data()[detail::offset_of(extents_, indices...)];
    }

    auto operator[](std::size_t index) { return view()[index]; }
    auto operator[](std::size_t index) const { return view()[index]; }

    /// The value of a scalar.
    T item() const
        requires(S::rank == 0)
    {
        return *data();
    }

private:
    Buffer<T> elements_;
    Extents<S::rank> extents_ = S::extents;
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/tensor/expression.hpp ----

// Expressions: what to compute, as a type. Nodes hold their operands by value and compute nothing until evaluated.

namespace tandem::inline TANDEM_ABI {

/// Every node derives from this. A node has: `element`, the type it computes in; `shape`; extents(); and write_key(),
/// which lists what distinguishes it from other nodes of its type.
struct ExpressionNode {};

template <class E>
concept Expression = std::derived_from<std::remove_cvref_t<E>, ExpressionNode>;

namespace detail {

template <class T>
inline constexpr bool is_tensor = false;
template <class T, class S>
inline constexpr bool is_tensor<Tensor<T, S>> = true;
template <class T>
inline constexpr bool is_view = false;
template <class T, class S>
inline constexpr bool is_view<View<T, S>> = true;

/// The element of a constant: it takes the type of what it meets.
struct Neutral {};

template <class A, class B>
struct CommonElementOf {
    static_assert(std::is_same_v<A, B>,
                  "tandem: the tensors of an expression must have one element type (bfloat16 counts as float)");
    using type = A;
};
template <class A>
struct CommonElementOf<A, Neutral> {
    using type = A;
};
template <class B>
struct CommonElementOf<Neutral, B> {
    using type = B;
};
template <>
struct CommonElementOf<Neutral, Neutral> {
    using type = Neutral;
};

template <class... Elements>
struct CommonElementFold {
    using type = Neutral;
};
template <class First, class... Rest>
struct CommonElementFold<First, Rest...> {
    using type = typename CommonElementOf<First, typename CommonElementFold<Rest...>::type>::type;
};

template <class... Shapes>
struct BroadcastFold {
    using type = Shape<>;
};
template <class First, class... Rest>
struct BroadcastFold<First, Rest...> {
    using rest = typename BroadcastFold<Rest...>::type;
    static_assert(can_broadcast<First, rest>,
                  "tandem: the shapes of an elementwise operation do not fit: aligned at the last axis, each pair of "
                  "extents must be equal or 1");
    using type = Broadcast<First, rest>;
};

/// The run-time extents of the operands broadcast together.
inline Extents<0> broadcast_all() { return {}; }

template <class First, class... Rest>
auto broadcast_all(const First& first, const Rest&... rest) {
    return broadcast_extents<typename First::shape, typename BroadcastFold<typename Rest::shape...>::type>(
        first.extents(), broadcast_all(rest...));
}

using Key = RecyclingVector<std::uintptr_t>;

}  // namespace detail

/// What a user may write as an operand: a tensor, a view, an expression, or (beside one of them) a number.
template <class X>
concept TensorOperand = Expression<X> || detail::is_tensor<std::remove_cvref_t<X>> ||
                        detail::is_view<std::remove_cvref_t<X>>;
template <class X>
concept AnyOperand = TensorOperand<X> || std::is_arithmetic_v<std::remove_cvref_t<X>>;

/// The gradient of a tensor while it is being collected.
template <Real T, class S>
struct Adjoint : Recycled {
    Tensor<T, S> value;
    bool touched = false;

    explicit Adjoint(const Extents<S::rank>& extents) : value(extents) {}

    /// The sum so far, zero before the first contribution.
    Tensor<T, S>& dense() {
        touched = true;
        return value;
    }
};

/// In place of an index: all axes are walked as one row, which every leaf but scalars has in full.
struct WholeTensor {};

/// Reads a row of contiguous elements. `access` decides what a read is: a vector, a partial vector, or one element.
template <class T>
struct PointerCursor {
    const T* row;

    template <class Access>
    TANDEM_DEVICE auto get(const Access& access) const {
        return access.load(row);
    }
};

/// Repeats one value along a row.
template <class T>
struct SplatCursor {
    T value;

    template <class Access>
    TANDEM_DEVICE auto get(const Access& access) const {
        return access.splat(value);
    }
};

template <class F, class... Cursors>
struct ApplyCursor {
    std::tuple<Cursors...> cursors;

    template <class Access>
    TANDEM_DEVICE auto get(const Access& access) const {
        return get_from(access, std::index_sequence_for<Cursors...>{});
    }

private:
    template <class Access, std::size_t... I>
    TANDEM_DEVICE auto get_from(const Access& access, std::index_sequence<I...>) const {
        return F{}(std::get<I>(cursors).get(access)...);
    }
};

/// A tensor read where it stands. Where a gradient is wanted with respect to it, `adjoint` is where it goes.
template <Element T, class S>
struct Leaf : ExpressionNode {
    using element = Compute<T>;
    using shape = S;
    using AdjointPointer = std::conditional_t<Real<element>, Adjoint<std::conditional_t<Real<element>, element, float>, S>*,
                                              std::nullptr_t>;

    View<const T, S> view;
    AdjointPointer adjoint = nullptr;

    TANDEM_DEVICE explicit Leaf(const View<const T, S>& source, AdjointPointer gradient = nullptr)
        : view(source), adjoint(gradient) {}

    TANDEM_DEVICE const Extents<S::rank>& extents() const { return view.extents(); }
    void write_key(detail::Key& key) const {
        key.push_back(reinterpret_cast<std::uintptr_t>(view.data()));
        for (std::size_t axis = 0; axis < S::rank; ++axis) key.push_back(view.extent(axis));
    }

    /// The row that starts at `index` of a result of any rank this shape broadcasts to; the last index is ignored.
    template <std::size_t Rank>
    TANDEM_DEVICE auto cursor(const Extents<Rank>& index) const {
        // A copy: device code cannot refer to a static member of the host.
        constexpr Extents<S::rank> fixed = S::extents;
        const T* row = view.data();
        std::size_t stride = 1;
        for (std::size_t axis = S::rank; axis-- > 0;) {
            if (axis + 1 < S::rank && fixed[axis] != 1) row += index[axis + Rank - S::rank] * stride;
            stride *= view.extent(axis);
        }
        if constexpr (S::rank == 0 || last_extent_is_one()) {
            return SplatCursor<element>{static_cast<element>(*row)};
        } else {
            return PointerCursor<T>{row};
        }
    }

    TANDEM_DEVICE auto cursor(WholeTensor) const {
        if constexpr (S::rank == 0) {
            return SplatCursor<element>{static_cast<element>(*view.data())};
        } else {
            return PointerCursor<T>{view.data()};
        }
    }

private:
    static constexpr bool last_extent_is_one() { return S::rank > 0 && S::extents[S::rank == 0 ? 0 : S::rank - 1] == 1; }
};

/// A leaf whose type marks it as the one an elementwise expression is differentiated by.
template <Element T, class S>
struct Variable : Leaf<T, S> {
    using is_variable = void;
    using Leaf<T, S>::Leaf;
};

/// A temporary tensor that the expression keeps alive.
template <Element T, class S, class Owner = Tensor<T, S>>
struct Held : ExpressionNode {
    using element = Compute<T>;
    using shape = S;

    std::shared_ptr<const Owner> tensor;

    explicit Held(Owner&& source) : tensor(std::allocate_shared<const Owner>(RecyclingAllocator<Owner>(), std::move(source))) {}

    const Extents<S::rank>& extents() const { return tensor->extents(); }
    void write_key(detail::Key& key) const { key.push_back(reinterpret_cast<std::uintptr_t>(tensor.get())); }
};

/// A number.
struct Constant : ExpressionNode {
    using element = detail::Neutral;
    using shape = Shape<>;

    double value;

    TANDEM_DEVICE constexpr explicit Constant(double number) : value(number) {}

    TANDEM_DEVICE constexpr Extents<0> extents() const { return {}; }
    void write_key(detail::Key& key) const { key.push_back(std::bit_cast<std::uintptr_t>(value)); }

    template <class Index>
    TANDEM_DEVICE auto cursor(const Index&) const {
        return SplatCursor<double>{value};
    }
};

/// An elementwise function of its operands, which are broadcast against one another. F is an empty type with operator()
/// on scalars and SIMD vectors alike, and, to be differentiated, F::template backward<I>(g, operands...), the gradient
/// with respect to operand I given the gradient g of the result.
template <class F, Expression... Operands>
struct Apply : ExpressionNode {
    static_assert(std::is_empty_v<F>, "tandem: an elementwise function must be an empty type; pass numbers as operands");
    using element = typename detail::CommonElementFold<typename Operands::element...>::type;
    using shape = typename detail::BroadcastFold<typename Operands::shape...>::type;

    std::tuple<Operands...> operands;

    explicit Apply(Operands... parts)
        : operands(std::move(parts)...),
          extents_(std::apply([](const auto&... operand) { return detail::broadcast_all(operand...); }, operands)) {}

    TANDEM_DEVICE const Extents<shape::rank>& extents() const { return extents_; }
    void write_key(detail::Key& key) const {
        std::apply([&](const auto&... operand) { (operand.write_key(key), ...); }, operands);
    }

    template <class Index>
    TANDEM_DEVICE auto cursor(const Index& index) const {
        return cursor_from(index, std::index_sequence_for<Operands...>{});
    }

private:
    template <class Index, std::size_t... I>
    TANDEM_DEVICE auto cursor_from(const Index& index, std::index_sequence<I...>) const {
        return ApplyCursor<F, decltype(std::get<I>(operands).cursor(index))...>{{std::get<I>(operands).cursor(index)...}};
    }

    Extents<shape::rank> extents_;
};

/// An expression repeated to a larger shape.
template <class S, Expression E>
struct Expand : ExpressionNode {
    using element = typename E::element;
    using shape = S;

    E operand;

    Expand(E source, const Extents<S::rank>& extents) : operand(std::move(source)), extents_(extents) {
        static_assert(can_broadcast<S, typename E::shape>);
    }

    TANDEM_DEVICE const Extents<S::rank>& extents() const { return extents_; }

    template <class Index>
    TANDEM_DEVICE auto cursor(const Index& index) const {
        return operand.cursor(index);
    }

private:
    Extents<S::rank> extents_;
};

/// The node a user's operand stands for.
template <AnyOperand X>
auto as_expression(X&& x) {
    using Plain = std::remove_cvref_t<X>;
    if constexpr (Expression<Plain>) {
        return Plain(std::forward<X>(x));
    } else if constexpr (std::is_arithmetic_v<Plain>) {
        return Constant(static_cast<double>(x));
    } else if constexpr (detail::is_tensor<Plain> && !std::is_lvalue_reference_v<X>) {
        return Held<typename Plain::element, typename Plain::shape, Plain>(std::move(x));
    } else {
        return Leaf<typename Plain::element, typename Plain::shape>(x);
    }
}

template <AnyOperand X>
using AsExpression = decltype(as_expression(std::declval<X>()));

template <class F, AnyOperand... Xs>
auto apply(Xs&&... xs) {
    return Apply<F, AsExpression<Xs>...>(as_expression(std::forward<Xs>(xs))...);
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/tensor/functions.hpp ----

// Elementwise functions: on the host, in SIMD vectors and on the device, each with its derivative beside it.

namespace tandem::inline TANDEM_ABI {

// A vector type's own exp, log, max and so on are found by argument-dependent lookup; scalars use these.
namespace detail {

using std::abs;
using std::erf;
using std::exp;
using std::log;
using std::log1p;
using std::sqrt;
using std::tanh;

template <Real T>
TANDEM_DEVICE T max(T a, T b) {
    return a > b ? a : b;
}
template <Real T>
TANDEM_DEVICE T min(T a, T b) {
    return a < b ? a : b;
}
template <Real T>
TANDEM_DEVICE T select(bool condition, T a, T b) {
    return condition ? a : b;
}

}  // namespace detail

/// The functors behind the operators and functions below.
namespace functions {

struct Add {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a, const V& b) const {
        return a + b;
    }
    template <std::size_t I, class G, class A, class B>
    static auto backward(const G& g, const A&, const B&) {
        return g;
    }
};

struct Negate {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        return -a;
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A&) {
        return -g;
    }
};

struct Subtract {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a, const V& b) const {
        return a - b;
    }
    template <std::size_t I, class G, class A, class B>
    static auto backward(const G& g, const A&, const B&) {
        if constexpr (I == 0) {
            return g;
        } else {
            return -g;
        }
    }
};

struct Multiply {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a, const V& b) const {
        return a * b;
    }
    template <std::size_t I, class G, class A, class B>
    static auto backward(const G& g, const A& a, const B& b) {
        if constexpr (I == 0) {
            return g * b;
        } else {
            return g * a;
        }
    }
};

struct Divide {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a, const V& b) const {
        return a / b;
    }
    template <std::size_t I, class G, class A, class B>
    static auto backward(const G& g, const A& a, const B& b) {
        if constexpr (I == 0) {
            return g / b;
        } else {
            return -(g * a / (b * b));
        }
    }
};

struct Greater {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a, const V& b) const {
        using detail::select;
        return select(a > b, V(1), V(0));
    }
    template <std::size_t I, class G, class A, class B>
    static auto backward(const G& g, const A&, const B&) {
        return 0.0 * g;
    }
};

struct Equal {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a, const V& b) const {
        using detail::select;
        return select(a == b, V(1), V(0));
    }
    template <std::size_t I, class G, class A, class B>
    static auto backward(const G& g, const A&, const B&) {
        return 0.0 * g;
    }
};

/// Where both are equal the gradient goes to the first operand.
struct Maximum {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a, const V& b) const {
        using detail::max;
        return max(a, b);
    }
    template <std::size_t I, class G, class A, class B>
    static auto backward(const G& g, const A& a, const B& b) {
        if constexpr (I == 0) {
            return g * (1.0 - apply<Greater>(b, a));
        } else {
            return g * apply<Greater>(b, a);
        }
    }
};

struct Minimum {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a, const V& b) const {
        using detail::min;
        return min(a, b);
    }
    template <std::size_t I, class G, class A, class B>
    static auto backward(const G& g, const A& a, const B& b) {
        if constexpr (I == 0) {
            return g * (1.0 - apply<Greater>(a, b));
        } else {
            return g * apply<Greater>(a, b);
        }
    }
};

struct Absolute {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        using detail::abs;
        return abs(a);
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        return g * (apply<Greater>(a, Constant(0)) - apply<Greater>(Constant(0), a));
    }
};

struct Exp {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        using detail::exp;
        return exp(a);
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        return g * apply<Exp>(a);
    }
};

struct Log {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        using detail::log;
        return log(a);
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        return g / a;
    }
};

struct SquareRoot {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        using detail::sqrt;
        return sqrt(a);
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        return 0.5 * g / apply<SquareRoot>(a);
    }
};

/// sqrt(a) of a sum of squares. Its gradient at 0 is 0 where sqrt's is infinite: a row of zeros must not make a NaN.
struct Norm {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        return SquareRoot{}(a);
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        return 0.5 * g * apply<Greater>(a, Constant(0)) / apply<Maximum>(apply<SquareRoot>(a), Constant(1e-30));
    }
};

struct Tanh {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        using detail::tanh;
        return tanh(a);
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        const auto y = apply<Tanh>(a);
        return g * (1.0 - y * y);
    }
};

struct Erf {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        using detail::erf;
        return erf(a);
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        return g * (2.0 * std::numbers::inv_sqrtpi) * apply<Exp>(-(a * a));
    }
};

/// 1 / (1 + exp(−a)); exp overflows to infinity for very negative a, and the quotient is then the right 0.
struct Sigmoid {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        using detail::exp;
        return V(1) / (V(1) + exp(-a));
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        const auto y = apply<Sigmoid>(a);
        return g * (y * (1.0 - y));
    }
};

/// log(1 + exp(a)) = max(a, 0) + log1p(exp(−|a|)), which does not overflow.
struct Softplus {
    template <class V>
    TANDEM_DEVICE V operator()(const V& a) const {
        using detail::abs, detail::exp, detail::log1p, detail::max;
        return max(a, V(0)) + log1p(exp(-abs(a)));
    }
    template <std::size_t I, class G, class A>
    static auto backward(const G& g, const A& a) {
        return g * apply<Sigmoid>(a);
    }
};

}  // namespace functions

// At least one operand must be a tensor or an expression; a number may stand for the other.
template <AnyOperand A, AnyOperand B>
    requires(TensorOperand<A> || TensorOperand<B>)
auto operator+(A&& a, B&& b) {
    return apply<functions::Add>(std::forward<A>(a), std::forward<B>(b));
}
template <AnyOperand A, AnyOperand B>
    requires(TensorOperand<A> || TensorOperand<B>)
auto operator-(A&& a, B&& b) {
    return apply<functions::Subtract>(std::forward<A>(a), std::forward<B>(b));
}
template <AnyOperand A, AnyOperand B>
    requires(TensorOperand<A> || TensorOperand<B>)
auto operator*(A&& a, B&& b) {
    return apply<functions::Multiply>(std::forward<A>(a), std::forward<B>(b));
}
template <AnyOperand A, AnyOperand B>
    requires(TensorOperand<A> || TensorOperand<B>)
auto operator/(A&& a, B&& b) {
    return apply<functions::Divide>(std::forward<A>(a), std::forward<B>(b));
}
template <TensorOperand A>
auto operator-(A&& a) {
    return apply<functions::Negate>(std::forward<A>(a));
}

template <TensorOperand A>
auto abs(A&& a) {
    return apply<functions::Absolute>(std::forward<A>(a));
}
template <TensorOperand A>
auto exp(A&& a) {
    return apply<functions::Exp>(std::forward<A>(a));
}
template <TensorOperand A>
auto log(A&& a) {
    return apply<functions::Log>(std::forward<A>(a));
}
template <TensorOperand A>
auto sqrt(A&& a) {
    return apply<functions::SquareRoot>(std::forward<A>(a));
}
template <TensorOperand A>
auto tanh(A&& a) {
    return apply<functions::Tanh>(std::forward<A>(a));
}
template <TensorOperand A>
auto erf(A&& a) {
    return apply<functions::Erf>(std::forward<A>(a));
}
/// 1 / (1 + exp(−a)).
template <TensorOperand A>
auto sigmoid(A&& a) {
    return apply<functions::Sigmoid>(std::forward<A>(a));
}
/// log(1 + exp(a)), without overflow; log σ(a) is −softplus(−a).
template <TensorOperand A>
auto softplus(A&& a) {
    return apply<functions::Softplus>(std::forward<A>(a));
}
template <TensorOperand A>
auto square(A&& a) {
    const auto x = as_expression(std::forward<A>(a));
    return x * x;
}
template <AnyOperand A, AnyOperand B>
    requires(TensorOperand<A> || TensorOperand<B>)
auto max(A&& a, B&& b) {
    return apply<functions::Maximum>(std::forward<A>(a), std::forward<B>(b));
}
template <AnyOperand A, AnyOperand B>
    requires(TensorOperand<A> || TensorOperand<B>)
auto min(A&& a, B&& b) {
    return apply<functions::Minimum>(std::forward<A>(a), std::forward<B>(b));
}
/// 1 where a > b, else 0; its gradient is zero.
template <AnyOperand A, AnyOperand B>
    requires(TensorOperand<A> || TensorOperand<B>)
auto greater(A&& a, B&& b) {
    return apply<functions::Greater>(std::forward<A>(a), std::forward<B>(b));
}
template <TensorOperand A>
auto relu(A&& a) {
    return max(std::forward<A>(a), 0.0);
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/kernels/kernel_set.hpp ----

// The hot kernels as tables of function pointers: run-time sizes, one table per element type and instruction set.

namespace tandem::inline TANDEM_ABI::kernels {

/// The activations that kernels know. Any other is an expression, applied after the product.
enum class Activation { none, gelu, quick_gelu, tanh_gelu, silu, squared_relu };

/// Bytes that a tile fetches with every group, from memory that comes next. Half a line: fetched faster, they would take
/// the buffers that the tile's own loads wait for.
inline constexpr std::size_t fetched_per_group = 32;

/// The register tile of a product. `group` neighbours along the depth are multiplied together: 1 for float and double,
/// 2 for bfloat16, 4 for bytes.
template <class A, class B, class Sum>
struct TileKernel {
    std::size_t rows;     ///< the most rows of one tile
    std::size_t columns;  ///< of every tile: the width of a packed panel
    std::size_t group;

    /// out[rows, columns] = a · b, for 1 to `rows` rows. Group g of row i of a stands at a[i · a_row + g · a_group]; b
    /// holds `groups` times `columns` groups, side by side; out is packed. What stands from
    /// `ahead` on is fetched into the L2 cache, fetched_per_group bytes a group; it is not read, and may be anywhere.
    void (*multiply)(std::size_t rows, std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                     const B* b, Sum* out, const void* ahead);
};

/// What becomes of a finished product: c = activation(product + bias) · factor + residual, with `product + bias` kept in
/// `before`. Null pointers are left out. A factor_stride of 0 is one factor a column. residual may be c itself.
template <Real T>
struct Finish {
    const T* bias = nullptr;  ///< one a column
    Activation activation = Activation::none;
    T* before = nullptr;
    std::size_t before_stride = 0;
    const T* factor = nullptr;
    std::size_t factor_stride = 0;
    const T* residual = nullptr;
    std::size_t residual_stride = 0;

    /// For the part of the product that begins at this element.
    Finish at(std::size_t row, std::size_t column) const {
        Finish part = *this;
        if (bias != nullptr) part.bias += column;
        if (before != nullptr) part.before += row * before_stride + column;
        if (factor != nullptr) part.factor += row * factor_stride + column;
        if (residual != nullptr) part.residual += row * residual_stride + column;
        return part;
    }
};

/// What an instruction set provides. All matrices are row-major; strides count elements.
template <Real T>
struct KernelSet {
    const char* name;

    TileKernel<T, T, T> tile;

    /// One tile [rows, columns] into c: c (+)= product, then what `finish` says, its pointers those of the tile's first
    /// element.
    void (*finish_tile)(const T* product, std::size_t product_stride, std::size_t rows, std::size_t columns, T* c,
                        std::size_t c_stride, bool accumulate, const Finish<T>& finish);

    /// to[j, i] = from[i, j] for `rows` rows and `columns` columns of `from`.
    void (*transpose)(const T* from, std::size_t from_stride, std::size_t rows, std::size_t columns, T* to,
                      std::size_t to_stride);

    /// y = activation(x), elementwise; x may be y.
    void (*activate)(Activation activation, const T* x, T* y, std::size_t size);

    /// y = (x − mean) · inverse · gain + bias per row of `width` (Ba, Kiros, Hinton 2016, eq. 4), with the biased
    /// variance, inverse = 1 / sqrt(variance + eps). mean and inverse hold one element a row, for the backward pass.
    /// Without `mean` and `bias` (both null), nothing is subtracted: RMSNorm (Zhang, Sennrich 2019, eq. 4). y may be x.
    void (*layer_norm)(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                       std::size_t width, T eps);

    /// In place x = softmax(scale · x) over one row of `count` elements.
    void (*softmax)(T* x, std::size_t count, T scale);
};

/// What training needs beside that. A table of its own, so that programs that only infer do not compile it.
template <Real T>
struct GradientKernels {
    /// In place g = g · activation'(x).
    void (*activate_backward)(Activation activation, const T* x, T* g, std::size_t size);

    /// dx of layer_norm, added to dx where `accumulate` is set; dx may be dy.
    void (*layer_norm_backward)(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                std::size_t rows, std::size_t width, bool accumulate);

    /// Adds the gradients of gain, and of bias unless it is null, over all rows, for the columns [first, last) only, row
    /// by row in order.
    void (*layer_norm_parameters_backward)(const T* dy, const T* x, const T* mean, const T* inverse, T* dgain, T* dbias,
                                           std::size_t rows, std::size_t width, std::size_t first, std::size_t last);

    /// sums[j] += Σ_i x[i, j] for the columns [first, last), row by row in order.
    void (*column_sums)(const T* x, T* sums, std::size_t rows, std::size_t width, std::size_t first, std::size_t last);

    /// In place dx = scale · y · (dx − Σ dx·y): the gradient of softmax(scale · x), given its result y and dx = dL/dy.
    void (*softmax_backward)(const T* y, T* dx, std::size_t count, T scale);
};

/// Sums of bytes in a tile, packed, and what they stand for: the product's element (i, j) is
/// row_scale[i] · column_scale[j] · (sums[i, j] − row_zero[i] · column_sum[j]). column_scale and column_sum run on to
/// the tile's last column.
struct ByteProduct {
    const std::int32_t* sums;
    const float* row_scale;
    const std::int32_t* row_zero;
    const float* column_scale;
    const std::int32_t* column_sum;
};

/// What reduced precision adds to an instruction set: products of pairs and of bytes, and the conversions to them.
struct ReducedKernels {
    /// Pairs of bfloat16 as one operation; `multiply` is null where the CPU has none that is faster than float's.
    TileKernel<bfloat16, bfloat16, float> pairs;

    /// The left operand stays in float, the right one is widened to it. Of the same columns and group as `pairs`.
    TileKernel<float, bfloat16, float> widened;

    /// y = x rounded to bfloat16, to nearest even.
    void (*narrow)(const float* x, bfloat16* y, std::size_t size);

    /// Two rows of a right operand as pairs: to[2 i] and to[2 i + 1] are first[i] and second[i], rounded likewise.
    void (*narrow_pairs)(const float* first, const float* second, bfloat16* to, std::size_t size);

    /// Left bytes are unsigned, right bytes signed and within ±127; sums are exact in 32 bits for depths below 2^16.
    TileKernel<std::uint8_t, std::int8_t, std::int32_t> bytes;

    /// One row as bytes with its own scale and zero point: x ≈ scale · (y − zero).
    void (*quantise)(const float* x, std::uint8_t* y, std::size_t size, float& scale, std::int32_t& zero);

    /// KernelSet's finish_tile for a product of bytes, whose tile is `tile_columns` wide.
    void (*finish_bytes)(const ByteProduct& product, std::size_t tile_columns, std::size_t rows, std::size_t columns,
                         float* c, std::size_t c_stride, bool accumulate, const Finish<float>& finish);
};

}  // namespace tandem::inline TANDEM_ABI::kernels

// ---- tandem/kernels/avx2.hpp ----

// AVX2 and FMA kernels, in a target region: they run wherever the CPU has the instructions, whatever the build's flags.

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif

namespace tandem::inline TANDEM_ABI::kernels::avx2 {

inline __m256i first_lanes(std::size_t count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
}

struct Vector {
    using element = float;
    static constexpr std::size_t lanes = 8;
    static constexpr std::size_t tile_rows = 6;  // 6 x 2 sums, 2 vectors of b and a broadcast fit the 16 registers

    __m256 value;

    Vector() = default;
    Vector(__m256 v) : value(v) {}
    explicit Vector(float x) : value(_mm256_set1_ps(x)) {}

    static Vector load(const float* from) { return _mm256_loadu_ps(from); }
    static Vector load(const float* from, std::size_t count) { return _mm256_maskload_ps(from, first_lanes(count)); }
    void store(float* to) const { _mm256_storeu_ps(to, value); }
    void store(float* to, std::size_t count) const { _mm256_maskstore_ps(to, first_lanes(count), value); }

    static Vector difference_of_products(const std::int32_t* sums, std::int32_t factor, const std::int32_t* others) {
        const __m256i other = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(others));
        const __m256i product = _mm256_mullo_epi32(_mm256_set1_epi32(factor), other);
        return _mm256_cvtepi32_ps(
            _mm256_sub_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(sums)), product));
    }
    void store_bytes(std::uint8_t* to, std::size_t count) const {
        alignas(32) std::int32_t integers[lanes];
        _mm256_store_si256(reinterpret_cast<__m256i*>(integers), _mm256_cvtps_epi32(value));
        for (std::size_t i = 0; i < count; ++i) to[i] = static_cast<std::uint8_t>(integers[i]);
    }
    void store_narrow(bfloat16* to, std::size_t count) const {
        alignas(32) float floats[lanes];
        store(floats);
        for (std::size_t i = 0; i < count; ++i) to[i] = bfloat16(floats[i]);
    }
    static void store_narrow_pairs(const Vector& first, const Vector& second, bfloat16* to, std::size_t count) {
        alignas(16) std::array<bfloat16, lanes> lower, upper;
        first.store_narrow(lower.data(), lanes);
        second.store_narrow(upper.data(), lanes);
        for (std::size_t i = 0; i < count; ++i) {
            to[2 * i] = lower[i];
            to[2 * i + 1] = upper[i];
        }
    }
};

inline Vector operator+(const Vector& a, const Vector& b) {
    return _mm256_add_ps(a.value, b.value);
}
inline Vector operator-(const Vector& a, const Vector& b) {
    return _mm256_sub_ps(a.value, b.value);
}
inline Vector operator*(const Vector& a, const Vector& b) {
    return _mm256_mul_ps(a.value, b.value);
}
inline Vector operator/(const Vector& a, const Vector& b) {
    return _mm256_div_ps(a.value, b.value);
}
inline Vector fma(const Vector& a, const Vector& b, const Vector& c) {
    return _mm256_fmadd_ps(a.value, b.value, c.value);
}
inline Vector min(const Vector& a, const Vector& b) {
    return _mm256_min_ps(a.value, b.value);
}
inline Vector max(const Vector& a, const Vector& b) {
    return _mm256_max_ps(a.value, b.value);
}
inline Vector round(const Vector& a) {
    return _mm256_round_ps(a.value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/// a · 2^power, for powers of -252 to 254: in two steps, so that what is too small becomes subnormal, then zero.
inline Vector scale_by_power(const Vector& a, const Vector& power) {
    const __m256i whole = _mm256_cvtps_epi32(power.value), half = _mm256_srai_epi32(whole, 1);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(a.value, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}

// Kernels over a vector type. This text stands once in the target region of every instruction set, because the target of
// a template is fixed where it is defined. A vector type V has lanes, tile_rows, load and store (whole and of the first
// `count` lanes), arithmetic operators, fma, min and max (both give a NaN if the second operand is one), round,
// and scale_by_power; for reduced precision also difference_of_products, store_narrow, store_narrow_pairs
// and store_bytes.

// Σ and max over lanes in a fixed order, so that every caller gets the same bits.
template <class V>
typename V::element sum(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    for (std::size_t half = V::lanes / 2; half > 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) lane[i] += lane[i + half];
    }
    return lane[0];
}
template <class V>
typename V::element largest(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    typename V::element most = lane[0];
    for (std::size_t i = 1; i < V::lanes; ++i) most = lane[i] > most ? lane[i] : most;
    return most;
}

/// The register tile of a dot product: Dot says how one broadcast group of the left operand meets one vector of groups of
/// the right one.
template <class Dot>
struct TileKernels {
    using A = typename Dot::A;
    using B = typename Dot::B;
    using Sum = typename Dot::Sum;
    using Total = typename Dot::Total;
    static constexpr std::size_t vectors = 2;
    static constexpr std::size_t columns = vectors * Dot::lanes;

    static void multiply(std::size_t rows, std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                         const B* b, Total* out, const void* ahead) {
        table(std::make_index_sequence<Dot::tile_rows>{})[rows - 1](groups, a, a_row, a_group, b, out,
                                                                    static_cast<const char*>(ahead));
    }

    static constexpr TileKernel<A, B, Total> kernel{Dot::tile_rows, columns, Dot::group, multiply};

private:
    using Function = void (*)(std::size_t, const A*, std::size_t, std::size_t, const B*, Total*, const char*);

    template <std::size_t... Rows>
    static const Function* table(std::index_sequence<Rows...>) {
        static constexpr Function functions[]{tile<Rows + 1>...};
        return functions;
    }

    template <std::size_t rows>
    static void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group, const B* b, Total* out,
                     const char* ahead) {
        tile(groups, a, a_row, a_group, b, out, ahead, std::make_index_sequence<rows>{});
    }

    // Index sequences instead of loops keep every sum in a register at -O2. A pointer to every third row lets x86's scaled
    // addressing reach all rows of a with few registers.
    template <std::size_t... Row>
    [[gnu::always_inline]] static inline void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                                                   const B* b, Total* out, const char* ahead,
                                                   std::index_sequence<Row...>) {
        constexpr std::size_t rows = sizeof...(Row);
        Sum left[rows], right[rows];
        ((left[Row] = Dot::zero(), right[Row] = Dot::zero()), ...);
        const A* thirds[(rows + 2) / 3];
        ((thirds[Row / 3] = a + Row / 3 * 3 * a_row), ...);
        for (std::size_t g = 0; g < groups; ++g, b += columns * Dot::group, ahead += fetched_per_group) {
            __builtin_prefetch(ahead, 0, 2);
            const auto b0 = Dot::load(b), b1 = Dot::load(b + Dot::lanes * Dot::group);
            (multiply_add(thirds[Row / 3] + Row % 3 * a_row, b0, b1, left[Row], right[Row]), ...);
            ((Row % 3 == 0 ? void(thirds[Row / 3] += a_group) : void()), ...);
        }
        ((Dot::store(out + Row * columns, left[Row]), Dot::store(out + Row * columns + Dot::lanes, right[Row])), ...);
    }

    template <class Group>
    [[gnu::always_inline]] static inline void multiply_add(const A* a, const Group& b0, const Group& b1, Sum& left,
                                                           Sum& right) {
        const auto repeated = Dot::broadcast(a);
        left = Dot::dot(repeated, b0, left);
        right = Dot::dot(repeated, b1, right);
    }
};

/// Multiply-add of single elements.
template <class V>
struct ElementDot {
    using A = typename V::element;
    using B = A;
    using Sum = V;
    using Total = A;
    static constexpr std::size_t lanes = V::lanes, tile_rows = V::tile_rows, group = 1;

    [[gnu::always_inline]] static inline V zero() { return V(0); }
    [[gnu::always_inline]] static inline V load(const B* from) { return V::load(from); }
    [[gnu::always_inline]] static inline V broadcast(const A* from) { return V(*from); }
    [[gnu::always_inline]] static inline V dot(const V& a, const V& b, const V& sum) { return fma(a, b, sum); }
    [[gnu::always_inline]] static inline void store(Total* to, const V& sum) { sum.store(to); }
};

template <class V>
struct VectorKernels {
    using T = typename V::element;
    static constexpr std::size_t lanes = V::lanes;

    /// A tile of sums in float or double.
    struct Sums {
        const T* data;
        std::size_t stride;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t count) const {
            return load(data + i * stride + j, count);
        }
    };

    static void finish_tile(const T* product, std::size_t product_stride, std::size_t rows, std::size_t columns, T* c,
                            std::size_t c_stride, bool accumulate, const Finish<T>& finish) {
        finish_product(Sums{product, product_stride}, rows, columns, c, c_stride, accumulate, finish);
    }

    template <class Product>
    [[gnu::always_inline]] static inline void finish_product(const Product& product, std::size_t rows, std::size_t columns,
                                                             T* c, std::size_t c_stride, bool accumulate,
                                                             const Finish<T>& finish) {
        for (std::size_t i = 0; i < rows; ++i) {
            T* const to = c + i * c_stride;
            for (std::size_t j = 0; j < columns; j += lanes) {
                const std::size_t count = columns - j < lanes ? columns - j : lanes;
                V value = product(i, j, count);
                if (accumulate) value = value + load(to + j, count);
                if (finish.bias != nullptr) value = value + load(finish.bias + j, count);
                if (finish.before != nullptr) store(finish.before + i * finish.before_stride + j, value, count);
                value = activated(finish.activation, value);
                if (finish.factor != nullptr) value = value * load(finish.factor + i * finish.factor_stride + j, count);
                if (finish.residual != nullptr) value = value + load(finish.residual + i * finish.residual_stride + j, count);
                store(to + j, value, count);
            }
        }
    }

    static void transpose(const T* from, std::size_t from_stride, std::size_t rows, std::size_t columns, T* to,
                          std::size_t to_stride) {
        std::size_t i = 0;
#if !defined(__CUDACC__)  // nvcc's front end does not know __builtin_shufflevector
        for (; i + lanes <= rows; i += lanes) {
            std::size_t j = 0;
            for (; j + lanes <= columns; j += lanes) {
                transpose_block(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride,
                                std::make_index_sequence<lanes>{});
            }
            for (; j < columns; ++j) {
                for (std::size_t l = 0; l < lanes; ++l) to[j * to_stride + i + l] = from[(i + l) * from_stride + j];
            }
        }
#endif
        for (; i < rows; ++i) {
            for (std::size_t j = 0; j < columns; ++j) to[j * to_stride + i] = from[i * from_stride + j];
        }
    }

    static void activate(Activation activation, const T* x, T* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(y + j, activated(activation, load(x + j, count)), count);
        }
    }

    static void activate_backward(Activation activation, const T* x, T* g, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(g + j, load(g + j, count) * derivative(activation, load(x + j, count)), count);
        }
    }

    static void layer_norm(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                           std::size_t width, T eps) {
        const std::size_t whole = width / lanes * lanes;
        for (std::size_t i = 0; i < rows; ++i, x += width, y += width) {
            const T mu = mean == nullptr ? T{0} : row_sum(x, width) / static_cast<T>(width);
            V squares(0);
            for (std::size_t j = 0; j < whole; j += lanes) {
                const V centred = V::load(x + j) - V(mu);
                squares = fma(centred, centred, squares);
            }
            T rest{0};
            for (std::size_t j = whole; j < width; ++j) rest += (x[j] - mu) * (x[j] - mu);
            const T variance = (sum(squares) + rest) / static_cast<T>(width);
            const T scale = T{1} / std::sqrt(variance + eps);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V shift = bias == nullptr ? V(0) : load(bias + j, count);
                store(y + j, fma((load(x + j, count) - V(mu)) * V(scale), load(gain + j, count), shift), count);
            }
            if (mean != nullptr) mean[i] = mu;
            inverse[i] = scale;
        }
    }

    static void layer_norm_backward(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                    std::size_t rows, std::size_t width, bool accumulate) {
        for (std::size_t i = 0; i < rows; ++i, x += width, dy += width, dx += width) {
            const V mu(mean == nullptr ? T{0} : mean[i]), scale(inverse[i]);
            V sums(0), products(0);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V g = load(dy + j, count) * load(gain + j, count);  // zero behind the row's end
                sums = sums + g;
                products = fma(g, (load(x + j, count) - mu) * scale, products);
            }
            const V total(mean == nullptr ? T{0} : sum(sums) / static_cast<T>(width)), product(sum(products) / static_cast<T>(width));
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V normed = (load(x + j, count) - mu) * scale;
                const V value = scale * (load(dy + j, count) * load(gain + j, count) - total - normed * product);
                store(dx + j, accumulate ? load(dx + j, count) + value : value, count);
            }
        }
    }

    static void layer_norm_parameters_backward(const T* dy, const T* x, const T* mean, const T* inverse, T* dgain,
                                               T* dbias, std::size_t rows, std::size_t width, std::size_t first,
                                               std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V gain_sum = load(dgain + j, count), bias_sum = dbias == nullptr ? V(0) : load(dbias + j, count);
            for (std::size_t i = 0; i < rows; ++i) {
                const V g = load(dy + i * width + j, count), mu(mean == nullptr ? T{0} : mean[i]);
                gain_sum = fma(g, (load(x + i * width + j, count) - mu) * V(inverse[i]), gain_sum);
                bias_sum = bias_sum + g;
            }
            store(dgain + j, gain_sum, count);
            if (dbias != nullptr) store(dbias + j, bias_sum, count);
        }
    }

    static void column_sums(const T* x, T* sums, std::size_t rows, std::size_t width, std::size_t first,
                            std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V total = load(sums + j, count);
            for (std::size_t i = 0; i < rows; ++i) total = total + load(x + i * width + j, count);
            store(sums + j, total, count);
        }
    }

    static void softmax(T* x, std::size_t count, T scale) {
        const std::size_t whole = count / lanes * lanes;
        T peak = scale * x[0];
        if (whole > 0) {
            V peaks = V(scale) * V::load(x);
            for (std::size_t j = lanes; j < whole; j += lanes) peaks = max(peaks, V(scale) * V::load(x + j));
            peak = largest(peaks);
        }
        for (std::size_t j = whole; j < count; ++j) peak = scale * x[j] > peak ? scale * x[j] : peak;
        V sums(0);
        for (std::size_t j = 0; j < whole; j += lanes) {
            const V value = exp(fma(V(scale), V::load(x + j), V(-peak)));
            value.store(x + j);
            sums = sums + value;
        }
        T total = sum(sums);
        if (const std::size_t rest = count - whole; rest > 0) {
            store(x + whole, exp(fma(V(scale), load(x + whole, rest), V(-peak))), rest);
            for (std::size_t j = whole; j < count; ++j) total += x[j];
        }
        const V normaliser(T{1} / total);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(x + j, load(x + j, here) * normaliser, here);
        }
    }

    static void softmax_backward(const T* y, T* dx, std::size_t count, T scale) {
        V products(0);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            products = fma(load(dx + j, here), load(y + j, here), products);
        }
        const V dot(sum(products));
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(dx + j, V(scale) * load(y + j, here) * (load(dx + j, here) - dot), here);
        }
    }

    static constexpr KernelSet<T> set(const char* name) {
        return {.name = name,
                .tile = TileKernels<ElementDot<V>>::kernel,
                .finish_tile = finish_tile,
                .transpose = transpose,
                .activate = activate,
                .layer_norm = layer_norm,
                .softmax = softmax};
    }

    static constexpr GradientKernels<T> gradients{.activate_backward = activate_backward,
                                                  .layer_norm_backward = layer_norm_backward,
                                                  .layer_norm_parameters_backward = layer_norm_parameters_backward,
                                                  .column_sums = column_sums,
                                                  .softmax_backward = softmax_backward};

private:
#if !defined(__CUDACC__)
    /// Interleaving row k with row k + lanes / 2, for every k, log2(lanes) times over, transposes a square.
    template <std::size_t... Lane>
    [[gnu::always_inline]] static inline void transpose_block(const T* from, std::size_t from_stride, T* to,
                                                              std::size_t to_stride, std::index_sequence<Lane...>) {
        constexpr std::size_t half = lanes / 2;
        typedef T Row __attribute__((vector_size(lanes * sizeof(T))));
        Row rows[lanes], next[lanes];
        (std::memcpy(&rows[Lane], from + Lane * from_stride, sizeof(Row)), ...);
        for (std::size_t stage = 1; stage < lanes; stage *= 2) {
            ((next[Lane] = Lane % 2 == 0
                               ? __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (Lane / 2 + Lane % 2 * lanes)...)
                               : __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (half + Lane / 2 + Lane % 2 * lanes)...)),
             ...);
            ((rows[Lane] = next[Lane]), ...);
        }
        (std::memcpy(to + Lane * to_stride, &rows[Lane], sizeof(Row)), ...);
    }
#endif

    [[gnu::always_inline]] static inline V load(const T* from, std::size_t count) {
        return count == lanes ? V::load(from) : V::load(from, count);
    }
    [[gnu::always_inline]] static inline void store(T* to, const V& value, std::size_t count) {
        if (count == lanes) {
            value.store(to);
        } else {
            value.store(to, count);
        }
    }

    static T row_sum(const T* x, std::size_t width) {
        V sums(0);
        for (std::size_t j = 0; j < width; j += lanes) sums = sums + load(x + j, width - j < lanes ? width - j : lanes);
        return sum(sums);
    }

    /// e^x. Floats by reduction to |r| <= ln(2) / 2 and the Taylor polynomial of degree 7, below 2 units in the last place;
    static V exp(const V& x) {
        if constexpr (requires { V::exp(x); }) {
            return V::exp(x);
        } else {
            const V held = min(V(88.02f), max(V(-110.0f), x));
            const V power = round(held * V(1.44269504f));
            V r = fma(power, V(-0.693359375f), held);  // ln 2 in two parts
            r = fma(power, V(2.12194440e-4f), r);
            V p = V(1.0f / 5040);
            p = fma(p, r, V(1.0f / 720));
            p = fma(p, r, V(1.0f / 120));
            p = fma(p, r, V(1.0f / 24));
            p = fma(p, r, V(1.0f / 6));
            p = fma(p, r, V(0.5f));
            p = fma(p, r * r, r);
            return scale_by_power(p + V(1), power);
        }
    }

    /// erf(x). Floats by a rational function fitted to erf on [0, 3.95], beyond which erf is 1 to 2.4e-8.
    static V erf(const V& x) {
        if constexpr (requires { V::erf(x); }) {
            return V::erf(x);
        } else {
            const V z = min(V(3.95f), max(V(-3.95f), x)), s = z * z;
            V p = V(2.0259840312e-06f);
            p = fma(p, s, V(0.00028468173696f));
            p = fma(p, s, V(0.0038078341167f));
            p = fma(p, s, V(0.052874431014f));
            p = fma(p, s, V(0.19154247642f));
            p = fma(p, s, V(1.1283791065f));
            V q = V(3.7832280213e-05f);
            q = fma(q, s, V(0.0011706490769f));
            q = fma(q, s, V(0.015054429881f));
            q = fma(q, s, V(0.11455640197f));
            q = fma(q, s, V(0.50308275223f));
            q = fma(q, s, V(1));
            return z * p / q;
        }
    }

    static V sigmoid(const V& x) { return V(1) / (V(1) + exp(V(0) - x)); }

    // Every activation here is x times a gate: Φ(x), σ(1.702 x), σ(x), max(0, x), and σ(2u) with u = sqrt(2/π)(x + 0.044715 x³).
    static constexpr T root_half = static_cast<T>(0.70710678118654752440);
    static constexpr T twice_root = static_cast<T>(1.59576912160573071176);  // 2 sqrt(2/π)
    static constexpr T cubic = static_cast<T>(0.044715), quick = static_cast<T>(1.702);

    static T steepness(Activation activation) { return activation == Activation::silu ? T{1} : quick; }
    static V normal_distribution(const V& x) { return V(static_cast<T>(0.5)) * (V(1) + erf(x * V(root_half))); }
    static V tanh_gate(const V& x) { return sigmoid(V(twice_root) * fma(V(cubic) * x * x, x, x)); }

    [[gnu::always_inline]] static inline V activated(Activation activation, const V& x) {
        switch (activation) {
            case Activation::gelu: return x * normal_distribution(x);
            case Activation::quick_gelu:
            case Activation::silu: return x * sigmoid(V(steepness(activation)) * x);
            case Activation::tanh_gelu: return x * tanh_gate(x);
            case Activation::squared_relu: return x * max(V(0), x);
            case Activation::none: break;
        }
        return x;
    }

    static V derivative(Activation activation, const V& x) {
        const V one(1);
        switch (activation) {
            case Activation::gelu: {
                const V density = V(static_cast<T>(0.39894228040143267794)) * exp(V(static_cast<T>(-0.5)) * x * x);
                return fma(x, density, normal_distribution(x));
            }
            case Activation::quick_gelu:
            case Activation::silu: {
                const V steep = V(steepness(activation)) * x, gate = sigmoid(steep);
                return gate * fma(steep, one - gate, one);
            }
            case Activation::tanh_gelu: {
                const V gate = tanh_gate(x);
                const V slope = V(twice_root) * fma(V(3 * cubic) * x, x, one);
                return gate * fma(x * slope, one - gate, one);
            }
            case Activation::squared_relu: return V(2) * max(V(0), x);
            case Activation::none: break;
        }
        return one;
    }
};

/// The conversions that reduced precision needs.
template <class V>
struct Conversions {
    static void narrow(const float* x, bfloat16* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::load(x + j, count).store_narrow(y + j, count);
        }
    }

    static void narrow_pairs(const float* first, const float* second, bfloat16* to, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::store_narrow_pairs(V::load(first + j, count), V::load(second + j, count), to + 2 * j, count);
        }
    }

    static void quantise(const float* x, std::uint8_t* y, std::size_t size, float& scale, std::int32_t& zero) {
        // Zero is always among the values, so that it is exact, and a row of zeros has a scale.
        V low(0), high(0);
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const V value = V::load(x + j, size - j < V::lanes ? size - j : V::lanes);  // zeros behind the end
            low = min(low, value);
            high = max(high, value);
        }
        const float least = -largest(V(0) - low), range = largest(high) - least;
        scale = range > 0 ? range / 255 : 1;
        const V inverse(1 / scale), shift = round(V(-least) * inverse);
        zero = static_cast<std::int32_t>(std::lrint(-least * (1 / scale)));
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            const V bytes = min(V(255), max(V(0), round(V::load(x + j, count) * inverse) + shift));
            bytes.store_bytes(y + j, count);
        }
    }

    /// Whole vectors: a tile and what belongs to its columns run on to the tile's end.
    struct Bytes {
        const ByteProduct& product;
        std::size_t columns;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t) const {
            const V exact = V::difference_of_products(product.sums + i * columns + j, product.row_zero[i],
                                                      product.column_sum + j);
            return exact * V(product.row_scale[i]) * V::load(product.column_scale + j);
        }
    };

    static void finish_bytes(const ByteProduct& product, std::size_t tile_columns, std::size_t rows, std::size_t columns,
                             float* c, std::size_t c_stride, bool accumulate, const Finish<float>& finish) {
        VectorKernels<V>::finish_product(Bytes{product, tile_columns}, rows, columns, c, c_stride, accumulate, finish);
    }
};

inline constexpr KernelSet<float> kernel_set = VectorKernels<Vector>::set("avx2");

/// A float is a bfloat16 with sixteen zero bits behind it.
struct WidenedDot {
    using A = float;
    using B = bfloat16;
    using Sum = __m256;
    using Total = float;
    static constexpr std::size_t lanes = 8, tile_rows = 5, group = 2;
    struct Pair {
        __m256 even, odd;
    };

    static Sum zero() { return _mm256_setzero_ps(); }
    static Pair load(const B* from) {
        const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
        const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
        return {_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)), _mm256_castsi256_ps(_mm256_and_si256(pairs, upper))};
    }
    static Pair broadcast(const A* from) { return {_mm256_set1_ps(from[0]), _mm256_set1_ps(from[1])}; }
    static Sum dot(const Pair& a, const Pair& b, const Sum& sum) {
        return _mm256_fmadd_ps(a.odd, b.odd, _mm256_fmadd_ps(a.even, b.even, sum));
    }
    static void store(Total* to, const Sum& sum) { _mm256_storeu_ps(to, sum); }
};

/// Quadruples of bytes as two products of pairs of 16-bit numbers: nothing saturates.
struct ByteDot {
    using A = std::uint8_t;
    using B = std::int8_t;
    using Sum = __m256i;
    using Total = std::int32_t;
    static constexpr std::size_t lanes = 8, tile_rows = 4, group = 4;
    struct Halves {
        __m256i even, odd;
    };

    static Sum zero() { return _mm256_setzero_si256(); }
    static Halves load(const B* from) {
        const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
        return {_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)};
    }
    static Halves broadcast(const A* from) {
        int bytes;
        std::memcpy(&bytes, from, sizeof bytes);
        const __m256i repeated = _mm256_set1_epi32(bytes);
        return {_mm256_and_si256(repeated, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(repeated, 8)};
    }
    static Sum dot(const Halves& a, const Halves& b, const Sum& sum) {
        const __m256i products = _mm256_add_epi32(_mm256_madd_epi16(a.even, b.even), _mm256_madd_epi16(a.odd, b.odd));
        return _mm256_add_epi32(sum, products);
    }
    static void store(Total* to, const Sum& sum) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), sum); }
};

inline constexpr ReducedKernels reduced_kernels{.pairs = {.rows = 0, .columns = 16, .group = 2, .multiply = nullptr},
                                                .widened = TileKernels<WidenedDot>::kernel,
                                                .narrow = Conversions<Vector>::narrow,
                                                .narrow_pairs = Conversions<Vector>::narrow_pairs,
                                                .bytes = TileKernels<ByteDot>::kernel,
                                                .quantise = Conversions<Vector>::quantise,
                                                .finish_bytes = Conversions<Vector>::finish_bytes};

}  // namespace tandem::inline TANDEM_ABI::kernels::avx2

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

// ---- tandem/kernels/avx512.hpp ----

// AVX-512 kernels, in target regions: they run wherever the CPU has the instructions, whatever the build's flags.

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#endif

namespace tandem::inline TANDEM_ABI::kernels::avx512 {

constexpr __mmask16 first_lanes(std::size_t count) {
    return static_cast<__mmask16>((1u << count) - 1u);
}

// Masked forms where g++ 12 takes the undefined operand of the plain ones for an uninitialised read (GCC bug 105593).
inline constexpr __mmask16 all_lanes = first_lanes(16);

struct Vector {
    using element = float;
    static constexpr std::size_t lanes = 16;
    static constexpr std::size_t tile_rows = 14;  // 14 x 2 sums, 2 vectors of b and a broadcast fill the 32 registers

    __m512 value;

    Vector() = default;
    Vector(__m512 v) : value(v) {}
    explicit Vector(float x) : value(_mm512_set1_ps(x)) {}

    static Vector load(const float* from) { return _mm512_loadu_ps(from); }
    static Vector load(const float* from, std::size_t count) { return _mm512_maskz_loadu_ps(first_lanes(count), from); }
    void store(float* to) const { _mm512_storeu_ps(to, value); }
    void store(float* to, std::size_t count) const { _mm512_mask_storeu_ps(to, first_lanes(count), value); }

    static Vector difference_of_products(const std::int32_t* sums, std::int32_t factor, const std::int32_t* others) {
        const __m512i product = _mm512_mullo_epi32(_mm512_set1_epi32(factor), _mm512_loadu_si512(others));
        return _mm512_maskz_cvtepi32_ps(all_lanes, _mm512_sub_epi32(_mm512_loadu_si512(sums), product));
    }
    void store_bytes(std::uint8_t* to, std::size_t count) const {
        _mm512_mask_cvtepi32_storeu_epi8(to, first_lanes(count), _mm512_maskz_cvtps_epi32(all_lanes, value));
    }
    /// The upper halves are bfloat16, rounded as its constructor does.
    __m512i narrow() const {
        const __m512i word = _mm512_castps_si512(value);
        const __m512i odd = _mm512_and_si512(_mm512_maskz_srli_epi32(all_lanes, word, 16), _mm512_set1_epi32(1));
        const __m512i rounded = _mm512_add_epi32(word, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        const __m512i quiet = _mm512_or_si512(word, _mm512_set1_epi32(0x00400000));
        const __mmask16 is_nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
        return _mm512_mask_mov_epi32(rounded, is_nan, quiet);
    }
    void store_narrow(bfloat16* to, std::size_t count) const {
        _mm512_mask_cvtepi32_storeu_epi16(to, first_lanes(count), _mm512_maskz_srli_epi32(all_lanes, narrow(), 16));
    }
    static void store_narrow_pairs(const Vector& first, const Vector& second, bfloat16* to, std::size_t count) {
        const __m512i upper = _mm512_and_si512(second.narrow(), _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
        const __m512i lower = _mm512_maskz_srli_epi32(all_lanes, first.narrow(), 16);
        _mm512_mask_storeu_epi32(to, first_lanes(count), _mm512_or_si512(upper, lower));
    }
};

inline Vector operator+(const Vector& a, const Vector& b) {
    return _mm512_add_ps(a.value, b.value);
}
inline Vector operator-(const Vector& a, const Vector& b) {
    return _mm512_sub_ps(a.value, b.value);
}
inline Vector operator*(const Vector& a, const Vector& b) {
    return _mm512_mul_ps(a.value, b.value);
}
inline Vector operator/(const Vector& a, const Vector& b) {
    return _mm512_div_ps(a.value, b.value);
}
inline Vector fma(const Vector& a, const Vector& b, const Vector& c) {
    return _mm512_fmadd_ps(a.value, b.value, c.value);
}
inline Vector min(const Vector& a, const Vector& b) {
    return _mm512_maskz_min_ps(all_lanes, a.value, b.value);
}
inline Vector max(const Vector& a, const Vector& b) {
    return _mm512_maskz_max_ps(all_lanes, a.value, b.value);
}
inline Vector round(const Vector& a) {
    return _mm512_maskz_roundscale_ps(all_lanes, a.value, _MM_FROUND_TO_NEAREST_INT);
}
inline Vector scale_by_power(const Vector& a, const Vector& power) {
    return _mm512_maskz_scalef_ps(all_lanes, a.value, power.value);
}

// Kernels over a vector type. This text stands once in the target region of every instruction set, because the target of
// a template is fixed where it is defined. A vector type V has lanes, tile_rows, load and store (whole and of the first
// `count` lanes), arithmetic operators, fma, min and max (both give a NaN if the second operand is one), round,
// and scale_by_power; for reduced precision also difference_of_products, store_narrow, store_narrow_pairs
// and store_bytes.

// Σ and max over lanes in a fixed order, so that every caller gets the same bits.
template <class V>
typename V::element sum(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    for (std::size_t half = V::lanes / 2; half > 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) lane[i] += lane[i + half];
    }
    return lane[0];
}
template <class V>
typename V::element largest(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    typename V::element most = lane[0];
    for (std::size_t i = 1; i < V::lanes; ++i) most = lane[i] > most ? lane[i] : most;
    return most;
}

/// The register tile of a dot product: Dot says how one broadcast group of the left operand meets one vector of groups of
/// the right one.
template <class Dot>
struct TileKernels {
    using A = typename Dot::A;
    using B = typename Dot::B;
    using Sum = typename Dot::Sum;
    using Total = typename Dot::Total;
    static constexpr std::size_t vectors = 2;
    static constexpr std::size_t columns = vectors * Dot::lanes;

    static void multiply(std::size_t rows, std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                         const B* b, Total* out, const void* ahead) {
        table(std::make_index_sequence<Dot::tile_rows>{})[rows - 1](groups, a, a_row, a_group, b, out,
                                                                    static_cast<const char*>(ahead));
    }

    static constexpr TileKernel<A, B, Total> kernel{Dot::tile_rows, columns, Dot::group, multiply};

private:
    using Function = void (*)(std::size_t, const A*, std::size_t, std::size_t, const B*, Total*, const char*);

    template <std::size_t... Rows>
    static const Function* table(std::index_sequence<Rows...>) {
        static constexpr Function functions[]{tile<Rows + 1>...};
        return functions;
    }

    template <std::size_t rows>
    static void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group, const B* b, Total* out,
                     const char* ahead) {
        tile(groups, a, a_row, a_group, b, out, ahead, std::make_index_sequence<rows>{});
    }

    // Index sequences instead of loops keep every sum in a register at -O2. A pointer to every third row lets x86's scaled
    // addressing reach all rows of a with few registers.
    template <std::size_t... Row>
    [[gnu::always_inline]] static inline void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                                                   const B* b, Total* out, const char* ahead,
                                                   std::index_sequence<Row...>) {
        constexpr std::size_t rows = sizeof...(Row);
        Sum left[rows], right[rows];
        ((left[Row] = Dot::zero(), right[Row] = Dot::zero()), ...);
        const A* thirds[(rows + 2) / 3];
        ((thirds[Row / 3] = a + Row / 3 * 3 * a_row), ...);
        for (std::size_t g = 0; g < groups; ++g, b += columns * Dot::group, ahead += fetched_per_group) {
            __builtin_prefetch(ahead, 0, 2);
            const auto b0 = Dot::load(b), b1 = Dot::load(b + Dot::lanes * Dot::group);
            (multiply_add(thirds[Row / 3] + Row % 3 * a_row, b0, b1, left[Row], right[Row]), ...);
            ((Row % 3 == 0 ? void(thirds[Row / 3] += a_group) : void()), ...);
        }
        ((Dot::store(out + Row * columns, left[Row]), Dot::store(out + Row * columns + Dot::lanes, right[Row])), ...);
    }

    template <class Group>
    [[gnu::always_inline]] static inline void multiply_add(const A* a, const Group& b0, const Group& b1, Sum& left,
                                                           Sum& right) {
        const auto repeated = Dot::broadcast(a);
        left = Dot::dot(repeated, b0, left);
        right = Dot::dot(repeated, b1, right);
    }
};

/// Multiply-add of single elements.
template <class V>
struct ElementDot {
    using A = typename V::element;
    using B = A;
    using Sum = V;
    using Total = A;
    static constexpr std::size_t lanes = V::lanes, tile_rows = V::tile_rows, group = 1;

    [[gnu::always_inline]] static inline V zero() { return V(0); }
    [[gnu::always_inline]] static inline V load(const B* from) { return V::load(from); }
    [[gnu::always_inline]] static inline V broadcast(const A* from) { return V(*from); }
    [[gnu::always_inline]] static inline V dot(const V& a, const V& b, const V& sum) { return fma(a, b, sum); }
    [[gnu::always_inline]] static inline void store(Total* to, const V& sum) { sum.store(to); }
};

template <class V>
struct VectorKernels {
    using T = typename V::element;
    static constexpr std::size_t lanes = V::lanes;

    /// A tile of sums in float or double.
    struct Sums {
        const T* data;
        std::size_t stride;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t count) const {
            return load(data + i * stride + j, count);
        }
    };

    static void finish_tile(const T* product, std::size_t product_stride, std::size_t rows, std::size_t columns, T* c,
                            std::size_t c_stride, bool accumulate, const Finish<T>& finish) {
        finish_product(Sums{product, product_stride}, rows, columns, c, c_stride, accumulate, finish);
    }

    template <class Product>
    [[gnu::always_inline]] static inline void finish_product(const Product& product, std::size_t rows, std::size_t columns,
                                                             T* c, std::size_t c_stride, bool accumulate,
                                                             const Finish<T>& finish) {
        for (std::size_t i = 0; i < rows; ++i) {
            T* const to = c + i * c_stride;
            for (std::size_t j = 0; j < columns; j += lanes) {
                const std::size_t count = columns - j < lanes ? columns - j : lanes;
                V value = product(i, j, count);
                if (accumulate) value = value + load(to + j, count);
                if (finish.bias != nullptr) value = value + load(finish.bias + j, count);
                if (finish.before != nullptr) store(finish.before + i * finish.before_stride + j, value, count);
                value = activated(finish.activation, value);
                if (finish.factor != nullptr) value = value * load(finish.factor + i * finish.factor_stride + j, count);
                if (finish.residual != nullptr) value = value + load(finish.residual + i * finish.residual_stride + j, count);
                store(to + j, value, count);
            }
        }
    }

    static void transpose(const T* from, std::size_t from_stride, std::size_t rows, std::size_t columns, T* to,
                          std::size_t to_stride) {
        std::size_t i = 0;
#if !defined(__CUDACC__)  // nvcc's front end does not know __builtin_shufflevector
        for (; i + lanes <= rows; i += lanes) {
            std::size_t j = 0;
            for (; j + lanes <= columns; j += lanes) {
                transpose_block(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride,
                                std::make_index_sequence<lanes>{});
            }
            for (; j < columns; ++j) {
                for (std::size_t l = 0; l < lanes; ++l) to[j * to_stride + i + l] = from[(i + l) * from_stride + j];
            }
        }
#endif
        for (; i < rows; ++i) {
            for (std::size_t j = 0; j < columns; ++j) to[j * to_stride + i] = from[i * from_stride + j];
        }
    }

    static void activate(Activation activation, const T* x, T* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(y + j, activated(activation, load(x + j, count)), count);
        }
    }

    static void activate_backward(Activation activation, const T* x, T* g, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(g + j, load(g + j, count) * derivative(activation, load(x + j, count)), count);
        }
    }

    static void layer_norm(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                           std::size_t width, T eps) {
        const std::size_t whole = width / lanes * lanes;
        for (std::size_t i = 0; i < rows; ++i, x += width, y += width) {
            const T mu = mean == nullptr ? T{0} : row_sum(x, width) / static_cast<T>(width);
            V squares(0);
            for (std::size_t j = 0; j < whole; j += lanes) {
                const V centred = V::load(x + j) - V(mu);
                squares = fma(centred, centred, squares);
            }
            T rest{0};
            for (std::size_t j = whole; j < width; ++j) rest += (x[j] - mu) * (x[j] - mu);
            const T variance = (sum(squares) + rest) / static_cast<T>(width);
            const T scale = T{1} / std::sqrt(variance + eps);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V shift = bias == nullptr ? V(0) : load(bias + j, count);
                store(y + j, fma((load(x + j, count) - V(mu)) * V(scale), load(gain + j, count), shift), count);
            }
            if (mean != nullptr) mean[i] = mu;
            inverse[i] = scale;
        }
    }

    static void layer_norm_backward(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                    std::size_t rows, std::size_t width, bool accumulate) {
        for (std::size_t i = 0; i < rows; ++i, x += width, dy += width, dx += width) {
            const V mu(mean == nullptr ? T{0} : mean[i]), scale(inverse[i]);
            V sums(0), products(0);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V g = load(dy + j, count) * load(gain + j, count);  // zero behind the row's end
                sums = sums + g;
                products = fma(g, (load(x + j, count) - mu) * scale, products);
            }
            const V total(mean == nullptr ? T{0} : sum(sums) / static_cast<T>(width)), product(sum(products) / static_cast<T>(width));
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V normed = (load(x + j, count) - mu) * scale;
                const V value = scale * (load(dy + j, count) * load(gain + j, count) - total - normed * product);
                store(dx + j, accumulate ? load(dx + j, count) + value : value, count);
            }
        }
    }

    static void layer_norm_parameters_backward(const T* dy, const T* x, const T* mean, const T* inverse, T* dgain,
                                               T* dbias, std::size_t rows, std::size_t width, std::size_t first,
                                               std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V gain_sum = load(dgain + j, count), bias_sum = dbias == nullptr ? V(0) : load(dbias + j, count);
            for (std::size_t i = 0; i < rows; ++i) {
                const V g = load(dy + i * width + j, count), mu(mean == nullptr ? T{0} : mean[i]);
                gain_sum = fma(g, (load(x + i * width + j, count) - mu) * V(inverse[i]), gain_sum);
                bias_sum = bias_sum + g;
            }
            store(dgain + j, gain_sum, count);
            if (dbias != nullptr) store(dbias + j, bias_sum, count);
        }
    }

    static void column_sums(const T* x, T* sums, std::size_t rows, std::size_t width, std::size_t first,
                            std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V total = load(sums + j, count);
            for (std::size_t i = 0; i < rows; ++i) total = total + load(x + i * width + j, count);
            store(sums + j, total, count);
        }
    }

    static void softmax(T* x, std::size_t count, T scale) {
        const std::size_t whole = count / lanes * lanes;
        T peak = scale * x[0];
        if (whole > 0) {
            V peaks = V(scale) * V::load(x);
            for (std::size_t j = lanes; j < whole; j += lanes) peaks = max(peaks, V(scale) * V::load(x + j));
            peak = largest(peaks);
        }
        for (std::size_t j = whole; j < count; ++j) peak = scale * x[j] > peak ? scale * x[j] : peak;
        V sums(0);
        for (std::size_t j = 0; j < whole; j += lanes) {
            const V value = exp(fma(V(scale), V::load(x + j), V(-peak)));
            value.store(x + j);
            sums = sums + value;
        }
        T total = sum(sums);
        if (const std::size_t rest = count - whole; rest > 0) {
            store(x + whole, exp(fma(V(scale), load(x + whole, rest), V(-peak))), rest);
            for (std::size_t j = whole; j < count; ++j) total += x[j];
        }
        const V normaliser(T{1} / total);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(x + j, load(x + j, here) * normaliser, here);
        }
    }

    static void softmax_backward(const T* y, T* dx, std::size_t count, T scale) {
        V products(0);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            products = fma(load(dx + j, here), load(y + j, here), products);
        }
        const V dot(sum(products));
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(dx + j, V(scale) * load(y + j, here) * (load(dx + j, here) - dot), here);
        }
    }

    static constexpr KernelSet<T> set(const char* name) {
        return {.name = name,
                .tile = TileKernels<ElementDot<V>>::kernel,
                .finish_tile = finish_tile,
                .transpose = transpose,
                .activate = activate,
                .layer_norm = layer_norm,
                .softmax = softmax};
    }

    static constexpr GradientKernels<T> gradients{.activate_backward = activate_backward,
                                                  .layer_norm_backward = layer_norm_backward,
                                                  .layer_norm_parameters_backward = layer_norm_parameters_backward,
                                                  .column_sums = column_sums,
                                                  .softmax_backward = softmax_backward};

private:
#if !defined(__CUDACC__)
    /// Interleaving row k with row k + lanes / 2, for every k, log2(lanes) times over, transposes a square.
    template <std::size_t... Lane>
    [[gnu::always_inline]] static inline void transpose_block(const T* from, std::size_t from_stride, T* to,
                                                              std::size_t to_stride, std::index_sequence<Lane...>) {
        constexpr std::size_t half = lanes / 2;
        typedef T Row __attribute__((vector_size(lanes * sizeof(T))));
        Row rows[lanes], next[lanes];
        (std::memcpy(&rows[Lane], from + Lane * from_stride, sizeof(Row)), ...);
        for (std::size_t stage = 1; stage < lanes; stage *= 2) {
            ((next[Lane] = Lane % 2 == 0
                               ? __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (Lane / 2 + Lane % 2 * lanes)...)
                               : __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (half + Lane / 2 + Lane % 2 * lanes)...)),
             ...);
            ((rows[Lane] = next[Lane]), ...);
        }
        (std::memcpy(to + Lane * to_stride, &rows[Lane], sizeof(Row)), ...);
    }
#endif

    [[gnu::always_inline]] static inline V load(const T* from, std::size_t count) {
        return count == lanes ? V::load(from) : V::load(from, count);
    }
    [[gnu::always_inline]] static inline void store(T* to, const V& value, std::size_t count) {
        if (count == lanes) {
            value.store(to);
        } else {
            value.store(to, count);
        }
    }

    static T row_sum(const T* x, std::size_t width) {
        V sums(0);
        for (std::size_t j = 0; j < width; j += lanes) sums = sums + load(x + j, width - j < lanes ? width - j : lanes);
        return sum(sums);
    }

    /// e^x. Floats by reduction to |r| <= ln(2) / 2 and the Taylor polynomial of degree 7, below 2 units in the last place;
    static V exp(const V& x) {
        if constexpr (requires { V::exp(x); }) {
            return V::exp(x);
        } else {
            const V held = min(V(88.02f), max(V(-110.0f), x));
            const V power = round(held * V(1.44269504f));
            V r = fma(power, V(-0.693359375f), held);  // ln 2 in two parts
            r = fma(power, V(2.12194440e-4f), r);
            V p = V(1.0f / 5040);
            p = fma(p, r, V(1.0f / 720));
            p = fma(p, r, V(1.0f / 120));
            p = fma(p, r, V(1.0f / 24));
            p = fma(p, r, V(1.0f / 6));
            p = fma(p, r, V(0.5f));
            p = fma(p, r * r, r);
            return scale_by_power(p + V(1), power);
        }
    }

    /// erf(x). Floats by a rational function fitted to erf on [0, 3.95], beyond which erf is 1 to 2.4e-8.
    static V erf(const V& x) {
        if constexpr (requires { V::erf(x); }) {
            return V::erf(x);
        } else {
            const V z = min(V(3.95f), max(V(-3.95f), x)), s = z * z;
            V p = V(2.0259840312e-06f);
            p = fma(p, s, V(0.00028468173696f));
            p = fma(p, s, V(0.0038078341167f));
            p = fma(p, s, V(0.052874431014f));
            p = fma(p, s, V(0.19154247642f));
            p = fma(p, s, V(1.1283791065f));
            V q = V(3.7832280213e-05f);
            q = fma(q, s, V(0.0011706490769f));
            q = fma(q, s, V(0.015054429881f));
            q = fma(q, s, V(0.11455640197f));
            q = fma(q, s, V(0.50308275223f));
            q = fma(q, s, V(1));
            return z * p / q;
        }
    }

    static V sigmoid(const V& x) { return V(1) / (V(1) + exp(V(0) - x)); }

    // Every activation here is x times a gate: Φ(x), σ(1.702 x), σ(x), max(0, x), and σ(2u) with u = sqrt(2/π)(x + 0.044715 x³).
    static constexpr T root_half = static_cast<T>(0.70710678118654752440);
    static constexpr T twice_root = static_cast<T>(1.59576912160573071176);  // 2 sqrt(2/π)
    static constexpr T cubic = static_cast<T>(0.044715), quick = static_cast<T>(1.702);

    static T steepness(Activation activation) { return activation == Activation::silu ? T{1} : quick; }
    static V normal_distribution(const V& x) { return V(static_cast<T>(0.5)) * (V(1) + erf(x * V(root_half))); }
    static V tanh_gate(const V& x) { return sigmoid(V(twice_root) * fma(V(cubic) * x * x, x, x)); }

    [[gnu::always_inline]] static inline V activated(Activation activation, const V& x) {
        switch (activation) {
            case Activation::gelu: return x * normal_distribution(x);
            case Activation::quick_gelu:
            case Activation::silu: return x * sigmoid(V(steepness(activation)) * x);
            case Activation::tanh_gelu: return x * tanh_gate(x);
            case Activation::squared_relu: return x * max(V(0), x);
            case Activation::none: break;
        }
        return x;
    }

    static V derivative(Activation activation, const V& x) {
        const V one(1);
        switch (activation) {
            case Activation::gelu: {
                const V density = V(static_cast<T>(0.39894228040143267794)) * exp(V(static_cast<T>(-0.5)) * x * x);
                return fma(x, density, normal_distribution(x));
            }
            case Activation::quick_gelu:
            case Activation::silu: {
                const V steep = V(steepness(activation)) * x, gate = sigmoid(steep);
                return gate * fma(steep, one - gate, one);
            }
            case Activation::tanh_gelu: {
                const V gate = tanh_gate(x);
                const V slope = V(twice_root) * fma(V(3 * cubic) * x, x, one);
                return gate * fma(x * slope, one - gate, one);
            }
            case Activation::squared_relu: return V(2) * max(V(0), x);
            case Activation::none: break;
        }
        return one;
    }
};

/// The conversions that reduced precision needs.
template <class V>
struct Conversions {
    static void narrow(const float* x, bfloat16* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::load(x + j, count).store_narrow(y + j, count);
        }
    }

    static void narrow_pairs(const float* first, const float* second, bfloat16* to, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::store_narrow_pairs(V::load(first + j, count), V::load(second + j, count), to + 2 * j, count);
        }
    }

    static void quantise(const float* x, std::uint8_t* y, std::size_t size, float& scale, std::int32_t& zero) {
        // Zero is always among the values, so that it is exact, and a row of zeros has a scale.
        V low(0), high(0);
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const V value = V::load(x + j, size - j < V::lanes ? size - j : V::lanes);  // zeros behind the end
            low = min(low, value);
            high = max(high, value);
        }
        const float least = -largest(V(0) - low), range = largest(high) - least;
        scale = range > 0 ? range / 255 : 1;
        const V inverse(1 / scale), shift = round(V(-least) * inverse);
        zero = static_cast<std::int32_t>(std::lrint(-least * (1 / scale)));
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            const V bytes = min(V(255), max(V(0), round(V::load(x + j, count) * inverse) + shift));
            bytes.store_bytes(y + j, count);
        }
    }

    /// Whole vectors: a tile and what belongs to its columns run on to the tile's end.
    struct Bytes {
        const ByteProduct& product;
        std::size_t columns;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t) const {
            const V exact = V::difference_of_products(product.sums + i * columns + j, product.row_zero[i],
                                                      product.column_sum + j);
            return exact * V(product.row_scale[i]) * V::load(product.column_scale + j);
        }
    };

    static void finish_bytes(const ByteProduct& product, std::size_t tile_columns, std::size_t rows, std::size_t columns,
                             float* c, std::size_t c_stride, bool accumulate, const Finish<float>& finish) {
        VectorKernels<V>::finish_product(Bytes{product, tile_columns}, rows, columns, c, c_stride, accumulate, finish);
    }
};

inline constexpr KernelSet<float> kernel_set = VectorKernels<Vector>::set("avx512");
using Convert = Conversions<Vector>;

/// A float is a bfloat16 with sixteen zero bits behind it.
struct WidenedDot {
    using A = float;
    using B = bfloat16;
    using Sum = __m512;
    using Total = float;
    static constexpr std::size_t lanes = 16, tile_rows = 13, group = 2;
    struct Pair {
        __m512 even, odd;
    };

    static Sum zero() { return _mm512_setzero_ps(); }
    static Pair load(const B* from) {
        const __m512i pairs = _mm512_loadu_si512(from);
        const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
        return {_mm512_castsi512_ps(_mm512_maskz_slli_epi32(all_lanes, pairs, 16)),
                _mm512_castsi512_ps(_mm512_and_si512(pairs, upper))};
    }
    static Pair broadcast(const A* from) { return {_mm512_set1_ps(from[0]), _mm512_set1_ps(from[1])}; }
    static Sum dot(const Pair& a, const Pair& b, const Sum& sum) {
        return _mm512_fmadd_ps(a.odd, b.odd, _mm512_fmadd_ps(a.even, b.even, sum));
    }
    static void store(Total* to, const Sum& sum) { _mm512_storeu_ps(to, sum); }
};

inline constexpr TileKernel<float, bfloat16, float> widened = TileKernels<WidenedDot>::kernel;

}  // namespace tandem::inline TANDEM_ABI::kernels::avx512

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#endif

namespace tandem::inline TANDEM_ABI::kernels::avx512bf16 {

// Kernels over a vector type. This text stands once in the target region of every instruction set, because the target of
// a template is fixed where it is defined. A vector type V has lanes, tile_rows, load and store (whole and of the first
// `count` lanes), arithmetic operators, fma, min and max (both give a NaN if the second operand is one), round,
// and scale_by_power; for reduced precision also difference_of_products, store_narrow, store_narrow_pairs
// and store_bytes.

// Σ and max over lanes in a fixed order, so that every caller gets the same bits.
template <class V>
typename V::element sum(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    for (std::size_t half = V::lanes / 2; half > 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) lane[i] += lane[i + half];
    }
    return lane[0];
}
template <class V>
typename V::element largest(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    typename V::element most = lane[0];
    for (std::size_t i = 1; i < V::lanes; ++i) most = lane[i] > most ? lane[i] : most;
    return most;
}

/// The register tile of a dot product: Dot says how one broadcast group of the left operand meets one vector of groups of
/// the right one.
template <class Dot>
struct TileKernels {
    using A = typename Dot::A;
    using B = typename Dot::B;
    using Sum = typename Dot::Sum;
    using Total = typename Dot::Total;
    static constexpr std::size_t vectors = 2;
    static constexpr std::size_t columns = vectors * Dot::lanes;

    static void multiply(std::size_t rows, std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                         const B* b, Total* out, const void* ahead) {
        table(std::make_index_sequence<Dot::tile_rows>{})[rows - 1](groups, a, a_row, a_group, b, out,
                                                                    static_cast<const char*>(ahead));
    }

    static constexpr TileKernel<A, B, Total> kernel{Dot::tile_rows, columns, Dot::group, multiply};

private:
    using Function = void (*)(std::size_t, const A*, std::size_t, std::size_t, const B*, Total*, const char*);

    template <std::size_t... Rows>
    static const Function* table(std::index_sequence<Rows...>) {
        static constexpr Function functions[]{tile<Rows + 1>...};
        return functions;
    }

    template <std::size_t rows>
    static void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group, const B* b, Total* out,
                     const char* ahead) {
        tile(groups, a, a_row, a_group, b, out, ahead, std::make_index_sequence<rows>{});
    }

    // Index sequences instead of loops keep every sum in a register at -O2. A pointer to every third row lets x86's scaled
    // addressing reach all rows of a with few registers.
    template <std::size_t... Row>
    [[gnu::always_inline]] static inline void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                                                   const B* b, Total* out, const char* ahead,
                                                   std::index_sequence<Row...>) {
        constexpr std::size_t rows = sizeof...(Row);
        Sum left[rows], right[rows];
        ((left[Row] = Dot::zero(), right[Row] = Dot::zero()), ...);
        const A* thirds[(rows + 2) / 3];
        ((thirds[Row / 3] = a + Row / 3 * 3 * a_row), ...);
        for (std::size_t g = 0; g < groups; ++g, b += columns * Dot::group, ahead += fetched_per_group) {
            __builtin_prefetch(ahead, 0, 2);
            const auto b0 = Dot::load(b), b1 = Dot::load(b + Dot::lanes * Dot::group);
            (multiply_add(thirds[Row / 3] + Row % 3 * a_row, b0, b1, left[Row], right[Row]), ...);
            ((Row % 3 == 0 ? void(thirds[Row / 3] += a_group) : void()), ...);
        }
        ((Dot::store(out + Row * columns, left[Row]), Dot::store(out + Row * columns + Dot::lanes, right[Row])), ...);
    }

    template <class Group>
    [[gnu::always_inline]] static inline void multiply_add(const A* a, const Group& b0, const Group& b1, Sum& left,
                                                           Sum& right) {
        const auto repeated = Dot::broadcast(a);
        left = Dot::dot(repeated, b0, left);
        right = Dot::dot(repeated, b1, right);
    }
};

/// Multiply-add of single elements.
template <class V>
struct ElementDot {
    using A = typename V::element;
    using B = A;
    using Sum = V;
    using Total = A;
    static constexpr std::size_t lanes = V::lanes, tile_rows = V::tile_rows, group = 1;

    [[gnu::always_inline]] static inline V zero() { return V(0); }
    [[gnu::always_inline]] static inline V load(const B* from) { return V::load(from); }
    [[gnu::always_inline]] static inline V broadcast(const A* from) { return V(*from); }
    [[gnu::always_inline]] static inline V dot(const V& a, const V& b, const V& sum) { return fma(a, b, sum); }
    [[gnu::always_inline]] static inline void store(Total* to, const V& sum) { sum.store(to); }
};

template <class V>
struct VectorKernels {
    using T = typename V::element;
    static constexpr std::size_t lanes = V::lanes;

    /// A tile of sums in float or double.
    struct Sums {
        const T* data;
        std::size_t stride;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t count) const {
            return load(data + i * stride + j, count);
        }
    };

    static void finish_tile(const T* product, std::size_t product_stride, std::size_t rows, std::size_t columns, T* c,
                            std::size_t c_stride, bool accumulate, const Finish<T>& finish) {
        finish_product(Sums{product, product_stride}, rows, columns, c, c_stride, accumulate, finish);
    }

    template <class Product>
    [[gnu::always_inline]] static inline void finish_product(const Product& product, std::size_t rows, std::size_t columns,
                                                             T* c, std::size_t c_stride, bool accumulate,
                                                             const Finish<T>& finish) {
        for (std::size_t i = 0; i < rows; ++i) {
            T* const to = c + i * c_stride;
            for (std::size_t j = 0; j < columns; j += lanes) {
                const std::size_t count = columns - j < lanes ? columns - j : lanes;
                V value = product(i, j, count);
                if (accumulate) value = value + load(to + j, count);
                if (finish.bias != nullptr) value = value + load(finish.bias + j, count);
                if (finish.before != nullptr) store(finish.before + i * finish.before_stride + j, value, count);
                value = activated(finish.activation, value);
                if (finish.factor != nullptr) value = value * load(finish.factor + i * finish.factor_stride + j, count);
                if (finish.residual != nullptr) value = value + load(finish.residual + i * finish.residual_stride + j, count);
                store(to + j, value, count);
            }
        }
    }

    static void transpose(const T* from, std::size_t from_stride, std::size_t rows, std::size_t columns, T* to,
                          std::size_t to_stride) {
        std::size_t i = 0;
#if !defined(__CUDACC__)  // nvcc's front end does not know __builtin_shufflevector
        for (; i + lanes <= rows; i += lanes) {
            std::size_t j = 0;
            for (; j + lanes <= columns; j += lanes) {
                transpose_block(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride,
                                std::make_index_sequence<lanes>{});
            }
            for (; j < columns; ++j) {
                for (std::size_t l = 0; l < lanes; ++l) to[j * to_stride + i + l] = from[(i + l) * from_stride + j];
            }
        }
#endif
        for (; i < rows; ++i) {
            for (std::size_t j = 0; j < columns; ++j) to[j * to_stride + i] = from[i * from_stride + j];
        }
    }

    static void activate(Activation activation, const T* x, T* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(y + j, activated(activation, load(x + j, count)), count);
        }
    }

    static void activate_backward(Activation activation, const T* x, T* g, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(g + j, load(g + j, count) * derivative(activation, load(x + j, count)), count);
        }
    }

    static void layer_norm(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                           std::size_t width, T eps) {
        const std::size_t whole = width / lanes * lanes;
        for (std::size_t i = 0; i < rows; ++i, x += width, y += width) {
            const T mu = mean == nullptr ? T{0} : row_sum(x, width) / static_cast<T>(width);
            V squares(0);
            for (std::size_t j = 0; j < whole; j += lanes) {
                const V centred = V::load(x + j) - V(mu);
                squares = fma(centred, centred, squares);
            }
            T rest{0};
            for (std::size_t j = whole; j < width; ++j) rest += (x[j] - mu) * (x[j] - mu);
            const T variance = (sum(squares) + rest) / static_cast<T>(width);
            const T scale = T{1} / std::sqrt(variance + eps);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V shift = bias == nullptr ? V(0) : load(bias + j, count);
                store(y + j, fma((load(x + j, count) - V(mu)) * V(scale), load(gain + j, count), shift), count);
            }
            if (mean != nullptr) mean[i] = mu;
            inverse[i] = scale;
        }
    }

    static void layer_norm_backward(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                    std::size_t rows, std::size_t width, bool accumulate) {
        for (std::size_t i = 0; i < rows; ++i, x += width, dy += width, dx += width) {
            const V mu(mean == nullptr ? T{0} : mean[i]), scale(inverse[i]);
            V sums(0), products(0);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V g = load(dy + j, count) * load(gain + j, count);  // zero behind the row's end
                sums = sums + g;
                products = fma(g, (load(x + j, count) - mu) * scale, products);
            }
            const V total(mean == nullptr ? T{0} : sum(sums) / static_cast<T>(width)), product(sum(products) / static_cast<T>(width));
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V normed = (load(x + j, count) - mu) * scale;
                const V value = scale * (load(dy + j, count) * load(gain + j, count) - total - normed * product);
                store(dx + j, accumulate ? load(dx + j, count) + value : value, count);
            }
        }
    }

    static void layer_norm_parameters_backward(const T* dy, const T* x, const T* mean, const T* inverse, T* dgain,
                                               T* dbias, std::size_t rows, std::size_t width, std::size_t first,
                                               std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V gain_sum = load(dgain + j, count), bias_sum = dbias == nullptr ? V(0) : load(dbias + j, count);
            for (std::size_t i = 0; i < rows; ++i) {
                const V g = load(dy + i * width + j, count), mu(mean == nullptr ? T{0} : mean[i]);
                gain_sum = fma(g, (load(x + i * width + j, count) - mu) * V(inverse[i]), gain_sum);
                bias_sum = bias_sum + g;
            }
            store(dgain + j, gain_sum, count);
            if (dbias != nullptr) store(dbias + j, bias_sum, count);
        }
    }

    static void column_sums(const T* x, T* sums, std::size_t rows, std::size_t width, std::size_t first,
                            std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V total = load(sums + j, count);
            for (std::size_t i = 0; i < rows; ++i) total = total + load(x + i * width + j, count);
            store(sums + j, total, count);
        }
    }

    static void softmax(T* x, std::size_t count, T scale) {
        const std::size_t whole = count / lanes * lanes;
        T peak = scale * x[0];
        if (whole > 0) {
            V peaks = V(scale) * V::load(x);
            for (std::size_t j = lanes; j < whole; j += lanes) peaks = max(peaks, V(scale) * V::load(x + j));
            peak = largest(peaks);
        }
        for (std::size_t j = whole; j < count; ++j) peak = scale * x[j] > peak ? scale * x[j] : peak;
        V sums(0);
        for (std::size_t j = 0; j < whole; j += lanes) {
            const V value = exp(fma(V(scale), V::load(x + j), V(-peak)));
            value.store(x + j);
            sums = sums + value;
        }
        T total = sum(sums);
        if (const std::size_t rest = count - whole; rest > 0) {
            store(x + whole, exp(fma(V(scale), load(x + whole, rest), V(-peak))), rest);
            for (std::size_t j = whole; j < count; ++j) total += x[j];
        }
        const V normaliser(T{1} / total);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(x + j, load(x + j, here) * normaliser, here);
        }
    }

    static void softmax_backward(const T* y, T* dx, std::size_t count, T scale) {
        V products(0);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            products = fma(load(dx + j, here), load(y + j, here), products);
        }
        const V dot(sum(products));
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(dx + j, V(scale) * load(y + j, here) * (load(dx + j, here) - dot), here);
        }
    }

    static constexpr KernelSet<T> set(const char* name) {
        return {.name = name,
                .tile = TileKernels<ElementDot<V>>::kernel,
                .finish_tile = finish_tile,
                .transpose = transpose,
                .activate = activate,
                .layer_norm = layer_norm,
                .softmax = softmax};
    }

    static constexpr GradientKernels<T> gradients{.activate_backward = activate_backward,
                                                  .layer_norm_backward = layer_norm_backward,
                                                  .layer_norm_parameters_backward = layer_norm_parameters_backward,
                                                  .column_sums = column_sums,
                                                  .softmax_backward = softmax_backward};

private:
#if !defined(__CUDACC__)
    /// Interleaving row k with row k + lanes / 2, for every k, log2(lanes) times over, transposes a square.
    template <std::size_t... Lane>
    [[gnu::always_inline]] static inline void transpose_block(const T* from, std::size_t from_stride, T* to,
                                                              std::size_t to_stride, std::index_sequence<Lane...>) {
        constexpr std::size_t half = lanes / 2;
        typedef T Row __attribute__((vector_size(lanes * sizeof(T))));
        Row rows[lanes], next[lanes];
        (std::memcpy(&rows[Lane], from + Lane * from_stride, sizeof(Row)), ...);
        for (std::size_t stage = 1; stage < lanes; stage *= 2) {
            ((next[Lane] = Lane % 2 == 0
                               ? __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (Lane / 2 + Lane % 2 * lanes)...)
                               : __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (half + Lane / 2 + Lane % 2 * lanes)...)),
             ...);
            ((rows[Lane] = next[Lane]), ...);
        }
        (std::memcpy(to + Lane * to_stride, &rows[Lane], sizeof(Row)), ...);
    }
#endif

    [[gnu::always_inline]] static inline V load(const T* from, std::size_t count) {
        return count == lanes ? V::load(from) : V::load(from, count);
    }
    [[gnu::always_inline]] static inline void store(T* to, const V& value, std::size_t count) {
        if (count == lanes) {
            value.store(to);
        } else {
            value.store(to, count);
        }
    }

    static T row_sum(const T* x, std::size_t width) {
        V sums(0);
        for (std::size_t j = 0; j < width; j += lanes) sums = sums + load(x + j, width - j < lanes ? width - j : lanes);
        return sum(sums);
    }

    /// e^x. Floats by reduction to |r| <= ln(2) / 2 and the Taylor polynomial of degree 7, below 2 units in the last place;
    static V exp(const V& x) {
        if constexpr (requires { V::exp(x); }) {
            return V::exp(x);
        } else {
            const V held = min(V(88.02f), max(V(-110.0f), x));
            const V power = round(held * V(1.44269504f));
            V r = fma(power, V(-0.693359375f), held);  // ln 2 in two parts
            r = fma(power, V(2.12194440e-4f), r);
            V p = V(1.0f / 5040);
            p = fma(p, r, V(1.0f / 720));
            p = fma(p, r, V(1.0f / 120));
            p = fma(p, r, V(1.0f / 24));
            p = fma(p, r, V(1.0f / 6));
            p = fma(p, r, V(0.5f));
            p = fma(p, r * r, r);
            return scale_by_power(p + V(1), power);
        }
    }

    /// erf(x). Floats by a rational function fitted to erf on [0, 3.95], beyond which erf is 1 to 2.4e-8.
    static V erf(const V& x) {
        if constexpr (requires { V::erf(x); }) {
            return V::erf(x);
        } else {
            const V z = min(V(3.95f), max(V(-3.95f), x)), s = z * z;
            V p = V(2.0259840312e-06f);
            p = fma(p, s, V(0.00028468173696f));
            p = fma(p, s, V(0.0038078341167f));
            p = fma(p, s, V(0.052874431014f));
            p = fma(p, s, V(0.19154247642f));
            p = fma(p, s, V(1.1283791065f));
            V q = V(3.7832280213e-05f);
            q = fma(q, s, V(0.0011706490769f));
            q = fma(q, s, V(0.015054429881f));
            q = fma(q, s, V(0.11455640197f));
            q = fma(q, s, V(0.50308275223f));
            q = fma(q, s, V(1));
            return z * p / q;
        }
    }

    static V sigmoid(const V& x) { return V(1) / (V(1) + exp(V(0) - x)); }

    // Every activation here is x times a gate: Φ(x), σ(1.702 x), σ(x), max(0, x), and σ(2u) with u = sqrt(2/π)(x + 0.044715 x³).
    static constexpr T root_half = static_cast<T>(0.70710678118654752440);
    static constexpr T twice_root = static_cast<T>(1.59576912160573071176);  // 2 sqrt(2/π)
    static constexpr T cubic = static_cast<T>(0.044715), quick = static_cast<T>(1.702);

    static T steepness(Activation activation) { return activation == Activation::silu ? T{1} : quick; }
    static V normal_distribution(const V& x) { return V(static_cast<T>(0.5)) * (V(1) + erf(x * V(root_half))); }
    static V tanh_gate(const V& x) { return sigmoid(V(twice_root) * fma(V(cubic) * x * x, x, x)); }

    [[gnu::always_inline]] static inline V activated(Activation activation, const V& x) {
        switch (activation) {
            case Activation::gelu: return x * normal_distribution(x);
            case Activation::quick_gelu:
            case Activation::silu: return x * sigmoid(V(steepness(activation)) * x);
            case Activation::tanh_gelu: return x * tanh_gate(x);
            case Activation::squared_relu: return x * max(V(0), x);
            case Activation::none: break;
        }
        return x;
    }

    static V derivative(Activation activation, const V& x) {
        const V one(1);
        switch (activation) {
            case Activation::gelu: {
                const V density = V(static_cast<T>(0.39894228040143267794)) * exp(V(static_cast<T>(-0.5)) * x * x);
                return fma(x, density, normal_distribution(x));
            }
            case Activation::quick_gelu:
            case Activation::silu: {
                const V steep = V(steepness(activation)) * x, gate = sigmoid(steep);
                return gate * fma(steep, one - gate, one);
            }
            case Activation::tanh_gelu: {
                const V gate = tanh_gate(x);
                const V slope = V(twice_root) * fma(V(3 * cubic) * x, x, one);
                return gate * fma(x * slope, one - gate, one);
            }
            case Activation::squared_relu: return V(2) * max(V(0), x);
            case Activation::none: break;
        }
        return one;
    }
};

/// The conversions that reduced precision needs.
template <class V>
struct Conversions {
    static void narrow(const float* x, bfloat16* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::load(x + j, count).store_narrow(y + j, count);
        }
    }

    static void narrow_pairs(const float* first, const float* second, bfloat16* to, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::store_narrow_pairs(V::load(first + j, count), V::load(second + j, count), to + 2 * j, count);
        }
    }

    static void quantise(const float* x, std::uint8_t* y, std::size_t size, float& scale, std::int32_t& zero) {
        // Zero is always among the values, so that it is exact, and a row of zeros has a scale.
        V low(0), high(0);
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const V value = V::load(x + j, size - j < V::lanes ? size - j : V::lanes);  // zeros behind the end
            low = min(low, value);
            high = max(high, value);
        }
        const float least = -largest(V(0) - low), range = largest(high) - least;
        scale = range > 0 ? range / 255 : 1;
        const V inverse(1 / scale), shift = round(V(-least) * inverse);
        zero = static_cast<std::int32_t>(std::lrint(-least * (1 / scale)));
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            const V bytes = min(V(255), max(V(0), round(V::load(x + j, count) * inverse) + shift));
            bytes.store_bytes(y + j, count);
        }
    }

    /// Whole vectors: a tile and what belongs to its columns run on to the tile's end.
    struct Bytes {
        const ByteProduct& product;
        std::size_t columns;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t) const {
            const V exact = V::difference_of_products(product.sums + i * columns + j, product.row_zero[i],
                                                      product.column_sum + j);
            return exact * V(product.row_scale[i]) * V::load(product.column_scale + j);
        }
    };

    static void finish_bytes(const ByteProduct& product, std::size_t tile_columns, std::size_t rows, std::size_t columns,
                             float* c, std::size_t c_stride, bool accumulate, const Finish<float>& finish) {
        VectorKernels<V>::finish_product(Bytes{product, tile_columns}, rows, columns, c, c_stride, accumulate, finish);
    }
};

/// Pairs of bfloat16, summed in float32; subnormal inputs and results count as zero (Intel SDM, VDPBF16PS).
struct PairDot {
    using A = bfloat16;
    using B = bfloat16;
    using Sum = __m512;
    using Total = float;
    static constexpr std::size_t lanes = 16, tile_rows = 14, group = 2;

    static Sum zero() { return _mm512_setzero_ps(); }
    static __m512bh load(const B* from) { return reinterpret_cast<__m512bh>(_mm512_loadu_si512(from)); }
    static __m512bh broadcast(const A* from) {
        int pair;
        std::memcpy(&pair, from, sizeof pair);
        return reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
    }
    static Sum dot(const __m512bh& a, const __m512bh& b, const Sum& sum) { return _mm512_dpbf16_ps(sum, a, b); }
    static void store(Total* to, const Sum& sum) { _mm512_storeu_ps(to, sum); }
};

inline constexpr TileKernel<bfloat16, bfloat16, float> pairs = TileKernels<PairDot>::kernel;

}  // namespace tandem::inline TANDEM_ABI::kernels::avx512bf16

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

namespace tandem::inline TANDEM_ABI::kernels::avx512vnni {

// Kernels over a vector type. This text stands once in the target region of every instruction set, because the target of
// a template is fixed where it is defined. A vector type V has lanes, tile_rows, load and store (whole and of the first
// `count` lanes), arithmetic operators, fma, min and max (both give a NaN if the second operand is one), round,
// and scale_by_power; for reduced precision also difference_of_products, store_narrow, store_narrow_pairs
// and store_bytes.

// Σ and max over lanes in a fixed order, so that every caller gets the same bits.
template <class V>
typename V::element sum(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    for (std::size_t half = V::lanes / 2; half > 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) lane[i] += lane[i + half];
    }
    return lane[0];
}
template <class V>
typename V::element largest(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    typename V::element most = lane[0];
    for (std::size_t i = 1; i < V::lanes; ++i) most = lane[i] > most ? lane[i] : most;
    return most;
}

/// The register tile of a dot product: Dot says how one broadcast group of the left operand meets one vector of groups of
/// the right one.
template <class Dot>
struct TileKernels {
    using A = typename Dot::A;
    using B = typename Dot::B;
    using Sum = typename Dot::Sum;
    using Total = typename Dot::Total;
    static constexpr std::size_t vectors = 2;
    static constexpr std::size_t columns = vectors * Dot::lanes;

    static void multiply(std::size_t rows, std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                         const B* b, Total* out, const void* ahead) {
        table(std::make_index_sequence<Dot::tile_rows>{})[rows - 1](groups, a, a_row, a_group, b, out,
                                                                    static_cast<const char*>(ahead));
    }

    static constexpr TileKernel<A, B, Total> kernel{Dot::tile_rows, columns, Dot::group, multiply};

private:
    using Function = void (*)(std::size_t, const A*, std::size_t, std::size_t, const B*, Total*, const char*);

    template <std::size_t... Rows>
    static const Function* table(std::index_sequence<Rows...>) {
        static constexpr Function functions[]{tile<Rows + 1>...};
        return functions;
    }

    template <std::size_t rows>
    static void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group, const B* b, Total* out,
                     const char* ahead) {
        tile(groups, a, a_row, a_group, b, out, ahead, std::make_index_sequence<rows>{});
    }

    // Index sequences instead of loops keep every sum in a register at -O2. A pointer to every third row lets x86's scaled
    // addressing reach all rows of a with few registers.
    template <std::size_t... Row>
    [[gnu::always_inline]] static inline void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                                                   const B* b, Total* out, const char* ahead,
                                                   std::index_sequence<Row...>) {
        constexpr std::size_t rows = sizeof...(Row);
        Sum left[rows], right[rows];
        ((left[Row] = Dot::zero(), right[Row] = Dot::zero()), ...);
        const A* thirds[(rows + 2) / 3];
        ((thirds[Row / 3] = a + Row / 3 * 3 * a_row), ...);
        for (std::size_t g = 0; g < groups; ++g, b += columns * Dot::group, ahead += fetched_per_group) {
            __builtin_prefetch(ahead, 0, 2);
            const auto b0 = Dot::load(b), b1 = Dot::load(b + Dot::lanes * Dot::group);
            (multiply_add(thirds[Row / 3] + Row % 3 * a_row, b0, b1, left[Row], right[Row]), ...);
            ((Row % 3 == 0 ? void(thirds[Row / 3] += a_group) : void()), ...);
        }
        ((Dot::store(out + Row * columns, left[Row]), Dot::store(out + Row * columns + Dot::lanes, right[Row])), ...);
    }

    template <class Group>
    [[gnu::always_inline]] static inline void multiply_add(const A* a, const Group& b0, const Group& b1, Sum& left,
                                                           Sum& right) {
        const auto repeated = Dot::broadcast(a);
        left = Dot::dot(repeated, b0, left);
        right = Dot::dot(repeated, b1, right);
    }
};

/// Multiply-add of single elements.
template <class V>
struct ElementDot {
    using A = typename V::element;
    using B = A;
    using Sum = V;
    using Total = A;
    static constexpr std::size_t lanes = V::lanes, tile_rows = V::tile_rows, group = 1;

    [[gnu::always_inline]] static inline V zero() { return V(0); }
    [[gnu::always_inline]] static inline V load(const B* from) { return V::load(from); }
    [[gnu::always_inline]] static inline V broadcast(const A* from) { return V(*from); }
    [[gnu::always_inline]] static inline V dot(const V& a, const V& b, const V& sum) { return fma(a, b, sum); }
    [[gnu::always_inline]] static inline void store(Total* to, const V& sum) { sum.store(to); }
};

template <class V>
struct VectorKernels {
    using T = typename V::element;
    static constexpr std::size_t lanes = V::lanes;

    /// A tile of sums in float or double.
    struct Sums {
        const T* data;
        std::size_t stride;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t count) const {
            return load(data + i * stride + j, count);
        }
    };

    static void finish_tile(const T* product, std::size_t product_stride, std::size_t rows, std::size_t columns, T* c,
                            std::size_t c_stride, bool accumulate, const Finish<T>& finish) {
        finish_product(Sums{product, product_stride}, rows, columns, c, c_stride, accumulate, finish);
    }

    template <class Product>
    [[gnu::always_inline]] static inline void finish_product(const Product& product, std::size_t rows, std::size_t columns,
                                                             T* c, std::size_t c_stride, bool accumulate,
                                                             const Finish<T>& finish) {
        for (std::size_t i = 0; i < rows; ++i) {
            T* const to = c + i * c_stride;
            for (std::size_t j = 0; j < columns; j += lanes) {
                const std::size_t count = columns - j < lanes ? columns - j : lanes;
                V value = product(i, j, count);
                if (accumulate) value = value + load(to + j, count);
                if (finish.bias != nullptr) value = value + load(finish.bias + j, count);
                if (finish.before != nullptr) store(finish.before + i * finish.before_stride + j, value, count);
                value = activated(finish.activation, value);
                if (finish.factor != nullptr) value = value * load(finish.factor + i * finish.factor_stride + j, count);
                if (finish.residual != nullptr) value = value + load(finish.residual + i * finish.residual_stride + j, count);
                store(to + j, value, count);
            }
        }
    }

    static void transpose(const T* from, std::size_t from_stride, std::size_t rows, std::size_t columns, T* to,
                          std::size_t to_stride) {
        std::size_t i = 0;
#if !defined(__CUDACC__)  // nvcc's front end does not know __builtin_shufflevector
        for (; i + lanes <= rows; i += lanes) {
            std::size_t j = 0;
            for (; j + lanes <= columns; j += lanes) {
                transpose_block(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride,
                                std::make_index_sequence<lanes>{});
            }
            for (; j < columns; ++j) {
                for (std::size_t l = 0; l < lanes; ++l) to[j * to_stride + i + l] = from[(i + l) * from_stride + j];
            }
        }
#endif
        for (; i < rows; ++i) {
            for (std::size_t j = 0; j < columns; ++j) to[j * to_stride + i] = from[i * from_stride + j];
        }
    }

    static void activate(Activation activation, const T* x, T* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(y + j, activated(activation, load(x + j, count)), count);
        }
    }

    static void activate_backward(Activation activation, const T* x, T* g, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(g + j, load(g + j, count) * derivative(activation, load(x + j, count)), count);
        }
    }

    static void layer_norm(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                           std::size_t width, T eps) {
        const std::size_t whole = width / lanes * lanes;
        for (std::size_t i = 0; i < rows; ++i, x += width, y += width) {
            const T mu = mean == nullptr ? T{0} : row_sum(x, width) / static_cast<T>(width);
            V squares(0);
            for (std::size_t j = 0; j < whole; j += lanes) {
                const V centred = V::load(x + j) - V(mu);
                squares = fma(centred, centred, squares);
            }
            T rest{0};
            for (std::size_t j = whole; j < width; ++j) rest += (x[j] - mu) * (x[j] - mu);
            const T variance = (sum(squares) + rest) / static_cast<T>(width);
            const T scale = T{1} / std::sqrt(variance + eps);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V shift = bias == nullptr ? V(0) : load(bias + j, count);
                store(y + j, fma((load(x + j, count) - V(mu)) * V(scale), load(gain + j, count), shift), count);
            }
            if (mean != nullptr) mean[i] = mu;
            inverse[i] = scale;
        }
    }

    static void layer_norm_backward(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                    std::size_t rows, std::size_t width, bool accumulate) {
        for (std::size_t i = 0; i < rows; ++i, x += width, dy += width, dx += width) {
            const V mu(mean == nullptr ? T{0} : mean[i]), scale(inverse[i]);
            V sums(0), products(0);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V g = load(dy + j, count) * load(gain + j, count);  // zero behind the row's end
                sums = sums + g;
                products = fma(g, (load(x + j, count) - mu) * scale, products);
            }
            const V total(mean == nullptr ? T{0} : sum(sums) / static_cast<T>(width)), product(sum(products) / static_cast<T>(width));
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V normed = (load(x + j, count) - mu) * scale;
                const V value = scale * (load(dy + j, count) * load(gain + j, count) - total - normed * product);
                store(dx + j, accumulate ? load(dx + j, count) + value : value, count);
            }
        }
    }

    static void layer_norm_parameters_backward(const T* dy, const T* x, const T* mean, const T* inverse, T* dgain,
                                               T* dbias, std::size_t rows, std::size_t width, std::size_t first,
                                               std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V gain_sum = load(dgain + j, count), bias_sum = dbias == nullptr ? V(0) : load(dbias + j, count);
            for (std::size_t i = 0; i < rows; ++i) {
                const V g = load(dy + i * width + j, count), mu(mean == nullptr ? T{0} : mean[i]);
                gain_sum = fma(g, (load(x + i * width + j, count) - mu) * V(inverse[i]), gain_sum);
                bias_sum = bias_sum + g;
            }
            store(dgain + j, gain_sum, count);
            if (dbias != nullptr) store(dbias + j, bias_sum, count);
        }
    }

    static void column_sums(const T* x, T* sums, std::size_t rows, std::size_t width, std::size_t first,
                            std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V total = load(sums + j, count);
            for (std::size_t i = 0; i < rows; ++i) total = total + load(x + i * width + j, count);
            store(sums + j, total, count);
        }
    }

    static void softmax(T* x, std::size_t count, T scale) {
        const std::size_t whole = count / lanes * lanes;
        T peak = scale * x[0];
        if (whole > 0) {
            V peaks = V(scale) * V::load(x);
            for (std::size_t j = lanes; j < whole; j += lanes) peaks = max(peaks, V(scale) * V::load(x + j));
            peak = largest(peaks);
        }
        for (std::size_t j = whole; j < count; ++j) peak = scale * x[j] > peak ? scale * x[j] : peak;
        V sums(0);
        for (std::size_t j = 0; j < whole; j += lanes) {
            const V value = exp(fma(V(scale), V::load(x + j), V(-peak)));
            value.store(x + j);
            sums = sums + value;
        }
        T total = sum(sums);
        if (const std::size_t rest = count - whole; rest > 0) {
            store(x + whole, exp(fma(V(scale), load(x + whole, rest), V(-peak))), rest);
            for (std::size_t j = whole; j < count; ++j) total += x[j];
        }
        const V normaliser(T{1} / total);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(x + j, load(x + j, here) * normaliser, here);
        }
    }

    static void softmax_backward(const T* y, T* dx, std::size_t count, T scale) {
        V products(0);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            products = fma(load(dx + j, here), load(y + j, here), products);
        }
        const V dot(sum(products));
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(dx + j, V(scale) * load(y + j, here) * (load(dx + j, here) - dot), here);
        }
    }

    static constexpr KernelSet<T> set(const char* name) {
        return {.name = name,
                .tile = TileKernels<ElementDot<V>>::kernel,
                .finish_tile = finish_tile,
                .transpose = transpose,
                .activate = activate,
                .layer_norm = layer_norm,
                .softmax = softmax};
    }

    static constexpr GradientKernels<T> gradients{.activate_backward = activate_backward,
                                                  .layer_norm_backward = layer_norm_backward,
                                                  .layer_norm_parameters_backward = layer_norm_parameters_backward,
                                                  .column_sums = column_sums,
                                                  .softmax_backward = softmax_backward};

private:
#if !defined(__CUDACC__)
    /// Interleaving row k with row k + lanes / 2, for every k, log2(lanes) times over, transposes a square.
    template <std::size_t... Lane>
    [[gnu::always_inline]] static inline void transpose_block(const T* from, std::size_t from_stride, T* to,
                                                              std::size_t to_stride, std::index_sequence<Lane...>) {
        constexpr std::size_t half = lanes / 2;
        typedef T Row __attribute__((vector_size(lanes * sizeof(T))));
        Row rows[lanes], next[lanes];
        (std::memcpy(&rows[Lane], from + Lane * from_stride, sizeof(Row)), ...);
        for (std::size_t stage = 1; stage < lanes; stage *= 2) {
            ((next[Lane] = Lane % 2 == 0
                               ? __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (Lane / 2 + Lane % 2 * lanes)...)
                               : __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (half + Lane / 2 + Lane % 2 * lanes)...)),
             ...);
            ((rows[Lane] = next[Lane]), ...);
        }
        (std::memcpy(to + Lane * to_stride, &rows[Lane], sizeof(Row)), ...);
    }
#endif

    [[gnu::always_inline]] static inline V load(const T* from, std::size_t count) {
        return count == lanes ? V::load(from) : V::load(from, count);
    }
    [[gnu::always_inline]] static inline void store(T* to, const V& value, std::size_t count) {
        if (count == lanes) {
            value.store(to);
        } else {
            value.store(to, count);
        }
    }

    static T row_sum(const T* x, std::size_t width) {
        V sums(0);
        for (std::size_t j = 0; j < width; j += lanes) sums = sums + load(x + j, width - j < lanes ? width - j : lanes);
        return sum(sums);
    }

    /// e^x. Floats by reduction to |r| <= ln(2) / 2 and the Taylor polynomial of degree 7, below 2 units in the last place;
    static V exp(const V& x) {
        if constexpr (requires { V::exp(x); }) {
            return V::exp(x);
        } else {
            const V held = min(V(88.02f), max(V(-110.0f), x));
            const V power = round(held * V(1.44269504f));
            V r = fma(power, V(-0.693359375f), held);  // ln 2 in two parts
            r = fma(power, V(2.12194440e-4f), r);
            V p = V(1.0f / 5040);
            p = fma(p, r, V(1.0f / 720));
            p = fma(p, r, V(1.0f / 120));
            p = fma(p, r, V(1.0f / 24));
            p = fma(p, r, V(1.0f / 6));
            p = fma(p, r, V(0.5f));
            p = fma(p, r * r, r);
            return scale_by_power(p + V(1), power);
        }
    }

    /// erf(x). Floats by a rational function fitted to erf on [0, 3.95], beyond which erf is 1 to 2.4e-8.
    static V erf(const V& x) {
        if constexpr (requires { V::erf(x); }) {
            return V::erf(x);
        } else {
            const V z = min(V(3.95f), max(V(-3.95f), x)), s = z * z;
            V p = V(2.0259840312e-06f);
            p = fma(p, s, V(0.00028468173696f));
            p = fma(p, s, V(0.0038078341167f));
            p = fma(p, s, V(0.052874431014f));
            p = fma(p, s, V(0.19154247642f));
            p = fma(p, s, V(1.1283791065f));
            V q = V(3.7832280213e-05f);
            q = fma(q, s, V(0.0011706490769f));
            q = fma(q, s, V(0.015054429881f));
            q = fma(q, s, V(0.11455640197f));
            q = fma(q, s, V(0.50308275223f));
            q = fma(q, s, V(1));
            return z * p / q;
        }
    }

    static V sigmoid(const V& x) { return V(1) / (V(1) + exp(V(0) - x)); }

    // Every activation here is x times a gate: Φ(x), σ(1.702 x), σ(x), max(0, x), and σ(2u) with u = sqrt(2/π)(x + 0.044715 x³).
    static constexpr T root_half = static_cast<T>(0.70710678118654752440);
    static constexpr T twice_root = static_cast<T>(1.59576912160573071176);  // 2 sqrt(2/π)
    static constexpr T cubic = static_cast<T>(0.044715), quick = static_cast<T>(1.702);

    static T steepness(Activation activation) { return activation == Activation::silu ? T{1} : quick; }
    static V normal_distribution(const V& x) { return V(static_cast<T>(0.5)) * (V(1) + erf(x * V(root_half))); }
    static V tanh_gate(const V& x) { return sigmoid(V(twice_root) * fma(V(cubic) * x * x, x, x)); }

    [[gnu::always_inline]] static inline V activated(Activation activation, const V& x) {
        switch (activation) {
            case Activation::gelu: return x * normal_distribution(x);
            case Activation::quick_gelu:
            case Activation::silu: return x * sigmoid(V(steepness(activation)) * x);
            case Activation::tanh_gelu: return x * tanh_gate(x);
            case Activation::squared_relu: return x * max(V(0), x);
            case Activation::none: break;
        }
        return x;
    }

    static V derivative(Activation activation, const V& x) {
        const V one(1);
        switch (activation) {
            case Activation::gelu: {
                const V density = V(static_cast<T>(0.39894228040143267794)) * exp(V(static_cast<T>(-0.5)) * x * x);
                return fma(x, density, normal_distribution(x));
            }
            case Activation::quick_gelu:
            case Activation::silu: {
                const V steep = V(steepness(activation)) * x, gate = sigmoid(steep);
                return gate * fma(steep, one - gate, one);
            }
            case Activation::tanh_gelu: {
                const V gate = tanh_gate(x);
                const V slope = V(twice_root) * fma(V(3 * cubic) * x, x, one);
                return gate * fma(x * slope, one - gate, one);
            }
            case Activation::squared_relu: return V(2) * max(V(0), x);
            case Activation::none: break;
        }
        return one;
    }
};

/// The conversions that reduced precision needs.
template <class V>
struct Conversions {
    static void narrow(const float* x, bfloat16* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::load(x + j, count).store_narrow(y + j, count);
        }
    }

    static void narrow_pairs(const float* first, const float* second, bfloat16* to, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::store_narrow_pairs(V::load(first + j, count), V::load(second + j, count), to + 2 * j, count);
        }
    }

    static void quantise(const float* x, std::uint8_t* y, std::size_t size, float& scale, std::int32_t& zero) {
        // Zero is always among the values, so that it is exact, and a row of zeros has a scale.
        V low(0), high(0);
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const V value = V::load(x + j, size - j < V::lanes ? size - j : V::lanes);  // zeros behind the end
            low = min(low, value);
            high = max(high, value);
        }
        const float least = -largest(V(0) - low), range = largest(high) - least;
        scale = range > 0 ? range / 255 : 1;
        const V inverse(1 / scale), shift = round(V(-least) * inverse);
        zero = static_cast<std::int32_t>(std::lrint(-least * (1 / scale)));
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            const V bytes = min(V(255), max(V(0), round(V::load(x + j, count) * inverse) + shift));
            bytes.store_bytes(y + j, count);
        }
    }

    /// Whole vectors: a tile and what belongs to its columns run on to the tile's end.
    struct Bytes {
        const ByteProduct& product;
        std::size_t columns;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t) const {
            const V exact = V::difference_of_products(product.sums + i * columns + j, product.row_zero[i],
                                                      product.column_sum + j);
            return exact * V(product.row_scale[i]) * V::load(product.column_scale + j);
        }
    };

    static void finish_bytes(const ByteProduct& product, std::size_t tile_columns, std::size_t rows, std::size_t columns,
                             float* c, std::size_t c_stride, bool accumulate, const Finish<float>& finish) {
        VectorKernels<V>::finish_product(Bytes{product, tile_columns}, rows, columns, c, c_stride, accumulate, finish);
    }
};

struct ByteDot {
    using A = std::uint8_t;
    using B = std::int8_t;
    using Sum = __m512i;
    using Total = std::int32_t;
    static constexpr std::size_t lanes = 16, tile_rows = 14, group = 4;

    static Sum zero() { return _mm512_setzero_si512(); }
    static __m512i load(const B* from) { return _mm512_loadu_si512(from); }
    static __m512i broadcast(const A* from) {
        int bytes;
        std::memcpy(&bytes, from, sizeof bytes);
        return _mm512_set1_epi32(bytes);
    }
    static Sum dot(const __m512i& a, const __m512i& b, const Sum& sum) { return _mm512_dpbusd_epi32(sum, a, b); }
    static void store(Total* to, const Sum& sum) { _mm512_storeu_si512(to, sum); }
};

inline constexpr TileKernel<std::uint8_t, std::int8_t, std::int32_t> bytes = TileKernels<ByteDot>::kernel;

}  // namespace tandem::inline TANDEM_ABI::kernels::avx512vnni

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

// ---- tandem/kernels/native.hpp ----

// SIMD at the build's -march, through xsimd; the only file that knows it. Holds the vector type that expressions are
// evaluated in, and the kernels written over it.

// g++ 12 takes the undefined operand of AVX-512 intrinsics for an uninitialised read (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <xsimd/xsimd.hpp>
#pragma GCC diagnostic pop

namespace tandem::inline TANDEM_ABI::kernels {

template <Real T>
using Batch = xsimd::batch<T>;

/// Elements in one Batch<T>.
template <Real T>
inline constexpr std::size_t lanes = Batch<T>::size;

template <Real T>
Batch<T> load(const T* from) {
    return Batch<T>::load_unaligned(from);
}

/// The first `count` < lanes elements, zeros behind them; nothing past them is read.
template <Real T>
Batch<T> load_partial(const T* from, std::size_t count) {
    std::array<T, lanes<T>> buffer{};
    for (std::size_t i = 0; i < count; ++i) buffer[i] = from[i];
    return Batch<T>::load_unaligned(buffer.data());
}

inline Batch<float> load_partial(const bfloat16* from, std::size_t count) {
    std::array<float, lanes<float>> buffer{};
    for (std::size_t i = 0; i < count; ++i) buffer[i] = from[i];
    return Batch<float>::load_unaligned(buffer.data());
}

inline Batch<float> load(const bfloat16* from) {
    return load_partial(from, lanes<float>);
}

template <Real T>
void store(T* to, const Batch<T>& value) {
    value.store_unaligned(to);
}

template <Real T>
void store_partial(T* to, const Batch<T>& value, std::size_t count) {
    std::array<T, lanes<T>> buffer;
    value.store_unaligned(buffer.data());
    for (std::size_t i = 0; i < count; ++i) to[i] = buffer[i];
}

inline void store_partial(bfloat16* to, const Batch<float>& value, std::size_t count) {
    std::array<float, lanes<float>> buffer;
    value.store_unaligned(buffer.data());
    for (std::size_t i = 0; i < count; ++i) to[i] = bfloat16(buffer[i]);
}

inline void store(bfloat16* to, const Batch<float>& value) {
    store_partial(to, value, lanes<float>);
}

/// Σ and max over lanes in a fixed order, so that every caller gets the same bits.
template <Real T>
T reduce_sum(const Batch<T>& value) {
    std::array<T, lanes<T>> buffer;
    value.store_unaligned(buffer.data());
    for (std::size_t half = lanes<T> / 2; half > 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) buffer[i] += buffer[i + half];
    }
    return buffer[0];
}

template <Real T>
T reduce_max(const Batch<T>& value) {
    std::array<T, lanes<T>> buffer;
    value.store_unaligned(buffer.data());
    T largest = buffer[0];
    for (std::size_t i = 1; i < lanes<T>; ++i) largest = buffer[i] > largest ? buffer[i] : largest;
    return largest;
}

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

// Kernels over a vector type. This text stands once in the target region of every instruction set, because the target of
// a template is fixed where it is defined. A vector type V has lanes, tile_rows, load and store (whole and of the first
// `count` lanes), arithmetic operators, fma, min and max (both give a NaN if the second operand is one), round,
// and scale_by_power; for reduced precision also difference_of_products, store_narrow, store_narrow_pairs
// and store_bytes.

// Σ and max over lanes in a fixed order, so that every caller gets the same bits.
template <class V>
typename V::element sum(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    for (std::size_t half = V::lanes / 2; half > 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) lane[i] += lane[i + half];
    }
    return lane[0];
}
template <class V>
typename V::element largest(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    typename V::element most = lane[0];
    for (std::size_t i = 1; i < V::lanes; ++i) most = lane[i] > most ? lane[i] : most;
    return most;
}

/// The register tile of a dot product: Dot says how one broadcast group of the left operand meets one vector of groups of
/// the right one.
template <class Dot>
struct TileKernels {
    using A = typename Dot::A;
    using B = typename Dot::B;
    using Sum = typename Dot::Sum;
    using Total = typename Dot::Total;
    static constexpr std::size_t vectors = 2;
    static constexpr std::size_t columns = vectors * Dot::lanes;

    static void multiply(std::size_t rows, std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                         const B* b, Total* out, const void* ahead) {
        table(std::make_index_sequence<Dot::tile_rows>{})[rows - 1](groups, a, a_row, a_group, b, out,
                                                                    static_cast<const char*>(ahead));
    }

    static constexpr TileKernel<A, B, Total> kernel{Dot::tile_rows, columns, Dot::group, multiply};

private:
    using Function = void (*)(std::size_t, const A*, std::size_t, std::size_t, const B*, Total*, const char*);

    template <std::size_t... Rows>
    static const Function* table(std::index_sequence<Rows...>) {
        static constexpr Function functions[]{tile<Rows + 1>...};
        return functions;
    }

    template <std::size_t rows>
    static void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group, const B* b, Total* out,
                     const char* ahead) {
        tile(groups, a, a_row, a_group, b, out, ahead, std::make_index_sequence<rows>{});
    }

    // Index sequences instead of loops keep every sum in a register at -O2. A pointer to every third row lets x86's scaled
    // addressing reach all rows of a with few registers.
    template <std::size_t... Row>
    [[gnu::always_inline]] static inline void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                                                   const B* b, Total* out, const char* ahead,
                                                   std::index_sequence<Row...>) {
        constexpr std::size_t rows = sizeof...(Row);
        Sum left[rows], right[rows];
        ((left[Row] = Dot::zero(), right[Row] = Dot::zero()), ...);
        const A* thirds[(rows + 2) / 3];
        ((thirds[Row / 3] = a + Row / 3 * 3 * a_row), ...);
        for (std::size_t g = 0; g < groups; ++g, b += columns * Dot::group, ahead += fetched_per_group) {
            __builtin_prefetch(ahead, 0, 2);
            const auto b0 = Dot::load(b), b1 = Dot::load(b + Dot::lanes * Dot::group);
            (multiply_add(thirds[Row / 3] + Row % 3 * a_row, b0, b1, left[Row], right[Row]), ...);
            ((Row % 3 == 0 ? void(thirds[Row / 3] += a_group) : void()), ...);
        }
        ((Dot::store(out + Row * columns, left[Row]), Dot::store(out + Row * columns + Dot::lanes, right[Row])), ...);
    }

    template <class Group>
    [[gnu::always_inline]] static inline void multiply_add(const A* a, const Group& b0, const Group& b1, Sum& left,
                                                           Sum& right) {
        const auto repeated = Dot::broadcast(a);
        left = Dot::dot(repeated, b0, left);
        right = Dot::dot(repeated, b1, right);
    }
};

/// Multiply-add of single elements.
template <class V>
struct ElementDot {
    using A = typename V::element;
    using B = A;
    using Sum = V;
    using Total = A;
    static constexpr std::size_t lanes = V::lanes, tile_rows = V::tile_rows, group = 1;

    [[gnu::always_inline]] static inline V zero() { return V(0); }
    [[gnu::always_inline]] static inline V load(const B* from) { return V::load(from); }
    [[gnu::always_inline]] static inline V broadcast(const A* from) { return V(*from); }
    [[gnu::always_inline]] static inline V dot(const V& a, const V& b, const V& sum) { return fma(a, b, sum); }
    [[gnu::always_inline]] static inline void store(Total* to, const V& sum) { sum.store(to); }
};

template <class V>
struct VectorKernels {
    using T = typename V::element;
    static constexpr std::size_t lanes = V::lanes;

    /// A tile of sums in float or double.
    struct Sums {
        const T* data;
        std::size_t stride;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t count) const {
            return load(data + i * stride + j, count);
        }
    };

    static void finish_tile(const T* product, std::size_t product_stride, std::size_t rows, std::size_t columns, T* c,
                            std::size_t c_stride, bool accumulate, const Finish<T>& finish) {
        finish_product(Sums{product, product_stride}, rows, columns, c, c_stride, accumulate, finish);
    }

    template <class Product>
    [[gnu::always_inline]] static inline void finish_product(const Product& product, std::size_t rows, std::size_t columns,
                                                             T* c, std::size_t c_stride, bool accumulate,
                                                             const Finish<T>& finish) {
        for (std::size_t i = 0; i < rows; ++i) {
            T* const to = c + i * c_stride;
            for (std::size_t j = 0; j < columns; j += lanes) {
                const std::size_t count = columns - j < lanes ? columns - j : lanes;
                V value = product(i, j, count);
                if (accumulate) value = value + load(to + j, count);
                if (finish.bias != nullptr) value = value + load(finish.bias + j, count);
                if (finish.before != nullptr) store(finish.before + i * finish.before_stride + j, value, count);
                value = activated(finish.activation, value);
                if (finish.factor != nullptr) value = value * load(finish.factor + i * finish.factor_stride + j, count);
                if (finish.residual != nullptr) value = value + load(finish.residual + i * finish.residual_stride + j, count);
                store(to + j, value, count);
            }
        }
    }

    static void transpose(const T* from, std::size_t from_stride, std::size_t rows, std::size_t columns, T* to,
                          std::size_t to_stride) {
        std::size_t i = 0;
#if !defined(__CUDACC__)  // nvcc's front end does not know __builtin_shufflevector
        for (; i + lanes <= rows; i += lanes) {
            std::size_t j = 0;
            for (; j + lanes <= columns; j += lanes) {
                transpose_block(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride,
                                std::make_index_sequence<lanes>{});
            }
            for (; j < columns; ++j) {
                for (std::size_t l = 0; l < lanes; ++l) to[j * to_stride + i + l] = from[(i + l) * from_stride + j];
            }
        }
#endif
        for (; i < rows; ++i) {
            for (std::size_t j = 0; j < columns; ++j) to[j * to_stride + i] = from[i * from_stride + j];
        }
    }

    static void activate(Activation activation, const T* x, T* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(y + j, activated(activation, load(x + j, count)), count);
        }
    }

    static void activate_backward(Activation activation, const T* x, T* g, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(g + j, load(g + j, count) * derivative(activation, load(x + j, count)), count);
        }
    }

    static void layer_norm(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                           std::size_t width, T eps) {
        const std::size_t whole = width / lanes * lanes;
        for (std::size_t i = 0; i < rows; ++i, x += width, y += width) {
            const T mu = mean == nullptr ? T{0} : row_sum(x, width) / static_cast<T>(width);
            V squares(0);
            for (std::size_t j = 0; j < whole; j += lanes) {
                const V centred = V::load(x + j) - V(mu);
                squares = fma(centred, centred, squares);
            }
            T rest{0};
            for (std::size_t j = whole; j < width; ++j) rest += (x[j] - mu) * (x[j] - mu);
            const T variance = (sum(squares) + rest) / static_cast<T>(width);
            const T scale = T{1} / std::sqrt(variance + eps);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V shift = bias == nullptr ? V(0) : load(bias + j, count);
                store(y + j, fma((load(x + j, count) - V(mu)) * V(scale), load(gain + j, count), shift), count);
            }
            if (mean != nullptr) mean[i] = mu;
            inverse[i] = scale;
        }
    }

    static void layer_norm_backward(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                    std::size_t rows, std::size_t width, bool accumulate) {
        for (std::size_t i = 0; i < rows; ++i, x += width, dy += width, dx += width) {
            const V mu(mean == nullptr ? T{0} : mean[i]), scale(inverse[i]);
            V sums(0), products(0);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V g = load(dy + j, count) * load(gain + j, count);  // zero behind the row's end
                sums = sums + g;
                products = fma(g, (load(x + j, count) - mu) * scale, products);
            }
            const V total(mean == nullptr ? T{0} : sum(sums) / static_cast<T>(width)), product(sum(products) / static_cast<T>(width));
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V normed = (load(x + j, count) - mu) * scale;
                const V value = scale * (load(dy + j, count) * load(gain + j, count) - total - normed * product);
                store(dx + j, accumulate ? load(dx + j, count) + value : value, count);
            }
        }
    }

    static void layer_norm_parameters_backward(const T* dy, const T* x, const T* mean, const T* inverse, T* dgain,
                                               T* dbias, std::size_t rows, std::size_t width, std::size_t first,
                                               std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V gain_sum = load(dgain + j, count), bias_sum = dbias == nullptr ? V(0) : load(dbias + j, count);
            for (std::size_t i = 0; i < rows; ++i) {
                const V g = load(dy + i * width + j, count), mu(mean == nullptr ? T{0} : mean[i]);
                gain_sum = fma(g, (load(x + i * width + j, count) - mu) * V(inverse[i]), gain_sum);
                bias_sum = bias_sum + g;
            }
            store(dgain + j, gain_sum, count);
            if (dbias != nullptr) store(dbias + j, bias_sum, count);
        }
    }

    static void column_sums(const T* x, T* sums, std::size_t rows, std::size_t width, std::size_t first,
                            std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V total = load(sums + j, count);
            for (std::size_t i = 0; i < rows; ++i) total = total + load(x + i * width + j, count);
            store(sums + j, total, count);
        }
    }

    static void softmax(T* x, std::size_t count, T scale) {
        const std::size_t whole = count / lanes * lanes;
        T peak = scale * x[0];
        if (whole > 0) {
            V peaks = V(scale) * V::load(x);
            for (std::size_t j = lanes; j < whole; j += lanes) peaks = max(peaks, V(scale) * V::load(x + j));
            peak = largest(peaks);
        }
        for (std::size_t j = whole; j < count; ++j) peak = scale * x[j] > peak ? scale * x[j] : peak;
        V sums(0);
        for (std::size_t j = 0; j < whole; j += lanes) {
            const V value = exp(fma(V(scale), V::load(x + j), V(-peak)));
            value.store(x + j);
            sums = sums + value;
        }
        T total = sum(sums);
        if (const std::size_t rest = count - whole; rest > 0) {
            store(x + whole, exp(fma(V(scale), load(x + whole, rest), V(-peak))), rest);
            for (std::size_t j = whole; j < count; ++j) total += x[j];
        }
        const V normaliser(T{1} / total);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(x + j, load(x + j, here) * normaliser, here);
        }
    }

    static void softmax_backward(const T* y, T* dx, std::size_t count, T scale) {
        V products(0);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            products = fma(load(dx + j, here), load(y + j, here), products);
        }
        const V dot(sum(products));
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(dx + j, V(scale) * load(y + j, here) * (load(dx + j, here) - dot), here);
        }
    }

    static constexpr KernelSet<T> set(const char* name) {
        return {.name = name,
                .tile = TileKernels<ElementDot<V>>::kernel,
                .finish_tile = finish_tile,
                .transpose = transpose,
                .activate = activate,
                .layer_norm = layer_norm,
                .softmax = softmax};
    }

    static constexpr GradientKernels<T> gradients{.activate_backward = activate_backward,
                                                  .layer_norm_backward = layer_norm_backward,
                                                  .layer_norm_parameters_backward = layer_norm_parameters_backward,
                                                  .column_sums = column_sums,
                                                  .softmax_backward = softmax_backward};

private:
#if !defined(__CUDACC__)
    /// Interleaving row k with row k + lanes / 2, for every k, log2(lanes) times over, transposes a square.
    template <std::size_t... Lane>
    [[gnu::always_inline]] static inline void transpose_block(const T* from, std::size_t from_stride, T* to,
                                                              std::size_t to_stride, std::index_sequence<Lane...>) {
        constexpr std::size_t half = lanes / 2;
        typedef T Row __attribute__((vector_size(lanes * sizeof(T))));
        Row rows[lanes], next[lanes];
        (std::memcpy(&rows[Lane], from + Lane * from_stride, sizeof(Row)), ...);
        for (std::size_t stage = 1; stage < lanes; stage *= 2) {
            ((next[Lane] = Lane % 2 == 0
                               ? __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (Lane / 2 + Lane % 2 * lanes)...)
                               : __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (half + Lane / 2 + Lane % 2 * lanes)...)),
             ...);
            ((rows[Lane] = next[Lane]), ...);
        }
        (std::memcpy(to + Lane * to_stride, &rows[Lane], sizeof(Row)), ...);
    }
#endif

    [[gnu::always_inline]] static inline V load(const T* from, std::size_t count) {
        return count == lanes ? V::load(from) : V::load(from, count);
    }
    [[gnu::always_inline]] static inline void store(T* to, const V& value, std::size_t count) {
        if (count == lanes) {
            value.store(to);
        } else {
            value.store(to, count);
        }
    }

    static T row_sum(const T* x, std::size_t width) {
        V sums(0);
        for (std::size_t j = 0; j < width; j += lanes) sums = sums + load(x + j, width - j < lanes ? width - j : lanes);
        return sum(sums);
    }

    /// e^x. Floats by reduction to |r| <= ln(2) / 2 and the Taylor polynomial of degree 7, below 2 units in the last place;
    static V exp(const V& x) {
        if constexpr (requires { V::exp(x); }) {
            return V::exp(x);
        } else {
            const V held = min(V(88.02f), max(V(-110.0f), x));
            const V power = round(held * V(1.44269504f));
            V r = fma(power, V(-0.693359375f), held);  // ln 2 in two parts
            r = fma(power, V(2.12194440e-4f), r);
            V p = V(1.0f / 5040);
            p = fma(p, r, V(1.0f / 720));
            p = fma(p, r, V(1.0f / 120));
            p = fma(p, r, V(1.0f / 24));
            p = fma(p, r, V(1.0f / 6));
            p = fma(p, r, V(0.5f));
            p = fma(p, r * r, r);
            return scale_by_power(p + V(1), power);
        }
    }

    /// erf(x). Floats by a rational function fitted to erf on [0, 3.95], beyond which erf is 1 to 2.4e-8.
    static V erf(const V& x) {
        if constexpr (requires { V::erf(x); }) {
            return V::erf(x);
        } else {
            const V z = min(V(3.95f), max(V(-3.95f), x)), s = z * z;
            V p = V(2.0259840312e-06f);
            p = fma(p, s, V(0.00028468173696f));
            p = fma(p, s, V(0.0038078341167f));
            p = fma(p, s, V(0.052874431014f));
            p = fma(p, s, V(0.19154247642f));
            p = fma(p, s, V(1.1283791065f));
            V q = V(3.7832280213e-05f);
            q = fma(q, s, V(0.0011706490769f));
            q = fma(q, s, V(0.015054429881f));
            q = fma(q, s, V(0.11455640197f));
            q = fma(q, s, V(0.50308275223f));
            q = fma(q, s, V(1));
            return z * p / q;
        }
    }

    static V sigmoid(const V& x) { return V(1) / (V(1) + exp(V(0) - x)); }

    // Every activation here is x times a gate: Φ(x), σ(1.702 x), σ(x), max(0, x), and σ(2u) with u = sqrt(2/π)(x + 0.044715 x³).
    static constexpr T root_half = static_cast<T>(0.70710678118654752440);
    static constexpr T twice_root = static_cast<T>(1.59576912160573071176);  // 2 sqrt(2/π)
    static constexpr T cubic = static_cast<T>(0.044715), quick = static_cast<T>(1.702);

    static T steepness(Activation activation) { return activation == Activation::silu ? T{1} : quick; }
    static V normal_distribution(const V& x) { return V(static_cast<T>(0.5)) * (V(1) + erf(x * V(root_half))); }
    static V tanh_gate(const V& x) { return sigmoid(V(twice_root) * fma(V(cubic) * x * x, x, x)); }

    [[gnu::always_inline]] static inline V activated(Activation activation, const V& x) {
        switch (activation) {
            case Activation::gelu: return x * normal_distribution(x);
            case Activation::quick_gelu:
            case Activation::silu: return x * sigmoid(V(steepness(activation)) * x);
            case Activation::tanh_gelu: return x * tanh_gate(x);
            case Activation::squared_relu: return x * max(V(0), x);
            case Activation::none: break;
        }
        return x;
    }

    static V derivative(Activation activation, const V& x) {
        const V one(1);
        switch (activation) {
            case Activation::gelu: {
                const V density = V(static_cast<T>(0.39894228040143267794)) * exp(V(static_cast<T>(-0.5)) * x * x);
                return fma(x, density, normal_distribution(x));
            }
            case Activation::quick_gelu:
            case Activation::silu: {
                const V steep = V(steepness(activation)) * x, gate = sigmoid(steep);
                return gate * fma(steep, one - gate, one);
            }
            case Activation::tanh_gelu: {
                const V gate = tanh_gate(x);
                const V slope = V(twice_root) * fma(V(3 * cubic) * x, x, one);
                return gate * fma(x * slope, one - gate, one);
            }
            case Activation::squared_relu: return V(2) * max(V(0), x);
            case Activation::none: break;
        }
        return one;
    }
};

/// The conversions that reduced precision needs.
template <class V>
struct Conversions {
    static void narrow(const float* x, bfloat16* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::load(x + j, count).store_narrow(y + j, count);
        }
    }

    static void narrow_pairs(const float* first, const float* second, bfloat16* to, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::store_narrow_pairs(V::load(first + j, count), V::load(second + j, count), to + 2 * j, count);
        }
    }

    static void quantise(const float* x, std::uint8_t* y, std::size_t size, float& scale, std::int32_t& zero) {
        // Zero is always among the values, so that it is exact, and a row of zeros has a scale.
        V low(0), high(0);
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const V value = V::load(x + j, size - j < V::lanes ? size - j : V::lanes);  // zeros behind the end
            low = min(low, value);
            high = max(high, value);
        }
        const float least = -largest(V(0) - low), range = largest(high) - least;
        scale = range > 0 ? range / 255 : 1;
        const V inverse(1 / scale), shift = round(V(-least) * inverse);
        zero = static_cast<std::int32_t>(std::lrint(-least * (1 / scale)));
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            const V bytes = min(V(255), max(V(0), round(V::load(x + j, count) * inverse) + shift));
            bytes.store_bytes(y + j, count);
        }
    }

    /// Whole vectors: a tile and what belongs to its columns run on to the tile's end.
    struct Bytes {
        const ByteProduct& product;
        std::size_t columns;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t) const {
            const V exact = V::difference_of_products(product.sums + i * columns + j, product.row_zero[i],
                                                      product.column_sum + j);
            return exact * V(product.row_scale[i]) * V::load(product.column_scale + j);
        }
    };

    static void finish_bytes(const ByteProduct& product, std::size_t tile_columns, std::size_t rows, std::size_t columns,
                             float* c, std::size_t c_stride, bool accumulate, const Finish<float>& finish) {
        VectorKernels<V>::finish_product(Bytes{product, tile_columns}, rows, columns, c, c_stride, accumulate, finish);
    }
};

template <Real T>
inline constexpr KernelSet<T> kernel_set = VectorKernels<Vector<T>>::set("native");

}  // namespace native

}  // namespace tandem::inline TANDEM_ABI::kernels

// ---- tandem/kernels/neon.hpp ----

// NEON kernels: what every 64-bit Arm CPU has, and the bfloat16 and dot-product instructions of newer ones.

#if defined(__aarch64__)
#include <arm_neon.h>

namespace tandem::inline TANDEM_ABI::kernels::neon {

struct Vector {
    using element = float;
    static constexpr std::size_t lanes = 4;
    static constexpr std::size_t tile_rows = 10;  // from 11 on, g++ 12 keeps some sums in memory

    float32x4_t value;

    Vector() = default;
    Vector(float32x4_t v) : value(v) {}
    explicit Vector(float x) : value(vdupq_n_f32(x)) {}

    static Vector load(const float* from) { return vld1q_f32(from); }
    static Vector load(const float* from, std::size_t count) {
        float lane[lanes]{};
        for (std::size_t i = 0; i < count; ++i) lane[i] = from[i];
        return load(lane);
    }
    void store(float* to) const { vst1q_f32(to, value); }
    void store(float* to, std::size_t count) const {
        float lane[lanes];
        store(lane);
        for (std::size_t i = 0; i < count; ++i) to[i] = lane[i];
    }

    static Vector difference_of_products(const std::int32_t* sums, std::int32_t factor, const std::int32_t* others) {
        return vcvtq_f32_s32(vmlsq_s32(vld1q_s32(sums), vdupq_n_s32(factor), vld1q_s32(others)));
    }
    void store_bytes(std::uint8_t* to, std::size_t count) const {
        const uint16x4_t words = vmovn_u32(vreinterpretq_u32_s32(vcvtnq_s32_f32(value)));
        std::uint8_t bytes[8];
        vst1_u8(bytes, vmovn_u16(vcombine_u16(words, words)));
        std::memcpy(to, bytes, count);
    }
    /// As bfloat16's constructor rounds.
    uint16x4_t narrow() const {
        const uint32x4_t word = vreinterpretq_u32_f32(value);
        const uint32x4_t odd = vandq_u32(vshrq_n_u32(word, 16), vdupq_n_u32(1));
        const uint32x4_t rounded = vaddq_u32(word, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
        const uint32x4_t quiet = vorrq_u32(word, vdupq_n_u32(0x00400000));
        return vshrn_n_u32(vbslq_u32(vceqq_f32(value, value), rounded, quiet), 16);
    }
    void store_narrow(bfloat16* to, std::size_t count) const {
        std::uint16_t bits[lanes];
        vst1_u16(bits, narrow());
        std::memcpy(static_cast<void*>(to), bits, count * sizeof(bfloat16));
    }
    static void store_narrow_pairs(const Vector& first, const Vector& second, bfloat16* to, std::size_t count) {
        std::uint16_t bits[2 * lanes];
        vst2_u16(bits, uint16x4x2_t{{first.narrow(), second.narrow()}});
        std::memcpy(static_cast<void*>(to), bits, 2 * count * sizeof(bfloat16));
    }
};

inline Vector operator+(const Vector& a, const Vector& b) {
    return vaddq_f32(a.value, b.value);
}
inline Vector operator-(const Vector& a, const Vector& b) {
    return vsubq_f32(a.value, b.value);
}
inline Vector operator*(const Vector& a, const Vector& b) {
    return vmulq_f32(a.value, b.value);
}
inline Vector operator/(const Vector& a, const Vector& b) {
    return vdivq_f32(a.value, b.value);
}
inline Vector fma(const Vector& a, const Vector& b, const Vector& c) {
    return vfmaq_f32(c.value, a.value, b.value);
}
inline Vector min(const Vector& a, const Vector& b) {
    return vminq_f32(a.value, b.value);
}
inline Vector max(const Vector& a, const Vector& b) {
    return vmaxq_f32(a.value, b.value);
}
inline Vector round(const Vector& a) {
    return vrndnq_f32(a.value);
}
/// a · 2^power, for powers of -252 to 254: in two steps, so that what is too small becomes subnormal, then zero.
inline Vector scale_by_power(const Vector& a, const Vector& power) {
    const int32x4_t whole = vcvtnq_s32_f32(power.value), half = vshrq_n_s32(whole, 1), bias = vdupq_n_s32(127);
    const float32x4_t first = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
    const float32x4_t second = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23));
    return vmulq_f32(vmulq_f32(a.value, first), second);
}

// Kernels over a vector type. This text stands once in the target region of every instruction set, because the target of
// a template is fixed where it is defined. A vector type V has lanes, tile_rows, load and store (whole and of the first
// `count` lanes), arithmetic operators, fma, min and max (both give a NaN if the second operand is one), round,
// and scale_by_power; for reduced precision also difference_of_products, store_narrow, store_narrow_pairs
// and store_bytes.

// Σ and max over lanes in a fixed order, so that every caller gets the same bits.
template <class V>
typename V::element sum(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    for (std::size_t half = V::lanes / 2; half > 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) lane[i] += lane[i + half];
    }
    return lane[0];
}
template <class V>
typename V::element largest(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    typename V::element most = lane[0];
    for (std::size_t i = 1; i < V::lanes; ++i) most = lane[i] > most ? lane[i] : most;
    return most;
}

/// The register tile of a dot product: Dot says how one broadcast group of the left operand meets one vector of groups of
/// the right one.
template <class Dot>
struct TileKernels {
    using A = typename Dot::A;
    using B = typename Dot::B;
    using Sum = typename Dot::Sum;
    using Total = typename Dot::Total;
    static constexpr std::size_t vectors = 2;
    static constexpr std::size_t columns = vectors * Dot::lanes;

    static void multiply(std::size_t rows, std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                         const B* b, Total* out, const void* ahead) {
        table(std::make_index_sequence<Dot::tile_rows>{})[rows - 1](groups, a, a_row, a_group, b, out,
                                                                    static_cast<const char*>(ahead));
    }

    static constexpr TileKernel<A, B, Total> kernel{Dot::tile_rows, columns, Dot::group, multiply};

private:
    using Function = void (*)(std::size_t, const A*, std::size_t, std::size_t, const B*, Total*, const char*);

    template <std::size_t... Rows>
    static const Function* table(std::index_sequence<Rows...>) {
        static constexpr Function functions[]{tile<Rows + 1>...};
        return functions;
    }

    template <std::size_t rows>
    static void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group, const B* b, Total* out,
                     const char* ahead) {
        tile(groups, a, a_row, a_group, b, out, ahead, std::make_index_sequence<rows>{});
    }

    // Index sequences instead of loops keep every sum in a register at -O2. A pointer to every third row lets x86's scaled
    // addressing reach all rows of a with few registers.
    template <std::size_t... Row>
    [[gnu::always_inline]] static inline void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                                                   const B* b, Total* out, const char* ahead,
                                                   std::index_sequence<Row...>) {
        constexpr std::size_t rows = sizeof...(Row);
        Sum left[rows], right[rows];
        ((left[Row] = Dot::zero(), right[Row] = Dot::zero()), ...);
        const A* thirds[(rows + 2) / 3];
        ((thirds[Row / 3] = a + Row / 3 * 3 * a_row), ...);
        for (std::size_t g = 0; g < groups; ++g, b += columns * Dot::group, ahead += fetched_per_group) {
            __builtin_prefetch(ahead, 0, 2);
            const auto b0 = Dot::load(b), b1 = Dot::load(b + Dot::lanes * Dot::group);
            (multiply_add(thirds[Row / 3] + Row % 3 * a_row, b0, b1, left[Row], right[Row]), ...);
            ((Row % 3 == 0 ? void(thirds[Row / 3] += a_group) : void()), ...);
        }
        ((Dot::store(out + Row * columns, left[Row]), Dot::store(out + Row * columns + Dot::lanes, right[Row])), ...);
    }

    template <class Group>
    [[gnu::always_inline]] static inline void multiply_add(const A* a, const Group& b0, const Group& b1, Sum& left,
                                                           Sum& right) {
        const auto repeated = Dot::broadcast(a);
        left = Dot::dot(repeated, b0, left);
        right = Dot::dot(repeated, b1, right);
    }
};

/// Multiply-add of single elements.
template <class V>
struct ElementDot {
    using A = typename V::element;
    using B = A;
    using Sum = V;
    using Total = A;
    static constexpr std::size_t lanes = V::lanes, tile_rows = V::tile_rows, group = 1;

    [[gnu::always_inline]] static inline V zero() { return V(0); }
    [[gnu::always_inline]] static inline V load(const B* from) { return V::load(from); }
    [[gnu::always_inline]] static inline V broadcast(const A* from) { return V(*from); }
    [[gnu::always_inline]] static inline V dot(const V& a, const V& b, const V& sum) { return fma(a, b, sum); }
    [[gnu::always_inline]] static inline void store(Total* to, const V& sum) { sum.store(to); }
};

template <class V>
struct VectorKernels {
    using T = typename V::element;
    static constexpr std::size_t lanes = V::lanes;

    /// A tile of sums in float or double.
    struct Sums {
        const T* data;
        std::size_t stride;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t count) const {
            return load(data + i * stride + j, count);
        }
    };

    static void finish_tile(const T* product, std::size_t product_stride, std::size_t rows, std::size_t columns, T* c,
                            std::size_t c_stride, bool accumulate, const Finish<T>& finish) {
        finish_product(Sums{product, product_stride}, rows, columns, c, c_stride, accumulate, finish);
    }

    template <class Product>
    [[gnu::always_inline]] static inline void finish_product(const Product& product, std::size_t rows, std::size_t columns,
                                                             T* c, std::size_t c_stride, bool accumulate,
                                                             const Finish<T>& finish) {
        for (std::size_t i = 0; i < rows; ++i) {
            T* const to = c + i * c_stride;
            for (std::size_t j = 0; j < columns; j += lanes) {
                const std::size_t count = columns - j < lanes ? columns - j : lanes;
                V value = product(i, j, count);
                if (accumulate) value = value + load(to + j, count);
                if (finish.bias != nullptr) value = value + load(finish.bias + j, count);
                if (finish.before != nullptr) store(finish.before + i * finish.before_stride + j, value, count);
                value = activated(finish.activation, value);
                if (finish.factor != nullptr) value = value * load(finish.factor + i * finish.factor_stride + j, count);
                if (finish.residual != nullptr) value = value + load(finish.residual + i * finish.residual_stride + j, count);
                store(to + j, value, count);
            }
        }
    }

    static void transpose(const T* from, std::size_t from_stride, std::size_t rows, std::size_t columns, T* to,
                          std::size_t to_stride) {
        std::size_t i = 0;
#if !defined(__CUDACC__)  // nvcc's front end does not know __builtin_shufflevector
        for (; i + lanes <= rows; i += lanes) {
            std::size_t j = 0;
            for (; j + lanes <= columns; j += lanes) {
                transpose_block(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride,
                                std::make_index_sequence<lanes>{});
            }
            for (; j < columns; ++j) {
                for (std::size_t l = 0; l < lanes; ++l) to[j * to_stride + i + l] = from[(i + l) * from_stride + j];
            }
        }
#endif
        for (; i < rows; ++i) {
            for (std::size_t j = 0; j < columns; ++j) to[j * to_stride + i] = from[i * from_stride + j];
        }
    }

    static void activate(Activation activation, const T* x, T* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(y + j, activated(activation, load(x + j, count)), count);
        }
    }

    static void activate_backward(Activation activation, const T* x, T* g, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(g + j, load(g + j, count) * derivative(activation, load(x + j, count)), count);
        }
    }

    static void layer_norm(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                           std::size_t width, T eps) {
        const std::size_t whole = width / lanes * lanes;
        for (std::size_t i = 0; i < rows; ++i, x += width, y += width) {
            const T mu = mean == nullptr ? T{0} : row_sum(x, width) / static_cast<T>(width);
            V squares(0);
            for (std::size_t j = 0; j < whole; j += lanes) {
                const V centred = V::load(x + j) - V(mu);
                squares = fma(centred, centred, squares);
            }
            T rest{0};
            for (std::size_t j = whole; j < width; ++j) rest += (x[j] - mu) * (x[j] - mu);
            const T variance = (sum(squares) + rest) / static_cast<T>(width);
            const T scale = T{1} / std::sqrt(variance + eps);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V shift = bias == nullptr ? V(0) : load(bias + j, count);
                store(y + j, fma((load(x + j, count) - V(mu)) * V(scale), load(gain + j, count), shift), count);
            }
            if (mean != nullptr) mean[i] = mu;
            inverse[i] = scale;
        }
    }

    static void layer_norm_backward(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                    std::size_t rows, std::size_t width, bool accumulate) {
        for (std::size_t i = 0; i < rows; ++i, x += width, dy += width, dx += width) {
            const V mu(mean == nullptr ? T{0} : mean[i]), scale(inverse[i]);
            V sums(0), products(0);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V g = load(dy + j, count) * load(gain + j, count);  // zero behind the row's end
                sums = sums + g;
                products = fma(g, (load(x + j, count) - mu) * scale, products);
            }
            const V total(mean == nullptr ? T{0} : sum(sums) / static_cast<T>(width)), product(sum(products) / static_cast<T>(width));
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V normed = (load(x + j, count) - mu) * scale;
                const V value = scale * (load(dy + j, count) * load(gain + j, count) - total - normed * product);
                store(dx + j, accumulate ? load(dx + j, count) + value : value, count);
            }
        }
    }

    static void layer_norm_parameters_backward(const T* dy, const T* x, const T* mean, const T* inverse, T* dgain,
                                               T* dbias, std::size_t rows, std::size_t width, std::size_t first,
                                               std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V gain_sum = load(dgain + j, count), bias_sum = dbias == nullptr ? V(0) : load(dbias + j, count);
            for (std::size_t i = 0; i < rows; ++i) {
                const V g = load(dy + i * width + j, count), mu(mean == nullptr ? T{0} : mean[i]);
                gain_sum = fma(g, (load(x + i * width + j, count) - mu) * V(inverse[i]), gain_sum);
                bias_sum = bias_sum + g;
            }
            store(dgain + j, gain_sum, count);
            if (dbias != nullptr) store(dbias + j, bias_sum, count);
        }
    }

    static void column_sums(const T* x, T* sums, std::size_t rows, std::size_t width, std::size_t first,
                            std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V total = load(sums + j, count);
            for (std::size_t i = 0; i < rows; ++i) total = total + load(x + i * width + j, count);
            store(sums + j, total, count);
        }
    }

    static void softmax(T* x, std::size_t count, T scale) {
        const std::size_t whole = count / lanes * lanes;
        T peak = scale * x[0];
        if (whole > 0) {
            V peaks = V(scale) * V::load(x);
            for (std::size_t j = lanes; j < whole; j += lanes) peaks = max(peaks, V(scale) * V::load(x + j));
            peak = largest(peaks);
        }
        for (std::size_t j = whole; j < count; ++j) peak = scale * x[j] > peak ? scale * x[j] : peak;
        V sums(0);
        for (std::size_t j = 0; j < whole; j += lanes) {
            const V value = exp(fma(V(scale), V::load(x + j), V(-peak)));
            value.store(x + j);
            sums = sums + value;
        }
        T total = sum(sums);
        if (const std::size_t rest = count - whole; rest > 0) {
            store(x + whole, exp(fma(V(scale), load(x + whole, rest), V(-peak))), rest);
            for (std::size_t j = whole; j < count; ++j) total += x[j];
        }
        const V normaliser(T{1} / total);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(x + j, load(x + j, here) * normaliser, here);
        }
    }

    static void softmax_backward(const T* y, T* dx, std::size_t count, T scale) {
        V products(0);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            products = fma(load(dx + j, here), load(y + j, here), products);
        }
        const V dot(sum(products));
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(dx + j, V(scale) * load(y + j, here) * (load(dx + j, here) - dot), here);
        }
    }

    static constexpr KernelSet<T> set(const char* name) {
        return {.name = name,
                .tile = TileKernels<ElementDot<V>>::kernel,
                .finish_tile = finish_tile,
                .transpose = transpose,
                .activate = activate,
                .layer_norm = layer_norm,
                .softmax = softmax};
    }

    static constexpr GradientKernels<T> gradients{.activate_backward = activate_backward,
                                                  .layer_norm_backward = layer_norm_backward,
                                                  .layer_norm_parameters_backward = layer_norm_parameters_backward,
                                                  .column_sums = column_sums,
                                                  .softmax_backward = softmax_backward};

private:
#if !defined(__CUDACC__)
    /// Interleaving row k with row k + lanes / 2, for every k, log2(lanes) times over, transposes a square.
    template <std::size_t... Lane>
    [[gnu::always_inline]] static inline void transpose_block(const T* from, std::size_t from_stride, T* to,
                                                              std::size_t to_stride, std::index_sequence<Lane...>) {
        constexpr std::size_t half = lanes / 2;
        typedef T Row __attribute__((vector_size(lanes * sizeof(T))));
        Row rows[lanes], next[lanes];
        (std::memcpy(&rows[Lane], from + Lane * from_stride, sizeof(Row)), ...);
        for (std::size_t stage = 1; stage < lanes; stage *= 2) {
            ((next[Lane] = Lane % 2 == 0
                               ? __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (Lane / 2 + Lane % 2 * lanes)...)
                               : __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (half + Lane / 2 + Lane % 2 * lanes)...)),
             ...);
            ((rows[Lane] = next[Lane]), ...);
        }
        (std::memcpy(to + Lane * to_stride, &rows[Lane], sizeof(Row)), ...);
    }
#endif

    [[gnu::always_inline]] static inline V load(const T* from, std::size_t count) {
        return count == lanes ? V::load(from) : V::load(from, count);
    }
    [[gnu::always_inline]] static inline void store(T* to, const V& value, std::size_t count) {
        if (count == lanes) {
            value.store(to);
        } else {
            value.store(to, count);
        }
    }

    static T row_sum(const T* x, std::size_t width) {
        V sums(0);
        for (std::size_t j = 0; j < width; j += lanes) sums = sums + load(x + j, width - j < lanes ? width - j : lanes);
        return sum(sums);
    }

    /// e^x. Floats by reduction to |r| <= ln(2) / 2 and the Taylor polynomial of degree 7, below 2 units in the last place;
    static V exp(const V& x) {
        if constexpr (requires { V::exp(x); }) {
            return V::exp(x);
        } else {
            const V held = min(V(88.02f), max(V(-110.0f), x));
            const V power = round(held * V(1.44269504f));
            V r = fma(power, V(-0.693359375f), held);  // ln 2 in two parts
            r = fma(power, V(2.12194440e-4f), r);
            V p = V(1.0f / 5040);
            p = fma(p, r, V(1.0f / 720));
            p = fma(p, r, V(1.0f / 120));
            p = fma(p, r, V(1.0f / 24));
            p = fma(p, r, V(1.0f / 6));
            p = fma(p, r, V(0.5f));
            p = fma(p, r * r, r);
            return scale_by_power(p + V(1), power);
        }
    }

    /// erf(x). Floats by a rational function fitted to erf on [0, 3.95], beyond which erf is 1 to 2.4e-8.
    static V erf(const V& x) {
        if constexpr (requires { V::erf(x); }) {
            return V::erf(x);
        } else {
            const V z = min(V(3.95f), max(V(-3.95f), x)), s = z * z;
            V p = V(2.0259840312e-06f);
            p = fma(p, s, V(0.00028468173696f));
            p = fma(p, s, V(0.0038078341167f));
            p = fma(p, s, V(0.052874431014f));
            p = fma(p, s, V(0.19154247642f));
            p = fma(p, s, V(1.1283791065f));
            V q = V(3.7832280213e-05f);
            q = fma(q, s, V(0.0011706490769f));
            q = fma(q, s, V(0.015054429881f));
            q = fma(q, s, V(0.11455640197f));
            q = fma(q, s, V(0.50308275223f));
            q = fma(q, s, V(1));
            return z * p / q;
        }
    }

    static V sigmoid(const V& x) { return V(1) / (V(1) + exp(V(0) - x)); }

    // Every activation here is x times a gate: Φ(x), σ(1.702 x), σ(x), max(0, x), and σ(2u) with u = sqrt(2/π)(x + 0.044715 x³).
    static constexpr T root_half = static_cast<T>(0.70710678118654752440);
    static constexpr T twice_root = static_cast<T>(1.59576912160573071176);  // 2 sqrt(2/π)
    static constexpr T cubic = static_cast<T>(0.044715), quick = static_cast<T>(1.702);

    static T steepness(Activation activation) { return activation == Activation::silu ? T{1} : quick; }
    static V normal_distribution(const V& x) { return V(static_cast<T>(0.5)) * (V(1) + erf(x * V(root_half))); }
    static V tanh_gate(const V& x) { return sigmoid(V(twice_root) * fma(V(cubic) * x * x, x, x)); }

    [[gnu::always_inline]] static inline V activated(Activation activation, const V& x) {
        switch (activation) {
            case Activation::gelu: return x * normal_distribution(x);
            case Activation::quick_gelu:
            case Activation::silu: return x * sigmoid(V(steepness(activation)) * x);
            case Activation::tanh_gelu: return x * tanh_gate(x);
            case Activation::squared_relu: return x * max(V(0), x);
            case Activation::none: break;
        }
        return x;
    }

    static V derivative(Activation activation, const V& x) {
        const V one(1);
        switch (activation) {
            case Activation::gelu: {
                const V density = V(static_cast<T>(0.39894228040143267794)) * exp(V(static_cast<T>(-0.5)) * x * x);
                return fma(x, density, normal_distribution(x));
            }
            case Activation::quick_gelu:
            case Activation::silu: {
                const V steep = V(steepness(activation)) * x, gate = sigmoid(steep);
                return gate * fma(steep, one - gate, one);
            }
            case Activation::tanh_gelu: {
                const V gate = tanh_gate(x);
                const V slope = V(twice_root) * fma(V(3 * cubic) * x, x, one);
                return gate * fma(x * slope, one - gate, one);
            }
            case Activation::squared_relu: return V(2) * max(V(0), x);
            case Activation::none: break;
        }
        return one;
    }
};

/// The conversions that reduced precision needs.
template <class V>
struct Conversions {
    static void narrow(const float* x, bfloat16* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::load(x + j, count).store_narrow(y + j, count);
        }
    }

    static void narrow_pairs(const float* first, const float* second, bfloat16* to, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::store_narrow_pairs(V::load(first + j, count), V::load(second + j, count), to + 2 * j, count);
        }
    }

    static void quantise(const float* x, std::uint8_t* y, std::size_t size, float& scale, std::int32_t& zero) {
        // Zero is always among the values, so that it is exact, and a row of zeros has a scale.
        V low(0), high(0);
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const V value = V::load(x + j, size - j < V::lanes ? size - j : V::lanes);  // zeros behind the end
            low = min(low, value);
            high = max(high, value);
        }
        const float least = -largest(V(0) - low), range = largest(high) - least;
        scale = range > 0 ? range / 255 : 1;
        const V inverse(1 / scale), shift = round(V(-least) * inverse);
        zero = static_cast<std::int32_t>(std::lrint(-least * (1 / scale)));
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            const V bytes = min(V(255), max(V(0), round(V::load(x + j, count) * inverse) + shift));
            bytes.store_bytes(y + j, count);
        }
    }

    /// Whole vectors: a tile and what belongs to its columns run on to the tile's end.
    struct Bytes {
        const ByteProduct& product;
        std::size_t columns;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t) const {
            const V exact = V::difference_of_products(product.sums + i * columns + j, product.row_zero[i],
                                                      product.column_sum + j);
            return exact * V(product.row_scale[i]) * V::load(product.column_scale + j);
        }
    };

    static void finish_bytes(const ByteProduct& product, std::size_t tile_columns, std::size_t rows, std::size_t columns,
                             float* c, std::size_t c_stride, bool accumulate, const Finish<float>& finish) {
        VectorKernels<V>::finish_product(Bytes{product, tile_columns}, rows, columns, c, c_stride, accumulate, finish);
    }
};

inline constexpr KernelSet<float> kernel_set = VectorKernels<Vector>::set("neon");

/// A float is a bfloat16 with sixteen zero bits behind it.
struct WidenedDot {
    using A = float;
    using B = bfloat16;
    using Sum = float32x4_t;
    using Total = float;
    static constexpr std::size_t lanes = 4, tile_rows = 8, group = 2;
    struct Pair {
        float32x4_t even, odd;
    };

    static Sum zero() { return vdupq_n_f32(0); }
    static Pair load(const B* from) {
        const uint32x4_t pairs = vreinterpretq_u32_u8(vld1q_u8(reinterpret_cast<const std::uint8_t*>(from)));
        return {vreinterpretq_f32_u32(vshlq_n_u32(pairs, 16)),
                vreinterpretq_f32_u32(vandq_u32(pairs, vdupq_n_u32(0xffff0000u)))};
    }
    static Pair broadcast(const A* from) { return {vdupq_n_f32(from[0]), vdupq_n_f32(from[1])}; }
    static Sum dot(const Pair& a, const Pair& b, const Sum& sum) {
        return vfmaq_f32(vfmaq_f32(sum, a.even, b.even), a.odd, b.odd);
    }
    static void store(Total* to, const Sum& sum) { vst1q_f32(to, sum); }
};

/// The tile of a dot product of signed bytes, made one for an unsigned left operand: 128 is taken from the left bytes,
/// and 128 times the sums of the right operand's columns added to the result. All of it is exact.
template <class Tile>
struct OffsetTile {
    static_assert(Tile::columns == 8);

    static void multiply(std::size_t rows, std::size_t groups, const std::uint8_t* a, std::size_t a_row,
                         std::size_t a_group, const std::int8_t* b, std::int32_t* out, const void* ahead) {
        Tile::multiply(rows, groups, a, a_row, a_group, b, out, ahead);
        int32x4_t left = vdupq_n_s32(0), right = left;
        for (std::size_t g = 0; g < groups; ++g, b += 32) {
            left = vpadalq_s16(left, vpaddlq_s8(vld1q_s8(b)));
            right = vpadalq_s16(right, vpaddlq_s8(vld1q_s8(b + 16)));
        }
        for (std::size_t i = 0; i < rows; ++i, out += 8) {
            vst1q_s32(out, vaddq_s32(vld1q_s32(out), vshlq_n_s32(left, 7)));
            vst1q_s32(out + 4, vaddq_s32(vld1q_s32(out + 4), vshlq_n_s32(right, 7)));
        }
    }

    static constexpr TileKernel<std::uint8_t, std::int8_t, std::int32_t> kernel{Tile::kernel.rows, Tile::columns,
                                                                                Tile::kernel.group, multiply};
};

/// Signed bytes as 16-bit products: the sum of two fits as well, the right bytes being within ±127.
struct WideningBytes {
    using A = std::uint8_t;
    using B = std::int8_t;
    using Sum = int32x4_t;
    using Total = std::int32_t;
    static constexpr std::size_t lanes = 4, tile_rows = 8, group = 4;

    static Sum zero() { return vdupq_n_s32(0); }
    static int8x16_t load(const B* from) { return vld1q_s8(from); }
    static int8x16_t broadcast(const A* from) {
        std::uint32_t bytes;
        std::memcpy(&bytes, from, sizeof bytes);
        return vreinterpretq_s8_u32(vdupq_n_u32(bytes ^ 0x80808080u));
    }
    static Sum dot(const int8x16_t& a, const int8x16_t& b, const Sum& sum) {
        const int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
        return vpadalq_s16(sum, vpaddq_s16(low, high));
    }
    static void store(Total* to, const Sum& sum) { vst1q_s32(to, sum); }
};

inline constexpr ReducedKernels reduced_kernels{.pairs = {.rows = 0, .columns = 8, .group = 2, .multiply = nullptr},
                                                .widened = TileKernels<WidenedDot>::kernel,
                                                .narrow = Conversions<Vector>::narrow,
                                                .narrow_pairs = Conversions<Vector>::narrow_pairs,
                                                .bytes = OffsetTile<TileKernels<WideningBytes>>::kernel,
                                                .quantise = Conversions<Vector>::quantise,
                                                .finish_bytes = Conversions<Vector>::finish_bytes};

}  // namespace tandem::inline TANDEM_ABI::kernels::neon

// The dot products below take their left operand by element: four bytes in the low lane of a register. g++ knows them
// from Armv8.2 on, which a build for Armv9 already is; naming the architecture would lower that.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("bf16"))), apply_to = function)
#else
#pragma GCC push_options
#if __ARM_ARCH > 8
#pragma GCC target("+bf16")
#else
#pragma GCC target("arch=armv8.2-a+bf16")
#endif
#endif

namespace tandem::inline TANDEM_ABI::kernels::neonbf16 {

// Kernels over a vector type. This text stands once in the target region of every instruction set, because the target of
// a template is fixed where it is defined. A vector type V has lanes, tile_rows, load and store (whole and of the first
// `count` lanes), arithmetic operators, fma, min and max (both give a NaN if the second operand is one), round,
// and scale_by_power; for reduced precision also difference_of_products, store_narrow, store_narrow_pairs
// and store_bytes.

// Σ and max over lanes in a fixed order, so that every caller gets the same bits.
template <class V>
typename V::element sum(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    for (std::size_t half = V::lanes / 2; half > 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) lane[i] += lane[i + half];
    }
    return lane[0];
}
template <class V>
typename V::element largest(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    typename V::element most = lane[0];
    for (std::size_t i = 1; i < V::lanes; ++i) most = lane[i] > most ? lane[i] : most;
    return most;
}

/// The register tile of a dot product: Dot says how one broadcast group of the left operand meets one vector of groups of
/// the right one.
template <class Dot>
struct TileKernels {
    using A = typename Dot::A;
    using B = typename Dot::B;
    using Sum = typename Dot::Sum;
    using Total = typename Dot::Total;
    static constexpr std::size_t vectors = 2;
    static constexpr std::size_t columns = vectors * Dot::lanes;

    static void multiply(std::size_t rows, std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                         const B* b, Total* out, const void* ahead) {
        table(std::make_index_sequence<Dot::tile_rows>{})[rows - 1](groups, a, a_row, a_group, b, out,
                                                                    static_cast<const char*>(ahead));
    }

    static constexpr TileKernel<A, B, Total> kernel{Dot::tile_rows, columns, Dot::group, multiply};

private:
    using Function = void (*)(std::size_t, const A*, std::size_t, std::size_t, const B*, Total*, const char*);

    template <std::size_t... Rows>
    static const Function* table(std::index_sequence<Rows...>) {
        static constexpr Function functions[]{tile<Rows + 1>...};
        return functions;
    }

    template <std::size_t rows>
    static void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group, const B* b, Total* out,
                     const char* ahead) {
        tile(groups, a, a_row, a_group, b, out, ahead, std::make_index_sequence<rows>{});
    }

    // Index sequences instead of loops keep every sum in a register at -O2. A pointer to every third row lets x86's scaled
    // addressing reach all rows of a with few registers.
    template <std::size_t... Row>
    [[gnu::always_inline]] static inline void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                                                   const B* b, Total* out, const char* ahead,
                                                   std::index_sequence<Row...>) {
        constexpr std::size_t rows = sizeof...(Row);
        Sum left[rows], right[rows];
        ((left[Row] = Dot::zero(), right[Row] = Dot::zero()), ...);
        const A* thirds[(rows + 2) / 3];
        ((thirds[Row / 3] = a + Row / 3 * 3 * a_row), ...);
        for (std::size_t g = 0; g < groups; ++g, b += columns * Dot::group, ahead += fetched_per_group) {
            __builtin_prefetch(ahead, 0, 2);
            const auto b0 = Dot::load(b), b1 = Dot::load(b + Dot::lanes * Dot::group);
            (multiply_add(thirds[Row / 3] + Row % 3 * a_row, b0, b1, left[Row], right[Row]), ...);
            ((Row % 3 == 0 ? void(thirds[Row / 3] += a_group) : void()), ...);
        }
        ((Dot::store(out + Row * columns, left[Row]), Dot::store(out + Row * columns + Dot::lanes, right[Row])), ...);
    }

    template <class Group>
    [[gnu::always_inline]] static inline void multiply_add(const A* a, const Group& b0, const Group& b1, Sum& left,
                                                           Sum& right) {
        const auto repeated = Dot::broadcast(a);
        left = Dot::dot(repeated, b0, left);
        right = Dot::dot(repeated, b1, right);
    }
};

/// Multiply-add of single elements.
template <class V>
struct ElementDot {
    using A = typename V::element;
    using B = A;
    using Sum = V;
    using Total = A;
    static constexpr std::size_t lanes = V::lanes, tile_rows = V::tile_rows, group = 1;

    [[gnu::always_inline]] static inline V zero() { return V(0); }
    [[gnu::always_inline]] static inline V load(const B* from) { return V::load(from); }
    [[gnu::always_inline]] static inline V broadcast(const A* from) { return V(*from); }
    [[gnu::always_inline]] static inline V dot(const V& a, const V& b, const V& sum) { return fma(a, b, sum); }
    [[gnu::always_inline]] static inline void store(Total* to, const V& sum) { sum.store(to); }
};

template <class V>
struct VectorKernels {
    using T = typename V::element;
    static constexpr std::size_t lanes = V::lanes;

    /// A tile of sums in float or double.
    struct Sums {
        const T* data;
        std::size_t stride;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t count) const {
            return load(data + i * stride + j, count);
        }
    };

    static void finish_tile(const T* product, std::size_t product_stride, std::size_t rows, std::size_t columns, T* c,
                            std::size_t c_stride, bool accumulate, const Finish<T>& finish) {
        finish_product(Sums{product, product_stride}, rows, columns, c, c_stride, accumulate, finish);
    }

    template <class Product>
    [[gnu::always_inline]] static inline void finish_product(const Product& product, std::size_t rows, std::size_t columns,
                                                             T* c, std::size_t c_stride, bool accumulate,
                                                             const Finish<T>& finish) {
        for (std::size_t i = 0; i < rows; ++i) {
            T* const to = c + i * c_stride;
            for (std::size_t j = 0; j < columns; j += lanes) {
                const std::size_t count = columns - j < lanes ? columns - j : lanes;
                V value = product(i, j, count);
                if (accumulate) value = value + load(to + j, count);
                if (finish.bias != nullptr) value = value + load(finish.bias + j, count);
                if (finish.before != nullptr) store(finish.before + i * finish.before_stride + j, value, count);
                value = activated(finish.activation, value);
                if (finish.factor != nullptr) value = value * load(finish.factor + i * finish.factor_stride + j, count);
                if (finish.residual != nullptr) value = value + load(finish.residual + i * finish.residual_stride + j, count);
                store(to + j, value, count);
            }
        }
    }

    static void transpose(const T* from, std::size_t from_stride, std::size_t rows, std::size_t columns, T* to,
                          std::size_t to_stride) {
        std::size_t i = 0;
#if !defined(__CUDACC__)  // nvcc's front end does not know __builtin_shufflevector
        for (; i + lanes <= rows; i += lanes) {
            std::size_t j = 0;
            for (; j + lanes <= columns; j += lanes) {
                transpose_block(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride,
                                std::make_index_sequence<lanes>{});
            }
            for (; j < columns; ++j) {
                for (std::size_t l = 0; l < lanes; ++l) to[j * to_stride + i + l] = from[(i + l) * from_stride + j];
            }
        }
#endif
        for (; i < rows; ++i) {
            for (std::size_t j = 0; j < columns; ++j) to[j * to_stride + i] = from[i * from_stride + j];
        }
    }

    static void activate(Activation activation, const T* x, T* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(y + j, activated(activation, load(x + j, count)), count);
        }
    }

    static void activate_backward(Activation activation, const T* x, T* g, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(g + j, load(g + j, count) * derivative(activation, load(x + j, count)), count);
        }
    }

    static void layer_norm(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                           std::size_t width, T eps) {
        const std::size_t whole = width / lanes * lanes;
        for (std::size_t i = 0; i < rows; ++i, x += width, y += width) {
            const T mu = mean == nullptr ? T{0} : row_sum(x, width) / static_cast<T>(width);
            V squares(0);
            for (std::size_t j = 0; j < whole; j += lanes) {
                const V centred = V::load(x + j) - V(mu);
                squares = fma(centred, centred, squares);
            }
            T rest{0};
            for (std::size_t j = whole; j < width; ++j) rest += (x[j] - mu) * (x[j] - mu);
            const T variance = (sum(squares) + rest) / static_cast<T>(width);
            const T scale = T{1} / std::sqrt(variance + eps);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V shift = bias == nullptr ? V(0) : load(bias + j, count);
                store(y + j, fma((load(x + j, count) - V(mu)) * V(scale), load(gain + j, count), shift), count);
            }
            if (mean != nullptr) mean[i] = mu;
            inverse[i] = scale;
        }
    }

    static void layer_norm_backward(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                    std::size_t rows, std::size_t width, bool accumulate) {
        for (std::size_t i = 0; i < rows; ++i, x += width, dy += width, dx += width) {
            const V mu(mean == nullptr ? T{0} : mean[i]), scale(inverse[i]);
            V sums(0), products(0);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V g = load(dy + j, count) * load(gain + j, count);  // zero behind the row's end
                sums = sums + g;
                products = fma(g, (load(x + j, count) - mu) * scale, products);
            }
            const V total(mean == nullptr ? T{0} : sum(sums) / static_cast<T>(width)), product(sum(products) / static_cast<T>(width));
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V normed = (load(x + j, count) - mu) * scale;
                const V value = scale * (load(dy + j, count) * load(gain + j, count) - total - normed * product);
                store(dx + j, accumulate ? load(dx + j, count) + value : value, count);
            }
        }
    }

    static void layer_norm_parameters_backward(const T* dy, const T* x, const T* mean, const T* inverse, T* dgain,
                                               T* dbias, std::size_t rows, std::size_t width, std::size_t first,
                                               std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V gain_sum = load(dgain + j, count), bias_sum = dbias == nullptr ? V(0) : load(dbias + j, count);
            for (std::size_t i = 0; i < rows; ++i) {
                const V g = load(dy + i * width + j, count), mu(mean == nullptr ? T{0} : mean[i]);
                gain_sum = fma(g, (load(x + i * width + j, count) - mu) * V(inverse[i]), gain_sum);
                bias_sum = bias_sum + g;
            }
            store(dgain + j, gain_sum, count);
            if (dbias != nullptr) store(dbias + j, bias_sum, count);
        }
    }

    static void column_sums(const T* x, T* sums, std::size_t rows, std::size_t width, std::size_t first,
                            std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V total = load(sums + j, count);
            for (std::size_t i = 0; i < rows; ++i) total = total + load(x + i * width + j, count);
            store(sums + j, total, count);
        }
    }

    static void softmax(T* x, std::size_t count, T scale) {
        const std::size_t whole = count / lanes * lanes;
        T peak = scale * x[0];
        if (whole > 0) {
            V peaks = V(scale) * V::load(x);
            for (std::size_t j = lanes; j < whole; j += lanes) peaks = max(peaks, V(scale) * V::load(x + j));
            peak = largest(peaks);
        }
        for (std::size_t j = whole; j < count; ++j) peak = scale * x[j] > peak ? scale * x[j] : peak;
        V sums(0);
        for (std::size_t j = 0; j < whole; j += lanes) {
            const V value = exp(fma(V(scale), V::load(x + j), V(-peak)));
            value.store(x + j);
            sums = sums + value;
        }
        T total = sum(sums);
        if (const std::size_t rest = count - whole; rest > 0) {
            store(x + whole, exp(fma(V(scale), load(x + whole, rest), V(-peak))), rest);
            for (std::size_t j = whole; j < count; ++j) total += x[j];
        }
        const V normaliser(T{1} / total);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(x + j, load(x + j, here) * normaliser, here);
        }
    }

    static void softmax_backward(const T* y, T* dx, std::size_t count, T scale) {
        V products(0);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            products = fma(load(dx + j, here), load(y + j, here), products);
        }
        const V dot(sum(products));
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(dx + j, V(scale) * load(y + j, here) * (load(dx + j, here) - dot), here);
        }
    }

    static constexpr KernelSet<T> set(const char* name) {
        return {.name = name,
                .tile = TileKernels<ElementDot<V>>::kernel,
                .finish_tile = finish_tile,
                .transpose = transpose,
                .activate = activate,
                .layer_norm = layer_norm,
                .softmax = softmax};
    }

    static constexpr GradientKernels<T> gradients{.activate_backward = activate_backward,
                                                  .layer_norm_backward = layer_norm_backward,
                                                  .layer_norm_parameters_backward = layer_norm_parameters_backward,
                                                  .column_sums = column_sums,
                                                  .softmax_backward = softmax_backward};

private:
#if !defined(__CUDACC__)
    /// Interleaving row k with row k + lanes / 2, for every k, log2(lanes) times over, transposes a square.
    template <std::size_t... Lane>
    [[gnu::always_inline]] static inline void transpose_block(const T* from, std::size_t from_stride, T* to,
                                                              std::size_t to_stride, std::index_sequence<Lane...>) {
        constexpr std::size_t half = lanes / 2;
        typedef T Row __attribute__((vector_size(lanes * sizeof(T))));
        Row rows[lanes], next[lanes];
        (std::memcpy(&rows[Lane], from + Lane * from_stride, sizeof(Row)), ...);
        for (std::size_t stage = 1; stage < lanes; stage *= 2) {
            ((next[Lane] = Lane % 2 == 0
                               ? __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (Lane / 2 + Lane % 2 * lanes)...)
                               : __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (half + Lane / 2 + Lane % 2 * lanes)...)),
             ...);
            ((rows[Lane] = next[Lane]), ...);
        }
        (std::memcpy(to + Lane * to_stride, &rows[Lane], sizeof(Row)), ...);
    }
#endif

    [[gnu::always_inline]] static inline V load(const T* from, std::size_t count) {
        return count == lanes ? V::load(from) : V::load(from, count);
    }
    [[gnu::always_inline]] static inline void store(T* to, const V& value, std::size_t count) {
        if (count == lanes) {
            value.store(to);
        } else {
            value.store(to, count);
        }
    }

    static T row_sum(const T* x, std::size_t width) {
        V sums(0);
        for (std::size_t j = 0; j < width; j += lanes) sums = sums + load(x + j, width - j < lanes ? width - j : lanes);
        return sum(sums);
    }

    /// e^x. Floats by reduction to |r| <= ln(2) / 2 and the Taylor polynomial of degree 7, below 2 units in the last place;
    static V exp(const V& x) {
        if constexpr (requires { V::exp(x); }) {
            return V::exp(x);
        } else {
            const V held = min(V(88.02f), max(V(-110.0f), x));
            const V power = round(held * V(1.44269504f));
            V r = fma(power, V(-0.693359375f), held);  // ln 2 in two parts
            r = fma(power, V(2.12194440e-4f), r);
            V p = V(1.0f / 5040);
            p = fma(p, r, V(1.0f / 720));
            p = fma(p, r, V(1.0f / 120));
            p = fma(p, r, V(1.0f / 24));
            p = fma(p, r, V(1.0f / 6));
            p = fma(p, r, V(0.5f));
            p = fma(p, r * r, r);
            return scale_by_power(p + V(1), power);
        }
    }

    /// erf(x). Floats by a rational function fitted to erf on [0, 3.95], beyond which erf is 1 to 2.4e-8.
    static V erf(const V& x) {
        if constexpr (requires { V::erf(x); }) {
            return V::erf(x);
        } else {
            const V z = min(V(3.95f), max(V(-3.95f), x)), s = z * z;
            V p = V(2.0259840312e-06f);
            p = fma(p, s, V(0.00028468173696f));
            p = fma(p, s, V(0.0038078341167f));
            p = fma(p, s, V(0.052874431014f));
            p = fma(p, s, V(0.19154247642f));
            p = fma(p, s, V(1.1283791065f));
            V q = V(3.7832280213e-05f);
            q = fma(q, s, V(0.0011706490769f));
            q = fma(q, s, V(0.015054429881f));
            q = fma(q, s, V(0.11455640197f));
            q = fma(q, s, V(0.50308275223f));
            q = fma(q, s, V(1));
            return z * p / q;
        }
    }

    static V sigmoid(const V& x) { return V(1) / (V(1) + exp(V(0) - x)); }

    // Every activation here is x times a gate: Φ(x), σ(1.702 x), σ(x), max(0, x), and σ(2u) with u = sqrt(2/π)(x + 0.044715 x³).
    static constexpr T root_half = static_cast<T>(0.70710678118654752440);
    static constexpr T twice_root = static_cast<T>(1.59576912160573071176);  // 2 sqrt(2/π)
    static constexpr T cubic = static_cast<T>(0.044715), quick = static_cast<T>(1.702);

    static T steepness(Activation activation) { return activation == Activation::silu ? T{1} : quick; }
    static V normal_distribution(const V& x) { return V(static_cast<T>(0.5)) * (V(1) + erf(x * V(root_half))); }
    static V tanh_gate(const V& x) { return sigmoid(V(twice_root) * fma(V(cubic) * x * x, x, x)); }

    [[gnu::always_inline]] static inline V activated(Activation activation, const V& x) {
        switch (activation) {
            case Activation::gelu: return x * normal_distribution(x);
            case Activation::quick_gelu:
            case Activation::silu: return x * sigmoid(V(steepness(activation)) * x);
            case Activation::tanh_gelu: return x * tanh_gate(x);
            case Activation::squared_relu: return x * max(V(0), x);
            case Activation::none: break;
        }
        return x;
    }

    static V derivative(Activation activation, const V& x) {
        const V one(1);
        switch (activation) {
            case Activation::gelu: {
                const V density = V(static_cast<T>(0.39894228040143267794)) * exp(V(static_cast<T>(-0.5)) * x * x);
                return fma(x, density, normal_distribution(x));
            }
            case Activation::quick_gelu:
            case Activation::silu: {
                const V steep = V(steepness(activation)) * x, gate = sigmoid(steep);
                return gate * fma(steep, one - gate, one);
            }
            case Activation::tanh_gelu: {
                const V gate = tanh_gate(x);
                const V slope = V(twice_root) * fma(V(3 * cubic) * x, x, one);
                return gate * fma(x * slope, one - gate, one);
            }
            case Activation::squared_relu: return V(2) * max(V(0), x);
            case Activation::none: break;
        }
        return one;
    }
};

/// The conversions that reduced precision needs.
template <class V>
struct Conversions {
    static void narrow(const float* x, bfloat16* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::load(x + j, count).store_narrow(y + j, count);
        }
    }

    static void narrow_pairs(const float* first, const float* second, bfloat16* to, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::store_narrow_pairs(V::load(first + j, count), V::load(second + j, count), to + 2 * j, count);
        }
    }

    static void quantise(const float* x, std::uint8_t* y, std::size_t size, float& scale, std::int32_t& zero) {
        // Zero is always among the values, so that it is exact, and a row of zeros has a scale.
        V low(0), high(0);
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const V value = V::load(x + j, size - j < V::lanes ? size - j : V::lanes);  // zeros behind the end
            low = min(low, value);
            high = max(high, value);
        }
        const float least = -largest(V(0) - low), range = largest(high) - least;
        scale = range > 0 ? range / 255 : 1;
        const V inverse(1 / scale), shift = round(V(-least) * inverse);
        zero = static_cast<std::int32_t>(std::lrint(-least * (1 / scale)));
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            const V bytes = min(V(255), max(V(0), round(V::load(x + j, count) * inverse) + shift));
            bytes.store_bytes(y + j, count);
        }
    }

    /// Whole vectors: a tile and what belongs to its columns run on to the tile's end.
    struct Bytes {
        const ByteProduct& product;
        std::size_t columns;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t) const {
            const V exact = V::difference_of_products(product.sums + i * columns + j, product.row_zero[i],
                                                      product.column_sum + j);
            return exact * V(product.row_scale[i]) * V::load(product.column_scale + j);
        }
    };

    static void finish_bytes(const ByteProduct& product, std::size_t tile_columns, std::size_t rows, std::size_t columns,
                             float* c, std::size_t c_stride, bool accumulate, const Finish<float>& finish) {
        VectorKernels<V>::finish_product(Bytes{product, tile_columns}, rows, columns, c, c_stride, accumulate, finish);
    }
};

/// Pairs of bfloat16, summed in float32; subnormal inputs and results count as zero, and sums round to odd unless the
/// CPU is set to extended behaviour (Arm Architecture Reference Manual, BFDOT).
struct PairDot {
    using A = bfloat16;
    using B = bfloat16;
    using Sum = float32x4_t;
    using Total = float;
    static constexpr std::size_t lanes = 4, tile_rows = 12, group = 2;

    static Sum zero() { return vdupq_n_f32(0); }
    static bfloat16x8_t load(const B* from) {
        return vreinterpretq_bf16_u8(vld1q_u8(reinterpret_cast<const std::uint8_t*>(from)));
    }
    static bfloat16x4_t broadcast(const A* from) {
        float pair;
        std::memcpy(&pair, from, sizeof pair);
        return vreinterpret_bf16_f32(float32x2_t{pair, 0});
    }
    static Sum dot(const bfloat16x4_t& a, const bfloat16x8_t& b, const Sum& sum) {
        return vbfdotq_lane_f32(sum, b, a, 0);
    }
    static void store(Total* to, const Sum& sum) { vst1q_f32(to, sum); }
};

inline constexpr TileKernel<bfloat16, bfloat16, float> pairs = TileKernels<PairDot>::kernel;

}  // namespace tandem::inline TANDEM_ABI::kernels::neonbf16

#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#if __ARM_ARCH > 8
#pragma GCC target("+dotprod")
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#endif

namespace tandem::inline TANDEM_ABI::kernels::neondot {

// Kernels over a vector type. This text stands once in the target region of every instruction set, because the target of
// a template is fixed where it is defined. A vector type V has lanes, tile_rows, load and store (whole and of the first
// `count` lanes), arithmetic operators, fma, min and max (both give a NaN if the second operand is one), round,
// and scale_by_power; for reduced precision also difference_of_products, store_narrow, store_narrow_pairs
// and store_bytes.

// Σ and max over lanes in a fixed order, so that every caller gets the same bits.
template <class V>
typename V::element sum(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    for (std::size_t half = V::lanes / 2; half > 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) lane[i] += lane[i + half];
    }
    return lane[0];
}
template <class V>
typename V::element largest(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    typename V::element most = lane[0];
    for (std::size_t i = 1; i < V::lanes; ++i) most = lane[i] > most ? lane[i] : most;
    return most;
}

/// The register tile of a dot product: Dot says how one broadcast group of the left operand meets one vector of groups of
/// the right one.
template <class Dot>
struct TileKernels {
    using A = typename Dot::A;
    using B = typename Dot::B;
    using Sum = typename Dot::Sum;
    using Total = typename Dot::Total;
    static constexpr std::size_t vectors = 2;
    static constexpr std::size_t columns = vectors * Dot::lanes;

    static void multiply(std::size_t rows, std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                         const B* b, Total* out, const void* ahead) {
        table(std::make_index_sequence<Dot::tile_rows>{})[rows - 1](groups, a, a_row, a_group, b, out,
                                                                    static_cast<const char*>(ahead));
    }

    static constexpr TileKernel<A, B, Total> kernel{Dot::tile_rows, columns, Dot::group, multiply};

private:
    using Function = void (*)(std::size_t, const A*, std::size_t, std::size_t, const B*, Total*, const char*);

    template <std::size_t... Rows>
    static const Function* table(std::index_sequence<Rows...>) {
        static constexpr Function functions[]{tile<Rows + 1>...};
        return functions;
    }

    template <std::size_t rows>
    static void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group, const B* b, Total* out,
                     const char* ahead) {
        tile(groups, a, a_row, a_group, b, out, ahead, std::make_index_sequence<rows>{});
    }

    // Index sequences instead of loops keep every sum in a register at -O2. A pointer to every third row lets x86's scaled
    // addressing reach all rows of a with few registers.
    template <std::size_t... Row>
    [[gnu::always_inline]] static inline void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                                                   const B* b, Total* out, const char* ahead,
                                                   std::index_sequence<Row...>) {
        constexpr std::size_t rows = sizeof...(Row);
        Sum left[rows], right[rows];
        ((left[Row] = Dot::zero(), right[Row] = Dot::zero()), ...);
        const A* thirds[(rows + 2) / 3];
        ((thirds[Row / 3] = a + Row / 3 * 3 * a_row), ...);
        for (std::size_t g = 0; g < groups; ++g, b += columns * Dot::group, ahead += fetched_per_group) {
            __builtin_prefetch(ahead, 0, 2);
            const auto b0 = Dot::load(b), b1 = Dot::load(b + Dot::lanes * Dot::group);
            (multiply_add(thirds[Row / 3] + Row % 3 * a_row, b0, b1, left[Row], right[Row]), ...);
            ((Row % 3 == 0 ? void(thirds[Row / 3] += a_group) : void()), ...);
        }
        ((Dot::store(out + Row * columns, left[Row]), Dot::store(out + Row * columns + Dot::lanes, right[Row])), ...);
    }

    template <class Group>
    [[gnu::always_inline]] static inline void multiply_add(const A* a, const Group& b0, const Group& b1, Sum& left,
                                                           Sum& right) {
        const auto repeated = Dot::broadcast(a);
        left = Dot::dot(repeated, b0, left);
        right = Dot::dot(repeated, b1, right);
    }
};

/// Multiply-add of single elements.
template <class V>
struct ElementDot {
    using A = typename V::element;
    using B = A;
    using Sum = V;
    using Total = A;
    static constexpr std::size_t lanes = V::lanes, tile_rows = V::tile_rows, group = 1;

    [[gnu::always_inline]] static inline V zero() { return V(0); }
    [[gnu::always_inline]] static inline V load(const B* from) { return V::load(from); }
    [[gnu::always_inline]] static inline V broadcast(const A* from) { return V(*from); }
    [[gnu::always_inline]] static inline V dot(const V& a, const V& b, const V& sum) { return fma(a, b, sum); }
    [[gnu::always_inline]] static inline void store(Total* to, const V& sum) { sum.store(to); }
};

template <class V>
struct VectorKernels {
    using T = typename V::element;
    static constexpr std::size_t lanes = V::lanes;

    /// A tile of sums in float or double.
    struct Sums {
        const T* data;
        std::size_t stride;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t count) const {
            return load(data + i * stride + j, count);
        }
    };

    static void finish_tile(const T* product, std::size_t product_stride, std::size_t rows, std::size_t columns, T* c,
                            std::size_t c_stride, bool accumulate, const Finish<T>& finish) {
        finish_product(Sums{product, product_stride}, rows, columns, c, c_stride, accumulate, finish);
    }

    template <class Product>
    [[gnu::always_inline]] static inline void finish_product(const Product& product, std::size_t rows, std::size_t columns,
                                                             T* c, std::size_t c_stride, bool accumulate,
                                                             const Finish<T>& finish) {
        for (std::size_t i = 0; i < rows; ++i) {
            T* const to = c + i * c_stride;
            for (std::size_t j = 0; j < columns; j += lanes) {
                const std::size_t count = columns - j < lanes ? columns - j : lanes;
                V value = product(i, j, count);
                if (accumulate) value = value + load(to + j, count);
                if (finish.bias != nullptr) value = value + load(finish.bias + j, count);
                if (finish.before != nullptr) store(finish.before + i * finish.before_stride + j, value, count);
                value = activated(finish.activation, value);
                if (finish.factor != nullptr) value = value * load(finish.factor + i * finish.factor_stride + j, count);
                if (finish.residual != nullptr) value = value + load(finish.residual + i * finish.residual_stride + j, count);
                store(to + j, value, count);
            }
        }
    }

    static void transpose(const T* from, std::size_t from_stride, std::size_t rows, std::size_t columns, T* to,
                          std::size_t to_stride) {
        std::size_t i = 0;
#if !defined(__CUDACC__)  // nvcc's front end does not know __builtin_shufflevector
        for (; i + lanes <= rows; i += lanes) {
            std::size_t j = 0;
            for (; j + lanes <= columns; j += lanes) {
                transpose_block(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride,
                                std::make_index_sequence<lanes>{});
            }
            for (; j < columns; ++j) {
                for (std::size_t l = 0; l < lanes; ++l) to[j * to_stride + i + l] = from[(i + l) * from_stride + j];
            }
        }
#endif
        for (; i < rows; ++i) {
            for (std::size_t j = 0; j < columns; ++j) to[j * to_stride + i] = from[i * from_stride + j];
        }
    }

    static void activate(Activation activation, const T* x, T* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(y + j, activated(activation, load(x + j, count)), count);
        }
    }

    static void activate_backward(Activation activation, const T* x, T* g, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(g + j, load(g + j, count) * derivative(activation, load(x + j, count)), count);
        }
    }

    static void layer_norm(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                           std::size_t width, T eps) {
        const std::size_t whole = width / lanes * lanes;
        for (std::size_t i = 0; i < rows; ++i, x += width, y += width) {
            const T mu = mean == nullptr ? T{0} : row_sum(x, width) / static_cast<T>(width);
            V squares(0);
            for (std::size_t j = 0; j < whole; j += lanes) {
                const V centred = V::load(x + j) - V(mu);
                squares = fma(centred, centred, squares);
            }
            T rest{0};
            for (std::size_t j = whole; j < width; ++j) rest += (x[j] - mu) * (x[j] - mu);
            const T variance = (sum(squares) + rest) / static_cast<T>(width);
            const T scale = T{1} / std::sqrt(variance + eps);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V shift = bias == nullptr ? V(0) : load(bias + j, count);
                store(y + j, fma((load(x + j, count) - V(mu)) * V(scale), load(gain + j, count), shift), count);
            }
            if (mean != nullptr) mean[i] = mu;
            inverse[i] = scale;
        }
    }

    static void layer_norm_backward(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                    std::size_t rows, std::size_t width, bool accumulate) {
        for (std::size_t i = 0; i < rows; ++i, x += width, dy += width, dx += width) {
            const V mu(mean == nullptr ? T{0} : mean[i]), scale(inverse[i]);
            V sums(0), products(0);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V g = load(dy + j, count) * load(gain + j, count);  // zero behind the row's end
                sums = sums + g;
                products = fma(g, (load(x + j, count) - mu) * scale, products);
            }
            const V total(mean == nullptr ? T{0} : sum(sums) / static_cast<T>(width)), product(sum(products) / static_cast<T>(width));
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V normed = (load(x + j, count) - mu) * scale;
                const V value = scale * (load(dy + j, count) * load(gain + j, count) - total - normed * product);
                store(dx + j, accumulate ? load(dx + j, count) + value : value, count);
            }
        }
    }

    static void layer_norm_parameters_backward(const T* dy, const T* x, const T* mean, const T* inverse, T* dgain,
                                               T* dbias, std::size_t rows, std::size_t width, std::size_t first,
                                               std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V gain_sum = load(dgain + j, count), bias_sum = dbias == nullptr ? V(0) : load(dbias + j, count);
            for (std::size_t i = 0; i < rows; ++i) {
                const V g = load(dy + i * width + j, count), mu(mean == nullptr ? T{0} : mean[i]);
                gain_sum = fma(g, (load(x + i * width + j, count) - mu) * V(inverse[i]), gain_sum);
                bias_sum = bias_sum + g;
            }
            store(dgain + j, gain_sum, count);
            if (dbias != nullptr) store(dbias + j, bias_sum, count);
        }
    }

    static void column_sums(const T* x, T* sums, std::size_t rows, std::size_t width, std::size_t first,
                            std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V total = load(sums + j, count);
            for (std::size_t i = 0; i < rows; ++i) total = total + load(x + i * width + j, count);
            store(sums + j, total, count);
        }
    }

    static void softmax(T* x, std::size_t count, T scale) {
        const std::size_t whole = count / lanes * lanes;
        T peak = scale * x[0];
        if (whole > 0) {
            V peaks = V(scale) * V::load(x);
            for (std::size_t j = lanes; j < whole; j += lanes) peaks = max(peaks, V(scale) * V::load(x + j));
            peak = largest(peaks);
        }
        for (std::size_t j = whole; j < count; ++j) peak = scale * x[j] > peak ? scale * x[j] : peak;
        V sums(0);
        for (std::size_t j = 0; j < whole; j += lanes) {
            const V value = exp(fma(V(scale), V::load(x + j), V(-peak)));
            value.store(x + j);
            sums = sums + value;
        }
        T total = sum(sums);
        if (const std::size_t rest = count - whole; rest > 0) {
            store(x + whole, exp(fma(V(scale), load(x + whole, rest), V(-peak))), rest);
            for (std::size_t j = whole; j < count; ++j) total += x[j];
        }
        const V normaliser(T{1} / total);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(x + j, load(x + j, here) * normaliser, here);
        }
    }

    static void softmax_backward(const T* y, T* dx, std::size_t count, T scale) {
        V products(0);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            products = fma(load(dx + j, here), load(y + j, here), products);
        }
        const V dot(sum(products));
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(dx + j, V(scale) * load(y + j, here) * (load(dx + j, here) - dot), here);
        }
    }

    static constexpr KernelSet<T> set(const char* name) {
        return {.name = name,
                .tile = TileKernels<ElementDot<V>>::kernel,
                .finish_tile = finish_tile,
                .transpose = transpose,
                .activate = activate,
                .layer_norm = layer_norm,
                .softmax = softmax};
    }

    static constexpr GradientKernels<T> gradients{.activate_backward = activate_backward,
                                                  .layer_norm_backward = layer_norm_backward,
                                                  .layer_norm_parameters_backward = layer_norm_parameters_backward,
                                                  .column_sums = column_sums,
                                                  .softmax_backward = softmax_backward};

private:
#if !defined(__CUDACC__)
    /// Interleaving row k with row k + lanes / 2, for every k, log2(lanes) times over, transposes a square.
    template <std::size_t... Lane>
    [[gnu::always_inline]] static inline void transpose_block(const T* from, std::size_t from_stride, T* to,
                                                              std::size_t to_stride, std::index_sequence<Lane...>) {
        constexpr std::size_t half = lanes / 2;
        typedef T Row __attribute__((vector_size(lanes * sizeof(T))));
        Row rows[lanes], next[lanes];
        (std::memcpy(&rows[Lane], from + Lane * from_stride, sizeof(Row)), ...);
        for (std::size_t stage = 1; stage < lanes; stage *= 2) {
            ((next[Lane] = Lane % 2 == 0
                               ? __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (Lane / 2 + Lane % 2 * lanes)...)
                               : __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (half + Lane / 2 + Lane % 2 * lanes)...)),
             ...);
            ((rows[Lane] = next[Lane]), ...);
        }
        (std::memcpy(to + Lane * to_stride, &rows[Lane], sizeof(Row)), ...);
    }
#endif

    [[gnu::always_inline]] static inline V load(const T* from, std::size_t count) {
        return count == lanes ? V::load(from) : V::load(from, count);
    }
    [[gnu::always_inline]] static inline void store(T* to, const V& value, std::size_t count) {
        if (count == lanes) {
            value.store(to);
        } else {
            value.store(to, count);
        }
    }

    static T row_sum(const T* x, std::size_t width) {
        V sums(0);
        for (std::size_t j = 0; j < width; j += lanes) sums = sums + load(x + j, width - j < lanes ? width - j : lanes);
        return sum(sums);
    }

    /// e^x. Floats by reduction to |r| <= ln(2) / 2 and the Taylor polynomial of degree 7, below 2 units in the last place;
    static V exp(const V& x) {
        if constexpr (requires { V::exp(x); }) {
            return V::exp(x);
        } else {
            const V held = min(V(88.02f), max(V(-110.0f), x));
            const V power = round(held * V(1.44269504f));
            V r = fma(power, V(-0.693359375f), held);  // ln 2 in two parts
            r = fma(power, V(2.12194440e-4f), r);
            V p = V(1.0f / 5040);
            p = fma(p, r, V(1.0f / 720));
            p = fma(p, r, V(1.0f / 120));
            p = fma(p, r, V(1.0f / 24));
            p = fma(p, r, V(1.0f / 6));
            p = fma(p, r, V(0.5f));
            p = fma(p, r * r, r);
            return scale_by_power(p + V(1), power);
        }
    }

    /// erf(x). Floats by a rational function fitted to erf on [0, 3.95], beyond which erf is 1 to 2.4e-8.
    static V erf(const V& x) {
        if constexpr (requires { V::erf(x); }) {
            return V::erf(x);
        } else {
            const V z = min(V(3.95f), max(V(-3.95f), x)), s = z * z;
            V p = V(2.0259840312e-06f);
            p = fma(p, s, V(0.00028468173696f));
            p = fma(p, s, V(0.0038078341167f));
            p = fma(p, s, V(0.052874431014f));
            p = fma(p, s, V(0.19154247642f));
            p = fma(p, s, V(1.1283791065f));
            V q = V(3.7832280213e-05f);
            q = fma(q, s, V(0.0011706490769f));
            q = fma(q, s, V(0.015054429881f));
            q = fma(q, s, V(0.11455640197f));
            q = fma(q, s, V(0.50308275223f));
            q = fma(q, s, V(1));
            return z * p / q;
        }
    }

    static V sigmoid(const V& x) { return V(1) / (V(1) + exp(V(0) - x)); }

    // Every activation here is x times a gate: Φ(x), σ(1.702 x), σ(x), max(0, x), and σ(2u) with u = sqrt(2/π)(x + 0.044715 x³).
    static constexpr T root_half = static_cast<T>(0.70710678118654752440);
    static constexpr T twice_root = static_cast<T>(1.59576912160573071176);  // 2 sqrt(2/π)
    static constexpr T cubic = static_cast<T>(0.044715), quick = static_cast<T>(1.702);

    static T steepness(Activation activation) { return activation == Activation::silu ? T{1} : quick; }
    static V normal_distribution(const V& x) { return V(static_cast<T>(0.5)) * (V(1) + erf(x * V(root_half))); }
    static V tanh_gate(const V& x) { return sigmoid(V(twice_root) * fma(V(cubic) * x * x, x, x)); }

    [[gnu::always_inline]] static inline V activated(Activation activation, const V& x) {
        switch (activation) {
            case Activation::gelu: return x * normal_distribution(x);
            case Activation::quick_gelu:
            case Activation::silu: return x * sigmoid(V(steepness(activation)) * x);
            case Activation::tanh_gelu: return x * tanh_gate(x);
            case Activation::squared_relu: return x * max(V(0), x);
            case Activation::none: break;
        }
        return x;
    }

    static V derivative(Activation activation, const V& x) {
        const V one(1);
        switch (activation) {
            case Activation::gelu: {
                const V density = V(static_cast<T>(0.39894228040143267794)) * exp(V(static_cast<T>(-0.5)) * x * x);
                return fma(x, density, normal_distribution(x));
            }
            case Activation::quick_gelu:
            case Activation::silu: {
                const V steep = V(steepness(activation)) * x, gate = sigmoid(steep);
                return gate * fma(steep, one - gate, one);
            }
            case Activation::tanh_gelu: {
                const V gate = tanh_gate(x);
                const V slope = V(twice_root) * fma(V(3 * cubic) * x, x, one);
                return gate * fma(x * slope, one - gate, one);
            }
            case Activation::squared_relu: return V(2) * max(V(0), x);
            case Activation::none: break;
        }
        return one;
    }
};

/// The conversions that reduced precision needs.
template <class V>
struct Conversions {
    static void narrow(const float* x, bfloat16* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::load(x + j, count).store_narrow(y + j, count);
        }
    }

    static void narrow_pairs(const float* first, const float* second, bfloat16* to, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::store_narrow_pairs(V::load(first + j, count), V::load(second + j, count), to + 2 * j, count);
        }
    }

    static void quantise(const float* x, std::uint8_t* y, std::size_t size, float& scale, std::int32_t& zero) {
        // Zero is always among the values, so that it is exact, and a row of zeros has a scale.
        V low(0), high(0);
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const V value = V::load(x + j, size - j < V::lanes ? size - j : V::lanes);  // zeros behind the end
            low = min(low, value);
            high = max(high, value);
        }
        const float least = -largest(V(0) - low), range = largest(high) - least;
        scale = range > 0 ? range / 255 : 1;
        const V inverse(1 / scale), shift = round(V(-least) * inverse);
        zero = static_cast<std::int32_t>(std::lrint(-least * (1 / scale)));
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            const V bytes = min(V(255), max(V(0), round(V::load(x + j, count) * inverse) + shift));
            bytes.store_bytes(y + j, count);
        }
    }

    /// Whole vectors: a tile and what belongs to its columns run on to the tile's end.
    struct Bytes {
        const ByteProduct& product;
        std::size_t columns;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t) const {
            const V exact = V::difference_of_products(product.sums + i * columns + j, product.row_zero[i],
                                                      product.column_sum + j);
            return exact * V(product.row_scale[i]) * V::load(product.column_scale + j);
        }
    };

    static void finish_bytes(const ByteProduct& product, std::size_t tile_columns, std::size_t rows, std::size_t columns,
                             float* c, std::size_t c_stride, bool accumulate, const Finish<float>& finish) {
        VectorKernels<V>::finish_product(Bytes{product, tile_columns}, rows, columns, c, c_stride, accumulate, finish);
    }
};

struct SignedDot {
    using A = std::uint8_t;
    using B = std::int8_t;
    using Sum = int32x4_t;
    using Total = std::int32_t;
    static constexpr std::size_t lanes = 4, tile_rows = 8, group = 4;

    static Sum zero() { return vdupq_n_s32(0); }
    static int8x16_t load(const B* from) { return vld1q_s8(from); }
    static int8x8_t broadcast(const A* from) {
        float bytes;
        std::memcpy(&bytes, from, sizeof bytes);
        return vreinterpret_s8_u8(veor_u8(vreinterpret_u8_f32(float32x2_t{bytes, 0}), vdup_n_u8(128)));
    }
    static Sum dot(const int8x8_t& a, const int8x16_t& b, const Sum& sum) { return vdotq_lane_s32(sum, b, a, 0); }
    static void store(Total* to, const Sum& sum) { vst1q_s32(to, sum); }
};

inline constexpr TileKernel<std::uint8_t, std::int8_t, std::int32_t> bytes =
    neon::OffsetTile<TileKernels<SignedDot>>::kernel;

}  // namespace tandem::inline TANDEM_ABI::kernels::neondot

#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("i8mm"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#if __ARM_ARCH > 8
#pragma GCC target("+i8mm")
#else
#pragma GCC target("arch=armv8.2-a+i8mm")
#endif
#endif

namespace tandem::inline TANDEM_ABI::kernels::neoni8mm {

// Kernels over a vector type. This text stands once in the target region of every instruction set, because the target of
// a template is fixed where it is defined. A vector type V has lanes, tile_rows, load and store (whole and of the first
// `count` lanes), arithmetic operators, fma, min and max (both give a NaN if the second operand is one), round,
// and scale_by_power; for reduced precision also difference_of_products, store_narrow, store_narrow_pairs
// and store_bytes.

// Σ and max over lanes in a fixed order, so that every caller gets the same bits.
template <class V>
typename V::element sum(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    for (std::size_t half = V::lanes / 2; half > 0; half /= 2) {
        for (std::size_t i = 0; i < half; ++i) lane[i] += lane[i + half];
    }
    return lane[0];
}
template <class V>
typename V::element largest(const V& a) {
    alignas(64) typename V::element lane[V::lanes];
    a.store(lane);
    typename V::element most = lane[0];
    for (std::size_t i = 1; i < V::lanes; ++i) most = lane[i] > most ? lane[i] : most;
    return most;
}

/// The register tile of a dot product: Dot says how one broadcast group of the left operand meets one vector of groups of
/// the right one.
template <class Dot>
struct TileKernels {
    using A = typename Dot::A;
    using B = typename Dot::B;
    using Sum = typename Dot::Sum;
    using Total = typename Dot::Total;
    static constexpr std::size_t vectors = 2;
    static constexpr std::size_t columns = vectors * Dot::lanes;

    static void multiply(std::size_t rows, std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                         const B* b, Total* out, const void* ahead) {
        table(std::make_index_sequence<Dot::tile_rows>{})[rows - 1](groups, a, a_row, a_group, b, out,
                                                                    static_cast<const char*>(ahead));
    }

    static constexpr TileKernel<A, B, Total> kernel{Dot::tile_rows, columns, Dot::group, multiply};

private:
    using Function = void (*)(std::size_t, const A*, std::size_t, std::size_t, const B*, Total*, const char*);

    template <std::size_t... Rows>
    static const Function* table(std::index_sequence<Rows...>) {
        static constexpr Function functions[]{tile<Rows + 1>...};
        return functions;
    }

    template <std::size_t rows>
    static void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group, const B* b, Total* out,
                     const char* ahead) {
        tile(groups, a, a_row, a_group, b, out, ahead, std::make_index_sequence<rows>{});
    }

    // Index sequences instead of loops keep every sum in a register at -O2. A pointer to every third row lets x86's scaled
    // addressing reach all rows of a with few registers.
    template <std::size_t... Row>
    [[gnu::always_inline]] static inline void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                                                   const B* b, Total* out, const char* ahead,
                                                   std::index_sequence<Row...>) {
        constexpr std::size_t rows = sizeof...(Row);
        Sum left[rows], right[rows];
        ((left[Row] = Dot::zero(), right[Row] = Dot::zero()), ...);
        const A* thirds[(rows + 2) / 3];
        ((thirds[Row / 3] = a + Row / 3 * 3 * a_row), ...);
        for (std::size_t g = 0; g < groups; ++g, b += columns * Dot::group, ahead += fetched_per_group) {
            __builtin_prefetch(ahead, 0, 2);
            const auto b0 = Dot::load(b), b1 = Dot::load(b + Dot::lanes * Dot::group);
            (multiply_add(thirds[Row / 3] + Row % 3 * a_row, b0, b1, left[Row], right[Row]), ...);
            ((Row % 3 == 0 ? void(thirds[Row / 3] += a_group) : void()), ...);
        }
        ((Dot::store(out + Row * columns, left[Row]), Dot::store(out + Row * columns + Dot::lanes, right[Row])), ...);
    }

    template <class Group>
    [[gnu::always_inline]] static inline void multiply_add(const A* a, const Group& b0, const Group& b1, Sum& left,
                                                           Sum& right) {
        const auto repeated = Dot::broadcast(a);
        left = Dot::dot(repeated, b0, left);
        right = Dot::dot(repeated, b1, right);
    }
};

/// Multiply-add of single elements.
template <class V>
struct ElementDot {
    using A = typename V::element;
    using B = A;
    using Sum = V;
    using Total = A;
    static constexpr std::size_t lanes = V::lanes, tile_rows = V::tile_rows, group = 1;

    [[gnu::always_inline]] static inline V zero() { return V(0); }
    [[gnu::always_inline]] static inline V load(const B* from) { return V::load(from); }
    [[gnu::always_inline]] static inline V broadcast(const A* from) { return V(*from); }
    [[gnu::always_inline]] static inline V dot(const V& a, const V& b, const V& sum) { return fma(a, b, sum); }
    [[gnu::always_inline]] static inline void store(Total* to, const V& sum) { sum.store(to); }
};

template <class V>
struct VectorKernels {
    using T = typename V::element;
    static constexpr std::size_t lanes = V::lanes;

    /// A tile of sums in float or double.
    struct Sums {
        const T* data;
        std::size_t stride;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t count) const {
            return load(data + i * stride + j, count);
        }
    };

    static void finish_tile(const T* product, std::size_t product_stride, std::size_t rows, std::size_t columns, T* c,
                            std::size_t c_stride, bool accumulate, const Finish<T>& finish) {
        finish_product(Sums{product, product_stride}, rows, columns, c, c_stride, accumulate, finish);
    }

    template <class Product>
    [[gnu::always_inline]] static inline void finish_product(const Product& product, std::size_t rows, std::size_t columns,
                                                             T* c, std::size_t c_stride, bool accumulate,
                                                             const Finish<T>& finish) {
        for (std::size_t i = 0; i < rows; ++i) {
            T* const to = c + i * c_stride;
            for (std::size_t j = 0; j < columns; j += lanes) {
                const std::size_t count = columns - j < lanes ? columns - j : lanes;
                V value = product(i, j, count);
                if (accumulate) value = value + load(to + j, count);
                if (finish.bias != nullptr) value = value + load(finish.bias + j, count);
                if (finish.before != nullptr) store(finish.before + i * finish.before_stride + j, value, count);
                value = activated(finish.activation, value);
                if (finish.factor != nullptr) value = value * load(finish.factor + i * finish.factor_stride + j, count);
                if (finish.residual != nullptr) value = value + load(finish.residual + i * finish.residual_stride + j, count);
                store(to + j, value, count);
            }
        }
    }

    static void transpose(const T* from, std::size_t from_stride, std::size_t rows, std::size_t columns, T* to,
                          std::size_t to_stride) {
        std::size_t i = 0;
#if !defined(__CUDACC__)  // nvcc's front end does not know __builtin_shufflevector
        for (; i + lanes <= rows; i += lanes) {
            std::size_t j = 0;
            for (; j + lanes <= columns; j += lanes) {
                transpose_block(from + i * from_stride + j, from_stride, to + j * to_stride + i, to_stride,
                                std::make_index_sequence<lanes>{});
            }
            for (; j < columns; ++j) {
                for (std::size_t l = 0; l < lanes; ++l) to[j * to_stride + i + l] = from[(i + l) * from_stride + j];
            }
        }
#endif
        for (; i < rows; ++i) {
            for (std::size_t j = 0; j < columns; ++j) to[j * to_stride + i] = from[i * from_stride + j];
        }
    }

    static void activate(Activation activation, const T* x, T* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(y + j, activated(activation, load(x + j, count)), count);
        }
    }

    static void activate_backward(Activation activation, const T* x, T* g, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(g + j, load(g + j, count) * derivative(activation, load(x + j, count)), count);
        }
    }

    static void layer_norm(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                           std::size_t width, T eps) {
        const std::size_t whole = width / lanes * lanes;
        for (std::size_t i = 0; i < rows; ++i, x += width, y += width) {
            const T mu = mean == nullptr ? T{0} : row_sum(x, width) / static_cast<T>(width);
            V squares(0);
            for (std::size_t j = 0; j < whole; j += lanes) {
                const V centred = V::load(x + j) - V(mu);
                squares = fma(centred, centred, squares);
            }
            T rest{0};
            for (std::size_t j = whole; j < width; ++j) rest += (x[j] - mu) * (x[j] - mu);
            const T variance = (sum(squares) + rest) / static_cast<T>(width);
            const T scale = T{1} / std::sqrt(variance + eps);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V shift = bias == nullptr ? V(0) : load(bias + j, count);
                store(y + j, fma((load(x + j, count) - V(mu)) * V(scale), load(gain + j, count), shift), count);
            }
            if (mean != nullptr) mean[i] = mu;
            inverse[i] = scale;
        }
    }

    static void layer_norm_backward(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                    std::size_t rows, std::size_t width, bool accumulate) {
        for (std::size_t i = 0; i < rows; ++i, x += width, dy += width, dx += width) {
            const V mu(mean == nullptr ? T{0} : mean[i]), scale(inverse[i]);
            V sums(0), products(0);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V g = load(dy + j, count) * load(gain + j, count);  // zero behind the row's end
                sums = sums + g;
                products = fma(g, (load(x + j, count) - mu) * scale, products);
            }
            const V total(mean == nullptr ? T{0} : sum(sums) / static_cast<T>(width)), product(sum(products) / static_cast<T>(width));
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V normed = (load(x + j, count) - mu) * scale;
                const V value = scale * (load(dy + j, count) * load(gain + j, count) - total - normed * product);
                store(dx + j, accumulate ? load(dx + j, count) + value : value, count);
            }
        }
    }

    static void layer_norm_parameters_backward(const T* dy, const T* x, const T* mean, const T* inverse, T* dgain,
                                               T* dbias, std::size_t rows, std::size_t width, std::size_t first,
                                               std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V gain_sum = load(dgain + j, count), bias_sum = dbias == nullptr ? V(0) : load(dbias + j, count);
            for (std::size_t i = 0; i < rows; ++i) {
                const V g = load(dy + i * width + j, count), mu(mean == nullptr ? T{0} : mean[i]);
                gain_sum = fma(g, (load(x + i * width + j, count) - mu) * V(inverse[i]), gain_sum);
                bias_sum = bias_sum + g;
            }
            store(dgain + j, gain_sum, count);
            if (dbias != nullptr) store(dbias + j, bias_sum, count);
        }
    }

    static void column_sums(const T* x, T* sums, std::size_t rows, std::size_t width, std::size_t first,
                            std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V total = load(sums + j, count);
            for (std::size_t i = 0; i < rows; ++i) total = total + load(x + i * width + j, count);
            store(sums + j, total, count);
        }
    }

    static void softmax(T* x, std::size_t count, T scale) {
        const std::size_t whole = count / lanes * lanes;
        T peak = scale * x[0];
        if (whole > 0) {
            V peaks = V(scale) * V::load(x);
            for (std::size_t j = lanes; j < whole; j += lanes) peaks = max(peaks, V(scale) * V::load(x + j));
            peak = largest(peaks);
        }
        for (std::size_t j = whole; j < count; ++j) peak = scale * x[j] > peak ? scale * x[j] : peak;
        V sums(0);
        for (std::size_t j = 0; j < whole; j += lanes) {
            const V value = exp(fma(V(scale), V::load(x + j), V(-peak)));
            value.store(x + j);
            sums = sums + value;
        }
        T total = sum(sums);
        if (const std::size_t rest = count - whole; rest > 0) {
            store(x + whole, exp(fma(V(scale), load(x + whole, rest), V(-peak))), rest);
            for (std::size_t j = whole; j < count; ++j) total += x[j];
        }
        const V normaliser(T{1} / total);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(x + j, load(x + j, here) * normaliser, here);
        }
    }

    static void softmax_backward(const T* y, T* dx, std::size_t count, T scale) {
        V products(0);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            products = fma(load(dx + j, here), load(y + j, here), products);
        }
        const V dot(sum(products));
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(dx + j, V(scale) * load(y + j, here) * (load(dx + j, here) - dot), here);
        }
    }

    static constexpr KernelSet<T> set(const char* name) {
        return {.name = name,
                .tile = TileKernels<ElementDot<V>>::kernel,
                .finish_tile = finish_tile,
                .transpose = transpose,
                .activate = activate,
                .layer_norm = layer_norm,
                .softmax = softmax};
    }

    static constexpr GradientKernels<T> gradients{.activate_backward = activate_backward,
                                                  .layer_norm_backward = layer_norm_backward,
                                                  .layer_norm_parameters_backward = layer_norm_parameters_backward,
                                                  .column_sums = column_sums,
                                                  .softmax_backward = softmax_backward};

private:
#if !defined(__CUDACC__)
    /// Interleaving row k with row k + lanes / 2, for every k, log2(lanes) times over, transposes a square.
    template <std::size_t... Lane>
    [[gnu::always_inline]] static inline void transpose_block(const T* from, std::size_t from_stride, T* to,
                                                              std::size_t to_stride, std::index_sequence<Lane...>) {
        constexpr std::size_t half = lanes / 2;
        typedef T Row __attribute__((vector_size(lanes * sizeof(T))));
        Row rows[lanes], next[lanes];
        (std::memcpy(&rows[Lane], from + Lane * from_stride, sizeof(Row)), ...);
        for (std::size_t stage = 1; stage < lanes; stage *= 2) {
            ((next[Lane] = Lane % 2 == 0
                               ? __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (Lane / 2 + Lane % 2 * lanes)...)
                               : __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (half + Lane / 2 + Lane % 2 * lanes)...)),
             ...);
            ((rows[Lane] = next[Lane]), ...);
        }
        (std::memcpy(to + Lane * to_stride, &rows[Lane], sizeof(Row)), ...);
    }
#endif

    [[gnu::always_inline]] static inline V load(const T* from, std::size_t count) {
        return count == lanes ? V::load(from) : V::load(from, count);
    }
    [[gnu::always_inline]] static inline void store(T* to, const V& value, std::size_t count) {
        if (count == lanes) {
            value.store(to);
        } else {
            value.store(to, count);
        }
    }

    static T row_sum(const T* x, std::size_t width) {
        V sums(0);
        for (std::size_t j = 0; j < width; j += lanes) sums = sums + load(x + j, width - j < lanes ? width - j : lanes);
        return sum(sums);
    }

    /// e^x. Floats by reduction to |r| <= ln(2) / 2 and the Taylor polynomial of degree 7, below 2 units in the last place;
    static V exp(const V& x) {
        if constexpr (requires { V::exp(x); }) {
            return V::exp(x);
        } else {
            const V held = min(V(88.02f), max(V(-110.0f), x));
            const V power = round(held * V(1.44269504f));
            V r = fma(power, V(-0.693359375f), held);  // ln 2 in two parts
            r = fma(power, V(2.12194440e-4f), r);
            V p = V(1.0f / 5040);
            p = fma(p, r, V(1.0f / 720));
            p = fma(p, r, V(1.0f / 120));
            p = fma(p, r, V(1.0f / 24));
            p = fma(p, r, V(1.0f / 6));
            p = fma(p, r, V(0.5f));
            p = fma(p, r * r, r);
            return scale_by_power(p + V(1), power);
        }
    }

    /// erf(x). Floats by a rational function fitted to erf on [0, 3.95], beyond which erf is 1 to 2.4e-8.
    static V erf(const V& x) {
        if constexpr (requires { V::erf(x); }) {
            return V::erf(x);
        } else {
            const V z = min(V(3.95f), max(V(-3.95f), x)), s = z * z;
            V p = V(2.0259840312e-06f);
            p = fma(p, s, V(0.00028468173696f));
            p = fma(p, s, V(0.0038078341167f));
            p = fma(p, s, V(0.052874431014f));
            p = fma(p, s, V(0.19154247642f));
            p = fma(p, s, V(1.1283791065f));
            V q = V(3.7832280213e-05f);
            q = fma(q, s, V(0.0011706490769f));
            q = fma(q, s, V(0.015054429881f));
            q = fma(q, s, V(0.11455640197f));
            q = fma(q, s, V(0.50308275223f));
            q = fma(q, s, V(1));
            return z * p / q;
        }
    }

    static V sigmoid(const V& x) { return V(1) / (V(1) + exp(V(0) - x)); }

    // Every activation here is x times a gate: Φ(x), σ(1.702 x), σ(x), max(0, x), and σ(2u) with u = sqrt(2/π)(x + 0.044715 x³).
    static constexpr T root_half = static_cast<T>(0.70710678118654752440);
    static constexpr T twice_root = static_cast<T>(1.59576912160573071176);  // 2 sqrt(2/π)
    static constexpr T cubic = static_cast<T>(0.044715), quick = static_cast<T>(1.702);

    static T steepness(Activation activation) { return activation == Activation::silu ? T{1} : quick; }
    static V normal_distribution(const V& x) { return V(static_cast<T>(0.5)) * (V(1) + erf(x * V(root_half))); }
    static V tanh_gate(const V& x) { return sigmoid(V(twice_root) * fma(V(cubic) * x * x, x, x)); }

    [[gnu::always_inline]] static inline V activated(Activation activation, const V& x) {
        switch (activation) {
            case Activation::gelu: return x * normal_distribution(x);
            case Activation::quick_gelu:
            case Activation::silu: return x * sigmoid(V(steepness(activation)) * x);
            case Activation::tanh_gelu: return x * tanh_gate(x);
            case Activation::squared_relu: return x * max(V(0), x);
            case Activation::none: break;
        }
        return x;
    }

    static V derivative(Activation activation, const V& x) {
        const V one(1);
        switch (activation) {
            case Activation::gelu: {
                const V density = V(static_cast<T>(0.39894228040143267794)) * exp(V(static_cast<T>(-0.5)) * x * x);
                return fma(x, density, normal_distribution(x));
            }
            case Activation::quick_gelu:
            case Activation::silu: {
                const V steep = V(steepness(activation)) * x, gate = sigmoid(steep);
                return gate * fma(steep, one - gate, one);
            }
            case Activation::tanh_gelu: {
                const V gate = tanh_gate(x);
                const V slope = V(twice_root) * fma(V(3 * cubic) * x, x, one);
                return gate * fma(x * slope, one - gate, one);
            }
            case Activation::squared_relu: return V(2) * max(V(0), x);
            case Activation::none: break;
        }
        return one;
    }
};

/// The conversions that reduced precision needs.
template <class V>
struct Conversions {
    static void narrow(const float* x, bfloat16* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::load(x + j, count).store_narrow(y + j, count);
        }
    }

    static void narrow_pairs(const float* first, const float* second, bfloat16* to, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::store_narrow_pairs(V::load(first + j, count), V::load(second + j, count), to + 2 * j, count);
        }
    }

    static void quantise(const float* x, std::uint8_t* y, std::size_t size, float& scale, std::int32_t& zero) {
        // Zero is always among the values, so that it is exact, and a row of zeros has a scale.
        V low(0), high(0);
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const V value = V::load(x + j, size - j < V::lanes ? size - j : V::lanes);  // zeros behind the end
            low = min(low, value);
            high = max(high, value);
        }
        const float least = -largest(V(0) - low), range = largest(high) - least;
        scale = range > 0 ? range / 255 : 1;
        const V inverse(1 / scale), shift = round(V(-least) * inverse);
        zero = static_cast<std::int32_t>(std::lrint(-least * (1 / scale)));
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            const V bytes = min(V(255), max(V(0), round(V::load(x + j, count) * inverse) + shift));
            bytes.store_bytes(y + j, count);
        }
    }

    /// Whole vectors: a tile and what belongs to its columns run on to the tile's end.
    struct Bytes {
        const ByteProduct& product;
        std::size_t columns;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t) const {
            const V exact = V::difference_of_products(product.sums + i * columns + j, product.row_zero[i],
                                                      product.column_sum + j);
            return exact * V(product.row_scale[i]) * V::load(product.column_scale + j);
        }
    };

    static void finish_bytes(const ByteProduct& product, std::size_t tile_columns, std::size_t rows, std::size_t columns,
                             float* c, std::size_t c_stride, bool accumulate, const Finish<float>& finish) {
        VectorKernels<V>::finish_product(Bytes{product, tile_columns}, rows, columns, c, c_stride, accumulate, finish);
    }
};

struct MixedDot {
    using A = std::uint8_t;
    using B = std::int8_t;
    using Sum = int32x4_t;
    using Total = std::int32_t;
    static constexpr std::size_t lanes = 4, tile_rows = 12, group = 4;

    static Sum zero() { return vdupq_n_s32(0); }
    static int8x16_t load(const B* from) { return vld1q_s8(from); }
    static uint8x8_t broadcast(const A* from) {
        float bytes;
        std::memcpy(&bytes, from, sizeof bytes);
        return vreinterpret_u8_f32(float32x2_t{bytes, 0});
    }
    static Sum dot(const uint8x8_t& a, const int8x16_t& b, const Sum& sum) { return vsudotq_lane_s32(sum, b, a, 0); }
    static void store(Total* to, const Sum& sum) { vst1q_s32(to, sum); }
};

inline constexpr TileKernel<std::uint8_t, std::int8_t, std::int32_t> bytes = TileKernels<MixedDot>::kernel;

}  // namespace tandem::inline TANDEM_ABI::kernels::neoni8mm

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

// ---- tandem/kernels/scalar.hpp ----

// The kernels as plain loops: the oracle that every other instruction set is tested against.

namespace tandem::inline TANDEM_ABI::kernels {

inline constexpr std::size_t scalar_tile_rows = 4, scalar_tile_columns = 4;

template <class A, class B, class Sum, std::size_t group>
void scalar_product(std::size_t rows, std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                    const B* b, Sum* out, const void*) {
    // Depth outside: were it the inner loop, g++ could fuse multiply and add in one vectorised version of it and not in
    // another, and a row's bits would depend on where its operands stand.
    std::fill_n(out, rows * scalar_tile_columns, Sum{0});
    for (std::size_t k = 0; k < groups * group; ++k) {
        for (std::size_t i = 0; i < rows; ++i) {
            const Sum left = static_cast<Sum>(a[i * a_row + k / group * a_group + k % group]);
            for (std::size_t j = 0; j < scalar_tile_columns; ++j) {
                const B right = b[(k / group * scalar_tile_columns + j) * group + k % group];
                out[i * scalar_tile_columns + j] += left * static_cast<Sum>(right);
            }
        }
    }
}

template <Real T>
struct Scalar {
    static void finish_tile(const T* product, std::size_t product_stride, std::size_t rows, std::size_t columns, T* c,
                            std::size_t c_stride, bool accumulate, const Finish<T>& finish) {
        for (std::size_t i = 0; i < rows; ++i) {
            for (std::size_t j = 0; j < columns; ++j) {
                T value = product[i * product_stride + j];
                if (accumulate) value += c[i * c_stride + j];
                if (finish.bias != nullptr) value += finish.bias[j];
                if (finish.before != nullptr) finish.before[i * finish.before_stride + j] = value;
                value = activated(finish.activation, value);
                if (finish.factor != nullptr) value *= finish.factor[i * finish.factor_stride + j];
                if (finish.residual != nullptr) value += finish.residual[i * finish.residual_stride + j];
                c[i * c_stride + j] = value;
            }
        }
    }

    static void transpose(const T* from, std::size_t from_stride, std::size_t rows, std::size_t columns, T* to,
                          std::size_t to_stride) {
        for (std::size_t i = 0; i < rows; ++i) {
            for (std::size_t j = 0; j < columns; ++j) to[j * to_stride + i] = from[i * from_stride + j];
        }
    }

    static void activate(Activation activation, const T* x, T* y, std::size_t size) {
        for (std::size_t i = 0; i < size; ++i) y[i] = activated(activation, x[i]);
    }

    static void activate_backward(Activation activation, const T* x, T* g, std::size_t size) {
        for (std::size_t i = 0; i < size; ++i) g[i] *= derivative(activation, x[i]);
    }

    static void layer_norm(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                           std::size_t width, T eps) {
        for (std::size_t i = 0; i < rows; ++i, x += width, y += width) {
            T sum{0}, squares{0};
            for (std::size_t j = 0; j < width; ++j) sum += x[j];
            const T mu = mean == nullptr ? T{0} : sum / static_cast<T>(width);
            for (std::size_t j = 0; j < width; ++j) squares += (x[j] - mu) * (x[j] - mu);
            const T scale = T{1} / std::sqrt(squares / static_cast<T>(width) + eps);
            for (std::size_t j = 0; j < width; ++j) {
                y[j] = (x[j] - mu) * scale * gain[j] + (bias == nullptr ? T{0} : bias[j]);
            }
            if (mean != nullptr) mean[i] = mu;
            inverse[i] = scale;
        }
    }

    static void layer_norm_backward(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                    std::size_t rows, std::size_t width, bool accumulate) {
        for (std::size_t i = 0; i < rows; ++i, x += width, dy += width, dx += width) {
            const T mu = mean == nullptr ? T{0} : mean[i];
            T sum{0}, product{0};
            for (std::size_t j = 0; j < width; ++j) {
                sum += dy[j] * gain[j];
                product += dy[j] * gain[j] * (x[j] - mu) * inverse[i];
            }
            sum = mean == nullptr ? T{0} : sum / static_cast<T>(width);
            product /= static_cast<T>(width);
            for (std::size_t j = 0; j < width; ++j) {
                const T normed = (x[j] - mu) * inverse[i];
                const T value = inverse[i] * (dy[j] * gain[j] - sum - normed * product);
                dx[j] = accumulate ? dx[j] + value : value;
            }
        }
    }

    static void layer_norm_parameters_backward(const T* dy, const T* x, const T* mean, const T* inverse, T* dgain,
                                               T* dbias, std::size_t rows, std::size_t width, std::size_t first,
                                               std::size_t last) {
        for (std::size_t j = first; j < last; ++j) {
            for (std::size_t i = 0; i < rows; ++i) {
                const T mu = mean == nullptr ? T{0} : mean[i];
                dgain[j] += dy[i * width + j] * (x[i * width + j] - mu) * inverse[i];
                if (dbias != nullptr) dbias[j] += dy[i * width + j];
            }
        }
    }

    static void column_sums(const T* x, T* sums, std::size_t rows, std::size_t width, std::size_t first,
                            std::size_t last) {
        for (std::size_t j = first; j < last; ++j) {
            for (std::size_t i = 0; i < rows; ++i) sums[j] += x[i * width + j];
        }
    }

    static void softmax(T* x, std::size_t count, T scale) {
        T largest = scale * x[0], sum{0};
        for (std::size_t j = 1; j < count; ++j) largest = std::max(largest, scale * x[j]);
        for (std::size_t j = 0; j < count; ++j) sum += x[j] = std::exp(scale * x[j] - largest);
        for (std::size_t j = 0; j < count; ++j) x[j] /= sum;
    }

    static void softmax_backward(const T* y, T* dx, std::size_t count, T scale) {
        T dot{0};
        for (std::size_t j = 0; j < count; ++j) dot += dx[j] * y[j];
        for (std::size_t j = 0; j < count; ++j) dx[j] = scale * y[j] * (dx[j] - dot);
    }

private:
    static constexpr T pi = std::numbers::pi_v<T>;

    static T normal_distribution(T x) { return T(0.5) * (1 + std::erf(x / std::numbers::sqrt2_v<T>)); }
    static T sigmoid(T x) { return 1 / (1 + std::exp(-x)); }
    static T tanh_gate(T x) { return T(0.5) * (1 + std::tanh(std::sqrt(2 / pi) * (x + T(0.044715) * x * x * x))); }

    static T activated(Activation activation, T x) {
        switch (activation) {
            case Activation::gelu:
                return x * normal_distribution(x);
            case Activation::quick_gelu:
                return x * sigmoid(T(1.702) * x);
            case Activation::tanh_gelu:
                return x * tanh_gate(x);
            case Activation::silu:
                return x * sigmoid(x);
            case Activation::squared_relu:
                return x > 0 ? x * x : T{0} * x;  // keeps a NaN
            case Activation::none:
                break;
        }
        return x;
    }

    static T derivative(Activation activation, T x) {
        switch (activation) {
            case Activation::gelu:
                return normal_distribution(x) + x * std::exp(-x * x / 2) / std::sqrt(2 * pi);
            case Activation::quick_gelu: {
                const T gate = sigmoid(T(1.702) * x);
                return gate * (1 + T(1.702) * x * (1 - gate));
            }
            case Activation::tanh_gelu: {
                const T gate = tanh_gate(x);
                return gate * (1 + x * 2 * std::sqrt(2 / pi) * (1 + 3 * T(0.044715) * x * x) * (1 - gate));
            }
            case Activation::silu: {
                const T gate = sigmoid(x);
                return gate * (1 + x * (1 - gate));
            }
            case Activation::squared_relu:
                return x > 0 ? 2 * x : T{0} * x;
            case Activation::none:
                break;
        }
        return 1;
    }
};

inline void scalar_narrow(const float* x, bfloat16* y, std::size_t size) {
    std::copy_n(x, size, y);
}

inline void scalar_narrow_pairs(const float* first, const float* second, bfloat16* to, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) {
        to[2 * i] = first[i];
        to[2 * i + 1] = second[i];
    }
}

inline void scalar_quantise(const float* x, std::uint8_t* y, std::size_t size, float& scale, std::int32_t& zero) {
    // Zero is always among the values, so that it is exact, and a row of zeros has a scale.
    float least = 0, most = 0;
    for (std::size_t i = 0; i < size; ++i) {
        least = std::min(least, x[i]);
        most = std::max(most, x[i]);
    }
    scale = most > least ? (most - least) / 255 : 1;
    const float inverse = 1 / scale;
    zero = static_cast<std::int32_t>(std::lrint(-least * inverse));
    for (std::size_t i = 0; i < size; ++i) {
        const float byte = std::nearbyint(x[i] * inverse) + static_cast<float>(zero);
        y[i] = static_cast<std::uint8_t>(std::clamp(byte, 0.0f, 255.0f));
    }
}

inline void scalar_finish_bytes(const ByteProduct& product, std::size_t tile_columns, std::size_t rows,
                                std::size_t columns, float* c, std::size_t c_stride, bool accumulate,
                                const Finish<float>& finish) {
    for (std::size_t i = 0; i < rows; ++i) {
        for (std::size_t j = 0; j < columns; ++j) {
            const std::int32_t exact = product.sums[i * tile_columns + j] - product.row_zero[i] * product.column_sum[j];
            const float value = static_cast<float>(exact) * product.row_scale[i] * product.column_scale[j];
            Scalar<float>::finish_tile(&value, 1, 1, 1, c + i * c_stride + j, c_stride, accumulate, finish.at(i, j));
        }
    }
}

}  // namespace tandem::inline TANDEM_ABI::kernels

// ---- tandem/kernels/dispatch.hpp ----

// The one place that chooses which instruction set's kernels run.

namespace tandem::inline TANDEM_ABI::kernels {

template <Real T>
inline constexpr KernelSet<T> scalar_kernels{
    .name = "scalar",
    .tile = {scalar_tile_rows, scalar_tile_columns, 1, scalar_product<T, T, T, 1>},
    .finish_tile = Scalar<T>::finish_tile,
    .transpose = Scalar<T>::transpose,
    .activate = Scalar<T>::activate,
    .layer_norm = Scalar<T>::layer_norm,
    .softmax = Scalar<T>::softmax};

template <Real T>
inline constexpr GradientKernels<T> scalar_gradient_kernels{
    .activate_backward = Scalar<T>::activate_backward,
    .layer_norm_backward = Scalar<T>::layer_norm_backward,
    .layer_norm_parameters_backward = Scalar<T>::layer_norm_parameters_backward,
    .column_sums = Scalar<T>::column_sums,
    .softmax_backward = Scalar<T>::softmax_backward};

inline constexpr ReducedKernels scalar_reduced_kernels{
    .pairs = {scalar_tile_rows, scalar_tile_columns, 2, nullptr},
    .widened = {scalar_tile_rows, scalar_tile_columns, 2, scalar_product<float, bfloat16, float, 2>},
    .narrow = scalar_narrow,
    .narrow_pairs = scalar_narrow_pairs,
    .bytes = {scalar_tile_rows, scalar_tile_columns, 4, scalar_product<std::uint8_t, std::int8_t, std::int32_t, 4>},
    .quantise = scalar_quantise,
    .finish_bytes = scalar_finish_bytes};

/// The kernels of an instruction set that the CPU has. Those of double, which no model is served in, are the build's
/// own.
template <Real T>
const KernelSet<T>& kernels_of(Isa isa) {
    if (isa == Isa::scalar) return scalar_kernels<T>;
    if constexpr (std::same_as<T, float>) {
#if defined(__x86_64__)
        if (is_avx512(isa)) return avx512::kernel_set;
        if (isa == Isa::avx2) return avx2::kernel_set;
#elif defined(__aarch64__)
        if (isa == Isa::neon) return neon::kernel_set;
#endif
    }
    return native::kernel_set<T>;
}

template <Real T>
const GradientKernels<T>& gradient_kernels_of(Isa isa) {
    if (isa == Isa::scalar) return scalar_gradient_kernels<T>;
    if constexpr (std::same_as<T, float>) {
#if defined(__x86_64__)
        if (is_avx512(isa)) return avx512::VectorKernels<avx512::Vector>::gradients;
        if (isa == Isa::avx2) return avx2::VectorKernels<avx2::Vector>::gradients;
#elif defined(__aarch64__)
        if (isa == Isa::neon) return neon::VectorKernels<neon::Vector>::gradients;
#endif
    }
    return native::VectorKernels<native::Vector<T>>::gradients;
}

/// The reduced-precision kernels of an instruction set that the CPU has; what it lacks comes from the next narrower
/// one.
inline ReducedKernels reduced_kernels_of(Isa isa) {
#if defined(__x86_64__)
    if (is_avx512(isa)) {
        const CpuFeatures& cpu = cpu_features();
        TileKernel<bfloat16, bfloat16, float> pairs = avx512bf16::pairs;
        if (isa != Isa::avx512bf16) pairs.multiply = nullptr;
        return {.pairs = pairs,
                .widened = avx512::widened,
                .narrow = avx512::Convert::narrow,
                .narrow_pairs = avx512::Convert::narrow_pairs,
                .bytes = cpu.int8 ? avx512vnni::bytes : avx2::reduced_kernels.bytes,
                .quantise = avx512::Convert::quantise,
                .finish_bytes = cpu.int8 ? avx512::Convert::finish_bytes : avx2::reduced_kernels.finish_bytes};
    }
    if (isa == Isa::avx2) return avx2::reduced_kernels;
#elif defined(__aarch64__)
    if (isa == Isa::neon) {
        const CpuFeatures& cpu = cpu_features();
        ReducedKernels kernels = neon::reduced_kernels;
        if (cpu.bf16) kernels.pairs = neonbf16::pairs;
        if (cpu.int8) kernels.bytes = neondot::bytes;
        if (cpu.i8mm) kernels.bytes = neoni8mm::bytes;
        return kernels;
    }
#endif
    return scalar_reduced_kernels;
}

/// The kernels in use.
template <Real T>
const KernelSet<T>& active() {
    static const KernelSet<T>& chosen = kernels_of<T>(active_isa());
    return chosen;
}
template <Real T>
const GradientKernels<T>& active_gradients() {
    static const GradientKernels<T>& chosen = gradient_kernels_of<T>(active_isa());
    return chosen;
}
inline const ReducedKernels& active_reduced() {
    static const ReducedKernels chosen = reduced_kernels_of(active_isa());
    return chosen;
}

}  // namespace tandem::inline TANDEM_ABI::kernels

// ---- tandem/kernels/gemm.hpp ----

// Matrix products: packing, blocking and the parallel split around the register tile.

namespace tandem::inline TANDEM_ABI::kernels {

/// A matrix operand: element (i, j) stands at data[i · row_stride + j · column_stride]. A transposed view swaps the
/// two.
template <class T>
struct Operand {
    const T* data;
    std::size_t row_stride;
    std::size_t column_stride;

    Operand transposed() const { return {data, column_stride, row_stride}; }
    Operand from(std::size_t row, std::size_t column) const {
        return {data + row * row_stride + column * column_stride, row_stride, column_stride};
    }
};

template <class T>
constexpr Operand<T> row_major(const T* data, std::size_t row_stride) {
    return {data, row_stride, 1};
}

/// Where a product goes: element (i, j) stands at data[i · row_stride + j / panel · panel_stride + j % panel].
/// Row-major memory has panel_stride = panel.
template <class T>
struct Target {
    T* data;
    std::size_t row_stride;
    std::size_t panel_stride;
};

/// The K blocking, in groups of the tile. It is part of the contract, not a tuning knob: products are summed in
/// blocks of this depth in every configuration, so an output row's bits do not depend on M, on the other rows, or on
/// the number of threads.
inline constexpr std::size_t gemm_depth = 1024;

/// Bytes of a line of the caches.
inline constexpr std::size_t line = 64;

/// Columns of the widest panel, and elements of the largest register tile.
inline constexpr std::size_t widest_panel = 64, largest_tile = 14 * widest_panel;

constexpr std::size_t round_up(std::size_t value, std::size_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

/// Panels of the right operand: `width` columns side by side, all K of them, groups of the depth together, zeros behind
/// the last column and the last row.
struct PanelLayout {
    std::size_t width;
    std::size_t group;

    std::size_t panel_size(std::size_t k) const { return round_up(k, group) * width; }
    std::size_t size(std::size_t k, std::size_t n) const { return panel_size(k) * ((n + width - 1) / width); }
    /// Where element (row, column) stands.
    std::size_t position(std::size_t row, std::size_t column, std::size_t k) const {
        return column / width * panel_size(k) + (row / group * width + column % width) * group + row % group;
    }
};

template <class A, class B, class Sum>
constexpr PanelLayout layout_of(const TileKernel<A, B, Sum>& tile) {
    return {tile.columns, tile.group};
}

namespace detail {

/// to[k · tile, + tile) = from[k · stride, + tile) for every k: whole panels of an operand whose rows lie side by side.
/// The tiles in use are spelled out so that a copy is a few vector moves.
template <std::size_t Tile, class T>
void copy_columns(const T* from, std::size_t stride, std::size_t depth, T* to) {
    for (std::size_t k = 0; k < depth; ++k, from += stride, to += Tile) std::memcpy(to, from, Tile * sizeof(T));
}

template <class T>
bool copy_whole_panel(const T* from, std::size_t stride, std::size_t depth, std::size_t tile, T* to) {
    switch (tile) {
        case 4:
            copy_columns<4>(from, stride, depth, to);
            return true;
        case 6:
            copy_columns<6>(from, stride, depth, to);
            return true;
        case 8:
            copy_columns<8>(from, stride, depth, to);
            return true;
        case 10:
            copy_columns<10>(from, stride, depth, to);
            return true;
        case 12:
            copy_columns<12>(from, stride, depth, to);
            return true;
        case 13:
            copy_columns<13>(from, stride, depth, to);
            return true;
        case 14:
            copy_columns<14>(from, stride, depth, to);
            return true;
        case 16:
            copy_columns<16>(from, stride, depth, to);
            return true;
        case 32:
            copy_columns<32>(from, stride, depth, to);
            return true;
        default:
            return false;
    }
}

/// Copies `filled` rows and `depth` columns of an operand into a panel of `tile` rows, column by column, zeros behind
/// the last row, widening to the type that is computed in. For the right operand, pass its transpose.
template <class From, class T>
void pack_panel(const Operand<From>& operand, std::size_t filled, std::size_t depth, std::size_t tile, T* panel) {
    const From* source = operand.data;
    if (operand.row_stride == 1) {
        if constexpr (std::same_as<From, T>) {
            if (filled == tile && copy_whole_panel(source, operand.column_stride, depth, tile, panel)) return;
        }
        for (std::size_t k = 0; k < depth; ++k) {
            T* to = panel + k * tile;
            const From* from = source + k * operand.column_stride;
            for (std::size_t i = 0; i < filled; ++i) to[i] = static_cast<T>(from[i]);
            for (std::size_t i = filled; i < tile; ++i) to[i] = T{0};
        }
        return;
    }
    if constexpr (std::same_as<From, T> && Real<T>) {
        if (operand.column_stride == 1) {
            active<T>().transpose(source, operand.row_stride, filled, depth, panel, tile);
            for (std::size_t k = 0; k < depth && filled < tile; ++k) {
                std::fill(panel + k * tile + filled, panel + (k + 1) * tile, T{0});
            }
            return;
        }
    }
    // Eight rows at a time: their elements of one column stand side by side in the panel, in one line of the cache.
    constexpr std::size_t together = 8;
    std::size_t i = 0;
    for (; i + together <= filled; i += together) {
        const From* from = source + i * operand.row_stride;
        for (std::size_t k = 0; k < depth; ++k) {
            for (std::size_t j = 0; j < together; ++j) {
                panel[k * tile + i + j] = static_cast<T>(from[j * operand.row_stride + k * operand.column_stride]);
            }
        }
    }
    for (; i < tile; ++i) {
        const From* from = source + i * operand.row_stride;
        for (std::size_t k = 0; k < depth; ++k) {
            panel[k * tile + i] = i < filled ? static_cast<T>(from[k * operand.column_stride]) : T{0};
        }
    }
}

/// Memory that stops growing at the largest product the thread has seen.
template <class T>
struct GemmScratch {
    Buffer<T> left, shared_left, right, rows;
};

template <class T>
GemmScratch<T>& gemm_scratch() {
    thread_local GemmScratch<T> scratch;
    return scratch;
}

/// Rows in even shares, none above `most`: the last tile is no smaller than the others.
struct Shares {
    std::size_t count, total;

    Shares(std::size_t rows, std::size_t most) : count((rows + most - 1) / most), total(rows) {}
    std::size_t begin(std::size_t index) const { return index * (total / count) + std::min(index, total % count); }
};

/// The left operand of one block. Packed tiles stand one after the other; unpacked rows are read where they are.
template <class A>
struct LeftBlock {
    const A* data;
    std::size_t row;    ///< elements between rows; 1 if packed
    std::size_t group;  ///< elements between groups; 0 if packed: the height of the tile

    const A* tile(std::size_t first, std::size_t depth) const { return data + first * (group == 0 ? depth : row); }
};

/// Whether a block of the left operand can be read where it is: its rows are contiguous, and do not lie a multiple of
/// 4096 bytes apart, for those would all fall into the same few lines of the L1 cache.
template <class T, class A>
bool reads_in_place(const Operand<A>& a) {
    return std::same_as<A, T> && a.column_stride == 1 && a.row_stride * sizeof(A) % 4096 != 0;
}

/// Elements from one row of a packed block to the next: a line of the cache more than their own, which may be a multiple
/// of 4096 bytes.
template <class T>
constexpr std::size_t packed_stride(std::size_t depth) {
    return depth + line / sizeof(T);
}

/// Packs a block of the left operand: row by row where rows are contiguous, else its tiles one after the other.
template <class T, class A>
void pack_left(const Operand<A>& a, const Shares& tiles, std::size_t depth, T* memory) {
    if (a.column_stride == 1) {
        for (std::size_t i = 0; i < tiles.total; ++i) {
            std::copy_n(a.data + i * a.row_stride, depth, memory + i * packed_stride<T>(depth));
        }
        return;
    }
    for (std::size_t t = 0; t < tiles.count; ++t) {
        const std::size_t first = tiles.begin(t), height = tiles.begin(t + 1) - first;
        pack_panel(a.from(first, 0), height, depth, height, memory + first * depth);
    }
}

/// A block of the left operand, in place if `memory` is null, else as pack_left has put it there.
template <class T, class A>
LeftBlock<T> left_block(const Operand<A>& a, std::size_t depth, std::size_t group, const T* memory) {
    if constexpr (std::same_as<A, T>) {
        if (memory == nullptr) return {a.data, a.row_stride, group};
    }
    if (a.column_stride == 1) return {memory, packed_stride<T>(depth), group};
    return {memory, 1, 0};
}

}  // namespace detail

/// Where it is set, it is called with the sizes m x n x k of every product: it tells what a model computes.
inline std::atomic<void (*)(std::size_t m, std::size_t n, std::size_t k)> product_observer = nullptr;

inline void observe_product(std::size_t m, std::size_t n, std::size_t k) {
    if (const auto observer = product_observer.load(std::memory_order_relaxed); observer != nullptr) observer(m, n, k);
}

/// Does nothing with a finished block.
struct NoEpilogue {
    void operator()(std::size_t, std::size_t, std::size_t, std::size_t) const {}
};

/// target[m, n] (+)= a[m, k] · panels, on all cores, where `panels` hold the right operand in the tile's layout. Each
/// tile of sums goes through finish(sums, row, rows, column, columns, depth_begin, is_last), once for every block of
/// the depth; afterwards epilogue(first_row, last_row, first_column, last_column) is called once for every block of the
/// result, while it is in the cache of the thread that made it.
template <class A, class T, class B, class Sum, class FinishTile, class Epilogue = NoEpilogue>
void multiply_panels(const TileKernel<T, B, Sum>& tile, std::size_t m, std::size_t n, std::size_t k,
                     const Operand<A>& a, const B* panels, const FinishTile& finish, const Epilogue& epilogue = {}) {
    observe_product(m, n, k);
    const std::size_t block_depth = gemm_depth * tile.group;
    const std::size_t panel_size = layout_of(tile).panel_size(k), column_panels = (n + tile.columns - 1) / tile.columns;
    const auto depth_at = [&](std::size_t begin) { return round_up(std::min(block_depth, k - begin), tile.group); };
    // A block of eight tiles' rows stays in the L2 cache while all panels pass by. Where there are not eight blocks for
    // every core, the columns are split as well, so that none waits long for the last.
    const detail::Shares blocks(m, std::min<std::size_t>(m, 8 * tile.rows));
    const std::size_t wanted = (8 * core_count() + blocks.count - 1) / blocks.count;
    const detail::Shares splits(column_panels,
                                std::max<std::size_t>(column_panels / wanted, std::min<std::size_t>(2, column_panels)));
    const bool in_place = detail::reads_in_place<T>(a);
    // What several splits read is packed once, before.
    Buffer<T>& shared = detail::gemm_scratch<T>().shared_left;
    const auto rows_of = [&](std::size_t block) { return blocks.begin(block + 1) - blocks.begin(block); };
    const std::size_t depths = (k + block_depth - 1) / block_depth, stride = detail::packed_stride<T>(depth_at(0));
    const auto shared_at = [&](std::size_t row, std::size_t rows, std::size_t depth_begin) {
        return shared.data() + (row * depths + rows * (depth_begin / block_depth)) * stride;
    };
    if (!in_place && splits.count > 1) {
        shared.resize(m * depths * stride);
        parallel_for(blocks.count * depths, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t task = begin; task < end; ++task) {
                const std::size_t block = task / depths, row = blocks.begin(block), rows = rows_of(block);
                const std::size_t depth_begin = task % depths * block_depth;
                detail::pack_left(a.from(row, depth_begin), detail::Shares(rows, tile.rows), depth_at(depth_begin),
                                  shared_at(row, rows, depth_begin));
            }
        });
    }
    parallel_for(blocks.count * splits.count, 1, [&](std::size_t begin, std::size_t end) {
        alignas(64) std::array<Sum, largest_tile> sums;
        for (std::size_t task = begin; task < end; ++task) {
            const std::size_t row = blocks.begin(task / splits.count), rows = rows_of(task / splits.count);
            const std::size_t first_panel = splits.begin(task % splits.count);
            const std::size_t last_panel = splits.begin(task % splits.count + 1);
            const detail::Shares tiles(rows, tile.rows);
            for (std::size_t depth_begin = 0; depth_begin < k; depth_begin += block_depth) {
                const std::size_t depth = depth_at(depth_begin);
                const Operand<A> block = a.from(row, depth_begin);
                T* memory = nullptr;
                if (!in_place && splits.count > 1) {
                    memory = shared_at(row, rows, depth_begin);
                } else if (!in_place) {
                    Buffer<T>& own = detail::gemm_scratch<T>().left;
                    own.resize(rows * detail::packed_stride<T>(depth));
                    memory = own.data();
                    detail::pack_left(block, tiles, depth, memory);
                }
                const detail::LeftBlock<T> left = detail::left_block<T>(block, depth, tile.group, memory);
                const bool is_last = depth_begin + block_depth >= k;
                for (std::size_t panel = first_panel; panel < last_panel; ++panel) {
                    const B* const right = panels + panel * panel_size + depth_begin * tile.columns;
                    // The next panel is fetched meanwhile, a part by every tile.
                    const B* const next = panel + 1 < last_panel ? right + panel_size : right;
                    const std::size_t fetched = depth / tile.group * fetched_per_group / sizeof(B);
                    const std::size_t column = panel * tile.columns, columns = std::min(tile.columns, n - column);
                    for (std::size_t t = 0; t < tiles.count; ++t) {
                        const std::size_t first = tiles.begin(t), height = tiles.begin(t + 1) - first;
                        tile.multiply(height, depth / tile.group, left.tile(first, depth), left.row,
                                      left.group == 0 ? height : left.group, right, sums.data(),
                                      (t + 1) * fetched <= depth * tile.columns ? next + t * fetched : right);
                        finish(sums.data(), row + first, height, column, columns, depth_begin, is_last);
                    }
                }
            }
            epilogue(row, row + rows, first_panel * tile.columns, std::min(last_panel * tile.columns, n));
        }
    });
}

/// Packs b[k, n] into panels, zero-padded, on all cores.
template <class B, class T>
void pack_panels(const PanelLayout& layout, std::size_t k, std::size_t n, const Operand<B>& b, T* panels) {
    const std::size_t count = (n + layout.width - 1) / layout.width;
    parallel_for(count, std::max<std::size_t>(1, 16384 / layout.panel_size(k)),
                 [&](std::size_t begin, std::size_t end) {
                     for (std::size_t panel = begin; panel < end; ++panel) {
                         const std::size_t column = panel * layout.width;
                         detail::pack_panel(b.from(0, column).transposed(), std::min(layout.width, n - column), k,
                                            layout.width, panels + panel * layout.panel_size(k));
                     }
                 });
}

namespace detail {

/// The last step of a product's tiles: into `target` through `finish`.
template <Real T>
struct FinishInto {
    const KernelSet<T>& set;
    std::size_t tile_columns;
    Target<T> target;
    bool accumulate;
    Finish<T> finish;

    void operator()(const T* sums, std::size_t row, std::size_t rows, std::size_t column, std::size_t columns,
                    std::size_t depth_begin, bool is_last) const {
        set.finish_tile(sums, tile_columns, rows, columns,
                        target.data + row * target.row_stride + column / tile_columns * target.panel_stride,
                        target.row_stride, accumulate || depth_begin > 0,
                        is_last ? finish.at(row, column) : Finish<T>{});
    }
};

}  // namespace detail

/// target (+)= a[m, k] · panels, then what `finish` says, in the tile's type.
template <Real T, class A, class Epilogue = NoEpilogue>
void gemm_panels(std::size_t m, std::size_t n, std::size_t k, const Operand<A>& a, const T* panels,
                 const Target<T>& target, bool accumulate, const Finish<T>& finish = {},
                 const Epilogue& epilogue = {}) {
    const KernelSet<T>& set = active<T>();
    multiply_panels(set.tile, m, n, k, a, panels,
                    detail::FinishInto<T>{set, set.tile.columns, target, accumulate, finish}, epilogue);
}

/// c[m, n] = a[m, k] · b[k, n], or c += where `accumulate` is set, on all cores. c is row-major with stride c_stride
/// and must not overlap a or b. epilogue(first_row, last_row, first_column, last_column) is called once for every block
/// of c that is complete, while it is in the cache of the thread that made it.
template <Real T, Element A, Element B, class Epilogue = NoEpilogue>
void gemm(std::size_t m, std::size_t n, std::size_t k, const Operand<A>& a, const Operand<B>& b, T* c,
          std::size_t c_stride, bool accumulate = false, const Epilogue& epilogue = {}) {
    if (m == 0 || n == 0) return;
    if (k == 0) {
        for (std::size_t i = 0; i < m && !accumulate; ++i) std::fill_n(c + i * c_stride, n, T{0});
        epilogue(0, m, 0, n);
        return;
    }
    const PanelLayout layout = layout_of(active<T>().tile);
    Buffer<T>& shared = detail::gemm_scratch<T>().right;
    shared.resize(layout.size(k, n));
    pack_panels(layout, k, n, b, shared.data());
    gemm_panels<T>(m, n, k, a, shared.data(), Target<T>{c, c_stride, layout.width}, accumulate, {}, epilogue);
}

/// gemm on the calling thread alone, for small products inside a loop that is parallel already.
template <Real T>
void gemm_serial(std::size_t m, std::size_t n, std::size_t k, const Operand<T>& a, const Operand<T>& b, T* c,
                 std::size_t c_stride, bool accumulate = false) {
    observe_product(m, n, k);
    const KernelSet<T>& set = active<T>();
    const PanelLayout layout = layout_of(set.tile);
    detail::GemmScratch<T>& scratch = detail::gemm_scratch<T>();
    scratch.right.resize(layout.panel_size(std::min(k, gemm_depth)));
    const detail::Shares tiles(m, set.tile.rows);
    alignas(64) std::array<T, largest_tile> sums;
    for (std::size_t depth_begin = 0; depth_begin < k; depth_begin += gemm_depth) {
        const std::size_t depth = std::min(gemm_depth, k - depth_begin);
        const Operand<T> block = a.from(0, depth_begin);
        T* memory = nullptr;
        if (!detail::reads_in_place<T>(a)) {
            scratch.left.resize(m * detail::packed_stride<T>(depth));
            memory = scratch.left.data();
            detail::pack_left(block, tiles, depth, memory);
        }
        const detail::LeftBlock<T> left = detail::left_block<T>(block, depth, 1, memory);
        for (std::size_t column = 0; column < n; column += layout.width) {
            const std::size_t columns = std::min(layout.width, n - column);
            detail::pack_panel(b.from(depth_begin, column).transposed(), columns, depth, layout.width,
                               scratch.right.data());
            for (std::size_t t = 0; t < tiles.count; ++t) {
                const std::size_t first = tiles.begin(t), height = tiles.begin(t + 1) - first;
                set.tile.multiply(height, depth, left.tile(first, depth), left.row,
                                  left.group == 0 ? height : left.group, scratch.right.data(), sums.data(),
                                  scratch.right.data());
                set.finish_tile(sums.data(), layout.width, height, columns, c + first * c_stride + column, c_stride,
                                accumulate || depth_begin > 0, {});
            }
        }
    }
}

}  // namespace tandem::inline TANDEM_ABI::kernels

// ---- tandem/tensor/evaluate.hpp ----

// Evaluation: elementwise chains as one SIMD pass, rows in parallel; everything else through a tape of results.

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// Reads a whole vector at column j.
template <Real T>
struct VectorAccess {
    std::size_t j;

    template <class From>
    auto load(const From* row) const {
        return kernels::load(row + j);
    }
    auto splat(double value) const { return kernels::Batch<T>(static_cast<T>(value)); }
};

/// Reads the last, partial vector of a row: the arithmetic is that of a whole one, so an element's bits do not depend
/// on where in a row it stands.
template <Real T>
struct PartialAccess {
    std::size_t j, count;

    template <class From>
    auto load(const From* row) const {
        return kernels::load_partial(row + j, count);
    }
    auto splat(double value) const { return kernels::Batch<T>(static_cast<T>(value)); }
};

template <Real T, class Cursor, class Out>
void write_row(const Cursor& cursor, Out* out, std::size_t first, std::size_t last) {
    std::size_t j = first;
    for (; j + kernels::lanes<T> <= last; j += kernels::lanes<T>) kernels::store(out + j, cursor.get(VectorAccess<T>{j}));
    if (j < last) kernels::store_partial(out + j, cursor.get(PartialAccess<T>{j, last - j}), last - j);
}

/// Whether every leaf is a scalar or has the result's own shape, so that all axes can be walked as one.
template <class S, class E>
constexpr bool is_flat() {
    if constexpr (requires(const E& e) { e.operands; }) {
        return []<class F, class... Ops>(std::type_identity<Apply<F, Ops...>>) {
            return (is_flat<S, Ops>() && ...);
        }(std::type_identity<E>{});
    } else if constexpr (requires(const E& e) { e.operand; }) {
        return is_flat<S, std::remove_cvref_t<decltype(std::declval<E>().operand)>>();
    } else {
        if (E::shape::rank == 0) return true;
        if (E::shape::rank != S::rank) return false;
        for (std::size_t axis = 0; axis < std::min(S::rank, E::shape::rank); ++axis) {
            if (E::shape::extents[axis] == 1 && S::extents[axis] != 1) return false;
        }
        return true;
    }
}

template <std::size_t Rank>
Extents<Rank> row_index(const Extents<Rank>& extents, std::size_t row) {
    Extents<Rank> index{};
    for (std::size_t axis = Rank - (Rank > 0 ? 1 : 0); axis-- > 0;) {
        index[axis] = row % extents[axis];
        row /= extents[axis];
    }
    return index;
}

inline constexpr std::size_t elements_a_task = 16384;

/// out = e for an expression of elementwise nodes and leaves only.
template <class T, class S, class E>
void write(const View<T, S>& out, const E& e) {
    using C = Compute<T>;
    const std::size_t size = out.size();
    if (size == 0) return;
    if constexpr (S::rank == 0 || is_flat<S, E>()) {
        const auto cursor = e.cursor(WholeTensor{});
        parallel_for(size, elements_a_task,
                     [&](std::size_t first, std::size_t last) { write_row<C>(cursor, out.data(), first, last); });
    } else {
        const std::size_t width = out.extent(S::rank - 1);
        parallel_for(size / width, std::max<std::size_t>(1, elements_a_task / width),
                     [&](std::size_t first, std::size_t last) {
                         for (std::size_t row = first; row < last; ++row) {
                             const auto cursor = e.cursor(row_index(out.extents(), row));
                             write_row<C>(cursor, out.data() + row * width, 0, width);
                         }
                     });
    }
}

template <class T>
inline constexpr char type_mark = 0;

/// How many matrix products an elementwise chain reads directly, and whether they have shape S.
template <class S, class E>
inline constexpr std::size_t products_of_shape = 0;
template <class S, class F, class... Operands>
inline constexpr std::size_t products_of_shape<S, Apply<F, Operands...>> = (products_of_shape<S, Operands> + ... + 0);

}  // namespace detail

/// The results of the nodes that an elementwise pass cannot compute (reductions, products, permutations), each computed
/// once however often it occurs, in an order in which operands come first. With Gradients, walked backwards; a tape
/// without them keeps programs that only evaluate from compiling any derivative.
template <bool Gradients>
class BasicTape {
public:
    struct Entry : Recycled {
        virtual ~Entry() = default;
        /// Adds this result's share to the gradients of its operands.
        virtual void backward() {}
    };

    /// Names a tensor a gradient is wanted for.
    template <Real T, class S>
    void want(const View<const T, S>& tensor, Adjoint<T, S>& adjoint)
        requires Gradients
    {
        targets_.push_back({tensor.data(), &detail::type_mark<Adjoint<T, S>>, &adjoint, false});
    }

    /// Where the gradient of this tensor goes; nullptr if none is wanted.
    template <Real T, class S>
    Adjoint<T, S>* target(const T* data) {
        for (Target& target : targets_) {
            if (target.data == data && target.type == &detail::type_mark<Adjoint<T, S>>) {
                target.met = true;
                return static_cast<Adjoint<T, S>*>(target.adjoint);
            }
        }
        return nullptr;
    }

    /// The position of the first wanted tensor that no expression contained, or -1.
    std::ptrdiff_t first_unmet() const {
        for (std::size_t i = 0; i < targets_.size(); ++i) {
            if (!targets_[i].met) return static_cast<std::ptrdiff_t>(i);
        }
        return -1;
    }

    /// The leaf that holds the result of `node`.
    template <class Node>
    auto result(const Node& node);

    void keep(std::shared_ptr<const void> owner) { owners_.push_back(std::move(owner)); }

    void backward() {
        for (auto entry = entries_.rbegin(); entry != entries_.rend(); ++entry) entry->entry->backward();
    }

private:
    struct Target {
        const void* data;
        const void* type;
        void* adjoint;
        bool met;
    };
    struct Slot {
        const void* type;
        detail::Key key;
        std::unique_ptr<Entry> entry;
    };

    RecyclingVector<Target> targets_;
    RecyclingVector<Slot> entries_;
    RecyclingVector<std::shared_ptr<const void>> owners_;
};

using Tape = BasicTape<true>;
using ValueTape = BasicTape<false>;

// prepare(node, tape): the same expression with elementwise nodes and leaves only.
template <Element T, class S, bool Gradients>
auto prepare(const Leaf<T, S>& leaf, BasicTape<Gradients>& tape) {
    if constexpr (Real<T> && Gradients) {
        return Leaf<T, S>(leaf.view, leaf.adjoint != nullptr ? leaf.adjoint : tape.template target<T, S>(leaf.view.data()));
    } else {
        return leaf;
    }
}

template <Element T, class S, bool Gradients>
auto prepare(const Held<T, S>& held, BasicTape<Gradients>& tape) {
    tape.keep(held.tensor);
    return Leaf<T, S>(held.tensor->view());
}

template <bool Gradients>
auto prepare(const Constant& constant, BasicTape<Gradients>&) { return constant; }

template <class F, class... Operands, bool Gradients>
auto prepare(const Apply<F, Operands...>& node, BasicTape<Gradients>& tape) {
    return std::apply([&](const auto&... operand) { return apply<F>(prepare(operand, tape)...); }, node.operands);
}

template <class S, class E, bool Gradients>
auto prepare(const Expand<S, E>& node, BasicTape<Gradients>& tape) {
    auto operand = prepare(node.operand, tape);
    return Expand<S, decltype(operand)>(std::move(operand), node.extents());
}

/// Every other node has a Rule<Node>: Rule(node, tape) prepares its operands, forward(out) computes it, and
/// backward(value, gradient) passes the gradient on.
template <class Node>
struct Rule;

template <Expression Node, bool Gradients>
    requires requires { typename Node::has_rule; }
auto prepare(const Node& node, BasicTape<Gradients>& tape) {
    return tape.result(node);
}

namespace detail {

template <class Node, bool Gradients>
struct NodeEntry : BasicTape<Gradients>::Entry {
    using T = typename Node::element;
    using S = typename Node::shape;

    Rule<Node> rule;
    Tensor<T, S> value;
    std::unique_ptr<Adjoint<T, S>> adjoint;

    NodeEntry(const Node& node, BasicTape<Gradients>& tape) : rule(node, tape), value(node.extents()) {
        rule.forward(value);
        if constexpr (Gradients) {
            if (rule.wants_gradient()) adjoint = std::make_unique<Adjoint<T, S>>(node.extents());
        }
    }

    void backward() override {
        if constexpr (Gradients) {
            if (adjoint != nullptr && adjoint->touched) rule.backward(value, adjoint->value);
        }
    }
};

}  // namespace detail

template <bool Gradients>
template <class Node>
auto BasicTape<Gradients>::result(const Node& node) {
    using Result = detail::NodeEntry<Node, Gradients>;
    detail::Key key;
    node.write_key(key);
    Result* result = nullptr;
    for (const Slot& slot : entries_) {
        if (slot.type == &detail::type_mark<Node> && slot.key == key) result = static_cast<Result*>(slot.entry.get());
    }
    if (result == nullptr) {
        auto made = std::make_unique<Result>(node, *this);
        result = made.get();
        entries_.push_back({&detail::type_mark<Node>, std::move(key), std::move(made)});
    }
    return Leaf<typename Node::element, typename Node::shape>(std::as_const(result->value).view(), result->adjoint.get());
}

/// out = e, computed at once. An elementwise chain may read what it overwrites; any other overlap of out with a tensor
/// in e is only allowed below a reduction or a product, which have been computed before out is written.
template <class T, class S, TensorOperand X>
    requires(!std::is_const_v<T>)
void assign(const View<T, S>& out, X&& x) {
    const auto e = as_expression(std::forward<X>(x));
    using E = std::remove_const_t<decltype(e)>;
    constexpr bool shape_fits = can_broadcast<S, typename E::shape> && S::rank >= E::shape::rank;
    constexpr bool element_fits = std::is_same_v<typename E::element, Compute<T>> ||
                                  std::is_same_v<typename E::element, detail::Neutral>;
    static_assert(shape_fits, "tandem: the expression's shape does not fit the tensor it is assigned to");
    static_assert(element_fits, "tandem: the expression computes in another element type than the tensor it is assigned to");
    if constexpr (shape_fits && element_fits) {
        const auto extents = broadcast_extents<S, typename E::shape>(out.extents(), e.extents());
        if (extents != out.extents()) detail::throw_extents("assign", out.extents(), e.extents());
        if constexpr (Real<T> && detail::products_of_shape<S, E> == 1) {
            assign_through_product(out, e);
        } else {
            ValueTape tape;
            detail::write(out, prepare(e, tape));
        }
    }
}

template <Element T, class S, TensorOperand X>
void assign(Tensor<T, S>& out, X&& x) {
    assign(out.view(), std::forward<X>(x));
}

/// The value of an expression as a tensor that owns its elements.
template <TensorOperand X>
auto evaluate(X&& x) {
    const auto e = as_expression(std::forward<X>(x));
    using E = std::remove_const_t<decltype(e)>;
    Tensor<typename E::element, typename E::shape> result(e.extents());
    assign(result, e);
    return result;
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/tensor/reduce.hpp ----

// Reductions along an axis, and how a gradient flows into an elementwise expression. They share a file because each is
// the other's transpose: the gradient of a broadcast is a sum, that of a sum a broadcast.

namespace tandem::inline TANDEM_ABI {

/// An operand reduced along one axis by Op; the axis vanishes, or is kept as 1.
template <class Op, std::size_t Axis, bool Keep, Expression E>
struct Reduction : ExpressionNode {
    static_assert(Axis < E::shape::rank, "tandem: a reduction's axis must be one of its operand's");
    using has_rule = void;
    using element = typename E::element;
    using shape = WithoutAxis<typename E::shape, Axis < E::shape::rank ? Axis : 0, Keep>;

    E operand;

    explicit Reduction(E source) : operand(std::move(source)) {}

    auto extents() const { return without_axis<Axis, Keep>(operand.extents()); }
    void write_key(detail::Key& key) const { operand.write_key(key); }
};

namespace functions {

// A reduction's accumulator over vectors or scalars V, fed one value at a time; two passes where it needs the maximum.
struct Sum {
    static constexpr bool needs_maximum = false;
    template <class V>
    TANDEM_DEVICE static V combine(const V& sum, const V& x, const V&) {
        return sum + x;
    }
    template <class T>
    TANDEM_DEVICE static T finish(T sum, T) {
        return sum;
    }
    template <class X, class Value, class G>
    static auto backward(const X&, const Value&, const G& g) {
        return g;
    }
};

struct LogSumExp {
    static constexpr bool needs_maximum = true;
    template <class V>
    TANDEM_DEVICE static V combine(const V& sum, const V& x, const V& maximum) {
        return sum + Exp{}(x - maximum);
    }
    template <class T>
    TANDEM_DEVICE static T finish(T sum, T maximum) {
        using std::log;
        return maximum + log(sum);
    }
    template <class X, class Value, class G>
    static auto backward(const X& x, const Value& value, const G& g) {
        return g * exp(x - value);
    }
};

struct Max {
    static constexpr bool needs_maximum = true;
    template <class V>
    TANDEM_DEVICE static V combine(const V& sum, const V&, const V&) {
        return sum;
    }
    template <class T>
    TANDEM_DEVICE static T finish(T, T maximum) {
        return maximum;
    }
    /// The gradient is shared evenly among equal elements, as torch.amax does; Rule<Reduction> counts them.
    static constexpr bool shares_gradient = true;
};

}  // namespace functions

namespace detail {

template <Real T>
inline constexpr T lowest = -std::numeric_limits<T>::infinity();

/// Folds the vectors of a row with combine(accumulator, vector), lanes in a fixed order, the tail one by one.
template <Real T, class Cursor, class Combine, class Finish>
T fold_row(const Cursor& cursor, std::size_t width, T first, const Combine& combine, const Finish& finish) {
    using V = kernels::Batch<T>;
    V vectors(first);
    std::size_t j = 0;
    for (; j + kernels::lanes<T> <= width; j += kernels::lanes<T>) {
        vectors = combine(vectors, cursor.get(VectorAccess<T>{j}));
    }
    T result = j > 0 ? finish(vectors) : first;
    if (j < width) {
        std::array<T, kernels::lanes<T>> tail;
        kernels::store(tail.data(), cursor.get(PartialAccess<T>{j, width - j}));
        for (std::size_t i = 0; i < width - j; ++i) result = combine(result, tail[i]);
    }
    return result;
}

template <class Op, Real T, class Cursor>
T reduce_row(const Cursor& cursor, std::size_t width) {
    using V = kernels::Batch<T>;
    T maximum{0};
    if constexpr (Op::needs_maximum) {
        maximum = fold_row<T>(
            cursor, width, lowest<T>, [](const auto& a, const auto& b) { return functions::Maximum{}(a, b); },
            [](const V& v) { return kernels::reduce_max(v); });
        if (std::isinf(maximum)) return maximum;
    }
    const T sum = fold_row<T>(
        cursor, width, T{0},
        [&](const auto& a, const auto& b) { return Op::combine(a, b, std::remove_cvref_t<decltype(a)>(maximum)); },
        [](const V& v) { return kernels::reduce_sum(v); });
    return Op::finish(sum, maximum);
}

/// Reduces `count` rows, row k's cursor being cursor_of(k), at the columns that `access` reads.
template <class Op, Real T, class Access, class CursorOf>
auto reduce_columns(const Access& access, std::size_t count, const CursorOf& cursor_of) {
    using V = kernels::Batch<T>;
    V maximum(T{0});
    if constexpr (Op::needs_maximum) {
        maximum = V(lowest<T>);
        for (std::size_t k = 0; k < count; ++k) {
            maximum = functions::Maximum{}(maximum, V(cursor_of(k).get(access)));
        }
    }
    V sum(T{0});
    for (std::size_t k = 0; k < count; ++k) sum = Op::combine(sum, V(cursor_of(k).get(access)), maximum);
    std::array<T, kernels::lanes<T>> sums, maxima;
    kernels::store(sums.data(), sum);
    kernels::store(maxima.data(), maximum);
    for (std::size_t i = 0; i < kernels::lanes<T>; ++i) {
        sums[i] = Op::needs_maximum && std::isinf(maxima[i]) ? maxima[i] : Op::finish(sums[i], maxima[i]);
    }
    return kernels::load(sums.data());
}

/// out = Op over `Axis` of the elementwise expression e.
template <class Op, std::size_t Axis, Real T, class E>
void reduce(const E& e, T* out) {
    using S = typename E::shape;
    constexpr std::size_t rank = S::rank;
    const auto extents = e.extents();
    const auto kept = without_axis<Axis, true>(extents);
    if constexpr (Axis + 1 == rank) {
        const std::size_t width = extents[Axis];
        parallel_for(kept.count(), std::max<std::size_t>(1, elements_a_task / std::max<std::size_t>(width, 1)),
                     [&](std::size_t first, std::size_t last) {
                         for (std::size_t row = first; row < last; ++row) {
                             out[row] = reduce_row<Op, T>(e.cursor(row_index(extents, row)), width);
                         }
                     });
    } else {
        const std::size_t width = extents[rank - 1];
        const std::size_t count = extents[Axis];
        const std::size_t vectors = (width + kernels::lanes<T> - 1) / kernels::lanes<T>;
        if (width == 0) return;
        const std::size_t grain = std::max<std::size_t>(1, elements_a_task / (kernels::lanes<T> * std::max<std::size_t>(count, 1)));
        parallel_for(kept.count() / width * vectors, grain, [&](std::size_t first, std::size_t last) {
            for (std::size_t task = first; task < last; ++task) {
                const std::size_t row = task / vectors, j = task % vectors * kernels::lanes<T>;
                auto index = row_index(kept, row);
                const auto cursor_of = [&](std::size_t k) {
                    index[Axis] = k;
                    return e.cursor(index);
                };
                T* const to = out + row * width + j;
                if (j + kernels::lanes<T> <= width) {
                    kernels::store(to, reduce_columns<Op, T>(VectorAccess<T>{j}, count, cursor_of));
                } else {
                    const PartialAccess<T> access{j, width - j};
                    kernels::store_partial(to, reduce_columns<Op, T>(access, count, cursor_of), width - j);
                }
            }
        });
    }
}

template <int Axis, class S>
inline constexpr std::size_t axis_of = Axis < 0 ? S::rank - static_cast<std::size_t>(-Axis)
                                                : static_cast<std::size_t>(Axis);

template <class Op, int Axis, bool Keep, TensorOperand X>
auto make_reduction(X&& x) {
    using E = AsExpression<X>;
    return Reduction<Op, axis_of<Axis, typename E::shape>, Keep, E>(as_expression(std::forward<X>(x)));
}

}  // namespace detail

/// Σ along an axis (the last one unless named; negative axes count from the end). sum<0, true>(x) keeps the axis as 1.
template <int Axis, bool Keep = false, TensorOperand X>
auto sum(X&& x) {
    return detail::make_reduction<functions::Sum, Axis, Keep>(std::forward<X>(x));
}

/// Σ over all elements: a scalar.
template <TensorOperand X>
auto sum(X&& x) {
    if constexpr (AsExpression<X>::shape::rank == 0) {
        return as_expression(std::forward<X>(x));
    } else {
        return sum(sum<-1>(std::forward<X>(x)));
    }
}

template <int Axis, bool Keep = false, TensorOperand X>
auto mean(X&& x) {
    auto e = as_expression(std::forward<X>(x));
    const std::size_t count = e.extents()[detail::axis_of<Axis, typename decltype(e)::shape>];
    return sum<Axis, Keep>(std::move(e)) * (1.0 / static_cast<double>(count));
}

/// The mean of all elements: a scalar.
template <TensorOperand X>
auto mean(X&& x) {
    auto e = as_expression(std::forward<X>(x));
    const double count = static_cast<double>(e.extents().count());
    return sum(std::move(e)) * (1.0 / count);
}

/// The largest element along an axis; its gradient is shared evenly among equal ones.
template <int Axis = -1, bool Keep = false, TensorOperand X>
auto max(X&& x) {
    return detail::make_reduction<functions::Max, Axis, Keep>(std::forward<X>(x));
}

/// log Σ exp(x) along an axis, shifted by the maximum so that it does not overflow.
template <int Axis = -1, bool Keep = false, TensorOperand X>
auto log_sum_exp(X&& x) {
    return detail::make_reduction<functions::LogSumExp, Axis, Keep>(std::forward<X>(x));
}

/// sqrt(Σ x²) along an axis.
template <int Axis = -1, bool Keep = false, TensorOperand X>
auto norm(X&& x) {
    return apply<functions::Norm>(sum<Axis, Keep>(square(std::forward<X>(x))));
}

/// exp(x) / Σ exp(x) along an axis.
template <int Axis = -1, TensorOperand X>
auto softmax(X&& x) {
    const auto e = as_expression(std::forward<X>(x));
    return exp(e - log_sum_exp<Axis, true>(e));
}

/// x / max(‖x‖, 1e-12) along an axis, as torch.nn.functional.normalize.
template <int Axis = -1, TensorOperand X>
auto normalize(X&& x) {
    const auto e = as_expression(std::forward<X>(x));
    return e / max(norm<Axis, true>(e), 1e-12);
}

// Whether any leaf below wants a gradient.
template <Element T, class S>
bool wants_gradient(const Leaf<T, S>& leaf) {
    return leaf.adjoint != nullptr;
}
inline bool wants_gradient(const Constant&) { return false; }
template <class F, class... Operands>
bool wants_gradient(const Apply<F, Operands...>& node) {
    return std::apply([](const auto&... operand) { return (wants_gradient(operand) || ...); }, node.operands);
}

namespace detail {

/// The first axis of `From` that was broadcast from S; From's rank if none.
template <class S, class From>
constexpr std::size_t broadcast_axis() {
    if (From::rank > S::rank) return 0;
    for (std::size_t axis = 0; axis < From::rank; ++axis) {
        if (S::extents[axis] == 1 && From::extents[axis] != 1) return axis;
    }
    return From::rank;
}

/// adjoint += g, summed over the axes along which the tensor was repeated.
template <Real T, class S, class G>
void accumulate(Adjoint<T, S>& adjoint, const G& g) {
    using From = typename G::shape;
    constexpr std::size_t axis = broadcast_axis<S, From>();
    if constexpr (From::rank >= S::rank && axis < From::rank) {
        constexpr bool keep = From::rank == S::rank;
        const auto extents = without_axis<axis, keep>(g.extents());
        Tensor<T, WithoutAxis<From, axis, keep>> partial(extents);
        reduce<functions::Sum, axis>(g, partial.data());
        accumulate(adjoint, Leaf<T, WithoutAxis<From, axis, keep>>(std::as_const(partial).view()));
    } else {
        const auto target = adjoint.value.view();
        if (adjoint.touched) {
            write(target, apply<functions::Add>(Leaf<T, S>(target), g));
        } else {
            write(target, Expand<S, G>(g, target.extents()));
        }
        adjoint.touched = true;
    }
}

}  // namespace detail

// propagate(node, g): adds the gradient g of a prepared expression's value to every leaf below that wants one.
template <Element T, class S, class G>
void propagate(const Leaf<T, S>& leaf, const G& g) {
    if constexpr (Real<typename Leaf<T, S>::element>) {
        if (leaf.adjoint != nullptr) detail::accumulate(*leaf.adjoint, g);
    }
}

template <class G>
void propagate(const Constant&, const G&) {}

namespace detail {

template <class F, class... Operands, class G, std::size_t... I>
void propagate_to_operands(const Apply<F, Operands...>& node, const G& g, std::index_sequence<I...>) {
    const auto to = [&]<std::size_t J>(std::integral_constant<std::size_t, J>) {
        const auto& operand = std::get<J>(node.operands);
        if constexpr (!std::same_as<std::remove_cvref_t<decltype(operand)>, Constant>) {
            if (!wants_gradient(operand)) return;
            auto part = std::apply([&](const auto&... all) { return F::template backward<J>(g, all...); }, node.operands);
            propagate(operand, part);
        }
    };
    (to(std::integral_constant<std::size_t, I>{}), ...);
}

}  // namespace detail

template <class F, class... Operands, class G>
void propagate(const Apply<F, Operands...>& node, const G& g) {
    detail::propagate_to_operands(node, g, std::index_sequence_for<Operands...>{});
}

template <class Op, std::size_t Axis, bool Keep, class E>
struct Rule<Reduction<Op, Axis, Keep, E>> {
    using T = typename E::element;
    using S = typename E::shape;
    using Kept = WithoutAxis<S, Axis, true>;
    using Prepared = decltype(prepare(std::declval<const E&>(), std::declval<ValueTape&>()));

    Prepared operand;

    template <bool Gradients>
    Rule(const Reduction<Op, Axis, Keep, E>& node, BasicTape<Gradients>& tape) : operand(prepare(node.operand, tape)) {}

    bool wants_gradient() const { return tandem::wants_gradient(operand); }

    template <class Out>
    void forward(Out& out) const {
        detail::reduce<Op, Axis>(operand, out.data());
    }

    template <class Value>
    void backward(const Value& value, const Value& gradient) const {
        const auto kept = without_axis<Axis, true>(operand.extents());
        const Leaf<T, Kept> g(View<const T, Kept>(gradient.data(), kept));
        const Leaf<T, Kept> y(View<const T, Kept>(value.data(), kept));
        if constexpr (requires { Op::shares_gradient; }) {
            const auto hits = apply<functions::Equal>(operand, y);
            Tensor<T, Kept> count(kept);
            detail::reduce<functions::Sum, Axis>(hits, count.data());
            propagate(operand, g * hits / Leaf<T, Kept>(std::as_const(count).view()));
        } else {
            const auto part = Op::backward(operand, y, g);
            propagate(operand, Expand<S, std::remove_const_t<decltype(part)>>(part, operand.extents()));
        }
    }
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/tensor/matmul.hpp ----

// Matrix products, transposes, and reading single elements or rows by index.

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// An extent of a matrix. What is none gets a static_assert's sentence, and here no second error.
template <class S, std::size_t Axis>
inline constexpr std::size_t matrix_extent = S::rank == 2 ? S::extents[Axis] : dynamic;

}  // namespace detail

/// A matrix with its two axes swapped. As a factor of matmul it costs nothing.
template <Expression E>
struct Transposed : ExpressionNode {
    static_assert(E::shape::rank == 2, "tandem: transpose takes a matrix");
    using has_rule = void;
    using element = typename E::element;
    using shape = Shape<detail::matrix_extent<typename E::shape, 1>, detail::matrix_extent<typename E::shape, 0>>;

    E operand;

    explicit Transposed(E source) : operand(std::move(source)) {}

    Extents<2> extents() const { return {{operand.extents()[1], operand.extents()[0]}}; }
    void write_key(detail::Key& key) const { operand.write_key(key); }
};

/// a · b.
template <Expression A, Expression B>
struct Product : ExpressionNode {
    static_assert(A::shape::rank == 2 && B::shape::rank == 2, "tandem: matmul takes two matrices");
    static constexpr std::size_t inner_a = detail::matrix_extent<typename A::shape, 1>;
    static constexpr std::size_t inner_b = detail::matrix_extent<typename B::shape, 0>;
    static_assert(inner_a == inner_b || inner_a == dynamic || inner_b == dynamic,
                  "tandem: matmul needs as many columns on the left as rows on the right");
    using has_rule = void;
    using element = typename detail::CommonElementOf<typename A::element, typename B::element>::type;
    using shape = Shape<detail::matrix_extent<typename A::shape, 0>, detail::matrix_extent<typename B::shape, 1>>;

    A a;
    B b;

    Product(A left, B right) : a(std::move(left)), b(std::move(right)) {
        if (a.extents()[1] != b.extents()[0]) {
            throw Error("matmul", std::to_string(a.extents()[1]) + " rows on the right of " + to_string(a.extents()),
                        to_string(b.extents()));
        }
    }

    Extents<2> extents() const { return {{a.extents()[0], b.extents()[1]}}; }
    void write_key(detail::Key& key) const {
        a.write_key(key);
        b.write_key(key);
    }
};

/// An elementwise expression written out as a tensor, because what reads it needs its elements in memory.
template <Expression E>
struct Materialised : ExpressionNode {
    using has_rule = void;
    using element = typename E::element;
    using shape = typename E::shape;

    E operand;

    explicit Materialised(E source) : operand(std::move(source)) {}

    auto extents() const { return operand.extents(); }
    void write_key(detail::Key& key) const { operand.write_key(key); }
};

/// x[i, i] for the square matrix x.
template <Expression E>
struct Diagonal : ExpressionNode {
    static_assert(E::shape::rank == 2 && (E::shape::extents[0] == E::shape::extents[1] ||
                                          E::shape::extents[0] == dynamic || E::shape::extents[1] == dynamic),
                  "tandem: diagonal takes a square matrix");
    using has_rule = void;
    using element = typename E::element;
    using shape = Shape<E::shape::extents[0] == dynamic ? E::shape::extents[1] : E::shape::extents[0]>;

    E operand;

    explicit Diagonal(E source) : operand(std::move(source)) {
        if (operand.extents()[0] != operand.extents()[1]) {
            throw Error("diagonal", "a square matrix", to_string(operand.extents()));
        }
    }

    Extents<1> extents() const { return {{operand.extents()[0]}}; }
    void write_key(detail::Key& key) const { operand.write_key(key); }
};

/// x[i, ids[i]] for the matrix x and one id a row.
template <Expression E, class Ids>
struct Gathered : ExpressionNode {
    static_assert(E::shape::rank == 2 && Ids::rank == 1, "tandem: gather takes a matrix and one id for each of its rows");
    static_assert(extents_broadcast(E::shape::extents[0], Ids::extents[0]) && Ids::extents[0] != 1,
                  "tandem: gather takes a matrix and one id for each of its rows");
    using has_rule = void;
    using element = typename E::element;
    using shape = Ids;

    E operand;
    View<const Id, Ids> ids;

    Gathered(E source, View<const Id, Ids> positions) : operand(std::move(source)), ids(positions) {
        if (ids.size() != operand.extents()[0]) {
            throw Error("gather", std::to_string(operand.extents()[0]) + " ids", std::to_string(ids.size()));
        }
        check_ids("gather", ids.elements(), operand.extents()[1]);
    }

    static void check_ids(const char* where, std::span<const Id> ids, std::size_t limit) {
        for (const Id id : ids) {
            if (id < 0 || static_cast<std::size_t>(id) >= limit) {
                throw Error(where, "ids below " + std::to_string(limit), std::to_string(id));
            }
        }
    }

    Extents<1> extents() const { return {{ids.size()}}; }
    void write_key(detail::Key& key) const {
        operand.write_key(key);
        key.push_back(reinterpret_cast<std::uintptr_t>(ids.data()));
    }
};

/// The first Count columns of a matrix.
template <Expression E, std::size_t Count>
struct FirstColumns : ExpressionNode {
    static_assert(E::shape::rank == 2 && Count > 0, "tandem: first_columns takes a matrix");
    static_assert(E::shape::rank != 2 || E::shape::extents[1] == dynamic || Count <= E::shape::extents[1],
                  "tandem: first_columns takes at most as many columns as the matrix has");
    using has_rule = void;
    using element = typename E::element;
    using shape = Shape<detail::matrix_extent<typename E::shape, 0>, Count>;

    E operand;

    explicit FirstColumns(E source) : operand(std::move(source)) {
        if (operand.extents()[1] < Count) {
            throw Error("first_columns", "at least " + std::to_string(Count) + " columns", to_string(operand.extents()));
        }
    }

    Extents<2> extents() const { return {{operand.extents()[0], Count}}; }
    void write_key(detail::Key& key) const { operand.write_key(key); }
};

/// x[:, 0 .. Count) of the matrix x <M, N>: <M, Count>.
template <std::size_t Count, TensorOperand X>
auto first_columns(X&& x) {
    return FirstColumns<AsExpression<X>, Count>(as_expression(std::forward<X>(x)));
}

template <TensorOperand X>
auto transpose(X&& x) {
    return Transposed<AsExpression<X>>(as_expression(std::forward<X>(x)));
}

/// The matrix product of a <M, K> and b <K, N>: <M, N>.
template <TensorOperand A, TensorOperand B>
auto matmul(A&& a, B&& b) {
    return Product<AsExpression<A>, AsExpression<B>>(as_expression(std::forward<A>(a)), as_expression(std::forward<B>(b)));
}

namespace functions {

struct TakeDiagonal {
    template <TensorOperand X>
    auto operator()(X&& x) const {
        return Diagonal<AsExpression<X>>(as_expression(std::forward<X>(x)));
    }
};

}  // namespace functions

/// diagonal(x) is the <N> diagonal of a square matrix; as the target of cross_entropy, `diagonal` says that row i's
/// class is i.
inline constexpr functions::TakeDiagonal diagonal{};

/// x[i, ids[i]]: one element of each row, <N>.
template <TensorOperand X, class I>
    requires std::convertible_to<const I&, View<const Id, typename I::shape>>
auto gather(X&& x, const I& ids) {
    return Gathered<AsExpression<X>, typename I::shape>(as_expression(std::forward<X>(x)),
                                                        View<const Id, typename I::shape>(ids));
}

namespace detail {

template <class E>
inline constexpr bool is_leaf = false;
template <Element T, class S>
inline constexpr bool is_leaf<Leaf<T, S>> = true;

/// The expression as one leaf in memory.
template <class E, bool Gradients>
auto in_memory(const E& e, BasicTape<Gradients>& tape) {
    using Prepared = decltype(prepare(e, std::declval<ValueTape&>()));
    if constexpr (is_leaf<Prepared>) {
        return prepare(e, tape);
    } else {
        return tape.result(Materialised<E>(e));
    }
}

/// A factor of a product: a leaf in memory, possibly to be read transposed.
template <class L, bool Transpose>
struct Factor {
    L leaf;

    kernels::Operand<typename decltype(L::view)::element> operand() const {
        const auto matrix = kernels::row_major(leaf.view.data(), leaf.view.extent(1));
        return Transpose ? matrix.transposed() : matrix;
    }
};

template <class E, bool Gradients>
auto factor_of(const E& e, BasicTape<Gradients>& tape) {
    auto leaf = in_memory(e, tape);
    return Factor<decltype(leaf), false>{leaf};
}
template <class E, bool Gradients>
auto factor_of(const Transposed<E>& e, BasicTape<Gradients>& tape) {
    auto leaf = in_memory(e.operand, tape);
    return Factor<decltype(leaf), true>{leaf};
}

/// Adds left · right, or its transpose for a factor that was read transposed, to a factor's gradient.
template <class L, bool Transpose, Element A, Element B>
void add_product(const Factor<L, Transpose>& factor, const kernels::Operand<A>& left, const kernels::Operand<B>& right,
                 std::size_t inner) {
    using T = typename L::element;
    if (factor.leaf.adjoint == nullptr) return;
    const bool accumulate = factor.leaf.adjoint->touched;
    auto& target = factor.leaf.adjoint->dense();
    const std::size_t rows = target.extent(0), columns = target.extent(1);
    if constexpr (Transpose) {
        kernels::gemm<T>(rows, columns, inner, right.transposed(), left.transposed(), target.data(), columns, accumulate);
    } else {
        kernels::gemm<T>(rows, columns, inner, left, right, target.data(), columns, accumulate);
    }
}

// A product that is broadcast to S is smaller than S: it is computed by itself.
template <class S, class A, class B>
    requires(S::rank == 2 && (Product<A, B>::shape::extents[0] != 1 || S::extents[0] == 1) &&
             (Product<A, B>::shape::extents[1] != 1 || S::extents[1] == 1))
inline constexpr std::size_t products_of_shape<S, Product<A, B>> = 1;

/// Calls visit with every view an expression reads; a Held temporary cannot overlap anything.
template <class E, class Visit>
void visit_leaves(const E& e, const Visit& visit) {
    if constexpr (requires { e.operands; }) {
        std::apply([&](const auto&... operand) { (visit_leaves(operand, visit), ...); }, e.operands);
    } else if constexpr (requires { e.operand; }) {
        visit_leaves(e.operand, visit);
    } else if constexpr (requires { e.a; }) {
        visit_leaves(e.a, visit);
        visit_leaves(e.b, visit);
    } else if constexpr (requires { e.view; }) {
        visit(e.view);
    }
}

/// The product in an elementwise chain that holds just one of shape S.
template <class S, class E>
const auto& find_product(const E& e) {
    if constexpr (requires { e.operands; }) {
        return [&]<class F, class... Operands, std::size_t... I>(const Apply<F, Operands...>& node,
                                                                std::index_sequence<I...>) -> const auto& {
            constexpr std::size_t position = ((products_of_shape<S, Operands> == 1 ? I : 0) + ...);
            return find_product<S>(std::get<position>(node.operands));
        }(e, std::make_index_sequence<std::tuple_size_v<decltype(e.operands)>>{});
    } else {
        return e;
    }
}

/// The chain with its product replaced by the memory the product is computed into.
template <class S, class E, class Target>
auto prepare_around_product(const E& e, ValueTape& tape, const Target& target) {
    if constexpr (products_of_shape<S, E> == 0) {
        return prepare(e, tape);
    } else if constexpr (requires { e.operands; }) {
        return [&]<class F, class... Operands>(const Apply<F, Operands...>& node) {
            return std::apply(
                [&](const auto&... operand) { return apply<F>(prepare_around_product<S>(operand, tape, target)...); },
                node.operands);
        }(e);
    } else {
        return target;
    }
}

/// Applies a chain to finished blocks of a product. The chain's type is erased so that a program compiles the product
/// once, not once for every chain it has.
struct ChainEpilogue {
    const void* chain;
    void (*apply)(const void* chain, std::size_t row, std::size_t last_row, std::size_t first, std::size_t last);

    void operator()(std::size_t row, std::size_t last_row, std::size_t first, std::size_t last) const {
        apply(chain, row, last_row, first, last);
    }
};

template <class T, class S, class E>
void compute_through_product(const View<T, S>& out, const E& e) {
    ValueTape tape;
    const auto& product = find_product<S>(e);
    const auto a = factor_of(product.a, tape);
    const auto b = factor_of(product.b, tape);
    const auto multiply = [&](const auto& epilogue) {
        kernels::gemm<T>(out.extent(0), out.extent(1), product.a.extents()[1], a.operand(), b.operand(), out.data(),
                         out.extent(1), false, epilogue);
    };
    if constexpr (!requires { e.operands; }) {
        multiply(kernels::NoEpilogue{});
    } else {
        const auto chain = prepare_around_product<S>(e, tape, Leaf<T, S>(out));
        const auto write_block = [&](std::size_t row, std::size_t last_row, std::size_t first, std::size_t last) {
            for (; row < last_row; ++row) {
                write_row<T>(chain.cursor(Extents<2>{{row, 0}}), out.data() + row * out.extent(1), first, last);
            }
        };
        multiply(ChainEpilogue{&write_block, [](const void* erased, auto... block) {
                                   (*static_cast<const decltype(write_block)*>(erased))(block...);
                               }});
    }
}

}  // namespace detail

/// out = e for an elementwise chain around one matrix product of out's shape: the chain is applied to each block of the
/// product while it is in the cache, or apart from out where out overlaps a tensor of the chain.
template <class T, class S, class E>
void assign_through_product(const View<T, S>& out, const E& e) {
    bool overlaps = false;
    detail::visit_leaves(e, [&](const auto& view) {
        const auto* first = reinterpret_cast<const std::byte*>(view.data());
        const auto* begin = reinterpret_cast<const std::byte*>(out.data());
        overlaps = overlaps || (first < begin + out.size() * sizeof(T) && begin < first + view.size() * sizeof(*view.data()));
    });
    if (overlaps) {
        Tensor<T, S> apart(out.extents());
        detail::compute_through_product(apart.view(), e);
        std::copy_n(apart.data(), apart.size(), out.data());
    } else {
        detail::compute_through_product(out, e);
    }
}

template <class A, class B>
struct Rule<Product<A, B>> {
    using T = typename Product<A, B>::element;

    decltype(detail::factor_of(std::declval<const A&>(), std::declval<ValueTape&>())) a;
    decltype(detail::factor_of(std::declval<const B&>(), std::declval<ValueTape&>())) b;
    std::size_t rows, columns, inner;

    template <bool Gradients>
    Rule(const Product<A, B>& node, BasicTape<Gradients>& tape)
        : a(detail::factor_of(node.a, tape)),
          b(detail::factor_of(node.b, tape)),
          rows(node.a.extents()[0]),
          columns(node.b.extents()[1]),
          inner(node.a.extents()[1]) {}

    bool wants_gradient() const { return tandem::wants_gradient(a.leaf) || tandem::wants_gradient(b.leaf); }

    template <class Out>
    void forward(Out& out) const {
        kernels::gemm<T>(rows, columns, inner, a.operand(), b.operand(), out.data(), columns);
    }

    template <class Value>
    void backward(const Value&, const Value& gradient) const {
        const auto g = kernels::row_major(gradient.data(), columns);
        detail::add_product(a, g, b.operand().transposed(), columns);
        detail::add_product(b, a.operand().transposed(), g, rows);
    }
};

template <class E>
struct Rule<Materialised<E>> {
    decltype(prepare(std::declval<const E&>(), std::declval<ValueTape&>())) operand;

    template <bool Gradients>
    Rule(const Materialised<E>& node, BasicTape<Gradients>& tape) : operand(prepare(node.operand, tape)) {}

    bool wants_gradient() const { return tandem::wants_gradient(operand); }

    template <class Out>
    void forward(Out& out) const {
        detail::write(out.view(), operand);
    }

    template <class Value>
    void backward(const Value&, const Value& gradient) const {
        propagate(operand, Leaf<typename Value::element, typename Value::shape>(gradient.view()));
    }
};

/// What the rules of nodes that pick or permute elements of one operand in memory share.
template <class E>
struct InMemoryRule {
    decltype(detail::in_memory(std::declval<const E&>(), std::declval<ValueTape&>())) operand;

    template <bool Gradients>
    InMemoryRule(const E& e, BasicTape<Gradients>& tape) : operand(detail::in_memory(e, tape)) {}

    bool wants_gradient() const { return tandem::wants_gradient(operand); }
};

template <class E>
struct Rule<Transposed<E>> : InMemoryRule<E> {
    template <bool Gradients>
    Rule(const Transposed<E>& node, BasicTape<Gradients>& tape) : InMemoryRule<E>(node.operand, tape) {}

    template <class Out>
    void forward(Out& out) const {
        for (std::size_t i = 0; i < out.extent(0); ++i) {
            for (std::size_t j = 0; j < out.extent(1); ++j) out(i, j) = this->operand.view(j, i);
        }
    }

    template <class Value>
    void backward(const Value&, const Value& gradient) const {
        auto& target = this->operand.adjoint->dense();
        for (std::size_t i = 0; i < gradient.extent(0); ++i) {
            for (std::size_t j = 0; j < gradient.extent(1); ++j) target(j, i) += gradient(i, j);
        }
    }
};

template <class E>
struct Rule<Diagonal<E>> : InMemoryRule<E> {
    template <bool Gradients>
    Rule(const Diagonal<E>& node, BasicTape<Gradients>& tape) : InMemoryRule<E>(node.operand, tape) {}

    template <class Out>
    void forward(Out& out) const {
        for (std::size_t i = 0; i < out.size(); ++i) out(i) = this->operand.view(i, i);
    }

    template <class Value>
    void backward(const Value&, const Value& gradient) const {
        auto& target = this->operand.adjoint->dense();
        for (std::size_t i = 0; i < gradient.size(); ++i) target(i, i) += gradient(i);
    }
};

template <class E, std::size_t Count>
struct Rule<FirstColumns<E, Count>> : InMemoryRule<E> {
    template <bool Gradients>
    Rule(const FirstColumns<E, Count>& node, BasicTape<Gradients>& tape) : InMemoryRule<E>(node.operand, tape) {}

    template <class Out>
    void forward(Out& out) const {
        for (std::size_t i = 0; i < out.extent(0); ++i) {
            for (std::size_t j = 0; j < Count; ++j) out(i, j) = this->operand.view(i, j);
        }
    }

    template <class Value>
    void backward(const Value&, const Value& gradient) const {
        auto& target = this->operand.adjoint->dense();
        for (std::size_t i = 0; i < gradient.extent(0); ++i) {
            for (std::size_t j = 0; j < Count; ++j) target(i, j) += gradient(i, j);
        }
    }
};

template <class E, class Ids>
struct Rule<Gathered<E, Ids>> : InMemoryRule<E> {
    View<const Id, Ids> ids;

    template <bool Gradients>
    Rule(const Gathered<E, Ids>& node, BasicTape<Gradients>& tape) : InMemoryRule<E>(node.operand, tape), ids(node.ids) {}

    template <class Out>
    void forward(Out& out) const {
        for (std::size_t i = 0; i < out.size(); ++i) out(i) = this->operand.view(i, ids(i));
    }

    template <class Value>
    void backward(const Value&, const Value& gradient) const {
        auto& target = this->operand.adjoint->dense();
        for (std::size_t i = 0; i < gradient.size(); ++i) target(i, ids(i)) += gradient(i);
    }
};

/// The mean over rows of −log softmax(logits)[target], for logits <N, C>. The target is `diagonal` (row i's class is i)
/// or a tensor of ids <N>.
template <TensorOperand X>
auto cross_entropy(X&& logits, functions::TakeDiagonal) {
    const auto e = as_expression(std::forward<X>(logits));
    return mean(log_sum_exp<1>(e) - diagonal(e));
}
template <TensorOperand X, class I>
    requires std::convertible_to<const I&, View<const Id, typename I::shape>>
auto cross_entropy(X&& logits, const I& targets) {
    const auto e = as_expression(std::forward<X>(logits));
    return mean(log_sum_exp<1>(e) - gather(e, targets));
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/losses/contrastive.hpp ----

// Contrastive losses as expressions over two embedding matrices, and how losses compose.

namespace tandem::inline TANDEM_ABI {

/// What the library's losses derive from, so that they can be added and weighted. A loss is called with the normalised
/// embeddings image <N, D> and text <N, D>, the scale <> (the exponential of the learned logit scale) and, if it takes a
/// fourth argument, the learned bias <>; it returns a scalar expression. A lambda does too; Loss{lambda} composes.
struct LossNode {};

template <class L>
concept ComposableLoss = std::derived_from<L, LossNode>;

/// Calls a loss with the bias if it takes one.
template <class L, class Image, class Text, class Scale, class Bias>
auto call_loss(const L& loss, const Image& image, const Text& text, const Scale& scale, const Bias& bias) {
    if constexpr (std::invocable<const L&, const Image&, const Text&, const Scale&, const Bias&>) {
        return loss(image, text, scale, bias);
    } else {
        return loss(image, text, scale);
    }
}

// Both losses scale the image embeddings, not the logits, as open_clip does: fewer products, and derivatives of the logits
// that are simpler to compile.

/// Symmetric cross-entropy over scaled cosine similarities: InfoNCE in both directions (Radford et al. 2021, fig. 3;
/// open_clip/loss.py, ClipLoss).
struct InfoNce : LossNode {
    auto operator()(const auto& image, const auto& text, const auto& scale) const {
        const auto logits = matmul(scale * image, transpose(text));
        // Both cross-entropies subtract the same diagonal, and none needs the transpose.
        return mean(0.5 * (log_sum_exp<1>(logits) + log_sum_exp<0>(logits)) - diagonal(logits));
    }
};

/// −1/N Σᵢⱼ log σ(zᵢⱼ (scale · xᵢ·yⱼ + bias)), z = 1 on the diagonal and −1 elsewhere (Zhai et al. 2023, alg. 1;
/// open_clip/loss.py, SigLipLoss). Since log σ(l) = log σ(−l) + l, the diagonal needs no second matrix.
struct SigmoidLoss : LossNode {
    auto operator()(const auto& image, const auto& text, const auto& scale, const auto& bias) const {
        const auto logits = matmul(scale * image, transpose(text)) + bias;
        const double count = static_cast<double>(image.extents()[0]);
        return (sum(softplus(logits)) - sum(diagonal(logits))) * (1.0 / count);
    }
};

/// A user's own loss, made to compose: Loss{[](auto image, auto text, auto scale) { ... }}.
template <class F>
struct Loss : LossNode {
    F function;

    explicit Loss(F f) : function(std::move(f)) {}

    // Template parameters by name: g++ 12 crashes on nested constraints over the types of `const auto&` parameters.
    template <class Image, class Text, class... Learned>
        requires std::invocable<const F&, const Image&, const Text&, const Learned&...>
    auto operator()(const Image& image, const Text& text, const Learned&... learned) const {
        return function(image, text, learned...);
    }
};

/// weight · loss; takes a bias if the loss does.
template <ComposableLoss L>
struct WeightedLoss : LossNode {
    double weight;
    L loss;

    WeightedLoss(double factor, L weighted) : weight(factor), loss(std::move(weighted)) {}

    template <class Image, class Text, class... Learned>
        requires std::invocable<const L&, const Image&, const Text&, const Learned&...>
    auto operator()(const Image& image, const Text& text, const Learned&... learned) const {
        return weight * loss(image, text, learned...);
    }
};

/// a + b; takes a bias if one of them does.
template <ComposableLoss A, ComposableLoss B>
struct SummedLoss : LossNode {
    A a;
    B b;

    SummedLoss(A first, B second) : a(std::move(first)), b(std::move(second)) {}

    template <class Image, class Text, class Scale>
        requires std::invocable<const A&, const Image&, const Text&, const Scale&> &&
                 std::invocable<const B&, const Image&, const Text&, const Scale&>
    auto operator()(const Image& image, const Text& text, const Scale& scale) const {
        return a(image, text, scale) + b(image, text, scale);
    }
    template <class Image, class Text, class Scale, class Bias>
        requires std::invocable<const A&, const Image&, const Text&, const Scale&, const Bias&> ||
                 std::invocable<const B&, const Image&, const Text&, const Scale&, const Bias&>
    auto operator()(const Image& image, const Text& text, const Scale& scale, const Bias& bias) const {
        return call_loss(a, image, text, scale, bias) + call_loss(b, image, text, scale, bias);
    }
};

template <ComposableLoss A, ComposableLoss B>
auto operator+(A a, B b) {
    return SummedLoss<A, B>(std::move(a), std::move(b));
}

template <ComposableLoss L>
auto operator*(std::convertible_to<double> auto weight, L loss) {
    return WeightedLoss<L>(static_cast<double>(weight), std::move(loss));
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/losses/matryoshka.hpp ----

// One loss over nested prefixes of the embeddings, so that each prefix is an embedding of its own.

namespace tandem::inline TANDEM_ABI {

/// Σ over the lengths d of loss(first d elements, normalised again): Kusupati et al. 2022, eq. 1, with every weight 1.
/// Takes a bias if the loss does. It trains the lengths it names: name the whole embedding's too. Made by matryoshka().
template <ComposableLoss L, std::size_t... Lengths>
struct Matryoshka : LossNode {
    static_assert(sizeof...(Lengths) > 0, "tandem: matryoshka needs at least one length");
    L loss;

    explicit Matryoshka(L of_each) : loss(std::move(of_each)) {}

    template <class Image, class Text, class... Learned>
        requires std::invocable<const L&, const Image&, const Text&, const Learned&...>
    auto operator()(const Image& image, const Text& text, const Learned&... learned) const {
        constexpr bool fits = ((Lengths <= Image::shape::extents[1]) && ...);
        static_assert(fits, "tandem: a length of matryoshka is at most the embedding's");
        if constexpr (fits) {
            return (loss(normalize(first_columns<Lengths>(image)), normalize(first_columns<Lengths>(text)), learned...) +
                    ...);
        } else {
            return loss(image, text, learned...);
        }
    }
};

/// matryoshka<64, 128, 256>(InfoNce{}): a loss for embeddings that may be cut to 64 or 128 elements (see truncated).
template <std::size_t... Lengths, ComposableLoss L>
auto matryoshka(L loss) {
    return Matryoshka<L, Lengths...>(std::move(loss));
}

/// The first Length elements of every embedding, normalised again: what a model trained with matryoshka() is searched by
/// where memory or time is short.
template <std::size_t Length, TensorOperand X>
auto truncated(const X& embeddings) {
    return evaluate(normalize(first_columns<Length>(embeddings)));
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/tensor/gradient.hpp ----

// Reverse-mode gradients of a scalar expression, derived from its type.

namespace tandem::inline TANDEM_ABI {

/// What value_and_gradient returns: the value, and a tensor of every named tensor's own shape.
template <class T, class... Tensors>
struct ValueAndGradient {
    T value;
    std::tuple<Tensors...> gradients;
};

namespace detail {

template <Expression E, TensorOperand... Xs>
auto differentiate(const E& e, const Xs&... tensors) {
    using T = typename E::element;
    std::tuple<Adjoint<typename Xs::element, typename Xs::shape>...> adjoints(tensors.extents()...);
    Tape tape;
    std::apply(
        [&](auto&... adjoint) { (tape.want(View<const typename Xs::element, typename Xs::shape>(tensors), adjoint), ...); },
        adjoints);
    const auto root = prepare(e, tape);
    if (const std::ptrdiff_t unmet = tape.first_unmet(); unmet >= 0) {
        throw Error("gradient", "tensor " + std::to_string(unmet) + " to occur in the expression", "none of its memory");
    }
    Tensor<T, Shape<>> value;
    detail::write(value.view(), root);
    propagate(root, Constant(1.0));
    tape.backward();
    return std::apply(
        [&](auto&... adjoint) {
            return ValueAndGradient<T, std::remove_reference_t<decltype(adjoint.value)>...>{
                value.item(), {std::move(adjoint.value)...}};
        },
        adjoints);
}

}  // namespace detail

/// The value of the scalar expression e and its gradients with respect to `tensors` (tensors or views that occur in e,
/// told apart by the memory they stand in). What both the value and a gradient need is computed once. Throws Error if a
/// tensor does not occur in e.
template <Expression E, TensorOperand... Xs>
auto value_and_gradient(const E& e, const Xs&... tensors) {
    constexpr bool is_scalar = E::shape::rank == 0;
    constexpr bool are_real = (Real<typename Xs::element> && ...);
    static_assert(is_scalar, "tandem: only a scalar expression has a gradient; reduce it with sum or mean");
    static_assert(are_real, "tandem: gradients are taken with respect to float or double tensors");
    if constexpr (is_scalar && are_real) {
        return detail::differentiate(e, tensors...);
    } else {
        return ValueAndGradient<typename E::element, Xs...>{};
    }
}

/// The gradients alone: one tensor, or a tuple where several are asked for.
template <Expression E, TensorOperand... Xs>
auto gradient(const E& e, const Xs&... tensors) {
    auto result = value_and_gradient(e, tensors...);
    if constexpr (sizeof...(Xs) == 1) {
        return std::get<0>(std::move(result.gradients));
    } else {
        return std::move(result.gradients);
    }
}

namespace detail {

/// Whether an expression is a chain of elementwise functions of what stands in memory.
template <class E>
inline constexpr bool is_elementwise = requires(const E& e) { e.cursor(WholeTensor{}); };
template <class F, class... Operands>
inline constexpr bool is_elementwise<Apply<F, Operands...>> = (is_elementwise<Operands> && ...);

/// No gradient flows here.
struct Nothing {};

template <class A, class B>
auto add_parts(const A& a, const B& b) {
    if constexpr (std::same_as<A, Nothing>) {
        return b;
    } else if constexpr (std::same_as<B, Nothing>) {
        return a;
    } else {
        return a + b;
    }
}

}  // namespace detail

/// The gradient with respect to the Variable in the elementwise expression `e`, as an expression, given the gradient g of
/// e: one fused pass computes it.
template <class E, Expression G>
auto elementwise_gradient(const E& e, const G& g) {
    if constexpr (requires { e.operands; }) {
        return [&]<class F, class... Operands, std::size_t... I>(const Apply<F, Operands...>& node,
                                                                std::index_sequence<I...>) {
            const auto part = [&]<std::size_t J>(std::integral_constant<std::size_t, J>) {
                const auto& operand = std::get<J>(node.operands);
                if constexpr (std::same_as<decltype(elementwise_gradient(operand, g)), detail::Nothing>) {
                    return detail::Nothing{};
                } else {
                    return elementwise_gradient(
                        operand,
                        std::apply([&](const auto&... all) { return F::template backward<J>(g, all...); }, node.operands));
                }
            };
            if constexpr (sizeof...(I) == 1) {
                return part(std::integral_constant<std::size_t, 0>{});
            } else {
                static_assert(sizeof...(I) == 2);
                return detail::add_parts(part(std::integral_constant<std::size_t, 0>{}),
                                         part(std::integral_constant<std::size_t, 1>{}));
            }
        }(e, std::make_index_sequence<std::tuple_size_v<decltype(e.operands)>>{});
    } else {
        static_assert(detail::is_elementwise<E>, "tandem: reductions, products and transposes have no elementwise gradient");
        if constexpr (requires { typename E::is_variable; }) {
            return g;
        } else {
            return detail::Nothing{};
        }
    }
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/nn/activation.hpp ----

// Activations: functions over expressions, named in a config by value.

namespace tandem::inline TANDEM_ABI {

/// x · Φ(x), Φ the normal distribution function (Hendrycks, Gimpel 2016): torch.nn.GELU().
struct Gelu {
    auto operator()(auto x) const { return 0.5 * x * (1.0 + erf(x * (1.0 / std::numbers::sqrt2))); }
};

/// x · σ(1.702 x): the weights OpenAI published expect it (CLIP/clip/model.py:166-168).
struct QuickGelu {
    auto operator()(auto x) const { return x * sigmoid(1.702 * x); }
};

/// The tanh approximation of GELU: torch.nn.GELU(approximate="tanh").
struct TanhGelu {
    auto operator()(auto x) const {
        constexpr double root = std::numbers::sqrt2 * std::numbers::inv_sqrtpi;
        return 0.5 * x * (1.0 + tanh(root * (x + 0.044715 * (x * x * x))));
    }
};

/// x · σ(x): torch.nn.SiLU(), Swish.
struct Silu {
    auto operator()(auto x) const { return x * sigmoid(x); }
};

/// max(0, x)² (So et al. 2021, Primer).
struct SquaredRelu {
    auto operator()(auto x) const { return square(relu(x)); }
};

namespace nn {

/// The kernels' name of an activation that they know; any other is evaluated as an expression.
template <class Activation>
inline constexpr kernels::Activation kernel_activation = kernels::Activation::none;
template <>
inline constexpr kernels::Activation kernel_activation<Gelu> = kernels::Activation::gelu;
template <>
inline constexpr kernels::Activation kernel_activation<QuickGelu> = kernels::Activation::quick_gelu;
template <>
inline constexpr kernels::Activation kernel_activation<TanhGelu> = kernels::Activation::tanh_gelu;
template <>
inline constexpr kernels::Activation kernel_activation<Silu> = kernels::Activation::silu;
template <>
inline constexpr kernels::Activation kernel_activation<SquaredRelu> = kernels::Activation::squared_relu;

namespace detail {

/// Elements a task of an activation has at least.
inline constexpr std::size_t activation_grain = 16384;

template <Real T>
using ActivationInput = Variable<T, Shape<dynamic>>;

template <class Activation, Real T>
auto activated(const Activation& activation, const ActivationInput<T>& input) {
    constexpr bool fits = tandem::detail::is_elementwise<decltype(activation(input))>;
    static_assert(fits,
                  "tandem: an activation must be elementwise: reductions, products and transposes cannot stand in it");
    if constexpr (fits) {
        return activation(input);
    } else {
        return input;
    }
}

}  // namespace detail

/// y = activation(x) for `size` elements, in one pass. An activation is any callable that takes an expression and
/// returns an elementwise one, such as a captureless lambda [](auto x) { return x * sigmoid(x); }.
template <class Activation, Real T>
void activate(const Activation& activation, const T* x, T* y, std::size_t size) {
    constexpr kernels::Activation kind = kernel_activation<Activation>;
    if constexpr (kind != kernels::Activation::none) {
        parallel_for(size, detail::activation_grain, [&](std::size_t begin, std::size_t end) {
            kernels::active<T>().activate(kind, x + begin, y + begin, end - begin);
        });
    } else {
        const detail::ActivationInput<T> input(View<const T, Shape<dynamic>>(x, {{size}}));
        tandem::detail::write(View<T, Shape<dynamic>>(y, {{size}}), detail::activated(activation, input));
    }
}

/// In place g = g · activation'(x); the derivative comes from the expression.
template <class Activation, Real T>
void activate_backward(const Activation& activation, const T* x, T* g, std::size_t size) {
    constexpr kernels::Activation kind = kernel_activation<Activation>;
    if constexpr (kind != kernels::Activation::none) {
        parallel_for(size, detail::activation_grain, [&](std::size_t begin, std::size_t end) {
            kernels::active_gradients<T>().activate_backward(kind, x + begin, g + begin, end - begin);
        });
    } else {
        const detail::ActivationInput<T> input(View<const T, Shape<dynamic>>(x, {{size}}));
        const Leaf<T, Shape<dynamic>> upstream(View<const T, Shape<dynamic>>(g, {{size}}));
        tandem::detail::write(View<T, Shape<dynamic>>(g, {{size}}),
                              elementwise_gradient(detail::activated(activation, input), upstream));
    }
}

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/kernels/attention.hpp ----

// Scaled dot-product attention over ragged sequences, one (sequence, head) at a time.

namespace tandem::inline TANDEM_ABI::kernels {

/// What attention works on: sequence s owns the rows offsets[s] to offsets[s + 1]. A query row holds `heads` heads of
/// head_width adjacent elements, a row of keys or values `kv_heads` of them: query head h reads key head h / (heads /
/// kv_heads) (Ainslie et al. 2023, grouped queries).
struct AttentionShape {
    std::span<const std::size_t> offsets;
    std::size_t heads;
    std::size_t kv_heads;
    std::size_t head_width;
    bool causal;
    /// Where queries stand: empty, all rows have one; else one row in every sequence, and row s of q is its query.
    std::span<const std::size_t> picked = {};

    std::size_t width() const { return heads * head_width; }
    std::size_t sequences() const { return offsets.size() - 1; }
};

/// Queries, keys and values, each in rows of its own stride: one matrix may hold them side by side.
template <class T>
struct AttentionOperands {
    T* q;
    std::size_t q_stride;
    T* k;
    std::size_t k_stride;
    T* v;
    std::size_t v_stride;
};

namespace detail {

template <Real T>
struct AttentionScratch {
    Buffer<T> weights, gradient;
};

/// softmax(q · kᵀ / sqrt(head_width)) of one head into weights[queries, length], for queries that stand at the
/// positions from `position` on; entries a causal mask hides are zero.
template <Real T>
void attention_weights(const AttentionShape& shape, std::size_t queries, std::size_t position, std::size_t length,
                       const Operand<T>& q, const Operand<T>& k, T* weights) {
    const KernelSet<T>& set = active<T>();
    gemm_serial(queries, length, shape.head_width, q, k.transposed(), weights, length);
    const T scale = T{1} / std::sqrt(static_cast<T>(shape.head_width));
    for (std::size_t i = 0; i < queries; ++i) {
        const std::size_t visible = shape.causal ? position + i + 1 : length;
        set.softmax(weights + i * length, visible, scale);
        std::fill(weights + i * length + visible, weights + (i + 1) * length, T{0});
    }
}

/// The gradients of one head for its queries: dq, dk and dv (added to where `accumulate` is set), given the weights and
/// dout; `gradient` is scratch of the weights' size.
template <Real T>
void attention_head_backward(const AttentionShape& shape, std::size_t queries, std::size_t position, std::size_t length,
                             const Operand<T>& q, const Operand<T>& k, const Operand<T>& v, const Operand<T>& dout,
                             const T* weights, T* gradient, Target<T> dq, Target<T> dk, Target<T> dv,
                             bool accumulate) {
    const GradientKernels<T>& set = active_gradients<T>();
    const T scale = T{1} / std::sqrt(static_cast<T>(shape.head_width));
    const Operand<T> w = row_major(weights, length), g = row_major<T>(gradient, length);
    gemm_serial(length, shape.head_width, queries, w.transposed(), dout, dv.data, dv.row_stride, accumulate);
    gemm_serial(queries, length, shape.head_width, dout, v.transposed(), gradient, length);
    for (std::size_t i = 0; i < queries; ++i) {
        const std::size_t visible = shape.causal ? position + i + 1 : length;
        set.softmax_backward(weights + i * length, gradient + i * length, visible, scale);
        std::fill(gradient + i * length + visible, gradient + (i + 1) * length, T{0});
    }
    gemm_serial(queries, shape.head_width, length, g, k, dq.data, dq.row_stride);
    gemm_serial(length, shape.head_width, queries, g.transposed(), q, dk.data, dk.row_stride, accumulate);
}

/// The rows of one sequence: its keys, and its queries.
struct AttentionRows {
    std::size_t first, length;       ///< of keys and values
    std::size_t query, queries;      ///< of q and of the result
    std::size_t position;            ///< of the first query, in the sequence
};

/// Calls body(rows, head) for every sequence and `heads` heads, in parallel.
template <class Body>
void for_each_head(const AttentionShape& shape, std::size_t heads, const Body& body) {
    parallel_for(shape.sequences() * heads, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t task = begin; task < end; ++task) {
            const std::size_t s = task / heads, first = shape.offsets[s], length = shape.offsets[s + 1] - first;
            if (length == 0) continue;
            const bool all = shape.picked.empty();
            body(AttentionRows{first, length, all ? first : s, all ? length : 1, all ? 0 : shape.picked[s] - first},
                 task % heads);
        }
    });
}

template <Real T>
AttentionScratch<T>& attention_scratch() {
    thread_local AttentionScratch<T> scratch;
    return scratch;
}

}  // namespace detail

/// out = softmax(q · kᵀ / sqrt(head_width)) · v for every head (Vaswani et al. 2017, eq. 1), in rows of `out_stride`. A
/// picked row gets the bits it gets among all.
template <Real T>
void attention(const AttentionShape& shape, const AttentionOperands<const T>& in, T* out, std::size_t out_stride) {
    const std::size_t group = shape.heads / shape.kv_heads;
    detail::for_each_head(shape, shape.heads, [&](const detail::AttentionRows& rows, std::size_t head) {
        const std::size_t column = head * shape.head_width, kv_column = head / group * shape.head_width;
        Buffer<T>& weights = detail::attention_scratch<T>().weights;
        weights.resize(rows.queries * rows.length);
        detail::attention_weights(shape, rows.queries, rows.position, rows.length,
                                  row_major(in.q + rows.query * in.q_stride + column, in.q_stride),
                                  row_major(in.k + rows.first * in.k_stride + kv_column, in.k_stride), weights.data());
        gemm_serial<T>(rows.queries, shape.head_width, rows.length, row_major<T>(weights.data(), rows.length),
                       row_major(in.v + rows.first * in.v_stride + kv_column, in.v_stride),
                       out + rows.query * out_stride + column, out_stride);
    });
}

/// The gradients of attention()'s operands, given them and dout. The weights are computed again, not kept.
template <Real T>
void attention_backward(const AttentionShape& shape, const AttentionOperands<const T>& in, const T* dout,
                        std::size_t dout_stride, const AttentionOperands<T>& gradient) {
    const std::size_t group = shape.heads / shape.kv_heads;
    // A task is a key head: the query heads that read it add up in order.
    detail::for_each_head(shape, shape.kv_heads, [&](const detail::AttentionRows& rows, std::size_t kv_head) {
        detail::AttentionScratch<T>& scratch = detail::attention_scratch<T>();
        scratch.weights.resize(rows.queries * rows.length);
        scratch.gradient.resize(rows.queries * rows.length);
        const std::size_t kv_column = kv_head * shape.head_width;
        const Operand<T> keys = row_major(in.k + rows.first * in.k_stride + kv_column, in.k_stride),
                         values = row_major(in.v + rows.first * in.v_stride + kv_column, in.v_stride);
        for (std::size_t member = 0; member < group; ++member) {
            const std::size_t column = (kv_head * group + member) * shape.head_width;
            const Operand<T> queries = row_major(in.q + rows.query * in.q_stride + column, in.q_stride);
            detail::attention_weights(shape, rows.queries, rows.position, rows.length, queries, keys,
                                      scratch.weights.data());
            detail::attention_head_backward(
                shape, rows.queries, rows.position, rows.length, queries, keys, values,
                row_major(dout + rows.query * dout_stride + column, dout_stride), scratch.weights.data(),
                scratch.gradient.data(),
                Target<T>{gradient.q + rows.query * gradient.q_stride + column, gradient.q_stride, 0},
                Target<T>{gradient.k + rows.first * gradient.k_stride + kv_column, gradient.k_stride, 0},
                Target<T>{gradient.v + rows.first * gradient.v_stride + kv_column, gradient.v_stride, 0}, member > 0);
        }
    });
}

}  // namespace tandem::inline TANDEM_ABI::kernels

// ---- tandem/kernels/dense.hpp ----

// The products of dense layers and their gradients: weights in panels, in every arithmetic.

namespace tandem::inline TANDEM_ABI::kernels {

/// Rows of a matrix that lie `stride` elements apart, at least as many as are in use.
template <class T>
struct StridedRows {
    T* data;
    std::size_t stride;

    T* row(std::size_t i) const { return data + i * stride; }
};

/// How long to make rows of `width` elements: so that they do not lie a multiple of 4096 bytes apart, where products
/// would have to copy them (reads_in_place).
template <class T>
constexpr std::size_t row_length(std::size_t width) {
    return width * sizeof(T) % 4096 == 0 ? width + line / sizeof(T) : width;
}

/// The layout that weights of type T are kept in.
template <Arithmetic T>
PanelLayout weight_layout() {
    if constexpr (std::same_as<T, bfloat16>) {
        return layout_of(active_reduced().widened);
    } else if constexpr (std::same_as<T, int8>) {
        return layout_of(active_reduced().bytes);
    } else {
        return layout_of(active<Compute<T>>().tile);
    }
}

namespace detail {

/// x[m, in] in memory of the calling thread, each row through convert(row, from, to), zeros up to a multiple of
/// `group`.
template <class To, class From, class Convert>
Operand<To> with_padded_rows(std::size_t m, std::size_t in, std::size_t group, const StridedRows<const From>& x,
                             const Convert& convert) {
    const std::size_t stride = round_up(in, group);
    Buffer<To>& rows = gemm_scratch<To>().rows;
    rows.resize(m * stride);
    parallel_for(m, std::max<std::size_t>(1, 16384 / in), [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            convert(i, x.row(i), rows.data() + i * stride);
            std::fill_n(rows.data() + i * stride + in, stride - in, To{});
        }
    });
    return row_major(std::as_const(rows).data(), stride);
}

}  // namespace detail

/// Whether products of T meet pairs of bfloat16: where the CPU has them, and they are faster than float32.
template <Arithmetic T>
bool multiplies_pairs() {
    constexpr bool rounds = std::same_as<T, bfloat16> || std::same_as<T, amp_bf16>;
    return rounds && active_reduced().pairs.multiply != nullptr;
}

namespace detail {

/// x[m, in] rounded to bfloat16, in memory of the calling thread.
inline Operand<bfloat16> narrow_rows(std::size_t m, std::size_t in, const StridedRows<const float>& x) {
    const ReducedKernels& reduced = active_reduced();
    return with_padded_rows<bfloat16>(m, in, reduced.pairs.group, x, [&](std::size_t, const float* from, bfloat16* to) {
        reduced.narrow(from, to, in);
    });
}

/// xᵀ[in, m] rounded to bfloat16, in the same memory.
inline Operand<bfloat16> narrow_transposed(std::size_t m, std::size_t in, const StridedRows<const float>& x) {
    constexpr std::size_t side = 64;
    const ReducedKernels& reduced = active_reduced();
    const std::size_t stride = round_up(m, reduced.pairs.group);
    Buffer<bfloat16>& rows = gemm_scratch<bfloat16>().rows;
    rows.resize(in * stride);
    parallel_for((in + side - 1) / side, 1, [&](std::size_t begin, std::size_t end) {
        alignas(line) std::array<float, side * side> block;
        for (std::size_t column = begin * side; column < std::min(end * side, in); column += side) {
            const std::size_t columns = std::min(side, in - column);
            for (std::size_t row = 0; row < m; row += side) {
                const std::size_t height = std::min(side, m - row);
                active<float>().transpose(x.row(row) + column, x.stride, height, columns, block.data(), side);
                for (std::size_t j = 0; j < columns; ++j) {
                    reduced.narrow(block.data() + j * side, rows.data() + (column + j) * stride + row, height);
                }
            }
            for (std::size_t j = column; j < column + columns; ++j) {
                std::fill_n(rows.data() + j * stride + m, stride - m, bfloat16{0});
            }
        }
    });
    return row_major(std::as_const(rows).data(), stride);
}

/// `rows` rows of `filled` floats as pairs of one panel of `width` columns, zeros behind the last column and row.
inline void narrow_into_panel(std::size_t rows, std::size_t filled, const float* from, std::size_t stride,
                              std::size_t width, bfloat16* panel) {
    static constexpr std::array<float, widest_panel> zeros{};
    const ReducedKernels& reduced = active_reduced();
    for (std::size_t row = 0; row < rows; row += 2, panel += 2 * width) {
        reduced.narrow_pairs(from + row * stride, row + 1 < rows ? from + (row + 1) * stride : zeros.data(), panel,
                             filled);
        std::fill_n(panel + 2 * filled, 2 * (width - filled), bfloat16{0});
    }
}

/// Floats b[k, n] as panels of pairs, in memory of the calling thread. Rows lie `stride` elements apart, and what
/// becomes one panel begins `panel_step` elements behind what becomes the one before: for a row-major matrix, a panel's
/// width.
inline const bfloat16* narrow_panels(std::size_t k, std::size_t n, const float* b, std::size_t stride,
                                     std::size_t panel_step) {
    const PanelLayout layout = layout_of(active_reduced().pairs);
    Buffer<bfloat16>& panels = gemm_scratch<bfloat16>().right;
    panels.resize(layout.size(k, n));
    parallel_for((n + layout.width - 1) / layout.width, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t panel = begin; panel < end; ++panel) {
            narrow_into_panel(k, std::min(layout.width, n - panel * layout.width), b + panel * panel_step, stride,
                              layout.width, panels.data() + panel * layout.panel_size(k));
        }
    });
    return panels.data();
}

}  // namespace detail

/// y[m, out] = x[m, in] · weightᵀ, then what `finish` says; x and y are row-major, the weight in its layout. Where the
/// CPU multiplies pairs of bfloat16, a bfloat16 weight meets x rounded to it, and an amp_bf16 weight is rounded as
/// well; elsewhere both are multiplied as they are. Sums are float32 then.
template <Arithmetic T>
void dense(std::size_t m, std::size_t out, std::size_t in, const StridedRows<const Compute<T>>& x,
           const Stored<T>* weight, const StridedRows<Compute<T>>& y, const Finish<Compute<T>>& finish) {
    using C = Compute<T>;
    if (m == 0) return;
    const KernelSet<C>& set = active<C>();
    const std::size_t width = weight_layout<T>().width;
    const detail::FinishInto<C> into{set, width, Target<C>{y.data, y.stride, width}, false, finish};
    if constexpr (std::same_as<T, bfloat16>) {
        const ReducedKernels& reduced = active_reduced();
        const std::size_t group = reduced.widened.group;
        if (multiplies_pairs<T>()) {
            multiply_panels(reduced.pairs, m, out, in, detail::narrow_rows(m, in, x), weight, into);
        } else if (in % group == 0) {
            multiply_panels(reduced.widened, m, out, in, row_major(x.data, x.stride), weight, into);
        } else {
            const auto copy = [&](std::size_t, const C* from, C* to) { std::copy_n(from, in, to); };
            multiply_panels(reduced.widened, m, out, in, detail::with_padded_rows<C>(m, in, group, x, copy), weight,
                            into);
        }
    } else {
        if constexpr (std::same_as<T, amp_bf16>) {
            if (multiplies_pairs<T>()) {
                // Rounded for every product, as autocast does: a rounded copy would have to hear of each update.
                const bfloat16* const panels = detail::narrow_panels(in, out, weight, width, in * width);
                return multiply_panels(active_reduced().pairs, m, out, in, detail::narrow_rows(m, in, x), panels, into);
            }
        }
        multiply_panels(set.tile, m, out, in, row_major(x.data, x.stride), weight, into);
    }
}

/// A weight [out, in] as signed bytes: its panels, a scale for every row, and for every row and block of the depth the
/// sum of its bytes; both run on to the end of the last panel.
struct ByteWeight {
    const std::int8_t* panels;
    const float* scales;
    const std::int32_t* sums;
    std::size_t sums_stride;
};

/// y = x · weightᵀ, then what `finish` says. Every row of x is rounded to bytes with its own scale and zero point; sums
/// are exact within a block of the depth.
inline void dense_bytes(std::size_t m, std::size_t out, std::size_t in, const StridedRows<const float>& x,
                        const ByteWeight& weight, const StridedRows<float>& y, const Finish<float>& finish) {
    if (m == 0) return;
    const ReducedKernels& reduced = active_reduced();
    const TileKernel<std::uint8_t, std::int8_t, std::int32_t>& tile = reduced.bytes;
    Buffer<float>& scales = detail::gemm_scratch<float>().right;
    Buffer<std::int32_t>& zeros = detail::gemm_scratch<std::int32_t>().right;
    scales.resize(m);
    zeros.resize(m);
    const auto bytes = detail::with_padded_rows<std::uint8_t>(
        m, in, tile.group, x, [&](std::size_t row, const float* from, std::uint8_t* to) {
            reduced.quantise(from, to, in, scales.data()[row], zeros.data()[row]);
        });
    multiply_panels(tile, m, out, in, bytes, weight.panels,
                    [&](const std::int32_t* sums, std::size_t row, std::size_t rows, std::size_t column,
                        std::size_t columns, std::size_t depth_begin, bool is_last) {
                        const std::size_t block = depth_begin / (gemm_depth * tile.group);
                        const ByteProduct product{sums, scales.data() + row, zeros.data() + row, weight.scales + column,
                                                  weight.sums + block * weight.sums_stride + column};
                        reduced.finish_bytes(product, tile.columns, rows, columns, y.row(row) + column, y.stride,
                                             depth_begin > 0, is_last ? finish.at(row, column) : Finish<float>{});
                    });
}

/// The gradients of dense: dweight, in the weight's layout, += dyᵀ · x, and dx = dy · weight unless dx.data is null.
template <Trainable T>
void dense_backward(std::size_t m, std::size_t out, std::size_t in, const StridedRows<const Compute<T>>& x,
                    const Compute<T>* weight, const StridedRows<const Compute<T>>& dy,
                    const StridedRows<Compute<T>>& dx, Compute<T>* dweight) {
    using C = Compute<T>;
    if (m == 0) return;
    const PanelLayout layout = weight_layout<T>();
    const std::size_t width = layout.width;
    const Target<C> into_weight{dweight, width, layout.panel_size(in)}, into_dx{dx.data, dx.stride, width};
    // The weight's own panels run along `in`; dx needs panels that run along `out`: its square blocks, transposed.
    const auto for_each_block = [&](const auto& body) {
        parallel_for((in + width - 1) / width, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t panel = begin; panel < end; ++panel) {
                for (std::size_t row = 0; row < out; row += width) {
                    body(Operand<C>{weight + row * in + panel * width * width, width, 1},
                         std::min(width, in - panel * width), row, std::min(width, out - row), panel);
                }
            }
        });
    };
    if constexpr (std::same_as<T, amp_bf16>) {
        if (multiplies_pairs<T>()) {
            const TileKernel<bfloat16, bfloat16, float>& tile = active_reduced().pairs;
            const bfloat16* const right = detail::narrow_panels(m, out, dy.data, dy.stride, width);
            multiply_panels(tile, in, out, m, detail::narrow_transposed(m, in, x), right,
                            detail::FinishInto<C>{active<C>(), width, into_weight, true, {}});
            if (dx.data == nullptr) return;
            const PanelLayout pairs = layout_of(tile);
            Buffer<bfloat16>& panels = detail::gemm_scratch<bfloat16>().right;
            panels.resize(pairs.size(out, in));
            for_each_block(
                [&](const Operand<C>& block, std::size_t filled, std::size_t row, std::size_t rows, std::size_t panel) {
                    alignas(line) std::array<C, widest_panel * widest_panel> transposed;
                    detail::pack_panel(block, filled, rows, width, transposed.data());
                    detail::narrow_into_panel(rows, width, transposed.data(), width, width,
                                              panels.data() + panel * pairs.panel_size(out) + row * width);
                });
            multiply_panels(tile, m, in, out, detail::narrow_rows(m, out, dy), std::as_const(panels).data(),
                            detail::FinishInto<C>{active<C>(), width, into_dx, false, {}});
            return;
        }
    }
    Buffer<C>& panels = detail::gemm_scratch<C>().right;
    panels.resize(layout.size(m, out));
    pack_panels(layout, m, out, row_major(dy.data, dy.stride), panels.data());
    gemm_panels<C>(in, out, m, row_major(x.data, x.stride).transposed(), panels.data(), into_weight, true);
    if (dx.data == nullptr) return;
    panels.resize(layout.size(out, in));
    for_each_block(
        [&](const Operand<C>& block, std::size_t filled, std::size_t row, std::size_t rows, std::size_t panel) {
            detail::pack_panel(block, filled, rows, width, panels.data() + panel * out * width + row * width);
        });
    gemm_panels<C>(m, in, out, row_major(dy.data, dy.stride), panels.data(), into_dx, false);
}

/// Packs a row-major weight [out, in] into its layout.
template <Arithmetic T>
void pack_weight(std::size_t out, std::size_t in, const Stored<T>* weight, Stored<T>* panels) {
    const PanelLayout layout = weight_layout<T>();
    if (layout.group == 1) return pack_panels(layout, in, out, row_major(weight, in).transposed(), panels);
    parallel_for((out + layout.width - 1) / layout.width, 1, [&](std::size_t begin, std::size_t end) {
        std::fill_n(panels + begin * layout.panel_size(in), (end - begin) * layout.panel_size(in), Stored<T>{});
        for (std::size_t i = begin * layout.width; i < std::min(end * layout.width, out); ++i) {
            Stored<T>* to = panels + layout.position(0, i, in);
            for (std::size_t j = 0; j < in; j += layout.group, to += layout.width * layout.group) {
                std::copy_n(weight + i * in + j, std::min(layout.group, in - j), to);
            }
        }
    });
}

}  // namespace tandem::inline TANDEM_ABI::kernels

// ---- tandem/tensor/packed.hpp ----

// Weights as products read them.

namespace tandem::inline TANDEM_ABI {

/// A weight, a matrix [out, in] to products, kept once and in the panels that they read: it is packed when it is set,
/// not when it is used. Gradients and moments have the same layout, so what works element by element walks
/// `elements()`; that span is longer than size() where `out` does not fill the last panel, and which element stands
/// where depends on the instruction set: operator(), pack and unpack know. Sizes are numbers here, so that a program
/// has one of these an element type; PackedMatrix gives them a shape.
template <Arithmetic T>
class PackedWeight {
public:
    using element = Stored<T>;

    PackedWeight(std::size_t out, std::size_t in) : out_(out), in_(in), elements_(layout().size(in, out)) {}

    static kernels::PanelLayout layout() { return kernels::weight_layout<T>(); }

    std::size_t size() const { return out_ * in_; }

    std::span<element> elements() & { return {elements_.data(), elements_.size()}; }
    std::span<const element> elements() const& { return {elements_.data(), elements_.size()}; }
    void elements() && = delete;  // the memory would be gone before it is read

    element& operator()(std::size_t row, std::size_t column) {
        return elements_.data()[layout().position(column, row, in_)];
    }
    const element& operator()(std::size_t row, std::size_t column) const {
        return elements_.data()[layout().position(column, row, in_)];
    }

    void fill(element value) { std::fill_n(elements_.data(), elements_.size(), value); }

    /// Takes over row-major elements.
    void pack(const element* weight) { kernels::pack_weight<T>(out_, in_, weight, elements_.data()); }

    /// Writes the elements row-major.
    void unpack(element* weight) const {
        parallel_for(out_, 16, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                for (std::size_t j = 0; j < in_; ++j) weight[i * in_ + j] = (*this)(i, j);
            }
        });
    }

    /// y[rows, last - first] = x[rows, in] · the weight's rows [first, last), then what `finish` says. `first` begins a
    /// panel.
    void product(std::size_t rows, kernels::StridedRows<const Compute<T>> x, kernels::StridedRows<Compute<T>> y,
                 const kernels::Finish<Compute<T>>& finish, std::size_t first, std::size_t last) const {
        kernels::dense<T>(rows, last - first, in_, x, elements_.data() + layout().position(0, first, in_), y, finish);
    }
    void product(std::size_t rows, kernels::StridedRows<const Compute<T>> x, kernels::StridedRows<Compute<T>> y,
                 const kernels::Finish<Compute<T>>& finish) const {
        product(rows, x, y, finish, 0, out_);
    }

    /// Adds dyᵀ · x to the rows [first, last) of `gradient`, and sets dx = dy · those rows of the weight unless dx is
    /// null.
    void product_backward(std::size_t rows, kernels::StridedRows<const Compute<T>> x,
                          kernels::StridedRows<const Compute<T>> dy, kernels::StridedRows<Compute<T>> dx,
                          PackedWeight& gradient, std::size_t first, std::size_t last) const requires Trainable<T> {
        const std::size_t at = layout().position(0, first, in_);
        kernels::dense_backward<T>(rows, last - first, in_, x, elements_.data() + at, dy, dx,
                                   gradient.elements_.data() + at);
    }

private:
    std::size_t out_, in_;
    Buffer<element> elements_;
};

/// A weight rounded to signed bytes, each of its rows with a scale of its own. To whoever sets or reads it, it is
/// float32.
template <std::same_as<int8> T>
class PackedWeight<T> {
public:
    using element = float;

    PackedWeight(std::size_t out, std::size_t in)
        : out_(out),
          in_(in),
          bytes_(layout().size(in, out)),
          scales_(padded()),
          sums_(padded() * ((in + block() - 1) / block())) {}

    static kernels::PanelLayout layout() { return kernels::weight_layout<int8>(); }

    std::size_t size() const { return out_ * in_; }

    float operator()(std::size_t row, std::size_t column) const {
        return scales_.data()[row] * static_cast<float>(bytes_.data()[layout().position(column, row, in_)]);
    }

    /// Takes over row-major elements, rounded to the nearest of 255 steps of their row.
    void pack(const float* weight) {
        std::fill_n(bytes_.data(), bytes_.size(), int8{0});
        const kernels::PanelLayout panels = layout();
        parallel_for(out_, 16, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                const float* const row = weight + i * in_;
                float most = 0;
                for (std::size_t j = 0; j < in_; ++j) most = std::max(most, std::abs(row[j]));
                scales_.data()[i] = most > 0 ? most / 127 : 1;
                const float inverse = 1 / scales_.data()[i];
                for (std::size_t first = 0; first < in_; first += block()) {
                    int8* to = bytes_.data() + panels.position(first, i, in_);
                    std::int32_t sum = 0;
                    for (std::size_t j = first; j < std::min(first + block(), in_); ++j) {
                        const auto byte = static_cast<int8>(std::lrint(row[j] * inverse));
                        to[j % panels.group] = byte;
                        if (j % panels.group == panels.group - 1) to += panels.width * panels.group;
                        sum += byte;
                    }
                    sums_.data()[first / block() * padded() + i] = sum;
                }
            }
        });
    }

    void unpack(float* weight) const {
        for (std::size_t i = 0; i < out_; ++i) {
            for (std::size_t j = 0; j < in_; ++j) weight[i * in_ + j] = (*this)(i, j);
        }
    }

    void product(std::size_t rows, kernels::StridedRows<const float> x, kernels::StridedRows<float> y,
                 const kernels::Finish<float>& finish, std::size_t first, std::size_t last) const {
        const kernels::ByteWeight part{bytes_.data() + layout().position(0, first, in_), scales_.data() + first,
                                       sums_.data() + first, padded()};
        kernels::dense_bytes(rows, last - first, in_, x, part, y, finish);
    }
    void product(std::size_t rows, kernels::StridedRows<const float> x, kernels::StridedRows<float> y,
                 const kernels::Finish<float>& finish) const {
        product(rows, x, y, finish, 0, out_);
    }

private:
    std::size_t padded() const { return kernels::round_up(out_, layout().width); }
    static std::size_t block() { return kernels::gemm_depth * layout().group; }

    std::size_t out_, in_;
    Buffer<int8> bytes_;
    Buffer<float> scales_;
    Buffer<std::int32_t> sums_;
};

/// A packed weight of shape S = <Out, ...>, the further extents being those of one row.
template <Arithmetic T, class S>
class PackedMatrix : public PackedWeight<T> {
public:
    using shape = S;

    PackedMatrix() : PackedWeight<T>(S::extents[0], S::extents.count() / S::extents[0]) {}

    static constexpr const Extents<S::rank>& extents() { return S::extents; }
};

/// A parameter's elements, row-major, whatever its layout.
template <class T, class S>
const Tensor<T, S>& to_row_major(const Tensor<T, S>& parameter) {
    return parameter;
}
template <class T, class S>
auto to_row_major(const PackedMatrix<T, S>& parameter) {
    Tensor<typename PackedMatrix<T, S>::element, S> values;
    parameter.unpack(values.data());
    return values;
}
template <class T, class S>
void from_row_major(Tensor<T, S>& parameter, const Tensor<T, S>& values) {
    std::copy_n(values.data(), values.size(), parameter.data());
}
template <class T, class S>
void from_row_major(PackedMatrix<T, S>& parameter, const Tensor<typename PackedMatrix<T, S>::element, S>& values) {
    parameter.pack(values.data());
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/nn/parameter.hpp ----

// The one list of parameters: every layer names its tensors once, and loading, saving, counting, initialising and
// updating walk that list.

namespace tandem::inline TANDEM_ABI {

/// The name of a parameter, in memory of its own: walking a model allocates nothing. Wherever a std::string is wanted, it
/// is one, and the other way round.
class ParameterName {
public:
    static constexpr std::size_t capacity = 256;

    ParameterName() = default;
    /// Throws Error if the text has more than `capacity` bytes.
    ParameterName(const std::string& text) { append(text); }

    // Not inlined: a model's list has it once a parameter.
    [[gnu::noinline]] friend ParameterName operator+(const ParameterName& left, std::string_view right) {
        ParameterName name = left;
        name.append(right);
        return name;
    }

    [[gnu::noinline]] operator std::string() const { return std::string(view()); }
    std::string_view view() const { return {text_.data(), size_}; }

private:
    void append(std::string_view more) {
        if (more.size() > capacity - size_) {
            throw Error("ParameterName", "at most " + std::to_string(capacity) + " bytes",
                        std::string(view()) + std::string(more));
        }
        std::copy(more.begin(), more.end(), text_.begin() + static_cast<std::ptrdiff_t>(size_));
        size_ += more.size();
    }

    std::array<char, capacity> text_{};
    std::size_t size_ = 0;
};

/// Calls visitor(name, tensor...) for every parameter of `model` and of the models of the same type beside it, in
/// lockstep: the gradients, moments and averages of a model are values of the model's own type. A layer takes part
/// through
///     static void parameters(const auto& visit, const ParameterName& at, auto&... self)
/// which calls visit(at + "weight", self.weight...) and passes `at + "part."` to the layers it holds. Names are
/// open_clip's.
template <class Visitor, class Model, class... Same>
void for_each_parameter(Visitor&& visitor, Model& model, Same&... same) {
    static_assert((std::is_same_v<std::remove_const_t<Model>, std::remove_const_t<Same>> && ...),
                  "tandem: for_each_parameter walks models of one type in lockstep");
    std::remove_const_t<Model>::parameters(visitor, ParameterName(), model, same...);
}

/// The number of scalars in all parameters.
template <class Model>
std::size_t count_parameters(const Model& model) {
    std::size_t count = 0;
    for_each_parameter([&](const ParameterName&, const auto& tensor) { count += tensor.size(); }, model);
    return count;
}

/// Sets every parameter to zero, as gradients are before a step.
template <class Model>
void zero_parameters(Model& model) {
    for_each_parameter([](const ParameterName&, auto& tensor) { tensor.fill(0); }, model);
}

/// Fills a parameter with normal random numbers of mean 0, in row-major order whatever its layout.
template <Element T, class S>
void fill_normal(Tensor<T, S>& tensor, Random& random, double deviation) {
    for (T& value : tensor.elements()) value = static_cast<T>(static_cast<Compute<T>>(deviation * random.normal()));
}
template <Arithmetic T, class S>
void fill_normal(PackedMatrix<T, S>& weight, Random& random, double deviation) {
    Tensor<typename PackedMatrix<T, S>::element, S> values;
    fill_normal(values, random, deviation);
    weight.pack(values.data());
}

/// What the initialisation of a part depends on.
struct InitScale {
    std::size_t width = 0;
    std::size_t layers = 0;

    /// width^-1/2 · (2 · layers)^-1/2: for the projections that write into the residual stream, of which there are two
    /// a layer (CLIP/clip/model.py:316-323).
    double residual() const { return std::pow(static_cast<double>(width * 2 * layers), -0.5); }
    double attention() const { return std::pow(static_cast<double>(width), -0.5); }
    double hidden() const { return std::pow(static_cast<double>(2 * width), -0.5); }
};

/// Initialises a part: by its own initialise(random, scale), or, where it has none, every matrix as N(0, 1 / fan-in)
/// and vectors as they were made.
template <class Part>
void initialise_part(Part& part, Random& random, const InitScale& scale) {
    if constexpr (requires { part.initialise(random, scale); }) {
        part.initialise(random, scale);
    } else {
        const auto fill = [&](const ParameterName&, auto& tensor) {
            if constexpr (std::remove_reference_t<decltype(tensor)>::shape::rank >= 2) {
                const double fan_in = static_cast<double>(tensor.size() / tensor.extents()[0]);
                fill_normal(tensor, random, 1.0 / std::sqrt(fan_in));
            }
        };
        for_each_parameter(fill, part);
    }
}

/// What a part costs for one sequence of some number of tokens. Memory counts scalars of the compute type.
struct Cost {
    std::size_t parameters = 0;
    std::size_t matrices = 0;  ///< of the parameters, those in matrices that reduced precision keeps in its own elements
    std::size_t tables = 0;    ///< and those in tables of token rows and projections
    /// Multiplications and additions of the matrix products, two for each multiply-accumulate, as fvcore counts.
    std::size_t flops = 0;
    /// Of these, what is computed after the exact savings.
    std::size_t executed = 0;
    std::size_t inference = 0;  ///< held by a forward pass that keeps nothing
    std::size_t saved = 0;      ///< kept from the forward pass for the backward pass
    std::size_t scratch = 0;    ///< what the backward pass needs beside that, blocks in turn

    /// All that a training step holds for one item.
    constexpr std::size_t training() const { return saved + scratch; }

    friend constexpr Cost operator+(const Cost& a, const Cost& b) {
        return {a.parameters + b.parameters, a.matrices + b.matrices,   a.tables + b.tables,
                a.flops + b.flops,           a.executed + b.executed,   a.inference + b.inference,
                a.saved + b.saved,           a.scratch + b.scratch};
    }
    friend constexpr Cost operator*(std::size_t n, const Cost& a) {
        return {n * a.parameters, n * a.matrices,  n * a.tables, n * a.flops,
                n * a.executed,   n * a.inference, n * a.saved,  n * a.scratch};
    }
    friend constexpr bool operator==(const Cost&, const Cost&) = default;
};

/// The cost of matrix products, all of them computed.
constexpr Cost product_cost(std::size_t flops) { return {.flops = flops, .executed = flops}; }

/// Scalars that a part holds in either pass.
constexpr Cost held_cost(std::size_t scalars) { return {.inference = scalars, .saved = scalars}; }

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/nn/linear.hpp ----

// y = x · Wᵀ + b.

namespace tandem::inline TANDEM_ABI {

/// Any number of rows of a fixed width: what layers read and write.
template <class T, std::size_t Width>
using Rows = View<T, Shape<dynamic, Width>>;

namespace nn {

/// What a dense layer costs.
constexpr Cost linear_cost(std::size_t in, std::size_t out, bool has_bias, std::size_t tokens) {
    return Cost{.parameters = in * out + (has_bias ? out : 0), .matrices = in * out} + product_cost(2 * tokens * in * out);
}

namespace detail {

/// sums += Σ over rows of x [rows, width].
template <Real T>
void add_column_sums(std::size_t rows, std::size_t width, const kernels::StridedRows<const T>& x, T* sums) {
    parallel_for((width + 63) / 64, 1, [&](std::size_t begin, std::size_t end) {
        kernels::active_gradients<T>().column_sums(x.data, sums, rows, x.stride, begin * 64, std::min(end * 64, width));
    });
}

}  // namespace detail

/// A dense layer. The weight has PyTorch's shape, [out, in]. Rows of its input and output may be longer than that: what
/// stands behind is neither read nor written.
template <Arithmetic T, std::size_t In, std::size_t Out, bool HasBias = true, std::size_t InRow = In,
          std::size_t OutRow = Out>
struct Linear {
    static_assert(InRow >= In && OutRow >= Out, "tandem: Linear: rows are at least as long as what the layer reads");
    using C = Compute<T>;

    PackedMatrix<T, Shape<Out, In>> weight;
    Tensor<C, Shape<HasBias ? Out : 0>> bias;

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "weight", self.weight...);
        if constexpr (HasBias) visit(at + "bias", self.bias...);
    }

    /// x <rows, In> to y <rows, Out>, in rows of InRow and OutRow; they must not overlap. `finish` says what else
    /// becomes of each element once its bias is added, while it is in registers.
    void forward(Rows<const C, InRow> x, Rows<C, OutRow> y, kernels::Finish<C> finish = {}) const {
        if constexpr (HasBias) finish.bias = bias.data();
        weight.product(x.extent(0), {x.data(), InRow}, {y.data(), OutRow}, finish);
    }

    /// The rows [first, last) of the layer as a layer of their own, which can only be cut where a panel of the weight
    /// ends.
    static bool cuts_at(std::size_t row) { return row % decltype(weight)::layout().width == 0; }
    void forward_part(std::size_t first, std::size_t last, std::size_t rows, const C* x, C* y) const {
        weight.product(rows, {x, InRow}, {y, last - first}, {.bias = HasBias ? bias.data() + first : nullptr}, first,
                       last);
    }
    void backward_part(std::size_t first, std::size_t last, std::size_t rows, const C* x, const C* dy, C* dx,
                       Linear& gradient) const requires Trainable<T> {
        backward_rows(first, last, rows, {x, InRow}, {dy, last - first}, {dx, InRow}, gradient);
    }

    /// y = residual + forward(x). residual may be y.
    void forward_onto(Rows<const C, OutRow> residual, Rows<const C, InRow> x, Rows<C, OutRow> y) const {
        forward(x, y, {.residual = residual.data(), .residual_stride = OutRow});
    }

    /// Adds to the gradients of weight and bias, and writes dx unless it is an empty view.
    void backward(Rows<const C, InRow> x, Rows<const C, OutRow> dy, Rows<C, InRow> dx,
                  Linear& gradient) const requires Trainable<T> {
        backward_rows(0, Out, x.extent(0), {x.data(), InRow}, {dy.data(), OutRow}, {dx.data(), InRow}, gradient);
    }

private:
    void backward_rows(std::size_t first, std::size_t last, std::size_t rows, kernels::StridedRows<const C> x,
                       kernels::StridedRows<const C> dy, kernels::StridedRows<C> dx,
                       Linear& gradient) const requires Trainable<T> {
        weight.product_backward(rows, x, dy, dx, gradient.weight, first, last);
        if constexpr (HasBias) detail::add_column_sums<C>(rows, last - first, dy, gradient.bias.data() + first);
    }
};

}  // namespace nn

using nn::Linear;

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/nn/sequences.hpp ----

// What the layers of a transformer are told: the sizes of the tower, and where a batch's sequences stand.

namespace tandem::inline TANDEM_ABI {

/// Where the sequences of a batch stand in a matrix of token rows: sequence s owns the rows [offsets[s], offsets[s +
/// 1]).
using Offsets = std::span<const std::size_t>;

/// The sequences of a batch, of which a layer gets the rows one after the other. C is the element of the rows.
template <Real C>
struct Sequences {
    Offsets offsets;
    /// Of every row, its place in its sequence before any token was dropped; empty: none was.
    std::span<const std::size_t> positions = {};
    /// A token sees only itself and those before it.
    bool causal = false;
    /// Where queries and keys are rotated: for every place, head_width / 2 cosines, then as many sines. Null: nowhere.
    const C* rotations = nullptr;

    std::size_t count() const { return offsets.size() - 1; }
    std::size_t rows() const { return offsets.back(); }
    /// The place of a row of sequence s.
    std::size_t position(std::size_t s, std::size_t row) const {
        return positions.empty() ? row - offsets[s] : positions[row];
    }
};

/// What the layers of a transformer block know of the tower they stand in.
struct BlockShape {
    std::size_t width = 0;
    std::size_t heads = 0;
    std::size_t kv_heads = 0;    ///< heads of keys and values; fewer than `heads`: grouped queries
    std::size_t head_width = 0;  ///< of one head
    std::size_t hidden = 0;      ///< width of the MLP's hidden layer
    std::size_t tokens = 0;      ///< the longest sequence
    std::size_t prefix = 0;      ///< tokens in front of the patches: class token and registers
    bool rotary = false;         ///< queries and keys are rotated (Sequences::rotations)
    std::size_t grid = 0;        ///< patches along a side, all there, row by row; 0: the tokens are no grid
};

namespace nn {

/// Stands where a config has no such part.
struct None {
    struct Saved {};
};

/// to[i] = from[rows[i]].
template <Real C, std::size_t Width>
void gather_rows(Rows<const C, Width> from, std::span<const std::size_t> rows, Rows<C, Width> to) {
    for (std::size_t i = 0; i < rows.size(); ++i)
        std::copy_n(from.data() + rows[i] * Width, Width, to.data() + i * Width);
}

/// to[rows[i]] += from[i].
template <Real C, std::size_t Width>
void add_to_rows(Rows<const C, Width> from, std::span<const std::size_t> rows, Rows<C, Width> to) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
        C* const row = to.data() + rows[i] * Width;
        std::transform(row, row + Width, from.data() + i * Width, row, std::plus<C>());
    }
}

/// to += from.
template <Real C, std::size_t Width>
void add_rows(Rows<const C, Width> from, Rows<C, Width> to) {
    parallel_for(from.size(), 16384, [&](std::size_t begin, std::size_t end) {
        std::transform(to.data() + begin, to.data() + end, from.data() + begin, to.data() + begin, std::plus<C>());
    });
}

}  // namespace nn

/// What a block is made of: a value of a choice type for each part, and how they stand together.
enum class NormPosition {
    pre,      ///< x + part(norm(x)): GPT-2, CLIP
    post,     ///< norm(x + part(x)): Vaswani et al. 2017; torch.nn.TransformerEncoderLayer's default
    sandwich  ///< x + norm(part(norm(x))): Ding et al. 2021, Gemma 2
};

template <class Norm, class Mixer, class Mlp, class Activation>
struct BlockParts {
    Norm norm;
    Mixer mixer;
    Mlp mlp;
    Activation activation;
    NormPosition norm_position = NormPosition::pre;
    bool parallel = false;        ///< x + mixer(norm(x)) + mlp(norm(x)), one norm: Dehghani et al. 2023, ViT-22B
    bool qk_norm = false;         ///< queries and keys of every head are normed: Dehghani et al. 2023
    double ls_init_value = 0;     ///< layer scale starts at this (Touvron et al. 2021, CaiT); 0: there is none
    double drop_path_rate = 0;    ///< of the last block; a block's rate grows linearly from 0 (Huang et al. 2016)
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/nn/attention.hpp ----

// Multi-head self-attention over ragged sequences.

namespace tandem::inline TANDEM_ABI {

namespace nn {

/// The norm of every head of queries or keys (open_clip/transformer.py, Attention.ln_q): head_width elements, one gain
/// for all heads.
template <Arithmetic T, std::size_t Heads, std::size_t HeadWidth, auto choice>
struct HeadNorm {
    using C = Compute<T>;
    using Norm = typename decltype(choice)::template Layer<T, HeadWidth, choice>;
    static constexpr std::size_t width = Heads * HeadWidth;

    Norm norm;

    struct Saved {
        typename Norm::Saved norm;
        /// A row a head.
        Tensor<C, Shape<dynamic, HeadWidth>> raw, normed, gradient;
    };

    /// The normed heads of `rows` rows of x, in rows of `width`, in `saved`.
    C* forward(std::size_t rows, kernels::StridedRows<const C> x, Saved& saved) const {
        saved.raw.resize(rows * Heads);
        saved.normed.resize(rows * Heads);
        for (std::size_t i = 0; i < rows; ++i) std::copy_n(x.row(i), width, saved.raw.data() + i * width);
        norm.forward(saved.raw, saved.normed, saved.norm);
        return saved.normed.data();
    }

    /// dx of forward's x, given the gradient of its result in saved.gradient.
    void backward(std::size_t rows, kernels::StridedRows<C> dx, Saved& saved, HeadNorm& gradient) const
        requires Trainable<T>
    {
        norm.backward(saved.raw, saved.gradient, saved.gradient, saved.norm, gradient.norm, false);
        for (std::size_t i = 0; i < rows; ++i) std::copy_n(saved.gradient.data() + i * width, width, dx.row(i));
    }
};

/// Rotates the pairs (2i, 2i + 1) of every head by the angles of a row's place, or back: rotary positions (Su et al.
/// 2021, eq. 34). place(row) is that place.
template <Real C, class Place>
void rotate_heads(std::size_t rows, std::size_t heads, std::size_t head_width, kernels::StridedRows<C> x,
                  const C* rotations, bool back, const Place& place) {
    const C sign = back ? C{-1} : C{1};
    parallel_for(rows, 64, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            const C* const cosines = rotations + place(i) * head_width;
            const C* const sines = cosines + head_width / 2;
            C* head = x.row(i);
            for (std::size_t h = 0; h < heads; ++h, head += head_width) {
                for (std::size_t j = 0; j < head_width / 2; ++j) {
                    const C a = head[2 * j], b = head[2 * j + 1], sine = sign * sines[j];
                    head[2 * j] = a * cosines[j] - b * sine;
                    head[2 * j + 1] = b * cosines[j] + a * sine;
                }
            }
        }
    });
}

/// softmax(q kᵀ / sqrt(head width)) v for every head (Vaswani et al. 2017), with torch.nn.MultiheadAttention's
/// parameters: in_proj holds the rows of q, k and v one after the other.
template <Arithmetic T, BlockShape shape, auto parts>
struct SelfAttention {
    static constexpr std::size_t width = shape.width, head_width = shape.head_width;
    static constexpr std::size_t q_width = shape.heads * head_width, kv_width = shape.kv_heads * head_width;
    static constexpr std::size_t qkv_width = q_width + 2 * kv_width;
    static constexpr bool has_norm = parts.qk_norm;
    using C = Compute<T>;
    using QueryNorm = std::conditional_t<has_norm, HeadNorm<T, shape.heads, head_width, parts.norm>, None>;
    using KeyNorm = std::conditional_t<has_norm, HeadNorm<T, shape.kv_heads, head_width, parts.norm>, None>;

    Linear<T, width, qkv_width> in_proj;
    Linear<T, q_width, width> out_proj;
    [[no_unique_address]] QueryNorm ln_q;
    [[no_unique_address]] KeyNorm ln_k;

    struct Saved {
        Tensor<C, Shape<dynamic, qkv_width>> qkv, qkv_gradient;
        Tensor<C, Shape<dynamic, q_width>> mixed, mixed_gradient;
        /// Of picked rows only: their inputs and queries. Keys and values are those of all rows.
        Tensor<C, Shape<dynamic, width>> picked, picked_gradient;
        Tensor<C, Shape<dynamic, q_width>> q, q_gradient;
        Tensor<C, Shape<dynamic, 2 * kv_width>> kv, kv_gradient;
        [[no_unique_address]] typename QueryNorm::Saved q_norm;
        [[no_unique_address]] typename KeyNorm::Saved k_norm;

        void lend(Saved& to) {
            std::swap(qkv_gradient, to.qkv_gradient);
            std::swap(mixed_gradient, to.mixed_gradient);
            if constexpr (has_norm) {
                std::swap(q_norm.gradient, to.q_norm.gradient);
                std::swap(k_norm.gradient, to.k_norm.gradient);
            }
        }
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "in_proj_weight", self.in_proj.weight...);
        visit(at + "in_proj_bias", self.in_proj.bias...);
        if constexpr (has_norm) {
            QueryNorm::Norm::parameters(visit, at + "ln_q.", self.ln_q.norm...);
            KeyNorm::Norm::parameters(visit, at + "ln_k.", self.ln_k.norm...);
        }
        decltype(out_proj)::parameters(visit, at + "out_proj.", self.out_proj...);
    }

    void initialise(Random& random, const InitScale& scale) {
        fill_normal(in_proj.weight, random, scale.attention());
        fill_normal(out_proj.weight, random, scale.residual());
    }

    /// y = the mixed x, then what `finish` says. `keep` keeps what backward needs.
    void forward(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences, Saved& saved, bool,
                 const kernels::Finish<C>& finish = {}) const {
        saved.qkv.resize(x.extent(0));
        saved.mixed.resize(x.extent(0));
        in_proj.forward(x, saved.qkv);
        prepare(x.extent(0), all(saved.qkv.data()), sequences, {}, saved);
        kernels::attention<C>(kernel_shape(sequences, {}), operands(all(saved.qkv.data()), saved), saved.mixed.data(),
                              q_width);
        out_proj.forward(saved.mixed, y, finish);
    }

    void backward(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx, const Sequences<C>& sequences,
                  Saved& saved, SelfAttention& gradient) const requires Trainable<T> {
        const std::size_t rows = x.extent(0);
        saved.qkv_gradient.resize(rows);
        saved.mixed_gradient.resize(rows);
        out_proj.backward(saved.mixed, dy, saved.mixed_gradient, gradient.out_proj);
        backward_through(rows, all(saved.qkv.data()), all(saved.qkv_gradient.data()), sequences, {}, saved, gradient);
        in_proj.backward(x, saved.qkv_gradient, dx, gradient.in_proj);
    }

    /// Whether forward_picked can be used: whether queries can be cut off keys and values.
    static bool can_pick() { return decltype(in_proj)::cuts_at(q_width); }

    /// The rows of forward's result that `picked` names, one in every sequence; y and `finish` hold those rows alone.
    void forward_picked(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences,
                        std::span<const std::size_t> picked, Saved& saved, const kernels::Finish<C>& finish) const {
        const std::size_t count = picked.size();
        saved.picked.resize(count);
        saved.q.resize(count);
        saved.kv.resize(x.extent(0));
        saved.mixed.resize(count);
        gather_rows<C, width>(x, picked, saved.picked);
        in_proj.forward_part(0, q_width, count, saved.picked.data(), saved.q.data());
        in_proj.forward_part(q_width, qkv_width, x.extent(0), x.data(), saved.kv.data());
        prepare(x.extent(0), apart(saved.q.data(), saved.kv.data()), sequences, picked, saved);
        kernels::attention<C>(kernel_shape(sequences, picked),
                              operands(apart(saved.q.data(), saved.kv.data()), saved), saved.mixed.data(), q_width);
        out_proj.forward(saved.mixed, y, finish);
    }

    /// Adds to the gradients, and writes dx for all rows, given dy for the picked ones.
    void backward_picked(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx,
                         const Sequences<C>& sequences, std::span<const std::size_t> picked, Saved& saved,
                         SelfAttention& gradient) const requires Trainable<T> {
        const std::size_t count = picked.size(), rows = x.extent(0);
        saved.mixed_gradient.resize(count);
        saved.q_gradient.resize(count);
        saved.picked_gradient.resize(count);
        saved.kv_gradient.resize(rows);
        out_proj.backward(saved.mixed, dy, saved.mixed_gradient, gradient.out_proj);
        backward_through(rows, apart(saved.q.data(), saved.kv.data()),
                         apart(saved.q_gradient.data(), saved.kv_gradient.data()), sequences, picked, saved, gradient);
        in_proj.backward_part(q_width, qkv_width, rows, x.data(), saved.kv_gradient.data(), dx.data(),
                              gradient.in_proj);
        in_proj.backward_part(0, q_width, count, saved.picked.data(), saved.q_gradient.data(),
                              saved.picked_gradient.data(), gradient.in_proj);
        add_to_rows<C, width>(saved.picked_gradient, picked, dx);
    }

private:
    using Operands = kernels::AttentionOperands<C>;

    static Operands all(C* qkv) { return {qkv, qkv_width, qkv + q_width, qkv_width, qkv + q_width + kv_width, qkv_width}; }
    static Operands apart(C* q, C* kv) { return {q, q_width, kv, 2 * kv_width, kv + kv_width, 2 * kv_width}; }

    static kernels::AttentionShape kernel_shape(const Sequences<C>& sequences, std::span<const std::size_t> picked) {
        return {.offsets = sequences.offsets,
                .heads = shape.heads,
                .kv_heads = shape.kv_heads,
                .head_width = head_width,
                .causal = sequences.causal,
                .picked = picked};
    }

    /// What attention reads: queries and keys as projected, or as normed.
    static kernels::AttentionOperands<const C> operands(const Operands& projected, Saved& saved) {
        Operands from = projected;
        if constexpr (has_norm) {
            from.q = saved.q_norm.normed.data();
            from.k = saved.k_norm.normed.data();
            from.q_stride = q_width;
            from.k_stride = kv_width;
        }
        return {from.q, from.q_stride, from.k, from.k_stride, from.v, from.v_stride};
    }

    /// Norms and rotates queries and keys.
    void prepare(std::size_t rows, const Operands& projected, const Sequences<C>& sequences,
                 std::span<const std::size_t> picked, Saved& saved) const {
        [[maybe_unused]] Operands to = projected;
        [[maybe_unused]] const std::size_t queries = picked.empty() ? rows : picked.size();
        if constexpr (has_norm) {
            to.q = ln_q.forward(queries, {projected.q, projected.q_stride}, saved.q_norm);
            to.k = ln_k.forward(rows, {projected.k, projected.k_stride}, saved.k_norm);
            to.q_stride = q_width;
            to.k_stride = kv_width;
        }
        if constexpr (shape.rotary) rotate(rows, queries, to, sequences, picked, false);
    }

    static void rotate(std::size_t rows, std::size_t queries, const Operands& at, const Sequences<C>& sequences,
                       std::span<const std::size_t> picked, bool back) {
        if (sequences.rotations == nullptr) return;
        const auto place = [&](std::size_t row) {
            const auto after = std::upper_bound(sequences.offsets.begin(), sequences.offsets.end(), row);
            return sequences.position(static_cast<std::size_t>(after - sequences.offsets.begin()) - 1, row);
        };
        rotate_heads<C>(queries, shape.heads, head_width, {at.q, at.q_stride}, sequences.rotations, back,
                        [&](std::size_t i) { return place(picked.empty() ? i : picked[i]); });
        rotate_heads<C>(rows, shape.kv_heads, head_width, {at.k, at.k_stride}, sequences.rotations, back, place);
    }

    /// From the gradient of what attention mixed to that of what was projected.
    void backward_through(std::size_t rows, const Operands& projected, const Operands& dprojected,
                          const Sequences<C>& sequences, std::span<const std::size_t> picked, Saved& saved,
                          SelfAttention& gradient) const requires Trainable<T> {
        [[maybe_unused]] const std::size_t queries = picked.empty() ? rows : picked.size();
        Operands to = dprojected;
        if constexpr (has_norm) {
            saved.q_norm.gradient.resize(queries * shape.heads);
            saved.k_norm.gradient.resize(rows * shape.kv_heads);
            to.q = saved.q_norm.gradient.data();
            to.k = saved.k_norm.gradient.data();
            to.q_stride = q_width;
            to.k_stride = kv_width;
        }
        kernels::attention_backward<C>(kernel_shape(sequences, picked), operands(projected, saved),
                                       saved.mixed_gradient.data(), q_width, to);
        if constexpr (shape.rotary) rotate(rows, queries, to, sequences, picked, true);
        if constexpr (has_norm) {
            ln_q.backward(queries, {dprojected.q, dprojected.q_stride}, saved.q_norm, gradient.ln_q);
            ln_k.backward(rows, {dprojected.k, dprojected.k_stride}, saved.k_norm, gradient.ln_k);
        }
    }
};

}  // namespace nn

/// The mixer of a config. Another mixer is another type with a template Layer<T, shape, parts> that has this layer's
/// members (see BlockPart).
struct SelfAttention {
    template <Arithmetic T, BlockShape shape, auto parts>
    using Layer = nn::SelfAttention<T, shape, parts>;

    /// In a causal tower a token must not see those after it.
    static constexpr bool can_be_causal = true;

    /// The products q kᵀ and weights · v count in full also under a causal mask, as fvcore counts them.
    static constexpr Cost cost(const BlockShape& shape, std::size_t tokens, const auto& parts) {
        return part_cost(shape, tokens, tokens, parts) +
               tokens * (qkv(shape) + q(shape)) * Cost{.inference = 1, .saved = 1, .scratch = 1};
    }

    /// For one picked row of a sequence.
    static constexpr Cost picked_cost(const BlockShape& shape, std::size_t tokens, const auto& parts) {
        const std::size_t held = 2 * tokens * kv(shape) + 2 * q(shape) + shape.width;
        return part_cost(shape, 1, tokens, parts) + held * Cost{.inference = 1, .saved = 1, .scratch = 1};
    }

private:
    static constexpr std::size_t q(const BlockShape& shape) { return shape.heads * shape.head_width; }
    static constexpr std::size_t kv(const BlockShape& shape) { return shape.kv_heads * shape.head_width; }
    static constexpr std::size_t qkv(const BlockShape& shape) { return q(shape) + 2 * kv(shape); }

    /// Products, and the norms of queries and keys.
    static constexpr Cost part_cost(const BlockShape& shape, std::size_t queries, std::size_t tokens,
                                    const auto& parts) {
        const Cost in{.parameters = (shape.width + 1) * qkv(shape), .matrices = shape.width * qkv(shape)};
        const Cost products = product_cost(2 * shape.width * (queries * q(shape) + 2 * tokens * kv(shape)) +
                                           4 * queries * tokens * q(shape));
        Cost total = in + products + nn::linear_cost(q(shape), shape.width, true, queries);
        if (parts.qk_norm) {
            total = total + parts.norm.cost(shape.head_width, queries * shape.heads) +
                    parts.norm.cost(shape.head_width, tokens * shape.kv_heads) +
                    (queries * q(shape) + tokens * kv(shape)) * Cost{.inference = 2, .saved = 2, .scratch = 1};
        }
        return total;
    }
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/nn/layer_norm.hpp ----

// Layer normalisation, with and without a mean.

namespace tandem::inline TANDEM_ABI {

namespace nn {

/// y = (x − mean) / sqrt(variance + eps) · weight + bias over the last axis (Ba, Kiros, Hinton 2016); without
/// choice.has_mean, y = x / sqrt(mean of x² + eps) · weight (Zhang, Sennrich 2019). Its parameters and arithmetic are
/// float32 in a bfloat16 model.
template <Arithmetic T, std::size_t Width, auto choice>
struct LayerNorm {
    using C = Compute<T>;
    static constexpr bool has_mean = choice.has_mean;

    Tensor<C, Shape<Width>> weight;
    Tensor<C, Shape<has_mean ? Width : 0>> bias;

    /// The mean and 1 / sqrt(variance + eps) of every row.
    struct Saved {
        Tensor<C, Shape<dynamic>> mean, inverse;
    };

    LayerNorm() { weight.fill(1); }

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "weight", self.weight...);
        if constexpr (has_mean) visit(at + "bias", self.bias...);
    }

    void forward(Rows<const C, Width> x, Rows<C, Width> y, Saved& saved) const {
        const std::size_t rows = x.extent(0);
        saved.mean.resize(has_mean ? rows : 0);
        saved.inverse.resize(rows);
        parallel_for(rows, grain, [&](std::size_t first, std::size_t last) {
            kernels::active<C>().layer_norm(x.data() + first * Width, weight.data(), if_mean(bias.data()),
                                            y.data() + first * Width, if_mean(saved.mean.data() + first),
                                            saved.inverse.data() + first, last - first, Width,
                                            static_cast<C>(choice.eps));
        });
    }

    /// dx, or dx += where `accumulate` is set: the layer's input also feeds the residual stream. dx may be dy.
    void backward(Rows<const C, Width> x, Rows<const C, Width> dy, Rows<C, Width> dx, const Saved& saved,
                  LayerNorm& gradient, bool accumulate) const {
        const std::size_t rows = x.extent(0);
        const auto& set = kernels::active_gradients<C>();
        parallel_for((Width + 63) / 64, 1, [&](std::size_t begin, std::size_t end) {
            set.layer_norm_parameters_backward(dy.data(), x.data(), if_mean(saved.mean.data()), saved.inverse.data(),
                                               gradient.weight.data(), if_mean(gradient.bias.data()), rows, Width,
                                               begin * 64, std::min(end * 64, Width));
        });
        parallel_for(rows, grain, [&](std::size_t first, std::size_t last) {
            set.layer_norm_backward(dy.data() + first * Width, x.data() + first * Width, weight.data(),
                                    if_mean(saved.mean.data() + first), saved.inverse.data() + first,
                                    dx.data() + first * Width, last - first, Width, accumulate);
        });
    }

private:
    static constexpr std::size_t grain = std::max<std::size_t>(1, 16384 / Width);

    template <class P>
    static P* if_mean(P* pointer) {
        return has_mean ? pointer : nullptr;
    }
};

}  // namespace nn

/// The norm of a config: `.norm = LayerNorm{.eps = 1e-6f}`. OpenAI and OpenCLIP weights use 1e-5, SigLIP 1e-6. Another
/// norm is another type with a template Layer<T, Width, choice> that has this layer's members (see NormPart).
struct LayerNorm {
    static constexpr bool has_mean = true;
    float eps = 1e-5f;

    template <Arithmetic T, std::size_t Width, auto choice>
    using Layer = nn::LayerNorm<T, Width, choice>;

    static constexpr Cost cost(std::size_t width, std::size_t tokens) {
        return Cost{.parameters = 2 * width} + held_cost(2 * tokens);
    }
};

/// Root mean square norm: torch.nn.RMSNorm, with timm's eps.
struct RmsNorm {
    static constexpr bool has_mean = false;
    float eps = 1e-6f;

    template <Arithmetic T, std::size_t Width, auto choice>
    using Layer = nn::LayerNorm<T, Width, choice>;

    static constexpr Cost cost(std::size_t width, std::size_t tokens) {
        return Cost{.parameters = width} + held_cost(tokens);
    }
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/nn/mlp.hpp ----

// The perceptrons of a transformer block.

namespace tandem::inline TANDEM_ABI {

namespace nn {

/// Hidden layers keep their rows this long: off multiples of 4096 bytes.
template <Arithmetic T, BlockShape shape>
inline constexpr std::size_t hidden_row = kernels::row_length<Compute<T>>(shape.hidden);

template <Arithmetic T, BlockShape shape>
using IntoHidden = Linear<T, shape.width, shape.hidden, true, shape.width, hidden_row<T, shape>>;
template <Arithmetic T, BlockShape shape>
using FromHidden = Linear<T, shape.hidden, shape.width, true, hidden_row<T, shape>, shape.width>;
template <Arithmetic T, BlockShape shape>
using Hidden = Tensor<Compute<T>, Shape<dynamic, hidden_row<T, shape>>>;

/// after = activation(layer(x)) · factor, which may be null; `before` gets layer(x) where backward needs it.
template <Arithmetic T, BlockShape shape, class Activation>
void activated_hidden(const IntoHidden<T, shape>& layer, const Activation& activation,
                      Rows<const Compute<T>, shape.width> x, const Hidden<T, shape>* factor, Hidden<T, shape>& before,
                      Hidden<T, shape>& after, bool keep) {
    using C = Compute<T>;
    constexpr kernels::Activation fused = kernel_activation<Activation>;
    constexpr std::size_t row = hidden_row<T, shape>;
    after.resize(x.extent(0));
    if (keep) before.resize(x.extent(0));
    if constexpr (fused == kernels::Activation::none) {
        Hidden<T, shape>& raw = keep ? before : after;
        layer.forward(x, raw);
        activate(activation, raw.data(), after.data(), after.size());
        if (factor != nullptr) assign(after, as_expression(after) * as_expression(*factor));
    } else {
        kernels::Finish<C> finish{.activation = fused};
        if (keep) finish.before = before.data(), finish.before_stride = row;
        if (factor != nullptr) finish.factor = factor->data(), finish.factor_stride = row;
        layer.forward(x, after, finish);
    }
}

/// y = c_proj(activation(c_fc(x))).
template <Arithmetic T, BlockShape shape, auto parts>
struct Mlp {
    static constexpr std::size_t width = shape.width;
    using C = Compute<T>;

    IntoHidden<T, shape> c_fc;
    FromHidden<T, shape> c_proj;

    struct Saved {
        Hidden<T, shape> before, after;
        Hidden<T, shape> gradient;

        void lend(Saved& to) { std::swap(gradient, to.gradient); }
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        decltype(c_fc)::parameters(visit, at + "c_fc.", self.c_fc...);
        decltype(c_proj)::parameters(visit, at + "c_proj.", self.c_proj...);
    }

    void initialise(Random& random, const InitScale& scale) {
        fill_normal(c_fc.weight, random, scale.hidden());
        fill_normal(c_proj.weight, random, scale.residual());
    }

    /// y = the perceptron's result, then what `finish` says. `keep` keeps what backward needs.
    void forward(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>&, Saved& saved, bool keep,
                 const kernels::Finish<C>& finish = {}) const {
        activated_hidden<T, shape>(c_fc, parts.activation, x, nullptr, saved.before, saved.after, keep);
        c_proj.forward(saved.after, y, finish);
    }

    void backward(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx, const Sequences<C>&, Saved& saved,
                  Mlp& gradient) const requires Trainable<T> {
        saved.gradient.resize(x.extent(0));
        c_proj.backward(saved.after, dy, saved.gradient, gradient.c_proj);
        activate_backward(parts.activation, saved.before.data(), saved.gradient.data(), saved.gradient.size());
        c_fc.backward(x, saved.gradient, dx, gradient.c_fc);
    }
};

/// y = fc2(activation(fc1_g(x)) · fc1_x(x)) (Shazeer 2020, eq. 6), under the names of timm's SwiGLU.
template <Arithmetic T, BlockShape shape, auto parts>
struct GatedMlp {
    static constexpr std::size_t width = shape.width;
    using C = Compute<T>;

    IntoHidden<T, shape> fc1_g, fc1_x;
    FromHidden<T, shape> fc2;

    struct Saved {
        Hidden<T, shape> before, value, after;
        Hidden<T, shape> gate, gradient;
        Tensor<C, Shape<dynamic, width>> dx;

        void lend(Saved& to) {
            std::swap(gate, to.gate);
            std::swap(gradient, to.gradient);
            std::swap(dx, to.dx);
        }
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        decltype(fc1_g)::parameters(visit, at + "fc1_g.", self.fc1_g...);
        decltype(fc1_x)::parameters(visit, at + "fc1_x.", self.fc1_x...);
        decltype(fc2)::parameters(visit, at + "fc2.", self.fc2...);
    }

    void initialise(Random& random, const InitScale& scale) {
        fill_normal(fc1_g.weight, random, scale.hidden());
        fill_normal(fc1_x.weight, random, scale.hidden());
        fill_normal(fc2.weight, random, scale.residual());
    }

    void forward(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>&, Saved& saved, bool keep,
                 const kernels::Finish<C>& finish = {}) const {
        saved.value.resize(x.extent(0));
        fc1_x.forward(x, saved.value);
        activated_hidden<T, shape>(fc1_g, parts.activation, x, &saved.value, saved.before, saved.after, keep);
        fc2.forward(saved.after, y, finish);
    }

    void backward(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx, const Sequences<C>&, Saved& saved,
                  GatedMlp& gradient) const requires Trainable<T> {
        const std::size_t rows = x.extent(0);
        saved.gate.resize(rows);
        saved.gradient.resize(rows);
        saved.dx.resize(rows);
        fc2.backward(saved.after, dy, saved.gradient, gradient.fc2);
        activate(parts.activation, saved.before.data(), saved.gate.data(), saved.gate.size());
        assign(saved.gate, as_expression(saved.gate) * as_expression(saved.gradient));
        assign(saved.gradient, as_expression(saved.gradient) * as_expression(saved.value));
        activate_backward(parts.activation, saved.before.data(), saved.gradient.data(), saved.gradient.size());
        fc1_x.backward(x, saved.gate, saved.dx, gradient.fc1_x);
        fc1_g.backward(x, saved.gradient, dx, gradient.fc1_g);
        add_rows<C, width>(saved.dx, dx);
    }
};

}  // namespace nn

/// The MLP of a config. Another one is another type with a template Layer<T, shape, parts> that has this layer's members
/// (see BlockPart) and treats every row alone; shape.hidden is what the config's mlp_ratio gives.
struct Mlp {
    template <Arithmetic T, BlockShape shape, auto parts>
    using Layer = nn::Mlp<T, shape, parts>;

    static constexpr Cost cost(const BlockShape& shape, std::size_t tokens) {
        return nn::linear_cost(shape.width, shape.hidden, true, tokens) +
               nn::linear_cost(shape.hidden, shape.width, true, tokens) +
               tokens * shape.hidden * Cost{.inference = 1, .saved = 2, .scratch = 1};
    }
};

/// An MLP whose hidden layer is gated by a second one: SwiGLU with `.activation = Silu{}`, GEGLU with Gelu{}.
struct GatedMlp {
    template <Arithmetic T, BlockShape shape, auto parts>
    using Layer = nn::GatedMlp<T, shape, parts>;

    static constexpr Cost cost(const BlockShape& shape, std::size_t tokens) {
        return nn::linear_cost(shape.width, 2 * shape.hidden, true, tokens) +
               nn::linear_cost(shape.hidden, shape.width, true, tokens) +
               tokens * Cost{.inference = 2 * shape.hidden,
                             .saved = 3 * shape.hidden,
                             .scratch = 2 * shape.hidden + shape.width};
    }
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/nn/part.hpp ----

// What a part of a user's own must have to stand in a model: the concepts behind a config's choices.

namespace tandem::inline TANDEM_ABI {

namespace nn::detail {

/// A visitor that does nothing, to ask whether a part lists its parameters.
struct IgnoreParameter {
    void operator()(const ParameterName&, auto&...) const {}
};

template <class Part>
concept ListsParameters = requires(Part& part) { Part::parameters(IgnoreParameter{}, ParameterName(), part); };

}  // namespace nn::detail

/// A mixer's or an MLP's Layer<T, shape, parts>, C being Compute<T>: a default-constructible value with
///
///     struct Saved;                                   // what forward leaves for backward, and all scratch
///     static void parameters(const auto& visit, const ParameterName& at, auto&... self);    // see for_each_parameter
///     void forward(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences, Saved& saved,
///                  bool keep) const;
///     void backward(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx,
///                   const Sequences<C>& sequences, Saved& saved, Layer& gradient) const;
///
/// and, if it likes, `void initialise(Random&, const InitScale&)` (else see initialise_part). forward writes y, which
/// does not overlap x; the block adds the residual. backward writes dx and adds to the gradients of its parameters; it
/// is called after a forward with `keep`, with the same x and saved. Types that only infer need none. The choice, the type
/// named in the config, holds the template Layer and `static constexpr Cost cost(const BlockShape&, std::size_t tokens)`;
/// a mixer that lets no token see those after it says `static constexpr bool can_be_causal = true`. An MLP must treat
/// every row alone: it may be given some of them.
template <class Layer, class C, std::size_t width>
concept BlockPart = std::default_initializable<Layer> && nn::detail::ListsParameters<Layer> &&
                    requires(const Layer& layer, Rows<const C, width> x, Rows<C, width> y,
                             const Sequences<C>& sequences, typename Layer::Saved& saved) {
                        layer.forward(x, y, sequences, saved, true);
                    };

/// A block part that can do what a block does with its result, y = result · factor + residual, in its last product.
template <class Layer, class C, std::size_t width>
concept FinishingPart = requires(const Layer& layer, Rows<const C, width> x, Rows<C, width> y,
                                 const Sequences<C>& sequences, typename Layer::Saved& saved,
                                 const kernels::Finish<C>& finish) {
    layer.forward(x, y, sequences, saved, true, finish);
};

/// A norm's Layer<T, Width, choice>: Saved and parameters as above, forward(x, y, saved) over rows, and
/// backward(x, dy, dx, saved, gradient, accumulate), where dx may be dy, and is added to where `accumulate` is set. The
/// choice has `static constexpr Cost cost(std::size_t width, std::size_t tokens)`.
template <class Layer, class C, std::size_t width>
concept NormPart = std::default_initializable<Layer> && nn::detail::ListsParameters<Layer> &&
                   requires(const Layer& layer, Rows<const C, width> x, Rows<C, width> y,
                            typename Layer::Saved& saved) { layer.forward(x, y, saved); };

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/nn/block.hpp ----

// The residual block, and a stack of them.

namespace tandem::inline TANDEM_ABI {

namespace nn {

/// A mixer or an MLP on its way into the residual stream: y = residual + drop · ls · after(part(x)), of which `after` (the
/// second norm of a sandwich), ls (layer scale) and drop (stochastic depth, one factor a sequence) are there where the
/// config has them.
template <Arithmetic T, std::size_t Width, auto parts, class Part>
struct Branch {
    using C = Compute<T>;
    static constexpr bool has_norm = parts.norm_position == NormPosition::sandwich;
    static constexpr bool has_scale = parts.ls_init_value != 0, drops = parts.drop_path_rate > 0;
    using Norm = std::conditional_t<has_norm, typename decltype(parts.norm)::template Layer<T, Width, parts.norm>, None>;

    Part part;
    [[no_unique_address]] Norm after;
    Tensor<C, Shape<has_scale ? Width : 0>> gamma;

    struct Saved {
        typename Part::Saved part;
        [[no_unique_address]] typename Norm::Saved norm;
        Tensor<C, Shape<dynamic, Width>> result, normed, gradient;  ///< of the part, where something stands behind it
        std::vector<C> drop;                                        ///< one factor a sequence; empty: all 1

        void lend(Saved& to) {
            std::swap(gradient, to.gradient);
            if constexpr (requires { part.lend(to.part); }) part.lend(to.part);
        }
    };

    Branch() { gamma.fill(static_cast<C>(parts.ls_init_value)); }

    static void parameters(const auto& visit, const ParameterName& part_at, const ParameterName& norm_at,
                           const ParameterName& scale_at, auto&... self) {
        Part::parameters(visit, part_at, self.part...);
        if constexpr (has_norm) Norm::parameters(visit, norm_at, self.after...);
        if constexpr (has_scale) visit(scale_at + "gamma", self.gamma...);
    }

    /// residual may be y.
    void forward(Rows<const C, Width> x, Rows<const C, Width> residual, Rows<C, Width> y,
                 const Sequences<C>& sequences, Saved& saved, bool keep) const {
        run(residual, y, sequences, saved, keep, [&](Rows<C, Width> to, const kernels::Finish<C>* finish) {
            if constexpr (FinishingPart<Part, C, Width>) {
                part.forward(x, to, sequences, saved.part, keep, finish != nullptr ? *finish : kernels::Finish<C>{});
            } else {
                part.forward(x, to, sequences, saved.part, keep);
            }
        });
    }

    /// The same for the rows that `picked` names, one in every sequence; residual and y hold those rows alone, and
    /// `ends` says so.
    void forward_picked(Rows<const C, Width> x, Rows<const C, Width> residual, Rows<C, Width> y,
                        const Sequences<C>& sequences, std::span<const std::size_t> picked, const Sequences<C>& ends,
                        Saved& saved, bool keep) const {
        run(residual, y, ends, saved, keep, [&](Rows<C, Width> to, const kernels::Finish<C>* finish) {
            part.forward_picked(x, to, sequences, picked, saved.part,
                                finish != nullptr ? *finish : kernels::Finish<C>{});
        });
    }

    /// dx, given the gradient g of y, which is that of the residual as well and stays as it is.
    void backward(Rows<const C, Width> x, Rows<const C, Width> g, Rows<C, Width> dx, const Sequences<C>& sequences,
                  Saved& saved, Branch& gradient) const requires Trainable<T> {
        part.backward(x, through(g, sequences, saved, gradient), dx, sequences, saved.part, gradient.part);
    }
    void backward_picked(Rows<const C, Width> x, Rows<const C, Width> g, Rows<C, Width> dx,
                         const Sequences<C>& sequences, std::span<const std::size_t> picked, const Sequences<C>& ends,
                         Saved& saved, Branch& gradient) const requires Trainable<T> {
        part.backward_picked(x, through(g, ends, saved, gradient), dx, sequences, picked, saved.part, gradient.part);
    }

private:
    /// A part that can finish its last product adds the residual there, and scales.
    template <class Forward>
    void run(Rows<const C, Width> residual, Rows<C, Width> y, const Sequences<C>& rows, Saved& saved, bool keep,
             const Forward& forward) const {
        constexpr bool finishes = FinishingPart<Part, C, Width> && !has_norm;
        if constexpr (finishes) {
            if (!drops || saved.drop.empty()) {
                kernels::Finish<C> finish{.residual = residual.data(), .residual_stride = Width};
                if constexpr (has_scale) {
                    finish.factor = gamma.data();
                    if (keep) {
                        saved.result.resize(rows.rows());
                        finish.before = saved.result.data();
                        finish.before_stride = Width;
                    }
                }
                return forward(y, &finish);
            }
        }
        if constexpr (!finishes || drops) {
            saved.result.resize(rows.rows());
            forward(saved.result, nullptr);
            const C* result = saved.result.data();
            if constexpr (has_norm) {
                saved.normed.resize(rows.rows());
                after.forward(saved.result, saved.normed, saved.norm);
                result = saved.normed.data();
            }
            for_each_row(rows, saved.drop, [&](std::size_t row, C drop) {
                for (std::size_t j = row * Width, column = 0; column < Width; ++j, ++column)
                    y.data()[j] = residual.data()[j] + drop * scale(column) * result[j];
            });
        }
    }

    C scale([[maybe_unused]] std::size_t column) const {
        if constexpr (has_scale) {
            return gamma.data()[column];
        } else {
            return C{1};
        }
    }

    /// The gradient of the part's result.
    Rows<const C, Width> through(Rows<const C, Width> g, const Sequences<C>& rows, Saved& saved, Branch& gradient) const
        requires Trainable<T>
    {
        if constexpr (!has_norm && !has_scale && !drops) {
            return g;
        } else {
            saved.gradient.resize(rows.rows());
            if constexpr (has_scale) {
                const C* const result = has_norm ? saved.normed.data() : saved.result.data();
                // Row by row in order, so that the sums' bits do not depend on the threads.
                for (std::size_t s = 0; s < rows.count(); ++s) {
                    const C drop = saved.drop.empty() ? C{1} : saved.drop[s];
                    for (std::size_t j = rows.offsets[s] * Width; j < rows.offsets[s + 1] * Width; ++j)
                        gradient.gamma.data()[j % Width] += drop * g.data()[j] * result[j];
                }
            }
            for_each_row(rows, saved.drop, [&](std::size_t row, C drop) {
                for (std::size_t j = row * Width, column = 0; column < Width; ++j, ++column)
                    saved.gradient.data()[j] = drop * scale(column) * g.data()[j];
            });
            if constexpr (has_norm)
                after.backward(saved.result, saved.gradient, saved.gradient, saved.norm, gradient.after, false);
            return saved.gradient;
        }
    }

    template <class Body>
    static void for_each_row(const Sequences<C>& rows, const std::vector<C>& drop, const Body& body) {
        parallel_for(rows.count(), 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t s = begin; s < end; ++s) {
                for (std::size_t row = rows.offsets[s]; row < rows.offsets[s + 1]; ++row)
                    body(row, drop.empty() ? C{1} : drop[s]);
            }
        });
    }
};

/// x + mixer(ln_1(x)), then + mlp(ln_2(·)) (CLIP/clip/model.py:171-192), or as parts.norm_position and parts.parallel
/// have it.
template <Arithmetic T, BlockShape shape, auto parts>
struct Block {
    static constexpr std::size_t width = shape.width;
    static constexpr bool is_post = parts.norm_position == NormPosition::post, is_parallel = parts.parallel;
    using C = Compute<T>;
    using Norm = typename decltype(parts.norm)::template Layer<T, width, parts.norm>;
    using Mixer = typename decltype(parts.mixer)::template Layer<T, shape, parts>;
    using Feedforward = typename decltype(parts.mlp)::template Layer<T, shape, parts>;
    using SecondNorm = std::conditional_t<is_parallel, None, Norm>;
    using Stream = Tensor<C, Shape<dynamic, width>>;

    static_assert(BlockPart<Mixer, C, width>,
                  "tandem: a mixer's Layer<T, shape, parts> needs Saved, parameters(visit, at, self...) and forward(x, y, "
                  "sequences, saved, keep): see BlockPart");
    static_assert(BlockPart<Feedforward, C, width>,
                  "tandem: an MLP's Layer<T, shape, parts> needs Saved, parameters(visit, at, self...) and forward(x, y, "
                  "sequences, saved, keep): see BlockPart");
    static_assert(NormPart<Norm, C, width>,
                  "tandem: a norm's Layer<T, Width, choice> needs Saved, parameters(visit, at, self...) and forward(x, y, saved)");
    static_assert(!is_parallel || parts.norm_position == NormPosition::pre,
                  "tandem: a parallel block has one norm, before mixer and MLP: leave norm_position at pre");

    Norm ln_1;
    Branch<T, width, parts, Mixer> attn;
    [[no_unique_address]] SecondNorm ln_2;
    Branch<T, width, parts, Feedforward> mlp;

    struct Saved {
        typename Norm::Saved norm_1;
        [[no_unique_address]] typename SecondNorm::Saved norm_2;
        typename Branch<T, width, parts, Mixer>::Saved mixer;
        typename Branch<T, width, parts, Feedforward>::Saved mlp;
        /// Pre: what the norms gave. Post: the sums they were given. Parallel: normed_2 is the gradient of the MLP's input.
        Stream normed_1, middle, normed_2;
        /// For picked rows: their inputs, or all rows of a mixer that cannot pick; and the offsets of sequences of one
        /// row.
        Stream whole;
        std::vector<std::size_t> ends;

        /// Hands what only a backward pass uses to the block that is next to have one.
        void lend(Saved& to) {
            mixer.lend(to.mixer);
            mlp.lend(to.mlp);
            if constexpr (is_parallel) std::swap(normed_2, to.normed_2);
        }
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        Norm::parameters(visit, at + "ln_1.", self.ln_1...);
        Branch<T, width, parts, Mixer>::parameters(visit, at + "attn.", at + "ln_attn.", at + "ls_1.", self.attn...);
        if constexpr (!is_parallel) Norm::parameters(visit, at + "ln_2.", self.ln_2...);
        Branch<T, width, parts, Feedforward>::parameters(visit, at + "mlp.", at + "ln_mlp.", at + "ls_2.", self.mlp...);
    }

    void initialise(Random& random, const InitScale& scale) {
        initialise_part(attn.part, random, scale);
        initialise_part(mlp.part, random, scale);
    }

    /// x and y are <rows, width> and must not overlap. `keep` keeps what backward needs.
    void forward(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences, Saved& saved,
                 bool keep) const {
        const std::size_t rows = x.extent(0);
        saved.normed_1.resize(rows);
        if constexpr (is_post) {
            attn.forward(x, x, saved.normed_1, sequences, saved.mixer, keep);
        } else {
            ln_1.forward(x, saved.normed_1, saved.norm_1);
            if constexpr (is_parallel) {
                attn.forward(saved.normed_1, x, y, sequences, saved.mixer, keep);
            } else {
                saved.middle.resize(rows);
                attn.forward(saved.normed_1, x, saved.middle, sequences, saved.mixer, keep);
            }
        }
        second_half(y, sequences, saved, keep);
    }

    /// The rows of forward's result that `picked` names, one in every sequence, in y <sequences, width>. A mixer that
    /// can pick, and all that follows it, computes those rows alone; the bits are forward's.
    void forward_picked(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences,
                        std::span<const std::size_t> picked, Saved& saved, bool keep) const {
        if (!can_pick()) {
            saved.whole.resize(x.extent(0));
            forward(x, saved.whole, sequences, saved, keep);
            return gather_rows<C, width>(saved.whole, picked, y);
        }
        if constexpr (mixer_picks) {
            const std::size_t count = picked.size();
            saved.whole.resize(count);
            saved.ends.resize(count + 1);
            std::iota(saved.ends.begin(), saved.ends.end(), std::size_t{0});
            const Sequences<C> ends{saved.ends};
            gather_rows<C, width>(x, picked, saved.whole);
            if constexpr (is_post) {
                saved.normed_1.resize(count);
                attn.forward_picked(x, saved.whole, saved.normed_1, sequences, picked, ends, saved.mixer, keep);
            } else {
                saved.middle.resize(x.extent(0));
                ln_1.forward(x, saved.middle, saved.norm_1);
                if constexpr (is_parallel) {
                    attn.forward_picked(saved.middle, saved.whole, y, sequences, picked, ends, saved.mixer, keep);
                    saved.normed_1.resize(count);
                    gather_rows<C, width>(saved.middle, picked, saved.normed_1);
                } else {
                    saved.normed_1.resize(x.extent(0));
                    std::swap(saved.normed_1, saved.middle);
                    saved.middle.resize(count);
                    attn.forward_picked(saved.normed_1, saved.whole, saved.middle, sequences, picked, ends, saved.mixer,
                                        keep);
                }
            }
            second_half(y, ends, saved, keep);
        }
    }

    /// g = dL/dx for all rows, given g_picked = dL/dy of forward_picked, which is overwritten. `scratch` is <rows,
    /// width>.
    void backward_picked(Rows<const C, width> x, Rows<C, width> g_picked, Rows<C, width> g, Rows<C, width> scratch,
                         const Sequences<C>& sequences, std::span<const std::size_t> picked, Saved& saved,
                         Block& gradient) const requires Trainable<T> {
        std::fill_n(g.data(), g.size(), C{0});
        if (!can_pick()) {
            add_to_rows<C, width>(g_picked, picked, g);
            return backward(x, g, scratch, sequences, saved, gradient);
        }
        if constexpr (mixer_picks) {
            const Rows<C, width> few(scratch.data(), {{picked.size(), width}});
            const Sequences<C> ends{saved.ends};
            if constexpr (is_parallel) {
                saved.normed_2.resize(picked.size());
                mlp.backward(saved.normed_1, g_picked, saved.normed_2, ends, saved.mlp, gradient.mlp);
                attn.backward_picked(saved.middle, g_picked, scratch, sequences, picked, ends, saved.mixer,
                                     gradient.attn);
                add_to_rows<C, width>(saved.normed_2, picked, scratch);
            } else if constexpr (is_post) {
                second_half_backward(g_picked, few, ends, saved, gradient);
                ln_1.backward(saved.normed_1, g_picked, g_picked, saved.norm_1, gradient.ln_1, false);
                attn.backward_picked(x, g_picked, scratch, sequences, picked, ends, saved.mixer, gradient.attn);
                add_rows<C, width>(scratch, g);
            } else {
                second_half_backward(g_picked, few, ends, saved, gradient);
                attn.backward_picked(saved.normed_1, g_picked, scratch, sequences, picked, ends, saved.mixer,
                                     gradient.attn);
            }
            add_to_rows<C, width>(g_picked, picked, g);
            if constexpr (!is_post) ln_1.backward(x, scratch, g, saved.norm_1, gradient.ln_1, true);
        }
    }

    /// In place g = dL/dx, given g = dL/dy. `scratch` is <rows, width>.
    void backward(Rows<const C, width> x, Rows<C, width> g, Rows<C, width> scratch, const Sequences<C>& sequences,
                  Saved& saved, Block& gradient) const requires Trainable<T> {
        if constexpr (is_parallel) {
            saved.normed_2.resize(x.extent(0));
            mlp.backward(saved.normed_1, g, saved.normed_2, sequences, saved.mlp, gradient.mlp);
            attn.backward(saved.normed_1, g, scratch, sequences, saved.mixer, gradient.attn);
            add_rows<C, width>(saved.normed_2, scratch);
            ln_1.backward(x, scratch, g, saved.norm_1, gradient.ln_1, true);
        } else if constexpr (is_post) {
            second_half_backward(g, scratch, sequences, saved, gradient);
            ln_1.backward(saved.normed_1, g, g, saved.norm_1, gradient.ln_1, false);
            attn.backward(x, g, scratch, sequences, saved.mixer, gradient.attn);
            add_rows<C, width>(scratch, g);
        } else {
            second_half_backward(g, scratch, sequences, saved, gradient);
            attn.backward(saved.normed_1, g, scratch, sequences, saved.mixer, gradient.attn);
            ln_1.backward(x, scratch, g, saved.norm_1, gradient.ln_1, true);
        }
    }

private:
    static constexpr bool mixer_picks = requires { Mixer::can_pick(); };

    static bool can_pick() {
        if constexpr (mixer_picks) {
            return Mixer::can_pick();
        } else {
            return false;
        }
    }

    /// All that follows the mixer treats every row alone: the rows are all, or the picked ones.
    void second_half(Rows<C, width> y, const Sequences<C>& sequences, Saved& saved, bool keep) const {
        const std::size_t rows = y.extent(0);
        if constexpr (is_parallel) {
            mlp.forward(saved.normed_1, y, y, sequences, saved.mlp, keep);
        } else if constexpr (is_post) {
            saved.middle.resize(rows);
            saved.normed_2.resize(rows);
            ln_1.forward(saved.normed_1, saved.middle, saved.norm_1);
            mlp.forward(saved.middle, saved.middle, saved.normed_2, sequences, saved.mlp, keep);
            ln_2.forward(saved.normed_2, y, saved.norm_2);
        } else {
            saved.normed_2.resize(rows);
            ln_2.forward(saved.middle, saved.normed_2, saved.norm_2);
            mlp.forward(saved.normed_2, saved.middle, y, sequences, saved.mlp, keep);
        }
    }

    /// In place g = the gradient of the middle of the stream.
    void second_half_backward(Rows<C, width> g, Rows<C, width> scratch, const Sequences<C>& sequences, Saved& saved,
                              Block& gradient) const requires Trainable<T> {
        if constexpr (is_post) {
            ln_2.backward(saved.normed_2, g, g, saved.norm_2, gradient.ln_2, false);
            mlp.backward(saved.middle, g, scratch, sequences, saved.mlp, gradient.mlp);
            add_rows<C, width>(scratch, g);
        } else {
            mlp.backward(saved.normed_2, g, scratch, sequences, saved.mlp, gradient.mlp);
            ln_2.backward(saved.middle, scratch, g, saved.norm_2, gradient.ln_2, true);
        }
    }
};

/// `Layers` blocks one after the other.
template <Arithmetic T, BlockShape shape, std::size_t Layers, auto parts>
struct Transformer {
    static constexpr std::size_t width = shape.width;
    using C = Compute<T>;
    using Layer = Block<T, shape, parts>;

    std::vector<Layer> resblocks = std::vector<Layer>(Layers);

    /// streams[i] is the input of block i; the last one is the output.
    struct Saved {
        std::vector<Tensor<C, Shape<dynamic, width>>> streams{2};
        std::vector<typename Layer::Saved> blocks{1};
        Tensor<C, Shape<dynamic, width>> scratch, picked;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        for (std::size_t i = 0; i < Layers; ++i) {
            Layer::parameters(visit, at + "resblocks." + std::to_string(i) + ".", self.resblocks[i]...);
        }
    }

    void initialise(Random& random) {
        for (Layer& block : resblocks) block.initialise(random, {.width = width, .layers = Layers});
    }

    /// Where the input must be written before forward.
    Rows<C, width> input(std::size_t rows, Saved& saved) const {
        saved.streams.front().resize(rows);
        return saved.streams.front();
    }

    /// Returns the output, which stands in `saved`. With `keep`, all that backward needs is kept, and stochastic depth
    /// drops what `random` draws; without, each block overwrites what the one before it left.
    Rows<C, width> forward(const Sequences<C>& sequences, Saved& saved, bool keep, Random& random) const {
        prepare(sequences, saved, keep, random);
        return forward_blocks(Layers, sequences, saved, keep);
    }

    /// The rows of the output that `picked` names, one in every sequence: <sequences, width>.
    Rows<C, width> forward_picked(const Sequences<C>& sequences, std::span<const std::size_t> picked, Saved& saved,
                                  bool keep, Random& random) const {
        prepare(sequences, saved, keep, random);
        const Rows<C, width> from = forward_blocks(Layers - 1, sequences, saved, keep);
        saved.picked.resize(picked.size());
        resblocks.back().forward_picked(from, saved.picked, sequences, picked, saved.blocks[keep ? Layers - 1 : 0],
                                        keep);
        return saved.picked;
    }

    /// In place g = the gradient of the input, given that of the output.
    void backward(Rows<C, width> g, const Sequences<C>& sequences, Saved& saved, Transformer& gradient) const
        requires Trainable<T>
    {
        backward_blocks(Layers, g, sequences, saved, gradient);
    }

    /// g = the gradient of the input, given that of forward_picked's result, which is overwritten.
    void backward_picked(Rows<C, width> g_picked, Rows<C, width> g, const Sequences<C>& sequences,
                         std::span<const std::size_t> picked, Saved& saved, Transformer& gradient) const
        requires Trainable<T>
    {
        saved.scratch.resize(g.extent(0));
        resblocks.back().backward_picked(saved.streams[Layers - 1], g_picked, g, saved.scratch, sequences, picked,
                                         saved.blocks[Layers - 1], gradient.resblocks.back());
        backward_blocks(Layers - 1, g, sequences, saved, gradient);
    }

private:
    void prepare(const Sequences<C>& sequences, Saved& saved, bool keep, Random& random) const {
        if (keep && saved.blocks.size() != Layers) {
            std::vector<Tensor<C, Shape<dynamic, width>>> streams(Layers + 1);
            streams.front() = std::move(saved.streams.front());
            saved.streams = std::move(streams);
            saved.blocks = std::vector<typename Layer::Saved>(Layers);
        }
        if constexpr (parts.drop_path_rate > 0) {
            for (std::size_t i = 0; i < saved.blocks.size(); ++i) {
                const double rate =
                    Layers > 1 ? parts.drop_path_rate * static_cast<double>(i) / static_cast<double>(Layers - 1) : 0;
                draw(saved.blocks[i].mixer.drop, sequences.count(), keep ? rate : 0, random);
                draw(saved.blocks[i].mlp.drop, sequences.count(), keep ? rate : 0, random);
            }
        }
    }

    /// 0 with probability `rate`, else 1 / (1 − rate), so that the mean is 1.
    static void draw(std::vector<C>& drop, std::size_t count, double rate, Random& random) {
        drop.resize(rate > 0 ? count : 0);
        for (C& factor : drop) factor = random.uniform() < rate ? C{0} : static_cast<C>(1 / (1 - rate));
    }

    Rows<C, width> forward_blocks(std::size_t count, const Sequences<C>& sequences, Saved& saved, bool keep) const {
        const std::size_t rows = saved.streams.front().extent(0);
        for (std::size_t i = 0; i < count; ++i) {
            auto& from = saved.streams[keep ? i : i % 2];
            auto& to = saved.streams[keep ? i + 1 : (i + 1) % 2];
            to.resize(rows);
            resblocks[i].forward(from, to, sequences, saved.blocks[keep ? i : 0], keep);
        }
        return saved.streams[keep ? count : count % 2];
    }

    void backward_blocks(std::size_t count, Rows<C, width> g, const Sequences<C>& sequences, Saved& saved,
                         Transformer& gradient) const requires Trainable<T> {
        saved.scratch.resize(g.extent(0));
        if (count > 1) saved.blocks[0].lend(saved.blocks[count - 1]);
        for (std::size_t i = count; i-- > 0;) {
            resblocks[i].backward(saved.streams[i], g, saved.scratch, sequences, saved.blocks[i],
                                  gradient.resblocks[i]);
            if (i > 0) saved.blocks[i].lend(saved.blocks[i - 1]);
        }
    }
};

/// A part's cost, by the parts it stands among where it asks for them.
constexpr Cost cost_of(const auto& part, const BlockShape& shape, std::size_t tokens, const auto& parts) {
    if constexpr (requires { part.cost(shape, tokens, parts); }) {
        return part.cost(shape, tokens, parts);
    } else {
        return part.cost(shape, tokens);
    }
}

/// What stands behind mixer and MLP, for `tokens` tokens: second norm, layer scale, stochastic depth.
constexpr Cost branch_cost(const BlockShape& shape, std::size_t tokens, const auto& parts) {
    const std::size_t rows = tokens * shape.width;
    const bool is_sandwich = parts.norm_position == NormPosition::sandwich, is_scaled = parts.ls_init_value != 0;
    const bool drops = parts.drop_path_rate > 0;
    Cost total{.parameters = is_scaled ? shape.width : 0};
    if (is_sandwich) total = total + parts.norm.cost(shape.width, tokens) + held_cost(2 * rows);
    if (!is_sandwich && (is_scaled || drops)) total = total + Cost{.saved = rows};
    if (is_sandwich || is_scaled || drops) total = total + Cost{.scratch = rows};
    return total;
}

/// One block, and the output it hands to the next.
constexpr Cost block_cost(const BlockShape& shape, std::size_t tokens, const auto& parts) {
    const std::size_t rows = tokens * shape.width, kept = parts.parallel ? 1 : 3;
    return (parts.parallel ? 1 : 2) * parts.norm.cost(shape.width, tokens) +
           cost_of(parts.mixer, shape, tokens, parts) + cost_of(parts.mlp, shape, tokens, parts) +
           2 * branch_cost(shape, tokens, parts) +
           rows * Cost{.inference = kept, .saved = kept + 1, .scratch = parts.parallel ? 1U : 0U};
}

/// The last block of a tower that pools one row.
constexpr Cost picked_block_cost(const BlockShape& shape, std::size_t tokens, const auto& parts) {
    if constexpr (requires { parts.mixer.picked_cost(shape, tokens, parts); }) {
        const std::size_t normed = parts.norm_position == NormPosition::post ? 0 : tokens;
        return parts.norm.cost(shape.width, normed) + parts.mixer.picked_cost(shape, tokens, parts) +
               cost_of(parts.mlp, shape, 1, parts) + 2 * branch_cost(shape, 1, parts) +
               (parts.parallel ? Cost{} : parts.norm.cost(shape.width, 1)) + held_cost((normed + 4) * shape.width);
    } else {
        return block_cost(shape, tokens, parts);
    }
}

/// `layers` blocks, the streams between them, and the backward pass's own two. FLOPs and parameters are those of whole
/// blocks; what is executed and held knows that the last block computes one row where `picks` is set.
constexpr Cost transformer_cost(const BlockShape& shape, std::size_t tokens, std::size_t layers, const auto& parts,
                                bool picks) {
    const Cost block = block_cost(shape, tokens, parts);
    const Cost last = picks ? picked_block_cost(shape, tokens, parts) : block;
    const std::size_t rows = tokens * shape.width;
    Cost total = layers * block;
    total.executed = (layers - 1) * block.executed + last.executed;
    total.saved = (layers - 1) * block.saved + last.saved + rows;
    total.inference = (layers > 1 ? block.inference : 0) + (picks || layers == 1 ? last.inference : 0) + 2 * rows;
    total.scratch = (layers > 1 ? block.scratch : 0) + (picks || layers == 1 ? last.scratch : 0) + 2 * rows;
    return total;
}

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/nn/pooling.hpp ----

// From token rows to one embedding: final norm, pooling, projection.

namespace tandem::inline TANDEM_ABI {

/// A pooling that picks one row of every sequence; the tower then computes that row alone where it can. Any other
/// pooling has a template Layer<T, shape, parts> with Saved and parameters as a BlockPart,
///     forward(x, y, sequences, prefix, saved, keep) const        // all rows to one a sequence
///     backward(x, dy, dx, sequences, prefix, saved, gradient) const
/// (`prefix`: tokens in front of the patches), and cost(shape, tokens, parts).
template <class Pooling>
concept PicksRow = Pooling::picks_row;

/// What makes an embedding of a pooled row; open_clip's proj_type.
enum class Projection {
    linear,  ///< a matrix, or with proj_bias a dense layer
    none     ///< nothing: the embedding is as wide as the tower
};

namespace nn {

/// The mean over rows, but the first `prefix` of each sequence.
template <Arithmetic T, BlockShape shape, auto parts>
struct Average {
    static constexpr std::size_t width = shape.width;
    using C = Compute<T>;

    struct Saved {};

    static void parameters(const auto&, const ParameterName&, auto&...) {}

    void forward(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences, std::size_t prefix, Saved&,
                 bool) const {
        for (std::size_t s = 0; s < sequences.count(); ++s) {
            auto mean_row = y[s];
            assign(mean_row, mean<0>(x.slice(sequences.offsets[s] + prefix, sequences.offsets[s + 1])));
        }
    }

    void backward(Rows<const C, width>, Rows<const C, width> dy, Rows<C, width> dx, const Sequences<C>& sequences,
                  std::size_t prefix, Saved&, Average&) const {
        for (std::size_t s = 0; s < sequences.count(); ++s) {
            const std::size_t begin = sequences.offsets[s], first = begin + prefix, end = sequences.offsets[s + 1];
            std::fill_n(dx.data() + begin * width, prefix * width, C{0});
            auto spread = dx.slice(first, end);
            assign(spread, dy[s] * static_cast<double>(C{1} / static_cast<C>(end - first)));
        }
    }
};

/// A learned query attends to all rows, an MLP follows: the pooling of SigLIP's image tower (Zhai et al. 2022, section
/// 3), under the names of timm/layers/attention_pool.py's AttentionPoolLatent.
template <Arithmetic T, BlockShape shape, auto parts>
struct AttentionPool {
    static constexpr std::size_t width = shape.width;
    static constexpr std::size_t head_width = shape.width / shape.heads;
    using C = Compute<T>;
    using Norm = typename decltype(parts.norm)::template Layer<T, width, parts.norm>;
    using Stream = Tensor<C, Shape<dynamic, width>>;

    Tensor<C, Shape<1, width>> latent;
    Linear<T, width, width> q;
    Linear<T, width, 2 * width> kv;
    Linear<T, width, width> proj;
    Norm norm;
    nn::Mlp<T, shape, parts> mlp;

    struct Saved {
        Stream query, queries, mixed, projected, normed;
        Stream queries_gradient, stream_gradient, scratch;
        Tensor<C, Shape<dynamic, 2 * width>> kv, kv_gradient;
        typename Norm::Saved norm;
        typename nn::Mlp<T, shape, parts>::Saved mlp;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "latent", self.latent...);
        decltype(q)::parameters(visit, at + "q.", self.q...);
        decltype(kv)::parameters(visit, at + "kv.", self.kv...);
        decltype(proj)::parameters(visit, at + "proj.", self.proj...);
        Norm::parameters(visit, at + "norm.", self.norm...);
        using Feedforward = nn::Mlp<T, shape, parts>;
        decltype(Feedforward::c_fc)::parameters(visit, at + "mlp.fc1.", self.mlp.c_fc...);
        decltype(Feedforward::c_proj)::parameters(visit, at + "mlp.fc2.", self.mlp.c_proj...);
    }

    void initialise(Random& random, const InitScale& scale) {
        fill_normal(latent, random, scale.attention());
        fill_normal(q.weight, random, scale.attention());
        fill_normal(kv.weight, random, scale.attention());
        fill_normal(proj.weight, random, scale.attention());
        mlp.initialise(random, scale);
    }

    void forward(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences, std::size_t, Saved& saved,
                 bool keep) const {
        const std::size_t count = sequences.count();
        for (Stream* stream : {&saved.queries, &saved.mixed, &saved.projected, &saved.normed}) stream->resize(count);
        saved.query.resize(1);
        saved.kv.resize(x.extent(0));
        q.forward(latent.view(), saved.query);
        for (std::size_t s = 0; s < count; ++s) std::copy_n(saved.query.data(), width, &saved.queries(s, 0));
        kv.forward(x, saved.kv);
        kernels::attention<C>(kernel_shape(sequences), operands(saved), saved.mixed.data(), width);
        proj.forward(saved.mixed, saved.projected);
        norm.forward(saved.projected, saved.normed, saved.norm);
        mlp.forward(saved.normed, y, sequences, saved.mlp, keep,
                    {.residual = saved.projected.data(), .residual_stride = width});
    }

    void backward(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx, const Sequences<C>& sequences,
                  std::size_t, Saved& saved, AttentionPool& gradient) const requires Trainable<T> {
        const std::size_t count = sequences.count();
        for (Stream* stream : {&saved.queries_gradient, &saved.stream_gradient, &saved.scratch}) stream->resize(count);
        saved.kv_gradient.resize(x.extent(0));
        std::copy_n(dy.data(), dy.size(), saved.stream_gradient.data());
        mlp.backward(saved.normed, dy, saved.scratch, sequences, saved.mlp, gradient.mlp);
        norm.backward(saved.projected, saved.scratch, saved.stream_gradient, saved.norm, gradient.norm, true);
        proj.backward(saved.mixed, saved.stream_gradient, saved.scratch, gradient.proj);
        kernels::attention_backward<C>(
            kernel_shape(sequences), operands(saved), saved.scratch.data(), width,
            {saved.queries_gradient.data(), width, saved.kv_gradient.data(), 2 * width,
             saved.kv_gradient.data() + width, 2 * width});
        kv.backward(x, saved.kv_gradient, dx, gradient.kv);
        // All sequences share one query.
        C* const sums = saved.stream_gradient.data();
        std::fill_n(sums, width, C{0});
        detail::add_column_sums<C>(count, width, {saved.queries_gradient.data(), width}, sums);
        const Rows<C, width> query_gradient(sums, {{1, width}}), latent_gradient(saved.scratch.data(), {{1, width}});
        q.backward(latent.view(), query_gradient, latent_gradient, gradient.q);
        std::transform(gradient.latent.data(), gradient.latent.data() + width, latent_gradient.data(),
                       gradient.latent.data(), std::plus<C>());
    }

private:
    static kernels::AttentionShape kernel_shape(const Sequences<C>& sequences) {
        return {.offsets = sequences.offsets,
                .heads = shape.heads,
                .kv_heads = shape.heads,
                .head_width = head_width,
                .causal = false,
                .picked = sequences.offsets.first(sequences.count())};
    }
    static kernels::AttentionOperands<const C> operands(const Saved& saved) {
        return {saved.queries.data(), width, saved.kv.data(), 2 * width, saved.kv.data() + width, 2 * width};
    }
};

}  // namespace nn

/// The pooling of an image tower: the class token's row.
struct ClassToken {
    static constexpr bool picks_row = true;
    static constexpr bool needs_class_token = true;
};

/// The mean of the rows after the final norm; in an image tower without class token and registers
/// (open_clip/transformer.py, _global_pool "avg"), in a text tower over all that it computes.
struct Average {
    static constexpr bool picks_row = false;

    template <Arithmetic T, BlockShape shape, auto parts>
    using Layer = nn::Average<T, shape, parts>;

    static constexpr Cost cost(const BlockShape&, std::size_t, const auto&) { return {}; }
};

/// Attention pooling over all rows after the final norm ("MAP"), with the tower's heads, MLP ratio, norm and activation.
struct AttentionPool {
    static constexpr bool picks_row = false;

    template <Arithmetic T, BlockShape shape, auto parts>
    using Layer = nn::AttentionPool<T, shape, parts>;

    static constexpr Cost cost(const BlockShape& shape, std::size_t tokens, const auto& parts) {
        const std::size_t width = shape.width;
        // The query is the same for all, and projected once a batch.
        const Cost query{.parameters = 2 * width + width * width, .matrices = width * width, .flops = 2 * width * width};
        return query + product_cost(4 * tokens * width) + nn::linear_cost(width, width, true, 1) +
               nn::linear_cost(width, 2 * width, true, tokens) + parts.norm.cost(width, 1) + Mlp::cost(shape, 1) +
               width * Cost{.inference = 2 * tokens + 4, .saved = 2 * tokens + 4, .scratch = 2 * tokens + 3};
    }
};

/// The pooling of a text tower: the row of the end-of-text token, which is the highest id (CLIP/clip/model.py:352-354).
/// The first one counts where there are several. In a causal tower no later token can reach that row, so the tower
/// computes each caption only up to it.
struct Eot {
    static constexpr bool picks_row = true;

    static std::size_t position(std::span<const Id> ids) {
        return static_cast<std::size_t>(std::max_element(ids.begin(), ids.end()) - ids.begin());
    }
};

/// The pooling of a text tower: the last row of the context, padding or not, as SigLIP has it (open_clip's pool_type
/// "last").
struct Last {
    static constexpr bool picks_row = true;

    static std::size_t position(std::span<const Id> ids) { return ids.size() - 1; }
};

namespace nn {

/// From pooled rows <N, Width> to embeddings <N, Embedding>: times a matrix [Width, Embedding] (CLIP/clip/model.py:238), or
/// a dense layer as PyTorch's where there is a bias (open_clip/transformer.py, proj_bias), or nothing.
template <Arithmetic T, std::size_t Width, std::size_t Embedding, Projection type, bool has_bias>
struct EmbeddingProjection {
    using C = Compute<T>;
    static constexpr bool is_linear = type == Projection::linear && has_bias;
    using Matrix = std::conditional_t<is_linear, Linear<T, Width, Embedding>,
                                      std::conditional_t<type == Projection::none, None,
                                                         Tensor<Stored<T>, Shape<Width, Embedding>>>>;

    [[no_unique_address]] Matrix matrix;

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        if constexpr (is_linear) {
            Matrix::parameters(visit, at + ".", self.matrix...);
        } else if constexpr (type != Projection::none) {
            visit(at, self.matrix...);
        }
    }

    void initialise(Random& random, const InitScale& scale) {
        if constexpr (is_linear) {
            fill_normal(matrix.weight, random, scale.attention());
        } else if constexpr (type != Projection::none) {
            fill_normal(matrix, random, scale.attention());
        }
    }

    void forward(Rows<const C, Width> x, Rows<C, Embedding> y) const {
        if constexpr (is_linear) {
            matrix.forward(x, y);
        } else if constexpr (type == Projection::none) {
            std::copy_n(x.data(), x.size(), y.data());
        } else {
            kernels::gemm<C>(x.extent(0), Embedding, Width, kernels::row_major<C>(x.data(), Width),
                             kernels::row_major(matrix.data(), Embedding), y.data(), Embedding);
        }
    }

    /// Writes dx, adds to the gradients.
    void backward(Rows<const C, Width> x, Rows<const C, Embedding> dy, Rows<C, Width> dx,
                  EmbeddingProjection& gradient) const requires Trainable<T> {
        if constexpr (is_linear) {
            matrix.backward(x, dy, dx, gradient.matrix);
        } else if constexpr (type == Projection::none) {
            std::copy_n(dy.data(), dy.size(), dx.data());
        } else {
            const std::size_t count = x.extent(0);
            const auto g = kernels::row_major(dy.data(), Embedding);
            kernels::gemm<C>(Width, Embedding, count, kernels::row_major<C>(x.data(), Width).transposed(), g,
                             gradient.matrix.data(), Embedding, true);
            kernels::gemm<C>(count, Width, Embedding, g, kernels::row_major(matrix.data(), Embedding).transposed(),
                             dx.data(), Width);
        }
    }
};

/// Norm and pooling and projection, applied to x <rows, width> to give y <N, Embedding>. A pooling
/// that picks one row commutes with the norm of rows, and the tower gives it the picked rows alone; any other pools
/// what is normed, or norms what is pooled where norm_last is set.
template <Arithmetic T, BlockShape shape, std::size_t Embedding, auto parts, class Pooling, bool norm_last,
          Projection proj_type, bool proj_bias>
struct Head {
    static constexpr std::size_t width = shape.width;
    static constexpr bool picks_row = PicksRow<Pooling>;
    using C = Compute<T>;
    using Norm = typename decltype(parts.norm)::template Layer<T, width, parts.norm>;

    template <class P>
    struct LayerOf {
        using type = typename P::template Layer<T, shape, parts>;
    };
    using Pool = typename std::conditional_t<picks_row, std::type_identity<None>, LayerOf<Pooling>>::type;
    using Projector = EmbeddingProjection<T, width, Embedding, proj_type, proj_bias>;

    Norm norm;
    [[no_unique_address]] Pool pool;
    [[no_unique_address]] Projector projection;

    struct Saved {
        typename Norm::Saved norm;
        [[no_unique_address]] typename Pool::Saved pool;
        Tensor<C, Shape<dynamic, width>> normed, pooled;
        Tensor<C, Shape<dynamic, width>> normed_gradient, pooled_gradient;
    };

    static void parameters(const auto& visit, const ParameterName& pool_at, auto&... self) {
        if constexpr (!picks_row) Pool::parameters(visit, pool_at, self.pool...);
    }

    void initialise(Random& random, const InitScale& scale) {
        projection.initialise(random, scale);
        if constexpr (!picks_row) initialise_part(pool, random, scale);
    }

    /// x holds the picked row of every sequence, or all rows.
    void forward(Rows<const C, width> x, Rows<C, Embedding> y, const Sequences<C>& sequences, std::size_t prefix,
                 Saved& saved, bool keep) const {
        const std::size_t count = sequences.count();
        saved.pooled.resize(count);
        if constexpr (picks_row) {
            norm.forward(x, saved.pooled, saved.norm);
        } else if constexpr (norm_last) {
            saved.normed.resize(count);
            pool.forward(x, saved.normed, sequences, prefix, saved.pool, keep);
            norm.forward(saved.normed, saved.pooled, saved.norm);
        } else {
            saved.normed.resize(x.extent(0));
            norm.forward(x, saved.normed, saved.norm);
            pool.forward(saved.normed, saved.pooled, sequences, prefix, saved.pool, keep);
        }
        projection.forward(saved.pooled, y);
    }

    /// Writes dx for all of x, given dy; adds to the gradients.
    void backward(Rows<const C, width> x, Rows<const C, Embedding> dy, Rows<C, width> dx, const Sequences<C>& sequences,
                  std::size_t prefix, Saved& saved, Head& gradient) const requires Trainable<T> {
        const std::size_t count = sequences.count();
        saved.pooled_gradient.resize(count);
        projection.backward(saved.pooled, dy, saved.pooled_gradient, gradient.projection);
        if constexpr (picks_row) {
            norm.backward(x, saved.pooled_gradient, dx, saved.norm, gradient.norm, false);
        } else if constexpr (norm_last) {
            norm.backward(saved.normed, saved.pooled_gradient, saved.pooled_gradient, saved.norm, gradient.norm, false);
            pool.backward(x, saved.pooled_gradient, dx, sequences, prefix, saved.pool, gradient.pool);
        } else {
            saved.normed_gradient.resize(x.extent(0));
            pool.backward(saved.normed, saved.pooled_gradient, saved.normed_gradient, sequences, prefix, saved.pool,
                          gradient.pool);
            norm.backward(x, saved.normed_gradient, dx, saved.norm, gradient.norm, false);
        }
    }
};

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/nn/positions.hpp ----

// Fixed positions: sine-cosine tables and rotations.

namespace tandem::inline TANDEM_ABI {

/// How a tower tells its tokens where they stand; open_clip's pos_embed_type, and rotations.
enum class PosEmbed {
    learnable,   ///< a learned row for every place
    sin_cos_2d,  ///< a fixed row for every patch (open_clip/pos_embed.py, get_2d_sincos_pos_embed)
    rotary       ///< queries and keys are rotated: by row and column of a patch, by the place of a text token
};

namespace nn {

/// Row 1 + p of the table is patch p's: sines, then cosines of its column in the first half, of its row in the second;
/// row 0, the class token's, is zero (open_clip/pos_embed.py:22-70).
template <Real C, std::size_t Side, std::size_t Width>
const Tensor<C, Shape<1 + Side * Side, Width>>& sin_cos_2d() {
    static const auto table = [] {
        Tensor<C, Shape<1 + Side * Side, Width>> rows;
        constexpr std::size_t bands = Width / 4;
        rows.fill(0);
        for (std::size_t patch = 0; patch < Side * Side; ++patch) {
            C* to = rows.data() + (1 + patch) * Width;
            for (const std::size_t place : {patch % Side, patch / Side}) {
                for (std::size_t j = 0; j < bands; ++j, ++to) {
                    const double angle = static_cast<double>(place) *
                                         std::pow(10000.0, -static_cast<double>(j) / static_cast<double>(bands));
                    to[0] = static_cast<C>(std::sin(angle));
                    to[bands] = static_cast<C>(std::cos(angle));
                }
                to += bands;
            }
        }
        return rows;
    }();
    return table;
}

/// The rotations of `Places` places that follow one another: angle place · 10000^(−2j / head width) for pair j (Su et al.
/// 2021, section 3.2.2). As Sequences::rotations.
template <Real C, std::size_t Places, std::size_t HeadWidth>
const Tensor<C, Shape<Places, HeadWidth>>& rotations_1d() {
    static const auto table = [] {
        Tensor<C, Shape<Places, HeadWidth>> rows;
        constexpr std::size_t pairs = HeadWidth / 2;
        for (std::size_t place = 0; place < Places; ++place) {
            for (std::size_t j = 0; j < pairs; ++j) {
                const double angle = static_cast<double>(place) *
                                     std::pow(10000.0, -static_cast<double>(j) / static_cast<double>(pairs));
                rows(place, j) = static_cast<C>(std::cos(angle));
                rows(place, pairs + j) = static_cast<C>(std::sin(angle));
            }
        }
        return rows;
    }();
    return table;
}

/// The rotations of `Prefix` tokens that are not rotated, then of Side x Side patches: half of the pairs turn with a
/// patch's row, the other half with its column (timm/layers/pos_embed_sincos.py, RotaryEmbeddingCat with in_pixels =
/// False, as EVA-02 has it).
template <Real C, std::size_t Prefix, std::size_t Side, std::size_t HeadWidth>
const Tensor<C, Shape<Prefix + Side * Side, HeadWidth>>& rotations_2d() {
    static const auto table = [] {
        Tensor<C, Shape<Prefix + Side * Side, HeadWidth>> rows;
        constexpr std::size_t pairs = HeadWidth / 2, bands = HeadWidth / 4;
        for (std::size_t token = 0; token < Prefix + Side * Side; ++token) {
            for (std::size_t j = 0; j < pairs; ++j) {
                const std::size_t patch = token < Prefix ? 0 : token - Prefix;
                const std::size_t place = token < Prefix ? 0 : j < bands ? patch / Side : patch % Side;
                const double angle =
                    static_cast<double>(place) *
                    std::pow(10000.0, -static_cast<double>(j % bands) / static_cast<double>(bands));
                rows(token, j) = static_cast<C>(std::cos(angle));
                rows(token, pairs + j) = static_cast<C>(std::sin(angle));
            }
        }
        return rows;
    }();
    return table;
}

}  // namespace nn

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/nn/stem.hpp ----

// What turns pixels into one row a patch.

namespace tandem::inline TANDEM_ABI {

/// What a stem knows of the tower it stands in: it makes (image / patch)² rows of `width`.
struct StemShape {
    std::size_t image = 0;
    std::size_t patch = 0;
    std::size_t width = 0;
    bool bias = false;  ///< of the convolution that cuts into patches

    constexpr std::size_t grid() const { return image / patch; }
    constexpr std::size_t patches() const { return grid() * grid(); }
};

template <class C, std::size_t Image>
using Images = View<const C, Shape<dynamic, 3, Image, Image>>;

namespace nn {

/// Cuts images <N, 3, Image, Image> into rows of Patch x Patch patches, left to right, top to bottom; a row begins with
/// the patch in the order channel, y, x: the order of a convolution's weight. Pixels behind the last whole patch are
/// left out, as a convolution without padding leaves them.
template <std::size_t Image, std::size_t Patch, Real C, std::size_t Row>
void extract_patches(Images<C, Image> images, Rows<C, Row> rows) {
    constexpr std::size_t side = Image / Patch;
    parallel_for(images.extent(0) * side, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t band = begin; band < end; ++band) {
            const C* const image = images.data() + band / side * 3 * Image * Image;
            for (std::size_t patch = 0; patch < side; ++patch) {
                C* to = rows.data() + (band * side + patch) * Row;
                for (std::size_t channel = 0; channel < 3; ++channel) {
                    for (std::size_t y = 0; y < Patch; ++y, to += Patch) {
                        const std::size_t line = channel * Image + band % side * Patch + y;
                        std::copy_n(image + line * Image + patch * Patch, Patch, to);
                    }
                }
            }
        }
    });
}

/// A convolution of the patch's own size and stride: CLIP/clip/model.py:224, without a bias; SigLIP's has one.
template <Arithmetic T, StemShape shape, auto parts>
struct PatchStem {
    static constexpr std::size_t image = shape.image, patch = shape.patch, width = shape.width;
    static constexpr std::size_t depth = 3 * patch * patch;
    using C = Compute<T>;
    static constexpr std::size_t depth_row = kernels::row_length<C>(depth);

    PackedMatrix<T, Shape<width, 3, patch, patch>> conv;
    Tensor<C, Shape<shape.bias ? width : 0>> bias;

    struct Saved {
        Tensor<C, Shape<dynamic, depth_row>> patches;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "conv1.weight", self.conv...);
        if constexpr (shape.bias) visit(at + "conv1.bias", self.bias...);
    }

    void initialise(Random& random, const InitScale&) {
        fill_normal(conv, random, 1.0 / std::sqrt(static_cast<double>(depth)));
    }

    /// images <N, 3, image, image> to y <N · patches, width>.
    void forward(Images<C, image> images, Rows<C, width> y, Saved& saved, bool) const {
        saved.patches.resize(y.extent(0));
        extract_patches<image, patch, C, depth_row>(images, saved.patches);
        conv.product(y.extent(0), {saved.patches.data(), depth_row}, {y.data(), width},
                     {.bias = shape.bias ? bias.data() : nullptr});
    }

    /// Adds to the gradients, given dy; images get none.
    void backward(Rows<const C, width> dy, Saved& saved, PatchStem& gradient) const requires Trainable<T> {
        conv.product_backward(dy.extent(0), {saved.patches.data(), depth_row}, {dy.data(), width}, {nullptr, 0},
                              gradient.conv, 0, width);
        if constexpr (shape.bias) detail::add_column_sums<C>(dy.extent(0), width, {dy.data(), width}, gradient.bias.data());
    }
};

/// A 3x3 convolution of stride 2 without a bias, then norm and activation, over rows that are the pixels of images of
/// 2 Side x 2 Side. The weight's axes are [out, y, x, in].
template <Arithmetic T, std::size_t In, std::size_t Out, std::size_t Side, auto parts>
struct ConvStage {
    static constexpr std::size_t depth = 9 * In;
    using C = Compute<T>;
    using Norm = typename decltype(parts.norm)::template Layer<T, Out, parts.norm>;

    PackedMatrix<T, Shape<Out, 3, 3, In>> conv;
    Norm norm;

    struct Saved {
        Tensor<C, Shape<dynamic, depth>> windows, windows_gradient;
        Tensor<C, Shape<dynamic, Out>> convolved, normed, activated, gradient;
        typename Norm::Saved norm;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "conv.weight", self.conv...);
        Norm::parameters(visit, at + "norm.", self.norm...);
    }

    void initialise(Random& random) { fill_normal(conv, random, std::sqrt(2.0 / static_cast<double>(depth))); }

    /// pixel(n, y, x) points to the In channels of a pixel; writes saved.activated.
    template <class Pixel>
    void forward(std::size_t count, const Pixel& pixel, Saved& saved) const {
        const std::size_t rows = count * Side * Side;
        saved.windows.resize(rows);
        saved.convolved.resize(rows);
        saved.normed.resize(rows);
        saved.activated.resize(rows);
        for_each_window(count, [&](std::size_t row, std::size_t n, std::size_t y, std::size_t x, std::size_t tap,
                                   bool inside) {
            C* const to = saved.windows.data() + row * depth + tap * In;
            if (inside) {
                pixel(n, y, x, to);
            } else {
                std::fill_n(to, In, C{0});
            }
        });
        conv.product(rows, {saved.windows.data(), depth}, {saved.convolved.data(), Out}, {});
        norm.forward(saved.convolved, saved.normed, saved.norm);
        activate(parts.activation, saved.normed.data(), saved.activated.data(), saved.activated.size());
    }

    /// In place saved.gradient, the gradient of saved.activated, becomes that of the convolution; dx [pixels, In] is its
    /// input's unless it is null.
    void backward(std::size_t count, C* dx, Saved& saved, ConvStage& gradient) const requires Trainable<T> {
        const std::size_t rows = count * Side * Side;
        activate_backward(parts.activation, saved.normed.data(), saved.gradient.data(), saved.gradient.size());
        norm.backward(saved.convolved, saved.gradient, saved.gradient, saved.norm, gradient.norm, false);
        if (dx != nullptr) saved.windows_gradient.resize(rows);
        conv.product_backward(rows, {saved.windows.data(), depth}, {saved.gradient.data(), Out},
                              {dx == nullptr ? nullptr : saved.windows_gradient.data(), depth}, gradient.conv, 0, Out);
        if (dx == nullptr) return;
        std::fill_n(dx, count * 4 * Side * Side * In, C{0});
        for_each_window(count, [&](std::size_t row, std::size_t n, std::size_t y, std::size_t x, std::size_t tap,
                                   bool inside) {
            if (!inside) return;
            C* const to = dx + ((n * 2 * Side + y) * 2 * Side + x) * In;
            const C* const from = saved.windows_gradient.data() + row * depth + tap * In;
            std::transform(to, to + In, from, to, std::plus<C>());
        });
    }

private:
    /// Calls body(row, n, y, x, tap, inside) for every row of the result and every pixel its window covers, images in
    /// parallel.
    template <class Body>
    static void for_each_window(std::size_t count, const Body& body) {
        parallel_for(count, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t row = begin * Side * Side; row < end * Side * Side; ++row) {
                const std::size_t n = row / (Side * Side), top = row / Side % Side * 2, left = row % Side * 2;
                for (std::size_t tap = 0; tap < 9; ++tap) {
                    // One row and column of zeros around the image: pixel -1 is the padding's.
                    const std::size_t y = top + tap / 3 - 1, x = left + tap % 3 - 1;
                    body(row, n, y, x, tap, y < 2 * Side && x < 2 * Side);
                }
            }
        });
    }
};

/// Stages that halve the image until a pixel is a patch, the last one `width` channels wide and each other one half of
/// the next, then a 1x1 convolution: after Xiao et al. 2021, with the tower's norm and activation.
template <Arithmetic T, StemShape shape, auto parts>
struct ConvStem {
    static constexpr std::size_t image = shape.image, width = shape.width;
    static constexpr std::size_t stages = static_cast<std::size_t>(std::bit_width(shape.patch)) - 1;
    using C = Compute<T>;

    static constexpr std::size_t channels(std::size_t stage) {
        return stage == 0 ? 3 : width >> (stages - stage);
    }

    template <class Stages>
    struct Chain;
    template <std::size_t... I>
    struct Chain<std::index_sequence<I...>> {
        using Layers = std::tuple<ConvStage<T, channels(I), channels(I + 1), (image >> (I + 1)), parts>...>;
        using Saved = std::tuple<
            typename ConvStage<T, channels(I), channels(I + 1), (image >> (I + 1)), parts>::Saved...>;
    };
    using Stages = Chain<std::make_index_sequence<stages>>;

    typename Stages::Layers convolutions;
    Linear<T, width, width> proj;

    struct Saved {
        typename Stages::Saved stages;
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        const auto stage = [&]<std::size_t I>(std::integral_constant<std::size_t, I>) {
            std::tuple_element_t<I, typename Stages::Layers>::parameters(
                visit, at + "stem." + std::to_string(I) + ".", std::get<I>(self.convolutions)...);
        };
        for_each_stage(stage);
        decltype(proj)::parameters(visit, at + "stem.proj.", self.proj...);
    }

    void initialise(Random& random, const InitScale&) {
        for_each_stage([&](auto stage) { std::get<stage()>(convolutions).initialise(random); });
        fill_normal(proj.weight, random, 1.0 / std::sqrt(static_cast<double>(width)));
    }

    void forward(Images<C, image> images, Rows<C, width> y, Saved& saved, bool) const {
        const std::size_t count = images.extent(0);
        for_each_stage([&](auto stage) {
            constexpr std::size_t in = channels(stage()), side = image >> stage();
            const auto& layer = std::get<stage()>(convolutions);
            if constexpr (stage() == 0) {
                layer.forward(count, [&](std::size_t n, std::size_t y_at, std::size_t x_at, C* to) {
                    for (std::size_t c = 0; c < 3; ++c)
                        to[c] = images.data()[((n * 3 + c) * side + y_at) * side + x_at];
                }, std::get<0>(saved.stages));
            } else {
                const C* const from = std::get<stage() - 1>(saved.stages).activated.data();
                layer.forward(count, [&](std::size_t n, std::size_t y_at, std::size_t x_at, C* to) {
                    std::copy_n(from + ((n * side + y_at) * side + x_at) * in, in, to);
                }, std::get<stage()>(saved.stages));
            }
        });
        proj.forward(std::get<stages - 1>(saved.stages).activated, y);
    }

    void backward(Rows<const C, width> dy, Saved& saved, ConvStem& gradient) const requires Trainable<T> {
        const std::size_t count = dy.extent(0) / shape.patches();
        auto& last = std::get<stages - 1>(saved.stages);
        last.gradient.resize(dy.extent(0));
        proj.backward(last.activated, dy, last.gradient, gradient.proj);
        for_each_stage([&](auto reversed) {
            constexpr std::size_t stage = stages - 1 - reversed();
            C* dx = nullptr;
            if constexpr (stage > 0) {
                auto& before = std::get<stage - 1>(saved.stages);
                before.gradient.resize(before.activated.extent(0));
                dx = before.gradient.data();
            }
            std::get<stage>(convolutions).backward(count, dx, std::get<stage>(saved.stages),
                                                   std::get<stage>(gradient.convolutions));
        });
    }

private:
    template <class Body>
    static void for_each_stage(const Body& body) {
        [&]<std::size_t... I>(std::index_sequence<I...>) {
            (body(std::integral_constant<std::size_t, I>{}), ...);
        }
        (std::make_index_sequence<stages>{});
    }
};

}  // namespace nn

/// The stem of an image tower: patches times a matrix. Another stem is another type with a template
/// Layer<T, StemShape, parts> that has this layer's members, and cost().
struct PatchStem {
    template <Arithmetic T, StemShape shape, auto parts>
    using Layer = nn::PatchStem<T, shape, parts>;

    static constexpr bool fits(const StemShape&) { return true; }

    static constexpr Cost cost(const StemShape& shape, const auto&) {
        const std::size_t depth = 3 * shape.patch * shape.patch;
        return nn::linear_cost(depth, shape.width, shape.bias, shape.patches()) + held_cost(depth * shape.patches());
    }
};

/// A convolutional stem: early convolutions see a patch's surroundings.
struct ConvStem {
    template <Arithmetic T, StemShape shape, auto parts>
    using Layer = nn::ConvStem<T, shape, parts>;

    /// Every stage halves the image and doubles the channels. Its last convolution has a bias anyway.
    static constexpr bool fits(const StemShape& shape) {
        return !shape.bias && shape.patch > 1 && std::has_single_bit(shape.patch) && shape.width % shape.patch == 0;
    }

    static constexpr Cost cost(const StemShape& shape, const auto& parts) {
        Cost total = nn::linear_cost(shape.width, shape.width, true, shape.patches());
        for (std::size_t side = shape.image / 2, in = 3, out = 2 * shape.width / shape.patch; side >= shape.grid();
             side /= 2, in = out, out *= 2) {
            total = total + nn::linear_cost(9 * in, out, false, side * side) + parts.norm.cost(out, side * side) +
                    side * side * Cost{.inference = 9 * in + 3 * out,
                                       .saved = 9 * in + 3 * out,
                                       .scratch = (side == shape.image / 2 ? 0 : 9 * in) + out};
        }
        return total;
    }
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/models/config.hpp ----

// Architectures as constexpr values: the configs of towers and models, and what they cost.

namespace tandem::inline TANDEM_ABI {

template <Arithmetic T, auto config, std::size_t Embedding, BlockShape shape>
class VisionTransformer;
template <Arithmetic T, auto config, std::size_t Embedding, BlockShape shape, bool OwnsBlocks>
class TextTransformer;

namespace detail {

// What the configs of both towers have in common. Each rule has a sentence, which a config that breaks it is refused
// with: by the tower when it is compiled, by cost() as an Error.

constexpr std::size_t head_width_of(const auto& config) {
    return config.head_width > 0 || config.heads == 0 ? config.head_width : config.width / config.heads;
}
constexpr std::size_t kv_heads_of(const auto& config) { return config.kv_heads > 0 ? config.kv_heads : config.heads; }
constexpr bool heads_fit(const auto& config) {
    return config.heads > 0 && (config.head_width > 0 || config.width % config.heads == 0);
}
constexpr bool kv_heads_fit(const auto& config) { return config.kv_heads == 0 || config.heads % config.kv_heads == 0; }
constexpr bool norms_fit(const auto& config) { return !config.parallel || config.norm_position == NormPosition::pre; }
constexpr bool projection_fits(const auto& config, std::size_t embedding) {
    return config.proj_type == Projection::linear || (config.width == embedding && !config.proj_bias);
}
constexpr bool is_share(double rate) { return rate >= 0 && rate < 1; }

constexpr auto block_parts_of(const auto& config) {
    return BlockParts{config.norm,     config.mixer,   config.mlp,           config.activation,    config.norm_position,
                      config.parallel, config.qk_norm, config.ls_init_value, config.drop_path_rate};
}

/// The last norm and the pooling, for `tokens` tokens.
constexpr Cost head_cost_of(const auto& config, std::size_t tokens) {
    const std::size_t width = config.width;
    if constexpr (PicksRow<std::remove_cvref_t<decltype(config.pooling)>>) {
        return config.norm.cost(width, 1) + width * Cost{.inference = 2, .saved = 2, .scratch = 2};
    } else {
        const std::size_t normed = config.final_ln_after_pool ? 1 : tokens;
        return config.norm.cost(width, normed) +
               nn::cost_of(config.pooling, config.block_shape(), tokens, config.block_parts()) +
               (normed + 1) * width * Cost{.inference = 1, .saved = 1, .scratch = 1};
    }
}

constexpr std::size_t hidden_of(const auto& config) {
    return static_cast<std::size_t>(static_cast<double>(config.width) * config.mlp_ratio);
}

}  // namespace detail

/// A vision transformer. Sizes are in pixels, widths in channels. norm, activation, mixer, mlp, pooling and stem are
/// values: the library's own or a user's; an activation may be a captureless lambda over expressions. Options that
/// open_clip's CLIPVisionCfg or timm's VisionTransformer have bear their names and defaults.
template <class Norm = LayerNorm, class Activation = Gelu, class Mixer = SelfAttention, class MlpKind = Mlp,
          class Pooling = ClassToken, class Stem = PatchStem>
struct VitConfig {
    std::size_t image = 224;
    std::size_t patch = 32;
    std::size_t width = 768;
    std::size_t layers = 12;
    std::size_t heads = 12;
    std::size_t head_width = 0;  ///< of one head; 0: width / heads
    std::size_t kv_heads = 0;    ///< heads of keys and values, for grouped queries; 0: as many as heads
    double mlp_ratio = 4.0;      ///< the MLP's hidden width is int(width · mlp_ratio), as in open_clip and timm
    bool class_token = true;
    std::size_t reg_tokens = 0;  ///< registers
    PosEmbed pos_embed_type = PosEmbed::learnable;
    bool no_ln_pre = false;            ///< no norm before the first block
    bool final_ln_after_pool = false;  ///< the last norm stands behind a pooling of many rows
    NormPosition norm_position = NormPosition::pre;
    bool parallel = false;      ///< mixer and MLP of a block side by side
    bool qk_norm = false;       ///< queries and keys are normed, head by head
    double ls_init_value = 0;   ///< what layer scale starts at; 0: there is none
    double patch_dropout = 0;   ///< the share of patches a training step leaves out (Li et al. 2023, FLIP)
    double drop_path_rate = 0;  ///< stochastic depth: the share of images that skip the last block, less in those before
    bool patch_bias = false;    ///< the patches' convolution has a bias
    bool floor_patches = false;  ///< pixels behind the last whole patch are left out, where image is no multiple of it
    Projection proj_type = Projection::linear;
    bool proj_bias = false;
    Norm norm{};
    Activation activation{};
    Mixer mixer{};
    MlpKind mlp{};
    Pooling pooling{};
    Stem stem{};

    /// The tower this config describes. Another kind of tower is another config type with its own Tower and cost() (see
    /// TowerConfig).
    template <Arithmetic T, auto self, std::size_t Embedding, BlockShape shape>
    using Tower = VisionTransformer<T, self, Embedding, shape>;

    constexpr bool sizes_are_positive() const { return image > 0 && patch > 0 && width > 0 && layers > 0 && heads > 0; }
    constexpr bool patches_fit() const {
        return patch > 0 && (image % patch == 0 || (floor_patches && image >= patch));
    }
    constexpr bool projection_fits(std::size_t embedding) const { return detail::projection_fits(*this, embedding); }
    constexpr bool heads_fit() const { return detail::heads_fit(*this); }
    constexpr bool kv_heads_fit() const { return detail::kv_heads_fit(*this); }
    constexpr bool norms_fit() const { return detail::norms_fit(*this); }
    constexpr bool rates_are_shares() const {
        return detail::is_share(patch_dropout) && detail::is_share(drop_path_rate);
    }
    constexpr bool positions_fit() const {
        return pos_embed_type == PosEmbed::learnable ||
               (pos_embed_type == PosEmbed::rotary ? detail::head_width_of(*this) : width) % 4 == 0;
    }
    constexpr bool pooling_fits() const {
        if constexpr (requires { Pooling::needs_class_token; }) {
            return class_token;
        } else {
            return true;
        }
    }
    constexpr bool pooling_is_for_images() const {
        return !PicksRow<Pooling> || requires { Pooling::needs_class_token; };
    }
    constexpr bool stem_fits() const {
        return stem.fits(stem_shape()) && (image % patch == 0 || std::is_same_v<Stem, PatchStem>);
    }
    constexpr bool is_valid() const {
        return sizes_are_positive() && patches_fit() && heads_fit() && kv_heads_fit() && norms_fit() &&
               rates_are_shares() && positions_fit() && pooling_fits() && pooling_is_for_images() && stem_fits();
    }

    constexpr std::size_t patches() const { return (image / patch) * (image / patch); }
    constexpr std::size_t prefix() const { return (class_token ? 1 : 0) + reg_tokens; }
    constexpr std::size_t tokens() const { return prefix() + patches(); }
    constexpr StemShape stem_shape() const {
        return {.image = image, .patch = patch, .width = width, .bias = patch_bias};
    }
    constexpr BlockShape block_shape() const {
        return {.width = width,
                .heads = heads,
                .kv_heads = detail::kv_heads_of(*this),
                .head_width = detail::head_width_of(*this),
                .hidden = detail::hidden_of(*this),
                .tokens = tokens(),
                .prefix = prefix(),
                .rotary = pos_embed_type == PosEmbed::rotary,
                .grid = patch_dropout > 0 ? 0 : image / patch};
    }
    constexpr auto block_parts() const { return detail::block_parts_of(*this); }

    /// The same tower with another activation.
    template <class Other>
    constexpr auto with_activation(Other other) const {
        return VitConfig<Norm, Other, Mixer, MlpKind, Pooling, Stem>{
            image,     patch,         width,    layers,        heads,          head_width,     kv_heads,
            mlp_ratio, class_token,   reg_tokens, pos_embed_type, no_ln_pre,   final_ln_after_pool,
            norm_position, parallel,  qk_norm,  ls_init_value, patch_dropout,  drop_path_rate, patch_bias,
            floor_patches, proj_type, proj_bias, norm,         other,          mixer,          mlp,
            pooling,   stem};
    }

    /// For one image, without the projection.
    constexpr Cost cost() const {
        require();
        return stem_cost() + token_cost() + blocks_cost() + head_cost();
    }

    // Its parts, as describe() lists them.
    constexpr Cost stem_cost() const {
        return stem.cost(stem_shape(), block_parts()) + patches() * width * held_cost(1);
    }
    constexpr Cost token_cost() const {
        const std::size_t table = pos_embed_type == PosEmbed::learnable ? tokens() - reg_tokens : 0;
        const Cost total{.parameters = (table + prefix()) * width};
        const Cost norm_before = no_ln_pre ? Cost{} : norm.cost(width, tokens());
        return total + norm_before + tokens() * width * held_cost(1);
    }
    constexpr Cost blocks_cost() const {
        return nn::transformer_cost(block_shape(), tokens(), layers, block_parts(), PicksRow<Pooling>);
    }
    constexpr Cost head_cost() const { return detail::head_cost_of(*this, tokens()); }

private:
    constexpr void require() const {
        const auto rule = [](bool holds, const char* sentence) {
            if (!holds) throw Error("VitConfig", sentence);
        };
        rule(sizes_are_positive(), "all sizes must be positive");
        rule(patches_fit(), "image must be a multiple of patch, or floor_patches be set and a patch fit");
        rule(heads_fit(), "width must be a multiple of heads, or head_width be given");
        rule(is_valid(), "an architecture that Clip<config> takes: compile one to read why it does not");
    }
};

/// A text transformer over token ids; causal unless said otherwise. Options that open_clip's CLIPTextCfg has bear its
/// names and defaults.
template <class Norm = LayerNorm, class Activation = Gelu, class Mixer = SelfAttention, class MlpKind = Mlp,
          class Pooling = Eot>
struct TextConfig {
    std::size_t vocabulary = 49408;
    std::size_t context = 77;
    std::size_t width = 512;
    std::size_t layers = 12;
    std::size_t heads = 8;
    std::size_t head_width = 0;  ///< of one head; 0: width / heads
    std::size_t kv_heads = 0;    ///< heads of keys and values, for grouped queries; 0: as many as heads
    double mlp_ratio = 4.0;
    bool causal = true;
    PosEmbed pos_embed_type = PosEmbed::learnable;
    bool final_ln_after_pool = false;  ///< the last norm stands behind a pooling of many rows
    NormPosition norm_position = NormPosition::pre;
    bool parallel = false;
    bool qk_norm = false;
    double ls_init_value = 0;
    double token_dropout = 0;  ///< the share of a caption's tokens between start and end that a training step leaves out
    double drop_path_rate = 0;
    Projection proj_type = Projection::linear;
    bool proj_bias = false;
    Norm norm{};
    Activation activation{};
    Mixer mixer{};
    MlpKind mlp{};
    Pooling pooling{};

    template <Arithmetic T, auto self, std::size_t Embedding, BlockShape shape, bool OwnsBlocks>
    using Tower = TextTransformer<T, self, Embedding, shape, OwnsBlocks>;

    constexpr bool sizes_are_positive() const {
        return vocabulary > 0 && context > 0 && width > 0 && layers > 0 && heads > 0;
    }
    constexpr bool heads_fit() const { return detail::heads_fit(*this); }
    constexpr bool kv_heads_fit() const { return detail::kv_heads_fit(*this); }
    constexpr bool norms_fit() const { return detail::norms_fit(*this); }
    constexpr bool rates_are_shares() const {
        return detail::is_share(token_dropout) && detail::is_share(drop_path_rate);
    }
    constexpr bool positions_fit() const {
        return pos_embed_type == PosEmbed::learnable ||
               (pos_embed_type == PosEmbed::rotary && detail::head_width_of(*this) % 2 == 0);
    }
    constexpr bool pooling_is_for_text() const { return !requires { Pooling::needs_class_token; }; }
    constexpr bool projection_fits(std::size_t embedding) const { return detail::projection_fits(*this, embedding); }
    constexpr bool mixer_fits() const { return !causal || requires { requires Mixer::can_be_causal; }; }
    constexpr bool is_valid() const {
        return sizes_are_positive() && heads_fit() && kv_heads_fit() && norms_fit() && rates_are_shares() &&
               positions_fit() && pooling_is_for_text() && mixer_fits();
    }

    constexpr BlockShape block_shape() const {
        return {.width = width,
                .heads = heads,
                .kv_heads = detail::kv_heads_of(*this),
                .head_width = detail::head_width_of(*this),
                .hidden = detail::hidden_of(*this),
                .tokens = context,
                .rotary = pos_embed_type == PosEmbed::rotary};
    }
    constexpr auto block_parts() const { return detail::block_parts_of(*this); }

    /// The same tower with another activation.
    template <class Other>
    constexpr auto with_activation(Other other) const {
        return TextConfig<Norm, Other, Mixer, MlpKind, Pooling>{
            vocabulary, context, width,  layers,        heads,         head_width,     kv_heads, mlp_ratio,
            causal,     pos_embed_type,  final_ln_after_pool, norm_position, parallel, qk_norm,
            ls_init_value, token_dropout, drop_path_rate, proj_type, proj_bias, norm, other, mixer, mlp, pooling};
    }

    /// For one caption of `tokens` tokens, the end-of-text token included; of the whole context unless given. Without the
    /// projection.
    constexpr Cost cost(std::size_t tokens = 0) const {
        require();
        return token_cost() + blocks_cost(tokens) + head_cost(tokens);
    }

    constexpr Cost token_cost() const {
        const std::size_t table = pos_embed_type == PosEmbed::learnable ? context : 0;
        return {.parameters = (vocabulary + table) * width, .tables = vocabulary * width};
    }
    constexpr Cost blocks_cost(std::size_t tokens = 0) const {
        return nn::transformer_cost(block_shape(), computed(tokens), layers, block_parts(), PicksRow<Pooling>);
    }
    constexpr Cost head_cost(std::size_t tokens = 0) const { return detail::head_cost_of(*this, computed(tokens)); }

private:
    /// A tower that is not causal computes the padding as well.
    constexpr std::size_t computed(std::size_t tokens) const { return tokens == 0 || !causal ? context : tokens; }

    constexpr void require() const {
        const auto rule = [](bool holds, const char* sentence) {
            if (!holds) throw Error("TextConfig", sentence);
        };
        rule(sizes_are_positive(), "all sizes must be positive");
        rule(heads_fit(), "width must be a multiple of heads, or head_width be given");
        rule(is_valid(), "an architecture that Clip<config> takes: compile one to read why it does not");
    }
};

/// What a ClipConfig's vision and text may be beside VitConfig and TextConfig: a value with `constexpr Cost cost() const`,
/// for one item and all of the tower, and a template Tower<T, self, Embedding>, a class with C = Compute<T>, Input (a view
/// of images <N, 3, H, W> or of ids <N, context>), Workspace, and
///     static void parameters(const auto& visit, const ParameterName& at, auto&... self);
///     void initialise(Random& random);
///     void forward(Input input, Rows<C, Embedding> embeddings, Workspace& work, bool keep) const;
///     void backward(Rows<const C, Embedding> gradient_of_embeddings, Workspace& work, Tower& gradient) const;
/// forward writes embeddings that are not normalised; backward adds to the gradients.
template <class Config>
concept TowerConfig = requires(const Config& config) {
    { config.cost() } -> std::convertible_to<Cost>;
};

/// Two towers and one space. Any two tower configs go together (see TowerConfig).
template <class Vision = VitConfig<>, class Text = TextConfig<>>
struct ClipConfig {
    static_assert(TowerConfig<Vision> && TowerConfig<Text>, "tandem: ClipConfig: a tower's config needs cost() and Tower<T, self, Embedding>: see TowerConfig");

    Vision vision{};
    Text text{};
    std::size_t embedding = 512;
    /// A learned bias beside the logit scale, which the sigmoid loss needs.
    bool logit_bias = false;
    /// Both sides use the image tower's blocks, each with its own tokens, final norm and projection.
    bool shared = false;
};

namespace detail {

template <class Config>
concept HasTwoTowers = requires(const Config& config) {
    config.vision;
    config.text;
};

template <auto value>
struct ValueTag {};

/// The shape of the blocks that both towers use.
constexpr BlockShape shared_shape(const auto& config) {
    BlockShape shape = config.vision.block_shape();
    shape.tokens = std::max(shape.tokens, config.text.block_shape().tokens);
    shape.rotary = shape.rotary || config.text.block_shape().rotary;
    shape.prefix = shape.grid = 0;
    return shape;
}

/// Without what shared blocks do not depend on.
constexpr BlockShape without_tokens(BlockShape shape) {
    shape.tokens = shape.prefix = shape.grid = 0;
    shape.rotary = false;
    return shape;
}

/// Whether the towers of a shared model ask for the same blocks.
template <auto config>
constexpr bool blocks_agree() {
    if constexpr (requires { config.vision.block_parts(); config.text.block_parts(); }) {
        return std::is_same_v<ValueTag<config.vision.block_parts()>, ValueTag<config.text.block_parts()>> &&
               std::is_same_v<ValueTag<without_tokens(config.vision.block_shape())>,
                              ValueTag<without_tokens(config.text.block_shape())>> &&
               config.vision.layers == config.text.layers;
    } else {
        return false;
    }
}

}  // namespace detail

namespace detail {

/// The projection of the library's own towers, whose cost() leaves it out.
constexpr Cost projection_cost(const auto& tower, std::size_t embedding) {
    if constexpr (requires { tower.head_cost(); }) {
        const std::size_t size = tower.width * embedding;
        if (tower.proj_type == Projection::none) return held_cost(embedding);
        if (tower.proj_bias) return nn::linear_cost(tower.width, embedding, true, 1) + held_cost(embedding);
        return Cost{.parameters = size, .tables = size} + product_cost(2 * size) + held_cost(embedding);
    } else {
        return held_cost(embedding);
    }
}

}  // namespace detail

/// What the image side costs for one image, projection included: the figures of open_clip's docs/model_profile.csv.
constexpr Cost image_cost(const auto& config) {
    return config.vision.cost() + detail::projection_cost(config.vision, config.embedding);
}

/// What the text side costs for one caption of `tokens` tokens, the end-of-text token included, or of the full context;
/// projection included.
constexpr Cost text_cost(const auto& config, std::size_t tokens = 0) {
    const Cost projection = detail::projection_cost(config.text, config.embedding);
    Cost total = config.text.cost() + projection;
    if constexpr (requires { config.text.cost(tokens); }) {
        if (tokens > 0) {
            const std::size_t dense = total.flops;
            total = config.text.cost(tokens) + projection;
            total.flops = dense;  // the naive model pads
        }
    }
    if constexpr (requires { config.text.blocks_cost(); }) {
        if (config.shared) total.parameters -= config.text.blocks_cost().parameters;
    }
    return total;
}

namespace detail {

/// Of one image–text pair, or of one item of a tower.
constexpr Cost whole_cost(const auto& config) {
    if constexpr (HasTwoTowers<std::remove_cvref_t<decltype(config)>>) {
        Cost total = image_cost(config) + text_cost(config);
        total.parameters += config.logit_bias ? 2 : 1;
        return total;
    } else {
        return config.cost();
    }
}

}  // namespace detail

/// Scalars in all parameters of a model, or of one tower without its projection.
constexpr std::size_t parameter_count(const auto& config) { return detail::whole_cost(config).parameters; }

/// Bytes of the parameters of a Clip<config, T>: matrices in T's own elements, the rest in those T computes with. The
/// scales of an int8 model's rows are not counted.
template <Arithmetic T = float>
constexpr std::size_t parameter_bytes(const auto& config) {
    const Cost cost = detail::whole_cost(config);
    return cost.matrices * (std::same_as<T, int8> ? 1 : sizeof(Stored<T>)) + cost.tables * sizeof(Stored<T>) +
           (cost.parameters - cost.matrices - cost.tables) * sizeof(Compute<T>);
}

/// Floating-point operations of one image–text pair through a model, or of one item through a tower, with captions of the
/// full context: 2 for each multiply-accumulate of the matrix products, as fvcore counts.
constexpr std::size_t forward_flops(const auto& config) { return detail::whole_cost(config).flops; }

/// Those of them that are computed: the last block of a tower that pools one row computes that row alone (where the
/// width of all heads is a multiple of a panel's, 32 or fewer elements). What captions shorter than the context save is
/// in text_cost(config, tokens).executed.
constexpr std::size_t executed_flops(const auto& config) { return detail::whole_cost(config).executed; }

/// Bytes of activations that a training step holds for one pair, or one item of a tower, in elements of C.
template <class C = float>
constexpr std::size_t training_bytes(const auto& config) {
    return detail::whole_cost(config).training() * sizeof(C);
}

/// Bytes of activations that inference holds for one item of a tower; of a model, for one image and one caption.
template <class C = float>
constexpr std::size_t inference_bytes(const auto& config) {
    return detail::whole_cost(config).inference * sizeof(C);
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/nn/embedding.hpp ----

// From patch rows and token ids to token rows: class token, registers, token and position tables.

namespace tandem::inline TANDEM_ABI::nn {

/// The tokens of images: a learned class token where asked for, learned registers (Darcet et al. 2024), patches; positions
/// are added to class token and patches, as `positions` says (CLIP/clip/model.py:223-228). Registers have none: a
/// learned row beside a learned row would be one too many.
template <Arithmetic T, std::size_t Side, std::size_t Width, bool HasClass, std::size_t Registers, PosEmbed positions>
struct ImageTokens {
    static constexpr std::size_t patches = Side * Side, prefix = (HasClass ? 1 : 0) + Registers;
    static constexpr std::size_t tokens = prefix + patches;
    static constexpr bool is_learned = positions == PosEmbed::learnable;
    using C = Compute<T>;

    Tensor<C, Shape<HasClass ? Width : 0>> class_embedding;
    Tensor<C, Shape<Registers, Width>> reg_token;
    /// The class token's, then the patches'.
    Tensor<C, Shape<is_learned ? tokens - Registers : 0, Width>> positional_embedding;

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        if constexpr (HasClass) visit(at + "class_embedding", self.class_embedding...);
        if constexpr (Registers > 0) visit(at + "reg_token", self.reg_token...);
        if constexpr (is_learned) visit(at + "positional_embedding", self.positional_embedding...);
    }

    void initialise(Random& random, const InitScale& scale) {
        fill_normal(class_embedding, random, scale.attention());
        fill_normal(positional_embedding, random, scale.attention());
        fill_normal(reg_token, random, scale.attention());
    }

    /// patch rows <N · patches, Width> to y <N · tokens, Width>.
    void forward(Rows<const C, Width> embedded, Rows<C, Width> y) const {
        const C* const place = table();
        parallel_for(embedded.extent(0) / patches, 16, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                C* const rows = y.data() + i * tokens * Width;
                const C* const from = embedded.data() + i * patches * Width;
                if constexpr (HasClass) add(class_embedding.data(), place, rows, Width);
                if constexpr (Registers > 0)
                    std::copy_n(reg_token.data(), reg_token.size(), rows + (HasClass ? Width : 0));
                add(from, place == nullptr ? nullptr : place + (HasClass ? Width : 0), rows + prefix * Width,
                    patches * Width);
            }
        });
    }

    /// Adds to the gradients, and writes the patch rows' gradient to dembedded.
    void backward(Rows<const C, Width> dy, Rows<C, Width> dembedded, ImageTokens& gradient) const
        requires Trainable<T>
    {
        const std::size_t count = dy.extent(0) / tokens;
        const auto sums = [&](std::size_t token, std::size_t width, C* to) {
            detail::add_column_sums<C>(count, width, {dy.data() + token * Width, tokens * Width}, to);
        };
        if constexpr (HasClass) sums(0, Width, gradient.class_embedding.data());
        if constexpr (Registers > 0) sums(HasClass ? 1 : 0, Registers * Width, gradient.reg_token.data());
        if constexpr (is_learned) {
            C* const places = gradient.positional_embedding.data();
            if constexpr (HasClass) sums(0, Width, places);
            sums(prefix, patches * Width, places + (HasClass ? Width : 0));
        }
        for (std::size_t i = 0; i < count; ++i) {
            std::copy_n(dy.data() + (i * tokens + prefix) * Width, patches * Width,
                        dembedded.data() + i * patches * Width);
        }
    }

private:
    /// The positions to add, class token's first if there is one; null: none.
    const C* table() const {
        if constexpr (is_learned) {
            return positional_embedding.data();
        } else if constexpr (positions == PosEmbed::sin_cos_2d) {
            return sin_cos_2d<C, Side, Width>().data() + (HasClass ? 0 : Width);
        } else {
            return nullptr;
        }
    }

    static void add(const C* a, const C* b, C* to, std::size_t size) {
        if (b == nullptr) {
            std::copy_n(a, size, to);
        } else {
            std::transform(a, a + size, b, to, std::plus<C>());
        }
    }
};

/// Token rows plus learned position rows (CLIP/clip/model.py:344-346), or alone.
template <Arithmetic T, std::size_t Vocabulary, std::size_t Context, std::size_t Width, bool HasPositions>
struct TokenEmbedding {
    using C = Compute<T>;

    Tensor<Stored<T>, Shape<Vocabulary, Width>> token_embedding;
    Tensor<C, Shape<HasPositions ? Context : 0, Width>> positional_embedding;

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "token_embedding.weight", self.token_embedding...);
        if constexpr (HasPositions) visit(at + "positional_embedding", self.positional_embedding...);
    }

    /// CLIP/clip/model.py:300-301.
    void initialise(Random& random, const InitScale&) {
        fill_normal(token_embedding, random, 0.02);
        fill_normal(positional_embedding, random, 0.01);
    }

    /// The first offsets[s + 1] − offsets[s] ids of every row s of ids, to y <offsets.back(), Width>. Throws Error for
    /// an id outside the vocabulary.
    void forward(View<const Id, Shape<dynamic, Context>> ids, Rows<C, Width> y, Offsets offsets) const {
        for_each_token(ids, offsets, [&](std::size_t id, [[maybe_unused]] std::size_t position, std::size_t row) {
            const Stored<T>* const token = token_embedding.data() + id * Width;
            C* const to = y.data() + row * Width;
            if constexpr (HasPositions) {
                const C* const place = positional_embedding.data() + position * Width;
                for (std::size_t j = 0; j < Width; ++j) to[j] = static_cast<C>(token[j]) + place[j];
            } else {
                std::copy_n(token, Width, to);
            }
        });
    }

    void backward(View<const Id, Shape<dynamic, Context>> ids, Rows<const C, Width> dy, Offsets offsets,
                  TokenEmbedding& gradient) const requires Trainable<T> {
        for_each_token(ids, offsets, [&](std::size_t id, [[maybe_unused]] std::size_t position, std::size_t row) {
            C* const token = gradient.token_embedding.data() + id * Width;
            const C* const g = dy.data() + row * Width;
            for (std::size_t j = 0; j < Width; ++j) token[j] += g[j];
            if constexpr (HasPositions) {
                C* const place = gradient.positional_embedding.data() + position * Width;
                for (std::size_t j = 0; j < Width; ++j) place[j] += g[j];
            }
        });
    }

private:
    template <class Body>
    static void for_each_token(View<const Id, Shape<dynamic, Context>> ids, Offsets offsets, const Body& body) {
        for (std::size_t sequence = 0; sequence + 1 < offsets.size(); ++sequence) {
            for (std::size_t row = offsets[sequence]; row < offsets[sequence + 1]; ++row) {
                const std::size_t position = row - offsets[sequence];
                const Id id = ids(sequence, position);
                if (id < 0 || static_cast<std::size_t>(id) >= Vocabulary) {
                    throw Error("token_embedding", "ids below the vocabulary of " + std::to_string(Vocabulary),
                                std::to_string(id));
                }
                body(static_cast<std::size_t>(id), position, row);
            }
        }
    }
};

}  // namespace tandem::inline TANDEM_ABI::nn

// ---- tandem/models/text.hpp ----

// The text transformer: token ids in, embeddings out.

namespace tandem::inline TANDEM_ABI {

/// The tower of a TextConfig, as the text side of CLIP/clip/model.py:343-356. A causal tower computes each caption only up
/// to the token it pools: what comes later cannot reach it; where it pools many, up to the end-of-text token. `wanted` is
/// the shape of its blocks; a tower that does not own them is lent another's.
template <Arithmetic T, auto config, std::size_t Embedding, BlockShape wanted, bool OwnsBlocks>
class TextTransformer {
    static constexpr bool valid = config.is_valid();
    static constexpr auto stand_in = [] {
        if constexpr (valid) {
            return config;
        } else {
            return TextConfig<>{.vocabulary = 1, .context = 1, .width = 1, .layers = 1, .heads = 1};
        }
    }();
    static constexpr std::size_t width = stand_in.width;
    static constexpr BlockShape shape = valid ? wanted : stand_in.block_shape();
    static constexpr auto parts = stand_in.block_parts();
    using Pooling = std::remove_const_t<decltype(stand_in.pooling)>;

public:
    static constexpr std::size_t context = stand_in.context;
    using C = Compute<T>;
    using Input = View<const Id, Shape<dynamic, context>>;
    using Table = nn::TokenEmbedding<T, stand_in.vocabulary, context, width,
                                     stand_in.pos_embed_type == PosEmbed::learnable>;
    using Blocks = nn::Transformer<T, shape, stand_in.layers, parts>;
    using Head = nn::Head<T, shape, Embedding, parts, Pooling, stand_in.final_ln_after_pool, stand_in.proj_type,
                          stand_in.proj_bias>;

    struct Workspace {
        typename Blocks::Saved blocks;
        typename Head::Saved head;
        Tensor<Id, Shape<dynamic, context>> ids;
        Tensor<C, Shape<dynamic, width>> gradient, picked_gradient;
        std::vector<std::size_t> offsets, rows;
        Random random{Seed{}};  ///< draws what the next forward pass with `keep` leaves out

        Sequences<C> sequences() const {
            return {.offsets = offsets, .positions = {}, .causal = stand_in.causal, .rotations = rotations()};
        }
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        Table::parameters(visit, at, self.table_...);
        if constexpr (OwnsBlocks) Blocks::parameters(visit, at + "transformer.", self.transformer_...);
        Head::Norm::parameters(visit, at + "ln_final.", self.head_.norm...);
        Head::parameters(visit, at + "text_pool.", self.head_...);
        Head::Projector::parameters(visit, at + "text_projection", self.head_.projection...);
    }

    void initialise(Random& random) {
        const InitScale scale{.width = width, .layers = stand_in.layers};
        table_.initialise(random, scale);
        if constexpr (OwnsBlocks) transformer_.initialise(random);
        head_.initialise(random, scale);
    }

    /// ids <N, context> to embeddings <N, Embedding>, not normalised. `keep` keeps what backward needs, and leaves out
    /// what the config's dropouts draw.
    void forward(Input ids, Rows<C, Embedding> embeddings, Workspace& work, bool keep) const requires OwnsBlocks {
        forward(ids, embeddings, work, keep, transformer_);
    }
    /// The same through blocks that are another tower's.
    void forward(Input ids, Rows<C, Embedding> embeddings, Workspace& work, bool keep, const Blocks& blocks) const {
        const std::size_t count = ids.extent(0);
        if (keep) {
            work.ids.resize(count);
            std::copy_n(ids.data(), ids.size(), work.ids.data());
            if constexpr (stand_in.token_dropout > 0) {
                for (std::size_t i = 0; i < count; ++i) drop_tokens(work.ids[i].elements(), work.random);
                ids = work.ids;
            }
        }
        work.offsets.resize(count + 1);
        work.rows.resize(count);
        work.offsets[0] = 0;
        for (std::size_t i = 0; i < count; ++i) {
            const std::size_t position = end_of(ids[i].elements());
            work.rows[i] = work.offsets[i] + position;
            work.offsets[i + 1] = work.offsets[i] + (stand_in.causal ? position + 1 : context);
        }
        table_.forward(ids, blocks.input(work.offsets.back(), work.blocks), work.offsets);
        const Sequences<C> sequences = work.sequences();
        head_.forward(run_blocks(blocks, sequences, work, keep), embeddings, sequences, 0, work.head, keep);
    }

    /// Adds to the gradients of all parameters, given the gradient of the embeddings of the last forward with `keep`.
    void backward(Rows<const C, Embedding> gradient_of_embeddings, Workspace& work, TextTransformer& gradient) const
        requires(Trainable<T> && OwnsBlocks)
    {
        backward(gradient_of_embeddings, work, gradient, transformer_, gradient.transformer_);
    }
    void backward(Rows<const C, Embedding> gradient_of_embeddings, Workspace& work, TextTransformer& gradient,
                  const Blocks& blocks, Blocks& blocks_gradient) const
        requires Trainable<T>
    {
        const Sequences<C> sequences = work.sequences();
        work.gradient.resize(sequences.rows());
        if constexpr (Head::picks_row) {
            work.picked_gradient.resize(work.rows.size());
            head_.backward(work.blocks.picked, gradient_of_embeddings, work.picked_gradient, sequences, 0, work.head,
                           gradient.head_);
            blocks.backward_picked(work.picked_gradient, work.gradient, sequences, work.rows, work.blocks,
                                   blocks_gradient);
        } else {
            head_.backward(work.blocks.streams.back(), gradient_of_embeddings, work.gradient, sequences, 0, work.head,
                           gradient.head_);
            blocks.backward(work.gradient, sequences, work.blocks, blocks_gradient);
        }
        table_.backward(work.ids, work.gradient, work.offsets, gradient.table_);
    }

private:
    static const C* rotations() {
        if constexpr (stand_in.pos_embed_type == PosEmbed::rotary) {
            return nn::rotations_1d<C, context, shape.head_width>().data();
        } else {
            return nullptr;
        }
    }

    static std::size_t end_of(std::span<const Id> ids) {
        if constexpr (Head::picks_row) {
            return Pooling::position(ids);
        } else {
            return Eot::position(ids);
        }
    }

    Rows<const C, width> run_blocks(const Blocks& blocks, const Sequences<C>& sequences, Workspace& work,
                                    bool keep) const {
        if constexpr (Head::picks_row) {
            return blocks.forward_picked(sequences, work.rows, work.blocks, keep, work.random);
        } else {
            return blocks.forward(sequences, work.blocks, keep, work.random);
        }
    }

    /// Leaves out a random share of what stands between the first token and the end of text, in place: the others close
    /// up, as if the caption had never had them, and keep their order (open_clip/tokenizer.py, random_mask_tokenize,
    /// draws the order as well).
    static void drop_tokens(std::span<Id> ids, Random& random) {
        const std::size_t end = Eot::position(ids);
        if (end < 2) return;
        const std::size_t words = end - 1;
        const auto kept = std::max<std::size_t>(
            1, static_cast<std::size_t>(static_cast<double>(words) * (1 - stand_in.token_dropout)));
        std::size_t to = 1;
        for (std::size_t from = 1; from < end; ++from) {
            // Selection sampling: each of the rest is kept with the same chance.
            if (random.below(end - from) < kept + 1 - to) ids[to++] = ids[from];
        }
        const Id padding = end + 1 < ids.size() ? ids.back() : 0;
        std::copy(ids.begin() + static_cast<std::ptrdiff_t>(end), ids.end(),
                  ids.begin() + static_cast<std::ptrdiff_t>(to));
        std::fill(ids.end() - static_cast<std::ptrdiff_t>(end - to), ids.end(), padding);
    }

    Table table_;
    [[no_unique_address]] std::conditional_t<OwnsBlocks, Blocks, nn::None> transformer_;
    Head head_;

    // Last, as in VisionTransformer.
    static_assert(config.sizes_are_positive(), "tandem: TextConfig: all sizes must be positive");
    static_assert(config.heads_fit(), "tandem: TextConfig: width must be a multiple of heads, or head_width be given");
    static_assert(config.kv_heads_fit(), "tandem: TextConfig: heads must be a multiple of kv_heads");
    static_assert(config.norms_fit(), "tandem: TextConfig: a parallel block has one norm, before mixer and MLP: leave norm_position at pre");
    static_assert(config.rates_are_shares(), "tandem: TextConfig: token_dropout and drop_path_rate must be at least 0 and below 1");
    static_assert(config.positions_fit(), "tandem: TextConfig: positions are learnable, or rotary with an even head width; sin_cos_2d is for images");
    static_assert(config.pooling_is_for_text(), "tandem: TextConfig: a caption has no class token: it is pooled by Eot, Last, Average or AttentionPool");
    static_assert(config.projection_fits(Embedding), "tandem: TextConfig: without a projection (proj_type none) the embedding is as wide as the tower, and there is no proj_bias");
    static_assert(config.mixer_fits(), "tandem: TextConfig: this mixer lets a token see those after it: set .causal = false");
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/models/vit.hpp ----

// The vision transformer: images in, embeddings out.

namespace tandem::inline TANDEM_ABI {

/// The tower of a VitConfig, as open_clip's VisionTransformer (CLIP/clip/model.py:206-240). `wanted` is the shape of its
/// blocks.
template <Arithmetic T, auto config, std::size_t Embedding, BlockShape wanted>
class VisionTransformer {
    // A refused config reports its one sentence and no follow-up errors from the layers below.
    static constexpr bool valid = config.is_valid();
    static constexpr auto stand_in = [] {
        if constexpr (valid) {
            return config;
        } else {
            return VitConfig<>{.image = 1, .patch = 1, .width = 1, .layers = 1, .heads = 1};
        }
    }();
    static constexpr std::size_t width = stand_in.width, side = stand_in.image / stand_in.patch;
    static constexpr BlockShape shape = valid ? wanted : stand_in.block_shape();
    static constexpr auto parts = stand_in.block_parts();

public:
    using C = Compute<T>;
    using Input = Images<C, stand_in.image>;
    using Stem = typename decltype(stand_in.stem)::template Layer<T, stand_in.stem_shape(), parts>;
    using Tokens =
        nn::ImageTokens<T, side, width, stand_in.class_token, stand_in.reg_tokens, stand_in.pos_embed_type>;
    using LayerNorm = typename decltype(stand_in.norm)::template Layer<T, width, stand_in.norm>;
    using Norm = std::conditional_t<stand_in.no_ln_pre, nn::None, LayerNorm>;
    using Blocks = nn::Transformer<T, shape, stand_in.layers, parts>;
    using Head = nn::Head<T, shape, Embedding, parts, std::remove_const_t<decltype(stand_in.pooling)>,
                          stand_in.final_ln_after_pool, stand_in.proj_type, stand_in.proj_bias>;

    /// What a forward pass leaves for the backward pass, and all memory both need; reused from call to call.
    struct Workspace {
        typename Stem::Saved stem;
        [[no_unique_address]] typename Norm::Saved norm;
        typename Blocks::Saved blocks;
        typename Head::Saved head;
        Tensor<C, Shape<dynamic, width>> patches, embedded, kept, gradient, picked_gradient;
        std::vector<std::size_t> offsets, rows, positions, chosen;
        Random random{Seed{}};  ///< draws what the next forward pass with `keep` leaves out

        Sequences<C> sequences() const {
            return {.offsets = offsets, .positions = positions, .causal = false, .rotations = rotations()};
        }
    };

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        Stem::parameters(visit, at, self.stem_...);
        Tokens::parameters(visit, at, self.tokens_...);
        if constexpr (has_norm) Norm::parameters(visit, at + "ln_pre.", self.ln_pre_...);
        Blocks::parameters(visit, at + "transformer.", self.transformer_...);
        LayerNorm::parameters(visit, at + "ln_post.", self.head_.norm...);
        Head::parameters(visit, at + "attn_pool.", self.head_...);
        Head::Projector::parameters(visit, at + "proj", self.head_.projection...);
    }

    void initialise(Random& random) {
        const InitScale scale{.width = width, .layers = stand_in.layers};
        initialise_part(stem_, random, scale);
        tokens_.initialise(random, scale);
        transformer_.initialise(random);
        head_.initialise(random, scale);
    }

    /// images <N, 3, image, image>, already normalised, to embeddings <N, Embedding>, not normalised. `keep` keeps what
    /// backward needs, and leaves out what the config's dropouts draw.
    void forward(Input images, Rows<C, Embedding> embeddings, Workspace& work, bool keep) const {
        const std::size_t count = images.extent(0);
        const bool drops = may_drop && keep;
        work.patches.resize(count * Tokens::patches);
        work.embedded.resize(count * Tokens::tokens);
        stem_.forward(images, work.patches, work.stem, keep);
        choose(count, drops, work);
        const auto into_blocks = transformer_.input(work.offsets.back(), work.blocks);
        tokens_.forward(work.patches, has_norm || drops ? work.embedded.view() : into_blocks);
        if constexpr (may_drop) {
            if (drops) {
                work.kept.resize(work.offsets.back());
                nn::gather_rows<C, width>(work.embedded, work.chosen, has_norm ? work.kept.view() : into_blocks);
            }
        }
        if constexpr (has_norm) ln_pre_.forward(before_norm(work, drops), into_blocks, work.norm);
        const Sequences<C> sequences = work.sequences();
        head_.forward(run_blocks(sequences, work, keep), embeddings, sequences, Tokens::prefix, work.head, keep);
    }

    /// Adds to the gradients of all parameters, given the gradient of the embeddings of the last forward with `keep`.
    void backward(Rows<const C, Embedding> gradient_of_embeddings, Workspace& work,
                  VisionTransformer& gradient) const requires Trainable<T> {
        const Sequences<C> sequences = work.sequences();
        work.gradient.resize(sequences.rows());
        if constexpr (Head::picks_row) {
            work.picked_gradient.resize(work.rows.size());
            head_.backward(work.blocks.picked, gradient_of_embeddings, work.picked_gradient, sequences, Tokens::prefix,
                           work.head, gradient.head_);
            transformer_.backward_picked(work.picked_gradient, work.gradient, sequences, work.rows, work.blocks,
                                         gradient.transformer_);
        } else {
            head_.backward(work.blocks.streams.back(), gradient_of_embeddings, work.gradient, sequences, Tokens::prefix,
                           work.head, gradient.head_);
            transformer_.backward(work.gradient, sequences, work.blocks, gradient.transformer_);
        }
        if constexpr (has_norm) {
            ln_pre_.backward(before_norm(work, may_drop), work.gradient, work.gradient, work.norm, gradient.ln_pre_,
                             false);
        }
        Rows<const C, width> dtokens = work.gradient;
        if constexpr (may_drop) {
            work.embedded.resize(work.patches.extent(0) / Tokens::patches * Tokens::tokens);
            work.embedded.fill(0);
            nn::add_to_rows<C, width>(work.gradient, work.chosen, work.embedded);
            dtokens = work.embedded;
        }
        tokens_.backward(dtokens, work.patches, gradient.tokens_);
        stem_.backward(work.patches, work.stem, gradient.stem_);
    }

    const Blocks& blocks() const { return transformer_; }
    Blocks& blocks() { return transformer_; }

private:
    static constexpr bool has_norm = !stand_in.no_ln_pre, may_drop = stand_in.patch_dropout > 0;

    static const C* rotations() {
        if constexpr (stand_in.pos_embed_type == PosEmbed::rotary) {
            return nn::rotations_2d<C, Tokens::prefix, side, shape.head_width>().data();
        } else {
            return nullptr;
        }
    }

    static Rows<const C, width> before_norm(Workspace& work, bool drops) {
        return drops ? work.kept.view() : work.embedded.view();
    }

    Rows<const C, width> run_blocks(const Sequences<C>& sequences, Workspace& work, bool keep) const {
        if constexpr (Head::picks_row) {
            return transformer_.forward_picked(sequences, work.rows, work.blocks, keep, work.random);
        } else {
            return transformer_.forward(sequences, work.blocks, keep, work.random);
        }
    }

    /// Which tokens of every image the blocks see: all, or the prefix and a random max(1, int(patches · (1 − dropout)))
    /// of the patches (open_clip/transformer.py, PatchDropout).
    static void choose(std::size_t count, bool drops, Workspace& work) {
        const std::size_t patches = drops ? kept_patches() : Tokens::patches;
        const std::size_t tokens = Tokens::prefix + patches;
        work.offsets.resize(count + 1);
        work.rows.resize(count);
        for (std::size_t i = 0; i <= count; ++i) work.offsets[i] = i * tokens;
        for (std::size_t i = 0; i < count; ++i) work.rows[i] = i * tokens;
        if constexpr (may_drop) {
            work.positions.clear();
            work.chosen.clear();
            std::vector<std::size_t> order(Tokens::patches);
            for (std::size_t i = 0; drops && i < count; ++i) {
                std::iota(order.begin(), order.end(), Tokens::prefix);
                shuffle(order, work.random);
                std::sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(patches));
                for (std::size_t token = 0; token < tokens; ++token) {
                    work.positions.push_back(token < Tokens::prefix ? token : order[token - Tokens::prefix]);
                    work.chosen.push_back(i * Tokens::tokens + work.positions.back());
                }
            }
        }
    }

    static constexpr std::size_t kept_patches() {
        return std::max<std::size_t>(
            1, static_cast<std::size_t>(static_cast<double>(Tokens::patches) * (1 - stand_in.patch_dropout)));
    }

    Stem stem_;
    Tokens tokens_;
    [[no_unique_address]] Norm ln_pre_;
    Blocks transformer_;
    Head head_;

    // Last, because clang leaves out of a class whatever follows a failed assertion, and reports that as well.
    static_assert(config.sizes_are_positive(), "tandem: VitConfig: all sizes must be positive");
    static_assert(config.patches_fit(), "tandem: VitConfig: image must be a multiple of patch, or floor_patches be set and a patch fit");
    static_assert(config.heads_fit(), "tandem: VitConfig: width must be a multiple of heads, or head_width be given");
    static_assert(config.kv_heads_fit(), "tandem: VitConfig: heads must be a multiple of kv_heads");
    static_assert(config.norms_fit(), "tandem: VitConfig: a parallel block has one norm, before mixer and MLP: leave norm_position at pre");
    static_assert(config.rates_are_shares(), "tandem: VitConfig: patch_dropout and drop_path_rate must be at least 0 and below 1");
    static_assert(config.positions_fit(), "tandem: VitConfig: sin_cos_2d needs a width, rotary a head width that is a multiple of 4");
    static_assert(config.pooling_fits(), "tandem: VitConfig: ClassToken pooling needs class_token = true");
    static_assert(config.pooling_is_for_images(), "tandem: VitConfig: Eot and Last pool captions: an image is pooled by ClassToken, Average or AttentionPool");
    static_assert(config.stem_fits(), "tandem: VitConfig: ConvStem needs a patch that is a power of 2 above 1, and a width that is a multiple of it; it has no patch_bias and no floor_patches");
    static_assert(config.projection_fits(Embedding), "tandem: VitConfig: without a projection (proj_type none) the embedding is as wide as the tower, and there is no proj_bias");
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/nn/normalize.hpp ----

// Rows of length 1, between the towers and the loss.

// normalize() is the same as an expression. Here it is written out, for sizes at run time: with it inside the loss's
// expression, a training program took four seconds more to compile.
namespace tandem::inline TANDEM_ABI::nn {

/// No row is divided by less, as in torch.nn.functional.normalize.
inline constexpr double shortest_length = 1e-12;

/// In place x = x / max(‖x‖, 1e-12) for every row of x [rows, width]. `lengths` [rows] gets what each was divided by,
/// unless it is null.
template <Real T>
void normalize_rows(std::size_t rows, std::size_t width, T* x, T* lengths) {
    parallel_for(rows, 64, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            T* const row = x + i * width;
            double squares = 0;
            for (std::size_t j = 0; j < width; ++j)
                squares += static_cast<double>(row[j]) * static_cast<double>(row[j]);
            const double length = std::max(std::sqrt(squares), shortest_length);
            for (std::size_t j = 0; j < width; ++j) row[j] = static_cast<T>(static_cast<double>(row[j]) / length);
            if (lengths != nullptr) lengths[i] = static_cast<T>(length);
        }
    });
}

/// In place g = dL/dx, given g = dL/dy, normalize_rows' result y and its lengths: (g − y (y · g)) / length. A row that
/// was divided by the shortest length was only scaled.
template <Real T>
void normalize_rows_backward(std::size_t rows, std::size_t width, const T* y, const T* lengths, T* g) {
    parallel_for(rows, 64, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            const T* const unit = y + i * width;
            T* const row = g + i * width;
            double along = 0;
            if (static_cast<double>(lengths[i]) > shortest_length) {
                for (std::size_t j = 0; j < width; ++j)
                    along += static_cast<double>(unit[j]) * static_cast<double>(row[j]);
            }
            for (std::size_t j = 0; j < width; ++j) {
                row[j] = static_cast<T>((static_cast<double>(row[j]) - static_cast<double>(unit[j]) * along) /
                                        static_cast<double>(lengths[i]));
            }
        }
    });
}

}  // namespace tandem::inline TANDEM_ABI::nn

// ---- tandem/models/clip.hpp ----

// The model: two towers, one space, and a training step through both.

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// The types of a model's towers. A tower of a user's own knows nothing of blocks.
template <Arithmetic T, auto config>
struct TowerTypes {
    static constexpr bool shared = config.shared && blocks_agree<config>();

    static constexpr BlockShape shape_of(const auto& tower) {
        if constexpr (shared) {
            return shared_shape(config);
        } else if constexpr (requires { tower.block_shape(); }) {
            return tower.block_shape();
        } else {
            return {};
        }
    }

    template <auto tower, auto... blocks>
    static auto type_of() {
        using Config = decltype(tower);
        if constexpr (requires { tower.block_shape(); }) {
            return std::type_identity<typename Config::template Tower<T, tower, config.embedding, blocks...>>{};
        } else {
            return std::type_identity<typename Config::template Tower<T, tower, config.embedding>>{};
        }
    }

    using Vision = typename decltype(type_of<config.vision, shape_of(config.vision)>())::type;
    using Text = typename decltype(type_of<config.text, shape_of(config.text), !shared>())::type;
};

}  // namespace detail

/// A CLIP of the architecture `config`, with elements of type T. Clip<config> trains in float32; Clip<config, double>
/// in double; Clip<config, amp_bf16> in float32 with products of bfloat16, where the CPU multiplies it faster than float32.
/// Clip<config, bf16> keeps its matrices in bfloat16 (products sum in float32, their input rounded likewise on such CPUs),
/// Clip<config, int8> in bytes (products round their input likewise, and sum exactly); these two only infer.
template <auto config, Arithmetic T = float>
class Clip {
public:
    static constexpr auto architecture = config;
    static constexpr std::size_t embedding = config.embedding;
    using element = T;
    using C = Compute<T>;
    using Vision = typename detail::TowerTypes<T, config>::Vision;
    using Text = typename detail::TowerTypes<T, config>::Text;
    using Embeddings = Tensor<C, Shape<dynamic, embedding>>;
    static constexpr bool trains = Trainable<T>;

    /// All memory of a training step but the gradients; reused from step to step.
    struct Workspace {
        typename Vision::Workspace vision;
        typename Text::Workspace text;
        Embeddings image_embeddings, text_embeddings;           ///< of length 1
        Tensor<C, Shape<dynamic>> image_lengths, text_lengths;  ///< what they were divided by
        Tensor<C, Shape<>> scale;                               ///< the exponential of the logit scale
        Seed dropout{};  ///< decides what the config's dropouts leave out; a trainer sets it for every step
    };

    /// Zero weights and unit gains: what gradients and moments start as, and a checkpoint is loaded into.
    Clip() {
        logit_scale() = static_cast<C>(std::log(1.0 / 0.07));
        logit_bias_.fill(-10);
    }

    /// Random weights as OpenAI drew them (CLIP/clip/model.py:299-327), the blocks of both towers by the rule that file
    /// has for the text tower. The logit scale starts at ln(1 / 0.07), a logit bias at −10 (Zhai et al. 2023).
    explicit Clip(Seed seed) : Clip() {
        Random random(seed);
        visual_.initialise(random);
        text_.initialise(random);
    }

    static void parameters(const auto& visit, const ParameterName& at, auto&... self) {
        visit(at + "logit_scale", self.logit_scale_...);
        if constexpr (config.logit_bias) visit(at + "logit_bias", self.logit_bias_...);
        Vision::parameters(visit, at + "visual.", self.visual_...);
        Text::parameters(visit, at, self.text_...);
    }

    /// The learned ln of the scale that multiplies cosine similarities.
    C& logit_scale() { return *logit_scale_.data(); }
    C logit_scale() const { return *logit_scale_.data(); }
    C& logit_bias() requires(config.logit_bias) { return *logit_bias_.data(); }
    C logit_bias() const requires(config.logit_bias) { return *logit_bias_.data(); }

    /// After an optimizer step: the scale never exceeds 100 (Radford et al. 2021, section 2.5), nor falls below 1
    /// (open_clip clamps ln scale to [0, ln 100]).
    void clamp_logit_scale() { logit_scale() = std::clamp(logit_scale(), C{0}, static_cast<C>(std::log(100.0))); }

    /// images <N, 3, image, image>, already preprocessed, to embeddings <N, embedding> of length 1.
    Embeddings encode_image(typename Vision::Input images) const {
        Embeddings embeddings(images.extent(0));
        encode_image(images, embeddings);
        return embeddings;
    }
    /// The same into memory of the caller's: once it has seen its largest batch, a model allocates nothing.
    void encode_image(typename Vision::Input images, View<C, Shape<dynamic, embedding>> embeddings) const {
        encode<Vision>(images, embeddings, vision_memory_, images_at_once(),
                       [&](const auto& part, const auto& into, auto& work) { visual_.forward(part, into, work, false); });
    }

    /// ids <N, context> (start, tokens, end, zeros) to embeddings <N, embedding> of length 1.
    Embeddings encode_text(typename Text::Input ids) const {
        Embeddings embeddings(ids.extent(0));
        encode_text(ids, embeddings);
        return embeddings;
    }
    void encode_text(typename Text::Input ids, View<C, Shape<dynamic, embedding>> embeddings) const {
        encode<Text>(ids, embeddings, text_memory_, std::max<std::size_t>(1, ids.extent(0)),
                     [&](const auto& part, const auto& into, auto& work) { text_forward(part, into, work, false); });
    }

    /// The loss of a batch of matching pairs, and its gradients added to `gradient`, a Clip of the same type: one
    /// step's forward and backward pass.
    template <class L>
    C loss_and_gradient(typename Vision::Input images, typename Text::Input ids, const L& loss, Clip& gradient,
                        Workspace& work) const {
        static_assert(trains, "tandem: bf16 and int8 models only infer: their weights have too few bits for updates; amp_bf16 trains");
        if constexpr (trains) {
            return forward_and_backward(images, ids, loss, gradient, work);
        } else {
            return C{0};
        }
    }

    const Vision& visual() const { return visual_; }
    const Text& text() const { return text_; }

private:
    static constexpr bool is_shared = detail::TowerTypes<T, config>::shared;
    static_assert(!config.shared || is_shared,
                  "tandem: ClipConfig: shared = true needs two towers that agree in width, layers, heads, MLP and all parts of "
                  "a block");

    void text_forward(typename Text::Input ids, View<C, Shape<dynamic, embedding>> embeddings,
                      typename Text::Workspace& work, bool keep) const {
        if constexpr (is_shared) {
            text_.forward(ids, embeddings, work, keep, visual_.blocks());
        } else {
            text_.forward(ids, embeddings, work, keep);
        }
    }
    void text_backward(const Embeddings& gradient_of_embeddings, typename Text::Workspace& work, Clip& gradient) const {
        if constexpr (is_shared) {
            text_.backward(gradient_of_embeddings, work, gradient.text_, visual_.blocks(), gradient.visual_.blocks());
        } else {
            text_.backward(gradient_of_embeddings, work, gradient.text_);
        }
    }

    template <class Tower, class Forward>
    static void encode(typename Tower::Input input, View<C, Shape<dynamic, embedding>> embeddings,
                       Reused<typename Tower::Workspace>& memory, std::size_t at_once, const Forward& forward) {
        if (embeddings.extent(0) != input.extent(0)) {
            throw Error("Clip::encode", "room for " + std::to_string(input.extent(0)) + " embeddings",
                        std::to_string(embeddings.extent(0)));
        }
        const typename Reused<typename Tower::Workspace>::Lease work(memory);
        const std::size_t count = input.extent(0);
        for (std::size_t first = 0; first < count; first += at_once) {
            const std::size_t last = std::min(first + at_once, count);
            forward(input.slice(first, last), embeddings.slice(first, last), *work);
        }
        nn::normalize_rows<C>(count, embedding, embeddings.data(), nullptr);
    }

    /// Images of about 400 tokens a core: what passes between layers then stays in the caches. An embedding's bits do
    /// not depend on it.
    static std::size_t images_at_once() {
        if constexpr (requires { config.vision.tokens(); }) {
            return std::max<std::size_t>(1, 400 * core_count() / config.vision.tokens());
        } else {
            return std::numeric_limits<std::size_t>::max() / 2;
        }
    }

    static void normalize_embeddings(Embeddings& embeddings, Tensor<C, Shape<dynamic>>& lengths) {
        lengths.resize(embeddings.extent(0));
        nn::normalize_rows<C>(embeddings.extent(0), embedding, embeddings.data(), lengths.data());
    }
    static const Embeddings& through_normalize(const Embeddings& embeddings, const Tensor<C, Shape<dynamic>>& lengths,
                                               Embeddings& gradient_of_embeddings) {
        nn::normalize_rows_backward<C>(embeddings.extent(0), embedding, embeddings.data(), lengths.data(),
                                       gradient_of_embeddings.data());
        return gradient_of_embeddings;
    }

    template <class L>
    C forward_and_backward(typename Vision::Input images, typename Text::Input ids, const L& loss, Clip& gradient,
                           Workspace& work) const {
        if (images.extent(0) != ids.extent(0)) {
            throw Error("Clip::loss_and_gradient", std::to_string(images.extent(0)) + " captions for as many images",
                        std::to_string(ids.extent(0)));
        }
        work.image_embeddings.resize(images.extent(0));
        work.text_embeddings.resize(images.extent(0));
        if constexpr (requires { work.vision.random; }) work.vision.random = Random(work.dropout, 0);
        if constexpr (requires { work.text.random; }) work.text.random = Random(work.dropout, 1);
        visual_.forward(images, work.image_embeddings, work.vision, true);
        text_forward(ids, work.text_embeddings, work.text, true);
        normalize_embeddings(work.image_embeddings, work.image_lengths);
        normalize_embeddings(work.text_embeddings, work.text_lengths);
        const auto image = as_expression(work.image_embeddings), text = as_expression(work.text_embeddings);
        // Its own tensor, not exp(logit_scale_): the loss is compiled, and computed, without an exponential in every chain.
        work.scale.fill(std::exp(logit_scale()));
        const auto scale = as_expression(work.scale);
        const auto finish = [&](auto&& result) {
            visual_.backward(
                through_normalize(work.image_embeddings, work.image_lengths, std::get<0>(result.gradients)),
                work.vision, gradient.visual_);
            text_backward(through_normalize(work.text_embeddings, work.text_lengths, std::get<1>(result.gradients)),
                          work.text, gradient);
            gradient.logit_scale() += std::get<2>(result.gradients).item() * work.scale.item();
            return result.value;
        };
        if constexpr (config.logit_bias) {
            const auto bias = as_expression(logit_bias_);
            const auto expression = call_loss(loss, image, text, scale, bias);
            if constexpr (std::invocable<const L&, decltype(image), decltype(text), decltype(scale), decltype(bias)>) {
                auto result = value_and_gradient(expression, work.image_embeddings, work.text_embeddings, work.scale,
                                                 logit_bias_);
                gradient.logit_bias() += std::get<3>(result.gradients).item();
                return finish(result);
            } else {
                return finish(
                    value_and_gradient(expression, work.image_embeddings, work.text_embeddings, work.scale));
            }
        } else {
            constexpr bool fits = std::invocable<const L&, decltype(image), decltype(text), decltype(scale)>;
            static_assert(fits, "tandem: this loss takes a bias: set .logit_bias = true in the ClipConfig");
            if constexpr (fits) {
                const auto expression = loss(image, text, scale);
                return finish(
                    value_and_gradient(expression, work.image_embeddings, work.text_embeddings, work.scale));
            } else {
                return C{0};
            }
        }
    }

    Tensor<C, Shape<>> logit_scale_;
    Tensor<C, Shape<>> logit_bias_;
    Vision visual_;
    Text text_;
    mutable Reused<typename Vision::Workspace> vision_memory_;
    mutable Reused<typename Text::Workspace> text_memory_;
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/models/check_gradients.hpp ----

// Whether backward is the derivative of forward: central differences for a whole model, and so for a part of a user's own.

namespace tandem::inline TANDEM_ABI {

/// What check_gradients found: the parameter whose gradient is furthest off, and how far: the L2 norm of its difference
/// from central differences, over that of the latter.
struct GradientCheck {
    std::string parameter;
    double difference = 0;
};

namespace detail {

/// Random pixels, and captions that end at different places.
template <class Model>
struct RandomPairs {
    static constexpr std::size_t count = 4;
    Tensor<typename Model::C, typename Model::Vision::Input::shape> images{count};
    Tensor<Id, typename Model::Text::Input::shape> ids{count};

    explicit RandomPairs(Random& random) {
        constexpr std::size_t context = Model::Text::Input::shape::extents[1];
        const std::size_t end = Model::architecture.text.vocabulary - 1;
        for (auto& pixel : images.elements()) pixel = static_cast<typename Model::C>(random.normal());
        for (std::size_t i = 0; i < count; ++i) {
            for (Id& id : ids[i].elements()) id = static_cast<Id>(random.below(end));
            ids(i, context > 1 ? 1 + i * (context - 1) / count : 0) = static_cast<Id>(end);
        }
    }
};

}  // namespace detail

/// Holds every parameter's gradient of a Clip<config, double> with random weights, on four random pairs, against central
/// differences: where the library's own parts stand at 1e-7 or better, a part of your own whose backward is wrong stands
/// at 0.01 or more. Dropouts draw the same in every pass. Every scalar takes two passes: use small sizes.
template <auto config, class L = InfoNce>
GradientCheck check_gradients(const L& loss = {}, Seed seed = {}) {
    using Model = Clip<config, double>;
    Random random(seed);
    Model model(seed), gradient, unused;
    // Away from the values that layers begin with: gains of 1 and biases of 0 hide mistakes.
    for_each_parameter(
        [&](const ParameterName&, auto& tensor) {
            for (double& value : tensor.elements()) value += 0.2 * random.normal();
        },
        model);
    const detail::RandomPairs<Model> pairs(random);
    typename Model::Workspace work;
    zero_parameters(gradient);
    model.loss_and_gradient(pairs.images, pairs.ids, loss, gradient, work);
    double whole = 0;
    for_each_parameter(
        [&](const ParameterName&, const auto& slope) {
            for (const double g : slope.elements()) whole += g * g;
        },
        gradient);
    // A gradient that is zero by construction, such as a key bias's, has only rounding errors: it is held against this.
    const double floor = 1e-5 * std::sqrt(whole);
    GradientCheck worst;
    for_each_parameter(
        [&](const ParameterName& name, auto& parameter, const auto& slope) {
            // The truncation error is about h² times the third derivative, the rounding error about 1e-16 / h.
            constexpr double h = 1e-5;
            double difference = 0, norm = 0;
            for (std::size_t i = 0; i < parameter.elements().size(); ++i) {
                double& x = parameter.elements()[i];
                const double kept = x;
                x = kept + h;
                const double above = model.loss_and_gradient(pairs.images, pairs.ids, loss, unused, work);
                x = kept - h;
                const double below = model.loss_and_gradient(pairs.images, pairs.ids, loss, unused, work);
                x = kept;
                const double numeric = (above - below) / (2 * h);
                difference += std::pow(numeric - slope.elements()[i], 2);
                norm += numeric * numeric;
            }
            const double relative = std::sqrt(difference) / (std::sqrt(norm) + floor);
            if (!(relative <= worst.difference)) worst = {std::string(name), relative};
        },
        model, gradient);
    return worst;
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/data/model_folder.hpp ----

// What the configs beside a checkpoint say of its architecture.

namespace tandem::inline TANDEM_ABI::detail {

/// A property of an architecture that a file tells, or a constant has. `name` is the constant's ("vision.layers"); sizes are
/// decimal, activations in transformers' words, poolings in open_clip's.
struct ArchitectureField {
    std::string name;
    std::string value;
    std::string source;  ///< where a file says so, or that it does not and means its default
};

/// A config file's leaves by their paths, and the fields that were found in it.
class ConfigReader {
public:
    /// Throws Error if the file is no JSON object.
    [[gnu::cold]] explicit ConfigReader(const std::filesystem::path& path) : file_(path.filename().string()) {
        const MappedFile file(path);
        const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
        if (const auto fault = json_fault(text, leaves_))
            throw Error(path.string(), "a JSON object", "a fault at byte " + std::to_string(*fault));
    }

    std::optional<std::string> find(std::string_view path) const {
        for (const JsonLeaf& leaf : leaves_.leaves) {
            if (leaf.path == path && leaf.text != "null") return leaf.text;
        }
        return std::nullopt;
    }
    bool has_below(std::string_view prefix) const {
        return std::ranges::any_of(leaves_.leaves, [&](const JsonLeaf& leaf) { return leaf.path.starts_with(prefix); });
    }

    /// Adds what the file says at `path`, or what its absence means.
    void add(std::string name, const std::string& path, std::string_view otherwise) {
        const auto found = find(path);
        fields.push_back({std::move(name), found.value_or(std::string(otherwise)),
                          file_ + ", " + path + (found ? "" : " by default")});
    }
    /// Adds what follows from the file.
    void conclude(std::string name, std::string value, const std::string& path) {
        fields.push_back({std::move(name), std::move(value), file_ + ", " + path});
    }

    std::vector<ArchitectureField> fields;

private:
    std::string file_;
    JsonLeaves leaves_;
};

/// transformers' config.json writes what is not the default of its CLIPVisionConfig, SiglipVisionConfig and so on.
[[gnu::cold]] inline void read_transformers_config(ConfigReader& config, bool siglip) {
    struct Entry {
        const char *name, *path, *clip, *siglip;
    };
    static constexpr std::array<Entry, 16> entries{{
        {"vision.image", "vision_config.image_size", "224", "224"},
        {"vision.patch", "vision_config.patch_size", "32", "16"},
        {"vision.width", "vision_config.hidden_size", "768", "768"},
        {"vision.hidden", "vision_config.intermediate_size", "3072", "3072"},
        {"vision.layers", "vision_config.num_hidden_layers", "12", "12"},
        {"vision.heads", "vision_config.num_attention_heads", "12", "12"},
        {"vision.activation", "vision_config.hidden_act", "quick_gelu", "gelu_pytorch_tanh"},
        {"vision.norm.eps", "vision_config.layer_norm_eps", "1e-5", "1e-6"},
        {"text.vocabulary", "text_config.vocab_size", "49408", "32000"},
        {"text.context", "text_config.max_position_embeddings", "77", "64"},
        {"text.width", "text_config.hidden_size", "512", "768"},
        {"text.hidden", "text_config.intermediate_size", "2048", "3072"},
        {"text.layers", "text_config.num_hidden_layers", "12", "12"},
        {"text.heads", "text_config.num_attention_heads", "8", "12"},
        {"text.activation", "text_config.hidden_act", "quick_gelu", "gelu_pytorch_tanh"},
        {"text.norm.eps", "text_config.layer_norm_eps", "1e-5", "1e-6"},
    }};
    for (const Entry& entry : entries) config.add(entry.name, entry.path, siglip ? entry.siglip : entry.clip);
    config.conclude("vision.pooling", siglip ? "map" : "tok", "model_type");
    config.conclude("text.pooling", siglip ? "last" : "argmax", "model_type");
    config.conclude("text.causal", siglip ? "false" : "true", "model_type");
    if (!siglip) config.add("embedding", "projection_dim", "512");
}

/// The activation of a tower of open_clip's: a file says quick_gelu for both, or tanh for one.
inline std::string open_clip_activation(const ConfigReader& config, const std::string& tower) {
    if (config.find("model_cfg.quick_gelu") == "true") return "quick_gelu";
    return config.find(tower + ".act_kwargs.approximate") == "tanh" ? "gelu_pytorch_tanh" : "gelu";
}

/// open_clip's open_clip_config.json, with the defaults of its CLIPVisionCfg and CLIPTextCfg (open_clip/model.py). Towers
/// of timm have their sizes in their names, and the activation in timm's table.
[[gnu::cold]] inline void read_open_clip_config(ConfigReader& config) {
    const std::string vision = "model_cfg.vision_cfg", text = "model_cfg.text_cfg";
    const auto number = [&](const std::string& path, double otherwise) {
        const auto found = config.find(path);
        return found ? std::strtod(found->c_str(), nullptr) : otherwise;
    };
    const auto hidden = [&](const std::string& tower, double width) {
        return std::to_string(static_cast<std::size_t>(number(tower + ".width", width) * number(tower + ".mlp_ratio", 4.0)));
    };
    config.add("embedding", "model_cfg.embed_dim", "512");
    config.add("vision.image", vision + ".image_size", "224");
    if (const auto timm = config.find(vision + ".timm_model_name")) {
        // timm/models/vision_transformer.py: these say act_layer = 'gelu_tanh', the other towers of SigLIP share erf's.
        static constexpr std::array<std::string_view, 4> tanh{"_patch32_siglip", "large_patch16_siglip_512",
                                                              "so400m_patch16_siglip", "giantopt_patch16_siglip"};
        const bool is_tanh = std::ranges::any_of(tanh, [&](auto part) { return timm->find(part) != std::string::npos; });
        if (timm->find("_siglip") != std::string::npos) {
            config.conclude("vision.activation", is_tanh ? "gelu_pytorch_tanh" : "gelu", vision + ".timm_model_name");
            config.conclude("vision.norm.eps", "1e-6", vision + ".timm_model_name");
            config.conclude("vision.pooling", timm->find("_gap_") != std::string::npos ? "avg" : "map",
                            vision + ".timm_model_name");
        }
    } else {
        config.add("vision.patch", vision + ".patch_size", "16");
        config.add("vision.width", vision + ".width", "768");
        config.conclude("vision.hidden", hidden(vision, 768), vision + ".mlp_ratio");
        config.add("vision.layers", vision + ".layers", "12");
        const double head = number(vision + ".head_width", 64);
        config.conclude("vision.heads", std::to_string(static_cast<std::size_t>(number(vision + ".width", 768) / head)),
                        vision + ".head_width");
        config.conclude("vision.activation", open_clip_activation(config, vision), "model_cfg.quick_gelu");
        config.add("vision.norm.eps", vision + ".norm_kwargs.eps", "1e-5");
        config.add("vision.pooling", vision + ".pool_type", "tok");
    }
    config.add("text.vocabulary", text + ".vocab_size", "49408");
    config.add("text.context", text + ".context_length", "77");
    config.add("text.width", text + ".width", "512");
    config.conclude("text.hidden", hidden(text, 512), text + ".mlp_ratio");
    config.add("text.layers", text + ".layers", "12");
    config.add("text.heads", text + ".heads", "8");
    config.conclude("text.activation", open_clip_activation(config, text), "model_cfg.quick_gelu");
    config.add("text.norm.eps", text + ".norm_kwargs.eps", "1e-5");
    config.add("text.pooling", text + ".pool_type", "argmax");
    config.conclude("text.causal", config.find(text + ".no_causal_mask") == "true" ? "false" : "true",
                    text + ".no_causal_mask");
}

/// What a folder's configs say; nothing where it has none. Throws Error for a config that is no JSON, and for a model_type
/// of transformers that has no counterpart here.
[[gnu::cold]] inline std::vector<ArchitectureField> stored_architecture(const std::filesystem::path& folder) {
    if (const auto path = folder / "open_clip_config.json"; std::filesystem::exists(path)) {
        ConfigReader config(path);
        if (config.has_below("model_cfg.")) read_open_clip_config(config);
        return std::move(config.fields);
    }
    if (const auto path = folder / "config.json"; std::filesystem::exists(path)) {
        ConfigReader config(path);
        const auto type = config.find("model_type");
        if (type && type != "clip" && type != "siglip")
            throw Error(path.string(), "a model_type of clip or siglip", *type);
        if (type || config.has_below("vision_config.")) read_transformers_config(config, type == "siglip");
        return std::move(config.fields);
    }
    return {};
}

}  // namespace tandem::inline TANDEM_ABI::detail

// ---- tandem/data/torch_archive.hpp ----

// Files of torch.save and torch.jit.save, read without executing anything.

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// Little-endian bytes read from front to back; `what` and `where` name them in the Error of a read beyond their end.
class ByteReader {
public:
    ByteReader(std::span<const std::byte> bytes, std::string_view where, std::string_view what)
        : bytes_(bytes), where_(where), what_(what) {}

    std::size_t position() const { return position_; }
    bool at_end() const { return position_ == bytes_.size(); }

    std::span<const std::byte> take(std::size_t count) {
        if (count > bytes_.size() - position_) {
            throw Error(where_, std::to_string(count) + " bytes at byte " + std::to_string(position_) + " of " + std::string(what_),
                        std::to_string(bytes_.size() - position_));
        }
        position_ += count;
        return bytes_.subspan(position_ - count, count);
    }

    template <std::integral T>
    T number() {
        T value;
        std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
        return value;
    }

    std::string_view text(std::size_t count) {
        const auto bytes = take(count);
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }

    /// Up to the next line feed, which is taken too.
    std::string_view line() {
        const auto rest = bytes_.subspan(position_);
        const auto end = std::find(rest.begin(), rest.end(), std::byte{'\n'});
        const std::string_view found = text(static_cast<std::size_t>(end - rest.begin()));
        take(1);
        return found;
    }

private:
    std::span<const std::byte> bytes_;
    std::string_view where_, what_;
    std::size_t position_ = 0;
};

/// The entries of a zip archive that are stored as they are, with their bytes in place; compressed ones (TorchScript's
/// code) are left out. Read here and not by a zip library, since those copy what they read. APPNOTE.TXT 6.3.10,
/// sections 4.3.7 to 4.3.16.
[[gnu::cold]] inline std::map<std::string_view, std::span<const std::byte>> zip_entries(std::span<const std::byte> file,
                                                                                       std::string_view where) {
    constexpr std::size_t end_size = 22, locator_size = 20;
    const auto reader = [&](std::size_t at, std::string_view what) {
        if (at > file.size()) throw Error(where, "a whole zip archive", "one that is cut off before " + std::string(what));
        return ByteReader(file.subspan(at), where, what);
    };
    // The end record stands before a comment of at most 65,535 bytes.
    std::size_t end = file.size();
    for (std::size_t back = end_size; back <= std::min(file.size(), end_size + 0xffff); ++back) {
        if (reader(file.size() - back, "its end").number<std::uint32_t>() == 0x06054b50) {
            end = file.size() - back;
            break;
        }
    }
    if (end == file.size()) throw Error(where, "a whole zip archive", "no end record: the file is cut off, or of another kind");
    ByteReader record = reader(end + 10, "the end record");
    std::uint64_t count = record.number<std::uint16_t>();
    record.take(4);
    std::uint64_t directory = record.number<std::uint32_t>();
    if ((count == 0xffff || directory == 0xffffffff) && end >= locator_size) {
        ByteReader locator = reader(end - locator_size, "the zip64 locator");
        if (locator.number<std::uint32_t>() == 0x07064b50) {
            locator.take(4);
            ByteReader wide = reader(locator.number<std::uint64_t>(), "the zip64 end record");
            if (wide.number<std::uint32_t>() != 0x06064b50) throw Error(where, "a zip64 end record", "other bytes");
            wide.take(28);
            count = wide.number<std::uint64_t>();
            wide.take(8);
            directory = wide.number<std::uint64_t>();
        }
    }
    std::map<std::string_view, std::span<const std::byte>> entries;
    ByteReader header = reader(directory, "the directory");
    for (std::uint64_t i = 0; i < count; ++i) {
        if (header.number<std::uint32_t>() != 0x02014b50) throw Error(where, "entry " + std::to_string(i) + " of the zip directory", "other bytes");
        header.take(6);
        const auto method = header.number<std::uint16_t>();
        header.take(8);
        std::uint64_t stored = header.number<std::uint32_t>(), size = header.number<std::uint32_t>();
        const auto name_size = header.number<std::uint16_t>(), extra_size = header.number<std::uint16_t>(),
                   comment_size = header.number<std::uint16_t>();
        header.take(8);
        std::uint64_t at = header.number<std::uint32_t>();
        const std::string_view name = header.text(name_size);
        ByteReader extra(header.take(extra_size), where, "a zip entry's extra field");
        header.take(comment_size);
        while (!extra.at_end()) {
            const auto id = extra.number<std::uint16_t>();
            ByteReader field(extra.take(extra.number<std::uint16_t>()), where, "a zip64 field");
            if (id != 1) continue;
            if (size == 0xffffffff) size = field.number<std::uint64_t>();
            if (stored == 0xffffffff) stored = field.number<std::uint64_t>();
            if (at == 0xffffffff) at = field.number<std::uint64_t>();
        }
        if (method != 0) continue;
        ByteReader local = reader(at, "a zip entry");
        if (local.number<std::uint32_t>() != 0x04034b50) throw Error(where, "zip entry " + in_quotes(name), "other bytes at byte " + std::to_string(at));
        local.take(22);
        const auto local_name = local.number<std::uint16_t>(), local_extra = local.number<std::uint16_t>();
        local.take(local_name + std::size_t{local_extra});
        if (stored != size) throw Error(where, "zip entry " + in_quotes(name) + " of one size", std::to_string(stored) + " and " + std::to_string(size));
        entries[name] = local.take(size);
    }
    return entries;
}

/// What a pickle makes, one value of it. Values refer to each other by position: nothing is copied, whatever a hostile
/// file repeats.
struct PickleValue {
    enum class Kind : std::uint8_t { mark, other, integer, text, global, list, dictionary, object, storage, tensor };

    Kind kind = Kind::other;
    std::int64_t integer = 0;
    std::string text;                  ///< of a text, a global ("torch.FloatStorage") and a storage's key
    std::vector<std::uint32_t> items;  ///< of a list, of a dictionary (keys and values in turn), or an object's state
};

/// A stack machine for the part of Python's pickle protocols 2 to 4 that tensors, dictionaries of them and modules of
/// TorchScript are written in (Lib/pickletools.py says what every opcode does). It calls nothing: the few functions that
/// torch.save names are understood, and any other is an Error with its name.
class Unpickler {
public:
    using Kind = PickleValue::Kind;

    Unpickler(std::span<const std::byte> bytes, std::string_view where) : reader_(bytes, where, "data.pkl"), where_(where) {}

    /// The position of the value that the pickle describes.
    [[gnu::cold]] std::uint32_t run() {
        while (true) {
            const auto opcode = reader_.number<std::uint8_t>();
            if (opcode == '.') return pop();
            step(opcode);
        }
    }

    const PickleValue& operator[](std::uint32_t position) const { return values_[position]; }

private:
    [[noreturn, gnu::cold]] void fail(const std::string& found) const {
        throw Error(where_, "a pickle of tensors", found + " at byte " + std::to_string(reader_.position()) + " of data.pkl");
    }

    std::uint32_t push(PickleValue value) {
        values_.push_back(std::move(value));
        stack_.push_back(static_cast<std::uint32_t>(values_.size() - 1));
        return stack_.back();
    }
    void push_number(std::int64_t value) { push({.kind = Kind::integer, .integer = value, .text = {}, .items = {}}); }
    void push_text(Kind kind, std::string_view text) { push({.kind = kind, .integer = 0, .text = std::string(text), .items = {}}); }
    void push_items(Kind kind, std::vector<std::uint32_t> items) { push({.kind = kind, .integer = 0, .text = {}, .items = std::move(items)}); }

    std::uint32_t pop() {
        if (stack_.empty()) fail("a value taken from an empty stack");
        const std::uint32_t top = stack_.back();
        stack_.pop_back();
        return top;
    }
    std::uint32_t top() {
        if (stack_.empty()) fail("a value taken from an empty stack");
        return stack_.back();
    }
    std::vector<std::uint32_t> pop(std::size_t count) {
        if (count > stack_.size()) fail("a value taken from an empty stack");
        const std::vector<std::uint32_t> items(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
        stack_.resize(stack_.size() - count);
        return items;
    }
    std::vector<std::uint32_t> pop_to_mark() {
        std::size_t count = 0;
        while (count < stack_.size() && values_[stack_[stack_.size() - 1 - count]].kind != Kind::mark) ++count;
        if (count == stack_.size()) fail("no mark on the stack");
        std::vector<std::uint32_t> items = pop(count);
        pop();
        return items;
    }

    void remember(std::uint64_t name) { memo_[name] = top(); }
    void recall(std::uint64_t name) {
        const auto found = memo_.find(name);
        if (found == memo_.end()) fail("a memory of nothing");
        stack_.push_back(found->second);
    }

    void add(std::vector<std::uint32_t> items) {
        PickleValue& target = values_[top()];
        if (target.kind == Kind::dictionary && items.size() % 2 != 0) fail("a key without a value");
        if (target.kind != Kind::dictionary && target.kind != Kind::list) fail("items for what is no list or dictionary");
        target.items.insert(target.items.end(), items.begin(), items.end());
    }

    void global(std::string_view module, std::string_view name) {
        const std::string whole = std::string(module) + "." + std::string(name);
        static constexpr std::array known{std::string_view("collections.OrderedDict"), std::string_view("torch._utils._rebuild_tensor_v2"),
                                          std::string_view("torch._utils._rebuild_parameter")};
        const bool is_storage = module == "torch" && name.ends_with("Storage");
        const bool is_script = module.starts_with("__torch__") || module == "torch.jit._pickle";
        if (!is_storage && !is_script && std::find(known.begin(), known.end(), whole) == known.end()) {
            throw Error(where_, "a pickle of tensors, which needs no function but torch's to rebuild them",
                        in_quotes(whole) + ", which is not called");
        }
        push_text(Kind::global, whole);
    }

    void call() {
        const std::uint32_t arguments = pop(), function = pop();
        if (values_[function].kind != Kind::global || values_[arguments].kind != Kind::list) fail("a call of what is no function");
        const std::string& name = values_[function].text;
        const std::vector<std::uint32_t>& items = values_[arguments].items;
        if (name == "collections.OrderedDict") return void(push_items(Kind::dictionary, {}));
        if (name == "torch._utils._rebuild_tensor_v2") {
            if (items.size() < 4 || values_[items[0]].kind != Kind::storage) fail("a tensor without a storage");
            return push_items(Kind::tensor, {items.begin(), items.begin() + 4});
        }
        // _rebuild_parameter(tensor, ...), and TorchScript's lists of integers, which come as a list.
        if (items.empty()) fail(in_quotes(name) + " without arguments");
        stack_.push_back(items[0]);
    }

    void persistent() {
        const std::vector<std::uint32_t> items = values_[pop()].items;
        if (items.size() < 5 || values_[items[0]].text != "storage" || values_[items[1]].kind != Kind::global ||
            values_[items[2]].kind != Kind::text) {
            fail("a persistent id that is no storage");
        }
        push({.kind = Kind::storage, .integer = 0, .text = values_[items[2]].text, .items = {items[1]}});
    }

    void step(std::uint8_t opcode) {
        switch (opcode) {
            case 0x80: reader_.take(1); return;                                               // PROTO
            case 0x95: reader_.take(8); return;                                               // FRAME
            case 'c': {                                                                       // GLOBAL
                const std::string_view module = reader_.line();
                return global(module, reader_.line());
            }
            case 0x93: {  // STACK_GLOBAL
                const std::uint32_t name = pop(), module = pop();
                return global(std::string(values_[module].text), std::string(values_[name].text));
            }
            case 'q': return remember(reader_.number<std::uint8_t>());                        // BINPUT
            case 'r': return remember(reader_.number<std::uint32_t>());                       // LONG_BINPUT
            case 0x94: return remember(memo_.size());                                         // MEMOIZE
            case 'h': return recall(reader_.number<std::uint8_t>());                          // BINGET
            case 'j': return recall(reader_.number<std::uint32_t>());                         // LONG_BINGET
            case '(': return void(push({.kind = Kind::mark, .integer = 0, .text = {}, .items = {}}));
            case '0': return void(pop());                                                     // POP
            case '1': return void(pop_to_mark());                                             // POP_MARK
            case 'N': case 0x88: case 0x89: return void(push({}));                            // NONE, NEWTRUE, NEWFALSE
            case 'K': return push_number(reader_.number<std::uint8_t>());                     // BININT1
            case 'M': return push_number(reader_.number<std::uint16_t>());                    // BININT2
            case 'J': return push_number(reader_.number<std::int32_t>());                     // BININT
            case 0x8a: return push_long(reader_.number<std::uint8_t>());                      // LONG1
            case 'G': reader_.take(8); return void(push({}));                                 // BINFLOAT
            case 'X': return push_text(Kind::text, reader_.text(reader_.number<std::uint32_t>()));   // BINUNICODE
            case 0x8c: return push_text(Kind::text, reader_.text(reader_.number<std::uint8_t>()));   // SHORT_BINUNICODE
            case 'U': return push_text(Kind::text, reader_.text(reader_.number<std::uint8_t>()));    // SHORT_BINSTRING
            case ')': case ']': return push_items(Kind::list, {});                            // EMPTY_TUPLE, EMPTY_LIST
            case '}': return push_items(Kind::dictionary, {});                                // EMPTY_DICT
            case 0x85: case 0x86: case 0x87: return push_items(Kind::list, pop(opcode - 0x84U));     // TUPLE1 to TUPLE3
            case 't': case 'l': {                                                             // TUPLE, LIST
                std::vector<std::uint32_t> items = pop_to_mark();
                return push_items(Kind::list, std::move(items));
            }
            case 'a': return add(pop(1));                                                     // APPEND
            case 's': return add(pop(2));                                                     // SETITEM
            case 'e': case 'u': return add(pop_to_mark());                                    // APPENDS, SETITEMS
            case 'Q': return persistent();                                                    // BINPERSID
            case 'R': return call();                                                          // REDUCE
            case 0x81: {                                                                      // NEWOBJ
                pop(2);
                return push_items(Kind::object, {});
            }
            case 'b': {                                                                       // BUILD
                const std::uint32_t state = pop();
                PickleValue& target = values_[top()];
                // A dictionary's state is its attributes: state_dict() has _metadata.
                if (target.kind == Kind::object) target.items = {state};
                return;
            }
            default: fail("opcode " + std::to_string(opcode));
        }
    }

    void push_long(std::size_t size) {
        const auto bytes = reader_.take(size);
        std::int64_t value = 0;
        if (size > 8) return void(push({}));
        std::memcpy(&value, bytes.data(), size);
        if (size > 0 && size < 8 && (static_cast<unsigned>(bytes.back()) & 0x80U) != 0) value -= std::int64_t{1} << (8 * size);
        push_number(value);
    }

    ByteReader reader_;
    std::string_view where_;
    std::vector<PickleValue> values_;
    std::vector<std::uint32_t> stack_;
    std::map<std::uint64_t, std::uint32_t> memo_;
};

}  // namespace detail

namespace detail {

/// Turns the value of a pickle into tensors, named by the keys on the way to them.
class TorchTensors {
public:
    TorchTensors(const Unpickler& values, const std::map<std::string_view, std::span<const std::byte>>& entries, std::string prefix,
                 std::string_view where)
        : values_(values), entries_(entries), prefix_(std::move(prefix)), where_(where) {}

    [[gnu::cold]] void collect(std::uint32_t root) {
        const PickleValue& value = values_[root];
        for (std::size_t i = 0; value.kind == Kind::dictionary && i + 1 < value.items.size(); i += 2) {
            if (values_[value.items[i]].text == "state_dict") return visit(value.items[i + 1], "", 0);
        }
        visit(root, "", 0);
    }

    std::vector<StoredTensor> tensors;
    std::vector<std::vector<std::byte>> copies;  ///< of tensors that do not stand in the file row by row

private:
    using Kind = PickleValue::Kind;

    // A dictionary may hold one thing many times over: what is visited is bounded, not only what is stored.
    static constexpr std::size_t max_depth = 64, max_visits = 1'000'000;

    void visit(std::uint32_t position, const std::string& name, std::size_t depth) {
        if (depth > max_depth || ++visits_ > max_visits) throw Error(where_, "modules in modules", "more than any model has");
        const PickleValue& value = values_[position];
        if (value.kind == Kind::tensor) {
            add(value, name);
        } else if (value.kind == Kind::object) {
            for (const std::uint32_t state : value.items) visit(state, name, depth + 1);
        } else if (value.kind == Kind::dictionary) {
            for (std::size_t i = 0; i + 1 < value.items.size(); i += 2) {
                const PickleValue& key = values_[value.items[i]];
                if (key.kind != Kind::text) continue;
                visit(value.items[i + 1], name.empty() ? key.text : name + "." + key.text, depth + 1);
            }
        }
    }

    [[noreturn, gnu::cold]] void fail(const std::string& name, const std::string& found) const {
        throw Error(where_, "tensor " + in_quotes(name) + ": " + found);
    }

    std::vector<std::size_t> extents(std::uint32_t position, const std::string& name) const {
        std::vector<std::size_t> found;
        for (const std::uint32_t item : values_[position].items) {
            const PickleValue& value = values_[item];
            if (value.kind != Kind::integer || value.integer < 0) fail(name, "a size or stride that is no whole number");
            found.push_back(static_cast<std::size_t>(value.integer));
        }
        return found;
    }

    DataType type_of(const PickleValue& storage, const std::string& name) const {
        static constexpr std::array<std::pair<std::string_view, DataType>, 10> types{{{"torch.FloatStorage", DataType::F32},
                                                                                     {"torch.HalfStorage", DataType::F16},
                                                                                     {"torch.BFloat16Storage", DataType::BF16},
                                                                                     {"torch.DoubleStorage", DataType::F64},
                                                                                     {"torch.LongStorage", DataType::I64},
                                                                                     {"torch.IntStorage", DataType::I32},
                                                                                     {"torch.ShortStorage", DataType::I16},
                                                                                     {"torch.CharStorage", DataType::I8},
                                                                                     {"torch.ByteStorage", DataType::U8},
                                                                                     {"torch.BoolStorage", DataType::BOOL}}};
        const std::string& found = values_[storage.items[0]].text;
        for (const auto& [known, type] : types) {
            if (known == found) return type;
        }
        fail(name, "elements of " + in_quotes(found) + ", which no tensor here has");
    }

    void add(const PickleValue& value, const std::string& name) {
        const PickleValue& storage = values_[value.items[0]];
        const DataType type = type_of(storage, name);
        const std::size_t width = bits(type) / 8;
        const auto entry = entries_.find(prefix_ + "data/" + storage.text);
        if (entry == entries_.end()) fail(name, "its storage data/" + storage.text + " is missing");
        const PickleValue& offset_value = values_[value.items[1]];
        if (offset_value.kind != Kind::integer || offset_value.integer < 0) fail(name, "an offset that is no whole number");
        const auto offset = static_cast<std::size_t>(offset_value.integer);
        const std::vector<std::size_t> shape = extents(value.items[2], name), strides = extents(value.items[3], name);
        if (shape.size() != strides.size()) fail(name, "as many strides as sizes expected");
        const auto size = byte_count(type, shape);
        // The last element's position; what overflows is beyond any storage.
        std::size_t last = offset;
        bool is_dense = true, overflows = !size;
        std::size_t expected = 1;
        for (std::size_t axis = shape.size(); axis-- > 0 && !overflows;) {
            std::size_t reach = 0;
            if (shape[axis] > 0) {
                overflows = __builtin_mul_overflow(shape[axis] - 1, strides[axis], &reach) || __builtin_add_overflow(last, reach, &last);
            }
            is_dense = is_dense && (shape[axis] <= 1 || strides[axis] == expected);
            expected *= shape[axis];
        }
        const std::size_t elements = entry->second.size() / width;
        if (overflows || (*size > 0 && last >= elements)) {
            fail(name, "shape " + shape_text(shape) + " at element " + std::to_string(offset) + " reaches beyond its storage of " +
                           std::to_string(elements) + " elements");
        }
        if (*size == 0 || is_dense) {
            tensors.push_back({name, type, shape, *size == 0 ? std::span<const std::byte>() : entry->second.subspan(offset * width, *size)});
            return;
        }
        // A tensor may repeat elements by strides of 0: it is not made larger than what it repeats.
        if (*size > entry->second.size()) fail(name, "strides that repeat elements");
        std::vector<std::byte>& copy = copies.emplace_back(*size);
        std::vector<std::size_t> index(shape.size());
        for (std::size_t to = 0; to < *size; to += width) {
            std::size_t from = offset;
            for (std::size_t axis = 0; axis < shape.size(); ++axis) from += index[axis] * strides[axis];
            std::memcpy(copy.data() + to, entry->second.data() + from * width, width);
            for (std::size_t axis = shape.size(); axis-- > 0 && ++index[axis] == shape[axis];) index[axis] = 0;
        }
        tensors.push_back({name, type, shape, copy});
    }

    const Unpickler& values_;
    const std::map<std::string_view, std::span<const std::byte>>& entries_;
    std::string prefix_;
    std::string_view where_;
    std::size_t visits_ = 0;
};

}  // namespace detail

/// A file of torch.save since PyTorch 1.6, of a state_dict, of a dictionary that has one as its "state_dict", or of a
/// module of TorchScript (OpenAI's downloads). Nothing of it is executed. Move only.
class TorchArchive {
public:
    /// Maps the file. Throws Error that names it and the fault.
    static TorchArchive open(const std::filesystem::path& path) {
        MappedFile file(path);
        TorchArchive result(file.bytes(), path.string());
        result.file_ = std::move(file);
        return result;
    }

    /// Reads a file that is in memory already; the bytes must outlive the object. `where` begins every error.
    static TorchArchive parse(std::span<const std::byte> bytes, std::string_view where) { return TorchArchive(bytes, where); }

    TorchArchive(TorchArchive&&) noexcept = default;
    TorchArchive& operator=(TorchArchive&&) noexcept = default;

    /// All tensors, under their names in the module or dictionary. Their data is valid for as long as the object.
    std::span<const StoredTensor> tensors() const { return tensors_; }

    /// Lets go of the memory that a tensor's data takes while the file is mapped; it can still be read.
    void forget(const StoredTensor& tensor) const {
        const bool is_copy = std::any_of(copies_.begin(), copies_.end(),
                                         [&](const auto& copy) { return copy.data() == tensor.data.data(); });
        if (file_ && !is_copy) file_->forget(tensor.data);
    }

private:
    [[gnu::cold]] TorchArchive(std::span<const std::byte> bytes, std::string_view where) {
        constexpr std::array legacy{std::byte{0x80}, std::byte{0x02}, std::byte{0x8a}, std::byte{0x0a}};
        if (bytes.size() >= legacy.size() && std::equal(legacy.begin(), legacy.end(), bytes.begin())) {
            throw Error(where, "a file of torch.save since PyTorch 1.6", "an older one: load it and save it again");
        }
        const auto entries = detail::zip_entries(bytes, where);
        const auto is_pickle = [](const auto& entry) { return entry.first == "data.pkl" || entry.first.ends_with("/data.pkl"); };
        const auto pickle = std::find_if(entries.begin(), entries.end(), is_pickle);
        if (pickle == entries.end()) throw Error(where, "a file of torch.save, with an entry data.pkl", "a zip archive without");
        const std::string prefix(pickle->first.substr(0, pickle->first.size() - std::string_view("data.pkl").size()));
        if (const auto order = entries.find(prefix + "byteorder"); order != entries.end()) {
            const std::string_view found(reinterpret_cast<const char*>(order->second.data()), order->second.size());
            if (found != "little") throw Error(where, "tensors in little-endian order", detail::in_quotes(found));
        }
        detail::Unpickler values(pickle->second, where);
        const std::uint32_t root = values.run();
        detail::TorchTensors found(values, entries, prefix, where);
        found.collect(root);
        tensors_ = std::move(found.tensors);
        copies_ = std::move(found.copies);
    }

    std::vector<StoredTensor> tensors_;
    std::vector<std::vector<std::byte>> copies_;
    std::optional<MappedFile> file_;
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/data/weight_files.hpp ----

// The tensors of a checkpoint, whatever files they come in.

namespace tandem::inline TANDEM_ABI {

/// A safetensors file, the shards of one (an index whose weight_map says which file has which tensor), or a file of
/// torch.save, told apart by what they hold. Nothing is copied that can be read in place. Move only.
class WeightFiles {
public:
    /// Opens a file, or what transformers and open_clip lay into a folder. Throws Error that names the file, or the shard,
    /// and the fault; of a folder without weights, the names it looked for.
    static WeightFiles open(const std::filesystem::path& path) {
        const std::filesystem::path file = std::filesystem::is_directory(path) ? in_folder(path) : path;
        WeightFiles result;
        if (file.string().ends_with(".index.json")) {
            result.add_shards(file);
        } else {
            result.add(file);
        }
        result.by_name_ = detail::positions_by_name(result.tensors_, file.string());
        return result;
    }

    WeightFiles(WeightFiles&&) noexcept = default;
    WeightFiles& operator=(WeightFiles&&) noexcept = default;

    /// All tensors, file by file. Their data is valid for as long as the object.
    std::span<const StoredTensor> tensors() const { return tensors_; }

    /// The tensor of that name, or nullptr.
    const StoredTensor* find(std::string_view name) const {
        const auto found = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                            [&](std::uint32_t i, std::string_view sought) { return tensors_[i].name < sought; });
        return found == by_name_.end() || tensors_[*found].name != name ? nullptr : &tensors_[*found];
    }

    /// Lets go of the memory that a tensor's data takes while its file is mapped; it can still be read.
    void forget(const StoredTensor& tensor) const {
        const std::size_t file = file_of_[static_cast<std::size_t>(&tensor - tensors_.data())];
        if (file < files_.size()) {
            files_[file].forget(tensor);
        } else {
            archive_->forget(tensor);
        }
    }

private:
    static constexpr std::array names{"model.safetensors", "open_clip_model.safetensors", "model.safetensors.index.json",
                                      "pytorch_model.bin", "open_clip_pytorch_model.bin"};

    WeightFiles() = default;

    [[gnu::cold]] static std::filesystem::path in_folder(const std::filesystem::path& folder) {
        std::string expected;
        for (const char* const name : names) {
            if (std::filesystem::exists(folder / name)) return folder / name;
            expected += (expected.empty() ? "" : ", ") + std::string(name);
        }
        throw Error(folder.string(), "one of " + expected + " in the folder", "none");
    }

    static bool is_torch(const std::filesystem::path& path) {
        const MappedFile file(path);
        const auto begins = [&](std::array<unsigned char, 4> with) {
            return file.bytes().size() >= with.size() &&
                   std::equal(with.begin(), with.end(), file.bytes().begin(),
                              [](unsigned char expected, std::byte found) { return std::byte{expected} == found; });
        };
        return begins({'P', 'K', 3, 4}) || begins({0x80, 2, 0x8a, 10});
    }

    [[gnu::cold]] void add(const std::filesystem::path& path) {
        const bool torch = is_torch(path);
        std::span<const StoredTensor> found;
        if (torch) {
            archive_ = TorchArchive::open(path);
            found = archive_->tensors();
        } else {
            files_.push_back(Safetensors::open(path));
            found = files_.back().tensors();
        }
        tensors_.insert(tensors_.end(), found.begin(), found.end());
        file_of_.resize(tensors_.size(), torch ? torch_file : files_.size() - 1);
    }

    [[gnu::cold]] void add_shards(const std::filesystem::path& index) {
        const MappedFile file(index);
        const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
        detail::JsonLeaves leaves;
        if (const auto fault = detail::json_fault(text, leaves)) {
            throw Error(index.string(), "not JSON near byte " + std::to_string(*fault));
        }
        constexpr std::string_view map = "weight_map.";
        std::map<std::string, std::vector<std::string>> shards;
        for (const detail::JsonLeaf& leaf : leaves.leaves) {
            if (leaf.path.starts_with(map)) shards[leaf.text].push_back(leaf.path.substr(map.size()));
        }
        if (shards.empty()) throw Error(index.string(), "a weight_map that names the file of every tensor", "none");
        for (const auto& [name, tensors] : shards) {
            // A name out of the index stays in its folder.
            if (std::filesystem::path(name).has_parent_path()) {
                throw Error(index.string(), "shards beside the index", detail::in_quotes(name));
            }
            const std::filesystem::path shard = index.parent_path() / name;
            if (!std::filesystem::exists(shard)) {
                throw Error(index.string(), "shard " + name + " beside the index, with " + std::to_string(tensors.size()) + " of the tensors", "no such file");
            }
            if (is_torch(shard)) throw Error(shard.string(), "a shard in safetensors", "one of torch.save");
            add(shard);
            for (const std::string& tensor : tensors) {
                if (files_.back().find(tensor) == nullptr) {
                    throw Error(shard.string(), "tensor " + detail::in_quotes(tensor) + ", which the index says it has", "none of that name");
                }
            }
        }
    }

    static constexpr std::size_t torch_file = ~std::size_t{0};

    std::vector<Safetensors> files_;
    std::optional<TorchArchive> archive_;
    std::vector<StoredTensor> tensors_;
    std::vector<std::size_t> file_of_;     ///< of every tensor, a position in files_ or torch_file
    std::vector<std::uint32_t> by_name_;
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/models/checkpoint.hpp ----

// Weights in files: saved under open_clip's names, loaded from open_clip's, OpenAI's, timm's or transformers'.

namespace tandem::inline TANDEM_ABI {

/// What a checkpoint is loaded for. Weights of a tower that is not are left as they are; they take no memory in a model
/// that was made empty.
enum class Towers { both, image, text };

namespace detail {

/// The tensors of a file that make up one parameter: their rows one after the other, transposed where said; of one that
/// several parameters share, the rows from share `first` to share `last` of `shares`.
struct Source {
    std::vector<std::string> names;
    bool transposed = false;
    std::size_t first = 0, last = 1, shares = 1;
};

inline bool replace_prefix(std::string& text, std::string_view from, std::string_view to) {
    if (!text.starts_with(from)) return false;
    text.replace(0, from.size(), to);
    return true;
}

/// Where transformers' SiglipModel keeps a parameter of the attention pooling (modeling_siglip.py,
/// SiglipMultiheadAttentionPoolingHead; torch.nn.MultiheadAttention has queries, keys and values in one matrix).
[[gnu::cold]] inline Source transformers_pool_source(std::string name) {
    const std::string at = "vision_model.head.";
    const auto rows = [&](const char* kind, std::size_t first, std::size_t last) {
        return Source{{at + "attention.in_proj_" + kind}, false, first, last, 3};
    };
    if (name == "latent") return {{at + "probe"}};
    if (name == "q.weight") return rows("weight", 0, 1);
    if (name == "q.bias") return rows("bias", 0, 1);
    if (name == "kv.weight") return rows("weight", 1, 3);
    if (name == "kv.bias") return rows("bias", 1, 3);
    replace_prefix(name, "proj.", "attention.out_proj.") || replace_prefix(name, "norm.", "layernorm.");
    return {{at + name}};
}

/// Where transformers' CLIPModel and SiglipModel keep the parameter open_clip calls `name`. The pairs are those of
/// transformers' convert_clip_original_pytorch_to_hf.py and convert_siglip_to_hf.py.
[[gnu::cold]] inline Source transformers_source(std::string name) {
    if (name == "visual.proj") return {{"visual_projection.weight"}, true};
    if (name == "text_projection") return {{"text_projection.weight"}, true};
    if (name == "logit_scale" || name == "logit_bias") return {{name}};
    if (replace_prefix(name, "text_projection.", "text_model.head.")) return {{name}};  // SigLIP's has a bias
    if (replace_prefix(name, "visual.attn_pool.", "")) return transformers_pool_source(name);
    const std::string tower = replace_prefix(name, "visual.", "") ? "vision_model." : "text_model.";
    if (replace_prefix(name, "transformer.resblocks.", "")) {
        const std::size_t dot = name.find('.');
        const std::string at = tower + "encoder.layers." + name.substr(0, dot + 1);
        std::string part = name.substr(dot + 1);
        if (part == "attn.in_proj_weight" || part == "attn.in_proj_bias") {
            const std::string kind = part == "attn.in_proj_weight" ? "weight" : "bias";
            return {
                {at + "self_attn.q_proj." + kind, at + "self_attn.k_proj." + kind, at + "self_attn.v_proj." + kind}};
        }
        replace_prefix(part, "ln_1.", "layer_norm1.") || replace_prefix(part, "ln_2.", "layer_norm2.") ||
            replace_prefix(part, "attn.", "self_attn.") || replace_prefix(part, "mlp.c_fc.", "mlp.fc1.") ||
            replace_prefix(part, "mlp.c_proj.", "mlp.fc2.");
        return {{at + part}};
    }
    replace_prefix(name, "conv1.", "embeddings.patch_embedding.") ||
        replace_prefix(name, "class_embedding", "embeddings.class_embedding") ||
        replace_prefix(name, "positional_embedding", "embeddings.position_embedding.weight") ||
        replace_prefix(name, "token_embedding.", "embeddings.token_embedding.") ||
        replace_prefix(name, "ln_pre.", "pre_layrnorm.") || replace_prefix(name, "ln_post.", "post_layernorm.") ||
        replace_prefix(name, "ln_final.", "final_layer_norm.");
    return {{tower + name}};
}

/// Where open_clip's TimmModel keeps the image parameter open_clip's own tower calls `name`: under the names of
/// timm/models/vision_transformer.py.
[[gnu::cold]] inline Source timm_source(std::string name) {
    replace_prefix(name, "visual.", "");
    if (name == "proj") return {{"visual.head.proj.weight"}, true};
    if (replace_prefix(name, "proj.", "visual.head.proj.")) return {{name}};
    const std::string at = "visual.trunk.";
    if (replace_prefix(name, "transformer.resblocks.", "")) {
        const std::size_t dot = name.find('.');
        std::string part = name.substr(dot + 1);
        static constexpr std::array<std::array<std::string_view, 2>, 10> names{{{"ln_1.", "norm1."},
                                                                                {"ln_2.", "norm2."},
                                                                                {"attn.in_proj_", "attn.qkv."},
                                                                                {"attn.out_proj.", "attn.proj."},
                                                                                {"attn.ln_q.", "attn.q_norm."},
                                                                                {"attn.ln_k.", "attn.k_norm."},
                                                                                {"mlp.c_fc.", "mlp.fc1."},
                                                                                {"mlp.c_proj.", "mlp.fc2."},
                                                                                {"ls_1.", "ls1."},
                                                                                {"ls_2.", "ls2."}}};
        for (const auto& [ours, theirs] : names) {
            if (replace_prefix(part, ours, theirs)) break;
        }
        return {{at + "blocks." + name.substr(0, dot + 1) + part}};
    }
    replace_prefix(name, "conv1.", "patch_embed.proj.") || replace_prefix(name, "class_embedding", "cls_token") ||
        replace_prefix(name, "reg_tokens", "reg_token") || replace_prefix(name, "positional_embedding", "pos_embed") ||
        replace_prefix(name, "ln_pre.", "norm_pre.") || replace_prefix(name, "ln_post.", "norm.");
    return {{at + name}};
}

/// How the parameters of a file are named, told from the names themselves.
class Naming {
public:
    explicit Naming(const WeightFiles& file) {
        for (const StoredTensor& tensor : file.tensors()) {
            std::string_view name = tensor.name;
            if (name.starts_with("module.")) {
                module_prefix_ = true;
                name.remove_prefix(7);
            }
            transformers_ = transformers_ || name.starts_with("vision_model.") || name.starts_with("text_model.");
            timm_ = timm_ || name.starts_with("visual.trunk.");
            text_prefix_ = text_prefix_ || name.starts_with("text.");
        }
    }

    Source operator()(const std::string& name) const {
        Source source = in_scheme(name);
        if (module_prefix_) {
            for (std::string& key : source.names) key.insert(0, "module.");
        }
        return source;
    }

    /// Buffers, not weights: masks, position lists, and what OpenAI's archives add (CLIP/clip/model.py:430).
    static bool is_ignored(std::string_view name) {
        return name.ends_with("position_ids") || name.ends_with("attn_mask") || name == "input_resolution" ||
               name == "context_length" || name == "vocab_size";
    }

private:
    Source in_scheme(const std::string& name) const {
        if (transformers_) return transformers_source(name);
        const bool of_image = name.starts_with("visual.");
        if (timm_ && of_image) return timm_source(name);
        return {{(text_prefix_ && !of_image && !name.starts_with("logit_") ? "text." : "") + name}};
    }

    bool transformers_ = false, timm_ = false, text_prefix_ = false, module_prefix_ = false;
};

/// The shape the file must hold each of `parts` tensors in.
inline std::vector<std::size_t> stored_shape(std::vector<std::size_t> shape, const Source& source) {
    if (source.transposed) std::reverse(shape.begin(), shape.end());
    if (!shape.empty()) shape[0] = shape[0] / source.names.size() / (source.last - source.first) * source.shares;
    return shape;
}

template <std::size_t Rank>
std::vector<std::size_t> shape_of(const Extents<Rank>& extents) {
    return {extents.value, extents.value + Rank};
}

inline bool is_floating(DataType type) {
    return type == DataType::F32 || type == DataType::F16 || type == DataType::BF16 || type == DataType::F64;
}

/// Up to axes of 1 in front: a scalar may be stored as [] or [1], positions with an axis for the batch.
inline bool same_shape(std::span<const std::size_t> a, std::span<const std::size_t> b) {
    while (!a.empty() && a.front() == 1) a = a.subspan(1);
    while (!b.empty() && b.front() == 1) b = b.subspan(1);
    return std::ranges::equal(a, b);
}

/// The rows of a stored tensor that a source names.
inline StoredTensor rows_of(StoredTensor stored, const Source& source) {
    if (source.shares == 1) return stored;
    const std::size_t share = stored.data.size() / source.shares;
    stored.data = stored.data.subspan(source.first * share, (source.last - source.first) * share);
    stored.shape[0] = stored.shape[0] / source.shares * (source.last - source.first);
    return stored;
}

class CheckpointFit;

/// A parameter to be loaded, its type erased: `read` knows what `parameter` points to, elements or a packed weight.
struct LoadTarget {
    std::string name;
    std::vector<std::size_t> shape;
    void* parameter;
    std::size_t size;
    void (*read)(const CheckpointFit& fit, const LoadTarget& target);
};

/// Holds a file against a model, parameter by parameter, and collects every fault. No template: what a model's many
/// tensor types share is compiled once.
class CheckpointFit {
public:
    explicit CheckpointFit(const WeightFiles& file) : file_(file), naming_(file), used_(file.tensors().size()) {}

    /// A tensor that a file may have and the model does without: it computes it.
    void expect_computed(const std::string& name) {
        if (const StoredTensor* const stored = file_.find(naming_(name).names.front()); stored != nullptr)
            used_[position_of(*stored)] = true;
    }

    /// Image positions of another number of patches are resized; behind `prefix` rows they make up a square.
    void resize_positions(std::size_t prefix) { prefix_ = prefix; }

    /// Reads the parameters of a model's towers, or throws before it has read any.
    void load(const std::vector<LoadTarget>& targets, std::string_view where, Towers towers) {
        for (const LoadTarget& target : targets) check(target.name, target.shape);
        require(where);
        for (const LoadTarget& target : targets) {
            const Towers needed = target.name.starts_with("visual.")  ? Towers::image
                                  : target.name.starts_with("logit_") ? Towers::both
                                                                      : Towers::text;
            if (towers == Towers::both || needed == Towers::both || needed == towers) target.read(*this, target);
        }
    }

    /// Reads a tensor of elements T.
    template <class T>
    static void read(const CheckpointFit& fit, const LoadTarget& target) {
        fit.read_into(target, std::span<T>(static_cast<T*>(target.parameter), target.size));
    }

    /// Reads a weight kept in panels.
    template <class T>
    static void read_packed(const CheckpointFit& fit, const LoadTarget& target) {
        using E = typename PackedWeight<T>::element;
        PackedWeight<T>& weight = *static_cast<PackedWeight<T>*>(target.parameter);
        const Source source = fit.naming_(target.name);
        const StoredTensor& whole = *fit.file_.find(source.names.front());
        const StoredTensor stored = rows_of(whole, source);
        const bool is_aligned = reinterpret_cast<std::uintptr_t>(stored.data.data()) % alignof(E) == 0;
        if (source.names.size() == 1 && !source.transposed && stored.type == data_type_of<E>() && is_aligned) {
            weight.pack(reinterpret_cast<const E*>(stored.data.data()));
            return fit.file_.forget(whole);
        }
        Buffer<E> values(target.size);
        fit.read_into(target, std::span(values.data(), values.size()));
        weight.pack(values.data());
    }

private:
    template <class T>
    void read_into(const LoadTarget& target, std::span<T> elements) const {
        const Source source = naming_(target.name);
        const std::size_t part = elements.size() / source.names.size();
        for (std::size_t i = 0; i < source.names.size(); ++i) {
            const StoredTensor& stored = *file_.find(source.names[i]);
            if (elements_of(stored.shape) == part * source.shares / (source.last - source.first)) {
                read_elements(rows_of(stored, source), elements.subspan(i * part, part));
            } else {
                read_resized(stored, target.shape, elements);
            }
            file_.forget(stored);
        }
        if (!source.transposed) return;
        const std::vector<T> stored(elements.begin(), elements.end());
        const std::size_t rows = target.shape[0], columns = target.shape[1];
        for (std::size_t i = 0; i < rows; ++i) {
            for (std::size_t j = 0; j < columns; ++j) elements[i * columns + j] = stored[j * rows + i];
        }
    }

    static std::size_t elements_of(std::span<const std::size_t> shape) {
        return std::accumulate(shape.begin(), shape.end(), std::size_t{1}, std::multiplies<>());
    }

    /// The side of the square that a table of `rows` positions is, or 0.
    std::size_t grid_of(std::size_t rows) const {
        if (rows <= *prefix_) return 0;
        const auto side = static_cast<std::size_t>(std::lround(std::sqrt(static_cast<double>(rows - *prefix_))));
        return side * side == rows - *prefix_ ? side : 0;
    }

    bool resizes(const std::string& name, std::span<const std::size_t> stored, std::span<const std::size_t> wanted) const {
        if (!prefix_ || name != "visual.positional_embedding" || stored.size() < 2 || stored.back() != wanted.back())
            return false;
        const std::size_t rows = elements_of(stored) / stored.back();
        return grid_of(rows) > 0 && grid_of(wanted[0]) > 0;
    }

    template <class T>
    void read_resized(const StoredTensor& stored, const std::vector<std::size_t>& shape, std::span<T> elements) const {
        const std::size_t width = shape[1], rows = elements_of(stored.shape) / width;
        std::vector<float> table(rows * width);
        read_elements(stored, std::span(table));
        const std::vector<float> resized =
            detail::resize_positions(table, *prefix_, grid_of(rows), grid_of(shape[0]), width);
        std::ranges::transform(resized, elements.begin(), [](float x) { return static_cast<T>(x); });
    }

    std::size_t position_of(const StoredTensor& tensor) const {
        return static_cast<std::size_t>(&tensor - file_.tensors().data());
    }

    [[gnu::cold]] void check(const std::string& name, const std::vector<std::size_t>& shape) {
        const Source source = naming_(name);
        const auto expected = stored_shape(shape, source);
        for (const std::string& key : source.names) {
            const StoredTensor* stored = file_.find(key);
            if (stored != nullptr) used_[position_of(*stored)] = true;
            if (stored == nullptr) {
                faults_ += "\n  " + key + ": missing";
            } else if (!same_shape(stored->shape, expected) && !resizes(name, stored->shape, expected)) {
                faults_ += "\n  " + key + ": expected " + shape_text(expected) + ", found " + shape_text(stored->shape);
            } else if (!is_floating(stored->type)) {
                faults_ += "\n  " + key + ": expected floating-point elements, found " +
                           std::string(tandem::name(stored->type));
            }
        }
    }

    /// Throws if any parameter did not fit, or the file has a tensor that none asked for.
    [[gnu::cold]] void require(std::string_view where) {
        for (const StoredTensor& tensor : file_.tensors()) {
            if (!used_[position_of(tensor)] && !Naming::is_ignored(tensor.name)) {
                faults_ += "\n  " + tensor.name + ": unexpected";
            }
        }
        if (!faults_.empty()) throw Error(where, "the checkpoint does not fit the model:" + faults_);
    }

    const WeightFiles& file_;
    Naming naming_;
    std::vector<bool> used_;  ///< of the file's tensors
    std::optional<std::size_t> prefix_;
    std::string faults_;
};

/// What is to be loaded, in the model's order.
class LoadTargets {
public:
    template <class T, class S>
    void add(const ParameterName& name, Tensor<T, S>& tensor) {
        add(name, tensor.extents().value, S::rank, tensor.data(), tensor.size(), CheckpointFit::read<T>);
    }
    template <class T, class S>
    void add(const ParameterName& name, PackedMatrix<T, S>& weight) {
        PackedWeight<T>& base = weight;
        add(name, weight.extents().value, S::rank, &base, weight.size(), CheckpointFit::read_packed<T>);
    }

    const std::vector<LoadTarget>& all() const { return targets_; }

private:
    // Not inlined: a model's list has it once a parameter.
    [[gnu::noinline]] void add(const ParameterName& name, const std::size_t* extents, std::size_t rank, void* parameter,
                               std::size_t size, decltype(LoadTarget::read) read) {
        targets_.push_back({std::string(name), {extents, extents + rank}, parameter, size, read});
    }

    std::vector<LoadTarget> targets_;
};

/// The parameters of models as row-major tensors to save, with the memory of those that are kept in another layout.
struct SavedParameters {
    std::vector<StoredTensor> tensors;
    std::vector<std::shared_ptr<const void>> memory;

    /// Adds a model's, their names behind a prefix that tells several models apart.
    template <class Model>
    void append(const std::string& prefix, const Model& model) {
        for_each_parameter([&](const std::string& name, const auto& parameter) { add(prefix + name, parameter); },
                           model);
    }

private:
    template <class T, class S>
    void add(const std::string& name, const Tensor<T, S>& tensor) {
        tensors.push_back(stored_tensor<T>(name, shape_of(tensor.extents()), tensor.elements()));
    }
    template <class T, class S>
    void add(const std::string& name, const PackedMatrix<T, S>& weight) {
        using Values = std::vector<typename PackedWeight<T>::element>;
        const auto values = std::make_shared<Values>(weight.size());
        weight.unpack(values->data());
        tensors.push_back(stored_tensor<typename Values::value_type>(name, shape_of(weight.extents()),
                                                                     std::span(std::as_const(*values))));
        memory.push_back(values);
    }
};

}  // namespace detail

/// Saves all parameters under open_clip's names, atomically; Python's safetensors opens the file, and open_clip's
/// load_state_dict takes it into a model of the same shape.
template <class Model>
void save_weights(const Model& model, const std::filesystem::path& path,
                  const std::map<std::string, std::string>& metadata = {}) {
    detail::SavedParameters saved;
    saved.append("", model);
    save_safetensors(path, saved.tensors, metadata);
}

/// Loads the parameters of `model`, or of one of its towers, from an open file that has them all. Learned positions of
/// images of another size are resized, bicubic and antialiased, as open_clip does. What does not fit is refused whole: the Error names every tensor that is missing, unexpected or of another shape, and the model is as it
/// was.
template <class Model>
void load_weights(Model& model, const WeightFiles& file, std::string_view where, Towers towers = Towers::both) {
    detail::LoadTargets targets;
    for_each_parameter([&](const ParameterName& name, auto& parameter) { targets.add(name, parameter); }, model);
    detail::CheckpointFit fit(file);
    if constexpr (requires { Model::architecture.vision.pos_embed_type; }) {
        // open_clip keeps its fixed table in the checkpoint.
        if (Model::architecture.vision.pos_embed_type == PosEmbed::sin_cos_2d)
            fit.expect_computed("visual.positional_embedding");
        if (Model::architecture.vision.pos_embed_type == PosEmbed::learnable)
            fit.resize_positions(Model::architecture.vision.class_token ? 1 : 0);
    }
    fit.load(targets.all(), where, towers);
}

template <class Model>
void load_weights(Model& model, const std::filesystem::path& path, Towers towers = Towers::both) {
    load_weights(model, WeightFiles::open(path), path.string(), towers);
}

namespace detail {

/// Names as files have them; empty for a user's own part, which no file names.
template <class Activation>
constexpr std::string_view activation_name() {
    if constexpr (std::is_same_v<Activation, QuickGelu>) return "quick_gelu";
    if constexpr (std::is_same_v<Activation, Gelu>) return "gelu";
    if constexpr (std::is_same_v<Activation, TanhGelu>) return "gelu_pytorch_tanh";
    return {};
}
template <class Pooling>
constexpr std::string_view pooling_name() {
    if constexpr (std::is_same_v<Pooling, ClassToken>) return "tok";
    if constexpr (std::is_same_v<Pooling, Average>) return "avg";
    if constexpr (std::is_same_v<Pooling, AttentionPool>) return "map";
    if constexpr (std::is_same_v<Pooling, Eot>) return "argmax";
    if constexpr (std::is_same_v<Pooling, Last>) return "last";
    return {};
}

/// What a tower's constant has of what files tell. The image's size is not among it: positions are resized.
template <class Tower>
[[gnu::cold]] void add_tower_fields(std::vector<ArchitectureField>& fields, const std::string& at, const Tower& tower) {
    const auto add = [&](const char* name, std::string value) {
        if (!value.empty()) fields.push_back({at + name, std::move(value), ""});
    };
    if constexpr (requires { tower.patch; }) add("patch", std::to_string(tower.patch));
    if constexpr (requires { tower.vocabulary; }) {
        add("vocabulary", std::to_string(tower.vocabulary));
        add("context", std::to_string(tower.context));
        add("causal", tower.causal ? "true" : "false");
    }
    if constexpr (requires { tower.block_shape(); }) {
        add("width", std::to_string(tower.width));
        add("hidden", std::to_string(hidden_of(tower)));
        add("layers", std::to_string(tower.layers));
        add("heads", std::to_string(tower.heads));
        add("activation", std::string(activation_name<std::remove_cvref_t<decltype(tower.activation)>>()));
        add("pooling", std::string(pooling_name<std::remove_cvref_t<decltype(tower.pooling)>>()));
        if constexpr (requires { tower.norm.eps; }) {
            std::array<char, 32> eps;
            std::snprintf(eps.data(), eps.size(), "%.3g", static_cast<double>(tower.norm.eps));
            add("norm.eps", eps.data());
        }
    }
}

/// Throws Error where the configs of a folder contradict the architecture. Much of that would load, and give wrong
/// embeddings.
[[gnu::cold]] inline void require_agreement(const std::filesystem::path& folder,
                                            const std::vector<ArchitectureField>& architecture) {
    const auto agree = [](const std::string& a, const std::string& b) {
        if (a == b) return true;
        char *end_a = nullptr, *end_b = nullptr;
        const double x = std::strtod(a.c_str(), &end_a), y = std::strtod(b.c_str(), &end_b);
        return *end_a == 0 && *end_b == 0 && std::abs(x - y) <= 1e-3 * std::abs(x);  // eps in their own digits
    };
    std::string faults;
    for (const ArchitectureField& stored : stored_architecture(folder)) {
        for (const ArchitectureField& ours : architecture) {
            if (stored.name == ours.name && !agree(stored.value, ours.value))
                faults += "\n  " + stored.name + ": expected " + ours.value + ", found " + stored.value + " (" + stored.source + ")";
        }
    }
    if (faults.find("activation") != std::string::npos) faults += "\n  with_activation makes the same architecture with another";
    if (!faults.empty()) throw Error(folder.string(), "the checkpoint's config does not fit the architecture:" + faults);
}

}  // namespace detail

/// A model of architecture `config` with the weights of `path`, or those of one tower: a file of safetensors or of
/// torch.save, the index of a sharded one, or a folder as transformers and open_clip lay it out, with its config beside the
/// weights (see WeightFiles). Where that config and the architecture disagree, in sizes, activation, eps, pooling or mask,
/// the Error names both values.
template <auto config, Arithmetic T = float>
Clip<config, T> load(const std::filesystem::path& path, Towers towers = Towers::both) {
    if (std::filesystem::is_directory(path)) {
        std::vector<detail::ArchitectureField> fields{{"embedding", std::to_string(config.embedding), ""}};
        detail::add_tower_fields(fields, "vision.", config.vision);
        detail::add_tower_fields(fields, "text.", config.text);
        detail::require_agreement(path, fields);
    }
    Clip<config, T> model;
    load_weights(model, path, towers);
    return model;
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/models/describe.hpp ----

// An architecture in words: its parts with what they cost, and the constant itself.

namespace tandem::inline TANDEM_ABI {

/// A line of describe()'s table: a part of a model for one image or one caption of the full context.
struct PartCost {
    std::string name;
    std::string output;  ///< the shape of what it hands on
    Cost cost;
    std::size_t depth = 0;  ///< of lines that a line above sums up
};

namespace detail {

/// A type's name as a program writes it, without its namespaces; empty for a lambda's.
template <class T>
[[gnu::cold]] std::string type_name() {
    const std::string_view text = __PRETTY_FUNCTION__;
    const std::size_t begin = text.find("T = ") + 4;
    std::string_view name = text.substr(begin, text.find_first_of(";]", begin) - begin);
    if (name.find("lambda") != std::string_view::npos) return {};
    if (const std::size_t colon = name.rfind("::"); colon != std::string_view::npos) name.remove_prefix(colon + 2);
    return std::string(name);
}

template <class T>
[[gnu::cold]] std::string part_name(const char* role, const T&) {
    const std::string name = type_name<T>();
    return std::string(role) + (name.empty() ? "" : " (" + name + ")");
}

inline std::string number_text(double value, int digits = 12) {
    std::array<char, 32> text;
    std::snprintf(text.data(), text.size(), "%.*g", digits, value);
    return text.data();
}

/// Writes a config's fields as designated initialisers, those that differ from the default.
class FieldWriter {
public:
    void add(const char* name, std::size_t value, std::size_t usual) {
        if (value != usual) put(name, std::to_string(value));
    }
    void add(const char* name, double value, double usual) {
        if (value != usual) put(name, number_text(value));
    }
    void add(const char* name, bool value, bool usual) {
        if (value != usual) put(name, value ? "true" : "false");
    }
    void add(const char* name, PosEmbed value, PosEmbed usual) {
        static constexpr std::array names{"learnable", "sin_cos_2d", "rotary"};
        if (value != usual) put(name, std::string("td::PosEmbed::") + names[static_cast<std::size_t>(value)]);
    }
    void add(const char* name, NormPosition value, NormPosition usual) {
        static constexpr std::array names{"pre", "post", "sandwich"};
        if (value != usual) put(name, std::string("td::NormPosition::") + names[static_cast<std::size_t>(value)]);
    }
    void add(const char* name, Projection value, Projection usual) {
        if (value != usual) put(name, value == Projection::none ? "td::Projection::none" : "td::Projection::linear");
    }
    template <class Usual, class Part>
    [[gnu::cold]] void add_part(const char* name, const Part& part) {
        if constexpr (requires { part.eps == Usual{}.eps; }) {
            if (std::is_same_v<Part, Usual> && part.eps == Usual{}.eps) return;
        } else if (std::is_same_v<Part, Usual>) {
            return;
        }
        const std::string type = type_name<Part>();
        if (type.empty()) {
            put(name, "/* a lambda */");
        } else if constexpr (requires { part.eps; }) {
            put(name, "td::" + type + "{.eps = " + number_text(static_cast<double>(part.eps), 6) + "f}");
        } else {
            put(name, "td::" + type + "{}");
        }
    }
    [[gnu::cold]] void put(const char* name, const std::string& value) {
        text_ += (text_.empty() ? "." : ", .") + std::string(name) + " = " + value;
    }

    const std::string& text() const { return text_; }

private:
    std::string text_;
};

[[gnu::cold]] void write_block_fields(FieldWriter& fields, const auto& config, const auto& usual) {
    fields.add("norm_position", config.norm_position, usual.norm_position);
    fields.add("parallel", config.parallel, usual.parallel);
    fields.add("qk_norm", config.qk_norm, usual.qk_norm);
    fields.add("ls_init_value", config.ls_init_value, usual.ls_init_value);
}

[[gnu::cold]] void write_part_fields(FieldWriter& fields, const auto& config, const auto& usual) {
    using Usual = std::remove_cvref_t<decltype(usual)>;
    fields.add("proj_type", config.proj_type, usual.proj_type);
    fields.add("proj_bias", config.proj_bias, usual.proj_bias);
    fields.template add_part<decltype(Usual::norm)>("norm", config.norm);
    fields.template add_part<decltype(Usual::activation)>("activation", config.activation);
    fields.template add_part<decltype(Usual::mixer)>("mixer", config.mixer);
    fields.template add_part<decltype(Usual::mlp)>("mlp", config.mlp);
    fields.template add_part<decltype(Usual::pooling)>("pooling", config.pooling);
}

[[gnu::cold]] void write_size_fields(FieldWriter& fields, const auto& config, const auto& usual) {
    fields.put("width", std::to_string(config.width));
    fields.put("layers", std::to_string(config.layers));
    fields.put("heads", std::to_string(config.heads));
    fields.add("head_width", config.head_width, usual.head_width);
    fields.add("kv_heads", config.kv_heads, usual.kv_heads);
    fields.add("mlp_ratio", config.mlp_ratio, usual.mlp_ratio);
}

}  // namespace detail

/// A config as the program text that makes it, td being the library's namespace: sizes, and what is not the default. A
/// lambda has no text, and types of a user's own are named without their namespaces.
template <class N, class A, class M, class F, class P, class S>
[[gnu::cold]] std::string constant_text(const VitConfig<N, A, M, F, P, S>& config) {
    const VitConfig<> usual;
    detail::FieldWriter fields;
    fields.put("image", std::to_string(config.image));
    fields.put("patch", std::to_string(config.patch));
    detail::write_size_fields(fields, config, usual);
    fields.add("class_token", config.class_token, usual.class_token);
    fields.add("reg_tokens", config.reg_tokens, usual.reg_tokens);
    fields.add("pos_embed_type", config.pos_embed_type, usual.pos_embed_type);
    fields.add("no_ln_pre", config.no_ln_pre, usual.no_ln_pre);
    fields.add("final_ln_after_pool", config.final_ln_after_pool, usual.final_ln_after_pool);
    detail::write_block_fields(fields, config, usual);
    fields.add("patch_dropout", config.patch_dropout, usual.patch_dropout);
    fields.add("drop_path_rate", config.drop_path_rate, usual.drop_path_rate);
    fields.add("patch_bias", config.patch_bias, usual.patch_bias);
    fields.add("floor_patches", config.floor_patches, usual.floor_patches);
    detail::write_part_fields(fields, config, usual);
    fields.template add_part<PatchStem>("stem", config.stem);
    return "td::VitConfig{" + fields.text() + "}";
}

template <class N, class A, class M, class F, class P>
[[gnu::cold]] std::string constant_text(const TextConfig<N, A, M, F, P>& config) {
    const TextConfig<> usual;
    detail::FieldWriter fields;
    fields.put("vocabulary", std::to_string(config.vocabulary));
    fields.put("context", std::to_string(config.context));
    detail::write_size_fields(fields, config, usual);
    fields.add("causal", config.causal, usual.causal);
    fields.add("pos_embed_type", config.pos_embed_type, usual.pos_embed_type);
    fields.add("final_ln_after_pool", config.final_ln_after_pool, usual.final_ln_after_pool);
    detail::write_block_fields(fields, config, usual);
    fields.add("token_dropout", config.token_dropout, usual.token_dropout);
    fields.add("drop_path_rate", config.drop_path_rate, usual.drop_path_rate);
    detail::write_part_fields(fields, config, usual);
    return "td::TextConfig{" + fields.text() + "}";
}

template <class Vision, class Text>
[[gnu::cold]] std::string constant_text(const ClipConfig<Vision, Text>& config) {
    const auto tower = [](const auto& side) {
        if constexpr (requires { constant_text(side); }) {
            return constant_text(side);
        } else {
            return detail::type_name<std::remove_cvref_t<decltype(side)>>() + "{}";
        }
    };
    return "td::ClipConfig{\n    .vision = " + tower(config.vision) + ",\n    .text = " + tower(config.text) +
           ",\n    .embedding = " + std::to_string(config.embedding) + (config.logit_bias ? ",\n    .logit_bias = true" : "") +
           (config.shared ? ",\n    .shared = true" : "") + "}";
}

/// What every part of a model costs, for one image and one caption of the full context; lines of depth 0 add up to the
/// whole.
[[gnu::cold]] std::vector<PartCost> cost_by_part(const auto& config) {
    std::vector<PartCost> lines;
    const auto shape = [](std::size_t rows, std::size_t width) {
        return "[" + std::to_string(rows) + ", " + std::to_string(width) + "]";
    };
    const auto vector = [](std::size_t width) { return "[" + std::to_string(width) + "]"; };
    const auto blocks = [&](const std::string& at, const auto& tower, std::size_t tokens, bool counts) {
        const auto parts = tower.block_parts();
        const BlockShape block = tower.block_shape();
        Cost whole = tower.blocks_cost();
        if (!counts) whole.parameters = whole.matrices = 0;
        lines.push_back({at + "transformer, " + std::to_string(tower.layers) + " blocks" + (counts ? "" : " (shared)"),
                         shape(tokens, tower.width), whole});
        const auto each = [&](std::string name, const Cost& cost) {
            lines.push_back({std::move(name), shape(tokens, tower.width), cost, 1});
        };
        each(detail::part_name(parts.parallel ? "norm" : "2 norms", parts.norm),
             (parts.parallel ? 1 : 2) * parts.norm.cost(tower.width, tokens));
        each(detail::part_name("mixer", parts.mixer), nn::cost_of(parts.mixer, block, tokens, parts));
        each(detail::part_name("mlp", parts.mlp), nn::cost_of(parts.mlp, block, tokens, parts));
    };
    const auto& vision = config.vision;
    if constexpr (requires { vision.stem_cost(); }) {
        lines.push_back({detail::part_name("visual.stem", vision.stem), shape(vision.patches(), vision.width),
                         vision.stem_cost()});
        lines.push_back({"visual tokens, positions" + std::string(vision.no_ln_pre ? "" : ", ln_pre"),
                         shape(vision.tokens(), vision.width), vision.token_cost()});
        blocks("visual.", vision, vision.tokens(), true);
        lines.push_back({detail::part_name("visual.ln_post, pooling", vision.pooling), vector(vision.width),
                         vision.head_cost()});
    } else {
        lines.push_back({detail::part_name("visual", vision), "", vision.cost()});
    }
    lines.push_back({"image embedding", vector(config.embedding), detail::projection_cost(vision, config.embedding)});
    const auto& text = config.text;
    if constexpr (requires { text.token_cost(); }) {
        lines.push_back({"token_embedding, positions", shape(text.context, text.width), text.token_cost()});
        blocks("", text, text.context, !config.shared);
        lines.push_back({detail::part_name("ln_final, pooling", text.pooling), vector(text.width), text.head_cost()});
    } else {
        lines.push_back({detail::part_name("text", text), "", text.cost()});
    }
    lines.push_back({"text embedding", vector(config.embedding), detail::projection_cost(text, config.embedding)});
    lines.push_back({config.logit_bias ? "logit_scale, logit_bias" : "logit_scale", "[]",
                     Cost{.parameters = config.logit_bias ? 2U : 1U}});
    return lines;
}

/// The table of a model's parts, as torchinfo prints one: parameters, FLOPs of the naive model and those executed, and what
/// a pair's activations take in float32; then bytes of the weights by precision, and the constant itself. An indented
/// line is one of each block.
template <auto config>
[[gnu::cold]] std::string describe() {
    std::string text;
    const auto line = [&](const std::string& name, const std::string& output, const Cost& cost) {
        std::array<char, 192> row;
        std::snprintf(row.data(), row.size(), "%-46.46s %-14s %12zu %10.2f %10.2f %10.3f %10.3f\n", name.c_str(),
                      output.c_str(), cost.parameters, 1e-6 * static_cast<double>(cost.flops),
                      1e-6 * static_cast<double>(cost.executed), 4e-6 * static_cast<double>(cost.inference),
                      4e-6 * static_cast<double>(cost.training()));
        text += row.data();
    };
    std::array<char, 192> head;
    std::snprintf(head.data(), head.size(), "%-46s %-14s %12s %10s %10s %10s %10s\n", "part", "output", "parameters",
                  "MFLOP", "executed", "MB infer", "MB train");
    text += head.data();
    for (const PartCost& part : cost_by_part(config)) line(std::string(2 * part.depth, ' ') + part.name, part.output, part.cost);
    line("one image and one caption", "", detail::whole_cost(config));
    std::array<char, 128> bytes;
    std::snprintf(bytes.data(), bytes.size(), "weights: %.2f MB in float32, %.2f in bf16, %.2f in int8\n",
                  1e-6 * static_cast<double>(parameter_bytes<float>(config)),
                  1e-6 * static_cast<double>(parameter_bytes<bfloat16>(config)),
                  1e-6 * static_cast<double>(parameter_bytes<int8>(config)));
    return text + bytes.data() + constant_text(config) + "\n";
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/models/zoo.hpp ----

// The architectures the field names, under open_clip's names: CLIP's with erf GELU, as open_clip's model configs have
// them; SigLIP's with the tanh form that they were trained with and transformers computes (open_clip takes the erf form
// for some: see with_activation).

namespace tandem::inline TANDEM_ABI {

inline constexpr ClipConfig vit_b_32{
    .vision = VitConfig{.image = 224, .patch = 32, .width = 768, .layers = 12, .heads = 12},
    .text = TextConfig{.width = 512, .layers = 12, .heads = 8},
    .embedding = 512};

inline constexpr ClipConfig vit_b_16{
    .vision = VitConfig{.image = 224, .patch = 16, .width = 768, .layers = 12, .heads = 12},
    .text = TextConfig{.width = 512, .layers = 12, .heads = 8},
    .embedding = 512};

inline constexpr ClipConfig vit_l_14{
    .vision = VitConfig{.image = 224, .patch = 14, .width = 1024, .layers = 24, .heads = 16},
    .text = TextConfig{.width = 768, .layers = 12, .heads = 12},
    .embedding = 768};

inline constexpr ClipConfig vit_l_14_336{
    .vision = VitConfig{.image = 336, .patch = 14, .width = 1024, .layers = 24, .heads = 16},
    .text = TextConfig{.width = 768, .layers = 12, .heads = 12},
    .embedding = 768};

inline constexpr ClipConfig vit_h_14{
    .vision = VitConfig{.image = 224, .patch = 14, .width = 1280, .layers = 32, .heads = 16},
    .text = TextConfig{.width = 1024, .layers = 24, .heads = 16},
    .embedding = 1024};

inline constexpr ClipConfig vit_g_14{
    .vision = VitConfig{.image = 224, .patch = 14, .width = 1408, .layers = 40, .heads = 16, .mlp_ratio = 4.3637},
    .text = TextConfig{.width = 1024, .layers = 24, .heads = 16},
    .embedding = 1024};

inline constexpr ClipConfig vit_bigg_14{
    .vision = VitConfig{.image = 224, .patch = 14, .width = 1664, .layers = 48, .heads = 16, .mlp_ratio = 4.9231},
    .text = TextConfig{.width = 1280, .layers = 32, .heads = 20},
    .embedding = 1280};

inline constexpr ClipConfig vit_b_32_256{
    .vision = VitConfig{.image = 256, .patch = 32, .width = 768, .layers = 12, .heads = 12},
    .text = TextConfig{.width = 512, .layers = 12, .heads = 8},
    .embedding = 512};

inline constexpr ClipConfig vit_b_16_plus_240{
    .vision = VitConfig{.image = 240, .patch = 16, .width = 896, .layers = 12, .heads = 14},
    .text = TextConfig{.width = 640, .layers = 12, .heads = 10},
    .embedding = 640};

namespace detail {

/// SigLIP's towers (Zhai et al. 2023, section 4; timm/models/vision_transformer.py, vit_base_patch16_siglip_224 and those
/// after it; transformers/models/siglip): no class token, a bias on the patches, attention pooling instead of a
/// projection; bidirectional text pooled at its last place, with a biased projection.
constexpr auto siglip_vision(std::size_t image, std::size_t patch, std::size_t width, std::size_t layers,
                             std::size_t heads, double mlp_ratio = 4.0) {
    return VitConfig{.image = image,
                     .patch = patch,
                     .width = width,
                     .layers = layers,
                     .heads = heads,
                     .mlp_ratio = mlp_ratio,
                     .class_token = false,
                     .no_ln_pre = true,
                     .patch_bias = true,
                     .floor_patches = image % patch != 0,
                     .proj_type = Projection::none,
                     .norm = LayerNorm{1e-6F},
                     .activation = TanhGelu{},
                     .pooling = AttentionPool{}};
}
constexpr auto siglip_text(std::size_t vocabulary, std::size_t width, std::size_t layers, std::size_t heads,
                           double mlp_ratio = 4.0, std::size_t context = 64) {
    return TextConfig{.vocabulary = vocabulary,
                      .context = context,
                      .width = width,
                      .layers = layers,
                      .heads = heads,
                      .mlp_ratio = mlp_ratio,
                      .causal = false,
                      .proj_bias = true,
                      .norm = LayerNorm{1e-6F},
                      .activation = TanhGelu{},
                      .pooling = Last{}};
}

constexpr auto siglip_b(std::size_t image, std::size_t patch, std::size_t vocabulary) {
    return ClipConfig{siglip_vision(image, patch, 768, 12, 12), siglip_text(vocabulary, 768, 12, 12), 768, true};
}
constexpr auto siglip_l(std::size_t image, std::size_t vocabulary) {
    return ClipConfig{siglip_vision(image, 16, 1024, 24, 16), siglip_text(vocabulary, 1024, 24, 16), 1024, true};
}
constexpr auto siglip_so400m(std::size_t image, std::size_t patch, std::size_t vocabulary, std::size_t context = 64) {
    constexpr double ratio = 3.7362;  // 4304 hidden channels
    return ClipConfig{siglip_vision(image, patch, 1152, 27, 16, ratio),
                      siglip_text(vocabulary, 1152, 27, 16, ratio, context), 1152, true};
}
constexpr auto siglip_gopt(std::size_t image) {
    return ClipConfig{siglip_vision(image, 16, 1536, 40, 16), siglip_text(256000, 1152, 27, 16, 3.7362), 1536, true};
}

}  // namespace detail

inline constexpr ClipConfig vit_b_16_siglip = detail::siglip_b(224, 16, 32000);
inline constexpr ClipConfig vit_b_16_siglip_256 = detail::siglip_b(256, 16, 32000);
inline constexpr ClipConfig vit_b_16_siglip_384 = detail::siglip_b(384, 16, 32000);
inline constexpr ClipConfig vit_b_16_siglip_512 = detail::siglip_b(512, 16, 32000);
inline constexpr ClipConfig vit_b_16_siglip_i18n_256 = detail::siglip_b(256, 16, 250000);
inline constexpr ClipConfig vit_l_16_siglip_256 = detail::siglip_l(256, 32000);
inline constexpr ClipConfig vit_l_16_siglip_384 = detail::siglip_l(384, 32000);
inline constexpr ClipConfig vit_so400m_14_siglip = detail::siglip_so400m(224, 14, 32000, 16);
inline constexpr ClipConfig vit_so400m_14_siglip_378 = detail::siglip_so400m(378, 14, 32000);
/// Its last six rows and columns of pixels are in no patch: 378 with another preprocessing.
inline constexpr ClipConfig vit_so400m_14_siglip_384 = detail::siglip_so400m(384, 14, 32000);
inline constexpr ClipConfig vit_so400m_16_siglip_i18n_256 = detail::siglip_so400m(256, 16, 250000);

inline constexpr ClipConfig vit_b_32_siglip2_256 = detail::siglip_b(256, 32, 256000);
inline constexpr ClipConfig vit_b_16_siglip2 = detail::siglip_b(224, 16, 256000);
inline constexpr ClipConfig vit_b_16_siglip2_256 = detail::siglip_b(256, 16, 256000);
inline constexpr ClipConfig vit_b_16_siglip2_384 = detail::siglip_b(384, 16, 256000);
inline constexpr ClipConfig vit_b_16_siglip2_512 = detail::siglip_b(512, 16, 256000);
inline constexpr ClipConfig vit_l_16_siglip2_256 = detail::siglip_l(256, 256000);
inline constexpr ClipConfig vit_l_16_siglip2_384 = detail::siglip_l(384, 256000);
inline constexpr ClipConfig vit_l_16_siglip2_512 = detail::siglip_l(512, 256000);
inline constexpr ClipConfig vit_so400m_14_siglip2 = detail::siglip_so400m(224, 14, 256000);
inline constexpr ClipConfig vit_so400m_14_siglip2_378 = detail::siglip_so400m(378, 14, 256000);
inline constexpr ClipConfig vit_so400m_16_siglip2_256 = detail::siglip_so400m(256, 16, 256000);
inline constexpr ClipConfig vit_so400m_16_siglip2_384 = detail::siglip_so400m(384, 16, 256000);
inline constexpr ClipConfig vit_so400m_16_siglip2_512 = detail::siglip_so400m(512, 16, 256000);
inline constexpr ClipConfig vit_gopt_16_siglip2_256 = detail::siglip_gopt(256);
inline constexpr ClipConfig vit_gopt_16_siglip2_384 = detail::siglip_gopt(384);

/// The same architecture for square images of another side, in pixels. load() resizes the positions of a checkpoint.
constexpr auto with_image(auto config, std::size_t image) {
    config.vision.image = image;
    return config;
}

/// The same architecture with another activation in both towers. The checkpoints OpenAI published are
/// with_activation(vit_b_32, QuickGelu{}) and so on.
template <class Activation>
constexpr auto with_activation(const auto& config, Activation activation) {
    return ClipConfig{config.vision.with_activation(activation), config.text.with_activation(activation),
                      config.embedding, config.logit_bias, config.shared};
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/nn/compose.hpp ----

// Parts composed of layers and elementwise functions, which need no backward pass of their own.

namespace tandem::inline TANDEM_ABI {

namespace nn {

/// What all nodes of a composition derive from. A node has the compute type C, the width of its rows, Saved, and
///     forward(x, sequences, saved, keep): the node's rows, which stand in saved or are x
///     backward(x, g, dx, sequences, saved, gradient): adds to dx and to the parameters of `gradient`, the same
///         composition over the gradient's layers
struct ComposedNode {};

template <class N>
concept Composition = std::derived_from<N, ComposedNode>;

/// The rows that a part is given.
template <Real Element, std::size_t Width>
struct ComposedInput : ComposedNode {
    using C = Element;
    static constexpr std::size_t width = Width, input_width = Width;
    struct Saved {};

    Rows<const C, width> forward(Rows<const C, width> x, const Sequences<C>&, Saved&, bool) const { return x; }
    void backward(Rows<const C, width>, Rows<const C, width> g, Rows<C, width> dx, const Sequences<C>&, Saved&,
                  const ComposedInput&) const {
        add_rows<C, width>(g, dx);
    }
};

/// A layer behind a node: a dense layer, a norm, or a BlockPart.
template <Composition Before, class Layer, std::size_t Width>
struct ComposedLayer : ComposedNode {
    using C = typename Before::C;
    static constexpr std::size_t width = Width, before_width = Before::width, input_width = Before::input_width;

    Before before;
    const Layer* layer;

    template <class L>
    struct SavedOf {
        using type = None;
    };
    template <class L>
        requires requires { typename L::Saved; }
    struct SavedOf<L> {
        using type = typename L::Saved;
    };

    struct Saved {
        typename Before::Saved before;
        typename SavedOf<Layer>::type layer;
        Rows<const C, before_width> in{nullptr, {{0, before_width}}};
        Tensor<C, Shape<dynamic, width>> out;
        Tensor<C, Shape<dynamic, before_width>> gradient;
    };

    Rows<const C, width> forward(Rows<const C, input_width> x, const Sequences<C>& sequences, Saved& saved,
                                 bool keep) const {
        saved.in = before.forward(x, sequences, saved.before, keep);
        saved.out.resize(saved.in.extent(0));
        if constexpr (requires { layer->forward(saved.in, saved.out, sequences, saved.layer, keep); }) {
            layer->forward(saved.in, saved.out, sequences, saved.layer, keep);
        } else if constexpr (requires { layer->forward(saved.in, saved.out, saved.layer); }) {
            layer->forward(saved.in, saved.out, saved.layer);
        } else {
            layer->forward(saved.in, saved.out);
        }
        return saved.out;
    }

    void backward(Rows<const C, input_width> x, Rows<const C, width> g, Rows<C, input_width> dx,
                  const Sequences<C>& sequences, Saved& saved, const ComposedLayer& gradient) const {
        // `gradient` was composed over a value that backward may write: only operator(), which composes, is const.
        Layer& parameters = const_cast<Layer&>(*gradient.layer);
        saved.gradient.resize(saved.in.extent(0));
        if constexpr (requires { layer->backward(saved.in, g, saved.gradient, sequences, saved.layer, parameters); }) {
            layer->backward(saved.in, g, saved.gradient, sequences, saved.layer, parameters);
        } else if constexpr (requires { layer->backward(saved.in, g, saved.gradient, saved.layer, parameters, false); }) {
            layer->backward(saved.in, g, saved.gradient, saved.layer, parameters, false);
        } else {
            layer->backward(saved.in, g, saved.gradient, parameters);
        }
        before.backward(x, saved.gradient, dx, sequences, saved.before, gradient.before);
    }
};

/// An elementwise function, written over expressions, of a node.
template <Composition Before, class Function>
struct ComposedFunction : ComposedNode {
    using C = typename Before::C;
    static constexpr std::size_t width = Before::width, input_width = Before::input_width;

    Before before;
    [[no_unique_address]] Function function;

    struct Saved {
        typename Before::Saved before;
        Rows<const C, width> in{nullptr, {{0, width}}};
        Tensor<C, Shape<dynamic, width>> out, gradient;
    };

    Rows<const C, width> forward(Rows<const C, input_width> x, const Sequences<C>& sequences, Saved& saved,
                                 bool keep) const {
        saved.in = before.forward(x, sequences, saved.before, keep);
        saved.out.resize(saved.in.extent(0));
        activate(function, saved.in.data(), saved.out.data(), saved.out.size());
        return saved.out;
    }

    void backward(Rows<const C, input_width> x, Rows<const C, width> g, Rows<C, input_width> dx,
                  const Sequences<C>& sequences, Saved& saved, const ComposedFunction& gradient) const {
        saved.gradient.resize(saved.in.extent(0));
        std::copy_n(g.data(), g.size(), saved.gradient.data());
        activate_backward(function, saved.in.data(), saved.gradient.data(), saved.gradient.size());
        before.backward(x, saved.gradient, dx, sequences, saved.before, gradient.before);
    }
};

/// a + b or a · b, element by element.
template <Composition A, Composition B, bool is_product>
struct ComposedPair : ComposedNode {
    static_assert(A::width == B::width && A::input_width == B::input_width,
                  "tandem: composed parts that are added or multiplied have rows of one width");
    using C = typename A::C;
    static constexpr std::size_t width = A::width, input_width = A::input_width;

    A a;
    B b;

    struct Saved {
        typename A::Saved a;
        typename B::Saved b;
        Rows<const C, width> left{nullptr, {{0, width}}}, right{nullptr, {{0, width}}};
        Tensor<C, Shape<dynamic, width>> out, gradient;
    };

    Rows<const C, width> forward(Rows<const C, input_width> x, const Sequences<C>& sequences, Saved& saved,
                                 bool keep) const {
        saved.left = a.forward(x, sequences, saved.a, keep);
        saved.right = b.forward(x, sequences, saved.b, keep);
        saved.out.resize(saved.left.extent(0));
        combine(saved.left, saved.right, saved.out);
        return saved.out;
    }

    void backward(Rows<const C, input_width> x, Rows<const C, width> g, Rows<C, input_width> dx,
                  const Sequences<C>& sequences, Saved& saved, const ComposedPair& gradient) const {
        if constexpr (is_product) {
            saved.gradient.resize(saved.left.extent(0));
            combine(g, saved.right, saved.gradient);
            a.backward(x, saved.gradient, dx, sequences, saved.a, gradient.a);
            combine(g, saved.left, saved.gradient);
            b.backward(x, saved.gradient, dx, sequences, saved.b, gradient.b);
        } else {
            a.backward(x, g, dx, sequences, saved.a, gradient.a);
            b.backward(x, g, dx, sequences, saved.b, gradient.b);
        }
    }

private:
    static void combine(Rows<const C, width> left, Rows<const C, width> right, Rows<C, width> out) {
        if constexpr (is_product) {
            assign(out, as_expression(left) * as_expression(right));
        } else {
            assign(out, as_expression(left) + as_expression(right));
        }
    }
};

/// Every sequence's matrix [RowsEach, width] transposed, so that what follows mixes tokens.
template <Composition Before, std::size_t RowsEach>
struct ComposedTranspose : ComposedNode {
    using C = typename Before::C;
    static constexpr std::size_t width = RowsEach, before_width = Before::width, input_width = Before::input_width;

    Before before;

    struct Saved {
        typename Before::Saved before;
        Tensor<C, Shape<dynamic, width>> out;
        Tensor<C, Shape<dynamic, before_width>> gradient;
    };

    Rows<const C, width> forward(Rows<const C, input_width> x, const Sequences<C>& sequences, Saved& saved,
                                 bool keep) const {
        const Rows<const C, before_width> in = before.forward(x, sequences, saved.before, keep);
        const std::size_t count = sequences.count();
        if (in.extent(0) != count * RowsEach) {
            throw Error("transposed", "sequences of " + std::to_string(RowsEach) + " rows each",
                        std::to_string(in.extent(0)) + " rows in " + std::to_string(count) + " sequences");
        }
        saved.out.resize(count * before_width);
        transpose_each<before_width>(count, in.data(), RowsEach, saved.out.data());
        return saved.out;
    }

    void backward(Rows<const C, input_width> x, Rows<const C, width> g, Rows<C, input_width> dx,
                  const Sequences<C>& sequences, Saved& saved, const ComposedTranspose& gradient) const {
        const std::size_t count = sequences.count();
        saved.gradient.resize(count * RowsEach);
        transpose_each<RowsEach>(count, g.data(), before_width, saved.gradient.data());
        before.backward(x, saved.gradient, dx, sequences, saved.before, gradient.before);
    }

private:
    template <std::size_t Columns>
    static void transpose_each(std::size_t count, const C* from, std::size_t rows, C* to) {
        parallel_for(count, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t s = begin; s < end; ++s) {
                kernels::active<C>().transpose(from + s * rows * Columns, Columns, rows, Columns,
                                               to + s * rows * Columns, rows);
            }
        });
    }
};

template <std::size_t RowsEach>
struct TransposeTag {};

template <Composition N, std::size_t RowsEach>
auto operator|(const N& node, TransposeTag<RowsEach>) {
    return ComposedTranspose<N, RowsEach>{{}, node};
}

template <Composition N, Arithmetic T, std::size_t In, std::size_t Out, bool HasBias>
auto operator|(const N& node, const Linear<T, In, Out, HasBias>& layer) {
    static_assert(N::width == In, "tandem: a composed dense layer must take rows of the width it is given");
    return ComposedLayer<N, Linear<T, In, Out, HasBias>, Out>{{}, node, &layer};
}

template <Composition N, class F>
auto operator|(const N& node, const F& layer_or_function) {
    if constexpr (detail::ListsParameters<F>) {
        return ComposedLayer<N, F, N::width>{{}, node, &layer_or_function};
    } else {
        return ComposedFunction<N, F>{{}, node, layer_or_function};
    }
}

template <Composition A, Composition B>
auto operator+(const A& a, const B& b) {
    return ComposedPair<A, B, false>{{}, a, b};
}
template <Composition A, Composition B>
auto operator*(const A& a, const B& b) {
    return ComposedPair<A, B, true>{{}, a, b};
}

}  // namespace nn

/// x | transposed<tokens>: the columns of every sequence as rows, of width `tokens`; transposed<width> turns them back.
/// Throws Error where a sequence has not as many rows.
template <std::size_t RowsEach>
inline constexpr nn::TransposeTag<RowsEach> transposed{};

/// The base of a mixer's or MLP's Layer that is composed of layers and elementwise functions:
///
///     template <Arithmetic T, BlockShape shape, auto parts>
///     struct Layer : Composed<Layer<T, shape, parts>, T, shape.width> {
///         Linear<T, shape.width, shape.hidden> up, gate;
///         Linear<T, shape.hidden, shape.width> down;
///         static void parameters(...);                                   // as any layer's
///         auto operator()(auto x) const { return ((x | up) * (x | gate | Silu{})) | down; }
///     };
///
/// `|` puts a layer (dense, norm, another BlockPart) or a function over expressions behind a composition, + and * join
/// two; what is named twice is computed twice. Backward follows from that.
template <class Layer, Arithmetic T, std::size_t width>
struct Composed {
    using C = Compute<T>;

    /// Holds the composition's own Saved, whose type is not known before the layer is complete.
    struct Saved {
        std::unique_ptr<void, void (*)(void*)> of_composition{nullptr, [](void*) {}};
    };

    void forward(Rows<const C, width> x, Rows<C, width> y, const Sequences<C>& sequences, Saved& saved,
                 bool keep) const {
        const auto composition = compose(*static_cast<const Layer*>(this));
        using Memory = typename std::remove_const_t<decltype(composition)>::Saved;
        static_assert(std::remove_const_t<decltype(composition)>::width == width,
                      "tandem: a composed part must end in rows of the tower's width");
        if (saved.of_composition == nullptr) {
            saved.of_composition = {new Memory, [](void* memory) { delete static_cast<Memory*>(memory); }};
        }
        const auto out = composition.forward(x, sequences, *static_cast<Memory*>(saved.of_composition.get()), keep);
        std::copy_n(out.data(), out.size(), y.data());
    }

    void backward(Rows<const C, width> x, Rows<const C, width> dy, Rows<C, width> dx, const Sequences<C>& sequences,
                  Saved& saved, Layer& gradient) const requires Trainable<T> {
        const auto composition = compose(*static_cast<const Layer*>(this));
        using Memory = typename std::remove_const_t<decltype(composition)>::Saved;
        std::fill_n(dx.data(), dx.size(), C{0});
        composition.backward(x, dy, dx, sequences, *static_cast<Memory*>(saved.of_composition.get()),
                             compose(gradient));
    }

private:
    static auto compose(const Layer& layer) { return layer(nn::ComposedInput<C, width>{}); }
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/tasks/retrieval.hpp ----

// Retrieval: how high the matching item ranks.

namespace tandem::inline TANDEM_ABI {

/// The share of queries i whose match, item i, is among the k items of the highest score[i, ·]: its expectation when ties
/// are broken at random, so that identical items neither help nor hurt.
template <Real T>
double recall_at(const Tensor<T, Shape<dynamic, dynamic>>& scores, std::size_t k) {
    double found = 0;
    for (std::size_t i = 0; i < scores.extent(0); ++i) {
        const auto row = scores[i].elements();
        const T match = row[i];
        const auto higher = std::count_if(row.begin(), row.end(), [&](T score) { return score > match; });
        const auto ties = std::count(row.begin(), row.end(), match);
        const double places = static_cast<double>(k) - static_cast<double>(higher);
        found += std::clamp(places / static_cast<double>(std::max<std::ptrdiff_t>(ties, 1)), 0.0, 1.0);
    }
    return scores.extent(0) == 0 ? 0.0 : found / static_cast<double>(scores.extent(0));
}

/// The k items of the highest scores, best first; the first of equal ones first.
template <Real T>
std::vector<std::size_t> best_matches(std::span<const T> scores, std::size_t k) {
    std::vector<std::size_t> order(scores.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
    order.resize(std::min(k, order.size()));
    return order;
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/tasks/zero_shot.hpp ----

// Classification by captions: no training on the classes.

namespace tandem::inline TANDEM_ABI {

/// cosines[i, j] of images <N, E> and texts <M, E> of length 1.
template <Real T, std::size_t E>
Tensor<T, Shape<dynamic, dynamic>> similarity(const Tensor<T, Shape<dynamic, E>>& images,
                                              const Tensor<T, Shape<dynamic, E>>& texts) {
    Tensor<T, Shape<dynamic, dynamic>> cosines(images.extent(0), texts.extent(0));
    kernels::gemm<T>(images.extent(0), texts.extent(0), E, kernels::row_major(images.data(), E),
                     kernels::row_major(texts.data(), E).transposed(), cosines.data(), texts.extent(0));
    return cosines;
}

/// How well cosines [images, classes] pick the labels.
struct ZeroShotScore {
    double top1 = 0;   ///< share of images whose highest cosine is their label's
    double macro = 0;  ///< the mean over classes of each class's own share
    std::vector<std::size_t> predicted;
};

/// labels[i] < classes is image i's class; classes without images do not count. The first of equal cosines wins.
template <Real T>
ZeroShotScore score_zero_shot(const Tensor<T, Shape<dynamic, dynamic>>& cosines, std::span<const std::size_t> labels) {
    if (labels.size() != cosines.extent(0)) {
        throw Error("score_zero_shot", std::to_string(cosines.extent(0)) + " labels", std::to_string(labels.size()));
    }
    ZeroShotScore score;
    const std::size_t classes = cosines.extent(1);
    std::vector<std::size_t> seen(classes), right(classes);
    for (std::size_t i = 0; i < labels.size(); ++i) {
        const auto row = cosines[i].elements();
        const auto best = static_cast<std::size_t>(std::max_element(row.begin(), row.end()) - row.begin());
        score.predicted.push_back(best);
        ++seen.at(labels[i]);
        if (best == labels[i]) ++right[best];
    }
    double present = 0;
    for (std::size_t c = 0; c < classes; ++c) {
        score.top1 += static_cast<double>(right[c]);
        if (seen[c] == 0) continue;
        present += 1;
        score.macro += static_cast<double>(right[c]) / static_cast<double>(seen[c]);
    }
    score.top1 /= std::max<double>(1.0, static_cast<double>(labels.size()));
    score.macro /= std::max(1.0, present);
    return score;
}

#if __has_include(<utf8proc.h>)

/// The embeddings of texts <M, E>, in batches of 256.
template <class Model>
typename Model::Embeddings embed_texts(const Model& model, const Bpe& tokenizer, std::span<const std::string> texts) {
    constexpr std::size_t batch = 256, context = Model::Text::context;
    const std::vector<Id> ids = tokenizer.encode_batch(texts, context);
    typename Model::Embeddings embeddings(texts.size());
    for (std::size_t first = 0; first < texts.size(); first += batch) {
        const std::size_t count = std::min(batch, texts.size() - first);
        const typename Model::Text::Input rows(std::span<const Id>(ids).subspan(first * context, count * context), count);
        const auto part = model.encode_text(rows);
        std::copy_n(part.data(), part.size(), embeddings[first].data());
    }
    return embeddings;
}

/// One classifier row a class, from the class's prompts: each prompt's embedding, their mean, normalised again
/// (open_clip/zero_shot_classifier.py:57-63). A template holds one {} for the class's name.
template <class Model>
typename Model::Embeddings zero_shot_classifier(const Model& model, const Bpe& tokenizer,
                                                std::span<const std::string> classes,
                                                std::span<const std::string> templates) {
    typename Model::Embeddings rows(classes.size());
    for (std::size_t c = 0; c < classes.size(); ++c) {
        std::vector<std::string> prompts;
        for (std::string prompt : templates) {
            const std::size_t hole = prompt.find("{}");
            if (hole == std::string::npos) throw Error("zero_shot_classifier", "a template with {}", prompt);
            prompts.push_back(prompt.replace(hole, 2, classes[c]));
        }
        auto row = rows[c];
        assign(row, normalize(mean<0>(embed_texts(model, tokenizer, prompts))));
    }
    return rows;
}

#if __has_include(<png.h>) && __has_include(<jpeglib.h>) && __has_include(<jconfig.h>)

/// The probability of each caption for one picture: softmax(scale · cosines). The picture is preprocessed as OpenAI's
/// models expect, or by the recipe given.
template <class Model>
std::vector<float> zero_shot(const Model& model, const Bpe& tokenizer, const Image& picture,
                             const std::vector<std::string>& captions, const Preprocess* recipe = nullptr) {
    constexpr std::size_t size = Model::architecture.vision.image;
    const Preprocess standard = openai_preprocess(static_cast<int>(size));
    std::vector<float> pixels(3 * size * size);
    preprocess(picture, recipe == nullptr ? standard : *recipe, pixels);
    const auto image = model.encode_image(typename Model::Vision::Input(std::span<const float>(pixels), 1));
    const auto texts = embed_texts(model, tokenizer, captions);
    auto shares = similarity(image, texts);
    kernels::active<typename Model::C>().softmax(shares.data(), captions.size(), std::exp(model.logit_scale()));
    return {shares.elements().begin(), shares.elements().end()};
}

#endif
#endif

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/train/optimizer.hpp ----

// AdamW, and the norm of a gradient.

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// A parameter as a plain vector: one instantiation of an update serves parameters of every shape.
template <class Tensor>
auto flat(Tensor& tensor) {
    const auto elements = tensor.elements();
    return View<typename decltype(elements)::element_type, Shape<dynamic>>(elements.data(), {{elements.size()}});
}

}  // namespace detail

/// The L2 norm over all parameters of a gradient; not finite if any element is not.
template <class Model>
double gradient_norm(const Model& gradient) {
    double squares = 0;
    for_each_parameter(
        [&](const ParameterName&, const auto& tensor) {
            squares += static_cast<double>(evaluate(sum(square(detail::flat(tensor)))).item());
        },
        gradient);
    return std::sqrt(squares);
}

/// AdamW (Loshchilov, Hutter 2019, alg. 2) with torch.optim.AdamW's arithmetic. Matrices decay; vectors and scalars
/// (biases, gains, the logit scale) do not, as in open_clip.
struct AdamW {
    double rate = 5e-4;
    double beta1 = 0.9;
    double beta2 = 0.98;
    double eps = 1e-6;
    double weight_decay = 0.2;

    /// Elements that are updated together.
    static constexpr std::size_t block = 4096;

    /// The first and second moments are models themselves.
    template <class Model>
    struct State {
        Model first, second;
        std::size_t updates = 0;

        State() {
            zero_parameters(first);
            zero_parameters(second);
        }
    };

    /// One update of `model` at learning rate `step_rate`, the gradient multiplied by `gradient_scale` first.
    template <class Model>
    void update(Model& model, const Model& gradient, State<Model>& state, double step_rate,
                double gradient_scale = 1.0) const {
        ++state.updates;
        const double count = static_cast<double>(state.updates);
        const double step = step_rate / (1.0 - std::pow(beta1, count));
        const double second_scale = 1.0 / std::sqrt(1.0 - std::pow(beta2, count));
        for_each_parameter(
            [&]<class Parameter>(const ParameterName&, Parameter& parameter, const Parameter& slope, Parameter& first,
                                 Parameter& second) {
                const double keep = Parameter::shape::rank >= 2 ? 1.0 - step_rate * weight_decay : 1.0;
                const auto p = detail::flat(parameter), m = detail::flat(first), v = detail::flat(second);
                const auto g = detail::flat(slope);
                // A block at a time, so that the moments come from memory once.
                parallel_for(p.size(), block, [&](std::size_t from, std::size_t to) {
                    for (; from < to; from += block) {
                        const std::size_t end = std::min(from + block, to);
                        const auto scaled = gradient_scale * g.slice(from, end);
                        const auto m_part = m.slice(from, end), v_part = v.slice(from, end),
                                   p_part = p.slice(from, end);
                        assign(m_part, beta1 * m_part + (1.0 - beta1) * scaled);
                        assign(v_part, beta2 * v_part + (1.0 - beta2) * (scaled * scaled));
                        assign(p_part, keep * p_part - step * m_part / (second_scale * sqrt(v_part) + eps));
                    }
                });
            },
            model, gradient, state.first, state.second);
    }
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/train/schedule.hpp ----

// Learning-rate schedules over the progress of a run.

namespace tandem::inline TANDEM_ABI {

/// Linear warm-up over the first `warmup` of the run, then half a cosine down to `floor` (open_clip_train/scheduler.py,
/// cosine_lr). Progress, not steps, is what a schedule follows, so that a run can be bounded by time as well.
struct WarmupCosine {
    double warmup = 0.05;
    double floor = 0.0;

    /// The factor of the optimizer's rate at `progress`, 0 before the first step and 1 after the last.
    double operator()(double progress) const {
        if (progress < warmup) return progress / warmup;
        const double through = std::min(1.0, (progress - warmup) / std::max(1e-12, 1.0 - warmup));
        return floor + (1.0 - floor) * 0.5 * (1.0 + std::cos(std::numbers::pi * through));
    }
};

/// The same rate throughout.
struct ConstantRate {
    double operator()(double) const { return 1.0; }
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/train/snapshot.hpp ----

// A run on disk: everything needed to go on as if it had never stopped.

namespace tandem::inline TANDEM_ABI {

/// What a run has got to, beside its weights and moments. The order of samples and all random draws follow from seed and
/// step, so these two are the whole random state.
struct RunState {
    std::uint64_t seed = 0;
    std::size_t step = 0;           ///< steps taken, skipped ones included
    std::size_t skipped = 0;        ///< steps whose loss or gradient was not finite
    std::size_t skipped_in_row = 0;
    double seconds = 0;             ///< time spent training
    std::vector<float> losses;      ///< one for each step; a skipped step's is what it was
};

namespace detail {

inline std::string to_text(double value) {
    std::array<char, 32> buffer;
    const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
    return {buffer.data(), end};
}

template <class Number>
Number number_entry(const std::map<std::string, std::string>& metadata, const std::string& key, const std::string& where) {
    const auto entry = metadata.find(key);
    Number value{};
    if (entry == metadata.end() ||
        std::from_chars(entry->second.data(), entry->second.data() + entry->second.size(), value).ec != std::errc()) {
        throw Error(where, "a snapshot with a number under \"" + key + "\" in its metadata", "none");
    }
    return value;
}

template <class Model>
void check_parameters(const Safetensors& file, const std::string& prefix, const Model& model, const std::string& where) {
    for_each_parameter(
        [&]<class Parameter>(const std::string& name, const Parameter& parameter) {
            const StoredTensor* stored = file.find(prefix + name);
            const auto shape = shape_of(parameter.extents());
            if (stored == nullptr || stored->shape != shape || stored->type != data_type_of<typename Parameter::element>()) {
                throw Error(where, "a snapshot of this model, with " + prefix + name + " of shape " + shape_text(shape),
                            stored == nullptr ? "no such tensor" : shape_text(stored->shape));
            }
        },
        model);
}

template <class Model>
void read_parameters(const Safetensors& file, const std::string& prefix, Model& model) {
    for_each_parameter(
        [&]<class Parameter>(const std::string& name, Parameter& parameter) {
            Tensor<typename Parameter::element, typename Parameter::shape> values;
            read_elements(*file.find(prefix + name), values.elements());
            from_row_major(parameter, values);
        },
        model);
}

}  // namespace detail

/// Writes a snapshot, atomically and durably: a process killed at any moment leaves the old one or the new one.
template <class Model>
void save_snapshot(const std::filesystem::path& path, const Model& model, const AdamW::State<Model>& state,
                   const RunState& run) {
    detail::SavedParameters saved;
    saved.append("model.", model);
    saved.append("first.", state.first);
    saved.append("second.", state.second);
    saved.tensors.push_back(stored_tensor<float>("losses", {run.losses.size()}, std::span<const float>(run.losses)));
    save_safetensors(path, saved.tensors,
                     {{"format", "tandem snapshot 1"},
                      {"seed", std::to_string(run.seed)},
                      {"step", std::to_string(run.step)},
                      {"updates", std::to_string(state.updates)},
                      {"skipped", std::to_string(run.skipped)},
                      {"skipped_in_row", std::to_string(run.skipped_in_row)},
                      {"seconds", detail::to_text(run.seconds)}});
}

/// Reads the snapshot of a run of seed `run.seed`. Throws Error, and changes nothing, if it is damaged, of another model or
/// of another seed.
template <class Model>
void load_snapshot(const std::filesystem::path& path, Model& model, AdamW::State<Model>& state, RunState& run) {
    const Safetensors file = Safetensors::open(path);
    const std::string where = path.string();
    const auto& metadata = file.metadata();
    RunState read;
    read.seed = detail::number_entry<std::uint64_t>(metadata, "seed", where);
    if (read.seed != run.seed) {
        throw Error(where, "a run of seed " + std::to_string(run.seed), "seed " + std::to_string(read.seed));
    }
    read.step = detail::number_entry<std::size_t>(metadata, "step", where);
    read.skipped = detail::number_entry<std::size_t>(metadata, "skipped", where);
    read.skipped_in_row = detail::number_entry<std::size_t>(metadata, "skipped_in_row", where);
    read.seconds = detail::number_entry<double>(metadata, "seconds", where);
    const std::size_t updates = detail::number_entry<std::size_t>(metadata, "updates", where);
    detail::check_parameters(file, "model.", model, where);
    detail::check_parameters(file, "first.", state.first, where);
    detail::check_parameters(file, "second.", state.second, where);
    const StoredTensor* losses = file.find("losses");
    if (losses == nullptr || losses->shape != std::vector<std::size_t>{read.step}) {
        throw Error(where, "a snapshot with one loss for each of its " + std::to_string(read.step) + " steps",
                    losses == nullptr ? "none" : detail::shape_text(losses->shape));
    }
    read.losses.resize(read.step);
    read_elements(*losses, std::span<float>(read.losses));
    detail::read_parameters(file, "model.", model);
    detail::read_parameters(file, "first.", state.first);
    detail::read_parameters(file, "second.", state.second);
    state.updates = updates;
    run = std::move(read);
}

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/train/trainer.hpp ----

// The training loop: batches ahead of time, guarded steps, progress, snapshots.

namespace tandem::inline TANDEM_ABI {

/// What a Trainer trains on: pairs by number. fetch writes pair `index` as a preprocessed image [3, size, size] and ids
/// [context], drawing whatever is random from `random` alone; it is called from several threads at once.
template <class Data>
concept PairSource = requires(const Data& data, Random& random, std::span<float> image, std::span<Id> ids) {
    { data.size() } -> std::convertible_to<std::size_t>;
    data.fetch(std::size_t{}, random, image, ids);
};

/// How long and how to train. One of steps, epochs and seconds bounds the run.
struct TrainerOptions {
    std::size_t batch = 256;
    std::size_t steps = 0;
    std::size_t epochs = 0;
    double seconds = 0;        ///< a budget of time; the schedule follows it, so the result depends on the machine's speed
    double clip_norm = 1.0;    ///< gradients longer than this are scaled to it; 0: never
    std::size_t max_skipped = 10;  ///< so many steps in a row without a finite loss and gradient end the run
    Seed seed{};
    std::filesystem::path snapshot{};    ///< where to save, and to go on from if it is there; empty: nowhere
    std::size_t snapshot_every = 200;    ///< steps
    std::size_t report_every = 20;       ///< steps
    std::ostream* log = &std::clog;      ///< progress lines; nullptr: none
    std::size_t evaluate_every = 0;      ///< steps between calls of the evaluation hook; 0: never
};

/// Trains a Clip on pairs. A step whose loss or gradient is not finite never reaches the weights: it is skipped, counted
/// and reported. With a snapshot and a bound in steps or epochs, a run that is killed at any moment and started again
/// ends in the same bits as one that was not.
template <class Model, class Optimizer, class Schedule, class L>
class Trainer {
public:
    using Hook = std::function<void(const Model&, const RunState&)>;

    Trainer(Model& model, Optimizer optimizer, Schedule schedule, L loss, TrainerOptions options = {})
        : model_(model),
          optimizer_(std::move(optimizer)),
          schedule_(std::move(schedule)),
          loss_(std::move(loss)),
          options_(std::move(options)) {}

    /// Called every options.evaluate_every steps.
    void on_evaluate(Hook hook) { hook_ = std::move(hook); }

    /// Trains until the bound is reached and returns what the run has got to. Throws Error if the data is smaller than a
    /// batch, if no bound or more than one is set, if a snapshot is of another run, or after max_skipped skipped steps in a
    /// row; a snapshot then still holds the last good weights.
    template <PairSource Data>
    RunState fit(const Data& data) {
        check(data.size());
        const std::size_t batches = data.size() / options_.batch;
        const std::size_t last = options_.epochs > 0 ? options_.epochs * batches : options_.steps;
        run_ = {};
        run_.seed = options_.seed.value;
        resume();
        auto next = prefetch(data, run_.step);
        Clock::time_point reported = Clock::now();
        std::size_t reported_step = run_.step;
        while (options_.seconds > 0 ? run_.seconds < options_.seconds : run_.step < last) {
            const Clock::time_point began = Clock::now();
            const Batch batch = next.get();
            next = prefetch(data, run_.step + 1);
            const double progress = options_.seconds > 0
                                        ? run_.seconds / options_.seconds
                                        : static_cast<double>(run_.step) / static_cast<double>(last);
            step(batch, progress);
            run_.seconds += std::chrono::duration<double>(Clock::now() - began).count();
            const bool ended = options_.seconds > 0 ? run_.seconds >= options_.seconds : run_.step == last;
            if (options_.log != nullptr && (run_.step % options_.report_every == 0 || ended)) {
                const double passed = std::chrono::duration<double>(Clock::now() - reported).count();
                report(last, static_cast<double>((run_.step - reported_step) * options_.batch) / passed);
                reported = Clock::now();
                reported_step = run_.step;
            }
            if (hook_ && options_.evaluate_every > 0 && run_.step % options_.evaluate_every == 0) hook_(model_, run_);
            if (!options_.snapshot.empty() && (run_.step % options_.snapshot_every == 0 || ended)) save();
        }
        if (options_.log != nullptr && run_.skipped > 0) {
            *options_.log << run_.skipped << " of " << run_.step << " steps were skipped: loss or gradient not finite\n";
        }
        return run_;
    }

private:
    using Clock = std::chrono::steady_clock;
    using T = typename Model::C;

    struct Batch {
        Tensor<T, typename Model::Vision::Input::shape> images;
        Tensor<Id, typename Model::Text::Input::shape> ids;
    };

    void check(std::size_t size) const {
        if ((options_.steps > 0) + (options_.epochs > 0) + (options_.seconds > 0) != 1) {
            throw Error("Trainer", "exactly one of steps, epochs and seconds to be set", "none or several");
        }
        if (options_.batch == 0 || size < options_.batch) {
            throw Error("Trainer", "at least one batch of " + std::to_string(options_.batch) + " pairs",
                        std::to_string(size) + " pairs");
        }
    }

    void resume() {
        if (options_.snapshot.empty() || !std::filesystem::exists(options_.snapshot)) return;
        load_snapshot(options_.snapshot, model_, state_, run_);
        if (options_.log != nullptr) *options_.log << "going on from step " << run_.step << '\n';
    }

    void save() const { save_snapshot(options_.snapshot, model_, state_, run_); }

    /// A random order of all pairs, of which the last ones that fill no batch are left out, and the seed of what is drawn
    /// for each pair.
    struct Epoch {
        Epoch() = default;
        Epoch(std::size_t epoch, std::size_t size, Seed run) : number(epoch), order(size) {
            std::iota(order.begin(), order.end(), std::size_t{0});
            Random shuffler(run, epoch);
            shuffle(order, shuffler);
            seed = Seed{shuffler.state()};
        }

        bool is(std::size_t epoch, std::size_t size) const { return number == epoch && order.size() == size; }

        std::size_t number = 0;
        std::vector<std::size_t> order;
        Seed seed{};
    };

    /// Batch number `step` of the run, made on another thread: a function of seed and step alone. One is made at a time.
    template <class Data>
    std::future<Batch> prefetch(const Data& data, std::size_t step) {
        return std::async(std::launch::async, [this, &data, step] {
            const std::size_t batches = data.size() / options_.batch;
            if (const std::size_t epoch = step / batches; !epoch_.is(epoch, data.size())) {
                epoch_ = Epoch(epoch, data.size(), options_.seed);
            }
            Batch batch;
            batch.images.resize(options_.batch);
            batch.ids.resize(options_.batch);
            const std::size_t pixels = batch.images.size() / options_.batch;
            parallel_for(options_.batch, 4, [&](std::size_t begin, std::size_t end) {
                std::vector<float> image(pixels);
                for (std::size_t i = begin; i < end; ++i) {
                    const std::size_t index = epoch_.order[step % batches * options_.batch + i];
                    Random random(epoch_.seed, index);
                    data.fetch(index, random, image, batch.ids[i].elements());
                    std::copy(image.begin(), image.end(), batch.images.data() + i * pixels);
                }
            });
            return batch;
        });
    }

    void step(const Batch& batch, double progress) {
        zero_parameters(gradient_);
        work_.dropout = Seed{Random(options_.seed, run_.step).next()};
        const T loss = model_.loss_and_gradient(batch.images, batch.ids, loss_, gradient_, work_);
        const double norm = gradient_norm(gradient_);
        ++run_.step;
        run_.losses.push_back(static_cast<float>(loss));
        if (!std::isfinite(loss) || !std::isfinite(norm)) {
            ++run_.skipped;
            ++run_.skipped_in_row;
            if (options_.log != nullptr) {
                *options_.log << "step " << run_.step << " skipped: loss " << loss << ", gradient norm " << norm << '\n';
            }
            if (run_.skipped_in_row >= options_.max_skipped) {
                throw Error("Trainer", "a finite loss and gradient within " + std::to_string(options_.max_skipped) +
                                           " steps in a row",
                            "none up to step " + std::to_string(run_.step) + "; the weights are those of the last good step");
            }
            return;
        }
        run_.skipped_in_row = 0;
        const double scale = options_.clip_norm > 0 && norm > options_.clip_norm ? options_.clip_norm / norm : 1.0;
        optimizer_.update(model_, gradient_, state_, optimizer_.rate * schedule_(progress), scale);
        model_.clamp_logit_scale();
    }

    void report(std::size_t last, double rate) const {
        double left = options_.seconds - run_.seconds;
        if (options_.seconds == 0) {
            left = run_.seconds / static_cast<double>(run_.step) * static_cast<double>(last - run_.step);
        }
        const int seconds = static_cast<int>(std::max(0.0, left));
        std::array<char, 160> line;
        const std::string total = last > 0 ? "/" + std::to_string(last) : "";
        std::snprintf(line.data(), line.size(), "step %zu%s  loss %.4f  logit scale %.2f  %.0f samples/s  %d:%02d left\n",
                      run_.step, total.c_str(), static_cast<double>(run_.losses.back()),
                      std::exp(static_cast<double>(std::as_const(model_).logit_scale())), rate, seconds / 60, seconds % 60);
        *options_.log << line.data() << std::flush;
    }

    Model& model_;
    Optimizer optimizer_;
    Schedule schedule_;
    L loss_;
    TrainerOptions options_;
    Hook hook_;
    Model gradient_;
    typename Model::Workspace work_;
    AdamW::State<Model> state_;
    RunState run_;
    Epoch epoch_;  // the prefetching thread's
};

}  // namespace tandem::inline TANDEM_ABI

// ---- tandem/tandem.hpp ----

// tandem: CLIP models as C++ types. This header is all of the library but CUDA (cuda.cuh) and Eigen (tensor/eigen.hpp).
// What needs a C library appears where that library's headers are, and is linked only if used.

#if defined(TANDEM_EIGEN)

// ---- tandem/tensor/eigen.hpp ----

// Tensors as Eigen matrices, without a copy; the only file that knows Eigen, and no part of tandem.hpp.

// g++ 12 takes the undefined operand of AVX-512 intrinsics for an uninitialised read (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Core>
#pragma GCC diagnostic pop

namespace tandem::inline TANDEM_ABI {

namespace detail {

constexpr int eigen_extent(std::size_t extent) { return extent == dynamic ? Eigen::Dynamic : static_cast<int>(extent); }

}  // namespace detail

/// An Eigen::Map onto a matrix <rows, columns> or a vector <n> (as a column), static extents kept. It is valid for as long
/// as the tensor's memory.
template <class T, class S>
auto as_eigen(const View<T, S>& view) {
    static_assert(S::rank == 1 || S::rank == 2, "tandem: as_eigen takes a vector or a matrix");
    using Plain = std::remove_const_t<T>;
    constexpr int rows = detail::eigen_extent(S::extents[0]);
    constexpr int columns = S::rank == 2 ? detail::eigen_extent(S::extents[S::rank - 1]) : 1;
    constexpr int order = columns == 1 ? Eigen::ColMajor : Eigen::RowMajor;
    using Matrix = Eigen::Matrix<Plain, rows, columns, order>;
    using Mapped = Eigen::Map<std::conditional_t<std::is_const_v<T>, const Matrix, Matrix>>;
    const auto height = static_cast<Eigen::Index>(view.extent(0));
    return Mapped(view.data(), height, S::rank == 2 ? static_cast<Eigen::Index>(view.extent(S::rank - 1)) : 1);
}

template <Element T, class S>
auto as_eigen(Tensor<T, S>& tensor) {
    return as_eigen(tensor.view());
}
template <Element T, class S>
auto as_eigen(const Tensor<T, S>& tensor) {
    return as_eigen(tensor.view());
}

}  // namespace tandem::inline TANDEM_ABI

#endif  // TANDEM_EIGEN

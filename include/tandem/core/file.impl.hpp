// Definitions of core/file.hpp.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/core/file_calls.hpp>
#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE MappedFile::MappedFile(const std::filesystem::path& path) {
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

TANDEM_INLINE MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
}

TANDEM_INLINE MappedFile::~MappedFile() {
    if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

TANDEM_INLINE void MappedFile::forget(std::span<const std::byte> part) const {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const auto first = static_cast<std::size_t>(part.data() - bytes_.data());
    const std::size_t begin = (first + page - 1) / page * page, end = (first + part.size()) / page * page;
    if (begin < end) ::madvise(const_cast<std::byte*>(bytes_.data() + begin), end - begin, MADV_DONTNEED);
}

TANDEM_INLINE void read_part(const std::filesystem::path& path, std::size_t offset, std::span<std::byte> bytes) {
    detail::FileCalls calls;
    const detail::Descriptor<> file(calls, detail::uninterrupted([&] { return calls.open(path.c_str(), O_RDONLY | O_NONBLOCK); }));
    if (file.number() < 0) detail::throw_file_error(path, "open");
    for (std::size_t done = 0; done < bytes.size();) {
        const auto count = detail::uninterrupted(
            [&] { return ::pread(file.number(), bytes.data() + done, bytes.size() - done, static_cast<::off_t>(offset + done)); });
        if (count < 0) detail::throw_file_error(path, "read");
        if (count == 0) throw Error(path.string(), "a file of " + std::to_string(offset + bytes.size()) + " bytes or more", "a shorter one");
        done += static_cast<std::size_t>(count);
    }
}

TANDEM_INLINE void write_file_atomically(const std::filesystem::path& path,
                                         std::span<const std::span<const std::byte>> parts) {
    detail::replace_file(detail::FileCalls{}, path, parts);
}

TANDEM_INLINE void write_file_atomically(const std::filesystem::path& path, std::string_view text) {
    const std::span<const std::byte> part = std::as_bytes(std::span(text));
    write_file_atomically(path, std::span(&part, 1));
}

}  // namespace tandem::inline TANDEM_ABI

// Whole files: read through a memory map, replaced in one durable step.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>
#include <utility>

#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// A whole file mapped read-only; pages are read as they are touched and nothing is copied. Move only.
/// Whoever shortens the file while it is mapped kills the process (SIGBUS): replace files, do not rewrite them.
class MappedFile {
public:
    /// Throws Error with path, operation and the system's reason, also for what is not a regular file.
    explicit MappedFile(const std::filesystem::path& path);

    MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
    MappedFile& operator=(MappedFile&& other) noexcept;
    ~MappedFile();

    /// The file's contents, valid for as long as this object (or the one it was moved to) lives.
    std::span<const std::byte> bytes() const { return bytes_; }

    /// Lets go of the memory that `part` of the contents takes; if it is read again, it comes from the file again.
    void forget(std::span<const std::byte> part) const;

private:
    std::span<const std::byte> bytes_;
};

/// Fills `bytes` from byte `offset` of a file on. Throws Error with path, operation and the system's reason, also where the file ends
/// before.
void read_part(const std::filesystem::path& path, std::size_t offset, std::span<std::byte> bytes);

/// Replaces the contents of `path` by the parts, one after the other: whatever happens, kill and power loss included,
/// the path afterwards holds the whole old file (or none, if there was none) or the whole new one.
/// Writes `path`.tandem-tmp in the same folder, fsyncs it, renames it, fsyncs the folder. Writers of the same path wait
/// for each other. Permissions of a replaced file are kept; a symbolic link is replaced, not followed.
/// On failure throws Error with path, operation and the system's reason; the old file stays, the temporary goes.
void write_file_atomically(const std::filesystem::path& path, std::span<const std::span<const std::byte>> parts);

/// The same for a text.
void write_file_atomically(const std::filesystem::path& path, std::string_view text);

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/core/file.impl.hpp>
#endif

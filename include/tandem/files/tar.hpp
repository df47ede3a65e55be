// Tar archives: where the files in one stand, and how one is written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// A file in an archive: `size` bytes from byte `offset`.
struct TarMember {
    std::string name;
    std::uint64_t offset = 0, size = 0;

    std::span<const std::byte> bytes(std::span<const std::byte> archive) const { return archive.subspan(offset, size); }
};

/// The files of an archive in its order, as far as it can be read.
struct TarContents {
    std::vector<TarMember> members;
    std::string fault;            ///< why not further, or where it went on, with the bytes; empty: all of it
    std::size_t passed_over = 0;  ///< links and devices
};

/// Reads the headers of an archive: POSIX ustar and pax (path and size), GNU's long names and large sizes, and the format before
/// (POSIX.1-2017, pax, section "ustar Interchange Format"; GNU tar manual, "Basic Tar Format"). Directories, links and devices are passed over.
/// What stands before damage is given. An archive may end without its two blocks of zeros, as many do that were written by
/// streaming; one that ends within a member is damaged. Behind damage, reading goes on where the next of `starts` says that a file
/// begins, if a sound header stands before it: offsets of files in rising order, which an index has.
TarContents read_tar(std::span<const std::byte> archive, std::span<const std::uint64_t> starts = {});

/// What is to be written.
struct TarEntry {
    std::string name;
    std::span<const std::byte> bytes;
};

/// Writes an archive with write_file_atomically: ustar, with a pax header for a name that does not fit. Times and owners are
/// 0, so that equal entries make equal files. Throws Error for an empty name or one with a byte 0, and as write_file_atomically does.
void write_tar(const std::filesystem::path& path, std::span<const TarEntry> entries);

}  // namespace tandem::inline TANDEM_ABI

#if !defined(TANDEM_COMPILED)
#include <tandem/files/tar.impl.hpp>
#endif

// The directory of a zip archive.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include <tandem/core/error.hpp>
#include <tandem/files/byte_reader.hpp>
#include <tandem/files/safetensors_types.hpp>

namespace tandem::inline TANDEM_ABI::detail {

struct ZipEntry {
    std::span<const std::byte> bytes;  ///< in place; none of a compressed entry
    bool is_compressed = false;
};

/// The entries of a zip archive. Read here and not by a zip library, since those copy what they read.
/// APPNOTE.TXT 6.3.10, sections 4.3.7 to 4.3.16.
[[gnu::cold]] inline std::map<std::string_view, ZipEntry> zip_entries(std::span<const std::byte> file,
                                                                      std::string_view where) {
    constexpr std::size_t end_size = 22, locator_size = 20;
    const auto reader = [&](std::size_t at, std::string_view what) {
        if (at > file.size())
            throw Error(where, "a whole zip archive", "one that is cut off before " + std::string(what));
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
    if (end == file.size())
        throw Error(where, "a whole zip archive", "no end record: the file is cut off; copy or download it again");
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
    std::map<std::string_view, ZipEntry> entries;
    ByteReader header = reader(directory, "the directory");
    for (std::uint64_t i = 0; i < count; ++i) {
        if (header.number<std::uint32_t>() != 0x02014b50)
            throw Error(where, "entry " + std::to_string(i) + " of the zip directory", "other bytes");
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
        if (method != 0) {
            entries[name] = {.bytes = {}, .is_compressed = true};
            continue;
        }
        ByteReader local = reader(at, "a zip entry");
        if (local.number<std::uint32_t>() != 0x04034b50)
            throw Error(where, "zip entry " + in_quotes(name), "other bytes at byte " + std::to_string(at));
        local.take(22);
        const auto local_name = local.number<std::uint16_t>(), local_extra = local.number<std::uint16_t>();
        local.take(local_name + std::size_t{local_extra});
        if (stored != size)
            throw Error(where, "zip entry " + in_quotes(name) + " of one size",
                        std::to_string(stored) + " and " + std::to_string(size));
        entries[name] = {local.take(size), false};
    }
    return entries;
}

}  // namespace tandem::inline TANDEM_ABI::detail

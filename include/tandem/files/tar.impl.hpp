// Definitions of files/tar.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstdio>
#include <deque>
#include <optional>

#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/files/tar.hpp>

namespace tandem::inline TANDEM_ABI {

namespace detail {

inline constexpr std::size_t tar_block = 512;

/// A field of a header: where it begins, and its bytes.
struct TarField {
    std::size_t at, size;
};
inline constexpr TarField tar_name{0, 100}, tar_mode{100, 8}, tar_uid{108, 8}, tar_gid{116, 8}, tar_size{124, 12}, tar_time{136, 12},
    tar_sum{148, 8}, tar_type{156, 1}, tar_magic{257, 8}, tar_prefix{345, 155};

TANDEM_INLINE std::string_view tar_text(std::span<const std::byte> header, TarField field) {
    const char* const begin = reinterpret_cast<const char*>(header.data()) + field.at;
    return {begin, static_cast<std::size_t>(std::find(begin, begin + field.size, '\0') - begin)};
}

/// Octal digits between blanks, or 63 bits behind a first byte of 0x80. Nothing for what is neither.
TANDEM_INLINE std::optional<std::uint64_t> tar_number(std::span<const std::byte> header, TarField field) {
    const auto byte = [&](std::size_t i) { return std::to_integer<std::uint64_t>(header[field.at + i]); };
    std::uint64_t value = 0;
    if (byte(0) == 0x80) {
        for (std::size_t i = 1; i < field.size; ++i) {
            if (value > (std::uint64_t{1} << 55) - 1) return std::nullopt;
            value = value << 8 | byte(i);
        }
        return value;
    }
    bool ended = false;
    for (std::size_t i = 0; i < field.size; ++i) {
        const auto c = static_cast<char>(byte(i));
        if (c == ' ' && value == 0 && !ended) continue;
        if (c == ' ' || c == '\0') {
            ended = true;
        } else if (c < '0' || c > '7' || ended) {
            return std::nullopt;
        } else {
            value = value * 8 + static_cast<std::uint64_t>(c - '0');
        }
    }
    return value;
}

/// The sum of a header's bytes, its own field taken as blanks.
TANDEM_INLINE std::uint64_t tar_checksum(std::span<const std::byte> header) {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < tar_block; ++i) {
        const bool is_own = i >= tar_sum.at && i < tar_sum.at + tar_sum.size;
        sum += is_own ? std::uint64_t{' '} : std::to_integer<std::uint64_t>(header[i]);
    }
    return sum;
}

/// What pax records say of the next member. A record is "LENGTH KEY=VALUE\n", LENGTH of all of it.
struct PaxRecords {
    std::optional<std::string> path;
    std::optional<std::uint64_t> size;
    bool is_sparse = false;
};
TANDEM_INLINE std::optional<PaxRecords> read_pax(std::string_view text) {
    PaxRecords records;
    while (!text.empty()) {
        std::size_t length = 0, digits = 0;
        while (digits < text.size() && digits < 10 && text[digits] >= '0' && text[digits] <= '9') length = length * 10 + static_cast<std::size_t>(text[digits++] - '0');
        if (digits == 0 || length > text.size() || length < digits + 4 || text[digits] != ' ' || text[length - 1] != '\n') return std::nullopt;
        const std::string_view record = text.substr(digits + 1, length - digits - 2);
        const std::size_t equals = record.find('=');
        if (equals == std::string_view::npos) return std::nullopt;
        const std::string_view key = record.substr(0, equals), value = record.substr(equals + 1);
        if (key == "path") records.path = std::string(value);
        if (key.starts_with("GNU.sparse")) records.is_sparse = true;
        if (key == "size") {
            std::uint64_t size = 0;
            if (value.empty() || value.size() > 18) return std::nullopt;
            for (const char c : value) {
                if (c < '0' || c > '9') return std::nullopt;
                size = size * 10 + static_cast<std::uint64_t>(c - '0');
            }
            records.size = size;
        }
        text.remove_prefix(length);
    }
    return records;
}

TANDEM_INLINE std::array<std::byte, tar_block> tar_header(std::string_view name, std::string_view prefix, std::uint64_t size, char type) {
    std::array<std::byte, tar_block> header{};
    const auto put = [&](TarField field, std::string_view text) { std::ranges::copy(std::as_bytes(std::span(text)), header.begin() + static_cast<std::ptrdiff_t>(field.at)); };
    const auto octal = [&](TarField field, std::uint64_t value) {
        std::array<char, 24> digits{};
        std::snprintf(digits.data(), digits.size(), "%0*llo", static_cast<int>(field.size - 1), static_cast<unsigned long long>(value));
        put(field, digits.data());
    };
    put(tar_name, name);
    put(tar_prefix, prefix);
    octal(tar_mode, 0644);
    octal(tar_uid, 0);
    octal(tar_gid, 0);
    octal(tar_time, 0);
    if (size < std::uint64_t{1} << 33) {
        octal(tar_size, size);
    } else {
        header[tar_size.at] = std::byte{0x80};
        for (std::size_t i = 0; i < 8; ++i) header[tar_size.at + 4 + i] = static_cast<std::byte>(size >> (56 - 8 * i));
    }
    header[tar_type.at] = static_cast<std::byte>(type);
    put(tar_magic, std::string_view("ustar\0" "00", 8));
    std::array<char, 8> sum{};
    std::snprintf(sum.data(), sum.size(), "%06llo", static_cast<unsigned long long>(tar_checksum(header)));
    put(tar_sum, std::string_view(sum.data(), 7));
    header[tar_sum.at + 7] = std::byte{' '};
    return header;
}

}  // namespace detail

TANDEM_INLINE TarContents read_tar(std::span<const std::byte> archive, std::span<const std::uint64_t> starts) {
    TarContents contents;
    std::optional<std::string> long_name;
    detail::PaxRecords pax;
    // Whether reading goes on behind the damage at a header.
    const auto goes_on = [&](std::size_t& at, const std::string& reason) {
        contents.fault += (contents.fault.empty() ? "" : "; ") + reason + " at byte " + std::to_string(at);
        for (const std::uint64_t start : starts) {
            if (start < detail::tar_block || start - detail::tar_block <= at || start > archive.size()) continue;
            const auto header = archive.subspan(start - detail::tar_block, detail::tar_block);
            // The rest of a name that fills its field stands before, where the damage may be.
            if (detail::tar_number(header, detail::tar_sum) != detail::tar_checksum(header) || detail::tar_text(header, detail::tar_name).size() == detail::tar_name.size) continue;
            at = start - detail::tar_block;
            contents.fault += ", read on from byte " + std::to_string(at) + ", where its index says that a file begins";
            long_name.reset();
            pax = {};
            return true;
        }
        return false;
    };
    for (std::size_t at = 0; at < archive.size();) {
        if (archive.size() - at < detail::tar_block) {
            const auto rest = archive.subspan(at);
            const bool is_padding = std::ranges::all_of(rest, [](std::byte byte) { return byte == std::byte{0}; });
            if (!is_padding) goes_on(at, "the archive is cut off within a header");
            return contents;
        }
        const auto header = archive.subspan(at, detail::tar_block);
        if (std::ranges::all_of(header, [](std::byte byte) { return byte == std::byte{0}; })) break;
        const auto sum = detail::tar_number(header, detail::tar_sum), stated = detail::tar_number(header, detail::tar_size);
        const bool is_sound = sum && *sum == detail::tar_checksum(header);
        if (!is_sound || !stated) {
            const char* const reason = is_sound ? "a header without a size" : at == 0 ? "no tar archive: a header whose checksum is wrong" : "a header whose checksum is wrong";
            if (goes_on(at, reason)) continue;
            return contents;
        }
        const char type = static_cast<char>(header[detail::tar_type.at]);
        // The size of pax is that of the member it stands before, not of headers between them.
        const bool is_about_next = type == 'L' || type == 'K' || type == 'x' || type == 'g';
        // Links, devices and directories have no data, whatever size their headers say.
        const bool has_data = type < '1' || type > '6';
        const std::uint64_t size = !has_data ? 0 : !is_about_next && pax.size ? *pax.size : *stated;
        const std::size_t data = at + detail::tar_block;
        if (size > archive.size() - data) {
            if (goes_on(at, "the archive is cut off within a member")) continue;
            return contents;
        }
        const auto bytes = archive.subspan(data, size);
        const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        if (type == 'L') {
            long_name = std::string(text.substr(0, text.find('\0')));
        } else if (type == 'x') {
            const auto records = detail::read_pax(text);
            if (!records) {
                if (goes_on(at, "a pax header that cannot be read")) continue;
                return contents;
            }
            pax = *records;
        } else if (!is_about_next) {
            if (type == 'S' || pax.is_sparse) {
                if (goes_on(at, "a sparse file, which is not read")) continue;
                return contents;
            }
            const bool is_file = type == '0' || type == '\0' || type == '7';
            if (is_file) {
                std::string name(detail::tar_text(header, detail::tar_name));
                // Old GNU archives have other things where ustar's prefix stands.
                const bool is_ustar = detail::tar_text(header, {detail::tar_magic.at, 6}) == "ustar";
                if (const auto prefix = detail::tar_text(header, detail::tar_prefix); is_ustar && !prefix.empty()) name = std::string(prefix) + "/" + name;
                if (long_name) name = *long_name;
                if (pax.path) name = *pax.path;
                // Before ustar, a directory was a name with a slash behind it.
                if (!name.empty() && !name.ends_with('/')) contents.members.push_back({.name = std::move(name), .offset = data, .size = size});
            }
            contents.passed_over += type >= '1' && type <= '6' && type != '5' ? 1 : 0;
            long_name.reset();
            pax = {};
        }
        const std::uint64_t padded = (size + detail::tar_block - 1) / detail::tar_block * detail::tar_block;
        at = data + static_cast<std::size_t>(std::min<std::uint64_t>(padded, archive.size() - data));
    }
    return contents;
}

TANDEM_INLINE void write_tar(const std::filesystem::path& path, std::span<const TarEntry> entries) {
    static constexpr std::array<std::byte, 2 * detail::tar_block> zeros{};
    std::deque<std::array<std::byte, detail::tar_block>> headers;
    std::deque<std::string> records;
    std::vector<std::span<const std::byte>> parts;
    const auto put = [&](std::string_view name, std::string_view prefix, std::span<const std::byte> bytes, char type) {
        headers.push_back(detail::tar_header(name, prefix, bytes.size(), type));
        parts.push_back(headers.back());
        parts.push_back(bytes);
        parts.push_back(std::span(zeros).first((detail::tar_block - bytes.size() % detail::tar_block) % detail::tar_block));
    };
    for (const TarEntry& entry : entries) {
        if (entry.name.empty() || entry.name.find('\0') != std::string::npos)
            throw Error("write_tar", "a name for every member, without a byte 0", entry.name.empty() ? "none" : entry.name);
        std::string_view name = entry.name, prefix;
        if (name.size() > detail::tar_name.size) {
            // The first slash behind which the rest fits, if what stands before it does.
            const std::size_t slash = name.find('/', name.size() - detail::tar_name.size - 1);
            if (slash != std::string_view::npos && slash > 0 && slash <= detail::tar_prefix.size && slash + 1 < name.size()) {
                prefix = name.substr(0, slash);
                name = name.substr(slash + 1);
            } else {
                const std::string rest = " path=" + entry.name + "\n";
                std::size_t length = rest.size() + 1;
                while (std::to_string(length).size() + rest.size() != length) ++length;
                records.push_back(std::to_string(length) + rest);
                put("pax_header", "", std::as_bytes(std::span(records.back())), 'x');
                name = name.substr(0, detail::tar_name.size);
            }
        }
        put(name, prefix, entry.bytes, '0');
    }
    parts.push_back(zeros);
    write_file_atomically(path, parts);
}

}  // namespace tandem::inline TANDEM_ABI

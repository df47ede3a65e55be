#include "unpack.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>

#include <archive.h>

#include <tandem/core/error.hpp>

#include "sources.hpp"

namespace training {

namespace td = tandem;

std::filesystem::path unpack(const std::filesystem::path& archive, const std::filesystem::path& folder) {
    const std::string where = archive.string();
    const std::string name = archive.filename().string();
    const std::filesystem::path to = folder / (name.substr(0, name.size() - compressed_ending(name).size()) + ".tar");
    const auto fail = [&](const std::string& found) -> td::Error { return {where, "a tar archive compressed by gzip, zstd, xz, bzip2 or lz4", found}; };
    if (!std::filesystem::is_regular_file(archive)) throw fail("no file");
    const std::unique_ptr<::archive, decltype(&::archive_read_free)> reader(::archive_read_new(), &::archive_read_free);
    // What is within stays as it is: tandem reads tar archives itself. No filter that would start another program.
    for (const auto& add : {&::archive_read_support_filter_gzip, &::archive_read_support_filter_zstd, &::archive_read_support_filter_xz, &::archive_read_support_filter_bzip2,
                            &::archive_read_support_filter_lz4})
        add(reader.get());
    ::archive_read_support_format_raw(reader.get());
    ::archive_entry* entry = nullptr;
    if (::archive_read_open_filename(reader.get(), where.c_str(), 1 << 20) != ARCHIVE_OK || ::archive_read_next_header(reader.get(), &entry) != ARCHIVE_OK)
        throw fail(::archive_error_string(reader.get()));
    if (::archive_filter_count(reader.get()) < 2) throw fail("a file that is not compressed");
    std::filesystem::create_directories(folder);
    std::ofstream out(to, std::ios::binary);
    std::array<char, 1 << 16> bytes;
    long long written = 0;
    ::la_ssize_t count = 0;
    while (out && (count = ::archive_read_data(reader.get(), bytes.data(), bytes.size())) > 0) {
        out.write(bytes.data(), count);
        written += count;
    }
    if (out) out.close();
    if (!out) throw td::Error(to.string(), "room for what " + where + " holds", std::strerror(errno));
    if (count < 0) std::fprintf(stderr, "%s: damaged behind %lld bytes of what it holds: %s\n", where.c_str(), written, ::archive_error_string(reader.get()));
    return to;
}

}  // namespace training

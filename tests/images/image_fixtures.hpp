// What the image tests share: the fixture folder, its tables, and the hash they hold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/images/image.hpp>

namespace image_fixtures {

inline std::string path(std::string_view file) {
    return std::string(TANDEM_TEST_DATA) + "/images/fixtures/image/" + std::string(file);
}

inline std::vector<std::byte> read(std::string_view file) {
    std::ifstream stream(path(file), std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(stream), {}};
    const auto* begin = reinterpret_cast<const std::byte*>(text.data());
    return {begin, begin + text.size()};
}

/// The lines of a table, each to be read with >>.
inline std::vector<std::istringstream> table(std::string_view file) {
    std::ifstream stream(path(file));
    std::vector<std::istringstream> lines;
    for (std::string line; std::getline(stream, line);) lines.emplace_back(line);
    return lines;
}

/// 64-bit FNV-1a.
inline std::string hash(std::span<const std::byte> bytes) {
    std::uint64_t value = 0xcbf29ce484222325ULL;
    for (const std::byte byte : bytes) value = (value ^ std::to_integer<std::uint64_t>(byte)) * 0x100000001b3ULL;
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
    return text;
}

inline std::string hash(const tandem::Image& image) {
    return hash(std::as_bytes(std::span(image.pixels)));
}

}  // namespace image_fixtures

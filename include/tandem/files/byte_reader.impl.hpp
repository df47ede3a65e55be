// Definitions of files/byte_reader.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include <tandem/core/error.hpp>
#include <tandem/files/byte_reader.hpp>

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE ByteReader::ByteReader(std::span<const std::byte> bytes, std::string_view where, std::string_view what)
    : bytes_(bytes), where_(where), what_(what) {}

TANDEM_INLINE std::span<const std::byte> ByteReader::take(std::size_t count) {
    if (count > bytes_.size() - position_) {
        throw Error(
            where_, std::to_string(count) + " bytes at byte " + std::to_string(position_) + " of " + std::string(what_),
            std::to_string(bytes_.size() - position_) + ": the file is cut off or damaged; copy or download it again");
    }
    position_ += count;
    return bytes_.subspan(position_ - count, count);
}

TANDEM_INLINE std::string_view ByteReader::text(std::size_t count) {
    const auto bytes = take(count);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TANDEM_INLINE std::string_view ByteReader::line() {
    const auto rest = bytes_.subspan(position_);
    const auto end = std::find(rest.begin(), rest.end(), std::byte{'\n'});
    const std::string_view found = text(static_cast<std::size_t>(end - rest.begin()));
    take(1);
    return found;
}

}  // namespace tandem::inline TANDEM_ABI::detail

// Bytes of a file read from front to back, never beyond their end.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include <tandem/core/error.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// Little-endian bytes read from front to back; `what` and `where` name them in the Error of a read beyond their end.
class ByteReader {
public:
    ByteReader(std::span<const std::byte> bytes, std::string_view where, std::string_view what)
        : bytes_(bytes), where_(where), what_(what) {}

    std::size_t position() const { return position_; }
    bool at_end() const { return position_ == bytes_.size(); }

    std::span<const std::byte> take(std::size_t count) {
        if (count > bytes_.size() - position_) {
            throw Error(
                where_,
                std::to_string(count) + " bytes at byte " + std::to_string(position_) + " of " + std::string(what_),
                std::to_string(bytes_.size() - position_) +
                    ": the file is cut off or damaged; copy or download it again");
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

}  // namespace tandem::inline TANDEM_ABI::detail

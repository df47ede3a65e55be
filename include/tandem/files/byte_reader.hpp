// Bytes of a file read from front to back, never beyond their end.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// Little-endian bytes read from front to back; `what` and `where` name them in the Error of a read beyond their end.
class ByteReader {
public:
    ByteReader(std::span<const std::byte> bytes, std::string_view where, std::string_view what);

    std::size_t position() const { return position_; }
    bool at_end() const { return position_ == bytes_.size(); }

    std::span<const std::byte> take(std::size_t count);

    template <std::integral T>
    T number() {
        T value;
        std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
        return value;
    }

    std::string_view text(std::size_t count);

    /// Up to the next line feed, which is taken too.
    std::string_view line();

private:
    std::span<const std::byte> bytes_;
    std::string_view where_, what_;
    std::size_t position_ = 0;
};

}  // namespace tandem::inline TANDEM_ABI::detail

#if !defined(TANDEM_COMPILED)
#include <tandem/files/byte_reader.impl.hpp>
#endif

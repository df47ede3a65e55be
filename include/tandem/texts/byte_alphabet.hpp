// GPT-2's printable alphabet for bytes, in which vocabularies of byte-level BPE are written.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include <tandem/core/platform.hpp>
#include <tandem/texts/unicode.hpp>

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI::detail {

inline constexpr std::string_view word_end = "</w>";

/// GPT-2's printable alphabet for bytes: the visible Latin-1 characters stand for themselves and come first, the other
/// bytes are U+0100 onwards. Token ids 0 to 255 follow this order.
struct ByteAlphabet {
    std::array<unsigned char, 256> byte_of_id{};
    std::array<char32_t, 256> symbol_of_byte{};

    constexpr ByteAlphabet() {
        const auto visible = [](unsigned b) { return (b >= '!' && b <= '~') || (b >= 0xA1 && b != 0xAD); };
        std::size_t id = 0;
        for (unsigned b = 0; b < 256; ++b) {
            if (!visible(b)) continue;
            byte_of_id[id++] = static_cast<unsigned char>(b);
            symbol_of_byte[b] = b;
        }
        for (unsigned b = 0, symbol = 256; b < 256; ++b) {
            if (visible(b)) continue;
            byte_of_id[id++] = static_cast<unsigned char>(b);
            symbol_of_byte[b] = symbol++;
        }
    }

    /// The bytes that a text in the alphabet stands for; nothing where it holds another character.
    std::optional<std::string> bytes(std::string_view text) const {
        std::string out;
        while (!text.empty()) {
            const CodePoint c = front_code_point(text);
            const auto* found = std::find(symbol_of_byte.begin(), symbol_of_byte.end(), c.value);
            if (found == symbol_of_byte.end()) return std::nullopt;
            out += static_cast<char>(static_cast<unsigned char>(found - symbol_of_byte.begin()));
            text.remove_prefix(c.bytes);
        }
        return out;
    }

    std::string symbols(std::string_view bytes) const {
        std::string out;
        for (const char b : bytes) append_utf8(symbol_of_byte[static_cast<unsigned char>(b)], out);
        return out;
    }
};

inline constexpr ByteAlphabet byte_alphabet;

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

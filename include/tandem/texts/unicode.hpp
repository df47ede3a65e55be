// UTF-8 and the Unicode facts that tokenizers ask for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/platform.hpp>

#if defined(TANDEM_COMPILED) || __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI::detail {

inline constexpr char32_t replacement_character = 0xFFFD;

/// One code point and the number of bytes it was read from.
struct CodePoint {
    char32_t value = 0;
    std::size_t bytes = 0;
};

/// Reads the code point at the front of a text that is not empty. Invalid UTF-8 gives U+FFFD for each maximal part of a
/// valid sequence (Unicode 15, section 3.9, "substitution of maximal subparts"), as Python's errors="replace" does.
constexpr CodePoint front_code_point(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned lead = byte(0);
    if (lead < 0x80) return {lead, 1};
    if (lead < 0xC2 || lead > 0xF4) return {replacement_character, 1};
    const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    char32_t value = lead & (0x7FU >> length);
    for (std::size_t i = 1; i < length; ++i) {
        unsigned low = 0x80;
        unsigned high = 0xBF;
        if (i == 1) {
            if (lead == 0xE0) low = 0xA0;   // shorter forms exist
            if (lead == 0xED) high = 0x9F;  // surrogates
            if (lead == 0xF0) low = 0x90;
            if (lead == 0xF4) high = 0x8F;  // above U+10FFFF
        }
        if (i >= text.size() || byte(i) < low || byte(i) > high) return {replacement_character, i};
        value = (value << 6) | (byte(i) & 0x3FU);
    }
    return {value, length};
}

constexpr void append_utf8(char32_t c, std::string& out) {
    const auto put = [&](char32_t value) { out += static_cast<char>(static_cast<unsigned char>(value)); };
    if (c < 0x80) {
        put(c);
    } else if (c < 0x800) {
        put(0xC0 | (c >> 6));
        put(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        put(0xE0 | (c >> 12));
        put(0x80 | ((c >> 6) & 0x3F));
        put(0x80 | (c & 0x3F));
    } else {
        put(0xF0 | (c >> 18));
        put(0x80 | ((c >> 12) & 0x3F));
        put(0x80 | ((c >> 6) & 0x3F));
        put(0x80 | (c & 0x3F));
    }
}

/// Decodes UTF-8 as Python's bytes.decode("utf-8", errors="replace") does.
std::u32string decode_utf8(std::string_view text);

std::string encode_utf8(std::u32string_view text);

/// Unicode's White_Space property: what \s means in regular expressions.
constexpr bool is_white_space(char32_t c) {
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/// The lower-case form of one code point; U+0130, the only one with two, gives "i" and is the caller's business.
/// Python up to 3.13 does not know the case pairs of Unicode 16, the tokenizers package does.
char32_t lower(char32_t c, bool with_pairs_17);

enum class NormalForm {
    nfc,
    nfkc,
    nfd,
    nfc_unicode_9,  ///< NFC as the tokenizers package knows it
};

/// Normalises one piece of text after another: decomposes, orders marks, composes. The marks are ordered here because
/// utf8proc_decompose takes quadratic time on a long run of them.
class Normalizer {
public:
    explicit Normalizer(NormalForm form);

    std::u32string operator()(std::u32string_view text);

private:
    struct Mark {
        std::int32_t code;
        std::int16_t order;
        std::size_t position;
    };

    void place(std::int32_t code);

    void place_marks();

    void compose();

    NormalForm form_;
    int options_;  ///< utf8proc_option_t
    std::vector<std::int32_t> codes_;
    std::vector<Mark> marks_;
    std::u32string out_;
};

std::u32string normalize(std::u32string text, NormalForm form);

/// What Python's str.split() and str.strip() call white space: White_Space and the four information separators.
constexpr bool is_python_space(char32_t c) {
    return is_white_space(c) || (c >= 0x1C && c <= 0x1F);
}

/// Which Unicode a program was built with. Letters, numbers and case pairs that came after utf8proc 2.8 (Unicode 15.0)
/// stand in tables below, so that the answer does not depend on the utf8proc that is installed.
enum class UnicodeEdition {
    v16,  ///< Oniguruma inside the tokenizers package (0.22, 0.23)
    v18,  ///< the regex package of 2026
};

enum class CharClass : std::uint8_t { letter, number, space, other };

/// \p{L}, \p{N}, \s or none of them.
CharClass char_class(char32_t c, UnicodeEdition edition);

/// Unicode's Case_Ignorable property.
bool is_case_ignorable(char32_t c);

/// Unicode's Cased property, of code points that are not case-ignorable.
bool is_cased(char32_t c);

bool is_decimal_digit(char32_t c);

/// Python's \w: what str.isalnum() accepts, and the underscore. Of Unicode as the installed utf8proc knows it.
bool is_python_word(char32_t c);

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

#if !defined(TANDEM_COMPILED)
#include <tandem/texts/unicode.impl.hpp>
#endif

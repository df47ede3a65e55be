// UTF-8 and the Unicode facts that tokenizers ask for; the only file that knows utf8proc.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if __has_include(<utf8proc.h>)
#include <utf8proc.h>
#endif

#include <tandem/core/platform.hpp>

#if __has_include(<utf8proc.h>)

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
inline std::u32string decode_utf8(std::string_view text) {
    std::u32string out;
    out.reserve(text.size());
    while (!text.empty()) {
        const CodePoint c = front_code_point(text);
        out += c.value;
        text.remove_prefix(c.bytes);
    }
    return out;
}

inline std::string encode_utf8(std::u32string_view text) {
    std::string out;
    out.reserve(text.size());
    for (const char32_t c : text) append_utf8(c, out);
    return out;
}

/// Unicode's White_Space property: what \s means in regular expressions.
constexpr bool is_white_space(char32_t c) {
    return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

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

struct CodeRange {
    char32_t first;
    char32_t last;
};

/// Letters of Unicode 15.1 and 16.0.
inline constexpr CodeRange letters_16[] = {
    {0x1c89, 0x1c8a},   {0xa7cb, 0xa7cd},   {0xa7da, 0xa7dc},   {0x105c0, 0x105f3}, {0x10d4a, 0x10d65},
    {0x10d6f, 0x10d85}, {0x10ec2, 0x10ec4}, {0x11380, 0x11389}, {0x1138b, 0x1138b}, {0x1138e, 0x1138e},
    {0x11390, 0x113b5}, {0x113b7, 0x113b7}, {0x113d1, 0x113d1}, {0x113d3, 0x113d3}, {0x11bc0, 0x11be0},
    {0x13460, 0x143fa}, {0x16100, 0x1611d}, {0x16d40, 0x16d6c}, {0x18cff, 0x18cff}, {0x1e5d0, 0x1e5ed},
    {0x1e5f0, 0x1e5f0}, {0x2ebf0, 0x2ee5d}};

/// Numbers of Unicode 15.1 and 16.0.
inline constexpr CodeRange numbers_16[] = {{0x10d40, 0x10d49}, {0x116d0, 0x116e3}, {0x11bf0, 0x11bf9},
                                           {0x16130, 0x16139}, {0x16d70, 0x16d79}, {0x1ccf0, 0x1ccf9},
                                           {0x1e5f1, 0x1e5fa}};

/// Letters of Unicode 17 and 18.
inline constexpr CodeRange letters_18[] = {
    {0x558, 0x558},     {0x58b, 0x58c},     {0x88f, 0x88f},     {0xc5c, 0xc5c},     {0xcdc, 0xcdc},
    {0x208f, 0x208f},   {0x209d, 0x209f},   {0xa7ce, 0xa7cf},   {0xa7d2, 0xa7d2},   {0xa7d4, 0xa7d4},
    {0xa7dd, 0xa7dd},   {0xa7e2, 0xa7e2},   {0xa7f1, 0xa7f1},   {0xab6c, 0xab6d},   {0x107bb, 0x107bf},
    {0x10940, 0x10959}, {0x10ec5, 0x10ec7}, {0x10ed9, 0x10eee}, {0x11b0a, 0x11b0a}, {0x11db0, 0x11ddb},
    {0x11df1, 0x11df1}, {0x16ea0, 0x16eb8}, {0x16ebb, 0x16ed3}, {0x16ff2, 0x16ff3}, {0x187f8, 0x187ff},
    {0x18cd6, 0x18cda}, {0x18d09, 0x18d20}, {0x18d80, 0x18df2}, {0x18e00, 0x19191}, {0x191a0, 0x191d2},
    {0x1b123, 0x1b128}, {0x1b168, 0x1b168}, {0x1d6a6, 0x1d6a6}, {0x1df1f, 0x1df24}, {0x1df2b, 0x1df81},
    {0x1df90, 0x1df96}, {0x1dfcd, 0x1dfff}, {0x1e6c0, 0x1e6de}, {0x1e6e0, 0x1e6e2}, {0x1e6e4, 0x1e6e5},
    {0x1e6e7, 0x1e6ed}, {0x1e6f0, 0x1e6f4}, {0x1e6fe, 0x1e6ff}, {0x2b73a, 0x2b73f}, {0x2b81e, 0x2b81e},
    {0x2cea2, 0x2cead}, {0x323b0, 0x33479}, {0x3d000, 0x3fc3f}};

/// Numbers of Unicode 17 and 18.
inline constexpr CodeRange numbers_18[] = {
    {0x11de0, 0x11de9}, {0x1246f, 0x1246f}, {0x12475, 0x1247f}, {0x12550, 0x12686}, {0x16ff4, 0x16ff6}};

template <std::size_t N>
constexpr bool in_ranges(const CodeRange (&ranges)[N], char32_t c) {
    const auto* after = std::upper_bound(std::begin(ranges), std::end(ranges), c,
                                         [](char32_t value, const CodeRange& range) { return value < range.first; });
    return after != std::begin(ranges) && c <= (after - 1)->last;
}

inline utf8proc_category_t category(char32_t c) {
    return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

/// \p{L}, \p{N}, \s or none of them.
inline CharClass char_class(char32_t c, UnicodeEdition edition) {
    if (c < 0x80) {
        if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') return CharClass::letter;
        if (c >= '0' && c <= '9') return CharClass::number;
        return is_white_space(c) ? CharClass::space : CharClass::other;
    }
    if (is_white_space(c)) return CharClass::space;
    const bool recent = edition == UnicodeEdition::v18;
    if (in_ranges(letters_16, c)) return CharClass::letter;
    if (in_ranges(numbers_16, c)) return CharClass::number;
    if (in_ranges(letters_18, c)) return recent ? CharClass::letter : CharClass::other;
    if (in_ranges(numbers_18, c)) return recent ? CharClass::number : CharClass::other;
    const utf8proc_category_t kind = category(c);
    if (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO) return CharClass::letter;
    if (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO) return CharClass::number;
    return CharClass::other;
}

struct CasePairs {
    char32_t first;
    char32_t last;
    char32_t lower;  ///< of `first`; the others follow in order
};

/// Case pairs of Unicode 16 and 17.
inline constexpr CasePairs case_pairs_17[] = {
    {0x1c89, 0x1c89, 0x1c8a},    {0xa7cb, 0xa7cb, 0x264},    {0xa7cc, 0xa7cc, 0xa7cd}, {0xa7ce, 0xa7ce, 0xa7cf},
    {0xa7d2, 0xa7d2, 0xa7d3},    {0xa7d4, 0xa7d4, 0xa7d5},   {0xa7da, 0xa7da, 0xa7db}, {0xa7dc, 0xa7dc, 0x19b},
    {0x10d50, 0x10d65, 0x10d70}, {0x16ea0, 0x16eb8, 0x16ebb}};

/// The lower-case form of one code point; U+0130, the only one with two, gives "i" and is the caller's business.
/// Python up to 3.13 does not know the case pairs of Unicode 16, the tokenizers package does.
inline char32_t lower(char32_t c, bool with_pairs_17) {
    if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 0x20 : c;
    if (c >= 0x1c89) {
        for (const CasePairs& pairs : case_pairs_17) {
            if (c >= pairs.first && c <= pairs.last) return with_pairs_17 ? pairs.lower + (c - pairs.first) : c;
        }
    }
    return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

/// Unicode's Case_Ignorable property.
inline bool is_case_ignorable(char32_t c) {
    static constexpr std::array<char32_t, 17> marks_inside_words = {0x27,   0x2E,   0x3A,   0xB7,   0x387,  0x55F,
                                                                    0x5F4,  0x2018, 0x2019, 0x2024, 0x2027, 0xFE13,
                                                                    0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A};
    if (std::find(marks_inside_words.begin(), marks_inside_words.end(), c) != marks_inside_words.end()) return true;
    const utf8proc_category_t kind = category(c);
    return kind == UTF8PROC_CATEGORY_MN || kind == UTF8PROC_CATEGORY_ME || kind == UTF8PROC_CATEGORY_CF ||
           kind == UTF8PROC_CATEGORY_LM || kind == UTF8PROC_CATEGORY_SK;
}

/// Unicode's Cased property, of code points that are not case-ignorable.
inline bool is_cased(char32_t c) {
    static constexpr CodeRange others[] = {{0xAA, 0xAA},       {0xBA, 0xBA},       {0x2160, 0x217F},  {0x24B6, 0x24E9},
                                           {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
    const utf8proc_category_t kind = category(c);
    return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LL || kind == UTF8PROC_CATEGORY_LT ||
           in_ranges(others, c);
}

inline bool is_decimal_digit(char32_t c) {
    return c < 0x80 ? c >= '0' && c <= '9' : category(c) == UTF8PROC_CATEGORY_ND;
}

/// Python's \w: what str.isalnum() accepts, and the underscore. Of Unicode as the installed utf8proc knows it.
inline bool is_python_word(char32_t c) {
    const utf8proc_category_t kind = category(c);
    return c == '_' || (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO) ||
           (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO);
}

enum class NormalForm {
    nfc,
    nfkc,
    nfd,
    nfc_unicode_9,  ///< NFC as the tokenizers package knows it
};

/// Where NFC by Unicode 9 starts anew: marks that it does not know (it takes them for letters without marks), and
/// U+11930, whose one composition is younger.
inline constexpr CodeRange starters_of_unicode_9[] = {
    {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},     {0xc3c, 0xc3c},
    {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x1715, 0x1715},   {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},
    {0xa82c, 0xa82c},   {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50},
    {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e}, {0x11839, 0x1183a},
    {0x11930, 0x11930}, {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
    {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45}, {0x11d97, 0x11d97},
    {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae},
    {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef}};

/// Normalises one piece of text after another: decomposes, orders marks, composes. The marks are ordered here because
/// utf8proc_decompose takes quadratic time on a long run of them.
class Normalizer {
public:
    explicit Normalizer(NormalForm form)
        : form_(form),
          options_(static_cast<utf8proc_option_t>(UTF8PROC_STABLE |
                                                  (form == NormalForm::nfd ? UTF8PROC_DECOMPOSE : UTF8PROC_COMPOSE) |
                                                  (form == NormalForm::nfkc ? UTF8PROC_COMPAT : 0))) {}

    std::u32string operator()(std::u32string_view text) {
        constexpr char32_t composed_after_unicode_9 = 0x11938;
        out_.reserve(text.size());
        for (const char32_t c : text) {
            if (form_ == NormalForm::nfc_unicode_9) {
                if (in_ranges(starters_of_unicode_9, c)) {
                    compose();
                    codes_.push_back(static_cast<utf8proc_int32_t>(c));
                    continue;
                }
                if (c == composed_after_unicode_9) {
                    place(static_cast<utf8proc_int32_t>(c));
                    continue;
                }
            }
            std::array<utf8proc_int32_t, 32> parts{};
            int boundary = 0;
            const utf8proc_ssize_t count =
                utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts.data(),
                                        static_cast<utf8proc_ssize_t>(parts.size()), options_, &boundary);
            for (utf8proc_ssize_t i = 0; i < count; ++i) place(parts[static_cast<std::size_t>(i)]);
        }
        compose();
        return std::move(out_);
    }

private:
    struct Mark {
        utf8proc_int32_t code;
        utf8proc_propval_t order;
        std::size_t position;
    };

    void place(utf8proc_int32_t code) {
        const utf8proc_propval_t order = utf8proc_get_property(code)->combining_class;
        if (order != 0) {
            marks_.push_back({code, order, marks_.size()});
            return;
        }
        place_marks();
        codes_.push_back(code);
    }

    void place_marks() {
        // By position too: std::stable_sort of g++ 12 warns under clang.
        std::sort(marks_.begin(), marks_.end(), [](const Mark& a, const Mark& b) {
            return std::pair(a.order, a.position) < std::pair(b.order, b.position);
        });
        for (const Mark& mark : marks_) codes_.push_back(mark.code);
        marks_.clear();
    }

    void compose() {
        place_marks();
        const utf8proc_ssize_t length =
            utf8proc_normalize_utf32(codes_.data(), static_cast<utf8proc_ssize_t>(codes_.size()), options_);
        out_.append(codes_.begin(), codes_.begin() + std::max<utf8proc_ssize_t>(length, 0));
        codes_.clear();
    }

    NormalForm form_;
    utf8proc_option_t options_;
    std::vector<utf8proc_int32_t> codes_;
    std::vector<Mark> marks_;
    std::u32string out_;
};

inline std::u32string normalize(std::u32string text, NormalForm form) {
    // Nothing below U+0300 changes under NFC on its own, and nothing below U+00C0 under NFD.
    const char32_t first = form == NormalForm::nfd ? 0xC0 : 0x300;
    const bool plain = std::all_of(text.begin(), text.end(), [&](char32_t c) { return c < first; });
    return plain && form != NormalForm::nfkc ? text : Normalizer(form)(text);
}

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

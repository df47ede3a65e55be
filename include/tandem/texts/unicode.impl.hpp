// Definitions of texts/unicode.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#if __has_include(<utf8proc.h>)
#include <utf8proc.h>
#endif

#include <tandem/core/platform.hpp>
#include <tandem/texts/code_points.hpp>
#include <tandem/texts/unicode.hpp>

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE std::u32string decode_utf8(std::string_view text) {
    std::u32string out;
    out.reserve(text.size());
    while (!text.empty()) {
        const CodePoint c = front_code_point(text);
        out += c.value;
        text.remove_prefix(c.bytes);
    }
    return out;
}

TANDEM_INLINE std::string encode_utf8(std::u32string_view text) {
    std::string out;
    out.reserve(text.size());
    for (const char32_t c : text) append_utf8(c, out);
    return out;
}

TANDEM_INLINE CharClass char_class(char32_t c, UnicodeEdition edition) {
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

TANDEM_INLINE char32_t lower(char32_t c, bool with_pairs_17) {
    if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 0x20 : c;
    if (c >= 0x1c89) {
        for (const CasePairs& pairs : case_pairs_17) {
            if (c >= pairs.first && c <= pairs.last) return with_pairs_17 ? pairs.lower + (c - pairs.first) : c;
        }
    }
    return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

TANDEM_INLINE bool is_case_ignorable(char32_t c) {
    static constexpr std::array<char32_t, 17> marks_inside_words = {0x27,   0x2E,   0x3A,   0xB7,   0x387,  0x55F,
                                                                    0x5F4,  0x2018, 0x2019, 0x2024, 0x2027, 0xFE13,
                                                                    0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A};
    if (std::find(marks_inside_words.begin(), marks_inside_words.end(), c) != marks_inside_words.end()) return true;
    const utf8proc_category_t kind = category(c);
    return kind == UTF8PROC_CATEGORY_MN || kind == UTF8PROC_CATEGORY_ME || kind == UTF8PROC_CATEGORY_CF ||
           kind == UTF8PROC_CATEGORY_LM || kind == UTF8PROC_CATEGORY_SK;
}

TANDEM_INLINE bool is_cased(char32_t c) {
    static constexpr CodeRange others[] = {{0xAA, 0xAA},       {0xBA, 0xBA},       {0x2160, 0x217F},  {0x24B6, 0x24E9},
                                           {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
    const utf8proc_category_t kind = category(c);
    return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LL || kind == UTF8PROC_CATEGORY_LT ||
           in_ranges(others, c);
}

TANDEM_INLINE bool is_decimal_digit(char32_t c) {
    return c < 0x80 ? c >= '0' && c <= '9' : category(c) == UTF8PROC_CATEGORY_ND;
}

TANDEM_INLINE bool is_python_word(char32_t c) {
    const utf8proc_category_t kind = category(c);
    return c == '_' || (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO) ||
           (kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO);
}

TANDEM_INLINE Normalizer::Normalizer(NormalForm form)
    : form_(form),
      options_(static_cast<int>(UTF8PROC_STABLE | (form == NormalForm::nfd ? UTF8PROC_DECOMPOSE : UTF8PROC_COMPOSE) |
                                (form == NormalForm::nfkc ? UTF8PROC_COMPAT : 0))) {}

TANDEM_INLINE std::u32string Normalizer::operator()(std::u32string_view text) {
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
        const utf8proc_ssize_t count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts.data(),
                                                               static_cast<utf8proc_ssize_t>(parts.size()),
                                                               static_cast<utf8proc_option_t>(options_), &boundary);
        for (utf8proc_ssize_t i = 0; i < count; ++i) place(parts[static_cast<std::size_t>(i)]);
    }
    compose();
    return std::move(out_);
}

TANDEM_INLINE void Normalizer::place(utf8proc_int32_t code) {
    const utf8proc_propval_t order = utf8proc_get_property(code)->combining_class;
    if (order != 0) {
        marks_.push_back({code, order, marks_.size()});
        return;
    }
    place_marks();
    codes_.push_back(code);
}

TANDEM_INLINE void Normalizer::place_marks() {
    // By position too: std::stable_sort of g++ 12 warns under clang.
    std::sort(marks_.begin(), marks_.end(), [](const Mark& a, const Mark& b) {
        return std::pair(a.order, a.position) < std::pair(b.order, b.position);
    });
    for (const Mark& mark : marks_) codes_.push_back(mark.code);
    marks_.clear();
}

TANDEM_INLINE void Normalizer::compose() {
    place_marks();
    const utf8proc_ssize_t length = utf8proc_normalize_utf32(
        codes_.data(), static_cast<utf8proc_ssize_t>(codes_.size()), static_cast<utf8proc_option_t>(options_));
    out_.append(codes_.begin(), codes_.begin() + std::max<utf8proc_ssize_t>(length, 0));
    codes_.clear();
}

TANDEM_INLINE std::u32string normalize(std::u32string text, NormalForm form) {
    // Nothing below U+0300 changes under NFC on its own, and nothing below U+00C0 under NFD.
    const char32_t first = form == NormalForm::nfd ? 0xC0 : 0x300;
    const bool plain = std::all_of(text.begin(), text.end(), [&](char32_t c) { return c < first; });
    return plain && form != NormalForm::nfkc ? text : Normalizer(form)(text);
}

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

// Definitions of texts/clean_text.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include <tandem/core/platform.hpp>
#include <tandem/texts/clean_text.hpp>
#include <tandem/texts/html_entities.hpp>
#include <tandem/texts/mojibake.hpp>
#include <tandem/texts/unicode.hpp>

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI::detail {

/// The letters that ftfy takes a Latin ligature or digraph apart into (chardata.py); empty for all else.
constexpr std::u32string_view ligature_letters(char32_t c) {
    switch (c) {
        case 0x132:
            return U"IJ";
        case 0x133:
            return U"ij";
        case 0x149:
            return U"\u02BCn";
        case 0x1C4:
            return U"D\u017D";
        case 0x1C5:
            return U"D\u017E";
        case 0x1C6:
            return U"d\u017E";
        case 0x1C7:
            return U"LJ";
        case 0x1C8:
            return U"Lj";
        case 0x1C9:
            return U"lj";
        case 0x1CA:
            return U"NJ";
        case 0x1CB:
            return U"Nj";
        case 0x1CC:
            return U"nj";
        case 0x1F1:
            return U"DZ";
        case 0x1F2:
            return U"Dz";
        case 0x1F3:
            return U"dz";
        case 0xFB00:
            return U"ff";
        case 0xFB01:
            return U"fi";
        case 0xFB02:
            return U"fl";
        case 0xFB03:
            return U"ffi";
        case 0xFB04:
            return U"ffl";
        case 0xFB05:
            return U"\u017Ft";
        case 0xFB06:
            return U"st";
        default:
            return {};
    }
}

constexpr char32_t uncurled(char32_t c) {
    if (c == 0x2BC || (c >= 0x2018 && c <= 0x201B)) return '\'';
    return c >= 0x201C && c <= 0x201F ? U'"' : c;
}

/// ftfy's fixes that look at one code point: C1 controls, ligatures, width, quotes, in this order.
TANDEM_INLINE std::u32string fix_characters(std::u32string_view text) {
    std::u32string out;
    out.reserve(text.size());
    for (char32_t c : text) {
        if (c < 0x80) {
            out += c;
            continue;
        }
        c = without_c1(c);
        if (const std::u32string_view letters = ligature_letters(c); !letters.empty()) {
            for (const char32_t letter : letters) out += uncurled(letter);
        } else if (c >= 0xFF01 && c <= 0xFFEF) {
            out += normalize(std::u32string(1, c), NormalForm::nfkc);
        } else {
            out += c == 0x3000 ? U' ' : uncurled(c);
        }
    }
    return out;
}

constexpr bool is_removed_control(char32_t c) {
    return c <= 0x08 || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || (c >= 0x206A && c <= 0x206F) ||
           c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFC);
}

/// The length of the terminal escape (ESC [ digits and semicolons, letter) at the front of `text`; 0 if none is there.
TANDEM_INLINE std::size_t terminal_escape_length(std::u32string_view text) {
    if (text.size() < 3 || text[0] != 0x1B || text[1] != '[') return 0;
    std::size_t at = 2;
    while (at < text.size() && (text[at] == ';' || is_decimal_digit(text[at]))) ++at;
    return at < text.size() && is_ascii_letter(text[at]) ? at + 1 : 0;
}

/// Unix line ends; no terminal escapes, no control characters.
TANDEM_INLINE std::u32string fix_controls(std::u32string_view text) {
    std::u32string out;
    out.reserve(text.size());
    while (!text.empty()) {
        const char32_t c = text.front();
        std::size_t used = 1;
        if (c == '\r') {
            if (text.size() > 1 && text[1] == '\n') used = 2;
            out += U'\n';
        } else if (c == 0x2028 || c == 0x2029) {
            out += U'\n';
        } else if (is_removed_control(c)) {
            used = std::max<std::size_t>(terminal_escape_length(text), 1);
        } else {
            out += c;
        }
        text.remove_prefix(used);
    }
    return out;
}

/// ftfy.fix_and_explain (ftfy 6.3.1): all fixes, again until nothing changes. Two kinds of text cost ftfy quadratic
/// time and stay as they are after 100 rounds: references nested as deep, and some of more than 200 characters whose
/// encoding changes as often.
TANDEM_INLINE std::u32string ftfy_fix_segment(std::u32string text, bool unescape) {
    constexpr std::size_t most_rounds = 100;
    constexpr std::size_t budget_of_short_text = 100'000;
    std::size_t budget = most_rounds * text.size() + budget_of_short_text;
    for (std::size_t round = 0; round < most_rounds; ++round) {
        std::u32string fixed = fix_encoding(unescape ? ftfy_unescape(text) : text, budget);
        fixed = normalize(fix_controls(fix_characters(fixed)), NormalForm::nfc);
        const bool settled = fixed == text;
        text = std::move(fixed);
        if (settled) break;
    }
    return text;
}

TANDEM_INLINE std::u32string ftfy_fix_text(std::u32string_view text) {
    constexpr std::size_t longest_segment = 1'000'000;
    std::u32string out;
    bool unescape = true;
    while (!text.empty()) {
        const std::size_t line = std::min(text.find(U'\n'), text.size() - 1) + 1;
        const std::u32string_view segment = text.substr(0, std::min(line, longest_segment));
        if (segment.find(U'<') != std::u32string_view::npos) unescape = false;
        out += ftfy_fix_segment(std::u32string(segment), unescape);
        text.remove_prefix(segment.size());
    }
    return out;
}

TANDEM_INLINE std::u32string collapse_python_space(std::u32string_view text) {
    std::u32string out;
    out.reserve(text.size());
    bool gap = false;
    for (const char32_t c : text) {
        if (is_python_space(c)) {
            gap = !out.empty();
            continue;
        }
        if (gap) out += U' ';
        gap = false;
        out += c;
    }
    return out;
}

TANDEM_INLINE std::u32string python_lower(std::u32string_view text) {
    std::u32string out;
    out.reserve(text.size());
    bool after_cased = false;  // whether the last code point that is not case-ignorable is cased
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char32_t c = text[i];
        if (c == 0x3A3) {
            std::size_t next = i + 1;
            while (next < text.size() && is_case_ignorable(text[next])) ++next;
            out += after_cased && (next == text.size() || !is_cased(text[next])) ? char32_t{0x3C2} : char32_t{0x3C3};
        } else {
            out += lower(c, false);
            if (c == 0x130) out += char32_t{0x307};
        }
        if (!is_case_ignorable(c)) after_cased = is_cased(c);
    }
    return out;
}

TANDEM_INLINE std::u32string lower_by_letter(std::u32string_view text) {
    std::u32string out;
    out.reserve(text.size());
    for (const char32_t c : text) {
        out += lower(c, true);
        if (c == 0x130) out += char32_t{0x307};
    }
    return out;
}

TANDEM_INLINE std::u32string clean_as_open_clip(std::u32string_view text) {
    const std::u32string fixed = ftfy_fix_text(text);
    return python_lower(collapse_python_space(html_unescape(html_unescape(fixed))));
}

TANDEM_INLINE std::u32string clean_as_transformers(std::u32string_view text) {
    std::u32string out;
    out.reserve(text.size());
    bool in_space = false;
    for (const char32_t c : normalize(std::u32string(text), NormalForm::nfc_unicode_9)) {
        const bool space = is_white_space(c);
        if (!space || !in_space) out += space ? U' ' : c;
        in_space = space;
    }
    return lower_by_letter(out);
}

TANDEM_INLINE std::string clean_space_as_open_clip(std::string_view text) {
    return encode_utf8(collapse_python_space(html_unescape(html_unescape(ftfy_fix_text(decode_utf8(text))))));
}

TANDEM_INLINE std::u32string without_punctuation(std::u32string text) {
    std::erase_if(text, [](char32_t c) {
        return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
    });
    return text;
}

TANDEM_INLINE std::string canonicalize_as_open_clip(std::string_view text) {
    std::u32string codes = html_unescape(html_unescape(ftfy_fix_text(decode_utf8(text))));
    std::replace(codes.begin(), codes.end(), U'_', U' ');
    return encode_utf8(collapse_python_space(python_lower(without_punctuation(std::move(codes)))));
}

TANDEM_INLINE bool is_plain(std::string_view text, Cleaning cleaning) {
    return std::all_of(text.begin(), text.end(), [&](char c) {
        return (c >= 0x20 && c < 0x7F && (c != '&' || cleaning == Cleaning::transformers)) || c == '\t' || c == '\n';
    });
}

TANDEM_INLINE std::string clean_plain(std::string_view text, Cleaning cleaning) {
    std::string out;
    out.reserve(text.size());
    bool gap = false;
    for (const char c : text) {
        if (c == ' ' || c == '\t' || c == '\n') {
            gap = cleaning == Cleaning::transformers || !out.empty();
            continue;
        }
        if (gap) out += ' ';
        gap = false;
        out += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 0x20) : c;
    }
    if (gap && cleaning == Cleaning::transformers) out += ' ';
    return out;
}

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE std::string clean_text(std::string_view text, Cleaning cleaning) {
    if (detail::is_plain(text, cleaning)) return detail::clean_plain(text, cleaning);
    const std::u32string codes = detail::decode_utf8(text);
    return detail::encode_utf8(cleaning == Cleaning::open_clip ? detail::clean_as_open_clip(codes)
                                                               : detail::clean_as_transformers(codes));
}

}  // namespace tandem::inline TANDEM_ABI

#endif

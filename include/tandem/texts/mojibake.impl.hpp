// Definitions of texts/mojibake.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/platform.hpp>
#include <tandem/texts/html_entities.hpp>
#include <tandem/texts/mojibake.hpp>
#include <tandem/texts/mojibake_tables.hpp>
#include <tandem/texts/unicode.hpp>

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI::detail {

/// ftfy's single-byte codecs are numbered in the order of its attempts: Latin-1, Windows-1252, 1251, 1250, 1253, 1254
/// and 1257, ISO 8859-2, MacRoman, code page 437.
inline constexpr unsigned mojibake_codec_count = 10;

inline constexpr unsigned mac_roman = 8;

/// The codecs of Windows: holes stand for themselves, and byte 0x1A for U+FFFD, the trace of a byte that was lost.
constexpr bool is_sloppy(unsigned codec) {
    return codec >= 1 && codec <= 6;
}

inline constexpr char lost_byte = 0x1A;

/// What the tables know of one character.
struct MojibakeCharacter {
    static constexpr std::size_t longest_rule = 7;

    std::uint32_t classes = 0;
    /// Bit r of row k: it may stand at place k of rule r, or the rule is over by then.
    std::array<std::uint64_t, longest_rule> rules{};
    std::array<unsigned char, mojibake_codec_count> bytes{};  ///< in each codec; 0 where it has none. Not of ASCII.
};

/// The three tables, by character.
class MojibakeTables {
public:
    static const MojibakeTables& get() {
        static const MojibakeTables tables;
        return tables;
    }

    /// A set of classes by their letters.
    static constexpr std::uint32_t classes(std::string_view letters) {
        std::uint32_t set = 0;
        for (const char letter : letters) set |= std::uint32_t{1} << class_letters.find(letter);
        return set;
    }

    /// Of a character that no table names the class of letters and digits is left out: it takes long to tell, and no
    /// rule asks for it at its first two places.
    const MojibakeCharacter& roughly(char32_t c) const {
        return characters_[c < 0x10000 ? positions_[pages_[c >> 8] * 256U + (c & 0xFF)] : other];
    }

    const MojibakeCharacter& at(char32_t c) const {
        const MojibakeCharacter& found = roughly(c);
        return &found == &characters_[other] && is_python_word(c) ? characters_[other_word] : found;
    }

    const MojibakeCharacter& after_the_end() const { return characters_[end]; }

    std::uint64_t rules_for_the_start() const { return at_start_; }

private:
    static constexpr std::string_view class_letters = "obwmSEnkAaUux1zZ_l.234tT";
    static constexpr std::uint32_t named = std::uint32_t{1} << 31;  ///< a class for the member of a rule at hand
    static constexpr std::size_t other = 0;
    static constexpr std::size_t other_word = 1;
    static constexpr std::size_t end = 2;

    [[gnu::cold]] MojibakeTables() : pages_{}, positions_(256), characters_(3) {
        characters_[other].classes = classes(".");
        characters_[other_word].classes = classes(".l");
        for (char32_t c = 0; c <= 0x3000; ++c) {
            if (c < 0x80 || is_python_space(c)) insert(c);
        }
        for (std::string_view table = mojibake_classes; !table.empty();) {
            const std::string_view entry = cut_entry(table, ' ');
            for (const char32_t c : characters_of(entry.substr(1))) insert(c).classes |= classes(entry.substr(0, 1));
        }
        std::u32string upper = characters_of("80-ff");
        add_codec(0, upper);
        std::copy(windows_1252.begin(), windows_1252.end(), upper.begin());
        add_codec(1, upper);
        unsigned codec = 2;
        for (std::string_view table = mojibake_codecs; !table.empty(); ++codec)
            add_codec(codec, characters_of(cut_entry(table, ' ')));
        unsigned rule = 0;
        for (std::string_view table = mojibake_rules; !table.empty(); ++rule) add_rule(rule, cut_entry(table, ' '));
    }

    /// Takes the first entry off a list.
    static std::string_view cut_entry(std::string_view& list, char separator) {
        const std::string_view entry = list.substr(0, list.find(separator));
        list.remove_prefix(std::min(list.size(), entry.size() + 1));
        return entry;
    }

    static char32_t code_point(std::string_view digits) {
        unsigned value = 0;
        std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
        return value;
    }

    [[gnu::cold]] static std::u32string characters_of(std::string_view ranges) {
        std::u32string out;
        while (!ranges.empty()) {
            std::string_view last = cut_entry(ranges, ',');
            const std::string_view first = cut_entry(last, '-');
            const char32_t until = code_point(last.empty() ? first : last);
            for (char32_t c = code_point(first); c <= until; ++c) out += c;
        }
        return out;
    }

    [[gnu::cold]] MojibakeCharacter& insert(char32_t c) {
        std::uint16_t& page = pages_[c >> 8];
        if (page == 0) {
            page = static_cast<std::uint16_t>(positions_.size() / 256);
            positions_.resize(positions_.size() + 256);
        }
        std::uint16_t& position = positions_[page * 256U + (c & 0xFF)];
        if (position == other) {
            position = static_cast<std::uint16_t>(characters_.size());
            characters_.emplace_back().classes = (c == '\n' ? 0 : classes(".")) |
                                                 (is_python_space(c) ? classes("_") : 0) |
                                                 (is_python_word(c) ? classes("l") : 0);
        }
        return characters_[position];
    }

    [[gnu::cold]] void add_codec(unsigned codec, std::u32string_view upper) {
        unsigned char byte = 0x80;
        for (const char32_t c : upper) insert(c).bytes[codec] = byte++;
        if (is_sloppy(codec)) insert(replacement_character).bytes[codec] = lost_byte;
    }

    [[gnu::cold]] void add_rule(unsigned rule, std::string_view members) {
        const std::uint64_t bit = std::uint64_t{1} << rule;
        if (members.front() == '^') {
            at_start_ |= bit;
            members.remove_prefix(1);
        }
        for (std::size_t place = 0; place < MojibakeCharacter::longest_rule; ++place) {
            const bool over = members.empty();
            std::string_view single = cut_entry(members, ',');
            const bool negated = single.starts_with('!');
            if (negated) single.remove_prefix(1);
            const std::uint32_t wanted = classes(cut_entry(single, '=')) | named;
            while (!single.empty()) insert(code_point(cut_entry(single, '+'))).classes |= named;
            for (MojibakeCharacter& c : characters_) {
                const bool fits = ((c.classes & wanted) != 0) != negated && &c != &characters_[end];
                if (over || fits) c.rules[place] |= bit;
                c.classes &= ~named;
            }
        }
    }

    std::array<std::uint16_t, 256> pages_;
    std::vector<std::uint16_t> positions_;  ///< pages of 256
    std::vector<MojibakeCharacter> characters_;
    std::uint64_t at_start_ = 0;
};

TANDEM_INLINE bool is_bad(std::u32string_view text) {
    if (std::all_of(text.begin(), text.end(), [](char32_t c) { return c < 0x80; })) return false;
    const MojibakeTables& tables = MojibakeTables::get();
    std::uint64_t rules = ~std::uint64_t{0};
    const MojibakeCharacter* first = &tables.roughly(text.front());
    for (std::size_t i = 0; i < text.size(); ++i) {
        const MojibakeCharacter* second = i + 1 < text.size() ? &tables.roughly(text[i + 1]) : &tables.after_the_end();
        std::uint64_t hits = rules & first->rules[0] & second->rules[1];
        for (std::size_t place = 2; hits != 0 && place < MojibakeCharacter::longest_rule; ++place)
            hits &= (i + place < text.size() ? tables.at(text[i + place]) : tables.after_the_end()).rules[place];
        if (hits != 0) return true;
        rules = ~tables.rules_for_the_start();
        first = second;
    }
    return false;
}

/// The byte at a place, 0 behind the end.
constexpr unsigned byte_at(std::string_view bytes, std::size_t i) {
    return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0;
}

constexpr bool is_trail_byte(unsigned byte) {
    return byte >= 0x80 && byte <= 0xBF;
}

/// The length of the UTF-8 sequence at the front of `bytes` that has a space for its byte 0xA0; 0 if none is there.
/// Only such as make a likely character (chardata.py, ALTERED_UTF8_RE).
[[gnu::cold]] TANDEM_INLINE std::size_t spaced_sequence_length(std::string_view bytes) {
    const unsigned lead = byte_at(bytes, 0);
    if (lead == 0xF0) {
        std::size_t spaces = 0;
        for (std::size_t i = 1; i <= 3; ++i) {
            if (byte_at(bytes, i) == ' ')
                ++spaces;
            else if (!is_trail_byte(byte_at(bytes, i)))
                return 0;
        }
        return spaces == 1 ? 4 : 0;
    }
    const auto is_likely = [&](std::size_t i) {
        const unsigned byte = byte_at(bytes, i);
        return is_trail_byte(byte) && byte != 0x85 && byte != 0xA0;
    };
    if (lead >= 0xE0 && lead <= 0xE3) {
        const bool first = byte_at(bytes, 1) == ' ' && is_likely(2) && lead >= 0xE2;
        return first || (is_likely(1) && byte_at(bytes, 2) == ' ') ? 3 : 0;
    }
    const bool two = lead == 0xC2 || lead == 0xC3 || lead == 0xC5 || lead == 0xCE || lead == 0xD0 || lead == 0xD9;
    return two && byte_at(bytes, 1) == ' ' ? 2 : 0;
}

/// fixes.py, restore_byte_a0: spaces back to 0xA0 where that makes UTF-8. "à" keeps its space, save at the front of a
/// few Portuguese words.
[[gnu::cold]] TANDEM_INLINE std::string restore_byte_a0(std::string_view bytes) {
    constexpr std::array<std::string_view, 5> joined = {" ", "quele", "quela", "quilo", "s "};
    std::string out;
    out.reserve(bytes.size());
    while (!bytes.empty()) {
        std::size_t used = std::max<std::size_t>(spaced_sequence_length(bytes), 1);
        const std::size_t begin = out.size();
        out += bytes.substr(0, used);
        if (used > 1) std::replace(out.begin() + static_cast<std::ptrdiff_t>(begin), out.end(), ' ', '\xA0');
        const bool grave = used == 2 && bytes.front() == '\xC3';
        bytes.remove_prefix(used);
        if (grave && std::none_of(joined.begin(), joined.end(), [&](auto word) { return bytes.starts_with(word); }))
            out += ' ';
    }
    return out;
}

/// The length of the UTF-8 or CESU-8 sequence at the front of `bytes` that has lost bytes: 0x1A, or one "?"; 0 if none
/// is there (chardata.py, LOSSY_UTF8_RE).
[[gnu::cold]] TANDEM_INLINE std::size_t lossy_sequence_length(std::string_view bytes) {
    const auto is_lost = [&](std::size_t i) { return byte_at(bytes, i) == lost_byte; };
    const auto is_unknown = [&](std::size_t i) { return is_lost(i) || byte_at(bytes, i) == '?'; };
    const auto is_trail = [&](std::size_t i) { return is_trail_byte(byte_at(bytes, i)); };
    const auto in = [&](std::size_t i, unsigned first, unsigned last) {
        return byte_at(bytes, i) >= first && byte_at(bytes, i) <= last;
    };
    if (is_lost(0)) return 1;
    if (in(0, 0xC2, 0xDF)) return is_lost(1) || (in(0, 0xC2, 0xC3) && is_unknown(1)) ? 2 : 0;
    if (in(0, 0xED, 0xED) && in(1, 0xA0, 0xAF) && in(3, 0xED, 0xED) && in(4, 0xB0, 0xBF) &&
        (is_unknown(2) || is_trail(2)) && (is_unknown(5) || is_trail(5)) && (is_unknown(2) || is_unknown(5)))
        return 6;
    if (!in(0, 0xE0, 0xF4)) return 0;
    const std::size_t length = in(0, 0xE0, 0xEF) ? 3 : 4;
    std::size_t lost = 0;
    std::size_t marks = 0;
    for (std::size_t i = 1; i < length; ++i) {
        if (is_lost(i))
            ++lost;
        else if (is_unknown(i))
            ++marks;
        else if (!is_trail(i))
            return 0;
    }
    return lost + marks > 0 && marks <= 1 ? length : 0;
}

/// fixes.py, replace_lossy_sequences: U+FFFD for each.
[[gnu::cold]] TANDEM_INLINE std::string replace_lossy_sequences(std::string_view bytes) {
    std::string out;
    out.reserve(bytes.size());
    while (!bytes.empty()) {
        const std::size_t lossy = lossy_sequence_length(bytes);
        if (lossy)
            append_utf8(replacement_character, out);
        else
            out += bytes.front();
        bytes.remove_prefix(std::max<std::size_t>(lossy, 1));
    }
    return out;
}

/// Decodes UTF-8, CESU-8 and Java's two bytes of NUL (bad_codecs/utf8_variants.py); nothing if some byte is neither.
/// Where a sequence of the latter two wants its last byte, ftfy takes the line feed that ends the text for it.
[[gnu::cold]] TANDEM_INLINE std::optional<std::u32string> decode_utf8_variants(std::string_view bytes) {
    std::u32string out;
    out.reserve(bytes.size());
    const auto is_last = [&](std::size_t i) {
        return is_trail_byte(byte_at(bytes, i)) || (byte_at(bytes, i) == '\n' && i + 1 == bytes.size());
    };
    while (!bytes.empty()) {
        const unsigned second = byte_at(bytes, 1);
        CodePoint c;
        if (bytes.front() == '\xC0' && is_last(1) && (second == 0x80 || second == '\n')) {
            c = {0, 2};
        } else if (bytes.front() == '\xED' && second >= 0xA0 && second <= 0xAF && is_trail_byte(byte_at(bytes, 2)) &&
                   byte_at(bytes, 3) == 0xED && byte_at(bytes, 4) >= 0xB0 && byte_at(bytes, 4) <= 0xBF && is_last(5)) {
            c.value = 0x10000 + ((second & 0x0F) << 16) + ((byte_at(bytes, 2) & 0x3F) << 10) +
                      ((byte_at(bytes, 4) & 0x0F) << 6) + (byte_at(bytes, 5) & 0x3F);
            c.bytes = 6;
        } else {
            c = front_code_point(bytes);
            if (c.value == replacement_character && !bytes.starts_with("\xEF\xBF\xBD")) return std::nullopt;
        }
        out += c.value;
        bytes.remove_prefix(c.bytes);
    }
    return out;
}

/// The text as UTF-8 that one of the codecs has read; nothing if no codec gives UTF-8.
[[gnu::cold]] TANDEM_INLINE std::optional<std::u32string> decode_again(std::u32string_view text) {
    const MojibakeTables& tables = MojibakeTables::get();
    for (unsigned codec = 0; codec < mojibake_codec_count; ++codec) {
        std::string bytes;
        bytes.reserve(text.size());
        for (const char32_t c : text) {
            const bool plain = c < 0x80 && (c != lost_byte || !is_sloppy(codec));
            const unsigned char byte = plain ? static_cast<unsigned char>(c) : tables.roughly(c).bytes[codec];
            if (byte == 0 && !plain) break;
            bytes += static_cast<char>(byte);
        }
        if (bytes.size() < text.size()) continue;
        if (codec != mac_roman) bytes = restore_byte_a0(bytes);  // there an en dash and a space look so
        if (is_sloppy(codec)) bytes = replace_lossy_sequences(bytes);
        if (auto decoded = decode_utf8_variants(bytes)) return decoded;
    }
    return std::nullopt;
}

inline std::u32string fix_encoding(std::u32string text, std::size_t& budget);

/// How many characters at the front of `text` look like mis-decoded UTF-8 (chardata.py, UTF8_DETECTOR_RE).
[[gnu::cold]] TANDEM_INLINE std::size_t utf8_clue_length(std::u32string_view text) {
    const MojibakeTables& tables = MojibakeTables::get();
    const auto is = [&](std::size_t i, std::uint32_t classes) {
        return i < text.size() && (tables.roughly(text[i]).classes & classes) != 0;
    };
    std::size_t length = 0;
    for (;;) {
        std::size_t trails = 0;
        while (trails < 3 && is(length + 1 + trails, MojibakeTables::classes("t"))) ++trails;
        std::size_t used = 0;
        if (trails >= 1 && is(length, MojibakeTables::classes("2")))
            used = 2;
        else if (trails >= 2 && is(length, MojibakeTables::classes("3")))
            used = 3;
        else if (trails >= 3 && is(length, MojibakeTables::classes("4")))
            used = 4;
        if (used == 0) return length;
        length += used;
    }
}

/// fixes.py, decode_inconsistent_utf8: mends the parts that look mis-decoded, each for itself.
[[gnu::cold]] TANDEM_INLINE std::u32string fix_parts(std::u32string_view text, std::size_t& budget) {
    const MojibakeTables& tables = MojibakeTables::get();
    std::u32string out;
    out.reserve(text.size());
    const std::size_t whole = text.size();
    bool after_trail = false;
    while (!text.empty()) {
        const std::size_t length = after_trail ? 0 : utf8_clue_length(text);
        const std::u32string_view part = text.substr(0, std::max<std::size_t>(length, 1));
        if (length != 0 && length < whole)
            out += fix_encoding(std::u32string(part), budget);
        else
            out += part;
        after_trail = (tables.roughly(part.back()).classes & MojibakeTables::classes("T")) != 0;
        text.remove_prefix(part.size());
    }
    return out;
}

TANDEM_INLINE std::u32string fix_encoding(std::u32string text, std::size_t& budget) {
    while (text.size() <= budget && is_bad(text)) {
        budget -= text.size();
        std::u32string fixed;
        if (auto decoded = decode_again(text)) {
            fixed = *std::move(decoded);
        } else {
            fixed = fix_parts(text, budget);
            // Of its two ways with C1 controls, ftfy tries the one for Latin-1 first; both give Windows-1252.
            if (fixed == text) std::transform(text.begin(), text.end(), fixed.begin(), without_c1);
        }
        if (fixed == text) break;
        text = std::move(fixed);
    }
    return text;
}

TANDEM_INLINE char32_t without_c1(char32_t c) {
    return c >= 0x80 && c <= 0x9F ? char32_t{windows_1252[c - 0x80]} : c;
}

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

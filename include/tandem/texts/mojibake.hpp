// ftfy's repair of text that was decoded by the wrong encoding ("cafÃ©" for "café").
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
#include <tandem/texts/unicode.hpp>

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI::detail {

// ftfy's classes of characters, its rules for what looks mis-decoded (badness.py, chardata.py) and its single-byte
// codecs, written by tests/texts/make_mojibake_tables.py, which explains the notation. Not views: their lengths would
// be counted in every compilation.
// clang-format off
inline constexpr char mojibake_classes[] =
    // classes begin
    "oa0,ad,b4,b7,2013-2015,2019,2026 ba4,a6,a8,aa,ac,af,b8,ba,192,2c6-2c7,2d8,2db-2dc,2020-2021,2030,2310,25ca,fffd "
    "wa7,b6 ma2-a3,a5,20a7,20ac Sa1,a9,ab,bf,384-385,2018,201a,201c,201e,2022,2039,f8ff Eae,bb,2dd,201d,203a,2122 "
    "nb1-b3,b5,b9,bc-be,d7,f7,2044,2116,2202,2206,220f,2211,221a,221e,2229,222b,2248,2260-2261,2264-2265 kb0,d2-d6,"
    "d9-dc,f2-f6,f8-fc,14c,150,16a,172 Ac0-d1,d8,dc-dd,100,102,104,106,10c,10e,110,112,116,118,11a,11e,122,12a,130,"
    "136,139,13b,13d,141,143,145,147,152,158,15a,15e,160,162,164,16e,170,178-179,17b,17d,490 adf-f1,fc,101,103,105,"
    "107,10d,10f,111,113,117,119,11b,11f,123,12b,12f,137,13a,13c,13e,142,153,155,15b,15f,161,165,17a,17c,17e,491,"
    "fb01-fb02 Ude,386,388-38a,38c,38e-38f,391-3ab,401-42f u3ac-3c9,430-45f x2502,250c,2510,2518,251c,2524,252c,253c,"
    "2550-256c,2580,2584,2588,258c,2590-2593 180-9f z61-7a Z41-5a 2c2-df,100,102,106,10c,10e,110,112,116,118,11a,11e,"
    "122,12a,130,136,139,13b,141,143,145,147,14c,150,158,15a,15e,160,162,16a,16e,170,172,179,17b,17d,392-3a1,3a3-3af,"
    "412-42f 3e0-ef,101,103,105,107,10d,10f,113,117,119,11b,123,12b,12f,137,13a,13c,155,17a,3b0-3bf,430-43f 4f0,f3,"
    "111,11f,161,3c0,3c3,440,443 t20,80-bf,c6,d8,e6,f8,104-105,13d-13e,141-142,152-153,156-157,15a-15b,15e-161,"
    "164-165,178-17e,192,2c6-2c7,2d8,2db-2dd,384-386,388-38a,38c,38e-38f,401-40c,40e-40f,451-45c,45e-45f,490-491,"
    "2013-2015,2018-201a,201c-201e,2020-2022,2026,2030,2039-203a,20ac,2116,2122 T80-bf,c6,d8,e6,f8,104-105,13d-13e,"
    "141-142,152-153,156-157,15a-15b,15e-161,164-165,178-17e,192,2c6-2c7,2d8,2db-2dd,384-386,388-38a,38c,38e-38f,"
    "401-40c,40e-40f,451-45c,45e-45f,490-491,2020-2021,2030,2039-203a,20ac,2116,2122 "
    // classes end
    ;
inline constexpr char mojibake_rules[] =
    // rules begin
    "1 bwmSEnAax,b zZ,Uu,b b,wmSEnAax mEnaux,A mEnx,a Eax,m _,A,m Ax,wn mEAax,S,n wmnAax,E,S mnx,S z,A,mS x,k "
    "wmSEnAa,x x,E Aa,SE,l =152+153,!zZ A,=b0 =c2+c3+ce+d0,"
    "SE=a0+a2+a3+ad+b0+b4+b7+153+160+161+178+17e+2013+2014+20ac =d7,=b2+b3 =d8+d9,obmSn=ae+b0+bb+160+178,=d8+d9,"
    "obmSn=ae+b0+bb+160+178 =e0,=b2+b5+b9+bc+bd+be =221a,=a5+ae+b1+b4+b5+f8+2020+2122+2202+2260+2264+2265 =2248,"
    "=a2+b0 =201a,=c4,=a2+b0+ec+ee+ef+f2+f4+f9+fa+fb+3c0+2020 =201a,=e2+f3,=b0+e0+e4+ea =432,=402 =412+413+420+421,"
    "bmSE1=b0+b5,=412+413+420+421 =413,=45e,=412,=402,=412,.,zZ=20 =c3,=a0+a1 z,=c2+c3,=20 z,_,=c2+c3,=20 ^=c2+c3,"
    "=20 Ez=21+2c+2e+3f,=c2,SE=20 =3b2,=20ac,=a0+ad+ae+b0+386+2122 =392+393+39e+39f,bmSE1=b0,=392+393+39e+39f =101,"
    "=20ac "
    // rules end
    ;
inline constexpr char mojibake_codecs[] =
    // codecs begin
    "402-403,201a,453,201e,2026,2020-2021,20ac,2030,409,2039,40a,40c,40b,40f,452,2018-2019,201c-201d,2022,2013-2014,"
    "98,2122,459,203a,45a,45c,45b,45f,a0,40e,45e,408,a4,490,a6-a7,401,a9,404,ab-ae,407,b0-b1,406,456,491,b5-b7,451,"
    "2116,454,bb,458,405,455,457,410-44f 20ac,81,201a,83,201e,2026,2020-2021,88,2030,160,2039,15a,164,17d,179,90,"
    "2018-2019,201c-201d,2022,2013-2014,98,2122,161,203a,15b,165,17e,17a,a0,2c7,2d8,141,a4,104,a6-a9,15e,ab-ae,17b,"
    "b0-b1,2db,142,b4-b8,105,15f,bb,13d,2dd,13e,17c,154,c1-c2,102,c4,139,106,c7,10c,c9,118,cb,11a,cd-ce,10e,110,143,"
    "147,d3-d4,150,d6-d7,158,16e,da,170,dc-dd,162,df,155,e1-e2,103,e4,13a,107,e7,10d,e9,119,eb,11b,ed-ee,10f,111,144,"
    "148,f3-f4,151,f6-f7,159,16f,fa,171,fc-fd,163,2d9 20ac,81,201a,192,201e,2026,2020-2021,88,2030,8a,2039,8c-90,"
    "2018-2019,201c-201d,2022,2013-2014,98,2122,9a,203a,9c-a0,385-386,a3-ae,2015,b0-b3,384,b5-b7,388-38a,bb,38c,bd,"
    "38e-3a1,d2,3a3-3ce,ff 20ac,81,201a,192,201e,2026,2020-2021,2c6,2030,160,2039,152,8d-90,2018-2019,201c-201d,2022,"
    "2013-2014,2dc,2122,161,203a,153,9d-9e,178,a0-cf,11e,d1-dc,130,15e,df-ef,11f,f1-fc,131,15f,ff 20ac,81,201a,83,"
    "201e,2026,2020-2021,88,2030,8a,2039,8c,a8,2c7,b8,90,2018-2019,201c-201d,2022,2013-2014,98,2122,9a,203a,9c,af,"
    "2db,9f-a7,d8,a9,156,ab-ae,c6,b0-b7,f8,b9,157,bb-be,e6,104,12e,100,106,c4-c5,118,112,10c,c9,179,116,122,136,12a,"
    "13b,160,143,145,d3,14c,d5-d7,172,141,15a,16a,dc,17b,17d,df,105,12f,101,107,e4-e5,119,113,10d,e9,17a,117,123,137,"
    "12b,13c,161,144,146,f3,14d,f5-f7,173,142,15b,16b,fc,17c,17e,2d9 80-a0,104,2d8,141,a4,13d,15a,a7-a8,160,15e,164,"
    "179,ad,17d,17b,b0,105,2db,142,b4,13e,15b,2c7,b8,161,15f,165,17a,2dd,17e,17c,154,c1-c2,102,c4,139,106,c7,10c,c9,"
    "118,cb,11a,cd-ce,10e,110,143,147,d3-d4,150,d6-d7,158,16e,da,170,dc-dd,162,df,155,e1-e2,103,e4,13a,107,e7,10d,e9,"
    "119,eb,11b,ed-ee,10f,111,144,148,f3-f4,151,f6-f7,159,16f,fa,171,fc-fd,163,2d9 c4-c5,c7,c9,d1,d6,dc,e1,e0,e2,e4,"
    "e3,e5,e7,e9,e8,ea-eb,ed,ec,ee-ef,f1,f3,f2,f4,f6,f5,fa,f9,fb-fc,2020,b0,a2-a3,a7,2022,b6,df,ae,a9,2122,b4,a8,"
    "2260,c6,d8,221e,b1,2264-2265,a5,b5,2202,2211,220f,3c0,222b,aa,ba,3a9,e6,f8,bf,a1,ac,221a,192,2248,2206,ab,bb,"
    "2026,a0,c0,c3,d5,152-153,2013-2014,201c-201d,2018-2019,f7,25ca,ff,178,2044,20ac,2039-203a,fb01-fb02,2021,b7,"
    "201a,201e,2030,c2,ca,c1,cb,c8,cd-cf,cc,d3-d4,f8ff,d2,da-db,d9,131,2c6,2dc,af,2d8-2da,b8,2dd,2db,2c7 c7,fc,e9,e2,"
    "e4,e0,e5,e7,ea-eb,e8,ef,ee,ec,c4-c5,c9,e6,c6,f4,f6,f2,fb,f9,ff,d6,dc,a2-a3,a5,20a7,192,e1,ed,f3,fa,f1,d1,aa,ba,"
    "bf,2310,ac,bd,bc,a1,ab,bb,2591-2593,2502,2524,2561-2562,2556,2555,2563,2551,2557,255d,255c,255b,2510,2514,2534,"
    "252c,251c,2500,253c,255e-255f,255a,2554,2569,2566,2560,2550,256c,2567-2568,2564-2565,2559,2558,2552-2553,256b,"
    "256a,2518,250c,2588,2584,258c,2590,2580,3b1,df,393,3c0,3a3,3c3,b5,3c4,3a6,398,3a9,3b4,221e,3c6,3b5,2229,2261,b1,"
    "2265,2264,2320-2321,f7,2248,b0,2219,b7,221a,207f,b2,25a0,a0 "
    // codecs end
    ;
// clang-format on

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

/// ftfy's is_bad (badness.py): whether some sequence of characters looks mis-decoded. All rules are tried at once, a
/// bit for each.
inline bool is_bad(std::u32string_view text) {
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
[[gnu::cold]] inline std::size_t spaced_sequence_length(std::string_view bytes) {
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
[[gnu::cold]] inline std::string restore_byte_a0(std::string_view bytes) {
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
[[gnu::cold]] inline std::size_t lossy_sequence_length(std::string_view bytes) {
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
[[gnu::cold]] inline std::string replace_lossy_sequences(std::string_view bytes) {
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
[[gnu::cold]] inline std::optional<std::u32string> decode_utf8_variants(std::string_view bytes) {
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
[[gnu::cold]] inline std::optional<std::u32string> decode_again(std::u32string_view text) {
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
[[gnu::cold]] inline std::size_t utf8_clue_length(std::u32string_view text) {
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
[[gnu::cold]] inline std::u32string fix_parts(std::u32string_view text, std::size_t& budget) {
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

/// fixes.py, fix_c1_controls, of one character: what Windows-1252 has in the place of a C1 control.
constexpr char32_t without_c1(char32_t c) {
    return c >= 0x80 && c <= 0x9F ? char32_t{windows_1252[c - 0x80]} : c;
}

/// ftfy.fix_encoding (ftfy 6.3.1, __init__.py): mends text that looks mis-decoded, again while that changes it.
/// `budget` is how many characters to look at before it stops: of some texts each round mends one character, and ftfy
/// takes quadratic time.
inline std::u32string fix_encoding(std::u32string text, std::size_t& budget) {
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

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

// Unigram vocabularies, as SentencePiece and as the tokenizers package apply them. Written here, since Debian's
// libsentencepiece 0.1.97 breaks ties between segmentations of equal score ("..." as ".." + ".") otherwise than the
// releases with which the published models' ids are made, and tokenizers differs from both.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/added_tokens.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// The fields of a message of Protocol Buffers, one after the other (protobuf.dev/programming-guides/encoding).
class ProtobufReader {
public:
    explicit ProtobufReader(std::string_view message) : rest_(message) {}

    /// Moves to the next field; false at the end. Throws Error where the message breaks off.
    bool next() {
        if (rest_.empty()) return false;
        const std::uint64_t key = varint();
        field = static_cast<std::size_t>(key >> 3);
        switch (key & 7) {
            case 0:
                number = varint();
                return true;
            case 1:
                bytes = take(8);
                return true;
            case 2:
                bytes = take(varint());
                return true;
            case 5:
                bytes = take(4);
                return true;
            default:
                throw Error("protobuf", "a wire type of 0, 1, 2 or 5", std::to_string(key & 7));
        }
    }

    std::size_t field = 0;
    std::uint64_t number = 0;  ///< of a field that is a number or a flag
    std::string_view bytes;    ///< of a text, a message or a float

    float real() const {
        if (bytes.size() != 4) throw Error("protobuf", "a float of 4 bytes", std::to_string(bytes.size()));
        float value;
        std::memcpy(&value, bytes.data(), sizeof value);
        return value;
    }

private:
    std::uint64_t varint() {
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            const auto byte = static_cast<unsigned char>(take(1)[0]);
            value |= static_cast<std::uint64_t>(byte & 0x7FU) << shift;
            if (byte < 0x80) return value;
        }
        throw Error("protobuf", "a number of at most 64 bits");
    }
    std::string_view take(std::uint64_t size) {
        if (size > rest_.size()) throw Error("protobuf", "a message that does not break off");
        const std::string_view taken = rest_.substr(0, static_cast<std::size_t>(size));
        rest_.remove_prefix(taken.size());
        return taken;
    }

    std::string_view rest_;
};

/// SentencePiece's unigram model (Kudo 2018), as src/unigram_model.cc and src/normalizer.cc of its release 0.2.0 apply
/// it.
class UnigramModel {
public:
    /// Throws Error if the bytes are no such model. They must stay as long as the object.
    [[gnu::cold]] explicit UnigramModel(std::string_view model) {
        ProtobufReader fields(model);
        while (fields.next()) {
            if (fields.field == 1) add_piece(fields.bytes);
            if (fields.field == 2) read_trainer(fields.bytes);
            if (fields.field == 3) read_normalizer(fields.bytes);
        }
        if (unknown_ < 0) throw Error("sentencepiece", "a piece for what is unknown", "none");
        std::sort(trie_.begin(), trie_.end());
    }

    /// The same of a tokenizer.json: pieces whose ids are their places. They and the map must stay as long as the
    /// object.
    [[gnu::cold]] UnigramModel(std::span<const std::pair<std::string, double>> pieces, Id unknown,
                               std::string_view character_map)
        : size_(pieces.size()), unknown_(unknown) {
        for (std::size_t i = 0; i < pieces.size(); ++i) {
            const auto& [text, score] = pieces[i];
            lowest_ = std::min(lowest_, score);
            if (!text.empty()) trie_.push_back({text, static_cast<Id>(i), score, normal});
        }
        read_character_map(character_map);
        std::sort(trie_.begin(), trie_.end());
    }

    std::size_t size() const { return size_; }
    Id end() const { return end_; }
    Id unknown() const { return unknown_; }

    /// As SentencePiece encodes a text. Its scores are float.
    std::vector<Id> encode(std::string_view text) const {
        std::vector<Id> ids;
        segment<float>(normalize(text), ids);
        return ids;
    }

    /// As the tokenizers package does with Precompiled, WhitespaceSplit and Metaspace: word by word, each behind a mark
    /// of its space, with scores in double. `text` is a text's part that the character map has been applied to.
    void append_words(std::string_view text, std::vector<Id>& ids) const {
        for (std::size_t at = 0; at < text.size();) {
            const std::size_t begin = at;
            while (at < text.size() && space_at(text, at) == 0) ++at;
            if (at > begin) append_word(text.substr(begin, at - begin), ids);
            if (at < text.size()) at += space_at(text, at);
        }
    }

    /// The same with Metaspace alone, which splits at spaces, each of which counts, and at no other white space.
    void append_marked(std::string_view text, std::vector<Id>& ids) const {
        if (text.empty()) return;
        std::string marked;
        for (const char letter : text) letter == ' ' ? marked += space_mark : marked += letter;
        append_word(marked, ids);
    }

    /// What the character map makes of a grapheme, as tokenizers' Precompiled has it (normalizers/precompiled.rs): of
    /// the shortest prefix that the map knows, what stands behind it is dropped; else, or if it has 6 bytes or more, of
    /// every letter alone.
    void append_mapped(std::string_view grapheme, std::string& out) const {
        if (grapheme.size() < 6) {
            if (const auto found = map_shortest(grapheme); found.data() != nullptr) {
                out += found;
                return;
            }
        }
        while (!grapheme.empty()) {
            const std::string_view letter = grapheme.substr(0, std::min(utf8_length(grapheme[0]), grapheme.size()));
            const auto found = map_shortest(letter);
            out += found.data() != nullptr ? found : letter;
            grapheme.remove_prefix(letter.size());
        }
    }

private:
    // Kinds of a piece (sentencepiece_model.proto).
    enum Kind : std::uint8_t { normal = 1, unknown_kind = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
    static constexpr std::string_view space_mark = "\xe2\x96\x81";  // U+2581

    struct Piece {
        std::string_view text;
        Id id;
        double score;
        Kind kind;
        bool operator<(const Piece& other) const { return text < other.text; }
    };

    void add_piece(std::string_view message) {
        Piece piece{{}, static_cast<Id>(size_++), 0, normal};
        ProtobufReader fields(message);
        while (fields.next()) {
            if (fields.field == 1) piece.text = fields.bytes;
            if (fields.field == 2) piece.score = static_cast<double>(fields.real());
            if (fields.field == 3) piece.kind = static_cast<Kind>(fields.number);
        }
        if (piece.kind == unknown_kind) unknown_ = piece.id;
        if (piece.kind == control && piece.text == "</s>") end_ = piece.id;
        if (piece.kind == user_defined) symbols_.push_back(piece.text);
        if (piece.kind == normal) {
            lowest_ = std::min(lowest_, piece.score);
            highest_ = std::max(highest_, piece.score);
        }
        const bool is_text = piece.kind == normal || piece.kind == user_defined || piece.kind == unused;
        if (is_text && !piece.text.empty()) trie_.push_back(piece);
    }

    static void read_trainer(std::string_view message) {
        ProtobufReader fields(message);
        while (fields.next()) {
            if (fields.field == 3 && fields.number != 1)
                throw Error("sentencepiece", "a unigram model (type 1)", "type " + std::to_string(fields.number));
            if ((fields.field == 35 || fields.field == 24) && fields.number != 0)
                throw Error("sentencepiece", "a model without byte fallback and white space as suffix",
                            "field " + std::to_string(fields.field));
        }
    }

    void read_normalizer(std::string_view message) {
        ProtobufReader fields(message);
        while (fields.next()) {
            if (fields.field == 2) read_character_map(fields.bytes);
            if (fields.field == 3) add_dummy_prefix_ = fields.number != 0;
            if (fields.field == 4) remove_extra_spaces_ = fields.number != 0;
            if (fields.field == 5) escape_spaces_ = fields.number != 0;
        }
    }

    /// A double array of darts-clone behind its size, then the texts it points to, each ended by a NUL.
    void read_character_map(std::string_view map) {
        if (map.empty()) return;
        std::uint32_t size = 0;
        if (map.size() >= sizeof size) std::memcpy(&size, map.data(), sizeof size);
        if (size < 1024 || size % 4 != 0 || size > map.size() - sizeof size || map.back() != 0)
            throw Error("sentencepiece", "a character map whose parts fit");
        units_.resize(size / 4);
        std::memcpy(units_.data(), map.data() + sizeof size, size);
        replacements_ = map.substr(sizeof size + size);
    }

    /// Calls body(length, replacement) for every prefix of the text that the character map knows, until it returns
    /// false.
    template <class Body>
    void for_each_mapped_prefix(std::string_view text, const Body& body) const {
        if (units_.empty()) return;
        const auto offset = [](std::uint32_t unit) { return (unit >> 10) << ((unit & (1U << 9)) >> 6); };
        std::size_t node = offset(units_[0]);
        for (std::size_t i = 0; i < text.size(); ++i) {
            const auto letter = static_cast<unsigned char>(text[i]);
            node ^= letter;
            if (node >= units_.size() || (units_[node] & ((1U << 31) | 0xFFU)) != letter) return;
            const bool has_leaf = (units_[node] >> 8 & 1U) != 0;
            node ^= offset(units_[node]);
            if (node >= units_.size()) return;
            const std::uint32_t replacement = units_[node] & 0x7FFFFFFFU;
            if (has_leaf && replacement < replacements_.size() &&
                !body(i + 1, std::string_view(replacements_.data() + replacement)))
                return;
        }
    }

    std::string_view map_shortest(std::string_view text) const {
        std::string_view found;
        for_each_mapped_prefix(text, [&](std::size_t, std::string_view replacement) {
            found = replacement;
            return false;
        });
        return found;
    }

    /// What the longest match at the front of the text becomes, and how long that match is.
    std::pair<std::string_view, std::size_t> normalize_prefix(std::string_view text) const {
        std::size_t longest = 0;
        for (const std::string_view symbol : symbols_) {
            if (symbol.size() > longest && text.starts_with(symbol)) longest = symbol.size();
        }
        if (longest > 0) return {text.substr(0, longest), longest};
        std::string_view replacement;
        for_each_mapped_prefix(text, [&](std::size_t length, std::string_view found) {
            longest = length;
            replacement = found;
            return true;
        });
        if (longest > 0) return {replacement, longest};
        const std::size_t size = std::min(utf8_length(text[0]), text.size());
        return {text.substr(0, size), size};
    }

    /// How many bytes of white space (Unicode's) begin there; 0: none.
    static std::size_t space_at(std::string_view text, std::size_t at) {
        const std::size_t length = std::min(utf8_length(text[at]), text.size() - at);
        const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
        if (length == 1) return text[at] == ' ' || (text[at] >= 9 && text[at] <= 13) ? 1 : 0;
        if (length == 2) return byte(0) == 0xC2 && (byte(1) == 0x85 || byte(1) == 0xA0) ? 2 : 0;
        static constexpr std::array<std::string_view, 7> others{"\u1680", "\u2028", "\u2029", "\u202f",
                                                                "\u205f", "\u3000", "\u200a"};
        const std::string_view letter = text.substr(at, length);
        const bool is_wide = letter >= "\u2000" && letter <= "\u200a";
        return length == 3 && (is_wide || std::ranges::find(others, letter) != others.end()) ? 3 : 0;
    }

    void append_word(std::string_view word, std::vector<Id>& ids) const {
        std::string marked(word.starts_with(space_mark) ? "" : space_mark);
        marked += word;
        for (std::size_t at = 0; at < marked.size();) {
            const std::size_t end = std::min(marked.find(space_mark, at + space_mark.size()), marked.size());
            segment<double>(std::string_view(marked).substr(at, end - at), ids);
            at = end;
        }
    }

    /// In valid UTF-8, which the text is.
    static std::size_t utf8_length(char first) {
        const auto byte = static_cast<unsigned char>(first);
        return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
    }

    std::string normalize(std::string_view text) const {
        if (remove_extra_spaces_) {
            while (!text.empty()) {
                const auto [piece, length] = normalize_prefix(text);
                if (piece != " ") break;
                text.remove_prefix(length);
            }
        }
        if (text.empty()) return {};
        const std::string_view space = escape_spaces_ ? space_mark : std::string_view(" ");
        std::string out;
        if (add_dummy_prefix_) out += space;
        bool after_space = remove_extra_spaces_;
        while (!text.empty()) {
            auto [piece, length] = normalize_prefix(text);
            text.remove_prefix(length);
            while (after_space && piece.starts_with(' ')) piece.remove_prefix(1);
            for (const char letter : piece) {
                if (letter == ' ') {
                    out += space;
                } else {
                    out += letter;
                }
            }
            if (!piece.empty()) after_space = remove_extra_spaces_ && piece.ends_with(' ');
        }
        while (remove_extra_spaces_ && out.ends_with(space)) out.resize(out.size() - space.size());
        return out;
    }

    /// Appends the segmentation of the highest score; of equal ones the one found first, as the originals find them.
    template <class Score>
    void segment(std::string_view text, std::vector<Id>& ids) const {
        struct Best {
            Id id = -1;
            Score score = 0;
            std::size_t from = npos;
        };
        constexpr Score unknown_penalty = 10;
        std::vector<Best> ends(text.size() + 1);
        const auto offer = [&](std::size_t end, Id id, Score score, std::size_t from) {
            if (ends[end].from == npos || score > ends[end].score) ends[end] = {id, score, from};
        };
        for (std::size_t from = 0; from < text.size();) {
            const std::size_t letter = std::min(utf8_length(text[from]), text.size() - from);
            const Score so_far = ends[from].score;
            bool has_letter = false;
            auto low = trie_.begin(), high = trie_.end();
            for (std::size_t length = 1; from + length <= text.size() && low != high; ++length) {
                const std::string_view prefix = text.substr(from, length);
                narrow_to_prefix(low, high, prefix);
                if (low == high || low->text.size() != length || low->kind == unused) continue;
                const Score score =
                    low->kind == user_defined
                        ? static_cast<Score>(length) * static_cast<Score>(highest_) - static_cast<Score>(0.1F)
                        : static_cast<Score>(low->score);
                offer(from + length, low->id, so_far + score, from);
                has_letter = has_letter || length == letter;
            }
            if (!has_letter)
                offer(from + letter, unknown_, so_far + static_cast<Score>(lowest_) - unknown_penalty, from);
            from += letter;
        }
        const std::size_t first = ids.size();
        for (std::size_t end = text.size(); end > 0; end = ends[end].from) {
            // What is unknown side by side is one.
            if (ends[end].id != unknown_ || ids.size() == first || ids.back() != unknown_) ids.push_back(ends[end].id);
        }
        std::reverse(ids.begin() + static_cast<std::ptrdiff_t>(first), ids.end());
    }

    static constexpr std::size_t npos = std::numeric_limits<std::size_t>::max();

    std::size_t size_ = 0;
    Id end_ = -1, unknown_ = -1;
    double lowest_ = std::numeric_limits<double>::max(), highest_ = std::numeric_limits<double>::lowest();
    bool add_dummy_prefix_ = true, remove_extra_spaces_ = true, escape_spaces_ = true;
    std::vector<Piece> trie_;  ///< sorted: a prefix is a range
    std::vector<std::string_view> symbols_;
    std::vector<std::uint32_t> units_;
    std::string_view replacements_;
};

}  // namespace tandem::inline TANDEM_ABI::detail

// Definitions of texts/unigram.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/unigram.hpp>

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

[[gnu::cold]] TANDEM_INLINE UnigramModel::UnigramModel(std::string_view model) {
    ProtobufReader fields(model);
    while (fields.next()) {
        if (fields.field == 1) add_piece(fields.bytes);
        if (fields.field == 2) read_trainer(fields.bytes);
        if (fields.field == 3) read_normalizer(fields.bytes);
    }
    if (unknown_ < 0) throw Error("sentencepiece", "a piece for what is unknown", "none");
    std::sort(trie_.begin(), trie_.end());
}

[[gnu::cold]] TANDEM_INLINE UnigramModel::UnigramModel(std::span<const std::pair<std::string, double>> pieces,
                                                       Id unknown, std::string_view character_map)
    : size_(pieces.size()), unknown_(unknown) {
    for (std::size_t i = 0; i < pieces.size(); ++i) {
        const auto& [text, score] = pieces[i];
        lowest_ = std::min(lowest_, score);
        if (!text.empty()) trie_.push_back({text, static_cast<Id>(i), score, normal});
    }
    read_character_map(character_map);
    std::sort(trie_.begin(), trie_.end());
}

TANDEM_INLINE std::vector<Id> UnigramModel::encode(std::string_view text) const {
    std::vector<Id> ids;
    segment<float>(normalize(text), ids);
    return ids;
}

TANDEM_INLINE void UnigramModel::append_words(std::string_view text, std::vector<Id>& ids) const {
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t begin = at;
        while (at < text.size() && space_at(text, at) == 0) ++at;
        if (at > begin) append_word(text.substr(begin, at - begin), ids);
        if (at < text.size()) at += space_at(text, at);
    }
}

TANDEM_INLINE void UnigramModel::append_marked(std::string_view text, std::vector<Id>& ids) const {
    if (text.empty()) return;
    std::string marked;
    for (const char letter : text) letter == ' ' ? marked += space_mark : marked += letter;
    append_word(marked, ids);
}

TANDEM_INLINE void UnigramModel::append_mapped(std::string_view grapheme, std::string& out) const {
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

TANDEM_INLINE void UnigramModel::add_piece(std::string_view message) {
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

TANDEM_INLINE void UnigramModel::read_trainer(std::string_view message) {
    ProtobufReader fields(message);
    while (fields.next()) {
        if (fields.field == 3 && fields.number != 1)
            throw Error("sentencepiece", "a unigram model (type 1)", "type " + std::to_string(fields.number));
        if ((fields.field == 35 || fields.field == 24) && fields.number != 0)
            throw Error("sentencepiece", "a model without byte fallback and white space as suffix",
                        "field " + std::to_string(fields.field));
    }
}

TANDEM_INLINE void UnigramModel::read_normalizer(std::string_view message) {
    ProtobufReader fields(message);
    while (fields.next()) {
        if (fields.field == 2) read_character_map(fields.bytes);
        if (fields.field == 3) add_dummy_prefix_ = fields.number != 0;
        if (fields.field == 4) remove_extra_spaces_ = fields.number != 0;
        if (fields.field == 5) escape_spaces_ = fields.number != 0;
    }
}

TANDEM_INLINE void UnigramModel::read_character_map(std::string_view map) {
    if (map.empty()) return;
    std::uint32_t size = 0;
    if (map.size() >= sizeof size) std::memcpy(&size, map.data(), sizeof size);
    if (size < 1024 || size % 4 != 0 || size > map.size() - sizeof size || map.back() != 0)
        throw Error("sentencepiece", "a character map whose parts fit");
    units_.resize(size / 4);
    std::memcpy(units_.data(), map.data() + sizeof size, size);
    replacements_ = map.substr(sizeof size + size);
}

TANDEM_INLINE std::string_view UnigramModel::map_shortest(std::string_view text) const {
    std::string_view found;
    for_each_mapped_prefix(text, [&](std::size_t, std::string_view replacement) {
        found = replacement;
        return false;
    });
    return found;
}

TANDEM_INLINE std::pair<std::string_view, std::size_t> UnigramModel::normalize_prefix(std::string_view text) const {
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

TANDEM_INLINE std::size_t UnigramModel::space_at(std::string_view text, std::size_t at) {
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

TANDEM_INLINE void UnigramModel::append_word(std::string_view word, std::vector<Id>& ids) const {
    std::string marked(word.starts_with(space_mark) ? "" : space_mark);
    marked += word;
    for (std::size_t at = 0; at < marked.size();) {
        const std::size_t end = std::min(marked.find(space_mark, at + space_mark.size()), marked.size());
        segment<double>(std::string_view(marked).substr(at, end - at), ids);
        at = end;
    }
}

TANDEM_INLINE std::size_t UnigramModel::utf8_length(char first) {
    const auto byte = static_cast<unsigned char>(first);
    return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

TANDEM_INLINE std::string UnigramModel::normalize(std::string_view text) const {
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

}  // namespace tandem::inline TANDEM_ABI::detail

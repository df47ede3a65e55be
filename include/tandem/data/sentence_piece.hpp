// SigLIP's tokenizer: a SentencePiece vocabulary behind the cleaning of transformers or open_clip. Written here, since
// Debian's libsentencepiece 0.1.97 breaks ties between segmentations of equal score ("..." as ".." + ".") otherwise than
// the releases with which the published models' ids are made.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/data/clean_text.hpp>
#include <tandem/data/tokenizer.hpp>
#include <tandem/data/unicode.hpp>

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
            case 0: number = varint(); return true;
            case 1: bytes = take(8); return true;
            case 2: bytes = take(varint()); return true;
            case 5: bytes = take(4); return true;
            default: throw Error("protobuf", "a wire type of 0, 1, 2 or 5", std::to_string(key & 7));
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

/// SentencePiece's unigram model (Kudo 2018), as src/unigram_model.cc and src/normalizer.cc of its release 0.2.0 apply it.
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

    std::size_t size() const { return size_; }
    Id end() const { return end_; }
    Id unknown() const { return unknown_; }

    std::vector<Id> encode(std::string_view text) const { return segment(normalize(text)); }

private:
    // Kinds of a piece (sentencepiece_model.proto).
    enum Kind : std::uint8_t { normal = 1, unknown_kind = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
    static constexpr std::string_view space_mark = "\xe2\x96\x81";  // U+2581

    struct Piece {
        std::string_view text;
        Id id;
        float score;
        Kind kind;
        bool operator<(const Piece& other) const { return text < other.text; }
    };

    void add_piece(std::string_view message) {
        Piece piece{{}, static_cast<Id>(size_++), 0, normal};
        ProtobufReader fields(message);
        while (fields.next()) {
            if (fields.field == 1) piece.text = fields.bytes;
            if (fields.field == 2) piece.score = fields.real();
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

    /// What the longest match at the front of the text becomes, and how long that match is.
    std::pair<std::string_view, std::size_t> normalize_prefix(std::string_view text) const {
        std::size_t longest = 0;
        for (const std::string_view symbol : symbols_) {
            if (symbol.size() > longest && text.starts_with(symbol)) longest = symbol.size();
        }
        if (longest > 0) return {text.substr(0, longest), longest};
        std::uint32_t replacement = 0;
        if (!units_.empty()) {
            const auto offset = [](std::uint32_t unit) { return (unit >> 10) << ((unit & (1U << 9)) >> 6); };
            std::size_t node = offset(units_[0]);
            for (std::size_t i = 0; i < text.size(); ++i) {
                const auto letter = static_cast<unsigned char>(text[i]);
                node ^= letter;
                if (node >= units_.size() || (units_[node] & ((1U << 31) | 0xFFU)) != letter) break;
                const bool has_leaf = (units_[node] >> 8 & 1U) != 0;
                node ^= offset(units_[node]);
                if (node >= units_.size()) break;
                if (has_leaf) {
                    longest = i + 1;
                    replacement = units_[node] & 0x7FFFFFFFU;
                }
            }
        }
        if (longest > 0 && replacement < replacements_.size())
            return {replacements_.data() + replacement, longest};
        const std::size_t size = std::min(utf8_length(text[0]), text.size());
        return {text.substr(0, size), size};
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

    /// The segmentation of the highest score; of equal ones the one found first, as the original finds them.
    std::vector<Id> segment(std::string_view text) const {
        struct Best {
            Id id = -1;
            float score = 0;
            std::size_t from = npos;
        };
        constexpr float unknown_penalty = 10;
        std::vector<Best> ends(text.size() + 1);
        const auto offer = [&](std::size_t end, Id id, float score, std::size_t from) {
            if (ends[end].from == npos || score > ends[end].score) ends[end] = {id, score, from};
        };
        for (std::size_t from = 0; from < text.size();) {
            const std::size_t letter = std::min(utf8_length(text[from]), text.size() - from);
            const float so_far = ends[from].score;
            bool has_letter = false;
            auto low = trie_.begin(), high = trie_.end();
            for (std::size_t length = 1; from + length <= text.size() && low != high; ++length) {
                const std::string_view prefix = text.substr(from, length);
                narrow_to_prefix(low, high, prefix);
                if (low == high || low->text.size() != length || low->kind == unused) continue;
                const float score = low->kind == user_defined ? static_cast<float>(length) * highest_ - 0.1F : low->score;
                offer(from + length, low->id, so_far + score, from);
                has_letter = has_letter || length == letter;
            }
            if (!has_letter) offer(from + letter, unknown_, so_far + lowest_ - unknown_penalty, from);
            from += letter;
        }
        std::vector<Id> ids;
        for (std::size_t end = text.size(); end > 0; end = ends[end].from) {
            // What is unknown side by side is one.
            if (ends[end].id != unknown_ || ids.empty() || ids.back() != unknown_) ids.push_back(ends[end].id);
        }
        std::reverse(ids.begin(), ids.end());
        return ids;
    }

    static constexpr std::size_t npos = std::numeric_limits<std::size_t>::max();

    std::size_t size_ = 0;
    Id end_ = -1, unknown_ = -1;
    float lowest_ = std::numeric_limits<float>::max(), highest_ = std::numeric_limits<float>::lowest();
    bool add_dummy_prefix_ = true, remove_extra_spaces_ = true, escape_spaces_ = true;
    std::vector<Piece> trie_;  ///< sorted: a prefix is a range
    std::vector<std::string_view> symbols_;
    std::vector<std::uint32_t> units_;
    std::string_view replacements_;
};

}  // namespace tandem::inline TANDEM_ABI::detail

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI {

/// The tokenizer of SigLIP's checkpoints. Immutable once built: any number of threads may encode at once.
class SentencePiece {
public:
    /// Reads a vocabulary. `path` is a model of SentencePiece (spiece.model), or a folder with one. Texts are cleaned as
    /// transformers' SiglipTokenizer does, or, where the folder has open_clip_config.json, as open_clip does
    /// (clean = "canonicalize"); `cleaning` overrides that. Throws Error if there is no such file, it is damaged, or it has
    /// no piece that ends a text.
    [[gnu::cold]] static SentencePiece load(const std::filesystem::path& path,
                                            std::optional<Cleaning> cleaning = std::nullopt) {
        const bool is_folder = std::filesystem::is_directory(path);
        const std::filesystem::path file = is_folder ? path / "spiece.model" : path;
        if (!std::filesystem::is_regular_file(file)) throw Error(file.string(), "a model of SentencePiece", "no file");
        SentencePiece result;
        result.cleaning_ = detail::cleaning_of(path, cleaning);
        try {
            result.file_ = std::make_shared<const MappedFile>(file);
            const auto bytes = result.file_->bytes();
            result.model_ = std::make_shared<const detail::UnigramModel>(
                std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
        } catch (const Error& error) {
            throw Error(file.string(), "a model of SentencePiece", error.what());
        }
        result.end_ = result.model_->end();
        if (result.end_ < 0) throw Error(file.string(), "a piece that ends a text, </s>", "none");
        result.marker_pieces_ = result.model_->encode(unknown_literal).size();
        return result;
    }

    std::size_t vocabulary() const { return model_->size(); }

    /// The ids of a text of any length; the last one ends the text. Invalid UTF-8 becomes U+FFFD.
    std::vector<Id> encode(std::string_view text) const {
        std::vector<Id> ids = cleaning_ == Cleaning::open_clip ? model_->encode(detail::canonicalize_as_open_clip(text)) : as_transformers(text);
        if (ids.empty() || ids.back() != end_) ids.push_back(end_);
        return ids;
    }

    /// Fills `out` with the ids, and with the end of text behind them. What does not fit is cut, and the last id is the end
    /// of text then. Throws Error if `out` is empty.
    void encode(std::string_view text, std::span<Id> out) const {
        if (out.empty()) throw Error("SentencePiece::encode", "a context of at least 1 token", "0");
        const std::vector<Id> ids = encode(text);
        const std::size_t kept = std::min(ids.size(), out.size() - 1);
        std::copy_n(ids.begin(), kept, out.begin());
        std::fill(out.begin() + static_cast<std::ptrdiff_t>(kept), out.end(), end_);
    }

    /// The rows of encode(text, out), [texts, context] row by row, made in parallel.
    std::vector<Id> encode_batch(std::span<const std::string> texts, std::size_t context) const {
        return detail::encode_rows(*this, texts, context);
    }

private:
    static constexpr std::string_view unknown_literal = "<unk>", end_literal = "</s>";

    SentencePiece() = default;

    /// SiglipTokenizer.tokenize (transformers/models/siglip/tokenization_siglip.py): literals of the special tokens are
    /// these, without the white space around them; what stands between is encoded behind a marker whose pieces are dropped,
    /// so that a first space counts.
    std::vector<Id> as_transformers(std::string_view text) const {
        constexpr char32_t space_mark = U'\u2581';
        std::u32string codes = detail::decode_utf8(text);
        std::replace(codes.begin(), codes.end(), space_mark, U' ');
        codes.insert(codes.begin(), space_mark);
        const std::u32string end = detail::decode_utf8(end_literal), unknown = detail::decode_utf8(unknown_literal);
        std::vector<Id> ids;
        for (std::size_t at = 0; at < codes.size();) {
            const std::size_t next = std::min(codes.find(end, at), codes.find(unknown, at));
            const bool is_last = next == std::u32string::npos;
            const std::u32string_view part = std::u32string_view(codes).substr(at, is_last ? next : next - at);
            const bool is_mark_alone = !is_last && detail::collapse_python_space(part) == std::u32string(1, space_mark);
            if (!part.empty() && !is_mark_alone) append_part(part, ids);
            if (is_last) break;
            const bool is_end = codes.compare(next, end.size(), end) == 0;
            ids.push_back(is_end ? end_ : model_->unknown());
            at = next + (is_end ? end.size() : unknown.size());
        }
        return ids;
    }

    void append_part(std::u32string_view part, std::vector<Id>& ids) const {
        const std::u32string canonical =
            detail::collapse_python_space(detail::without_punctuation(detail::python_lower(part)));
        const std::vector<Id> found = model_->encode(std::string(unknown_literal) + detail::encode_utf8(canonical));
        const std::size_t dropped = found.size() >= marker_pieces_ ? marker_pieces_ : 0;
        ids.insert(ids.end(), found.begin() + static_cast<std::ptrdiff_t>(dropped), found.end());
    }

    Cleaning cleaning_ = Cleaning::transformers;
    Id end_ = 0;
    std::size_t marker_pieces_ = 0;  ///< of unknown_literal
    std::shared_ptr<const MappedFile> file_;  ///< which the model's texts stand in
    std::shared_ptr<const detail::UnigramModel> model_;
};

}  // namespace tandem::inline TANDEM_ABI

#endif

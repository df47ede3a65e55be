// Unigram vocabularies, as SentencePiece and as the tokenizers package apply them. Written here, since Debian's
// libsentencepiece 0.1.97 breaks ties between segmentations of equal score ("..." as ".." + ".") otherwise than the
// releases with which the published models' ids are made, and tokenizers differs from both.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/added_tokens.hpp>

namespace tandem::inline TANDEM_ABI::detail {

/// SentencePiece's unigram model (Kudo 2018), as src/unigram_model.cc and src/normalizer.cc of its release 0.2.0 apply
/// it.
class UnigramModel {
public:
    /// Throws Error if the bytes are no such model. They must stay as long as the object.
    explicit UnigramModel(std::string_view model);

    /// The same of a tokenizer.json: pieces whose ids are their places. They and the map must stay as long as the
    /// object.
    UnigramModel(std::span<const std::pair<std::string, double>> pieces, Id unknown, std::string_view character_map);

    std::size_t size() const { return size_; }
    Id end() const { return end_; }
    Id unknown() const { return unknown_; }

    /// As SentencePiece encodes a text. Its scores are float.
    std::vector<Id> encode(std::string_view text) const;

    /// As the tokenizers package does with Precompiled, WhitespaceSplit and Metaspace: word by word, each behind a mark
    /// of its space, with scores in double. `text` is a text's part that the character map has been applied to.
    void append_words(std::string_view text, std::vector<Id>& ids) const;

    /// The same with Metaspace alone, which splits at spaces, each of which counts, and at no other white space.
    void append_marked(std::string_view text, std::vector<Id>& ids) const;

    /// What the character map makes of a grapheme, as tokenizers' Precompiled has it (normalizers/precompiled.rs): of
    /// the shortest prefix that the map knows, what stands behind it is dropped; else, or if it has 6 bytes or more, of
    /// every letter alone.
    void append_mapped(std::string_view grapheme, std::string& out) const;

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

    void add_piece(std::string_view message);

    static void read_trainer(std::string_view message);

    void read_normalizer(std::string_view message);

    /// A double array of darts-clone behind its size, then the texts it points to, each ended by a NUL.
    void read_character_map(std::string_view map);

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

    std::string_view map_shortest(std::string_view text) const;

    /// What the longest match at the front of the text becomes, and how long that match is.
    std::pair<std::string_view, std::size_t> normalize_prefix(std::string_view text) const;

    /// How many bytes of white space (Unicode's) begin there; 0: none.
    static std::size_t space_at(std::string_view text, std::size_t at);

    void append_word(std::string_view word, std::vector<Id>& ids) const;

    /// In valid UTF-8, which the text is.
    static std::size_t utf8_length(char first);

    std::string normalize(std::string_view text) const;

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

#if !defined(TANDEM_COMPILED)
#include <tandem/texts/unigram.impl.hpp>
#endif

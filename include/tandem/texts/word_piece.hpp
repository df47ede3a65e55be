// BERT's tokenizer: WordPiece, as the tokenizers package applies it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/clean_text.hpp>
#include <tandem/texts/tokenizer.hpp>
#include <tandem/texts/tokenizer_config.hpp>
#include <tandem/texts/tokenizer_file.hpp>

#if defined(TANDEM_COMPILED) || __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI {

/// The tokenizer of ALIGN's checkpoints: transformers' BertTokenizer. Immutable once built: any number of threads may
/// encode at once.
class WordPiece {
public:
    /// Reads a vocabulary. `path` is a vocab.txt with a piece a line, a tokenizer.json whose model is WordPiece, or a
    /// folder with one of them, whose tokenizer_config.json may set do_lower_case, strip_accents and
    /// tokenize_chinese_chars. Where the folder has open_clip_config.json, texts are cleaned before as open_clip does
    /// (clean = "whitespace"), and its strip_sep_token counts; `cleaning` overrides that, and `model` is the
    /// folder of that config where it is another. Throws Error if there is no such file, it lacks a special token, or a
    /// config asks for what is not here.
    static WordPiece load(const std::filesystem::path& path, std::optional<Cleaning> cleaning = std::nullopt,
                          const std::filesystem::path& model = {});

    /// Of a tokenizer.json that was read.
    static WordPiece from_json(detail::TokenizerFile json, const std::filesystem::path& path,
                               const detail::CaptionRules& rules);

    std::size_t vocabulary() const { return ids_.size(); }

    /// The ids of a text of any length, between those that begin and end one. Invalid UTF-8 becomes U+FFFD, which is
    /// left out.
    std::vector<Id> encode(std::string_view text) const;

    /// Fills `out` with the ids, and with padding behind them. Of a text that does not fit, the end is cut, and the
    /// last id ends the text. Throws Error if `out` has no room for begin and end.
    void encode(std::string_view text, std::span<Id> out) const { frame_.fit("WordPiece::encode", encode(text), out); }

    /// The rows of encode(text, out), [texts, context] row by row, made in parallel.
    std::vector<Id> encode_batch(std::span<const std::string> texts, std::size_t context) const;

private:
    static constexpr std::size_t longest_word = 100;  // letters; a longer one is unknown

    WordPiece() = default;

    void read_vocabulary(const std::filesystem::path& path);

    static detail::TokenizerSettings read_settings(const std::filesystem::path& path);

    void find_specials(const std::filesystem::path& file, const detail::TokenizerSettings& settings,
                       const detail::CaptionRules& rules);

    /// BertNormalizer takes words apart where an added token may stand whole: such tokens are not here.
    void add(const std::filesystem::path& file, const detail::AddedToken& token);

    void read_json(detail::TokenizerFile& json);

    void append_part(std::string_view text, std::vector<Id>& ids) const;

    /// The longest pieces from the front; a word that does not come out is unknown as a whole (Wu et al. 2016).
    void append_word(const std::u32string& word, std::vector<Id>& ids) const;

    std::unordered_map<std::string, Id> ids_;
    detail::BertFrame frame_;
    bool lowers_ = true, strips_accents_ = true, splits_chinese_ = true;
};

}  // namespace tandem::inline TANDEM_ABI

#endif

#if !defined(TANDEM_COMPILED)
#include <tandem/texts/word_piece.impl.hpp>
#endif

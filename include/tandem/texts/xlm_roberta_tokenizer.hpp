// XLM-RoBERTa's tokenizer: a unigram vocabulary as the tokenizers package applies it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/file.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/clean_text.hpp>
#include <tandem/texts/tokenizer.hpp>
#include <tandem/texts/tokenizer_config.hpp>
#include <tandem/texts/tokenizer_file.hpp>
#include <tandem/texts/unigram.hpp>

#if defined(TANDEM_COMPILED) || __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI {

/// The tokenizer of the multilingual checkpoints: transformers' XLMRobertaTokenizer; and that of a tokenizer.json of
/// T5's form, which SigLIP's repositories have beside open_clip's configs (no `<s>`, and Metaspace alone to split at
/// spaces). Immutable once built: any number of threads may encode at once.
class XlmRobertaTokenizer {
public:
    /// Reads a vocabulary. `path` is a model of SentencePiece (sentencepiece.bpe.model), a tokenizer.json whose model
    /// is Unigram, or a folder with one of them. Where the folder has open_clip_config.json, texts are cleaned before
    /// as open_clip does (clean = "whitespace"); `cleaning` overrides that, and `model` is the folder of that
    /// config where it is another. Throws Error if there is no such file, it is damaged, or a config asks for what is
    /// not here.
    static XlmRobertaTokenizer load(const std::filesystem::path& path, std::optional<Cleaning> cleaning = std::nullopt,
                                    const std::filesystem::path& model = {});

    /// Of a tokenizer.json that was read, from the file or folder `path`; the rest as load().
    static XlmRobertaTokenizer from_json(detail::TokenizerFile json, const std::filesystem::path& path,
                                         std::optional<Cleaning> cleaning, const std::filesystem::path& model);

    /// The ids of a text of any length, between those that begin and end one. Invalid UTF-8 becomes U+FFFD.
    std::vector<Id> encode(std::string_view text) const;

    /// Fills `out` with the ids, and with padding behind them. Of a text that does not fit, the end is cut, and the
    /// last id ends the text. Throws Error if `out` has no room for begin and end.
    void encode(std::string_view text, std::span<Id> out) const;

    /// The rows of encode(text, out), [texts, context] row by row, made in parallel.
    std::vector<Id> encode_batch(std::span<const std::string> texts, std::size_t context) const;

private:
    /// What the model reads in place.
    struct Memory {
        std::optional<MappedFile> file;
        std::vector<std::pair<std::string, double>> pieces;
        std::string character_map;
    };

    XlmRobertaTokenizer() = default;

    /// Fairseq's ids: four special ones, then the pieces from the fourth on (transformers/convert_slow_tokenizer.py,
    /// XLMRobertaConverter).
    void read_model(const std::filesystem::path& path);

    void read_settings(const std::filesystem::path& path, const std::string& where, const detail::CaptionRules& rules);

    void take(const detail::TokenizerSettings& settings, const std::string& where);

    void add(detail::AddedToken token, const std::string& where);

    void read_json(detail::TokenizerFile& json);

    /// The steps around the model are XLM-RoBERTa's or T5's, or the file is refused.
    void read_pipeline(const detail::TokenizerFile& json);

    static std::string from_base64(std::string_view text, const std::string& where);

    void append_part(std::string_view text, std::vector<Id>& ids) const;

    std::string mapped(std::string_view text) const;

    /// Where the extended grapheme cluster ends that begins there.
    static std::size_t grapheme_end(std::string_view text, std::size_t at);

    std::shared_ptr<Memory> memory_ = std::make_shared<Memory>();
    std::shared_ptr<const detail::UnigramModel> model_;
    detail::BertFrame frame_;
    detail::AddedTokens normalized_;  ///< found in a text that the character map was applied to
    Id shift_ = 0;
    bool strips_right_ = false, collapses_spaces_ = false, splits_at_marks_alone_ = false;
};

}  // namespace tandem::inline TANDEM_ABI

#endif

#if !defined(TANDEM_COMPILED)
#include <tandem/texts/xlm_roberta_tokenizer.impl.hpp>
#endif

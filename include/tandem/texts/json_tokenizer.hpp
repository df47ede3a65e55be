// SigLIP 2's tokenizer: the byte-pair encoding with byte fallback of a tokenizer.json.
#pragma once

#include <array>
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
#include <tandem/texts/added_tokens.hpp>
#include <tandem/texts/bpe_merges.hpp>
#include <tandem/texts/clean_text.hpp>
#include <tandem/texts/tokenizer_config.hpp>
#include <tandem/texts/tokenizer_file.hpp>
#include <tandem/texts/unicode.hpp>

#if defined(TANDEM_COMPILED) || __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI {

/// The tokenizer of SigLIP 2's checkpoints (and Gemma's): what tokenizers makes of a tokenizer.json whose model is BPE
/// with byte fallback. Immutable once built: any number of threads may encode at once.
class JsonTokenizer {
public:
    /// Reads a tokenizer.json, or the one in a folder. A text is what the file makes of it, as in transformers; where
    /// the folder has open_clip_config.json, it is cleaned as open_clip does before (clean = "canonicalize").
    /// `cleaning` overrides that, and `model` is the folder of that config where it is another. What the file asks for
    /// and is not here (another model, normaliser or pre-tokeniser) is an Error that names it, as is a file that
    /// contradicts itself.
    static JsonTokenizer load(const std::filesystem::path& path, std::optional<Cleaning> cleaning = std::nullopt,
                              const std::filesystem::path& model = {});

    /// Of a tokenizer.json that was read, from the file or folder `path`.
    static JsonTokenizer from_json(const detail::TokenizerFile& json, const std::filesystem::path& path,
                                   const detail::CaptionRules& rules);

    std::size_t vocabulary() const { return size_; }

    /// The ids of a text of any length, with what the file says stands before and behind them. Invalid UTF-8 becomes
    /// U+FFFD.
    std::vector<Id> encode(std::string_view text) const;

    /// Fills `out` with the ids, and with the padding behind them, or before them where the file's padding, or
    /// padding_side of the folder's tokenizer_config.json, is left. Of a text that does not fit, the end is cut, and
    /// not what the file says stands behind a text. Throws Error if `out` has no room for that.
    void encode(std::string_view text, std::span<Id> out) const;

    /// The rows of encode(text, out), [texts, context] row by row, made in parallel.
    std::vector<Id> encode_batch(std::span<const std::string> texts, std::size_t context) const;

private:
    struct Normalizer {
        bool lowers = false;
        std::string from, to;  ///< where it replaces
    };

    explicit JsonTokenizer(const detail::TokenizerFile& json);

    void read_normalizers(const detail::TokenizerFile& json, const std::string& at, const std::string& where);

    /// Gemma's splits at spaces, of which its normaliser has left none.
    void read_pre_tokenizer(const detail::TokenizerFile& json, const std::string& where) const;

    void read_vocabulary(const detail::TokenizerFile& json, const std::string& where);

    void add(detail::AddedToken token);
    std::optional<Id> id_of(const std::string& text) const;

    /// The special tokens around a text.
    void read_template(const detail::TokenizerFile& json, const std::string& where);

    void append_text(std::string_view raw, std::vector<Id>& ids) const;

    std::string normalized(std::string part) const;

    void append_part(std::string_view part, std::vector<Id>& ids) const;

    std::vector<Normalizer> normalizers_;
    detail::AddedTokens added_, normalized_;  ///< those found in a text as it is, and as it was normalised
    std::unordered_map<char32_t, Id> letter_ids_;
    std::array<Id, 256> byte_ids_{};
    detail::MergeRules merges_;
    std::vector<Id> before_, behind_;
    Id padding_ = 0;
    bool canonicalizes_ = false, pads_left_ = false;
    std::size_t size_ = 0;
};

}  // namespace tandem::inline TANDEM_ABI

#endif

#if !defined(TANDEM_COMPILED)
#include <tandem/texts/json_tokenizer.impl.hpp>
#endif

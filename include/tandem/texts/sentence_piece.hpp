// SigLIP's tokenizer: a SentencePiece vocabulary behind the cleaning of transformers or open_clip.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/file.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/clean_text.hpp>
#include <tandem/texts/unigram.hpp>

#if defined(TANDEM_COMPILED) || __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI {

/// The tokenizer of SigLIP's checkpoints. Immutable once built: any number of threads may encode at once.
class SentencePiece {
public:
    /// Reads a vocabulary. `path` is a model of SentencePiece (spiece.model), or a folder with one. Texts are cleaned
    /// as transformers' SiglipTokenizer does, or, where the folder has open_clip_config.json, as open_clip does (clean
    /// = "canonicalize"); `cleaning` overrides that, and `model` is the folder of that config where it is another.
    /// Throws Error if there is no such file, it is damaged, or it has no piece that ends a text.
    static SentencePiece load(const std::filesystem::path& path, std::optional<Cleaning> cleaning = std::nullopt,
                              const std::filesystem::path& model = {});

    std::size_t vocabulary() const { return model_->size(); }

    /// The ids of a text of any length; the last one ends the text. Invalid UTF-8 becomes U+FFFD.
    std::vector<Id> encode(std::string_view text) const;

    /// Fills `out` with the ids, and with the end of text behind them. What does not fit is cut, and the last id is the
    /// end of text then. Throws Error if `out` is empty.
    void encode(std::string_view text, std::span<Id> out) const;

    /// The rows of encode(text, out), [texts, context] row by row, made in parallel.
    std::vector<Id> encode_batch(std::span<const std::string> texts, std::size_t context) const;

private:
    static constexpr std::string_view unknown_literal = "<unk>", end_literal = "</s>";

    SentencePiece() = default;

    /// Its configs may say what the vocabulary says anyway.
    static void read_settings(const std::filesystem::path& path, const std::string& where);

    /// SiglipTokenizer.tokenize (transformers/models/siglip/tokenization_siglip.py): literals of the special tokens are
    /// these, without the white space around them; what stands between is encoded behind a marker whose pieces are
    /// dropped, so that a first space counts.
    std::vector<Id> as_transformers(std::string_view text) const;

    void append_part(std::u32string_view part, std::vector<Id>& ids) const;

    Cleaning cleaning_ = Cleaning::transformers;
    Id end_ = 0;
    std::size_t marker_pieces_ = 0;           ///< of unknown_literal
    std::shared_ptr<const MappedFile> file_;  ///< which the model's texts stand in
    std::shared_ptr<const detail::UnigramModel> model_;
};

}  // namespace tandem::inline TANDEM_ABI

#endif

#if !defined(TANDEM_COMPILED)
#include <tandem/texts/sentence_piece.impl.hpp>
#endif

// Definitions of texts/any_tokenizer.hpp.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/texts/any_tokenizer.hpp>
#include <tandem/texts/bpe.hpp>
#include <tandem/texts/json_tokenizer.hpp>
#include <tandem/texts/sentence_piece.hpp>
#include <tandem/texts/tokenizer_config.hpp>
#include <tandem/texts/tokenizer_file.hpp>
#include <tandem/texts/word_piece.hpp>
#include <tandem/texts/xlm_roberta_tokenizer.hpp>

#if __has_include(<utf8proc.h>) && __has_include(<zlib.h>) && __has_include(<zconf.h>)

namespace tandem::inline TANDEM_ABI {

TANDEM_INLINE std::vector<Id> AnyTokenizer::encode_batch(std::span<const std::string> texts,
                                                         std::size_t context) const {
    return held_->encode_batch(texts, context);
}

}  // namespace tandem::inline TANDEM_ABI

namespace tandem::inline TANDEM_ABI::detail {

/// A tokenizer.json by the model it names.
[[gnu::cold]] TANDEM_INLINE AnyTokenizer open_tokenizer_json(const std::filesystem::path& file,
                                                             const std::filesystem::path& path,
                                                             const std::filesystem::path& model) {
    TokenizerFile json = TokenizerFile::read(file);
    const std::string type = json.value("model.type");
    if (type == "Unigram" || !json.pieces.empty())
        return XlmRobertaTokenizer::from_json(std::move(json), path, std::nullopt, model);
    if (type == "WordPiece")
        return WordPiece::from_json(std::move(json), path, caption_rules(model, std::nullopt, "whitespace"));
    if (json.value("model.end_of_word_suffix") == word_end)
        return Bpe::from_json(json, path, caption_rules(model, std::nullopt, "lower").cleaning);
    return JsonTokenizer::from_json(json, path, caption_rules(model, std::nullopt, "canonicalize"));
}

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

[[gnu::cold]] TANDEM_INLINE AnyTokenizer open_tokenizer(const std::filesystem::path& path,
                                                        const std::filesystem::path& model) {
    if (!std::filesystem::exists(path)) throw Error(path.string(), "a tokenizer's folder, or a file", "nothing there");
    const std::string name = path.filename().string();
    const std::filesystem::path folder = std::filesystem::is_directory(path) ? path : path.parent_path();
    if (!std::filesystem::is_directory(path)) {
        const std::filesystem::path& rules = model.empty() ? path : model;
        if (name == "sentencepiece.bpe.model") return XlmRobertaTokenizer::load(path, std::nullopt, rules);
        if (name.ends_with(".model")) return SentencePiece::load(path, std::nullopt, rules);
        if (name == "tokenizer.json") return detail::open_tokenizer_json(path, path, rules);
        if (name == "vocab.txt") return WordPiece::load(path, std::nullopt, rules);
        if (name.ends_with(".txt.gz")) return Bpe::load(path, std::nullopt, rules);
    }
    const std::filesystem::path& rules = model.empty() ? folder : model;
    const auto has = [&](const char* file) { return std::filesystem::exists(folder / file); };
    if (has("spiece.model")) return SentencePiece::load(folder, std::nullopt, rules);
    if (has("sentencepiece.bpe.model")) return XlmRobertaTokenizer::load(folder, std::nullopt, rules);
    if (has("tokenizer.json")) return detail::open_tokenizer_json(folder / "tokenizer.json", folder, rules);
    if (has("merges.txt") && has("vocab.json")) return Bpe::load(folder, std::nullopt, rules);
    if (has("vocab.txt")) return WordPiece::load(folder, std::nullopt, rules);
    if (has("bpe_simple_vocab_16e6.txt.gz"))
        return Bpe::load(folder / "bpe_simple_vocab_16e6.txt.gz", std::nullopt, rules);
    throw Error(path.string(),
                "a tokenizer beside the weights: spiece.model, sentencepiece.bpe.model, tokenizer.json, vocab.json and "
                "merges.txt, vocab.txt or bpe_simple_vocab_16e6.txt.gz",
                "none of them");
}

}  // namespace tandem::inline TANDEM_ABI

#endif

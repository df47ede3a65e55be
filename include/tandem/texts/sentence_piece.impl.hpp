// Definitions of texts/sentence_piece.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/clean_text.hpp>
#include <tandem/texts/sentence_piece.hpp>
#include <tandem/texts/tokenizer.hpp>
#include <tandem/texts/tokenizer_config.hpp>
#include <tandem/texts/unicode.hpp>
#include <tandem/texts/unigram.hpp>

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI {

[[gnu::cold]] TANDEM_INLINE SentencePiece SentencePiece::load(const std::filesystem::path& path,
                                                              std::optional<Cleaning> cleaning,
                                                              const std::filesystem::path& model) {
    const bool is_folder = std::filesystem::is_directory(path);
    const std::filesystem::path file = is_folder ? path / "spiece.model" : path;
    if (!std::filesystem::is_regular_file(file)) throw Error(file.string(), "a model of SentencePiece", "no file");
    SentencePiece result;
    result.cleaning_ = detail::caption_rules(model.empty() ? path : model, cleaning, "canonicalize").cleaning;
    read_settings(path, file.string());
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

TANDEM_INLINE std::vector<Id> SentencePiece::encode(std::string_view text) const {
    std::vector<Id> ids = cleaning_ == Cleaning::open_clip ? model_->encode(detail::canonicalize_as_open_clip(text))
                                                           : as_transformers(text);
    if (ids.empty() || ids.back() != end_) ids.push_back(end_);
    return ids;
}

TANDEM_INLINE void SentencePiece::encode(std::string_view text, std::span<Id> out) const {
    if (out.empty()) throw Error("SentencePiece::encode", "a context of at least 1 token", "0");
    const std::vector<Id> ids = encode(text);
    const std::size_t kept = std::min(ids.size(), out.size() - 1);
    std::copy_n(ids.begin(), kept, out.begin());
    std::fill(out.begin() + static_cast<std::ptrdiff_t>(kept), out.end(), end_);
}

TANDEM_INLINE std::vector<Id> SentencePiece::encode_batch(std::span<const std::string> texts,
                                                          std::size_t context) const {
    return detail::encode_rows(*this, texts, context);
}

[[gnu::cold]] TANDEM_INLINE void SentencePiece::read_settings(const std::filesystem::path& path,
                                                              const std::string& where) {
    const detail::TokenizerSettings settings = detail::read_tokenizer_settings(
        path, {"SiglipTokenizer", "T5Tokenizer", "T5TokenizerFast", "TokenizersBackend", "PreTrainedTokenizerFast"});
    settings.require(where, {{"eos_token", end_literal}, {"unk_token", unknown_literal}, {"pad_token", end_literal}},
                     [](const std::string& token) { return token == end_literal || token == unknown_literal; });
    if (settings.pads_left.value_or(false)) throw Error(where, "padding_side = right", "left");
    if (!settings.lowers.value_or(true)) throw Error(where, "do_lower_case = true", "false");
    for (const detail::AddedToken& token : settings.added) {
        if (token.text != end_literal && token.text != unknown_literal)
            throw Error(where, "no added tokens but </s> and <unk>", "\"" + token.text + "\"");
    }
}

TANDEM_INLINE std::vector<Id> SentencePiece::as_transformers(std::string_view text) const {
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

TANDEM_INLINE void SentencePiece::append_part(std::u32string_view part, std::vector<Id>& ids) const {
    const std::u32string canonical =
        detail::collapse_python_space(detail::without_punctuation(detail::python_lower(part)));
    const std::vector<Id> found = model_->encode(std::string(unknown_literal) + detail::encode_utf8(canonical));
    const std::size_t dropped = found.size() >= marker_pieces_ ? marker_pieces_ : 0;
    ids.insert(ids.end(), found.begin() + static_cast<std::ptrdiff_t>(dropped), found.end());
}

}  // namespace tandem::inline TANDEM_ABI

#endif

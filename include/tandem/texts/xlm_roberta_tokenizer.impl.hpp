// Definitions of texts/xlm_roberta_tokenizer.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/clean_text.hpp>
#include <tandem/texts/tokenizer.hpp>
#include <tandem/texts/tokenizer_config.hpp>
#include <tandem/texts/tokenizer_file.hpp>
#include <tandem/texts/unicode.hpp>
#include <tandem/texts/unigram.hpp>
#include <tandem/texts/xlm_roberta_tokenizer.hpp>

#if __has_include(<utf8proc.h>)

#include <utf8proc.h>

namespace tandem::inline TANDEM_ABI {

[[gnu::cold]] TANDEM_INLINE XlmRobertaTokenizer XlmRobertaTokenizer::load(const std::filesystem::path& path,
                                                                          std::optional<Cleaning> cleaning,
                                                                          const std::filesystem::path& model) {
    const std::filesystem::path file = detail::vocabulary_file(path, "sentencepiece.bpe.model");
    const std::filesystem::path& folder = model.empty() ? path : model;
    if (file.extension() == ".json") return from_json(detail::TokenizerFile::read(file), path, cleaning, folder);
    XlmRobertaTokenizer result;
    result.read_model(file);
    result.read_settings(path, file.string(), detail::caption_rules(folder, cleaning, "whitespace"));
    return result;
}

[[gnu::cold]] TANDEM_INLINE XlmRobertaTokenizer XlmRobertaTokenizer::from_json(detail::TokenizerFile json,
                                                                               const std::filesystem::path& path,
                                                                               std::optional<Cleaning> cleaning,
                                                                               const std::filesystem::path& model) {
    XlmRobertaTokenizer result;
    result.read_json(json);
    for (const detail::AddedToken& token : detail::added_tokens_of(json)) result.add(token, json.file.string());
    result.read_settings(path, json.file.string(),
                         detail::caption_rules(model, cleaning, result.frame_.begins ? "whitespace" : "canonicalize"));
    json.refuse_unread();
    return result;
}

TANDEM_INLINE std::vector<Id> XlmRobertaTokenizer::encode(std::string_view text) const {
    return frame_.encode(text, [&](std::string_view part, std::vector<Id>& ids) { append_part(part, ids); });
}

TANDEM_INLINE void XlmRobertaTokenizer::encode(std::string_view text, std::span<Id> out) const {
    frame_.fit("XlmRobertaTokenizer::encode", encode(text), out);
}

TANDEM_INLINE std::vector<Id> XlmRobertaTokenizer::encode_batch(std::span<const std::string> texts,
                                                                std::size_t context) const {
    return detail::encode_rows(*this, texts, context);
}

[[gnu::cold]] TANDEM_INLINE void XlmRobertaTokenizer::read_model(const std::filesystem::path& path) {
    memory_->file.emplace(path);
    const auto bytes = memory_->file->bytes();
    try {
        model_ = std::make_shared<const detail::UnigramModel>(
            std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    } catch (const Error& error) {
        throw Error(path.string(), "a model of SentencePiece", error.what());
    }
    if (model_->unknown() != 0)
        throw Error(path.string(), "the piece for what is unknown first", "at " + std::to_string(model_->unknown()));
    shift_ = 1;
    const auto mask = static_cast<Id>(model_->size() + 1);
    frame_ = {.begin = 0, .padding = 1, .end = 2, .unknown = 3};
    const std::array<std::pair<const char*, Id>, 5> specials{
        {{"<s>", 0}, {"<pad>", 1}, {"</s>", 2}, {"<unk>", 3}, {"<mask>", mask}}};
    for (const auto& [text, id] : specials) frame_.added.add({.text = text, .id = id});
}

[[gnu::cold]] TANDEM_INLINE void XlmRobertaTokenizer::read_settings(const std::filesystem::path& path,
                                                                    const std::string& where,
                                                                    const detail::CaptionRules& rules) {
    if (frame_.begins) {
        const detail::TokenizerSettings settings = detail::read_tokenizer_settings(
            path, {"XLMRobertaTokenizer", "XLMRobertaTokenizerFast", "TokenizersBackend", "PreTrainedTokenizerFast"});
        take(settings, where);
        if (!settings.adds_prefix_space.value_or(true)) throw Error(where, "add_prefix_space = true", "false");
        settings.require(where,
                         {{"cls_token", "<s>"},
                          {"bos_token", "<s>"},
                          {"sep_token", "</s>"},
                          {"eos_token", "</s>"},
                          {"pad_token", "<pad>"},
                          {"unk_token", "<unk>"},
                          {"mask_token", "<mask>"}},
                         [&](const std::string& token) { return frame_.added.has(token) || normalized_.has(token); });
    } else {
        const detail::TokenizerSettings settings = detail::read_tokenizer_settings(
            path, {"T5Tokenizer", "T5TokenizerFast", "TokenizersBackend", "PreTrainedTokenizerFast"});
        settings.require(where, {{"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", ""}},
                         [](const std::string& token) {
                             return token.starts_with("<extra_id_");  // sentinels of T5's training
                         });
        const std::string padding = settings.special("pad_token", "<pad>");
        if (padding != "<pad>" && padding != "</s>") throw Error(where, "pad_token = <pad> or </s>", padding);
        if (padding == "</s>") frame_.padding = frame_.end;
        // transformers 5's T5Tokenizer puts these steps in the place of the file's (tokenization_t5.py).
        if (settings.type.starts_with("T5")) splits_at_marks_alone_ = strips_right_ = collapses_spaces_ = false;
        take(settings, where);
    }
    frame_.cleans = rules.cleaning == Cleaning::open_clip && frame_.begins;
    frame_.canonicalizes = rules.cleaning == Cleaning::open_clip && !frame_.begins;
    frame_.strips_end = rules.strips_end;
}

[[gnu::cold]] TANDEM_INLINE void XlmRobertaTokenizer::take(const detail::TokenizerSettings& settings,
                                                           const std::string& where) {
    if (settings.pads_left.value_or(false)) throw Error(where, "padding_side = right", "left");
    for (const detail::AddedToken& token : settings.added) add(token, where);
}

[[gnu::cold]] TANDEM_INLINE void XlmRobertaTokenizer::add(detail::AddedToken token, const std::string& where) {
    if (!memory_->pieces.empty()) {
        std::size_t size = memory_->pieces.size();
        Id known = -1;
        for (const detail::AddedTokens* const tokens : {&frame_.added, &normalized_}) {
            for (const detail::AddedToken& other : tokens->tokens()) {
                size = std::max(size, static_cast<std::size_t>(other.id) + 1);
                if (other.text == token.text) known = other.id;
            }
        }
        const auto piece = std::ranges::find(memory_->pieces, token.text, &std::pair<std::string, double>::first);
        if (known < 0 && piece != memory_->pieces.end()) known = static_cast<Id>(piece - memory_->pieces.begin());
        detail::check_added(where, token, size, known);
    }
    if (token.normalized) token.text = mapped(token.text);
    (token.normalized ? normalized_ : frame_.added).add(std::move(token));
}

[[gnu::cold]] TANDEM_INLINE void XlmRobertaTokenizer::read_json(detail::TokenizerFile& json) {
    const std::string where = json.file.string();
    const auto refuse_unless = [&](bool holds, const std::string& expected, const std::string& found) {
        if (!holds) throw Error(where, expected, found.empty() ? "nothing" : found);
    };
    const std::string type = json.value("model.type"), unknown = json.value("model.unk_id");
    refuse_unless(type == "Unigram" || (type.empty() && !json.pieces.empty()), "model.type = Unigram", type);
    refuse_unless(json.value("model.byte_fallback", "false") == "false", "model.byte_fallback = false", "true");
    const auto id_of = [&](const char* piece) {
        const auto found = std::ranges::find(json.pieces, piece, &std::pair<std::string, double>::first);
        refuse_unless(found != json.pieces.end(), std::string("a piece ") + piece + " in model.vocab", "none");
        return static_cast<Id>(found - json.pieces.begin());
    };
    frame_.begins = std::ranges::find(json.pieces, "<s>", &std::pair<std::string, double>::first) != json.pieces.end();
    if (frame_.begins) frame_.begin = id_of("<s>");
    frame_.end = id_of("</s>");
    frame_.padding = id_of("<pad>");
    read_pipeline(json);
    memory_->pieces = std::move(json.pieces);
    for (const std::string at : {"normalizer", "normalizer.normalizers.0"}) {
        if (const std::string map = json.value(at + ".precompiled_charsmap"); !map.empty())
            memory_->character_map = from_base64(map, where);
    }
    frame_.unknown = static_cast<Id>(std::strtol(unknown.c_str(), nullptr, 10));
    try {
        model_ = std::make_shared<const detail::UnigramModel>(memory_->pieces, frame_.unknown, memory_->character_map);
    } catch (const Error& error) {
        throw Error(where, "a unigram model", error.what());
    }
}

[[gnu::cold]] TANDEM_INLINE void XlmRobertaTokenizer::read_pipeline(const detail::TokenizerFile& json) {
    const std::string normalizer = json.value("normalizer.type");
    if (normalizer != "Precompiled" && normalizer != "Sequence")
        throw Error(json.file.string(), "normalizer.type = Precompiled", normalizer.empty() ? "nothing" : normalizer);
    if (normalizer == "Sequence") json.require("normalizer.normalizers.0.type", "Precompiled");
    for (std::size_t i = 1; json.has("normalizer.normalizers." + std::to_string(i) + ".type"); ++i) {
        const std::string at = "normalizer.normalizers." + std::to_string(i) + ".", type = json.value(at + "type");
        if (type == "Strip") {
            json.require(at + "strip_left", "false");
            json.require(at + "strip_right", "true");
            strips_right_ = true;
        } else {
            // Runs of spaces become one, or the mark that it becomes.
            json.require(at + "type", "Replace");
            json.require(at + "pattern.Regex", " {2,}");
            const std::string content = json.value(at + "content");
            if (content != " " && content != "\u2581")
                throw Error(json.file.string(), at + "content = a space", content);
            collapses_spaces_ = true;
        }
    }
    const std::string splitter = json.value("pre_tokenizer.type");
    const bool is_sequence = splitter == "Sequence";
    const std::string at = is_sequence ? "pre_tokenizer.pretokenizers.1." : "pre_tokenizer.";
    if (is_sequence) json.require("pre_tokenizer.pretokenizers.0.type", "WhitespaceSplit");
    splits_at_marks_alone_ = !is_sequence;
    json.require(at + "type", "Metaspace");
    json.require(at + "replacement", "\u2581");
    json.require(at + "add_prefix_space", "true", "true");
    json.require(at + "prepend_scheme", "always", "always");
    json.require(at + "split", "true", "true");
    json.ignore(at + "str_rep");  // the replacement in older files
    json.require("post_processor.type", "TemplateProcessing");
    std::size_t part = 0;
    const auto expect = [&](const char* kind, const char* id) {
        json.require("post_processor.single." + std::to_string(part++) + "." + kind + ".id", id);
    };
    if (frame_.begins) expect("SpecialToken", "<s>");
    expect("Sequence", "A");
    expect("SpecialToken", "</s>");
    if (json.has("post_processor.single." + std::to_string(part) + ".SpecialToken.id"))
        throw Error(json.file.string(), "a post_processor that ends with </s>", "more");
    const auto has_id = [&](const std::string& token, Id id) {
        json.require("post_processor.special_tokens." + token + ".ids.0", std::to_string(id));
    };
    if (frame_.begins) has_id("<s>", frame_.begin);
    has_id("</s>", frame_.end);
    json.ignore("post_processor");
}

TANDEM_INLINE std::string XlmRobertaTokenizer::from_base64(std::string_view text, const std::string& where) {
    std::string bytes;
    std::uint32_t group = 0, bits = 0;
    for (const char letter : text) {
        constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        if (letter == '=') break;
        const std::size_t digit = digits.find(letter);
        if (digit == std::string_view::npos)
            throw Error(where, "a precompiled_charsmap in base64", std::string(1, letter));
        group = group << 6 | static_cast<std::uint32_t>(digit);
        if ((bits += 6) >= 8) bytes += static_cast<char>(group >> (bits -= 8) & 0xFFU);
    }
    return bytes;
}

TANDEM_INLINE void XlmRobertaTokenizer::append_part(std::string_view text, std::vector<Id>& ids) const {
    normalized_.split(
        mapped(text),
        [&](std::string_view part) {
            const std::size_t first = ids.size();
            splits_at_marks_alone_ ? model_->append_marked(part, ids) : model_->append_words(part, ids);
            for (std::size_t i = first; i < ids.size(); ++i)
                ids[i] = ids[i] == model_->unknown() ? frame_.unknown : ids[i] + shift_;
        },
        [&](Id token) { ids.push_back(token); });
}

TANDEM_INLINE std::string XlmRobertaTokenizer::mapped(std::string_view text) const {
    std::string result;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = grapheme_end(text, begin);
        model_->append_mapped(text.substr(begin, end - begin), result);
        begin = end;
    }
    if (strips_right_) {
        std::size_t end = result.size();
        while (end > 0) {
            std::size_t letter = end - 1;
            while (letter > 0 && (static_cast<unsigned char>(result[letter]) & 0xC0U) == 0x80) --letter;
            if (!detail::is_white_space(detail::front_code_point(std::string_view(result).substr(letter)).value)) break;
            end = letter;
        }
        result.resize(end);
    }
    if (collapses_spaces_)
        result.erase(std::ranges::unique(result, [](char a, char b) { return a == ' ' && b == ' '; }).begin(),
                     result.end());
    return result;
}

TANDEM_INLINE std::size_t XlmRobertaTokenizer::grapheme_end(std::string_view text, std::size_t at) {
    detail::CodePoint before = detail::front_code_point(text.substr(at));
    utf8proc_int32_t state = 0;
    while ((at += before.bytes) < text.size()) {
        const detail::CodePoint next = detail::front_code_point(text.substr(at));
        if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(before.value),
                                             static_cast<utf8proc_int32_t>(next.value), &state))
            break;
        before = next;
    }
    return at;
}

}  // namespace tandem::inline TANDEM_ABI

#endif

// Definitions of texts/json_tokenizer.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/added_tokens.hpp>
#include <tandem/texts/bpe_merges.hpp>
#include <tandem/texts/clean_text.hpp>
#include <tandem/texts/json_tokenizer.hpp>
#include <tandem/texts/tokenizer.hpp>
#include <tandem/texts/tokenizer_config.hpp>
#include <tandem/texts/tokenizer_file.hpp>
#include <tandem/texts/unicode.hpp>

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI {

[[gnu::cold]] TANDEM_INLINE JsonTokenizer JsonTokenizer::load(const std::filesystem::path& path,
                                                              std::optional<Cleaning> cleaning,
                                                              const std::filesystem::path& model) {
    const bool is_folder = std::filesystem::is_directory(path);
    const std::filesystem::path file = is_folder ? path / "tokenizer.json" : path;
    return from_json(detail::TokenizerFile::read(file), path,
                     detail::caption_rules(model.empty() ? path : model, cleaning, "canonicalize"));
}

[[gnu::cold]] TANDEM_INLINE JsonTokenizer JsonTokenizer::from_json(const detail::TokenizerFile& json,
                                                                   const std::filesystem::path& path,
                                                                   const detail::CaptionRules& rules) {
    JsonTokenizer result(json);
    const std::string where = json.file.string();
    const detail::TokenizerSettings settings = detail::read_tokenizer_settings(
        path,
        {"GemmaTokenizer", "GemmaTokenizerFast", "Siglip2Tokenizer", "TokenizersBackend", "PreTrainedTokenizerFast"});
    result.pads_left_ = settings.pads_left.value_or(json.value("padding.direction") == "Left");
    for (const detail::AddedToken& token : settings.added) result.add(token);
    for (const detail::AddedToken& token : detail::added_tokens_of(json)) result.add(token);
    const auto has = [&](const std::string& token) { return result.id_of(token).has_value(); };
    settings.require(where,
                     {{"bos_token", ""},
                      {"eos_token", ""},
                      {"unk_token", ""},
                      {"pad_token", ""},
                      {"mask_token", ""},
                      {"sep_token", ""},
                      {"cls_token", ""}},
                     has);
    for (const auto& [role, token] : settings.specials) {
        if (!has(token)) throw Error(where, role + " among the added tokens", token);
    }
    result.padding_ = result.id_of(settings.special("pad_token", "<pad>")).value_or(0);
    if (settings.adds_begin && *settings.adds_begin == result.before_.empty())
        throw Error(where, "a post_processor as add_bos_token says",
                    result.before_.empty() ? "none before a text" : "one before a text");
    if (settings.adds_end && *settings.adds_end == result.behind_.empty())
        throw Error(where, "a post_processor as add_eos_token says",
                    result.behind_.empty() ? "none behind a text" : "one behind a text");
    json.value("padding.direction");
    json.refuse_unread();
    result.canonicalizes_ = rules.cleaning == Cleaning::open_clip;
    return result;
}

TANDEM_INLINE std::vector<Id> JsonTokenizer::encode(std::string_view text) const {
    std::vector<Id> ids = before_;
    append_text(text, ids);
    ids.insert(ids.end(), behind_.begin(), behind_.end());
    return ids;
}

TANDEM_INLINE void JsonTokenizer::encode(std::string_view text, std::span<Id> out) const {
    const std::size_t around = before_.size() + behind_.size();
    if (out.size() < std::max<std::size_t>(around, 1))
        throw Error("JsonTokenizer::encode",
                    "a context of at least " + std::to_string(std::max<std::size_t>(around, 1)) + " tokens",
                    std::to_string(out.size()));
    std::vector<Id> ids = before_;
    append_text(text, ids);
    ids.resize(std::min(ids.size(), out.size() - behind_.size()));
    ids.insert(ids.end(), behind_.begin(), behind_.end());
    const std::size_t padded = out.size() - ids.size();
    std::fill(out.begin(), out.end(), padding_);
    std::copy(ids.begin(), ids.end(), out.begin() + static_cast<std::ptrdiff_t>(pads_left_ ? padded : 0));
}

TANDEM_INLINE std::vector<Id> JsonTokenizer::encode_batch(std::span<const std::string> texts,
                                                          std::size_t context) const {
    return detail::encode_rows(*this, texts, context);
}

[[gnu::cold]] TANDEM_INLINE JsonTokenizer::JsonTokenizer(const detail::TokenizerFile& json) {
    const std::string where = json.file.string();
    json.require("model.type", "BPE");
    json.require("model.byte_fallback", "true");
    json.require("model.ignore_merges", "false", "false");
    for (const char* const path : {"model.unk_token", "model.fuse_unk"})
        json.ignore(path);  // bytes stand for what is unknown
    for (const char* option : {"model.dropout", "model.continuing_subword_prefix", "model.end_of_word_suffix"}) {
        const std::string found = json.value(option, "null");
        if (found != "null" && !found.empty()) throw Error(where, std::string(option) + " = null", found);
    }

    read_normalizers(json, "normalizer", where);
    read_pre_tokenizer(json, where);
    read_vocabulary(json, where);
    read_template(json, where);
}

TANDEM_INLINE void JsonTokenizer::read_normalizers(const detail::TokenizerFile& json, const std::string& at,
                                                   const std::string& where) {
    const std::string type = json.value(at + ".type");
    if (type == "Sequence") {
        for (std::size_t i = 0; !json.value(at + ".normalizers." + std::to_string(i) + ".type").empty(); ++i)
            read_normalizers(json, at + ".normalizers." + std::to_string(i), where);
    } else if (type == "Lowercase") {
        normalizers_.push_back({true, "", ""});
    } else if (type == "Replace" && !json.value(at + ".pattern.String").empty()) {
        normalizers_.push_back({false, json.value(at + ".pattern.String"), json.value(at + ".content")});
    } else if (!type.empty()) {
        throw Error(where, at + " of type Sequence, Lowercase, or Replace of a string", type);
    }
}

TANDEM_INLINE void JsonTokenizer::read_pre_tokenizer(const detail::TokenizerFile& json,
                                                     const std::string& where) const {
    const std::string type = json.value("pre_tokenizer.type"), pattern = json.value("pre_tokenizer.pattern.String");
    const bool is_idle = std::any_of(normalizers_.begin(), normalizers_.end(),
                                     [&](const Normalizer& step) { return !step.lowers && step.from == pattern; });
    if (!type.empty() && !(type == "Split" && is_idle))
        throw Error(where, "no pre_tokenizer, or a Split at what the normalizer replaces", type);
    if (is_idle) json.ignore("pre_tokenizer");  // nothing is left to split at, however it would be
}

TANDEM_INLINE void JsonTokenizer::read_vocabulary(const detail::TokenizerFile& json, const std::string& where) {
    const auto id_of = [&](const std::string& token, const char* what) {
        const auto found = json.vocabulary.find(token);
        if (found == json.vocabulary.end())
            throw Error(where, std::string(what) + " in model.vocab", "\"" + token + "\"");
        return found->second;
    };
    for (std::size_t byte = 0; byte < byte_ids_.size(); ++byte) {
        std::array<char, 8> name;
        std::snprintf(name.data(), name.size(), "<0x%02X>", static_cast<unsigned>(byte));
        byte_ids_[byte] = id_of(name.data(), "all bytes");
    }
    merges_ = detail::MergeRules(json.merges.size());
    for (const auto& [left, right] : json.merges) {
        if (!merges_.add({id_of(left, "all merges"), id_of(right, "all merges"), id_of(left + right, "all merges")}))
            throw Error(where, "each merge once", "\"" + left + " " + right + "\" twice");
    }
    for (const auto& [token, id] : json.vocabulary) {
        const std::u32string letters = detail::decode_utf8(token);
        if (letters.size() == 1) letter_ids_.emplace(letters[0], id);
        size_ = std::max(size_, static_cast<std::size_t>(id) + 1);
    }
}

TANDEM_INLINE void JsonTokenizer::add(detail::AddedToken token) {
    size_ = std::max(size_, static_cast<std::size_t>(token.id) + 1);
    if (token.normalized) token.text = normalized(token.text);
    (token.normalized ? normalized_ : added_).add(std::move(token));
}

TANDEM_INLINE std::optional<Id> JsonTokenizer::id_of(const std::string& text) const {
    for (const detail::AddedTokens* const tokens : {&added_, &normalized_}) {
        for (const detail::AddedToken& token : tokens->tokens()) {
            if (token.text == text) return token.id;
        }
    }
    return std::nullopt;
}

TANDEM_INLINE void JsonTokenizer::read_template(const detail::TokenizerFile& json, const std::string& where) {
    const std::string type = json.value("post_processor.type");
    if (type.empty()) return;
    if (type != "TemplateProcessing") throw Error(where, "a post_processor of type TemplateProcessing", type);
    bool is_behind = false;
    for (std::size_t i = 0;; ++i) {
        const std::string at = "post_processor.single." + std::to_string(i);
        const std::string token = json.value(at + ".SpecialToken.id");
        if (!json.value(at + ".Sequence.id").empty()) {
            is_behind = true;
        } else if (!token.empty()) {
            const std::string id = json.value("post_processor.special_tokens." + token + ".ids.0");
            if (id.empty()) throw Error(where, "the id of every token of post_processor", "none of " + token);
            (is_behind ? behind_ : before_).push_back(static_cast<Id>(std::stoul(id)));
        } else {
            break;
        }
        json.ignore(at);
    }
    // Captions are single; the ids of its tokens were read.
    json.ignore("post_processor.pair");
    json.ignore("post_processor.special_tokens");
}

TANDEM_INLINE void JsonTokenizer::append_text(std::string_view raw, std::vector<Id>& ids) const {
    const std::string text = canonicalizes_ ? detail::canonicalize_as_open_clip(raw)
                                            : detail::encode_utf8(detail::decode_utf8(raw));  // which is valid
    const auto token = [&](Id id) { ids.push_back(id); };
    added_.split(
        text,
        [&](std::string_view part) {
            normalized_.split(
                normalized(std::string(part)), [&](std::string_view rest) { append_part(rest, ids); }, token);
        },
        token);
}

TANDEM_INLINE std::string JsonTokenizer::normalized(std::string part) const {
    for (const Normalizer& step : normalizers_) {
        if (step.lowers) {
            part = detail::encode_utf8(detail::lower_by_letter(detail::decode_utf8(part)));
            continue;
        }
        for (std::size_t at = part.find(step.from); at != std::string::npos;
             at = part.find(step.from, at + step.to.size()))
            part.replace(at, step.from.size(), step.to);
    }
    return part;
}

TANDEM_INLINE void JsonTokenizer::append_part(std::string_view part, std::vector<Id>& ids) const {
    std::vector<Id> word;
    for (const char32_t letter : detail::decode_utf8(part)) {
        if (const auto found = letter_ids_.find(letter); found != letter_ids_.end()) {
            word.push_back(found->second);
            continue;
        }
        for (const char byte : detail::encode_utf8(std::u32string(1, letter)))
            word.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
    }
    std::vector<std::uint32_t> ranks;
    merges_.apply(word, ranks);
    ids.insert(ids.end(), word.begin(), word.end());
}

}  // namespace tandem::inline TANDEM_ABI

#endif

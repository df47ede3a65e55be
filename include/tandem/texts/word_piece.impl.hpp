// Definitions of texts/word_piece.hpp.
#pragma once

#include <cstddef>
#include <filesystem>
#include <fstream>
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
#include <tandem/texts/code_points.hpp>
#include <tandem/texts/tokenizer.hpp>
#include <tandem/texts/tokenizer_config.hpp>
#include <tandem/texts/tokenizer_file.hpp>
#include <tandem/texts/unicode.hpp>
#include <tandem/texts/word_piece.hpp>

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI::detail {

// tokenizers takes its classes of characters from Unicode 8: these came later.
inline constexpr CodeRange marks_after_unicode_8[] = {
    {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8e1},     {0x9fe, 0x9fe},     {0xafa, 0xaff},
    {0xb55, 0xb55},     {0xc04, 0xc04},     {0xc3c, 0xc3c},     {0xd00, 0xd00},     {0xd3b, 0xd3c},
    {0xd81, 0xd81},     {0xeba, 0xeba},     {0x180f, 0x180f},   {0x1885, 0x1886},   {0x1abf, 0x1ace},
    {0x1df6, 0x1dfb},   {0xa82c, 0xa82c},   {0xa8c5, 0xa8c5},   {0xa8ff, 0xa8ff},   {0xa9bd, 0xa9bd},
    {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070},
    {0x11073, 0x11074}, {0x110c2, 0x110c2}, {0x111c9, 0x111c9}, {0x111cf, 0x111cf}, {0x1123e, 0x1123e},
    {0x1133b, 0x1133b}, {0x11438, 0x1143f}, {0x11442, 0x11444}, {0x11446, 0x11446}, {0x1145e, 0x1145e},
    {0x1182f, 0x11837}, {0x11839, 0x1183a}, {0x1193b, 0x1193c}, {0x1193e, 0x1193e}, {0x11943, 0x11943},
    {0x119d4, 0x119d7}, {0x119da, 0x119db}, {0x119e0, 0x119e0}, {0x11a01, 0x11a0a}, {0x11a33, 0x11a38},
    {0x11a3b, 0x11a3e}, {0x11a47, 0x11a47}, {0x11a51, 0x11a56}, {0x11a59, 0x11a5b}, {0x11a8a, 0x11a96},
    {0x11a98, 0x11a99}, {0x11c30, 0x11c36}, {0x11c38, 0x11c3d}, {0x11c3f, 0x11c3f}, {0x11c92, 0x11ca7},
    {0x11caa, 0x11cb0}, {0x11cb2, 0x11cb3}, {0x11cb5, 0x11cb6}, {0x11d31, 0x11d36}, {0x11d3a, 0x11d3a},
    {0x11d3c, 0x11d3d}, {0x11d3f, 0x11d45}, {0x11d47, 0x11d47}, {0x11d90, 0x11d91}, {0x11d95, 0x11d95},
    {0x11d97, 0x11d97}, {0x11ef3, 0x11ef4}, {0x16f4f, 0x16f4f}, {0x16fe4, 0x16fe4}, {0x1cf00, 0x1cf2d},
    {0x1cf30, 0x1cf46}, {0x1e000, 0x1e006}, {0x1e008, 0x1e018}, {0x1e01b, 0x1e021}, {0x1e023, 0x1e024},
    {0x1e026, 0x1e02a}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e944, 0x1e94a}};

inline constexpr CodeRange punctuation_after_unicode_8[] = {
    {0x61d, 0x61d},     {0x9fd, 0x9fd},     {0xa76, 0xa76},     {0xc77, 0xc77},     {0xc84, 0xc84},
    {0x1b7d, 0x1b7e},   {0x2e43, 0x2e4f},   {0x2e52, 0x2e5d},   {0x10ead, 0x10ead}, {0x10f55, 0x10f59},
    {0x10f86, 0x10f89}, {0x1144b, 0x1144f}, {0x1145a, 0x1145b}, {0x1145d, 0x1145d}, {0x11660, 0x1166c},
    {0x116b9, 0x116b9}, {0x1183b, 0x1183b}, {0x11944, 0x11946}, {0x119e2, 0x119e2}, {0x11a3f, 0x11a46},
    {0x11a9a, 0x11a9c}, {0x11a9e, 0x11aa2}, {0x11c41, 0x11c45}, {0x11c70, 0x11c71}, {0x11ef7, 0x11ef8},
    {0x11fff, 0x11fff}, {0x12ff1, 0x12ff2}, {0x16e97, 0x16e9a}, {0x16fe2, 0x16fe2}, {0x1e95e, 0x1e95f}};

inline constexpr CodeRange formats_after_unicode_8[] = {
    {0x890, 0x891}, {0x8e2, 0x8e2}, {0x110cd, 0x110cd}, {0x13430, 0x13438}};

// tokenizers/src/normalizers/bert.rs, is_chinese_char; 0x2B920 is its own.
inline constexpr CodeRange chinese_characters[] = {{0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfaff},
                                                   {0x20000, 0x2a6df}, {0x2a700, 0x2b81f}, {0x2b920, 0x2ceaf},
                                                   {0x2f800, 0x2fa1f}};

/// What BertNormalizer leaves out: NUL, the replacement character, controls, formats, private and unpaired code points.
TANDEM_INLINE bool is_bert_control(char32_t c) {
    if (c == 0 || c == replacement_character) return true;
    if (c == U'\t' || c == U'\n' || c == U'\r') return false;
    const utf8proc_category_t kind = category(c);
    return (kind == UTF8PROC_CATEGORY_CC || kind == UTF8PROC_CATEGORY_CF || kind == UTF8PROC_CATEGORY_CO ||
            kind == UTF8PROC_CATEGORY_CS) &&
           !in_ranges(formats_after_unicode_8, c);
}

/// A nonspacing mark, which BertNormalizer strips together with case.
TANDEM_INLINE bool is_accent(char32_t c) {
    // U+1734 was a nonspacing mark in Unicode 8.
    return c == 0x1734 || (category(c) == UTF8PROC_CATEGORY_MN && !in_ranges(marks_after_unicode_8, c));
}

/// What BertPreTokenizer makes words of their own.
TANDEM_INLINE bool is_bert_punctuation(char32_t c) {
    if (c < 0x80)
        return (c >= U'!' && c <= U'/') || (c >= U':' && c <= U'@') || (c >= U'[' && c <= U'`') ||
               (c >= U'{' && c <= U'~');
    if (c == 0x166d || c == 0x111c9) return true;  // were punctuation in Unicode 8
    const utf8proc_category_t kind = category(c);
    return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO && !in_ranges(punctuation_after_unicode_8, c);
}

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

[[gnu::cold]] TANDEM_INLINE WordPiece WordPiece::load(const std::filesystem::path& path,
                                                      std::optional<Cleaning> cleaning,
                                                      const std::filesystem::path& model) {
    const std::filesystem::path file = detail::vocabulary_file(path, "vocab.txt");
    const auto rules = detail::caption_rules(model.empty() ? path : model, cleaning, "whitespace");
    if (file.extension() == ".json") return from_json(detail::TokenizerFile::read(file), path, rules);
    WordPiece result;
    result.read_vocabulary(file);
    const detail::TokenizerSettings settings = read_settings(path);
    result.lowers_ = settings.lowers.value_or(true);
    result.strips_accents_ = settings.strips_accents.value_or(result.lowers_);
    result.splits_chinese_ = settings.splits_chinese.value_or(true);
    result.find_specials(file, settings, rules);
    return result;
}

[[gnu::cold]] TANDEM_INLINE WordPiece WordPiece::from_json(detail::TokenizerFile json,
                                                           const std::filesystem::path& path,
                                                           const detail::CaptionRules& rules) {
    WordPiece result;
    result.read_json(json);
    for (const detail::AddedToken& token : detail::added_tokens_of(json)) result.add(json.file, token);
    const detail::TokenizerSettings settings = read_settings(path);
    // transformers 5 takes its config's word over the file's (tokenization_bert.py).
    result.lowers_ = settings.lowers.value_or(result.lowers_);
    const std::string strips = json.value("normalizer.strip_accents", "null");
    result.strips_accents_ = settings.strips_accents.value_or(strips == "null" ? result.lowers_ : strips == "true");
    result.splits_chinese_ = settings.splits_chinese.value_or(result.splits_chinese_);
    result.find_specials(json.file, settings, rules);
    json.refuse_unread();
    return result;
}

TANDEM_INLINE std::vector<Id> WordPiece::encode(std::string_view text) const {
    return frame_.encode(text, [&](std::string_view part, std::vector<Id>& ids) { append_part(part, ids); });
}

TANDEM_INLINE std::vector<Id> WordPiece::encode_batch(std::span<const std::string> texts, std::size_t context) const {
    return detail::encode_rows(*this, texts, context);
}

[[gnu::cold]] TANDEM_INLINE void WordPiece::read_vocabulary(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    Id id = 0;
    for (std::string line; std::getline(file, line); ++id) {
        if (line.ends_with('\r')) line.pop_back();
        ids_.emplace(line, id);
    }
}

[[gnu::cold]] TANDEM_INLINE detail::TokenizerSettings WordPiece::read_settings(const std::filesystem::path& path) {
    return detail::read_tokenizer_settings(
        path, {"BertTokenizer", "BertTokenizerFast", "TokenizersBackend", "PreTrainedTokenizerFast"});
}

[[gnu::cold]] TANDEM_INLINE void WordPiece::find_specials(const std::filesystem::path& file,
                                                          const detail::TokenizerSettings& settings,
                                                          const detail::CaptionRules& rules) {
    const auto id_of = [&](const char* literal) {
        const auto found = ids_.find(literal);
        if (found == ids_.end()) throw Error(file.string(), std::string("a piece ") + literal, "none");
        frame_.added.add({.text = literal, .id = found->second});
        return found->second;
    };
    frame_.padding = id_of("[PAD]");
    frame_.unknown = id_of("[UNK]");
    frame_.begin = id_of("[CLS]");
    frame_.end = id_of("[SEP]");
    if (const auto mask = ids_.find("[MASK]"); mask != ids_.end())
        frame_.added.add({.text = mask->first, .id = mask->second});
    for (const detail::AddedToken& token : settings.added) add(file, token);
    settings.require(file.string(),
                     {{"pad_token", "[PAD]"},
                      {"unk_token", "[UNK]"},
                      {"cls_token", "[CLS]"},
                      {"sep_token", "[SEP]"},
                      {"mask_token", "[MASK]"}},
                     [&](const std::string& token) { return frame_.added.has(token); });
    if (settings.pads_left.value_or(false)) throw Error(file.string(), "padding_side = right", "left");
    frame_.cleans = rules.cleaning == Cleaning::open_clip;
    frame_.strips_end = rules.strips_end;
}

[[gnu::cold]] TANDEM_INLINE void WordPiece::add(const std::filesystem::path& file, const detail::AddedToken& token) {
    if (token.normalized)
        throw Error(file.string(), "added tokens that are special, or normalized = false", "\"" + token.text + "\"");
    const auto known = ids_.find(token.text);
    detail::check_added(file.string(), token, ids_.size(), known == ids_.end() ? -1 : known->second);
    ids_.emplace(token.text, token.id);
    frame_.added.add(token);
}

[[gnu::cold]] TANDEM_INLINE void WordPiece::read_json(detail::TokenizerFile& json) {
    json.require("model.type", "WordPiece", "WordPiece");
    json.require("model.unk_token", "[UNK]", "[UNK]");
    json.require("model.continuing_subword_prefix", "##", "##");
    json.require("model.max_input_chars_per_word", "100", "100");
    json.require("normalizer.type", "BertNormalizer");
    json.require("normalizer.clean_text", "true", "true");
    json.require("pre_tokenizer.type", "BertPreTokenizer");
    // [CLS] text [SEP], in either of the two words for it.
    const std::string frame = json.value("post_processor.type");
    if (frame != "BertProcessing" && frame != "TemplateProcessing")
        throw Error(json.file.string(), "post_processor.type = TemplateProcessing or BertProcessing",
                    frame.empty() ? "nothing" : frame);
    if (frame == "TemplateProcessing") {
        json.require("post_processor.single.0.SpecialToken.id", "[CLS]");
        json.require("post_processor.single.1.Sequence.id", "A");
        json.require("post_processor.single.2.SpecialToken.id", "[SEP]");
        if (json.has("post_processor.single.3.SpecialToken.id"))
            throw Error(json.file.string(), "a post_processor of [CLS], text and [SEP]", "more");
        for (const char* const token : {"[CLS]", "[SEP]"}) {
            const std::string id = json.value(std::string("post_processor.special_tokens.") + token + ".ids.0");
            if (const auto found = json.vocabulary.find(token);
                found == json.vocabulary.end() || std::to_string(found->second) != id)
                throw Error(json.file.string(), std::string("post_processor's id of ") + token + " as the vocabulary's",
                            id);
        }
    }
    json.ignore("post_processor");
    lowers_ = json.value("normalizer.lowercase", "true") == "true";
    const std::string strips = json.value("normalizer.strip_accents", "null");
    strips_accents_ = strips == "null" ? lowers_ : strips == "true";
    splits_chinese_ = json.value("normalizer.handle_chinese_chars", "true") == "true";
    ids_ = std::move(json.vocabulary);
}

TANDEM_INLINE void WordPiece::append_part(std::string_view text, std::vector<Id>& ids) const {
    std::u32string codes;
    for (const char32_t c : detail::decode_utf8(text)) {
        if (detail::is_bert_control(c)) continue;
        const bool is_chinese = splits_chinese_ && detail::in_ranges(detail::chinese_characters, c);
        if (is_chinese) codes += U' ';
        codes += c;
        if (is_chinese) codes += U' ';
    }
    if (strips_accents_) {
        codes = detail::normalize(std::move(codes), detail::NormalForm::nfd);
        std::erase_if(codes, detail::is_accent);
    }
    if (lowers_) codes = detail::lower_by_letter(codes);
    std::u32string word;
    for (const char32_t c : codes) {
        const bool is_space = detail::is_white_space(c), is_alone = detail::is_bert_punctuation(c);
        if (is_space || is_alone) append_word(std::exchange(word, {}), ids);
        if (is_alone) append_word(std::u32string(1, c), ids);
        if (!is_space && !is_alone) word += c;
    }
    append_word(word, ids);
}

TANDEM_INLINE void WordPiece::append_word(const std::u32string& word, std::vector<Id>& ids) const {
    const std::size_t first = ids.size();
    bool is_known = word.size() <= longest_word;
    for (std::size_t at = 0; is_known && at < word.size();) {
        std::size_t end = word.size();
        for (; end > at; --end) {
            const std::string piece =
                (at > 0 ? "##" : "") + detail::encode_utf8(std::u32string_view(word).substr(at, end - at));
            if (const auto found = ids_.find(piece); found != ids_.end()) {
                ids.push_back(found->second);
                break;
            }
        }
        is_known = end > at;
        at = end;
    }
    if (!is_known) {
        ids.resize(first);
        ids.push_back(frame_.unknown);
    }
}

}  // namespace tandem::inline TANDEM_ABI

#endif

// Definitions of texts/tokenizer_config.hpp.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/files/config_reader.hpp>
#include <tandem/texts/added_tokens.hpp>
#include <tandem/texts/clean_text.hpp>
#include <tandem/texts/tokenizer_config.hpp>
#include <tandem/texts/tokenizer_file.hpp>

#if __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI::detail {

TANDEM_INLINE std::string TokenizerSettings::special(const std::string& role, const std::string& otherwise) const {
    const auto found = specials.find(role);
    return found == specials.end() ? otherwise : found->second;
}

[[gnu::cold]] TANDEM_INLINE void read_special_tokens(const ConfigReader& config, TokenizerSettings& settings) {
    for (const char* const role :
         {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"}) {
        const std::string name = role;
        const auto found = config.find(name), content = config.find(name + ".content");
        // The tokens' own flags stand with the added tokens.
        config.ignore({{name, "its content was read"}});
        if (found || content) settings.specials.emplace(name, found ? *found : *content);
    }
    for (const char* const list : {"additional_special_tokens", "extra_special_tokens"}) {
        for (const std::string& name : {std::string(list), list + std::string(".content")}) {
            for (std::string& token : config.all(name)) settings.listed.push_back(std::move(token));
        }
        // Version 5 also writes an object of names and tokens.
        for (const std::string& key : config.keys_below(list + std::string("."))) {
            const std::string at = list + std::string(".") + key;
            if (key == "content") continue;
            if (auto token = config.find(at)) settings.listed.push_back(std::move(*token));
            if (auto token = config.find(at + ".content")) settings.listed.push_back(std::move(*token));
        }
        config.ignore({{list, "their contents were read; their flags stand with the added tokens"}});
    }
}

[[gnu::cold]] TANDEM_INLINE TokenizerSettings read_tokenizer_settings(const std::filesystem::path& folder,
                                                                      std::initializer_list<std::string_view> classes) {
    TokenizerSettings settings;
    if (!std::filesystem::is_directory(folder)) return settings;
    std::map<std::string, AddedToken> added;
    if (const auto path = folder / "added_tokens.json"; std::filesystem::exists(path)) {
        const ConfigReader config(path);
        for (const auto& [token, id] : config.counts())
            added[token] = {.text = token, .id = static_cast<Id>(id), .normalized = true};
    }
    if (const auto path = folder / "tokenizer_config.json"; std::filesystem::exists(path)) {
        const ConfigReader config(path);
        settings.type = config.one_of("tokenizer_class", "", classes);
        read_special_tokens(config, settings);
        const std::string decoder = "added_tokens_decoder.";
        for (const std::string& number : config.keys_below(decoder)) {
            const std::string at = decoder + number + ".";
            std::size_t id = 0;
            const auto [end, failed] = std::from_chars(number.data(), number.data() + number.size(), id);
            if (failed != std::errc() || end != number.data() + number.size())
                throw Error(config.where(), "added_tokens_decoder of ids", number);
            const auto is = [&](const char* name) { return config.flag(at + name).value_or(false); };
            const std::string text = config.find(at + "content").value_or("");
            config.ignore({{"__type", "a name"}}, at);
            const bool is_special = config.flag(at + "special").value_or(false);
            added[text] = {text,         static_cast<Id>(id), is("single_word"),
                           is("lstrip"), is("rstrip"),        config.flag(at + "normalized").value_or(!is_special)};
        }
        const auto side = [&](const char* key, const char* only) {
            const std::string found = config.one_of(key, "right", {"right", "left"});
            if (only != nullptr && found != only) config.refuse(key, only);
            return config.find(key) ? std::optional(found == "left") : std::nullopt;
        };
        settings.pads_left = side("padding_side", nullptr);
        side("truncation_side", "right");
        settings.lowers = config.flag("do_lower_case");
        settings.strips_accents = config.flag("strip_accents");
        settings.splits_chinese = config.flag("tokenize_chinese_chars");
        settings.adds_begin = config.flag("add_bos_token");
        settings.adds_end = config.flag("add_eos_token");
        config.require("split_special_tokens", "false");
        config.require("do_basic_tokenize", "true");
        settings.adds_prefix_space = config.flag("add_prefix_space");
        static constexpr std::string_view name = "a name, or where files come from";
        static constexpr std::string_view decoding = "of ids that become text";
        static constexpr std::string_view call = "overridden by the call that pads and cuts to the model's context";
        config.ignore({{"name_or_path", name},
                       {"_name_or_path", name},
                       {"special_tokens_map_file", name},
                       {"tokenizer_file", name},
                       {"vocab_file", name},
                       {"merges_file", name},
                       {"processor_class", name},
                       {"transformers_version", name},
                       {"is_local", name},
                       {"local_files_only", name},
                       {"unk_id", "the vocabulary says it"},
                       {"backend", "which code computes it"},
                       {"use_fast", "which code computes it"},
                       {"errors", decoding},
                       {"clean_up_tokenization_spaces", decoding},
                       {"spaces_between_special_tokens", decoding},
                       {"model_max_length", call},
                       {"max_length", call},
                       {"padding", call},
                       {"truncation", call},
                       {"truncation_strategy", call},
                       {"stride", call},
                       {"pad_to_multiple_of", call},
                       {"pad_token_type_id", "captions have one type"},
                       {"model_input_names", "how results are handed over"},
                       {"verbose", name},
                       {"chat_template", "of chats"},
                       {"use_default_system_prompt", "of chats"},
                       {"legacy", "of LLaMA's spaces behind special tokens, of which captions have none"},
                       {"extra_ids", "sentinels of T5's training, which captions do not hold"}});
        config.refuse_unread();
    }
    if (const auto path = folder / "special_tokens_map.json"; std::filesystem::exists(path)) {
        const ConfigReader config(path);
        read_special_tokens(config, settings);
        config.refuse_unread();
    }
    for (auto& [text, token] : added) settings.added.push_back(std::move(token));
    std::ranges::sort(settings.added, {}, &AddedToken::id);
    return settings;
}

[[gnu::cold]] TANDEM_INLINE void check_added(const std::string& where, const AddedToken& token, std::size_t size,
                                             Id known) {
    const Id expected = known >= 0 ? known : static_cast<Id>(size);
    if (token.id != expected)
        throw Error(where, "added token \"" + token.text + "\" with id " + std::to_string(expected),
                    std::to_string(token.id));
}

[[gnu::cold]] TANDEM_INLINE std::vector<AddedToken> added_tokens_of(const TokenizerFile& json) {
    std::vector<AddedToken> added;
    for (std::size_t i = 0; json.has("added_tokens." + std::to_string(i) + ".content"); ++i) {
        const std::string at = "added_tokens." + std::to_string(i) + ".";
        const auto is = [&](const char* name) { return json.value(at + name, "false") == "true"; };
        const std::string number = json.value(at + "id");
        Id id = -1;
        const auto [end, failed] = std::from_chars(number.data(), number.data() + number.size(), id);
        if (failed != std::errc() || end != number.data() + number.size() || id < 0)
            throw Error(json.file.string(), at + "id = a whole number", number.empty() ? "nothing" : number);
        added.push_back(
            {json.value(at + "content"), id, is("single_word"), is("lstrip"), is("rstrip"), is("normalized")});
        json.ignore(at + "special");
    }
    return added;
}

[[gnu::cold]] TANDEM_INLINE CaptionRules caption_rules(const std::filesystem::path& folder,
                                                       std::optional<Cleaning> wanted, std::string_view own) {
    const std::filesystem::path path = folder / "open_clip_config.json";
    const bool is_open_clip = std::filesystem::exists(path);
    CaptionRules rules{wanted.value_or(is_open_clip ? Cleaning::open_clip : Cleaning::transformers)};
    if (!is_open_clip || rules.cleaning != Cleaning::open_clip) return rules;
    const ConfigReader config(path);
    const std::string at = "model_cfg.text_cfg.", options = at + "tokenizer_kwargs.";
    if (!config.has_below(at)) return rules;
    config.require(at + "tokenizer_mode", "");
    const std::string usual = config.find(at + "hf_tokenizer_name").value_or("").empty() ? "lower" : "whitespace";
    if (config.find(options + "clean").value_or(usual) != own)
        config.refuse(options + "clean", std::string(own) + ", which is what captions of this vocabulary get here");
    rules.strips_end = config.flag(options + "strip_sep_token").value_or(false);
    if (rules.strips_end && own != "whitespace") config.refuse(options + "strip_sep_token", "false");
    config.refuse_unread(options);
    return rules;
}

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

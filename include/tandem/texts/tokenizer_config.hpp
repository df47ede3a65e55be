// What the configs beside a tokenizer's vocabulary say.
#pragma once

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/core/error.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/added_tokens.hpp>
#include <tandem/texts/clean_text.hpp>
#include <tandem/texts/tokenizer_file.hpp>

#if defined(TANDEM_COMPILED) || __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI::detail {

/// tokenizer_config.json, special_tokens_map.json and added_tokens.json of transformers. What a key's absence means is
/// the tokenizer's to know.
struct TokenizerSettings {
    std::string type;                             ///< tokenizer_class
    std::map<std::string, std::string> specials;  ///< "pad_token" and so on, to the token's text
    std::vector<std::string> listed;              ///< additional_special_tokens, or extra_special_tokens
    std::vector<AddedToken> added;
    std::optional<bool> pads_left, adds_prefix_space, lowers, strips_accents, splits_chinese, adds_begin, adds_end;

    std::string special(const std::string& role, const std::string& otherwise) const;
    /// Throws Error unless every role is played by the token that is here for it, and has(token) knows those that are
    /// only listed: transformers makes special tokens of them all, which are found in texts as they are written.
    template <class Has>
    void require(const std::string& where, std::initializer_list<std::pair<std::string_view, std::string_view>> roles,
                 const Has& has) const {
        for (const auto& [role, token] : specials) {
            const auto known = std::ranges::find(roles, role, &std::pair<std::string_view, std::string_view>::first);
            if (known == roles.end()) throw Error(where, "no " + role, token);
            if (!known->second.empty() && known->second != token)
                throw Error(where, role + " = " + std::string(known->second), token);
        }
        for (const std::string& token : listed) {
            if (!has(token))
                throw Error(where,
                            "additional_special_tokens (extra_special_tokens) that have ids, among the added tokens",
                            token);
        }
    }
};

/// How a model's captions are cleaned, and what is done to their ids.
struct CaptionRules {
    Cleaning cleaning = Cleaning::transformers;
    bool strips_end = false;  ///< BERT's [SEP] becomes 0 (CLIPA)
};

/// The settings in a folder; nothing of a path that is a file. `classes` are the tokenizer_class that the vocabulary
/// may be for. Throws Error that names file, key and value of what is not here.
TokenizerSettings read_tokenizer_settings(const std::filesystem::path& folder,
                                          std::initializer_list<std::string_view> classes);

/// Throws Error unless an added token has the id that the vocabulary has for it, or the next one: transformers numbers
/// others anew. `known` is the vocabulary's id, or -1.
void check_added(const std::string& where, const AddedToken& token, std::size_t size, Id known);

/// The added tokens of a tokenizer.json.
std::vector<AddedToken> added_tokens_of(const TokenizerFile& json);

/// The rules in the folder of a checkpoint: `wanted`, or the library's whose config lies there. `own` is how open_clip
/// would have to clean for this vocabulary: lower, whitespace or canonicalize (open_clip/factory.py, get_tokenizer;
/// tokenizer.py, HFTokenizer). Throws Error where open_clip_config.json asks for another, or for more than is here.
CaptionRules caption_rules(const std::filesystem::path& folder, std::optional<Cleaning> wanted, std::string_view own);

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

#if !defined(TANDEM_COMPILED)
#include <tandem/texts/tokenizer_config.impl.hpp>
#endif

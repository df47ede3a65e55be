// Definitions of texts/bpe.hpp.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

#if __has_include(<utf8proc.h>) && __has_include(<zlib.h>) && __has_include(<zconf.h>)
#include <zlib.h>
#endif

#include <tandem/core/dtype.hpp>
#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/core/file_calls.hpp>
#include <tandem/core/lines.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/files/json.hpp>
#include <tandem/texts/bpe.hpp>
#include <tandem/texts/bpe_merges.hpp>
#include <tandem/texts/byte_alphabet.hpp>
#include <tandem/texts/caption_words.hpp>
#include <tandem/texts/clean_text.hpp>
#include <tandem/texts/tokenizer.hpp>
#include <tandem/texts/tokenizer_config.hpp>
#include <tandem/texts/tokenizer_file.hpp>
#include <tandem/texts/unicode.hpp>

#if __has_include(<utf8proc.h>) && __has_include(<zlib.h>) && __has_include(<zconf.h>)

namespace tandem::inline TANDEM_ABI::detail {

[[gnu::cold]] TANDEM_INLINE std::string read_gzip(const std::filesystem::path& path) {
    constexpr std::size_t most_bytes = std::size_t{256} << 20;
    errno = 0;
    const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
    if (!file) throw_file_error(path, "open");
    std::string text;
    std::vector<char> block(1 << 16);
    while (true) {
        const int count = gzread(file.get(), block.data(), static_cast<unsigned>(block.size()));
        int code = Z_OK;
        const char* reason = gzerror(file.get(), &code);
        // A cut file reads to its end without complaint; only the state tells.
        if (count < 0 || (code != Z_OK && code != Z_STREAM_END)) {
            throw Error(path.string(),
                        code == Z_ERRNO ? "cannot read the file" : "damaged gzip data: " + std::string(reason));
        }
        if (count == 0) return text;
        text.append(block.data(), static_cast<std::size_t>(count));
        if (text.size() > most_bytes) throw Error(path.string(), "a vocabulary below 256 MiB", "more");
    }
}

TANDEM_INLINE std::string at_line(const std::filesystem::path& path, std::size_t line) {
    return path.string() + " line " + std::to_string(line);
}

}  // namespace tandem::inline TANDEM_ABI::detail

namespace tandem::inline TANDEM_ABI {

[[gnu::cold]] TANDEM_INLINE Bpe Bpe::load(const std::filesystem::path& path, std::optional<Cleaning> cleaning,
                                          const std::filesystem::path& model) {
    std::error_code failed;
    if (!std::filesystem::exists(path, failed))
        throw Error(path.string(), "a vocabulary file, or a folder with vocab.json and merges.txt", "nothing there");
    if (path.extension() == ".json")
        return from_json(detail::TokenizerFile::read(path), path, cleaning.value_or(Cleaning::transformers));
    // open_clip's own vocabulary is cleaned as its config says, where that is what is here.
    if (!std::filesystem::is_directory(path, failed))
        detail::caption_rules(model.empty() ? path : model, cleaning.value_or(Cleaning::open_clip), "lower");
    return std::filesystem::is_directory(path, failed) ? load_folder(path, cleaning, model.empty() ? path : model)
                                                       : load_merges(path, cleaning.value_or(Cleaning::open_clip));
}

[[gnu::cold]] TANDEM_INLINE Bpe Bpe::from_json(const detail::TokenizerFile& json, const std::filesystem::path& path,
                                               Cleaning cleaning) {
    const std::string where = json.file.string();
    if (const std::string found = json.value("model.end_of_word_suffix");
        found != detail::word_end || json.merges.empty())
        throw Error(where, "a BPE with merges and model.end_of_word_suffix = " + std::string(detail::word_end),
                    found.empty() ? "nothing" : found);
    read_pipeline(json);
    Bpe bpe(cleaning);
    const std::vector<detail::AddedToken> added = detail::added_tokens_of(json);
    std::map<std::string, std::uint64_t> entries;
    for (const auto& [token, id] : json.vocabulary) entries.emplace(token, static_cast<std::uint64_t>(id));
    for (const detail::AddedToken& token : added) {
        if (is_special(token.text, &detail::SpecialLiterals::start) ||
            is_special(token.text, &detail::SpecialLiterals::end))
            entries.emplace(token.text, static_cast<std::uint64_t>(token.id));
    }
    const std::unordered_map<std::string, Id> ids = bpe.take_vocabulary({entries.begin(), entries.end()}, where);
    bpe.merges_ = detail::MergeRules(json.merges.size());
    for (const auto& [left, right] : json.merges) {
        const auto left_bytes = detail::byte_alphabet.bytes(left), right_bytes = detail::byte_alphabet.bytes(right);
        if (!left_bytes || !right_bytes) throw Error(where, "a merge holds a character that stands for no byte");
        bpe.add_merge(ids, *left_bytes, *right_bytes, where);
    }
    json.require("post_processor.cls.1", std::to_string(bpe.start_));
    json.require("post_processor.sep.1", std::to_string(bpe.end_));
    for (const detail::AddedToken& token : added) bpe.add_token(token, where);
    bpe.take_settings(path, where);
    json.refuse_unread();
    return bpe;
}

[[gnu::cold]] TANDEM_INLINE Bpe::Bpe(std::span<const Merge> merges, Cleaning cleaning)
    : cleaning_(cleaning), merges_(merges.size()) {
    for (const bool last : {false, true}) {
        for (const unsigned char byte : detail::byte_alphabet.byte_of_id) {
            (last ? last_ids_ : byte_ids_)[byte] = static_cast<Id>(tokens_.size());
            tokens_.push_back(std::string(1, static_cast<char>(byte)) + std::string(last ? detail::word_end : ""));
        }
    }
    std::unordered_map<std::string, Id> ids = index_of(tokens_);
    for (const Merge& merge : merges) {
        const auto next = static_cast<Id>(tokens_.size());
        const std::string where = "merge " + std::to_string(tokens_.size() - 512);
        if (merge.left < 0 || merge.right < 0 || merge.left >= next || merge.right >= next)
            throw Error(where, "it joins a token that no earlier merge makes");
        std::string token =
            tokens_[static_cast<std::size_t>(merge.left)] + tokens_[static_cast<std::size_t>(merge.right)];
        if (!ids.emplace(token, next).second) throw Error(where, "it makes a token that is already there");
        merges_.add({merge.left, merge.right, next});
        tokens_.push_back(std::move(token));
    }
    start_ = static_cast<Id>(tokens_.size());
    end_ = start_ + 1;
    tokens_.resize(tokens_.size() + 2);
    name_specials();
}

[[gnu::cold]] TANDEM_INLINE std::vector<Bpe::Merge> Bpe::merges() const {
    std::vector<Merge> merges;
    for (const detail::MergeRule& rule : merges_.rules()) merges.push_back({rule.left, rule.right});
    const Bpe same(merges, cleaning_);
    if (same.tokens_ != tokens_ || same.padding_ != padding_)
        throw Error("Bpe::merges", "a vocabulary laid out as CLIP's: bytes, bytes that end a word, merges, start and end of text",
                    "another");
    return merges;
}

[[gnu::cold]] TANDEM_INLINE void Bpe::save(const std::filesystem::path& folder) const {
    std::error_code failed;
    std::filesystem::create_directories(folder, failed);
    if (failed) throw Error(folder.string(), "cannot create the folder: " + failed.message());
    std::string lines = "#version: 0.2";
    if (cleaning_ == Cleaning::open_clip) lines += " " + std::string(open_clip_mark);
    lines += '\n';
    for (const detail::MergeRule& rule : merges_.rules())
        lines += symbols(rule.left) + ' ' + symbols(rule.right) + '\n';
    std::string vocabulary = "{";
    for (Id id = 0; id < static_cast<Id>(tokens_.size()); ++id) {
        constexpr detail::SpecialLiterals literals = detail::special_literals(Cleaning::transformers);
        const std::string name = id == start_ ? std::string(literals.start)
                                 : id == end_ ? std::string(literals.end)
                                              : symbols(id);
        vocabulary += id ? ",\n" : "\n";
        detail::append_json_string(vocabulary, name);
        vocabulary += ": " + std::to_string(id);
    }
    vocabulary += "\n}\n";
    write_file_atomically(folder / "merges.txt", lines);
    write_file_atomically(folder / "vocab.json", vocabulary);
}

TANDEM_INLINE std::vector<Id> Bpe::encode(std::string_view text) const {
    std::vector<Id> ids;
    Scratch scratch;
    const auto word = [&](std::string_view found) { append_word(found, scratch, ids); };
    const auto special = [&](bool is_start) { ids.push_back(is_start ? start_ : end_); };
    if (cleaning_ == Cleaning::open_clip) {
        detail::split_cleaned(clean_text(text, cleaning_), cleaning_, word, special);
        return ids;
    }
    // Added tokens, the special ones among them, are found as they are written, or in the cleaned text between
    // those.
    const auto token = [&](Id id) { ids.push_back(id); };
    added_.split(
        text,
        [&](std::string_view part) {
            normalized_.split(
                clean_text(part, cleaning_),
                [&](std::string_view rest) { detail::split_cleaned(rest, cleaning_, word, special); }, token);
        },
        token);
    return ids;
}

TANDEM_INLINE void Bpe::encode(std::string_view text, std::span<Id> out) const {
    if (out.empty()) throw Error("Bpe::encode", "a context of at least 1 token", "0");
    const std::vector<Id> ids = encode(text);
    std::fill(out.begin(), out.end(), padding_);
    out[0] = start_;
    const std::size_t kept = std::min(ids.size(), out.size() - 1);
    std::copy_n(ids.begin(), kept, out.begin() + 1);
    out[std::min(kept + 1, out.size() - 1)] = end_;
}

TANDEM_INLINE std::vector<Id> Bpe::encode_batch(std::span<const std::string> texts, std::size_t context) const {
    return detail::encode_rows(*this, texts, context);
}

TANDEM_INLINE std::string Bpe::decode(std::span<const Id> ids) const {
    std::string bytes;
    for (const Id id : ids) {
        if (static_cast<std::size_t>(id) >= tokens_.size())
            throw Error("Bpe::decode", "ids from 0 to " + std::to_string(tokens_.size() - 1), std::to_string(id));
        bytes += tokens_[static_cast<std::size_t>(id)];
    }
    std::string text;
    for (std::string_view rest = bytes; !rest.empty();) {
        if (rest.starts_with(detail::word_end)) {
            text += ' ';
            rest.remove_prefix(detail::word_end.size());
            continue;
        }
        const detail::CodePoint c = detail::front_code_point(rest);
        detail::append_utf8(c.value, text);
        rest.remove_prefix(c.bytes);
    }
    return cleaning_ == Cleaning::open_clip ? text : stripped(text);
}

TANDEM_INLINE std::unordered_map<std::string, Id> Bpe::index_of(std::span<const std::string> tokens) {
    std::unordered_map<std::string, Id> ids;
    ids.reserve(2 * tokens.size());
    for (std::size_t id = 0; id < tokens.size(); ++id) ids.emplace(tokens[id], static_cast<Id>(id));
    return ids;
}

TANDEM_INLINE void Bpe::name_specials() {
    const detail::SpecialLiterals literals = detail::special_literals(cleaning_);
    tokens_[static_cast<std::size_t>(start_)] = literals.start;
    tokens_[static_cast<std::size_t>(end_)] = literals.end;
    if (cleaning_ == Cleaning::open_clip) return;
    padding_ = end_;
    added_.add({.text = std::string(literals.start), .id = start_});
    added_.add({.text = std::string(literals.end), .id = end_});
}

[[gnu::cold]] TANDEM_INLINE void Bpe::read_pipeline(const detail::TokenizerFile& json) {
    json.require("model.type", "BPE", "BPE");
    json.require("model.byte_fallback", "false", "false");
    json.require("model.ignore_merges", "false", "false");
    json.require("model.continuing_subword_prefix", "", "");
    json.require("model.dropout", "null", "null");
    for (const char* const path : {"model.unk_token", "model.fuse_unk"}) json.ignore(path);  // every byte is a token
    json.require("normalizer.type", "Sequence");
    json.require("normalizer.normalizers.0.type", "NFC");
    json.require("normalizer.normalizers.1.type", "Replace");
    json.require("normalizer.normalizers.1.pattern.Regex", "\\s+");
    json.require("normalizer.normalizers.1.content", " ");
    json.require("normalizer.normalizers.2.type", "Lowercase");
    json.require("pre_tokenizer.type", "Sequence");
    const std::string split = "pre_tokenizer.pretokenizers.0.", bytes = "pre_tokenizer.pretokenizers.1.";
    json.require(split + "type", "Split");
    json.require(split + "behavior", "Removed");
    json.require(split + "invert", "true");
    // Older files lack the special tokens' literals in it, which are found before.
    const std::string words = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";
    const std::string found = json.value(split + "pattern.Regex");
    if (found != words && found != "<\\|startoftext\\|>|<\\|endoftext\\|>|" + words)
        throw Error(json.file.string(), split + "pattern.Regex of CLIP's", found.empty() ? "nothing" : found);
    json.require(bytes + "type", "ByteLevel");
    json.require(bytes + "add_prefix_space", "false");
    for (const char* const path : {"trim_offsets", "use_regex"}) json.ignore(bytes + path);  // words are split before
    json.require("post_processor.type", "RobertaProcessing");
    json.require("post_processor.cls.0", "<|startoftext|>");
    json.require("post_processor.sep.0", "<|endoftext|>");
    json.ignore("post_processor");
}

[[gnu::cold]] TANDEM_INLINE void Bpe::take_settings(const std::filesystem::path& path, const std::string& where) {
    if (cleaning_ == Cleaning::open_clip) return;  // SimpleTokenizer reads none
    const detail::TokenizerSettings settings = detail::read_tokenizer_settings(
        path, {"CLIPTokenizer", "CLIPTokenizerFast", "TokenizersBackend", "PreTrainedTokenizerFast"});
    if (settings.pads_left.value_or(false)) throw Error(where, "padding_side = right", "left");
    for (const detail::AddedToken& token : settings.added) add_token(token, where);
    const std::string padding = settings.special("pad_token", "<|endoftext|>");
    const auto symbol = [&](const std::string& text) { return detail::byte_alphabet.bytes(text).value_or(text); };
    const auto known = std::ranges::find(tokens_, symbol(padding));
    const auto is_padding = [&](const detail::AddedToken& token) { return token.text == padding; };
    const auto added = std::ranges::find_if(added_.tokens(), is_padding),
               normal = std::ranges::find_if(normalized_.tokens(), is_padding);
    if (added != added_.tokens().end()) {
        padding_ = added->id;
    } else if (normal != normalized_.tokens().end()) {
        padding_ = normal->id;
    } else if (known != tokens_.end()) {
        padding_ = static_cast<Id>(known - tokens_.begin());
    } else {
        throw Error(where, "a pad_token of the vocabulary", "\"" + padding + "\"");
    }
    // As any special token it is found in texts as it is written.
    if (!added_.has(padding) && !normalized_.has(padding)) added_.add({.text = padding, .id = padding_});
    settings.require(where,
                     {{"bos_token", "<|startoftext|>"},
                      {"eos_token", "<|endoftext|>"},
                      {"unk_token", "<|endoftext|>"},
                      {"pad_token", ""}},
                     [&](const std::string& token) { return added_.has(token) || normalized_.has(token); });
}

[[gnu::cold]] TANDEM_INLINE void Bpe::add_token(detail::AddedToken token, const std::string& where) {
    const auto known = std::ranges::find(tokens_, detail::byte_alphabet.bytes(token.text).value_or(token.text));
    const bool is_new = known == tokens_.end();
    detail::check_added(where, token, tokens_.size(), is_new ? -1 : static_cast<Id>(known - tokens_.begin()));
    if (is_new) tokens_.push_back(token.text);
    if (token.normalized) token.text = clean_text(token.text, cleaning_);
    (token.normalized ? normalized_ : added_).add(std::move(token));
}

TANDEM_INLINE std::string Bpe::stripped(const std::string& text) {
    const std::u32string codes = detail::decode_utf8(text);
    const auto is_text = [](char32_t c) { return !detail::is_python_space(c); };
    const auto first = std::find_if(codes.begin(), codes.end(), is_text);
    const auto last = std::find_if(codes.rbegin(), codes.rend(), is_text).base();
    return first < last ? detail::encode_utf8(std::u32string(first, last)) : std::string();
}

TANDEM_INLINE std::pair<std::string, std::string> Bpe::parse_merge(std::string_view line, const std::string& where) {
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos || space == 0 || space + 1 == line.size() ||
        line.find(' ', space + 1) != std::string_view::npos)
        throw Error(where, "two symbols with one space between", "\"" + std::string(line.substr(0, 80)) + "\"");
    auto left = detail::byte_alphabet.bytes(line.substr(0, space));
    auto right = detail::byte_alphabet.bytes(line.substr(space + 1));
    if (!left || !right) throw Error(where, "a symbol holds a character that stands for no byte");
    return {std::move(*left), std::move(*right)};
}

TANDEM_INLINE Bpe Bpe::load_merges(const std::filesystem::path& path, Cleaning cleaning) {
    constexpr std::size_t most_merges = 49152 - 256 - 2;
    const std::string text = detail::read_gzip(path);
    std::string_view rest = text;
    detail::take_line(rest);  // the first line names the version
    std::vector<Merge> merges;
    std::unordered_map<std::string, Id> ids = index_of(Bpe(std::span<const Merge>(), cleaning).tokens_);
    ids.erase(std::string(detail::special_literals(cleaning).start));
    ids.erase(std::string(detail::special_literals(cleaning).end));
    for (std::size_t line = 2; !rest.empty() && merges.size() < most_merges; ++line) {
        const std::string_view content = detail::take_line(rest);
        if (content.empty()) continue;
        const std::string where = detail::at_line(path, line);
        const auto [left, right] = parse_merge(content, where);
        const auto left_id = ids.find(left);
        const auto right_id = ids.find(right);
        if (left_id == ids.end() || right_id == ids.end())
            throw Error(where, "it joins a token that no earlier line makes");
        merges.push_back({left_id->second, right_id->second});
        if (!ids.emplace(left + right, static_cast<Id>(512 + merges.size() - 1)).second)
            throw Error(where, "it makes a token that is already there");
    }
    if (merges.empty()) throw Error(path.string(), "a line of version and one merge a line", "no merge");
    return Bpe(merges, cleaning);
}

TANDEM_INLINE Bpe Bpe::load_folder(const std::filesystem::path& folder, std::optional<Cleaning> cleaning,
                                   const std::filesystem::path& model) {
    const Cleaning rules = detail::caption_rules(model, cleaning, "lower").cleaning;
    if (std::filesystem::exists(folder / "tokenizer.json"))
        return from_json(detail::TokenizerFile::read(folder / "tokenizer.json"), folder, rules);
    const std::filesystem::path merges_path = folder / "merges.txt";
    const std::string text = detail::read_gzip(merges_path);
    std::string_view rest = text;
    const bool has_version = rest.starts_with("#version");
    const std::string_view version = has_version ? detail::take_line(rest) : std::string_view();
    const bool marked = version.find(open_clip_mark) != std::string_view::npos;
    Bpe bpe(cleaning.value_or(marked ? Cleaning::open_clip : rules));
    const std::filesystem::path vocabulary = folder / "vocab.json";
    const std::unordered_map<std::string, Id> ids =
        bpe.take_vocabulary(read_vocabulary(vocabulary), vocabulary.string());

    bpe.merges_ = detail::MergeRules(static_cast<std::size_t>(std::count(rest.begin(), rest.end(), '\n')) + 1);
    for (std::size_t line = has_version ? 2 : 1; !rest.empty(); ++line) {
        const std::string_view content = detail::take_line(rest);
        if (content.empty()) continue;
        const std::string where = detail::at_line(merges_path, line);
        const auto [left, right] = parse_merge(content, where);
        bpe.add_merge(ids, left, right, where);
    }
    bpe.take_settings(folder, folder.string());
    return bpe;
}

TANDEM_INLINE void Bpe::add_merge(const std::unordered_map<std::string, Id>& ids, const std::string& left,
                                  const std::string& right, const std::string& where) {
    const auto left_id = ids.find(left), right_id = ids.find(right), result = ids.find(left + right);
    if (left_id == ids.end() || right_id == ids.end() || result == ids.end())
        throw Error(where, "the two symbols or what they make are not in the vocabulary");
    if (!merges_.add({left_id->second, right_id->second, result->second}))
        throw Error(where, "the same merge stands earlier");
}

[[gnu::cold]] TANDEM_INLINE Bpe::Entries Bpe::read_vocabulary(const std::filesystem::path& path) {
    const std::string where = path.string();
    detail::JsonLeaves json;
    detail::read_json(path, json, "a JSON object of tokens and ids");
    Entries entries;
    for (const detail::JsonLeaf& leaf : json.leaves) {
        if (leaf.depth != 1 || leaf.kind != detail::JsonLeaf::Kind::number)
            throw Error(where, "ids from 0 to " + std::to_string(json.leaves.size() - 1) + ", each once",
                        "\"" + leaf.path +
                            "\": " + (leaf.kind == detail::JsonLeaf::Kind::text ? "\"" + leaf.text + "\"" : leaf.text));
        entries.emplace_back(leaf.path, leaf.number);
    }
    return entries;
}

[[gnu::cold]] TANDEM_INLINE std::unordered_map<std::string, Id> Bpe::take_vocabulary(const Entries& entries,
                                                                                     const std::string& where) {
    std::vector<bool> seen(entries.size());
    tokens_.resize(entries.size());
    start_ = end_ = -1;
    std::unordered_map<std::string, Id> ids;
    ids.reserve(2 * entries.size());
    for (const auto& [name, number] : entries) {
        if (number >= seen.size())
            throw Error(where, "ids from 0 to " + std::to_string(seen.size() - 1) + ", each once",
                        "\"" + name + "\": " + std::to_string(number));
        const auto id = static_cast<std::size_t>(number);
        if (seen[id]) throw Error(where, "each id once", std::to_string(id) + " twice");
        seen[id] = true;
        if (is_special(name, &detail::SpecialLiterals::start)) {
            start_ = static_cast<Id>(id);
        } else if (is_special(name, &detail::SpecialLiterals::end)) {
            end_ = static_cast<Id>(id);
        } else {
            const std::optional<std::string> bytes = detail::byte_alphabet.bytes(name);
            if (!bytes) throw Error(where, "\"" + name + "\" holds a character that stands for no byte");
            tokens_[id] = *bytes;
            ids.emplace(*bytes, static_cast<Id>(id));
        }
    }
    if (start_ < 0 || end_ < 0) throw Error(where, "it lacks <|startoftext|> or <|endoftext|>");
    name_specials();
    for (unsigned byte = 0; byte < 256; ++byte) {
        const std::string token(1, static_cast<char>(byte));
        const auto inner = ids.find(token);
        const auto last = ids.find(token + std::string(detail::word_end));
        if (inner == ids.end() || last == ids.end())
            throw Error(where, "it lacks \"" + detail::byte_alphabet.symbols(token) + "\" or \"" +
                                   detail::byte_alphabet.symbols(token) + "</w>\", a token that each byte needs");
        byte_ids_[byte] = inner->second;
        last_ids_[byte] = last->second;
    }
    return ids;
}

TANDEM_INLINE bool Bpe::is_special(std::string_view name, std::string_view detail::SpecialLiterals::*which) {
    return name == detail::special_literals(Cleaning::transformers).*which ||
           name == detail::special_literals(Cleaning::open_clip).*which;
}

TANDEM_INLINE void Bpe::append_word(std::string_view word, Scratch& scratch, std::vector<Id>& out) const {
    std::vector<Id>& ids = scratch.ids;
    ids.clear();
    for (const char byte : word) ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
    ids.back() = last_ids_[static_cast<unsigned char>(word.back())];
    merges_.apply(ids, scratch.ranks);
    out.insert(out.end(), ids.begin(), ids.end());
}

}  // namespace tandem::inline TANDEM_ABI

#endif

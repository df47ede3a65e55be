// XLM-RoBERTa's tokenizer: a unigram vocabulary as the tokenizers package applies it.
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
#include <tandem/core/file.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/data/clean_text.hpp>
#include <tandem/data/tokenizer.hpp>
#include <tandem/data/tokenizer_file.hpp>
#include <tandem/data/unicode.hpp>
#include <tandem/data/unigram.hpp>

#if __has_include(<utf8proc.h>)
#include <utf8proc.h>

namespace tandem::inline TANDEM_ABI {

/// The tokenizer of the multilingual checkpoints: transformers' XLMRobertaTokenizer. Immutable once built: any number
/// of threads may encode at once.
class XlmRobertaTokenizer {
public:
    /// Reads a vocabulary. `path` is a model of SentencePiece (sentencepiece.bpe.model), a tokenizer.json whose model
    /// is Unigram, or a folder with one of them. Where the folder has open_clip_config.json, texts are cleaned before
    /// as open_clip does (clean = "whitespace"); `cleaning` overrides that. Throws Error if there is no such file, or
    /// it is damaged.
    [[gnu::cold]] static XlmRobertaTokenizer load(const std::filesystem::path& path,
                                                  std::optional<Cleaning> cleaning = std::nullopt) {
        const std::filesystem::path file = detail::vocabulary_file(path, "sentencepiece.bpe.model");
        const Cleaning chosen = detail::cleaning_of(path, cleaning);
        if (file.extension() == ".json") return from_json(detail::TokenizerFile::read(file), chosen);
        XlmRobertaTokenizer result;
        result.read_model(file);
        result.frame_.cleans = chosen == Cleaning::open_clip;
        return result;
    }

    /// Of a tokenizer.json that was read.
    [[gnu::cold]] static XlmRobertaTokenizer from_json(detail::TokenizerFile json, Cleaning cleaning) {
        XlmRobertaTokenizer result;
        result.read_json(json);
        result.frame_.cleans = cleaning == Cleaning::open_clip;
        return result;
    }

    /// The ids of a text of any length, between those that begin and end one. Invalid UTF-8 becomes U+FFFD.
    std::vector<Id> encode(std::string_view text) const {
        return frame_.encode(text, [&](std::string_view part, std::vector<Id>& ids) { append_part(part, ids); });
    }

    /// Fills `out` with the ids, and with padding behind them. Of a text that does not fit, the end is cut, and the
    /// last id ends the text. Throws Error if `out` has no room for begin and end.
    void encode(std::string_view text, std::span<Id> out) const {
        frame_.fit("XlmRobertaTokenizer::encode", encode(text), out);
    }

    /// The rows of encode(text, out), [texts, context] row by row, made in parallel.
    std::vector<Id> encode_batch(std::span<const std::string> texts, std::size_t context) const {
        return detail::encode_rows(*this, texts, context);
    }

private:
    /// What the model reads in place.
    struct Memory {
        std::optional<MappedFile> file;
        std::vector<std::pair<std::string, double>> pieces;
        std::string character_map;
    };

    XlmRobertaTokenizer() = default;

    /// Fairseq's ids: four special ones, then the pieces from the fourth on (transformers/convert_slow_tokenizer.py,
    /// XLMRobertaConverter).
    [[gnu::cold]] void read_model(const std::filesystem::path& path) {
        memory_->file.emplace(path);
        const auto bytes = memory_->file->bytes();
        try {
            model_ = std::make_shared<const detail::UnigramModel>(
                std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
        } catch (const Error& error) {
            throw Error(path.string(), "a model of SentencePiece", error.what());
        }
        if (model_->unknown() != 0)
            throw Error(path.string(), "the piece for what is unknown first",
                        "at " + std::to_string(model_->unknown()));
        shift_ = 1;
        const auto mask = static_cast<Id>(model_->size() + 1);
        frame_ = {{{"<s>", 0}, {"<pad>", 1}, {"</s>", 2}, {"<unk>", 3}, {"<mask>", mask}}, 0, 1, 2, 3};
    }

    [[gnu::cold]] void read_json(detail::TokenizerFile& json) {
        const std::string where = json.file.string();
        const auto refuse_unless = [&](bool holds, const std::string& expected, const std::string& found) {
            if (!holds) throw Error(where, expected, found.empty() ? "nothing" : found);
        };
        const std::string type = json.value("model.type"), unknown = json.value("model.unk_id");
        refuse_unless(type == "Unigram" || (type.empty() && !json.pieces.empty()), "model.type = Unigram", type);
        refuse_unless(json.value("model.byte_fallback", "false") == "false", "model.byte_fallback = false", "true");
        for (const detail::SpecialToken& special :
             std::vector<detail::SpecialToken>{{"<s>", 0}, {"<pad>", 0}, {"</s>", 0}}) {
            const auto found =
                std::ranges::find_if(json.pieces, [&](const auto& piece) { return piece.first == special.text; });
            refuse_unless(found != json.pieces.end(), "a piece " + special.text + " in model.vocab", "none");
            (special.text == "<s>"    ? frame_.begin
             : special.text == "</s>" ? frame_.end
                                      : frame_.padding) = static_cast<Id>(found - json.pieces.begin());
        }
        for (std::size_t i = 0; !json.value("added_tokens." + std::to_string(i) + ".content").empty(); ++i) {
            const std::string at = "added_tokens." + std::to_string(i);
            frame_.specials.push_back({json.value(at + ".content"),
                                       static_cast<Id>(std::strtol(json.value(at + ".id").c_str(), nullptr, 10))});
        }
        memory_->pieces = std::move(json.pieces);
        for (const std::string at : {"normalizer", "normalizer.normalizers.0"}) {
            if (const std::string map = json.value(at + ".precompiled_charsmap"); !map.empty())
                memory_->character_map = from_base64(map, where);
        }
        frame_.unknown = static_cast<Id>(std::strtol(unknown.c_str(), nullptr, 10));
        try {
            model_ =
                std::make_shared<const detail::UnigramModel>(memory_->pieces, frame_.unknown, memory_->character_map);
        } catch (const Error& error) {
            throw Error(where, "a unigram model", error.what());
        }
    }

    static std::string from_base64(std::string_view text, const std::string& where) {
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

    void append_part(std::string_view text, std::vector<Id>& ids) const {
        std::string mapped;
        for (std::size_t begin = 0; begin < text.size();) {
            const std::size_t end = grapheme_end(text, begin);
            model_->append_mapped(text.substr(begin, end - begin), mapped);
            begin = end;
        }
        const std::size_t first = ids.size();
        model_->append_words(mapped, ids);
        for (std::size_t i = first; i < ids.size(); ++i)
            ids[i] = ids[i] == model_->unknown() ? frame_.unknown : ids[i] + shift_;
    }

    /// Where the extended grapheme cluster ends that begins there.
    static std::size_t grapheme_end(std::string_view text, std::size_t at) {
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

    std::shared_ptr<Memory> memory_ = std::make_shared<Memory>();
    std::shared_ptr<const detail::UnigramModel> model_;
    detail::BertFrame frame_;
    Id shift_ = 0;
};

}  // namespace tandem::inline TANDEM_ABI

#endif

// CLIP's byte-level BPE tokenizer: ids as open_clip's SimpleTokenizer and transformers' CLIPTokenizerFast give them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <tandem/core/dtype.hpp>
#include <tandem/core/platform.hpp>
#include <tandem/texts/added_tokens.hpp>
#include <tandem/texts/bpe_merges.hpp>
#include <tandem/texts/byte_alphabet.hpp>
#include <tandem/texts/clean_text.hpp>
#include <tandem/texts/tokenizer_file.hpp>

#if defined(TANDEM_COMPILED) || (__has_include(<utf8proc.h>) && __has_include(<zlib.h>) && __has_include(<zconf.h>))

namespace tandem::inline TANDEM_ABI {

namespace detail {

struct SpecialLiterals;

/// A text file, gzip'ed or plain.
std::string read_gzip(const std::filesystem::path& path);

}  // namespace detail

/// CLIP's tokenizer. Immutable once built: any number of threads may encode at once.
class Bpe {
public:
    /// Two tokens that become one.
    struct Merge {
        Id left = 0;
        Id right = 0;
    };

    /// Reads a vocabulary. `path` is open_clip's bpe_simple_vocab_16e6.txt.gz (or a file of its form, of which the
    /// first 48,894 merges count; cleaned as open_clip does), a tokenizer.json, or a folder with vocab.json and
    /// merges.txt or with tokenizer.json alone (cleaned as transformers does, unless save() wrote it for the other).
    /// `cleaning` overrides the source's own. Throws Error naming file and line where something is missing or
    /// contradicts itself.
    static Bpe load(const std::filesystem::path& path, std::optional<Cleaning> cleaning = std::nullopt,
                    const std::filesystem::path& model = {});

    /// Of a tokenizer.json that was read, from the file or folder `path`, as transformers saves CLIP's tokenizer: the
    /// same vocabulary and merges in one file, and the tokens that were added.
    static Bpe from_json(const detail::TokenizerFile& json, const std::filesystem::path& path, Cleaning cleaning);

    /// The vocabulary that merges make, laid out as CLIP's: 256 bytes, 256 bytes that end a word, the merges in their
    /// order (merge i makes token 512 + i), start of text, end of text.
    /// Throws Error where a merge uses a token that does not exist yet or makes one twice.
    Bpe(std::span<const Merge> merges, Cleaning cleaning);

    /// The merges that make the vocabulary, for the constructor. Throws Error if it is laid out in another way.
    std::vector<Merge> merges() const;

    /// Writes vocab.json and merges.txt into `folder`, which is made if need be. transformers' CLIPTokenizer opens them
    /// (and cleans in its own way); load() gives back this tokenizer, cleaning included.
    void save(const std::filesystem::path& folder) const;

    /// The ids of a text of any length, without start and end of text. Invalid UTF-8 becomes U+FFFD.
    std::vector<Id> encode(std::string_view text) const;

    /// Fills `out` with start of text, the ids, end of text, and padding: zeros as open_clip has it, or transformers'
    /// pad_token, which is end of text unless the folder says otherwise (Stable Diffusion 2: "!", which is 0). What
    /// does not fit is cut, and the last id is end of text then. Throws Error if `out` is empty.
    void encode(std::string_view text, std::span<Id> out) const;

    /// The rows of encode(text, out), [texts, context] row by row, made in parallel.
    std::vector<Id> encode_batch(std::span<const std::string> texts, std::size_t context) const;

    /// The text of the ids: a space after each word, special tokens as their literals, invalid UTF-8 as U+FFFD; white
    /// space at the ends is stripped in the transformers mode. Throws Error where an id is not in the vocabulary.
    std::string decode(std::span<const Id> ids) const;

    /// The number of ids; 49,408 for CLIP's own vocabulary.
    std::size_t vocabulary() const { return tokens_.size(); }
    Id start() const { return start_; }
    Id end() const { return end_; }
    Cleaning cleaning() const { return cleaning_; }

private:
    /// Working memory of append_word, kept from word to word.
    struct Scratch {
        std::vector<Id> ids;
        std::vector<std::uint32_t> ranks;
    };

    static constexpr std::string_view open_clip_mark = "cleaning: open_clip";

    explicit Bpe(Cleaning cleaning) : cleaning_(cleaning) {}

    static std::unordered_map<std::string, Id> index_of(std::span<const std::string> tokens);

    void name_specials();

    /// transformers' pipeline for CLIP (tokenization_clip.py), which version 5 puts in the place of any other; one that
    /// differs is refused.
    static void read_pipeline(const detail::TokenizerFile& json);

    /// What the configs in a folder say: added tokens, padding.
    void take_settings(const std::filesystem::path& path, const std::string& where);

    void add_token(detail::AddedToken token, const std::string& where);

    std::string symbols(Id id) const { return detail::byte_alphabet.symbols(tokens_[static_cast<std::size_t>(id)]); }

    static std::string stripped(const std::string& text);

    /// The two halves of a line of merges.
    static std::pair<std::string, std::string> parse_merge(std::string_view line, const std::string& where);

    static Bpe load_merges(const std::filesystem::path& path, Cleaning cleaning);

    static Bpe load_folder(const std::filesystem::path& folder, std::optional<Cleaning> cleaning,
                           const std::filesystem::path& model);

    void add_merge(const std::unordered_map<std::string, Id>& ids, const std::string& left, const std::string& right,
                   const std::string& where);

    using Entries = std::vector<std::pair<std::string, std::uint64_t>>;

    /// The tokens of a vocab.json and their ids.
    static Entries read_vocabulary(const std::filesystem::path& path);

    /// Fills tokens, byte ids and special ids; returns the ids by token.
    std::unordered_map<std::string, Id> take_vocabulary(const Entries& entries, const std::string& where);

    static bool is_special(std::string_view name, std::string_view detail::SpecialLiterals::*which);

    /// Byte-pair encoding of one word: the lowest rank first, of equal ranks the leftmost.
    void append_word(std::string_view word, Scratch& scratch, std::vector<Id>& out) const;

    Cleaning cleaning_;
    std::vector<std::string> tokens_;  ///< bytes; a token that ends a word has "</w>" behind
    detail::MergeRules merges_;
    std::array<Id, 256> byte_ids_{};
    std::array<Id, 256> last_ids_{};
    Id start_ = 0, end_ = 0, padding_ = 0;
    detail::AddedTokens added_, normalized_;  ///< of transformers: found in a text as it is, and as it was cleaned
};

}  // namespace tandem::inline TANDEM_ABI

#endif

#if !defined(TANDEM_COMPILED)
#include <tandem/texts/bpe.impl.hpp>
#endif

// The tokenizer that lies beside a checkpoint, whichever it is.
#pragma once

#include <concepts>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tandem/texts/tokenizer.hpp>

#if defined(TANDEM_COMPILED) || (__has_include(<utf8proc.h>) && __has_include(<zlib.h>) && __has_include(<zconf.h>))

namespace tandem::inline TANDEM_ABI {

/// A tokenizer whose kind is known at run time. Cheap to copy; any number of threads may encode at once.
class AnyTokenizer {
public:
    template <Tokenizer T>
    requires(!std::same_as<T, AnyTokenizer>) AnyTokenizer(T tokenizer)
        : held_(std::make_shared<const Held<T>>(std::move(tokenizer))) {}

    /// As the tokenizer's own.
    void encode(std::string_view text, std::span<Id> out) const { held_->encode(text, out); }
    std::vector<Id> encode_batch(std::span<const std::string> texts, std::size_t context) const;

private:
    struct Base {
        virtual ~Base() = default;
        virtual void encode(std::string_view text, std::span<Id> out) const = 0;
        virtual std::vector<Id> encode_batch(std::span<const std::string> texts, std::size_t context) const = 0;
    };
    template <class T>
    struct Held final : Base {
        explicit Held(T held) : tokenizer(std::move(held)) {}
        void encode(std::string_view text, std::span<Id> out) const override { tokenizer.encode(text, out); }
        std::vector<Id> encode_batch(std::span<const std::string> texts, std::size_t context) const override {
            return tokenizer.encode_batch(texts, context);
        }
        T tokenizer;
    };

    std::shared_ptr<const Base> held_;
};

/// The tokenizer whose files lie in the folder `path`, or beside the file: spiece.model, tokenizer.json, vocab.json
/// with merges.txt, sentencepiece.bpe.model, vocab.txt, or bpe_simple_vocab_16e6.txt.gz. `path` may also be such a
/// file; the configs beside it are not read then. `model` is the folder of the checkpoint where it is another: its
/// open_clip_config.json says how captions are cleaned. Throws Error that lists the names it looked for.
AnyTokenizer open_tokenizer(const std::filesystem::path& path, const std::filesystem::path& model = {});

}  // namespace tandem::inline TANDEM_ABI

#endif

#if !defined(TANDEM_COMPILED)
#include <tandem/texts/any_tokenizer.impl.hpp>
#endif

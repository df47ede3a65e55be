// Learns a vocabulary for the BPE tokenizer from captions.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include <tandem/core/platform.hpp>
#include <tandem/texts/bpe.hpp>

#if defined(TANDEM_COMPILED) || (__has_include(<utf8proc.h>) && __has_include(<zlib.h>) && __has_include(<zconf.h>))

namespace tandem::inline TANDEM_ABI {

/// Learns a vocabulary by byte-pair encoding (Sennrich, Haddow, Birch 2016): the most frequent pair of neighbouring
/// tokens becomes a token, again and again. `vocabulary` counts the 256 bytes, the 256 bytes that end a word, the
/// merges and the two special tokens; end of text is the highest id, on which pooling by argmax relies. Captions are
/// cleaned and split as encode() does it; special tokens in them are left out. The same captions in any order give the
/// same result. Where every word is one token before the vocabulary is full, it stays smaller: ask the result. Throws
/// Error where `vocabulary` is below 514.
Bpe train_bpe(std::span<const std::string> captions, std::size_t vocabulary, Cleaning cleaning = Cleaning::open_clip);

}  // namespace tandem::inline TANDEM_ABI

#endif

#if !defined(TANDEM_COMPILED)
#include <tandem/texts/bpe_trainer.impl.hpp>
#endif

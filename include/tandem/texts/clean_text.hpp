// What CLIP's two tokenizers do to a caption before they split it into words.
#pragma once

#include <string>
#include <string_view>

#include <tandem/core/platform.hpp>

namespace tandem::inline TANDEM_ABI {

/// How a text is cleaned before it becomes tokens.
enum class Cleaning {
    /// open_clip's SimpleTokenizer (tokenizer.py, clean='lower'): ftfy.fix_text, html.unescape twice, white space
    /// stripped and collapsed, Python's str.lower(). All of ftfy's fixes are here: HTML references, text that was
    /// decoded by the wrong encoding ("cafÃ©"), C1 controls, Latin ligatures, character width, curly quotes, line
    /// breaks, terminal escapes, control characters, NFC.
    open_clip,
    /// transformers' CLIPTokenizerFast: NFC, runs of white space to one space, lower case code point by code point.
    /// As of transformers 5: "<|ENDOFTEXT|>" in capitals is text (version 4 takes it for the special token).
    transformers,
};

}  // namespace tandem::inline TANDEM_ABI

#if defined(TANDEM_COMPILED) || __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI {

namespace detail {

/// ftfy.fix_text: line by line, and at most a million code points at once. From the first line that holds a "<" on,
/// references are left alone.
std::u32string ftfy_fix_text(std::u32string_view text);

/// whitespace_clean(basic_clean(text)) of open_clip/tokenizer.py:66-75: before the tokenizers of transformers that it
/// borrows.
std::string clean_space_as_open_clip(std::string_view text);

/// canonicalize_text(basic_clean(text)) of open_clip/tokenizer.py:66-130: what its SigLIP models clean by.
std::string canonicalize_as_open_clip(std::string_view text);

/// Whether only white space and case can change: ASCII without controls and, for open_clip, without references.
bool is_plain(std::string_view text, Cleaning cleaning);

/// Python's " ".join(text.split()).
std::u32string collapse_python_space(std::u32string_view text);

/// Python's str.lower(): a capital sigma at the end of a word becomes a final one.
std::u32string python_lower(std::u32string_view text);

/// Lower case code point by code point, as tokenizers has it.
std::u32string lower_by_letter(std::u32string_view text);

/// Without Python's string.punctuation.
std::u32string without_punctuation(std::u32string text);

}  // namespace detail

/// The text as the tokenizer sees it, in valid UTF-8. Invalid UTF-8 becomes U+FFFD as with Python's errors="replace";
/// NUL is a control character like others (open_clip drops it, transformers keeps it).
/// Code points younger than Unicode 15: classes as in the regex (open_clip) and tokenizers packages of 2026, lower case
/// as in Python 3.11 to 3.13 and tokenizers; normalisation as the installed utf8proc knows it.
std::string clean_text(std::string_view text, Cleaning cleaning);

}  // namespace tandem::inline TANDEM_ABI

#endif

#if !defined(TANDEM_COMPILED)
#include <tandem/texts/clean_text.impl.hpp>
#endif

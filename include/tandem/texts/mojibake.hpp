// ftfy's repair of text that was decoded by the wrong encoding ("cafÃ©" for "café").
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <tandem/core/platform.hpp>

#if defined(TANDEM_COMPILED) || __has_include(<utf8proc.h>)

namespace tandem::inline TANDEM_ABI::detail {

/// ftfy's is_bad (badness.py): whether some sequence of characters looks mis-decoded. All rules are tried at once, a
/// bit for each.
bool is_bad(std::u32string_view text);

/// ftfy.fix_encoding (ftfy 6.3.1, __init__.py): mends text that looks mis-decoded, again while that changes it.
/// `budget` is how many characters to look at before it stops: of some texts each round mends one character, and ftfy
/// takes quadratic time.
std::u32string fix_encoding(std::u32string text, std::size_t& budget);

/// fixes.py, fix_c1_controls, of one character: what Windows-1252 has in the place of a C1 control.
char32_t without_c1(char32_t c);

}  // namespace tandem::inline TANDEM_ABI::detail

#endif

#if !defined(TANDEM_COMPILED)
#include <tandem/texts/mojibake.impl.hpp>
#endif

#!/usr/bin/env python3
"""Writes tests/texts/fixtures/mojibake/goldens.tsv.gz: mis-decoded texts, and what ftfy and open_clip make of them.

    tests/parity/venv.sh
    .venv-parity/bin/python tests/texts/make_mojibake_goldens.py

Rows, tab-separated, texts escaped as in make_bpe_goldens.py; "=" stands for the text of the field before:
    f  text  ftfy's  open_clip's cleaned  open_clip ids
    b  text  0 or 1                                        whether ftfy.badness takes it for mis-decoded
"""
import random
import re

import ftfy
from ftfy.badness import is_bad
from ftfy.chardata import CHARMAP_ENCODINGS
from open_clip.tokenizer import _clean_lower

import make_bpe_goldens as bpe
import make_mojibake_tables as tables

EDGE_CASES = [
    "", "cafÃ©", "humanitÃ©", "doesnâ€™t", "â€œquotedâ€\x9d", "â€œquotedâ€�", "NoÃ«l", "voilÃ  le travail", "voilÃ", "Ã", "Ã ", "Ã\n", "fÃ cil", "Ã s vezes",
    "Ã  la carte", "Ã quele dia", "Ã quela casa", "Ã quilo", *(word.encode().decode("latin-1").replace("\xa0", " ") for word in ("Šé", "Πάρος", "Россия", "٠١٢")), "Ã quel point", "Ã  quel point", "Ã£Â Ã¢", "âœ” No problems", "&macr;\\_(ã\x83\x84)_/&macr;", "&ATILDE;&SUP3;", "&Atilde;&copy;",
    "&Atilde;&copy; <b>", "<b> Ã©", "<b>&Atilde;&copy;\nÃ©", "cafÃ© 漢字", "漢字 cafÃ© Ð¼Ð¸Ñ€", "мир â€“ Ð¼Ð¸Ñ€ Â©", "Ã©" * 60,
    # Java's NUL and CESU-8, whose last byte may be the line feed that ends the text
    "Ã© À\x80", "Ã© À\n", "Ã© À", "Ã© À\n ", "í\xa0½í¸\x8d", "Ã© í\xa0½í¸\n", "Ã© í\xa0½í¸", "Ã© í\xa0½í¸\n\n", "Ã© í\xa0½", "í\xa0½í¸€ Ã©", "í°½í¸€ Ã©", "í\xa0½í\xa0€ Ã©", "À¿ Ã©", "À€ Ã©", "Ã© À&#10; x", "í•œêµ­ì–´", "Ã© í\xa0\x1aí¸\x8d", "í\xa0?í¸\x8d Ã©",
    "í\xa0½í¸?Ã©", "ð\x9f\x98\x8d", "ðŸ˜\x8d", "ðŸ˜�", "ð�˜?", "ð??\x8d", "ðŸ??", "ð ˜\x8dÃ©", "ðŸ \x8dÃ©", "ðŸ˜ Ã©", "ð  \x8dÃ©", "â ™Ã©", "â€ Ã©", "ã Ã©", "à ²Ã©", "ã\x81 Ã©", "Â ", "a Â b", "a, Â “",
    "Ã�", "Ã?", "Ä?Ã©", "Ä�Ã©", "â??Ã©", "â�?Ã©", "â?�Ã©", "â€?Ã©", "�", "��", "¦�", "\x1aÃ©", "\x1a\x81", "\x80", "\x81", "\x85", "a\x92s", "a\x92s 漢", "Ã©\x81", "\ufeffÃ©", "ï»¿Ã©",
    "ÃƒÂ©", "ÃƒÆ’Ã‚Â©", "Ãƒ\x83Ã\x82Â©", "ÂÂÂÂ\xa0x", "ÂÂÂÂ x", "Â" * 60 + "\xa0x", "caf√© – bar", "cafÃ© â… x", "cafÃ© ã\xa0 x", "cafÃ© ä¸ x", "├⌐ └Ç", "漢 у ЃЃ·у Ѓў Ã©", "漢 " + "\U000e0067é’".encode().decode("sloppy-windows-1251"), "Ã\x83Ã\x83Ã\x83", "√©", "‚Äôs", "‚Äì", "–ü—Ä–∏–≤–µ—Ç", "├⌐", "ΓÇÖs", "Γ£ô", "вЂ™", "РџСЂРёРІРµС‚", "Ð\x9fÑ\x80Ð¸Ð²ÐµÑ\x82", "β€™s", "Ο€", "ā€™s", "Ã¶ü",
    # not mis-decoded
    "L’été", "¿Qué?", "“Å”", "Å la", "Ā", "naïve café", "ÄÖÜ äöü ß", "Øÿ", "10°C ± 2", "€5–€6", "O_Ô", "°△°", "(╯°□°)╯︵ ┻━┻", "┌─┐ │ └─┘", "Ω ≈ ½", "PÃO", "AÇÃO", "CORAÇÃO DE MÃE", "IRMÃ ", "MÃE®",
]  # fmt: skip
CLEAN_WORDS = """à la|São Paulo ação|Ça va où|Über Größe|Œuvre œufs|Ærø Åse|Ýmir Þór Ðað|Łódź|Čeština|Őrült|Ş ğ İ ı|Ţară Ș|Ķīļi Ņ|Ėjo ų|Ґанок Єва|Ћирилица|ΆΈΉ ϊϋ|ЁЖИК|
«Привет» – мир…|„Größe“ ‚x’|‹a› ›b‹|‘Αθήνα’|ÀÉÎÕÜ|ÂGE|ÃO|§ 5 ¶ 3|£5 €6 ¥7|© 2020 ® ™|±½¼ ×÷|≤≥≠∞|№ 5""".replace("\n", "").split("|")  # fmt: skip


def mojibake(texts):
    """Every sample read by every codec, once and twice; alone, damaged, and among other text."""
    rng = texts.rng
    for sample in bpe.SAMPLES + bpe.TYPOGRAPHY + bpe.EMOJI + CLEAN_WORDS:
        yield sample
        for codec in CHARMAP_ENCODINGS:
            start = rng.randrange(max(1, len(sample) - 16))
            once = sample[start : start + 16].encode().decode(codec)
            twice = once.encode().decode(rng.choice([codec, "sloppy-windows-1252", "latin-1"]))
            yield from (once, f"a photo, {once} on the beach", f"{once} {rng.choice(CLEAN_WORDS)}", twice, texts.damaged(once))
            yield rng.choice([texts.damaged(twice), once + once + "\n" + sample[:5], texts.damaged(once).encode().decode("sloppy-windows-1252")])


def every_byte():
    """Every byte of UTF-8 read by every codec, in texts that need the right codec; whole, and with a byte lost."""
    characters = [chr(c) for lead in range(0xC2, 0xE0) for c in range((lead & 31) << 6, ((lead & 31) + 1) << 6, 5)]
    characters += [chr(c) for c in range(0x800, 0x10000, 331) if not 0xD800 <= c < 0xE000] + [chr(c) for c in range(0x10000, 0x110000, 6151)]
    for codec in CHARMAP_ENCODINGS:
        for at in range(0, len(characters), 12):
            text = "".join(characters[at : at + 12]).encode().decode(codec)
            yield from ("ré".encode().decode(codec) + text, f"{'’é'.encode().decode(codec)}{text[:5]}\ufffd{text[6:]}")


def rule_cases(rng):
    """Texts that each of ftfy's rules is to find, with every character at each of its places, and some that miss by one."""
    sets, clues = tables.read_classes()
    known = sorted(set().union(*sets.values(), *clues.values()) - sets["z"] - sets["Z"]) + list("aZ .1漢")
    named = {**sets, "_": tables.members(r"\s"), "l": set(filter(str.isalnum, known)), ".": set(known)}

    def choices(member):
        letters, _, single = member.lstrip("!").partition("=")
        found = set().union(*(named[letter] for letter in letters), (chr(int(c, 16)) for c in re.findall("[0-9a-f]+", single)))
        return sorted(set(known) - found if member.startswith("!") else found)

    for rule in tables.rules(sets):
        places = [choices(member) for member in rule.lstrip("^").split(",")]
        for place, characters in enumerate(places):
            for c in characters:
                text = "".join(c if at == place else rng.choice(others) for at, others in enumerate(places))
                yield text
                if rng.random() < .2:
                    at = rng.randrange(len(text))
                    yield from (text[:at] + rng.choice(known) + text[at + 1 :], rng.choice(known) + text, text[:-1])


def main():
    options = bpe.parse_options("mojibake/goldens.tsv.gz")
    original = bpe.open_clip_tokenizer()
    texts = bpe.Texts(random.Random(options.seed))
    chosen = list(dict.fromkeys([*EDGE_CASES, *every_byte(), *mojibake(texts)]))
    rows = []
    mended = 0
    for text in chosen:
        fixed, cleaned = ftfy.fix_text(text), _clean_lower(text)
        mended += fixed != ftfy.fix_text(text, fix_encoding=False)
        fields = [text, "=" if fixed == text else fixed, "=" if cleaned == fixed else cleaned]
        rows.append(b"\t".join([b"f", *(bpe.escape(field.encode()) for field in fields), bpe.join(original.encode(text))]))
    for text in dict.fromkeys(rule_cases(texts.rng)):
        rows.append(b"\t".join([b"b", bpe.escape(text.encode()), b"%d" % is_bad(text)]))
    bpe.write_rows(options.out, rows, chosen)
    print(f"{mended} of them mended")


if __name__ == "__main__":
    main()

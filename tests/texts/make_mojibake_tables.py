#!/usr/bin/env python3
"""Rewrites the tables in include/tandem/texts/mojibake_tables.hpp from ftfy's.

    venv/bin/pip install ftfy==6.3.1
    venv/bin/python tests/texts/make_mojibake_tables.py

(Python 3.11: the rules are read with the parser of its re module.)

Classes: one entry is the letter of the class, then its code points in hexadecimal, ranges with "-", joined by ",".
Rules: one entry is the sequence of characters that ftfy's badness.py calls bad, its members joined by ","; "^" before it
means: only at the start of a text. A member is the letters of its classes, then "=" and single code points joined by
"+"; "!" before it means: none of these.
Codecs: one entry is the code points of bytes 0x80 to 0xFF, ranges as above, for each of ftfy's codecs in its order without
the first two: Latin-1 needs no table, and Windows-1252's stands in html_entities.hpp.
"""
import pathlib
import re
import re._constants as ops
import re._parser

from ftfy import badness, chardata

HEADER = pathlib.Path(__file__).resolve().parents[2] / "include/tandem/texts/mojibake_tables.hpp"
LETTERS = {"common": "o", "bad": "b", "law": "w", "currency": "m", "start_punctuation": "S", "end_punctuation": "E",
           "numeric": "n", "kaomoji": "k", "upper_accented": "A", "lower_accented": "a", "upper_common": "U",
           "lower_common": "u", "box": "x", "c1": "1"}  # fmt: skip
CLUES = {"utf8_first_of_2": "2", "utf8_first_of_3": "3", "utf8_first_of_4": "4", "utf8_continuation": "t",
         "utf8_continuation_strict": "T"}  # fmt: skip
PLANE = [chr(c) for c in range(0x10000) if not 0xD800 <= c < 0xE000]


def members(pattern):
    return frozenset(c for c in PLANE if re.match(pattern, c))


def read_classes():
    sets = {letter: members(f"[{badness.MOJIBAKE_CATEGORIES[name]}]") for name, letter in LETTERS.items()}
    sets.update({"z": members("[a-z]"), "Z": members("[A-Z]")})
    return sets, {letter: members(f"[{chardata.UTF8_CLUES[name]}]") for name, letter in CLUES.items()}


def ranges(characters):
    """In the order given."""
    out = []
    for c in map(ord, characters):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return ",".join(f"{a:x}" if a == b else f"{a:x}-{b:x}" for a, b in out)


def member(op, value, sets):
    """One member of a rule."""
    if op is ops.ANY:
        return "."
    letters, single, negated = "", set(), ""
    for kind, what in value if op is ops.IN else [(op, value)]:
        if kind is ops.LITERAL:
            single.add(chr(what))
        elif kind is ops.RANGE:
            single.update(map(chr, range(what[0], what[1] + 1)))
        elif kind is ops.NEGATE:
            negated = "!"
        elif kind is ops.CATEGORY:
            letters += {ops.CATEGORY_SPACE: "_", ops.CATEGORY_WORD: "l"}[what]
        else:
            raise ValueError(f"{kind} in a rule")
    whole = single.copy()
    for letter, characters in sets.items():
        if characters <= whole:
            letters += letter
            single -= characters
    return negated + letters + ("=" + "+".join(f"{ord(c):x}" for c in sorted(single)) if single else "")


def rules(sets):
    [(_, (_, alternatives))] = re._parser.parse(badness.BADNESS_RE.pattern, badness.BADNESS_RE.flags)
    for alternative in alternatives:
        variants = [""]
        for op, value in alternative:
            if op is ops.AT and value is ops.AT_BEGINNING:
                variants = ["^"]
                continue
            optional = op is ops.MAX_REPEAT
            if optional:
                least, most, [(op, value)] = value
                if (least, most) != (0, 1):
                    raise ValueError("a rule repeats a member")
            longer = [v + ("," if v.strip("^") else "") + member(op, value, sets) for v in variants]
            variants = variants + longer if optional else longer
        yield from variants


def codec(name):
    """The characters of the upper bytes. What else the header takes for granted of a codec is checked here."""
    sloppy = "sloppy" in name
    text = bytes(range(0x80, 0x100)).decode(name)
    if text.encode(name) != bytes(range(0x80, 0x100)):
        raise ValueError(f"{name} has one character twice")
    if bytes(range(0x80)).decode(name) != "".join(map(chr, range(0x80))).replace("\x1a", "\ufffd" if sloppy else "\x1a"):
        raise ValueError(f"{name} is not ASCII")
    return text


def quoted(entries):
    """Lines of a string; they break after a comma too."""
    text = " ".join(entries) + " "
    lines = []
    while text:
        cut = text[:112] if len(text) <= 112 else text[:1 + max(text.rfind(",", 0, 112), text.rfind(" ", 0, 112))]
        lines.append(cut)
        text = text[len(cut):]
    return "".join(f'    "{line}"\n' for line in lines)


def main():
    sets, clues = read_classes()
    latin_1, windows_1252, *others = chardata.CHARMAP_ENCODINGS
    if (latin_1, windows_1252, others[-2]) != ("latin-1", "sloppy-windows-1252", "macroman"):
        raise ValueError("other codecs")
    if ["sloppy" in name for name in others] != [True] * 5 + [False] * 3:
        raise ValueError("other codecs are sloppy")
    known = set("".join(map(codec, chardata.CHARMAP_ENCODINGS))).union(map(chr, range(0x80)), *sets.values())
    rule_list = list(rules(sets))
    if not {chr(int(c, 16)) for rule in rule_list for c in re.findall(r"(?<=[=+])[0-9a-f]+", rule)} <= known:
        raise ValueError("a rule asks for a character that is in no class or codec")
    if any("l" in part for rule in rule_list for part in rule.split(",")[:2]):
        raise ValueError("a rule asks for letters and digits early")
    if len(rule_list) > 64 or max(rule.count(",") for rule in rule_list) > 6:
        raise ValueError("more rules than bits, or a longer one than rows have")
    tables = {"classes": [letter + ranges(sorted(c)) for letter, c in {**sets, **clues}.items()], "rules": rule_list,
              "codecs": [ranges(codec(name)) for name in others]}  # fmt: skip
    source = HEADER.read_text()
    for name, entries in tables.items():
        begin, end = f"    // {name} begin\n", f"    // {name} end\n"
        head, rest = source.split(begin)
        source = head + begin + quoted(entries) + end + rest.split(end)[1]
    HEADER.write_text(source)


if __name__ == "__main__":
    main()

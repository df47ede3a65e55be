#!/usr/bin/env python3
"""Rewrites the table in include/tandem/texts/html_entities.hpp from Python's html.entities.html5.

    python3 tests/texts/make_html_entities.py

One entry is "name" + kind + code points in hexadecimal joined by "+". The kind is ":" for a name that needs its
semicolon, "." for one that HTML also knows without. "^" after it means: ftfy decodes the name in capitals too, to the
same text, or to the code points that follow the "^". Entries are separated by one space.
"""
import html
import html.entities
import pathlib
import textwrap

HEADER = pathlib.Path(__file__).resolve().parents[2] / "include/tandem/texts/html_entities.hpp"
BEGIN, END = "    // table begins\n", "    // table ends\n"


def codes(text):
    return "+".join(format(ord(c), "x") for c in text)


def entries():
    table = html.entities.html5
    for name in sorted(name[:-1] for name in table if name.endswith(";")):
        text = table[name + ";"]
        entry = name + ("." if name in table else ":") + codes(text)
        capitals = "&" + name.upper() + ";"
        if name == name.lower() and html.unescape(capitals) == capitals:
            entry += "^" + (codes(text.upper()) if text.upper() != text else "")
        yield entry


def main():
    lines = textwrap.wrap(" ".join(entries()), 108, break_long_words=False, break_on_hyphens=False)
    source = HEADER.read_text()
    head, rest = source.split(BEGIN)
    tail = rest.split(END)[1]
    HEADER.write_text(head + BEGIN + "".join(f'    "{line} "\n' for line in lines) + END + tail)


if __name__ == "__main__":
    main()

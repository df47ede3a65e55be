#!/usr/bin/env python3
"""compile_errors.py INCLUDE PAGE: the page has every sentence of the library's compile-time errors, and no other.

A sentence is a string that begins with "tandem: " in a header; on the page it is a heading, "### tandem: ...". < and >
may have a backslash before them there, which Markdown needs.
"""
import pathlib
import re
import sys

STRING = r'"((?:\\.|[^"\\\n])*)"'
SENTENCE = re.compile(rf'"(tandem: (?:\\.|[^"\\\n])*)"((?:\s*{STRING})*)')


def sentences(include):
    """Of every sentence in the headers, the first header that has it."""
    found = {}
    for header in sorted(path for path in include.rglob("*") if path.suffix in {".hpp", ".ipp", ".cuh"}):
        for match in SENTENCE.finditer(header.read_text(encoding="utf-8")):
            sentence = match.group(1) + "".join(re.findall(STRING, match.group(2)))
            found.setdefault(sentence, header.relative_to(include))
    return found


def headings(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    return [re.sub(r"\\([<>])", r"\1", line[4:].strip()) for line in lines if line.startswith("### tandem: ")]


def main():
    found, listed = sentences(pathlib.Path(sys.argv[1])), headings(pathlib.Path(sys.argv[2]))
    faults = [f"{header}: \"{sentence}\" has no heading" for sentence, header in found.items() if sentence not in listed]
    faults += [f"the heading \"{heading}\" is no sentence of the headers" for heading in listed if heading not in found]
    faults += [f"the heading \"{heading}\" stands twice" for heading in set(listed) if listed.count(heading) > 1]
    print("\n".join(faults + [f"{len(found)} sentences, {len(faults)} faults"]))
    sys.exit(bool(faults or not found))


if __name__ == "__main__":
    main()

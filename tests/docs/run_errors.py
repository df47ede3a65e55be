#!/usr/bin/env python3
"""run_errors.py INCLUDE PAGE: the page of run-time errors is complete.

It has a section for every room, names every subclass of tandem::Error, and its tables have every fixed word that where()
can be, and no other: the first string of Error and of the functions that throw it. A word that the headers continue at
run time, "Trainer, step 7", stands there without the rest.
"""
import pathlib
import re
import sys

THROWN = re.compile(r'\b(?:Error|OversizedImage|throw_extents|check_ids|positive|not_negative|within)\(\s*"([^"]+)"')
CHECKED = re.compile(r'\bcheck_(?:option|image|target)\([^";]*"([^"]+)"')
WORD = re.compile(r"[\w.:, ]+")


def headers(include):
    return sorted(path for path in include.rglob("*") if path.suffix in {".hpp", ".cuh", ".ipp"})


def words(include):
    """Of every fixed word, the first header that has it."""
    found = {}
    for header in headers(include):
        text = header.read_text(encoding="utf-8")
        for word in THROWN.findall(text) + CHECKED.findall(text):
            # What is expected, in the words of a sentence, is no place.
            if WORD.fullmatch(word) and not re.search(r"^a |, 0", word):
                found.setdefault(word.strip(), header.relative_to(include))
    return found


def main():
    include, page = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).read_text(encoding="utf-8")
    found, faults = words(include), []
    listed = set()
    for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE):
        listed |= set(re.findall(r"`([^`]+)`", row))
    faults += [f"{header}: `{word}` is in no table" for word, header in found.items() if word not in listed]
    texts = [header.read_text(encoding="utf-8") for header in headers(include)]
    for word in listed - set(found):
        # Words that are put together: a class and its function.
        last = word.rstrip(":").split("::")[-1]
        if not any(f'"{word}"' in text or f'"{last}"' in text or f'"{word}' in text for text in texts):
            faults.append(f"`{word}` in a table is thrown by no header")
    for room in sorted(path.name for path in (include / "tandem").iterdir() if path.is_dir()):
        if f"\n## {room}\n" not in page:
            faults.append(f"the room {room} has no section")
    for name in {name for text in texts for name in re.findall(r"class (\w+) : public Error\b", text)}:
        if f"`td::{name}`" not in page:
            faults.append(f"the subclass {name} is not named")
    print("\n".join(faults + [f"{len(found)} words, {len(faults)} faults"]))
    sys.exit(bool(faults or not found))


if __name__ == "__main__":
    main()

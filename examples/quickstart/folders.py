#!/usr/bin/env python3
"""Writes a captions file for a folder whose subfolders are classes: an image's caption is its folder's name.

    folders.py FOLDER [--out captions.tsv]

A line is `path<TAB>caption`, sorted by path; the caption is each folder's name and the file's own, in plain words.
"""

import argparse
import sys
from pathlib import Path

from openclipart import plain_words

ENDINGS = {".png", ".jpg", ".jpeg"}


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes a captions file for folders that are classes.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("captions.tsv"))
    options = parser.parse_args()
    lines = []
    for file in sorted(options.folder.rglob("*")):
        if file.suffix.lower() not in ENDINGS or not file.is_file():
            continue
        path = file.relative_to(options.folder)
        folders = [plain_words(folder) for folder in path.parts[:-1]]
        for caption in dict.fromkeys([*folders, " ".join([*folders, plain_words(path.stem)])]):
            if caption.strip():
                lines.append(f"{path.as_posix()}\t{caption}\n")
    if not lines:
        print(f"folders.py: no PNG or JPEG image below {options.folder} in a folder with a name", file=sys.stderr)
        return 1
    options.out.write_text("".join(lines), encoding="utf-8", errors="surrogateescape", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

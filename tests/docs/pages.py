#!/usr/bin/env python3
"""pages.py PROGRAM: the snippets of the pages run, and every room has a page with three.

PROGRAM is that of snippets.py. It runs in a folder of its own, with cat.jpg, photo.png and CLIP's vocabulary.
"""
import pathlib
import shutil
import subprocess
import sys
import tempfile

from snippets import blocks

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = ROOT / ".docs/pages"
FIXTURES = {
    "cat.jpg": "tests/images/fixtures/image/baseline420.jpg",
    "photo.png": "tests/images/fixtures/image/photo.png",
    "bpe_simple_vocab_16e6.txt.gz": "tests/texts/fixtures/bpe/bpe_simple_vocab_16e6.txt.gz",
}
LEAST_SNIPPETS = 3
OTHERS = ["run_errors", "costs", "determinism"]


def in_folder(command, **options):
    """Runs the program among the files that snippets name."""
    with tempfile.TemporaryDirectory() as folder:
        for name, fixture in FIXTURES.items():
            shutil.copy(ROOT / fixture, pathlib.Path(folder) / name)
        return subprocess.run(command, cwd=folder, text=True, check=False, **options)


def main():
    program, faults = sys.argv[1], []
    rooms = sorted(path.name for path in (ROOT / "include/tandem").iterdir() if path.is_dir())
    for room in rooms:
        page = PAGES / f"rooms/{room}.md"
        if not page.is_file():
            faults.append(f"the room {room} has no page")
        elif sum(block.language == "cpp" for block in blocks(page)) < LEAST_SNIPPETS:
            faults.append(f"{page.name} has fewer than {LEAST_SNIPPETS} snippets")
    for page in PAGES.glob("rooms/*.md"):
        if page.stem not in rooms:
            faults.append(f"{page.name} is the page of no room")
    names = [*rooms, *OTHERS]
    for name in names:
        if in_folder([program, name], stdout=subprocess.DEVNULL).returncode:
            faults.append(f"a snippet of {name}.md fails")
    print("\n".join(faults + [f"{len(names)} pages, {len(faults)} faults"]))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()

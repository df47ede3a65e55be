#!/usr/bin/env python3
"""with_names.py PAGE: the page of a room, with all public names of its headers behind it, which Doxygen makes links of."""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/docs"))
sys.dont_write_bytecode = True
from public_names import public_names  # noqa: E402


def main():
    page, headers = pathlib.Path(sys.argv[1]), {}
    for name, (header, _) in public_names(ROOT / "include").items():
        if header.parts[1] == page.stem:
            headers.setdefault(header.name, []).append(name)
    print(page.read_text(encoding="utf-8"))
    print("## Names\n\n| header | names |\n|---|---|")
    for header, names in sorted(headers.items()):
        print(f"| {header} | {', '.join(names)} |")


if __name__ == "__main__":
    main()

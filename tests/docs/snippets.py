#!/usr/bin/env python3
"""snippets.py OUT PAGE...: writes one program of all ```cpp blocks of the pages.

Every block is a function of its own; paragraphs that README's rule (tests/readme/check.py) puts at file scope stand in a
namespace of the block's own. A block that a ```text block follows must throw tandem::Error with that text. On a page of
pairs, one with ```python blocks, a block makes a `result`, which the program prints under the heading above it. The
program takes a page's name without its ending, and runs its blocks in order.
"""
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "readme"))
from check import FILE_SCOPE, first_code, paragraphs, source_of  # noqa: E402

FENCE = re.compile(r"```(\w*)\s*")


class Block:
    """A fenced block: its language, its numbered lines, the last heading above it."""

    def __init__(self, language, heading, line):
        self.language, self.heading, self.line, self.lines = language, heading, line, []

    def text(self):
        return "\n".join(line for _, line in self.lines)


def blocks(page):
    """The fenced blocks of a page, in order."""
    found, current, heading = [], None, ""
    for number, line in enumerate(page.read_text(encoding="utf-8").split("\n"), 1):
        fence = FENCE.fullmatch(line.strip())
        if current is None and fence:
            current = Block(fence.group(1), heading, number)
        elif current is not None and fence and not fence.group(1):
            found.append(current)
            current = None
        elif current is not None:
            current.lines.append((number, line))
        elif line.startswith("#"):
            heading = re.sub(r"\s*\{#\w+\}$", "", line.lstrip("#").strip())
    if current is not None:
        raise SystemExit(f"{page.name}:{current.line}: the block does not end")
    return found


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def program(pages):
    includes, functions, table = [], [], []
    for page in pages:
        found = blocks(page)
        is_of_pairs = any(block.language == "python" for block in found)
        for at, block in enumerate(found):
            if block.language != "cpp":
                continue
            throws = at + 1 < len(found) and found[at + 1].language == "text"
            message = found[at + 1].text() if throws else ""
            if throws and not message:
                raise SystemExit(f"{page.name}:{found[at + 1].line}: an error without a text")
            outside, inside = [], []
            for part in paragraphs(block.lines):
                code = [(number, line) for number, line in part if not line.startswith("#include")]
                includes += [line for _, line in part if line.startswith("#include") and line not in includes]
                if code:
                    (outside if FILE_SCOPE.match(first_code(code)) else inside).append(source_of(code, page.name))
            report = f"report({quoted(block.heading)}, result);\n" if is_of_pairs else ""
            name = f"{page.stem}_{block.line}"
            functions.append(f"namespace {name} {{\n{''.join(outside)}void run() {{\n{''.join(inside)}{report}}}\n}}\n")
            table.append(f"    {{{quoted(page.stem)}, {block.line}, {name}::run, {quoted(message)}}},\n")
    return ("".join(line + "\n" for line in includes) + '#include "runner.hpp"\nnamespace td = tandem;\n' +
            "".join(functions) + '#line 1 "table"\nconst std::vector<Snippet> snippets{\n' + "".join(table) +
            "};\nint main(int count, char** arguments) { return run_page(snippets, count, arguments); }\n")


def main():
    out, pages = pathlib.Path(sys.argv[1]), [pathlib.Path(page) for page in sys.argv[2:]]
    out.write_text(program(pages), encoding="utf-8")


if __name__ == "__main__":
    main()

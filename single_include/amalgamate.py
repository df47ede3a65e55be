#!/usr/bin/env python3
"""Writes single_include/tandem/tandem.hpp, the whole library in one file, or checks that it is up to date.

The umbrella include/tandem/tandem.hpp is expanded in the order of its includes, each header once, and each .ipp, which
is text that several namespaces repeat, wherever it is included. Standard headers are gathered at the top; other
includes stay where they are, the first of each. The definitions of a header, <name>.impl.hpp, which it includes at its
end unless TANDEM_COMPILED is set, stand together behind all declarations, with what only they include: they are left
out of units that see TANDEM_COMPILED, but for the one that defines TANDEM_IMPLEMENTATION. tensor/eigen.hpp,
images/webp.hpp, tasks/approximate_index.hpp, tasks/linear_probe.hpp and train/mpi.hpp come last, for programs that define TANDEM_EIGEN, TANDEM_WEBP, TANDEM_HNSW,
TANDEM_NLOPT and TANDEM_MPI; cuda.cuh and what only it includes are left out.
"""
import argparse
import pathlib
import re
import sys

UMBRELLA = "tandem.hpp"
CUDA_UMBRELLA = "cuda.cuh"
REPEATED = ".ipp"
DEFINITIONS = ".impl.hpp"
# The last lines of a header that has definitions.
DEFINITIONS_CONDITION = "#if !defined(TANDEM_COMPILED)"
DEFINITIONS_WANTED = "#if !defined(TANDEM_COMPILED) || defined(TANDEM_IMPLEMENTATION)"
OPTIONAL = {"tensor/eigen.hpp": "TANDEM_EIGEN", "images/webp.hpp": "TANDEM_WEBP",
            "tasks/approximate_index.hpp": "TANDEM_HNSW", "tasks/linear_probe.hpp": "TANDEM_NLOPT",
            "train/mpi.hpp": "TANDEM_MPI"}

# A raw string, a string, a character, a line comment, a block comment. A quote after a digit separates digits.
TOKEN = re.compile(
    r'R"([^\s()\\]{0,16})\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'|//[^\n]*|/\*.*?\*/',
    re.DOTALL)
INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')
CONDITION = re.compile(r"\s*#\s*(if|ifdef|ifndef|endif)\b")
PRAGMA = re.compile(r"\s*#\s*pragma\b")


class Mistake(Exception):
    """A header that cannot be put into one file."""


class Line:
    """One line of a header: its text, its text without comments, what it includes, and how many #if it stands under."""

    def __init__(self, number, text, code, depth):
        self.number = number
        self.text = text
        self.code = code
        self.depth = depth
        match = INCLUDE.match(code)
        self.quoted = bool(match) and match.group(1) == '"'
        self.include = match.group(2) if match else None
        self.project = self.include is not None and (self.quoted or self.include.startswith("tandem/"))


def without_comments(text):
    """The text with comments and raw strings emptied, line by line as before."""

    def blank(match):
        token = match.group(0)
        return "\n" * token.count("\n") if token.startswith(("//", "/*", "R")) else token

    return TOKEN.sub(blank, text)


def read_lines(path):
    """The lines of a header, as Line objects."""
    text = path.read_text(encoding="utf-8")
    depth = 0
    lines = []
    for number, (raw, code) in enumerate(zip(text.split("\n"), without_comments(text).split("\n")), 1):
        condition = CONDITION.match(code)
        if condition and condition.group(1) == "endif":
            depth -= 1
        lines.append(Line(number, raw, code, depth))
        if condition and condition.group(1) != "endif":
            depth += 1
    return lines


def is_code(line):
    """Whether a line is neither blank nor an include, a condition or a pragma; a file that is repeated is code."""
    if line.include:
        return line.include.endswith(REPEATED)
    return bool(line.code.strip()) and not CONDITION.match(line.code) and not PRAGMA.match(line.code)


def definitions_of(name):
    """The file that holds the definitions of a header, if it has any."""
    return name.removesuffix(".hpp") + DEFINITIONS


def includes_definitions(line, name):
    """Whether that line of a header includes its definitions, which it may under #if."""
    return line.project and line.depth == 1 and line.include.removeprefix("tandem/") == definitions_of(name)


def project_includes(path):
    return [line.include.removeprefix("tandem/") for line in read_lines(path) if line.project]


class Amalgamation:
    def __init__(self, include):
        self.include = include
        self.seen = set()
        self.standard = set()
        self.other = set()
        self.definitions = []

    def body(self, name, hoist=True):
        """The lines of a header and of everything it includes that has not been seen yet, what it includes first."""
        if name in self.seen:
            return []
        self.seen.add(name)
        path = self.include / name
        before, own, code_seen = [], [], False
        lines = read_lines(path)
        if len(lines) > 4 and any(includes_definitions(line, name) for line in lines):
            end = [line.code.strip() for line in lines[-4:]]
            if not includes_definitions(lines[-3], name) or [end[0], *end[2:]] != [DEFINITIONS_CONDITION, "#endif", ""]:
                raise Mistake(f"include/tandem/{name}: its definitions must be included by its last three lines, under "
                              f"{DEFINITIONS_CONDITION}")
            self.definitions.append(definitions_of(name))
            lines = lines[:-4]
        # What the project's headers include comes first, where they stand.
        for line in lines:
            where = f"include/tandem/{name}:{line.number}"
            code_seen = code_seen or is_code(line)
            if not line.project or line.include.endswith(REPEATED):
                continue
            if line.depth:
                raise Mistake(f"{where}: a project include under #if cannot be expanded")
            if code_seen:
                raise Mistake(f"{where}: a project include must come before the code")
            if not (self.include / line.include.removeprefix("tandem/")).is_file():
                raise Mistake(f"{where}: there is no header {line.include}")
            before += self.body(line.include.removeprefix("tandem/"), hoist)
        for line in lines:
            if line.code.strip() == "#pragma once" or (line.project and not line.include.endswith(REPEATED)):
                continue
            if line.project:
                own += self.repeated(line.include.removeprefix("tandem/"), f"include/tandem/{name}:{line.number}")
                continue
            if line.include and not line.depth:
                if hoist and "/" not in line.include and "." not in line.include:
                    self.standard.add(line.include)
                    continue
                if line.include in self.other | self.standard:
                    continue
                self.other.add(line.include)
            own.append(line.text.rstrip())
        return before + ["", f"// ---- tandem/{name} ----", ""] + own

    def repeated(self, name, where):
        """The text of a file that stands wherever it is included."""
        if not (self.include / name).is_file():
            raise Mistake(f"{where}: there is no file {name}")
        lines = read_lines(self.include / name)
        if any(line.include for line in lines):
            raise Mistake(f"include/tandem/{name}: text that is repeated cannot include anything")
        return [line.text.rstrip() for line in lines]

    def text(self, licence):
        """The single header."""
        body = self.body(UMBRELLA)
        declared = set(self.standard)
        wanted = []
        # (Definitions may include headers that have definitions.)
        for name in self.definitions:
            wanted += self.body(name)
        if wanted:
            only_there = [f"#include <{name}>" for name in sorted(self.standard - declared)]
            body += ["", DEFINITIONS_WANTED, ""] + only_there + wanted + ["", f"#endif  // {DEFINITIONS_WANTED[4:]}"]
        for name, macro in OPTIONAL.items():
            if (self.include / name).is_file():
                body += ["", f"#if defined({macro})"] + self.body(name, hoist=False) + ["", f"#endif  // {macro}"]
        head = ["// tandem: CLIP models as C++ types, in one header.",
                "// Written by single_include/amalgamate.py from include/tandem; change it there.", "//"]
        head += [("// " + line).rstrip() for line in licence.strip().split("\n")]
        head += ["#pragma once", ""] + [f"#include <{name}>" for name in sorted(declared)]
        self.check_complete()
        lines = []
        for line in head + body:
            if line or (lines and lines[-1]):
                lines.append(line)
        return "\n".join(lines).rstrip("\n") + "\n"

    def check_complete(self):
        device = set()
        pending = [CUDA_UMBRELLA] if (self.include / CUDA_UMBRELLA).is_file() else []
        while pending:
            name = pending.pop()
            if name not in device and (self.include / name).is_file():
                device.add(name)
                pending += project_includes(self.include / name)
        for path in sorted(self.include.rglob("*.hpp")):
            name = path.relative_to(self.include).as_posix()
            if name not in self.seen | device:
                raise Mistake(f"include/tandem/{name}: not included by tandem.hpp, directly or through another header")


def first_difference(found, expected):
    found, expected = found.split("\n"), expected.split("\n")
    for number, (left, right) in enumerate(zip(found, expected), 1):
        if left != right:
            return number, left, right
    number = min(len(found), len(expected))
    return number + 1, "".join(found[number:number + 1]), "".join(expected[number:number + 1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--root", type=pathlib.Path, default=root, help="the folder that holds include/tandem")
    parser.add_argument("--output", type=pathlib.Path, help="default: single_include/tandem/tandem.hpp below the root")
    parser.add_argument("--check", action="store_true", help="compare with the file instead of writing it")
    arguments = parser.parse_args()
    output = arguments.output or arguments.root / "single_include/tandem/tandem.hpp"
    try:
        licence = (arguments.root / "LICENSE").read_text(encoding="utf-8")
        text = Amalgamation(arguments.root / "include/tandem").text(licence)
    except Mistake as mistake:
        sys.exit(str(mistake))
    if not arguments.check:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
        return
    found = output.read_text(encoding="utf-8") if output.is_file() else ""
    if found != text:
        number, left, right = first_difference(found, text)
        sys.exit(f"{output}:{number}: out of date; run single_include/amalgamate.py\n"
                 f"  in the file: {left}\n  in the headers: {right}")


if __name__ == "__main__":
    main()

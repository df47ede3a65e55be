#!/usr/bin/env python3
"""check.py README COMPILER [FLAGS...]: compiles the ```cpp blocks of a README.

A block that defines main() is a program and stands alone. Any other block is a snippet: one that includes a header of
tandem starts anew, one that does not continues the snippet before it and sees its names. Inside a snippet, paragraphs
(separated by blank lines outside of braces) that begin with #, namespace, using, template, struct, class, inline,
constexpr or static_assert stand at file scope; the others become the body of a function, in order. The first snippet
may rely on <tandem/tandem.hpp> and `namespace td = tandem;`. Unused names are no fault in a README; all other warnings
are. A compiler's complaint names the line of the README.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

FILE_SCOPE = re.compile(r"(#|(namespace|using|template|struct|class|inline|constexpr|static_assert)\b)")


def blocks(text):
    """The ```cpp blocks as lists of (line number, line)."""
    found, current = [], None
    for number, line in enumerate(text.split("\n"), 1):
        if current is None:
            if re.fullmatch(r"\s*```cpp\s*", line):
                current = []
        elif re.fullmatch(r"\s*```\s*", line):
            found.append(current)
            current = None
        else:
            current.append((number, line))
    if current is not None:
        raise SystemExit("a ```cpp block does not end")
    return found


def paragraphs(block):
    """The block, cut at blank lines that stand outside of braces and parentheses."""
    parts, depth = [[]], 0
    for number, line in block:
        if not line.strip() and depth == 0:
            parts.append([])
            continue
        parts[-1].append((number, line))
        code = line.split("//")[0]
        depth += sum(code.count(bracket) for bracket in "{([") - sum(code.count(bracket) for bracket in "})]")
    return [part for part in parts if part]


def first_code(part):
    return next((line.strip() for _, line in part if line.strip() and not line.strip().startswith("//")), "#")


def source_of(lines, readme):
    return "".join(f'#line {number} "{readme}"\n{line}\n' for number, line in lines)


def programs(text, readme):
    """Pairs of (first line, source) to compile."""
    snippets, result = [], []
    for block in blocks(text):
        joined = "\n".join(line for _, line in block)
        if re.search(r"\bint main\(", joined):
            result.append((block[0][0], source_of(block, readme)))
        elif "#include <tandem/" in joined or not snippets:
            snippets.append(list(paragraphs(block)))
        else:
            snippets[-1] += paragraphs(block)
    for snippet in snippets:
        outside = "".join(source_of(part, readme) for part in snippet if FILE_SCOPE.match(first_code(part)))
        inside = "".join(source_of(part, readme) for part in snippet if not FILE_SCOPE.match(first_code(part)))
        head = "" if "#include <tandem/" in outside else "#include <tandem/tandem.hpp>\nnamespace td = tandem;\n"
        result.append((snippet[0][0][0], f"{head}{outside}void readme_snippet() {{\n{inside}\n}}\n"))
    return result


def main():
    readme, command = pathlib.Path(sys.argv[1]), sys.argv[2:]
    if not readme.is_file():
        print(f"there is no {readme}")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        check(readme, [command[0], *precompiled(command, pathlib.Path(folder)), *command[1:]])


def precompiled(command, folder):
    """The library's header, compiled once for all blocks where the compiler is g++, which takes it for the header itself."""
    if "clang" in command[0]:
        return []
    (folder / "tandem").mkdir()
    (folder / "all.hpp").write_text("#include <tandem/tandem.hpp>\n")
    subprocess.run([*command, "-x", "c++-header", folder / "all.hpp", "-o", folder / "tandem" / "tandem.hpp.gch"], check=True)
    return [f"-I{folder}"]


def check(readme, command):
    failures = 0
    found = programs(readme.read_text(encoding="utf-8"), readme.name)
    for line, source in found:
        result = subprocess.run([*command, "-Wno-unused", "-Wno-missing-declarations", "-fsyntax-only", "-x", "c++", "-"],
                                input=source, text=True, check=False,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if result.returncode:
            failures += 1
            print(f"the block at {readme.name}:{line} does not compile:\n{result.stdout}")
    print(f"{len(found)} programs from {readme.name}, {failures} do not compile")
    sys.exit(bool(failures or not found))


if __name__ == "__main__":
    main()

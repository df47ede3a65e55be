#!/usr/bin/env python3
"""check.py FILE COMPILER [FLAGS...]: checks that a wrong program does not compile, and says why in one sentence.
check.py --shares FILES...: checks that at most one in ten of the files says that its output is long.

The file as it stands must compile. With TANDEM_EXPECT_FAIL defined it must not; every sentence named by a line
"// expect: <sentence>" must stand in an error of the compiler (not merely in the source lines it quotes). The first
error must hold one of them, whole within its first 600 characters, and there as well every value that a line
"// shows: <value>" names. All that the compiler prints must not exceed 3,000 characters, but in a file with a line
"// long: <reason>". Paths of the library count as they are written in an #include, so that it does not matter where a checkout lies.
"""
import pathlib
import re
import subprocess
import sys

FIRST = 600
ALL = 3000


def lines_of(text, kind):
    return [line.strip() for line in re.findall(rf"^\s*// {kind}: (.+)$", text, re.MULTILINE)]


def check_shares(sources):
    long = [source for source in sources if lines_of(source.read_text(encoding="utf-8"), "long")]
    if 10 * len(long) > len(sources):
        names = ", ".join(source.name for source in long)
        sys.exit(f"{len(long)} of {len(sources)} wrong programs have a long output, more than one in ten: {names}")


def main():
    if sys.argv[1] == "--shares":
        return check_shares([pathlib.Path(path) for path in sys.argv[2:]])
    source, command = pathlib.Path(sys.argv[1]), sys.argv[2:]
    text = source.read_text(encoding="utf-8")
    expected, values = lines_of(text, "expect"), lines_of(text, "shows")
    if not expected or "TANDEM_EXPECT_FAIL" not in text:
        sys.exit(f"{source}: needs a line '// expect: <sentence>' and a part under TANDEM_EXPECT_FAIL")

    def compile_with(*flags):
        return subprocess.run([*command, *flags, "-fsyntax-only", str(source)], text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    right = compile_with()
    if right.returncode:
        sys.exit(f"{source}: the right program does not compile:\n{right.stdout}")
    wrong = compile_with("-DTANDEM_EXPECT_FAIL")
    if not wrong.returncode:
        sys.exit(f"{source}: the wrong program compiles")
    output = re.sub(r"[^\s:]*/(?=tandem/[a-z_]+/\w+\.hpp|clip\.hpp)", "", wrong.stdout.replace(f"{source.parent}/", ""))
    # Clang writes a std::size_t as 224UL, g++ as 224.
    output = re.sub(r"\b(\d+)UL\b", r"\1", output)
    lines = output.split("\n")
    errors = [line for line in lines if re.search(r"\berror: ", line)]
    missing = [sentence for sentence in expected if not any(sentence in error for error in errors)]
    if missing:
        sys.exit("\n".join([f"{source}: no error says:", *missing, "The compiler said:", output]))
    if not any(sentence in errors[0] for sentence in expected):
        sys.exit(f"{source}: the first error is another one:\n{output}")
    first = output[sum(len(line) + 1 for line in lines[:lines.index(errors[0])]):]
    position = min(first.index(sentence) for sentence in expected if sentence in errors[0])
    late = [text for text in [next(sentence for sentence in expected if sentence in errors[0]), *values]
            if text not in first[:FIRST]]
    if late:
        sys.exit("\n".join([f"{source}: not within the first {FIRST} characters:", *late, "The compiler said:", output]))
    if len(output) > ALL and not lines_of(text, "long"):
        sys.exit(f"{source}: {len(output)} characters, more than {ALL}:\n{output}")
    print(f"{source.name}: the sentence at {position}, {len(output)} characters")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""check.py FILE COMPILER [FLAGS...]: checks that a wrong program does not compile, and says why in one sentence.

The file as it stands must compile. With TANDEM_EXPECT_FAIL defined it must not; every sentence named by a line
"// expect: <sentence>" must stand in an error of the compiler (not merely in the source lines it quotes), and the
first error must hold one of them.
"""
import pathlib
import re
import subprocess
import sys


def main():
    source, command = pathlib.Path(sys.argv[1]), sys.argv[2:]
    text = source.read_text(encoding="utf-8")
    expected = [sentence.strip() for sentence in re.findall(r"^\s*// expect: (.+)$", text, re.MULTILINE)]
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
    errors = [line for line in wrong.stdout.split("\n") if re.search(r"\berror: ", line)]
    missing = [sentence for sentence in expected if not any(sentence in error for error in errors)]
    if missing:
        sys.exit("\n".join([f"{source}: no error says:", *missing, "The compiler said:", wrong.stdout]))
    if not any(sentence in errors[0] for sentence in expected):
        sys.exit(f"{source}: the first error is another one:\n{wrong.stdout}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Builds and runs parity_test.cpp for each fixture given: architectures are compile-time, so each needs its own program.

    check.py --compiler CXX --include DIR [--flag=F]... [--emulator PROGRAM] FIXTURE.safetensors|FOLDER ...

With no fixture named, the folder in the environment variable TANDEM_FIXTURES; exits with 77 if that is not set either.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--include", type=Path, default=HERE.parent.parent / "include")
    parser.add_argument("--flag", action="append", help="of the compiler; without any, -ltbb")
    parser.add_argument("--emulator", help="of the compiler's machine, where that is not this one")
    parser.add_argument("fixtures", nargs="*", type=Path)
    options = parser.parse_args()

    given = options.fixtures or ([Path(os.environ["TANDEM_FIXTURES"])] if "TANDEM_FIXTURES" in os.environ else [])
    if not given:
        print("TANDEM_FIXTURES is not set")
        return 77
    fixtures = [file for path in given for file in (sorted(path.glob("*.safetensors")) if path.is_dir() else [path])]
    if not fixtures:
        print(f"no fixtures in {', '.join(map(str, given))}")
        return 1
    failed = 0
    for fixture in fixtures:
        with tempfile.TemporaryDirectory() as folder:
            header, program = Path(folder) / "fixture.hpp", Path(folder) / "parity"
            printed = subprocess.run([sys.executable, HERE / "fixture_header.py", fixture], stdout=subprocess.PIPE, text=True)
            if printed.returncode != 0:
                failed += 1
                continue
            header.write_text(printed.stdout)
            build = [options.compiler, "-std=c++20", "-O1", f"-I{options.include}", f'-DTANDEM_FIXTURE_HEADER="{header}"',
                     HERE / "parity_test.cpp", "-o", program, *(options.flag or ["-ltbb"])]
            run = [*filter(None, [options.emulator]), program, fixture]
            if subprocess.run(build).returncode != 0 or subprocess.run(run).returncode != 0:
                failed += 1
    print(f"{len(fixtures) - failed} of {len(fixtures)} fixtures agree")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""headers.py INCLUDE HEADERS COMPILER [FLAGS...]: compiles headers under include/tandem, each alone and included twice.

HEADERS is "all", or names separated by commas. cuda.cuh is for nvcc, and so is kernels/cuda. Headers are compiled as units see
them that link the definitions: header-only, what a header forgets to include may come with definitions of others. The umbrella
is compiled as most include it. NAME.impl.hpp is no header of its own: NAME.hpp includes it, or the library's own units.
"""
import pathlib
import subprocess
import sys


def main():
    include, wanted, command = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    headers = [path.relative_to(include).as_posix() for path in sorted(include.rglob("*.hpp"))]
    headers = [name for name in headers if not name.startswith("tandem/kernels/cuda/") and not name.endswith(".impl.hpp")]
    if wanted != "all":
        headers = wanted.split(",")
    failed = []
    for name in headers:
        program = f"#include <{name}>\n#include <{name}>\n"
        if name != "tandem/tandem.hpp":
            program = "#define TANDEM_COMPILED\n" + program
        result = subprocess.run([*command, "-fsyntax-only", "-x", "c++", "-"], input=program, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if result.returncode:
            failed.append(name)
            print(f"{name} does not compile alone:\n{result.stdout}")
    print(f"{len(headers)} headers, {len(failed)} do not compile alone", *failed, sep="\n  ")
    sys.exit(bool(failed or not headers))


if __name__ == "__main__":
    main()

"""Times the compilation of small programs, header-only and with tandem::compiled; compile_time.sh runs it and says how."""

import argparse
import collections
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
INCLUDE = HERE.parents[1] / "include"
# Program, budgets in user seconds of a 2.6 GHz Intel: header-only, compiled.
PROGRAMS = [("include", 3, 1.8), ("zero_shot", 10, 4), ("training", 15, 7), ("zoo", 12, 8), ("variant", None, 5)]
WAYS = {"header-only": [], "compiled": ["-DTANDEM_COMPILED"]}
# What g++ -ftime-report calls the parts.
PHASES = {"parse": "phase parsing", "instantiate": "phase lang. deferred", "generate": "phase opt and generate"}
SHOWN = 15  # lines of a trace


def compile_program(compiler, source, flags, target):
    """User seconds of one compilation, and what the compiler printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command = [compiler, "-std=c++20", "-O2", f"-I{INCLUDE}", *flags, "-c", source, "-o", target]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        # g++ 12's own clocks fail on some programs that it compiles without them (timevar.cc).
        if "-ftime-report" in flags and "internal compiler error: in start, at timevar.cc" in result.stderr:
            return compile_program(compiler, source, [flag for flag in flags if flag != "-ftime-report"], target)
        sys.exit(f"{source} does not compile:\n{result.stderr[:2000]}")
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before, result.stderr


def phases(report):
    """Seconds of each of PHASES in what g++ -ftime-report printed, or None where it said nothing."""
    found = {}
    for part, name in PHASES.items():
        match = re.search(re.escape(name) + r"\s*:\s*([\d.]+)", report)
        found[part] = float(match.group(1)) if match else None
    return found


def print_table(head, rows):
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))))


def measure(programs, compiler, runs, folder):
    """Prints both tables."""
    times = collections.defaultdict(list)
    eigen = folder / "eigen.cpp"
    eigen.write_text("#include <Eigen/Core>\n")
    for turn in range(runs):
        for name, _, _ in programs:
            for way, flags in WAYS.items():
                print(f"round {turn + 1} of {runs}: {name}, {way}", file=sys.stderr)
                seconds, _ = compile_program(compiler, HERE / f"{name}.cpp", flags, folder / f"{name}.{way}.o")
                times[name, way].append(seconds)
        times["Eigen/Core"].append(compile_program(compiler, eigen, ["-isystem/usr/include/eigen3"], folder / "eigen.o")[0])

    def cell(key):
        return f"{statistics.median(times[key]):.2f}"

    def budget(value):
        return "-" if value is None else f"{value:g}"

    print_table(["user seconds", "header-only", "budget", "compiled", "budget"],
                [[name, cell((name, "header-only")), budget(whole), cell((name, "compiled")), budget(part)]
                 for name, whole, part in programs] + [["Eigen/Core alone", cell("Eigen/Core"), "-", "-", "-"]])
    print()
    rows = []
    for name, _, _ in programs:
        for way, flags in WAYS.items():
            target = folder / f"{name}.{way}.o"
            _, report = compile_program(compiler, HERE / f"{name}.cpp", [*flags, "-ftime-report"], target)
            parts = [f"{seconds:.2f}" if seconds is not None else "-" for seconds in phases(report).values()]
            code = subprocess.run(["size", target], capture_output=True, text=True, check=True).stdout.splitlines()[1]
            rows.append([f"{name}, {way}", *parts, f"{target.stat().st_size / 1024:.0f}", f"{int(code.split()[0]) / 1024:.0f}"])
    print_table(["parts of one run", *PHASES, "object KiB", "code KiB"], rows)


def trace(programs, folder):
    """Prints what clang's -ftime-trace says: headers by the time in themselves, templates by that of all their instances."""
    for name, _, _ in programs:
        for way, flags in WAYS.items():
            target = folder / f"{name}.o"
            compile_program("clang++-19", HERE / f"{name}.cpp", [*flags, "-ftime-trace"], target)
            events = json.loads(target.with_suffix(".json").read_text())["traceEvents"]
            headers, templates = collections.Counter(), collections.Counter()
            open_headers = []  # [path, where the time in itself goes on]
            # (Stable: a header that begins when another one ends comes behind it.)
            for event in sorted((e for e in events if e["name"] == "Source"), key=lambda e: e["ts"]):
                if open_headers:
                    headers[open_headers[-1][0]] += event["ts"] - open_headers[-1][1]
                if event["ph"] == "b":
                    open_headers.append([event["args"]["detail"], event["ts"]])
                else:
                    open_headers.pop()
                    if open_headers:
                        open_headers[-1][1] = event["ts"]
            for event in events:
                if event["name"] in ("InstantiateFunction", "InstantiateClass"):
                    templates[re.sub(r"<.*", "", event["args"]["detail"])] += event["dur"]
            for title, counter in (("headers, without what they include", headers), ("templates, all instances", templates)):
                print(f"\n{name}, {way}: {title}")
                for what, microseconds in counter.most_common(SHOWN):
                    print(f"{microseconds / 1000:10.0f} ms  {what.removeprefix(str(INCLUDE) + '/')}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(";")[0])
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="", help="programs whose names match this regular expression")
    parser.add_argument("--trace", action="store_true")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error(f"--runs: expected at least 1, found {arguments.runs}")
    programs = [program for program in PROGRAMS if re.search(arguments.only, program[0])]
    if not programs:
        parser.error(f"--only: no program of {', '.join(name for name, _, _ in PROGRAMS)} matches {arguments.only!r}")
    with tempfile.TemporaryDirectory() as folder:
        if arguments.trace:
            trace(programs, Path(folder))
        else:
            measure(programs, arguments.compiler, arguments.runs, Path(folder))


if __name__ == "__main__":
    main()

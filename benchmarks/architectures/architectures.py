"""Builds and times the variants of a list in turn; architectures.sh runs it and says how."""

import argparse
import concurrent.futures
import csv
import hashlib
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import report

HERE = Path(__file__).resolve().parent
INCLUDE = HERE.parent.parent / "include"
OPTIONS = ["-std=c++20", "-O2", f"-I{INCLUDE}"]
# Before the source, so that they are linked although nothing has asked for them yet.
LIBRARIES = ["-Wl,--no-as-needed", "-ltbb", "-ljpeg", "-lpng", "-lutf8proc", "-lz"]
PRECISIONS = ("f32", "bf16", "int8")
TURNS = 4  # of every variant in a round, for every row
# (name, command of variant.hpp, cost that is executed, items a call)
ROWS = [
    (f"{tower} {precision} b{batch}", f"{tower} {precision} {batch}", f"{tower}_executed", batch)
    for precision in PRECISIONS
    for tower in ("image", "text")
    for batch in (1, 32)
] + [("train f32 b32", "train f32 32", None, 32)]


def variant_names(path):
    """The constants that a list defines, in its order; NAME_loss is a loss of a study."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    names = re.findall(r"\bconstexpr\s+(?:(?:td|tandem)::ClipConfig(?:<[^{;=]*>)?|auto)\s+(\w+)\s*[{=]", text)
    return [name for name in dict.fromkeys(names) if name.removesuffix("_loss") not in set(names) - {name}]


def with_includes(path, seen=()):
    """A list and what it includes from beside it, each once."""
    seen = [*seen, path]
    for name in re.findall(r'^\s*#\s*include\s*"([^"]+)"', path.read_text(encoding="utf-8"), flags=re.MULTILINE):
        included = path.parent / name
        if included.is_file() and included not in seen:
            seen = with_includes(included, seen)
    return seen


def library_key(list_path, *more):
    """What a program is made of beside its own source: the compiler, its options, the list with what it
    includes, the library, and more files."""
    compiler = subprocess.run(["g++", "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(compiler + str(OPTIONS).encode())
    for file in sorted([*with_includes(list_path), *INCLUDE.rglob("*.hpp"), *INCLUDE.rglob("*.ipp"), *HERE.glob("*.hpp"), *more]):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def compile_once(target, text, key, options):
    """(target, seconds it took to compile) or (None, the compiler's errors). What is there already, of the same text, key
    and options, stands."""
    source, stamp = target.with_suffix(".cpp"), target.with_suffix(".json")
    wanted = hashlib.sha256(f"{text}{key}{options}".encode()).hexdigest()
    if target.exists() and stamp.exists():
        found = json.loads(stamp.read_text())
        if found["key"] == wanted:
            return target, found["seconds"]
    source.write_text(text)
    began = time.monotonic()
    result = subprocess.run(["g++", *OPTIONS, *options, source, "-o", target], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if result.returncode:
        errors = [line for line in result.stderr.splitlines() if "error:" in line]
        return None, "\n".join(errors[:3]) or result.stderr[:400]
    stamp.write_text(json.dumps({"key": wanted, "seconds": seconds}))
    return target, seconds


def compile_common(header, folder, key):
    """What all programs of a list have in common, compiled once: a header of the same name that includes `header`, as g++
    finds it precompiled, and the library's definitions, layer by layer. Returns (the options that take both, seconds)."""
    folder = folder / "common.parts"  # no variant has such a name
    folder.mkdir(exist_ok=True)
    include = f'#include "{header}"\n'
    (folder / header.name).write_text("#pragma once\n" + include)
    parts = [(folder / f"{header.name}.gch", include, ["-x", "c++-header", "-DTANDEM_COMPILED"])]
    for layer in sorted({path.parent for path in (INCLUDE / "tandem").glob("*/*.impl.hpp")}):
        definitions = "".join(f"#include <tandem/{layer.name}/{path.name}>\n" for path in sorted(layer.glob("*.impl.hpp")))
        parts.append((folder / f"{layer.name}.o", definitions, ["-c", "-DTANDEM_COMPILED"]))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda part: compile_once(part[0], part[1], key, part[2]), parts))
    for target, fault in found:
        if target is None:
            raise RuntimeError(f"what all variants have in common does not compile:\n{fault}")
    objects = [target for target, _, _ in parts[1:]]
    return ["-DTANDEM_COMPILED", f"-I{folder}", *objects, *LIBRARIES], sum(seconds for _, seconds in found)


def compile_variant(name, list_path, folder, key, common):
    """(program, (seconds to compile, bytes of code)) of a variant, or (None, the compiler's errors)."""
    text = f'#include "variant.hpp"\n#include "{list_path}"\nint main() {{ return architectures::run<{name}>(); }}\n'
    program, found = compile_once(folder / name, text, key, common)
    if program is None:
        return None, found
    size = subprocess.run(["size", program], capture_output=True, text=True, check=True).stdout.splitlines()[1]
    return program, (found, int(size.split()[0]))


class Program:
    """A running variant that waits for its turn."""

    def __init__(self, path):
        self.process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.process.args[0]}: ended with {self.process.wait()} at '{command}'")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def ask_once(path, *commands):
    program = Program(path)
    answers = [program.ask(command) for command in commands]
    program.close()
    return answers[-1]


# Two-sided quantiles of Student's t at a chance of 1e-4, by degrees of freedom: with a dozen rows and variants, about one
# comparison in a hundred lists would be called different by chance.
T_QUANTILES = {1: 6366.2, 2: 99.99, 3: 28.00, 4: 15.54, 5: 11.18, 6: 9.08, 7: 7.88, 8: 7.12, 9: 6.59, 10: 6.21}
# Below this, the place where a program's memory happens to lie decides.
LEAST_DIFFERENCE = 0.01


def compare(rounds, base_rounds):
    """The ratio of two variants' times, and whether it can be told from 1. Every round holds the times of its turns; the
    turns of a round are paired, since the machine is as fast for both, and a round counts once, since where its processes
    lie in memory stays."""
    logs = [
        statistics.median(math.log(a / b) for a, b in zip(turns, base_turns)) for turns, base_turns in zip(rounds, base_rounds)
    ]
    mean = statistics.fmean(logs)
    if len(logs) < 2:
        return math.exp(mean), False
    error = statistics.stdev(logs) / math.sqrt(len(logs))
    bound = T_QUANTILES.get(len(logs) - 1, 6.0) * error
    return math.exp(mean), abs(mean) > max(bound, LEAST_DIFFERENCE)


def measure(programs, rounds, log):
    """times[row][variant][round] = the times of TURNS turns, in milliseconds: variants take turns within every row."""
    times = {row: {name: [] for name in programs} for row, *_ in ROWS}
    for index in range(rounds):
        running = {name: Program(path) for name, path in programs.items()}
        for row, command, _, batch in ROWS:
            log(f"round {index + 1} of {rounds}: {row}")
            # The first calls after a pause are slow (threads wake, caches are another's): a turn is long enough for its
            # median to leave them out.
            seconds = 0.08 if batch == 1 else 0
            for name, program in running.items():
                program.ask(f"{command} 0")  # makes the model
                times[row][name].append([])
            for _ in range(TURNS):
                for name, program in running.items():
                    times[row][name][-1].append(program.ask(f"{command} {seconds}"))
        for program in running.values():
            program.close()
    return times


def summarise(times, programs, variants, limits):
    """One entry for every row and variant: its median, its range, how it compares with the first variant."""
    base = next(iter(programs))
    rows = []
    for row, _, executed, batch in ROWS:
        for name in programs:
            taken = [statistics.median(turns) for turns in times[row][name]]
            median = statistics.median(taken)
            ratio, differs = compare(times[row][name], times[row][base])
            entry = {
                "variant": name, "row": row, "ms": median, "ms_low": min(taken), "ms_high": max(taken),
                "items_per_second": 1e3 * batch / median, "ratio_to_base": ratio, "differs_from_base": differs,
                "rounds": taken,
            }  # fmt: skip
            if executed is not None:
                gflops = variants[name][executed] * batch / median * 1e-6
                entry["share_of_ceiling"] = gflops / limits[row.split()[1]]
            rows.append(entry)
    return rows


def ceilings(folder):
    program = folder / "ceiling"
    subprocess.run(["g++", *OPTIONS, *LIBRARIES, HERE / "ceiling.cpp", "-o", program], check=True)
    figures = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(PRECISIONS, map(float, figures)))


def main():
    parser = argparse.ArgumentParser(prog="architectures.sh", description=__doc__)
    parser.add_argument("--list", type=Path, default=HERE / "list.hpp", metavar="FILE.hpp")
    parser.add_argument("--out", type=Path, default=Path("architectures"), metavar="DIR")
    parser.add_argument("--rounds", type=int, default=8, metavar="N")
    parser.add_argument("--variants", default="", metavar="REGEX", help="only those whose names it matches")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds: expected 1 or more, found {options.rounds}")
    if not options.list.is_file():
        parser.error(f"--list: {options.list} is not a file")
    names = [name for name in variant_names(options.list) if re.search(options.variants, name)]
    if not names:
        parser.error(f"{options.list}: expected constants `inline constexpr td::ClipConfig NAME{{...}};`, found none")
    folder = options.out / "build"
    folder.mkdir(parents=True, exist_ok=True)

    def log(text):
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    log(f"compiling {len(names)} variants")
    list_path = options.list.resolve()
    key = library_key(list_path)
    common, common_seconds = compile_common(HERE / "variant.hpp", folder, key)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        built = dict(zip(names, pool.map(lambda name: compile_variant(name, list_path, folder, key, common), names)))
    for name, (program, fault) in built.items():
        if program is None:
            print(f"\n{name} does not compile and is left out:\n{fault}", file=sys.stderr)
    programs = {name: program for name, (program, _) in built.items() if program is not None}
    if not programs:
        sys.exit("no variant compiles")

    limits = ceilings(folder)
    variants = {}
    for name, program in programs.items():
        log(f"costs of {name}")
        seconds, code = built[name][1]
        variants[name] = ask_once(program, "costs") | {
            "compile_seconds": round(seconds, 2),
            "code_bytes": code,
            "image_peak_bytes": ask_once(program, "image f32 1 0", "peak"),
            "training_peak_bytes": ask_once(program, "train f32 32 0", "peak"),
        }
    times = measure(programs, options.rounds, log)
    log("")

    base = next(iter(programs))
    rows = summarise(times, programs, variants, limits)
    results = {"base": base, "ceilings_gflops": limits, "common_compile_seconds": round(common_seconds, 2),
               "variants": variants, "rows": rows}  # fmt: skip
    (options.out / "results.json").write_text(json.dumps(results, indent=1))
    columns = [key for key in rows[0] if key != "rounds"]
    costs = [key for key in next(iter(variants.values())) if key != "description"]
    with (options.out / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns + costs)
        for entry in rows:
            writer.writerow([entry.get(c, "") for c in columns] + [variants[entry["variant"]][c] for c in costs])
    (options.out / "report.html").write_text(report.architectures(results), encoding="utf-8")
    print(report.terminal(results))
    print(f"{options.out}/report.html, table.csv, results.json")


if __name__ == "__main__":
    main()

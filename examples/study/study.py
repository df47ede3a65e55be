"""Trains and compares the variants of a list; study.sh runs it and says how."""

import argparse
import concurrent.futures
import csv
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks" / "architectures"))
sys.path.insert(0, str(HERE))

import architectures  # noqa: E402
import study_report  # noqa: E402

LIBRARIES = ["-ljpeg", "-lpng", "-lutf8proc", "-lz"]


def compile_trial(name, list_path, has_loss, folder, key, common):
    """(program, seconds) of a variant's trials, or (None, the compiler's errors)."""
    loss = f", {name}_loss" if has_loss else ""
    text = (
        f'#include "trial.hpp"\n#include "{list_path}"\n'
        f"int main(int count, char** arguments) {{ return study::main<{name}>(count, arguments{loss}); }}\n"
    )
    return architectures.compile_once(folder / f"trial_{name}", text, key, [*common, *LIBRARIES])


def constants(name, list_path, folder, key, common):
    """The costs of a variant as constants, by the program of architectures.sh."""
    program, found = architectures.compile_variant(name, list_path, folder, key, common)
    if program is None:
        return None, found
    return program, architectures.ask_once(program, "costs") | {"compile_seconds": found[0], "code_bytes": found[1]}


def fingerprint(options, list_path):
    """What a trial's result depends on beside its variant and seed."""
    budget = options.budget
    return hashlib.sha256((list_path.read_text() + budget + str(options.data)).encode()).hexdigest()[:16]


def is_done(folder, stamp):
    marker = folder / "stamp"
    return (folder / "trial.json").exists() and marker.exists() and marker.read_text() == stamp


def run_trial(program, folder, seed, options, data_arguments, stamp):
    """The trial's result, or its error; a result that is there already stands."""
    folder.mkdir(parents=True, exist_ok=True)
    done, marker = folder / "trial.json", folder / "stamp"
    if not is_done(folder, stamp):
        if not marker.exists() or marker.read_text() != stamp:
            (folder / "snapshot.safetensors").unlink(missing_ok=True)
        marker.write_text(stamp)
        kind, amount = options.budget.split("=")
        command = [program, *data_arguments, "--out", folder, "--seed", str(seed), f"--{kind}", amount]
        with (folder / "log.txt").open("a") as log:
            result = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
        if result.returncode:
            last = (folder / "log.txt").read_text().strip().splitlines()[-1:]
            return None, f"ended with {result.returncode}: {last[0] if last else 'it said nothing'}"
        (folder / "snapshot.safetensors").unlink(missing_ok=True)
    return json.loads(done.read_text()), ""


def fit(program, points):
    """(a, b, error of a, error of b) of y = exp(a) x^b."""
    text = "\n".join(f"{x} {y}" for x, y in points)
    result = subprocess.run([program], input=text, capture_output=True, text=True, check=True)
    return tuple(map(float, result.stdout.split()))


def main():
    parser = argparse.ArgumentParser(prog="study.sh", description=__doc__)
    parser.add_argument("--list", type=Path, default=HERE / "list.hpp", metavar="FILE.hpp")
    parser.add_argument("--budget", default="samples=40000", metavar="samples|flops|minutes=N")
    parser.add_argument("--seeds", type=int, default=2, metavar="K")
    parser.add_argument("--out", type=Path, default=Path("study"), metavar="DIR")
    parser.add_argument("--data", type=Path, metavar="DIR")
    parser.add_argument("--variants", default="", metavar="REGEX")
    parser.add_argument("--family", default="^(base|size_.*)$", metavar="REGEX")
    parser.add_argument("--rounds", type=int, default=8, metavar="N")
    parser.add_argument("--no-times", action="store_true")
    options = parser.parse_args()
    if not re.fullmatch(r"(samples|flops|minutes)=\d+(\.\d+)?(e\d+)?", options.budget):
        parser.error(f"--budget: expected samples=N, flops=N or minutes=N, found {options.budget}")
    if options.seeds < 1:
        parser.error(f"--seeds: expected 1 or more, found {options.seeds}")
    if not options.list.is_file():
        parser.error(f"--list: {options.list} is not a file")
    list_path = options.list.resolve()
    text = list_path.read_text(encoding="utf-8")
    names = [n for n in architectures.variant_names(list_path) if re.search(options.variants, n)]
    if not names:
        parser.error(f"{options.list}: expected constants `inline constexpr td::ClipConfig NAME{{...}};`, found none")
    folder = options.out / "build"
    folder.mkdir(parents=True, exist_ok=True)

    captions = options.data / "captions.tsv" if options.data and (options.data / "captions.tsv").is_file() else options.out / "captions.tsv"
    images = options.data or Path("/usr/share/openclipart/png")
    data_arguments = ["--images", images, "--captions", captions]
    if options.data:
        data_arguments += ["--class-depth", "1", "--class-minimum", "5"]
    else:
        data_arguments += ["--retrieval", options.out / "retrieval.tsv"]

    print(f"compiling {len(names)} variants", file=sys.stderr)
    losses = {name: re.search(rf"\bauto\s+{name}_loss\b", text) is not None for name in names}
    stamp, trials = fingerprint(options, list_path), []
    trial_folders = {(n, seed): options.out / "trials" / f"{n}.{seed}" for n in names for seed in range(options.seeds)}
    unfinished = [n for n in names if not all(is_done(trial_folders[n, seed], stamp) for seed in range(options.seeds))]
    key = architectures.library_key(list_path, HERE / "trial.hpp", HERE.parent / "quickstart/pipeline.hpp")
    common, _ = architectures.compile_common(ROOT / "benchmarks/architectures/variant.hpp", folder, key)
    trial_common = architectures.compile_common(HERE / "trial.hpp", folder, key)[0] if unfinished else []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        built = dict(zip(unfinished, pool.map(lambda n: compile_trial(n, list_path, losses[n], folder, key, trial_common), unfinished)))
        costs = dict(zip(names, pool.map(lambda n: constants(n, list_path, folder, key, common), names)))
    faults = {n: f"does not compile: {fault}" for n, (program, fault) in built.items() if program is None}
    faults |= {n: f"costs: {costs[n][1]}" for n in names if n not in faults and costs[n][0] is None}
    failures = [{"variant": n, "seed": None, "error": fault} for n, fault in faults.items()]
    names = [n for n in names if n not in faults]
    if not names:
        sys.exit("\n".join(["no variant compiles", *(failure["error"] for failure in failures)]))

    for seed in range(options.seeds):
        for name in names:
            print(f"seed {seed}, {name}", file=sys.stderr)
            program, _ = built.get(name, (None, ""))
            result, error = run_trial(program, trial_folders[name, seed], seed, options, data_arguments, stamp)
            if result is None:
                print(f"  failed: {error}", file=sys.stderr)
                failures.append({"variant": name, "seed": seed, "error": error})
            else:
                trials.append({"variant": name} | result)

    variants = {name: costs[name][1] for name in names}
    rows = []
    if not options.no_times and trials:
        print("timing", file=sys.stderr)
        programs = {name: costs[name][0] for name in names}
        times = architectures.measure(programs, options.rounds, lambda _: None)
        rows = architectures.summarise(times, programs, variants, architectures.ceilings(folder))
        for name, program in programs.items():
            variants[name]["training_peak_bytes"] = architectures.ask_once(program, "train f32 32 0", "peak")
    fits = {}
    if trials:
        fit_program = folder / "fit"
        eigen = ["-isystem", "/usr/include/eigen3"]
        subprocess.run(["g++", "-std=c++20", "-O1", *eigen, HERE / "fit.cpp", "-o", fit_program], check=True)
        family = [trial for trial in trials if re.search(options.family, trial["variant"])]
        for measure in ("held_out_loss", "zero_shot_error", "t2i_error"):
            points = study_report.scaling_points(family, measure)
            if len({x for x, _ in points}) >= 2:
                fits[measure] = {"points": points, "fit": fit(fit_program, points)}
    study = {"base": names[0], "budget": options.budget, "seeds": options.seeds, "variants": variants, "trials": trials,
             "failures": failures, "rows": rows, "fits": fits, "list": options.list.name,
             "captions_are_classes": bool(options.data) and captions.parent == options.out}  # fmt: skip
    (options.out / "study.json").write_text(json.dumps(study, indent=1))
    with (options.out / "trials.csv").open("w", newline="") as file:
        fields = ["variant", *(key for key in (trials[0] if trials else {}) if key not in ("variant", "curve"))]
        extra = ["parameters", "image_flops", "text_flops", "training_activation_bytes"]
        writer = csv.writer(file)
        writer.writerow(fields + extra)
        for trial in trials:
            writer.writerow([trial.get(key, "") for key in fields] + [variants[trial["variant"]][key] for key in extra])
    (options.out / "report.html").write_text(study_report.page(study), encoding="utf-8")
    for name, picture in study_report.pictures(study).items():
        (options.out / f"{name}.svg").write_text(picture, encoding="utf-8")
    print(study_report.terminal(study))
    print(f"{options.out}/report.html, trials.csv, study.json")
    return 0 if trials else 1


if __name__ == "__main__":
    sys.exit(main())

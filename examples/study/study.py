"""Trains and compares the variants of a list; study.sh runs it and says how."""

import argparse
import concurrent.futures
import csv
import hashlib
import json
import os
import platform
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


def compile_trial(name, list_path, has_loss, folder, key, common):
    """(program, seconds) of a variant's trials, or (None, the compiler's errors)."""
    loss = f", {name}_loss" if has_loss else ""
    text = (
        f'#include "trial.hpp"\n#include "{list_path}"\n'
        f"int main(int count, char** arguments) {{ return study::main<{name}>(count, arguments{loss}); }}\n"
    )
    return architectures.compile_once(folder / f"trial_{name}", text, key, common)


def constants(name, list_path, folder, key, common):
    """The costs of a variant as constants, by the program of architectures.sh."""
    program, found = architectures.compile_variant(name, list_path, folder, key, common)
    if program is None:
        return None, found
    return program, architectures.ask_once(program, "costs") | {"compile_seconds": found[0], "code_bytes": found[1]}


def digest(*files):
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()[:16]


def processor():
    """What the machine calls its CPU: kernels, and so the last bits of a result, depend on it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def trial_inputs(options, list_path, key, images, captions, data_arguments):
    """What a trial's result depends on beside its variant and seed, by name. Images count by size and time."""
    names = dict.fromkeys(line.split("\t", 1)[0] for line in captions.read_text(encoding="utf-8", errors="surrogateescape").split("\n"))
    files = [(name, (images / name).stat()) for name in names if name and (images / name).is_file()]
    stats = "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in files)
    texts = [Path(path) for option, path in zip(data_arguments, data_arguments[1:]) if option in ("--captions", "--retrieval")]
    return {"list": digest(*architectures.with_includes(list_path)), "budget": options.budget, "captions": digest(*texts),
            "images": f"{len(files)}, {hashlib.sha256(stats.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}",
            "classes": " ".join(str(a) for a in data_arguments if a not in (images, captions) and a not in texts),
            "library and compiler": key[:16], "TANDEM_ISA": os.environ.get("TANDEM_ISA", "(chosen)"), "CPU": processor()}  # fmt: skip


def stamp_of(folder):
    """The inputs of what lies in a trial's folder, or nothing that can be read."""
    try:
        found = json.loads((folder / "stamp").read_text())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def is_done(folder, inputs):
    return (folder / "trial.json").exists() and stamp_of(folder) == inputs


def run_trial(program, folder, seed, options, data_arguments, inputs):
    """The trial's result, or its error. A result, or a snapshot, of the same inputs stands; others are made anew, with a
    line that says what is another."""
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "trial.json"
    if not is_done(folder, inputs):
        before = stamp_of(folder)
        if before != inputs:
            changed = ", ".join(name for name in {**inputs, **before} if inputs.get(name) != before.get(name))
            if any((folder / name).exists() for name in ("trial.json", "snapshot.safetensors")):
                print(f"  trained anew: other than before are {changed}", file=sys.stderr)
            for name in ("trial.json", "snapshot.safetensors", "log.txt"):
                (folder / name).unlink(missing_ok=True)
        (folder / "stamp").write_text(json.dumps(inputs, indent=1))
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


class Once(argparse.Action):
    """An option that may not be given twice: argparse would take the last in silence."""

    def __call__(self, parser, options, value, option_string=None):
        given = vars(options).setdefault("given", set())
        if self.dest in given:
            parser.error(f"argument {option_string}: expected once, found twice")
        given.add(self.dest)
        setattr(options, self.dest, value)


def checked(convert, expected, holds):
    """A type of argparse's: the value, or an error that names what was expected."""

    def read(text):
        try:
            value = convert(text)
            if text and holds(value):
                return value
        except (ValueError, OverflowError, OSError, re.error):
            pass
        raise argparse.ArgumentTypeError(f"expected {expected}, found {text!r}")

    return read


def is_budget(text):
    match = re.fullmatch(r"(samples|flops|minutes)=(\d+(?:\.\d+)?(?:e\d+)?)", text)
    limits = {"samples": 1e15, "flops": 1e24, "minutes": 1e6}
    return match is not None and 0 < float(match[2]) <= limits[match[1]]


def parse():
    parser = argparse.ArgumentParser(prog="study.sh", description=__doc__, allow_abbrev=False)
    count = checked(int, "a whole number from 1 to 1000", lambda n: 1 <= n <= 1000)
    pattern = checked(lambda text: re.compile(text).pattern, "a regular expression", lambda _: True)

    def add(name, **more):
        parser.add_argument(name, action=Once, **more)

    add("--list", type=checked(Path, "a file", Path.is_file), default=HERE / "list.hpp", metavar="FILE.hpp")
    add("--budget", type=checked(str, "samples=N, flops=N or minutes=N", is_budget), default="samples=40000",
        metavar="samples|flops|minutes=N")  # fmt: skip
    add("--seeds", type=count, default=2, metavar="K")
    add("--out", type=checked(Path, "a folder, or a place for one", lambda p: p.is_dir() or not p.exists()), default=Path("study"), metavar="DIR")
    add("--data", type=checked(Path, "a folder", Path.is_dir), metavar="DIR")
    add("--variants", type=pattern, metavar="REGEX", help="(default: all)")
    add("--family", type=pattern, metavar="REGEX", help="(default: ^(base|size_.*)$)")
    add("--rounds", type=count, default=8, metavar="N")
    parser.add_argument("--no-times", action="store_true")
    options = parser.parse_args()
    names = architectures.variant_names(options.list)
    if not names:
        parser.error(f"--list: expected constants `inline constexpr td::ClipConfig NAME{{...}};` in {options.list}, found none")
    for option, regex in (("--variants", options.variants), ("--family", options.family)):
        if regex is not None and not any(re.search(regex, name) for name in names):
            parser.error(f"{option}: expected a pattern that matches one of {', '.join(names)}, found {regex!r}")
    options.variants = options.variants or ""
    options.family = options.family or "^(base|size_.*)$"
    return options


def prepare_captions(options):
    """(images, captions, arguments of a trial). Captions that are not the user's own are made each time: what lies in the
    folder may be of other data."""
    own = options.data / "captions.tsv" if options.data else None
    captions = own if own and own.is_file() else options.out / "captions.tsv"
    images = options.data or Path("/usr/share/openclipart/png")
    tool = ROOT / "examples/quickstart" / ("folders.py" if options.data else "openclipart.py")
    if captions != own:
        command = [sys.executable, tool, *([options.data] if options.data else []), "--out", captions]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"study.sh: no captions could be made for {images}")
    if options.data:
        return images, captions, ["--images", images, "--captions", captions, "--class-depth", "1", "--class-minimum", "5"]
    return images, captions, ["--images", images, "--captions", captions, "--retrieval", options.out / "retrieval.tsv"]


def main():
    options = parse()
    list_path = options.list.resolve()
    text = list_path.read_text(encoding="utf-8")
    names = [n for n in architectures.variant_names(list_path) if re.search(options.variants, n)]
    folder = options.out / "build"
    folder.mkdir(parents=True, exist_ok=True)

    images, captions, data_arguments = prepare_captions(options)
    print(f"compiling {len(names)} variants", file=sys.stderr)
    losses = {name: re.search(rf"\bauto\s+{name}_loss\b", text) is not None for name in names}
    key = architectures.library_key(list_path, HERE / "trial.hpp", HERE.parent / "quickstart/pipeline.hpp", HERE.parent / "quickstart/embed_pictures.hpp",
                                    HERE.parent / "quickstart/preprocess.hpp")
    inputs, trials = trial_inputs(options, list_path, key, images, captions, data_arguments), []
    trial_folders = {(n, seed): options.out / "trials" / f"{n}.{seed}" for n in names for seed in range(options.seeds)}
    unfinished = [n for n in names if not all(is_done(trial_folders[n, seed], inputs) for seed in range(options.seeds))]
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
            result, error = run_trial(program, trial_folders[name, seed], seed, options, data_arguments, inputs)
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

"""The driver of benchmarks/compare.sh: tandem's worker and each peer's in turn, one at a time, on the same work."""

import argparse
import collections
import contextlib
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import compare_models
import numpy
from compare_peers import SETTINGS

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "compare"
FILES = BUILD / "files"  # a folder a model: its formats, the inputs, and the workers' logs


# The rows of other models than ViT-B/32.
OTHERS = {f"image_{model}": model for model in compare_models.MODELS if model != "vit_b_32"}


class Row(collections.namedtuple("Row", "work precision batch")):
    @property
    def model(self):
        return OTHERS.get(self.work, "vit_b_32")

    @property
    def asked(self):
        """The work as workers know it."""
        return "image" if self.work in OTHERS else self.work

    @property
    def kind(self):
        """Which of the peers' SETTINGS apply."""
        kinds = {"train": "train ", "train_padded": "train ", "cold_start": "first ", "memory": "first ",
                 "cold_start_packed": "first ", "memory_of_ten": "first "}
        return kinds.get(self.work, "") + self.precision

    @property
    def of_tandem(self):
        """Which of tandem's settings the row is about."""
        return "tandem, packed" if self.work in ("cold_start_packed", "memory_of_ten") else "tandem"

    @property
    def measured(self):
        return self.work.removesuffix("_packed")


ROWS = [
    *(Row(work, precision, batch) for precision in ("f32", "bf16", "int8")
      for work, batch in (("image", 1), ("image", 8), ("image", 32), ("text", 32), ("text_padded", 32))),
    *(Row(work, precision, 8) for work in OTHERS for precision in ("f32", "bf16", "int8")),
    *(Row(work, precision, 32) for precision in ("f32", "bf16") for work in ("train", "train_padded")),
    *(Row(work, precision, 1) for precision in ("f32", "int8")
      for work in ("cold_start", "cold_start_packed", "memory", "memory_of_ten")),
]

# How far embeddings may be from those of open_clip's eager float32: the largest difference of an element, the least
# cosine. The peers round all they keep to bfloat16, tandem only the inputs of products.
LARGEST_DIFFERENCE = 1e-5
LEAST_COSINE = {("tandem", "bf16"): 0.9999, ("peer", "bf16"): 0.99, ("tandem", "int8"): 0.99, ("peer", "int8"): 0.99}
# Of tandem's loss at the second training step. Cosines that went through bfloat16 are off by a few thousandths, and the
# logits are 14 times that.
LOSS_DIFFERENCE = {"f32": 1e-3, "bf16": 2e-2}

TURN = 400  # milliseconds that a turn of several repeats is to last


class WorkerError(Exception):
    pass


class Worker:
    """A process that does what it is asked to, and is idle otherwise."""

    def __init__(self, name, command, log):
        self.name, self.log = name, log
        with open(log, "w") as errors:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors, "text": True}
            self.process = subprocess.Popen(command, **pipes)
        self.greeting = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            last = (self.log.read_text().strip().splitlines() or ["no message"])[-1]
            raise WorkerError(f"{self.name} ended: {last} (more in {self.log})")
        return line.strip()

    def ask(self, *words):
        with contextlib.suppress(BrokenPipeError):  # answer() says why
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
        return [float(word) for word in self.answer().split()]

    def milliseconds(self, row, begin, repeats):
        return self.ask("time", row.asked, row.batch, begin, repeats)

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


class Comparison:
    def __init__(self, options):
        self.rounds, self.threads = options.rounds, options.threads
        self.results, self.left_out, self.checked, self.loss, self.kernels = [], [], set(), 0.0, ""

    def command(self, setting, kind, model):
        if setting == "tandem":
            program = [BUILD / "benchmarks" / "compare", "amp_bf16" if kind == "train bf16" else kind.split()[-1]]
        else:
            program = [sys.executable, HERE / "compare_peers.py", setting]
        return [str(word) for word in (*program, FILES / model, self.threads)]

    def leave_out(self, what):
        print(f"Left out: {what}", flush=True)
        self.left_out.append(what)

    def open(self, setting, kind, model, stack):
        log = FILES / model / (re.sub(r"\W+", "_", f"{setting} {kind}") + ".log")
        worker = Worker(setting, self.command(setting, kind, model), log)
        stack.callback(worker.close)
        return worker

    def compare_group(self, kind, model, rows):
        """The rows of one model in one precision, inference or training, by workers that live as long."""
        with contextlib.ExitStack() as stack:
            tandem, peers = self.open("tandem", kind, model, stack), []
            self.kernels = tandem.greeting
            print(f"{model} {kind}: tandem's kernels are those for {tandem.greeting}", flush=True)
            for setting in SETTINGS[kind]:
                try:
                    peers.append(self.open(setting, kind, model, stack))
                except WorkerError as error:
                    self.leave_out(error)
            for row in rows:
                self.compare_row(row, tandem, peers)

    def compare_row(self, row, tandem, peers):
        kept = self.screen(row, tandem, peers)
        if not kept:
            self.leave_out(f"{row.work} {row.precision} {row.batch}: no peer")
            return
        # A turn's first run, untimed, brings back what the other processes took from the caches.
        slowest = max(kept.values())
        untimed, repeats = int(slowest < TURN), math.ceil(TURN / slowest)
        times, shares, turns = collections.defaultdict(list), [], list(kept)
        for turn in range(self.rounds):
            begin = turn * repeats
            for worker in turns:
                found = worker.milliseconds(row, begin, untimed + repeats)[untimed:]
                times[worker.name].append(sum(found) / repeats / row.batch)
                if worker is tandem:
                    flops = worker.ask("flops", row.asked, row.batch, begin, untimed + repeats)[untimed:]
                    shares.append(1e-6 * sum(flops) / sum(found) / worker.ask("ceiling")[0])
            turns.append(turns.pop(0))
        self.add(row, {name: statistics.median(found) for name, found in times.items()}, statistics.median(shares))

    def screen(self, row, tandem, peers):
        """tandem and the two peers that may be the fastest, each with its milliseconds; nothing if no peer is left."""
        tried = {}
        for worker in [tandem, *peers]:
            try:
                worker.milliseconds(row, 0, 1)  # warms up, and compiles
                tried[worker] = worker.milliseconds(row, 0, 1)[0]
                self.check(row, worker)
                if tried[worker] < TURN:
                    tried[worker] = min(tried[worker], *worker.milliseconds(row, 0, 2))
            except WorkerError as error:
                if worker is tandem:
                    raise
                self.leave_out(error)
                peers.remove(worker)
        print(f"{row.work} {row.precision} {row.batch}:",
              ", ".join(f"{worker.name} {found / row.batch:.1f}" for worker, found in tried.items()), flush=True)
        best = sorted((worker for worker in tried if worker is not tandem), key=tried.get)[:2]
        best = [worker for worker in best if tried[worker] < 1.2 * tried[best[0]]]
        return {worker: tried[worker] for worker in [tandem, *best]} if best else {}

    def check(self, row, worker):
        """Leaves out a peer that does not compute what open_clip does, and ends the program if tandem does not. Once for each kind of
        work."""
        work = "train" if row.work.startswith("train") else row.asked
        if (worker, work) in self.checked:
            return
        self.checked.add((worker, work))
        side = "tandem" if worker.name == "tandem" else "peer"
        if work == "train":
            # After two steps: the second loss has the first one's gradients and update in it.
            loss = worker.ask("loss")[0]
            if side == "tandem":
                self.loss = loss
            agrees = abs(loss - self.loss) <= LOSS_DIFFERENCE[row.precision] * abs(self.loss)
            text = f"loss {loss:.5f}, tandem's is {self.loss:.5f}"
        else:
            worker.ask("embed", work)
            found, expected = (numpy.fromfile(FILES / row.model / name, numpy.float32).reshape(compare_models.MODELS[row.model][1], -1)
                               for name in ("found", f"{work.split('_')[0]}.reference"))
            if row.precision == "f32":
                distance = abs(found - expected).max()
                agrees = distance <= LARGEST_DIFFERENCE
                text = f"embeddings differ from open_clip's by {distance:.1e}, the bar is {LARGEST_DIFFERENCE}"
            else:
                bar, cosine = LEAST_COSINE[side, row.precision], (found * expected).sum(axis=1).min()
                agrees = cosine >= bar
                text = f"least cosine to open_clip's embeddings is {cosine:.5f}, the bar {bar}"
        if agrees:
            return
        message = f"{worker.name}, {row.work} {row.precision}: {text}"
        if side == "peer":
            raise WorkerError(message)
        sys.exit(f"compare.py: {message}")

    def open_first(self, setting, kind):
        """A fresh process that has its first image embedding."""
        of, what = ("tandem", "packed") if setting == "tandem, packed" else (setting, "first")
        return Worker(setting, [*self.command(of, kind, "vit_b_32"), what], FILES / "first.log")

    def first(self, setting, kind):
        """A fresh process's milliseconds to its first image embedding, and the MB it then had at most."""
        begin = time.perf_counter()
        worker = self.open_first(setting, kind)
        milliseconds = 1e3 * (time.perf_counter() - begin)
        memory = float(worker.answer())
        worker.close()
        return {"cold_start": milliseconds, "memory": memory}

    def memory_of_ten(self, setting, kind):
        """MB of ten such processes at once, each page divided among those that have it (proportional set size)."""
        workers = [self.open_first(setting, kind) for _ in range(10)]
        sizes = [Path(f"/proc/{worker.process.pid}/smaps_rollup").read_text() for worker in workers]
        for worker in workers:
            worker.close()
        return sum(int(re.search(r"^Pss: +(\d+) kB", size, re.MULTILINE)[1]) for size in sizes) / 1024

    def compare_first(self, kind, rows):
        """What a fresh process takes, each after a process that brought its files into the page cache."""
        found, wanted = {}, {row.measured for row in rows}
        for setting in [*sorted({row.of_tandem for row in rows}), *SETTINGS[kind]]:
            try:
                self.first(setting, kind)
                found[setting] = [self.first(setting, kind)]
                if "memory_of_ten" in wanted:
                    found[setting][0]["memory_of_ten"] = self.memory_of_ten(setting, kind)
            except WorkerError as error:
                if setting.startswith("tandem"):
                    raise
                self.leave_out(error)
        for measured in sorted(wanted):
            print(f"{measured} {kind}:", ", ".join(f"{s} {ones[0][measured]:.0f}" for s, ones in found.items()), flush=True)
        # The slow ones need no more turns, and memory hardly varies.
        fastest = min(ones[0]["cold_start"] for setting, ones in found.items() if not setting.startswith("tandem"))
        turns = [setting for setting in found if setting.startswith("tandem") or found[setting][0]["cold_start"] < 1.5 * fastest]
        for setting in turns * (self.rounds - 1):
            found[setting].append(self.first(setting, kind))
        for row in rows:
            medians = {setting: statistics.median(one[row.measured] for one in ones if row.measured in one)
                       for setting, ones in found.items() if setting == row.of_tandem or not setting.startswith("tandem")}
            self.add(row, medians | {"tandem": medians.pop(row.of_tandem)}, None)

    def add(self, row, medians, share):
        value, name = min((value, name) for name, value in medians.items() if name != "tandem")
        self.results.append({
            "work": row.work, "precision": row.precision, "batch": row.batch, "tandem": round(medians["tandem"], 3),
            "best_peer": name, "best_peer_value": round(value, 3), "ratio": round(value / medians["tandem"], 3),
            "ceiling_share": None if share is None else round(share, 3)})

    def print_table(self):
        line = "{:<21} {:<5} {:>5} {:>10} {:>10} {:<3} {:<30} {:>6} {:>8}"
        print(f"\n{machine()}, {self.threads} threads; medians of {self.rounds} rounds")
        print(line.format("work", "", "batch", "tandem", "best peer", "", "", "ratio", "ceiling"))
        for row in self.results:
            share = "" if row["ceiling_share"] is None else f"{100 * row['ceiling_share']:.0f} %"
            values = [f"{row[key]:.2f}" for key in ("tandem", "best_peer_value", "ratio")]
            unit = "MB" if row["work"].startswith("memory") else "ms"
            print(line.format(*list(row.values())[:3], *values[:2], unit, row["best_peer"], values[2], share))
        for what in self.left_out:
            print("left out:", what)


def machine():
    """The CPU by its name, and where that is all of AMD's servers have, by its generation (Linux, arch/x86/kernel/cpu/amd.c)."""
    fields = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE))
    name = fields.get("model name", os.uname().machine)
    family, model = int(fields.get("cpu family", 0)), int(fields.get("model", 0))
    if name == "AMD EPYC":
        is_zen_4, is_zen_5 = 0x10 <= model < 0x20 or 0x60 <= model < 0xB0, model < 0x50 or 0x60 <= model < 0x80
        zen = (4 if is_zen_4 else 3) if family == 25 else 5 if family == 26 and is_zen_5 else None
        name += f" (Zen {zen})" if zen else f" (family {family})"
    return f"{name}, {os.cpu_count()} cores"


def record(comparison):
    """Puts the rows into the file of this kind of CPU in benchmarks/results, beside those that it has of other runs."""
    name = f"{machine()} {comparison.kernels}".replace("(R)", "").replace("(TM)", "")
    path = HERE / "results" / (re.sub(r"\W+", "-", name).lower() + ".json")
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    new = {(row["work"], row["precision"], row["batch"]): row for row in comparison.results}
    rows = [new.pop((row["work"], row["precision"], row["batch"]), row) for row in rows] + list(new.values())
    path.write_text(json.dumps({"machine": machine(), "kernels": comparison.kernels, "rows": rows}, indent=1) + "\n")
    print(f"Recorded in {path.relative_to(HERE.parent)}; benchmarks/results.py README.md puts it into the table there")


def parse():
    parser = argparse.ArgumentParser(prog="compare.sh", description="tandem beside its peers on this CPU: ViT-B/32, and the image towers of two larger models.")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, default=cores, metavar="N", help="of every side (default: all cores)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--record", action="store_true", help="keep the rows in benchmarks/results, a file a kind of CPU")
    parser.add_argument("--precision", choices=("f32", "bf16", "int8"), help="only rows of this one")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each side (default 7)")
    parser.add_argument("--rows", default="", metavar="REGEX", help="only these, as 'image f32 32' or '^text'")
    options = parser.parse_args()
    options.rows = [row for row in ROWS if re.search(options.rows, " ".join(map(str, row)))
                    and options.precision in (None, row.precision)]
    if options.threads < 1 or options.rounds < 1 or not options.rows:
        parser.error("--threads and --rounds need 1 or more, and --rows and --precision a row to match")
    if options.record and options.threads != cores:
        parser.error("--record keeps what all cores do: leave --threads out")
    if options.record and all(row.kind.startswith("first ") for row in options.rows):
        parser.error("--record needs a row of images, captions or training: those say which kernels ran")
    if options.json:
        options.json.touch()
    return options


def build(models):
    settings = ["-DTANDEM_BUILD_TESTS=OFF", "-DTANDEM_BUILD_PROGRAM=OFF", "-DTANDEM_BUILD_EXAMPLES=OFF"]
    subprocess.run(["cmake", "--preset", "release", "-S", HERE.parent, "-B", BUILD, *settings], check=True,
                   stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", BUILD, "--target", "benchmark_compare", "--", "--quiet"], check=True)
    for model in models:
        subprocess.run([sys.executable, HERE / "compare_models.py", FILES / model], check=True)


def compare(options):
    build(dict.fromkeys(row.model for row in options.rows))
    comparison = Comparison(options)
    groups = collections.defaultdict(list)
    for row in options.rows:
        groups[row.kind, row.model].append(row)
    for (kind, model), members in groups.items():
        if kind.startswith("first "):
            comparison.compare_first(kind, members)
        else:
            comparison.compare_group(kind, model, members)
    comparison.print_table()
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": comparison.results}, indent=1) + "\n")
    if options.record:
        record(comparison)


if __name__ == "__main__":
    try:
        compare(parse())
    except (WorkerError, subprocess.CalledProcessError) as error:
        sys.exit(f"compare.py: {error}")

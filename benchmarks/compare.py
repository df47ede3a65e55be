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

import numpy
from compare_peers import SETTINGS

HERE = Path(__file__).resolve().parent


class Row(collections.namedtuple("Row", "work precision batch")):
    @property
    def kind(self):
        """Which of the peers' SETTINGS apply."""
        kinds = {"train": "train ", "train_padded": "train ", "cold_start": "first ", "memory": "first "}
        return kinds.get(self.work, "") + self.precision


ROWS = [
    *(Row(work, precision, batch) for precision in ("f32", "bf16", "int8")
      for work, batch in (("image", 1), ("image", 8), ("image", 32), ("text", 32), ("text_padded", 32))),
    Row("train", "f32", 32), Row("train_padded", "f32", 32),
    Row("cold_start", "f32", 1), Row("memory", "f32", 1), Row("memory", "int8", 1),
]
UNITS = {"cold_start": "ms", "memory": "MB"}  # of the others: ms an item

# How far embeddings may be from those of open_clip's eager float32: the largest difference of an element, the least cosine.
# The peers round all they keep to bfloat16, tandem only the inputs of products.
LARGEST_DIFFERENCE = 1e-5
LEAST_COSINE = {("tandem", "bf16"): 0.9999, ("peer", "bf16"): 0.99, ("tandem", "int8"): 0.99, ("peer", "int8"): 0.99}
LOSS_DIFFERENCE = 1e-3  # of the losses after as many training steps

TURN = 400  # milliseconds that a turn of several repeats is to last


class WorkerError(Exception):
    pass


class Worker:
    """A process that does what it is asked to, and is idle otherwise."""

    def __init__(self, name, command, log):
        self.name, self.log = name, log
        with open(log, "w") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        self.greeting = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            last = (self.log.read_text().strip().splitlines() or ["no message"])[-1]
            raise WorkerError(f"{self.name} ended: {last} (more in {self.log})")
        return line.strip()

    def ask(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return [float(word) for word in self.answer().split()]

    def milliseconds(self, row, begin, repeats):
        return self.ask("time", row.work, row.batch, begin, repeats)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Comparison:
    def __init__(self, options):
        self.options, self.folder, self.threads = options, options.folder, options.threads
        self.results, self.left_out, self.kernels = [], [], ""
        self.checked = set()

    def command(self, setting, precision):
        program = [self.options.program, precision] if setting == "tandem" else [sys.executable, HERE / "compare_peers.py", setting]
        return [*map(str, program), str(self.folder), str(self.threads)]

    def leave_out(self, what):
        print(f"Left out: {what}", flush=True)
        self.left_out.append(what)

    def open(self, setting, precision, stack):
        log = self.folder / (re.sub(r"\W+", "_", f"{setting} {precision}") + ".log")
        worker = Worker(setting, self.command(setting, precision), log)
        stack.callback(worker.close)
        return worker

    def compare_group(self, kind, rows):
        """The rows of one precision, inference or training, by workers that live as long."""
        precision = rows[0].precision
        with contextlib.ExitStack() as stack:
            tandem = self.open("tandem", precision, stack)
            self.kernels = tandem.greeting
            peers = []
            for setting in SETTINGS[kind]:
                try:
                    peers.append(self.open(setting, precision, stack))
                except WorkerError as error:
                    self.leave_out(error)
            for row in rows:
                self.compare_row(row, tandem, peers)

    def compare_row(self, row, tandem, peers):
        screened = self.screen(row, tandem, peers)
        if not screened:
            self.leave_out(f"{row.work} {row.precision} {row.batch}: no peer")
            return
        slowest = max(screened.values())
        # A turn's first run, untimed, brings back what the other processes took from the caches.
        untimed = 1 if slowest < TURN else 0
        repeats = math.ceil(TURN / slowest)
        times, shares = collections.defaultdict(list), []
        turns = list(screened)
        for turn in range(self.options.rounds):
            begin = turn * repeats
            for worker in turns:
                found = worker.milliseconds(row, begin, untimed + repeats)[untimed:]
                times[worker.name].append(sum(found) / len(found) / row.batch)
                if worker is tandem:
                    flops = sum(worker.ask("flops", row.work, row.batch, begin, untimed + repeats)[untimed:])
                    shares.append(flops / sum(found) * 1e-6 / worker.ask("ceiling")[0])
            turns.append(turns.pop(0))
        if row.work.startswith("train"):
            self.check_losses(row, tandem, screened)
        self.add(row, {name: statistics.median(found) for name, found in times.items()}, statistics.median(shares))

    def screen(self, row, tandem, peers):
        """tandem and those of the peers that are about as fast as the fastest of them, each with its shortest time."""
        tandem.milliseconds(row, 0, 1)
        self.check_embeddings(row, tandem)
        fastest, tried = math.inf, {}
        for peer in list(peers):
            try:
                peer.milliseconds(row, 0, 1)  # warms up, and compiles
                self.check_embeddings(row, peer)
                tried[peer] = peer.milliseconds(row, 0, 1)[0]
                if tried[peer] < 1.5 * fastest and not row.work.startswith("train"):
                    tried[peer] = min(tried[peer], *peer.milliseconds(row, 0, 2))
                fastest = min(fastest, tried[peer])
            except WorkerError as error:
                self.leave_out(error)
                peers.remove(peer)
        print(f"{row.work} {row.precision} {row.batch}:", ", ".join(
            f"{peer.name} {found / row.batch:.1f}" for peer, found in tried.items()), flush=True)
        kept = sorted((peer for peer in tried if tried[peer] < 1.2 * fastest), key=tried.get)[:2]
        return {tandem: tandem.milliseconds(row, 0, 1)[0]} | {peer: tried[peer] for peer in kept} if kept else {}

    def check_embeddings(self, row, worker):
        """Once for each worker and kind of work."""
        if row.work.startswith("train") or (worker, row.work) in self.checked:
            return
        self.checked.add((worker, row.work))
        worker.ask("embed", row.work)
        found = numpy.fromfile(self.folder / "found", numpy.float32).reshape(-1, 512)
        expected = numpy.fromfile(self.folder / f"{row.work.split('_')[0]}.reference", numpy.float32).reshape(-1, 512)
        side = "tandem" if worker.name == "tandem" else "peer"
        if row.precision == "f32":
            distance = abs(found - expected).max()
            agrees, text = distance <= LARGEST_DIFFERENCE, f"an element differs by {distance:.1e} (bar {LARGEST_DIFFERENCE})"
        else:
            bar, cosine = LEAST_COSINE[side, row.precision], (found * expected).sum(axis=1).min()
            agrees, text = cosine >= bar, f"least cosine {cosine:.5f} (bar {bar})"
        if not agrees:
            sys.exit(f"compare.py: {worker.name}'s {row.work} embeddings are not open_clip's in {row.precision}: {text}")

    def check_losses(self, row, tandem, screened):
        expected = tandem.ask("loss")[0]
        for worker in screened:
            found = worker.ask("loss")[0]
            if not abs(found - expected) <= LOSS_DIFFERENCE * abs(expected):
                sys.exit(f"compare.py: {row.work}: loss {found} of {worker.name}, {expected} of tandem after as many steps")

    def first(self, setting, precision):
        """Milliseconds from a process's start to its first embedding, and the peak of its memory in MB."""
        log = self.folder / "first.log"
        begin = time.perf_counter()
        with open(log, "w") as errors:
            process = subprocess.Popen([*self.command(setting, precision), "first"], stdout=subprocess.PIPE, stderr=errors)
        process.stdout.readline()
        milliseconds = 1e3 * (time.perf_counter() - begin)
        memory = process.stdout.read()
        if process.wait() != 0:
            raise WorkerError(f"{setting} ended (more in {log})")
        return {"cold_start": milliseconds, "memory": float(memory)}

    def compare_first(self, kind, rows):
        """cold_start and memory: a fresh process for each, after one that brings its files into the page cache."""
        precision, settings = rows[0].precision, ["tandem", *SETTINGS[kind]]
        found = {}
        for setting in settings:
            self.first(setting, precision)
            found[setting] = [self.first(setting, precision)]
        for work in {row.work for row in rows}:
            best = min(found[setting][0][work] for setting in settings[1:])
            print(f"{work} {precision}:", ", ".join(f"{s} {found[s][0][work]:.0f}" for s in settings[1:]), flush=True)
        # Memory hardly varies; the slow ones need no more turns.
        times = {setting: found[setting][0]["cold_start"] for setting in settings}
        fastest = min(times[setting] for setting in settings[1:])
        for _ in range(self.options.rounds - 1):
            for setting in settings:
                if times[setting] < 1.5 * fastest:
                    found[setting].append(self.first(setting, precision))
        for row in rows:
            self.add(row, {s: statistics.median(one[row.work] for one in ones) for s, ones in found.items()}, None)

    def add(self, row, medians, share):
        value, name = min((value, name) for name, value in medians.items() if name != "tandem")
        self.results.append({
            "work": row.work, "precision": row.precision, "batch": row.batch, "tandem": round(medians["tandem"], 3),
            "best_peer": name, "best_peer_value": round(value, 3), "ratio": round(value / medians["tandem"], 3),
            "ceiling_share": None if share is None else round(share, 3)})

    def print_table(self):
        line = "{:<12} {:<5} {:>5} {:>10} {:>10} {:<4} {:<27} {:>6} {:>8}"
        print(f"\n{machine()}, {self.threads} threads, {self.kernels} kernels; medians of {self.options.rounds} rounds")
        print(line.format("work", "", "batch", "tandem", "best peer", "", "", "ratio", "ceiling"))
        for row in self.results:
            share = "" if row["ceiling_share"] is None else f"{100 * row['ceiling_share']:.0f} %"
            print(line.format(row["work"], row["precision"], row["batch"], f"{row['tandem']:.2f}", f"{row['best_peer_value']:.2f}",
                              UNITS.get(row["work"], "ms"), row["best_peer"], f"{row['ratio']:.2f}", share))
        for what in self.left_out:
            print("left out:", what)


def machine():
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{names[0] if names else os.uname().machine}, {os.cpu_count()} cores"


def parse():
    parser = argparse.ArgumentParser(prog="compare.sh", description="tandem beside its peers on this CPU: ViT-B/32.")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="default: all cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there, too")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each side (default 7)")
    parser.add_argument("--rows", default="", metavar="REGEX", help="only these, as 'image f32 32' or '^text'")
    parser.add_argument("--program", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = parse()
    rows = [row for row in ROWS if re.search(options.rows, " ".join(map(str, row)))]
    comparison = Comparison(options)
    groups = collections.defaultdict(list)
    for row in rows:
        groups[row.kind].append(row)
    for kind, members in groups.items():
        compare = comparison.compare_first if kind.startswith("first ") else comparison.compare_group
        compare(kind, members)
    comparison.print_table()
    if any(row.work.startswith("train") for row in rows):
        print("train in bf16: no row, because tandem trains in float32 only")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": comparison.results}, indent=1) + "\n")


if __name__ == "__main__":
    main()

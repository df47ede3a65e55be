"""td::Index beside FAISS' IndexFlatIP; search.sh runs it and says how."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import faiss
import numpy
from safetensors import safe_open

K = 10


def unit(rows):
    return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)


def random_rows(generator, count, width):
    return unit(generator.standard_normal((count, width), dtype=numpy.float32))


def cones(generator, rows, width):
    """Rows around a mean that all share and one of 1,000 centres each; and queries around a mean of their own."""
    mean, other = random_rows(generator, 2, width)
    centres = random_rows(generator, 1000, width)
    kind = generator.integers(0, len(centres), rows)
    data = mean + 0.7 * centres[kind] + 0.6 * random_rows(generator, rows, width)
    wanted = generator.integers(0, len(centres), 64)
    queries = 0.3 * mean + other + 0.35 * centres[wanted] + 0.6 * random_rows(generator, 64, width)
    return unit(data), unit(queries)


class Tandem:
    def __init__(self, program, folder, rows, queries, threads):
        rows.tofile(folder / "rows.f32")
        queries.tofile(folder / "queries.f32")
        self.process = subprocess.Popen([program, folder / "rows.f32", folder / "queries.f32", str(rows.shape[1]), str(threads)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        _, rate, self.kernels = self.read()
        self.rate = float(rate)

    def read(self):
        line = self.process.stdout.readline().split()
        if not line:
            sys.exit("tandem's side ended")
        return line

    def search(self, kind, count, repeats):
        """Seconds, rows scored again a query, positions"""
        self.process.stdin.write(f"{kind} {count} {K} {repeats}\n")
        self.process.stdin.flush()
        seconds, rescored, *found = self.read()
        return float(seconds), float(rescored), numpy.array(found, dtype=numpy.int64).reshape(count, K)


def peer_search(index, queries, repeats):
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        scores, found = index.search(queries, K)
        best = min(best, time.perf_counter() - start)
    return best, scores, found


def brute_force(rows, queries):
    """The positions that scoring every row gives: by the float32 nearest to the sum in double, then by position."""
    found = []
    for first in range(0, len(queries), 500):
        scores = (queries[first : first + 500].astype(numpy.float64) @ rows.T.astype(numpy.float64)).astype(numpy.float32)
        least = numpy.partition(scores, -K, axis=1)[:, -K]
        for row, last in zip(scores, least):
            # Of equal ones at the end there may be many.
            places = numpy.flatnonzero(row >= last)
            found.append(places[numpy.lexsort((places, -row[places]))][:K])
    return numpy.array(found)


def check(arguments):
    """How many exact answers are what scoring all rows gives, for queries of some kinds."""
    generator = numpy.random.default_rng(1)
    width = arguments.width
    count = min(arguments.rows, 100_000)
    kinds = {"random": (random_rows(generator, count, width), random_rows(generator, arguments.check, width))}
    if arguments.embeddings:
        with safe_open(arguments.embeddings, framework="numpy") as file:
            pictures, texts = file.get_tensor("image_embeddings"), file.get_tensor("text_embeddings")
        kinds["pictures and texts of a model"] = (pictures, texts[: arguments.check])
    wrong = 0
    for name, (rows, queries) in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            tandem = Tandem(arguments.program, Path(folder), rows, queries, arguments.threads)
        _, rescored, found = tandem.search("exact", len(queries), 1)
        equal = (found == brute_force(rows, queries)).all(axis=1)
        wrong += (~equal).sum()
        print(f"{name}: {len(rows)} rows of {rows.shape[1]}: {equal.sum()} of {len(queries)} answers are brute force's, in the same order; {rescored:.0f} rows rescored a query", flush=True)
        tandem.process.stdin.close()
        tandem.process.wait()
    return wrong


def approximate(arguments):
    """Graphs beside the exact index: how many of the nearest they find of texts that nothing was chosen by, and how much sooner."""
    with safe_open(arguments.embeddings, framework="numpy") as file:
        pictures, texts = file.get_tensor("image_embeddings"), file.get_tensor("text_embeddings")
    generator = numpy.random.default_rng(2)
    width, asked = pictures.shape[1], min(400, len(texts) // 2)
    rows = numpy.empty((arguments.rows, width), dtype=numpy.float32)
    for first in range(0, arguments.rows, 100_000):  # each picture's own row, and rows about it
        part = numpy.arange(first, min(first + 100_000, arguments.rows))
        noise = arguments.spread * random_rows(generator, len(part), width) * (part >= len(pictures))[:, None]
        rows[part] = unit(pictures[part % len(pictures)] + noise)
    queries = texts[generator.permutation(len(texts))[: 2 * asked]]
    with tempfile.TemporaryDirectory() as folder:
        tandem = Tandem(arguments.program, Path(folder), rows, queries, arguments.threads)
    print(f"{arguments.rows} rows of {width} about {len(pictures)} pictures' (distance {arguments.spread}), k = {K}, {arguments.threads} threads; kernels: {tandem.kernels}")
    tandem.process.stdin.write(f"make {asked} {K} 95\n")
    tandem.process.stdin.flush()
    seconds, breadth = tandem.read()
    print(f"made in {float(seconds):.0f} s; breadth {breadth}, chosen on {len(queries) - asked} texts for 95 %", flush=True)
    _, _, wanted = tandem.search("exact", asked, 1)
    _, rescored, found = tandem.search("graphs", asked, 1)
    score = lambda places: numpy.einsum("qd,qkd->qk", queries[:asked].astype(numpy.float64), rows[places].astype(numpy.float64))
    recall = (score(found) >= score(wanted)[:, -1:]).mean()
    for count in (1, 64):
        times = [[tandem.search(kind, count, 3)[0] for kind in ("exact", "graphs")] for _ in range(arguments.rounds)]
        exact, graphs = numpy.median(times, axis=0)
        print(f"{count} at once: exact {1e3 * exact:.1f} ms, graphs {1e3 * graphs:.2f} ms, ratio {exact / graphs:.1f}", flush=True)
    print(f"recall@{K} of {asked} held-out texts: {recall:.4f}; {rescored:.0f} rows scored a query")
    tandem.process.stdin.close()
    tandem.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(";")[0])
    parser.add_argument("program")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--check", type=int, metavar="N", help="instead: compare the answers to N queries with brute force")
    parser.add_argument("--approximate", action="store_true", help="instead: graphs over rows about those of --embeddings, asked its texts")
    parser.add_argument("--spread", type=float, default=0.5, help="for --approximate: how far rows are from the picture that they are about")
    parser.add_argument("--embeddings", type=Path, metavar="FILE", help="for --check, beside random ones, and --approximate: what tandem embed wrote of pictures and texts")
    arguments = parser.parse_args()
    if arguments.check:
        return 1 if check(arguments) else 0
    if arguments.approximate:
        if not arguments.embeddings:
            parser.error("--approximate needs --embeddings")
        return approximate(arguments)
    faiss.omp_set_num_threads(arguments.threads)
    generator = numpy.random.default_rng(0)
    print(f"{arguments.rows} rows of {arguments.width}, k = {K}, {arguments.threads} threads")
    print(f"{'rows':8}{'search':8}{'queries':>8}{'tandem ms':>11}{'FAISS ms':>10}{'ratio':>7}{'GB/s':>7}{'ceiling':>9}{'share':>7}"
          f"{'rescored':>10}{'recall@10':>11}")
    for name in ("random", "cones"):
        if name == "random":
            rows = random_rows(generator, arguments.rows, arguments.width)
            queries = random_rows(generator, 64, arguments.width)
        else:
            rows, queries = cones(generator, arguments.rows, arguments.width)
        index = faiss.IndexFlatIP(arguments.width)
        index.add(rows)
        with tempfile.TemporaryDirectory() as folder:
            tandem = Tandem(arguments.program, Path(folder), rows, queries, arguments.threads)
        for kind, count in (("exact", 1), ("fast", 1), ("exact", 64), ("fast", 64)):
            ours, theirs = [], []
            for _ in range(arguments.rounds):
                seconds, rescored, found = tandem.search(kind, count, 3)
                ours.append(seconds)
                seconds, scores, wanted = peer_search(index, queries[:count], 3 if count == 1 else 1)
                theirs.append(seconds)
            # Where FAISS' own float32 sums call two rows equal or nearly so, either may stand before the other.
            products = numpy.einsum("qd,qkd->qk", queries[:count].astype(numpy.float64), rows[found].astype(numpy.float64))
            hits = products >= scores[:, -1:] - 1e-6
            a, b = statistics.median(ours), statistics.median(theirs)
            rate = 1e-9 * arguments.rows * arguments.width / a
            share = f"{rate / tandem.rate:7.2f}" if count == 1 else f"{'':7}"
            print(f"{name:8}{kind:8}{count:8}{1e3 * a:11.1f}{1e3 * b:10.1f}{b / a:7.2f}{rate:7.1f}{tandem.rate:9.1f}{share}"
                  f"{rescored:10.0f}{hits.mean():11.4f}", flush=True)
            if kind == "exact" and not hits.all():
                sys.exit("an exact answer differs from FAISS'")
        print(f"kernels: {tandem.kernels}", file=sys.stderr)
        tandem.process.stdin.close()
        tandem.process.wait()


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Pictures to embeddings, end to end: tandem embed beside open_clip with a DataLoader, in turn, in one run.

    benchmarks/embed.sh [--model NAME] [--pictures N] [--rounds N] [--threads N]

Both start as processes of their own, load the same model of open_clip's name (ViT-B-32), decode and preprocess the same JPEGs and write the same rows,
whose largest difference is printed. Time is from start to end; memory is the most that a process and its workers held at
once (proportional set size, every 50 ms). The peer runs with one and with two workers; its better figure counts.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent


def tree(pid):
    """A process and its children."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in task.read_text().split():
                found += tree(int(child))
        except OSError:
            pass
    return found


def held(pid):
    """Bytes of the tree below a process, pages that several share counted once."""
    total = 0
    for process in tree(pid):
        try:
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += 1024 * int(line.split()[1])
        except OSError:
            pass
    return total


def measure(command):
    """(seconds, peak bytes) of a command"""
    begin, peak = time.monotonic(), 0
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while process.poll() is None:
        peak = max(peak, held(process.pid))
        time.sleep(0.05)
    if process.returncode != 0:
        sys.exit(process.stderr.read().decode())
    return time.monotonic() - begin, peak


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="ViT-B-32", metavar="NAME")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--program", type=Path, default=HERE.parent / "build/user/examples/tandem/tandem")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights, images = folder / "weights", folder / "images"
        weights.mkdir()
        images.mkdir()
        torch.manual_seed(0)
        random.seed(0)
        model = open_clip.create_model(options.model, load_weights=False)
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, weights / "open_clip_model.safetensors")
        (weights / "open_clip_config.json").write_text(json.dumps({"model_cfg": open_clip.get_model_config(options.model), "preprocess_cfg": {}}))
        del model
        for i in range(options.pictures):
            coarse = [Image.effect_noise((63, 47), 80) for _ in range(3)]
            Image.merge("RGB", [c.resize((500, 375), Image.Resampling.BICUBIC) for c in coarse]).save(images / f"{i:05}.jpg", quality=90)
        ours, theirs = folder / "tandem.npy", folder / "open_clip.npy"
        shared = ["--weights", weights, "--images", images, "--threads", str(options.threads)]
        commands = {"tandem": [options.program, "embed", *shared, "--out", ours]}
        for workers in (1, 2):
            commands[f"open_clip, {workers} workers"] = [sys.executable, HERE / "embed_peer.py", "--model", options.model, *shared, "--out", theirs, "--workers", str(workers)]
        seconds, memory = {name: [] for name in commands}, {name: 0 for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                took, peak = measure(command)
                seconds[name].append(took)
                memory[name] = max(memory[name], peak)
        difference = numpy.abs(numpy.load(ours) - numpy.load(theirs)).max()
        print(f"{options.pictures} JPEGs of 500 x 375, {options.model}, float32, {options.threads} threads, {options.rounds} rounds in turn")
        for name in commands:
            median = statistics.median(seconds[name])
            print(f"  {name:22} {median:7.2f} s  {options.pictures / median:7.1f} pictures/s  {memory[name] / 2**20:7.0f} MiB")
        peer = min(statistics.median(seconds[name]) for name in commands if name != "tandem")
        least = min(memory[name] for name in commands if name != "tandem")
        print(f"  ratio of time {peer / statistics.median(seconds['tandem']):.2f}, of memory {memory['tandem'] / least:.2f}; largest difference {difference:.1e}")


if __name__ == "__main__":
    main()

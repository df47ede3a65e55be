#!/usr/bin/env python3
"""Runs the quickstart's program on a small folder of its own making, kills it, resumes it, and compares.

    check.py PROGRAM
"""

import hashlib
import json
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220)}


def png(width: int, height: int, pixel) -> bytes:
    rows = b"".join(b"\0" + bytes(v for x in range(width) for v in pixel(x, y)) for y in range(height))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def make_colours(folder: Path) -> None:
    """180 noisy pictures of three colours, each in a folder of its colour's name, which is the caption as well."""
    draw = random.Random(1)
    lines = []
    for colour, (red, green, blue) in COLOURS.items():
        (folder / colour).mkdir(parents=True)
        for i in range(60):
            noise = [draw.randrange(-20, 20) for _ in range(97)]
            data = png(40, 30, lambda x, y: [max(0, min(255, c + noise[(x + 7 * y) % 97])) for c in (red, green, blue)])
            (folder / colour / f"{i}.png").write_bytes(data)
            lines.append(f"{colour}/{i}.png\t{colour}\n")
    (folder / "captions.tsv").write_text("".join(lines))


def main() -> int:
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_colours(folder)

        def command(out: str, *more: str) -> list[str]:
            return [program, "--images", name, "--captions", str(folder / "captions.tsv"), "--class-depth", "1",
                    "--out", str(folder / out), "--steps", "12", *more]

        whole = subprocess.run(command("whole"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(whole.stdout)
        if whole.returncode != 0:
            return 1
        killed = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        subprocess.run(command("killed", "--resume"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        digests = {out: hashlib.sha256((folder / out / "model.safetensors").read_bytes()).hexdigest()
                   for out in ("whole", "killed")}
        metrics = json.loads((folder / "whole" / "metrics.json").read_text())
        report = (folder / "whole" / "report.html").read_text()
        faults = []
        if digests["whole"] != digests["killed"]:
            faults.append("the resumed run's weights differ")
        wanted = {"zero_shot_top1", "zero_shot_macro", "t2i_r1", "t2i_r10", "i2t_r1", "i2t_r10", "majority", "classes",
                  "test_pairs", "samples_seen", "train_seconds", "parameters"}
        if missing := wanted - metrics.keys():
            faults.append(f"metrics.json lacks {sorted(missing)}")
        if metrics["classes"] != 3 or metrics["train_pairs"] + metrics["test_pairs"] != 180:
            faults.append(f"expected 3 classes and 180 pairs, found {metrics['classes']}, "
                          f"{metrics['train_pairs']} + {metrics['test_pairs']}")
        if "<script" in report or "http://" in report.replace("http://www.w3.org", "") or "https://" in report:
            faults.append("report.html is not self-contained")
        if report.count("data:image/png;base64,") < 20:
            faults.append("report.html shows no pictures")
        wrong = subprocess.run([program, "--images", name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if wrong.returncode != 1 or "expected --images and --captions" not in wrong.stdout:
            faults.append(f"missing options give: {wrong.stdout!r}")
        print("\n".join(faults))
        return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

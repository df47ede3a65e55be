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


# What is no value of most options: only --out takes the last three, and makes folders of those names.
WRONG = ("", "/dev/null", "-1", "x", "1e99", "nan", "/")


def run(command: list[str], **more) -> subprocess.CompletedProcess:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, **more)


def check_options(command: list[str]) -> list[str]:
    """What is wrong with a program's answers when an option is given a wrong value, none, or two."""
    faults = []
    for at in range(1, len(command), 2):
        option, value = command[at: at + 2]
        wrong = WRONG[:2] if option == "--out" else WRONG[:6] if option == "--images" else WRONG
        for arguments in ([*command[:at], option, bad, *command[at + 2:]] for bad in wrong):
            result = run(arguments)
            if result.returncode != 1 or option not in result.stdout:
                faults.append(f"{arguments[at: at + 2]} gives {result.returncode}: {result.stdout!r}")
        for arguments, said in (([*command, option, value], f"{option}: expected this option once"), ([*command, option], f"{option}: expected")):
            result = run(arguments)
            if result.returncode != 1 or said not in result.stdout:
                faults.append(f"{arguments[-2:]} gives {result.returncode}: {result.stdout!r}")
    return faults


def check_refusals(command, folder: Path) -> list[str]:
    """What is wrong with the answers of a run that is to go on from the snapshot in folder/killed with something else."""
    faults = []
    snapshot, captions = folder / "killed/snapshot.safetensors", folder / "captions.tsv"
    before = snapshot.read_bytes()

    def expect(name: str, **change: str) -> None:
        result = run(command("killed", "--resume", **change))
        if result.returncode != 1 or f"snapshot.safetensors: expected {name}" not in result.stdout:
            faults.append(f"{name}: expected a refusal that names it, found {result.returncode}: {result.stdout!r}")
        if snapshot.read_bytes() != before:
            faults.append(f"{name}: a refused run has written its snapshot")

    def with_file(path: Path, content: bytes, name: str) -> None:
        kept = path.read_bytes()
        path.write_bytes(content)
        expect(name)
        path.write_bytes(kept)

    expect("steps 12, as", steps="13")
    expect("steps 12, seconds 0, as", minutes="1", steps="")
    expect("seed 0, as", seed="1")
    lines = captions.read_bytes().splitlines(keepends=True)
    with_file(captions, captions.read_bytes().replace(b"\tred\n", b"\tcrimson\n"), "data: captions ")
    with_file(captions, b"".join(lines[10:]), "data: captions ")
    trained = next(name for name in (line.split(b"\t")[0].decode() for line in lines) if zlib.crc32(name[:-4].encode()) % 5)
    with_file(folder / trained, png(40, 30, lambda x, y: (1, 2, 3)), "data: images ")
    return faults


def main() -> int:
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_colours(folder)

        def command(out: str, *more: str, **change: str) -> list[str]:
            options = {"images": name, "captions": str(folder / "captions.tsv"), "class-depth": "1", "out": str(folder / out),
                       "steps": "12", **change}
            return [program, *(word for option, value in options.items() if value for word in (f"--{option}", value)), *more]

        whole = run(command("whole"))
        print(whole.stdout)
        if whole.returncode != 0:
            return 1
        killed = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # It has a snapshot before its first step.
        while not (folder / "killed/snapshot.safetensors").exists() and killed.poll() is None:
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        faults = check_refusals(command, folder)
        subprocess.run(command("killed", "--resume"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        digests = {out: hashlib.sha256((folder / out / "model.safetensors").read_bytes()).hexdigest()
                   for out in ("whole", "killed")}
        metrics = json.loads((folder / "whole" / "metrics.json").read_text())
        report = (folder / "whole" / "report.html").read_text()
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
        (folder / "retrieval.tsv").write_text("".join(f"{c}/{i}.png\t{c}\n" for c in COLOURS for i in range(60)))
        faults += check_options(command("options", retrieval=str(folder / "retrieval.tsv"), seed="0", **{"class-minimum": "5"}))
        faults += check_options([*command("options", minutes="1", steps="")])
        (folder / "broken.tsv").write_text("".join(f"{c}/{i}.gif\tnone\n" for c in COLOURS for i in range(60)))
        unreadable = run(command("options", captions=str(folder / "broken.tsv")))
        if unreadable.returncode != 1 or "expected at least 2 readable pairs" not in unreadable.stdout:
            faults.append(f"a folder without a picture gives {unreadable.returncode}: {unreadable.stdout!r}")
        # The script says so before it installs or builds anything.
        script = str(Path(__file__).resolve().parents[2] / "examples/quickstart.sh")
        for option in ("--out", "--data", "--minutes", "--steps", "--seed"):
            wrong = ("", "/dev/null") if option == "--out" else ("", "/dev/null", "-1", "x", "1e99", "nan")
            for arguments in (*([option, value] for value in wrong), [option], ["--resume", "--resume"], ["--x"]):
                result = run(["bash", script, *arguments])
                if result.returncode != 2 or arguments[0] not in result.stdout:
                    faults.append(f"quickstart.sh {arguments} gives {result.returncode}: {result.stdout!r}")
        wrong = run([program, "--images", name])
        if wrong.returncode != 1 or "expected --images and --captions" not in wrong.stdout:
            faults.append(f"missing options give: {wrong.stdout!r}")
        print("\n".join(faults))
        return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

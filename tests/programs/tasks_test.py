#!/usr/bin/env python3
"""tandem segment, ask, attention --rollout, draw, condition and curate on a small model and pictures made here.

usage: tasks_test.py --program FILE
"""

import argparse
import io
import json
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
import unittest
import xml.etree.ElementTree
import zlib
from pathlib import Path

from program_case import ProgramCase
from programs_test import png
from small_model import picture, write_model


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def drawing(number, side=80):
    """A disc of some colour on transparent ground."""
    colour = bytes(((number * 97) % 200, (number * 57) % 200, (number * 31) % 200))
    inside = lambda x, y: (x - side / 2) ** 2 + (y - side / 2) ** 2 < (side / 2.5) ** 2
    rows = b"".join(b"\0" + b"".join(colour + (b"\xff" if inside(x, y) else b"\0") for x in range(side)) for y in range(side))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def pixels(data):
    """Width, height and the rows of an RGB PNG as the program writes them."""
    width, height = struct.unpack(">II", data[16:24])
    body, at = b"", 8
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body += data[at + 8:at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
    raw, stride, rows, before = zlib.decompress(body), 3 * width, [], bytes(3 * width)
    for y in range(height):
        kind, line = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for i in range(stride):
            left, up, corner = line[i - 3] if i >= 3 else 0, before[i], before[i - 3] if i >= 3 else 0
            guess = left + up - corner
            near = min((left, up, corner), key=lambda value: abs(guess - value))
            line[i] = (line[i] + (0, left, up, (left + up) // 2, near)[kind]) % 256
        rows.append(bytes(line))
        before = bytes(line)
    return width, height, rows


def enlarged(data, times):
    width, height, rows = pixels(data)
    wide = [b"".join(row[3 * x:3 * x + 3] * times for x in range(width)) for row in rows]
    return png(width * times, height * times, b"".join((b"\0" + row) * times for row in wide))


class Pictures(ProgramCase):
    def setUp(self):
        (self.folder / "picture.png").write_bytes(picture(3, side=120))

    def test_every_pixel_is_counted(self):
        masks = self.folder / "masks"
        found = json.loads(self.run_program("segment", "--image", "picture.png", "--phrases", "a dog,a cat, snow", "--out", "out.png", "--masks", masks,
                                            "--windows", 3, "--json").stdout)
        self.assertEqual([part["phrase"] for part in found["phrases"]], ["a dog", "a cat", "snow"])
        self.assertAlmostEqual(sum(part["share"] for part in found["phrases"]) + found["background"], 1)
        self.assertEqual(pixels((self.folder / "out.png").read_bytes())[:2], (120, 120))
        for label, part in enumerate(found["phrases"]):
            width, height, rows = pixels((masks / f"{label}.png").read_bytes())
            white = sum(row.count(255) for row in rows) / 3
            self.assertAlmostEqual(white / (width * height), part["share"])

    def test_without_a_background_every_pixel_has_a_phrase(self):
        for features in ("plain", "mask_clip", "sclip", "clear_clip"):
            table = self.run_program("segment", "--image", "picture.png", "--phrases", "a dog,a cat", "--out", "out.png", "--background", "none",
                                     "--features", features).stdout.splitlines()
            self.assertEqual(len(table), 3)
            self.assertEqual(table[2], "  0.0 %  none of them")
        sure = self.run_program("segment", "--image", "picture.png", "--phrases", "a dog,a cat", "--out", "out.png", "--background", "none", "--least", 1)
        self.assertIn("100.0 %  none of them", sure.stdout)

    def test_wrong_use_of_segment(self):
        for arguments, message in ((["--phrases", "a dog", "--out", "x.jpg"], "a name that ends in .png"),
                                   (["--phrases", "a dog", "--background", "none", "--out", "x.png"], "two phrases or more, or a background"),
                                   (["--phrases", "a,a", "--out", "x.png"], "every phrase once"),
                                   (["--phrases", "a", "--out", "x.png", "--features", "none"], "--features"),
                                   (["--phrases", "a", "--out", "picture.png"], "another file than what is read"),
                                   (["--phrases", "a", "--out", "x.png", "--masks", "."], "another folder than that of --out"),
                                   (["--phrases", "a", "--out", "nowhere/x.png"], "nowhere")):  # fmt: skip
            result = subprocess.run([self.program, "segment", "--image", "picture.png", *arguments], capture_output=True, text=True, cwd=self.folder)
            self.assertIn(result.returncode, (1, 2))
            self.assertIn(message, result.stderr)
            self.assertFalse((self.folder / "x.png").exists())

    def test_scenes_are_measured(self):
        lines = []
        for number in range(8):
            (self.folder / f"drawing{number}.png").write_bytes(drawing(number))
            lines.append(f"drawing{number}.png\tthing {number}")
        (self.folder / "solid.png").write_bytes(picture(1))  # no transparent ground
        (self.folder / "drawings.tsv").write_text("\n".join(lines + ["solid.png\tsolid", "missing.png\tmissing"]) + "\n")
        result = self.run_program("segment", "--report", "drawings.tsv", "--scenes", 10)
        self.assertIn("2 drawings passed over", result.stderr)
        self.assertIn("of 8 labels", result.stdout)
        for name in ("plain", "mask_clip", "sclip", "clear_clip"):
            line = next(line for line in result.stdout.splitlines() if line.startswith(name + " "))
            self.assertTrue(0 <= float(line.split()[1]) <= 1)
        self.assertEqual(result.stdout, self.run_program("segment", "--report", "drawings.tsv", "--scenes", 10).stdout)
        self.assertNotEqual(result.stdout, self.run_program("segment", "--report", "drawings.tsv", "--scenes", 10, "--seed", 1).stdout)
        asked = self.run_program("ask", "--report", "drawings.tsv", "--scenes", 20).stdout
        self.assertEqual(len(asked.splitlines()), 6)
        (self.folder / "few.tsv").write_text("\n".join(lines[:3]) + "\n")
        self.assertIn("drawings of four labels or more, found 3", self.run_program("ask", "--report", "few.tsv", code=1).stderr)

    def test_answers_are_probabilities(self):
        found = json.loads(self.run_program("ask", "--image", "picture.png", "--question", "What colour is the car?", "--top", 20, "--json").stdout)
        self.assertEqual(found["kind"], "colour")
        self.assertAlmostEqual(sum(answer["probability"] for answer in found["answers"]), 1)
        shares = [answer["probability"] for answer in found["answers"]]
        self.assertEqual(shares, sorted(shares, reverse=True))
        self.assertIn("trust no such answer", self.run_program("ask", "--image", "picture.png", "--question", "How many dogs are there?").stderr)
        few = self.run_program("ask", "--image", "picture.png", "--question", "What is this?", "--answers", "dog,cat").stdout
        self.assertIn("a picture of a dog", few)
        (self.folder / "others").mkdir(exist_ok=True)
        for i in range(3):
            (self.folder / "others" / f"{i}.png").write_bytes(picture(i))
        (self.folder / "others" / "torn.png").write_bytes(picture(1)[:80])
        fair = self.run_program("ask", "--image", "picture.png", "--question", "What is this?", "--answers", "dog,cat", "--others", "others")
        self.assertIn("1 pictures of others cannot be read", fair.stderr)
        self.assertNotEqual(few, fair.stdout)
        self.assertIn("answers to choose from", self.run_program("ask", "--image", "picture.png", "--question", "What is this?", code=1).stderr)

    def test_rollout(self):
        self.assertIn("6 x 6 patches", self.run_program("attention", "--image", "picture.png", "--rollout", "--out", "map.png").stdout)
        self.assertIn("neither --text nor --layer", self.run_program("attention", "--image", "picture.png", "--rollout", "--layer", 1, "--out", "map.png", code=2).stderr)


class Drawing(ProgramCase):
    """A model of random weights sees what it likes; what is asked here is that drawing goes where it is led."""

    def draw(self, *arguments, code=0):
        return self.run_program("draw", *arguments, code=code)

    def test_a_drawing_gets_nearer(self):
        found = self.draw("a", "red", "rose", "--out", "rose.svg", "--strokes", 12, "--steps", 40, "--views", 2).stdout
        self.assertIn("rose.svg: 12 strokes", found)
        svg = (self.folder / "rose.svg").read_text()
        self.assertEqual(svg.count("<path"), 12)
        history = xml.etree.ElementTree.fromstring((self.folder / "rose.history.svg").read_text())
        values = [float(text.text.split(": ")[1]) for text in history.iter("{http://www.w3.org/2000/svg}text")]
        self.assertGreaterEqual(len(values), 8)
        self.assertGreater(values[-1], values[0])
        self.draw("a red rose", "--out", "again.svg", "--strokes", 12, "--steps", 40, "--views", 2)
        self.assertEqual((self.folder / "again.svg").read_text(), svg)
        self.draw("a red rose", "--out", "again.svg", "--strokes", 12, "--steps", 40, "--views", 2, "--seed", 1)
        self.assertNotEqual((self.folder / "again.svg").read_text(), svg)

    def test_a_picture_is_changed_within_its_bound(self):
        (self.folder / "wide.png").write_bytes(enlarged(picture(5, side=40), 2))
        found = self.draw("snow", "--image", "wide.png", "--change", 6, "--steps", 30, "--views", 2, "--out", "snow.png").stdout
        after, before = map(float, re.search(r"cosine (-?[\d.]+), was (-?[\d.]+); no level changed by more than 6", found).groups())
        self.assertGreater(after, before)
        (width, height, old), (_, _, new) = pixels((self.folder / "wide.png").read_bytes()), pixels((self.folder / "snow.png").read_bytes())
        self.assertEqual((width, height), (80, 80))
        self.assertEqual(max(abs(a - b) for one, other in zip(old, new) for a, b in zip(one, other)), 6)

    def test_judges(self):
        write_model(self.folder / "judge", rotated=1)
        report = self.draw("--report", "a dog,a tree,a car", "--judge", "judge", "--strokes", 6, "--steps", 8, "--views", 2).stdout
        self.assertEqual([line[:18].strip() for line in report.splitlines()[2:]], ["random strokes", "guided, one view", "guided, many views"])
        self.assertIn("judge: cosine", self.draw("a dog", "--out", "dog.svg", "--steps", 3, "--judge", "judge").stdout)
        self.assertIn("another model", self.draw("--report", "a,b", "--judge", "quickstart", code=2).stderr)

    def test_wrong_use_of_draw(self):
        for arguments, message in ((["--out", "x.svg"], "what is to be drawn"), (["dog", "--out", "x.png"], "ends in .svg"),
                                   (["dog", "--out", "x.svg", "--change", "3"], "--image beside it"), (["dog", "--out", "x.svg", "--steps", "0"], "from 1 to"),
                                   (["dog", "--out", "x.svg", "--one-view", "--views", "3"], "no --views")):  # fmt: skip
            self.assertIn(message, self.draw(*arguments, code=2).stderr)
        self.assertIn("picture.gone", self.draw("dog", "--image", "picture.gone", "--out", "x.png", code=1).stderr)
        self.assertFalse(list(self.folder.glob("x.*")))


class Conditioning(ProgramCase):
    """At real sizes tests/parity/conditioning.py compares what is written."""

    def test_wrong_use(self):
        (self.folder / "pipeline").mkdir()
        for arguments, code, message in ((["xl", "--out", "x.safetensors"], 2, "sd, sdxl, unclip or llava"),
                                         (["sd", "--prompt", "a dog", "--out", "x.npy"], 2, "ends in .safetensors"),
                                         (["sd", "--prompt", "a dog", "--image", "x.png", "--out", "x.safetensors"], 2, "it with unclip or llava"),
                                         (["llava", "--prompt", "a dog", "--out", "x.safetensors"], 2, "it with sd or sdxl"),
                                         (["sd", "--weights", "quickstart", "--prompt", "a", "--out", "x.safetensors"], 2, "it with llava"),
                                         (["sd", "--pipeline", "pipeline", "--prompt", "a", "--out", "x.safetensors"], 1, "the folder text_encoder of a pipeline"),
                                         (["llava", "--weights", "quickstart", "--image", "missing.png", "--out", "x.safetensors"], 1, "missing.png")):  # fmt: skip
            self.assertIn(message, self.run_program("condition", *arguments, code=code).stderr)
        self.assertFalse((self.folder / "x.safetensors").exists())

    def test_patches_of_any_tower(self):
        (self.folder / "picture.png").write_bytes(picture(3, side=120))
        found = self.run_program("condition", "llava", "--weights", "quickstart", "--image", "picture.png", "--layer", -1, "--out", "x.safetensors").stdout
        self.assertEqual(found, "image_features: 1 x 36 x 128\n")
        (self.folder / "x.safetensors").unlink()


class Curation(ProgramCase):
    def setUp(self):
        for file in self.folder.glob("*.t*"):
            file.unlink()
        shutil.rmtree(self.folder / "kept", ignore_errors=True)

    def lines(self, name):
        return [line.split("\t") for line in (self.folder / name).read_text().splitlines()]

    def test_a_catalogue(self):
        pictures = self.folder / "pictures"
        pictures.mkdir()
        for i in range(12):
            (pictures / f"{i}.png").write_bytes(picture(i, side=64))
        (pictures / "large.png").write_bytes(enlarged(picture(4, side=64), 3))
        (pictures / "twin.png").write_bytes(picture(7, side=64))
        self.run_program("index", pictures, "--database", "c.db")
        self.assertEqual(self.run_program("curate", "--database", "c.db", "--out", "kept.txt").stdout, "12 of 14 stay\n2 same\n")
        gone = {Path(name).name: (kind, Path(like).name) for name, kind, like in self.lines("kept.txt.gone.tsv")}
        self.assertEqual(gone, {"4.png": ("same", "large.png"), "twin.png": ("same", "7.png")})
        kept = [Path(name).name for (name,) in self.lines("kept.txt")]
        self.assertEqual(len(kept), 12)
        self.assertIn("large.png", kept)
        self.assertEqual(len(list(pictures.iterdir())), 14)  # nothing is touched
        (pictures / "twin.png").unlink()
        after = self.run_program("curate", "--database", "c.db", "--out", "kept.txt")
        self.assertIn("twin.png: it is no longer there", after.stderr)
        self.assertEqual(after.stdout, "12 of 14 stay\n1 same\n1 unreadable\n")
        (pictures / "twin.png").write_bytes(picture(7, side=64))
        self.assertIn("another file than what is read", self.run_program("curate", "--database", "c.db", "--out", "c.db", code=2).stderr)
        alike = self.run_program("curate", "--database", "c.db", "--out", "kept.txt", "--keep-same", "--alike", 0).stdout
        stays, goes = int(alike.split()[0]), int(alike.splitlines()[1].split()[0])
        self.assertEqual(stays + goes, 14)
        self.assertLess(stays, 12)
        self.assertIn("14 caption", self.run_program("curate", "--database", "c.db", "--out", "kept.txt", "--keep-same", "--caption-least", "0.1").stdout)
        report = self.run_program("curate", "--database", "c.db", "--report", 10).stdout
        self.assertEqual(next(line for line in report.splitlines() if line.startswith("JPEG of quality 90")).split()[4], "100.0")

    def write_shards(self):
        """Two shards by Python's tarfile in formats of their own, with what is wrong in some samples."""
        samples = [(f"{i:03}", {"jpg.png": None, "png": picture(i % 30, side=64), "txt": f"caption {i}".encode()}) for i in range(40)]
        samples.append(("long/" + "n" * 150 + "/x", {"png": picture(50), "txt": b"a long name"}))
        samples.append(("torn", {"png": picture(51)[:200], "txt": b"torn"}))
        samples.append(("alone", {"txt": b"without a picture"}))
        samples.append(("silent", {"png": picture(52)}))
        for name, part, form in (("a.tar", samples[:20], tarfile.GNU_FORMAT), ("b.tar", samples[20:], tarfile.PAX_FORMAT)):
            with tarfile.open(self.folder / name, "w", format=form) as archive:
                for key, files in part:
                    for ending, data in files.items():
                        if data is None:
                            continue
                        member = tarfile.TarInfo(f"{key}.{ending}")
                        member.size = len(data)
                        archive.addfile(member, io.BytesIO(data))

    def test_shards(self):
        self.write_shards()
        result = self.run_program("curate", "a.tar", "b.tar", "--out", "kept.txt", "--shards", "kept", "--shard-size", 12)
        self.assertIn("left out: b.tar/torn: ", result.stderr)
        self.assertIn("left out: b.tar/alone: no picture", result.stderr)
        # Pictures 0 to 9 come again as 30 to 39.
        self.assertEqual(result.stdout, "32 of 44 stay\n10 same\n2 unreadable\n")
        gone = {name: rest for name, *rest in self.lines("kept.txt.gone.tsv")}
        self.assertEqual(gone["b.tar/035"], ["same", "a.tar/005"])
        self.assertEqual(gone["b.tar/alone"][:1], ["unreadable"])
        self.assertIn("no picture", gone["b.tar/alone"][1])
        names = dict(self.lines("kept.txt"))
        self.assertEqual(sorted(path.name for path in (self.folder / "kept").iterdir()), ["00000.tar", "00001.tar", "00002.tar"])
        seen = 0
        for path in sorted((self.folder / "kept").iterdir()):
            with tarfile.open(path) as archive:
                for member in archive:
                    key, ending = member.name.split(".", 1)
                    shard, source = names[key].split("/", 1)
                    with tarfile.open(self.folder / shard) as original:
                        self.assertEqual(archive.extractfile(member).read(), original.extractfile(f"{source}.{ending}").read())
                    seen += 1
        self.assertEqual(seen, 2 * 31 + 1)
        self.assertFalse((self.folder / "kept.txt.partial").exists())
        self.assertIn("a folder without shards, found kept/0000", self.run_program("curate", "a.tar", "--out", "again.txt", "--shards", "kept", code=1).stderr)
        captions = self.run_program("curate", "a.tar", "b.tar", "--out", "again.txt", "--caption-least", 1).stdout
        self.assertIn("32 caption", captions)
        self.assertIn(["b.tar/silent", "caption", "none"], self.lines("again.txt.gone.tsv"))

    def test_a_cut_shard_and_a_killed_run(self):
        self.write_shards()
        whole = (self.folder / "a.tar").read_bytes()
        (self.folder / "a.tar").write_bytes(whole[:len(whole) // 2 + 100])
        sizes = []
        for turn in range(6):
            process = subprocess.Popen([self.program, "curate", "a.tar", "b.tar", "--out", "kept.txt"], cwd=self.folder,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            # As soon as something is in the journal, or a moment later.
            for _ in range(1000):
                if (self.folder / "kept.txt.partial").exists() and (self.folder / "kept.txt.partial").stat().st_size > 20_000 * turn or process.poll() is not None:
                    break
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
            sizes.append((self.folder / "kept.txt.partial").stat().st_size if (self.folder / "kept.txt.partial").exists() else 0)
        self.assertGreater(max(sizes), 0)
        killed = self.run_program("curate", "a.tar", "b.tar", "--out", "kept.txt").stdout
        self.assertEqual(killed, self.run_program("curate", "a.tar", "b.tar", "--out", "other.txt").stdout)
        self.assertEqual((self.folder / "kept.txt").read_text(), (self.folder / "other.txt").read_text())
        self.assertTrue(any(name == "a.tar" and "cut off within a" in rest[1] for name, *rest in self.lines("kept.txt.gone.tsv")))

    def test_wrong_use(self):
        (self.folder / "none.tar").write_bytes(b"<html>" + bytes(600))
        for arguments, code, message in ((["none.tar", "--out", "k.txt"], 1, "samples in them, found none: none.tar: no tar archive"),
                                         (["missing.tar", "--out", "k.txt"], 1, "missing.tar"),
                                         (["--shards", "x", "--out", "k.txt"], 2, "shards to read"),
                                         (["a.tar", "--database", "x.db", "--out", "k.txt"], 2, "found both"),
                                         (["--clusters", "4", "--out", "k.txt"], 2, "--semdedup beside it"),
                                         (["none.tar", "--out", "none.tar"], 2, "another file than what is read"),
                                         (["none.tar", "--alike", "5", "--out", "k.txt"], 2, "--alike: expected a number from 0 to 1"),
                                         (["none.tar", "--list", "--out", "k.txt"], 2, "--report beside it"),
                                         (["--database", "nowhere.db", "--out", "k.txt"], 1, "nowhere.db")):  # fmt: skip
            self.assertIn(message, self.run_program("curate", *arguments, code=code).stderr)
            self.assertFalse((self.folder / "k.txt").exists())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, type=Path)
    options, rest = parser.parse_known_args()
    ProgramCase.program = options.program.resolve()
    unittest.main(argv=[sys.argv[0], *rest])

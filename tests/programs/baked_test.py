#!/usr/bin/env python3
"""The example baked, linked with a small model: what it says of pictures is what the program tandem says with the model's files.

usage: baked_test.py --baked FILE --model DIR --labels FILE --program FILE
       baked_test.py --make DIR        writes the model and labels.txt that the build bakes
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from small_model import picture, write_model

LABELS = ["a cat", "a dog on a beach", "stripes", "ein Bär"]


def make(folder):
    write_model(folder)
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n", encoding="utf-8")


class Baked(unittest.TestCase):
    options = None

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="tandem-baked-")
        self.place = Path(self.folder.name)
        for i in range(3):
            (self.place / f"{i}.png").write_bytes(picture(i))

    def tearDown(self):
        self.folder.cleanup()

    def run_baked(self, *arguments, code=0, **environment):
        result = subprocess.run([self.options.baked, *map(str, arguments)], capture_output=True, text=True, cwd=self.place, env={**os.environ, **environment})
        self.assertEqual(result.returncode, code, result.stderr)
        return result

    def check_answers(self, labels, *arguments):
        pictures = [f"{i}.png" for i in range(3)]
        found = re.findall(r"^(\S.*)$|^ +([\d.]+) %  (.*)$", self.run_baked(*arguments, *pictures).stdout, re.M)
        (self.place / "plain.txt").write_text("{}\n")
        expected = subprocess.run([self.options.program, "zero-shot", "--weights", self.options.model, "--precision", "bf16", "--images", self.place,
                                   "--labels", labels, "--templates", "plain.txt", "--top", "3", "--json"],
                                  capture_output=True, text=True, cwd=self.place, check=True).stdout  # fmt: skip
        lines = []
        for entry in json.loads(expected):
            lines.append((Path(entry["image"]).name, "", ""))
            lines += [("", f"{100 * best['probability']:.2f}", best["label"]) for best in entry["labels"]]
        self.assertEqual(found, lines)

    def test_says_what_tandem_says(self):
        self.check_answers(self.options.labels)

    def test_other_labels(self):
        (self.place / "other.txt").write_text("left\nright\nneither of them\n")
        self.check_answers(self.place / "other.txt", "--labels", "other.txt")

    def test_lists_its_labels(self):
        self.assertEqual(self.run_baked("--list").stdout.splitlines(), LABELS)
        self.assertIn("usage: baked", self.run_baked("--help").stdout)

    def test_names_what_is_wrong(self):
        error = self.run_baked("0.png", "nix.png", code=1)
        self.assertIn("left out: nix.png", error.stderr)
        self.assertIn("1 of 2 pictures left out", error.stderr)
        self.assertIn("0.png\n", error.stdout)
        self.assertIn("expected pictures", self.run_baked(code=1).stderr)
        self.assertIn("--nix: expected --labels, --list or --help", self.run_baked("--nix", code=1).stderr)
        self.assertIn("packed for another instruction set: expected scalar, found ", self.run_baked("0.png", code=1, TANDEM_ISA="scalar").stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--make", "--baked", "--model", "--labels", "--program"):
        parser.add_argument(name, type=Path)
    Baked.options, rest = parser.parse_known_args()
    if Baked.options.make:
        make(Baked.options.make)
    else:
        unittest.main(argv=[sys.argv[0], *rest])

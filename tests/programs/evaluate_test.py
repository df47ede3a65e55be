#!/usr/bin/env python3
"""tandem evaluate: its numbers are those that follow from what tandem embed writes, computed here; what cannot be read is named and left out.

usage: evaluate_test.py --program FILE
"""

import argparse
import json
import random
import shutil
import struct
import subprocess
import sys
import time
import unittest
from pathlib import Path

from program_case import ProgramCase
from small_model import picture
from train_case import pair, write_shard


def rows_of(path):
    """The rows of a .npy file of float32."""
    data = path.read_bytes()
    header = 10 + struct.unpack("<H", data[8:10])[0]
    shape = [int(word) for word in data[10:header].decode().split("(")[1].split(")")[0].split(",") if word.strip()]
    values = struct.unpack(f"<{shape[0] * shape[1]}f", data[header:])
    return [values[i * shape[1]:(i + 1) * shape[1]] for i in range(shape[0])]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b))


class Evaluate(ProgramCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.classes = ["blue_bars", "red-discs", "stripes"]
        for split, numbers in (("test", range(0, 36)), ("train", range(36, 96))):
            for number in numbers:
                place = cls.folder / split / cls.classes[number % 3]
                place.mkdir(parents=True, exist_ok=True)
                # Classes that a probe can tell apart.
                content = pair(2 + number // 3 * 6)[0] if number % 3 == 0 else pair(number // 3 * 6)[0] if number % 3 == 1 else picture(number)
                (place / f"{number:03}.png").write_bytes(content)
        (cls.folder / "test" / "stripes" / "x.png").write_bytes(b"no picture")
        members = []
        for number in range(30):
            content, caption = pair(number)
            members += [(f"{number:03}.png", content), (f"{number:03}.json", json.dumps({"captions": [caption, f"number {number}"][: 1 + number % 2]}).encode())]
        write_shard(cls.folder / "pairs.tar", members)

    def evaluate(self, *words, code=0):
        return self.run_program("evaluate", *words, code=code)

    def embed(self, kind, lines):
        (self.folder / "list.txt").write_text("".join(f"{line}\n" for line in lines))
        self.run_program("embed", f"--{kind}", "list.txt", "--out", "rows.npy")
        return rows_of(self.folder / "rows.npy")

    def test_zero_shot_and_probes(self):
        files = sorted((self.folder / "test").glob("*/[0-9]*.png"))
        pictures = self.embed("images", [file.relative_to(self.folder) for file in files])
        prompts = self.embed("texts", [f"a photo of a {name.replace('_', ' ').replace('-', ' ')}." for name in self.classes])
        labels = [self.classes.index(file.parent.name) for file in files]
        guesses = [max(range(3), key=lambda c: cosine(row, prompts[c])) for row in pictures]
        right = [guess == label for guess, label in zip(guesses, labels)]
        result = self.evaluate("--classes", "test", "--probe", "train", "--shots", "1,5", "--json")
        found = json.loads(result.stdout)
        self.assertIn("left out: ", result.stderr)
        self.assertIn("test/stripes/x.png", result.stderr)
        self.assertEqual((found["zero-shot"]["pictures"], found["zero-shot"]["classes"]), (36, 3))
        self.assertAlmostEqual(found["zero-shot"]["top1"], sum(right) / 36, places=12)
        self.assertAlmostEqual(found["zero-shot"]["mean_per_class"], sum(sum(r for r, label in zip(right, labels) if label == c) / labels.count(c) for c in range(3)) / 3, places=12)
        self.assertEqual(found["zero-shot"]["top5"], 1)
        probe = found["linear probe"]
        self.assertGreater(probe["top1"], 0.6)  # by chance 0.33
        self.assertGreater(probe["top1"], found["zero-shot"]["top1"])
        self.assertTrue(1e-6 <= probe["strength"] <= 1e6)
        few = found["few-shot probe"]
        self.assertEqual([(one["shots"], one["draws"]) for one in few], [(1, 3), (5, 3)])
        self.assertLessEqual(few[0]["top1"], few[1]["top1"])
        self.assertEqual(self.evaluate("--classes", "test", "--probe", "train", "--shots", "1,5", "--json").stdout, result.stdout)
        table = self.evaluate("--classes", "test", "--probe", "train", "--shots", "1").stdout
        self.assertRegex(table, r"zero-shot +pictures 36 +classes 3 +top1 \S+ +top5 1")
        self.assertRegex(table, r"linear probe +strength \S+")

    def test_names_from_a_file(self):
        shutil.copytree(self.folder / "test", self.folder / "numbers")
        for name, number in zip(self.classes, ("n01440764", "n01443537", "n01484850")):
            (self.folder / "numbers" / name).rename(self.folder / "numbers" / number)
        self.assertIn("expected folders that are named by what they show", self.evaluate("--classes", "numbers", code=1).stderr)
        (self.folder / "names.txt").write_text("n01440764\tblue bars\nn01443537\tred discs\nn01484850\tstripes\n")
        named = self.evaluate("--classes", "numbers", "--names", "names.txt", "--json").stdout
        self.assertEqual(named, self.evaluate("--classes", "test", "--json").stdout)
        (self.folder / "wrong.txt").write_text("n01440764 blue bars\n")
        self.assertIn("expected lines of folder<TAB>name, found n01440764 blue bars", self.evaluate("--classes", "numbers", "--names", "wrong.txt", code=1).stderr)

    def test_retrieval_with_several_captions(self):
        captions = [(i, text) for i in range(30) for text in [pair(i)[1], f"number {i}"][: 1 + i % 2]]
        for i in range(30):
            (self.folder / f"p{i:03}.png").write_bytes(pair(i)[0])
        pictures, texts = self.embed("images", [f"p{i:03}.png" for i in range(30)]), self.embed("texts", [text for _, text in captions])

        def recall(queries, items, matches, k):
            found = 0
            for i, query in enumerate(queries):
                order = sorted(range(len(items)), key=lambda j: -cosine(query, items[j]))
                found += any(j in matches(i) for j in order[:k])
            return found / len(queries)

        found = json.loads(self.evaluate("--pairs", "pairs.tar", "--json").stdout)["retrieval"]
        self.assertEqual((found["pictures"], found["captions"]), (30, 45))
        for k in (1, 5, 10):
            # Equal pictures and captions share their places; here none are.
            self.assertAlmostEqual(found["text_to_image"][f"R@{k}"], recall(texts, pictures, lambda i: [captions[i][0]], k), places=9)
            self.assertAlmostEqual(found["image_to_text"][f"R@{k}"], recall(pictures, texts, lambda i: [j for j, (of, _) in enumerate(captions) if of == i], k), places=9)

    def test_killed_it_goes_on_from_its_journal(self):
        words = ("--classes", "test", "--probe", "train", "--shots", "1", "--pairs", "pairs.tar", "--json")
        expected = self.evaluate(*words)
        rows, draw = self.folder / "kept", random.Random(3)
        began = time.monotonic()
        self.evaluate(*words)
        whole, partial = time.monotonic() - began, 0
        for _ in range(400):
            process = subprocess.Popen([self.program, "evaluate", *words, "--journal", "kept"], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            time.sleep(draw.uniform(0, whole))
            if partial < 5:
                process.kill()
            out, errors = process.communicate()
            if process.returncode == 0:
                if partial == 5:
                    break
                continue  # it was done before it could be killed
            partial += rows.exists() and any(file.stat().st_size > 2000 for file in rows.glob("*.rows"))
        self.assertEqual(partial, 5)
        self.assertEqual(out, expected.stdout)
        # What an earlier run left out is named by the one that ends as well.
        self.assertIn("test/stripes/x.png", errors)
        self.assertFalse(rows.exists())
        # Of other pictures it is not.
        rows.mkdir()
        (rows / "classes.rows").write_bytes(b"tandem evaluate 1\nweights: other\n\n")
        self.assertIn("rows of an earlier run with other inputs", self.evaluate(*words, "--journal", "kept", code=1).stderr)
        shutil.rmtree(rows)
        # Killed before it had written whose rows they are, it has left nothing.
        rows.mkdir()
        for head in (b"", b"tandem evalu"):
            (rows / "classes.rows").write_bytes(head)
            self.assertEqual(self.evaluate(*words, "--journal", "kept").stdout, expected.stdout)
            rows.mkdir()
        rows.rmdir()

    def test_wrong_options(self):
        for words, code, sentence in (
            ([], 2, "expected --classes, --pairs or both, found neither"),
            (["--pairs", "pairs.tar", "--probe", "train"], 2, "--probe: expected --classes beside it"),
            (["--classes", "test", "--shots", "3"], 2, "--shots: expected --probe beside it"),
            (["--classes", "test", "--probe", "train", "--shots", "3,x"], 2, "--shots: expected numbers above 0"),
            (["--classes", "test", "--probe", "test/stripes"], 1, "--probe: expected a folder with a folder for each class"),
            (["--classes", "test", "--probe", "train", "--shots", "21"], 1, "--shots: expected at most as many pictures as every class of --probe has, 20, found 21"),
            (["--classes", "nowhere"], 1, "--classes: expected a folder of classes, found nowhere"),
            (["--pairs", "nowhere.tar"], 1, "nowhere.tar: cannot open"),
            (["--classes", "test", "--probe", "few"], 1, "--probe: expected the folders of --classes"),
        ):
            for name in ("a", "b"):
                (self.folder / "few" / name).mkdir(parents=True, exist_ok=True)
                (self.folder / "few" / name / "1.png").write_bytes(picture(1))
            self.assertIn(sentence, self.evaluate(*words, code=code).stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    options, rest = parser.parse_known_args()
    Evaluate.program = str(Path(options.program).resolve())
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)

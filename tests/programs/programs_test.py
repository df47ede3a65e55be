#!/usr/bin/env python3
"""embed, zero_shot and attention on a ViT-B/32 that is made here: what they write, and how they take what is wrong.

usage: programs_test.py --programs DIR --vocabulary DIR

Their numbers are held against the field's libraries by tests/parity/families.py, which needs those. Standard library only.
"""

import argparse
import array
import json
import math
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zlib
from pathlib import Path

OPTIONS = None
LAYERS, WIDTH, TEXT_WIDTH, VOCABULARY = 12, 768, 512, 49408


def blocks(at, layers, width):
    for i in range(layers):
        block = f"{at}.resblocks.{i}."
        yield from ((f"{block}{norm}.{kind}", [width]) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias"))
        yield from (
            (block + "attn.in_proj_weight", [3 * width, width]),
            (block + "attn.in_proj_bias", [3 * width]),
            (block + "attn.out_proj.weight", [width, width]),
            (block + "attn.out_proj.bias", [width]),
            (block + "mlp.c_fc.weight", [4 * width, width]),
            (block + "mlp.c_fc.bias", [4 * width]),
            (block + "mlp.c_proj.weight", [width, 4 * width]),
            (block + "mlp.c_proj.bias", [width]),
        )


def tensors(layers=LAYERS):
    """Names and shapes of open_clip's ViT-B-32."""
    yield from (("logit_scale", []), ("positional_embedding", [77, TEXT_WIDTH]), ("text_projection", [TEXT_WIDTH, 512]))
    yield from (("token_embedding.weight", [VOCABULARY, TEXT_WIDTH]), ("ln_final.weight", [TEXT_WIDTH]), ("ln_final.bias", [TEXT_WIDTH]))
    yield from (("visual.class_embedding", [WIDTH]), ("visual.positional_embedding", [50, WIDTH]), ("visual.proj", [WIDTH, 512]))
    yield from ((f"visual.{norm}.{kind}", [WIDTH]) for norm in ("ln_pre", "ln_post") for kind in ("weight", "bias"))
    yield ("visual.conv1.weight", [WIDTH, 3, 32, 32])
    yield from blocks("visual.transformer", layers, WIDTH)
    yield from blocks("transformer", 12, TEXT_WIDTH)


def write_checkpoint(path, layers=LAYERS):
    """Small random numbers in bfloat16, a gain around 1: enough for embeddings that differ."""
    draw = random.Random(0)
    noise = [draw.gauss(0, 0.04) for _ in range(65521)]

    def as_bytes(numbers):
        floats = array.array("f", numbers).tobytes()
        return b"".join(floats[i + 2 : i + 4] for i in range(0, len(floats), 4))

    plain, gains = as_bytes(noise), as_bytes(1 + x for x in noise)
    header, size, plan = {}, 0, list(tensors(layers))
    for name, shape in plan:
        count = math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [size, size + 2 * count]}
        size += 2 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for i, (name, shape) in enumerate(plan):
            block = gains if ".ln_" in name and name.endswith("weight") or "ln_final.weight" in name else plain
            start, left = 2 * (7919 * i % 65521), 2 * math.prod(shape)
            while left > 0:
                part = block[start : start + left]
                file.write(part)
                left, start = left - len(part), 0


def write_png(path, seed, side=40):
    draw = random.Random(seed)
    rows = b"".join(b"\0" + bytes(draw.randrange(256) for _ in range(3 * side)) for _ in range(side))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def read_safetensors(path):
    data = path.read_bytes()
    end = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:end])
    metadata = header.pop("__metadata__")
    rows = {}
    for name, entry in header.items():
        begin, stop = (end + offset for offset in entry["data_offsets"])
        numbers = array.array("f", data[begin:stop])
        width = entry["shape"][1]
        rows[name] = [numbers[i : i + width] for i in range(0, len(numbers), width)]
    return rows, metadata


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b))


class Programs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="tandem-programs-"))
        cls.model, cls.pictures = cls.folder / "model", cls.folder / "pictures"
        cls.model.mkdir()
        cls.pictures.mkdir()
        write_checkpoint(cls.model / "open_clip_model.safetensors")
        config = {"model_cfg": {"embed_dim": 512, "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
                                "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}},
                  "preprocess_cfg": {}}  # fmt: skip
        (cls.model / "open_clip_config.json").write_text(json.dumps(config))
        shutil.copy(Path(OPTIONS.vocabulary) / "bpe_simple_vocab_16e6.txt.gz", cls.model)
        for i in range(5):
            write_png(cls.pictures / f"{i}.png", i)
        (cls.pictures / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
        cls.captions = cls.folder / "captions.txt"
        cls.captions.write_text("a cat\na dog on a beach\n\n", encoding="utf-8")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def run_program(self, name, *arguments, fails=False):
        result = subprocess.run([Path(OPTIONS.programs) / name, *arguments], capture_output=True, text=True)
        self.assertEqual(result.returncode, 1 if fails else 0, result.stderr)
        return result

    def embed(self, *arguments, **options):
        return self.run_program("embed", "--weights", self.model, *arguments, **options)

    def test_embeds_pictures_and_captions(self):
        out = self.folder / "both.safetensors"
        result = self.embed("--images", self.pictures, "--texts", self.captions, "--out", out)
        self.assertIn("torn.jpg", result.stderr)
        self.assertIn("1 of 6 pictures left out", result.stderr)
        rows, metadata = read_safetensors(out)
        self.assertEqual([Path(name).name for name in json.loads(metadata["images"])], [f"{i}.png" for i in range(5)])
        self.assertEqual([Path(name).name for name in json.loads(metadata["failed"])], ["torn.jpg"])
        self.assertEqual(json.loads(metadata["texts"]), ["a cat", "a dog on a beach", ""])
        for row in rows["image_embeddings"] + rows["text_embeddings"]:
            self.assertAlmostEqual(cosine(row, row), 1, places=5)
        self.assertEqual(len(rows["image_embeddings"]), 5)
        self.assertLess(cosine(rows["image_embeddings"][0], rows["image_embeddings"][1]), 0.9999)
        self.assertFalse(list(self.folder.glob("*.partial")))

        npy = self.folder / "texts.npy"
        self.embed("--texts", self.captions, "--out", npy)
        data = npy.read_bytes()
        self.assertEqual(data[:8], b"\x93NUMPY\x01\0")
        length = struct.unpack("<H", data[8:10])[0]
        self.assertEqual((10 + length) % 64, 0)
        self.assertIn("'shape': (3, 512)", data[10 : 10 + length].decode())
        self.assertEqual(data[10 + length :], b"".join(row.tobytes() for row in rows["text_embeddings"]))

        for precision, least in (("bf16", 0.999), ("int8", 0.99)):
            reduced = self.folder / f"{precision}.safetensors"
            self.embed("--images", self.pictures, "--texts", self.captions, "--out", reduced, "--precision", precision)
            for key, found in read_safetensors(reduced)[0].items():
                self.assertGreater(min(map(cosine, found, rows[key])), least, f"{precision} {key}")

    def test_goes_on_where_it_was_killed(self):
        many = self.folder / "many"
        many.mkdir()
        for i in range(300):
            write_png(many / f"{i:03}.png", i, 8)
        whole, killed = self.folder / "whole.safetensors", self.folder / "killed.safetensors"
        self.embed("--images", many, "--out", whole)
        partial = Path(f"{killed}.images.partial")
        process = subprocess.Popen([Path(OPTIONS.programs) / "embed", "--weights", self.model, "--images", many, "--out", killed],
                                   stderr=subprocess.DEVNULL)  # fmt: skip
        while process.poll() is None and (not partial.exists() or partial.stat().st_size < 100_000):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assertTrue(partial.exists(), "it was done before it was killed")
        with open(partial, "ab") as file:
            file.write(b"half a row")
        result = self.embed("--images", many, "--out", killed, "--precision", "int8", fails=True)
        self.assertIn("another run's", result.stderr)
        self.embed("--images", many, "--out", killed)
        self.assertEqual(killed.read_bytes(), whole.read_bytes())

    def test_names_what_is_wrong(self):
        weights = self.model / "open_clip_model.safetensors"
        alone = self.folder / "alone.safetensors"
        alone.symlink_to(weights)
        error = self.run_program("embed", "--weights", alone, "--images", self.pictures, "--out", self.folder / "x.npy", fails=True)
        self.assertIn("which GELU they were trained with", error.stderr)
        self.run_program("embed", "--weights", alone, "--images", self.pictures, "--out", self.folder / "x.npy", "--activation", "gelu")

        other = self.folder / "other"
        shutil.copytree(self.model, other, ignore=shutil.ignore_patterns("*.safetensors"))
        error = self.run_program("embed", "--weights", other, "--texts", self.captions, "--out", self.folder / "y.npy", fails=True)
        self.assertIn("expected one of model.safetensors, open_clip_model.safetensors", error.stderr)
        config = json.loads((other / "open_clip_config.json").read_text())
        config["model_cfg"]["vision_cfg"]["layers"] = 11
        (other / "open_clip_config.json").write_text(json.dumps(config))
        (other / "open_clip_model.safetensors").symlink_to(weights)
        error = self.run_program("embed", "--weights", other, "--texts", self.captions, "--out", self.folder / "y.npy", fails=True)
        self.assertIn("the config contradicts the tensors:\n  vision.layers: expected 11 (open_clip_config.json, model_cfg.vision_cfg.layers), found 12", error.stderr)
        (other / "open_clip_model.safetensors").unlink()
        write_checkpoint(other / "open_clip_model.safetensors", layers=11)
        error = self.run_program("embed", "--weights", other, "--texts", self.captions, "--out", self.folder / "y.npy", fails=True)
        self.assertIn("no architecture of the zoo fits", error.stderr)
        self.assertIn(".vision = td::VitConfig{.image = 224, .patch = 32, .width = 768, .layers = 11, .heads = 12}", error.stderr)
        (other / "bpe_simple_vocab_16e6.txt.gz").unlink()
        shutil.copy(self.model / "open_clip_config.json", other)
        (other / "open_clip_model.safetensors").unlink()
        (other / "open_clip_model.safetensors").symlink_to(weights)
        error = self.run_program("embed", "--weights", other, "--texts", self.captions, "--out", self.folder / "y.npy", fails=True)
        self.assertIn("expected a tokenizer beside the weights", error.stderr)

        for arguments, message in (
            (["--images", self.folder / "none.txt", "--out", "x.npy"], "cannot read the file"),
            (["--images", self.pictures, "--texts", self.captions, "--out", "x.npy"], "a .safetensors file for both"),
            (["--out", "x.npy"], "--images, --texts or both"),
            (["--images", self.pictures, "--out", "x.txt"], "a name that ends in"),
            (["--images", self.pictures, "--out", self.folder / "x.npy", "--precision", "f64"], "f32, bf16 or int8"),
            (["--images", self.pictures, "--out", self.folder / "x.npy", "--threads", "0"], "a whole number above 0"),
            (["--image", "x"], "an option of --help"),
        ):
            self.assertIn(message, self.embed(*arguments, fails=True).stderr)

    def test_zero_shot(self):
        arguments = ["--weights", self.model, "--images", self.pictures, "--labels", "cat, dog, house", "--top", "2"]
        report = json.loads(self.run_program("zero_shot", *arguments, "--json").stdout)
        self.assertEqual(len(report), 5)
        for entry in report:
            shares = [label["probability"] for label in entry["labels"]]
            self.assertEqual(len(shares), 2)
            self.assertEqual(shares, sorted(shares, reverse=True))
            self.assertLessEqual(sum(shares), 1 + 1e-6)
        table = self.run_program("zero_shot", *arguments).stdout
        self.assertIn(report[0]["image"] + "\n", table)
        self.assertIn(f"{100 * report[0]['labels'][0]['probability']:.2f} %  {report[0]['labels'][0]['label']}\n", table)
        templates = self.folder / "templates.txt"
        templates.write_text("a photo of a {}.\na drawing of the {}.\n")
        ensemble = json.loads(self.run_program("zero_shot", *arguments, "--json", "--templates", templates).stdout)
        self.assertNotEqual(ensemble[0]["labels"], report[0]["labels"])
        templates.write_text("no hole\n")
        error = self.run_program("zero_shot", *arguments, "--templates", templates, fails=True)
        self.assertIn("a template with {}", error.stderr)

    def test_attention(self):
        maps = []
        for name, options in (("last", []), ("first", ["--layer", "0"]), ("text", ["--text", "a cat"])):
            out = self.folder / f"{name}.png"
            result = self.run_program("attention", "--weights", self.model, "--image", self.pictures / "0.png", "--out", out, *options)
            self.assertIn("7 x 7 patches", result.stdout)
            data = out.read_bytes()
            self.assertEqual(data[:8], b"\x89PNG\r\n\x1a\n")
            self.assertEqual(struct.unpack(">II", data[16:24]), (448, 448))
            maps.append(data)
        self.assertEqual(len(set(maps)), 3)
        error = self.run_program("attention", "--weights", self.model, "--image", self.pictures / "0.png", "--out", self.folder / "x.png",
                                 "--layer", "12", fails=True)  # fmt: skip
        self.assertIn("a layer from -12 to 11", error.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", required=True)
    parser.add_argument("--vocabulary", required=True)
    OPTIONS, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest])

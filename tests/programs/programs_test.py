#!/usr/bin/env python3
"""The program tandem: embed, zero-shot and attention on a ViT-B/32 that is made here: what they write, and how they take what is wrong.

usage: programs_test.py --program FILE --vocabulary DIR

Their numbers are held against the field's libraries by tests/parity/families.py, which needs those. Standard library only.
"""

import argparse
import array
import json
import math
import os
import random
import re
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


def transformers_text_tower(prefix=""):
    """Names and shapes of transformers' CLIPTextModel, which has no projection; version 4 puts text_model. before them."""
    yield (prefix + "embeddings.token_embedding.weight", [VOCABULARY, TEXT_WIDTH])
    yield (prefix + "embeddings.position_embedding.weight", [77, TEXT_WIDTH])
    for i in range(12):
        layer = f"{prefix}encoder.layers.{i}."
        for name in ("q", "k", "v", "out"):
            yield (f"{layer}self_attn.{name}_proj.weight", [TEXT_WIDTH, TEXT_WIDTH])
            yield (f"{layer}self_attn.{name}_proj.bias", [TEXT_WIDTH])
        for name in ("layer_norm1", "layer_norm2"):
            yield from ((f"{layer}{name}.{kind}", [TEXT_WIDTH]) for kind in ("weight", "bias"))
        yield (layer + "mlp.fc1.weight", [4 * TEXT_WIDTH, TEXT_WIDTH])
        yield (layer + "mlp.fc1.bias", [4 * TEXT_WIDTH])
        yield (layer + "mlp.fc2.weight", [TEXT_WIDTH, 4 * TEXT_WIDTH])
        yield (layer + "mlp.fc2.bias", [TEXT_WIDTH])
    yield from ((f"{prefix}final_layer_norm.{kind}", [TEXT_WIDTH]) for kind in ("weight", "bias"))


TEXT_CONFIG = {"model_type": "clip_text_model", "hidden_size": TEXT_WIDTH, "num_attention_heads": 8, "num_hidden_layers": 12,
               "intermediate_size": 2048, "vocab_size": VOCABULARY, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
               "projection_dim": 768, "eos_token_id": 2}  # fmt: skip


def write_checkpoint(path, layers=LAYERS, plan=None, scale=None):
    """Small random numbers in bfloat16, a gain around 1: enough for embeddings that differ. `plan` holds names and shapes."""
    draw = random.Random(0)
    noise = [draw.gauss(0, 0.04) for _ in range(65521)]

    def as_bytes(numbers):
        floats = array.array("f", numbers).tobytes()
        return b"".join(floats[i + 2 : i + 4] for i in range(0, len(floats), 4))

    plain, gains = as_bytes(noise), as_bytes(1 + x for x in noise)
    header, size = {}, 0
    plan = list(tensors(layers)) if plan is None else list(plan)
    for name, shape in plan:
        count = math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [size, size + 2 * count]}
        size += 2 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for i, (name, shape) in enumerate(plan):
            is_gain = name.endswith("weight") and ("ln_" in name or "norm" in name)
            block = gains if is_gain else plain
            if name == "logit_scale" and scale is not None:
                file.write(as_bytes([scale]))
                continue
            start, left = 2 * (7919 * i % 65521), 2 * math.prod(shape)
            while left > 0:
                part = block[start : start + left]
                file.write(part)
                left, start = left - len(part), 0


def png(width, height, rows):
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def turned_png(rows, orientation):
    """The RGB rows of a picture, with EXIF data that say how it is to be looked at."""
    exif = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    data = png(len(rows[0]), len(rows), b"".join(b"\0" + b"".join(row) for row in rows))
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    return data[:33] + chunk + data[33:]


def write_png(path, seed, side=40):
    draw = random.Random(seed)
    path.write_bytes(png(side, side, b"".join(b"\0" + bytes(draw.randrange(256) for _ in range(3 * side)) for _ in range(side))))


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
        result = subprocess.run([OPTIONS.program, name, *arguments], capture_output=True, text=True)
        self.assertIn(result.returncode, (1, 2) if fails else (0,), result.stderr)
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

    def test_a_cache_of_packed_weights(self):
        cache = self.folder / "cache"

        def embedded(name, *arguments, model=self.model):
            out = self.folder / name
            result = self.run_program("embed", "--weights", model, "--images", self.pictures, "--texts", self.captions, "--out", out, *arguments)
            return out.read_bytes(), result.stderr

        for precision in ("f32", "bf16", "int8"):
            plain, _ = embedded("plain.safetensors", "--precision", precision)
            first, said = embedded("first.safetensors", "--precision", precision, "--cache", cache)
            self.assertIn("packing into", said)
            again, said = embedded("again.safetensors", "--precision", precision, "--cache", cache)
            self.assertNotIn("packing into", said)
            self.assertTrue(plain == first == again, precision)
        self.assertEqual(len(list(cache.iterdir())), 3)
        # A picture alone needs the image tower alone, and no file that is there is made anew for it.
        times = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
        self.embed("--images", self.pictures, "--out", self.folder / "one.npy", "--cache", cache)
        self.assertEqual(len(list(cache.iterdir())), 4)
        self.assertEqual({path: path.stat().st_mtime_ns for path in times}, times)
        # Other weights at the same place, and a damaged copy, are packed anew.
        other = self.folder / "other-model"
        shutil.copytree(self.model, other)
        write_checkpoint(other / "open_clip_model.safetensors", scale=1.5)
        plain, said = embedded("other.safetensors", "--cache", cache, model=other)
        self.assertIn("(not there yet)", said)
        write_checkpoint(other / "open_clip_model.safetensors", scale=2.5)
        plain, said = embedded("other.safetensors", "--cache", cache, model=other)
        self.assertIn("(packed of other files: expected 'open_clip_model.safetensors' of ", said)
        newest = max(cache.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        newest.write_bytes(newest.read_bytes()[:-4096])
        again, said = embedded("other.safetensors", "--cache", cache, model=other)
        self.assertIn(f"packing into {newest} (", said)
        self.assertEqual(plain, again)
        # A flipped bit of a weight is looked for where that is asked for.
        whole = newest.read_bytes()
        newest.write_bytes(whole[:-70000] + bytes([whole[-70000] ^ 64]) + whole[-69999:])
        again, said = embedded("other.safetensors", "--cache", cache, "--verify-cache", model=other)
        self.assertIn("expected the bytes that were saved, by their checksum, found others", said)
        self.assertEqual(plain, again)
        # Many that begin at once all make it, or find it.
        newest.unlink()
        runs = [subprocess.Popen([OPTIONS.program, "embed", "--weights", other, "--images", self.pictures / "0.png", "--texts", self.captions, "--out",
                                  self.folder / f"at-once-{i}.safetensors", "--cache", cache], stderr=subprocess.DEVNULL) for i in range(4)]  # fmt: skip
        self.assertEqual([run.wait() for run in runs], [0] * 4)
        self.assertEqual(len({(self.folder / f"at-once-{i}.safetensors").read_bytes() for i in range(4)}), 1)
        error = self.embed("--images", self.pictures, "--out", self.folder / "x.npy", "--cache", self.pictures / "0.png", fails=True)
        self.assertIn("0.png: expected a folder for packed copies, found ", error.stderr)
        packed = self.run_program("embed", "--weights", newest, "--images", self.pictures, "--out", self.folder / "x.npy", fails=True)
        self.assertIn("found a packed copy of some, for one instruction set", packed.stderr)

    def test_goes_on_where_it_was_killed(self):
        many = self.folder / "many"
        many.mkdir()
        for i in range(300):
            write_png(many / f"{i:03}.png", i, 8)
        whole, killed = self.folder / "whole.safetensors", self.folder / "killed.safetensors"
        self.embed("--images", many, "--out", whole)
        partial = Path(f"{killed}.images.partial")
        process = subprocess.Popen([OPTIONS.program, "embed", "--weights", self.model, "--images", many, "--out", killed],
                                   stderr=subprocess.DEVNULL)  # fmt: skip
        while process.poll() is None and (not partial.exists() or partial.stat().st_size < 100_000):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assertTrue(partial.exists(), "it was done before it was killed")
        with open(partial, "ab") as file:
            file.write(b"half a row")
        result = self.embed("--images", many, "--out", killed, "--precision", "int8", fails=True)
        self.assertIn("other inputs: delete it to begin anew, or give the same again: expected --precision: int8, found --precision: by default", result.stderr)
        self.embed("--images", many, "--out", killed)
        self.assertEqual(killed.read_bytes(), whole.read_bytes())

    def killed(self, out, folder, *arguments):
        """Starts embed, kills it when it has some rows, and returns its journal."""
        partial = Path(f"{out}.images.partial")
        process = subprocess.Popen([OPTIONS.program, "embed", "--weights", folder, *arguments, "--out", out], stderr=subprocess.DEVNULL)  # fmt: skip
        while process.poll() is None and (not partial.exists() or partial.stat().st_size < 40_000):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assertTrue(partial.exists(), "it was done before it was killed")
        return partial

    def test_goes_on_from_the_same_inputs_alone(self):
        many, model = self.folder / "few", self.folder / "changing"
        many.mkdir()
        for i in range(120):
            write_png(many / f"{i:03}.png", i, 8)
        shutil.copytree(self.model, model)
        weights = model / "open_clip_model.safetensors"
        whole, out = self.folder / "w.safetensors", self.folder / "resumed.safetensors"
        self.run_program("embed", "--weights", model, "--images", many, "--out", whole)
        partial = self.killed(out, model, "--images", many)
        journal = partial.read_bytes()

        def refused(message, *options):
            error = self.run_program("embed", "--weights", model, "--images", many, "--out", out, *options, fails=True)
            self.assertIn("it holds rows of an earlier run with other inputs", error.stderr)
            self.assertIn(message, error.stderr)
            self.assertEqual(partial.read_bytes(), journal)

        with open(weights, "r+b") as file:  # overwritten in place: the folder and the size stay
            file.seek(-1000, 2)
            before = file.read(8)
            file.seek(-1000, 2)
            file.write(bytes(8))
        refused("file open_clip_model.safetensors")
        with open(weights, "r+b") as file:
            file.seek(-1000, 2)
            file.write(before)
        config = (model / "open_clip_config.json").read_text()
        (model / "open_clip_config.json").write_text(config.replace('"preprocess_cfg": {}', '"preprocess_cfg": {"resize_mode": "squash"}'))
        refused("file open_clip_config.json")
        (model / "open_clip_config.json").write_text(config)
        refused("--resampling", "--resampling", "torchvision")
        refused("--resize-as", "--resize-as", "rgb")
        refused("output: tokens", "--tokens")
        write_png(many / "007.png", 1007, 8)
        refused("pictures: 120 with digest")
        write_png(many / "007.png", 7, 8)
        times = partial.stat().st_mtime_ns
        # Its time is another now, and that is all that is looked at.
        refused("pictures: 120 with digest")
        partial.unlink()
        self.killed(out, model, "--images", many)
        self.run_program("embed", "--weights", model, "--images", many, "--out", out)
        self.assertEqual(out.read_bytes(), whole.read_bytes())

    def test_a_journal_of_captions_knows_its_tokenizer(self):
        texts = self.folder / "t.safetensors"
        partial = Path(f"{texts}.texts.partial")
        inputs = ["--texts", self.captions, "--out", texts]
        self.embed(*inputs)
        other = self.folder / "tokenizer"
        other.mkdir()
        shutil.copy(self.model / "bpe_simple_vocab_16e6.txt.gz", other)
        # A run that is done leaves no journal; one is made here as a killed run leaves it.
        wrapper = subprocess.Popen([OPTIONS.program, "embed", "--weights", self.model, *inputs], stderr=subprocess.DEVNULL)
        while wrapper.poll() is None and not (partial.exists() and partial.stat().st_size > 0):
            time.sleep(0.0005)
        wrapper.send_signal(signal.SIGKILL)
        wrapper.wait()
        if partial.exists():  # or it was faster
            self.assertIn("tokenizer:", self.embed(*inputs, "--tokenizer", other, fails=True).stderr)
            partial.unlink()

    def test_accounts_for_every_file(self):
        place = self.folder / "mixed"
        (place / "sub").mkdir(parents=True)
        (place / ".hidden").mkdir()
        picture = (self.pictures / "0.png").read_bytes()
        for name in ("a.png", "b.PNG", "sub/c.Jpg", "no_ending", ".hidden/x.png", "._a.png"):
            (place / name).write_bytes(picture)
        (place / "d.webp").write_bytes(b"RIFF\0\0\0\0WEBPVP8 ")
        (place / "named.jpg").write_bytes(b"RIFF\0\0\0\0WEBPVP8 ")
        (place / "e.gif").write_bytes(b"GIF89a")
        (place / "f.bmp").write_bytes(b"BM\0\0\0\0")
        for name in ("g.heic", "h.HEIC", "sub/i.heic"):
            (place / name).write_bytes(b"\0\0\0\x18ftypheic")
        (place / "page.jpg").write_bytes(b"<html>not found</html>")
        (place / "empty.jpg").write_bytes(b"")
        (place / "notes.txt").write_text("notes")
        (place / "loop.png").symlink_to(place / "loop.png")
        (place / "around").symlink_to(place)
        os.mkfifo(place / "pipe.png")
        out = self.folder / "mixed.safetensors"
        result = self.embed("--images", place, "--out", out)
        rows, metadata = read_safetensors(out)
        self.assertEqual([str(Path(name).relative_to(place)) for name in json.loads(metadata["images"])], ["a.png", "b.PNG", "no_ending", "sub/c.Jpg"])
        for message in ("loop.png: a link that leads to no file", "around: a link to a folder", "pipe.png: neither a file nor a folder",
                        "page.jpg", "empty.jpg", "2 hidden files and folders", "1 files that are no pictures", "d.webp: damaged WebP",
                        "named.jpg: damaged WebP", "1 .gif pictures: not a format that tandem reads; convert them, for instance with convert",
                        "1 .bmp pictures", "3 .heic pictures: not a format that tandem reads; convert them, for instance with heif-convert"):  # fmt: skip
            self.assertIn(message, result.stderr)
        # A picture is one by its first bytes, whatever its name; a list likewise.
        for name in ("no_ending", "sub/c.Jpg"):
            self.embed("--images", place / name, "--out", self.folder / "one.npy")
        error = self.embed("--images", place / "g.heic", "--out", self.folder / "two.npy", fails=True)
        self.assertIn("a JPEG, PNG or WebP picture, found HEIC data: not a format that tandem reads; convert them", error.stderr)
        (place / "list.jpg").write_text("a.png\n")
        self.embed("--images", place / "list.jpg", "--out", self.folder / "three.npy")
        (place / "binary").write_bytes(b"\0\1\2")
        self.assertIn("binary data at line 1", self.embed("--images", place / "binary", "--out", self.folder / "four.npy", fails=True).stderr)
        self.assertFalse(list(self.folder.glob("*.partial")))
        nothing = self.folder / "nothing"
        nothing.mkdir()
        self.assertIn("expected a JPEG, PNG or WebP picture", self.embed("--images", nothing, "--out", self.folder / "five.npy", fails=True).stderr)
        for bad in ("page.jpg", "empty.jpg"):
            shutil.copy(place / bad, nothing)
        self.embed("--images", nothing, "--out", self.folder / "six.npy", fails=True)
        self.run_program("zero-shot", "--weights", self.model, "--images", nothing, "--labels", "a, b", fails=True)
        strip = self.folder / "strip"
        strip.mkdir()
        write_png(strip / "tall.png", 1, 2)
        (strip / "tall.png").write_bytes(png(1, 1 << 17, b"\0" * ((3 + 1) << 17)))
        self.embed("--images", strip, "--out", self.folder / "seven.npy")
        write_png(strip / "large.png", 1, 40)
        error = self.embed("--images", strip / "large.png", "--pixel-limit", "1599", "--out", self.folder / "eight.npy", fails=True)
        self.assertRegex(error.stderr, r"large.png: expected an image of 1 to 1599 pixels")

    def test_pictures_that_people_have(self):
        """WebP is read; a picture is turned as its EXIF data say unless the original's way is asked for."""
        place = self.folder / "turned"
        place.mkdir()
        draw = random.Random(5)
        rows = [[bytes(draw.randrange(256) for _ in range(3)) for _ in range(30)] for _ in range(20)]
        upright = [list(column) for column in zip(*rows[::-1])]  # a quarter clockwise, which 6 asks for
        (place / "stored.png").write_bytes(turned_png(rows, 6))
        (place / "upright.png").write_bytes(turned_png(upright, 1))
        (place / "plain.png").write_bytes(turned_png(rows, 1))
        shutil.copy(Path(OPTIONS.vocabulary).parents[2] / "images/fixtures/webp/lossy.webp", place / "w.webp")

        def embedded(*options):
            out = self.folder / "turned.safetensors"
            self.embed("--images", place, "--out", out, *options)
            rows, metadata = read_safetensors(out)
            names = [Path(name).name for name in json.loads(metadata["images"])]
            self.assertEqual(names, ["plain.png", "stored.png", "upright.png", "w.webp"])
            return dict(zip(names, rows["image_embeddings"]))

        found = embedded()
        self.assertEqual(found["stored.png"], found["upright.png"])
        self.assertNotEqual(found["stored.png"], found["plain.png"])
        found = embedded("--orientation", "stored")
        self.assertEqual(found["stored.png"], found["plain.png"])
        self.assertNotEqual(found["stored.png"], found["upright.png"])

    def test_the_program_itself(self):
        """--help of every command, --version, exit codes, manual pages, completions, descriptions."""
        overview = self.run_program("--help").stdout
        commands = re.findall(r"^  ([a-z-]+) +[a-z]", overview, re.M)[:6]
        self.assertEqual(commands, ["embed", "zero-shot", "attention", "evaluate", "describe", "config"])
        for code in ("0", "1", "2"):
            self.assertRegex(overview, rf"(?m)^  {code}  \w")
        self.assertRegex(self.run_program("--version").stdout, r"^tandem \d+\.\d+\.\d+\n$")
        for command in commands:
            text = self.run_program(command, "--help").stdout
            self.assertTrue(text.startswith(f"tandem {command} "))
            self.assertLess(text.count("\n"), 50, "a screen")
            self.assertLessEqual(max(map(len, text.splitlines())), 120)
            page = self.run_program("man", command).stdout
            self.assertIn(f".SH NAME\ntandem\\-{command}".replace("zero-shot", "zero\\-shot"), page)
            for option in re.findall(r"^  (--[a-z-]+)", text, re.M):
                self.assertIn(option.replace("-", "\\-"), page)
            if shutil.which("groff"):
                made = subprocess.run(["groff", "-ww", "-man", "-Tutf8", "-z"], input=page, capture_output=True, text=True)
                self.assertEqual((made.returncode, made.stderr), (0, ""))
        self.assertIn("tandem\\-embed", self.run_program("man").stdout)

        script = self.run_program("completions", "bash").stdout
        for words, expected in ((["tandem", ""], "zero-shot"), (["tandem", "embed", "--to"], "--tokens"),
                                (["tandem", "embed", "--precision", ""], "bf16"), (["tandem", "man", "de"], "describe")):  # fmt: skip
            ask = f"COMP_WORDS=({' '.join(word or chr(39) * 2 for word in words)}); COMP_CWORD={len(words) - 1}; _tandem; echo ${{COMPREPLY[@]}}"
            found = subprocess.run(["bash", "-c", script + ask], capture_output=True, text=True, check=True).stdout.split()
            self.assertIn(expected, found)
        script = self.run_program("completions", "zsh").stdout
        self.assertTrue(script.startswith("#compdef tandem"))
        if shutil.which("zsh"):
            subprocess.run(["zsh", "-n", "-c", script], check=True)

        for arguments in ([], ["embedd"], ["embed", "--what"], ["embed", "--weights"], ["completions", "fish"], ["describe"],
                          ["describe", "a", "b"], ["zero-shot", "--top", "0", "--labels", "a, b"]):  # fmt: skip
            result = subprocess.run([OPTIONS.program, *arguments], capture_output=True, text=True)
            self.assertEqual((result.returncode, result.stdout), (2, ""), arguments)
            self.assertTrue(result.stderr.startswith("tandem"), result.stderr)
        result = subprocess.run([OPTIONS.program, "describe", self.folder / "nothing_here"], capture_output=True, text=True)
        self.assertEqual(result.returncode, 1)
        self.assertIn("a model of the zoo: vit_b_32", result.stderr)

        by_name = self.run_program("describe", "ViT-B-32").stdout
        self.assertIn("151277313", by_name)
        by_folder = self.run_program("describe", self.model).stdout
        self.assertEqual(by_folder, f"{self.model}: vit_b_32\n{by_name}")

    def test_towers_alone_and_wrapped_models(self):
        """A tower of transformers 4 or 5 alone, with and without its config; names behind what trainers wrap around a model."""
        tokens = {}
        for version, prefix in ((4, "text_model."), (5, "")):
            tower = self.folder / f"text_encoder_{version}"
            tower.mkdir()
            write_checkpoint(tower / "model.safetensors", plan=transformers_text_tower(prefix))
            (tower / "config.json").write_text(json.dumps(TEXT_CONFIG))
            out = self.folder / f"tokens_{version}.safetensors"
            arguments = ["--weights", tower, "--tokenizer", self.model, "--texts", self.captions]
            result = self.run_program("embed", *arguments, "--tokens", "--out", out)
            self.assertIn("text tower of vit_b_32", result.stderr)
            tokens[version] = out.read_bytes()
            error = self.run_program("embed", *arguments, "--out", self.folder / "e.npy", fails=True)
            self.assertIn("expected a projection, which leads to embeddings", error.stderr)
            error = self.run_program("embed", "--weights", tower, "--images", self.pictures, "--out", self.folder / "e.npy", fails=True)
            self.assertIn("the tensors of an image tower", error.stderr)
            (tower / "config.json").unlink()
            self.run_program("embed", *arguments, "--tokens", "--out", out, "--activation", "quick_gelu")
            self.assertEqual(out.read_bytes(), tokens[version])
        self.assertEqual(tokens[4], tokens[5])
        header = json.loads(tokens[5][8 : 8 + struct.unpack("<Q", tokens[5][:8])[0]])
        self.assertEqual(header["text_tokens"]["shape"], [3, 77, 512])
        outputs = {tokens[5]}
        for options in (["--layer", "-2"], ["--no-norm"], ["--layer", "0", "--no-norm"]):
            self.run_program("embed", *arguments, "--tokens", "--out", out, "--activation", "quick_gelu", *options)
            outputs.add(out.read_bytes())
        self.assertEqual(len(outputs), 4)

        wrapped, plain = self.folder / "wrapped", self.folder / "plain.npy"
        self.embed("--texts", self.captions, "--out", plain)
        shutil.copytree(self.model, wrapped, ignore=shutil.ignore_patterns("*.safetensors"))
        weights = wrapped / "open_clip_model.safetensors"
        for prefix, inner in (("module.", ""), ("_orig_mod.module.", ""), ("clip_model.", "_fsdp_wrapped_module."), ("base_model.model.", "")):
            write_checkpoint(weights, plan=((prefix + name.replace("resblocks.3.", "resblocks.3." + inner), shape) for name, shape in tensors()))
            result = self.run_program("embed", "--weights", wrapped, "--texts", self.captions, "--out", self.folder / "wrapped.npy")
            self.assertEqual((self.folder / "wrapped.npy").read_bytes(), plain.read_bytes())
            self.assertIn("are read without", result.stderr)
        # A model and its running average: the model, unless it is asked for.
        both = [("model." + name, shape) for name, shape in tensors()] + [("model_ema." + name, shape) for name, shape in tensors()]
        write_checkpoint(weights, plan=both)
        arguments = ["--weights", wrapped, "--texts", self.captions, "--out", self.folder / "ema.npy"]
        result = self.run_program("embed", *arguments)
        self.assertIn("that behind 'model.' is read", result.stderr.replace('"', "'"))
        self.assertEqual((self.folder / "ema.npy").read_bytes(), plain.read_bytes())
        self.run_program("embed", *arguments, "--prefix", "model_ema.")
        self.assertNotEqual((self.folder / "ema.npy").read_bytes(), plain.read_bytes())
        self.assertIn("model_ema.", self.run_program("embed", *arguments, "--prefix", "teacher", fails=True).stderr)
        # What does not fit is counted first, and listed ten at most.
        write_checkpoint(weights, plan=[(name, shape) for name, shape in tensors() if "ln_1" not in name and "visual" in name or "resblocks" not in name])
        error = self.run_program("embed", "--weights", wrapped, "--images", self.pictures, "--texts", self.captions, "--out", self.folder / "x.safetensors", fails=True)
        self.assertRegex(error.stderr.splitlines()[0], r"tandem|the config contradicts|tensors are missing")
        self.assertLess(len(error.stderr.splitlines()), 40)

    def test_an_image_tower_alone(self):
        """As transformers saves CLIPVisionModel: tokens, and no embeddings; captions cannot be asked for."""
        tower = self.folder / "image_encoder"
        tower.mkdir()

        def plan():
            yield from (("embeddings.class_embedding", [WIDTH]), ("embeddings.patch_embedding.weight", [WIDTH, 3, 32, 32]), ("embeddings.position_embedding.weight", [50, WIDTH]))
            yield from ((f"{norm}.{kind}", [WIDTH]) for norm in ("pre_layrnorm", "post_layernorm") for kind in ("weight", "bias"))
            for i in range(12):
                layer = f"encoder.layers.{i}."
                for name in ("q", "k", "v", "out"):
                    yield from ((f"{layer}self_attn.{name}_proj.weight", [WIDTH, WIDTH]), (f"{layer}self_attn.{name}_proj.bias", [WIDTH]))
                yield from ((f"{layer}layer_norm{n}.{kind}", [WIDTH]) for n in (1, 2) for kind in ("weight", "bias"))
                yield from ((layer + "mlp.fc1.weight", [4 * WIDTH, WIDTH]), (layer + "mlp.fc1.bias", [4 * WIDTH]))
                yield from ((layer + "mlp.fc2.weight", [WIDTH, 4 * WIDTH]), (layer + "mlp.fc2.bias", [WIDTH]))

        write_checkpoint(tower / "model.safetensors", plan=plan())
        (tower / "config.json").write_text(json.dumps({"model_type": "clip_vision_model", "patch_size": 32}))
        out = self.folder / "image_tokens.safetensors"
        self.run_program("embed", "--weights", tower, "--images", self.pictures / "0.png", "--out", out, "--tokens", "--layer", "-2")
        header = json.loads(out.read_bytes()[8 : 8 + struct.unpack("<Q", out.read_bytes()[:8])[0]])
        self.assertEqual(header["image_tokens"]["shape"], [1, 50, WIDTH])
        for program, arguments, message in (
            ("embed", ["--images", self.pictures, "--out", self.folder / "p.npy"], "expected a projection, which leads to embeddings"),
            ("embed", ["--images", self.pictures, "--tokens", "--layer", "13", "--out", self.folder / "p.npy"], "--layer: expected 0 to 12, or -1 to -13"),
            ("attention", ["--image", self.pictures / "0.png", "--text", "a", "--out", self.folder / "p.png"], "expected both towers of a model"),
            ("attention", ["--image", self.pictures / "0.png", "--layer", "12", "--out", self.folder / "p.png"], "--layer: expected a layer from -12 to 11"),
            ("embed", ["--images", self.pictures, "--tokens", "--activation", "gelu", "--out", self.folder / "p.npy"], "activation quick_gelu, as the config says"),
        ):
            self.assertIn(message, self.run_program(program, "--weights", tower, *arguments, fails=True).stderr)
        self.assertFalse(list(self.folder.glob("p.*")))

    def test_what_cannot_be_printed_is_no_success(self):
        arguments = ["--weights", self.model, "--images", self.pictures, "--labels", "a, b"]
        with open("/dev/full", "w") as full:
            result = subprocess.run([OPTIONS.program, "zero-shot", *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual(result.returncode, 1)
        self.assertIn("standard output: cannot be written", result.stderr)

    def test_shards_of_any_name_are_inputs(self):
        shards = self.folder / "shards"
        shutil.copytree(self.model, shards, ignore=shutil.ignore_patterns("*.safetensors"))
        write_checkpoint(shards / "part.weights")
        index = {"weight_map": {name: "part.weights" for name, _ in tensors()}}
        (shards / "model.safetensors.index.json").write_text(json.dumps(index))
        many, out = self.folder / "for_shards", self.folder / "sharded.safetensors"
        many.mkdir()
        for i in range(100):
            write_png(many / f"{i:03}.png", i, 8)
        self.killed(out, shards, "--images", many)
        with open(shards / "part.weights", "r+b") as file:
            file.seek(-1000, 2)
            file.write(bytes(8))
        error = self.run_program("embed", "--weights", shards, "--images", many, "--out", out, fails=True)
        self.assertIn("file part.weights", error.stderr)

    def test_a_scale_that_overflows_is_no_probability(self):
        model = self.folder / "hot"
        shutil.copytree(self.model, model, ignore=shutil.ignore_patterns("*.safetensors"))
        write_checkpoint(model / "open_clip_model.safetensors", scale=200.0)
        error = self.run_program("zero-shot", "--weights", model, "--images", self.pictures, "--labels", "a, b", fails=True)
        self.assertIn("logit_scale: expected the logarithm of a finite scale", error.stderr)

    def test_every_option_with_every_odd_value(self):
        """Each answer names the option or the path; nothing is taken for something else."""
        out = str(self.folder / "odd.safetensors")
        usual = {
            "embed": {"--weights": self.model, "--images": self.pictures, "--texts": self.captions, "--out": out},
            "zero-shot": {"--weights": self.model, "--images": self.pictures, "--labels": "a, b"},
            "attention": {"--weights": self.model, "--image": self.pictures / "0.png", "--out": self.folder / "odd.png"},
        }
        values = ("", "-1", "x", "1e99", str(self.folder), "/dev/null")
        # What these mean: a label, a caption, layers from the back, a name of a model in the file that is not there.
        sound = {("--layer", "-1"), ("--text", "-1"), ("--text", "x"), ("--text", "1e99"), ("--text", "/dev/null"), ("--text", str(self.folder)),
                 ("--images", str(self.folder)), ("--cache", "-1"), ("--cache", "x"), ("--cache", "1e99"), ("--cache", str(self.folder))}  # fmt: skip
        for program, options in usual.items():
            listing = self.run_program(program, "--help").stdout
            known = re.findall(r"^  (--[a-z-]+) +(\S+)", listing, re.M)
            self.assertGreater(len(known), 8)
            for option, value_name in known:
                if option in ("--tokens", "--no-norm", "--json", "--rollout", "--verify-cache"):
                    continue
                for value in values:
                    if (option, value) in sound:
                        continue
                    arguments = [str(part) for pair in (options | {option: value}).items() for part in pair]
                    if program == "embed" and option == "--layer":
                        arguments.append("--tokens")
                    result = subprocess.run([OPTIONS.program, program, *arguments], capture_output=True, text=True)
                    with self.subTest(program=program, option=option, value=value):
                        self.assertIn(result.returncode, (1, 2), result.stderr)
                        self.assertTrue(option in result.stderr or (value and value in result.stderr), result.stderr)
                        self.assertFalse(re.search(r"std::|stoi|bad_alloc|basic_", result.stderr), result.stderr)
            twice = [str(part) for pair in options.items() for part in pair] + ["--precision", "f32", "--precision", "bf16"]
            error = self.run_program(program, *twice, fails=True)
            self.assertIn("--precision: expected the option once", error.stderr)
        error = self.run_program("zero-shot", "--weights", self.model, "--images", self.pictures, "--labels", "labls.txt", fails=True)
        self.assertIn("no file labls.txt", error.stderr)
        error = self.run_program("zero-shot", "--weights", self.model, "--images", self.pictures, "--labels", "cat", fails=True)
        self.assertIn("two labels or more", error.stderr)
        (self.folder / "twice.txt").write_text("{} and {}\n")
        error = self.run_program("zero-shot", "--weights", self.model, "--images", self.pictures, "--labels", "a, b", "--templates", self.folder / "twice.txt", fails=True)  # fmt: skip
        self.assertIn("a template with {} once", error.stderr)

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
        error = self.run_program("embed", "--weights", other, "--images", self.pictures, "--out", self.folder / "y.npy", fails=True)
        self.assertIn("the config contradicts the tensors:\n  vision.layers: expected 11 (open_clip_config.json, model_cfg.vision_cfg.layers), found 12", error.stderr)
        (other / "open_clip_model.safetensors").unlink()
        write_checkpoint(other / "open_clip_model.safetensors", layers=11)
        error = self.run_program("embed", "--weights", other, "--images", self.pictures, "--out", self.folder / "y.npy", fails=True)
        self.assertIn("no architecture of the zoo fits", error.stderr)
        self.assertIn(".vision = td::VitConfig{.image = 224, .patch = 32, .width = 768, .layers = 11, .heads = 12}", error.stderr)
        (other / "bpe_simple_vocab_16e6.txt.gz").unlink()
        shutil.copy(self.model / "open_clip_config.json", other)
        (other / "open_clip_model.safetensors").unlink()
        (other / "open_clip_model.safetensors").symlink_to(weights)
        error = self.run_program("embed", "--weights", other, "--texts", self.captions, "--out", self.folder / "y.npy", fails=True)
        self.assertIn("expected a tokenizer beside the weights", error.stderr)

        for arguments, message in (
            (["--images", self.folder / "none.txt", "--out", "x.npy"], "none.txt"),
            (["--images", self.pictures, "--texts", self.captions, "--out", "x.npy"], "a .safetensors file for both"),
            (["--out", "x.npy"], "--images, --texts or both"),
            (["--images", self.pictures, "--out", "x.txt"], "a name that ends in"),
            (["--images", self.pictures, "--out", self.folder / "x.npy", "--precision", "f64"], "one of f32, bf16, int8"),
            (["--images", self.pictures, "--out", self.folder / "x.npy", "--threads", "0"], "a whole number from 1"),
            (["--image", "x"], "an option of --help"),
        ):
            self.assertIn(message, self.embed(*arguments, fails=True).stderr)

    def test_zero_shot(self):
        arguments = ["--weights", self.model, "--images", self.pictures, "--labels", "cat, dog, house", "--top", "2"]
        report = json.loads(self.run_program("zero-shot", *arguments, "--json").stdout)
        self.assertEqual(len(report), 5)
        for entry in report:
            shares = [label["probability"] for label in entry["labels"]]
            self.assertEqual(len(shares), 2)
            self.assertEqual(shares, sorted(shares, reverse=True))
            self.assertLessEqual(sum(shares), 1 + 1e-6)
        table = self.run_program("zero-shot", *arguments).stdout
        self.assertIn(report[0]["image"] + "\n", table)
        self.assertIn(f"{100 * report[0]['labels'][0]['probability']:.2f} %  {report[0]['labels'][0]['label']}\n", table)
        templates = self.folder / "templates.txt"
        templates.write_text("a photo of a {}.\na drawing of the {}.\n")
        ensemble = json.loads(self.run_program("zero-shot", *arguments, "--json", "--templates", templates).stdout)
        self.assertNotEqual(ensemble[0]["labels"], report[0]["labels"])
        templates.write_text("no hole\n")
        error = self.run_program("zero-shot", *arguments, "--templates", templates, fails=True)
        self.assertIn("a template with {} once", error.stderr)

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
    parser.add_argument("--program", required=True)
    parser.add_argument("--vocabulary", required=True)
    OPTIONS, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], *rest])

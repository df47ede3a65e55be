#!/usr/bin/env python3
"""The program train on shards, tables and folders made here: it learns, goes on after kills in the same bits, counts damage, and knows
open_clip's options, here or not.

usage: train_test.py --program FILE [--tandem FILE] [--recall FILE] [--kills N] [--saves N]
"""

import argparse
import bz2
import contextlib
import csv
import gzip
import json
import lzma
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import unittest
from pathlib import Path

from programs_test import png
from train_case import TrainCase, members, pair, write_shard


def events(data):
    """The scalars of a TensorBoard file, its checksums verified: (step, tag, value)."""
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)

    def masked(content):
        crc = 0xFFFFFFFF
        for byte in content:
            crc = crc >> 8 ^ table[(crc ^ byte) & 255]
        crc ^= 0xFFFFFFFF
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    def fields(content):
        at = 0

        def varint():
            nonlocal at
            value = shift = 0
            while True:
                byte = content[at]
                at += 1
                value |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    return value

        while at < len(content):
            key = varint()
            if key & 7 == 0:
                yield key >> 3, varint()
            elif key & 7 == 2:
                size = varint()
                yield key >> 3, content[at:at + size]
                at += size
            else:
                size = 8 if key & 7 == 1 else 4
                yield key >> 3, struct.unpack("<d" if size == 8 else "<f", content[at:at + size])[0]
                at += size

    at, found = 0, []
    while at < len(data):
        (size,) = struct.unpack("<Q", data[at:at + 8])
        assert struct.unpack("<I", data[at + 8:at + 12])[0] == masked(data[at:at + 8])
        content = data[at + 12:at + 12 + size]
        assert struct.unpack("<I", data[at + 12 + size:at + 16 + size])[0] == masked(content)
        event = dict(fields(content))
        if 5 in event:
            found += [(event.get(2, 0), value[1].decode(), value[2]) for value in (dict(fields(v)) for _, v in fields(event[5]))]
        at += 16 + size
    return found


class Train(TrainCase):
    kills, saves = 8, 0

    def test_learns_and_leaves_what_people_look_at(self):
        result = self.train("whole", "--aug-cfg", "scale=(0.8,1.0)", "hflip=0.1", val_data="val.tar", val_frequency=10, imagenet_val="classes", zeroshot_frequency=10,
                            epochs=30, log_every_n_steps=10, save_frequency=10, save_most_recent=True, grad_clip_norm=1)  # fmt: skip
        log = self.log("whole")
        reports = [line for line in log if "train/loss" in line]
        self.assertEqual([line["step"] for line in reports], list(range(10, 181, 10)))
        self.assertLess(reports[-1]["train/loss"], 0.7 * reports[0]["train/loss"])
        self.assertEqual(reports[-1]["train/lr"], min(line["train/lr"] for line in reports))
        for line in reports:
            self.assertTrue(0 <= line["train/waiting_for_data"] <= 1 and 0 < line["train/share_of_ceiling"] < 1 and line["train/samples_per_second"] > 0 and 1 <= line["train/scale"] <= 100)
        measured = [line for line in log if "val/image_to_text_R@10" in line]
        self.assertEqual([line["step"] for line in measured], list(range(60, 181, 60)))
        self.assertGreater(measured[-1]["val/text_to_image_R@10"], 0.5)  # 10 of 40 by chance
        self.assertIn("val/text_to_image_R@10", result.stdout)
        top = [line for line in log if "val/zeroshot-top1" in line]
        self.assertEqual([line["step"] for line in top], [60, 120, 180])
        self.assertGreater(top[-1]["val/zeroshot-top1"], 0.5)  # of twelve classes
        self.assertGreaterEqual(top[-1]["val/zeroshot-top5"], top[-1]["val/zeroshot-top1"])
        folder = self.run_folder("whole")
        self.assertEqual(sorted(path.name for path in (folder / "checkpoints").iterdir()),
                         ["epoch_10.safetensors", "epoch_20.safetensors", "epoch_30.safetensors", "epoch_latest.safetensors", "snapshot.safetensors"])
        self.assertEqual((folder / "checkpoints" / "epoch_30.safetensors").read_bytes(), self.weights("whole"))
        (record,) = folder.glob("events.out.tfevents.*")
        scalars = events(record.read_bytes())
        expected = [(line["step"], tag, value) for line in log for tag, value in line.items() if tag != "step"]
        self.assertEqual([(step, tag) for step, tag, _ in scalars], [(step, tag) for step, tag, _ in expected])
        for (_, _, found), (_, _, wanted) in zip(scalars, expected):
            self.assertAlmostEqual(found, wanted, delta=1e-6 * max(1, abs(wanted)))
        page = (folder / "report.html").read_text()
        for piece in ("train/loss", "val/image_to_text_R@1", "a ", "data:image/png;base64", "Step 180 of 180: done"):
            self.assertIn(piece, page)
        self.assertNotIn("http-equiv", page)
        if self.tandem:
            pictures = self.folder / "one"
            pictures.mkdir()
            (pictures / "p.png").write_bytes(pair(3)[0])
            self.run_command([self.tandem, "embed", "--weights", folder, "--images", pictures, "--out", self.folder / "rows.npy"])

    def test_goes_on_after_kills_in_the_same_bits(self):
        self.train("untouched", snapshot_steps=1)
        draw, kills, saves, runs = random.Random(1), 0, 0, 0
        while kills < self.kills or saves < self.saves:
            name, attempt, left = f"killed{runs}", 0, None
            runs += 1
            while True:
                command = self.command(name, snapshot_steps=1, resume="latest" if attempt else None)
                attempt += 1
                process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=self.folder)
                # Some of a run's time goes into listing, some into steps, some into saves.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(draw.uniform(0.02, 0.7) if attempt % 20 else None)
                process.kill()
                error = process.communicate()[1]
                if process.returncode == 0:
                    break
                self.assertEqual(process.returncode, -signal.SIGKILL, error)
                kills += 1
                # A save that was under way leaves what it has written.
                now = sorted((path.name, path.stat().st_mtime_ns) for path in self.run_folder(name).rglob("*.tandem-tmp"))
                saves += bool(now) and now != left
                left = now
            self.assertEqual(self.weights(name), self.weights("untouched"))
            self.assertEqual([line["step"] for line in self.log(name)], [line["step"] for line in self.log("untouched")])
            shutil.rmtree(self.run_folder(name))
        print(f"{kills} kills of {runs} runs, {saves} of them inside a save", file=sys.stderr)

    def test_a_signal_saves_and_has_an_exit_code_of_its_own(self):
        command = self.command("signal", epochs=100)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=self.folder)
        for line in process.stderr:
            if line.startswith("step 4/"):
                process.send_signal(signal.SIGTERM)
                break
        error = process.communicate()[1]
        self.assertEqual(process.returncode, 3, error)
        self.assertRegex(error, r"stopped at step \d+ of 600 and saved: --resume latest goes on")
        self.assertIn("stopped by a signal, to be resumed", (self.run_folder("signal") / "report.html").read_text())
        self.assertIn("--name: expected a run that is not there yet, or --resume latest", self.run_command(command, 2).stderr)
        self.assertIn("seed", self.run_command([*command, "--resume", "latest", "--seed", "5"], 1).stderr)

    def test_what_a_kill_may_leave_is_no_hindrance(self):
        folder = self.run_folder("half")
        (folder / "tokenizer").mkdir(parents=True)
        (folder / "tokenizer" / "vocab.json").write_text("{")
        (folder / "log.jsonl").write_text('{"step":2,"train/lo')
        self.train("half", resume="latest")
        self.assertEqual([line["step"] for line in self.log("half")], list(range(2, 19, 2)))
        page = (folder / "report.html").read_text()
        self.train("half", resume="latest")  # done already
        self.assertEqual((folder / "report.html").read_text(), page)

    def test_tables_and_folders_of_the_same_pairs_end_in_the_same_bits(self):
        self.train("shards")
        loose = self.folder / "loose"
        loose.mkdir()
        with (self.folder / "pairs.csv").open("w", newline="") as file:
            rows = csv.writer(file, delimiter=",")
            rows.writerow(["path", "text"])
            for number in range(120):
                picture, caption = pair(number)
                (loose / f"{number:05}.png").write_bytes(picture)
                (loose / f"{number:05}.txt").write_text(caption)
                rows.writerow([f"loose/{number:05}.png", caption])
        self.train("table", csv_separator=",", csv_img_key="path", csv_caption_key="text", data="pairs.csv")
        self.train("folder", data="loose", val_data="val.tar")
        self.assertEqual(self.weights("table"), self.weights("shards"))
        self.assertEqual(self.weights("folder"), self.weights("shards"))

    def test_sources_come_as_often_as_their_factors_say(self):
        result = self.train("mixed", data="a-000.tar::val.tar", train_data_upsampling_factors="0.5::2", tokenizer_data="a-{000..001}.tar", batch_size=16, epochs=2)
        self.assertIn("104 pairs to train on, 112 in an epoch", result.stderr)
        self.assertEqual(self.log("mixed")[-1]["step"], 14)
        words = json.loads((self.run_folder("mixed") / "tokenizer" / "vocab.json").read_text())
        self.train("of-all", data="a-{000..001}.tar", epochs=1)
        self.assertEqual(words, json.loads((self.run_folder("of-all") / "tokenizer" / "vocab.json").read_text()))

    def test_what_captions_find_by_language(self):
        pictures = self.folder / "seen"
        pictures.mkdir()
        rows = []
        for number in range(120, 150):
            picture, caption = pair(number)
            (pictures / f"{number}.png").write_bytes(picture)
            rows.append((pictures / f"{number}.png", caption))
        for name, shift in (("en", 0), ("sl", 7)):
            lines = [f"{path}\t{rows[(i + shift) % len(rows)][1]}" for i, (path, _) in enumerate(rows)]
            (self.folder / f"{name}.tsv").write_text("\n".join(["filepath\ttitle", *lines]) + "\n")
        self.train("found", val_data="en.tsv", epochs=8)
        before, after = self.folder / "before.tsv", self.folder / "after.tsv"
        before.write_text("en\t30\t0.3333\t0.3333\nsl\t30\t0.2000\t0.3000\n")
        after.write_text(self.run_command([self.recall, "logs/found", "en.tsv", "sl.tsv"]).stdout)
        english, other = (line.split("\t") for line in after.read_text().splitlines())
        measured = self.log("found")[-1]
        self.assertEqual(english, ["en", "30", f"{measured['val/text_to_image_R@10']:.4f}", f"{measured['val/image_to_text_R@10']:.4f}"])
        # Captions of other pictures find less.
        self.assertLess(float(other[2]) + 0.2, float(english[2]))
        self.assertIn("nothing.tsv", self.run_command([self.recall, "logs/found", "nothing.tsv"], 1).stderr)
        self.assertIn("usage: recall", self.run_command([self.recall], 2).stderr)
        report = Path(__file__).resolve().parents[2] / "examples" / "multilingual" / "report.py"
        command = [sys.executable, report, "--before", before, "--after", after, "--out", "languages.html", "--names", "nowhere.xml"]
        table = self.run_command(command).stdout
        self.assertRegex(table, r"\nen +30 +33\.3 % +" + re.escape(f"{100 * float(english[2]):.1f} %"))
        self.assertRegex(table, r"\nmean of 1 languages +20\.0 %")
        self.assertIn("<svg", (self.folder / "languages.html").read_text())
        before.write_text("en\t30\t0.3333\t0.3333\n")
        self.assertIn("expected the languages of", self.run_command(command, 1).stderr)

    def test_shards_are_made_of_folders_and_tables(self):
        maker, loose = str(Path(self.program).with_name("make_shards")), self.folder / "many"
        loose.mkdir()
        lines = []
        for number in range(7):
            picture, caption = pair(number)
            (loose / f"{number}.png").write_bytes(picture)
            lines += [f"{number}.png\t{caption}"] * (1 if number else 2)
        (loose / "x.png").write_bytes(b"no picture")
        (loose / "captions.tsv").write_text("\n".join([*lines, "x.png\tno picture", "gone.png\tgone", ""]))
        result = self.run_command([maker, "many", "--out", "made", "--pairs", "3"])
        self.assertIn("7 pairs in 3 shards: train --train-data 'made/{000000..000002}.tar'", result.stdout)
        self.assertIn("left out 1: missing picture", result.stderr)
        self.assertIn("left out 1: picture that is no JPEG, PNG or WebP", result.stderr)
        found = {}
        for shard in sorted((self.folder / "made").glob("*.tar")):
            version, *samples = shard.with_suffix(".idx").read_text().splitlines()
            self.assertEqual(version, f"v1.2 {len(samples)}")
            with tarfile.open(shard) as archive:
                places = []
                for member in archive:
                    found[member.name] = archive.extractfile(member).read()
                    places.append((member.name.split(".", 1)[1], str(member.offset_data), str(member.size), member.name))
            words = " ".join(samples).split(" ")
            self.assertEqual(list(zip(*[iter(words)] * 4, strict=True)), places)
        self.assertEqual(found["000000001.txt"], pair(1)[1].encode())
        self.assertEqual(found["000000006.png"], pair(6)[0])
        self.assertEqual(json.loads(found["000000000.json"]), {"captions": [pair(0)[1]] * 2})
        self.assertEqual(len(found), 14)
        self.assertIn("--out: expected a folder that is empty", self.run_command([maker, "many", "--out", "made"], 2).stderr)
        self.train("of-made", data="made/{000000..000002}.tar", batch_size=7)
        # Shards of shards, compressed ones among them.
        for number, packed in enumerate((gzip.compress, bz2.compress, lzma.compress)):
            ending = ("gz", "bz2", "xz")[number]
            (self.folder / f"packed{number}.tar.{ending}").write_bytes(packed((self.folder / "made" / f"00000{number}.tar").read_bytes()))
        result = self.run_command([maker, "packed0.tar.gz::packed1.tar.bz2::packed2.tar.xz::made/000000.tar", "--out", "again", "--pairs", "4"])
        self.assertIn("10 pairs in 3 shards", result.stdout)
        self.assertEqual(sorted(path.name for path in (self.folder / "again").iterdir()), [f"00000{i}.{ending}" for i in range(3) for ending in ("idx", "tar")])
        again = {}
        for shard in (self.folder / "again").glob("*.tar"):
            with tarfile.open(shard) as archive:
                again |= {member.name: archive.extractfile(member).read() for member in archive}
        self.assertEqual({name: again[name] for name in found}, found)
        self.assertEqual(again["000000009.png"], found["000000002.png"])
        write_shard(self.folder / "long.tar", [*members(range(3)), ("z.bin", random.Random(1).randbytes(600_000))])
        (self.folder / "cut.tar.gz").write_bytes(gzip.compress((self.folder / "long.tar").read_bytes())[:500_000])
        result = self.run_command([maker, "cut.tar.gz", "--out", "cut"])
        self.assertIn("3 pairs in 1 shards", result.stdout)
        self.assertRegex(result.stderr, r"cut.tar.gz: damaged behind \d+ bytes of what it holds: ")
        self.assertRegex(result.stderr, r"left out 1: damaged shard: the archive is cut off .*: cut.tar.gz \(1\)")
        (self.folder / "plain.tar.gz").write_bytes((self.folder / "made" / "000000.tar").read_bytes())
        self.assertIn("found a file that is not compressed", self.run_command([maker, "packed0.tar.gz::plain.tar.gz", "--out", "plain"], 1).stderr)
        self.assertIn("found no file", self.run_command([maker, "gone.tar.gz", "--out", "plain"], 1).stderr)
        self.assertFalse(any((self.folder / "plain").iterdir()))
        (self.folder / "odd{.tar").mkdir()
        (self.folder / "odd{.tar" / "a.png").write_bytes(pair(1)[0])
        (self.folder / "odd{.tar" / "a.txt").write_text("a picture")
        self.assertIn("1 pairs in 1 shards", self.run_command([maker, "odd{.tar", "--out", "odd"]).stdout)
        self.assertIn("packed0.tar.gz: expected shards that are not compressed", self.run_command(self.command("packed", data="packed0.tar.gz"), 2).stderr)
        mixed = [self.run_command([maker, "many", "--out", f"mixed{i}", "--shuffle", "3"]) and (self.folder / f"mixed{i}" / "000000.tar").read_bytes() for i in range(2)]
        self.assertEqual(mixed[0], mixed[1])

    def test_batches_in_parts_and_other_recipes(self):
        def losses(name):
            return [line["train/loss"] for line in self.log(name)]

        self.train("direct", log_every_n_steps=1)
        self.train("parts", log_every_n_steps=1, accum_freq=4, batch_size=5)
        self.assertEqual(losses("parts"), losses("direct"))
        self.assertEqual(self.weights("parts"), self.weights("direct"))
        for name, options in {"lion": {"opt": "lion", "lr": 3e-4}, "sgd": {"opt": "sgd", "lr": 0.05}, "amp": {"precision": "amp_bf16"}, "stable": {"opt": "stableadamw", "ema_decay": 0.9},
                              "constant": {"lr_scheduler": "const-cooldown", "epochs_cooldown": 1, "warmup": 2}}.items():  # fmt: skip
            self.train(name, **options)
            self.assertEqual(self.log(name)[-1]["step"], 18)
            self.assertLess(losses(name)[-1], losses(name)[0])
        rates = [line["train/lr"] for line in self.log("constant")]
        self.assertEqual(rates[:6], [0.002] * 6)
        self.assertLess(rates[-1], 0.001)
        averaged = (self.run_folder("stable") / "model_ema.safetensors").read_bytes()
        self.assertEqual(len(averaged), len(self.weights("stable")))
        self.assertNotEqual(averaged, self.weights("stable"))
        self.train("locked", pretrained="logs/direct", lock_image=True, lock_text=True)
        before, after = dict(self.tensors("direct")), dict(self.tensors("locked"))
        for file in ("vocab.json", "merges.txt"):
            self.assertEqual(*((self.run_folder(name) / "tokenizer" / file).read_bytes() for name in ("direct", "locked")))
        self.assertEqual([name for name in before if before[name] != after[name]], ["logit_scale"])
        self.train("groups", pretrained="logs/direct", lock_image=True, lock_image_unlocked_groups=2, lock_text=True)
        after = dict(self.tensors("groups"))
        changed = sorted(name for name in before if before[name] != after[name])
        self.assertTrue(all(re.match(r"logit_scale|visual\.(transformer\.resblocks\.3\.|ln_post|proj)", name) for name in changed), changed)
        self.assertIn("visual.proj", changed)
        self.assertIn("visual.ln_post.weight", changed)
        self.train("last", pretrained="logs/direct", lock_image=True, lock_text=True, lock_text_unlocked_layers=1)
        after = dict(self.tensors("last"))
        self.assertEqual(sorted(name for name in before if before[name] != after[name]), ["logit_scale", "text_projection"])
        # Blocks computed again: the same bits.
        self.train("again", log_every_n_steps=1, grad_checkpointing=True)
        self.train("some", log_every_n_steps=1, grad_checkpointing_blocks=2)
        for name in ("again", "some"):
            self.assertEqual(self.weights(name), self.weights("direct"))
        self.train("decay", log_every_n_steps=1, image_layer_decay=0.5, text_layer_decay=1e-3)
        self.assertNotEqual(self.weights("decay"), self.weights("direct"))
        self.train("noise", data=None, dataset_type="synthetic", train_num_samples=60)

    def test_distils_and_knows_captions_that_repeat(self):
        self.train("teacher")
        taught = {"distill_pretrained": "logs/teacher", "distill_model": "quickstart", "tokenizer": "logs/teacher", "same_captions": "ignored",
                  "opt": "muon", "log_every_n_steps": 1}  # fmt: skip
        self.train("student", **taught)
        losses = [line["train/loss"] for line in self.log("student") if "train/loss" in line]
        self.assertEqual(len(losses), 18)
        self.assertLess(losses[-1], losses[0] - 1)
        self.train("smoothed", label_smoothing=0.1)
        self.assertIn("% of the ceiling", self.train("student-again", **taught).stderr)
        self.assertEqual(self.weights("student-again"), self.weights("student"))
        # The whole loss and the teacher's weights belong to what a run depends on.
        self.train("student-again", resume="latest", **taught)
        self.assertIn("loss", self.train("student-again", resume="latest", **taught | {"same_captions": "positives"}, code=1).stderr)
        self.train("other-teacher", epochs=1, tokenizer="logs/teacher")
        self.assertIn("loss", self.train("student-again", resume="latest", **taught | {"distill_pretrained": "logs/other-teacher"}, code=1).stderr)
        result = self.train("words", data="val.tar", **taught | {"tokenizer": None}, code=2)
        self.assertIn("--distill-pretrained: expected a model that reads captions as the same ids", result.stderr)
        result = self.train("sizes", model="vit_b_32", **taught | {"distill_model": None}, code=2)
        self.assertIn("--distill-pretrained: expected a model of 224 pixels and 77 ids, as the one that is trained, found 48 pixels and 24 ids", result.stderr)

    def tensors(self, name):
        data = self.weights(name)
        (size,) = struct.unpack("<Q", data[:8])
        for key, entry in json.loads(data[8:8 + size]).items():
            if key != "__metadata__":
                begin, end = entry["data_offsets"]
                yield key, data[8 + size + begin:8 + size + end]

    def test_damage_is_counted_and_changes_nothing_else(self):
        damaged = list(members(range(64)))
        damaged[8:8] = [("x.png", b"<html>"), ("x.txt", b"a page"), ("y.txt", b"alone")]
        damaged += [("half.png", pair(3)[0][:200]), ("half.txt", b"half a picture")]
        write_shard(self.folder / "bad.tar", damaged)
        (self.folder / "cut.tar").write_bytes((self.folder / "a-001.tar").read_bytes()[:60000])
        result = self.train("bad", data="bad.tar::cut.tar")
        for piece in ("left out 1: picture that is no JPEG, PNG or WebP: bad.tar (1)", "left out 1: no picture of a known ending: bad.tar (1)",
                      "left out 1: damaged picture: bad.tar (1)", "damaged shard: "):
            self.assertIn(piece, result.stderr)
        self.assertEqual(result.stderr.count("left out"), 4)
        strict = self.train("strict", strict=True, data="bad.tar", code=1)
        self.assertIn("bad.tar: x: picture that is no JPEG, PNG or WebP", strict.stderr)
        gone = self.train("gone", data="nowhere.tar", code=1)
        self.assertIn("nowhere.tar: cannot open: No such file or directory", gone.stderr)
        (self.folder / "empty").mkdir()
        self.assertIn("expected pairs of a picture and a caption, found none", self.train("empty", data="empty", code=1).stderr)

    def test_wrong_options_are_refused_before_anything_is_begun(self):
        for words, sentence in (
            (["--workers", "8"], "--workers: open_clip has it, this program not: leave it out"),
            (["--torchcompile"], "--torchcompile: open_clip has it, this program not"),
            (["--distill-model", "ViT-B-32"], "--distill-model: expected --distill-pretrained beside it, found none"),
            (["--label-smoothing", "0.1", "--same-captions", "positives"], "--label-smoothing: expected none beside --same-captions positives, whose labels are others, found 0.1"),
            (["--siglip", "--label-smoothing", "0.1"], "--label-smoothing: expected none with --siglip"),
            (["--train-data-upsampling-factors", "1::0"], "--train-data-upsampling-factors: expected numbers above 0, at most 1000, with :: between them, found 1::0"),
            (["--train-data-upsampling-factors", "1::2"], "--train-data-upsampling-factors: expected a factor for each of the 1 sources in --train-data, found 2"),
            (["--tokenizer", ".", "--tokenizer-data", "."], "--tokenizer-data: expected neither --tokenizer nor --pretrained beside it"),
            (["--nonsense"], "--nonsense: expected an option of --help, found none of that name"),
            (["--batch-size", "0"], "--batch-size: expected a whole number from 1"),
            (["--batch-size", "121"], "--batch-size: expected at most 120 pairs in a batch"),
            (["--warmup", "19"], "--warmup: expected at most the run's 18 steps, found 19"),
            (["--siglip"], "--siglip: expected an architecture with .logit_bias = true, found it"),
            (["--model", "ViT-L-99"], "--model: expected one of architecture|vit_b_32"),
            (["--momentum", "0.9"], "--momentum: expected an option of --opt adamw"),
            (["--aug-cfg", "re_prob=0.1"], "--aug-cfg: expected scale=(low,high)"),
            (["--aug-cfg", "color_jitter=(0.1,0.1)", "color_jitter_prob=0.8"], "--aug-cfg color_jitter: expected four numbers"),
            (["--aug-cfg", "color_jitter=(0.1,0.1,0.1,0.1)"], "--aug-cfg: expected color_jitter=(b,c,s,h) and color_jitter_prob=share together, found one of them"),
            (["--aug-cfg", "gray_scale_prob=2"], "--aug-cfg gray_scale_prob: expected a number from 0 to 1, found 2"),
            (["--aug-cfg", "scale=(2,3)"], "--aug-cfg scale: expected shares of the area"),
            (["--resume", "epoch_3.pt"], "--resume: expected latest"),
            (["--lr-scheduler", "const-cooldown"], "--epochs-cooldown: expected it and --lr-scheduler const-cooldown together"),
            (["--lock-image-unlocked-groups", "2"], "--lock-image-unlocked-groups: expected --lock-image beside it"),
            (["--lock-text-unlocked-layers", "2"], "--lock-text-unlocked-layers: expected --lock-text beside it"),
            (["--text-layer-decay", "0"], "--text-layer-decay: expected a number above 0, at most 1, found 0"),
            (["--image-layer-decay", "1.1"], "--image-layer-decay: expected a number from 0 to 1, found 1.1"),
            (["--imagenet-val", "numbers"], "--imagenet-val: expected folders that are named by what they show"),
            (["--lr-scheduler", "const-cooldown", "--epochs-cooldown", "1", "--lr-cooldown-end", "1"], "--lr-cooldown-end: expected a rate of at most --lr"),
            (["--bucket-pool", "3"], "--bucket-pool: open_clip has it, this program not"),
            (["--csv-separator", "ab"], "--csv-separator: expected one character"),
        ):
            result = self.train("wrong", *words, code=1 if words[0] == "--imagenet-val" else 2, **{words[0][2:].replace("-", "_"): None})
            self.assertIn(sentence, result.stderr)
            shutil.rmtree(self.run_folder("wrong"), ignore_errors=True)
        self.train("spelled", "--aug-cfg", "scale=(0.5, 1.0)", "ratio=(0.8,1.2)", "color_jitter=(0.32, 0.32, 0.32, 0.08)", "color_jitter_prob=0.8", "gray_scale_prob=0.2", opt="timm/lion", val_frequency=0, save_frequency=0)
        self.assertEqual([path.name for path in (self.run_folder("spelled") / "checkpoints").iterdir()], ["snapshot.safetensors"])
        self.assertIn("--train-data", self.run_command([self.program, "--help"]).stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", required=True)
    parser.add_argument("--tandem")
    parser.add_argument("--recall")
    parser.add_argument("--kills", type=int, default=Train.kills, help="how many in the test of kills, at least")
    parser.add_argument("--saves", type=int, default=Train.saves, help="how many of them inside a save, at least")
    options, rest = parser.parse_known_args()
    Train.program = str(Path(options.program).resolve())
    Train.kills, Train.saves = options.kills, options.saves
    Train.tandem = options.tandem and str(Path(options.tandem).resolve())
    Train.recall = options.recall and str(Path(options.recall).resolve())
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)

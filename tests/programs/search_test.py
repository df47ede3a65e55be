#!/usr/bin/env python3
"""tandem index, search and serve on a small model and pictures made here: what they find, and how they take what is wrong.

usage: search_test.py --program FILE [--kills N]      default: 12 kills of indexer and server at random moments
"""

import argparse
import concurrent.futures
import http.client
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
import unittest
import urllib.parse
from pathlib import Path

from program_case import ProgramCase
from small_model import picture, write_model

OPTIONS = None


class Case(ProgramCase):
    def setUp(self):
        self.empty_pictures()
        self.database = self.folder / "pictures.db"
        for file in self.folder.glob("pictures.db*"):
            file.unlink()

    def run_program(self, *arguments, fails=False, **options):
        result = self.run_anyway(*arguments, **options)
        self.assertEqual(result.returncode != 0, fails, result.stderr)
        return result

    def index(self, *arguments, fails=False):
        return self.run_program("index", self.pictures, "--database", self.database, *arguments, fails=fails)

    def counts(self, *arguments):
        """added, changed, moved, copies, removed, unchanged, left out"""
        return [int(part.split()[0]) for part in self.index(*arguments).stdout.split(";")[0].split(", ")]

    def search(self, *query):
        return json.loads(self.run_program("search", *query, "--database", self.database, "--json").stdout)

    def rows(self, sql):
        with sqlite3.connect(self.database) as connection:
            return connection.execute(sql).fetchall()

    def check_whole(self):
        """Whatever happened: every picture without an error has a vector, a thumbnail and words, and nothing else has."""
        self.assertEqual(self.rows("PRAGMA integrity_check"), [("ok",)])
        for table, key in (("vector", "id"), ("thumbnail", "id"), ("words", "rowid")):
            differ = f"SELECT count(*) FROM (SELECT id FROM picture WHERE error = '' EXCEPT SELECT {key} FROM {table})"
            self.assertEqual(self.rows(differ), [(0,)], table)
            self.assertEqual(self.rows(f"SELECT count(*) FROM (SELECT {key} FROM {table} EXCEPT SELECT id FROM picture WHERE error = '')"), [(0,)], table)
        self.assertEqual(self.rows("SELECT count(*) FROM vector WHERE length(value) <> 512"), [(0,)])


class Indexing(Case):
    def test_a_folder_is_followed(self):
        for i in range(40):
            (self.pictures / f"{i}.png").write_bytes(picture(i))
        (self.pictures / "sub").mkdir()
        (self.pictures / "sub" / "twin.png").write_bytes(picture(3))
        (self.pictures / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
        (self.pictures / "notes.md").write_text("no picture")
        first = self.index()
        self.assertEqual(first.stdout.split(";")[0], "40 added, 0 changed, 0 moved, 1 copies, 0 removed, 0 unchanged, 1 left out")
        self.assertIn(f"left out: {self.pictures}/torn.jpg: ", first.stderr)
        self.assertIn("not read: 1 files that are no pictures", first.stderr)
        self.assertIn("too few captions", first.stderr)
        self.check_whole()
        before = dict(self.rows("SELECT path, value FROM picture JOIN vector USING(id)"))
        self.assertEqual(before[str(self.pictures / "3.png")], before[str(self.pictures / "sub" / "twin.png")])

        again = self.index()
        self.assertEqual(again.stdout.split(";")[0], "0 added, 0 changed, 0 moved, 0 copies, 0 removed, 41 unchanged, 1 left out")
        self.assertIn("torn.jpg", again.stderr)  # every time

        ids = dict(self.rows("SELECT path, id FROM picture"))
        with sqlite3.connect(self.database) as connection:
            connection.execute("INSERT INTO tag VALUES(?, 'mine', 1)", [ids[str(self.pictures / "5.png")]])
        (self.pictures / "5.png").rename(self.pictures / "sub" / "five.png")
        (self.pictures / "6.png").write_bytes(picture(600))
        (self.pictures / "7.png").unlink()
        (self.pictures / "torn.jpg").write_bytes(picture(700))
        self.assertEqual(self.counts(), [0, 2, 1, 0, 1, 38, 0])  # what could not be read is there now
        self.check_whole()
        moved = self.rows(f"SELECT id FROM picture WHERE path = '{self.pictures}/sub/five.png'")
        self.assertEqual(moved, [(ids[str(self.pictures / "5.png")],)])
        self.assertEqual(len(self.search("x", "--tag", "mine")["results"]), 1)
        after = dict(self.rows("SELECT path, value FROM picture JOIN vector USING(id)"))
        self.assertEqual(after[str(self.pictures / "sub" / "five.png")], before[str(self.pictures / "5.png")])
        self.assertNotEqual(after[str(self.pictures / "6.png")], before[str(self.pictures / "6.png")])
        self.assertEqual(self.rows("SELECT count(*) FROM picture WHERE path LIKE '%/7.png'"), [(0,)])

    def test_another_folder_is_left_alone(self):
        (self.pictures / "a.png").write_bytes(picture(1))
        other = self.folder / "pictures2"  # begins with the first one's name
        other.mkdir(exist_ok=True)
        (other / "b.png").write_bytes(picture(2))
        self.run_program("index", self.pictures, other, "--database", self.database)
        (self.pictures / "a.png").unlink()
        (self.pictures / "c.png").write_bytes(picture(3))
        self.assertEqual(self.counts(), [1, 0, 0, 0, 1, 0, 0])
        self.assertEqual(self.rows("SELECT count(*) FROM vector"), [(2,)])
        # A disk that is not there empties nothing.
        self.run_program("index", self.folder / "none", "--database", self.database, fails=True)
        (self.pictures / "c.png").unlink()
        self.assertIn("expected a JPEG, PNG or WebP picture", self.index(fails=True).stderr)
        self.assertEqual(self.rows("SELECT count(*) FROM vector"), [(2,)])
        shutil.rmtree(other)

    def test_words_of_all_sources(self):
        (self.pictures / "trip").mkdir()
        (self.pictures / "trip" / "one.png").write_bytes(picture(1, taken="2021:05:06 07:08:09"))
        (self.pictures / "two.png").write_bytes(picture(2, keywords=["Hagebuttentee", "Käse & Brot"]))
        (self.pictures / "three.png").write_bytes(picture(3, taken="2019:01:02 03:04:05"))
        (self.pictures / "three.txt").write_text("a quiet harbour\n")
        (self.pictures / "captions.tsv").write_text("trip/one.png\tthe blue lighthouse\ntrip/one.png\tthe blue lighthouse\nno tab\n")
        self.assertIn("captions.tsv: 1 lines", self.index().stderr)
        find = lambda *query: [Path(found["path"]).name for found in self.search(*query, "--by", "words")["results"]]
        self.assertEqual(find("lighthouses"), ["one.png"])  # stems
        self.assertEqual(find("hagebuttentee"), ["two.png"])
        self.assertEqual(find("kase"), ["two.png"])  # without its dots
        self.assertEqual(find("harbour"), ["three.png"])
        self.assertEqual(find("trip"), ["one.png"])
        self.assertEqual(find("nothing"), [])
        self.assertEqual(self.search("lighthouse", "--by", "words")["results"][0]["caption"], "the blue lighthouse")
        dates = {Path(found["path"]).name: found["date"] for found in self.search("x")["results"]}
        self.assertEqual(dates["one.png"], "2021-05-06 07:08:09")
        self.assertEqual([Path(found["path"]).name for found in self.search("x", "--before", "2020")["results"]], ["three.png"])
        self.assertEqual({Path(found["path"]).name for found in self.search("x", "--after", "2021-05-06")["results"]}, {"one.png", "two.png"})
        self.assertEqual([Path(found["path"]).name for found in self.search("x", "--word", "quiet")["results"]], ["three.png"])
        # Words that are written anew are found without embedding anew.
        (self.pictures / "three.txt").write_text("a loud market\n")
        self.assertEqual(self.counts(), [0, 1, 0, 0, 0, 2, 0])
        self.assertEqual(find("market"), ["three.png"])
        self.assertEqual(find("harbour"), [])
        self.check_whole()

    def test_odd_names(self):
        names = ["a b.png", "quote'\".png", "<script>.png", "new\nline.png", "-rf.png", "ünïcode.png", "%2e%2e.png", "id:1.png"]
        for i, name in enumerate(names):
            (self.pictures / name).write_bytes(picture(i))
        with open(bytes(self.pictures) + b"/\xff\xfe.png", "wb") as file:
            file.write(picture(99))
        self.assertEqual(self.counts()[0], 9)
        self.assertEqual(self.counts()[5], 9)
        found = self.search("x", "--limit", "100")["results"]
        self.assertLessEqual({str(self.pictures / name) for name in names}, {one["path"] for one in found})
        sheet = self.folder / "sheet.html"
        self.run_program("search", "<b>", "--database", self.database, "--contact-sheet", sheet)
        page = sheet.read_text(errors="replace")
        self.assertNotIn("<script", page)
        self.assertNotIn("<b>", page)
        self.assertIn("&lt;script&gt;.png", page)
        self.assertEqual(page.count("data:image/jpeg;base64,"), 9)

    def test_another_model_is_refused(self):
        (self.pictures / "a.png").write_bytes(picture(1))
        self.index()
        other = self.folder / "other"
        write_model(other, rotated=9)
        error = self.index("--weights", other, fails=True).stderr
        self.assertIn("whose vectors have another meaning", error)
        self.assertIn("--again", error)
        self.run_program("search", "x", "--database", self.database, "--weights", other, fails=True)
        before = self.rows("SELECT value FROM vector")
        with sqlite3.connect(self.database) as connection:
            connection.execute("INSERT INTO tag SELECT id, 'mine', 1 FROM picture")
        self.assertEqual(self.counts("--weights", other, "--again")[:2], [1, 0])
        self.assertNotEqual(self.rows("SELECT value FROM vector"), before)
        self.assertEqual(len(self.search("x", "--tag", "mine")["results"]), 1)  # which knows its model by now
        self.check_whole()

    def test_a_killed_run_goes_on(self):
        for i in range(160):
            (self.pictures / f"{i}.png").write_bytes(picture(i, side=200))
        draw = random.Random(7)
        for _ in range(OPTIONS.kills):
            process = subprocess.Popen([self.program, "index", self.pictures, "--database", self.database],
                                       cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
            time.sleep(draw.uniform(0, 0.15))
            process.kill()
            process.wait()
            if self.database.exists() and self.rows("SELECT count(*) FROM sqlite_master WHERE name = 'words'") == [(1,)]:
                self.check_whole()
        kept = self.rows("SELECT count(*) FROM vector")[0][0] if self.database.exists() else 0
        counts = self.counts()
        self.assertEqual(counts[5], kept)
        self.assertEqual(counts[0], 160 - kept)
        self.check_whole()
        self.assertEqual(self.rows("SELECT count(DISTINCT path) FROM picture JOIN vector USING(id)"), [(160,)])

    def test_pictures_that_change_places(self):
        for i in range(4):
            (self.pictures / f"{i}.png").write_bytes(picture(i))
        self.index()
        before = dict(self.rows("SELECT path, value FROM picture JOIN vector USING(id)"))
        names = [self.pictures / f"{i}.png" for i in range(4)]
        contents = [name.read_bytes() for name in names]
        names[0].write_bytes(contents[1])
        names[1].write_bytes(contents[0])
        (self.pictures / "new.png").write_bytes(contents[2])
        names[2].write_bytes(picture(9))
        result = self.index()
        self.assertNotIn("left out:", result.stderr)
        self.check_whole()
        after = dict(self.rows("SELECT path, value FROM picture JOIN vector USING(id)"))
        self.assertEqual(after[str(names[0])], before[str(names[1])])
        self.assertEqual(after[str(names[1])], before[str(names[0])])
        self.assertEqual(after[str(self.pictures / "new.png")], before[str(names[2])])
        self.assertEqual(self.counts()[5:], [5, 0])

    def test_what_cannot_be_looked_at_is_kept(self):
        away = self.folder / "away"
        away.mkdir(exist_ok=True)
        (away / "a.png").write_bytes(picture(1))
        (self.pictures / "b.png").write_bytes(picture(2))
        (self.pictures / "link.png").symlink_to(away / "a.png")
        self.index()
        self.run_program("serve", "--database", self.folder / "none.db", fails=True)
        with sqlite3.connect(self.database) as connection:
            connection.execute("INSERT INTO tag SELECT id, 'mine', 1 FROM picture")
        away.rename(self.folder / "unplugged")
        self.assertEqual(self.counts()[4], 0)
        (self.folder / "unplugged").rename(away)
        self.counts()
        self.assertEqual(len(self.search("x", "--tag", "mine")["results"]), 2)
        os.mkfifo(self.pictures / "b.txt")  # is no caption, and nothing to wait for
        self.assertEqual(self.counts()[5], 2)
        shutil.rmtree(away)

    def test_embedding_anew_needs_all_folders(self):
        (self.pictures / "a.png").write_bytes(picture(1))
        other = self.folder / "more"
        other.mkdir(exist_ok=True)
        (other / "b.png").write_bytes(picture(2))
        self.run_program("index", self.pictures, other, "--database", self.database)
        error = self.index("--again", fails=True).stderr
        self.assertIn(f"all folders of the catalogue, for another model's vectors would be lost, found none of {other}/b.png", error)
        self.check_whole()
        self.run_program("index", self.pictures, other, "--database", self.database, "--again")
        self.check_whole()
        shutil.rmtree(other)

    def test_an_unfinished_beginning(self):
        (self.pictures / "a.png").write_bytes(picture(1))
        self.database.touch()
        self.assertEqual(self.counts()[0], 1)
        self.database.unlink()
        sqlite3.connect(self.database).execute("PRAGMA journal_mode = WAL").connection.close()
        self.assertEqual(self.counts()[0], 1)
        # Captions that a killed run has not learned from yet.
        for i in range(400):
            (self.pictures / f"{i}.png").write_bytes(picture(i))
            (self.pictures / f"{i}.txt").write_text(f"word{i % 60} thing")
        self.assertIn("relevance: ", self.index().stderr)
        self.assertNotIn("relevance: ", self.index().stderr)
        with sqlite3.connect(self.database) as connection:
            connection.execute("INSERT OR REPLACE INTO about VALUES('relevance.stale', '1')")
        self.assertIn("relevance: ", self.index().stderr)

    def test_two_at_once(self):
        for i in range(64):
            (self.pictures / f"{i}.png").write_bytes(picture(i))
        runs = [subprocess.Popen([self.program, "index", self.pictures, "--database", self.database], cwd=self.folder,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(3)]  # fmt: skip
        for run in runs:
            error = run.communicate()[1]
            self.assertEqual(run.returncode, 0, error)
        self.check_whole()
        self.assertEqual(self.rows("SELECT count(*) FROM vector"), [(64,)])

    def test_wrong_use(self):
        (self.pictures / "a.png").write_bytes(picture(1))
        self.assertIn("catalogue, which tandem index makes", self.run_program("search", "x", "--database", self.database, fails=True).stderr)
        sqlite3.connect(self.database).execute("CREATE TABLE mine(x)").connection.close()
        self.assertIn("another database", self.index(fails=True).stderr)
        self.database.write_text("no database at all, whatever its name is")
        self.assertIn(str(self.database), self.index(fails=True).stderr)
        self.database.unlink()
        self.index()
        for query, message in ((["a +"], "a text or a picture for every term"), (["id:99"], "the number of a picture"),
                               (["x", "--sort", "size"], "one of relevance, date, name"), (["x", "--after", "May"], "YYYY"), (["x", "--after", "2024-13"], "YYYY"), (["x", "--before", "2024-12-32"], "YYYY"),
                               (["x", "--word", "!"], "expected a word"), (["dog - dog"], "terms that cancel"),
                               ([str(self.pictures / "a.png"), "--limit", "0"], "a whole number")):  # fmt: skip
            self.assertIn(message, self.run_program("search", *query, "--database", self.database, fails=True).stderr)


class Searching(Case):
    def test_pictures_find_themselves(self):
        for i in range(30):
            (self.pictures / f"{i}.png").write_bytes(picture(i))
        self.index()
        asked = self.pictures / "11.png"
        found = self.search(asked)["results"]
        self.assertEqual(found[0]["path"], str(asked))
        same = self.search(f"id:{found[0]['id']}")["results"]
        self.assertEqual([one["path"] for one in same], [one["path"] for one in found])
        # Less of a picture brings it down.
        less = self.search(f"{self.pictures / '12.png'} - 0.8:id:{found[0]['id']}", "--limit", "30")["results"]
        places = [one["path"] for one in self.search(self.pictures / "12.png", "--limit", "30")["results"]]
        self.assertGreater([one["path"] for one in less].index(str(asked)), places.index(str(asked)))
        # What the model does not read of a text, it is said.
        long = self.run_program("search", "dog " * 20, "--database", self.database).stderr
        self.assertIn("longer than the 24 tokens that the model reads, its end is left out: dog dog", long)
        self.assertEqual(self.run_program("search", "abcdefghij klmnopqrstuv", "--database", self.database).stderr, "")
        by_name = [one["path"] for one in self.search("x", "--sort", "name", "--limit", "30")["results"] if one["relevant"]]
        self.assertEqual(by_name, sorted(by_name))
        self.assertEqual(self.search("x", "--folder", self.folder / "elsewhere")["results"], [])
        self.assertEqual(len(self.search("x", "--folder", self.pictures, "--limit", "100")["results"]), 30)
        liked = self.run_program("recommend", self.pictures / "4.png", "id:3", "--database", self.database, "--json", "--limit", "5")
        names = {Path(one["path"]).name for one in json.loads(liked.stdout)["results"]}
        self.assertEqual(len(names), 5)
        self.assertNotIn("4.png", names)
        error = self.run_program("recommend", "nothing.png", "--database", self.database, fails=True).stderr
        self.assertIn("a picture of the catalogue, by path or id:NUMBER", error)
        self.assertIn("pictures that were liked", self.run_program("recommend", "--database", self.database, fails=True).stderr)
        table = self.run_program("search", "x", "--database", self.database).stdout
        self.assertIn(f"{self.search('x')['relevant']} relevant of 30", table)


class Approximately(Case):
    """Search by graphs beside the catalogue."""

    graphs = property(lambda self: Path(f"{self.database}.hnsw"))

    def same_answers(self):
        for query in ("dog", "a cat + snow", "id:3"):
            self.assertEqual(self.search(query, "--approximate"), self.search(query))

    def test_graphs_follow_the_catalogue(self):
        for i in range(70):
            (self.pictures / f"{i}.png").write_bytes(picture(i))
        self.index()
        self.assertFalse(self.graphs.exists())
        made = self.run_program("search", "dog", "--database", self.database, "--approximate").stderr
        self.assertRegex(made, r"pictures\.db\.hnsw: 100\.0 % of the 10 nearest of \d+ held-out texts are found")
        self.same_answers()
        # What is there and right is not written again; what came, is.
        before = self.graphs.stat()
        self.assertNotIn("hnsw", self.index("--approximate").stderr)
        self.assertEqual(self.graphs.stat(), before)
        for i in range(70, 73):
            (self.pictures / f"{i}.png").write_bytes(picture(i))
        (self.pictures / "5.png").unlink()
        self.assertNotIn("held-out", self.index("--approximate").stderr)
        self.assertNotEqual(self.graphs.stat(), before)
        self.same_answers()
        # What is no graph, or another model's, is made anew.
        self.graphs.unlink()
        self.index("--approximate")
        whole = self.graphs.read_bytes()
        links = whole.index(b"links.0")
        for damaged in (b"", whole[:-100], whole[:links] + b"L" + whole[links + 1 :], whole[:-400] + b"\xff" * 400, b"no graph at all"):
            self.graphs.write_bytes(damaged)
            self.assertIn("made anew", self.run_program("search", "dog", "--database", self.database, "--approximate").stderr)
            self.assertEqual(self.graphs.read_bytes(), whole)
            self.same_answers()
        write_model(self.folder / "other", rotated=1)
        self.assertIn("made anew", self.index("--again", "--weights", self.folder / "other", "--approximate").stderr)
        self.same_answers()

    def test_many_pictures(self):
        """Enough that graphs are asked, by rows that no file stands behind."""
        for i in range(40):
            (self.pictures / f"{i}.png").write_bytes(picture(i))
            (self.pictures / f"{i}.txt").write_text(f"a {['dog', 'cat', 'hat', 'house'][i % 4]}")
        self.index()
        draw = random.Random(3)
        with sqlite3.connect(self.database) as connection:
            real = [struct.unpack("<128f", value) for (value,) in connection.execute("SELECT value FROM vector")]
            pictures, vectors = [], []
            for i in range(30000):
                row = [value + 0.05 * draw.gauss(0, 1) for value in real[i % 40]]
                length = math.sqrt(sum(value * value for value in row))
                pictures.append((1000 + i, f"/nowhere/{i}.png"))
                vectors.append((1000 + i, struct.pack("<128f", *(value / length for value in row))))
            connection.executemany("INSERT INTO picture VALUES(?, ?, 1, 1, 'x', 1, 1, '', '', '', '')", pictures)
            connection.executemany("INSERT INTO vector VALUES(?, ?)", vectors)
        made = self.run_program("search", "dog", "--database", self.database, "--approximate", "--by", "meaning").stderr
        found = float(re.search(r"hnsw: ([0-9.]+) % of", made).group(1))
        self.assertGreater(found, 80)
        queries = [f"id:{1000 + 701 * i}" for i in range(12)]
        common = 0
        for query in queries:
            exact, near = ([one["id"] for one in self.search(query, "--limit", 10, *more)["results"]] for more in ((), ("--approximate",)))
            self.assertEqual(near[0], exact[0])
            common += len(set(exact) & set(near))
        self.assertGreater(common, 0.9 * 10 * len(queries))


class Tagging(Case):
    """Labels of a tree for 60 pictures of three kinds, of which a file says the kinds of two thirds."""

    def setUp(self):
        super().setUp()
        self.kinds = ["dog", "cat", "oak"]
        for i in range(60):
            # Pictures of a kind have its colours; the model tells colours apart, whatever it calls them.
            (self.pictures / f"{i}.png").write_bytes(picture(1000 * (i % 3), side=64 + i))
        self.index()
        self.labels = self.folder / "labels.txt"
        self.labels.write_text("animal\n  dog\n  cat\nplant\n  oak\n")
        self.known = self.folder / "pictures" / "known.tsv"
        self.known.write_text("".join(f"{i}.png\t{self.kinds[i % 3]}\n" for i in range(40)) + "gone.png\tdog\n1.png\tfish\n")

    def tag(self, *arguments, fails=False):
        return self.run_program("tag", "--labels", self.labels, "--database", self.database, *arguments, fails=fails)

    def test_labels_of_a_tree(self):
        out = self.folder / "labels.json"
        result = self.tag("--labelled", self.known, "--out", out, "--least", "0.2")
        self.assertIn("1 lines about pictures that the catalogue has not", result.stderr)
        self.assertIn('1 labels that are not among those asked for, such as "fish"', result.stderr)
        entries = json.loads(out.read_text())
        self.assertEqual(len(entries), 60)
        for entry in entries:
            found = {label["label"]: label for label in entry["labels"]}
            for label in entry["labels"]:  # never without what it is below, nor more probable than that
                if label["above"]:
                    self.assertLessEqual(label["probability"], found[label["above"]]["probability"])
        csv = self.folder / "labels.csv"
        self.tag("--out", csv, "--least", "0", "--top", "1")
        self.assertEqual(csv.read_text().splitlines()[0], "path,label,probability,above")
        self.assertGreaterEqual(len(csv.read_text().splitlines()), 61)

    def test_tags_and_sidecars(self):
        with sqlite3.connect(self.database) as connection:
            connection.execute("INSERT INTO tag SELECT id, 'animal', 0 FROM picture WHERE path LIKE '%/7.png'")
        self.tag("--apply", "--xmp", "--least", "0", "--top", "9")
        self.assertEqual(len(self.search("x", "--tag", "animal", "--limit", "100")["results"]), 59)  # what is refused stays so
        self.check_whole()
        sidecar = self.pictures / "3.png.xmp"
        self.assertIn("<rdf:li>oak</rdf:li>", sidecar.read_text())
        sidecar.write_text(sidecar.read_text().replace("<rdf:li>oak</rdf:li>", "<rdf:li>my own</rdf:li>"))
        self.tag("--xmp", "--least", "0", "--top", "9")
        self.assertEqual(sidecar.read_text().count("<rdf:li>oak</rdf:li>"), 1)
        self.assertEqual(sidecar.read_text().count("<rdf:li>dog</rdf:li>"), 1)
        self.assertIn("<rdf:li>my own</rdf:li>", sidecar.read_text())

    def test_wrong_use(self):
        for arguments, message in ((["--least", "2"], "a number from 0 to 1"), (["--aim", "0.9"], "--labelled beside it"), (["--out", "x.txt"], ".csv or .json"),
                                   (["--labelled", self.labels], "labels of pictures in the catalogue")):  # fmt: skip
            self.assertIn(message, self.tag(*arguments, fails=True).stderr)
        self.labels.write_text("a\n      b\n")
        self.assertIn("labels.txt line 2", self.tag(fails=True).stderr)


class Moderating(Case):
    """A policy of two rules for 60 pictures, every third of which is against a rule."""

    def setUp(self):
        super().setUp()
        for i in range(60):
            (self.pictures / f"{i}.png").write_bytes(picture(i))
        self.index()
        self.policy = self.folder / "policy.json"
        self.known = self.pictures / "known.tsv"
        self.known.write_text("".join(f"{i}.png" + ("\tstripes" if i % 3 == 1 else "") + "\n" for i in range(60)))

    def write(self, *rules):
        self.policy.write_text(json.dumps({"rules": rules}))

    def moderate(self, *arguments, fails=False):
        return self.run_program("moderate", "--policy", self.policy, "--database", self.database, *arguments, fails=fails)

    def test_examples_block_what_is_like_them(self):
        self.write({"name": "mine", "examples": ["pictures/4.png"], "same": 0.9999})
        lines = [line.split("\t") for line in self.moderate().stdout.splitlines()]
        blocked = {Path(line[1]).name for line in lines}
        self.assertIn("4.png", blocked)
        self.assertEqual({(line[0], line[2], line[3]) for line in lines}, {("block", "mine", "like pictures/4.png")})
        log = self.folder / "log.jsonl"
        self.moderate("--log", log)
        self.moderate("--log", log)  # is appended to
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        self.assertEqual(len(entries), 120)
        self.assertEqual(len({entry["policy"] for entry in entries}), 1)
        mine = next(entry for entry in entries if entry["path"].endswith("/4.png"))
        self.assertEqual((mine["decision"], mine["rule"], mine["evidence"]["example"]), ("block", "mine", "pictures/4.png"))
        self.assertTrue(mine["content"] and mine["time"] and mine["model"].startswith("quickstart"))
        self.policy.write_text(self.policy.read_text() + " ")
        self.moderate("--log", log)
        self.assertEqual(len({json.loads(line)["policy"] for line in log.read_text().splitlines()}), 2)

    def test_labelled_pictures_set_thresholds(self):
        self.write({"name": "stripes", "phrases": ["stripes", "lines"]}, {"name": "other", "phrases": ["x"], "review": 1, "block": 1})
        curves = self.folder / "curves"
        curves.mkdir(exist_ok=True)
        result = self.moderate("--labelled", self.known, "--miss", "0", "--curves", curves, "--json")
        self.assertRegex(result.stderr, "moderate: stripes, on [0-9]+ held-out pictures of which [0-9]+ are it: average precision [0-9.]+; at 1 % false")
        self.assertIn("other: no held-out pictures", result.stderr)
        entries = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual(len(entries), 60)
        # Nothing that is labelled is missed where nothing may be.
        self.assertEqual([entry["path"] for entry in entries if entry["decision"] == "allow" and int(Path(entry["path"]).stem) % 3 == 1], [])
        self.assertTrue((curves / "1_stripes.svg").read_text().startswith("<svg"))
        counts = [int(part.split()[0]) for part in result.stderr.splitlines()[-1].split(", ")]
        self.assertEqual(sum(counts), 60)

    def write_head(self, *layers):
        """A safetensors file of dense layers, each a list of rows and of biases."""
        header, data = {}, b""
        for number, (rows, biases) in enumerate(layers):
            for name, shape, values in (("weight", [len(rows), len(rows[0])], [value for row in rows for value in row]), ("bias", [len(biases)], biases)):
                packed = struct.pack(f"<{len(values)}f", *values)
                header[f"layers.{number}.{name}"] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(packed)]}
                data += packed
        text = json.dumps(header).encode()
        (self.folder / "head.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)

    def test_a_head_decides(self):
        vectors = {Path(path).stem: struct.unpack("<128f", value) for path, value in self.rows("SELECT path, value FROM picture JOIN vector USING(id)")}
        cosines = {name: sum(a * b for a, b in zip(vectors["4"], vector)) for name, vector in vectors.items()}
        # 100 * (cosine - 0.95), in two layers that are one.
        self.write_head(([[10 * value for value in vectors["4"]]], [1]), ([[10]], [-105]))
        self.write({"name": "mine", "head": {"file": "head.safetensors"}, "review": 0.3, "block": 0.9})
        entries = {Path(entry["path"]).stem: entry for entry in map(json.loads, self.moderate("--json").stdout.splitlines())}
        for name, entry in entries.items():
            expected = 1 / (1 + math.exp(-100 * (cosines[name] - 0.95)))
            self.assertAlmostEqual(entry["scores"]["mine"], expected, places=3)
            if abs(expected - 0.3) > 0.01 and abs(expected - 0.9) > 0.01:
                self.assertEqual(entry["decision"], "block" if expected >= 0.9 else "review" if expected >= 0.3 else "allow")
        self.assertEqual(entries["4"]["evidence"], {"head": "head.safetensors", "score": entries["4"]["scores"]["mine"]})
        # The same as a number, of which the low ones are against the rule.
        self.write({"name": "others", "head": {"file": "head.safetensors", "output": "number", "below": True}, "review": 4, "block": -1e9})
        decisions = {Path(entry["path"]).stem: entry["decision"] for entry in map(json.loads, self.moderate("--json").stdout.splitlines())}
        for name, decision in decisions.items():
            if abs(cosines[name] - 0.99) > 1e-3:
                self.assertEqual(decision, "review" if cosines[name] < 0.99 else "allow")
        self.known.write_text("".join(f"{i}.png" + ("\tothers" if i % 3 == 1 else "") + "\n" for i in range(60)))
        result = self.moderate("--labelled", self.known, "--miss", "0", "--json")
        self.assertRegex(result.stderr, "moderate: others, on [0-9]+ held-out pictures")
        missed = [entry for entry in map(json.loads, result.stdout.splitlines()) if entry["decision"] == "allow" and int(Path(entry["path"]).stem) % 3 == 1]
        self.assertEqual(missed, [])
        self.write_head(([[1.0] * 64], [0]))
        self.assertIn("a head from 128 numbers", self.moderate(fails=True).stderr)

    def test_wrong_policies(self):
        for text, message in (("{", "expected JSON"), ("[]", "with a rule or more"), ('{"rules": []}', "with a rule or more"), ('{"rules": [{"name": "a"}]}', "phrases, examples or a head"),
                              ('{"rules": [{"name": "a", "head": {"file": "x.pth", "between": "tanh"}}]}', "none, relu or gelu"),
                              ('{"rules": [{"name": "a", "head": {"between": "relu"}}]}', "a file"),
                              ('{"rules": [{"name": "a", "phrases": ["x"], "head": {"file": "x.pth"}}]}', "a head or phrases"),
                              ('{"rules": [{"name": "a", "head": {"file": "missing.pth"}}]}', "missing.pth"),
                              ('{"rules": [{"name": "a", "phrases": ["x"], "reveiw": 1}]}', "reveiw: expected name, phrases"),
                              ('{"rules": [{"name": "a", "phrases": ["x"], "review": 2}]}', "review and block from 0 to 1"),
                              ('{"rules": [{"name": "a", "phrases": ["x"], "review": 0.9, "block": 0.1}]}', "review at most block"),
                              ('{"rules": [{"name": "a", "phrases": ["x"]}, {"name": "a", "phrases": ["y"]}]}', "every name once"),
                              ('{"rules": [{"name": "a", "examples": ["none.png"]}]}', "none.png")):  # fmt: skip
            self.policy.write_text(text)
            self.assertIn(message, self.moderate(fails=True).stderr)
        self.write({"name": "a", "phrases": ["x"]})
        self.assertIn("--labelled beside it", self.moderate("--miss", "0.1", fails=True).stderr)


class Serving(Case):
    """A server on 60 pictures, one of which is also the target of attacks."""

    def setUp(self):
        super().setUp()
        for i in range(60):
            (self.pictures / f"{i}.png").write_bytes(picture(i))
        self.index()
        self.start()

    def start(self, *arguments):
        self.server = subprocess.Popen([self.program, "serve", "--database", self.database, "--port", "0", *arguments], cwd=self.folder,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
        self.address = urllib.parse.urlsplit(self.server.stdout.readline()).netloc

    def tearDown(self):
        self.server.send_signal(signal.SIGTERM)
        self.assertEqual(self.server.wait(timeout=30), 0, self.server.stderr.read())
        self.server.stdout.close()
        self.server.stderr.close()

    def ask(self, path, method="GET", body=None, headers=None):
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read(), dict(response.getheaders())
        finally:
            connection.close()

    def json(self, path, method="GET", body=None, headers=None):
        status, text, _ = self.ask(path, method, body, headers)
        self.assertEqual(status, 200, text)
        return json.loads(text)

    def test_what_it_answers(self):
        status, page, headers = self.ask("/")
        self.assertEqual(status, 200)
        self.assertIn(b"<!doctype html>", page)
        self.assertIn("default-src 'self'", headers["Content-Security-Policy"])
        for name in ("page.css", "page.js"):
            self.assertEqual(self.ask("/" + name)[0], 200)
        found = self.json("/api/search?q=x&limit=3")
        self.assertEqual(len(found["results"]), 3)
        self.assertEqual(found["searched"], 60)
        one = found["results"][0]
        for path in (f"/thumbnail/{one['id']}", f"/picture/{one['id']}", f"/heat/{one['id']}?q=red"):
            status, data, headers = self.ask(path)
            self.assertEqual((status, headers["Content-Type"], data[:3]), (200, "image/jpeg", b"\xff\xd8\xff"), path)
        same = self.json("/api/search", "POST", (self.pictures / "20.png").read_bytes())
        self.assertTrue(same["results"][0]["path"].endswith("/20.png"))
        self.assertEqual(self.json("/api/status")["pictures"], 60)
        tag = json.dumps({"id": one["id"], "label": "<i>odd</i> & fine", "accepted": True})
        self.json("/api/tag", "POST", tag, {"Content-Type": "application/json"})
        self.assertEqual(self.json(f"/api/suggest?id={one['id']}")["accepted"], ["<i>odd</i> & fine"])
        self.assertEqual(self.json("/api/search?q=odd&by=words")["results"][0]["id"], one["id"])
        self.json("/api/tag", "POST", tag.replace("true", "false"), {"Content-Type": "application/json"})
        self.assertEqual(self.json("/api/search?q=odd&by=words")["results"], [])
        (self.pictures / "twin.png").write_bytes((self.pictures / "1.png").read_bytes())
        self.index()
        for _ in range(50):
            if self.json("/api/status")["pictures"] == 61:
                break
            time.sleep(0.1)
        groups = self.json("/api/duplicates")["groups"]
        pairs = [sorted(Path(one["path"]).name for one in group["pictures"]) for group in groups if group["same_file"]]
        self.assertIn(["1.png", "twin.png"], pairs)

    def test_attacks(self):
        secret = self.folder / "secret.txt"
        secret.write_text("secret")
        for path in ("/../secret.txt", "/%2e%2e/secret.txt", "/thumbnail/../secret.txt", f"/picture/{secret}", "/picture/1%00", "/picture/-1",
                     "/picture/99999999999999999999", "/page.js/../../secret.txt", "/thumbnail/1/..", "/etc/passwd", "//etc/passwd"):  # fmt: skip
            status, body, _ = self.ask(path)
            self.assertIn(status, (400, 404), path)
            self.assertNotIn(b"secret\n", body)
        port = self.address.rsplit(":", 1)[1]
        self.assertEqual(self.ask("/", headers={"Host": "evil.example"})[0], 421)
        self.assertEqual(self.ask("/", headers={"Host": f"localhost:{port}"})[0], 200)
        body = json.dumps({"id": 1, "label": "x", "accepted": True})
        for headers, expected in (({"Origin": "http://evil.example", "Content-Type": "application/json"}, 403), ({"Content-Type": "text/plain"}, 415),
                                  ({"Origin": f"http://{self.address}", "Content-Type": "application/json"}, 200)):  # fmt: skip
            self.assertEqual(self.ask("/api/tag", "POST", body, headers)[0], expected)
        for wrong in ("{", "[]", '{"id": "1", "label": "x", "accepted": true}', '{"id": 1, "label": "", "accepted": true}',
                      '{"id": 1, "label": "a\\u0000b", "accepted": true}', '{"id": 12345, "label": "x", "accepted": true}',
                      json.dumps({"id": 1, "label": "x" * 201, "accepted": True}), "[" * 100000):  # fmt: skip
            self.assertIn(self.ask("/api/tag", "POST", wrong, {"Content-Type": "application/json"})[0], (400, 404), wrong[:50])
        for query in ("q=a%20%2B", "q=", "q=x&limit=0", "q=x&limit=1001", "q=x&by=size", "q=x&sort=%00", "q=" + "x" * 3000, "q=x&nothing=1", "q=id:99999",
                      "q=x&word=%22", "q=" + "%22"):  # fmt: skip
            self.assertEqual(self.ask("/api/search?" + query)[0], 400, query[:40])
        # What FTS5 and SQL would take as theirs is text.
        for query in ("q=a%20OR%20b%20NEAR(", "q='%3B--", "q=%22%22%22x%22", "q=x&tag='%20OR%201=1", "q=*&by=words", "q=%F0%9F%90%95%20%C3%28"):
            self.assertIn(self.ask("/api/search?" + query)[0], (200, 400), query)
        self.assertEqual(self.json("/api/search?q=x&tag=%27%20OR%20%271%27=%271")["results"], [])
        self.assertEqual(self.json("/api/search?q=x&folder=/" + "a" * 300)["results"], [])
        # No path of the machine is looked at for a query that names one.
        self.assertEqual(self.json(f"/api/search?q={urllib.parse.quote(str(self.pictures / '5.png'))}")["searched"], 60)
        for body, expected in ((b"", 400), (b"no picture", 400), (picture(1)[:200], 400), (b"x" * (25 << 20), 413)):
            try:
                self.assertEqual(self.ask("/api/search", "POST", body)[0], expected, len(body))
            except (ConnectionResetError, BrokenPipeError):
                self.assertEqual(expected, 413)  # it does not read what it refuses
        bomb = picture(1)[:16] + struct.pack(">II", 60000, 60000) + picture(1)[24:]
        self.assertEqual(self.ask("/api/search", "POST", bomb)[0], 400)
        self.assertEqual(self.ask("/api/search?q=x", "PUT")[0], 405)
        self.assertEqual(self.ask("/" + "x" * 9000)[0] in (404, 414), True)
        # A file that becomes a link, or goes, is not served; its thumbnail is the picture's still.
        one = next(found for found in self.json("/api/search?q=x&limit=60")["results"] if found["path"].endswith("/7.png"))
        (self.pictures / "7.png").unlink()
        self.assertEqual(self.ask(f"/picture/{one['id']}")[0], 404)
        (self.pictures / "7.png").symlink_to(self.pictures / "8.png")
        self.assertEqual(self.ask(f"/picture/{one['id']}")[0], 404)
        (self.pictures / "7.png").unlink()
        (self.pictures / "7.png").write_text("secret that took the picture's place")
        status, body, _ = self.ask(f"/picture/{one['id']}")
        self.assertEqual(status, 400)
        self.assertNotIn(b"secret", body)
        self.assertEqual(self.ask(f"/thumbnail/{one['id']}")[0], 200)
        shutil.move(self.pictures, self.folder / "moved")
        self.pictures.symlink_to(self.folder / "moved")
        self.assertEqual(self.ask(f"/picture/{one['id'] + 1}")[0], 404)
        self.pictures.unlink()
        shutil.rmtree(self.folder / "moved")
        self.pictures.mkdir()

    def test_slow_and_broken_clients_stop_nobody(self):
        host, port = self.address.rsplit(":", 1)
        slow = []
        for i in range(60):
            connection = socket.create_connection((host, int(port)))
            connection.sendall([b"GET / HT", b"POST /api/search HTTP/1.1\r\nHost: " + self.address.encode() + b"\r\nContent-Length: 1000\r\n\r\nx",
                                b"GET /picture/1 HTTP/1.1\r\nHost: "][i % 3])  # fmt: skip
            slow.append(connection)
        begin = time.monotonic()
        for _ in range(20):
            self.json("/api/search?q=x")
        self.assertLess(time.monotonic() - begin, 20)  # each would wait for the slow ones' end
        begin = time.monotonic()
        while time.monotonic() - begin < 25:
            for connection in slow:
                try:
                    connection.sendall(b"x")  # a byte at a time does not keep a connection
                except OSError:
                    pass
            time.sleep(1)
        cut = 0
        for connection in slow:
            connection.settimeout(5)
            try:
                while connection.recv(4096):
                    pass
                cut += 1
            except OSError as error:
                cut += not isinstance(error, TimeoutError)
            connection.close()
        self.assertEqual(cut, len(slow))
        for garbage in (b"\0" * 100, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 100000, b"\r\n" * 1000):
            with socket.create_connection((host, int(port))) as connection:
                try:
                    connection.sendall(garbage)
                except OSError:
                    pass
        self.json("/api/search?q=x")

    def test_many_requests_a_tenth_of_them_wrong(self):
        wanted = {number: [one["id"] for one in self.json(f"/api/search?q=word{number}")["results"]] for number in range(20)}

        def one(i):
            draw = random.Random(i)
            if draw.random() < 0.1:
                return self.ask(draw.choice(["/api/search?q=", "/picture/x", "/api/tag", "/api/search?limit=x&q=1", "/%ff"]))[0] in (400, 404, 415)
            number = draw.randrange(20)
            status, body, _ = self.ask(f"/api/search?q=word{number}")
            return status == 200 and [found["id"] for found in json.loads(body)["results"]] == wanted[number]

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            self.assertTrue(all(pool.map(one, range(OPTIONS.requests))))
        memory = Path(f"/proc/{self.server.pid}/status").read_text()
        self.assertIn("VmRSS", memory)

    def test_killed_under_load(self):
        ids = [id for (id,) in self.rows("SELECT id FROM picture")]
        said, under_way = self.kill_servers(self.database, OPTIONS.kills, ids)
        self.check_tags(self.rows("SELECT id, label FROM tag"), said, under_way)
        self.check_whole()
        # A tag and its words are written at once.
        for id, label in list(said)[:5]:
            self.assertIn(id, [one["id"] for one in self.search(label, "--by", "words")["results"]])

    def test_a_token_is_asked_for(self):
        self.tearDown()
        self.assertIn("--token", self.run_program("serve", "--database", self.database, "--listen", "0.0.0.0", fails=True).stderr)
        token = "a-token-of-24-characters"
        self.start("--listen", "127.0.0.2", "--token", token)
        self.assertEqual(self.ask("/")[0], 401)
        self.assertEqual(self.ask("/?token=wrong")[0], 401)
        self.assertEqual(self.ask("/api/search?q=x", headers={"Authorization": "Bearer " + token})[0], 200)
        status, _, headers = self.ask("/?token=" + token)
        self.assertEqual(status, 200)
        cookie = headers["Set-Cookie"].split(";")[0]
        self.assertEqual(self.ask("/thumbnail/1", headers={"Cookie": cookie})[0], 200)
        self.assertEqual(self.ask("/thumbnail/1", headers={"Cookie": "csrftoken=x; " + cookie + "; y=z"})[0], 200)
        self.assertEqual(self.ask("/thumbnail/1", headers={"Cookie": "csrf" + cookie})[0], 401)
        self.assertEqual(self.ask("/thumbnail/1", headers={"Cookie": "token="})[0], 401)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, type=os.path.abspath)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--requests", type=int, default=400)
    OPTIONS, rest = parser.parse_known_args()
    ProgramCase.program = OPTIONS.program
    unittest.main(argv=[sys.argv[0], *rest])

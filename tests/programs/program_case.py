"""What the tests of the program tandem share that run it on a small model: a folder with the model, and runs in it."""

import http.client
import json
import random
import shutil
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.parse
from pathlib import Path

from small_model import write_model


class ProgramCase(unittest.TestCase):
    program = None  # which tandem; a test's main sets it

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="tandem-programs-")).resolve()
        write_model(cls.folder / "quickstart")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def empty_pictures(self):
        """The folder for a test's pictures, with nothing in it."""
        self.pictures = self.folder / "pictures"
        shutil.rmtree(self.pictures, ignore_errors=True)
        self.pictures.mkdir()

    def run_anyway(self, *arguments, **options):
        return subprocess.run([self.program, *map(str, arguments)], capture_output=True, text=True, errors="replace", cwd=self.folder, **options)

    def run_program(self, *arguments, code=0):
        result = self.run_anyway(*arguments)
        self.assertEqual(result.returncode, code, result.stderr)
        return result

    def kill_servers(self, place, kills, ids):
        """Kills `tandem serve` so often while clients search and set tags; returns the tags (picture, label) that it said were set, and
        how many more may have been: those that were under way."""
        draw = random.Random(5)
        said, under_way = set(), 0
        for n in range(kills):
            server = subprocess.Popen([self.program, "serve", "--database", place, "--port", "0"], cwd=self.folder, stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL, text=True)  # fmt: skip
            address = urllib.parse.urlsplit(server.stdout.readline()).netloc

            def client(which):
                for i in range(10**6):
                    id, label = ids[(7 * i + which) % len(ids)], f"kill{n}x{which}x{i}"
                    connection = http.client.HTTPConnection(address, timeout=30)
                    try:
                        if which == 0:
                            connection.request("GET", f"/api/search?q=word{i % 9}")
                        else:
                            body = json.dumps({"id": id, "label": label, "accepted": True})
                            connection.request("POST", "/api/tag", body, {"Content-Type": "application/json"})
                        answer = connection.getresponse()
                        answer.read()
                        if which != 0 and answer.status == 200:
                            said.add((id, label))
                    except (OSError, http.client.HTTPException):
                        return
                    finally:
                        connection.close()

            clients = [threading.Thread(target=client, args=(which,)) for which in range(4)]
            for thread in clients:
                thread.start()
            time.sleep(draw.uniform(0.01, 0.3))
            server.kill()
            server.wait()
            server.stdout.close()
            for thread in clients:
                thread.join()
            under_way += len(clients) - 1
        return said, under_way

    def check_tags(self, found, said, under_way):
        """What was said to be set is there, once, and of the rest no more than was under way."""
        self.assertEqual(len(found), len(set(found)))
        self.assertEqual(said - set(found), set())
        self.assertLessEqual(len(found) - len(said), under_way)
        self.assertGreater(len(said), 0)

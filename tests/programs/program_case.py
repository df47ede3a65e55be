"""What the tests of the program tandem share that run it on a small model: a folder with the model, and runs in it."""

import shutil
import subprocess
import tempfile
import unittest
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
